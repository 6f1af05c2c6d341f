//! HTTP/2 with prior knowledge on the same port, over HTTP/1.1 to the target.

mod common;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use common::{House, Target, eventually, routing, service, version};
use http::{Request, Response, Version};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

struct Io(TcpStream);

impl Read for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut space = [0; 4096];
        let length = space.len().min(to.remaining());
        let mut buffer = ReadBuf::new(&mut space[..length]);
        let poll = Pin::new(&mut self.0).poll_read(cx, &mut buffer);
        to.put_slice(buffer.filled());
        poll
    }
}

impl Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[derive(Clone)]
struct Spawn;

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

/// A body of unknown length.
struct Text(Option<&'static str>);

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
    }
    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

async fn connect(address: SocketAddr) -> SendRequest<Text> {
    let stream = TcpStream::connect(address).await.expect("connect");
    let (send, connection) = http2::handshake(Spawn, Io(stream)).await.expect("handshake");
    tokio::spawn(connection);
    send
}

async fn text(response: Response<Incoming>) -> String {
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        all.extend(frame.expect("whole body").into_data().unwrap_or_default());
    }
    String::from_utf8(all).expect("text")
}

fn get(fields: &[(&str, &str)]) -> Request<Text> {
    let mut request = Request::get("http://a.example/x").version(Version::HTTP_2);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Text(None)).expect("request")
}

#[test]
fn streams_reach_the_target_as_http_1() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    house.runtime.block_on(async {
        let mut send = connect(house.address).await;
        let response = send.send_request(get(&[("cookie", "a=1"), ("cookie", "b=2")])).await.expect("answer");
        assert_eq!((response.status(), response.version()), (http::StatusCode::OK, Version::HTTP_2));
        assert_eq!(text(response).await, "ok");
        let post = Request::post("http://a.example/y").body(Text(Some("hello"))).expect("request");
        assert_eq!(text(send.send_request(post).await.expect("answer")).await, "ok");
        let refused = send.send_request(get(&[("host", "other")])).await.expect("answer");
        assert_eq!(refused.status().as_u16(), 400);
    });
    let seen = target.text();
    assert!(seen.starts_with("GET /x HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("host: a.example\r\n") && seen.contains("cookie: a=1; b=2\r\n"), "{seen}");
    assert!(seen.ends_with("5\r\nhello\r\n0\r\n\r\n") && !seen.contains("other"), "{seen}");
}

#[test]
fn one_connection_serves_both_versions_across_a_switch_and_ends_in_a_drain() {
    let (old, new) = (Target::saying("old"), Target::saying("new"));
    let house = House::new(1);
    let versions: &[(&str, &[SocketAddr])] = &[("v1", &[old.address]), ("v2", &[new.address])];
    house.install(routing(&[("v1", 10_000)], versions));
    let mut send = house.runtime.block_on(connect(house.address));
    let ask = |send: &mut SendRequest<Text>| {
        let answer = send.send_request(get(&[]));
        house.runtime.block_on(async { text(answer.await.expect("answer")).await })
    };
    assert_eq!(ask(&mut send), "old");
    house.install(routing(&[("v2", 10_000)], versions));
    assert_eq!(ask(&mut send), "new");
    let cut = house.runtime.block_on(house.proxy.drain(std::time::Duration::from_secs(60), common::DEADLINE));
    assert_eq!(cut, 0, "GOAWAY lets the client go long before the grace of idle connections ends");
    eventually("released", || house.proxy.in_flight(&service(), &version("v2")).requests == 0);
}

#[test]
fn a_broken_answer_resets_the_stream() {
    let target = Target::new(|_, stream| {
        std::io::Write::write_all(stream, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n").expect("write");
        false
    });
    let house = House::serving(&target);
    house.runtime.block_on(async {
        let mut send = connect(house.address).await;
        let mut body = send.send_request(get(&[])).await.expect("answer").into_body();
        let failed = loop {
            match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                Some(Ok(_)) => {}
                end => break end,
            }
        };
        assert!(matches!(failed, Some(Err(_))), "a clean end of a broken body");
    });
}
