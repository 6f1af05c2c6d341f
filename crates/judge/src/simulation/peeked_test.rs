//! The test of two proportions from every textbook (pooled variance, normal tail), looked at every second. It is made for one look
//! at a number of requests that was fixed beforehand.

use super::rivals::Rival;
use crate::units::Arms;

/// One-sided 5 %.
const Z: f64 = 1.644_853_626_951_472_2;
/// Before so many requests of the candidate nobody would test.
const REQUESTS_MIN: u64 = 100;

#[derive(Default)]
pub(super) struct PeekedTest {
    sums: Arms,
}

impl Rival for PeekedTest {
    fn alarms(&mut self, _now: u64, arms: &Arms) -> bool {
        self.sums.candidate.closed += arms.candidate.closed;
        self.sums.candidate.bad += arms.candidate.bad;
        self.sums.stable.closed += arms.stable.closed;
        self.sums.stable.bad += arms.stable.bad;
        if self.sums.candidate.closed < REQUESTS_MIN || self.sums.stable.closed < REQUESTS_MIN {
            return false;
        }
        let (n_c, n_s) = (self.sums.candidate.closed as f64, self.sums.stable.closed as f64);
        let (b_c, b_s) = (self.sums.candidate.bad as f64, self.sums.stable.bad as f64);
        let pooled = (b_c + b_s) / (n_c + n_s);
        let spread = (pooled * (1.0 - pooled) * (1.0 / n_c + 1.0 / n_s)).sqrt();
        b_c / n_c - b_s / n_s > Z * spread && spread > 0.0
    }
}
