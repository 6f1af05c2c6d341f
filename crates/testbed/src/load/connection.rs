//! One client connection, which knows whether its peer has closed it before anything is written.

use std::cell::RefCell;
use std::error::Error;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use tokio::net::TcpStream;

use crate::hyper_io::{HyperIo, LocalExecutor};

pub(crate) type Outgoing = Request<Full<Bytes>>;

pub(crate) struct Connection {
    sender: Sender,
    /// A second handle of the socket, to look at it without going through the runtime.
    probe: std::net::TcpStream,
    end: End,
}

enum Sender {
    H1(http1::SendRequest<Full<Bytes>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

/// How the connection ended, once it has.
type End = Rc<RefCell<Option<Result<(), String>>>>;

pub(crate) enum Idle {
    Open,
    /// Closed in order.
    Closed,
    Broken(String),
}

pub(crate) enum Failure {
    /// Not one byte of the request was written, and the peer closed in order.
    Unsent,
    Lost(String),
}

impl Connection {
    pub(crate) async fn open_h1(address: SocketAddr) -> Result<Self, String> {
        let (io, probe) = connect(address).await.map_err(|error| chain(&error))?;
        let (sender, driver) = http1::handshake(io).await.map_err(|error| chain(&error))?;
        Ok(Self::driven(Sender::H1(sender), probe, driver))
    }

    pub(crate) async fn open_h2(address: SocketAddr) -> Result<Self, String> {
        let (io, probe) = connect(address).await.map_err(|error| chain(&error))?;
        let (sender, driver) = http2::handshake(LocalExecutor, io).await.map_err(|error| chain(&error))?;
        Ok(Self::driven(Sender::H2(sender), probe, driver))
    }

    fn driven(sender: Sender, probe: std::net::TcpStream, driver: impl Future<Output = hyper::Result<()>> + 'static) -> Self {
        let end = End::default();
        let of_task = Rc::clone(&end);
        tokio::task::spawn_local(async move {
            let result = driver.await.map_err(|error| chain(&error));
            *of_task.borrow_mut() = Some(result);
        });
        Self { sender, probe, end }
    }

    /// Looks at a connection between two requests, up to the last moment before writing.
    pub(crate) async fn look(&mut self) -> Idle {
        // Lets the driver see what has come in: a FIN, a reset, a GOAWAY.
        tokio::task::yield_now().await;
        let ready = self.sender.ready().await;
        match (self.ended(), ready) {
            (Some(Err(error)), _) => return Idle::Broken(error),
            (Some(Ok(())), _) | (None, Err(_)) => return Idle::Closed,
            (None, Ok(())) => {}
        }
        match self.probe.peek(&mut [0]) {
            Ok(0) => Idle::Closed,
            Ok(_) => Idle::Open,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Idle::Open,
            Err(error) => Idle::Broken(chain(&error)),
        }
    }

    pub(crate) async fn send(&mut self, request: Outgoing) -> Result<Response<Incoming>, Failure> {
        let sent = match &mut self.sender {
            Sender::H1(sender) => sender.try_send_request(request).await,
            Sender::H2(sender) => sender.try_send_request(request).await,
        };
        match sent {
            Ok(response) => Ok(response),
            Err(error) => Err(self.failure(error).await),
        }
    }

    async fn failure(&self, mut error: TrySendError<Outgoing>) -> Failure {
        let unsent = error.take_message().is_some();
        // Lets the driver note how it ended.
        tokio::task::yield_now().await;
        match self.ended() {
            Some(Err(reason)) => Failure::Lost(reason),
            _ if unsent => Failure::Unsent,
            _ => Failure::Lost(chain(error.error())),
        }
    }

    fn ended(&self) -> Option<Result<(), String>> {
        self.end.borrow().clone()
    }
}

impl Sender {
    async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::H1(sender) => sender.ready().await,
            Self::H2(sender) => sender.ready().await,
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<(HyperIo, std::net::TcpStream)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let probe = stream.try_clone()?;
    Ok((HyperIo(TcpStream::from_std(stream)?), probe))
}

pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
