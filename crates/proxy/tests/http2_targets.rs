//! Targets that speak HTTP/2, and what gRPC needs of it.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::frames::{ACK, GO_AWAY, HEADERS, PING, SETTINGS, frame};
use common::http2_target::{
    Http2Target, ask, asked, bad, call, echo, field, get, map, read, response, say, serving, speaking, text, write,
};
use common::{DEADLINE, House, body, eventually, reason, routing, service, status, version};
use h2::Reason;
use http::{Request, Response};
use model::{Protocol, ProxyProtocol, ServiceRouting};
use socket2::{Domain, Socket, Type};

#[test]
fn clients_of_both_versions_are_served() {
    let target = Http2Target::new(|_, request, respond| echo(request, respond));
    let house = serving(&target);
    let answer = house.ask("POST /a?b=c HTTP/1.1\r\nHost: h.example:81\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!((status(&answer), body(&answer)), (200, "1f\r\nPOST /a h.example:81 http hello\r\n0\r\n\r\n"), "{answer}");
    let answer = house.ask("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");
    assert!(body(&answer).contains("POST /a h http hello"), "{answer}");
    let answer = asked(&house, get("/x")).expect("whole");
    assert_eq!(text(&answer), "GET /x a.example http ");
    let answer = asked(&house, Request::put("http://a.example/").body(Bytes::from("there")).expect("request")).expect("whole");
    assert_eq!(text(&answer), "PUT / a.example http there");
    assert_eq!(target.connections(), 1, "they share one");
    assert_eq!(bad(&house), (4, 0));
}

#[test]
fn fields_arrive_without_those_of_the_connection() {
    let target = Http2Target::new(|_, request, mut respond| async move {
        let mut names: Vec<String> =
            request.headers().iter().map(|(name, value)| format!("{name}={}", value.to_str().expect("text"))).collect();
        names.sort();
        say(&mut respond, &[("x-answer", "1"), ("set-cookie", "a=1"), ("set-cookie", "b=2")], &names.join("\n"));
    });
    let house = serving(&target);
    let answer = house.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-mine, upgrade\r\nUpgrade: websocket\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: trailers, gzip\r\nCookie: a=1\r\n\r\n");
    let got: Vec<&str> = body(&answer).lines().filter(|line| line.contains('=')).collect();
    let expected =
        ["cookie=a=1", "te=trailers", "via=1.1 changeover", "x-forwarded-for=127.0.0.1", "x-forwarded-host=a", "x-forwarded-proto=http"];
    assert_eq!(got, expected, "{answer}");
    assert!(
        answer.contains("x-answer: 1\r\n") && answer.contains("set-cookie: a=1\r\n") && answer.contains("set-cookie: b=2\r\n"),
        "{answer}"
    );
}

#[test]
fn answers_without_a_body_end_at_their_head() {
    let target = Http2Target::new(|_, request, mut respond| async move {
        let mut response = Response::new(());
        match request.uri().path() {
            "/head" => *response.headers_mut() = map(&[("content-length", "77")]),
            "/nothing" => *response.status_mut() = http::StatusCode::NO_CONTENT,
            "/late" => {
                *response.status_mut() = http::StatusCode::NO_CONTENT;
                let mut stream = respond.send_response(response, false).expect("open");
                return stream.send_data(Bytes::new(), true).expect("open");
            }
            "/old" => *response.status_mut() = http::StatusCode::NOT_MODIFIED,
            _ => {}
        }
        respond.send_response(response, true).expect("open");
    });
    let house = serving(&target);
    let mut client = house.client();
    client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.read_until("\r\n\r\n").contains("content-length: 77\r\n"));
    for (path, code) in [("nothing", "204"), ("late", "204"), ("old", "304"), ("empty", "200")] {
        client.send(&format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = client.read_until("\r\n\r\n");
        assert!(head.starts_with(&format!("HTTP/1.1 {code}")), "{head}");
        assert_eq!(head.contains("content-length: 0\r\n"), code == "200", "{head}");
    }
}

#[test]
fn large_bodies_pass_both_ways_through_small_windows() {
    let target = Http2Target::new(|_, request, mut respond| async move {
        let whole = read(request.into_body()).await.expect("whole");
        let mut stream = respond.send_response(Response::new(()), false).expect("open");
        write(&mut stream, whole.data.into(), true).await.expect("taken");
    });
    let house = serving(&target);
    let sent: Bytes = (0..5_000_000_u32).map(|number| (number % 251) as u8).collect();
    let answer = asked(&house, Request::post("http://a.example/").body(sent.clone()).expect("request")).expect("whole");
    assert!(answer.body().data == sent, "{} bytes came", answer.body().data.len());
}

/// Data that nobody reads holds the window of its stream, and must not hold that of all the others on the connection.
#[test]
fn clients_that_do_not_read_do_not_hold_up_the_others() {
    let target = Http2Target::new(|_, request, mut respond| async move {
        if request.uri().path() != "/large" {
            return echo(request, respond).await;
        }
        let mut stream = respond.send_response(Response::new(()), false).expect("open");
        let part = Bytes::from(vec![7; 1 << 20]);
        for _ in 0..32 {
            if write(&mut stream, part.clone(), false).await.is_err() {
                return;
            }
        }
    });
    let house = serving(&target);
    let slow: Vec<TcpStream> = (0..20)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
            socket.set_recv_buffer_size(4_096).expect("a small buffer");
            socket.connect(&house.address.into()).expect("connect");
            let mut stream: TcpStream = socket.into();
            stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").expect("open");
            stream
        })
        .collect();
    eventually("all of them are answered", || target.requests() == slow.len());
    // For as long as anything more of the large ones could come.
    let mut quick = house.client();
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        quick.send("GET /quick HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(body(&quick.answer()).contains("GET /quick"));
    }
    assert_eq!(target.connections(), 1);
}

#[test]
fn trailers_pass_to_who_can_take_them() {
    let target = Http2Target::new(|_, request, mut respond| async move {
        let asked = read(request.into_body()).await.expect("whole").trailers.map_or(0, |map| map.len());
        let mut stream = respond.send_response(response(&[("trailer", "x-sum")]), false).expect("open");
        stream.send_data(Bytes::from(asked.to_string()), false).expect("open");
        stream.send_trailers(map(&[("x-sum", "7"), ("content-length", "9")])).expect("open");
    });
    let house = serving(&target);
    let answer = asked(&house, get("/")).expect("whole");
    assert_eq!(answer.body().trailers, Some(map(&[("x-sum", "7")])), "what frames does not pass");
    let answer = house.ask("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\n\r\n");
    assert!(answer.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{answer}");
    let answer = house.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
    let answer = house.ask("POST / HTTP/1.1\r\nHost: a\r\nTrailer: x-a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n");
    assert!(body(&answer).contains("\r\n1\r\n"), "the one that was announced: {answer}");
}

/// Answers when so many have come.
fn together(streams_max: u32, count: usize) -> Http2Target {
    let barrier = Arc::new(tokio::sync::Barrier::new(count));
    Http2Target::with(streams_max, move |_, request, respond| {
        let barrier = barrier.clone();
        async move {
            barrier.wait().await;
            echo(request, respond).await;
        }
    })
}

fn all_at_once(house: &House, count: usize) {
    house.runtime.block_on(async {
        let asks: Vec<_> = (0..count).map(|_| tokio::spawn(ask(house.address, get("/")))).collect();
        for ask in asks {
            assert_eq!(ask.await.expect("no panic").expect("whole").status(), 200);
        }
    });
}

#[test]
fn requests_share_a_connection_and_more_are_made_where_a_target_allows_little() {
    let target = together(200, 50);
    all_at_once(&serving(&target), 50);
    assert_eq!(target.connections(), 1);
    let target = together(2, 6);
    let house = serving(&target);
    all_at_once(&house, 6);
    assert!((3..=6).contains(&target.connections()), "{}", target.connections());
}

#[test]
fn what_a_target_refuses_unseen_is_sent_again_whatever_it_is() {
    let target = Http2Target::new(|number, request, mut respond| async move {
        if number == 1 {
            let _ = read(request.into_body()).await;
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        echo(request, respond).await;
    });
    let house = serving(&target);
    let answer = house.ask("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert!(body(&answer).contains("POST /a a http hello"), "{answer}");
    assert_eq!((target.requests(), bad(&house)), (2, (1, 0)));
}

#[test]
fn what_was_refused_and_cannot_be_put_together_again_is_not_sent_again() {
    let target = Http2Target::new(|_, request, mut respond| async move {
        let _ = read(request.into_body()).await;
        respond.send_reset(Reason::REFUSED_STREAM);
    });
    let house = serving(&target);
    let large = Request::post("http://a.example/").body(Bytes::from(vec![7; 200_000])).expect("request");
    let answer = asked(&house, large).expect("an answer");
    assert_eq!((answer.status().as_u16(), field(&answer, "x-changeover-reason")), (502, "target_reset"));
    assert_eq!(target.requests(), 1);
}

#[test]
fn a_reset_that_says_nothing_of_being_unseen_ends_the_request() {
    let target = Http2Target::new(|_, request, mut respond| async move {
        let _ = read(request.into_body()).await;
        respond.send_reset(Reason::INTERNAL_ERROR);
    });
    let house = serving(&target);
    for request in [get("/"), call(&[], "x")] {
        let before = target.requests();
        let is_call = request.method() == "POST";
        let answer = asked(&house, request).expect("an answer");
        let (code, said) = (answer.status().as_u16(), field(&answer, "grpc-status"));
        assert_eq!((code, said), if is_call { (200, "14") } else { (502, "") });
        assert_eq!(field(&answer, "x-changeover-reason"), "target_reset");
        assert_eq!(target.requests(), before + 1, "once");
    }
    assert_eq!(bad(&house), (2, 2));
}

/// A target by hand: takes the head of a request, says which was its last, and leaves; the next connections are a good one's.
/// The answer that a client got, and how many requests the good one did.
fn goaway_after_head(last: u8) -> (String, usize) {
    let good = Http2Target::new(|_, request, respond| echo(request, respond));
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("address");
    let (behind, seen) = (good.address, Arc::<AtomicUsize>::default());
    let counts = seen.clone();
    std::thread::spawn(move || {
        let (mut stream, _) = socket.accept().expect("accept");
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).expect("open");
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).expect("a preface");
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).expect("a frame");
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut payload).expect("its payload");
            match head[3] {
                SETTINGS if head[4] & ACK == 0 => stream.write_all(&frame(SETTINGS, ACK, 0, &[])).expect("open"),
                PING => stream.write_all(&frame(PING, ACK, 0, &payload)).expect("open"),
                HEADERS => break,
                _ => {}
            }
        }
        counts.fetch_add(1, Ordering::SeqCst);
        stream.write_all(&frame(GO_AWAY, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0])).expect("open");
        if last > 0 {
            drop(stream);
            return;
        }
        // Whoever comes now is served.
        let (next, _) = socket.accept().expect("accept");
        let onward = TcpStream::connect(behind).expect("connect");
        let (mut from, mut to) = (next.try_clone().expect("a copy"), onward.try_clone().expect("a copy"));
        std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        let (mut from, mut to) = (onward, next);
        let _ = std::io::copy(&mut from, &mut to);
        drop(stream);
    });
    let house = House::new(1);
    house.install(speaking(&[address]));
    let answer = house.ask("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    (answer, good.requests())
}

#[test]
fn what_came_behind_a_goaway_is_sent_again() {
    let (answer, requests) = goaway_after_head(0);
    assert!(body(&answer).contains("POST /a a http hello"), "{answer}");
    assert_eq!(requests, 1);
}

#[test]
fn what_came_before_a_goaway_and_was_not_answered_is_not() {
    let (answer, _) = goaway_after_head(1);
    assert_eq!((status(&answer), reason(&answer)), (502, "target_reset"), "{answer}");
}

#[test]
fn what_is_refused_in_the_middle_arrives_whole_at_last() {
    let target = Http2Target::new(|number, request, mut respond| async move {
        let (head, mut body) = request.into_parts();
        if number <= 2 {
            let data = body.data().await.expect("some").expect("some");
            body.flow_control().release_capacity(data.len()).expect("open");
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        echo(Request::from_parts(head, body), respond).await;
    });
    let house = serving(&target);
    let mut client = house.client();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for number in 0..40 {
        client.send(&format!("4\r\n{number:04}\r\n"));
        if number % 10 == 9 {
            eventually("it is tried", || target.requests() >= (number / 10).min(3));
        }
    }
    client.send("0\r\n\r\n");
    let answer = client.answer();
    let expected: String = (0..40).map(|number| format!("{number:04}")).collect();
    assert!(body(&answer).contains(&format!("POST /a a http {expected}\r\n")), "{answer}");
    assert_eq!((target.requests(), bad(&house)), (3, (1, 0)));
}

/// A target that is slow, or answers some calls only, is no dead connection: more connections would not help it.
#[test]
fn calls_that_wait_in_vain_beside_others_cost_no_connection() {
    let target = Http2Target::new(|_, request, mut respond| async move {
        if request.headers().contains_key("grpc-timeout") {
            let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            return;
        }
        echo(request, respond).await;
    });
    let house = serving(&target);
    for _ in 0..3 {
        house.runtime.block_on(async {
            let hangs = tokio::spawn(ask(house.address, call(&[("grpc-timeout", "100m")], "x")));
            let until = Instant::now() + Duration::from_millis(150);
            while Instant::now() < until {
                ask(house.address, get("/quick")).await.expect("whole");
            }
            assert_eq!(field(&hangs.await.expect("no panic").expect("an answer"), "grpc-status"), "4");
        });
    }
    assert_eq!(target.connections(), 1);
    // Where nothing comes any more, the next one tries anew.
    assert_eq!(field(&asked(&house, call(&[("grpc-timeout", "200m")], "x")).expect("an answer"), "grpc-status"), "4");
    asked(&house, get("/quick")).expect("whole");
    assert_eq!(target.connections(), 2);
}

#[test]
fn what_a_call_has_waited_on_hold_is_taken_off_its_deadline() {
    let target = Http2Target::new(|_, request, mut respond| async move {
        let left = request.headers().get("grpc-timeout").expect("a deadline").to_str().expect("text").to_owned();
        let grpc = [("content-type", "application/grpc"), ("grpc-status", "0"), ("left", left.as_str())];
        respond.send_response(response(&grpc), true).expect("open");
    });
    let house = serving(&target);
    house.install(ServiceRouting { mode: model::Mode::Hold { wait_max_ms: 9_000, queue_max: 9 }, ..speaking(&[target.address]) });
    let address = house.address;
    let asks = house.runtime.spawn(ask(address, call(&[("grpc-timeout", "8S")], "x")));
    house.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(300)).await });
    house.install(speaking(&[target.address]));
    let answer = house.runtime.block_on(asks).expect("no panic").expect("whole");
    let left: u64 = field(&answer, "left").trim_end_matches('m').parse().expect("in milliseconds");
    assert!((1_000..7_800).contains(&left), "{left}");
}

#[test]
fn a_target_that_says_goaway_ends_what_it_has_and_gets_nothing_new_there() {
    let (began, begins) = mpsc::channel();
    let (finish, finishes) = mpsc::channel::<()>();
    let finishes = Arc::new(std::sync::Mutex::new(finishes));
    let target = Http2Target::of_connections(200, move |number, mut connection| {
        let (began, finishes) = (began.clone(), finishes.clone());
        async move {
            while let Some(Ok((request, respond))) = connection.accept().await {
                if number == 1 {
                    connection.graceful_shutdown();
                }
                let (began, finishes) = (began.clone(), finishes.clone());
                tokio::spawn(async move {
                    if request.uri().path() == "/slow" {
                        began.send(()).expect("heard");
                        let waited = tokio::task::spawn_blocking(move || finishes.lock().expect("lock").recv());
                        waited.await.expect("no panic").expect("told");
                    }
                    echo(request, respond).await;
                });
            }
        }
    });
    let house = serving(&target);
    let address = house.address;
    let slow = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        text(&runtime.block_on(ask(address, get("/slow"))).expect("whole"))
    });
    begins.recv_timeout(DEADLINE).expect("it runs");
    // The word may still be on its way: at once or later, nothing is lost.
    for _ in 0..20 {
        assert_eq!(text(&asked(&house, get("/quick")).expect("whole")), "GET /quick a.example http ");
    }
    finish.send(()).expect("it waits");
    assert_eq!(slow.join().expect("no panic"), "GET /slow a.example http ");
    assert_eq!((target.connections(), bad(&house)), (2, (21, 0)));
}

#[test]
fn the_code_of_a_reset_is_passed_on() {
    for code in [Reason::CANCEL, Reason::ENHANCE_YOUR_CALM] {
        let target = Http2Target::new(move |_, _, mut respond| async move {
            let mut stream = respond.send_response(Response::new(()), false).expect("open");
            stream.send_data(Bytes::from_static(b"half"), false).expect("open");
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.send_reset(code);
        });
        let house = serving(&target);
        assert_eq!(asked(&house, get("/")).expect_err("half of it"), code);
        eventually("it is counted", || bad(&house) == (1, 1));
        let answer = {
            let mut client = house.client();
            client.send(common::GET);
            client.rest()
        };
        assert!(answer.contains("half") && !answer.ends_with("0\r\n\r\n"), "it does not look whole: {answer}");
    }
}

#[test]
fn a_client_that_leaves_is_told_to_the_target() {
    let (told, tells) = mpsc::channel();
    let target = Http2Target::new(move |_, request, mut respond| {
        let told = told.clone();
        async move {
            if request.uri().path() == "/answered" {
                let mut stream = respond.send_response(Response::new(()), false).expect("open");
                stream.send_data(Bytes::from_static(b"half"), false).expect("open");
                let reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.expect("a reset");
                return told.send(reset).expect("heard");
            }
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await.expect("a reset");
            told.send(reset).expect("heard");
        }
    });
    let house = serving(&target);
    for path in ["/answered", "/silent"] {
        house.runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(house.address).await.expect("connect");
            let (mut send, connection) = h2::client::handshake(stream).await.expect("handshake");
            tokio::spawn(connection);
            let request = Request::get(format!("http://a.example{path}")).body(()).expect("request");
            let (answer, mut stream) = send.send_request(request, true).expect("sent");
            let before = target.requests();
            if path == "/answered" {
                let mut body = answer.await.expect("an answer").into_body();
                body.data().await.expect("a part").expect("a part");
                stream.send_reset(Reason::CANCEL);
                tokio::task::yield_now().await;
            } else {
                let target = target.clone();
                tokio::task::spawn_blocking(move || eventually("it arrives", || target.requests() > before.max(1))).await.expect("it does");
                drop(answer);
                stream.send_reset(Reason::CANCEL);
            }
            let tells = &tells;
            let until = Instant::now() + DEADLINE;
            let code = loop {
                if let Ok(code) = tells.try_recv() {
                    break code;
                }
                assert!(Instant::now() < until, "{path}: the target is not told");
                tokio::time::sleep(Duration::from_millis(1)).await;
            };
            assert_eq!(code, Reason::CANCEL, "{path}");
        });
    }
    assert_eq!(target.connections(), 1, "others on the connection are not touched");
    eventually("both are counted", || bad(&house) == (2, 0));
}

#[test]
fn what_a_call_ends_with_is_what_is_judged() {
    let target = Http2Target::new(|_, request, mut respond| async move {
        let whole = read(request.into_body()).await.expect("whole");
        let said = String::from_utf8_lossy(&whole.data).into_owned();
        let grpc = [("content-type", "application/grpc")];
        match said.split_once(' ') {
            Some(("head", code)) => {
                respond.send_response(response(&[grpc[0], ("grpc-status", code)]), true).expect("open");
            }
            Some(("trailers", code)) => {
                let mut stream = respond.send_response(response(&grpc), false).expect("open");
                stream.send_data(Bytes::from_static(b"message"), false).expect("open");
                stream.send_trailers(map(&[("grpc-status", code), ("grpc-message", "so")])).expect("open");
            }
            _ => {
                let mut stream = respond.send_response(response(&grpc), false).expect("open");
                stream.send_data(Bytes::from_static(b"message"), true).expect("open");
            }
        }
    });
    let house = serving(&target);
    let (mut all, mut wrong) = (0, 0);
    for (said, code, is_bad) in [
        ("head 5", Some("5"), false),
        ("head 14", Some("14"), true),
        ("head 0", Some("0"), false),
        ("trailers 0", Some("0"), false),
        ("trailers 13", Some("13"), true),
        ("trailers 16", Some("16"), false),
        ("no status", None, true),
    ] {
        let answer = asked(&house, call(&[], said)).expect("whole");
        assert_eq!((answer.status().as_u16(), answer.headers().contains_key("content-length")), (200, false), "{said}");
        let trailers = answer.body().trailers.as_ref();
        let got = trailers.and_then(|map| map.get("grpc-status")).or(answer.headers().get("grpc-status"));
        assert_eq!(got.map(|value| value.to_str().expect("text")), code, "{said}");
        assert_eq!(trailers.is_some(), said.starts_with("trailers"), "{said}");
        (all, wrong) = (all + 1, wrong + u64::from(is_bad));
        eventually(said, || bad(&house) == (all, wrong));
    }
}

#[test]
fn a_deadline_is_kept_for_a_target_that_does_not() {
    let (told, tells) = mpsc::channel();
    let target = Http2Target::new(move |_, request, mut respond| {
        let told = told.clone();
        async move {
            let said = request.headers().get("grpc-timeout").map(|value| value.to_str().expect("text").to_owned());
            let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await.expect("a reset");
            told.send((said, reset)).expect("heard");
        }
    });
    let house = serving(&target);
    let before = Instant::now();
    let answer = asked(&house, call(&[("grpc-timeout", "300m")], "x")).expect("an answer");
    assert_eq!((field(&answer, "grpc-status"), field(&answer, "x-changeover-reason")), ("4", "response_timeout"));
    assert!((300..2_000).contains(&before.elapsed().as_millis()), "{:?}", before.elapsed());
    assert_eq!(tells.recv_timeout(DEADLINE).expect("told"), (Some("300m".to_owned()), Reason::CANCEL));
    assert_eq!(bad(&house), (1, 1));
}

#[test]
fn a_client_that_leaves_at_its_deadline_was_not_served_and_one_that_leaves_before_left() {
    let target = Http2Target::new(|_, _, mut respond| async move {
        let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
    });
    let house = serving(&target);
    for (deadline, waits, expected) in [("5S", 100, (1, 0)), ("100m", 100, (2, 1))] {
        house.runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(house.address).await.expect("connect");
            let (mut send, connection) = h2::client::handshake(stream).await.expect("handshake");
            tokio::spawn(connection);
            let (head, _) = call(&[("grpc-timeout", deadline)], "").into_parts();
            let (answer, stream) = send.send_request(Request::from_parts(head, ()), true).expect("sent");
            assert!(tokio::time::timeout(Duration::from_millis(waits), answer).await.is_err(), "nobody answers");
            drop(stream);
            let until = Instant::now() + DEADLINE;
            while bad(&house) != expected {
                assert!(Instant::now() < until, "{deadline}: {:?}", bad(&house));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
}

#[test]
fn what_we_answer_ourselves_is_a_status_of_grpc() {
    let house = House::new(1);
    let nobody = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    house.install(speaking(&[nobody]));
    let answer = asked(&house, call(&[], "x")).expect("an answer");
    assert_eq!((answer.status().as_u16(), field(&answer, "content-type"), field(&answer, "grpc-status")), (200, "application/grpc", "14"));
    assert_eq!((field(&answer, "x-changeover-reason"), answer.body().data.len()), ("connect_failed", 0));
    assert!(!field(&answer, "grpc-message").is_empty());
    let mut maintenance = speaking(&[nobody]);
    maintenance.mode = model::Mode::Maintenance { page: "<h1>soon</h1>".to_owned() };
    house.install(maintenance);
    assert_eq!(field(&asked(&house, call(&[], "x")).expect("an answer"), "grpc-status"), "14");
    assert_eq!(asked(&house, get("/")).expect("an answer").status(), 503, "who does not call gets a page");
}

#[test]
fn a_target_that_speaks_another_protocol_is_not_waited_for() {
    let target = common::Target::saying("hello");
    let house = House::new(1);
    house.install(speaking(&[target.address]));
    let before = Instant::now();
    let answer = house.ask(common::GET);
    assert_eq!(status(&answer), 502, "{answer}");
    assert_eq!(reason(&answer), "connect_failed", "{answer}");
    assert!(before.elapsed() < Duration::from_secs(4), "{:?}", before.elapsed());
}

#[test]
fn a_connection_that_a_target_has_closed_at_rest_is_not_used_again() {
    let target = Http2Target::of_connections(200, |_, mut connection| async move {
        let Some(Ok((request, respond))) = connection.accept().await else { return };
        let ended = tokio::spawn(echo(request, respond));
        let mut closed = std::pin::pin!(std::future::poll_fn(|cx| connection.poll_closed(cx)));
        while !ended.is_finished() {
            let _ = tokio::time::timeout(Duration::from_millis(1), closed.as_mut()).await;
        }
        // It leaves without a word, as one that was killed.
    });
    let house = serving(&target);
    for number in 1..=20 {
        let answer = house.ask("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(status(&answer), 200, "{number}: {answer}");
        eventually("it is closed", || !is_open_to(target.address));
    }
    assert_eq!(bad(&house), (20, 0));
}

/// Whether this process has a connection to that address.
fn is_open_to(address: SocketAddr) -> bool {
    let port = format!(":{:04X} 01 ", address.port());
    std::fs::read_to_string("/proc/net/tcp").expect("readable").lines().any(|line| line.contains(&port))
}

#[test]
fn a_switch_takes_the_next_request_and_lets_the_others_end() {
    let (old, new) = (together(200, 2), Http2Target::new(|_, request, respond| echo(request, respond)));
    let house = House::new(1);
    let versions: [(&str, &[SocketAddr]); 2] = [("v1", &[old.address]), ("v2", &[new.address])];
    let weighed = |v1, v2| ServiceRouting { protocol: Protocol::Http2, ..routing(&[("v2", v2), ("v1", v1)], &versions) };
    house.install(weighed(10_000, 0));
    let address = house.address;
    let first = house.runtime.spawn(ask(address, get("/first")));
    house.runtime.block_on(async {
        let until = Instant::now() + DEADLINE;
        while old.requests() == 0 {
            assert!(Instant::now() < until, "it does not come");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    house.install(ServiceRouting { arms: vec![model::Arm { version: version("v2"), weight: 10_000 }], ..weighed(0, 10_000) });
    assert_eq!(text(&asked(&house, get("/second")).expect("whole")), "GET /second a.example http ");
    assert_eq!((old.requests(), new.requests()), (1, 1));
    assert_eq!(house.proxy.in_flight(&service(), &version("v1")).requests, 1);
    // The old one gets what it waits for from elsewhere.
    house.runtime.block_on(ask(old.address, get("/other"))).expect("whole");
    assert_eq!(house.runtime.block_on(first).expect("no panic").expect("whole").status(), 200);
    eventually("nothing runs there", || house.proxy.in_flight(&service(), &version("v1")).requests == 0);
}

#[test]
fn a_target_that_is_told_who_asks_has_a_connection_for_each_client() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("address");
    let target = Http2Target::new(|_, request, respond| echo(request, respond));
    let (lines, told) = mpsc::channel();
    let behind = target.address;
    std::thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            let mut line = Vec::new();
            let mut byte = [0; 1];
            let mut from = stream.try_clone().expect("a copy");
            while !line.ends_with(b"\r\n") {
                from.read_exact(&mut byte).expect("a header");
                line.push(byte[0]);
            }
            lines.send(String::from_utf8_lossy(&line).into_owned()).expect("heard");
            let mut onward = TcpStream::connect(behind).expect("connect");
            let (mut back, mut client) = (onward.try_clone().expect("a copy"), stream);
            std::thread::spawn(move || std::io::copy(&mut from, &mut onward));
            std::thread::spawn(move || std::io::copy(&mut back, &mut client));
        }
    });
    let house = House::new(1);
    house.install(ServiceRouting { target_proxy_protocol: Some(ProxyProtocol::V1), ..speaking(&[address]) });
    let mut clients = [house.client(), house.client()];
    for _ in 0..2 {
        for client in &mut clients {
            client.send(common::GET);
            assert_eq!(status(&client.answer()), 200);
        }
    }
    let told: Vec<String> = told.try_iter().collect();
    let expected: Vec<String> = clients.iter().map(|client| client.stream.local_addr().expect("address").port().to_string()).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().zip(&expected).all(|(line, port)| line.contains(&format!(" {port} "))), "{told:?} {expected:?}");
}
