//! Many calls on one connection to a target: none harms another, and each is judged by what its client sees. What one alone needs:
//! `http2_targets`.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::frames::{ACK, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, frame};
use common::http2_target::{Http2Target, ask, asked, bad, call, echo, get, read, response, serving, speaking, text, write};
use common::{DEADLINE, House, eventually, reason, status};
use h2::Reason;
use http::{Request, Response};

/// A target by hand: `act` gets kind, flags and stream of each frame that is none of the connection's.
fn by_hand(act: impl Fn(u8, u8, u32, &mut TcpStream) + Send + Sync + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    let (address, connections, act) = (socket.local_addr().expect("address"), Arc::<AtomicUsize>::default(), Arc::new(act));
    let counts = connections.clone();
    std::thread::spawn(move || {
        for mut stream in socket.incoming().flatten() {
            counts.fetch_add(1, Ordering::SeqCst);
            let act = act.clone();
            std::thread::spawn(move || -> std::io::Result<()> {
                stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
                stream.read_exact(&mut [0; 24])?;
                loop {
                    let mut head = [0; 9];
                    stream.read_exact(&mut head)?;
                    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
                    stream.read_exact(&mut payload)?;
                    match head[3] {
                        SETTINGS if head[4] & ACK == 0 => stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?,
                        PING if head[4] & ACK == 0 => stream.write_all(&frame(PING, ACK, 0, &payload))?,
                        SETTINGS | PING => {}
                        kind => act(kind, head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), &mut stream),
                    }
                }
            });
        }
    });
    (address, connections)
}

/// The connection of a client that takes nothing of its answers until it is told to.
async fn tight(address: SocketAddr) -> (h2::client::SendRequest<Bytes>, tokio::sync::oneshot::Sender<()>) {
    let stream = tokio::net::TcpStream::connect(address).await.expect("connect");
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0).initial_connection_window_size(1 << 24);
    let (send, mut connection) = builder.handshake(stream).await.expect("handshake");
    let (takes, taking) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            _ = &mut connection => {}
            told = taking => {
                if told.is_ok() {
                    connection.set_initial_window_size(1 << 20).expect("a window");
                }
                let _ = connection.await;
            }
        }
    });
    (send, takes)
}

/// Clients on a thread of their own: they go on, whatever the test waits for.
struct Clients(tokio::runtime::Handle);

impl Clients {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        Self(handle)
    }

    fn run<T: Send + 'static>(&self, what: impl Future<Output = T> + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        self.0.spawn(async move { done.send(what.await) });
        result.recv_timeout(DEADLINE).expect("in time")
    }
}

async fn connection(house: &House) -> h2::client::SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(house.address).await.expect("connect");
    let (send, connection) = h2::client::handshake(stream).await.expect("handshake");
    tokio::spawn(connection);
    send
}

fn open_call(fields: &[(&str, &str)]) -> Request<()> {
    call(fields, "").map(|_| ())
}

#[test]
fn a_status_alone_stays_one_block_also_for_a_call_that_is_not_sent() {
    let target = Http2Target::new(|_, _, mut respond| async move {
        let grpc = [("content-type", "application/grpc"), ("grpc-status", "16")];
        respond.send_response(response(&grpc), true).expect("open");
    });
    let house = serving(&target);
    house.runtime.block_on(async {
        let mut send = connection(&house).await;
        let (answer, _sending) = send.send_request(open_call(&[]), false).expect("sent");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.headers()["grpc-status"], "16");
        assert!(answer.body().is_end_stream(), "the head is the end");
    });
    eventually("it is counted", || bad(&house) == (1, 0));
}

/// What h2 takes for an attack, summed over a connection, are here many clients that each do nothing wrong.
#[test]
fn small_frames_that_nobody_reads_do_not_end_the_connection() {
    const SLOW: usize = 12;
    const TICKS: usize = 4_300;
    let (full, fills) = mpsc::channel();
    let target = Http2Target::new(move |_, request, mut respond| {
        let full = full.clone();
        async move {
            if request.uri().path() == "/quick" {
                return echo(request, respond).await;
            }
            let mut stream = respond.send_response(Response::new(()), false).expect("open");
            // Almost all that fits into the window of a stream.
            for _ in 0..TICKS {
                stream.send_data(Bytes::from_static(b"fifteen letters"), false).expect("open");
            }
            full.send(()).expect("heard");
            write(&mut stream, Bytes::from_static(b"end"), true).await.expect("taken");
        }
    });
    let house = serving(&target);
    let (clients, address) = (Clients::new(), house.address);
    let (answers, takes) = clients.run(async move {
        let (mut send, takes) = tight(address).await;
        let mut answers = Vec::new();
        for _ in 0..SLOW {
            let request = Request::get("http://a.example/ticks").body(()).expect("request");
            answers.push(send.send_request(request, true).expect("sent").0.await.expect("its head").into_body());
        }
        (answers, takes)
    });
    (0..SLOW).for_each(|_| fills.recv_timeout(DEADLINE).expect("it is sent"));
    for _ in 0..20 {
        assert_eq!(asked(&house, get("/quick")).expect("whole").status(), 200);
    }
    assert_eq!(target.connections(), 1);
    takes.send(()).expect("it waits");
    let expected = ["fifteen letters".repeat(TICKS).as_bytes(), b"end"].concat();
    for answer in answers {
        assert!(clients.run(read(answer)).expect("whole").data == expected);
    }
    eventually("all are counted", || bad(&house) == (SLOW as u64 + 20, 0));
}

#[test]
fn what_comes_for_requests_that_were_given_up_does_not_end_the_connection() {
    // Answers whoever has sent all; to whoever gives up it says something too late.
    let (address, connections) = by_hand(|kind, flags, stream, socket| {
        if kind == HEADERS && flags & END_STREAM != 0 {
            socket.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88])).expect("open");
        } else if kind == RST_STREAM {
            socket.write_all(&frame(HEADERS, END_HEADERS, stream, &[0x88])).expect("open");
        }
    });
    let house = House::new(1);
    house.install(speaking(&[address]));
    // More than h2 bears by default, which is 1024 beyond the 50 of the last second.
    for _ in 0..26 {
        house.runtime.block_on(async {
            let mut send = connection(&house).await;
            let calls: Vec<_> = (0..99)
                .map(|_| {
                    let (answer, mut stream) = send.send_request(open_call(&[("grpc-timeout", "100m")]), false).expect("sent");
                    stream.send_data(Bytes::from_static(b"x"), true).expect("open");
                    answer
                })
                .collect();
            // So that the connection is seen to be alive.
            let until = Instant::now() + Duration::from_millis(120);
            while Instant::now() < until {
                let request = Request::get("http://a.example/").body(()).expect("request");
                assert_eq!(send.send_request(request, true).expect("sent").0.await.expect("an answer").status(), 200);
            }
            for answer in calls {
                assert_eq!(answer.await.expect("an answer").headers()["grpc-status"], "4");
            }
        });
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn calls_that_are_stuck_hold_no_room_of_the_connection() {
    const STUCK: usize = 12;
    /// Of a connection, as HTTP/2 begins.
    const WINDOW: usize = 65_535;
    let (came, takes) = (Arc::new(tokio::sync::watch::Sender::new(0)), tokio::sync::watch::Sender::new(false));
    let taking = takes.subscribe();
    let target = Http2Target::new(move |_, request, mut respond| {
        let (came, mut taking) = (came.clone(), taking.clone());
        async move {
            if request.uri().path() == "/quick" {
                return echo(request, respond).await;
            }
            let (mut body, mut all, mut held) = (request.into_body(), came.subscribe(), 0);
            loop {
                tokio::select! {
                    data = body.data() => {
                        let length = data.expect("more").expect("more").len();
                        held += length;
                        came.send_modify(|came| *came += length);
                    }
                    _ = all.wait_for(|came| *came >= WINDOW) => break,
                }
            }
            // All of them want to send more now, and are answered.
            let mut stream = respond.send_response(Response::new(()), false).expect("open");
            stream.send_data(Bytes::from_static(b"nobody takes this"), false).expect("open");
            taking.wait_for(|takes| *takes).await.expect("the test lives");
            body.flow_control().release_capacity(held).expect("held");
            let _ = read(body).await;
            let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
        }
    });
    let house = serving(&target);
    let (clients, address) = (Clients::new(), house.address);
    let _stuck = clients.run(async move {
        let (mut send, never_takes) = tight(address).await;
        let mut all = Vec::new();
        for _ in 0..STUCK {
            let (answer, mut stream) = send.send_request(open_call(&[]), false).expect("sent");
            tokio::spawn(async move {
                let _ = write(&mut stream, Bytes::from(vec![7; 60_000]), true).await;
            });
            all.push(answer);
        }
        let mut answers = Vec::new();
        for answer in all {
            answers.push(answer.await.expect("its head"));
        }
        (answers, never_takes)
    });
    takes.send(true).expect("they wait");
    for _ in 0..5 {
        let large = Request::post("http://a.example/quick").body(Bytes::from(vec![b'a'; 200_000])).expect("request");
        assert_eq!(text(&asked(&house, large).expect("whole")).len(), "POST /quick a.example http ".len() + 200_000);
    }
    assert_eq!(target.connections(), 1);
}

#[test]
fn a_connection_from_which_nothing_comes_is_left_also_when_clients_leave_first() {
    let target = Http2Target::of_connections(200, |number, mut connection| async move {
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(async move {
                if number == 1 {
                    return std::future::pending().await;
                }
                echo(request, respond).await;
            });
        }
    });
    let house = serving(&target);
    let patience = Duration::from_millis(1_300);
    let gives_up = house.runtime.block_on(async { tokio::time::timeout(patience, ask(house.address, call(&[], "x"))).await });
    assert!(gives_up.is_err());
    assert_eq!(text(&asked(&house, get("/next")).expect("whole")), "GET /next a.example http ");
    assert_eq!(target.connections(), 2);
}

#[test]
fn a_connection_comes_about_although_nobody_waits_for_it() {
    let target = Http2Target::new(|_, request, respond| echo(request, respond));
    // Slower to begin than any client is patient.
    let (slow, behind) = (TcpListener::bind("127.0.0.1:0").expect("bind"), target.address);
    let address = slow.local_addr().expect("address");
    std::thread::spawn(move || {
        for stream in slow.incoming().flatten() {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(400));
                let onward = TcpStream::connect(behind).expect("connect");
                let (mut from, mut to) = (stream.try_clone().expect("a copy"), onward.try_clone().expect("a copy"));
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                let (mut from, mut to) = (onward, stream);
                std::io::copy(&mut from, &mut to)
            });
        }
    });
    let house = House::new(1);
    house.install(speaking(&[address]));
    let asks = || house.runtime.block_on(async { tokio::time::timeout(Duration::from_millis(100), ask(house.address, get("/"))).await });
    eventually("one of them is served", || asks().is_ok());
}

#[test]
fn a_call_that_hangs_behind_its_head_until_its_deadline_was_not_served() {
    let target = Http2Target::new(|_, _, mut respond| async move {
        let mut stream = respond.send_response(response(&[("content-type", "application/grpc")]), false).expect("open");
        let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
    });
    let house = serving(&target);
    let asks = ask(house.address, call(&[("grpc-timeout", "100m")], "x"));
    assert!(Clients::new().run(async { tokio::time::timeout(Duration::from_millis(120), asks).await }).is_err());
    eventually("it is counted", || bad(&house) == (1, 1));
}

#[test]
fn a_deadline_holds_also_while_the_client_has_not_said_all() {
    let (told, tells) = mpsc::channel();
    let target = Http2Target::new(move |_, _, mut respond| {
        let told = told.clone();
        async move { told.send(std::future::poll_fn(|cx| respond.poll_reset(cx)).await).expect("heard") }
    });
    let house = serving(&target);
    house.runtime.block_on(async {
        let mut send = connection(&house).await;
        let (answer, _sending) = send.send_request(open_call(&[("grpc-timeout", "100m")]), false).expect("sent");
        assert_eq!(answer.await.expect("an answer").headers()["grpc-status"], "4");
    });
    assert_eq!(tells.recv_timeout(DEADLINE).expect("it is told").expect("a reset"), Reason::CANCEL);
    eventually("it is counted", || bad(&house) == (1, 1));
}

#[test]
fn an_answer_that_is_none_of_grpc_is_judged_as_its_client_will() {
    let target = Http2Target::new(|_, request, mut respond| async move {
        let code: u16 = request.headers()["wants"].to_str().expect("text").parse().expect("a number");
        let mut answer = response(&[("content-type", "text/html")]);
        *answer.status_mut() = http::StatusCode::from_u16(code).expect("a status");
        respond.send_response(answer, true).expect("open");
    });
    let house = serving(&target);
    let (mut all, mut wrong) = (0, 0);
    for (code, is_bad) in [("200", true), ("401", false), ("403", false), ("404", true), ("429", true), ("503", true)] {
        assert_eq!(asked(&house, call(&[("wants", code)], "x")).expect("whole").status().as_str(), code, "it is passed on");
        (all, wrong) = (all + 1, wrong + u64::from(is_bad));
        eventually(code, || bad(&house) == (all, wrong));
    }
}

#[test]
fn trailers_that_http2_does_not_know_are_left_out() {
    let target = Http2Target::new(|_, request, respond| echo(request, respond));
    let house = serving(&target);
    let names = ["keep-alive", "proxy-connection", "connection", "te", "upgrade", "proxy-authorization"];
    for name in names {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nTrailer: {name}\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(status(&house.ask(&format!("{head}0\r\n{name}: x\r\n\r\n"))), 200, "{name}");
    }
    assert_eq!(bad(&house), (names.len() as u64, 0));
}

#[test]
fn what_a_target_has_reset_is_not_sent_again_on_a_connection_that_was_there() {
    let target = Http2Target::new(|number, request, mut respond| async move {
        match number {
            1 => echo(request, respond).await,
            _ => respond.send_reset(Reason::INTERNAL_ERROR),
        }
    });
    let house = serving(&target);
    asked(&house, get("/")).expect("whole");
    let removes = Request::delete("http://a.example/").body(Bytes::new()).expect("request");
    assert_eq!(asked(&house, removes).expect("an answer").status(), 502);
    assert_eq!((target.requests(), bad(&house)), (2, (2, 1)));
}

#[test]
fn an_answer_that_changes_the_protocol_is_none() {
    // `:status: 101` as a literal.
    let (address, _) = by_hand(|kind, _, stream, socket| {
        if kind == HEADERS {
            socket.write_all(&frame(HEADERS, END_HEADERS, stream, &[0x08, 3, b'1', b'0', b'1'])).expect("open");
            socket.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88])).expect("open");
        }
    });
    let house = House::new(1);
    house.install(speaking(&[address]));
    let answer = house.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!((status(&answer), reason(&answer)), (502, "bad_answer"), "{answer}");
}
