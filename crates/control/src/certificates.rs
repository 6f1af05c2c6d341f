//! Certificates that listeners show: what there is, and another try for what an authority did not give.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Room;
use crate::answers::{Answer, Asked, Problems, Segments, rejected};

type Shared = State<Arc<Room>>;

pub(crate) fn router() -> OpenApiRouter<Arc<Room>> {
    OpenApiRouter::new().routes(routes!(certificates)).routes(routes!(retry))
}

/// A certificate of a listener.
#[derive(ToSchema, Serialize)]
pub struct Certificate {
    pub listener: String,
    /// What it is shown for.
    pub names: Vec<String>,
    /// Its file; null when an authority is asked for it.
    #[schema(required)]
    pub file: Option<String>,
    /// Where the authority is that is asked for it.
    #[schema(required)]
    pub directory: Option<String>,
    /// Seconds since 1970; null when there is none that can be shown.
    #[schema(required)]
    pub expires_s: Option<i64>,
    /// What is wrong with its files, or what the authority said at the last try.
    #[schema(required)]
    pub problem: Option<String>,
    /// Tries in a row that brought nothing.
    pub failures: u32,
    /// When the authority is asked next, in seconds since 1970.
    #[schema(required)]
    pub next_s: Option<i64>,
}

#[derive(ToSchema, Serialize)]
struct Certificates {
    certificates: Vec<Certificate>,
}

/// The certificates of all listeners.
#[utoipa::path(get, path = "/v1/certificates", tag = "changeover",
    responses((status = 200, description = "The certificates", body = Certificates), Problems))]
async fn certificates(State(room): Shared) -> Answer {
    Answer(Ok(json!({ "certificates": (room.counter.certificates)() })))
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its shape is used")]
struct OfName {
    /// One of `domains`.
    #[param(pattern = "^[a-z0-9.-]{1,253}$", example = "example.com")]
    name: String,
}

/// Nothing more to say.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(ToSchema, Serialize)]
struct Tried {
    name: String,
}

/// Ask the authority for a name at once that it did not give a certificate for. One that is good is not asked for again.
#[utoipa::path(post, path = "/v1/certificates/{name}/retry", tag = "changeover", params(OfName), request_body = Nothing,
    responses((status = 200, description = "It is asked; the events tell what comes of it", body = Tried), Problems))]
async fn retry(State(room): Shared, Segments(name): Segments<String>, Asked(Nothing {}): Asked<Nothing>) -> Answer {
    if (room.counter.ask_for_certificate)(&name) {
        return Answer(Ok(json!({ "name": name })));
    }
    let hint = "`changeover certificates` lists those that are asked for";
    Answer(Err(rejected("not_found", format!("no authority is asked for `{name}`"), Some(hint))))
}
