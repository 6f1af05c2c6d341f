//! What is simulated: plain data.

use model::{WEIGHT_SUM, Weight};
use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// Traffic, two versions, a plan. Shares are 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Requests a second, both versions together.
    pub rps: f64,
    /// The candidate's weight in each step; behind the last one it would get everything.
    pub steps: Vec<Weight>,
    /// Per step: it lasts at least so many seconds. Absent: as the plan has it.
    pub stay_s: Vec<u64>,
    pub stable: Version,
    pub candidate: Version,
    /// What both versions' share of errors is multiplied by.
    pub errors_course: Course,
    /// What both versions' latency is multiplied by.
    pub latency_course: Course,
    pub bursts: Option<Bursts>,
    pub latency_median_ms: f64,
    /// Standard deviation of the logarithm.
    pub latency_sigma: f64,
    pub measures: Measures,
    /// Overdispersion that the errors are judged with.
    pub phi: f64,
    /// The weight that is really drawn with, whatever the step says: a defect.
    pub drawn_weight: Option<Weight>,
    /// Steps last so many seconds, whatever the scales say for the candidate.
    pub forced_s: Option<u64>,
    /// Nothing is rolled back, and suspicion does not wait: only the promise about promotion is tried.
    pub promotion_only: bool,
    /// Only what has ended is shown to the scales, as if it had just been drawn: the mistake that the prefix rule prevents.
    pub completed_only: bool,
    pub plan: Plan,
    pub runs: u32,
    pub seed: u64,
}

/// How one version answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Version {
    pub errors: f64,
    /// Another share of errors from this weight of the candidate on.
    pub errors_from_weight: Option<(Weight, f64)>,
    /// Another share of errors from this second of the release on.
    pub errors_from_s: Option<(u64, f64)>,
    /// Errors come in groups of so many within one second, on average.
    pub error_group: f64,
    /// Age at which a failing request fails, in seconds.
    pub fails_after_s: u64,
    /// Never answered.
    pub hangs: f64,
    /// Answered well, after `slow_s` seconds.
    pub slow: f64,
    pub slow_s: u64,
    pub latency_factor: f64,
    /// This share of the answers is `tail_factor` times slower on top.
    pub tail: f64,
    pub tail_factor: f64,
}

/// A factor over the time of the release.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Course {
    Steady,
    /// From 1 to `factor` within `over_s` seconds, by the same percentage every second.
    Geometric {
        factor: f64,
        over_s: f64,
    },
    /// From 1 to `factor` within `over_s` seconds, by the same amount every second.
    Linear {
        factor: f64,
        over_s: f64,
    },
    /// Between `middle` − `swing` and `middle` + `swing`; begins at `turn` (0: at the middle and rising, −0.25: lowest).
    Wave {
        middle: f64,
        swing: f64,
        period_s: f64,
        turn: f64,
    },
}

/// Both versions fail alike for a while, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bursts {
    pub errors: f64,
    pub every_s: u64,
    pub at_s: u64,
    pub lasts_s: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measures {
    /// Errors one half; p50, p95 and p99 one sixth each.
    ErrorsAndLatency,
    Errors,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            rps: 1_000.0,
            steps: vec![100, 500, 2_000],
            stay_s: Vec::new(),
            stable: Version::default(),
            candidate: Version::default(),
            errors_course: Course::Steady,
            latency_course: Course::Steady,
            bursts: None,
            latency_median_ms: 50.0,
            latency_sigma: 0.6,
            measures: Measures::ErrorsAndLatency,
            phi: 1.0,
            drawn_weight: None,
            forced_s: None,
            promotion_only: false,
            completed_only: false,
            plan: Plan::default(),
            runs: 200,
            seed: 1,
        }
    }
}

impl Default for Version {
    fn default() -> Self {
        Self {
            errors: 0.001,
            errors_from_weight: None,
            errors_from_s: None,
            error_group: 1.0,
            fails_after_s: 0,
            hangs: 0.0,
            slow: 0.0,
            slow_s: 10,
            latency_factor: 1.0,
            tail: 0.0,
            tail_factor: 5.0,
        }
    }
}

impl Course {
    pub(crate) fn at(self, second: u64) -> f64 {
        let t = second as f64;
        match self {
            Course::Steady => 1.0,
            Course::Geometric { factor, over_s } => factor.powf((t / over_s).min(1.0)),
            Course::Linear { factor, over_s } => 1.0 + (factor - 1.0) * (t / over_s).min(1.0),
            Course::Wave { middle, swing, period_s, turn } => middle + swing * (std::f64::consts::TAU * (t / period_s + turn)).sin(),
        }
    }
}

impl Bursts {
    /// The share of errors while one lasts.
    pub(crate) fn at(&self, second: u64) -> Option<f64> {
        let within = second % self.every_s;
        (self.at_s..self.at_s + self.lasts_s).contains(&within).then_some(self.errors)
    }
}

/// What no traffic can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Impossible {
    NoRuns,
    Rate,
    /// They rise, from 0.01 % to 99.99 %.
    Steps,
    /// Of errors, hanging and slow answers: 0 to 1, all together too.
    Shares,
    Latency,
    /// A closing age is above the plan's largest.
    Closing,
    Phi,
}

impl std::fmt::Display for Impossible {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Impossible::NoRuns => "nothing is learnt from no releases",
            Impossible::Rate => "the traffic is above 0 and at most a thousand million requests a second",
            Impossible::Steps => "steps rise, and lie between 0.01 % and 99.99 %",
            Impossible::Shares => "shares of errors, hanging and slow answers lie between 0 and 100 %, and do so together",
            Impossible::Latency => "latency and its factors are above 0",
            Impossible::Closing => "the largest closing age is at least the age at which an open request has failed",
            Impossible::Phi => "the overdispersion is at least 1",
        })
    }
}

impl std::error::Error for Impossible {}

impl Scenario {
    /// # Errors
    /// Numbers that no traffic can have.
    pub fn check(&self) -> Result<(), Impossible> {
        let above_0 = |value: f64| value > 0.0 && value.is_finite();
        let rise = self.steps.windows(2).all(|pair| pair[0] < pair[1]);
        let courses = [self.errors_course, self.latency_course];
        let demand = |holds: bool, otherwise| if holds { Ok(()) } else { Err(otherwise) };
        demand(self.runs > 0, Impossible::NoRuns)?;
        demand(above_0(self.rps) && self.rps <= 1e9, Impossible::Rate)?;
        demand(rise && !self.steps.is_empty() && self.steps.iter().all(|weight| (1..WEIGHT_SUM).contains(weight)), Impossible::Steps)?;
        demand(self.drawn_weight.is_none_or(|weight| (1..WEIGHT_SUM).contains(&weight)), Impossible::Steps)?;
        demand(self.stable.has_shares() && self.candidate.has_shares(), Impossible::Shares)?;
        demand(self.bursts.is_none_or(|bursts| (0.0..=1.0).contains(&bursts.errors) && bursts.every_s > 0), Impossible::Shares)?;
        demand(courses.iter().all(Course::is_possible), Impossible::Latency)?;
        demand(above_0(self.latency_median_ms) && above_0(self.latency_sigma), Impossible::Latency)?;
        demand(self.stable.has_latency() && self.candidate.has_latency(), Impossible::Latency)?;
        demand(self.plan.closing >= self.plan.timeout_bad.max(1), Impossible::Closing)?;
        demand(self.phi >= 1.0 && self.phi.is_finite(), Impossible::Phi)
    }

    /// The weight behind the step.
    pub(crate) fn next_weight(&self, step: usize) -> Weight {
        self.steps.get(step + 1).copied().unwrap_or(WEIGHT_SUM)
    }
}

impl Version {
    fn has_shares(&self) -> bool {
        let others = [self.errors_from_weight.map(|(_, errors)| errors), self.errors_from_s.map(|(_, errors)| errors)];
        let is_share = |value: f64| (0.0..=1.0).contains(&value);
        let errors = others.into_iter().flatten().chain([self.errors]);
        let least = is_share(self.hangs) && is_share(self.slow) && is_share(self.tail) && self.error_group >= 1.0;
        least && errors.into_iter().all(|errors| errors >= 0.0 && is_share(errors + self.hangs + self.slow))
    }

    fn has_latency(&self) -> bool {
        [self.latency_factor, self.tail_factor].iter().all(|factor| *factor > 0.0 && factor.is_finite())
    }
}

impl Course {
    fn is_possible(&self) -> bool {
        match *self {
            Course::Steady => true,
            Course::Geometric { factor, over_s } | Course::Linear { factor, over_s } => factor > 0.0 && over_s > 0.0,
            Course::Wave { middle, swing, period_s, turn } => middle - swing.abs() >= 0.0 && period_s > 0.0 && turn.is_finite(),
        }
    }
}
