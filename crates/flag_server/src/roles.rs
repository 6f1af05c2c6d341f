//! What a port serves.
//!
//! **Invariant**: a port serves what its role says and nothing else; anything else gets an answer that says where it is.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use tonic::service::Routes;

use crate::shared::Shared;
use crate::{grpc, management, ofrep, report};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// flagd's evaluation over gRPC, single flags as JSON too; flagd's port is 8013.
    Evaluation,
    /// Health, readiness, metrics; 8014.
    Management,
    /// flagd's sync over gRPC; 8015.
    Sync,
    /// OFREP and reports; 8016.
    Ofrep,
    /// Everything.
    All,
}

pub(crate) fn router(role: Role, shared: &Arc<Shared>, origins: &[HeaderValue]) -> Router {
    let is = |part: Role| role == part || role == Role::All;
    let mut services = Routes::builder();
    if is(Role::Evaluation) {
        grpc::evaluation(&mut services, shared);
    }
    if is(Role::Sync) {
        grpc::sync(&mut services, shared);
    }
    if is(Role::Management) {
        grpc::health(&mut services, shared);
    }
    let mut router = services.routes().prepare().into_axum_router();
    if is(Role::Evaluation) {
        router = router.layer(axum::middleware::from_fn_with_state(shared.clone(), grpc::or_grpc));
    }
    if is(Role::Ofrep) {
        router = router.merge(ofrep::router(shared, origins)).merge(report::router(shared));
    }
    if is(Role::Management) {
        router = router.merge(management::router(shared));
    }
    router.fallback(move |request: Request<Body>| async move { unknown(role, &request) })
}

fn unknown(role: Role, request: &Request<Body>) -> Response<Body> {
    let is_grpc = request.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let served = match role {
        Role::Evaluation => "flagd.evaluation.v1 and v2 over gRPC, single flags as JSON too",
        Role::Management => "/healthz, /readyz, /metrics, and grpc.health.v1",
        Role::Sync => "flagd.sync.v1 over gRPC",
        Role::Ofrep => "OFREP at /ofrep/v1, and /changeover/v1/report",
        Role::All => {
            "OFREP at /ofrep/v1, /changeover/v1/report, /healthz, /readyz, /metrics, and over gRPC flagd.evaluation.v1 and v2, flagd.sync.v1, grpc.health.v1"
        }
    };
    let details = format!("nothing is served at {}; this port serves {served}", request.uri().path());
    if is_grpc {
        return tonic::Status::unimplemented(details).into_http();
    }
    let text = serde_json::json!({ "errorCode": "GENERAL", "errorDetails": details }).to_string();
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
