//! Bounds for people, never used for a verdict: how much worse, at least and at most. Each is valid at every look at once, if the
//! difference (or ratio) is constant over the release.

use crate::mixture::ln_evidence;
use crate::units::{Epoch, Side};

const STEPS: usize = 60;
const FARTHEST: f64 = 0.999_999;

/// One-sided bound on p_candidate − rho · p_stable: a lower one on the side `Worse`, an upper one on `Better`. −1 or 1: nothing
/// is known yet.
pub fn difference_bound(epochs: &[Epoch], side: Side, alpha: f64, rho: f64, phi: f64) -> f64 {
    let is_refuted = |delta: f64| ln_evidence(epochs, side, rho, delta, phi) >= (1.0 / alpha).ln();
    let (mut low, mut high) = (-FARTHEST, FARTHEST);
    let unknown = match side {
        Side::Worse => !is_refuted(low),
        Side::Better => !is_refuted(high),
    };
    if unknown {
        return if side == Side::Worse { -1.0 } else { 1.0 };
    }
    for _ in 0..STEPS {
        let middle = (low + high) / 2.0;
        // Evidence falls with delta on the one side and grows with it on the other.
        if is_refuted(middle) == (side == Side::Worse) { low = middle } else { high = middle }
    }
    if side == Side::Worse { low } else { high }
}

/// "At least so many times stable's share": the largest ratio that is refuted; 0 if none is.
pub fn ratio_lower_bound(epochs: &[Epoch], alpha: f64, phi: f64) -> f64 {
    let is_refuted = |ln_ratio: f64| ln_evidence(epochs, Side::Worse, ln_ratio.exp(), 0.0, phi) >= (1.0 / alpha).ln();
    let (mut low, mut high) = (1e-3_f64.ln(), 1e3_f64.ln());
    if !is_refuted(low) {
        return 0.0;
    }
    for _ in 0..STEPS {
        let middle = (low + high) / 2.0;
        if is_refuted(middle) { low = middle } else { high = middle }
    }
    low.exp()
}

/// Half width, in ranks (0 to 1), of the interval around a quantile of one arm: Howard and Ramdas, arXiv 1906.09712. `count` is at
/// least 32.
pub fn quantile_rank_width(quantile: f64, count: u64, alpha: f64) -> f64 {
    let n = count as f64;
    let l = (1.4 * (2.1 * n).ln().ln() + (10.0 / alpha).ln()) / n;
    1.5 * (quantile * (1.0 - quantile) * l).sqrt() + 0.8 * l
}
