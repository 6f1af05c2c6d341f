//! Answers of the API: JSON, with the status that fits the reason; and what was asked, read so that every mistake is answered as one.

use axum::Json;
use axum::extract::rejection::{FormRejection, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Form, FromRequest, FromRequestParts, Path, Query, Request};
use axum::response::{IntoResponse, Response};
use engine::Rejected;
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) struct Answer(pub(crate) Result<Value, Rejected>);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self.0 {
            Ok(value) => Json(value).into_response(),
            Err(rejected) => Refused(rejected).into_response(),
        }
    }
}

/// Why nothing was done.
pub(crate) struct Refused(pub(crate) Rejected);

impl From<Rejected> for Refused {
    fn from(rejected: Rejected) -> Self {
        Self(rejected)
    }
}

pub(crate) fn status_of(rejected: &Rejected) -> StatusCode {
    match rejected.code {
        "malformed" => StatusCode::BAD_REQUEST,
        "unauthorized" => StatusCode::UNAUTHORIZED,
        "forbidden" => StatusCode::FORBIDDEN,
        "not_found" => StatusCode::NOT_FOUND,
        "wrong_method" => StatusCode::METHOD_NOT_ALLOWED,
        "conflict" => StatusCode::CONFLICT,
        "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "not_json" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "wrong_host" => StatusCode::MISDIRECTED_REQUEST,
        "invalid" => StatusCode::UNPROCESSABLE_ENTITY,
        "too_many" => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = status_of(&self.0);
        let mut response = (status, Json(self.0)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(http::header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

pub(crate) fn rejected(code: &'static str, message: impl Into<String>, hint: Option<&str>) -> Rejected {
    Rejected { code, message: message.into(), hint: hint.map(str::to_owned) }
}

pub(crate) fn invalid(message: impl Into<String>) -> Rejected {
    rejected("invalid", message, None)
}

pub(crate) async fn no_such_path(request: Request) -> Refused {
    rejected("not_found", format!("there is nothing at `{}`", request.uri().path()), Some("see /v1/openapi.json")).into()
}

pub(crate) async fn wrong_method(request: Request) -> Refused {
    let message = format!("`{}` does not answer {}", request.uri().path(), request.method());
    rejected("wrong_method", message, Some("see /v1/openapi.json")).into()
}

/// A body in JSON.
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(asked)) => Ok(Self(asked)),
            Err(error) => Err(match &error {
                JsonRejection::MissingJsonContentType(_) => {
                    rejected("not_json", "the body must be JSON", Some("send the field `content-type: application/json`"))
                }
                JsonRejection::JsonSyntaxError(_) => rejected("malformed", said(&error.body_text()), None),
                JsonRejection::JsonDataError(_) => invalid(said(&error.body_text())),
                _ => body_problem(error.status(), &error.body_text()),
            }
            .into()),
        }
    }
}

/// The cause without the library's preamble.
fn said(text: &str) -> String {
    let preambles = ["Failed to parse the request body as JSON: ", "Failed to deserialize the JSON body into the target type: "];
    let cause = preambles.iter().find_map(|preamble| text.strip_prefix(preamble)).unwrap_or(text);
    format!("the body: {cause}")
}

fn body_problem(status: StatusCode, text: &str) -> Rejected {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => rejected("too_large", format!("the body has more than {} bytes", crate::BODY_BYTES_MAX), None),
        _ => rejected("malformed", text, None),
    }
}

/// A body as a browser's form sends it.
pub(crate) struct Filled<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Filled<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let filled: Result<Form<T>, FormRejection> = Form::from_request(request, state).await;
        filled.map(|Form(filled)| Self(filled)).map_err(|error| body_problem(error.status(), &error.body_text()).into())
    }
}

/// The variable parts of the path.
pub(crate) struct Segments<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let read: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        read.map(|Path(read)| Self(read)).map_err(|error| rejected("malformed", format!("the path: {}", error.body_text()), None).into())
    }
}

/// What follows `?`.
pub(crate) struct Questions<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Questions<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let read: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        read.map(|Query(read)| Self(read)).map_err(|error| rejected("malformed", format!("the query: {}", error.body_text()), None).into())
    }
}

/// Why nothing was done: the shape of `engine::Rejected`.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Problem {
    /// For programs, such as `not_found`, `conflict`, `invalid`, `unavailable`.
    code: String,
    /// For people.
    message: String,
    /// What to do about it.
    #[schema(required)]
    hint: Option<String>,
}

/// What every request may be answered.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "only its shape is used")]
pub(crate) enum Problems {
    /// The request cannot be read.
    #[response(status = 400)]
    Malformed(#[to_schema] Problem),
    /// No valid token.
    #[response(status = 401)]
    Unauthorized(#[to_schema] Problem),
    /// The token's scope does not allow it.
    #[response(status = 403)]
    Forbidden(#[to_schema] Problem),
    /// There is no such service, version, release or path.
    #[response(status = 404)]
    NotFound(#[to_schema] Problem),
    /// The path answers other methods.
    #[response(status = 405)]
    WrongMethod(#[to_schema] Problem),
    /// Something else is in the way.
    #[response(status = 409)]
    Conflict(#[to_schema] Problem),
    /// The body is too long.
    #[response(status = 413)]
    TooLarge(#[to_schema] Problem),
    /// The body is not JSON.
    #[response(status = 415)]
    NotJson(#[to_schema] Problem),
    /// Asked under a host name that is not ours.
    #[response(status = 421)]
    WrongHost(#[to_schema] Problem),
    /// A value is wrong.
    #[response(status = 422)]
    Invalid(#[to_schema] Problem),
    /// The engine cannot act now.
    #[response(status = 503)]
    Unavailable(#[to_schema] Problem),
}
