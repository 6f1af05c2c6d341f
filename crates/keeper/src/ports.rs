//! Who listens on a port: a version is healthy only if the listener is its own.
//!
//! Not here: whether the listener answers.

use std::collections::HashSet;
use std::fs;

use crate::identity::session_of;

const STATE_LISTEN: &str = "0A";

/// `None` when it cannot be told for lack of rights.
pub fn port_belongs_to_session(port: u16, session_pid: i32) -> Option<bool> {
    let sockets = listening_sockets(port)?;
    if sockets.is_empty() {
        return Some(false);
    }
    let mut all_seen = true;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if session_of(pid) != Some(session_pid) {
            continue;
        }
        match holds_any(pid, &sockets) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => all_seen = false,
        }
    }
    all_seen.then_some(false)
}

/// As /proc/PID/fd spells them: `socket:[INODE]`.
fn listening_sockets(port: u16) -> Option<HashSet<String>> {
    let mut sockets = HashSet::new();
    sockets.extend(parse(&fs::read_to_string("/proc/net/tcp").ok()?, port));
    // Absent where IPv6 is switched off.
    sockets.extend(parse(&fs::read_to_string("/proc/net/tcp6").unwrap_or_default(), port));
    Some(sockets)
}

fn parse(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_ours = fields.get(1)?.ends_with(&suffix) && *fields.get(3)? == STATE_LISTEN;
        is_ours.then_some(format!("socket:[{}]", fields.get(9)?))
    };
    table.lines().skip(1).filter_map(row).collect()
}

/// A process that ends while we look holds nothing; only a refusal leaves it open.
fn holds_any(pid: i32, sockets: &HashSet<String>) -> Option<bool> {
    let directory = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(directory) => directory,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return None,
        Err(_) => return Some(false),
    };
    let holds = |link: std::path::PathBuf| link.to_str().is_some_and(|text| sockets.contains(text));
    let mut refused = false;
    for entry in directory.flatten() {
        match fs::read_link(entry.path()) {
            Ok(link) if holds(link.clone()) => return Some(true),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => refused = true,
            _ => {}
        }
    }
    (!refused).then_some(false)
}
