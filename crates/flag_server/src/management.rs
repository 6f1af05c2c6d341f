//! `/healthz`, `/readyz`, `/metrics`.
//!
//! **Invariant**: they cost nothing and show no rule; why a set was refused is told to those who may read sets.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::admission::Scope;
use crate::readiness::{Readiness, RefusedSet};
use crate::shared::Shared;

pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(async || text(StatusCode::OK, "text/plain", "ok\n".to_owned())))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shared.clone())
}

async fn ready(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response<Body> {
    let readiness = (shared.readiness)();
    let is_leaving = *shared.draining.borrow();
    let is_ready = readiness.ready && !is_leaving;
    let served: Vec<Value> = shared.board.environments().iter().filter_map(|name| shared.board.now(name)).map(|set| {
        json!({ "environment": &*set.environment, "revision": set.revision, "etag": set.etag, "flags": set.set.len(), "bucketing": set.set.bucketing() })
    }).collect();
    let mut body = json!({ "ready": is_ready, "draining": is_leaving, "serving": served });
    body["refused"] = refused(&shared, &readiness, &headers);
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(status, "application/json", format!("{body:#}\n"))
}

/// Messages quote the set, so they are for those who may read it.
fn refused(shared: &Shared, readiness: &Readiness, headers: &HeaderMap) -> Value {
    let may_read = |environment: &str| shared.admission.admit(crate::admission::token(headers), Scope::Sync, Some(environment)).is_ok();
    readiness.refused.iter().map(|set| if may_read(&set.environment) { detail(set) } else { outline(set) }).collect()
}

fn outline(set: &RefusedSet) -> Value {
    json!({ "environment": set.environment, "problems": set.problems.len(), "hint": "a token of scope sync sees them" })
}

fn detail(set: &RefusedSet) -> Value {
    let problems: Vec<Value> = set
        .problems
        .iter()
        .map(|it| json!({ "message": it.message, "hint": it.hint, "line": it.line, "column": it.column, "flag": it.flag }))
        .collect();
    json!({ "environment": set.environment, "source": set.source, "problems": problems })
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let page = shared.metrics.text(&shared.board, &(shared.readiness)());
    text(StatusCode::OK, "text/plain; version=0.0.4", page)
}

fn text(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
