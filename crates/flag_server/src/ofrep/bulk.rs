//! All flags for one context, with a tag, so that a client which has the same answers already gets none.
//!
//! **Invariant**: the tag is of the answers, not of the set: rules may look at the clock.
//! Source: OFREP 0.3.0; RFC 9110 §8.8.3 and §13.1.2 for tags.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::header::{ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use xxhash_rust::xxh3::xxh3_128;

use super::answer::{Failure, denied, failure, json, metadata, success};
use super::{ask, stream};
use crate::admission::Scope;
use crate::shared::Shared;

pub(super) async fn all(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let said = match ask::context(body).await {
        Ok(said) => said,
        Err(wrong) => return wrong.response(None),
    };
    let published = match shared.set_for(&head.headers, Scope::Evaluate, "") {
        Ok(published) => published,
        Err(refusal) => return denied(&refusal, None),
    };
    let context = shared.context(said);
    let mut text = String::from("{\"flags\":[");
    let mut separator = "";
    for (key, answer) in shared.answers(&published, &context) {
        text.push_str(separator);
        separator = ",";
        match answer {
            Ok(evaluation) => success(&mut text, &evaluation),
            Err(error) => text.push_str(&failure(Failure { key: Some(key), code: error.code(), details: &error.to_string() })),
        }
    }
    text.push(']');
    metadata(&mut text, published.set.metadata());
    let tag = format!("\"{:032x}\"", xxh3_128(text.as_bytes()));
    let is_known = knows(&head.headers, &tag);
    shared.metrics.bulk(is_known);
    let mut response = if is_known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        // Not part of the tag, which is about answers.
        text.push_str(&stream::offer(&shared, &published.environment));
        text.push('}');
        json(StatusCode::OK, text)
    };
    if let Ok(value) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, value);
    }
    response
}

fn knows(headers: &HeaderMap, tag: &str) -> bool {
    let mut known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    known.any(|known| known.trim() == "*" || known.trim().trim_start_matches("W/") == tag)
}
