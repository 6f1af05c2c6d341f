//! The file's JSON Schema, for editors. These types are never filled: `parse` reads the file.
#![expect(dead_code, reason = "only their shape is used")]

use std::collections::BTreeMap;

use schemars::JsonSchema;

/// JSON Schema, draft 2020-12.
pub fn schema() -> String {
    let schema = schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>();
    serde_json::to_string_pretty(&schema).expect("a schema is plain JSON")
}

/// changeover.yaml: what should run here.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct File {
    /// Addresses on which clients connect.
    listeners: BTreeMap<String, Listener>,
    /// Where `{port}` of processes comes from. Default: 21000-21999.
    #[schemars(regex(pattern = r"^[0-9]+ *- *[0-9]+$"))]
    ports: Option<String>,
    access_log: Option<AccessLog>,
    api: Option<Api>,
    services: Option<BTreeMap<String, Service>>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Listener {
    Address(String),
    Settings(ListenerSettings),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ListenerSettings {
    address: String,
}

/// The API and the page over TCP; every request needs a token. Default: neither.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Api {
    Address(String),
    Settings(ApiSettings),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ApiSettings {
    /// Such as 127.0.0.1:9180.
    listen: String,
    /// A file that only its owner may read, made by `changeover token`. Default: `tokens` in the state directory.
    tokens: Option<String>,
    /// Names under which browsers reach it, besides its address and localhost.
    hosts: Option<Vec<String>>,
}

/// Which requests are logged, and how.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AccessLog {
    /// Default: failed.
    requests: Option<Requests>,
    /// Default: json.
    format: Option<Format>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Requests {
    None,
    Failed,
    All,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Format {
    Json,
    Common,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Service {
    /// Which requests are this service's. Default: all of the only listener.
    #[schemars(length(min = 1))]
    routes: Option<Vec<Route>>,
    run: Run,
    health: Option<Health>,
    strategy: Option<Strategy>,
    /// Host names of previews. Default: {version}.{service}.localhost
    preview_host: Option<String>,
    timeouts: Option<Timeouts>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Route {
    /// Default: the only listener.
    listener: Option<String>,
    /// `*`, a host or `*.example.com`. Default: any.
    host: Option<String>,
    /// Whole segments. Default: /
    path: Option<HttpPath>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Run {
    /// process: started from here; static: runs elsewhere. Default: process.
    runtime: Option<Runtime>,
    /// `{port}` and `{version}` are replaced; needed for `process`.
    command: Option<Command>,
    env: Option<BTreeMap<String, Variable>>,
    /// Relative to the file. Default: its folder.
    cwd: Option<String>,
    user: Option<String>,
    /// Copies. Default: 1.
    #[schemars(range(min = 1, max = 64))]
    targets: Option<u16>,
    /// TERM, INT, QUIT, HUP, USR1, USR2 or KILL. Default: TERM.
    stop_signal: Option<String>,
    /// Default: 10s.
    stop_grace: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Runtime {
    Process,
    Static,
}

/// Split like a shell does, without expansion; or a list of words.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Command {
    Text(String),
    Words(Vec<String>),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Variable {
    Text(String),
    Number(f64),
    Switch(bool),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Health {
    /// Default: /
    path: Option<HttpPath>,
    /// Default: the target's address.
    host: Option<String>,
    /// Default: 200-299.
    status: Option<Status>,
    /// Default: 1s.
    interval: Option<Duration>,
    /// Default: 2s.
    timeout: Option<Duration>,
    /// Good answers in a row. Default: 3.
    #[schemars(range(min = 1, max = 1000))]
    rise: Option<u32>,
    /// Bad answers in a row. Default: 3.
    #[schemars(range(min = 1, max = 1000))]
    fall: Option<u32>,
    /// Default: 30s.
    start_timeout: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Status {
    One(u16),
    Range(String),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Strategy {
    Name(StrategyName),
    Settings(StrategySettings),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum StrategyName {
    BlueGreen,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct StrategySettings {
    blue_green: Option<BlueGreen>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct BlueGreen {
    /// Default: auto.
    promotion: Option<Promotion>,
    /// What must pass before the switch.
    gates: Option<Vec<Gate>>,
    /// Default: 60s.
    watch: Option<Duration>,
    /// Default: 1%.
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]{1,2})? *%$"))]
    watch_errors: Option<String>,
    /// Default: 50.
    watch_requests: Option<u64>,
    /// Default: 30s.
    drain: Option<Duration>,
    /// Default: 10m.
    standby: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Promotion {
    Auto,
    Manual,
}

/// One of `command`, `http` and `migrate`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Gate {
    name: String,
    /// Passes with exit code 0.
    command: Option<Command>,
    http: Option<HttpGate>,
    /// Runs once per release.
    migrate: Option<Command>,
    /// Forbids going back unless forced. Default: false.
    irreversible: Option<bool>,
    /// Default: 30s; 5m for `migrate`.
    timeout: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HttpGate {
    /// Default: /
    path: Option<HttpPath>,
    /// Default: 200-299.
    status: Option<Status>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Timeouts {
    /// An answer must begin within this. Default: 30s.
    response_header: Option<Duration>,
    /// A body that moves nothing for this long is given up. Default: 5m.
    stream_idle: Option<Duration>,
}

/// Such as 500ms, 10s or 5m.
#[derive(JsonSchema)]
struct Duration(#[schemars(regex(pattern = r"[a-zA-Zµ]"))] String);

#[derive(JsonSchema)]
struct HttpPath(#[schemars(regex(pattern = r"^/"))] String);
