//! The bodies of OFREP's answers.
//!
//! **Invariant**: a value goes out exactly as its author wrote it: to typed clients `10.0` and `10` are different.

use axum::body::Body;
use flags::Evaluation;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Map, Value};

use crate::admission::Refused;
use crate::shared::Denied;

pub(super) struct Failure<'a> {
    /// None in an answer about all flags.
    pub(super) key: Option<&'a str>,
    pub(super) code: &'a str,
    pub(super) details: &'a str,
}

pub(super) fn success(text: &mut String, evaluation: &Evaluation<'_>) {
    text.push_str("{\"key\":");
    string(text, evaluation.flag.key());
    text.push_str(",\"reason\":\"");
    text.push_str(evaluation.reason.as_str());
    // Without a value the default in the client's code counts. The variant is named nevertheless: clients fail without.
    text.push_str("\",\"variant\":");
    string(text, evaluation.variant.unwrap_or_default());
    if let Some(value) = evaluation.value {
        text.push_str(",\"value\":");
        text.push_str(value.json());
    }
    metadata(text, evaluation.flag.metadata());
    text.push('}');
}

/// Of these, only plain values: OFREP knows no others.
pub(super) fn metadata(text: &mut String, of: &Map<String, Value>) {
    let mut separator = ",\"metadata\":{";
    for (name, value) in of {
        if matches!(value, Value::Bool(_) | Value::String(_) | Value::Number(_)) {
            text.push_str(separator);
            string(text, name);
            text.push(':');
            text.push_str(&value.to_string());
            separator = ",";
        }
    }
    if separator == "," {
        text.push('}');
    }
}

pub(super) fn string(text: &mut String, value: &str) {
    let is_plain = value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
    if is_plain {
        text.push('"');
        text.push_str(value);
        text.push('"');
    } else {
        text.push_str(&Value::from(value).to_string());
    }
}

pub(super) fn failure(failure: Failure<'_>) -> String {
    let mut text = String::from("{");
    if let Some(key) = failure.key {
        text.push_str("\"key\":");
        string(&mut text, key);
        text.push(',');
    }
    text.push_str("\"errorCode\":");
    string(&mut text, failure.code);
    text.push_str(",\"errorDetails\":");
    string(&mut text, failure.details);
    text.push('}');
    text
}

/// 401 and 403 have no body in OFREP; here they say what is missing, which no client minds.
pub(super) fn denied(denied: &Denied, key: Option<&str>) -> Response<Body> {
    let status = match denied {
        Denied::Refused(Refused::Unauthorized) => StatusCode::UNAUTHORIZED,
        Denied::Refused(Refused::Forbidden) => StatusCode::FORBIDDEN,
        Denied::Refused(Refused::UnknownEnvironment) | Denied::Selector(_) => StatusCode::BAD_REQUEST,
    };
    let mut response = json(status, failure(Failure { key, code: "GENERAL", details: &denied.to_string() }));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

pub(super) fn json(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Answers are about a person, and about now.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
