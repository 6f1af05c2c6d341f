//! What one side may not smuggle past the proxy to the other; the target's bytes are the evidence.

mod common;

use std::io::Write;

use common::{House, Target, body, eventually, reason, status};

const SECRET: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// The answer's status and reason; with a status other than 200, nothing may have reached the target.
fn check(what: &str, request: &str, expect: (u16, &str)) {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let answer = house.ask(request);
    assert_eq!((status(&answer), reason(&answer)), expect, "{what}: {answer}");
    if expect.0 != 200 {
        assert_eq!(target.text(), "", "{what}: reached the target");
    }
}

/// What the target sees of a request that is admitted.
fn seen(request: &str) -> String {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    assert_eq!(status(&house.ask(request)), 200, "{request}");
    target.text()
}

#[test]
fn malformed_requests_are_refused() {
    let post = |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}");
    check("no host", "GET / HTTP/1.1\r\n\r\n", (400, "bad_request"));
    check("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", (400, "bad_request"));
    check("two equal hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", (400, "bad_request"));
    check("user in host", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", (400, "bad_request"));
    check("port too large", "GET / HTTP/1.1\r\nHost: a:70000\r\n\r\n", (400, "bad_request"));
    check("path in host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", (400, "bad_request"));
    check("empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", (400, "bad_request"));
    check("user in absolute form", "GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n", (400, "bad_request"));
    check("two lengths", &post("Content-Length: 1\r\nContent-Length: 2", "ab"), (400, "bad_request"));
    check("list of lengths", &post("Content-Length: 5, 5", "abcde"), (400, "bad_request"));
    check("signed length", &post("Content-Length: +5", "abcde"), (400, "bad_request"));
    check("unknown coding", &post("Transfer-Encoding: xchunked", "0\r\n\r\n"), (400, "bad_request"));
    check("chunked not last", &post("Transfer-Encoding: chunked, identity", "0\r\n\r\n"), (400, "bad_request"));
    check("other coding before", &post("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"), (501, "unsupported_coding"));
    check("chunked twice", &post("Transfer-Encoding: chunked, chunked", "0\r\n\r\n"), (501, "unsupported_coding"));
    check("two coding fields", &post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), (400, "bad_request"));
    check("folded field", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", (400, "bad_request"));
    check("space before colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", (400, "bad_request"));
    check("nul in value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", (400, "bad_request"));
    check("upgrade with body", &post("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1", "x"), (400, "bad_request"));
    check("fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", (400, "bad_request"));
    check("fragment behind a query", "GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n", (400, "bad_request"));
    check("other version", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", (400, "bad_request"));
    check("equal lengths", &post("Content-Length: 5\r\nContent-Length: 5", "abcde"), (400, "bad_request"));
    check("coding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400, "bad_request"));
    check("trace", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", (405, "method_not_allowed"));
    check("connect", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", (405, "method_not_allowed"));
    check("expectation", "GET / HTTP/1.1\r\nHost: a\r\nExpect: cake\r\n\r\n", (417, "expectation_failed"));
    let hops = "Via: 1.1 changeover, 1.1 changeover\r\n".repeat(5);
    check("loop", &format!("GET / HTTP/1.1\r\nHost: a\r\n{hops}\r\n"), (508, "loop"));
}

#[test]
fn a_length_beside_a_coding_is_refused_with_all_that_follows() {
    for fields in ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"] {
        let target = Target::saying("ok");
        let house = House::serving(&target);
        let mut client = house.client();
        client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n{SECRET}"));
        let answer = client.rest();
        assert_eq!((status(&answer), reason(&answer)), (400, "bad_request"));
        assert!(answer.contains("connection: close\r\n") && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
        assert_eq!(target.text(), "");
    }
}

#[test]
fn a_broken_chunk_never_becomes_a_whole_body() {
    for chunk in ["zz\r\nab\r\n0\r\n\r\n", "0x2\r\nab\r\n0\r\n\r\n", "2\r\nabXX0\r\n\r\n", "fffffffffffffffff\r\nab"] {
        let target = Target::saying("ok");
        let house = House::serving(&target);
        let mut client = house.client();
        client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n{chunk}"));
        let answer = client.rest();
        assert!(answer.is_empty() || status(&answer) == 400, "{chunk:?}: {answer}");
        assert_eq!(target.requests(), 0, "{chunk:?}: the target took it for complete");
    }
}

#[test]
fn absolute_form_becomes_origin_form_and_its_authority_the_host() {
    let text = seen("GET http://real.example:81/x?y=1 HTTP/1.1\r\nHost: other\r\n\r\n");
    assert!(text.starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{text}");
    assert!(text.contains("host: real.example:81\r\n") && !text.contains("other"), "{text}");
}

#[test]
fn hop_by_hop_fields_stay_behind_and_protected_ones_pass() {
    let text = seen(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-secret, host, x-forwarded-for, cookie\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Authorization: x\r\nTE: gzip\r\nCookie: c=1\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\
         X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\r\n",
    );
    for gone in ["x-secret", "keep-alive", "proxy-", "te:", "upgrade", "http2-settings", "6.6.6.6", "evil", "connection:"] {
        assert!(!text.contains(gone), "{gone} in {text}");
    }
    for there in [
        "host: a\r\n",
        "cookie: c=1\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: a\r\n",
        "via: 1.1 changeover\r\n",
    ] {
        assert!(text.contains(there), "{there} not in {text}");
    }
}

#[test]
fn bodies_are_framed_anew() {
    let chunked = seen("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;ext=1\r\nhi\r\n0\r\nX-T: 1\r\n\r\n");
    assert!(chunked.ends_with("\r\n\r\n2\r\nhi\r\n0\r\n\r\n"), "{chunked}");
    let get = seen("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    assert!(get.ends_with("2\r\nhi\r\n0\r\n\r\n"), "a GET keeps its body: {get}");
    let sized = seen("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi");
    assert!(sized.contains("content-length: 2\r\n") && sized.ends_with("\r\n\r\nhi") && !sized.contains("expect"), "{sized}");
}

#[test]
fn announced_trailers_of_a_request_pass_and_none_that_frames_routes_or_authenticates() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Host\r\nTrailer: Content-Length\r\n\r\n";
    let text = seen(&format!("{head}2\r\nhi\r\n0\r\nX-Sum: 7\r\nHost: evil\r\nContent-Length: 9\r\nX-Other: 1\r\n\r\n"));
    assert!(text.contains("trailer: x-sum\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n"), "{text}");
    let none = seen(&format!("{head}2\r\nhi\r\n0\r\nHost: evil\r\n\r\n"));
    assert!(none.ends_with("2\r\nhi\r\n0\r\n\r\n"), "{none}");
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let many: String = (0..150).map(|number| format!("X-{number}: 1\r\n")).collect();
    check("150 fields", &format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), (431, "head_too_large"));
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let mut client = house.client();
    client.try_send(&long);
    let answer = client.rest();
    assert_eq!((status(&answer), reason(&answer)), (431, "head_too_large"));
    assert_eq!(target.text(), "");
    let path = "x".repeat(70_000);
    let mut client = house.client();
    client.try_send(&format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let answer = client.rest();
    assert_eq!((status(&answer), reason(&answer)), (414, "target_too_long"));
}

#[test]
fn extensions_of_chunks_are_thrown_away_up_to_a_bound() {
    let chunked = |chunks: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
    let text = seen(&chunked(&"2;ext=0123456789\r\nhi\r\n".repeat(500)));
    assert!(text.contains("hi") && !text.contains("ext"), "{text}");
    for chunks in [format!("2;{}\r\nhi\r\n", "x".repeat(20_000)), format!("1;{}\r\nx\r\n", "y".repeat(200)).repeat(200)] {
        let target = Target::saying("ok");
        let house = House::serving(&target);
        let mut client = house.client();
        client.try_send(&chunked(&chunks));
        let answer = client.rest();
        assert_eq!((status(&answer), reason(&answer)), (400, "bad_request"));
        assert_eq!(target.requests(), 0);
    }
}

/// An answer that comes before its request was read (CVE-2025-4366 of another proxy).
#[test]
fn what_is_left_of_a_request_is_not_taken_for_the_next_one() {
    let target = Target::saying("ok");
    let house = House::new(1);
    let mut routed = common::routing(&[("v1", 10_000)], &[("v1", &[target.address])]);
    routed.mode = model::Mode::Maintenance { page: "later".to_owned() };
    house.install(routed);
    // Small: it is read, and the connection goes on. Large, or of unknown size: it ends.
    for (length, goes_on) in [(SECRET.len(), true), (10_000_000, false)] {
        let mut client = house.client();
        client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{SECRET}"));
        let answer = client.answer();
        assert_eq!((status(&answer), answer.contains("connection: close\r\n")), (503, !goes_on));
        client.try_send(common::GET);
        match goes_on {
            true => assert_eq!(status(&client.answer()), 503),
            false => assert_eq!(client.rest(), ""),
        }
    }
    let text = house.proxy.metrics();
    assert!(text.contains("changeover_made_answers_total{reason=\"maintenance\"} 3\n"), "one more was taken for a request");
}

#[test]
fn a_host_is_named_in_any_case() {
    check("absolute form without Host", "GET http://b/ HTTP/1.1\r\n\r\n", (400, "bad_request"));
    check("a bad Host beside it", "GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n", (400, "bad_request"));
    check("authority form", "GET b:80 HTTP/1.1\r\nHost: b\r\n\r\n", (400, "bad_request"));
}

#[test]
fn nobody_is_believed_who_asked_before() {
    let claims = "Forwarded: for=9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Port: 9999\r\nX-Forwarded-Proto: https\r\n";
    let text = seen(&format!("GET / HTTP/1.1\r\nHost: a\r\n{claims}\r\n"));
    assert!(!text.contains("9.9.9.9") && !text.contains("9999") && !text.contains("https"), "{text}");
    assert!(text.contains("x-forwarded-for: 127.0.0.1\r\n") && text.contains("x-forwarded-proto: http\r\n"), "{text}");
}

#[test]
fn forwards_are_counted_down() {
    let text = seen("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n");
    assert!(text.starts_with("OPTIONS * ") && text.contains("max-forwards: 2\r\n"), "{text}");
    check("the last hop", "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", (403, "last_hop"));
    check("no number", "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: many\r\n\r\n", (400, "bad_request"));
}

#[test]
fn paths_are_forwarded_as_they_came() {
    let text = seen("GET /a/../b//c%2fd\\e?q=%00 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text.starts_with("GET /a/../b//c%2fd\\e?q=%00 HTTP/1.1\r\n"), "{text}");
}

#[test]
fn an_early_error_comes_without_100_continue() {
    let target = Target::saying("ok");
    let house = House::new(1);
    let mut routed = common::routing(&[("v1", 10_000)], &[("v1", &[target.address])]);
    routed.mode = model::Mode::Maintenance { page: "later".to_owned() };
    house.install(routed);
    let mut client = house.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(status(&client.read_until("\r\n\r\n")), 503, "no 100 before it");
    // And with a target that takes it, the 100 comes first.
    house.install(common::routing(&[("v1", 10_000)], &[("v1", &[target.address])]));
    let mut client = house.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(status(&client.read_until("\r\n\r\n")), 100);
    client.send("hi");
    assert_eq!(status(&client.answer()), 200);
}

#[test]
fn http_1_0_without_host_is_served() {
    assert!(seen("GET / HTTP/1.0\r\n\r\n").contains("host: 127.0.0.1:"));
}

#[test]
fn an_answer_that_stops_early_never_looks_complete() {
    let answers = [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
    ];
    for given in answers {
        let target = Target::new(move |_, stream| {
            stream.write_all(given.as_bytes()).expect("write");
            false
        });
        let house = House::serving(&target);
        let mut client = house.client();
        client.send(common::GET);
        let answer = client.rest();
        assert!(!answer.ends_with("0\r\n\r\n"), "{given:?} became whole: {answer:?}");
        assert!(body(&answer).len() < 20, "{answer:?}");
        let bad = || house.proxy.counts(&common::service(), &common::version("v1")).bad;
        eventually("counted as bad", || bad() == 1);
    }
}

#[test]
fn bad_answers_become_502_and_their_line_is_not_used_again() {
    for (given, expect) in [
        ("garbage\r\n\r\n", "bad_answer"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "bad_answer"),
        ("HTTP/1.1 200 OK\r\ncontent-le", "target_reset"),
        ("", "target_reset"),
    ] {
        let target = Target::new(move |_, stream| {
            stream.write_all(given.as_bytes()).expect("write");
            false
        });
        let house = House::serving(&target);
        let answer = house.ask(common::GET);
        assert_eq!((status(&answer), reason(&answer)), (502, expect), "{given:?}");
    }
}

#[test]
fn fields_of_the_targets_connection_stay_behind() {
    let target = Target::new(|_, stream| {
        let head = "HTTP/1.1 200 OK\r\nConnection: keep-alive, x-inner\r\nKeep-Alive: timeout=5\r\nX-Inner: 1\r\nTransfer-Encoding: chunked\r\nTrailer: x-t\r\n\r\n";
        stream.write_all(format!("{head}2\r\nhi\r\n0\r\nContent-Length: 9\r\nX-T: 1\r\n\r\n").as_bytes()).is_ok()
    });
    let house = House::serving(&target);
    let answer = house.ask(common::GET).to_ascii_lowercase();
    assert!(answer.ends_with("2\r\nhi\r\n0\r\n\r\n"), "{answer}");
    for gone in ["keep-alive", "x-inner", "content-length", "x-t", "trailer"] {
        assert!(!answer.contains(gone), "{gone} in {answer}");
    }
    let mut client = house.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\n\r\n");
    let with_trailers = client.read_until("x-t: 1\r\n\r\n");
    assert!(!with_trailers.to_ascii_lowercase().contains("content-length"), "{with_trailers}");
}

#[test]
fn what_follows_a_refused_body_is_not_taken_for_a_request() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let mut client = house.client();
    client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: cake\r\nContent-Length: {}\r\n\r\n{SECRET}", SECRET.len()));
    assert_eq!(status(&client.answer()), 417);
    client.send(common::GET);
    assert_eq!(status(&client.answer()), 200);
    assert!(!target.text().contains("smuggled"));
}
