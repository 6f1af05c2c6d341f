//! Bets against the null: how much each unit multiplies the evidence.
//!
//! With Y = 1 for a bad unit and w the candidate's share, Z = A·Y/w − ρ·(1−A)·Y/(1−w) − δ has mean p_c − ρ·p_s − δ, which is at
//! most 0 under the null of `Worse` and at least 0 under that of `Better`; 1 + λ·Z is then a bet that the null cannot win in the
//! long run (Waudby-Smith and Ramdas, arXiv 2010.09686; Ville 1939).

use crate::units::{Epoch, Share, Side};

/// `Worse`: alternative ratios over the boundary.
const THETA: [f64; 8] = [1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0];
/// `Better`: fractions of the largest legal bet.
pub(crate) const KAPPA: [f64; 9] = [0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.98];
/// Never more than this fraction of the legal maximum.
const CAP: f64 = 0.98;
pub(crate) const BETS_MAX: usize = 9;

impl Side {
    pub(crate) fn bets(self) -> usize {
        match self {
            Side::Worse => THETA.len(),
            Side::Better => KAPPA.len(),
        }
    }
}

/// The logarithms that one unit adds, per bet: they depend on the share only, and are worked out once for each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Factors {
    pub(crate) share: Share,
    candidate_bad: [f64; BETS_MAX],
    stable_bad: [f64; BETS_MAX],
    good: [f64; BETS_MAX],
}

impl Factors {
    pub(crate) fn new(side: Side, share: Share, rho: f64, delta: f64) -> Self {
        let (w, v) = (share.candidate(), share.stable());
        // As `of / parts` in one division, which is exact to the last bit where 1/w is not.
        let of_candidate = f64::from(share.of) / f64::from(share.parts);
        let of_stable = f64::from(share.of) / f64::from(share.of - share.parts);
        let mut factors = Self { share, candidate_bad: [0.0; BETS_MAX], stable_bad: [0.0; BETS_MAX], good: [0.0; BETS_MAX] };
        for bet in 0..side.bets() {
            let lambda = match side {
                Side::Worse => {
                    let theta = THETA[bet];
                    let best = w * v * (theta - 1.0) / (theta * rho * w + v);
                    best.min(CAP / (rho / v + delta))
                }
                Side::Better => -KAPPA[bet] / (of_candidate - delta),
            };
            factors.candidate_bad[bet] = (lambda * (of_candidate - delta)).ln_1p();
            factors.stable_bad[bet] = (lambda * (-rho * of_stable - delta)).ln_1p();
            factors.good[bet] = (-lambda * delta).ln_1p();
        }
        factors
    }

    /// ln of what an epoch's units multiply bet `bet` by.
    pub(crate) fn ln_gain(&self, bet: usize, epoch: &Epoch) -> f64 {
        let arms = &epoch.arms;
        let times = |count: u64, factor: f64| if count == 0 { 0.0 } else { count as f64 * factor };
        times(arms.candidate.bad, self.candidate_bad[bet])
            + times(arms.stable.bad, self.stable_bad[bet])
            + times(arms.candidate.good() + arms.stable.good(), self.good[bet])
    }
    /// What one unit adds to ln E of bet `bet` on average, where so large shares are bad.
    pub(crate) fn mean_ln_gain(&self, bet: usize, candidate: f64, stable: f64) -> f64 {
        let (of_candidate, of_stable) = (self.share.candidate() * candidate, self.share.stable() * stable);
        let good = 1.0 - of_candidate - of_stable;
        of_candidate * self.candidate_bad[bet] + of_stable * self.stable_bad[bet] + good * self.good[bet]
    }
}
