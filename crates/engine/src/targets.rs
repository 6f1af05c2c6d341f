//! Targets as they are known: what is kept of them, and what is seen of them.

use std::net::SocketAddr;

use model::{Moment, ServiceName, Signal, Target, TargetId, VersionName};
use release::TargetView;
use serde::{Deserialize, Serialize};

use crate::edge::Process;

/// Survives a crash.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub id: TargetId,
    pub service: ServiceName,
    pub version: VersionName,
    pub address: SocketAddr,
    /// Absent: not started yet, or not a process of ours.
    pub process: Option<Process>,
    /// A process that we start; else it runs elsewhere.
    pub ours: bool,
    /// As it was configured when the target started; its service may be gone from the file when it ends.
    #[serde(default)]
    pub stop: Stop,
    /// How long its version's log was when it started, in bytes.
    #[serde(default)]
    pub log_from: u64,
    /// It was told to stop.
    #[serde(default)]
    pub stopping: bool,
    /// It is stopped in place, or about to be.
    #[serde(default)]
    pub frozen: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Stop {
    pub signal: Signal,
    pub grace_ms: u64,
    pub drain_ms: u64,
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: Signal::Term, grace_ms: 10_000, drain_ms: 30_000 }
    }
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub kept: Kept,
    pub life: Life,
    pub healthy: bool,
    /// It ran before we came: it counts as healthy for routing until its checks say what it is.
    pub assumed: bool,
    /// Found bad often enough; a target that was just restored is neither healthy nor fallen.
    pub fallen: bool,
    /// The last answer of its health check, in words.
    pub detail: String,
    pub tries: u32,
    pub began_at: Moment,
    pub checks: Option<tokio::task::JoinHandle<()>>,
    /// A restart: it leaves when this one is healthy.
    pub replaced_by: Option<TargetId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Asked of the keeper.
    Spawning,
    Running,
    /// No request goes there any more; stopped when those that run have finished, at the latest at this moment.
    Leaving {
        stop_at: Moment,
    },
    /// Told to stop; killed at this moment.
    Stopping {
        kill_at: Moment,
    },
}

impl Entry {
    pub(crate) fn new(kept: Kept, life: Life, now: Moment) -> Self {
        Self {
            kept,
            life,
            healthy: false,
            assumed: false,
            fallen: false,
            detail: "not asked yet".to_owned(),
            tries: 0,
            began_at: now,
            checks: None,
            replaced_by: None,
        }
    }

    /// On its way out: it counts no more.
    pub(crate) fn leaves(&self) -> bool {
        matches!(self.life, Life::Leaving { .. } | Life::Stopping { .. })
    }

    /// Its process has ended.
    pub(crate) fn gone(&mut self) {
        self.life = Life::Stopping { kill_at: Moment::MAX };
        (self.healthy, self.assumed) = (false, false);
        if let Some(checks) = self.checks.take() {
            checks.abort();
        }
    }

    pub(crate) fn view(&self) -> TargetView {
        TargetView {
            version: self.kept.version.clone(),
            target: Target { id: self.kept.id.clone(), address: self.kept.address, healthy: self.healthy || self.assumed },
        }
    }

    pub(crate) fn serves(&self, service: &ServiceName, version: &VersionName) -> bool {
        self.kept.service == *service && self.kept.version == *version && !self.leaves()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(checks) = &self.checks {
            checks.abort();
        }
    }
}
