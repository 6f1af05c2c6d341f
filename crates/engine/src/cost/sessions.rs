//! What sessions of processes have used, as /proc says it. Not here: which of them are versions.

use std::collections::{BTreeSet, HashMap};
use std::fs;

/// Of processor time in /proc; the same on all of Linux's architectures that we run on (`USER_HZ`, proc(5)).
const TICK_MS: u64 = 10;

/// All that a session has used so far, and has now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Taken {
    pub(super) cpu_ms: u64,
    pub(super) bytes: u64,
}

/// Of these sessions, by the pid of their leader.
pub(super) fn look(leaders: &BTreeSet<i32>) -> HashMap<i32, Taken> {
    let mut taken = HashMap::<i32, Taken>::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let folder = entry.path();
        let Some((session, cpu_ms)) = fs::read_to_string(folder.join("stat")).ok().as_deref().and_then(session_and_time) else { continue };
        if leaders.contains(&session) {
            let one = taken.entry(session).or_default();
            one.cpu_ms += cpu_ms;
            one.bytes += fs::read_to_string(folder.join("status")).ok().as_deref().and_then(resident_bytes).unwrap_or(0);
        }
    }
    taken
}

/// Of `/proc/PID/stat`. With the time of children that have ended.
fn session_and_time(stat: &str) -> Option<(i32, u64)> {
    // The name before may have anything in it.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks: u64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some((fields.get(3)?.parse().ok()?, ticks * TICK_MS))
}

/// Of `/proc/PID/status`; a process that has ended has none.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_read() {
        let stat = "4711 (a) b (c) S 1 4710 4711 0 -1 4194560 1 2 3 4 150 50 7 3 20 0 1 0 100 1000 20 0";
        assert_eq!(session_and_time(stat), Some((4_711, 2_100)));
        assert_eq!(session_and_time("gone"), None);
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(resident_bytes("Name:\tkthreadd\n"), None);
        let own = std::process::id() as i32;
        let session = nix::unistd::getsid(None).expect("a session").as_raw();
        let seen = look(&[session].into());
        assert!(seen.get(&session).is_some_and(|taken| taken.bytes > 0), "{own} is one of {seen:?}");
    }
}
