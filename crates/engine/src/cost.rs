//! What versions use of processor and memory, booked by release: what a standby costs, and what another one would have.
//!
//! All processes of a version's session are looked at together, every few seconds, and what they used since the look before is booked under
//! what the version is now. **Invariant**: what was not looked at is not booked: neither the time without a worker, nor what a process
//! used between the last look at it and its end. Not here: the bill itself (`bill`), and /proc (`sessions`).

mod bill;
mod sessions;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::{Moment, ServiceName, TargetId};
use serde_json::{Value, json};
use store::Batch;

use crate::command::Input;
use crate::engine::{Caretaker, boot_id};
use bill::{Bill, Used, role};
pub(crate) use sessions::Taken;
use sessions::look;

const LOOK_MS: u64 = 5_000;
/// A worker that dies takes what it booked in this time along.
const KEEP_MS: u64 = 60_000;
/// Of a service: those before are forgotten.
const RELEASES_MAX: usize = 50;
const PREFIX: &str = "cost/";

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
