//! What versions use of processor and memory, booked by release: what a standby costs, and what another one would have.
//!
//! All processes of a version's session are looked at together, every few seconds, and what they used since the look before is booked under
//! what the version is now. **Invariant**: what was not looked at is not booked: neither the time without a worker, nor what a process
//! used between the last look at it and its end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;

use model::{Moment, ServiceName, TargetId, VersionName};
use release::Service;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Batch;

use crate::command::Input;
use crate::engine::{Caretaker, boot_id};

const LOOK_MS: u64 = 5_000;
/// A worker that dies takes what it booked in this time along.
const KEEP_MS: u64 = 60_000;
/// Of a service: those before are forgotten.
const RELEASES_MAX: usize = 50;
/// Of processor time in /proc; the same on all of Linux's architectures that we run on (`USER_HZ`, proc(5)).
const TICK_MS: u64 = 10;
const PREFIX: &str = "cost/";

/// What a version is while it uses something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Serving,
    /// It starts, or waits to get traffic.
    Candidate,
    Hot,
    Frozen,
    /// It was taken back, and is kept to be looked at.
    Kept,
}

/// For how long, how much processor time, and how much memory times how long.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Used {
    ms: u64,
    cpu_ms: u64,
    /// Resident; what processes share counts for each of them.
    mib_s: f64,
}

impl Used {
    fn and(self, other: Self) -> Self {
        Self { ms: self.ms + other.ms, cpu_ms: self.cpu_ms + other.cpu_ms, mib_s: self.mib_s + other.mib_s }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    version: VersionName,
    role: Role,
    used: Used,
}

/// Of one release: from its begin to that of the next.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Bill {
    lines: Vec<Line>,
}

impl Bill {
    fn book(&mut self, version: &VersionName, role: Role, used: Used) {
        match self.lines.iter_mut().find(|line| line.version == *version && line.role == role) {
            Some(line) => line.used = line.used.and(used),
            None => self.lines.push(Line { version: version.clone(), role, used }),
        }
    }

    fn of(&self, roles: &[Role]) -> Used {
        self.lines.iter().filter(|line| roles.contains(&line.role)).fold(Used::default(), |sum, line| sum.and(line.used))
    }

    /// What nobody was served by.
    fn idle(&self) -> Used {
        self.of(&[Role::Candidate, Role::Hot, Role::Frozen, Role::Kept])
    }

    /// What the standby would have used, had it been hot or frozen for all of its time. While it was never hot, nobody knows what that
    /// would have been.
    fn otherwise(&self) -> (Option<Used>, Used) {
        let (hot, both) = (self.of(&[Role::Hot]), self.of(&[Role::Hot, Role::Frozen]));
        let rate = (hot.ms > 0).then(|| hot.cpu_ms as f64 / hot.ms as f64);
        let all_hot = rate.map(|rate| Used { cpu_ms: (rate * both.ms as f64).round() as u64, ..both });
        (all_hot, Used { cpu_ms: 0, ..both })
    }

    fn said(&self, number: u64) -> Value {
        let (hot, frozen) = self.otherwise();
        let lines: Vec<Value> =
            self.lines.iter().map(|line| json!({ "version": line.version, "as": line.role, "used": line.used })).collect();
        let standby = self.of(&[Role::Hot, Role::Frozen]);
        json!({ "release": number, "lines": lines, "idle": self.idle(), "standby": standby, "standby_if_hot": hot, "standby_if_frozen": frozen })
    }
}

/// What a version is now.
fn role(service: &Service, version: &VersionName, is_frozen: bool) -> Role {
    let release = service.running_release();
    let candidate = release.filter(|release| release.candidate == *version);
    let serves = service.serving() == Some(version)
        || release.is_some_and(|release| release.stable.as_ref() == Some(version))
        || candidate.is_some_and(|release| release.weight() > 0);
    let stands_by = service.standby.as_ref().is_some_and(|standby| standby.version == *version);
    match (serves, candidate.is_some(), is_frozen, stands_by) {
        (true, ..) => Role::Serving,
        (_, true, ..) => Role::Candidate,
        (_, _, true, _) => Role::Frozen,
        (_, _, _, true) => Role::Hot,
        _ => Role::Kept,
    }
}

/// All that a session has used so far, and has now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Taken {
    cpu_ms: u64,
    bytes: u64,
}

/// Of these sessions, by the pid of their leader.
fn look(leaders: &BTreeSet<i32>) -> HashMap<i32, Taken> {
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

/// How far each target is booked.
struct Meter {
    at: Moment,
    cpu_ms: u64,
}

#[derive(Default)]
pub(crate) struct Costs {
    bills: BTreeMap<(ServiceName, u64), Bill>,
    meters: HashMap<TargetId, Meter>,
    /// Those that changed since they were kept.
    unkept: BTreeSet<(ServiceName, u64)>,
    is_looking: bool,
    next_look: Moment,
    next_keep: Moment,
}

impl Costs {
    pub(crate) const KEYS: &str = PREFIX;

    pub(crate) fn read(stored: &[(String, String)]) -> Self {
        let one = |(key, value): &(String, String)| {
            let (service, number) = key.strip_prefix(PREFIX)?.rsplit_once('/')?;
            Some(((ServiceName::new(service).ok()?, number.parse().ok()?), serde_json::from_str(value).ok()?))
        };
        Self { bills: stored.iter().filter_map(one).collect(), ..Self::default() }
    }

    /// It has just been started.
    pub(crate) fn began(&mut self, id: &TargetId, now: Moment) {
        self.meters.insert(id.clone(), Meter { at: now, cpu_ms: 0 });
    }

    /// What a target used since it was looked at before; `None` the first time, when nobody knows since when it used that.
    fn since(&mut self, id: &TargetId, now: Moment, taken: Taken) -> Option<Used> {
        let before = self.meters.insert(id.clone(), Meter { at: now, cpu_ms: taken.cpu_ms })?;
        let ms = now.saturating_sub(before.at);
        let mib_s = taken.bytes as f64 / f64::from(1 << 20) * ms as f64 / 1_000.0;
        Some(Used { ms, cpu_ms: taken.cpu_ms.saturating_sub(before.cpu_ms), mib_s })
    }

    fn said(&self, service: Option<&ServiceName>) -> Value {
        let mut services: Vec<Value> = Vec::new();
        let mut all = self.bills.iter().filter(|((name, _), _)| service.is_none_or(|it| it == name)).peekable();
        while let Some(((name, _), _)) = all.peek() {
            let name = name.clone();
            let mut releases = Vec::new();
            while let Some(((_, number), bill)) = all.next_if(|((it, _), _)| *it == name) {
                releases.push(bill.said(*number));
            }
            services.push(json!({ "service": name, "releases": releases }));
        }
        json!({ "services": services })
    }
}

impl Caretaker {
    /// Reading /proc takes milliseconds where there are many processes: not here.
    pub(crate) fn look_at_costs(&mut self) {
        let now = self.now();
        if self.costs.is_looking || now < self.costs.next_look {
            return;
        }
        (self.costs.is_looking, self.costs.next_look) = (true, now + LOOK_MS);
        let leaders = self.targets.values().filter_map(|entry| entry.kept.process.as_ref().map(|process| process.pid)).collect();
        let inputs = self.inputs.clone();
        tokio::task::spawn_blocking(move || inputs.send(Input::Used { sessions: look(&leaders) }));
    }

    pub(crate) async fn used(&mut self, sessions: &HashMap<i32, Taken>) {
        self.costs.is_looking = false;
        let (now, boot_id) = (self.now(), boot_id());
        for entry in self.targets.values() {
            let Some(process) = entry.kept.process.as_ref().filter(|process| process.boot_id == boot_id) else { continue };
            let (Some(taken), Some(service)) = (sessions.get(&process.pid), self.services.get(&entry.kept.service)) else { continue };
            let Some(used) = self.costs.since(&entry.kept.id, now, *taken) else { continue };
            let key = (service.name.clone(), service.release.as_ref().map_or(0, |release| release.number));
            let role = role(&self.routed(service), &entry.kept.version, entry.kept.frozen);
            self.costs.bills.entry(key.clone()).or_default().book(&entry.kept.version, role, used);
            self.costs.unkept.insert(key);
        }
        let targets = &self.targets;
        self.costs.meters.retain(|id, _| targets.contains_key(id));
        if now >= self.costs.next_keep {
            self.costs.next_keep = now + KEEP_MS;
            self.keep_costs().await;
        }
    }

    /// A disk that refuses gets them the next time.
    pub(crate) async fn keep_costs(&mut self) {
        let key = |(service, number): &(ServiceName, u64)| format!("{PREFIX}{service}/{number:08}");
        let bills = &self.costs.bills;
        let put = |it: &(ServiceName, u64)| Some((key(it), serde_json::to_string(bills.get(it)?).expect("plain data")));
        let puts: Vec<(String, String)> = self.costs.unkept.iter().filter_map(put).collect();
        let mut old = Vec::new();
        for name in self.costs.unkept.iter().map(|(name, _)| name).collect::<BTreeSet<_>>() {
            let of_service: Vec<_> = bills.keys().filter(|(it, _)| it == name).cloned().collect();
            old.extend(of_service.iter().take(of_service.len().saturating_sub(RELEASES_MAX)).cloned());
        }
        if puts.is_empty() || self.store.is_stuck() {
            return;
        }
        let deletes = old.iter().map(key).collect();
        if self.store.commit(Batch { puts, deletes, ..Batch::default() }).await.is_ok() {
            self.costs.unkept.clear();
            old.iter().for_each(|it| drop(self.costs.bills.remove(it)));
        }
    }

    pub(crate) fn cost(&self, service: Option<&ServiceName>) -> Value {
        self.costs.said(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str) -> VersionName {
        VersionName::new(name).expect("a name")
    }

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

    #[test]
    fn a_bill_says_what_another_standby_would_have_used() {
        let mut bill = Bill::default();
        let used = |ms, cpu_ms, mib_s| Used { ms, cpu_ms, mib_s };
        bill.book(&version("v2"), Role::Serving, used(100_000, 50_000, 9_000.0));
        bill.book(&version("v1"), Role::Hot, used(10_000, 500, 1_000.0));
        bill.book(&version("v1"), Role::Hot, used(10_000, 500, 1_000.0));
        bill.book(&version("v1"), Role::Frozen, used(80_000, 0, 8_000.0));
        assert_eq!(bill.lines.len(), 3);
        assert_eq!(bill.idle(), used(100_000, 1_000, 10_000.0));
        assert_eq!(bill.otherwise(), (Some(used(100_000, 5_000, 10_000.0)), used(100_000, 0, 10_000.0)));
        let mut never_hot = Bill::default();
        never_hot.book(&version("v1"), Role::Frozen, used(80_000, 0, 8_000.0));
        assert_eq!(never_hot.otherwise(), (None, used(80_000, 0, 8_000.0)), "nobody knows what it would have used");
    }

    #[test]
    fn the_first_look_at_what_ran_before_books_nothing() {
        let (mut costs, id) = (Costs::default(), TargetId::new("t1").expect("a name"));
        let taken = |cpu_ms| Taken { cpu_ms, bytes: 100 << 20 };
        assert_eq!(costs.since(&id, 1_000, taken(7_000)), None);
        assert_eq!(costs.since(&id, 6_000, taken(7_100)), Some(Used { ms: 5_000, cpu_ms: 100, mib_s: 500.0 }));
        let new = TargetId::new("t2").expect("a name");
        costs.began(&new, 6_000);
        assert_eq!(costs.since(&new, 8_000, taken(300)), Some(Used { ms: 2_000, cpu_ms: 300, mib_s: 200.0 }));
    }
}
