//! Heads and bodies from anywhere: nothing panics, pieces make no difference, and what is written anew reads the same.

use bytes::Bytes;
use http::Method;
use http1::{Decoder, Framing, Malformed, Outbox, Part, RequestHead, parse_answer, parse_request};
use testbed::fuzz;

const REQUESTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /a?b=c HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: 5\r\nConnection: keep-alive, x\r\n\r\nhello",
    b"PUT http://b/x HTTP/1.0\r\nHost: b\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n5\r\nhello\r\n0\r\nx: 1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nCookie: a=1; b=2\r\nExpect: 100-continue\r\nTE: trailers\r\n\r\n",
    b"\r\nGET /%2f\xc3\xa4 HTTP/1.1\nHost: a\n\n",
];
const ANSWERS: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 304\r\nETag: \"x\"\r\n\r\n",
    b"HTTP/1.0 200 \r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n5;a=b\r\nhello\r\n0\r\nx: 1\r\n\r\n",
];
const BODIES: &[&[u8]] = &[
    b"5\r\nhello\r\n0\r\n\r\n",
    b"a;name=\"value\"\r\n0123456789\r\n2 \r\nhi\r\n000\r\nx: 1\r\ny: 2\r\n\r\nGET / HTTP/1.1\r\n",
    b"FFFFFFFFFFFFFFFF\r\nx",
];
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b", ",
    b"chunked",
    b"identity",
    b"0\r\n\r\n",
    b"18446744073709551615",
    b" HTTP/1.1",
    b"http://",
    b"\r\n ",
    b"Connection: close\r\n",
    b"0x",
    b"+",
    b"-1",
];

/// Method, target, framing, and the fields.
type Told = (Method, Vec<u8>, Framing, Vec<[Vec<u8>; 2]>);

fn told(head: &RequestHead) -> Told {
    let fields = head.fields.iter().map(|field| [field.name.to_vec(), field.value.to_vec()]);
    (head.method.clone(), head.target().to_vec(), head.framing, fields.collect())
}

#[test]
fn fuzz_requests() {
    fuzz::run("requests", REQUESTS, WORDS, |input, rng| {
        let parsed = parse_request(input);
        if let Ok(Some((head, length))) = &parsed {
            assert!(*length <= input.len());
            // What follows a head is no part of it, and a part of it is none.
            let (again, same) = parse_request(&input[..*length]).expect("as before").expect("whole");
            assert_eq!((told(&again), same), (told(head), *length));
            let part = rng.usize(0..*length);
            assert!(!matches!(parse_request(&input[..part]), Ok(Some((_, shorter))) if shorter != *length), "a shorter head in {part}");
            if head.target().starts_with(b"/") || head.target() == b"*" {
                written_reads_the_same(head);
            }
        }
    });
}

/// As the target will read it.
fn written_reads_the_same(head: &RequestHead) {
    let mut outbox = Outbox::default();
    outbox.put_request(head);
    let written = taken(&mut outbox);
    // What is added to a head may be too much for one; that is for whoever reads it to refuse.
    if let Ok(Some((again, length))) = parse_request(&written) {
        assert_eq!(length, written.len(), "something stands behind the head");
        let (method, target, framing, fields) = told(&again);
        let (own_method, own_target, own_framing, own_fields) = told(head);
        assert_eq!((method, target, fields), (own_method, own_target, own_fields));
        assert!(framing == own_framing || framing.is_empty() && own_framing.is_empty(), "{framing:?} {own_framing:?}");
        assert!(!again.is_http10);
    } else {
        assert!(written.len() > http1::limits::HEAD_BYTES_MAX / 2 || head.fields.len() + 2 > http1::limits::FIELDS_MAX, "unreadable");
    }
}

fn taken(outbox: &mut Outbox) -> Vec<u8> {
    let mut written = Vec::new();
    while !outbox.is_empty() {
        let before = written.len();
        outbox.pieces().iter().for_each(|piece| written.extend_from_slice(piece));
        outbox.advance(written.len() - before);
    }
    written
}

#[test]
fn fuzz_answers() {
    fuzz::run("answers", ANSWERS, WORDS, |input, rng| {
        let asked = if rng.bool() { Method::GET } else { Method::HEAD };
        if let Ok(Some((head, length))) = parse_answer(input, &asked) {
            assert!(length <= input.len() && head.status.as_u16() >= 100);
            let (again, same) = parse_answer(&input[..length], &asked).expect("as before").expect("whole");
            assert_eq!((again.status, again.framing, again.fields.len(), same), (head.status, head.framing, head.fields.len(), length));
            let mut outbox = Outbox::default();
            outbox.put_answer(&head, &[b"date: x\r\n"]);
            assert!(!taken(&mut outbox).is_empty());
        }
    });
}

/// Data, trailers, and what is left; or that it is malformed.
type Read = Result<(Vec<u8>, usize, Vec<u8>, bool), Malformed>;

fn read(framing: Framing, pieces: &[&[u8]]) -> Read {
    let (mut decoder, mut data, mut trailers, mut left) = (Decoder::new(framing), Vec::new(), 0, Vec::new());
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(part) = decoder.decode(&mut input)? {
            match part {
                Part::Data(bytes) => data.extend_from_slice(&bytes),
                Part::Trailers(fields) => trailers += fields.len(),
            }
        }
        left.extend_from_slice(&input);
    }
    Ok((data, trailers, left, decoder.is_done()))
}

#[test]
fn fuzz_bodies() {
    fuzz::run("bodies", BODIES, WORDS, |input, rng| {
        let framing = match rng.u8(0..4) {
            0 => Framing::Length(rng.u64(0..40)),
            1 => Framing::UntilClose,
            _ => Framing::Chunked,
        };
        let pieces = fuzz::pieces(input, rng);
        assert_eq!(read(framing, &pieces), read(framing, &[input]), "{framing:?} in {} pieces", pieces.len());
    });
}
