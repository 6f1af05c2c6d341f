//! `GET /ws` echoes messages.
#![cfg(feature = "websocket")]

use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use testbed::{ports, service, wait};
use tokio_tungstenite::tungstenite::{Message, client};

#[test]
fn echoes_text() {
    let port = ports::free().expect("a free port");
    let options = service::Options { port, ..service::Options::default() };
    std::thread::spawn(move || service::run(options));
    let stream = wait::until(Duration::from_secs(10), "service listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
    let (mut socket, response) = client("ws://shop.test/ws", stream).expect("a handshake");
    assert_eq!(response.headers()["x-version"], "v1");
    socket.send(Message::text("are you there")).expect("sent");
    let echo = socket.read().expect("an echo");
    assert_eq!(echo, Message::text("are you there"));
}
