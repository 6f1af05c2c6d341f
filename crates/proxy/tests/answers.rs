//! Answers on their way back: framed once, never whole when they are not, never waiting for a client that does not read.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{GET, House, Target, body, eventually, reason, routing, service, status, version};
use model::Mode;

/// A target that says this to every request.
fn saying(text: &'static str) -> Target {
    Target::new(move |_, stream| stream.write_all(text.as_bytes()).is_ok())
}

fn bad(house: &House) -> u64 {
    house.proxy.counts(&service(), &version("v1")).bad
}

#[test]
fn an_answer_framed_in_two_ways_or_in_an_unknown_one_is_refused() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\na\r\n0123456789\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n0123456789",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n",
    ] {
        let target = saying(text);
        let house = House::serving(&target);
        let answer = house.ask(GET);
        assert_eq!((status(&answer), reason(&answer)), (502, "bad_answer"), "{text:?}");
        assert!(!answer.contains("01234"), "{answer}");
        eventually("counted as bad", || bad(&house) == 1);
    }
    let house = House::serving(&saying("HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nhi"));
    let answer = house.ask(GET);
    assert!(answer.contains("content-length: 2\r\n") && body(&answer) == "hi", "{answer}");
}

#[test]
fn what_is_no_answer_never_reaches_a_client() {
    let many: &str = (0..120).fold(String::new(), |text, number| text + &format!("x-{number}: secret\r\n")).leak();
    let heads = [
        "HTTP/1.1 abc OK\r\nx: secret\r\n",
        "HTTP/1.1 99 Low\r\nx: secret\r\n",
        "HTTP/1.1 1000 High\r\nx: secret\r\n",
        "HTTP/1.2 200 OK\r\nx: secret\r\n",
        "HTTP/2.0 200 OK\r\nx: secret\r\n",
        "ICY 200 OK\r\nx: secret\r\n",
        "<html>secret</html>\r\n",
        "HTTP/1.1 200 OK\r\nx: secret\r\n folded\r\n",
        "HTTP/1.1 200 OK\r\nx : secret\r\n",
        "HTTP/1.1 200 OK\r\nx: secret\0\r\n",
        "HTTP/1.1 200 OK\r\nx: secret\rset-cookie: evil\r\n",
        "HTTP/1.1 200 OK\r\nsecret\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\nx: secret\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: +6\r\nx: secret\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 6, 7\r\nx: secret\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\nx: secret\r\n",
        format!("HTTP/1.1 200 OK\r\n{many}").leak(),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n", "secret".repeat(20_000)).leak(),
    ];
    for head in heads {
        let target = Target::new(move |_, stream| stream.write_all(format!("{head}\r\nsecret").as_bytes()).is_ok());
        let house = House::serving(&target);
        for asked in 1..=2 {
            let answer = house.ask(GET);
            assert_eq!((status(&answer), reason(&answer)), (502, "bad_answer"), "{head:?}: {answer}");
            assert!(!answer.contains("secret"), "{head:?}: {answer}");
            assert_eq!(target.connections.load(Ordering::SeqCst), asked, "{head:?}: its line was used again");
        }
    }
    // A switch that nobody asked for.
    let house = House::serving(&saying("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nsecret"));
    let answer = house.ask(GET);
    assert!(status(&answer) == 502 && !answer.contains("secret"), "{answer}");
}

#[test]
fn answers_without_a_body_stay_without_one() {
    let check = |request: &str, given: &'static str, expect_status: u16, field: &str| {
        let house = House::serving(&saying(given));
        let mut client = house.client();
        client.send(request);
        let head = client.read_until("\r\n\r\n");
        assert_eq!(status(&head), expect_status, "{head}");
        assert!(field.is_empty() || head.contains(field), "{field} not in {head}");
        // The next answer follows at once: nothing was taken for a body.
        client.send(request);
        assert_eq!(status(&client.read_until("\r\n\r\n")), expect_status);
    };
    check("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", 200, "content-length: 10\r\n");
    check(GET, "HTTP/1.1 204 No Content\r\n\r\n", 204, "");
    check(GET, "HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n", 205, "content-length: 0\r\n");
    check(GET, "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-length: 10\r\n\r\n", 304, "etag: \"x\"\r\ncontent-length: 10\r\n");
}

#[test]
fn answers_before_the_last_one_pass_to_who_understands_them() {
    let target = Target::new(|_, stream| {
        // A 100 was not asked for here.
        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\nconnection: y\r\n\r\n");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_ok()
    });
    let house = House::serving(&target);
    let mut client = house.client();
    for _ in 0..2 {
        client.send(GET);
        assert_eq!(client.read_until("\r\n\r\n"), "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n");
        assert_eq!(body(&client.answer()), "ok");
    }
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(status(&client.rest()), 200, "HTTP/1.0 knows none");
}

#[test]
fn what_comes_behind_an_answer_is_never_taken_for_the_next_one() {
    let target = saying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil");
    let house = House::serving(&target);
    let mut client = house.client();
    for _ in 0..3 {
        client.send(GET);
        assert_eq!(body(&client.answer()), "hi");
    }
}

#[test]
fn an_http_1_0_client_learns_by_a_reset_that_its_answer_is_not_whole() {
    let target = Target::new(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
        false
    });
    let house = House::serving(&target);
    let mut client = house.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let mut all = Vec::new();
    let end = client.stream.read_to_end(&mut all);
    assert!(end.is_err(), "a clean end after {:?}", String::from_utf8_lossy(&all));
    // And a whole one ends cleanly.
    let house = House::serving(&saying("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
    let mut client = house.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(client.rest().ends_with("\r\n\r\nhello"));
}

/// An endless answer to a client that reads nothing.
#[test]
fn a_client_that_does_not_read_holds_no_version() {
    let target = Target::new(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(65_536));
        while stream.write_all(chunk.as_bytes()).is_ok() {}
        false
    });
    let house = House::serving(&target);
    let mut client = house.client();
    client.send(GET);
    client.read_until("\r\n\r\n");
    let in_flight = || house.proxy.in_flight(&service(), &version("v1")).requests;
    assert_eq!(in_flight(), 1);
    house.proxy.cut(&service(), &version("v1"));
    eventually("it is let go although nobody reads", || in_flight() == 0);
}

#[test]
fn a_client_that_stops_reading_is_no_fault_of_the_version() {
    let target = Target::new(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(65_536));
        while stream.write_all(chunk.as_bytes()).is_ok() {}
        false
    });
    let house = House::new(1);
    let versions: &[(&str, &[SocketAddr])] = &[("v1", &[target.address])];
    let mut routed = routing(&[("v1", 10_000)], versions);
    routed.stream_idle_timeout_ms = 300;
    house.install(routed);
    let mut client = house.client();
    client.send(GET);
    client.read_until("\r\n\r\n");
    eventually("given up", || house.proxy.in_flight(&service(), &version("v1")).requests == 0);
    drop(client);
    eventually("counted", || house.proxy.counts(&service(), &version("v1")).requests == 1);
    assert_eq!(bad(&house), 0);
}

#[test]
fn a_target_that_stops_reading_is_at_fault() {
    let target = Target::new(|_, _| true);
    // A listener whose connections nobody reads.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    drop(target);
    let house = House::new(1);
    let versions: &[(&str, &[SocketAddr])] = &[("v1", &[deaf.local_addr().expect("bound")])];
    let mut routed = routing(&[("v1", 10_000)], versions);
    routed.stream_idle_timeout_ms = 500;
    house.install(routed);
    let mut client = house.client();
    let mut writer = client.stream.try_clone().expect("a copy");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    let sending = std::thread::spawn(move || while writer.write_all(&[b'x'; 65_536]).is_ok() {});
    let head = client.read_until("\r\n\r\n");
    assert_eq!((status(&head), reason(&head)), (504, "response_timeout"));
    let _ = client.stream.shutdown(Shutdown::Both);
    sending.join().expect("no panic");
    eventually("its fault", || bad(&house) == 1);
}

#[test]
fn a_large_upload_that_is_refused_gets_its_answer() {
    let target = Target::saying("ok");
    let house = House::new(1);
    let versions: &[(&str, &[SocketAddr])] = &[("v1", &[target.address])];
    let mut routed = routing(&[("v1", 10_000)], versions);
    routed.mode = Mode::Maintenance { page: "later".to_owned() };
    house.install(routed);
    for _ in 0..20 {
        let mut client = house.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n");
        // All of it is written before the answer is read, as most clients do.
        client.try_send(&"x".repeat(500_000));
        let answer = client.answer();
        assert_eq!((status(&answer), body(&answer)), (503, "later"));
    }
}

#[test]
fn a_held_request_whose_client_left_is_not_sent() {
    let target = Target::saying("ok");
    let house = House::new(1);
    let versions: &[(&str, &[SocketAddr])] = &[("v1", &[target.address])];
    let mut held = routing(&[("v1", 10_000)], versions);
    held.mode = Mode::Hold { wait_max_ms: 20_000, queue_max: 5 };
    house.install(held.clone());
    let (mut stays, mut leaves) = (house.client(), house.client());
    for client in [&mut stays, &mut leaves] {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    }
    eventually("both wait", || house.proxy.metrics().contains("changeover_held{service=\"web\"} 2\n"));
    drop(leaves);
    house.install(routing(&[("v1", 10_000)], versions));
    assert_eq!(body(&stays.answer()), "ok");
    eventually("the other has gone", || house.proxy.metrics().contains("changeover_held{service=\"web\"} 0\n"));
    assert_eq!(target.requests(), 1);
}

#[test]
fn a_place_in_a_hold_is_free_when_its_request_was_sent() {
    let target = Target::new(|_, _| {
        loop {
            std::thread::park()
        }
    });
    let house = House::new(1);
    let versions: &[(&str, &[SocketAddr])] = &[("v1", &[target.address])];
    let mut held = routing(&[("v1", 10_000)], versions);
    held.mode = Mode::Hold { wait_max_ms: 20_000, queue_max: 1 };
    house.install(held.clone());
    let mut waits = house.client();
    waits.send(GET);
    eventually("it waits", || house.proxy.metrics().contains("changeover_held{service=\"web\"} 1\n"));
    house.install(routing(&[("v1", 10_000)], versions));
    eventually("it was sent", || target.requests() == 1);
    assert!(house.proxy.metrics().contains("changeover_held{service=\"web\"} 0\n"), "though it was not answered yet");
}

#[test]
fn places_in_a_hold_are_kept_across_changes_of_the_routing() {
    let target = Target::saying("ok");
    let house = House::new(1);
    let versions: &[(&str, &[SocketAddr])] = &[("v1", &[target.address])];
    let mut held = routing(&[("v1", 10_000)], versions);
    held.mode = Mode::Hold { wait_max_ms: 20_000, queue_max: 2 };
    house.install(held.clone());
    let mut waiting: Vec<_> = (0..2).map(|_| house.client()).collect();
    waiting.iter_mut().for_each(|client| client.send(GET));
    eventually("both wait", || house.proxy.metrics().contains("changeover_held{service=\"web\"} 2\n"));
    let over = Arc::new(AtomicBool::new(false));
    let (address, stop) = (house.address, over.clone());
    // Newcomers are refused all the time, whatever changes meanwhile.
    let newcomers = std::thread::spawn(move || {
        while !stop.load(Ordering::SeqCst) {
            let mut client = common::client_to(address);
            client.send(GET);
            assert_eq!(reason(&client.answer()), "hold_full");
        }
    });
    for _ in 0..50 {
        house.install(held.clone());
    }
    over.store(true, Ordering::SeqCst);
    newcomers.join().expect("all refused");
    house.install(routing(&[("v1", 10_000)], versions));
    for mut client in waiting {
        assert_eq!(body(&client.answer()), "ok");
    }
}

#[test]
fn a_request_that_is_abandoned_is_counted() {
    let target = Target::new(|_, _| {
        loop {
            std::thread::park()
        }
    });
    let house = House::serving(&target);
    let mut client = house.client();
    client.send(GET);
    eventually("it arrives", || target.requests() == 1);
    // A reset, which ends hyper's connection at its next look; the end of a drain does the same.
    drop(client);
    house.runtime.block_on(house.proxy.drain(std::time::Duration::ZERO, std::time::Duration::from_millis(200)));
    eventually("counted", || house.proxy.counts(&service(), &version("v1")).requests == 1);
    assert_eq!(bad(&house), 0, "the client's own doing");
}

#[test]
fn an_authority_is_answered_before_any_route_and_only_what_it_may_ask() {
    let house = House::serving(&saying("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\ntarget"));
    house.proxy.keyring().issued().set_token("abc", Some("abc.print".into()));
    let mut client = house.client();
    let mut ask = |method: &str, path: &str| {
        client.send(&format!("{method} {path} HTTP/1.1\r\nHost: anybody.test\r\n\r\n"));
        client.read_until("\r\n\r\n")
    };
    let head = ask("HEAD", "/.well-known/acme-challenge/abc");
    assert!(status(&head) == 200 && head.contains("content-length: 9\r\n"), "{head}");
    let check = |path: &str, expected: &str| {
        let answer = house.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!((status(&answer), body(&answer)), (200, expected), "{path}");
    };
    check("/.well-known/acme-challenge/abc", "abc.print");
    check("/.well-known/acme-challenge/abc?x=y", "abc.print");
    check("/.well-known/acme-challenge/abcd", "target");
    check("/.well-known/acme-challenge/", "target");
    check("/.well-known/ACME-challenge/abc", "target");
    let malformed = house.ask("GET /.well-known/acme-challenge/abc HTTP/1.1\r\n\r\n");
    assert_eq!(status(&malformed), 400, "a request without a host stays one");
    house.proxy.keyring().issued().set_token("abc", None);
    check("/.well-known/acme-challenge/abc", "target");
    assert_eq!(status(&ask("GET", "/")), 200, "the connection goes on");
}
