//! The immutable routing table that the data plane reads.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    Forwarders, HostPattern, ListenerName, ListenerTls, Protocol, ProxyProtocol, ReleaseId, ServiceName, TargetId, TargetTls, VersionName,
    Weight,
};

/// Everything the data plane needs to route; one per generation.
///
/// **Invariant**: weights of a service sum to 10,000; no arm names a version that is absent from `versions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Snapshot {
    pub generation: u64,
    pub services: Vec<ServiceRouting>,
    /// Listeners that speak TLS.
    #[serde(default)]
    pub tls: BTreeMap<ListenerName, ListenerTls>,
    /// Listeners at which an address, or a /64 of IPv6, may have only so many connections.
    #[serde(default)]
    pub connections_per_address: BTreeMap<ListenerName, u32>,
    /// Listeners at which somebody is believed what it says of clients.
    #[serde(default)]
    pub forwarders: BTreeMap<ListenerName, Forwarders>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRouting {
    pub name: ServiceName,
    pub routes: Vec<Route>,
    pub mode: Mode,
    /// Who serves. At a step: the candidate, then what it is compared with, then whoever has the rest. Empty when nothing was ever
    /// deployed.
    pub arms: Vec<Arm>,
    /// How requests are drawn, when there is more than one arm.
    pub draw: Option<Draw>,
    /// A version that gets a copy of each request, and answers nobody.
    pub mirror: Option<Mirror>,
    /// A cookie of a draw that is over: it is taken back from clients that still have it.
    pub stale_cookie: Option<String>,
    /// Versions with targets that may get requests (arms, previews).
    pub versions: Vec<VersionTargets>,
    pub previews: Vec<Preview>,
    pub response_header_timeout_ms: u64,
    pub stream_idle_timeout_ms: u64,
    /// Targets are spoken to over TLS.
    #[serde(default)]
    pub target_tls: Option<TargetTls>,
    #[serde(default)]
    pub target_proxy_protocol: Option<ProxyProtocol>,
    /// Of `Protocol::Tcp`, routes only name the listener, and requests are connections in all that is said here.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Requests on a listener, for a host, under a path prefix. The longest match wins: exact host before suffix before any,
/// then the longest path. A prefix matches whole segments: `/api` matches `/api` and `/api/x`, not `/apis`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub listener: ListenerName,
    pub host: HostPattern,
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Serve,
    /// Requests wait for the mode to change, at most `wait_max_ms`, at most `queue_max` at once; then 504.
    Hold {
        wait_max_ms: u64,
        queue_max: u32,
    },
    /// 503 with this page.
    Maintenance {
        page: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arm {
    pub version: VersionName,
    pub weight: Weight,
}

/// A canary's draw; the first two arms are compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    pub release: ReleaseId,
    /// Absent: the draw is not counted.
    pub judged: Option<Judged>,
    /// Absent: each request is drawn for itself.
    pub sticky: Option<Sticky>,
}

/// Where copies go, and which requests are copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    pub version: VersionName,
    /// Declared safe to be carried out twice.
    pub methods: Vec<String>,
    /// A longer body is not copied.
    pub body_bytes_max: u64,
}

/// Clients are drawn once per release: the release's id salts the draw, and a raise only adds clients to the candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sticky {
    pub by: StickyBy,
    /// Clients below this weight moved at an earlier step, and do not count at this one.
    pub before: Weight,
    /// Requests of a client count for so long after its first one in a step.
    pub window_ms: u64,
}

/// What tells one client from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StickyBy {
    /// A cookie that the proxy gives out.
    Cookie(String),
    /// A field of the request, lower case; without it, the address.
    Header(String),
    Address,
}

/// What the data plane counts for the judge. A request keeps the epoch in which it was drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    pub epoch: u32,
    /// After so many seconds every request counts as closed.
    pub closing_s: u64,
    /// A request without an answer at this age has failed.
    pub timeout_bad_ms: u64,
    pub thresholds: Vec<Threshold>,
}

/// Answers that take at least so long are bad in counter set `set`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    pub set: usize,
    pub candidate_ns: u64,
    pub stable_ns: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionTargets {
    pub version: VersionName,
    pub targets: Vec<Target>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub id: TargetId,
    pub address: SocketAddr,
    /// By active health checks. Unhealthy targets are tried only when no target of the version is healthy.
    pub healthy: bool,
}

/// A version reachable before it serves, by host name or by the field `x-changeover-version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    pub version: VersionName,
    /// Lower case, no port.
    pub host: String,
}
