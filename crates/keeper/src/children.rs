//! The processes of versions, by id: spawned by this keeper, or adopted from an earlier life.
//!
//! Invariant: an exit is kept until the worker says that it recorded it; only our own children are reaped, each by its pid.
//! Not here: how a process is started (`spawn`) or recognised (`identity`).

use std::collections::BTreeMap;
use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::identity::{Identity, verified};
use crate::pidfd::PidFd;
use crate::protocol::{Child, Spec, Status, Survivor};
use crate::spawn;

/// So that `Welcome` fits into one message.
const CHILDREN_MAX: usize = 256;
const ID_BYTES_MAX: usize = 120;

struct Process {
    pid: i32,
    start_time: u64,
    /// Kept after the exit: what is left of the group is still signalled through it. `None` if it was gone before we came.
    descriptor: Option<PidFd>,
    is_own: bool,
    /// Open until the go is given or the worker dies.
    go: Option<PipeWriter>,
    running: bool,
    status: Option<Status>,
}

/// One of them, for the next binary.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeptChild {
    id: String,
    pid: i32,
    start_time: u64,
    is_own: bool,
    /// Numbers of the pipe and of the pidfd.
    pub(crate) go: Option<RawFd>,
    pub(crate) descriptor: Option<RawFd>,
    running: bool,
    status: Option<Status>,
}

#[derive(Default)]
pub(crate) struct Children {
    known: BTreeMap<String, Process>,
}

impl Children {
    /// Returns pid and start time.
    pub(crate) fn spawn(&mut self, id: &str, spec: &Spec) -> io::Result<(i32, u64)> {
        if self.known.contains_key(id) {
            return Err(io::Error::other("there is a process of this id already"));
        }
        if self.known.len() >= CHILDREN_MAX || id.len() > ID_BYTES_MAX {
            return Err(io::Error::other("too many processes, or too long an id"));
        }
        let started = spawn::start(id, spec)?;
        let (pid, start_time) = (started.pid, started.start_time);
        let process = Process {
            pid,
            start_time,
            descriptor: Some(started.descriptor),
            is_own: true,
            go: Some(started.go),
            running: false,
            status: None,
        };
        self.known.insert(id.to_owned(), process);
        Ok((pid, start_time))
    }

    pub(crate) fn go(&mut self, id: &str) {
        let Some(process) = self.known.get_mut(id) else {
            return;
        };
        if let Some(mut go) = process.go.take() {
            // If it is dead already, its exit tells.
            process.running = go.write_all(b"g").is_ok();
        }
    }

    pub(crate) fn signal(&self, id: &str, signal: i32) {
        let Some(descriptor) = self.known.get(id).and_then(|process| process.descriptor.as_ref()) else {
            return;
        };
        // No such process: its exit tells, or has told.
        let _ = descriptor.signal_group(signal);
    }

    /// False when the process is gone or is another one.
    pub(crate) fn adopt(&mut self, survivor: &Survivor, boot_id: &str) -> bool {
        if let Some(known) = self.known.get(&survivor.id) {
            return known.pid == survivor.pid && known.start_time == survivor.start_time && known.status.is_none();
        }
        let identity = Identity { start_time: survivor.start_time, boot_id: boot_id.to_owned() };
        let Some(descriptor) = verified(&survivor.id, survivor.pid, &identity) else {
            return false;
        };
        self.known.insert(survivor.id.clone(), adopted(survivor, Some(descriptor)));
        true
    }

    /// As `adopt`, but remembers the exit of one that is gone, for the next `Welcome`.
    pub(crate) fn adopt_or_mourn(&mut self, survivor: &Survivor, boot_id: &str) {
        if !self.adopt(survivor, boot_id) {
            self.known.entry(survivor.id.clone()).or_insert_with(|| adopted(survivor, None));
        }
    }

    pub(crate) fn kept(&self) -> Vec<KeptChild> {
        let kept = |(id, process): (&String, &Process)| KeptChild {
            id: id.clone(),
            pid: process.pid,
            start_time: process.start_time,
            is_own: process.is_own,
            go: process.go.as_ref().map(AsRawFd::as_raw_fd),
            descriptor: process.descriptor.as_ref().map(AsRawFd::as_raw_fd),
            running: process.running,
            status: process.status,
        };
        self.known.iter().map(kept).collect()
    }

    /// After the keeper has become another binary.
    pub(crate) fn resume(&mut self, kept: KeptChild, go: Option<OwnedFd>, descriptor: Option<OwnedFd>) {
        let process = Process {
            pid: kept.pid,
            start_time: kept.start_time,
            descriptor: descriptor.map(|descriptor| PidFd::resumed(descriptor, kept.pid)),
            is_own: kept.is_own,
            go: go.map(PipeWriter::from),
            running: kept.running,
            status: kept.status,
        };
        self.known.insert(kept.id, process);
    }

    pub(crate) fn forget(&mut self, id: &str) {
        if self.known.get(id).is_some_and(|process| process.status.is_some()) {
            self.known.remove(id);
        }
    }

    /// Nobody can have made these pids durable any more; at end of file they exit.
    pub(crate) fn abandon_waiting(&mut self) {
        for process in self.known.values_mut() {
            process.go = None;
        }
    }

    pub(crate) fn list(&self) -> Vec<Child> {
        let child = |(id, process): (&String, &Process)| Child {
            id: id.clone(),
            pid: process.pid,
            start_time: process.start_time,
            status: process.status,
            running: process.running,
        };
        self.known.iter().map(child).collect()
    }

    pub(crate) fn watched(&self) -> impl Iterator<Item = &PidFd> {
        self.known.values().filter(|process| process.status.is_none()).filter_map(|process| process.descriptor.as_ref())
    }

    /// Those that ended since the last call.
    pub(crate) fn reap(&mut self) -> Vec<(String, Status)> {
        let mut ended = Vec::new();
        for (id, process) in &mut self.known {
            let is_over = process.status.is_none() && process.descriptor.as_ref().is_some_and(PidFd::has_ended);
            if is_over {
                let status = if process.is_own { reap(process.pid) } else { Status::Unknown };
                process.status = Some(status);
                process.go = None;
                ended.push((id.clone(), status));
            }
        }
        ended
    }
}

fn adopted(survivor: &Survivor, descriptor: Option<PidFd>) -> Process {
    let status = descriptor.is_none().then_some(Status::Unknown);
    Process { pid: survivor.pid, start_time: survivor.start_time, descriptor, is_own: false, go: None, running: true, status }
}

pub(crate) fn reap(pid: i32) -> Status {
    match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Status::Code(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Status::Signal(signal as i32),
        _ => Status::Unknown,
    }
}
