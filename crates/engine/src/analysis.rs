//! The judge at work on a running release: what it is told, what it sees each second, what is kept of it.
//!
//! **Invariants**: the scales are kept before what they say is acted upon, in the same transaction for both arms; a look that could
//! not be kept did not happen.

use std::collections::BTreeMap;

use judge::{Action, Closing, Measured, MetricKind, Outcome, Plan, Scalar, ScalarSums, Scales, Share, Side, Verdict};
use model::{Independence, Judged, Judging, ReleaseId, ServiceName, Threshold, VersionName, WEIGHT_SUM, Weight, latency_edge_ns};
use release::{Release, State};
use serde::{Deserialize, Serialize};

use crate::edge::Recent;
use crate::measure::Measurement;

/// Latency quantiles in parts per 10,000.
pub(crate) const QUANTILES: [(&str, u64); 3] = [("p50", 5_000), ("p95", 9_500), ("p99", 9_900)];
const ERRORS: &str = "errors";
/// Of alpha: errors, each latency quantile; with metrics of the user's own they give up a fifth.
const PART_ERRORS: f64 = 0.5;
const PART_LATENCY: f64 = 0.5 / 3.0;
const PART_OF_OWN: f64 = 0.2;
/// Without a request for so long there is no traffic.
pub(crate) const SILENT_S: u64 = 60;

/// The scales of one release, and what belongs to them. Plain data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Analysis {
    pub release: ReleaseId,
    pub number: u64,
    pub candidate: VersionName,
    pub stable: VersionName,
    /// What the candidate is compared with: stable, or a fresh baseline of it.
    pub compared: VersionName,
    pub judging: Judging,
    pub scales: Scales,
    /// Per quantile: stable's bucket, frozen before the epoch from which it counts.
    pub frozen: [Option<usize>; 3],
    /// The step that was begun, and its weight.
    pub step: Option<usize>,
    pub weight: Weight,
    pub measured: BTreeMap<String, Measurement>,
    pub last: Option<Said>,
    /// What is told once in a step.
    pub told: Vec<String>,
    /// Looks that were recorded so far, and when the last one was.
    pub looks: u64,
    pub recorded_at_s: u64,
    pub last_draw_s: u64,
}

/// What a look said, for people and for the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Said {
    pub at_ms: u64,
    pub step: usize,
    pub step_age_s: u64,
    pub verdict: Verdict,
    pub reason: String,
    pub action: Action,
    pub sentence: String,
    /// 1 decides.
    pub evidence_worse: f64,
    pub evidence_better: f64,
    pub split: SplitSeen,
    pub metrics: Vec<MetricSaid>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SplitSeen {
    pub candidate: u64,
    pub stable: u64,
    pub ok: bool,
    /// 1 fails.
    pub evidence: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct UnitsSeen {
    pub requests: u64,
    pub bad: u64,
}

/// One metric at one look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MetricSaid {
    pub name: String,
    /// `error`, `latency`, `scalar`.
    pub kind: String,
    /// `warming`, `no_data`, `not_yet`, `fine`, `suspect`, `worse`, `dry_run`.
    pub state: String,
    /// Evidence; 1 alone decides.
    pub worse: f64,
    pub better: f64,
    pub candidate: UnitsSeen,
    pub stable: UnitsSeen,
    pub candidate_text: String,
    pub stable_text: String,
    pub sentence: String,
    pub more_requests: Option<u64>,
    pub more_s: Option<u64>,
}

impl Analysis {
    /// Before the first step of a release. `heads`: stable's times to the answer's head; `phi`: its overdispersion, if measured.
    pub(crate) fn new(release: &Release, judging: &Judging, heads: &BTreeMap<usize, u64>, phi: Option<f64>) -> Option<Self> {
        let stable = release.stable.clone()?;
        let frozen = QUANTILES.map(|(_, quantile)| judge::threshold_bucket(heads, quantile));
        let timeout_bad = judging.timeout_bad_ms.div_ceil(1_000);
        let shifts = shifts(judging.slower);
        let slowest = frozen.iter().flatten().map(|bucket| closing(*bucket, shifts)[1].candidate).max().unwrap_or(0);
        let canary = release.settings.canary.as_ref()?;
        let is_sticky = canary.sticky.is_some();
        // A client's last request of its window may take its whole time.
        let window_s = if is_sticky { canary.sticky_window_ms.div_ceil(1_000) } else { 0 };
        let plan = Plan {
            tol_abs: judging.more_errors,
            lat_shift_worse: shifts[0],
            lat_shift_better: shifts[1],
            budget: judging.budget,
            lat_budget: judging.latency_budget,
            warm_up: judging.warm_up_ms.div_ceil(1_000),
            timeout_bad,
            closing: window_s + timeout_bad.max(slowest),
            expired: match judging.expired {
                model::Expired::Hold => judge::Expired::Hold,
                model::Expired::Rollback => judge::Expired::Rollback,
                model::Expired::Ask => judge::Expired::Ask,
            },
            ..Plan::default()
        };
        let own: Vec<&model::UserMetric> = judging.metrics.iter().filter(|metric| !metric.dry_run).collect();
        let rest = if own.is_empty() { 1.0 } else { 1.0 - PART_OF_OWN };
        // Where a client is the unit, what its requests do together is no matter.
        let phi = phi.filter(|_| !is_sticky);
        let phi = match judging.independence {
            Independence::Required if is_sticky => Some(1.0),
            Independence::Known(phi) => Some(phi),
            Independence::Required => phi,
            Independence::Assumed => Some(phi.unwrap_or(1.0)),
        };
        // Of latencies nothing was measured beforehand: their thresholds are known only now.
        let latency_phi = if judging.independence == Independence::Assumed { Some(1.0) } else { phi };
        let age = if is_sticky { plan.closing } else { timeout_bad };
        let at_timeout = Closing { candidate: age, stable: age };
        let errors = Measured {
            name: ERRORS.to_owned(),
            kind: MetricKind::Error,
            part: PART_ERRORS * rest,
            phi,
            sets: [0, 0],
            closing: [at_timeout; 2],
            since: Some(1),
        };
        let latency = |(index, (name, _)): (usize, &(&str, u64))| Measured {
            name: (*name).to_owned(),
            kind: MetricKind::Latency,
            part: PART_LATENCY * rest,
            phi: latency_phi,
            sets: [1 + 2 * index, 2 + 2 * index],
            closing: frozen[index].filter(|_| !is_sticky).map_or([at_timeout; 2], |bucket| closing(bucket, shifts)),
            since: frozen[index].map(|_| 1),
        };
        let metrics = std::iter::once(errors).chain(QUANTILES.iter().enumerate().map(latency)).collect();
        let scalars = own.iter().map(|metric| Scalar {
            name: metric.name.clone(),
            part: PART_OF_OWN / own.len() as f64,
            tolerance: metric.tolerance,
            margin: metric.margin.unwrap_or(f64::MAX),
            promotes: metric.margin.is_some(),
            skewed: metric.skewed,
            release: ScalarSums::default(),
            step: ScalarSums::default(),
        });
        let scales = Scales::new(plan, metrics, scalars.collect());
        let scales = if is_sticky { scales.of_cohorts() } else { scales };
        Some(Self {
            release: release.id.clone(),
            number: release.number,
            candidate: release.candidate.clone(),
            compared: release.baseline().unwrap_or_else(|| stable.clone()),
            stable,
            scales,
            measured: judging.metrics.iter().map(|metric| (metric.name.clone(), Measurement::default())).collect(),
            judging: judging.clone(),
            frozen,
            step: None,
            weight: 0,
            last: None,
            told: Vec::new(),
            looks: 0,
            recorded_at_s: 0,
            last_draw_s: 0,
        })
    }

    /// The next epoch with the step's weight. What became known of stable's latency meanwhile counts from here on.
    pub(crate) fn begin_step(&mut self, release: &Release, step: usize, heads: &BTreeMap<usize, u64>) {
        self.join(heads);
        let steps = release.settings.steps();
        let next = steps.get(step + 1).map_or(WEIGHT_SUM, |next| next.weight);
        self.scales.limits(steps[step].dwell_ms.div_ceil(1_000), steps[step].max_ms.div_ceil(1_000));
        let share = match step.checked_sub(1) {
            Some(before) if self.scales.is_of_cohorts() => Share::of_raise(steps[before].weight, steps[step].weight),
            // The draw between candidate and baseline, of requests that went to one of the two.
            _ if release.baseline().is_some() => {
                let (weight, rest) = (steps[step].weight, WEIGHT_SUM - steps[step].weight);
                Share { parts: u32::from(weight), of: u32::from(weight + weight.min(rest)) }
            }
            _ => Share::of_weight(steps[step].weight),
        };
        self.scales.begin_step(step, share, next);
        (self.step, self.weight, self.last_draw_s) = (Some(step), steps[step].weight, 0);
        self.told.clear();
        self.measured.values_mut().for_each(|measurement| measurement.in_step = false);
    }

    pub(crate) fn knows_all_thresholds(&self) -> bool {
        self.frozen.iter().all(Option::is_some)
    }

    /// Freezes thresholds that are not yet, from what stable has shown by now; true when there are new ones.
    pub(crate) fn join(&mut self, heads: &BTreeMap<usize, u64>) -> bool {
        let before = self.frozen;
        for (index, (name, quantile)) in QUANTILES.iter().enumerate().filter(|(index, _)| self.frozen[*index].is_none()).collect::<Vec<_>>()
        {
            let Some(bucket) = judge::threshold_bucket(heads, *quantile) else { continue };
            let whole = Closing { candidate: self.scales.plan().closing, stable: self.scales.plan().closing };
            let ages = if self.scales.is_of_cohorts() { [whole; 2] } else { closing(bucket, shifts(self.judging.slower)) };
            // The ring of cells is as long as it is.
            if ages[1].candidate <= self.scales.plan().closing {
                self.frozen[index] = Some(bucket);
                self.scales.join(name, ages);
            }
        }
        self.frozen != before
    }

    /// In another boot its clocks mean nothing.
    pub(crate) fn begin_anew(&mut self) {
        self.scales.begin_anew();
        (self.step, self.recorded_at_s, self.last_draw_s) = (None, 0, 0);
        for measurement in self.measured.values_mut() {
            (measurement.next_at, measurement.at, measurement.missing_since) = (0, None, None);
        }
    }

    /// What the data plane counts in the open epoch.
    pub(crate) fn judged(&self) -> Judged {
        let plan = self.scales.plan();
        let thresholds =
            self.frozen.iter().enumerate().filter_map(|(index, bucket)| Some((index, (*bucket)?))).flat_map(|(index, bucket)| {
                let sides = [(1 + 2 * index, plan.lat_shift_worse), (2 + 2 * index, plan.lat_shift_better)];
                sides.map(|(set, shift)| Threshold {
                    set,
                    candidate_ns: latency_edge_ns(bucket + shift),
                    stable_ns: latency_edge_ns(bucket),
                })
            });
        Judged {
            epoch: self.scales.epoch(),
            closing_s: plan.closing,
            timeout_bad_ms: plan.timeout_bad * 1_000,
            thresholds: thresholds.collect(),
        }
    }

    /// What a look says, with its numbers. `recent`: the last seconds of candidate and stable.
    pub(crate) fn said(&self, outcome: &Outcome, at_ms: u64, recent: [Recent; 2]) -> Said {
        let rate = recent.iter().map(|recent| recent.rate).sum();
        let metrics: Vec<MetricSaid> = self.scales.metrics().iter().map(|metric| self.of_metric(metric, outcome, rate, recent)).collect();
        let [candidate, stable] = self.scales.drawn_in_step();
        let ln_alpha = (1.0 / self.scales.plan().alpha_split).ln();
        let mut said = Said {
            at_ms,
            step: self.scales.step(),
            step_age_s: self.scales.step_age(self.scales.looked_at()).unwrap_or(0),
            verdict: outcome.verdict,
            reason: outcome.reason.clone(),
            action: outcome.action,
            sentence: String::new(),
            evidence_worse: finite(outcome.evidence_worse),
            evidence_better: finite(outcome.evidence_better),
            split: SplitSeen { candidate, stable, ok: outcome.reason != "split", evidence: finite(outcome.ln_e_split / ln_alpha) },
            metrics,
        };
        said.metrics.extend(self.judging.metrics.iter().map(|metric| self.of_own(metric)));
        said.sentence = self.sentence(&said, outcome);
        said
    }

    fn of_metric(&self, metric: &Measured, outcome: &Outcome, rate: f64, recent: [Recent; 2]) -> MetricSaid {
        let plan = self.scales.plan();
        let of = |ln: &BTreeMap<String, f64>| ln.get(&metric.name).copied().unwrap_or(0.0);
        let worse = finite(of(&outcome.ln_e_worse_by_metric) / (1.0 / (plan.alpha * metric.part)).ln());
        let better = finite(of(&outcome.ln_e_better) / (1.0 / plan.alpha_p).ln());
        // What a person reads counts the newest units, too, and takes none of them for bad that may be fine.
        let delay = outcome.best_delay_s.unwrap_or(plan.closing);
        let seen = self.scales.seen(metric, Side::Worse, delay);
        let [candidate, stable] = self.scales.known(metric).map(|units| UnitsSeen { requests: units.closed, bad: units.bad });
        let has_joined = metric.since.is_some();
        let warming = self.scales.is_warming() && metric.kind == MetricKind::Latency;
        let state = match () {
            () if outcome.ln_e_worse >= (1.0 / plan.alpha).ln() && outcome.reason == metric.name => "worse",
            () if worse >= 1.0 => "worse",
            () if !has_joined || candidate.requests + stable.requests == 0 => {
                if warming {
                    "warming"
                } else {
                    "no_data"
                }
            }
            () if of(&outcome.ln_e_worse_by_metric) >= plan.suspicion.ln() => "suspect",
            () if better >= 1.0 => "fine",
            () if self.scales.is_warming() => "warming",
            () => "not_yet",
        };
        let (more_requests, more_s) = self.still_needed(metric, stable, better, rate);
        let sentence = self.metric_sentence(metric, state, &seen, candidate, stable, more_requests);
        let kind = if metric.kind == MetricKind::Error { "error" } else { "latency" };
        let shown = |units: UnitsSeen, recent: &Recent| match metric.kind {
            MetricKind::Error if units.requests == 0 => "–".to_owned(),
            MetricKind::Error => percent(units),
            MetricKind::Latency => milliseconds(recent, &metric.name),
        };
        MetricSaid {
            name: metric.name.clone(),
            kind: kind.to_owned(),
            state: state.to_owned(),
            worse,
            better,
            candidate,
            stable,
            candidate_text: shown(candidate, &recent[0]),
            stable_text: shown(stable, &recent[1]),
            sentence,
            more_requests,
            more_s,
        }
    }

    /// Candidate requests until equal arms are let on, in the median, less those that count already.
    fn still_needed(&self, metric: &Measured, stable: UnitsSeen, better: f64, rate: f64) -> (Option<u64>, Option<u64>) {
        let plan = self.scales.plan();
        if better >= 1.0 || metric.since.is_none() || stable.requests == 0 {
            return (None, None);
        }
        let (rho, margin) = plan.demand(metric.kind, self.scales.next_weight());
        let p = stable.bad as f64 / stable.requests as f64;
        let needed = judge::units_needed(p, rho, margin, metric.phi.unwrap_or(1.0));
        let counted: u64 = self.scales.seen_in_step(metric).iter().map(|epoch| epoch.arms.candidate.closed).sum();
        let more = (needed - counted as f64).max(1.0);
        if !more.is_finite() {
            return (None, None);
        }
        // How many new clients come is not known.
        let rate = if self.scales.is_of_cohorts() { 0.0 } else { rate };
        let of_candidate = self.scales.share() * rate;
        let waits = (plan.warm_up + plan.closing) as f64 - self.scales.step_age(self.scales.looked_at()).unwrap_or(0) as f64;
        let more_s = (of_candidate > 0.0).then(|| (more / of_candidate + waits.max(0.0)).ceil() as u64);
        (Some(more.ceil() as u64), more_s)
    }

    fn metric_sentence(
        &self,
        metric: &Measured,
        state: &str,
        seen: &[judge::Epoch],
        candidate: UnitsSeen,
        stable: UnitsSeen,
        more: Option<u64>,
    ) -> String {
        let units = self.units();
        let more = more.map(|more| format!("; about {} more {units} of {}", thousands(more), self.candidate)).unwrap_or_default();
        match state {
            "worse" | "suspect" => {
                let phi = metric.phi.unwrap_or(1.0);
                let ratio = judge::ratio_lower_bound(seen, self.scales.plan().alpha, phi);
                let bad = if metric.kind == MetricKind::Error { "failed" } else { "slow" };
                let counts = format!(
                    "{} of {} {} {bad}, against {} of {}",
                    thousands(candidate.bad),
                    thousands(candidate.requests),
                    self.units(),
                    thousands(stable.bad),
                    thousands(stable.requests)
                );
                match ratio {
                    ratio if ratio >= 1.05 => format!("at least {ratio:.1}× stable's: {counts}"),
                    _ => format!("more than stable's: {counts}"),
                }
            }
            "fine" => "not worse than allowed".to_owned(),
            "no_data" if metric.since.is_none() => {
                "too few requests of stable to know its usual latency; it counts as soon as they are there".to_owned()
            }
            "no_data" => "no request that counts yet".to_owned(),
            "warming" => "warming up".to_owned(),
            _ => format!("not worse so far{more}"),
        }
    }

    fn of_own(&self, metric: &model::UserMetric) -> MetricSaid {
        let measurement = &self.measured[&metric.name];
        let scalar = self.scales.scalars().iter().find(|scalar| scalar.name == metric.name);
        let count = scalar.map_or(0, |scalar| scalar.release.count);
        let plan = self.scales.plan();
        let n_min = if metric.skewed { 2 * plan.n_min } else { plan.n_min };
        let regressed = self.last.as_ref().is_some_and(|said| said.verdict == Verdict::Regressed && said.reason == metric.name);
        let state = match () {
            () if metric.dry_run => "dry_run",
            () if regressed => "worse",
            () if measurement.error.is_some() || measurement.values.is_none() => "no_data",
            () if count < n_min => "not_yet",
            () => "fine",
        };
        let sentence = match (&measurement.error, measurement.values) {
            (Some(error), _) => error.clone(),
            (None, None) => "not measured yet".to_owned(),
            (None, Some(_)) if metric.dry_run => "reports only".to_owned(),
            (None, Some(_)) if count < n_min => format!("{count} of the {n_min} intervals that a judgement needs"),
            (None, Some(_)) => "not worse than tolerated".to_owned(),
        };
        let shown = |value: Option<f64>| {
            value.map_or("–".to_owned(), |value| format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').to_owned())
        };
        MetricSaid {
            name: metric.name.clone(),
            kind: "scalar".to_owned(),
            state: state.to_owned(),
            worse: 0.0,
            better: (count as f64 / n_min as f64).min(1.0),
            candidate: UnitsSeen::default(),
            stable: UnitsSeen::default(),
            candidate_text: shown(measurement.values.map(|(candidate, _)| candidate)),
            stable_text: shown(measurement.values.map(|(_, stable)| stable)),
            sentence,
            more_requests: None,
            more_s: None,
        }
    }

    /// What is counted, in the plural.
    fn units(&self) -> &'static str {
        if self.scales.is_of_cohorts() { "clients" } else { "requests" }
    }

    /// One sentence for the whole look.
    fn sentence(&self, said: &Said, outcome: &Outcome) -> String {
        let (candidate, stable) = (&self.candidate, &self.compared);
        let at = weight(f64::from(self.weight) / f64::from(WEIGHT_SUM));
        let after = format!("seen after {} at {at}", seconds(said.step_age_s));
        match (outcome.verdict, outcome.reason.as_str()) {
            (Verdict::Regressed, "latched") => self.last.as_ref().map(|last| last.sentence.clone()).unwrap_or_default(),
            (Verdict::Regressed, name) => {
                let metric = said.metrics.iter().find(|metric| metric.name == name);
                let what = match metric {
                    Some(metric) if metric.kind == "scalar" => {
                        let (ours, theirs) = (&metric.candidate_text, &metric.stable_text);
                        return format!("{name} of {candidate} is worse than tolerated: {ours} now, against {theirs} of {stable}, {after}");
                    }
                    Some(metric) if metric.kind == "latency" => {
                        return format!("{candidate} is slower than {stable}, seen in its {name}: {}, {after}", metric.sentence);
                    }
                    Some(metric) => metric.sentence.clone(),
                    None => String::new(),
                };
                format!("{name} of {candidate} are {what}, {after}")
            }
            (Verdict::GuardRail, _) => {
                let errors = self.scales.recent_errors();
                format!(
                    "{candidate} fails: {} of its last {} {}, against {} of {} of {stable}, {after}",
                    thousands(errors.candidate_bad),
                    thousands(errors.candidate_closed),
                    self.units(),
                    thousands(errors.stable_bad),
                    thousands(errors.stable_closed)
                )
            }
            (Verdict::Inconclusive, "split") => format!(
                "the traffic does not split as it should: {} {} went to {candidate} and {} to {stable} at {at}; nothing is judged",
                thousands(said.split.candidate),
                self.units(),
                thousands(said.split.stable),
            ),
            (Verdict::Healthy, _) => {
                let errors = said.metrics.iter().find(|metric| metric.kind == "error");
                let errors = errors.map(|it| {
                    let (ours, theirs) = (&it.candidate, &it.stable);
                    let [bad, all, their_bad, their_all] = [ours.bad, ours.requests, theirs.bad, theirs.requests].map(thousands);
                    format!(": errors {bad} of {all} {}, against {their_bad} of {their_all}", self.units())
                });
                format!("{candidate} is not worse than {stable}{}", errors.unwrap_or_default())
            }
            (Verdict::Expired, _) => format!("no decision within {}", seconds(self.scales.plan().max_step)),
            (Verdict::Inconclusive, "suspicion") => {
                let worst = said.metrics.iter().max_by(|a, b| a.worse.total_cmp(&b.worse));
                format!("{} looks worse, not enough to decide", worst.map_or("something", |metric| &metric.name))
            }
            (Verdict::Inconclusive, reason) if reason.starts_with("phi:") => {
                let metric = self.scales.metrics().iter().find(|metric| metric.name == reason[4..]);
                if let Some(phi) = metric.and_then(|metric| metric.phi) {
                    let name = &reason[4..];
                    return format!(
                        "{name} of {stable} come in clusters (they vary {phi:.0} times as much as independent ones): make clients `sticky`"
                    );
                }
                format!("whether requests fail independently is not known for {}, and `independence: required` demands it", &reason[4..])
            }
            (Verdict::Inconclusive, _) => {
                let open: Vec<&str> = said
                    .metrics
                    .iter()
                    .filter(|metric| metric.better < 1.0 && metric.kind != "scalar")
                    .map(|metric| metric.name.as_str())
                    .collect();
                match open.as_slice() {
                    [] => "not worse so far; the step lasts a little longer".to_owned(),
                    open => format!("not worse so far; {} not settled yet", and(open)),
                }
            }
        }
    }
}

/// Buckets between stable's threshold and the candidate's, for worse and for better: 16 an octave, and two more to be let on.
fn shifts(slower: f64) -> [usize; 2] {
    let worse = (16.0 * (1.0 + slower).log2()).round().max(1.0) as usize;
    [worse, worse + 2]
}

/// Ages at which the sets of a latency metric close, in seconds.
fn closing(bucket: usize, shifts: [usize; 2]) -> [Closing; 2] {
    let s = |bucket: usize| latency_edge_ns(bucket).div_ceil(1_000_000_000);
    shifts.map(|shift| Closing { candidate: s(bucket + shift), stable: s(bucket) })
}

/// JSON has no infinity.
fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

fn milliseconds(recent: &Recent, quantile: &str) -> String {
    let value = match quantile {
        "p50" => recent.p50_ms,
        "p95" => recent.p95_ms,
        _ => recent.p99_ms,
    };
    match value {
        None => "–".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.1} ms"),
        Some(ms) => format!("{ms:.0} ms"),
    }
}

fn percent(units: UnitsSeen) -> String {
    format!("{:.2} %", units.bad as f64 * 100.0 / units.requests.max(1) as f64)
}

pub(crate) fn weight(share: f64) -> String {
    format!("{} %", (share * 10_000.0).round() / 100.0)
}

fn seconds(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        _ => format!("{} min", seconds / 60),
    }
}

pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn and(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => format!("{one} is"),
        [rest @ .., last] => format!("{} and {last} are", rest.join(", ")),
    }
}

/// Whether the release is at a step that is judged.
pub(crate) fn is_judged(release: &Release) -> bool {
    release.state.step().is_some() && (1..WEIGHT_SUM).contains(&release.weight())
}

pub(crate) fn key(service: &ServiceName, number: u64) -> String {
    format!("analysis/{service}/{number:08}")
}

pub(crate) fn look_key(service: &ServiceName, number: u64, look: u64) -> String {
    format!("look/{service}/{number:08}/{look:08}")
}

/// A step ends in its own way, and only from the state that is judged.
pub(crate) fn judged_step(release: &Release) -> Option<usize> {
    match release.state {
        State::Judging { step } => Some(step),
        _ => None,
    }
}
