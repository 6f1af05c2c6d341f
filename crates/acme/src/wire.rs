//! HTTPS to an authority, for one order: HTTP/1.1, bounded in time and size, with the house's TLS.
//!
//! Not here: what is asked (`instant-acme` does that).

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, RETRY_AFTER};
use http::uri::Authority;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tls::ClientConfig;
use tls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Of a request, from the name's resolution to the answer's last byte.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// For each of an authority's addresses.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// A chain has a few kilobytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
const HTTPS_PORT: u16 = 443;

type Line = SendRequest<BodyWrapper<Bytes>>;

/// What went wrong before there was an answer, in words.
#[derive(Debug)]
pub(crate) struct WireError(String);

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WireError {}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Inner>);

struct Inner {
    config: Arc<ClientConfig>,
    /// An open connection, and where it leads; an order asks one thing after another.
    idle: Mutex<Option<(Authority, Line)>>,
    retry_after_s: AtomicU64,
}

impl Wire {
    pub(crate) fn new(config: Arc<ClientConfig>) -> Self {
        Self(Arc::new(Inner { config, idle: Mutex::default(), retry_after_s: AtomicU64::new(0) }))
    }

    /// How long the last answer that was a refusal wants us to wait (RFC 8555 §6.6).
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        Some(self.0.retry_after_s.load(Ordering::Relaxed)).filter(|wait_s| *wait_s > 0)
    }

    async fn ask(self, mut request: Request<BodyWrapper<Bytes>>) -> Result<Response<Full<Bytes>>, WireError> {
        let uri = request.uri().clone();
        let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority().cloned()) else {
            return Err(WireError(format!("the authority names `{uri}`, which is no HTTPS address")));
        };
        let host = HeaderValue::try_from(authority.as_str()).map_err(|_| WireError(format!("`{authority}` is no host")))?;
        request.headers_mut().insert(HOST, host);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse::<Uri>().map_err(|_| WireError(format!("`{uri}` has no path")))?;
        let mut line = match self.take(&authority).await {
            Some(line) => line,
            None => self.connect(&authority).await?,
        };
        let broken = |error: &dyn fmt::Display| WireError(format!("{authority} broke off: {error}"));
        let answer = line.send_request(request).await.map_err(|error| broken(&error))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| broken(&error))?.to_bytes();
        if parts.status.is_client_error() || parts.status.is_server_error() {
            let wait_s = parts.headers.get(RETRY_AFTER).and_then(retry_after_s).unwrap_or(0);
            self.0.retry_after_s.store(wait_s, Ordering::Relaxed);
        }
        *self.idle() = Some((authority, line));
        Ok(Response::from_parts(parts, Full::new(body)))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Option<(Authority, Line)>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open one, unless it leads elsewhere or has ended.
    async fn take(&self, authority: &Authority) -> Option<Line> {
        let (_, mut line) = self.idle().take().filter(|(open, _)| open == authority)?;
        line.ready().await.is_ok().then_some(line)
    }

    async fn connect(&self, authority: &Authority) -> Result<Line, WireError> {
        let unreachable = |what: &dyn fmt::Display| WireError(format!("{authority} cannot be reached: {what}"));
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(HTTPS_PORT);
        let name = ServerName::try_from(host.clone()).map_err(|error| unreachable(&error))?;
        let addresses = tokio::net::lookup_host((host, port)).await.map_err(|error| unreachable(&error))?;
        let socket = first_of(addresses).await.map_err(|error| unreachable(&error))?;
        let connector = TlsConnector::from(self.0.config.clone());
        let stream = connector.connect(name, socket).await.map_err(|error| unreachable(&format!("TLS: {}", tls::explain(&error))))?;
        let (line, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
        // Ends with the line.
        tokio::spawn(connection);
        Ok(line)
    }
}

/// Where one of the ways (IPv6, mostly) leads nowhere, the next is tried.
async fn first_of(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIME_MAX, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

impl HttpClient for Wire {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let wire = self.clone();
        Box::pin(async move {
            let late = WireError(format!(
                "{} did not answer within {REQUEST_TIME_MAX:?}",
                request.uri().authority().map_or("", Authority::as_str)
            ));
            let answer = tokio::time::timeout(REQUEST_TIME_MAX, wire.ask(request)).await.unwrap_or(Err(late));
            answer.map(BytesResponse::from).map_err(|error| Error::Other(Box::new(error)))
        })
    }
}

/// Seconds, or a date (RFC 9110 §10.2.3).
fn retry_after_s(field: &HeaderValue) -> Option<u64> {
    let text = field.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
    u64::try_from(date.as_second() - jiff::Timestamp::now().as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        let check =
            |text: &'static str, expected: Option<u64>| assert_eq!(retry_after_s(&HeaderValue::from_static(text)), expected, "{text}");
        check("120", Some(120));
        check(" 7 ", Some(7));
        check("Fri, 31 Dec 1999 23:59:59 GMT", None);
        check("soon", None);
        check("-1", None);
        let later = retry_after_s(&HeaderValue::from_static("Fri, 31 Dec 2199 23:59:59 GMT"));
        assert!(later.is_some_and(|wait_s| wait_s > 1_000_000_000));
    }
}
