//! A fixed threshold per minute, as in Argo Rollouts (`interval: 1m`, `failureLimit: 2`;
//! argoproj.github.io/argo-rollouts/features/analysis) and Flagger (`interval: 1m`, `threshold: 3`; docs.flagger.app).

use super::rivals::Rival;
use crate::units::{Arms, Units};

const WINDOW_S: u64 = 60;
const SHARE_MAX: f64 = 0.01;
const FAILURES: u32 = 3;

/// Fails at the third minute in which more than 1 % of the candidate's requests fail; stable is not looked at.
#[derive(Default)]
pub(super) struct ThresholdRule {
    window: Units,
    failures: u32,
}

impl Rival for ThresholdRule {
    fn alarms(&mut self, now: u64, arms: &Arms) -> bool {
        self.window.closed += arms.candidate.closed;
        self.window.bad += arms.candidate.bad;
        if (now + 1).is_multiple_of(WINDOW_S) {
            let window = std::mem::take(&mut self.window);
            self.failures += u32::from(window.bad as f64 > SHARE_MAX * window.closed as f64);
        }
        self.failures >= FAILURES
    }
}
