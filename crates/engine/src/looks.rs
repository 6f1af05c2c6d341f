//! Looks at canaries: once a second the counts of the data plane go to the judge, what it says is kept, and then acted upon.
//! Not here: what a step does besides (steps), what the judge is told and what it says in words (analysis, said).

use std::time::Duration;

use judge::{Action, Scales, Tallies};
use model::{GuardMetric, ReleaseId, ServiceName, VersionName, thousands};
use release::{Event, Outcome, Release, Service, State};
use store::Batch;

use crate::analysis::{Analysis, SILENT_S, is_judged, judged_step, key, look_key};
use crate::command::Input;
use crate::engine::{Caretaker, unavailable, wall_ms};
use crate::fault_points;
use crate::measure::measure;
use crate::said::{Said, weight};

/// Of a guard rail on errors, which is looked at every second on the last seconds.
const GUARD_EVIDENCE: f64 = 1_000.0;
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
        analysis.of_connections = self.is_tcp(&next.name);
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
                        let units = if analysis.of_connections { "connections" } else { "requests" };
                        format!("errors of {candidate} break their limit of {}: {bad} of its last {all} {units}", weight(limit))
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
                        let units = if analysis.of_connections { "connections" } else { "requests" };
                        format!("{name} of {candidate} breaks its limit of {limit:.0} ms: {slower} of its last {all} {units} took longer")
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

fn put(scales: &mut Scales, cells: Vec<(u32, u64, Tallies)>) {
    for (epoch, second, tallies) in cells {
        scales.put(epoch, second, tallies);
    }
}
