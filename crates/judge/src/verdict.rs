//! One look: the numbers so far to a verdict, the reason for it, and what follows.
//!
//! The order of the rules is part of the specification: what was decided stays decided; what is plainly broken goes first; a split
//! that does not match the weight forbids every other judgement.

use std::collections::BTreeMap;

use model::Weight;

use crate::mixture::{Mixture, ln_sum};
use crate::plan::{Expired, MetricKind, Plan};
use crate::scalars::{ScalarSums, scalar_bounds};
use crate::split::{Drawn, ln_split_evidence};
use crate::units::{Epoch, Side};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Regressed,
    GuardRail,
    Inconclusive,
    Healthy,
    Expired,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    pub name: String,
    pub part: f64,
    pub tolerance: f64,
    pub margin: f64,
    /// Whether it has a say in advancing.
    pub promotes: bool,
    pub release: ScalarSums,
    pub step: ScalarSums,
}

/// What is known at one look.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// Seconds since every data thread has acknowledged the step's weight.
    pub step_age_s: u64,
    pub next_weight: Weight,
    /// A verdict `Regressed` was given before.
    pub regressed: bool,
    /// Seconds since the split check failed; absent if it never did.
    pub split_since_s: Option<u64>,
    pub draws: Vec<Drawn>,
    pub guard: Guard,
    pub shares: Vec<ShareMetric>,
    pub scalars: Vec<Scalar>,
}

/// What the share metrics say together.
struct Weighed {
    ln_e_worse: f64,
    best_delay_s: Option<u64>,
    by_metric: BTreeMap<String, f64>,
    better: BTreeMap<String, f64>,
    missing: Option<String>,
}

pub fn judge(look: &Look, plan: &Plan) -> Outcome {
    let ln_e_split = ln_split_evidence(&look.draws, plan.split_strength);
    let weighed = weigh(&look.shares, look.next_weight, plan);
    let (verdict, reason, action) = decide(look, plan, &weighed, ln_e_split);
    let least_better = weighed.better.values().copied().fold(f64::INFINITY, f64::min);
    Outcome {
        verdict,
        reason,
        action,
        evidence_worse: weighed.ln_e_worse / (1.0 / plan.alpha).ln(),
        evidence_better: if weighed.better.is_empty() { 0.0 } else { least_better / (1.0 / plan.alpha_p).ln() },
        ln_e_worse: weighed.ln_e_worse,
        best_delay_s: weighed.best_delay_s,
        ln_e_worse_by_metric: weighed.by_metric,
        ln_e_better: weighed.better,
        ln_e_split,
    }
}

fn decide(look: &Look, plan: &Plan, weighed: &Weighed, ln_e_split: f64) -> (Verdict, String, Action) {
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
    if weighed.ln_e_worse >= (1.0 / plan.alpha).ln() {
        return say(Verdict::Regressed, &heaviest(&look.shares, weighed), Action::Rollback);
    }
    if let Some(scalar) = look.scalars.iter().find(|scalar| is_regressed(scalar, plan)) {
        return say(Verdict::Regressed, &scalar.name, Action::Rollback);
    }
    let waits_until = plan.dwell.max(plan.warm_up + plan.closing);
    let is_suspicious = weighed.ln_e_worse >= plan.suspicion.ln();
    if look.step_age_s >= waits_until && !is_suspicious && is_healthy(look, plan, weighed) {
        return say(Verdict::Healthy, "", Action::Advance);
    }
    if look.step_age_s >= plan.max_step {
        let action = match plan.expired {
            Expired::Hold => Action::Hold,
            Expired::Rollback => Action::Rollback,
            Expired::Ask => Action::Ask,
        };
        return say(Verdict::Expired, "max_step", action);
    }
    let reason = match &weighed.missing {
        Some(metric) => format!("phi:{metric}"),
        None if is_suspicious => "suspicion".to_owned(),
        None if look.step_age_s < waits_until => "dwell".to_owned(),
        None => "evidence".to_owned(),
    };
    (Verdict::Inconclusive, reason, Action::Hold)
}

fn weigh(shares: &[ShareMetric], next: Weight, plan: &Plan) -> Weighed {
    let mut per_delay: BTreeMap<u64, BTreeMap<String, f64>> = BTreeMap::new();
    let (mut better, mut missing) = (BTreeMap::new(), None);
    for metric in shares {
        let phi = metric.phi.filter(|phi| *phi <= plan.phi_max);
        if phi.is_none() && missing.is_none() {
            missing = Some(metric.name.clone());
        }
        let (rho, delta) = plan.tolerance(metric.kind);
        let mut worse = phi.map(|phi| Mixture::new(Side::Worse, rho, delta, phi));
        for (delay, epochs) in &metric.worse {
            let ln_e = worse.as_mut().map_or(0.0, |mixture| mixture.ln_evidence_with(epochs));
            per_delay.entry(*delay).or_default().insert(metric.name.clone(), ln_e);
        }
        let (rho, delta) = plan.demand(metric.kind, next);
        let ln_e = phi.map_or(0.0, |phi| Mixture::new(Side::Better, rho, delta, phi).ln_evidence_with(&metric.better));
        better.insert(metric.name.clone(), ln_e);
    }
    let part = |name: &String| shares.iter().find(|metric| metric.name == *name).map_or(0.0, |metric| metric.part);
    let mut weighed = Weighed { ln_e_worse: f64::NEG_INFINITY, best_delay_s: None, by_metric: BTreeMap::new(), better, missing };
    for (delay, by_metric) in per_delay {
        let terms: Vec<f64> = by_metric.iter().map(|(name, ln_e)| part(name).ln() + ln_e).collect();
        let together = ln_sum(&terms);
        if together > weighed.ln_e_worse {
            (weighed.ln_e_worse, weighed.best_delay_s, weighed.by_metric) = (together, Some(delay), by_metric);
        }
    }
    weighed
}

/// Works also when the split is wrong; no theorem covers it.
fn guard_rail(guard: &Guard, plan: &Plan) -> bool {
    let (closed, bad) = (guard.candidate_closed as f64, guard.candidate_bad as f64);
    let stable = guard.stable_bad as f64 * closed * 2.0;
    guard.candidate_closed >= plan.guard_min && bad > plan.abs_bad * closed && stable < bad * guard.stable_closed as f64
}

fn heaviest(shares: &[ShareMetric], weighed: &Weighed) -> String {
    let weight = |metric: &&ShareMetric| metric.part.ln() + weighed.by_metric.get(&metric.name).copied().unwrap_or(f64::NEG_INFINITY);
    shares.iter().max_by(|a, b| weight(a).total_cmp(&weight(b))).map(|metric| metric.name.clone()).unwrap_or_default()
}

fn is_regressed(scalar: &Scalar, plan: &Plan) -> bool {
    scalar_bounds(&scalar.release, plan.alpha * scalar.part, scalar.tolerance, plan.t_opt, plan.n_min).0 > scalar.tolerance
}

/// Every share metric, and every scalar that has a say; without share metrics nothing is healthy.
fn is_healthy(look: &Look, plan: &Plan, weighed: &Weighed) -> bool {
    let enough = (1.0 / plan.alpha_p).ln();
    let scalar_agrees =
        |scalar: &Scalar| scalar_bounds(&scalar.step, plan.alpha_p, scalar.tolerance, plan.t_opt, plan.n_min).1 < scalar.margin;
    !look.shares.is_empty()
        && weighed.missing.is_none()
        && weighed.better.values().all(|ln_e| *ln_e >= enough)
        && look.scalars.iter().filter(|scalar| scalar.promotes).all(scalar_agrees)
}
