//! What a look of the judge says in words and numbers: for the terminal, the page and the history. Nothing is decided here.

use std::collections::BTreeMap;

use judge::{Action, Measured, MetricKind, Outcome, Side, Verdict};
use model::{WEIGHT_SUM, thousands};
use serde::{Deserialize, Serialize};

use crate::analysis::Analysis;
use crate::edge::Recent;

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
        match self.scales.is_of_cohorts() {
            true => "clients",
            false if self.of_connections => "connections",
            false => "requests",
        }
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

fn and(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => format!("{one} is"),
        [rest @ .., last] => format!("{} and {last} are", rest.join(", ")),
    }
}
