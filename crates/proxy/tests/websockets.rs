//! WebSockets at the end of a drain: a close frame between frames, spread out; a real client and a real server beside raw ones.

#[allow(unused)]
mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{Client, DEADLINE, House, Target, eventually, service, status, version};
use tokio_tungstenite::tungstenite::{self, Message, WebSocket, protocol::frame::coding::CloseCode};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
/// A farewell of 1012 without a mask.
const CLOSE_1012: [u8; 4] = [0x88, 2, 0x03, 0xF4];

/// A target that hands out its end of each WebSocket.
fn raw() -> (Target, mpsc::Receiver<TcpStream>) {
    let (streams, opened) = mpsc::channel();
    let target = Target::new(move |_, stream| {
        stream.write_all(SWITCHING).expect("write");
        streams.send(stream.try_clone().expect("clone")).expect("send");
        // The test reads from here on.
        loop {
            std::thread::park();
        }
    });
    (target, opened)
}

fn open(house: &House, opened: &mpsc::Receiver<TcpStream>) -> (Client, TcpStream) {
    let mut client = house.client();
    client.send(UPGRADE);
    assert_eq!(status(&client.read_until("\r\n\r\n")), 101);
    let target = opened.recv_timeout(DEADLINE).expect("opened");
    target.set_read_timeout(Some(DEADLINE)).expect("timeout");
    (client, target)
}

fn bytes(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).expect("read");
    bytes
}

fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    // A reset after the end is as good as an end.
    let _ = stream.read_to_end(&mut all);
    all
}

fn end_tunnels(house: &House, within: Duration) {
    house.proxy.end_tunnels(&service(), &version("v1"), within);
}

#[test]
fn a_client_that_is_reset_ends_its_websocket_and_nothing_panics() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        before(info);
    }));
    let (target, opened) = raw();
    let house = House::serving(&target);
    let (client, mut target) = open(&house, &opened);
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).expect("linger");
    drop(client);
    assert_eq!(rest(&mut target), b"");
    eventually("over", || house.proxy.in_flight(&service(), &version("v1")).tunnels == 0);
    drop(house);
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
}

#[test]
fn the_close_frame_goes_between_two_frames() {
    let (target, opened) = raw();
    let house = House::serving(&target);
    let (mut client, mut target) = open(&house, &opened);
    let mut sending = target.try_clone().expect("clone");
    // Frames of three bytes, sent so that a part of one is always under way.
    sending.write_all(&[0x82]).expect("write");
    let sender = std::thread::spawn(move || while sending.write_all(&[1, b'!', 0x82]).is_ok() {});
    assert_eq!(bytes(&mut client.stream, 3), [0x82, 1, b'!']);
    end_tunnels(&house, Duration::ZERO);
    let close = loop {
        let head = bytes(&mut client.stream, 2);
        if head[0] == CLOSE_1012[0] {
            break [head, bytes(&mut client.stream, 2)].concat();
        }
        assert_eq!((&head[..], &bytes(&mut client.stream, 1)[..]), (&[0x82, 1][..], &b"!"[..]));
    };
    assert_eq!(close, CLOSE_1012);
    // The client's answer goes to the target, behind what else it says, and then both sides end.
    let answer = [0x82, 0x81, 0, 0, 0, 0, b'x', 0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xF4 ^ 2];
    client.stream.write_all(&answer).expect("write");
    assert_eq!(rest(&mut target), answer);
    assert_eq!(rest(&mut client.stream), b"");
    sender.join().expect("sender");
    eventually("gone", || house.proxy.in_flight(&service(), &version("v1")).tunnels == 0);
}

#[test]
fn a_client_that_does_not_answer_is_left_and_the_target_is_told() {
    let (target, opened) = raw();
    let house = House::serving(&target);
    let (mut client, mut target) = open(&house, &opened);
    end_tunnels(&house, Duration::ZERO);
    assert_eq!(bytes(&mut client.stream, 4), CLOSE_1012);
    assert_eq!(rest(&mut target), [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE9]);
    assert_eq!(rest(&mut client.stream), b"");
}

#[test]
fn a_frame_that_never_ends_is_cut_without_a_close_frame_in_it() {
    let (target, opened) = raw();
    let house = House::serving(&target);
    let (mut client, mut target) = open(&house, &opened);
    target.write_all(&[0x82, 4, b'a']).expect("write");
    assert_eq!(bytes(&mut client.stream, 3), [0x82, 4, b'a']);
    end_tunnels(&house, Duration::ZERO);
    assert_eq!(rest(&mut client.stream), b"");
}

#[test]
fn a_target_that_said_goodbye_itself_is_not_repeated() {
    let (target, opened) = raw();
    let house = House::serving(&target);
    let (mut client, mut target) = open(&house, &opened);
    let own = [0x88, 2, 0x03, 0xE8];
    target.write_all(&own).expect("write");
    assert_eq!(bytes(&mut client.stream, 4), own);
    end_tunnels(&house, Duration::ZERO);
    assert_eq!(rest(&mut client.stream), b"");
}

#[test]
fn other_protocols_are_left_alone() {
    let target = Target::new(|_, stream| {
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").expect("write");
        let mut chunk = [0; 16];
        while let Ok(read @ 1..) = stream.read(&mut chunk) {
            stream.write_all(&chunk[..read]).expect("write");
        }
        false
    });
    let house = House::serving(&target);
    let mut client = house.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    client.read_until("\r\n\r\n");
    end_tunnels(&house, Duration::ZERO);
    // Commands come in order: this one was taken after the one before.
    house.runtime.block_on(house.proxy.acknowledge()).expect("acknowledged");
    client.send("still here");
    assert_eq!(client.read_exact(10), "still here");
}

#[test]
fn many_are_closed_spread_over_the_time() {
    const MANY: usize = 40;
    const WITHIN: Duration = Duration::from_secs(5);
    let (target, opened) = raw();
    let house = House::serving(&target);
    let open: Vec<_> = (0..MANY).map(|_| open(&house, &opened)).collect();
    let began = Instant::now();
    end_tunnels(&house, WITHIN);
    // Asked again, none gets another moment.
    end_tunnels(&house, Duration::ZERO);
    let closing = open.into_iter().map(|(mut client, target)| {
        std::thread::spawn(move || {
            assert_eq!(bytes(&mut client.stream, 4), CLOSE_1012);
            drop(target);
            began.elapsed()
        })
    });
    let closing: Vec<_> = closing.collect();
    let mut moments: Vec<Duration> = closing.into_iter().map(|client| client.join().expect("closed")).collect();
    moments.sort();
    // Uniform over three seconds: that 40 of them lie within one has a chance below 10⁻¹⁴.
    assert!(moments[MANY - 1] - moments[0] > Duration::from_secs(1), "{moments:?}");
    assert!(moments[MANY - 1] <= WITHIN, "{moments:?}");
}

#[test]
fn a_real_client_and_a_real_server_understand_it_at_the_end_of_a_drain() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("address");
    let server = std::thread::spawn(move || {
        let (stream, _) = socket.accept().expect("accept");
        let mut server: WebSocket<TcpStream> = tungstenite::accept(stream).expect("handshake");
        loop {
            match server.read().expect("a clean end") {
                Message::Close(frame) => return frame.map(|frame| frame.code),
                message @ Message::Text(_) => server.send(message).expect("send"),
                _ => {}
            }
        }
    });
    let house = House::new(1);
    house.install(common::routing(&[("v1", 10_000)], &[("v1", &[address])]));
    let stream = TcpStream::connect(house.address).expect("connect");
    let (mut client, _) = tungstenite::client(format!("ws://{}/ws", house.address), stream).expect("handshake");
    let long = "x".repeat(100_000);
    client.send(Message::text(long.clone())).expect("send");
    assert_eq!(client.read().expect("echo"), Message::text(long));
    let proxy = house.proxy.clone();
    let drain = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(proxy.drain(Duration::ZERO, Duration::from_secs(6)))
    });
    let Message::Close(Some(frame)) = client.read().expect("a close frame") else { panic!("no close frame") };
    assert_eq!(frame.code, CloseCode::Restart);
    assert!(matches!(client.read(), Err(tungstenite::Error::ConnectionClosed)), "the end is clean");
    assert_eq!(drain.join().expect("drain"), 0, "nothing had to be cut");
    assert_eq!(server.join().expect("server"), Some(CloseCode::Restart));
}
