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

/// A body and its trailers; an error: it broke off.
type Whole = Result<(String, Option<http::HeaderMap>), ()>;

/// An answer as hyper's client reads it.
fn answered(house: &House, request: Request<Text>) -> (u16, http::HeaderMap, Whole) {
    house.runtime.block_on(async {
        let mut send = connect(house.address).await;
        let (head, mut body) = send.send_request(request).await.expect("answer").into_parts();
        let (mut all, mut trailers) = (Vec::new(), None);
        let whole = loop {
            match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                None => break Ok((String::from_utf8(all).expect("text"), trailers)),
                Some(Err(_)) => break Err(()),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => all.extend(data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
        };
        (head.status.as_u16(), head.headers, whole)
    })
}

#[test]
fn fields_of_the_targets_connection_do_not_reach_http_2() {
    let target = Target::new(|_, stream| {
        let head = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\nConnection: keep-alive, x-inner\r\nKeep-Alive: timeout=5\r\n\
                    X-Inner: 1\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nX-Outer: 1\r\nTransfer-Encoding: chunked\r\nTrailer: x-t\r\n\r\n";
        let body = "2\r\nhi\r\n0\r\nContent-Length: 9\r\nX-T: 1\r\nX-Unannounced: 1\r\n\r\n";
        std::io::Write::write_all(stream, format!("{head}{body}").as_bytes()).is_ok()
    });
    let house = House::serving(&target);
    let (status, fields, whole) = answered(&house, get(&[("te", "trailers")]));
    // The 103 was consumed: hyper's server cannot send one.
    assert_eq!((status, fields.get("x-outer").map(|value| value.as_bytes())), (200, Some(&b"1"[..])));
    for gone in ["connection", "keep-alive", "x-inner", "proxy-connection", "upgrade", "transfer-encoding", "link"] {
        assert!(!fields.contains_key(gone), "{gone} in {fields:?}");
    }
    let (text, trailers) = whole.expect("whole");
    let trailers = trailers.expect("trailers");
    assert_eq!((text.as_str(), trailers.get("x-t").is_some(), trailers.contains_key("content-length")), ("hi", true, false));
    // Who does not ask for trailers gets none that it was not told of.
    let (_, fields, whole) = answered(&house, get(&[]));
    assert!(!fields.contains_key("trailer") && whole.expect("whole").1.is_none_or(|trailers| !trailers.contains_key("content-length")));
}

#[test]
fn a_bad_answer_becomes_502_over_http_2_too() {
    for given in
        ["garbage\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n"]
    {
        let house = House::serving(&Target::new(move |_, stream| std::io::Write::write_all(stream, given.as_bytes()).is_ok()));
        let (status, fields, _) = answered(&house, get(&[]));
        assert_eq!((status, fields["x-changeover-reason"].as_bytes()), (502, &b"bad_answer"[..]), "{given:?}");
    }
    for given in ["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloXX"]
    {
        let target = Target::new(move |_, stream| {
            let _ = std::io::Write::write_all(stream, given.as_bytes());
            false
        });
        let (status, _, whole) = answered(&House::serving(&target), get(&[]));
        assert!(status == 200 && whole.is_err(), "{given:?} became whole: {whole:?}");
    }
}

#[test]
fn nobody_is_believed_over_http_2_who_asked_before() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let claims = [("forwarded", "for=9.9.9.9"), ("x-real-ip", "9.9.9.9"), ("x-forwarded-for", "9.9.9.9"), ("x-forwarded-proto", "https")];
    let (status, _, _) = answered(&house, get(&claims));
    let text = target.text();
    assert!(status == 200 && !text.contains("9.9.9.9") && !text.contains("https"), "{text}");
    assert!(text.contains("x-forwarded-for: 127.0.0.1\r\n") && text.contains("x-forwarded-proto: http\r\n"), "{text}");
}

#[test]
fn an_expectation_over_http_2_is_met_or_refused() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let post = |expected: &str| {
        let request = Request::post("http://a.example/y").version(Version::HTTP_2).header("expect", expected);
        request.body(Text(Some("hello"))).expect("request")
    };
    assert_eq!(answered(&house, post("100-continue")).0, 200);
    assert!(!target.text().contains("expect"));
    assert_eq!(answered(&house, post("cake")).0, 417);
    assert_eq!(target.requests(), 1);
}
