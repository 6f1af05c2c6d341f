//! The counter: the HTTP API over a Unix socket. File permissions (0600) are the authentication.
//!
//! Everything the command line can do goes through here; paths carry a version. Not here: decisions (engine).

mod answers;
mod events;

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Path as Segments, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use engine::{Command, Handle, WantedDeploy, WhenRunning};
use model::{Desired, Mode, ServiceName, VersionName};
use serde::Deserialize;

use answers::{Answer, invalid};

/// What the counter needs besides the engine.
pub struct Counter {
    pub engine: Handle,
    /// Reads the text of a configuration file; the error is for people.
    pub parse: Parse,
    /// Prometheus text.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
}

/// From a file's text, and the path to show in messages.
pub type Parse = Box<dyn Fn(&str, &Path) -> Result<Desired, String> + Send + Sync>;

type Shared = State<Arc<Counter>>;

/// Opens the API's socket.
pub fn bind(socket: &Path) -> std::io::Result<tokio::net::UnixListener> {
    // Whoever holds the keeper's lock owns the socket's path; one left behind is dead.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = tokio::net::UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the API until `end`, and then what was asked already.
pub async fn serve(
    listener: tokio::net::UnixListener,
    counter: Counter,
    end: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(Arc::new(counter))).with_graceful_shutdown(end).await
}

fn router(counter: Arc<Counter>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/events", get(events::events))
        .route("/v1/history", get(history))
        .route("/v1/plan", post(plan))
        .route("/v1/apply", post(apply))
        .route("/v1/down", post(down))
        .route("/v1/services/{service}/deploy", post(deploy))
        .route("/v1/services/{service}/promote", post(promote))
        .route("/v1/services/{service}/pause", post(pause))
        .route("/v1/services/{service}/resume", post(unpause))
        .route("/v1/services/{service}/forecast", get(forecast))
        .route("/v1/services/{service}/releases/{number}/analysis", get(analysis))
        .route("/v1/services/{service}/abort", post(abort))
        .route("/v1/services/{service}/rollback", post(rollback))
        .route("/v1/services/{service}/mode", post(mode))
        .route("/v1/services/{service}/stop", post(stop))
        .route("/v1/services/{service}/start", post(start))
        .route("/v1/services/{service}/restart", post(restart))
        .route("/v1/services/{service}/retry", post(retry))
        .route("/v1/services/{service}/remove", post(remove))
        .route("/v1/services/{service}/log", get(log))
        .route("/v1/resume", post(resume))
        .route("/v1/metrics", get(metrics))
        .with_state(counter)
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    version: Option<String>,
    addresses: Vec<SocketAddr>,
    message: Option<String>,
    who: Option<String>,
    supersede: bool,
    queue: bool,
    force: bool,
    full: bool,
    /// Counts from 1.
    step: Option<usize>,
    to: Option<String>,
    mode: Option<Mode>,
    keep_versions: bool,
}

impl Asked {
    fn who(&self) -> String {
        self.who.clone().unwrap_or_else(|| "somebody".to_owned())
    }
}

fn service(name: &str) -> Result<ServiceName, engine::Rejected> {
    ServiceName::new(name).map_err(|error| invalid(error.to_string()))
}

fn version(name: &str) -> Result<VersionName, engine::Rejected> {
    VersionName::new(name).map_err(|error| invalid(error.to_string()))
}

async fn status(State(counter): Shared) -> Answer {
    Answer(counter.engine.ask(Command::Status).await)
}

async fn deploy(State(counter): Shared, Segments(name): Segments<String>, Json(asked): Json<Asked>) -> Answer {
    let command = || {
        let wanted = asked.version.as_deref().ok_or_else(|| invalid("`version` is missing"))?;
        let when_running = match (asked.supersede, asked.queue) {
            (true, true) => return Err(invalid("`supersede` and `queue` exclude each other")),
            (true, false) => WhenRunning::Supersede,
            (false, true) => WhenRunning::Queue,
            (false, false) => WhenRunning::Refuse,
        };
        Ok(Command::Deploy(WantedDeploy {
            service: service(&name)?,
            version: version(wanted)?,
            who: asked.who(),
            addresses: asked.addresses.clone(),
            message: asked.message.clone(),
            when_running,
        }))
    };
    carry_out(&counter, command()).await
}

async fn promote(State(counter): Shared, Segments(name): Segments<String>, Json(asked): Json<Asked>) -> Answer {
    let (who, full, step) = (asked.who(), asked.full, asked.step);
    carry_out(&counter, service(&name).map(|service| Command::Promote { service, who, full, step, why: asked.message })).await
}

async fn pause(State(counter): Shared, Segments(name): Segments<String>, Json(asked): Json<Asked>) -> Answer {
    let who = asked.who();
    carry_out(&counter, service(&name).map(|service| Command::Pause { service, who, why: asked.message })).await
}

async fn unpause(State(counter): Shared, Segments(name): Segments<String>, Json(asked): Json<Asked>) -> Answer {
    let who = asked.who();
    carry_out(&counter, service(&name).map(|service| Command::Unpause { service, who })).await
}

async fn forecast(State(counter): Shared, Segments(name): Segments<String>, Query(of): Query<Of>) -> Answer {
    let command = || {
        let wanted = of.version.as_deref().ok_or_else(|| invalid("`version` is missing"))?;
        Ok(Command::Forecast { service: service(&name)?, version: version(wanted)? })
    };
    carry_out(&counter, command()).await
}

/// What the judge said of a release: the last look, and those that were recorded.
async fn analysis(State(counter): Shared, Segments((name, number)): Segments<(String, u64)>) -> Answer {
    let answer = async {
        let name = service(&name)?;
        let store = counter.engine.store();
        let read = |(_, text): (String, String)| serde_json::from_str::<serde_json::Value>(&text).ok();
        let release = store.values(&format!("release/{name}/{number:08}")).await.into_iter().find_map(read);
        let analysis = store.values(&format!("analysis/{name}/{number:08}")).await.into_iter().find_map(read);
        let looks: Vec<_> = store.values(&format!("look/{name}/{number:08}/")).await.into_iter().filter_map(read).collect();
        let Some(release) = release else {
            let message = format!("there is no release {number} of {name}");
            return Err(engine::Rejected { code: "not_found", message, hint: Some(format!("changeover history {name}")) });
        };
        let last = analysis.as_ref().map(|analysis| analysis["last"].clone()).unwrap_or_default();
        let plan = analysis.as_ref().map(|analysis| analysis["scales"]["plan"].clone()).unwrap_or_default();
        Ok(serde_json::json!({ "service": name, "release": release, "plan": plan, "last": last, "looks": looks }))
    };
    Answer(answer.await)
}

async fn abort(State(counter): Shared, Segments(name): Segments<String>, Json(asked): Json<Asked>) -> Answer {
    let who = asked.who();
    let force = asked.force;
    carry_out(&counter, service(&name).map(|service| Command::Abort { service, force, who, reason: asked.message })).await
}

async fn rollback(State(counter): Shared, Segments(name): Segments<String>, Json(asked): Json<Asked>) -> Answer {
    let command = || {
        let to = asked.to.as_deref().map(version).transpose()?;
        Ok(Command::Rollback { service: service(&name)?, to, force: asked.force, who: asked.who() })
    };
    carry_out(&counter, command()).await
}

async fn mode(State(counter): Shared, Segments(name): Segments<String>, Json(asked): Json<Asked>) -> Answer {
    let command = || {
        let mode = asked.mode.clone().ok_or_else(|| invalid("`mode` is missing"))?;
        Ok(Command::SetMode { service: service(&name)?, mode, who: asked.who() })
    };
    carry_out(&counter, command()).await
}

async fn stop(State(counter): Shared, Segments(name): Segments<String>, Json(asked): Json<Asked>) -> Answer {
    let who = asked.who();
    carry_out(&counter, service(&name).map(|service| Command::Stop { service, who })).await
}

async fn start(State(counter): Shared, Segments(name): Segments<String>, Json(asked): Json<Asked>) -> Answer {
    let who = asked.who();
    carry_out(&counter, service(&name).map(|service| Command::Start { service, who })).await
}

async fn restart(State(counter): Shared, Segments(name): Segments<String>, Json(asked): Json<Asked>) -> Answer {
    let who = asked.who();
    carry_out(&counter, service(&name).map(|service| Command::Restart { service, who })).await
}

async fn retry(State(counter): Shared, Segments(name): Segments<String>, Json(asked): Json<Asked>) -> Answer {
    let who = asked.who();
    carry_out(&counter, service(&name).map(|service| Command::Retry { service, who })).await
}

async fn remove(State(counter): Shared, Segments(name): Segments<String>, Json(asked): Json<Asked>) -> Answer {
    let who = asked.who();
    carry_out(&counter, service(&name).map(|service| Command::Remove { service, who })).await
}

async fn resume(State(counter): Shared, Json(asked): Json<Asked>) -> Answer {
    Answer(counter.engine.ask(Command::Resume { who: asked.who() }).await)
}

async fn down(State(counter): Shared, Json(asked): Json<Asked>) -> Answer {
    Answer(counter.engine.ask(Command::Down { keep_versions: asked.keep_versions }).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    text: String,
    /// Absolute; shown in messages, and its folder is where relative paths begin.
    path: std::path::PathBuf,
    #[serde(default)]
    who: Option<String>,
}

async fn plan(State(counter): Shared, Json(file): Json<File>) -> Answer {
    let command = desired(&counter, &file).map(|desired| Command::Plan { desired });
    carry_out(&counter, command).await
}

async fn apply(State(counter): Shared, Json(file): Json<File>) -> Answer {
    let who = file.who.clone().unwrap_or_else(|| "somebody".to_owned());
    let command = desired(&counter, &file).map(|desired| Command::Apply { desired, who });
    carry_out(&counter, command).await
}

fn desired(counter: &Counter, file: &File) -> Result<Box<Desired>, engine::Rejected> {
    (counter.parse)(&file.text, &file.path).map(Box::new).map_err(invalid)
}

async fn carry_out(counter: &Counter, command: Result<Command, engine::Rejected>) -> Answer {
    match command {
        Ok(command) => Answer(counter.engine.ask(command).await),
        Err(rejected) => Answer(Err(rejected)),
    }
}

#[derive(Deserialize)]
struct Of {
    service: Option<String>,
    version: Option<String>,
}

async fn log(State(counter): Shared, Segments(name): Segments<String>, Query(of): Query<Of>) -> Answer {
    let command = || {
        let version = of.version.as_deref().map(version).transpose()?;
        Ok(Command::LogFile { service: service(&name)?, version })
    };
    carry_out(&counter, command()).await
}

async fn history(State(counter): Shared, Query(of): Query<Of>) -> Answer {
    let prefix = of.service.map_or_else(|| "release/".to_owned(), |service| format!("release/{service}/"));
    let releases: Vec<serde_json::Value> =
        counter.engine.store().values(&prefix).await.into_iter().filter_map(|(_, text)| serde_json::from_str(&text).ok()).collect();
    Answer(Ok(serde_json::json!({ "releases": releases })))
}

async fn metrics(State(counter): Shared) -> String {
    (counter.metrics)()
}
