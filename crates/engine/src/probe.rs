//! One question to a target, over HTTP/1.1 or HTTP/2, for health checks and gates. A TCP connect alone proves little: the kernel accepts for a
//! stopped process. Where a target does not speak HTTP it is all that can be asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::{Protocol, ProxyProtocol};
use tls::Trust;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) fn scheme(is_tls: bool) -> &'static str {
    if is_tls { "https" } else { "http" }
}

/// How a target is spoken to.
#[derive(Clone, Default)]
pub(crate) struct Speech {
    /// Over TLS.
    pub(crate) trust: Option<Arc<Trust>>,
    /// It expects a header of the PROXY protocol: the connection is our own.
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    pub(crate) protocol: Protocol,
}

/// The status of `GET path`, or what went wrong in words.
pub(crate) async fn get(address: SocketAddr, speech: &Speech, host: Option<&str>, path: &str, timeout: Duration) -> Result<u16, String> {
    match tokio::time::timeout(timeout, ask(address, speech, host, path)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {timeout:?}")),
    }
}

/// Whether it accepts a connection, and shakes hands where it speaks TLS; or what went wrong in words.
pub(crate) async fn connect(address: SocketAddr, speech: &Speech, timeout: Duration) -> Result<(), String> {
    let accepted = async {
        let stream = dial(address, speech).await?;
        let Some(trust) = &speech.trust else { return Ok(()) };
        let mut config = trust.config().await?;
        // It may know other protocols than HTTP.
        Arc::make_mut(&mut config).alpn_protocols.clear();
        let shaken = TlsConnector::from(config).connect(trust.name(address.ip()), stream).await;
        // It learns that this was all.
        let _ = shaken.map_err(|error| format!("TLS: {}", tls::explain(&error)))?.shutdown().await;
        Ok(())
    };
    tokio::time::timeout(timeout, accepted).await.unwrap_or_else(|_| Err(format!("not accepted within {timeout:?}")))
}

async fn dial(address: SocketAddr, speech: &Speech) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    })?;
    if let Some(version) = speech.proxy_protocol {
        let header = proxy_protocol::local(match version {
            ProxyProtocol::V1 => proxy_protocol::Version::V1,
            ProxyProtocol::V2 => proxy_protocol::Version::V2,
        });
        stream.write_all(&header).await.map_err(|error| error.to_string())?;
    }
    Ok(stream)
}

/// Whether it says SERVING of this service, in gRPC's health protocol; or what went wrong in words.
pub(crate) async fn grpc(address: SocketAddr, speech: &Speech, host: Option<&str>, service: &str, timeout: Duration) -> Result<(), String> {
    let ask = async {
        let mut sender = http2(secured(address, speech, Protocol::Http2).await?).await?;
        crate::grpc_health::ask(&mut sender, scheme(speech.trust.is_some()), address, host, service).await
    };
    tokio::time::timeout(timeout, ask).await.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
}

trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

/// A connection, under TLS where the target speaks it.
async fn secured(address: SocketAddr, speech: &Speech, protocol: Protocol) -> Result<Box<dyn Both>, String> {
    let stream = dial(address, speech).await?;
    let Some(trust) = &speech.trust else { return Ok(Box::new(stream)) };
    let mut config = trust.config().await?;
    if protocol == Protocol::Http2 {
        Arc::make_mut(&mut config).alpn_protocols = vec![tls::HTTP2.to_vec()];
    }
    let stream = TlsConnector::from(config)
        .connect(trust.name(address.ip()), stream)
        .await
        .map_err(|error| format!("TLS: {}", tls::explain(&error)))?;
    if protocol == Protocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(tls::HTTP2) {
        return Err("TLS: the target does not offer HTTP/2 (`protocol: http2`)".to_owned());
    }
    Ok(Box::new(stream))
}

async fn ask(address: SocketAddr, speech: &Speech, host: Option<&str>, path: &str) -> Result<u16, String> {
    let stream = secured(address, speech, speech.protocol).await?;
    let host = host.map_or_else(|| address.to_string(), str::to_owned);
    if speech.protocol == Protocol::Http2 {
        let request = hyper::Request::get(format!("{}://{host}{path}", scheme(speech.trust.is_some())))
            .header("user-agent", "changeover-health")
            .body(Full::<Bytes>::default())
            .map_err(|error| error.to_string())?;
        let mut sender = http2(stream).await?;
        return whole(sender.send_request(request).await.map_err(|error| over_http2(&error))?).await;
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let talk = tokio::spawn(connection);
    let request = hyper::Request::get(path)
        .header("host", host)
        .header("user-agent", "changeover-health")
        .header("connection", "close")
        .body(Full::<Bytes>::default())
        .map_err(|error| error.to_string())?;
    let answer = match sender.send_request(request).await {
        Ok(response) => whole(response).await,
        Err(error) => Err(error.to_string()),
    };
    talk.abort();
    answer
}

/// Ends by itself when its sender is gone, in order.
async fn http2(stream: Box<dyn Both>) -> Result<hyper::client::conn::http2::SendRequest<Full<Bytes>>, String> {
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(|error| over_http2(&error))?;
    tokio::spawn(connection);
    Ok(sender)
}

/// The body is read to its end, bounded by the caller's timeout, so that the target sees no reset.
async fn whole(response: hyper::Response<hyper::body::Incoming>) -> Result<u16, String> {
    let status = response.status().as_u16();
    let _ = response.into_body().collect().await;
    Ok(status)
}

/// Whoever does not speak HTTP/2 mostly closes, and hyper says no more than that.
pub(crate) fn over_http2(error: &hyper::Error) -> String {
    format!("no answer over HTTP/2 ({error}); `protocol: http2` is for targets that speak it, in clear unless they have `tls`")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    /// Answers each request with this status, over HTTP/2, and a status of gRPC that stands alone.
    async fn http2_target(status: u16, grpc_status: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                tokio::spawn(async move {
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let answer = http::Response::builder().status(status).header("grpc-status", grpc_status);
                        let text = request.uri().to_string();
                        let answer = answer.header("asked", text).body(()).expect("answer");
                        respond.send_response(answer, true).expect("open");
                    }
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn targets_of_http2_are_asked_over_http2() {
        let speech = Speech { protocol: Protocol::Http2, ..Speech::default() };
        let target = http2_target(204, "0").await;
        assert_eq!(get(target, &speech, Some("a.example"), "/healthz", TIMEOUT).await, Ok(204));
        let check = |status: u16, code: &'static str, service: &'static str| async move {
            let target = http2_target(status, code).await;
            grpc(target, &Speech::default(), None, service, TIMEOUT).await.expect_err("not well")
        };
        assert_eq!(check(200, "5", "a.B").await, "it does not know the service `a.B` (NOT_FOUND)");
        assert_eq!(check(200, "12", "").await, "it does not speak grpc.health.v1 (UNIMPLEMENTED)");
        assert_eq!(check(200, "0", "").await, "an answer that is no HealthCheckResponse");
        assert_eq!(check(404, "0", "").await, "HTTP 404 instead of gRPC");
    }

    #[tokio::test]
    async fn a_target_of_http1_is_not_taken_for_one_of_http2() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.expect("open");
            }
        });
        let speech = Speech { protocol: Protocol::Http2, ..Speech::default() };
        let error = get(address, &speech, None, "/", TIMEOUT).await.expect_err("no HTTP/2");
        assert!(error.starts_with("no answer over HTTP/2") && error.contains("`protocol: http2`"), "{error}");
    }
}
