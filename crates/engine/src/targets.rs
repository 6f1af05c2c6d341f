//! Targets as they are known: what is kept of them, and what is seen of them.

use std::net::SocketAddr;

use model::{Moment, ServiceName, Target, TargetId, VersionName};
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
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub kept: Kept,
    pub life: Life,
    pub healthy: bool,
    /// Found bad often enough; a target that was just restored is neither healthy nor fallen.
    pub fallen: bool,
    /// The last answer of its health check, in words.
    pub detail: String,
    pub tries: u32,
    pub began_at: Moment,
    pub checks: Option<tokio::task::JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Asked of the keeper.
    Spawning,
    Running,
    /// Told to stop; killed at this moment.
    Stopping { kill_at: Moment },
}

impl Entry {
    pub(crate) fn view(&self) -> TargetView {
        TargetView {
            version: self.kept.version.clone(),
            target: Target { id: self.kept.id.clone(), address: self.kept.address, healthy: self.healthy },
        }
    }

    pub(crate) fn serves(&self, service: &ServiceName, version: &VersionName) -> bool {
        self.kept.service == *service && self.kept.version == *version && !matches!(self.life, Life::Stopping { .. })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(checks) = &self.checks {
            checks.abort();
        }
    }
}
