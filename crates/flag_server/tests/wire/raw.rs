//! Requests as bytes, and gRPC without any client library in between.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use http::Uri;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::{Response, Status, Streaming};
use tonic_prost::ProstCodec;

pub(crate) struct Answer {
    pub(crate) status: u16,
    /// With lower-case names, as one text.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> &str {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// One request on a connection of its own. `fields` end with `\r\n` each.
pub(crate) fn ask(address: SocketAddr, method: &str, path: &str, fields: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("it accepts");
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: flags\r\nconnection: close\r\ncontent-length: {length}\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).expect("written");
    // A server may answer, and close, before it has read everything.
    let _ = stream.write_all(body.as_bytes());
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head[9..12].parse().expect("a status");
    Answer { status, head: head.replace("\r\n", "\n"), body: body.to_owned() }
}

pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> Answer {
    ask(address, "POST", path, "content-type: application/json\r\n", body)
}

/// Server-sent events, line by line as they come; the head has been read.
pub(crate) struct Events(BufReader<TcpStream>);

impl Events {
    pub(crate) fn open(address: SocketAddr, path: &str, fields: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("it accepts");
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: flags\r\n{fields}\r\n").as_bytes()).expect("written");
        let mut events = Self(BufReader::new(stream));
        assert_eq!(events.line().as_deref(), Some("HTTP/1.1 200 OK"));
        while events.line().is_some_and(|line| !line.is_empty()) {}
        events
    }

    /// None at the end.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let size = self.0.read_line(&mut line).expect("text");
        (size > 0).then(|| line.trim_end().to_owned())
    }

    /// The next line that begins with `name`.
    pub(crate) fn next(&mut self, name: &str) -> Option<String> {
        loop {
            let line = self.line()?;
            if let Some(rest) = line.strip_prefix(name) {
                return Some(rest.to_owned());
            }
        }
    }
}

/// An HTTP/2 connection that calls methods by path.
#[derive(Clone)]
pub(crate) struct Grpc {
    send: http2::SendRequest<tonic::body::Body>,
    origin: Uri,
    /// Sent with each call.
    pub(crate) fields: Vec<(&'static str, String)>,
}

impl Grpc {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = tokio::net::TcpStream::connect(address).await.expect("it accepts");
        stream.set_nodelay(true).expect("a socket");
        let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self { send, origin: format!("http://{address}").parse().expect("an address"), fields: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    fn request<M>(&self, message: M) -> tonic::Request<M> {
        let mut request = tonic::Request::new(message);
        for (name, value) in &self.fields {
            let value = MetadataValue::try_from(value.as_str()).expect("text");
            request.metadata_mut().insert(MetadataKey::from_static(name), value);
        }
        request
    }

    pub(crate) async fn call<M, R>(&self, path: &'static str, message: M) -> Result<R, Status>
    where
        M: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let mut client = tonic::client::Grpc::with_origin(service(self.send.clone()), self.origin.clone());
        client.ready().await.expect("ready");
        let codec = ProstCodec::<M, R>::default();
        client.unary(self.request(message), PathAndQuery::from_static(path), codec).await.map(Response::into_inner)
    }

    pub(crate) async fn stream<M, R>(&self, path: &'static str, message: M) -> Result<Streaming<R>, Status>
    where
        M: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let mut client = tonic::client::Grpc::with_origin(service(self.send.clone()), self.origin.clone());
        client.ready().await.expect("ready");
        let codec = ProstCodec::<M, R>::default();
        client.server_streaming(self.request(message), PathAndQuery::from_static(path), codec).await.map(Response::into_inner)
    }
}

fn service(
    send: http2::SendRequest<tonic::body::Body>,
) -> impl tower::Service<http::Request<tonic::body::Body>, Response = http::Response<Incoming>, Error = hyper::Error, Future: Send> {
    tower::service_fn(move |request| {
        let mut send = send.clone();
        async move { send.send_request(request).await }
    })
}

/// On one thread, for tests that speak gRPC.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The bytes that open an HTTP/2 connection, without any request.
pub(crate) const PREFACE: Bytes = Bytes::from_static(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
