//! The bill of a release: who used what as what; and what another standby would have used. Pure. Not here: where the numbers come from.

use model::VersionName;
use release::Service;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a version is while it uses something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
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
pub(super) struct Used {
    pub(super) ms: u64,
    pub(super) cpu_ms: u64,
    /// Resident; what processes share counts for each of them.
    pub(super) mib_s: f64,
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
    pub(super) fn book(&mut self, version: &VersionName, role: Role, used: Used) {
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

    pub(super) fn said(&self, number: u64) -> Value {
        let (hot, frozen) = self.otherwise();
        let lines: Vec<Value> =
            self.lines.iter().map(|line| json!({ "version": line.version, "as": line.role, "used": line.used })).collect();
        let standby = self.of(&[Role::Hot, Role::Frozen]);
        json!({ "release": number, "lines": lines, "idle": self.idle(), "standby": standby, "standby_if_hot": hot, "standby_if_frozen": frozen })
    }
}

/// What a version is now.
pub(super) fn role(service: &Service, version: &VersionName, is_frozen: bool) -> Role {
    let release = service.running_release();
    let candidate = release.filter(|release| release.candidate == *version);
    let serves = service.serving() == Some(version) || candidate.is_some_and(|release| release.weight() > 0);
    // While a release is watched, the version before stands by already.
    let stands_by = service.standby.as_ref().is_some_and(|standby| standby.version == *version)
        || release.is_some_and(|release| release.stable.as_ref() == Some(version));
    match (serves, candidate.is_some(), is_frozen, stands_by) {
        (true, ..) => Role::Serving,
        (_, true, ..) => Role::Candidate,
        (_, _, true, _) => Role::Frozen,
        (_, _, _, true) => Role::Hot,
        _ => Role::Kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str) -> VersionName {
        VersionName::new(name).expect("a name")
    }

    /// By the clockwork itself.
    #[test]
    fn the_version_before_stands_by_from_the_switch_on() {
        let strategy = model::Strategy {
            promotion: model::Promotion::Auto,
            gates: Vec::new(),
            watch_ms: 60_000,
            watch_errors_max: 100,
            watch_requests_min: 50,
            drain_ms: 1_000,
            standby_ms: 0,
            frozen_ms: 9_000,
            canary: None,
        };
        let deploy = |name: &str| release::Deploy {
            id: model::ReleaseId::new(name).expect("an id"),
            version: version(name),
            addresses: Vec::new(),
            settings: release::Settings::deploy(&strategy, 1_000),
            who: "ana".into(),
            message: None,
            began_at_ms: 0,
        };
        let service = Service { active: Some(version("v1")), ..Service::new(model::ServiceName::new("web").expect("a name")) };
        let roles = |service: &Service| ["v1", "v2"].map(|name| role(service, &version(name), false));
        let mut service = service.deploy(deploy("v2"), 0).expect("idle");
        assert_eq!(roles(&service), [Role::Serving, Role::Candidate]);
        for event in [release::Event::TargetsBecameHealthy, release::Event::SnapshotAcknowledged, release::Event::Drained { cut: 0 }] {
            service = service.apply(&event, 1).expect("legal");
        }
        assert_eq!(roles(&service), [Role::Hot, Role::Serving], "while it is watched");
        service = service.apply(&release::Event::WatchPassed, 2).expect("legal");
        assert_eq!(roles(&service), [Role::Hot, Role::Serving]);
        assert_eq!(role(&service, &version("v1"), true), Role::Frozen);
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
}
