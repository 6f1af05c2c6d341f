//! `POST /changeover/v1/report`: exposures and outcomes that clients saw by themselves.
//!
//! **Invariant**: a report is taken whole or not at all, and an error says which line of it is wrong and how to mend it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use serde_json::json;

use crate::admission::{Refused, Scope};
use crate::audience::{Outcome, Report};
use crate::connection::{NoBody, whole};
use crate::limits::{REPORT_BYTES_MAX, REPORT_ITEMS_MAX, REPORT_TEXT_BYTES_MAX};
use crate::shared::{Denied, Shared};

pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    Router::new().route("/changeover/v1/report", post(take)).with_state(shared.clone())
}

/// What is wrong with a report, and where: a path like `outcomes[3].value`; empty is the whole.
#[derive(Debug, PartialEq)]
struct Wrong {
    path: String,
    message: String,
    hint: String,
}

async fn take(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let environment = match shared.admit(&head.headers, Scope::Evaluate, "") {
        Ok(environment) => environment,
        Err(denied) => return refusal(status_of(&denied), &denied.to_string()),
    };
    let bytes = match whole(body, REPORT_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(error @ NoBody::TooLarge { .. }) => return refusal(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string()),
        Err(error @ NoBody::TooSlow) => return refusal(StatusCode::REQUEST_TIMEOUT, &error.to_string()),
        Err(error @ NoBody::Broken) => return refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let report = match read(&bytes) {
        Ok(report) => report,
        Err(wrong) => {
            let error = json!({ "path": wrong.path, "message": wrong.message, "hint": wrong.hint });
            return answer(StatusCode::BAD_REQUEST, &json!({ "error": error }));
        }
    };
    match shared.audience.reported(&environment, report) {
        Ok(accepted) => answer(StatusCode::OK, &json!({ "accepted": accepted })),
        Err(message) => refusal(StatusCode::UNPROCESSABLE_ENTITY, &message),
    }
}

fn status_of(denied: &Denied) -> StatusCode {
    match denied {
        Denied::Refused(Refused::Unauthorized) => StatusCode::UNAUTHORIZED,
        Denied::Refused(Refused::Forbidden) => StatusCode::FORBIDDEN,
        Denied::Refused(Refused::UnknownEnvironment) | Denied::Selector(_) => StatusCode::BAD_REQUEST,
    }
}

fn read(bytes: &[u8]) -> Result<Report, Wrong> {
    let report: Report = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(bytes)).map_err(|error| {
        let path = error.path().to_string();
        Wrong {
            path: if path == "." { String::new() } else { path },
            message: error.into_inner().to_string(),
            hint: "a report is {\"exposures\": [{\"flag\", \"variant\", \"targetingKey\", \"requestId\"?, \"at_ms\"?}], \
                   \"outcomes\": [{\"targetingKey\"?, \"requestId\"?, \"metric\", \"value\"?, \"failed\"?}]}"
                .to_owned(),
        }
    })?;
    check_count("exposures", report.exposures.len())?;
    check_count("outcomes", report.outcomes.len())?;
    for (index, exposure) in report.exposures.iter().enumerate() {
        let texts = [("flag", Some(&exposure.flag)), ("variant", Some(&exposure.variant)), ("targetingKey", Some(&exposure.targeting_key))];
        check_texts("exposures", index, &texts)?;
        check_texts("exposures", index, &[("requestId", exposure.request_id.as_ref())])?;
    }
    for (index, outcome) in report.outcomes.iter().enumerate() {
        let whose = [("targetingKey", outcome.targeting_key.as_ref()), ("requestId", outcome.request_id.as_ref())];
        check_texts("outcomes", index, &whose)?;
        check_texts("outcomes", index, &[("metric", Some(&outcome.metric))])?;
        check_outcome(index, outcome)?;
    }
    Ok(report)
}

fn check_count(list: &str, count: usize) -> Result<(), Wrong> {
    if count <= REPORT_ITEMS_MAX {
        return Ok(());
    }
    Err(Wrong {
        path: list.to_owned(),
        message: format!("{count} are more than {REPORT_ITEMS_MAX}"),
        hint: "send several reports".to_owned(),
    })
}

fn check_texts(list: &str, index: usize, texts: &[(&str, Option<&String>)]) -> Result<(), Wrong> {
    for (name, text) in texts {
        let Some(text) = text else { continue };
        if text.is_empty() || text.len() > REPORT_TEXT_BYTES_MAX {
            return Err(Wrong {
                path: format!("{list}[{index}].{name}"),
                message: format!("{} bytes; it must have 1 to {REPORT_TEXT_BYTES_MAX}", text.len()),
                hint: "use a short id, or a hash of a long one".to_owned(),
            });
        }
    }
    Ok(())
}

fn check_outcome(index: usize, outcome: &Outcome) -> Result<(), Wrong> {
    let wrong =
        |message: &str, hint: &str| Wrong { path: format!("outcomes[{index}]"), message: message.to_owned(), hint: hint.to_owned() };
    if outcome.targeting_key.is_none() && outcome.request_id.is_none() {
        return Err(wrong("it belongs to nobody", "give `targetingKey`, or the `requestId` that the evaluation context carried"));
    }
    if outcome.value.is_none() && outcome.failed.is_none() {
        return Err(wrong("it says nothing", "give `value` for a quantity, or `failed` for something that can fail"));
    }
    Ok(())
}

fn refusal(status: StatusCode, message: &str) -> Response<Body> {
    answer(status, &json!({ "error": { "path": "", "message": message } }))
}

fn answer(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<(usize, usize), (&str, &str)>) {
        let read = read(text.as_bytes());
        match (&read, expect) {
            (Ok(report), Ok(counts)) => assert_eq!((report.exposures.len(), report.outcomes.len()), counts, "{text}"),
            (Err(wrong), Err((path, message))) => {
                assert_eq!(wrong.path, path, "{text}");
                assert!(wrong.message.contains(message), "{text}: {}", wrong.message);
            }
            _ => panic!("{text}: {read:?}"),
        }
    }

    #[test]
    fn an_error_says_which_line_is_wrong() {
        check("{}", Ok((0, 0)));
        check(r#"{"exposures":[{"flag":"a","variant":"on","targetingKey":"u1","requestId":"r","at_ms":5}]}"#, Ok((1, 0)));
        check(
            r#"{"outcomes":[{"requestId":"r","metric":"paid","value":3.5},{"targetingKey":"u","metric":"error","failed":true}]}"#,
            Ok((0, 2)),
        );
        check("nonsense", Err(("", "expected")));
        check(r#"{"exposures":[{"flag":"a","variant":7,"targetingKey":"u"}]}"#, Err(("exposures[0].variant", "invalid type")));
        check(r#"{"exposures":[{"flag":"","variant":"x","targetingKey":"u"}]}"#, Err(("exposures[0].flag", "0 bytes")));
        check(r#"{"outcomes":[{"metric":"paid","value":1}]}"#, Err(("outcomes[0]", "belongs to nobody")));
        check(r#"{"outcomes":[{"metric":"paid","requestId":"r"}]}"#, Err(("outcomes[0]", "says nothing")));
        check(r#"{"exposure":[]}"#, Err(("exposure", "unknown field")));
    }
}
