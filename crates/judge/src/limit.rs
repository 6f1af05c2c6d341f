//! A limit that stands for itself: is the share of bad units above it? One sample, no control group.

/// Alternative shares over the limit.
const OVER: [f64; 6] = [1.5, 2.0, 3.0, 5.0, 10.0, 30.0];

/// ln E against "bad with probability at most `limit`": a mixture of likelihood ratios, so that it reaches ln(1/a) with probability
/// at most a, at whatever moments it is looked at (Ville 1939). Nothing is never above: 0 of 0 gives 0.
pub fn ln_evidence_over(limit: f64, bad: u64, units: u64) -> f64 {
    let good = units.saturating_sub(bad) as f64;
    if !(0.0..1.0).contains(&limit) {
        return 0.0;
    }
    // Below one in ten thousand a limit is a wish: one failure would decide.
    let limit = limit.max(1e-4);
    let terms = OVER.map(|over| {
        let share = (over * limit).min(0.999);
        bad as f64 * (share / limit).ln() + good * ((1.0 - share) / (1.0 - limit)).ln()
    });
    crate::mixture::ln_sum(&terms) - (OVER.len() as f64).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_failures_by_chance_are_no_evidence_and_many_are() {
        let decides = |limit, bad, units| ln_evidence_over(limit, bad, units) >= (100.0_f64).ln();
        assert!(!decides(0.011, 1, 60) && !decides(0.011, 2, 60) && !decides(0.011, 0, 0));
        assert!(decides(0.011, 5, 50) && decides(0.011, 3, 3) && decides(0.011, 300, 10_000));
        assert!(!decides(0.011, 110, 10_000) && !decides(1.0, 100, 100) && !decides(f64::NAN, 100, 100));
    }
}
