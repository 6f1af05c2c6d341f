//! OFREP 0.3: one flag, all flags, and a stream that says when to ask again.
//!
//! **Invariants**: what the API's document requires is always there, and so is what real clients fail without: `variant`
//! even if it is empty, `errorDetails` with every error. Nothing of a rule is ever shown.
//!
//! Source: OpenFeature Remote Evaluation Protocol 0.3.0.

mod answer;
mod ask;
mod bulk;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, post};
use http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::admission::Scope;
use crate::metrics::Protocol;
use crate::shared::{NoAnswer, Shared};
use answer::{Failure, failure, json};

/// How long a browser needs not ask whether it may ask.
const PREFLIGHT_KEPT: Duration = Duration::from_secs(600);
const FLAGS: &str = "/ofrep/v1/evaluate/flags";

/// For pages of these origins, `*` is all; none: no page of another origin may ask.
pub(crate) fn router(shared: &Arc<Shared>, origins: &[HeaderValue]) -> Router {
    Router::new()
        // A key may hold slashes, and clients do not encode them.
        .route("/ofrep/v1/evaluate/flags/{*key}", post(single))
        .route(FLAGS, post(bulk::all))
        .route("/ofrep/v1/evaluate/flags/", post(bulk::all))
        .route("/ofrep/v1/events/{environment}/{signature}", get(stream::events))
        .with_state(shared.clone())
        .layer(across_origins(origins))
}

/// Browsers ask first (a preflight) and hide fields of an answer that are not named. No cookie ever admits anybody here.
fn across_origins(origins: &[HeaderValue]) -> CorsLayer {
    let allowed = if origins.iter().any(|it| it == "*") { AllowOrigin::any() } else { AllowOrigin::list(origins.iter().cloned()) };
    let own = ["x-api-key", "flagd-selector", "last-event-id", "traceparent"].map(HeaderName::from_static);
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([CONTENT_TYPE, AUTHORIZATION, IF_NONE_MATCH].into_iter().chain(own).collect::<Vec<_>>())
        .expose_headers([ETAG, RETRY_AFTER])
        .max_age(PREFLIGHT_KEPT)
}

async fn single(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let encoded = head.uri.path().get(FLAGS.len() + 1..).unwrap_or_default();
    let key = percent_decode_str(encoded).decode_utf8_lossy();
    let said = match ask::context(body).await {
        Ok(said) => said,
        Err(wrong) => return wrong.response(Some(&key)),
    };
    let published = match shared.set_for(&head.headers, Scope::Evaluate, "") {
        Ok(published) => published,
        Err(denied) => return answer::denied(&denied, Some(&key)),
    };
    let context = shared.context(said);
    let answered = shared.answer(&published, &key, &context, Protocol::Ofrep, |evaluation| {
        let mut text = String::with_capacity(256);
        answer::success(&mut text, &evaluation);
        Ok(text)
    });
    match answered {
        Ok(text) => json(StatusCode::OK, text),
        Err(NoAnswer::Evaluation(error)) => {
            let status = match error {
                flags::EvaluationError::FlagNotFound(_) => StatusCode::NOT_FOUND,
                _ => StatusCode::BAD_REQUEST,
            };
            json(status, failure(Failure { key: Some(&key), code: error.code(), details: &error.to_string() }))
        }
        // OFREP asks for no type: the client compares.
        Err(NoAnswer::WrongType(error)) => {
            json(StatusCode::BAD_REQUEST, failure(Failure { key: Some(&key), code: "GENERAL", details: &error.to_string() }))
        }
    }
}
