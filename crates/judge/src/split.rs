//! The split check: does the traffic split match the weight? On drawn units, before any outcome.
//!
//! A Beta(100·w, 100·(1−w)) mixture against Bernoulli(w), per epoch, and a Dirichlet mixture against a multinomial where there are more
//! than two arms (Lindon and Malek, arXiv 2011.03567), arranged so that nothing large cancels.

use crate::units::Share;

const HALF_LN_2PI: f64 = 0.918_938_533_204_672_8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    pub share: Share,
    pub candidate: u64,
    pub stable: u64,
}

/// ln E over all epochs, warm-up included. `strength`: 100 by default.
pub fn ln_split_evidence(draws: &[Drawn], strength: f64) -> f64 {
    draws.iter().map(|drawn| of_epoch(drawn, strength)).sum()
}

fn of_epoch(drawn: &Drawn, strength: f64) -> f64 {
    let Share { parts, of } = drawn.share;
    ln_ratio_evidence(&[(parts, drawn.candidate), (of - parts, drawn.stable)], strength)
}

/// ln E of any number of arms, each with its part of the split and the units drawn to it: a Dirichlet(strength · parts) mixture
/// against the multinomial of the parts. It reaches ln(1/a) with probability at most a, whenever it is looked at. Parts are above 0.
pub fn ln_ratio_evidence(arms: &[(u32, u64)], strength: f64) -> f64 {
    let of: i128 = arms.iter().map(|(parts, _)| i128::from(*parts)).sum();
    let all: i128 = arms.iter().map(|(_, drawn)| i128::from(*drawn)).sum();
    let n_after = strength + all as f64;
    let of_arm = |(parts, drawn): &(u32, u64)| {
        let (share, k) = (f64::from(*parts) / of as f64, *drawn as f64);
        let (before, after) = (strength * share, strength * share + k);
        // k − n·share, in whole numbers before the division.
        let d = (i128::from(*drawn) * of - all * i128::from(*parts)) as f64 / of as f64;
        let large = k * (d / (n_after * share)).ln_1p() + before * (after / n_after).ln();
        large - 0.5 * after.ln() + HALF_LN_2PI + stirling_rest(after) - libm::lgamma(before)
    };
    arms.iter().map(of_arm).sum::<f64>() + 0.5 * n_after.ln() - HALF_LN_2PI - stirling_rest(n_after) + libm::lgamma(strength)
}

/// ln Γ(x) − ((x − ½)·ln x − x + ½·ln 2π).
fn stirling_rest(x: f64) -> f64 {
    if x < 10.0 {
        return libm::lgamma(x) - ((x - 0.5) * x.ln() - x + HALF_LN_2PI);
    }
    let y = 1.0 / (x * x);
    (1.0 / 12.0 + y * (-1.0 / 360.0 + y * (1.0 / 1260.0 + y * (-1.0 / 1680.0 + y * (1.0 / 1188.0 - y * 691.0 / 360_360.0))))) / x
}
