//! Connections that leave HTTP: a raw byte echo, and a WebSocket echo behind the feature `websocket`.

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::Parts;
use tokio::io::AsyncWriteExt;

use super::answers::{Body, text};
use crate::hyper_io::HyperIo;

pub(crate) fn echo(request: Request<Incoming>) -> Response<Body> {
    if !asks_for(&request, "echo") {
        return text(StatusCode::UPGRADE_REQUIRED, "send `upgrade: echo`");
    }
    tokio::task::spawn_local(async move {
        if let Some(parts) = leave_http(request).await {
            // The peer ends an echo by leaving.
            let _ = echo_bytes(parts).await;
        }
    });
    switching("echo")
}

async fn echo_bytes(parts: Parts<HyperIo>) -> std::io::Result<()> {
    let mut stream = parts.io.0;
    stream.write_all(&parts.read_buf).await?;
    let (mut reader, mut writer) = stream.split();
    tokio::io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}

#[cfg(feature = "websocket")]
pub(crate) fn websocket(request: Request<Incoming>) -> Response<Body> {
    use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

    let key = request.headers().get("sec-websocket-key");
    let (true, Some(key)) = (asks_for(&request, "websocket"), key) else {
        return text(StatusCode::UPGRADE_REQUIRED, "send `upgrade: websocket`");
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).expect("an accept key is base64");
    tokio::task::spawn_local(async move {
        if let Some(parts) = leave_http(request).await {
            let _ = echo_messages(parts).await;
        }
    });
    let mut response = switching("websocket");
    response.headers_mut().insert("sec-websocket-accept", accept);
    response
}

#[cfg(feature = "websocket")]
async fn echo_messages(parts: Parts<HyperIo>) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    let read_already = parts.read_buf.to_vec();
    let mut socket = WebSocketStream::from_partially_read(parts.io.0, read_already, Role::Server, None).await;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

async fn leave_http(request: Request<Incoming>) -> Option<Parts<HyperIo>> {
    let upgraded = hyper::upgrade::on(request).await.ok()?;
    upgraded.downcast::<HyperIo>().ok()
}

fn asks_for(request: &Request<Incoming>, protocol: &str) -> bool {
    request.headers().get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()))
}

fn switching(protocol: &'static str) -> Response<Body> {
    let body = Empty::<Bytes>::new().boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
}
