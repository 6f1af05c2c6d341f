//! Handshakes: with clients, as their listener's door says, and with targets, as their service's trust says.
//!
//! **Invariant**: a handshake has its time limit, and ends with a word to the peer that explains it. Not here: certificates (room `tls`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use model::Protocol;
use tls::{Door, Handshake, Trust};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::rustls::{CommonState, HandshakeKind, ServerConfig};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, TlsStream};

use crate::reason::Reason;
use crate::stream::Stream;

/// From the first byte that may come to the last that must: three round trips over a bad line fit.
const CLIENT_HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// On top of the time for the connection: one or two round trips, and the target's arithmetic.
const TARGET_HANDSHAKE_MAX: Duration = Duration::from_secs(3);
/// Each TLS record begins with its kind (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Per lane.
#[derive(Default)]
pub(crate) struct Handshakes {
    pub(crate) full: AtomicU64,
    pub(crate) resumed: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// A client that has shaken hands.
pub(crate) struct Secured {
    pub(crate) stream: Stream,
    pub(crate) is_http2: bool,
    /// The field that tells targets who it is, when it has shown a certificate.
    pub(crate) identity: Option<HeaderValue>,
}

/// `None`: it came to nothing, and the client was told.
/// `any_protocol`: what is spoken is none of ours to choose, and no HTTP.
pub(crate) async fn accept(door: &Door, socket: TcpStream, counts: &Handshakes, any_protocol: bool) -> Option<Secured> {
    let accepted = tokio::time::timeout(CLIENT_HANDSHAKE_MAX, shake(door, socket, any_protocol)).await;
    match accepted {
        Ok(Shaken::Done(secured, is_resumed)) => {
            let count = if is_resumed { &counts.resumed } else { &counts.full };
            count.fetch_add(1, Ordering::Relaxed);
            Some(secured)
        }
        // Whoever connects and says nothing was no handshake: health checks of balancers do so.
        Ok(Shaken::Silent) => None,
        Ok(Shaken::Failed) | Err(_) => {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

enum Shaken {
    Done(Secured, bool),
    Failed,
    Silent,
}

async fn shake(door: &Door, mut socket: TcpStream, any_protocol: bool) -> Shaken {
    let mut first = [0; 1];
    match socket.peek(&mut first).await {
        Ok(1..) if first[0] != HANDSHAKE_RECORD => {
            if first[0].is_ascii_uppercase() && !any_protocol {
                let _ = socket.write_all(plain_answer().as_bytes()).await;
            }
            crate::serve::linger(Stream::Plain(socket)).await;
            return Shaken::Failed;
        }
        Ok(1..) => {}
        _ => return Shaken::Silent,
    }
    let Ok(start) = LazyConfigAcceptor::new(Acceptor::default(), socket).await else { return Shaken::Failed };
    let is_challenge = {
        let hello = start.client_hello();
        hello.alpn().is_some_and(|mut offered| offered.next() == Some(tls::ACME_CHALLENGE) && offered.next().is_none())
    };
    let config: Arc<ServerConfig> = match door.handshake(is_challenge).await {
        // A client may name a protocol that its target knows: none is chosen, rather than refused.
        Handshake::With(mut config) if any_protocol && !is_challenge => {
            Arc::make_mut(&mut config).alpn_protocols.clear();
            config
        }
        Handshake::With(config) => config,
        Handshake::Refused => return Shaken::Failed,
    };
    let stream = match start.into_stream(config).into_fallible().await {
        Ok(stream) => stream,
        Err((_, socket)) => {
            // The alert is on its way; a reset would overtake it.
            crate::serve::linger(Stream::Plain(socket)).await;
            return Shaken::Failed;
        }
    };
    let session = stream.get_ref().1;
    let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let is_http2 = session.alpn_protocol() == Some(tls::HTTP2);
    let Ok(identity) = identity(session) else { return Shaken::Failed };
    let stream = Stream::Tls(Box::new(TlsStream::Server(stream)));
    if is_challenge {
        // Whoever looks whether a name is ours has seen it.
        crate::serve::linger(stream).await;
        return Shaken::Silent;
    }
    Shaken::Done(Secured { stream, is_http2, identity }, is_resumed)
}

/// An error: it has a certificate that must not pass.
fn identity(session: &CommonState) -> Result<Option<HeaderValue>, ()> {
    let Some(leaf) = session.peer_certificates().and_then(<[_]>::first) else { return Ok(None) };
    // Verified in its first session; a resumed one brings it along, and it may have expired meanwhile.
    let identity = tls::identity(leaf).filter(|identity| !identity.has_expired()).ok_or(())?;
    HeaderValue::try_from(identity.field).map(Some).map_err(|_| ())
}

/// HTTP in clear on a port that speaks TLS.
fn plain_answer() -> String {
    let (reason, text) = (Reason::NotTls, Reason::NotTls.text());
    format!(
        "HTTP/1.1 400 Bad Request\r\n{}: {}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        model::REASON_FIELD,
        reason.name(),
        text.len()
    )
}

/// With a target that has accepted the connection.
pub(crate) async fn connect(trust: &Trust, address: SocketAddr, socket: TcpStream, protocol: Protocol) -> io::Result<Stream> {
    let shake = async {
        let mut config = trust.config().await.map_err(io::Error::other)?;
        match protocol {
            Protocol::Http1 => {}
            Protocol::Http2 => Arc::make_mut(&mut config).alpn_protocols = vec![tls::HTTP2.to_vec()],
            Protocol::Tcp => Arc::make_mut(&mut config).alpn_protocols.clear(),
        }
        let stream = TlsConnector::from(config).connect(trust.name(address.ip()), socket).await?;
        // Without a word about protocols (RFC 7301 §3.1), it is HTTP/1.1 that is spoken.
        if protocol == Protocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(tls::HTTP2) {
            return Err(io::Error::other("the target does not offer HTTP/2"));
        }
        Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
    };
    let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(TARGET_HANDSHAKE_MAX, shake).await.map_err(timed_out)?
}
