//! The same evaluations as plain JSON over HTTP, for `curl` and for programs without gRPC: Connect's unary calls.
//!
//! **Invariant**: a call is answered exactly as over gRPC, only written differently. Not here: streams, `ResolveAll`.
//! Source: Connect protocol, unary requests and errors; protobuf's JSON mapping (a 64-bit integer is a text).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use prost_types::Struct;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions, Status};

use super::Service;
use super::typed::{Answer, Typed};
use crate::connection::{NoBody, whole};
use crate::limits::CONTEXT_BYTES_MAX;
use crate::metrics::Protocol;
use crate::shared::Shared;
use crate::values;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Ask {
    #[serde(alias = "flag_key")]
    flag_key: String,
    context: Map<String, Value>,
}

/// JSON is answered here; everything else is gRPC.
pub(crate) async fn or_grpc(State(shared): State<Arc<Shared>>, request: Request<Body>, next: Next) -> Response<Body> {
    let is_json = request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json || request.method() != Method::POST {
        return next.run(request).await;
    }
    match answer(shared, request).await {
        Ok(body) => json_response(StatusCode::OK, &body),
        Err(status) => {
            let (http, code) = written(status.code());
            json_response(http, &json!({ "code": code, "message": status.message() }))
        }
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Body>) -> Result<Value, Status> {
    let (head, body) = request.into_parts();
    let bytes = whole(body, CONTEXT_BYTES_MAX).await.map_err(|error| match error {
        NoBody::TooLarge { .. } => Status::resource_exhausted(error.to_string()),
        NoBody::TooSlow => Status::deadline_exceeded(error.to_string()),
        NoBody::Broken => Status::invalid_argument(error.to_string()),
    })?;
    let ask: Ask = serde_json::from_slice(&bytes)
        .map_err(|error| Status::invalid_argument(format!("{error}; expected {{\"flagKey\": …, \"context\": {{…}}}}")))?;
    let (protocol, method) = match head.uri.path().rsplit_once('/') {
        Some(("/flagd.evaluation.v1.Service", method)) => (Protocol::EvaluationV1, method),
        Some(("/flagd.evaluation.v2.Service", method)) => (Protocol::EvaluationV2, method),
        _ => return Err(only_evaluation()),
    };
    let (service, headers) = (Service(shared), head.headers);
    match method {
        "ResolveBoolean" => service.json::<bool>(headers, ask, protocol),
        "ResolveString" => service.json::<String>(headers, ask, protocol),
        "ResolveFloat" => service.json::<f64>(headers, ask, protocol),
        "ResolveInt" => service.json::<i64>(headers, ask, protocol),
        "ResolveObject" => service.json::<Struct>(headers, ask, protocol),
        _ => Err(only_evaluation()),
    }
}

fn only_evaluation() -> Status {
    Status::unimplemented("as JSON only the five methods are served that resolve one flag; everything else is gRPC")
}

impl Service {
    fn json<T: Typed>(&self, headers: HeaderMap, ask: Ask, protocol: Protocol) -> Result<Value, Status> {
        let request = tonic::Request::from_parts(MetadataMap::from_headers(headers), Extensions::new(), ask);
        let wants_value = protocol == Protocol::EvaluationV1;
        let answer: Answer<T> =
            self.resolve(request, protocol, wants_value, |ask| (ask.flag_key, Some(values::structure(&ask.context))))?;
        let mut body = json!({ "reason": answer.reason, "metadata": answer.metadata.map(values::object).unwrap_or_default() });
        if let Some(value) = answer.value {
            body["value"] = value.json();
        }
        if let Some(variant) = answer.variant {
            body["variant"] = variant.into();
        }
        Ok(body)
    }
}

/// Connect's name of a code, and the HTTP status that goes with it.
fn written(code: Code) -> (StatusCode, &'static str) {
    match code {
        Code::InvalidArgument => (StatusCode::BAD_REQUEST, "invalid_argument"),
        Code::NotFound => (StatusCode::NOT_FOUND, "not_found"),
        Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated"),
        Code::PermissionDenied => (StatusCode::FORBIDDEN, "permission_denied"),
        Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "resource_exhausted"),
        Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"),
        Code::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "unimplemented"),
        Code::DataLoss => (StatusCode::INTERNAL_SERVER_ERROR, "data_loss"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "unknown"),
    }
}

fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
