//! What the service answers, path by path.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};

use super::behaviour::Fate;
use super::{State, upgrade};

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

const CHUNK_BYTES: u64 = 64 * 1024;
const SLOW_STEPS_MAX: u64 = 100;
const EVENT_PAUSE: Duration = Duration::from_millis(50);
const CRASH_STATUS: i32 = 3;

pub(crate) async fn answer(state: Rc<State>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let mut response = route(&state, request).await?;
    let version = HeaderValue::from_str(&state.version).unwrap_or_else(|_| HeaderValue::from_static("unprintable"));
    response.headers_mut().insert("x-version", version);
    Ok(response)
}

async fn route(state: &State, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    if let (Some(behaves), "/") = (&state.behaves, request.uri().path()) {
        match behaves.fate().await {
            Fate::Answers => {}
            Fate::Fails => return Ok(text(StatusCode::INTERNAL_SERVER_ERROR, "failed as it does")),
            Fate::Hangs => std::future::pending().await,
        }
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    Ok(match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => text(StatusCode::OK, format!("hello from {}", state.version)),
        (&Method::GET, "/healthz") if state.healthy => text(StatusCode::OK, "ok"),
        (&Method::GET, "/healthz") => text(StatusCode::INTERNAL_SERVER_ERROR, "not healthy"),
        (&Method::POST, "/orders") => order(state, request).await?,
        (&Method::GET, "/slow") => slow(number(&query, "bytes", 1000), number(&query, "millis", 1000)),
        (&Method::GET, "/events") => events(number(&query, "count", u64::MAX)),
        (&Method::GET, "/bytes") => {
            let count = number(&query, "count", CHUNK_BYTES);
            sized(count, chunks(count, CHUNK_BYTES))
        }
        (&Method::PUT, "/upload") => upload(request).await?,
        (&Method::GET, "/fail") => text(StatusCode::INTERNAL_SERVER_ERROR, "failed as asked"),
        (&Method::GET, "/crash") => std::process::exit(CRASH_STATUS),
        (&Method::GET, "/echo") => upgrade::echo(request),
        #[cfg(feature = "websocket")]
        (&Method::GET, "/ws") => upgrade::websocket(request),
        _ => text(StatusCode::NOT_FOUND, "not found"),
    })
}

async fn order(state: &State, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let named = request.headers().get("x-id").cloned();
    let body = request.into_body().collect().await?.to_bytes();
    let id = named.as_ref().map_or(&body[..], HeaderValue::as_bytes);
    let id = String::from_utf8_lossy(id).trim().to_owned();
    if id.is_empty() || id.contains(char::is_whitespace) {
        return Ok(text(StatusCode::BAD_REQUEST, "an order needs an id of one word"));
    }
    let noted = state.orders.as_ref().map(|orders| orders.note(&id, &state.version));
    Ok(match noted {
        Some(Err(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        _ => text(StatusCode::CREATED, id),
    })
}

async fn upload(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(text(StatusCode::OK, length.to_string()))
}

/// `bytes` in even steps, the last of which goes out when `millis` have passed.
fn slow(bytes: u64, millis: u64) -> Response<Body> {
    let step_bytes = bytes.div_ceil(SLOW_STEPS_MAX).max(1);
    let steps = bytes.div_ceil(step_bytes).max(1);
    let pause = Duration::from_micros(millis.saturating_mul(1000) / steps);
    sized(bytes, chunks(bytes, step_bytes).then(move |chunk| after(pause, chunk)))
}

async fn after(pause: Duration, chunk: Bytes) -> Bytes {
    tokio::time::sleep(pause).await;
    chunk
}

fn events(count: u64) -> Response<Body> {
    let events = stream::iter(1..=count).then(|index| after(EVENT_PAUSE, Bytes::from(format!("id: {index}\ndata: {index}\n\n"))));
    let mut response = Response::new(streamed(events));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn chunks(total: u64, chunk: u64) -> impl Stream<Item = Bytes> + Send {
    let size = usize::try_from(chunk.min(total)).expect("a chunk fits in memory");
    let full = Bytes::from(vec![b'x'; size]);
    stream::unfold(total, move |left| {
        let next = left.min(full.len() as u64);
        let piece = full.slice(..next as usize);
        async move { (next > 0).then_some((piece, left - next)) }
    })
}

fn sized(length: u64, pieces: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let mut response = Response::new(streamed(pieces));
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

fn streamed(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))).boxed_unsync()
}

pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

fn number(query: &str, name: &str, otherwise: u64) -> u64 {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(otherwise)
}
