//! Reading who an evaluation is for.
//!
//! **Invariant**: nothing said is an empty context, as flagd takes it; something else than an object is refused.

use axum::body::Body;
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::answer::{Failure, failure, json};
use crate::connection::{NoBody, whole};
use crate::limits::CONTEXT_BYTES_MAX;

#[derive(Debug, thiserror::Error)]
pub(super) enum Wrong {
    #[error(transparent)]
    Body(#[from] NoBody),
    #[error("the body is not JSON: {0}")]
    Json(serde_json::Error),
    #[error("the body does not hold a context: {0}; expected {{\"context\": {{\"targetingKey\": …, …}}}}")]
    Context(serde_json::Error),
}

impl Wrong {
    pub(super) fn response(&self, key: Option<&str>) -> Response<Body> {
        let (status, code) = match self {
            Self::Body(NoBody::TooLarge { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, "GENERAL"),
            Self::Body(NoBody::TooSlow) => (StatusCode::REQUEST_TIMEOUT, "GENERAL"),
            Self::Body(NoBody::Broken) => (StatusCode::BAD_REQUEST, "GENERAL"),
            Self::Json(_) => (StatusCode::BAD_REQUEST, "PARSE_ERROR"),
            Self::Context(_) => (StatusCode::BAD_REQUEST, "INVALID_CONTEXT"),
        };
        json(status, failure(Failure { key, code, details: &self.to_string() }))
    }
}

#[derive(Default, Deserialize)]
struct Ask {
    #[serde(default)]
    context: Option<Map<String, Value>>,
}

pub(super) async fn context(body: Body) -> Result<Map<String, Value>, Wrong> {
    let bytes = whole(body, CONTEXT_BYTES_MAX).await?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    let ask: Option<Ask> =
        serde_json::from_slice(&bytes).map_err(|error| if error.is_data() { Wrong::Context(error) } else { Wrong::Json(error) })?;
    Ok(ask.and_then(|ask| ask.context).unwrap_or_default())
}
