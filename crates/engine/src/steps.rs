//! A canary at its steps: the targets and copies that a step needs, taking back, and what a person says. Not here: looking (looks).

use model::{GateKind, ServiceName, VersionName, WEIGHT_SUM, thousands};
use release::{Event, Outcome, Refusal, Release, Service, State};
use serde_json::{Value, json};

use crate::analysis::is_judged;
use crate::command::Rejected;
use crate::commands::{no_release, refused};
use crate::edge::Counts;
use crate::engine::Caretaker;
use crate::fault_points;
use crate::logs::last_lines;
use crate::releases::{difference, in_words, share};
use crate::said::weight;
use crate::take_back::TakenBack;

/// Fewer copies say nothing.
const COPIES_MIN: u64 = 100;
/// Between two weights: three epochs must not share a second.
const RAISE_MIN_S: u64 = 2;

impl Caretaker {
    /// The candidate is worse than stable, or does not run: traffic goes back, unless a migration has ruled stable out.
    pub(crate) async fn regressed(&mut self, name: &ServiceName, reason: String) {
        let Some(release) = self.running_release(name).cloned() else { return };
        let Some(gate) = release.irreversible.clone() else {
            return self.take_candidate_back(name, Event::Regressed { reason }, Outcome::RolledBack).await;
        };
        if release.paused.is_some() || !self.warned.insert(release.id.clone()) {
            return;
        }
        let why = format!(
            "{reason}; it is not taken back, because the migration `{gate}` cannot be undone \
            (when the old version can work with the new data: changeover abort {name} --force)"
        );
        let _ = self.pause_release(name, "changeover", Some(why)).await;
    }

    pub(crate) async fn take_candidate_back(&mut self, name: &ServiceName, event: Event, outcome: Outcome) {
        let Some(service) = self.services.get(name) else { return };
        let Some(release) = service.running_release().cloned() else { return };
        let next = match service.apply(&event, self.now()) {
            Ok(next) => next,
            Err(illegal) => return eprintln!("service {name}: {} means nothing in {}", illegal.event, illegal.state),
        };
        let (Event::Regressed { reason } | Event::Withdrawn { reason }) = &event else { return };
        let told = if outcome == Outcome::Withdrawn { "withdrawn_from" } else { "regressed" };
        let text = format!("{}  {reason}", if outcome == Outcome::Withdrawn { "withdraw " } else { "regressed" });
        let record = TakenBack::Release { service: name.clone(), release: release.id.clone(), outcome, reason: reason.clone() };
        self.take_back(next, event.name(), (told, text), record).await;
        self.perform(name).await;
        fault_points::crash(release.number, (release.state.name(), event.name()), "performed");
    }

    /// What the state `Preparing` waits for: the step's targets, and nobody who holds it.
    pub(crate) async fn preparing(&mut self, name: &ServiceName, release: &Release, step: usize, in_state_ms: u64) {
        let is_young =
            self.analyses.get(name).filter(|it| it.release == release.id).is_some_and(|it| it.scales.is_young(self.data_plane.second()));
        if release.paused.is_some() || is_young && release.weight() > 0 || self.now() < self.not_before {
            return;
        }
        let wanted = self.wanted_of(name, &release.candidate);
        let healthy_of = |version: &VersionName| self.targets.values().filter(|it| it.serves(name, version) && it.healthy).count();
        let healthy = healthy_of(&release.candidate);
        let lame = release.baseline().filter(|baseline| healthy_of(baseline) < wanted);
        if healthy >= wanted && lame.is_none() {
            // Nobody is compared with a stable that is down, and nobody goes back to it.
            if release.stable.as_ref().is_some_and(|stable| healthy_of(stable) == 0) {
                return;
            }
            return Box::pin(self.apply(name, Event::TargetsBecameHealthy)).await;
        }
        if in_state_ms >= release.settings.start_timeout_ms {
            let lines = self.targets.values().find(|entry| entry.serves(name, &release.candidate) && !entry.healthy);
            let lines = lines.map(|entry| last_lines(&self.log_file(name, &release.candidate), entry.kept.log_from)).unwrap_or_default();
            let weight = weight(f64::from(release.settings.steps()[step].weight) / f64::from(WEIGHT_SUM));
            let timeout = in_words(release.settings.start_timeout_ms as f64);
            let (who, healthy) = match &lame {
                Some(baseline) if healthy >= wanted => (baseline, healthy_of(baseline)),
                _ => (&release.candidate, healthy),
            };
            let reason = format!("{who} has {healthy} healthy targets after {timeout}, and the step to {weight} needs {wanted}{lines}");
            self.regressed(name, reason).await;
        }
    }

    /// A step that nothing is judged at lasts its dwell; the judge has the word at all others.
    pub(crate) async fn judging(&mut self, name: &ServiceName, release: &Release, step: usize, in_state_ms: u64) -> Option<Event> {
        let canary = release.settings.canary.as_ref()?;
        let is_judged = is_judged(release) && matches!(canary.analysis, model::Analysis::Judged(_));
        let mut over = !is_judged && release.paused.is_none() && in_state_ms >= canary.steps[step].dwell_ms;
        if release.weight() == 0 && canary.mirror.is_some() {
            let [copies, stable] = self.mirrored(name, release);
            if let Some(reason) = copies_fail(&release.candidate, copies, stable) {
                self.regressed(name, reason).await;
                return None;
            }
            // Nothing measured is never a pass.
            over &= copies.requests > 0;
        }
        over.then_some(Event::Advanced { step, full: false })
    }

    /// What copies and stable's own requests came to in this step.
    fn mirrored(&mut self, name: &ServiceName, release: &Release) -> [Counts; 2] {
        let of = |version: Option<&VersionName>| version.map(|version| self.data_plane.counts(name, version)).unwrap_or_default();
        let now = [self.data_plane.mirrored(name, &release.candidate), of(release.stable.as_ref())];
        let since = self.mirrors.entry(name.clone()).or_insert_with(|| (release.id.clone(), now));
        if since.0 != release.id {
            *since = (release.id.clone(), now);
        }
        [difference(now[0], since.1[0]), difference(now[1], since.1[1])]
    }

    /// What is told of a step that was lived through on copies.
    pub(crate) fn mirrored_line(&self, name: &ServiceName, release: &Release) -> Option<String> {
        let (_, since) = self.mirrors.get(name).filter(|(id, _)| *id == release.id)?;
        let copies = difference(self.data_plane.mirrored(name, &release.candidate), since[0]);
        let percent = share(copies)? * 100.0;
        Some(format!("{percent:.2} % of {} copies failed on {}", thousands(copies.requests), release.candidate))
    }

    /// How many targets a version needs now: a canary's step may need fewer than stable.
    pub(crate) fn wanted_of(&self, name: &ServiceName, version: &VersionName) -> usize {
        let all = self.wanted_targets(name);
        let release = self.running_release(name);
        let release = release.filter(|release| release.candidate == *version || release.baseline().as_ref() == Some(version));
        let Some(release) =
            release.filter(|_| matches!(self.desired.services.get(name).map(|it| &it.run.runtime), Some(model::Runtime::Process { .. })))
        else {
            return all;
        };
        let steps = release.settings.steps();
        let step = match release.state {
            State::Starting | State::Gating { .. } | State::AwaitingPromotion if release.stable.is_some() => steps.first(),
            // Before a gate has passed, what the step needs is not started.
            State::StepGating { step, .. } => step.checked_sub(1).map_or(steps.first(), |before| steps.get(before)),
            State::Preparing { step, .. } | State::Raising { step } | State::Judging { step } => steps.get(step),
            _ => None,
        };
        step.and_then(|step| step.targets).map_or(all, usize::from)
    }

    pub(crate) async fn pause_release(&mut self, name: &ServiceName, who: &str, why: Option<String>) -> Result<Value, Rejected> {
        let service = self.service(name)?;
        let next = service.pause(who, why.clone(), self.now()).map_err(|refusal| refused(name, &refusal))?;
        let was = service.running_release().and_then(|release| release.paused.clone());
        let release = next.running_release().cloned().ok_or_else(|| no_release(name))?;
        if was.is_none() {
            let because = why.map(|why| format!(": {why}")).unwrap_or_default();
            let text = format!("paused     at {} by {who}{because}", weight(f64::from(release.weight()) / f64::from(WEIGHT_SUM)));
            self.advance(next, "pause", vec![("paused", text)]).await?;
        }
        Ok(json!({ "service": name, "release": release.number, "weight": release.weight(), "paused": release.paused }))
    }

    pub(crate) async fn unpause_release(&mut self, name: &ServiceName, who: &str) -> Result<Value, Rejected> {
        let (next, held_ms) = match self.service(name)?.unpause(self.now()) {
            // Asked twice, it goes on all the same.
            Err(Refusal::NotPaused) => {
                let release = self.running_release(name).ok_or_else(|| no_release(name))?;
                return Ok(json!({ "service": name, "release": release.number, "paused": null }));
            }
            unpaused => unpaused.map_err(|refusal| refused(name, &refusal))?,
        };
        let number = next.release.as_ref().map(|release| release.number);
        let text = format!("goes on    after {} ({who})", in_words(held_ms as f64));
        self.advance(next, "unpause", vec![("unpaused", text)]).await?;
        self.perform(name).await;
        Ok(json!({ "service": name, "release": number, "paused": null }))
    }

    /// A person lets a canary go on: from its step, or past an approval. `step` counts from 1: the one the person looks at.
    pub(crate) async fn promote_step(
        &mut self,
        name: &ServiceName,
        release: &Release,
        who: &str,
        (full, step, why): (bool, Option<usize>, Option<String>),
    ) -> Result<Value, Rejected> {
        let conflict = |text: String| Rejected::new("conflict", text).hint(format!("changeover status {name}"));
        // The step whose weight is set: what comes next is not looked at yet.
        let at = match release.state {
            State::Raising { step } | State::Judging { step } => Some(step + 1),
            State::StepGating { step, .. } | State::Preparing { step, .. } => Some(step),
            _ => None,
        };
        if let (Some(wanted), Some(at)) = (step, at)
            && wanted != at
        {
            let now = weight(f64::from(release.weight()) / f64::from(WEIGHT_SUM));
            return Err(conflict(format!("{name} has moved on: it is at step {at} ({now}), not {wanted}; nothing was done")));
        }
        let event = match release.state {
            State::Judging { step } => {
                let age_s = self.now().saturating_sub(release.entered_at) / 1_000;
                if age_s < RAISE_MIN_S {
                    return Err(conflict(format!("the weight of {name} was set less than {RAISE_MIN_S} s ago; nothing was done")));
                }
                Event::Advanced { step, full }
            }
            State::StepGating { gate, .. } | State::Gating { gate }
                if matches!(release.settings.gate(gate).map(|gate| &gate.kind), Some(GateKind::Approval { .. })) =>
            {
                if full {
                    return Err(conflict(format!("{name} waits for an approval: first `changeover promote {name}`, then `--full`")));
                }
                Event::GatePassed { gate }
            }
            _ => {
                let state = release.state.name().replace('_', " ");
                return Err(conflict(format!("release {} of {name} has nothing to promote: it is {state}", release.number)));
            }
        };
        let since = self.last_seq();
        let mut next = self.service(name)?.apply(&event, self.now()).map_err(|illegal| refused(name, &Refusal::Illegal(illegal)))?;
        // Whoever promotes does not hold it.
        if let Some(release) = next.release.as_mut() {
            release.paused = None;
        }
        let because = why.map(|why| format!(": {why}")).unwrap_or_default();
        let to = if full { " to everybody" } else { "" };
        self.advance(next, event.name(), vec![("promotion", format!("promoted   {}by {who}{to}{because}", what(&event)))]).await?;
        self.perform(name).await;
        fault_points::crash(release.number, (release.state.name(), event.name()), "performed");
        Ok(json!({ "service": name, "release": release.number, "since": since }))
    }

    /// A candidate that was taken back is stopped when its time is over.
    pub(crate) async fn look_at_kept(&mut self, name: &ServiceName) {
        let now = self.now();
        let Some(service) = self.services.get(name) else { return };
        let Some(kept) = service.kept.as_ref().filter(|kept| kept.until <= now && service.running_release().is_none()) else { return };
        let text = format!("{} is stopped", kept.version);
        let next = Service { kept: None, ..service.clone() };
        if self.advance(next, "kept_ended", vec![("kept_ended", text)]).await.is_ok() {
            self.reconcile(name).await;
        }
    }
}

/// No comparison of the judge's, since a copy is no request: only what is plain.
fn copies_fail(candidate: &VersionName, copies: Counts, stable: Counts) -> Option<String> {
    let (of_copies, of_stable) = (share(copies)?, share(stable).unwrap_or(0.0));
    let fails = copies.requests >= COPIES_MIN && of_copies > 0.5 && 2.0 * of_stable < of_copies;
    fails.then(|| format!("{} of {} copies of requests failed on {candidate}", thousands(copies.bad), thousands(copies.requests)))
}

fn what(event: &Event) -> &'static str {
    if matches!(event, Event::GatePassed { .. }) { "approved " } else { "" }
}
