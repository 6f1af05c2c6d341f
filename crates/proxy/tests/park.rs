//! Connections that rest give their buffers back, and nobody notices.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use common::{House, Target, body, eventually, routing};

const GET: &str = "GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";

fn parked(house: &House) -> usize {
    let text = house.proxy.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix("changeover_connections_parked "));
    line.expect("the gauge").parse().expect("a number")
}

#[test]
fn a_connection_that_rested_answers_as_before() {
    let target = Target::saying("here");
    let house = House::serving(&target);
    let mut client = house.client();
    for _ in 0..3 {
        client.send(GET);
        assert_eq!(body(&client.answer()), "here");
        eventually("it is parked", || parked(&house) == 1);
    }
    // A head in two pieces: what is half here is not put aside.
    client.send("GET / HTTP/1.1\r\nhost: we");
    eventually("it is not parked any more", || parked(&house) == 0);
    client.send("b.test\r\n\r\n");
    assert_eq!(body(&client.answer()), "here");
    eventually("it is parked", || parked(&house) == 1);
    drop(client);
    eventually("it is gone", || parked(&house) == 0);
}

/// Answers as soon as a head is there, whatever follows, and records all bytes.
fn hasty_target() -> (SocketAddr, Arc<Mutex<String>>) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("address");
    let seen = Arc::new(Mutex::new(String::new()));
    let record = seen.clone();
    std::thread::spawn(move || {
        for mut stream in socket.incoming().flatten() {
            let record = record.clone();
            std::thread::spawn(move || {
                let mut chunk = [0; 4096];
                while let Ok(size @ 1..) = stream.read(&mut chunk) {
                    let text = String::from_utf8_lossy(&chunk[..size]).into_owned();
                    record.lock().expect("lock").push_str(&text);
                    if text.contains("HTTP/1.1") {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").expect("written");
                    }
                }
            });
        }
    });
    (address, seen)
}

#[test]
fn a_request_whose_body_is_not_all_here_is_not_parked() {
    let (address, seen) = hasty_target();
    let house = House::new(1);
    house.install(routing(&[("v1", 10_000)], &[("v1", &[address])]));
    let (mut client, mut other) = (house.client(), house.client());
    client.send("POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 60\r\n\r\npart");
    assert_eq!(body(&client.answer()), "early");
    other.send(GET);
    assert_eq!(body(&other.answer()), "early");
    // It rests as long as the first one.
    eventually("the other one is parked", || parked(&house) == 1);
    // The rest of the body looks like a request, and must not be taken for one.
    client.try_send("GET /smuggled HTTP/1.1\r\nhost: web.test\r\nx: 123456789\r\n\r\n");
    other.send("GET /last HTTP/1.1\r\nhost: web.test\r\n\r\n");
    assert_eq!(body(&other.answer()), "early");
    let seen = seen.lock().expect("lock").to_ascii_lowercase();
    assert_eq!(seen.matches("\r\nvia: ").count(), 3, "{seen}");
}
