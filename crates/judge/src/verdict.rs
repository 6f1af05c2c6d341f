//! One look: the numbers so far to a verdict, the reason for it, and what follows.
//!
//! The order of the rules is part of the specification: what was decided stays decided; what is plainly broken goes first; a split
//! that does not match the weight forbids every other judgement.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mixture::{Mixture, ln_sum};
use crate::plan::{Expired, MetricKind, Plan};
use crate::scalars::{ScalarSums, scalar_bounds};
use crate::split::{Drawn, ln_split_evidence};
use crate::units::{Epoch, Side};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Regressed,
    GuardRail,
    Inconclusive,
    Healthy,
    Expired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Advance,
    Rollback,
    Hold,
    Withdraw,
    Ask,
}

/// The verdict, why, what follows, and the numbers that it rests on. Evidence of 1 decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// A metric's name, or the rule's.
    pub reason: String,
    pub action: Action,
    pub ln_e_worse: f64,
    /// The delay at which that was largest; absent without metrics.
    pub best_delay_s: Option<u64>,
    pub ln_e_worse_by_metric: BTreeMap<String, f64>,
    pub ln_e_better: BTreeMap<String, f64>,
    pub ln_e_split: f64,
    pub evidence_worse: f64,
    pub evidence_better: f64,
}

/// Closed units of the error metric that were assigned in the last seconds (the plan's closing age).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Guard {
    pub candidate_closed: u64,
    pub candidate_bad: u64,
    pub stable_closed: u64,
    pub stable_bad: u64,
}

/// A metric that is a share of bad units.
#[derive(Debug, Clone, PartialEq)]
pub struct ShareMetric {
    pub name: String,
    pub kind: MetricKind,
    /// Its part of alpha; all metrics' parts sum to 1.
    pub part: f64,
    /// Absent: unknown, and it was required.
    pub phi: Option<f64>,
    /// Per delay in seconds: the epochs of the whole release.
    pub worse: Vec<(u64, Vec<Epoch>)>,
    /// The epochs of this step, at the closing age.
    pub better: Vec<Epoch>,
}

/// A metric that is a number per interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scalar {
    pub name: String,
    pub part: f64,
    pub tolerance: f64,
    pub margin: f64,
    /// Whether it has a say in advancing.
    pub promotes: bool,
    /// Its differences have a long tail on the bad side: bounds need twice as many intervals.
    #[serde(default)]
    pub skewed: bool,
    pub release: ScalarSums,
    pub step: ScalarSums,
}

impl Scalar {
    fn n_min(&self, plan: &Plan) -> u64 {
        if self.skewed { 2 * plan.n_min } else { plan.n_min }
    }
}

/// What is known at one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Seconds since every data thread has acknowledged the step's weight.
    pub step_age_s: u64,
    pub next_weight: model::Weight,
    /// A verdict `Regressed` was given before.
    pub regressed: bool,
    /// Seconds since the split check failed; absent if it never did.
    pub split_since_s: Option<u64>,
    pub draws: Vec<Drawn>,
    pub guard: Guard,
    pub shares: Vec<ShareMetric>,
    pub scalars: Vec<Scalar>,
}

/// What one share metric says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weight {
    pub(crate) name: String,
    pub(crate) part: f64,
    /// At the delay at which all metrics together say most.
    pub(crate) ln_e_worse: f64,
    pub(crate) ln_e_better: f64,
}

/// What the share metrics say together.
pub(crate) struct Weighed {
    pub(crate) metrics: Vec<Weight>,
    pub(crate) ln_e_worse: f64,
    pub(crate) best_delay_s: Option<u64>,
    /// The first metric whose overdispersion is required and not known.
    pub(crate) missing: Option<String>,
}

/// What a decision rests on, besides the evidence.
pub(crate) struct Circumstances<'a> {
    pub(crate) step_age_s: u64,
    /// The step's age without the time that it was paused.
    pub(crate) limit_age_s: u64,
    pub(crate) regressed: bool,
    pub(crate) split_since_s: Option<u64>,
    pub(crate) guard: Guard,
    pub(crate) scalars: &'a [Scalar],
}

pub fn judge(look: &Look, plan: &Plan) -> Outcome {
    let ln_e_split = ln_split_evidence(&look.draws, plan.split_strength);
    let circumstances = Circumstances {
        step_age_s: look.step_age_s,
        limit_age_s: look.step_age_s,
        regressed: look.regressed,
        split_since_s: look.split_since_s,
        guard: look.guard,
        scalars: &look.scalars,
    };
    weigh(&look.shares, look.next_weight, plan).outcome(&circumstances, plan, ln_e_split)
}

impl Weighed {
    /// Of evidence per delay: `worse[metric]` for each of `delays`, and `better` per metric.
    pub(crate) fn new(metrics: Vec<(String, f64)>, delays: &[(u64, Vec<f64>)], better: Vec<f64>, missing: Option<String>) -> Self {
        let together = |worse: &[f64]| ln_sum(&metrics.iter().zip(worse).map(|((_, part), ln_e)| part.ln() + ln_e).collect::<Vec<f64>>());
        let mut best: Option<(u64, f64, &[f64])> = None;
        for (delay, worse) in delays {
            let sum = together(worse);
            if best.is_none_or(|(_, largest, _)| sum > largest) {
                best = Some((*delay, sum, worse));
            }
        }
        // Without metrics nothing speaks against the candidate, and nothing for it.
        let best = best.filter(|(_, largest, _)| *largest > f64::NEG_INFINITY);
        let (best_delay_s, ln_e_worse) = best.map_or((None, f64::NEG_INFINITY), |(delay, largest, _)| (Some(delay), largest));
        let worst = best.map(|(_, _, worse)| worse.to_vec()).unwrap_or_default();
        let metrics = metrics.into_iter().zip(better).enumerate();
        let metrics = metrics
            .map(|(number, ((name, part), ln_e_better))| Weight {
                name,
                part,
                ln_e_worse: worst.get(number).copied().unwrap_or(0.0),
                ln_e_better,
            })
            .collect();
        Self { metrics, ln_e_worse, best_delay_s, missing }
    }

    pub(crate) fn outcome(&self, circumstances: &Circumstances<'_>, plan: &Plan, ln_e_split: f64) -> Outcome {
        let (verdict, reason, action) = self.decide(circumstances, plan, ln_e_split);
        let least_better = self.metrics.iter().map(|metric| metric.ln_e_better).fold(f64::INFINITY, f64::min);
        let of_each = |ln_e: fn(&Weight) -> f64| self.metrics.iter().map(|metric| (metric.name.clone(), ln_e(metric))).collect();
        Outcome {
            verdict,
            reason,
            action,
            evidence_worse: self.ln_e_worse / (1.0 / plan.alpha).ln(),
            evidence_better: if self.metrics.is_empty() { 0.0 } else { least_better / (1.0 / plan.alpha_p).ln() },
            ln_e_worse: self.ln_e_worse,
            best_delay_s: self.best_delay_s,
            ln_e_worse_by_metric: if self.best_delay_s.is_some() { of_each(|metric| metric.ln_e_worse) } else { BTreeMap::new() },
            ln_e_better: of_each(|metric| metric.ln_e_better),
            ln_e_split,
        }
    }

    fn decide(&self, look: &Circumstances<'_>, plan: &Plan, ln_e_split: f64) -> (Verdict, String, Action) {
        let say = |verdict, reason: &str, action| (verdict, reason.to_owned(), action);
        if look.regressed {
            return say(Verdict::Regressed, "latched", Action::Rollback);
        }
        if guard_rail(&look.guard, plan) {
            return say(Verdict::GuardRail, "abs_bad", Action::Rollback);
        }
        if look.split_since_s.is_some() || ln_e_split >= (1.0 / plan.alpha_split).ln() {
            let is_late = look.split_since_s.unwrap_or(0) >= plan.split_grace;
            return say(Verdict::Inconclusive, "split", if is_late { Action::Withdraw } else { Action::Hold });
        }
        if self.ln_e_worse >= (1.0 / plan.alpha).ln() {
            return say(Verdict::Regressed, self.heaviest(), Action::Rollback);
        }
        if let Some(scalar) = look.scalars.iter().find(|scalar| is_regressed(scalar, plan)) {
            return say(Verdict::Regressed, &scalar.name, Action::Rollback);
        }
        let waits_until = plan.dwell.max(plan.warm_up + plan.closing);
        let is_suspicious = self.ln_e_worse >= plan.suspicion.ln();
        if look.step_age_s >= waits_until && !is_suspicious && self.is_healthy(look.scalars, plan) {
            return say(Verdict::Healthy, "", Action::Advance);
        }
        if look.limit_age_s >= plan.max_step {
            let action = match plan.expired {
                Expired::Hold => Action::Hold,
                Expired::Rollback => Action::Rollback,
                Expired::Ask => Action::Ask,
            };
            return say(Verdict::Expired, "max_step", action);
        }
        let reason = match &self.missing {
            Some(metric) => format!("phi:{metric}"),
            None if is_suspicious => "suspicion".to_owned(),
            None if look.step_age_s < waits_until => "dwell".to_owned(),
            None => "evidence".to_owned(),
        };
        (Verdict::Inconclusive, reason, Action::Hold)
    }

    /// The metric that says most against the candidate.
    fn heaviest(&self) -> &str {
        let weight = |metric: &&Weight| metric.part.ln() + metric.ln_e_worse;
        self.metrics.iter().max_by(|a, b| weight(a).total_cmp(&weight(b))).map_or("", |metric| &metric.name)
    }

    /// Every share metric, and every scalar that has a say; without share metrics nothing is healthy.
    fn is_healthy(&self, scalars: &[Scalar], plan: &Plan) -> bool {
        let enough = (1.0 / plan.alpha_p).ln();
        let agrees =
            |scalar: &Scalar| scalar_bounds(&scalar.step, plan.alpha_p, scalar.tolerance, plan.t_opt, scalar.n_min(plan)).1 < scalar.margin;
        !self.metrics.is_empty()
            && self.missing.is_none()
            && self.metrics.iter().all(|metric| metric.ln_e_better >= enough)
            && scalars.iter().filter(|scalar| scalar.promotes).all(agrees)
    }
}

fn weigh(shares: &[ShareMetric], next: model::Weight, plan: &Plan) -> Weighed {
    let mut per_delay: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    let (mut better, mut missing) = (Vec::new(), None);
    for (number, metric) in shares.iter().enumerate() {
        let phi = plan.known(metric.phi);
        if phi.is_none() && missing.is_none() {
            missing = Some(metric.name.clone());
        }
        let (rho, delta) = plan.tolerance(metric.kind);
        let mut worse = phi.map(|phi| Mixture::new(Side::Worse, rho, delta, phi));
        for (delay, epochs) in &metric.worse {
            let ln_e = worse.as_mut().map_or(0.0, |mixture| mixture.ln_evidence_with(epochs));
            per_delay.entry(*delay).or_insert_with(|| vec![f64::NEG_INFINITY; shares.len()])[number] = ln_e;
        }
        let (rho, delta) = plan.demand(metric.kind, next);
        better.push(phi.map_or(0.0, |phi| Mixture::new(Side::Better, rho, delta, phi).ln_evidence_with(&metric.better)));
    }
    let metrics = shares.iter().map(|metric| (metric.name.clone(), metric.part)).collect();
    Weighed::new(metrics, &per_delay.into_iter().collect::<Vec<_>>(), better, missing)
}

/// Works also when the split is wrong; no theorem covers it.
fn guard_rail(guard: &Guard, plan: &Plan) -> bool {
    let (closed, bad) = (guard.candidate_closed as f64, guard.candidate_bad as f64);
    let stable = guard.stable_bad as f64 * closed * 2.0;
    guard.candidate_closed >= plan.guard_min && bad > plan.abs_bad * closed && stable < bad * guard.stable_closed as f64
}

fn is_regressed(scalar: &Scalar, plan: &Plan) -> bool {
    scalar_bounds(&scalar.release, plan.alpha * scalar.part, scalar.tolerance, plan.t_opt, scalar.n_min(plan)).0 > scalar.tolerance
}
