//! The file's JSON Schema, for editors. These types are never filled: `parse` reads the file.
#![expect(dead_code, reason = "only their shape is used")]

mod listeners;

use std::collections::BTreeMap;

use listeners::{Listener, ProxyProtocol, TargetTls};
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
    /// Addresses on which clients connect. Needed unless `flags` is there.
    listeners: Option<BTreeMap<String, Listener>>,
    /// Where `{port}` of processes comes from. Default: 21000-21999.
    #[schemars(regex(pattern = r"^[0-9]+ *- *[0-9]+$"))]
    ports: Option<String>,
    access_log: Option<AccessLog>,
    api: Option<Api>,
    flags: Option<Flags>,
    services: Option<BTreeMap<String, Service>>,
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

/// Feature flags, served to OpenFeature clients. Default: none.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Flags {
    listen: Option<FlagPorts>,
    /// The first is the default. Default: `production`, without files.
    environments: Option<BTreeMap<String, Option<FlagEnvironment>>>,
    /// So long everybody must have got the same variant before a flag is ready to remove. Default: 336h.
    ready_after: Option<String>,
    /// Default: from_outside; on this machine's own addresses nobody needs a token.
    tokens: Option<FlagTokens>,
}

/// An IP address (flagd's ports 8013 to 8016 on it), an address with a port (everything on that one), or a map. Default: 127.0.0.1.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum FlagPorts {
    Address(String),
    Each(EachFlagPort),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct EachFlagPort {
    /// gRPC evaluation.
    evaluation: Option<String>,
    /// Health and metrics.
    management: Option<String>,
    /// gRPC sync of whole sets.
    sync: Option<String>,
    ofrep: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct FlagEnvironment {
    /// Flags in flagd's format (JSON or YAML), watched.
    files: Option<Vec<String>>,
    /// Changes need a second person's consent. Default: false.
    second_person: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum FlagTokens {
    Required,
    FromOutside,
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
    /// What targets speak. http2: gRPC needs it; tcp: any protocol, on a listener of its own. Default: http1
    protocol: Option<Protocol>,
    /// Which requests are this service's. Default: all of the only listener.
    #[schemars(length(min = 1))]
    routes: Option<Vec<Route>>,
    run: Run,
    health: Option<Health>,
    strategy: Option<Strategy>,
    /// Host names of previews. Default: {version}.{service}.localhost
    preview_host: Option<String>,
    timeouts: Option<Timeouts>,
    tls: Option<TargetTls>,
    /// Connections to targets begin with a header of this version that names the client. Default: none
    target_proxy_protocol: Option<ProxyProtocol>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Protocol {
    Http1,
    Http2,
    Tcp,
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
#[schemars(rename_all = "snake_case")]
enum Check {
    Http,
    Tcp,
    Grpc,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Health {
    /// tcp: it accepts a connection; grpc: grpc.health.v1. Default: http; with `protocol: tcp` tcp.
    check: Option<Check>,
    /// What grpc.health.v1 is asked for. Default: the whole server.
    service: Option<String>,
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
    Settings(Box<StrategySettings>),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum StrategyName {
    BlueGreen,
    Canary,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct StrategySettings {
    blue_green: Option<BlueGreen>,
    canary: Option<Canary>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Canary {
    /// Rising shares of traffic; 100% comes last by itself. Default: 1%, 5%, 20%, 100%.
    #[schemars(length(min = 1))]
    steps: Option<Vec<Step>>,
    /// How long a step lasts at least. Default: 60s.
    dwell: Option<Duration>,
    /// How long a step may last without a decision. Default: 30m.
    max_step: Option<Duration>,
    /// How long a candidate that was taken back is kept running. Default: 30m.
    keep: Option<Duration>,
    /// Clients stay on their version. Default: each request is drawn for itself.
    sticky: Option<Sticky>,
    /// fresh: the candidate is compared with targets of stable that start together with it. Default: stable.
    baseline: Option<Baseline>,
    /// A first step of 0 % on copies of requests: methods that may be carried out twice. Default: no copies.
    mirror: Option<MirrorOf>,
    analysis: Option<Analysis>,
    /// What must pass before the first step.
    gates: Option<Vec<Gate>>,
    /// After the last step. Default: 60s.
    watch: Option<Duration>,
    /// Default: 1%.
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]{1,2})? *%$"))]
    watch_errors: Option<String>,
    /// Default: 50.
    watch_requests: Option<u64>,
    /// Default: 30s.
    drain: Option<Duration>,
    /// Default: 10m, hot.
    standby: Option<Standby>,
}

/// How long the previous version stays for a rollback: so long hot, or in stages.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Standby {
    Hot(Duration),
    Stages(Stages),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Stages {
    /// It runs: a rollback takes milliseconds. Default: 10m.
    hot: Option<Duration>,
    /// Then it is stopped in place and keeps its memory: a rollback waits until it answers again. Default: 0s.
    frozen: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Step {
    Weight(Percent),
    Settings(StepSettings),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct StepSettings {
    weight: Percent,
    dwell: Option<Duration>,
    max: Option<Duration>,
    /// What must pass before the weight is set.
    gates: Option<Vec<Gate>>,
    /// Copies of the candidate that this step needs. Default: `run.targets`.
    #[schemars(range(min = 1, max = 64))]
    targets: Option<u16>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Sticky {
    Name(StickyName),
    Settings(StickySettings),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum StickyName {
    Cookie,
    Address,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Baseline {
    Stable,
    Fresh,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum MirrorOf {
    Methods(Vec<String>),
    Settings(MirrorSettings),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct MirrorSettings {
    methods: Vec<String>,
    /// Longer bodies are not copied; bytes. Default: 65536.
    body: Option<u64>,
}

/// One of `cookie` and `header`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct StickySettings {
    /// The name of a cookie that changeover gives out.
    cookie: Option<String>,
    /// A field of the request.
    header: Option<String>,
    /// A client's requests count for so long after its first one in a step. Default: 60s.
    window: Option<Duration>,
}

/// Such as 0.1%.
#[derive(JsonSchema)]
struct Percent(#[schemars(regex(pattern = r"^[0-9]+(\.[0-9]+)? *%$"))] String);

/// How candidate and stable are compared. It is on by default.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Analysis {
    /// No comparison: the reason why.
    #[schemars(length(min = 1))]
    none: Option<String>,
    /// What is not yet worse.
    tolerate: Option<Tolerate>,
    /// Default: 30s.
    warm_up: Option<Duration>,
    /// A request without an answer for so long has failed. Default: 30s.
    timeout_bad: Option<Duration>,
    /// So much of all traffic may fail additionally at the next step. Default: 0.1%.
    budget: Option<Percent>,
    /// So much of all traffic may be slower at the next step. Default: 0.2%.
    latency_budget: Option<Percent>,
    /// What follows when a step reaches its longest time. Default: hold.
    expired: Option<Expired>,
    /// Limits whatever stable does, such as `{ errors: 2% }` or `{ p99: 800ms }`.
    guards: Option<Vec<BTreeMap<String, Variable>>>,
    metrics: Option<Vec<Metric>>,
    /// `assumed`, `required`, or how much more failures vary than independent ones. Default: assumed.
    independence: Option<Variable>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Tolerate {
    /// So many more of the candidate's requests may fail, beside a tenth more than stable's share. Default: 0.02%.
    errors: Option<Percent>,
    /// So much slower its p50, p95 and p99 may be. Default: 9%.
    slower: Option<Percent>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Expired {
    Hold,
    Rollback,
    Ask,
}

/// A number of your own, for each version. One of `prometheus`, `command` and `http`; `{version}` is replaced.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Metric {
    name: String,
    prometheus: Option<Prometheus>,
    /// Its last line is the number.
    command: Option<Command>,
    http: Option<HttpMetric>,
    /// Default: 60s.
    interval: Option<Duration>,
    /// Default: 10s.
    timeout: Option<Duration>,
    /// So long it may give nothing before the release is held. Default: 5m.
    missing_max: Option<Duration>,
    /// In the metric's unit: so much worse than stable is tolerated.
    tolerance: f64,
    /// To go on, it must be seen to be less than this worse. Default: it has no say in going on.
    margin: Option<f64>,
    /// Default: false.
    higher_is_better: Option<bool>,
    /// Its differences have a long tail on the bad side. Default: false.
    skewed: Option<bool>,
    /// It reports and never decides. Default: false.
    dry_run: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Prometheus {
    url: String,
    query: String,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HttpMetric {
    url: String,
    /// A JSON pointer (RFC 6901). Default: the whole document.
    pointer: Option<String>,
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
    /// Default: 10m, hot.
    standby: Option<Standby>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Promotion {
    Auto,
    Manual,
}

/// One of `command`, `http`, `migrate` and `approval`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Gate {
    name: String,
    /// Passes with exit code 0.
    command: Option<Command>,
    http: Option<HttpGate>,
    /// Runs once per release.
    migrate: Option<Command>,
    /// Waits for `changeover promote`.
    approval: Option<Approval>,
    /// Forbids going back unless forced. Default: false.
    irreversible: Option<bool>,
    /// Default: 30s; 5m for `migrate`, 1h for `approval`.
    timeout: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Approval {
    /// What follows when nobody approves in time.
    otherwise: Otherwise,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Otherwise {
    Abort,
    Proceed,
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
    /// A body, or a connection of `protocol: tcp`, that moves nothing for this long is given up. Default: 5m; tcp: 1h.
    stream_idle: Option<Duration>,
}

/// Such as 500ms, 10s or 5m.
#[derive(JsonSchema)]
struct Duration(#[schemars(regex(pattern = r"[a-zA-Zµ]"))] String);

#[derive(JsonSchema)]
struct HttpPath(#[schemars(regex(pattern = r"^/"))] String);
