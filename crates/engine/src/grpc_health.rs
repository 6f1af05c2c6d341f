//! gRPC's health protocol (`grpc/health/v1/health.proto`, gRPC over HTTP/2), as one who asks: one message each way, written and read
//! here, because a compiler of protocol definitions would weigh more than these two fields.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::SendRequest;

const PATH: &str = "/grpc.health.v1.Health/Check";
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A message begins with whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

/// Whether the server says SERVING of this service; or what it says, or what went wrong, in words.
pub(crate) async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    scheme: &str,
    address: SocketAddr,
    host: Option<&str>,
    service: &str,
) -> Result<(), String> {
    let host = host.map_or_else(|| address.to_string(), str::to_owned);
    let request = http::Request::post(format!("{scheme}://{host}{PATH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "changeover-health")
        .body(Full::new(question(service)))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| crate::probe::over_http2(&error))?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("HTTP {} instead of gRPC", response.status().as_u16()));
    }
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = |fields: &HeaderMap| fields.get("grpc-status").and_then(|value| value.to_str().ok()).map(str::to_owned);
    match status(&trailers).or_else(|| status(&head.headers)).as_deref() {
        Some("0") => {}
        Some("5") => return Err(format!("it does not know the service `{service}` (NOT_FOUND)")),
        Some("12") => return Err("it does not speak grpc.health.v1 (UNIMPLEMENTED)".to_owned()),
        Some(other) => return Err(format!("grpc-status {other}")),
        None => return Err("an answer without grpc-status".to_owned()),
    }
    match serving_status(&body.to_bytes()) {
        Some(SERVING) => Ok(()),
        Some(0) => Err("UNKNOWN".to_owned()),
        Some(2) => Err("NOT_SERVING".to_owned()),
        Some(3) => Err(format!("it does not know the service `{service}` (SERVICE_UNKNOWN)")),
        _ => Err("an answer that is no HealthCheckResponse".to_owned()),
    }
}

/// `HealthCheckRequest { service = 1 }`.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        // Field 1, length-delimited.
        message.put_u8(1 << 3 | 2);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    framed.freeze()
}

/// `HealthCheckResponse { status = 1 }`; 0 when it is absent, as in all of proto3. `None`: it is no such message.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let (prefix, mut rest) = framed.split_at_checked(PREFIX_BYTES)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if prefix[0] != 0 || rest.len() as u64 != u64::from(length) {
        return None;
    }
    let mut status = 0;
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        match key & 7 {
            0 => {
                let value = take_varint(&mut rest)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = take_varint(&mut rest)?;
                rest = rest.get(usize::try_from(length).ok()?..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_and_read() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
        assert_eq!(question(&"x".repeat(300))[..8], [0, 0, 0, 1, 47, 10, 0xAC, 2]);
        let check = |bytes: &[u8], expected: Option<u64>| assert_eq!(serving_status(bytes), expected, "{bytes:?}");
        check(&[0, 0, 0, 0, 2, 8, 1], Some(1));
        check(&[0, 0, 0, 0, 2, 8, 2], Some(2));
        check(&[0, 0, 0, 0, 0], Some(0));
        // Fields that are not known are read over.
        check(&[0, 0, 0, 0, 6, 18, 2, 1, 1, 8, 1], Some(1));
        check(&[0, 0, 0, 0, 9, 13, 0, 0, 0, 0, 16, 200, 1, 8][..], None);
        check(&[0, 0, 0, 0, 3, 8, 1], None);
        check(&[1, 0, 0, 0, 2, 8, 1], None);
        check(&[0, 0, 0], None);
        check(&[0, 0, 0, 0, 11, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255], None);
    }
}
