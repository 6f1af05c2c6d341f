//! Answers of the API: JSON, with the status that fits the reason.

use axum::Json;
use axum::response::{IntoResponse, Response};
use engine::Rejected;
use http::StatusCode;
use serde_json::Value;

pub(crate) struct Answer(pub(crate) Result<Value, Rejected>);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self.0 {
            Ok(value) => Json(value).into_response(),
            Err(rejected) => {
                let status = match rejected.code {
                    "not_found" => StatusCode::NOT_FOUND,
                    "conflict" => StatusCode::CONFLICT,
                    "invalid" => StatusCode::UNPROCESSABLE_ENTITY,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                };
                (status, Json(rejected)).into_response()
            }
        }
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> Rejected {
    Rejected { code: "invalid", message: message.into(), hint: None }
}
