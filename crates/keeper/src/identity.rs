//! Which process a pid means: boot id, start time, and the target id in its environment.
//!
//! Invariant: `verified` returns a descriptor only for a process whose identity was read while that descriptor was open.
//! Not here: signals (`pidfd`).

use std::fs;

use crate::pidfd::PidFd;

/// Tells a process from any other that had or will have its pid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// In clock ticks since boot, field 22 of /proc/PID/stat.
    pub start_time: u64,
    pub boot_id: String,
}

/// `None` when there is no such process, or /proc does not tell.
pub fn process_identity(pid: i32) -> Option<Identity> {
    Some(Identity { start_time: stat_field(pid, 22)?.parse().ok()?, boot_id: boot_id()? })
}

pub(crate) fn session_of(pid: i32) -> Option<i32> {
    stat_field(pid, 6)?.parse().ok()
}

pub(crate) fn boot_id() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

/// Opens first and compares afterwards, so that the pid cannot have changed hands in between.
pub(crate) fn verified(id: &str, pid: i32, expected: &Identity) -> Option<PidFd> {
    let descriptor = PidFd::open(pid).ok()?;
    let is_it = process_identity(pid).as_ref() == Some(expected) && !carries_another_target(pid, id);
    (is_it && !descriptor.has_ended()).then_some(descriptor)
}

/// A process that writes its title over its environment (as nginx and PostgreSQL do) carries none.
fn carries_another_target(pid: i32, id: &str) -> bool {
    let carried = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut targets = carried.split(|byte| *byte == 0).filter_map(|entry| entry.strip_prefix(b"CHANGEOVER_TARGET="));
    targets.any(|target| target != id.as_bytes())
}

/// `number` counts from 1 as in proc(5). The command (field 2) may hold spaces and brackets, hence the last bracket.
fn stat_field(pid: i32, number: usize) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(number.checked_sub(3)?).map(str::to_owned)
}
