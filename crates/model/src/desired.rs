//! What the user wants: the validated content of `changeover.yaml`. Times are milliseconds; paths are absolute.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Api, ListenerName, Route, ServiceName};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub listeners: BTreeMap<ListenerName, Listener>,
    pub services: BTreeMap<ServiceName, Service>,
    /// Where `{port}` of processes comes from; outside the kernel's ephemeral range.
    pub ports: PortRange,
    pub access_log: AccessLog,
    /// No TCP when absent.
    #[serde(default)]
    pub api: Option<Api>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    pub address: SocketAddr,
}

/// Inclusive on both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Which requests are this service's; at least one.
    pub routes: Vec<Route>,
    pub run: Run,
    pub health: Health,
    pub strategy: BlueGreen,
    /// Host names of previews, `{version}` and `{service}` replaced, such as `{version}.{service}.localhost`.
    pub preview_host: String,
    /// A target must begin its answer within this.
    pub response_header_timeout_ms: u64,
    /// A body that moves no byte for this long is given up, both ways.
    pub stream_idle_timeout_ms: u64,
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
    pub path: String,
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

/// Settings of `strategy: blue_green`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlueGreen {
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
    /// The previous version stays running for this long.
    pub standby_ms: u64,
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
