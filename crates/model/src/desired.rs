//! What the user wants: the validated content of `changeover.yaml`. Times are milliseconds; paths are absolute.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use ipnet::IpNet;

use crate::{Api, Flags, ListenerName, ListenerTls, Route, ServiceName, StickyBy, TargetTls, Weight};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    pub listeners: BTreeMap<ListenerName, Listener>,
    pub services: BTreeMap<ServiceName, Service>,
    /// Where `{port}` of processes comes from; outside the kernel's ephemeral range.
    pub ports: PortRange,
    pub access_log: AccessLog,
    /// No TCP when absent.
    #[serde(default)]
    pub api: Option<Api>,
    /// No flags when absent.
    #[serde(default)]
    pub flags: Option<Flags>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    pub address: SocketAddr,
    /// In clear when absent.
    #[serde(default)]
    pub tls: Option<ListenerTls>,
    /// Of one address, or of one /64 of IPv6. Without limit when absent.
    #[serde(default)]
    pub connections_per_address: Option<u32>,
    #[serde(default)]
    pub forwarders: Forwarders,
}

/// Who is believed what it says of clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Forwarders {
    /// Connections from here begin with a header of the PROXY protocol.
    pub proxy_protocol: Vec<IpNet>,
    /// Requests of connections from here may have `X-Forwarded-*`.
    pub fields: Vec<IpNet>,
}

impl Forwarders {
    pub fn is_empty(&self) -> bool {
        self.proxy_protocol.is_empty() && self.fields.is_empty()
    }
}

/// Version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    V1,
    V2,
}

/// What is spoken on a service's listeners, and to its targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP, of both versions with clients.
    #[default]
    Http1,
    /// HTTP of both versions with clients, HTTP/2 with targets, in clear by prior knowledge: gRPC needs it.
    Http2,
    /// Any protocol: bytes both ways, nothing is read in them. Its one route names its listener, which is its own.
    Tcp,
}

/// Inclusive on both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Which requests are this service's; at least one.
    pub routes: Vec<Route>,
    pub run: Run,
    pub health: Health,
    pub strategy: Strategy,
    /// Host names of previews, `{version}` and `{service}` replaced, such as `{version}.{service}.localhost`.
    pub preview_host: String,
    /// A target must begin its answer within this.
    pub response_header_timeout_ms: u64,
    /// A body, or a connection of `Protocol::Tcp`, that moves no byte for this long is given up, both ways.
    pub stream_idle_timeout_ms: u64,
    /// Targets are spoken to in clear when absent.
    #[serde(default)]
    pub tls: Option<TargetTls>,
    /// Connections to targets begin with a header that names the client.
    #[serde(default)]
    pub target_proxy_protocol: Option<ProxyProtocol>,
    #[serde(default)]
    pub protocol: Protocol,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub runtime: Runtime,
    /// Copies; 1 or more. Ignored for `static`.
    pub targets: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// We start it. `{version}` and `{port}` are replaced in `command` and in the values of `env`.
    Process {
        command: Vec<String>,
        env: BTreeMap<String, String>,
        cwd: PathBuf,
        user: Option<String>,
        stop_signal: Signal,
        stop_grace_ms: u64,
    },
    /// It runs elsewhere; addresses are given at deploy.
    Static,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Signal {
    Term,
    Int,
    Quit,
    Hup,
    Usr1,
    Usr2,
    Kill,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    #[serde(default)]
    pub check: Check,
    pub path: String,
    /// The service that `Check::Grpc` asks for; empty: the server as a whole.
    #[serde(default)]
    pub grpc_service: String,
    /// The `Host` field of the check; the target's address when absent.
    pub host: Option<String>,
    /// Inclusive range of good statuses.
    pub status: (u16, u16),
    pub interval_ms: u64,
    pub timeout_ms: u64,
    /// So many good answers in a row make a target healthy.
    pub rise: u32,
    /// So many bad answers in a row make it unhealthy.
    pub fall: u32,
    /// A version must be healthy within this after its start.
    pub start_timeout_ms: u64,
}

/// How a target is asked whether it is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// A request for `path`.
    #[default]
    Http,
    /// A connection, and a handshake where targets speak TLS. The other fields say nothing.
    Connect,
    /// gRPC's own health protocol, of `grpc_service`.
    Grpc,
}

/// How a new version comes to serve: blue/green, or with steps before the switch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Strategy {
    pub promotion: Promotion,
    pub gates: Vec<Gate>,
    /// After the switch, the candidate is watched for this long; a failure takes traffic back.
    pub watch_ms: u64,
    /// During the watch: more than this share of bad answers, in parts per 10,000, is a failure …
    pub watch_errors_max: u16,
    /// … once so many requests were seen.
    pub watch_requests_min: u64,
    /// What still runs on the old version after this is cut.
    pub drain_ms: u64,
    /// The previous version stays running for this long …
    pub standby_ms: u64,
    /// … and then, stopped in place, for this long.
    #[serde(default)]
    pub frozen_ms: u64,
    #[serde(default)]
    pub canary: Option<Canary>,
}

/// Settings of `strategy: canary`. A step is a share of traffic; the last is all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// Rising, at least one; the last has weight 10,000.
    pub steps: Vec<Step>,
    pub analysis: Analysis,
    /// Clients stay on their version.
    #[serde(default)]
    pub sticky: Option<StickyBy>,
    /// During a step of 0 %: methods that may be carried out twice, and how long a body is copied at most.
    #[serde(default)]
    pub mirror: Option<(Vec<String>, u64)>,
    /// A sticky client's requests count for so long after its first one in a step.
    #[serde(default)]
    pub sticky_window_ms: u64,
    /// Stable targets that start together with the candidate are what it is compared with: old caches and long uptimes flatter nobody.
    #[serde(default)]
    pub baseline: bool,
    /// A candidate that was taken back stays running for this long.
    pub keep_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub weight: Weight,
    /// It lasts at least this long.
    pub dwell_ms: u64,
    /// Without a decision by then, `Judging::expired` says what follows.
    pub max_ms: u64,
    /// Must pass before the weight is set.
    pub gates: Vec<Gate>,
    /// So many copies of the candidate must be healthy before the weight is set; as many as stable's when absent.
    pub targets: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Analysis {
    /// Steps last their dwell, whatever the candidate does; the reason stands in the history.
    None {
        reason: String,
    },
    Judged(Judging),
}

/// What the judge is told. Shares are 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judging {
    /// After a weight was set, so long nothing counts for an advance.
    pub warm_up_ms: u64,
    /// A request without an answer at this age has failed.
    pub timeout_bad_ms: u64,
    /// So many more of the candidate's requests may fail, beside a tenth more than stable's share, before it is worse.
    pub more_errors: f64,
    /// So much slower than stable's the candidate's quantiles may be before it is worse; 0.09 is 9 %.
    pub slower: f64,
    /// So much of all traffic may fail additionally at the next step.
    pub budget: f64,
    /// So much of all traffic may be slower at the next step.
    pub latency_budget: f64,
    pub expired: Expired,
    pub guards: Vec<GuardRail>,
    pub metrics: Vec<UserMetric>,
    /// Units that fail in clusters: how much more they vary than independent ones, if it is known; or that it must be known.
    pub independence: Independence,
}

/// What follows when a step reaches its longest time without a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expired {
    Hold,
    Rollback,
    Ask,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Independence {
    /// Measured where possible, else assumed.
    Assumed,
    /// Without a measurement there is no verdict.
    Required,
    /// The overdispersion, at least 1.
    Known(f64),
}

/// A limit that stands for itself, whatever stable does: above it the candidate is taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuardRail {
    pub metric: GuardMetric,
    /// A share (errors), milliseconds (latencies), or the metric's own unit.
    pub limit: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardMetric {
    Errors,
    P50,
    P95,
    P99,
    /// One of `metrics`.
    User(String),
}

/// A number per interval and arm, measured elsewhere; more is worse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserMetric {
    pub name: String,
    pub source: Source,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    /// In the metric's unit: so much worse than stable is tolerated.
    pub tolerance: f64,
    /// To be let on, it must be seen to be less than this worse; absent: it has no say in advancing.
    pub margin: Option<f64>,
    /// Less is worse.
    pub higher_is_better: bool,
    pub skewed: bool,
    /// It reports and never decides.
    pub dry_run: bool,
    /// So long it may give nothing before the release is held and says so.
    pub missing_max_ms: u64,
}

/// Where a number comes from; `{version}` and `{service}` are replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Prometheus {
        url: String,
        query: String,
    },
    /// The last line of its output is the number.
    Command {
        command: Vec<String>,
    },
    /// A JSON document, and a pointer into it (RFC 6901).
    Http {
        url: String,
        pointer: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promotion {
    Auto,
    Manual,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    pub name: String,
    pub kind: GateKind,
    pub timeout_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateKind {
    /// Passes with exit code 0.
    Command { command: Vec<String> },
    /// Passes with a status in the range; asked of the candidate's first target.
    Http { path: String, status: (u16, u16) },
    /// A command that runs exactly once per release. `irreversible` forbids going back unless forced.
    Migrate { command: Vec<String>, irreversible: bool },
    /// A person says `promote`; when nobody does in time, it passes or fails.
    Approval { otherwise_passes: bool },
}

/// `*`, an exact host, or `*.example.com` (one or more labels). Lower case, no port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostPattern {
    Any,
    Exact(String),
    /// The suffix with its dot: `.example.com`.
    Suffix(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    pub scope: AccessLogScope,
    pub format: AccessLogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessLogScope {
    None,
    /// Answers the proxy made itself, and 5xx.
    Failed,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessLogFormat {
    Json,
    Common,
}
