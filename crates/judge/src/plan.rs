//! What a release's judge is told beforehand, with defaults; the margin of a step; how many units a step needs.

use model::Weight;
use serde::{Deserialize, Serialize};

use crate::bets::{Factors, KAPPA};
use crate::units::{Share, Side};

/// What follows when a step reaches its longest time without a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expired {
    Hold,
    Rollback,
    Ask,
}

/// Fixed before the release. Shares are 0 to 1, times are seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// Of a false rollback in the whole release.
    pub alpha: f64,
    /// Of a false advance, per step.
    pub alpha_p: f64,
    /// Of a false alarm of the split check.
    pub alpha_split: f64,
    pub split_strength: f64,
    pub split_grace: u64,
    /// Errors of the candidate up to `tol_ratio` · stable's + `tol_abs` are tolerated.
    pub tol_ratio: f64,
    pub tol_abs: f64,
    /// So much of all traffic may fail additionally at the next step.
    pub budget: f64,
    pub margin_cap: f64,
    pub lat_rho_worse: f64,
    pub lat_tol_abs: f64,
    pub lat_rho_better: f64,
    pub lat_budget: f64,
    /// Buckets between stable's threshold and the candidate's, per side.
    pub lat_shift_worse: usize,
    pub lat_shift_better: usize,
    /// No advance while the evidence for worse is above this.
    pub suspicion: f64,
    pub dwell: u64,
    pub warm_up: u64,
    /// A request open for so long has failed.
    pub timeout_bad: u64,
    /// The largest closing age: after it every unit is closed in every metric.
    #[serde(rename = "H")]
    pub closing: u64,
    pub max_step: u64,
    pub expired: Expired,
    /// Guard rail: more than this share of bad units among at least `guard_min`.
    pub abs_bad: f64,
    pub guard_min: u64,
    pub n_min: u64,
    pub t_opt: f64,
    /// Above this, independence is too far away to judge.
    pub phi_max: f64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            alpha: 0.05,
            alpha_p: 0.05,
            alpha_split: 0.001,
            split_strength: 100.0,
            split_grace: 60,
            tol_ratio: 1.1,
            tol_abs: 0.000_2,
            budget: 0.001,
            margin_cap: 0.1,
            lat_rho_worse: 1.0,
            lat_tol_abs: 0.000_5,
            lat_rho_better: 1.1,
            lat_budget: 0.002,
            lat_shift_worse: 2,
            lat_shift_better: 4,
            suspicion: 3.0,
            dwell: 60,
            warm_up: 30,
            timeout_bad: 30,
            closing: 30,
            max_step: 1_800,
            expired: Expired::Hold,
            abs_bad: 0.5,
            guard_min: 100,
            n_min: 60,
            t_opt: 60.0,
            phi_max: 100.0,
        }
    }
}

/// What a share metric measures; each has tolerances of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    Error,
    Latency,
}

impl Plan {
    /// By how much the candidate may be worse, at most, to be let on to `next`: the same share of all traffic at every step.
    pub fn margin(&self, kind: MetricKind, next: Weight) -> f64 {
        let (budget, least) = match kind {
            MetricKind::Error => (self.budget, self.tol_abs),
            MetricKind::Latency => (self.lat_budget, self.lat_tol_abs),
        };
        (budget * f64::from(model::WEIGHT_SUM) / f64::from(next)).max(least).min(self.margin_cap)
    }

    /// The overdispersion to reckon with; absent when it is required and unknown, or so large that independence is far away.
    pub(crate) fn known(&self, phi: Option<f64>) -> Option<f64> {
        phi.filter(|phi| *phi <= self.phi_max)
    }

    /// The null's boundary on the rollback side: rho and delta.
    pub fn tolerance(&self, kind: MetricKind) -> (f64, f64) {
        match kind {
            MetricKind::Error => (self.tol_ratio, self.tol_abs),
            MetricKind::Latency => (self.lat_rho_worse, self.lat_tol_abs),
        }
    }

    /// The null's boundary on the promotion side before the step to `next`: rho and delta.
    pub fn demand(&self, kind: MetricKind, next: Weight) -> (f64, f64) {
        let rho = match kind {
            MetricKind::Error => self.tol_ratio,
            MetricKind::Latency => self.lat_rho_better,
        };
        (rho, self.margin(kind, next))
    }
}

/// How long an epoch lasts that is opened when the step is `age` seconds old.
pub fn epoch_seconds(age: u64) -> u64 {
    match age / 3_600 {
        0 => 300,
        hours => 300 << (1 + hours.ilog2()),
    }
}

/// Seconds that a step takes beyond its waiting time, in the median, with equal arms. `metrics`: kind, stable's bad share, phi.
/// Infinite: never.
pub fn evidence_seconds(plan: &Plan, metrics: &[(MetricKind, f64, f64)], weight: Weight, next: Weight, rate: f64) -> f64 {
    let share = f64::from(weight) / f64::from(model::WEIGHT_SUM);
    let units = metrics.iter().map(|(kind, p, phi)| {
        let (rho, margin) = plan.demand(*kind, next);
        units_needed(*p, rho, margin, *phi)
    });
    units.fold(0.0, f64::max) / (share * rate)
}

/// Candidate units until equal arms with a bad share of `p` are let on, in the median; infinite: never.
pub fn units_needed(p: f64, rho: f64, margin: f64, phi: f64) -> f64 {
    let gain = KAPPA.iter().map(|kappa| p * (-kappa).ln_1p() + kappa * (rho * p + margin)).fold(f64::NEG_INFINITY, f64::max);
    if gain > 0.0 { phi * 5.9 / gain } else { f64::INFINITY }
}

/// Units of both arms until a candidate with a bad share of `candidate` beside `stable` has regressed, about in the median, in the
/// first epoch of a release; infinite: never. `part`: the metric's of alpha; `phi`: its overdispersion.
pub fn units_until_worse(plan: &Plan, kind: MetricKind, part: f64, share: Share, [candidate, stable]: [f64; 2], phi: f64) -> f64 {
    let (rho, delta) = plan.tolerance(kind);
    let factors = Factors::new(Side::Worse, share, rho, delta);
    let bets = Side::Worse.bets();
    let gains: Vec<f64> = (0..bets).map(|bet| factors.mean_ln_gain(bet, candidate, stable) / phi).collect();
    let best = gains.iter().copied().fold(0.0, f64::max);
    if best <= 0.0 {
        return f64::INFINITY;
    }
    // One half is cash, the other is spread over the bets; metrics that say nothing hold 1.
    let evidence = |units: f64| {
        let mean = gains.iter().map(|gain| (units * gain).exp()).sum::<f64>() / bets as f64;
        part * (0.5 + 0.5 * mean) + 1.0 - part
    };
    let (mut low, mut high) = (0.0, (2.0 * bets as f64 / (plan.alpha * part)).ln() / best);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if evidence(middle) >= 1.0 / plan.alpha { high = middle } else { low = middle }
    }
    high
}
