//! What the API can be asked to show.

use std::sync::Arc;

use axum::extract::State;
use engine::{Command, Rejected};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Room;
use crate::answers::{Answer, Problems, Questions, Segments, rejected};
use crate::verbs::{OfService, carry_out, service, version};

type Shared = State<Arc<Room>>;

pub(crate) fn router() -> OpenApiRouter<Arc<Room>> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(history))
        .routes(routes!(cost))
        .routes(routes!(analysis))
        .routes(routes!(forecast))
        .routes(routes!(log))
        .routes(routes!(metrics))
        .routes(routes!(crate::events::events))
}

/// What is going on. More fields may come.
#[derive(ToSchema, Serialize)]
struct Status {
    services: Vec<ServiceStatus>,
    /// Listeners that are not open, and why.
    not_open: Vec<Value>,
    changeover: Serving,
}

/// The worker that serves.
#[derive(ToSchema, Serialize)]
struct Serving {
    version: String,
    pid: u32,
}

#[derive(ToSchema, Serialize)]
struct ServiceStatus {
    service: String,
    /// The version that serves new requests.
    #[schema(required)]
    serves: Option<String>,
    stopped: bool,
    /// Healthy targets of the serving version, and how many there should be.
    healthy: u64,
    wanted: u64,
    requests: u64,
    /// Requests that were answered badly.
    bad: u64,
    /// Requests per second, over the last seconds.
    #[schema(required)]
    rate: Option<f64>,
    /// A share, 0 to 1.
    #[schema(required)]
    errors: Option<f64>,
    #[schema(required)]
    p99_ms: Option<f64>,
    /// The running release, or the last one.
    #[schema(required)]
    release: Option<ReleaseStatus>,
}

#[derive(ToSchema, Serialize)]
struct ReleaseStatus {
    number: u64,
    id: String,
    candidate: String,
    /// Who served before; absent at the first release ever.
    #[schema(required)]
    stable: Option<String>,
    state: String,
    who: String,
    #[schema(required)]
    message: Option<String>,
    /// Once it has ended: outcome and reason.
    #[schema(required)]
    ending: Option<EndingStatus>,
}

#[derive(ToSchema, Serialize)]
struct EndingStatus {
    /// `promoted`, `rolled_back`, `aborted`, `withdrawn`, `failed` or `superseded`.
    outcome: String,
    reason: String,
}

/// What is going on.
#[utoipa::path(get, path = "/v1/status", tag = "changeover", responses((status = 200, description = "All services", body = Status), Problems))]
async fn status(State(room): Shared) -> Answer {
    let mut answer = carry_out(&room, Ok(Command::Status)).await;
    if let Ok(status) = &mut answer.0 {
        status["changeover"] = json!(Serving { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() });
    }
    answer
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OfOne {
    /// Only this one's.
    service: Option<String>,
}

#[derive(ToSchema, Serialize)]
struct History {
    releases: Vec<Value>,
}

/// All releases, oldest first.
#[utoipa::path(get, path = "/v1/history", tag = "releases", params(OfOne),
    responses((status = 200, description = "The releases", body = History), Problems))]
async fn history(State(room): Shared, Questions(of): Questions<OfOne>) -> Answer {
    Answer(Ok(json!({ "releases": releases(&room, of.service.as_deref()).await })))
}

pub(crate) async fn releases(room: &Room, service: Option<&str>) -> Vec<Value> {
    let prefix = service.map_or_else(|| "release/".to_owned(), |service| format!("release/{service}/"));
    let stored = room.counter.engine.store().values(&prefix).await;
    stored.into_iter().filter_map(|(_, text)| serde_json::from_str(&text).ok()).collect()
}

#[derive(ToSchema, Serialize)]
struct Cost {
    services: Vec<CostOfService>,
}

#[derive(ToSchema, Serialize)]
struct CostOfService {
    service: String,
    /// Each from its begin to that of the next.
    releases: Vec<CostOfRelease>,
}

#[derive(ToSchema, Serialize)]
struct CostOfRelease {
    release: u64,
    lines: Vec<CostLine>,
    /// Of versions that served nobody.
    idle: Used,
    /// Of the version that was kept for a rollback.
    standby: Used,
    /// What that would have been, hot all the time; null when it never was hot, and nobody knows.
    #[schema(required)]
    standby_if_hot: Option<Used>,
    /// The same, frozen.
    standby_if_frozen: Used,
}

#[derive(ToSchema, Serialize)]
struct CostLine {
    version: String,
    /// `serving`, `candidate`, `hot`, `frozen` or `kept`.
    r#as: String,
    used: Used,
}

#[derive(ToSchema, Serialize)]
struct Used {
    ms: u64,
    cpu_ms: u64,
    /// Resident memory (MiB) times seconds.
    mib_s: f64,
}

/// What versions used of processor and memory, by release.
#[utoipa::path(get, path = "/v1/cost", tag = "releases", params(OfOne),
    responses((status = 200, description = "By service and release", body = Cost), Problems))]
async fn cost(State(room): Shared, Questions(of): Questions<OfOne>) -> Answer {
    let name = of.service.as_deref().map(service).transpose();
    carry_out(&room, name.map(|service| Command::Cost { service })).await
}

/// What the judge said of a release.
#[derive(ToSchema, Serialize)]
struct Analyses {
    service: String,
    /// As in the history.
    release: Value,
    /// What was to be compared; null where nothing was.
    plan: Value,
    /// The last look; null when there was none.
    last: Value,
    /// Those that were recorded.
    looks: Vec<Value>,
}

/// What the judge said of a release: the last look, and those that were recorded.
#[utoipa::path(get, path = "/v1/services/{service}/releases/{number}/analysis", tag = "releases",
    params(OfService, ("number" = u64, Path)),
    responses((status = 200, description = "The looks", body = Analyses), Problems))]
async fn analysis(State(room): Shared, Segments((name, number)): Segments<(String, u64)>) -> Answer {
    Answer(analyses(&room, &name, number).await)
}

async fn analyses(room: &Room, name: &str, number: u64) -> Result<Value, Rejected> {
    let name = service(name)?;
    let store = room.counter.engine.store();
    let read = |(_, text): (String, String)| serde_json::from_str::<Value>(&text).ok();
    let release = store.values(&format!("release/{name}/{number:08}")).await.into_iter().find_map(read);
    let hint = format!("changeover history {name}");
    let release = release.ok_or_else(|| rejected("not_found", format!("there is no release {number} of {name}"), Some(&hint)))?;
    let analysis = store.values(&format!("analysis/{name}/{number:08}")).await.into_iter().find_map(read).unwrap_or_default();
    let looks: Vec<Value> = store.values(&format!("look/{name}/{number:08}/")).await.into_iter().filter_map(read).collect();
    let (plan, last) = (&analysis["scales"]["plan"], &analysis["last"]);
    Ok(json!({ "service": name, "release": release, "plan": plan, "last": last, "looks": looks }))
}

/// The last look at a release that is over.
pub(crate) async fn last_look(room: &Room, name: &str, number: u64) -> Option<Value> {
    analyses(room, name, number).await.ok().map(|it| it["last"].clone()).filter(|last| !last.is_null())
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$")]
    version: String,
}

/// What a deploy would do, and how long it would take with the traffic of now.
#[utoipa::path(get, path = "/v1/services/{service}/forecast", tag = "releases", params(OfService, Wanted),
    responses((status = 200, description = "The forecast", body = Value), Problems))]
async fn forecast(State(room): Shared, Segments(name): Segments<String>, Questions(of): Questions<Wanted>) -> Answer {
    let command = || Ok(Command::Forecast { service: service(&name)?, version: version(&of.version)? });
    carry_out(&room, command()).await
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OfVersion {
    /// Default: the one that serves.
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$")]
    version: Option<String>,
}

#[derive(ToSchema, Serialize)]
struct LogFile {
    /// A path on the machine where changeover runs.
    file: String,
}

/// Where a version's output is.
#[utoipa::path(get, path = "/v1/services/{service}/log", tag = "services", params(OfService, OfVersion),
    responses((status = 200, description = "The file", body = LogFile), Problems))]
async fn log(State(room): Shared, Segments(name): Segments<String>, Questions(of): Questions<OfVersion>) -> Answer {
    let command = || {
        let version = of.version.as_deref().map(version).transpose()?;
        Ok(Command::LogFile { service: service(&name)?, version })
    };
    carry_out(&room, command()).await
}

/// Counts in Prometheus' text format.
#[utoipa::path(get, path = "/v1/metrics", tag = "changeover",
    responses((status = 200, description = "The counts", body = String, content_type = "text/plain"), Problems))]
async fn metrics(State(room): Shared) -> String {
    (room.counter.metrics)()
}
