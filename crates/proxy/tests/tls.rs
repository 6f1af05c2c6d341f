//! TLS at listeners: names, protocols, resumption, clients' certificates, files that change, and every way a connection may end.

mod common;
#[path = "common/secure.rs"]
mod secure;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{GET, House, Target, body, eventually, reason, routing, status};
use model::ClientAuth;
use secure::certificates::{Authority, Made, entry, fresh, settings};
use secure::{Secure, connect, metric, try_connect};

#[test]
fn a_request_over_tls_reaches_the_target_and_says_so() {
    let target = Target::saying("here");
    let secure = Secure::serving(&target, &["a.test", "*.b.test"]);
    let mut client = secure.client("a.test");
    client.send("GET / HTTP/1.1\r\nhost: a.test\r\nx-forwarded-proto: http\r\nx-forwarded-client-cert: Hash=00\r\nx_forwarded_client_cert: Hash=00\r\nclient-cert: :AAAA:\r\nClient_Cert: :AAAA:\r\n\r\n");
    assert_eq!(body(&client.answer()), "here");
    let seen = target.text();
    assert!(seen.contains("x-forwarded-proto: https\r\n"), "{seen}");
    assert!(!seen.contains("Hash=00") && !seen.contains("AAAA") && !seen.contains("proto: http\r\n"), "{seen}");
    assert_eq!(status(&secure.client("x.b.test").ask(GET)), 200);
    assert!(try_connect(&secure.house, &fresh(secure.authority.anonymous()), "other.test").is_err(), "no certificate names it");
    assert_eq!(metric(&secure.house, "changeover_tls_handshakes_total{result=\"full\"}"), 2);
}

#[test]
fn the_protocol_is_negotiated() {
    let target = Target::saying("here");
    let secure = Secure::serving(&target, &["a.test"]);
    let offering = |protocols: &[&[u8]]| {
        let mut config = secure.authority.anonymous();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        fresh(config)
    };
    for (offered, chosen) in [(&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])), (&[b"http/1.1"], Some(b"http/1.1")), (&[], None)] {
        let client = connect(&secure.house, &offering(offered), "a.test");
        assert_eq!(client.stream.conn.alpn_protocol(), chosen);
    }
    assert!(try_connect(&secure.house, &offering(&[b"h3"]), "a.test").is_err(), "nothing in common");
    // Over HTTP/2, with no byte to sniff at first: the server speaks first.
    let text = secure::over_http2(&secure, &offering(&[b"h2"]), "a.test");
    assert_eq!(text, "here");
    assert!(target.text().contains("x-forwarded-proto: https\r\n"));
    // HTTP/2 that was not negotiated is none: its preface is a bad request.
    let mut client = connect(&secure.house, &offering(&[]), "a.test");
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(status(&client.answer()), 400);
    assert_eq!(client.rest(), "");
}

#[test]
fn sessions_resume_on_any_thread() {
    let target = Target::saying("here");
    let house = House::new(2);
    let secure = Secure::of(house, &target, &["a.test"]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(secure.authority.client_of(&[version]));
        let mut first = connect(&secure.house, &config, "a.test");
        assert_eq!(status(&first.ask(GET)), 200);
        // Kept open, so that the next ones go to the other thread and back.
        let clients: Vec<_> = (0..6)
            .map(|_| {
                let mut client = connect(&secure.house, &config, "a.test");
                assert_eq!(status(&client.ask(GET)), 200);
                client
            })
            .collect();
        let resumed = clients.iter().filter(|client| client.stream.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed));
        assert_eq!(resumed.count(), 6, "{version:?}");
    }
    assert_eq!(metric(&secure.house, "changeover_tls_handshakes_total{result=\"full\"}"), 2);
    assert_eq!(metric(&secure.house, "changeover_tls_handshakes_total{result=\"resumed\"}"), 12);
}

#[test]
fn clients_show_who_they_are_and_nobody_else_can() {
    let target = Target::saying("here");
    let mut secure = Secure::serving(&target, &["a.test"]);
    let (people, strangers) = (Authority::new("people"), Authority::new("strangers"));
    let ca = secure.folder.path().join("people.pem");
    std::fs::write(&ca, &people.pem).expect("written");
    secure.settings.client_auth = Some(ClientAuth { ca, required: true });
    secure.install(&target);
    let ana = people.certificate(&["ana.test"]);
    let as_client = |made: &Made| fresh(secure.authority.as_client(made));
    assert!(secure::refuses(&secure.house, &fresh(secure.authority.anonymous()), "a.test"), "at once");
    assert!(secure::refuses(&secure.house, &as_client(&strangers.certificate(&["ana.test"])), "a.test"));
    let mut client = connect(&secure.house, &as_client(&ana), "a.test");
    let forged = "GET /forged HTTP/1.1\r\nhost: a.test\r\nx-forwarded-client-cert: Hash=00\r\nX_Forwarded_Client-Cert: Hash=00\r\nconnection: x-forwarded-client-cert\r\n\r\n";
    assert_eq!(status(&client.ask(forged)), 200);
    assert_eq!(status(&client.ask(GET)), 200);
    let seen = target.text();
    assert_eq!(seen.matches("x-forwarded-client-cert: Hash=").count(), 2, "{seen}");
    assert!(seen.contains("Subject=\"CN=ana.test\";DNS=ana.test\r\n") && !seen.contains("Hash=00"), "{seen}");
    // In its trailers neither.
    client.send("POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\ntrailer: x_forwarded_client_cert\r\n\r\n0\r\nx_forwarded_client_cert: Hash=00\r\n\r\n");
    assert_eq!(status(&client.answer()), 200);
    assert!(!target.text().contains("Hash=00"));
    // Resumed, it is still who it is.
    let again = Arc::new(secure.authority.as_client(&ana));
    for _ in 0..2 {
        assert_eq!(status(&connect(&secure.house, &again, "a.test").ask(GET)), 200);
    }
    assert_eq!(metric(&secure.house, "changeover_tls_handshakes_total{result=\"resumed\"}"), 1);
    assert_eq!(target.text().matches("DNS=ana.test").count(), 5);
    // Optional: whoever comes without is nobody.
    secure.settings.client_auth.as_mut().expect("set above").required = false;
    secure.install(&target);
    let before = target.text().len();
    assert_eq!(status(&secure.client("a.test").ask(GET)), 200);
    assert!(!target.text()[before..].contains("client-cert"));
}

#[test]
fn a_session_does_not_outlive_its_clients_certificate() {
    let target = Target::saying("here");
    let mut secure = Secure::serving(&target, &["a.test"]);
    let people = Authority::new("people");
    let ca = secure.folder.path().join("people.pem");
    std::fs::write(&ca, &people.pem).expect("written");
    secure.settings.client_auth = Some(ClientAuth { ca, required: true });
    secure.install(&target);
    let end = time::OffsetDateTime::now_utc() + Duration::from_secs(6);
    let ana = people.with(&["ana.test"], rcgen::KeyPair::generate().expect("key"), |params| params.not_after = end);
    let config = Arc::new(secure.authority.as_client(&ana));
    for _ in 0..2 {
        assert_eq!(status(&connect(&secure.house, &config, "a.test").ask(GET)), 200);
    }
    assert_eq!(metric(&secure.house, "changeover_tls_handshakes_total{result=\"resumed\"}"), 1);
    eventually("it has expired", || secure::refuses(&secure.house, &config, "a.test"));
    assert!(time::OffsetDateTime::now_utc() >= end - Duration::from_secs(1), "not before its end");
}

#[test]
fn http_in_clear_is_told_where_it_is() {
    let target = Target::saying("here");
    let secure = Secure::serving(&target, &["a.test"]);
    let answer = secure.house.ask(GET);
    assert_eq!((status(&answer), reason(&answer)), (400, "not_tls"));
    assert!(answer.contains("hint: say `https://`"), "{answer}");
    let mut garbage = secure.house.client();
    garbage.send("\u{1}\u{2}\u{3}");
    assert_eq!(garbage.rest(), "");
    eventually("both failed", || metric(&secure.house, "changeover_tls_handshakes_total{result=\"failed\"}") == 2);
    assert_eq!(target.requests(), 0);
}

#[test]
fn a_slow_handshake_is_closed_and_holds_up_nobody() {
    let target = Target::saying("here");
    let secure = Secure::serving(&target, &["a.test"]);
    let mut silent = secure.house.client();
    let mut slow = secure.house.client();
    // A record of 512 bytes that never comes.
    slow.stream.write_all(&[22, 3, 1, 2, 0, 1]).expect("written");
    let began = Instant::now();
    assert_eq!(status(&secure.client("a.test").ask(GET)), 200);
    for client in [&mut silent, &mut slow] {
        client.stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        assert_eq!(client.stream.read(&mut [0; 16]).unwrap_or(0), 0, "nothing was said");
    }
    let took = began.elapsed();
    assert!((9..15).contains(&took.as_secs()), "{took:?}");
    eventually("both are gone", || metric(&secure.house, "changeover_connections") <= 1);
}

#[test]
fn files_that_change_under_load_lose_nothing() {
    let target = Target::saying("here");
    let secure = Secure::serving(&target, &["a.test"]);
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let serials = std::thread::scope(|scope| {
        for fresh_ones in [true, true, false] {
            let (secure, stop, asked) = (&secure, stop.clone(), asked.clone());
            scope.spawn(move || {
                let config = fresh(secure.authority.anonymous());
                let mut client = connect(&secure.house, &config, "a.test");
                while !stop.load(Ordering::Relaxed) {
                    if fresh_ones {
                        client = connect(&secure.house, &config, "a.test");
                    }
                    assert_eq!(status(&client.ask(GET)), 200);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let config = fresh(secure.authority.anonymous());
        let mut serials = Vec::new();
        for _ in 0..4 {
            let made = secure.authority.certificate(&["a.test"]);
            let leaf = secure::leaf(&made);
            // Half, then the other half, in the wrong order for whoever reads in between.
            std::fs::write(secure.folder.path().join("site.pem"), &made.chain).expect("written");
            std::fs::write(secure.folder.path().join("site.key"), &made.key).expect("written");
            eventually("the new one is shown", || connect(&secure.house, &config, "a.test").leaf() == leaf);
            serials.push(leaf);
        }
        stop.store(true, Ordering::Relaxed);
        serials
    });
    assert_eq!(serials.len(), 4);
    assert!(asked.load(Ordering::Relaxed) > 100, "{asked:?}");
    assert_eq!(metric(&secure.house, "changeover_tls_handshakes_total{result=\"failed\"}"), 0);
}

#[test]
fn a_bad_certificate_leaves_the_others() {
    let target = Target::saying("here");
    let mut secure = Secure::serving(&target, &["a.test"]);
    let absent = (secure.folder.path().join("absent.pem"), secure.folder.path().join("absent.key"));
    secure.settings.certificates.insert(0, entry(&absent, &["absent.test"]));
    secure.install(&target);
    assert_eq!(status(&secure.client("a.test").ask(GET)), 200);
    eventually("it is told", || !secure.house.proxy.keyring().news().is_empty());
    assert!(try_connect(&secure.house, &fresh(secure.authority.anonymous()), "absent.test").is_err());
    assert_eq!(status(&secure.client("a.test").ask(GET)), 200);
}

#[test]
fn a_connection_that_rests_gives_its_buffers_back_and_answers_as_before() {
    let target = Target::saying("here");
    let secure = Secure::serving(&target, &["a.test"]);
    let mut client = secure.client("a.test");
    for _ in 0..3 {
        assert_eq!(body(&client.ask(GET)), "here");
        eventually("it is parked", || metric(&secure.house, "changeover_connections_parked") == 1);
    }
    // A head in two records, the first of which wakes it.
    client.send("GET / HTTP/1.1\r\nhost: a.");
    eventually("it is not parked any more", || metric(&secure.house, "changeover_connections_parked") == 0);
    client.send("test\r\n\r\n");
    assert_eq!(body(&client.answer()), "here");
    eventually("it is parked", || metric(&secure.house, "changeover_connections_parked") == 1);
    // At a drain it hears that nothing more comes.
    let drain = secure.house.proxy.drain(Duration::from_millis(50), Duration::from_secs(5));
    let cut = secure.house.runtime.block_on(async {
        let reading = tokio::task::spawn_blocking(move || client.rest());
        let cut = drain.await;
        assert_eq!(reading.await.expect("a clean end"), "");
        cut
    });
    assert_eq!(cut, 0);
}

#[test]
fn only_a_whole_answer_ends_cleanly() {
    let whole = Target::saying("here");
    let secure = Secure::serving(&whole, &["a.test"]);
    let mut client = secure.client("a.test");
    client.send("GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n");
    // `rest` fails unless the end was announced.
    assert!(client.rest().ends_with("here"));
    let broken = Target::new(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n").expect("written");
        false
    });
    let secure = Secure::serving(&broken, &["a.test"]);
    // To an HTTP/1.0 client the end of the connection is the end of the answer (RFC 9112 §8).
    let mut client = secure.client("a.test");
    client.send("GET / HTTP/1.0\r\n\r\n");
    let mut all = Vec::new();
    let error = client.stream.read_to_end(&mut all).expect_err("a clean end of a broken answer");
    assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error}");
    // To others it is the last chunk.
    let mut client = secure.client("a.test");
    client.send("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n");
    let _ = client.stream.read_to_end(&mut all);
    let text = String::from_utf8_lossy(&all);
    assert!(text.ends_with("2\r\nhi\r\n"), "{text}");
}

#[test]
fn a_client_that_says_it_is_done_is_still_answered() {
    let is_done = Arc::new(AtomicBool::new(false));
    let wait = is_done.clone();
    let target = Target::new(move |_, stream| {
        eventually("the client has said so", || wait.load(Ordering::Acquire));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_ok()
    });
    let secure = Secure::serving(&target, &["a.test"]);
    let mut client = secure.client("a.test");
    client.send(GET);
    client.stream.conn.send_close_notify();
    client.stream.flush().expect("flushed");
    is_done.store(true, Ordering::Release);
    assert_eq!(body(&client.answer()), "ok");
    assert_eq!(client.rest(), "");
}

#[test]
fn large_bodies_pass_both_ways_also_to_a_client_that_waits() {
    let target = Target::new(|message, stream| {
        let text = message.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).is_ok()
    });
    let secure = Secure::serving(&target, &["a.test"]);
    let text: String = (0..1_300_000).map(|number| format!("{number:08} ")).collect();
    let mut client = secure.client("a.test");
    client.send(&format!("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: {}\r\n\r\n", text.len()));
    client.send(&text);
    // Nothing is read before: 12 MB fill all sockets on the way.
    eventually("the target has all of it", || target.requests() == 1);
    assert!(body(&client.answer()) == text);
}

#[test]
fn a_listener_may_begin_to_speak_tls_and_end_it() {
    let target = Target::saying("here");
    let mut secure = Secure::serving(&target, &["a.test"]);
    let mut client = secure.client("a.test");
    assert_eq!(status(&client.ask(GET)), 200);
    secure.house.install(routing(&[("v1", 10_000)], &[("v1", &[target.address])]));
    assert_eq!(status(&secure.house.ask(GET)), 200, "in clear now");
    assert_eq!(status(&client.ask(GET)), 200, "whoever was there stays");
    secure.settings = settings(secure.settings.certificates.clone());
    secure.install(&target);
    assert_eq!(status(&secure.client("a.test").ask(GET)), 200);
}

/// Switches to a protocol of its own, in which everything comes back.
fn echo() -> Target {
    Target::new(|head, stream| {
        if !head.to_ascii_lowercase().contains("upgrade: echo") {
            return stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_ok();
        }
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n").expect("written");
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut chunk) {
            stream.write_all(&chunk[..read]).expect("written");
        }
        let _ = stream.write_all(b"bye");
        false
    })
}

#[test]
fn a_tunnel_runs_under_tls_and_ends_as_it_should() {
    let target = echo();
    let secure = Secure::serving(&target, &["a.test"]);
    let mut client = secure.client("a.test");
    client.send("GET / HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly");
    assert!(client.read_until("\r\n\r\n").starts_with("HTTP/1.1 101 "));
    assert_eq!(client.read_exact(5), "early");
    let text = "0123456789".repeat(20_000);
    client.send(&text);
    assert!(client.read_exact(text.len()) == text);
    // Its half is closed, the other half goes on until the target has said its last word.
    client.stream.conn.send_close_notify();
    client.stream.flush().expect("flushed");
    assert_eq!(client.rest(), "bye");
}

#[test]
fn an_old_client_may_not_use_what_is_broken() {
    let target = Target::saying("here");
    let secure = Secure::serving(&target, &["a.test"]);
    // TLS 1.1, as a bare ClientHello: the answer is an alert (21) that is fatal (2).
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let mut stream = TcpStream::connect(secure.house.address).expect("connect");
    stream.set_read_timeout(Some(common::DEADLINE)).expect("timeout");
    stream.write_all(&hello).expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("closed");
    assert_eq!((answer.first(), answer.get(5)), (Some(&21), Some(&2)), "{answer:?}");
    assert_eq!(target.requests(), 0);
}
