//! The split check: does the traffic split match the weight? On drawn units, before any outcome.
//!
//! A Beta(100·w, 100·(1−w)) mixture against Bernoulli(w), per epoch (Lindon and Malek, arXiv 2011.03567), arranged so that nothing
//! large cancels.

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
    let (parts, of) = (i128::from(drawn.share.parts), i128::from(drawn.share.of));
    let (w, v) = (drawn.share.candidate(), drawn.share.stable());
    let (k_c, k_s) = (drawn.candidate as f64, drawn.stable as f64);
    let (a, b, n) = (strength * w, strength * v, k_c + k_s);
    let (a_after, b_after, n_after) = (a + k_c, b + k_s, strength + n);
    // k_c − n·w, in whole numbers before the division.
    let surplus = i128::from(drawn.candidate) * (of - parts) - i128::from(drawn.stable) * parts;
    let d = surplus as f64 / of as f64;
    let large = k_c * (d / (n_after * w)).ln_1p()
        + k_s * (-d / (n_after * v)).ln_1p()
        + a * (a_after / n_after).ln()
        + b * (b_after / n_after).ln();
    large + 0.5 * (n_after / a_after / b_after).ln() + HALF_LN_2PI + stirling_rest(a_after) + stirling_rest(b_after)
        - stirling_rest(n_after)
        - ln_beta(a, b)
}

fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

/// ln Γ(x) − ((x − ½)·ln x − x + ½·ln 2π).
fn stirling_rest(x: f64) -> f64 {
    if x < 10.0 {
        return libm::lgamma(x) - ((x - 0.5) * x.ln() - x + HALF_LN_2PI);
    }
    let y = 1.0 / (x * x);
    (1.0 / 12.0 + y * (-1.0 / 360.0 + y * (1.0 / 1260.0 + y * (-1.0 / 1680.0 + y * (1.0 / 1188.0 - y * 691.0 / 360_360.0))))) / x
}
