//! The stream of events that tells OFREP clients to ask again: server-sent events, about nobody in particular.
//!
//! **Invariants**: the address is the right to listen, so it is signed and never logged; an event says only that something
//! changed. Whoever does not say that it has the current set (`Last-Event-ID`) is told at once: no change is lost between
//! an answer and a stream, or between two streams. The address stays the same, for clients keep a stream whose address does.
//!
//! Source: OFREP 0.3.0, `eventStreams`; HTML Living Standard §9.2, server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use bytes::Bytes;
use flag_engine::Published;
use futures_util::{StreamExt, future};
use hmac::{Hmac, Mac};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::Sha256;

use super::answer::{Failure, failure, json};
use crate::follow::{NoStream, Pass, Word, follow};
use crate::metrics;
use crate::shared::Shared;

/// After so long in the background a client closes the stream; OFREP's own default.
const INACTIVITY_DELAY_S: u32 = 120;
/// Browsers come again after so long.
const RETRY_MS: u32 = 1_000;
/// What else is signed with the same key must not pass as an address.
const DOMAIN: &[u8] = b"changeover ofrep events 1\0";

/// The member `eventStreams` of an answer about all flags.
pub(super) fn offer(shared: &Shared, environment: &str) -> String {
    let signature: String = sign(shared, environment).finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let environment = utf8_percent_encode(environment, NON_ALPHANUMERIC);
    let uri = format!("/ofrep/v1/events/{environment}/{signature}");
    let offer = serde_json::json!([
        { "type": "sse", "endpoint": { "requestUri": uri }, "inactivityDelaySec": INACTIVITY_DELAY_S }
    ]);
    format!(",\"eventStreams\":{offer}")
}

fn sign(shared: &Shared, environment: &str) -> Hmac<Sha256> {
    let mut mac = shared.signer.clone();
    mac.update(DOMAIN);
    mac.update(environment.as_bytes());
    mac
}

pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    Path((environment, signature)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response<Body> {
    let is_ours = bytes_of(&signature).is_some_and(|bytes| sign(&shared, &environment).verify_slice(&bytes).is_ok());
    if !is_ours {
        return refusal(StatusCode::FORBIDDEN, "this address is not one that an answer about all flags gave");
    }
    let pass = Pass { environment: environment.into(), scope: None };
    let words = match follow(&shared, pass, metrics::Stream::Ofrep) {
        Ok(words) => words,
        Err(error @ NoStream::UnknownEnvironment) => return refusal(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error @ NoStream::TooMany) => return refusal(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    };
    let known = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let lines = words
        .take_while(|word| future::ready(!matches!(word, Word::Shutdown | Word::Refused(_))))
        .map(move |word| Ok::<_, Infallible>(Bytes::from(line(&word, known.as_deref()))));
    let mut response = Response::new(Body::from_stream(lines));
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would hold events back.
    fields.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn line(word: &Word, known: Option<&str>) -> String {
    match word {
        Word::Ready(set) => {
            let missed = if known == Some(&set.etag) { String::new() } else { event(set) };
            format!("retry: {RETRY_MS}\n: connected\n\n{missed}")
        }
        Word::Changed { to, .. } => event(to),
        Word::KeepAlive | Word::Shutdown | Word::Refused(_) => ": keep-alive\n\n".to_owned(),
    }
}

fn event(set: &Published) -> String {
    let data = serde_json::json!({ "type": "refetchEvaluation", "etag": set.etag });
    format!("event: message\nid: {}\ndata: {data}\n\n", set.etag)
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    hex.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

fn refusal(status: StatusCode, details: &str) -> Response<Body> {
    json(status, failure(Failure { key: None, code: "GENERAL", details }))
}
