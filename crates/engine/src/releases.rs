//! Drives releases: what to look at in each state, and what is told of each step.

use std::time::Duration;

use model::{ServiceName, TargetId, VersionName};
use release::{Event, Kind, Outcome, Release, Service, State};
use store::Batch;

use crate::edge::Counts;
use crate::engine::Caretaker;
use crate::fault_points;
use crate::logs::last_lines;
use crate::standby;
use crate::targets::Kept;

/// A watch takes an equal version back with at most the inverse of this probability.
const WATCH_EVIDENCE: f64 = 100.0;
/// A candidate that ends so often while it starts has failed.
const START_EXITS_MAX: u32 = 3;
/// A version that ends so often, without being healthy in between, is left alone.
const CRASH_LOOP_MAX: u32 = 10;
const BACK_OFF_MAX_MS: u64 = 30_000;
/// After a start that came to nothing.
const START_AGAIN_MS: u64 = 1_000;

impl Caretaker {
    pub(crate) async fn look_at_deadlines(&mut self) {
        self.look_at_leaving().await;
        self.look_at_gates().await;
        self.save_again().await;
        self.look_every_second().await;
        self.look_at_analyses().await;
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for name in names {
            self.look_at_release(&name).await;
            self.look_at_standby(&name).await;
            self.freeze(&name).await;
            self.look_at_kept(&name).await;
            self.begin_queued(&name).await;
            self.reconcile(&name).await;
        }
    }

    /// Turns what is observed into the event of the release's state, if there is one.
    pub(crate) async fn look_at_release(&mut self, name: &ServiceName) {
        let now = self.now();
        let Some(release) = self.running_release(name).cloned() else { return };
        if self.paused.contains_key(name) || fault_points::pauses(&release, &self.config.state_dir) {
            return;
        }
        let in_state_ms = now.saturating_sub(release.entered_at);
        let event = match &release.state {
            State::Starting => self.starting(name, &release.candidate, in_state_ms, release.settings.start_timeout_ms),
            State::Gating { gate } | State::StepGating { gate, .. } => return self.look_at_gate(&release, *gate).await,
            State::Preparing { step, .. } => return self.preparing(name, &release, *step, in_state_ms).await,
            State::Judging { step } => self.judging(name, &release, *step, in_state_ms).await,
            State::AwaitingPromotion => None,
            State::Raising { .. } | State::Switching | State::Returning { .. } => {
                self.all_acknowledged().then_some(Event::SnapshotAcknowledged)
            }
            State::Draining => self.draining(name, &release, in_state_ms).await,
            State::Retiring { .. } => self.drained(name, &release.candidate, in_state_ms, release.settings.drain_ms),
            State::Watching => match self.watch_failure(name, &release.candidate) {
                Some(reason) => self.watch_failed(name, reason).await,
                None => None,
            }
            .or_else(|| (in_state_ms >= release.settings.watch_ms).then_some(Event::WatchPassed)),
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

    /// Stable is let go when it has nothing left to do and the candidate is seen to serve, also after a restart.
    async fn draining(&mut self, name: &ServiceName, release: &Release, in_state_ms: u64) -> Option<Event> {
        // Nobody is sent back by itself to the version that a person just left.
        if release.kind == Kind::Deploy
            && let Some(reason) = self.watch_failure(name, &release.candidate)
            && let Some(event) = self.watch_failed(name, reason).await
        {
            return Some(event);
        }
        let Some(stable) = &release.stable else { return Some(Event::Drained { cut: 0 }) };
        let patience_ms = release.settings.start_timeout_ms.max(release.settings.drain_ms);
        if !self.serves_healthy(name) && in_state_ms < patience_ms {
            return None;
        }
        self.drained(name, stable, in_state_ms, release.settings.drain_ms)
    }

    fn starting(&self, name: &ServiceName, candidate: &VersionName, in_state_ms: u64, timeout_ms: u64) -> Option<Event> {
        let wanted = self.wanted_of(name, candidate);
        let entries: Vec<_> = self.targets.values().filter(|entry| entry.serves(name, candidate)).collect();
        let baseline = self.running_release(name).and_then(Release::baseline);
        let baseline_is_ready = baseline
            .is_none_or(|baseline| self.targets.values().filter(|entry| entry.serves(name, &baseline) && entry.healthy).count() >= wanted);
        if entries.len() >= wanted && entries.iter().all(|entry| entry.healthy) && baseline_is_ready {
            return Some(Event::TargetsBecameHealthy);
        }
        if in_state_ms < timeout_ms {
            return None;
        }
        let baseline = self.running_release(name).and_then(Release::baseline);
        let of_baseline =
            || self.targets.values().find(|entry| baseline.as_ref().is_some_and(|it| entry.serves(name, it)) && !entry.healthy);
        let worst = entries.iter().copied().find(|entry| !entry.healthy).or_else(of_baseline);
        let candidate = worst.map_or(candidate, |entry| &entry.kept.version);
        let answer = worst.map(|entry| format!("\n  last answer: {} ({} tries)", entry.detail, entry.tries)).unwrap_or_default();
        let lines = worst.map(|entry| last_lines(&self.log_file(name, candidate), entry.kept.log_from)).unwrap_or_default();
        let hint = worst.map(|entry| answer_hint(name, &entry.detail)).unwrap_or_default();
        let reason = format!("{candidate} did not become healthy within {} s{answer}{lines}{hint}", timeout_ms / 1000);
        Some(Event::StartFailed { reason })
    }

    /// A watch that fails takes traffic back, unless a migration ruled stable out: then it is told, once, to those who may force it.
    async fn watch_failed(&mut self, name: &ServiceName, reason: String) -> Option<Event> {
        let irreversible = self.running_release(name).and_then(|release| release.irreversible.clone());
        let Some(gate) = irreversible else { return Some(Event::WatchFailed { reason }) };
        let watch = self.watches.get_mut(name).filter(|watch| !watch.told)?;
        watch.told = true;
        let text = format!(
            "watch      {reason}; it is not taken back, because the migration `{gate}` cannot be undone \
            (when the old version can work with the new data: changeover rollback {name} --force)"
        );
        self.tell(name, "watch_fails", text).await;
        None
    }

    /// When the running release has ended, the one behind it begins.
    pub(crate) async fn begin_queued(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get(name) else { return };
        let Some(next) = service.begin_queued(self.now()) else { return };
        let Some(queued) = service.queued.clone() else { return };
        let begun = next.running_release().is_some();
        let told = match next.running_release() {
            Some(release) => vec![("began", began(name, release))],
            None => vec![],
        };
        if self.advance(next, "deploy", told).await.is_err() {
            return;
        }
        if begun {
            self.begin_release(name).await;
        } else {
            let happening = format!("release {} is dropped: {} serves already", queued.number, queued.deploy.version);
            self.tell_of(name.as_str(), Some(queued.number), "superseded", happening).await;
        }
    }

    /// After a release was begun and kept: its targets, its effects.
    pub(crate) async fn begin_release(&mut self, name: &ServiceName) {
        let Some((candidate, number)) = self.running_release(name).map(|release| (release.candidate.clone(), release.number)) else {
            return;
        };
        self.restarts.remove(&(name.clone(), candidate.clone()));
        self.forget_looks(name).await;
        self.tell_of_little_traffic(name).await;
        Box::pin(self.perform(name)).await;
        fault_points::crash(number, ("none", "deploy"), "performed");
    }

    pub(crate) fn wanted_targets(&self, name: &ServiceName) -> usize {
        self.desired.services.get(name).map_or(1, |desired| match desired.run.runtime {
            model::Runtime::Static => {
                let running = self.running_release(name).map_or(0, |release| release.addresses.len());
                running.max(1)
            }
            model::Runtime::Process { .. } => usize::from(desired.run.targets),
        })
    }

    fn drained(&self, name: &ServiceName, version: &VersionName, in_state_ms: u64, drain_ms: u64) -> Option<Event> {
        // Nobody new comes once the snapshot is acknowledged; until then zero means nothing.
        if self.all_acknowledged() && !self.data_plane.has_forerunners() && self.data_plane.in_flight(name, version) == 0 {
            return Some(Event::Drained { cut: 0 });
        }
        let left = Duration::from_millis(drain_ms.saturating_sub(in_state_ms));
        self.data_plane.end_tunnels(name, version, Duration::from_millis(drain_ms), left);
        (in_state_ms >= drain_ms).then(|| Event::Drained { cut: self.data_plane.cut(name, version) })
    }

    /// Why the candidate is not good enough, if it is not. More errors than allowed means: more than stable had before, plus
    /// the allowed share.
    fn watch_failure(&self, name: &ServiceName, candidate: &VersionName) -> Option<String> {
        let strategy = &self.desired.services.get(name)?.strategy;
        let mut entries = self.targets.values().filter(|entry| entry.serves(name, candidate)).peekable();
        if entries.peek().is_some() && entries.all(|entry| entry.fallen) {
            return Some(format!("no target of {candidate} is healthy any more"));
        }
        let watch = self.watches.get(name)?;
        let seen = difference(self.data_plane.counts(name, candidate), watch.candidate);
        if seen.requests < strategy.watch_requests_min.max(1) {
            return None;
        }
        let before = share(watch.stable).unwrap_or(0.0);
        let now = share(seen)?;
        let allowed = before + f64::from(strategy.watch_errors_max) / 10_000.0;
        // One failure among the first fifty is chance.
        let decides = judge::ln_evidence_over(allowed, seen.bad, seen.requests) >= WATCH_EVIDENCE.ln();
        (now > allowed && decides).then(|| {
            let was = if watch.stable.requests > 0 { format!(", {:.2} % before", before * 100.0) } else { String::new() };
            format!("{} of {} {} failed on {candidate} ({:.2} %{was})", seen.bad, seen.requests, self.units_of(name), now * 100.0)
        })
    }

    fn switched(&mut self, name: &ServiceName) {
        let Some(began) = self.switch_began.remove(name) else { return };
        let took_us = began.elapsed().as_micros() as u64;
        self.last_switch_us.insert(name.clone(), took_us);
        let (mine, others) = std::mem::take(&mut self.switching).into_iter().partition(|waiting| waiting.service == *name);
        self.switching = others;
        for waiting in Vec::<crate::engine::Waiting>::from_iter::<Vec<_>>(mine) {
            let _ = waiting.reply.send(Ok(serde_json::json!({
                "service": name, "release": waiting.release, "from": waiting.from, "to": waiting.to, "hot": waiting.hot, "since": waiting.since,
                "took_us": waiting.began.elapsed().as_micros() as u64,
            })));
        }
    }

    /// A target of ours ended without being asked to.
    pub(crate) async fn exited_by_itself(&mut self, kept: &Kept, what: &str) {
        let key = (kept.service.clone(), kept.version.clone());
        let now = self.now();
        let restarts = self.restarts.entry(key).or_default();
        restarts.count += 1;
        restarts.not_before = now + (100u64 << restarts.count.min(10)).min(BACK_OFF_MAX_MS);
        let count = restarts.count;
        let Some(release) = self.running_release(&kept.service) else { return };
        if release.candidate != kept.version {
            return;
        }
        let lines = last_lines(&self.log_file(&kept.service, &kept.version), kept.log_from);
        match release.state {
            State::Starting if count >= START_EXITS_MAX => {
                let reason = format!("{what}, {count} times while it started{lines}{}", exit_hint(&kept.service, what));
                self.apply(&kept.service, Event::StartFailed { reason }).await;
            }
            State::Gating { .. } | State::AwaitingPromotion => {
                self.apply(&kept.service, Event::StartFailed { reason: format!("{what}{lines}") }).await;
            }
            State::Switching | State::Draining | State::Watching if release.kind == Kind::Deploy => {
                if let Some(event) = self.watch_failed(&kept.service, format!("{what}{lines}")).await {
                    self.apply(&kept.service, event).await;
                }
            }
            // One of the targets that the next step needs: it is started again, as at the beginning.
            State::Preparing { .. } if count < START_EXITS_MAX && self.has_healthy(&kept.service, &kept.version) => {}
            State::StepGating { .. } | State::Preparing { .. } | State::Raising { .. } | State::Judging { .. } => {
                self.regressed(&kept.service, format!("{what}{lines}")).await;
            }
            State::Switching | State::Draining | State::Watching => {}
            State::Starting | State::Returning { .. } | State::Retiring { .. } | State::Ended { .. } => {}
        }
    }

    pub(crate) async fn start_failed(&mut self, kept: &Kept, error: &str) {
        let not_before = self.now() + START_AGAIN_MS;
        self.restarts.entry((kept.service.clone(), kept.version.clone())).or_default().not_before = not_before;
        let starting = self
            .running_release(&kept.service)
            .is_some_and(|release| release.candidate == kept.version && matches!(release.state, State::Starting));
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
        self.thaw(name).await;
        let must_run = match (self.services.get(name), self.desired.services.get(name)) {
            (Some(service), Some(_)) => self.must_run(service),
            _ => Vec::new(),
        };
        let too_many: Vec<TargetId> = self
            .targets
            .values()
            .filter(|entry| entry.kept.service == *name && entry.kept.ours && !must_run.contains(&entry.kept.version))
            .filter(|entry| !entry.leaves())
            .map(|entry| entry.kept.id.clone())
            .collect();
        if !too_many.is_empty() {
            for id in too_many {
                self.retire_target(&id).await;
            }
            self.publish();
        }
        let ours = self.desired.services.get(name).is_some_and(|it| matches!(it.run.runtime, model::Runtime::Process { .. }));
        if !ours {
            return;
        }
        let now = self.now();
        for version in must_run {
            let wanted = self.wanted_of(name, &version);
            let restarts = self.restarts.get(&(name.clone(), version.clone())).copied().unwrap_or_default();
            if restarts.not_before > now || restarts.count >= CRASH_LOOP_MAX {
                continue;
            }
            if self.is_only_standby(name, &version) && !self.serves_healthy(name) {
                continue;
            }
            let running: Vec<(TargetId, bool)> = self
                .targets
                .values()
                .filter(|entry| entry.serves(name, &version) && entry.replaced_by.is_none())
                .map(|entry| (entry.kept.id.clone(), entry.healthy))
                .collect();
            for _ in running.len()..wanted {
                if let Err(error) = self.start_target(name, &version).await {
                    eprintln!("error: service {name}: cannot start {version}: {error}");
                    self.restarts.entry((name.clone(), version.clone())).or_default().not_before = now + START_AGAIN_MS;
                    break;
                }
            }
            self.retire_surplus(&running, wanted).await;
        }
    }

    /// More than wanted, after `targets` was lowered or a restart was cut short: the oldest go, once the others are healthy.
    async fn retire_surplus(&mut self, running: &[(TargetId, bool)], wanted: usize) {
        let healthy: Vec<&TargetId> = running.iter().filter(|(_, healthy)| *healthy).map(|(id, _)| id).collect();
        // Ids begin with the time.
        for id in healthy.iter().take(healthy.len().saturating_sub(wanted)) {
            self.retire_target(id).await;
            self.publish();
        }
    }

    /// After a reboot the version that serves starts before the one that stands by.
    fn is_only_standby(&self, name: &ServiceName, version: &VersionName) -> bool {
        self.services.get(name).is_some_and(|service| {
            service.running_release().is_none() && service.standby.as_ref().is_some_and(|standby| standby.version == *version)
        })
    }

    fn has_healthy(&self, name: &ServiceName, version: &VersionName) -> bool {
        self.targets.values().any(|entry| entry.serves(name, version) && entry.healthy)
    }

    fn serves_healthy(&self, name: &ServiceName) -> bool {
        let serving = self.services.get(name).and_then(Service::serving);
        serving.is_some_and(|serving| self.has_healthy(name, serving))
    }

    pub(crate) async fn mark_irreversible(&mut self, name: &ServiceName, gate: &str) -> Result<(), String> {
        let Some(service) = self.services.get(name) else { return Ok(()) };
        let mut next = service.clone();
        if let Some(release) = next.release.as_mut() {
            release.irreversible = Some(gate.to_owned());
        }
        self.advance(next, "irreversible", vec![]).await.map_err(|rejected| rejected.message)
    }

    pub(crate) fn first_address(&self, service: &ServiceName, version: &VersionName) -> Option<std::net::SocketAddr> {
        self.targets.values().find(|entry| entry.serves(service, version)).map(|entry| entry.kept.address)
    }

    pub(crate) async fn forget_service(&mut self, name: &ServiceName) {
        let batch = Batch { deletes: vec![format!("service/{name}")], ..Batch::default() };
        if self.store.commit(batch).await.is_ok() {
            self.services.remove(name);
        }
        let elsewhere = self.targets.values().filter(|entry| entry.kept.service == *name && !entry.kept.ours);
        let elsewhere: Vec<TargetId> = elsewhere.map(|entry| entry.kept.id.clone()).collect();
        for id in elsewhere {
            self.forget_target(&id).await;
        }
    }
}

/// What a new user most often has wrong when the check gets this answer.
fn answer_hint(name: &ServiceName, answer: &str) -> String {
    let hint = match answer {
        answer if answer.ends_with("→ 404") => format!("is `services.{name}.health.path` the right one?"),
        answer if answer.contains("refused") => {
            "does it listen on 127.0.0.1 and the port that it is given as `{port}` and in PORT?".to_owned()
        }
        _ => return String::new(),
    };
    format!("\n  hint: {hint}")
}

/// 127 is the shell's, and our, code for a command that cannot be run.
fn exit_hint(name: &ServiceName, what: &str) -> String {
    if !what.contains("exit code 127") {
        return String::new();
    }
    format!("\n  hint: it is `services.{name}.run.command`; a relative path begins in `run.cwd`, by default the folder of the file")
}

pub(crate) fn difference(now: Counts, then: Counts) -> Counts {
    let requests = now.requests.saturating_sub(then.requests);
    // A connection that was opened before may turn out bad now.
    Counts { requests, bad: now.bad.saturating_sub(then.bad).min(requests) }
}

/// Share of bad requests, 0 to 1.
pub(crate) fn share(counts: Counts) -> Option<f64> {
    (counts.requests > 0).then(|| counts.bad as f64 / counts.requests as f64)
}

pub(crate) fn began(name: &ServiceName, release: &Release) -> String {
    let (number, candidate) = (release.number, &release.candidate);
    match &release.stable {
        Some(stable) => {
            let strategy = match release.settings.steps() {
                [] if release.kind == Kind::Rollback => "rollback".to_owned(),
                [] => "blue/green".to_owned(),
                steps => format!("canary: {}", steps.iter().map(|step| percent_of(step.weight)).collect::<Vec<_>>().join(" → ")),
            };
            let unjudged = match release.settings.canary.as_ref().map(|canary| &canary.analysis) {
                Some(model::Analysis::None { reason }) => format!("; not judged: {reason}"),
                _ => String::new(),
            };
            format!("{name} {stable} → {candidate}   release {number}, {strategy}{unjudged}")
        }
        None => format!("{name} → {candidate}   release {number}, first deployment: no steps, it serves when healthy"),
    }
}

fn percent_of(weight: model::Weight) -> String {
    crate::said::weight(f64::from(weight) / f64::from(model::WEIGHT_SUM))
}

/// In words: `2.3 ms`, `1.4 s`, `10 min`.
pub(crate) fn in_words(ms: f64) -> String {
    match ms {
        ms if ms < 1_000.0 => format!("{ms:.1} ms"),
        ms if ms < 120_000.0 => format!("{:.1} s", ms / 1_000.0).replace(".0 s", " s"),
        ms => format!("{:.0} min", ms / 60_000.0),
    }
}

impl Caretaker {
    /// What is told of a step, in the words of the progress lines.
    pub(crate) fn told(&self, next: &Service, before: &Release, event: &Event) -> Vec<(&'static str, String)> {
        let Some(release) = &next.release else { return Vec::new() };
        let name = &next.name;
        let took_ms = release.entered_at.saturating_sub(before.entered_at) as f64;
        let mut told = Vec::new();
        match (&before.state, event) {
            (State::Starting, Event::TargetsBecameHealthy) => {
                let count = self.targets.values().filter(|entry| entry.serves(name, &release.candidate)).count();
                told.push(("healthy", format!("healthy    {count} of {count} in {}", in_words(took_ms))));
                if release.state.previews_candidate() && !self.is_tcp(name) {
                    let host = self.desired.services.get(name).map(|desired| release::preview_host(desired, name, &release.candidate));
                    told.push((
                        "preview",
                        format!("preview    host {}, or field x-changeover-version: {}", host.unwrap_or_default(), release.candidate),
                    ));
                }
            }
            (_, Event::GatePassed { gate }) => {
                let gate = before.settings.gate(*gate).map(|gate| gate.name.clone()).unwrap_or_default();
                told.push(("gate_passed", format!("gate       {gate}: passed in {}", in_words(took_ms))));
            }
            (State::Switching, Event::SnapshotAcknowledged) => {
                let took = self.last_switch_us.get(name).map(|us| format!(" in {}", in_words(*us as f64 / 1_000.0))).unwrap_or_default();
                let kept = release.stable.as_ref().map(|stable| standby::kept_line(stable, &release.settings)).unwrap_or_default();
                told.push(("switched", format!("switch     {} serves{took}{kept}", release.candidate)));
            }
            (State::Raising { step }, Event::SnapshotAcknowledged) => {
                let took = self.last_switch_us.get(name).map(|us| format!(" in {}", in_words(*us as f64 / 1_000.0))).unwrap_or_default();
                let (steps, weight) = (release.settings.steps().len(), percent_of(release.weight()));
                let units = if self.is_tcp(name) { "new connections" } else { "requests" };
                let text = format!("step {}/{steps}   {weight} of {units} go to {}{took}", step + 1, release.candidate);
                told.push(("step", text));
            }
            (State::Judging { .. }, Event::Advanced { .. }) => {
                let said = self.analyses.get(name).and_then(|analysis| analysis.last.as_ref());
                let said = said.filter(|said| said.action == judge::Action::Advance).map(|said| said.sentence.clone());
                let mirrored = || self.mirrored_line(name, before);
                let text = said.or_else(mirrored).unwrap_or_else(|| "the step has lasted its time; nothing was judged".to_owned());
                told.push(("advanced", format!("advance    {text}, after {}", in_words(took_ms))));
            }
            (State::Returning { .. }, Event::SnapshotAcknowledged) => {
                let took = self.last_switch_us.get(name).map(|us| format!(" in {}", in_words(*us as f64 / 1_000.0))).unwrap_or_default();
                let stable = release.stable.as_ref().map(ToString::to_string).unwrap_or_default();
                told.push(("returned", format!("return     {stable} serves again{took}")));
            }
            (State::Draining, Event::Drained { cut }) => told.push(("drained", drain_line(*cut, took_ms, self.is_tcp(name)))),
            (State::Retiring { .. }, Event::Drained { cut }) if *cut > 0 => {
                told.push(("drained", drain_line(*cut, took_ms, self.is_tcp(name))))
            }
            (_, Event::WatchFailed { reason }) => told.push(("watch_failed", format!("watch      failed: {reason}"))),
            (_, Event::WatchPassed) => told.push(("watch_passed", self.watch_line(name, &release.candidate))),
            _ => {}
        }
        match &release.state {
            State::AwaitingPromotion => {
                let tried = match self.is_tcp(name) {
                    true => "runs, and gets no connection yet",
                    false => "can be previewed",
                };
                let text = format!("waiting    for `changeover promote {name}`; {} {tried}", release.candidate);
                told.push(("awaiting_promotion", text));
            }
            State::Draining => {
                let stable = release.stable.as_ref().map_or(0, |stable| self.data_plane.in_flight(name, stable));
                if stable > 0 {
                    let most = in_words(release.settings.drain_ms as f64);
                    let text = match self.is_tcp(name) {
                        false => format!("drain      {stable} still run on the old version (at most {most})"),
                        true => format!("drain      {stable} open on the old version (they may stay for {most})"),
                    };
                    told.push(("draining", text));
                }
            }
            State::Watching if !matches!(before.state, State::Watching) => {
                told.push(("watching", format!("watch      {} …", in_words(release.settings.watch_ms as f64))));
            }
            State::Ended { ending } => {
                let kind = match ending.outcome {
                    Outcome::Promoted => "promoted",
                    Outcome::RolledBack => "rolled_back",
                    Outcome::Aborted => "aborted",
                    Outcome::Failed => "failed",
                    Outcome::Withdrawn => "withdrawn",
                    Outcome::Superseded => "superseded",
                };
                let ran = release.migrated.iter().chain(&release.irreversible).next();
                let serves_on = match (ending.outcome, &release.stable) {
                    (Outcome::Failed, Some(stable)) if ran.is_some() => {
                        format!("\n  {stable} serves on; the migration `{}` has run", ran.map_or("", String::as_str))
                    }
                    (Outcome::Failed, Some(stable)) => format!("\n  {stable} serves on, nothing changed"),
                    (Outcome::Failed, None) => "\n  nothing serves yet, as before".to_owned(),
                    _ => String::new(),
                };
                told.push((kind, format!("{}{serves_on}", ending.reason)));
            }
            _ => {}
        }
        told
    }

    fn watch_line(&self, name: &ServiceName, candidate: &VersionName) -> String {
        let Some(watch) = self.watches.get(name) else { return "watch      ok".to_owned() };
        let seen = difference(self.data_plane.counts(name, candidate), watch.candidate);
        let (percent, units) = (|share: f64| format!("{:.2} %", share * 100.0), self.units_of(name));
        match (share(seen), share(watch.stable)) {
            (Some(now), Some(before)) => {
                format!("watch      ok: {} {units}, errors {} (was {})", seen.requests, percent(now), percent(before))
            }
            (Some(now), None) => format!("watch      ok: {} {units}, errors {}", seen.requests, percent(now)),
            (None, _) => format!("watch      ok: healthy, but no {} came", units.trim_end_matches('s')),
        }
    }
}

fn drain_line(cut: usize, took_ms: f64, is_tcp: bool) -> String {
    let took = in_words(took_ms);
    match (cut, is_tcp) {
        (0, _) => format!("drain      all finished in {took}"),
        (cut, false) => format!("drain      {cut} cut after {took}"),
        (1, true) => format!("drain      1 connection cut after {took}"),
        (cut, true) => format!("drain      {cut} connections cut after {took}"),
    }
}
