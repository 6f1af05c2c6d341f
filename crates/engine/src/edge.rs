//! What the engine needs of others; they implement it, it never imports them.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use model::{ListenerName, ReleaseId, ServiceName, Snapshot, TargetId, VersionName};
use serde::{Deserialize, Serialize};

/// Cumulative counts of one version.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub requests: u64,
    /// 5xx, resets, timeouts.
    pub bad: u64,
}

/// The last seconds of one version.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recent {
    pub requests: u64,
    /// Requests per second.
    pub rate: f64,
    /// Share of bad ones, 0 to 1; absent without requests, as `p99_ms`.
    pub errors: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// What was counted for the judge.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    /// Seconds since boot: draws before it are complete.
    pub complete_s: u64,
    /// Epoch, assignment second, counts.
    pub cells: Vec<(u32, u64, judge::Tallies)>,
}

pub type Drained = Pin<Box<dyn Future<Output = ()> + Send>>;

pub type Acknowledged = Pin<Box<dyn Future<Output = Result<Duration, String>> + Send>>;

/// The corridor that requests walk through.
pub trait DataPlane: Send + Sync + 'static {
    /// Resolves when every data thread routes by the snapshot.
    fn install(&self, snapshot: Arc<Snapshot>) -> Acknowledged;
    /// Resolves when every data thread has taken what was installed before.
    fn acknowledge(&self) -> Acknowledged;
    fn listen(&self, name: &ListenerName, socket: TcpListener) -> Result<(), String>;
    fn unlisten(&self, name: &ListenerName);
    /// Requests and tunnels that a version has now.
    fn in_flight(&self, service: &ServiceName, version: &VersionName) -> usize;
    fn cut(&self, service: &ServiceName, version: &VersionName) -> usize;
    /// Within the last `left` of a drain of `drain` WebSockets are asked to end, spread out. Asked again, nothing changes.
    fn end_tunnels(&self, service: &ServiceName, version: &VersionName, drain: Duration, left: Duration);
    /// The same for one target.
    fn end_tunnels_of(&self, target: &TargetId, drain: Duration, left: Duration);
    /// Requests and tunnels that one target has now.
    fn in_flight_of(&self, target: &TargetId) -> usize;
    /// Workers before this one have clients still, of whom nobody here knows what they use. They route like this one, a moment later.
    fn has_forerunners(&self) -> bool;
    /// Accepts no more, lets clients finish, bounded.
    fn drain(&self) -> Drained;
    /// Of copies that a version got.
    fn mirrored(&self, service: &ServiceName, version: &VersionName) -> Counts;
    /// Absent while nothing is drawn for this release, or when no second after `after` is complete.
    fn counted(&self, release: &ReleaseId, after: u64) -> Option<Counted>;
    /// The second since boot in which a request would be drawn now.
    fn second(&self) -> u64;
    /// Requests of the last seconds, and those of them whose answer began later than this.
    fn slower(&self, service: &ServiceName, version: &VersionName, than_ms: f64) -> (u64, u64);
    /// Times to the answer's head in the last hour, by bucket of the house's grid.
    fn heads(&self, service: &ServiceName, version: &VersionName) -> BTreeMap<usize, u64>;
    /// How much more a version's errors vary than independent ones, from the last hour; absent when too few were seen.
    fn overdispersion(&self, service: &ServiceName, version: &VersionName) -> Option<f64>;
    fn recent(&self, service: &ServiceName, version: &VersionName) -> Recent;
    fn counts(&self, service: &ServiceName, version: &VersionName) -> Counts;
}

/// Who serves flags, on sockets that the keeper owns.
pub trait FlagPlane: Send + Sync + 'static {
    /// What the file wants; absent: none.
    fn follow(&self, flags: Option<&model::Flags>);
    /// A socket of one of `flags`' addresses is open.
    fn listen(&self, address: SocketAddr, socket: TcpListener);
    fn unlisten(&self, address: SocketAddr);
}

/// A process to start, in its own session, its output appended to a file.
#[derive(Debug, Clone)]
pub struct Spawn {
    pub command: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: PathBuf,
    pub user: Option<String>,
    pub output: PathBuf,
    /// Jobs: the exit status is written here durably.
    pub result: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
    Unknown,
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("exit code unknown"),
        }
    }
}

/// Who owns the processes. Answers come as `ProcessEvent`s.
pub trait Processes: Send + Sync + 'static {
    /// The process waits before its `exec` until [`go`](Self::go).
    fn spawn(&self, id: &TargetId, spawn: &Spawn) -> Result<(), String>;
    fn go(&self, id: &TargetId) -> Result<(), String>;
    fn signal(&self, id: &TargetId, signal: i32) -> Result<(), String>;
    fn adopt(&self, id: &TargetId, process: &Process) -> Result<(), String>;
    /// Its exit was recorded.
    fn forget(&self, id: &TargetId) -> Result<(), String>;
    /// Answered by `Listening` or `ListenFailed`; asked again, with the socket that there is.
    fn listen(&self, address: SocketAddr) -> Result<(), String>;
    fn unlisten(&self, address: SocketAddr) -> Result<(), String>;
    /// Whether the process, or one of its session, listens on the port; absent when it cannot be told.
    fn listens(&self, process: &Process, port: u16) -> Option<bool>;
    /// Whether there is a keeper now.
    fn is_kept(&self) -> bool;
    /// The worker is done.
    fn leave(&self, keep_versions: bool) -> Result<(), String>;
}

/// Identity of a process: a reused pid has another start time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    pub start_time: u64,
    pub boot_id: String,
}
