//! Clients that send a byte now and then.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::frames::{DATA, END_HEADERS, Frames, HEADERS, block};
use common::http2_target::{self, Http2Target};
use common::{Client, House, Target, body, eventually, reason, routing, status};

/// Far more often than the limit on rest asks for, and far less than the pace.
const BETWEEN_BYTES: Duration = Duration::from_millis(20);
const IDLE_MS: u64 = 400;

fn house(target: &Target) -> House {
    let house = House::new(1);
    let versions: &[(&str, &[SocketAddr])] = &[("v1", &[target.address])];
    let mut routed = routing(&[("v1", 10_000)], versions);
    routed.stream_idle_timeout_ms = IDLE_MS;
    house.install(routed);
    house
}

/// Sends the piece again and again until something comes back, or so many were sent; what came.
fn drip(client: &mut Client, piece: &str, times: usize) -> String {
    client.stream.set_read_timeout(Some(BETWEEN_BYTES)).expect("timeout");
    let mut first = [0; 4096];
    for _ in 0..times {
        client.try_send(piece);
        match client.stream.read(&mut first) {
            Ok(read) => return String::from_utf8_lossy(&first[..read]).into_owned(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return String::new(),
        }
    }
    "still going on".to_owned()
}

#[test]
fn a_body_that_drips_is_given_up_however_it_is_framed() {
    let target = Target::saying("ok");
    let house = house(&target);
    for (fields, piece) in [("Content-Length: 100000", "x"), ("Transfer-Encoding: chunked", "1\r\nx\r\n")] {
        let mut client = house.client();
        client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
        let begun = Instant::now();
        let answer = drip(&mut client, piece, 500);
        assert_eq!((status(&answer), reason(&answer)), (408, "request_stalled"), "{fields}: {answer}");
        assert!(begun.elapsed() >= Duration::from_millis(IDLE_MS), "{:?}", begun.elapsed());
    }
    assert_eq!(target.requests(), 0, "it never looked whole to the target");
    assert_eq!(house.proxy.counts(&common::service(), &common::version("v1")).bad, 0, "it is not the version's fault");
}

#[test]
fn a_body_of_http2_that_drips_is_given_up() {
    let target = Target::saying("ok");
    let house = house(&target);
    let mut client = Frames::connect(house.address, &[]);
    client.send(HEADERS, END_HEADERS, 1, &block(&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")]));
    // Reading is what paces it.
    client.stream.set_nonblocking(false).expect("blocking");
    let mut writer = client.stream.try_clone().expect("a copy");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let pace = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket that hears nothing");
            pace.set_read_timeout(Some(BETWEEN_BYTES)).expect("timeout");
            while writer.write_all(&common::frames::frame(DATA, 0, 1, b"x")).is_ok() {
                let _ = pace.recv(&mut [0; 1]);
            }
        });
        let head = client.until(|frame| frame.stream == 1 && frame.kind == HEADERS);
        assert!(head.payload.windows(15).any(|text| text == b"request_stalled") || head.status() == 0, "{head:?}");
        let _ = client.stream.shutdown(std::net::Shutdown::Both);
    });
    eventually("made by the proxy", || house.proxy.metrics().contains("changeover_made_answers_total{reason=\"request_stalled\"} 1\n"));
}

#[test]
fn a_body_that_keeps_its_pace_or_was_fast_arrives() {
    let target = Target::saying("ok");
    let house = house(&target);
    // 10 bytes each 20 ms are 500 a second, for three times as long as the limit on rest.
    let mut client = house.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 600\r\n\r\n");
    let answer = drip(&mut client, "0123456789", 200);
    assert_eq!((status(&answer), body(&answer)), (200, "ok"), "{answer}");
    // What came at once counts for what drips behind it.
    let mut client = house.client();
    client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30060\r\n\r\n{}", "x".repeat(30_000)));
    assert_eq!(status(&drip(&mut client, "x", 200)), 200);
}

#[test]
fn a_call_of_grpc_may_say_little_for_long_and_nobody_else_by_its_name() {
    let call = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc+proto\r\nContent-Length: 60\r\n\r\n";
    let target = Http2Target::new(|_, request, respond| http2_target::echo(request, respond));
    let house = House::new(1);
    let mut routed = routing(&[("v1", 10_000)], &[("v1", &[target.address])]);
    (routed.stream_idle_timeout_ms, routed.protocol) = (IDLE_MS, model::Protocol::Http2);
    house.install(routed);
    let mut client = house.client();
    client.send(call);
    assert_eq!(status(&drip(&mut client, "x", 200)), 200);
    // A target of HTTP/1.1 cannot be meant.
    let target = Target::saying("ok");
    let house = self::house(&target);
    let mut client = house.client();
    client.send(call);
    assert_eq!(status(&drip(&mut client, "x", 200)), 408);
}
