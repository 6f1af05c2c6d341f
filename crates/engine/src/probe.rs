//! One HTTP question to a target, for health checks and gates. A TCP connect alone proves little: the kernel accepts for a
//! stopped process. Where a target does not speak HTTP it is all that can be asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use model::ProxyProtocol;
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

async fn ask(address: SocketAddr, speech: &Speech, host: Option<&str>, path: &str) -> Result<u16, String> {
    let stream = dial(address, speech).await?;
    let Some(trust) = &speech.trust else { return ask_over(stream, address, host, path).await };
    let config = trust.config().await?;
    let stream = TlsConnector::from(config)
        .connect(trust.name(address.ip()), stream)
        .await
        .map_err(|error| format!("TLS: {}", tls::explain(&error)))?;
    ask_over(stream, address, host, path).await
}

async fn ask_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    host: Option<&str>,
    path: &str,
) -> Result<u16, String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let talk = tokio::spawn(connection);
    let host = host.map_or_else(|| address.to_string(), str::to_owned);
    let request = hyper::Request::get(path)
        .header("host", host)
        .header("user-agent", "changeover-health")
        .header("connection", "close")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        // The body is read to its end, bounded by the caller's timeout, so that the target sees no reset.
        let _ = response.into_body().collect().await;
        Ok(status)
    }
    .await;
    talk.abort();
    answer
}
