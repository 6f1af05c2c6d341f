//! The immutable routing table that the data plane reads.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{HostPattern, ListenerName, ServiceName, TargetId, VersionName, Weight};

/// Everything the data plane needs to route; one per generation.
///
/// **Invariant**: weights of a service sum to 10,000; no arm names a version that is absent from `versions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Snapshot {
    pub generation: u64,
    pub services: Vec<ServiceRouting>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRouting {
    pub name: ServiceName,
    pub routes: Vec<Route>,
    pub mode: Mode,
    /// Who serves. Empty when nothing was ever deployed.
    pub arms: Vec<Arm>,
    /// Versions with targets that may get requests (arms, previews).
    pub versions: Vec<VersionTargets>,
    pub previews: Vec<Preview>,
    pub response_header_timeout_ms: u64,
    pub stream_idle_timeout_ms: u64,
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
