//! A canary at its steps: looks once a second, acts on what the judge says, and does what a person says.

use std::time::Duration;

use judge::{Action, Scales, Tallies};
use model::{GateKind, GuardMetric, ReleaseId, ServiceName, VersionName, WEIGHT_SUM};
use release::{Event, Outcome, Refusal, Release, Service, State};
use serde_json::{Value, json};

use crate::analysis::{Analysis, SILENT_S, Said, is_judged, judged_step, key, look_key, thousands, weight};
use crate::command::{Input, Rejected};
use crate::commands::{no_release, refused};
use crate::edge::Counts;
use crate::engine::{Caretaker, unavailable, wall_ms};
use crate::fault_points;
use crate::logs::last_lines;
use crate::measure::measure;
use crate::releases::{difference, in_words, share};
use crate::reserve::TakenBack;
use crate::store::Batch;

/// Of a guard rail on errors, which is looked at every second on the last seconds.
const GUARD_EVIDENCE: f64 = 1_000.0;
/// Fewer copies say nothing.
const COPIES_MIN: u64 = 100;
/// Between two weights: three epochs must not share a second.
const RAISE_MIN_S: u64 = 2;
/// Of so many releases of a service every look is kept; of those before, their history.
const LOOKED_AT_MAX: u64 = 50;
/// Longer without a look, and how open units ended is not known.
const SILENT_MAX_S: u64 = 5;
/// A look is recorded when something changes, and at least so often.
const RECORD_EVERY_S: u64 = 10;
/// Later in a step, so often: a day of it stays small.
const RECORD_SELDOM_S: u64 = 60;
const SELDOM_AFTER_S: u64 = 3_600;

impl Caretaker {
    /// The scales as they must be for the state that comes: a step that begins opens its epoch in the same transaction.
    pub(crate) fn analysis_for(&self, next: &Service) -> Option<Analysis> {
        let release = next.running_release()?;
        let State::Raising { step } = release.state else { return None };
        let model::Analysis::Judged(judging) = &release.settings.canary.as_ref()?.analysis else { return None };
        if !is_judged(release) {
            return None;
        }
        let stable = release.stable.as_ref()?;
        let heads = self.data_plane.heads(&next.name, stable);
        let known = self.analyses.get(&next.name).filter(|analysis| analysis.release == release.id).cloned();
        if known.as_ref().is_some_and(|analysis| analysis.step == Some(step)) {
            return None;
        }
        let phi = || self.data_plane.overdispersion(&next.name, stable);
        let mut analysis = known.or_else(|| Analysis::new(release, judging, &heads, phi()))?;
        analysis.begin_step(release, step, &heads);
        Some(analysis)
    }

    /// What the data plane counts for this service.
    pub(crate) fn judged(&self, service: &Service) -> Option<model::Judged> {
        let release = service.running_release().filter(|release| is_judged(release))?;
        self.analyses.get(&service.name).filter(|analysis| analysis.release == release.id).map(Analysis::judged)
    }

    /// After a start: what was counted by a worker that is gone stays, what it had open is closed.
    pub(crate) async fn recover_analyses(&mut self) {
        let running = self.services.values().filter_map(|service| Some((service.name.clone(), service.running_release()?.number)));
        for (name, number) in running.collect::<Vec<_>>() {
            let kept = self.store.values(&key(&name, number)).await;
            match kept.first().map(|(_, text)| serde_json::from_str::<Analysis>(text)) {
                Some(Ok(mut analysis)) => {
                    analysis.scales.abandon();
                    self.analyses.insert(name, analysis);
                }
                Some(Err(error)) => eprintln!("error: service {name}: the analysis of release {number} is unreadable: {error}"),
                None => {}
            }
        }
    }

    /// Looks of releases that are long over.
    pub(crate) async fn forget_looks(&mut self, name: &ServiceName) {
        let Some(oldest) = self.running_release(name).and_then(|release| release.number.checked_sub(LOOKED_AT_MAX)) else { return };
        let range = |of: &str| (format!("{of}/{name}/"), format!("{of}/{name}/{oldest:08}"));
        let delete_ranges = vec![range("look"), range("analysis")];
        let _ = self.store.commit(Batch { delete_ranges, ..Batch::default() }).await;
    }

    /// All data threads draw by the newest table.
    pub(crate) fn analyses_acknowledged(&mut self) {
        let now_s = self.data_plane.second();
        let judged: Vec<ServiceName> = self.services.values().filter(|it| self.judged(it).is_some()).map(|it| it.name.clone()).collect();
        for name in judged {
            if let Some(analysis) = self.analyses.get_mut(&name) {
                // A second that has begun may still hold draws by the table before.
                analysis.scales.acknowledged(now_s + 1);
            }
        }
    }

    /// Once a second: a look at each canary, kept together, and what follows from them.
    pub(crate) async fn look_at_analyses(&mut self) {
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        let looks: Vec<Look> = names.iter().filter_map(|name| self.look(name)).collect();
        if looks.is_empty() {
            return self.withdraw_what_is_unreadable(&names).await;
        }
        let takes_back = looks.iter().any(|look| matches!(look.said.action, Action::Rollback | Action::Withdraw));
        let puts = looks.iter().flat_map(|look| look.puts.clone()).collect();
        let kept = {
            // Taking back does not wait for the disk.
            let _urgent = takes_back.then(|| self.store.urgent());
            self.store.commit(Batch { puts, ..Batch::default() }).await
        };
        if let Err(error) = &kept {
            eprintln!("error: looks could not be kept: {}", unavailable(error).message);
        }
        for look in looks {
            if kept.is_ok() {
                self.analyses.insert(look.name.clone(), look.analysis);
                if look.opened {
                    self.publish();
                }
            } else if !matches!(look.said.action, Action::Rollback | Action::Withdraw) {
                continue;
            }
            self.act_on(&look.name, &look.release, &look.said).await;
        }
    }

    /// A look, if a second has passed; nothing follows from it before it is kept.
    fn look(&mut self, name: &ServiceName) -> Option<Look> {
        let release = self.running_release(name).filter(|release| is_judged(release)).cloned()?;
        if self.paused.contains_key(name) || fault_points::pauses(&release, &self.config.state_dir) {
            return None;
        }
        self.ask_metrics(name, &release);
        let before = self.analyses.get(name).filter(|analysis| analysis.release == release.id)?;
        // What could not be kept is not tried a hundred times a second.
        let tried_s = self.tried.get(name).copied().unwrap_or(0);
        let tried_s = if before.scales.looked_at() == 0 { 0 } else { tried_s };
        let counted = self.data_plane.counted(&release.id, before.scales.looked_at().max(tried_s))?;
        let mut analysis = before.clone();
        let (now_s, last_s) = (counted.complete_s, analysis.scales.looked_at());
        self.tried.insert(name.clone(), now_s);
        let recent = [&analysis.candidate, &analysis.compared].map(|version| self.data_plane.recent(name, version));
        if release.paused.is_some() && last_s > 0 {
            analysis.scales.was_paused(now_s - last_s);
        }
        if last_s > 0 && now_s - last_s > SILENT_MAX_S {
            // Cells of that gap may be gone, and with them how the units ended that were open.
            analysis.scales.abandon();
        }
        put(&mut analysis.scales, counted.cells);
        let outcome = analysis.scales.look(now_s);
        if analysis.scales.drawn_since(now_s.saturating_sub(1)) > 0 || analysis.last_draw_s == 0 {
            analysis.last_draw_s = now_s;
        }
        let mut said = analysis.said(&outcome, wall_ms(), recent);
        self.note_circumstances(&release, &analysis, &mut said, now_s);
        // A step that is passed opens its own epoch; no three share a second.
        let is_due = analysis.scales.is_due(now_s) && said.action != Action::Advance;
        // A metric counts from the next epoch on; an epoch more does no harm to the bounds, as long as no outcome opens it.
        let may_join = !analysis.knows_all_thresholds() && analysis.scales.may_open(now_s);
        let has_joined = (is_due || may_join) && analysis.join(&self.data_plane.heads(name, &analysis.stable));
        let opened = is_due || has_joined;
        if opened {
            analysis.scales.open_next(now_s);
        }
        let puts = record(name, &mut analysis, said.clone());
        Some(Look { name: name.clone(), release, analysis, said, opened, puts })
    }

    /// What was counted of a release cannot be read any more: nothing is known of its candidate.
    async fn withdraw_what_is_unreadable(&mut self, names: &[ServiceName]) {
        for name in names {
            let Some(release) = self.running_release(name).filter(|release| is_judged(release)) else { continue };
            let judges = matches!(release.settings.canary.as_ref().map(|it| &it.analysis), Some(model::Analysis::Judged(_)));
            let known = self.analyses.get(name).is_some_and(|analysis| analysis.release == release.id);
            if judges && !known && !self.paused.contains_key(name) {
                let reason = "measurement invalid: what was counted so far cannot be read".to_owned();
                self.take_candidate_back(name, Event::Withdrawn { reason }, Outcome::Withdrawn).await;
            }
        }
    }

    /// What is true of a look besides the judge's numbers.
    fn note_circumstances(&self, release: &Release, analysis: &Analysis, said: &mut Said, now_s: u64) {
        let silent_s = now_s.saturating_sub(analysis.last_draw_s);
        let plan = analysis.scales.plan();
        let is_over = analysis.scales.limit_age(now_s) >= plan.max_step;
        let holds = |said: &mut Said, reason: &str, sentence: String| {
            (said.action, said.verdict) = (Action::Hold, judge::Verdict::Inconclusive);
            (said.reason, said.sentence) = (reason.to_owned(), sentence);
        };
        if said.verdict == judge::Verdict::Expired && judged_step(release).is_none() {
            // It was passed already, and what the next one needs is awaited.
            holds(said, "dwell", "the step is passed; the next one is prepared".to_owned());
        }
        if silent_s >= SILENT_S && matches!(said.action, Action::Hold | Action::Ask) {
            let what = if analysis.scales.is_of_cohorts() { "new client" } else { "request" };
            said.sentence = format!("no {what} for {silent_s} s: nothing is measured, and the step holds");
            "no_traffic".clone_into(&mut said.reason);
        }
        if said.action == Action::Advance
            && let Some((name, why)) = self.silent_metric(analysis)
        {
            holds(said, &format!("metric:{name}"), format!("all requests are fine, but {name} gives nothing: {why}"));
        }
        if said.action == Action::Advance && is_over && plan.expired == judge::Expired::Ask {
            // Whom a person was told to decide on does not go on by itself.
            (said.action, said.verdict) = (Action::Ask, judge::Verdict::Expired);
            said.sentence = format!("{}, but only after the step's limit", said.sentence);
        }
        if !matches!(said.action, Action::Rollback | Action::Withdraw)
            && let Some(reason) = self.guard_failure(analysis)
        {
            (said.action, said.verdict) = (Action::Rollback, judge::Verdict::GuardRail);
            "guard".clone_into(&mut said.reason);
            said.sentence = reason;
        }
    }

    /// A metric that has a say and is silent: nothing measured is never a pass.
    fn silent_metric<'a>(&self, analysis: &'a Analysis) -> Option<(&'a str, String)> {
        let now = self.now();
        analysis.judging.metrics.iter().filter(|metric| !metric.dry_run).find_map(|metric| {
            let measurement = &analysis.measured[&metric.name];
            let too_old = measurement.at.is_none_or(|at| now.saturating_sub(at) > metric.missing_max_ms);
            let why = measurement.error.clone().unwrap_or_else(|| "it was not measured in this step yet".to_owned());
            (!measurement.in_step || too_old).then_some((metric.name.as_str(), why))
        })
    }

    /// A limit of the user's that the candidate breaks, whatever stable does.
    fn guard_failure(&self, analysis: &Analysis) -> Option<String> {
        let (candidate, least) = (&analysis.candidate, analysis.scales.plan().guard_min);
        analysis.judging.guards.iter().find_map(|guard| {
            let limit = guard.limit;
            match &guard.metric {
                GuardMetric::Errors => {
                    let seen = analysis.scales.recent_errors();
                    let share = seen.candidate_bad as f64 / seen.candidate_closed.max(1) as f64;
                    let decides = judge::ln_evidence_over(limit, seen.candidate_bad, seen.candidate_closed) >= GUARD_EVIDENCE.ln();
                    (seen.candidate_closed >= least && share > limit && decides).then(|| {
                        let (bad, all) = (thousands(seen.candidate_bad), thousands(seen.candidate_closed));
                        format!("errors of {candidate} break their limit of {}: {bad} of its last {all} requests", weight(limit))
                    })
                }
                GuardMetric::User(name) => {
                    let metric = analysis.judging.metrics.iter().find(|metric| metric.name == *name)?;
                    let (value, _) = analysis.measured.get(name)?.values?;
                    let breaks = if metric.higher_is_better { value < limit } else { value > limit };
                    breaks.then(|| format!("{name} of {candidate} breaks its limit of {limit}: {value}"))
                }
                latency => {
                    let (name, above) = match latency {
                        GuardMetric::P50 => ("p50", 0.5),
                        GuardMetric::P95 => ("p95", 0.05),
                        _ => ("p99", 0.01),
                    };
                    let (all, slower) = self.data_plane.slower(self.service_of(&analysis.release)?, candidate, limit);
                    let decides = judge::ln_evidence_over(above, slower, all) >= GUARD_EVIDENCE.ln();
                    (all >= least && decides).then(|| {
                        let (slower, all) = (thousands(slower), thousands(all));
                        format!("{name} of {candidate} breaks its limit of {limit:.0} ms: {slower} of its last {all} requests took longer")
                    })
                }
            }
        })
    }

    fn service_of(&self, release: &ReleaseId) -> Option<&ServiceName> {
        self.services.values().find(|service| service.release.as_ref().is_some_and(|it| it.id == *release)).map(|service| &service.name)
    }

    async fn act_on(&mut self, name: &ServiceName, release: &Release, said: &Said) {
        match said.action {
            Action::Rollback => self.regressed(name, said.sentence.clone()).await,
            Action::Withdraw => {
                let event = Event::Withdrawn { reason: format!("measurement invalid: {}", said.sentence) };
                self.take_candidate_back(name, event, Outcome::Withdrawn).await;
            }
            Action::Advance => {
                if let Some(step) = judged_step(release).filter(|_| release.paused.is_none()) {
                    Box::pin(self.apply(name, Event::Advanced { step, full: false })).await;
                }
            }
            Action::Hold | Action::Ask => self.tell_why_it_holds(name, said).await,
        }
    }

    /// Once in a step for each reason that a person should know of.
    async fn tell_why_it_holds(&mut self, name: &ServiceName, said: &Said) {
        let what = match (said.verdict, said.reason.as_str()) {
            (judge::Verdict::Expired, _) if said.action == Action::Ask => {
                format!("{}; a person decides: changeover promote {name}, or changeover abort {name}", said.sentence)
            }
            (judge::Verdict::Expired, _) => {
                format!(
                    "{}; the weight stays, and a verdict still acts (or: changeover promote {name}, changeover abort {name})",
                    said.sentence
                )
            }
            (_, "split" | "no_traffic") => said.sentence.clone(),
            (_, reason) if reason.starts_with("metric:") || reason.starts_with("phi:") => said.sentence.clone(),
            _ => return,
        };
        let told = format!("{:?}/{}", said.verdict, said.reason);
        let Some(analysis) = self.analyses.get_mut(name).filter(|analysis| !analysis.told.contains(&told)) else { return };
        analysis.told.push(told);
        self.tell(name, "holds", format!("holds      {what}")).await;
    }

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

    async fn take_candidate_back(&mut self, name: &ServiceName, event: Event, outcome: Outcome) {
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

    fn ask_metrics(&mut self, name: &ServiceName, release: &Release) {
        let now = self.now();
        let Some(analysis) = self.analyses.get_mut(name).filter(|analysis| analysis.release == release.id) else { return };
        for metric in &analysis.judging.metrics {
            let Some(measurement) = analysis.measured.get_mut(&metric.name).filter(|measurement| measurement.next_at <= now) else {
                continue;
            };
            measurement.next_at = now + metric.interval_ms;
            let (inputs, service, release, metric) = (self.inputs.clone(), name.clone(), release.clone(), metric.clone());
            let (candidate, stable, epoch) = (analysis.candidate.clone(), analysis.compared.clone(), analysis.scales.epoch());
            tokio::spawn(async move {
                let timeout = Duration::from_millis(metric.timeout_ms);
                let ask = |version| measure(&metric.source, &service, version, timeout);
                let (of_candidate, of_stable) = tokio::join!(ask(&candidate), ask(&stable));
                let of = |value: Result<f64, String>, version: &VersionName| value.map_err(|error| format!("{version}: {error}"));
                let values = of(of_candidate, &candidate).and_then(|value| Ok((value, of(of_stable, &stable)?)));
                let _ = inputs.send(Input::Measured { service, release: release.id, metric: metric.name, epoch, values });
            });
        }
    }

    /// What one interval of a metric gave.
    pub(crate) fn measured(
        &mut self,
        name: &ServiceName,
        release: &ReleaseId,
        metric: &str,
        epoch: u32,
        values: Result<(f64, f64), String>,
    ) {
        let now = self.now();
        let Some(analysis) = self.analyses.get_mut(name).filter(|analysis| analysis.release == *release) else { return };
        let Some(settings) = analysis.judging.metrics.iter().find(|it| it.name == metric).cloned() else { return };
        let warm_up_s = analysis.scales.plan().warm_up;
        let age_s = analysis.scales.step_age(now / 1_000).unwrap_or(0);
        // An interval that overlaps a weight change or a warm-up says nothing of this step.
        let is_whole = age_s >= warm_up_s + settings.interval_ms.div_ceil(1_000) && !analysis.scales.is_warming();
        let Some(measurement) = analysis.measured.get_mut(metric) else { return };
        match values {
            Ok((candidate, stable)) => {
                measurement.values = Some((candidate, stable));
                (measurement.error, measurement.missing_since, measurement.at) = (None, None, Some(now));
                if is_whole && epoch == analysis.scales.epoch() {
                    measurement.in_step = true;
                    let difference = if settings.higher_is_better { stable - candidate } else { candidate - stable };
                    if !settings.dry_run {
                        analysis.scales.observe(metric, difference);
                    }
                }
            }
            Err(error) => {
                measurement.missing_since.get_or_insert(now);
                measurement.error = Some(error);
            }
        }
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

/// A look that waits to be kept.
struct Look {
    name: ServiceName,
    release: Release,
    analysis: Analysis,
    said: Said,
    /// An epoch was opened: the data plane has to know.
    opened: bool,
    puts: Vec<(String, String)>,
}

/// What is written of a look: the scales always, the look itself when it is news or some time has passed.
fn record(name: &ServiceName, analysis: &mut Analysis, said: Said) -> Vec<(String, String)> {
    let now_s = analysis.scales.looked_at();
    let every = if said.step_age_s < SELDOM_AFTER_S { RECORD_EVERY_S } else { RECORD_SELDOM_S };
    let news = analysis
        .last
        .as_ref()
        .is_none_or(|last| (last.verdict, &last.reason, last.action, last.step) != (said.verdict, &said.reason, said.action, said.step));
    let mut puts = Vec::new();
    if news || now_s >= analysis.recorded_at_s + every {
        analysis.looks += 1;
        analysis.recorded_at_s = now_s;
        puts.push((look_key(name, analysis.number, analysis.looks), serde_json::to_string(&said).expect("plain data")));
    }
    analysis.last = Some(said);
    puts.push((key(name, analysis.number), serde_json::to_string(&analysis).expect("plain data")));
    puts
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

fn put(scales: &mut Scales, cells: Vec<(u32, u64, Tallies)>) {
    for (epoch, second, tallies) in cells {
        scales.put(epoch, second, tallies);
    }
}
