//! Kayenta's judge: a Mann–Whitney interval at 98 % on points of one minute; "high" when its lower end is above a quarter of the
//! Hodges–Lehmann shift (`MannWhitneyClassifier.scala` and `NetflixACAJudge.scala` in github.com/spinnaker/kayenta). Looked at every
//! five minutes.

use super::rivals::Rival;
use crate::units::{Arms, Units};

const POINT_S: u64 = 60;
const LOOK_S: u64 = 300;
const TOLERANCE: f64 = 0.25;
/// The normal quantile of 99 %: a two-sided 98 %.
const Z: f64 = 2.326_347_874_040_841;

#[derive(Default)]
pub(super) struct RankTest {
    minute: Arms,
    candidate: Vec<f64>,
    stable: Vec<f64>,
}

impl Rival for RankTest {
    fn alarms(&mut self, now: u64, arms: &Arms) -> bool {
        self.minute.candidate.closed += arms.candidate.closed;
        self.minute.candidate.bad += arms.candidate.bad;
        self.minute.stable.closed += arms.stable.closed;
        self.minute.stable.bad += arms.stable.bad;
        if (now + 1).is_multiple_of(POINT_S) {
            let minute = std::mem::take(&mut self.minute);
            let share = |units: Units| if units.closed == 0 { 0.0 } else { units.bad as f64 / units.closed as f64 };
            self.candidate.push(share(minute.candidate));
            self.stable.push(share(minute.stable));
        }
        (now + 1).is_multiple_of(LOOK_S) && is_high(&self.candidate, &self.stable)
    }
}

fn is_high(candidate: &[f64], stable: &[f64]) -> bool {
    let mut differences: Vec<f64> = candidate.iter().flat_map(|one| stable.iter().map(move |other| one - other)).collect();
    differences.sort_unstable_by(f64::total_cmp);
    let (m, n) = (candidate.len() as f64, stable.len() as f64);
    let spread = (m * n * (m + n + 1.0) / 12.0).sqrt();
    // The smallest shift at which the rank sum, with the correction for continuity, is no longer significant.
    let below = (m * n / 2.0 - 0.5 - Z * spread).floor() + 1.0;
    if below < 1.0 || differences.is_empty() {
        return false;
    }
    let lower = differences[(below as usize - 1).min(differences.len() - 1)];
    let shift = differences[differences.len() / 2];
    lower > TOLERANCE * shift.abs()
}
