//! What the API can be asked to do: each verb with the body it takes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use engine::{Command, Rejected, WantedDeploy, WhenRunning};
use model::{Desired, Mode, ServiceName, VersionName};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Room;
use crate::answers::{Answer, Asked, Problems, Segments, invalid};
use crate::caller::Caller;

type Shared = State<Arc<Room>>;

pub(crate) fn router() -> OpenApiRouter<Arc<Room>> {
    OpenApiRouter::new()
        .routes(routes!(deploy))
        .routes(routes!(promote))
        .routes(routes!(pause))
        .routes(routes!(unpause))
        .routes(routes!(abort))
        .routes(routes!(rollback))
        .routes(routes!(retry))
        .routes(routes!(mode))
        .routes(routes!(stop))
        .routes(routes!(start))
        .routes(routes!(restart))
        .routes(routes!(remove))
        .routes(routes!(resume))
        .routes(routes!(plan))
        .routes(routes!(apply))
        .routes(routes!(down))
        .routes(routes!(upgrade))
}

pub(crate) fn service(name: &str) -> Result<ServiceName, Rejected> {
    ServiceName::new(name).map_err(|error| invalid(error.to_string()))
}

pub(crate) fn version(name: &str) -> Result<VersionName, Rejected> {
    VersionName::new(name).map_err(|error| invalid(error.to_string()))
}

pub(crate) async fn carry_out(room: &Room, command: Result<Command, Rejected>) -> Answer {
    match command {
        Ok(command) => Answer(room.counter.engine.ask(command).await),
        Err(rejected) => Answer(Err(rejected)),
    }
}

/// Which service.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its shape is used")]
pub(crate) struct OfService {
    #[param(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", example = "web")]
    service: String,
}

/// What a verb without settings takes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Who {
    /// Who asks. Over TCP the token's name counts instead.
    #[serde(default)]
    who: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Deploy {
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$", example = "v2")]
    version: String,
    /// For `runtime: static`: where it runs, such as `10.0.0.7:8080`.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    addresses: Vec<SocketAddr>,
    /// Why; kept in the history.
    #[serde(default)]
    message: Option<String>,
    /// Take the running release back first.
    #[serde(default)]
    supersede: bool,
    /// Begin when the running release has ended. Excludes `supersede`.
    #[serde(default)]
    queue: bool,
    /// Who asks. Over TCP the token's name counts instead.
    #[serde(default)]
    who: Option<String>,
}

/// Begin a release.
#[utoipa::path(post, path = "/v1/services/{service}/deploy", tag = "releases", params(OfService), request_body = Deploy,
    responses((status = 200, description = "It began: its number, and the newest event before it", body = Began), Problems))]
async fn deploy(State(room): Shared, caller: Caller, Segments(name): Segments<String>, Asked(asked): Asked<Deploy>) -> Answer {
    let command = || {
        let when_running = match (asked.supersede, asked.queue) {
            (true, true) => return Err(invalid("`supersede` and `queue` exclude each other")),
            (true, false) => WhenRunning::Supersede,
            (false, true) => WhenRunning::Queue,
            (false, false) => WhenRunning::Refuse,
        };
        let (service, version) = (service(&name)?, version(&asked.version)?);
        let (who, addresses, message) = (caller.who(asked.who), asked.addresses, asked.message);
        Ok(Command::Deploy(WantedDeploy { service, version, who, addresses, message, when_running }))
    };
    carry_out(&room, command()).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Promote {
    /// To everybody, whatever the judge has not seen.
    #[serde(default)]
    full: bool,
    /// Only if the canary is at this step, from 1.
    #[serde(default)]
    step: Option<usize>,
    /// Why; kept in the history.
    #[serde(default)]
    message: Option<String>,
    /// Who asks. Over TCP the token's name counts instead.
    #[serde(default)]
    who: Option<String>,
}

/// Let a release that waits for a person go on, or a canary go to its next step.
#[utoipa::path(post, path = "/v1/services/{service}/promote", tag = "releases", params(OfService), request_body = Promote,
    responses((status = 200, description = "It goes on", body = Began), Problems))]
async fn promote(State(room): Shared, caller: Caller, Segments(name): Segments<String>, Asked(asked): Asked<Promote>) -> Answer {
    let (who, full, step, why) = (caller.who(asked.who), asked.full, asked.step, asked.message);
    carry_out(&room, service(&name).map(|service| Command::Promote { service, who, full, step, why })).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Pause {
    /// Why; kept in the history.
    #[serde(default)]
    message: Option<String>,
    /// Who asks. Over TCP the token's name counts instead.
    #[serde(default)]
    who: Option<String>,
}

/// Hold a canary at its step; a regression is still rolled back.
#[utoipa::path(post, path = "/v1/services/{service}/pause", tag = "releases", params(OfService), request_body = Pause,
    responses((status = 200, description = "It stays where it is", body = Began), Problems))]
async fn pause(State(room): Shared, caller: Caller, Segments(name): Segments<String>, Asked(asked): Asked<Pause>) -> Answer {
    let (who, why) = (caller.who(asked.who), asked.message);
    carry_out(&room, service(&name).map(|service| Command::Pause { service, who, why })).await
}

/// Let a paused canary go on.
#[utoipa::path(post, path = "/v1/services/{service}/resume", tag = "releases", params(OfService), request_body = Who,
    responses((status = 200, description = "It goes on", body = Began), Problems))]
async fn unpause(State(room): Shared, caller: Caller, Segments(name): Segments<String>, Asked(asked): Asked<Who>) -> Answer {
    let who = caller.who(asked.who);
    carry_out(&room, service(&name).map(|service| Command::Unpause { service, who })).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Abort {
    /// Why; kept in the history.
    #[serde(default)]
    message: Option<String>,
    /// Also when a migration cannot be undone.
    #[serde(default)]
    force: bool,
    /// Who asks. Over TCP the token's name counts instead.
    #[serde(default)]
    who: Option<String>,
}

/// End the running release: stable serves again.
#[utoipa::path(post, path = "/v1/services/{service}/abort", tag = "releases", params(OfService), request_body = Abort,
    responses((status = 200, description = "Stable serves", body = Began), Problems))]
async fn abort(State(room): Shared, caller: Caller, Segments(name): Segments<String>, Asked(asked): Asked<Abort>) -> Answer {
    let (who, force, reason) = (caller.who(asked.who), asked.force, asked.message);
    carry_out(&room, service(&name).map(|service| Command::Abort { service, force, who, reason })).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rollback {
    /// A version further back. Default: the one before.
    #[serde(default)]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$")]
    to: Option<String>,
    /// Also when a migration cannot be undone.
    #[serde(default)]
    force: bool,
    /// Who asks. Over TCP the token's name counts instead.
    #[serde(default)]
    who: Option<String>,
}

/// Go back to a confirmed version.
#[utoipa::path(post, path = "/v1/services/{service}/rollback", tag = "releases", params(OfService),
    request_body = Rollback, responses((status = 200, description = "From, to, how, and how long it took", body = Began), Problems))]
async fn rollback(State(room): Shared, caller: Caller, Segments(name): Segments<String>, Asked(asked): Asked<Rollback>) -> Answer {
    let command = || {
        let to = asked.to.as_deref().map(version).transpose()?;
        Ok(Command::Rollback { service: service(&name)?, to, force: asked.force, who: caller.who(asked.who) })
    };
    carry_out(&room, command()).await
}

/// Try the last release once more; migrations that passed do not run again.
#[utoipa::path(post, path = "/v1/services/{service}/retry", tag = "releases", params(OfService), request_body = Who,
    responses((status = 200, description = "A new release began", body = Began), Problems))]
async fn retry(State(room): Shared, caller: Caller, Segments(name): Segments<String>, Asked(asked): Asked<Who>) -> Answer {
    let who = caller.who(asked.who);
    carry_out(&room, service(&name).map(|service| Command::Retry { service, who })).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WantedMode {
    #[schema(value_type = ModeDocument)]
    mode: Mode,
    /// Who asks. Over TCP the token's name counts instead.
    #[serde(default)]
    who: Option<String>,
}

/// No client waits longer; more is a slip of the pen.
const HOLD_MAX_MS: u64 = 24 * 3600 * 1000;

/// How requests are answered.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only its shape is used: it is model::Mode")]
enum ModeDocument {
    Serve,
    /// Requests wait.
    Hold {
        /// Then 504. At most a day.
        #[schema(maximum = 86_400_000)]
        wait_max_ms: u64,
        /// So many at once.
        #[schema(value_type = u64, maximum = 4_294_967_295_u64)]
        queue_max: u32,
    },
    /// 503 with this page.
    Maintenance {
        page: String,
    },
}

/// Serve, let requests wait, or answer 503 with a page.
#[utoipa::path(post, path = "/v1/services/{service}/mode", tag = "services", params(OfService),
    request_body = WantedMode, responses((status = 200, description = "Done", body = Began), Problems))]
async fn mode(State(room): Shared, caller: Caller, Segments(name): Segments<String>, Asked(asked): Asked<WantedMode>) -> Answer {
    let who = caller.who(asked.who);
    if matches!(asked.mode, Mode::Hold { wait_max_ms, .. } if wait_max_ms > HOLD_MAX_MS) {
        return Answer(Err(invalid("a request is held for a day at most")));
    }
    carry_out(&room, service(&name).map(|service| Command::SetMode { service, mode: asked.mode, who })).await
}

/// Stop all processes of a service.
#[utoipa::path(post, path = "/v1/services/{service}/stop", tag = "services", params(OfService), request_body = Who,
    responses((status = 200, description = "Done", body = Began), Problems))]
async fn stop(State(room): Shared, caller: Caller, Segments(name): Segments<String>, Asked(asked): Asked<Who>) -> Answer {
    let who = caller.who(asked.who);
    carry_out(&room, service(&name).map(|service| Command::Stop { service, who })).await
}

/// Start a stopped service.
#[utoipa::path(post, path = "/v1/services/{service}/start", tag = "services", params(OfService), request_body = Who,
    responses((status = 200, description = "Done", body = Began), Problems))]
async fn start(State(room): Shared, caller: Caller, Segments(name): Segments<String>, Asked(asked): Asked<Who>) -> Answer {
    let who = caller.who(asked.who);
    carry_out(&room, service(&name).map(|service| Command::Start { service, who })).await
}

/// Replace the processes of the serving version by new ones; answered when the old ones have drained.
#[utoipa::path(post, path = "/v1/services/{service}/restart", tag = "services", params(OfService), request_body = Who,
    responses((status = 200, description = "Done", body = Began), Problems))]
async fn restart(State(room): Shared, caller: Caller, Segments(name): Segments<String>, Asked(asked): Asked<Who>) -> Answer {
    let who = caller.who(asked.who);
    carry_out(&room, service(&name).map(|service| Command::Restart { service, who })).await
}

/// End what was deployed and forget it; the history stays.
#[utoipa::path(post, path = "/v1/services/{service}/remove", tag = "services", params(OfService), request_body = Who,
    responses((status = 200, description = "Done", body = Began), Problems))]
async fn remove(State(room): Shared, caller: Caller, Segments(name): Segments<String>, Asked(asked): Asked<Who>) -> Answer {
    let who = caller.who(asked.who);
    carry_out(&room, service(&name).map(|service| Command::Remove { service, who })).await
}

/// Drive releases again, after the worker crashed several times in a row.
#[utoipa::path(post, path = "/v1/resume", tag = "changeover", request_body = Who,
    responses((status = 200, description = "Releases go on", body = Began), Problems))]
async fn resume(State(room): Shared, caller: Caller, Asked(asked): Asked<Who>) -> Answer {
    carry_out(&room, Ok(Command::Resume { who: caller.who(asked.who) })).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Down {
    /// Leave the versions running; the next `up` adopts them.
    #[serde(default)]
    keep_versions: bool,
}

/// End changeover. Over the Unix socket only.
#[utoipa::path(post, path = "/v1/down", tag = "changeover", request_body = Down,
    responses((status = 200, description = "It ends", body = Began), Problems))]
async fn down(State(room): Shared, Asked(asked): Asked<Down>) -> Answer {
    carry_out(&room, Ok(Command::Down { keep_versions: asked.keep_versions })).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Upgrade {
    /// Absolute; the file that the running one was started from when absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    binary: Option<PathBuf>,
    /// How many seconds the worker before it may finish what it has; 600 when absent.
    #[serde(default)]
    drain_s: Option<u64>,
    /// Who asks.
    #[serde(default)]
    who: Option<String>,
}

/// Replace changeover itself by another binary. Over the Unix socket only. How it ends is an event: `upgraded` or `upgrade_failed`.
#[utoipa::path(post, path = "/v1/upgrade", tag = "changeover", request_body = Upgrade,
    responses((status = 200, description = "It began: the newest event before it", body = Began), Problems))]
async fn upgrade(State(room): Shared, caller: Caller, Asked(asked): Asked<Upgrade>) -> Answer {
    let drain = asked.drain_s.map(std::time::Duration::from_secs);
    Answer((room.counter.upgrade)(asked.binary, drain, caller.who(asked.who)).await)
}

/// A configuration file.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct File {
    text: String,
    /// Absolute; shown in messages, and its folder is where relative paths begin.
    #[schema(value_type = String)]
    path: PathBuf,
    /// Who asks. Over TCP the token's name counts instead.
    #[serde(default)]
    who: Option<String>,
}

/// What `apply` would change.
#[utoipa::path(post, path = "/v1/plan", tag = "changeover", request_body = File,
    responses((status = 200, description = "A line each", body = Changes), Problems))]
async fn plan(State(room): Shared, Asked(file): Asked<File>) -> Answer {
    let command = desired(&room, &file).map(|desired| Command::Plan { desired });
    carry_out(&room, command).await
}

/// Follow the file. Over the Unix socket only: the file says which commands are run here.
#[utoipa::path(post, path = "/v1/apply", tag = "changeover", request_body = File,
    responses((status = 200, description = "What was changed, a line each", body = Changes), Problems))]
async fn apply(State(room): Shared, caller: Caller, Asked(file): Asked<File>) -> Answer {
    let desired = match desired(&room, &file) {
        Ok(desired) => desired,
        Err(rejected) => return Answer(Err(rejected)),
    };
    let api = desired.api.clone();
    let answer = carry_out(&room, Ok(Command::Apply { desired, who: caller.who(file.who) })).await;
    if answer.0.is_ok() {
        room.settings.send_if_modified(|settings| std::mem::replace(settings, api.clone()) != api);
    }
    answer
}

fn desired(room: &Room, file: &File) -> Result<Box<Desired>, Rejected> {
    (room.counter.parse)(&file.text, &file.path).map(Box::new).map_err(invalid)
}

/// What came of it; which fields there are depends on the verb.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its shape is used")]
struct Began {
    /// The release's number.
    #[schema(required = false, nullable)]
    release: Option<u64>,
    /// The newest event before it: where to go on from.
    #[schema(required = false, nullable)]
    since: Option<u64>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "only its shape is used")]
struct Changes {
    changes: Vec<String>,
}
