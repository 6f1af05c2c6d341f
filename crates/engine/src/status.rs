//! What is going on, as data.

use release::{Refusal, Rollback, State};
use serde_json::{Value, json};

use crate::engine::Caretaker;

impl Caretaker {
    pub(crate) fn status(&self) -> Value {
        let services: Vec<Value> = self.services.values().map(|service| {
            let name = &service.name;
            let routed = self.routed(service);
            let serving = routed.serving();
            let targets: Vec<Value> = self.targets.values()
                .filter(|entry| entry.kept.service == *name)
                .map(|entry| json!({
                    "id": entry.kept.id, "version": entry.kept.version, "address": entry.kept.address,
                    "pid": entry.kept.process.as_ref().map(|process| process.pid), "healthy": entry.healthy,
                    "frozen": entry.kept.frozen, "last_answer": entry.detail, "since_ms": self.now().saturating_sub(entry.began_at),
                }))
                .collect();
            let healthy = self.targets.values().filter(|entry| serving.is_some_and(|it| entry.serves(name, it)) && entry.healthy).count();
            let counts = serving.map(|version| self.data_plane.counts(name, version)).unwrap_or_default();
            let recent = serving.map(|version| self.data_plane.recent(name, version)).unwrap_or_default();
            let rollback = match service.plan_rollback(None, false) {
                Ok(Rollback::TakeBack { to }) => json!({ "to": to, "standby": "hot", "took_us": self.last_switch_us.get(name) }),
                Ok(Rollback::Begin { to, hot }) => {
                    let standby = service.standby.as_ref().filter(|standby| standby.version == to);
                    let left_ms = standby.map(|standby| standby.until.saturating_sub(self.now()));
                    let hot = hot || self.runs_elsewhere(name, &to);
                    let standing = if hot { release::Standing::Hot } else { service.standing(&to) };
                    json!({
                        "to": to, "standby": standing.name(), "left_ms": left_ms, "took_us": self.last_switch_us.get(name),
                        "start_ms": service.start_ms.get(&to), "thaw_ms": service.thaw_ms.get(&to),
                    })
                }
                Err(Refusal::Irreversible { gate }) => json!({ "irreversible": gate }),
                Err(_) => Value::Null,
            };
            let versions = |release: &release::Release| -> Vec<Value> {
                let roles = [(release.stable.as_ref(), "stable"), (Some(&release.candidate), "candidate")];
                let known = roles.into_iter().filter_map(|(version, role)| Some((version?, role)));
                let one = |(version, role)| {
                    let (recent, counts) = (self.data_plane.recent(name, version), self.data_plane.counts(name, version));
                    json!({
                        "version": version, "role": role, "rate": recent.rate, "errors": recent.errors, "p50_ms": recent.p50_ms,
                        "p95_ms": recent.p95_ms, "p99_ms": recent.p99_ms, "requests": counts.requests, "bad": counts.bad,
                    })
                };
                known.map(one).collect()
            };
            let release = service.release.as_ref().map(|release| json!({
                "strategy": if release.settings.steps().is_empty() { "blue_green" } else { "canary" },
                "weight": release.weight(), "step": release.state.step(),
                "steps": release.settings.steps().iter().map(|step| json!({
                    "weight": step.weight, "dwell_ms": step.dwell_ms, "max_ms": step.max_ms,
                })).collect::<Vec<_>>(),
                "step_age_ms": self.now().saturating_sub(release.entered_at), "paused": release.paused,
                "waits": self.waits_for(release), "versions": versions(release), "analysis": self.analysis_said(name, release),
                "unjudged": match release.settings.canary.as_ref().map(|canary| &canary.analysis) {
                    Some(model::Analysis::None { reason }) => Some(reason),
                    _ => None,
                },
                "number": release.number, "id": release.id, "candidate": release.candidate, "stable": release.stable,
                "state": release.state.name(), "who": release.who, "message": release.message,
                "ending": match &release.state {
                    State::Ended { ending } => json!(ending),
                    _ => Value::Null,
                },
            }));
            json!({
                "service": name, "protocol": self.desired.services.get(name).map(|desired| desired.protocol), "serves": serving, "mode": service.mode, "stopped": service.stopped, "release": release,
                "targets": targets, "healthy": healthy, "wanted": self.wanted_targets(name),
                "requests": counts.requests, "bad": counts.bad,
                "rate": recent.rate, "errors": recent.errors, "p99_ms": recent.p99_ms, "rollback": rollback,
                "paused": self.paused.get(name).map(|good| json!({ "serves": good })),
                "queued": service.queued.as_ref().map(|queued| json!({ "number": queued.number, "version": queued.deploy.version, "who": queued.deploy.who })),
                "kept": service.kept.as_ref().map(|kept| json!({ "version": kept.version, "left_ms": kept.until.saturating_sub(self.now()) })),
                "last_switch_us": self.last_switch_us.get(name), "confirmed": service.confirmed, "rejected": service.rejected,
            })
        }).collect();
        let not_open: Vec<Value> = self.doors.failed.iter().map(|(address, error)| json!({ "address": address, "error": error })).collect();
        json!({ "services": services, "not_open": not_open })
    }

    /// Nothing is read in what its clients say.
    pub(crate) fn is_tcp(&self, service: &model::ServiceName) -> bool {
        self.desired.services.get(service).is_some_and(|desired| desired.protocol == model::Protocol::Tcp)
    }

    /// What is counted of a service, in the plural.
    pub(crate) fn units_of(&self, service: &model::ServiceName) -> &'static str {
        if self.is_tcp(service) { "connections" } else { "requests" }
    }

    /// What a person is waited for.
    fn waits_for(&self, release: &release::Release) -> Option<String> {
        if release.state == State::AwaitingPromotion {
            return Some("a promotion".to_owned());
        }
        let gate = release.settings.gate(release.state.gate()?)?;
        matches!(gate.kind, model::GateKind::Approval { .. }).then(|| format!("approval: {}", gate.name))
    }

    /// The judge's last look at this release.
    fn analysis_said(&self, name: &model::ServiceName, release: &release::Release) -> Value {
        let analysis = self.analyses.get(name).filter(|analysis| analysis.release == release.id);
        analysis.map_or(Value::Null, |analysis| json!(analysis.last))
    }
}
