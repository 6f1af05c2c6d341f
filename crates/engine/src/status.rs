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
                    "last_answer": entry.detail, "since_ms": self.now().saturating_sub(entry.began_at),
                }))
                .collect();
            let healthy = self.targets.values().filter(|entry| serving.is_some_and(|it| entry.serves(name, it)) && entry.healthy).count();
            let counts = serving.map(|version| self.data_plane.counts(name, version)).unwrap_or_default();
            let recent = serving.map(|version| self.data_plane.recent(name, version)).unwrap_or_default();
            let rollback = match service.plan_rollback(None, false) {
                Ok(Rollback::TakeBack { to }) => json!({ "to": to, "standby": "hot", "took_us": self.last_switch_us.get(name) }),
                Ok(Rollback::Begin { to, hot }) => {
                    let left_ms = service.standby.as_ref().filter(|_| hot).map(|standby| standby.until.saturating_sub(self.now()));
                    let hot = hot || self.runs_elsewhere(name, &to);
                    json!({
                        "to": to, "standby": if hot { "hot" } else { "stopped" }, "left_ms": left_ms,
                        "took_us": self.last_switch_us.get(name), "start_ms": service.start_ms.get(&to),
                    })
                }
                Err(Refusal::Irreversible { gate }) => json!({ "irreversible": gate }),
                Err(_) => Value::Null,
            };
            let release = service.release.as_ref().map(|release| json!({
                "number": release.number, "id": release.id, "candidate": release.candidate, "stable": release.stable,
                "state": release.state.name(), "who": release.who, "message": release.message,
                "ending": match &release.state {
                    State::Ended { ending } => json!(ending),
                    _ => Value::Null,
                },
            }));
            json!({
                "service": name, "serves": serving, "mode": service.mode, "stopped": service.stopped, "release": release,
                "targets": targets, "healthy": healthy, "wanted": self.wanted_targets(name),
                "requests": counts.requests, "bad": counts.bad,
                "rate": recent.rate, "errors": recent.errors, "p99_ms": recent.p99_ms, "rollback": rollback,
                "paused": self.paused.get(name).map(|good| json!({ "serves": good })),
                "queued": service.queued.as_ref().map(|queued| json!({ "number": queued.number, "version": queued.deploy.version, "who": queued.deploy.who })),
                "last_switch_us": self.last_switch_us.get(name), "confirmed": service.confirmed, "rejected": service.rejected,
            })
        }).collect();
        let not_open: Vec<Value> = self.doors.failed.iter().map(|(address, error)| json!({ "address": address, "error": error })).collect();
        json!({ "services": services, "not_open": not_open })
    }
}
