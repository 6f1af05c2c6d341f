//! Drives releases: what to look at in each state, and what is told of each step.

use model::{ServiceName, TargetId, VersionName};
use release::{Event, Outcome, Service, State};

use crate::edge::Counts;
use crate::engine::{Caretaker, Restarts};
use crate::gates::last_lines;
use crate::store::Batch;
use crate::targets::{Kept, Life};

/// A candidate that ends so often while it starts has failed.
const START_EXITS_MAX: u32 = 3;
/// A version that ends so often, without being healthy in between, is left alone.
const CRASH_LOOP_MAX: u32 = 10;
const BACK_OFF_MAX_MS: u64 = 30_000;

impl Caretaker {
    pub(crate) async fn look_at_deadlines(&mut self) {
        self.kill_overdue();
        self.look_at_gates().await;
        self.save_again().await;
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for name in names {
            self.look_at_release(&name).await;
            self.look_at_standby(&name).await;
            self.reconcile(&name).await;
        }
    }

    async fn look_at_standby(&mut self, name: &ServiceName) {
        let now = self.now();
        let Some(service) = self.services.get(name) else { return };
        let over = service.running_release().is_none() && service.standby.as_ref().is_some_and(|standby| standby.until <= now);
        if !over {
            return;
        }
        let next = Service { standby: None, ..service.clone() };
        let version = service.standby.as_ref().map(|standby| standby.version.to_string()).unwrap_or_default();
        if self.advance(next, vec![("standby_ended", format!("{version} is stopped; a rollback would start it"))]).await.is_ok() {
            self.reconcile(name).await;
        }
    }

    /// Turns what is observed into the event of the release's state, if there is one.
    pub(crate) async fn look_at_release(&mut self, name: &ServiceName) {
        let now = self.now();
        let Some(release) = self.running_release(name).cloned() else { return };
        let in_state_ms = now.saturating_sub(release.entered_at);
        let event = match &release.state {
            State::Starting => self.starting(name, &release.candidate, in_state_ms, release.settings.start_timeout_ms),
            State::Gating { .. } | State::AwaitingPromotion => None,
            State::Switching | State::Returning { .. } => self.all_acknowledged().then_some(Event::SnapshotAcknowledged),
            State::Draining => match &release.stable {
                Some(stable) => self.drained(name, stable, in_state_ms, release.settings.drain_ms),
                None => Some(Event::Drained { cut: 0 }),
            },
            State::Retiring { .. } => self.drained(name, &release.candidate, in_state_ms, release.settings.drain_ms),
            State::Watching => self.watching(name, &release.candidate, in_state_ms, release.settings.watch_ms),
            State::Ended { .. } => None,
        };
        let Some(event) = event else { return };
        if event == Event::SnapshotAcknowledged {
            self.switched(name);
        }
        if now < self.not_before {
            return;
        }
        Box::pin(self.apply(name, event)).await;
    }

    fn starting(&self, name: &ServiceName, candidate: &VersionName, in_state_ms: u64, timeout_ms: u64) -> Option<Event> {
        let wanted = self.wanted_targets(name);
        let entries: Vec<_> = self.targets.values().filter(|entry| entry.serves(name, candidate)).collect();
        if entries.len() >= wanted && entries.iter().all(|entry| entry.healthy) {
            return Some(Event::TargetsBecameHealthy);
        }
        if in_state_ms < timeout_ms {
            return None;
        }
        let worst = entries.iter().find(|entry| !entry.healthy);
        let answer = worst.map(|entry| format!("\n  last answer: {} ({} tries)", entry.detail, entry.tries)).unwrap_or_default();
        let lines = last_lines(&self.log_file(name, candidate));
        let reason = format!("{candidate} did not become healthy within {} s{answer}{lines}", timeout_ms / 1000);
        Some(Event::StartFailed { reason })
    }

    pub(crate) fn wanted_targets(&self, name: &ServiceName) -> usize {
        self.desired.services.get(name).map_or(1, |desired| match desired.run.runtime {
            model::Runtime::Static => 1,
            model::Runtime::Process { .. } => usize::from(desired.run.targets),
        })
    }

    fn drained(&self, name: &ServiceName, version: &VersionName, in_state_ms: u64, drain_ms: u64) -> Option<Event> {
        // Nobody new comes once the snapshot is acknowledged; until then zero means nothing.
        if self.all_acknowledged() && self.data_plane.in_flight(name, version) == 0 {
            return Some(Event::Drained { cut: 0 });
        }
        (in_state_ms >= drain_ms).then(|| Event::Drained { cut: self.data_plane.cut(name, version) })
    }

    fn watching(&self, name: &ServiceName, candidate: &VersionName, in_state_ms: u64, watch_ms: u64) -> Option<Event> {
        let strategy = &self.desired.services.get(name)?.strategy;
        let now = self.data_plane.counts(name, candidate);
        let then = self.watches.get(name).copied().unwrap_or_default();
        let seen = difference(now, then);
        let errors_too_many = seen.requests >= strategy.watch_requests_min.max(1)
            && seen.bad * 10_000 > seen.requests * u64::from(strategy.watch_errors_max);
        if errors_too_many {
            let share = seen.bad as f64 * 100.0 / seen.requests as f64;
            let reason = format!("{} of {} requests failed on {candidate} ({share:.2} %)", seen.bad, seen.requests);
            return Some(Event::WatchFailed { reason });
        }
        let mut entries = self.targets.values().filter(|entry| entry.serves(name, candidate)).peekable();
        if entries.peek().is_some() && entries.all(|entry| entry.fallen) {
            return Some(Event::WatchFailed { reason: format!("no target of {candidate} is healthy any more") });
        }
        (in_state_ms >= watch_ms).then_some(Event::WatchPassed)
    }

    fn switched(&mut self, name: &ServiceName) {
        let Some(began) = self.switch_began.remove(name) else { return };
        let took_us = began.elapsed().as_micros() as u64;
        self.last_switch_us.insert(name.clone(), took_us);
        let (mine, others) = std::mem::take(&mut self.switching).into_iter().partition(|waiting| waiting.service == *name);
        self.switching = others;
        for waiting in Vec::<crate::engine::Waiting>::from_iter::<Vec<_>>(mine) {
            let _ = waiting.reply.send(Ok(serde_json::json!({
                "service": name, "from": waiting.from, "to": waiting.to, "hot": waiting.hot,
                "took_us": waiting.began.elapsed().as_micros() as u64,
            })));
        }
    }

    /// A target of ours ended without being asked to.
    pub(crate) async fn exited_by_itself(&mut self, kept: &Kept, what: &str) {
        let key = (kept.service.clone(), kept.version.clone());
        let now = self.now();
        let restarts = self.restarts.entry(key).or_insert_with(Restarts::default);
        restarts.count += 1;
        restarts.not_before = now + (100u64 << restarts.count.min(10)).min(BACK_OFF_MAX_MS);
        let count = restarts.count;
        let Some(release) = self.running_release(&kept.service) else { return };
        if release.candidate != kept.version {
            return;
        }
        let lines = last_lines(&self.log_file(&kept.service, &kept.version));
        match release.state {
            State::Starting if count >= START_EXITS_MAX => {
                let reason = format!("{what}, {count} times while it started{lines}");
                self.apply(&kept.service, Event::StartFailed { reason }).await;
            }
            State::Gating { .. } | State::AwaitingPromotion => {
                self.apply(&kept.service, Event::StartFailed { reason: format!("{what}{lines}") }).await;
            }
            State::Switching | State::Draining | State::Watching => {
                self.apply(&kept.service, Event::WatchFailed { reason: format!("{what}{lines}") }).await;
            }
            State::Starting | State::Returning { .. } | State::Retiring { .. } | State::Ended { .. } => {}
        }
    }

    pub(crate) async fn start_failed(&mut self, kept: &Kept, error: &str) {
        let starting = self.running_release(&kept.service).is_some_and(|release| {
            release.candidate == kept.version && matches!(release.state, State::Starting)
        });
        if starting {
            self.apply(&kept.service, Event::StartFailed { reason: error.to_owned() }).await;
        } else {
            self.tell(&kept.service, "start_failed", error.to_owned()).await;
        }
    }

    pub(crate) async fn reconcile_all(&mut self) {
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for name in names {
            self.reconcile(&name).await;
        }
        self.publish();
    }

    /// Starts what must run and does not, stops what runs and need not.
    pub(crate) async fn reconcile(&mut self, name: &ServiceName) {
        if self.ending.is_some() {
            return;
        }
        let must_run = match (self.services.get(name), self.desired.services.get(name)) {
            (Some(service), Some(_)) => service.must_run(),
            _ => Vec::new(),
        };
        let too_many: Vec<TargetId> = self.targets.values()
            .filter(|entry| entry.kept.service == *name && entry.kept.ours && !must_run.contains(&entry.kept.version))
            .filter(|entry| !matches!(entry.life, Life::Stopping { .. }))
            .map(|entry| entry.kept.id.clone())
            .collect();
        for id in too_many {
            self.stop_target(&id).await;
        }
        let ours = self.desired.services.get(name).is_some_and(|it| matches!(it.run.runtime, model::Runtime::Process { .. }));
        if !ours {
            return;
        }
        let wanted = self.wanted_targets(name);
        let now = self.now();
        for version in must_run {
            let restarts = self.restarts.get(&(name.clone(), version.clone())).copied().unwrap_or_default();
            if restarts.not_before > now || restarts.count >= CRASH_LOOP_MAX {
                continue;
            }
            let running = self.targets.values().filter(|entry| entry.serves(name, &version)).count();
            for _ in running..wanted {
                if let Err(error) = self.start_target(name, &version).await {
                    eprintln!("error: service {name}: cannot start {version}: {error}");
                    break;
                }
            }
        }
    }

    pub(crate) async fn mark_irreversible(&mut self, name: &ServiceName, gate: &str) -> Result<(), String> {
        let Some(service) = self.services.get(name) else { return Ok(()) };
        let mut next = service.clone();
        if let Some(release) = next.release.as_mut() {
            release.irreversible = Some(gate.to_owned());
        }
        self.advance(next, vec![]).await.map_err(|rejected| rejected.message)
    }

    pub(crate) fn first_address(&self, service: &ServiceName, version: &VersionName) -> Option<std::net::SocketAddr> {
        self.targets.values().find(|entry| entry.serves(service, version)).map(|entry| entry.kept.address)
    }

    pub(crate) async fn forget_service(&mut self, name: &ServiceName) {
        let batch = Batch { deletes: vec![format!("service/{name}")], ..Batch::default() };
        if self.store.commit(batch).await.is_ok() {
            self.services.remove(name);
        }
    }
}

fn difference(now: Counts, then: Counts) -> Counts {
    Counts {
        requests: now.requests.saturating_sub(then.requests),
        bad: now.bad.saturating_sub(then.bad),
        p99_ms: now.p99_ms,
    }
}

/// What is told of a step, in the words of the progress lines.
pub(crate) fn told<'a>(next: &Service, before: Option<&State>, event: &Event) -> Vec<(&'a str, String)> {
    let Some(release) = &next.release else { return Vec::new() };
    let candidate = &release.candidate;
    let mut told = Vec::new();
    match (before, event) {
        (_, Event::TargetsBecameHealthy) => told.push(("healthy", format!("healthy    {candidate}"))),
        (_, Event::GatePassed { gate }) => {
            told.push(("gate_passed", format!("gate       {} passed", release.settings.gates[*gate].name)));
        }
        (Some(State::Switching), Event::SnapshotAcknowledged) => {
            told.push(("switched", format!("switch     {candidate} serves")));
        }
        (Some(State::Returning { .. }), Event::SnapshotAcknowledged) => {
            let stable = release.stable.as_ref().map(ToString::to_string).unwrap_or_default();
            told.push(("returned", format!("return     {stable} serves again")));
        }
        (Some(State::Draining), Event::Drained { cut }) => {
            let how = if *cut == 0 { "all requests finished".to_owned() } else { format!("{cut} cut at the drain timeout") };
            told.push(("drained", format!("drain      {how}")));
        }
        (_, Event::WatchFailed { reason }) => told.push(("watch_failed", format!("watch      failed: {reason}"))),
        (_, Event::WatchPassed) => told.push(("watch_passed", "watch      ok".to_owned())),
        _ => {}
    }
    match &release.state {
        State::AwaitingPromotion => {
            let text = format!("waiting    {candidate} can be previewed; promote with: changeover promote {}", next.name);
            told.push(("awaiting_promotion", text));
        }
        State::Watching if !matches!(before, Some(State::Watching)) => {
            told.push(("watching", format!("watch      {} s …", release.settings.watch_ms / 1000)));
        }
        State::Ended { ending } => {
            let kind = match ending.outcome {
                Outcome::Promoted => "promoted",
                Outcome::RolledBack => "rolled_back",
                Outcome::Aborted => "aborted",
                Outcome::Failed => "failed",
                Outcome::Superseded => "superseded",
            };
            told.push((kind, ending.reason.clone()));
        }
        _ => {}
    }
    told
}
