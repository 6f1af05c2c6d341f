//! One connection of a client, and what may happen on it: pieces, pipelines, bodies of all kinds, answers that come early.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{GET, House, Target, body, eventually, reason, routing, service, status, version};

/// Every byte differs from those near it, so that none can be lost or moved unseen.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (b'a' + (at % 26) as u8) ^ ((at >> 12) as u8 & 3)).collect()
}

/// A target that reads by itself: gets the stream after a head was read, with what was read behind it.
fn raw_target(act: impl Fn(&mut std::net::TcpStream, Vec<u8>) + Send + Sync + 'static) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("address");
    let act = Arc::new(act);
    std::thread::spawn(move || {
        for mut stream in socket.incoming().flatten() {
            let act = act.clone();
            std::thread::spawn(move || {
                let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
                while let Ok(read @ 1..) = stream.read(&mut chunk) {
                    all.extend_from_slice(&chunk[..read]);
                    if let Some(end) = all.windows(4).position(|window| window == b"\r\n\r\n") {
                        return act(&mut stream, all.split_off(end + 4));
                    }
                }
            });
        }
    });
    address
}

fn house_before(address: SocketAddr) -> House {
    let house = House::new(1);
    house.install(routing(&[("v1", 10_000)], &[("v1", &[address])]));
    house
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let mut client = house.client();
    client.stream.set_nodelay(true).expect("nodelay");
    for _ in 0..2 {
        GET.bytes().for_each(|byte| client.send(std::str::from_utf8(&[byte]).expect("ASCII")));
        assert_eq!(body(&client.answer()), "ok");
    }
}

#[test]
fn requests_that_come_together_are_answered_in_their_order() {
    let target = Target::new(|request, stream| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len()).is_ok()
    });
    let house = House::serving(&target);
    let mut client = house.client();
    let post = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send(&[get("/1"), post("/2"), "\r\n".into(), get("/3"), post("/4")].concat());
    for expect in ["/1", "/2", "/3", "/4"] {
        assert_eq!(body(&client.answer()), expect);
    }
    // What follows a request that closes is not read.
    client.send(&["GET /5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".into(), get("/6")].concat());
    let rest = client.rest();
    assert!(rest.ends_with("/5") && rest.contains("connection: close\r\n"), "{rest}");
    assert_eq!(target.requests(), 5);
}

#[test]
fn http_1_0_is_kept_open_when_it_asks_for_it() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let mut client = house.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        let answer = client.answer();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("connection: keep-alive\r\n"), "{answer}");
    }
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(client.rest().contains("connection: close\r\n"));
}

#[test]
fn large_bodies_pass_both_ways_unchanged_however_they_are_framed() {
    const LENGTH: usize = 3_000_000;
    // Answers with what it gets, in chunks of odd sizes.
    let echo = raw_target(|stream, mut early| {
        let mut sent = pattern(LENGTH);
        let mut rest = vec![0; LENGTH - early.len()];
        stream.read_exact(&mut rest).expect("all of it");
        early.extend_from_slice(&rest);
        assert!(early == sent, "the request's body was changed");
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").expect("written");
        let mut size = 1;
        while !sent.is_empty() {
            let rest = sent.split_off(size.min(sent.len()));
            stream.write_all(format!("{:X};x=y\r\n", sent.len()).as_bytes()).expect("written");
            stream.write_all(&sent).expect("written");
            stream.write_all(b"\r\n").expect("written");
            (sent, size) = (rest, size * 3 % 200_003);
        }
        stream.write_all(b"0\r\n\r\n").expect("written");
    });
    let house = house_before(echo);
    let mut client = house.client();
    let mut writer = client.stream.try_clone().expect("a copy");
    let writing = std::thread::spawn(move || {
        writer.write_all(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes()).expect("written");
        writer.write_all(&pattern(LENGTH)).expect("written");
    });
    let head = client.read_until("\r\n\r\n");
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    let mut all = Vec::new();
    loop {
        let line = client.read_until("\r\n");
        let size = usize::from_str_radix(line.trim_end(), 16).expect("a size");
        let data = client.read_exact(size + 2);
        if size == 0 {
            break;
        }
        all.extend_from_slice(&data.as_bytes()[..size]);
    }
    assert!(all == pattern(LENGTH), "the answer's body was changed");
    writing.join().expect("written");
}

#[test]
fn a_chunked_upload_becomes_chunks_of_the_same_bytes() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let mut client = house.client();
    let data = String::from_utf8(pattern(100_000)).expect("letters");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in data.as_bytes().chunks(33_333) {
        client.send(&format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).expect("letters")));
    }
    client.send("0\r\n\r\n");
    assert_eq!(status(&client.answer()), 200);
    let seen = target.text();
    let (_, mut rest) = seen.split_once("\r\n\r\n").expect("a body");
    let mut all = String::new();
    while let Some((size, more)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        all += &more[..size];
        rest = &more[size + 2..];
    }
    assert!(all == data && seen.ends_with("\r\n0\r\n\r\n"));
}

#[test]
fn an_answer_may_come_while_its_request_is_still_sent_and_both_end_well() {
    // Answers at once, then reads the rest.
    let target = raw_target(|stream, early| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").expect("written");
        let mut rest = vec![0; 1_000_000 - early.len()];
        stream.read_exact(&mut rest).expect("the whole upload arrives");
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).expect("the next request, over the same line");
        assert!(chunk[..read].starts_with(b"GET /next "), "{:?}", String::from_utf8_lossy(&chunk[..read]));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext").expect("written");
    });
    let house = house_before(target);
    let mut client = house.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome");
    assert_eq!(body(&client.answer()), "early");
    client.send(&"x".repeat(1_000_000 - 4));
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(body(&client.answer()), "next");
}

#[test]
fn a_client_may_send_all_before_it_reads_an_answer_that_has_begun() {
    const UPLOAD: usize = 1_000_000;
    // More than sockets hold.
    const ANSWER: usize = 100_000_000;
    let (written, read) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (of_writer, of_reader) = (written.clone(), read.clone());
    // Writes its answer and reads its request at the same time, neither waiting for the other.
    let target = raw_target(move |stream, early| {
        let (mut writer, written) = (stream.try_clone().expect("a copy"), of_writer.clone());
        std::thread::spawn(move || {
            let _ = writer.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {ANSWER}\r\n\r\n").as_bytes());
            while writer.write_all(&[b'x'; 10_000]).is_ok() {
                written.fetch_add(10_000, Ordering::SeqCst);
            }
        });
        of_reader.fetch_add(early.len(), Ordering::SeqCst);
        let mut chunk = [0; 4096];
        while let Ok(size @ 1..) = stream.read(&mut chunk) {
            of_reader.fetch_add(size, Ordering::SeqCst);
        }
    });
    let house = house_before(target);
    let mut client = house.client();
    client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {UPLOAD}\r\n\r\n"));
    client.send(&"x".repeat(UPLOAD / 2));
    let (mut last, mut looks) = (0, 0);
    eventually("the answer is stuck, for nobody reads it", || {
        let now = written.load(Ordering::SeqCst);
        looks = if now == last && now > 0 { looks + 1 } else { 0 };
        last = now;
        looks > 100
    });
    client.send(&"x".repeat(UPLOAD / 2));
    eventually("the request arrives all the same", || read.load(Ordering::SeqCst) == UPLOAD);
    assert_eq!(status(&client.read_until("\r\n\r\n")), 200);
}

#[test]
fn a_target_that_refuses_an_upload_and_closes_is_heard() {
    let target = raw_target(|stream, _| {
        stream.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig").expect("written");
        // What was not read resets the connection.
    });
    let house = house_before(target);
    eventually("the answer is there before the reset", || {
        let mut client = house.client();
        client.try_send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n");
        let mut writer = client.stream.try_clone().expect("a copy");
        let writing = std::thread::spawn(move || while writer.write_all(&[b'x'; 65_536]).is_ok() {});
        let answer = client.answer();
        assert!(status(&answer) == 413 && body(&answer) == "big" || reason(&answer) == "target_reset", "{answer}");
        let _ = client.stream.shutdown(Shutdown::Both);
        writing.join().expect("no panic");
        status(&answer) == 413
    });
}

#[test]
fn a_post_goes_over_another_line_when_its_own_was_closed_before_it() {
    let target = Target::new(|_, stream| {
        // The answer and the end of the connection arrive together.
        socket2::SockRef::from(&*stream).set_tcp_cork(true).expect("corked");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let _ = stream.shutdown(Shutdown::Write);
        false
    });
    let house = House::serving(&target);
    let mut client = house.client();
    for asked in 1..=20 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(status(&client.answer()), 200);
        assert_eq!((target.requests(), target.connections.load(Ordering::SeqCst)), (asked, asked));
    }
    assert_eq!(house.proxy.counts(&service(), &version("v1")).bad, 0);
}

#[test]
fn a_client_that_waits_for_the_word_to_send_gets_it_once_and_only_if_it_has_not_begun() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    let mut client = house.client();
    client.send(head);
    assert_eq!(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hi");
    assert!(client.read_until("\r\n\r\n").starts_with("HTTP/1.1 200 "));
    client.read_exact(2);
    client.send(&format!("{head}hi"));
    assert!(client.read_until("\r\n\r\n").starts_with("HTTP/1.1 200 "), "it did not wait");
    assert!(!target.text().contains("expect"));
}

#[test]
fn a_refused_body_that_may_or_may_not_come_ends_the_connection() {
    let target = Target::saying("ok");
    let house = House::new(1);
    let versions: &[(&str, &[SocketAddr])] = &[("v1", &[target.address])];
    let mut routed = routing(&[("v1", 10_000)], versions);
    routed.mode = model::Mode::Maintenance { page: "later".to_owned() };
    house.install(routed);
    let mut client = house.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\nExpect: 100-continue\r\n\r\n");
    let answer = client.rest();
    assert!(status(&answer) == 503 && answer.contains("connection: close\r\n"), "{answer}");
    // A body that is only small and late is waited for.
    let mut client = house.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n");
    assert_eq!(status(&client.answer()), 503);
    client.send(&format!("hi\r\n0\r\n\r\n{GET}"));
    assert_eq!(status(&client.answer()), 503);
}

#[test]
fn a_body_that_ends_early_reaches_nobody_as_a_whole_one() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let mut client = house.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    client.stream.shutdown(Shutdown::Write).expect("shutdown");
    let answer = client.rest();
    assert_eq!((status(&answer), reason(&answer)), (400, "bad_request"));
    assert_eq!((target.requests(), house.proxy.counts(&service(), &version("v1")).bad), (0, 0));
}

#[test]
fn an_answer_without_an_end_ends_with_its_connection() {
    let target = Target::new(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end");
        false
    });
    let house = House::serving(&target);
    let mut client = house.client();
    for _ in 0..2 {
        client.send(GET);
        assert!(client.answer().ends_with("\r\n\r\nd\r\nuntil the end\r\n0\r\n\r\n"));
    }
    let mut old = house.client();
    old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let answer = old.rest();
    assert!(answer.ends_with("\r\n\r\nuntil the end") && !answer.contains("transfer-encoding"), "{answer}");
}

#[test]
fn answers_in_pieces_are_put_together() {
    let pieces: &[&str] = &["HT", "TP/1.1 200 O", "K\r\ncontent-", "length: 4\r\n", "\r\n", "a", "bc", "d"];
    let target = Target::new(move |_, stream| {
        pieces.iter().all(|piece| {
            // Each arrives by itself, or nearly.
            std::thread::yield_now();
            stream.write_all(piece.as_bytes()).is_ok()
        })
    });
    let house = House::serving(&target);
    let mut client = house.client();
    for _ in 0..20 {
        client.send(GET);
        assert_eq!(body(&client.answer()), "abcd");
    }
    assert_eq!(target.connections.load(Ordering::SeqCst), 1, "the line was used again");
}

#[test]
fn a_target_that_only_ever_announces_is_given_up() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let target = Target::new(move |_, stream| {
        count.fetch_add(1, Ordering::SeqCst);
        while stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").is_ok() {}
        false
    });
    let house = House::serving(&target);
    let mut client = house.client();
    client.send(GET);
    let answer = client.read_until("changeover: ");
    assert!(answer.contains("HTTP/1.1 502 ") && answer.contains("x-changeover-reason: bad_answer\r\n"), "{answer}");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "it is not asked again");
}

#[test]
fn what_the_parser_refuses_is_in_the_log() {
    let folder = std::env::temp_dir().join(format!("proxy-refused-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let file = folder.join("access.log");
    let settings = model::AccessLog { scope: model::AccessLogScope::Failed, format: model::AccessLogFormat::Json };
    let house = House::with(proxy::Config { threads: 1, access_log: Some((settings, file.clone())), black_box: None });
    assert_eq!(status(&house.ask("nonsense\r\n\r\n")), 400);
    let log = || std::fs::read_to_string(&file).unwrap_or_default();
    eventually("logged", || log().lines().count() == 1);
    assert!(log().contains(r#""reason":"bad_request""#) && log().contains(r#""status":400"#), "{}", log());
    assert!(house.proxy.metrics().contains("changeover_made_answers_total{reason=\"bad_request\"} 1"));
    std::fs::remove_dir_all(&folder).expect("remove");
}
