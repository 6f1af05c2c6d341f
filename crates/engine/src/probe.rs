//! One HTTP question to a target, for health checks and gates. A TCP connect alone proves nothing: the kernel accepts for a
//! stopped process.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The status of `GET path`, or what went wrong in words.
pub(crate) async fn get(address: SocketAddr, host: Option<&str>, path: &str, timeout: Duration) -> Result<u16, String> {
    match tokio::time::timeout(timeout, ask(address, host, path)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {timeout:?}")),
    }
}

async fn ask(address: SocketAddr, host: Option<&str>, path: &str) -> Result<u16, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    })?;
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
