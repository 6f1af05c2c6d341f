//! What the proxy itself makes of bytes from outside: nothing panics, and pieces make no difference.

use http1::Fields;
use testbed::fuzz;

use crate::{cohort, flood, frames, head, websocket};

#[test]
fn fuzz_frames_of_http2() {
    let samples: &[&[u8]] = &[
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a",
        b"\0\0\x08\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",
        b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\x10\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
    ];
    fuzz::run(
        "frames of HTTP/2",
        samples,
        &[b"\0\0\x08\x06\0\0\0\0\0", b"\0\0\0\x04\0\0\0\0\0", b"\xff\xff\xff\0\0\0\0\0\x01"],
        |input, rng| {
            let mut whole = flood::Guard::new(1);
            let expect = whole.received(input, 1);
            let mut guard = flood::Guard::new(1);
            let found = fuzz::pieces(input, rng).into_iter().try_fold(0, |sum, piece| Ok(sum + guard.received(piece, 1)?));
            assert_eq!(found, expect);
            let mut guard = flood::Guard::new(1);
            fuzz::pieces(input, rng).into_iter().for_each(|piece| guard.sent(piece));
            let mut sent = flood::Guard::new(1);
            sent.sent(input);
            assert_eq!(guard.farewell(), sent.farewell());
            let (mut heads, mut rest) = (frames::Frames::default(), input);
            while heads.next(&mut rest).is_some() {}
            assert!(rest.is_empty());
        },
    );
}

#[test]
fn fuzz_frames_of_websockets() {
    let samples: &[&[u8]] =
        &[b"\x81\x05hello\x82\x7e\0\x80", b"\x88\x02\x03\xe8", b"\x81\x85\x01\x02\x03\x04hello\x89\0", b"\x82\x7f\0\0\0\0\0\0\0\x03abc"];
    fuzz::run("frames of WebSockets", samples, &[b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", b"\x88\0", b"\x81\0"], |input, rng| {
        let mut whole = websocket::Frames::default();
        whole.pass(input);
        let mut frames = websocket::Frames::default();
        for mut piece in fuzz::pieces(input, rng) {
            while !piece.is_empty() {
                let passed = frames.pass_one(piece);
                assert!(passed > 0 && passed <= piece.len(), "it stands still");
                piece = &piece[passed..];
            }
        }
        assert_eq!((frames.is_between(), frames.is_closed()), (whole.is_between(), whole.is_closed()));
    });
}

#[test]
fn fuzz_hosts_and_cookies() {
    let samples: &[&[u8]] = &[b"example.com:80", b"[::1]:65535", b"a=1; changeover=00ff; b=\"x\"", b"changeover=; changeover=1"];
    fuzz::run("hosts and cookies", samples, &[b"changeover=", b"; ", b"[::", b"]:", b":", b"@"], |input, _| {
        if let Some(host) = head::host_name(input) {
            assert!(!host.is_empty() && host.len() <= input.len());
            assert!(host.iter().all(|byte| byte.is_ascii_graphic() && !b"/@#?\\ ".contains(byte)), "{}", host.escape_ascii());
        }
        let mut fields = Fields::default();
        // What can be a field's value at all.
        let value: Vec<u8> = input.iter().copied().filter(|byte| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f).collect();
        fields.push_named("cookie", value.trim_ascii());
        if let Some(found) = cohort::cookie(&fields, "changeover") {
            assert!(!found.is_empty() && !found.contains([';', '\r', '\n']));
        }
    });
}
