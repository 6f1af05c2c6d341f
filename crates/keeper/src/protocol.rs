//! What keeper and worker say to each other: one JSON message per `SOCK_SEQPACKET` datagram.
//!
//! Invariant: a message is at most [`MESSAGE_BYTES_MAX`] long, and descriptors travel with the message that names them.
//! Not here: how it is sent (`channel`).

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Raised when a message changes its meaning.
pub const PROTOCOL: u32 = 2;
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToKeeper {
    Hello {
        protocol: u32,
        pid: i32,
    },
    /// Instead of `Hello`, from a worker whose keeper died. The sockets are attached in the order of `listeners`.
    Orphan {
        protocol: u32,
        pid: i32,
        boot_id: String,
        listeners: Vec<SocketAddr>,
        children: Vec<Survivor>,
    },
    /// It works: from now on its end is a crash, and the next one is started whatever its exit code.
    Ready,
    Listen {
        address: SocketAddr,
    },
    Unlisten {
        address: SocketAddr,
    },
    Spawn {
        id: String,
        spec: Spec,
    },
    /// The pid is durable: let the command run.
    Go {
        id: String,
    },
    /// To the whole process group.
    Signal {
        id: String,
        signal: i32,
    },
    /// A process of an earlier life. Answered by `Adopted`, or by `Exited` with status unknown.
    Adopt {
        id: String,
        pid: i32,
        start_time: u64,
        boot_id: String,
    },
    /// The exit was recorded; the keeper may drop it. Ignored for a process that still runs.
    Forget {
        id: String,
    },
    /// Start this binary beside the worker that asks, and let it take over when it is ready. `copy` is a folder with a copy of the state,
    /// for it to look at. Answered by `Release`, and in the end by `Retire` or `UpgradeFailed`.
    Upgrade {
        binary: PathBuf,
        copy: PathBuf,
        /// How long the worker that asks may finish what it has, once it is retired.
        drain_ms: u64,
    },
    /// From a successor: it understands the state, and has all that it needs before it has the state itself. Answered by `Welcome`, when
    /// the worker before it has let go.
    Prepared,
    /// From a successor, before it ends: why.
    Failed {
        reason: String,
    },
    /// Answers `Release`: the state is closed, no process is being started. Requests are served on. `remembered` is for the successor alone, and
    /// on no disk.
    Released {
        remembered: String,
    },
    /// From a worker that was retired, before it ends: so many connections were cut.
    Drained {
        cut: usize,
    },
    /// With a memory file: what a data plane needs to route. The keeper does not understand it; it is for workers that were retired.
    Routes {},
    /// The worker is done; the keeper ends when the worker does. The keeper kills nothing either way: a worker that
    /// does not keep the versions has stopped them.
    Leave {
        keep_versions: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromKeeper {
    /// The sockets are attached in the order of `listeners`. Children that exited and were not forgotten are told again. To a worker that
    /// was released: its successor came to nothing, and it has its place again.
    Welcome {
        listeners: Vec<SocketAddr>,
        children: Vec<Child>,
        /// From the worker that released its place to this one.
        remembered: Option<String>,
        /// Workers that finish what they have.
        #[serde(default)]
        retiring: usize,
    },
    /// With the socket. `bound` differs from what was asked for where that was port 0.
    Listening {
        address: SocketAddr,
        bound: SocketAddr,
    },
    ListenFailed {
        address: SocketAddr,
        error: String,
    },
    Spawned {
        id: String,
        pid: i32,
        start_time: u64,
        boot_id: String,
    },
    SpawnFailed {
        id: String,
        error: String,
    },
    Exited {
        id: String,
        status: Status,
    },
    Adopted {
        id: String,
        pid: i32,
    },
    /// The keeper got SIGTERM or SIGINT, or its terminal is gone (SIGHUP).
    Terminate {
        signal: i32,
    },
    /// The keeper got SIGHUP: the worker is to ask for an upgrade to the binary that it was started from.
    Reload {
        binary: PathBuf,
    },
    /// A successor is ready: let go of the state, and serve on.
    Release,
    /// The successor serves: end when those who are connected have finished. Told again, the keeper ends, too: idle connections go soon.
    Retire {
        drain_ms: u64,
    },
    /// All is as before.
    UpgradeFailed {
        reason: String,
    },
    /// A worker that was retired has ended; `cut`: connections, when it told.
    Retired {
        pid: i32,
        cut: Option<usize>,
        /// So many others have not.
        #[serde(default)]
        left: usize,
    },
    /// To a worker that was retired, with the memory file: the one in its place routes like this now.
    Routes {},
    /// The worker was upgraded, the keeper could not be.
    KeeperStays {
        reason: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Code(i32),
    Signal(i32),
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub command: Vec<String>,
    /// The complete environment, but for `CHANGEOVER_TARGET`, which the keeper adds.
    pub env: Vec<(String, String)>,
    pub cwd: PathBuf,
    pub user: Option<String>,
    /// Opened for append, for standard output and error. Never a pipe: a pipe would die or block with its reader.
    pub output: PathBuf,
    /// For jobs: where the exit status is written durably, even when keeper and worker are dead by then.
    pub result: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    pub id: String,
    pub pid: i32,
    pub start_time: u64,
    /// Exited, not yet forgotten.
    pub status: Option<Status>,
    /// It was told to go.
    pub running: bool,
}

/// A process that an orphaned worker hands to the next keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survivor {
    pub id: String,
    pub pid: i32,
    pub start_time: u64,
}
