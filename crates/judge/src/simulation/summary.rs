//! What many releases say together.

use model::Weight;
use serde::Serialize;

use super::release::{Ending, Release};
use super::scenario::Scenario;

/// Shares of all releases, 0 to 1; times in seconds from the release's start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub releases: usize,
    pub promoted: f64,
    pub rolled_back: f64,
    /// A step reached its longest time without a decision.
    pub expired: f64,
    /// The traffic split did not match the weight.
    pub split: f64,
    pub to_promote: Option<Times>,
    pub to_roll_back: Option<Times>,
    /// Of the candidate, until the release ended: median.
    pub candidate_requests: u64,
    pub candidate_failed: u64,
    pub steps: Vec<StepSummary>,
    /// A release whose length is the median.
    pub median_release: u32,
}

/// Quantiles over the releases that ended so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Times {
    pub median_s: u64,
    pub nine_of_ten_s: u64,
    pub longest_s: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepSummary {
    pub weight: Weight,
    pub rolled_back: f64,
    pub expired: f64,
    /// Of the releases that went on: median.
    pub seconds: Option<u64>,
}

impl Summary {
    pub fn of(scenario: &Scenario, releases: &[Release]) -> Self {
        let share = |ending: Ending| releases.iter().filter(|release| release.ending == ending).count() as f64 / releases.len() as f64;
        let times = |ending: Ending| times(releases.iter().filter(|release| release.ending == ending).map(|release| release.seconds));
        let median = |of: fn(&Release) -> u64| quantile(releases.iter().map(of), 0.5).unwrap_or(0);
        let length = median(|release| release.seconds);
        Self {
            releases: releases.len(),
            promoted: share(Ending::Promoted),
            rolled_back: share(Ending::RolledBack),
            expired: share(Ending::Expired),
            split: share(Ending::Split),
            to_promote: times(Ending::Promoted),
            to_roll_back: times(Ending::RolledBack),
            candidate_requests: median(|release| release.candidate_requests),
            candidate_failed: median(|release| release.candidate_failed),
            steps: scenario.steps.iter().enumerate().map(|(step, weight)| StepSummary::of(step, *weight, releases)).collect(),
            median_release: releases.iter().find(|release| release.seconds == length).map_or(0, |release| release.number),
        }
    }
}

impl StepSummary {
    fn of(step: usize, weight: Weight, releases: &[Release]) -> Self {
        let is_here = |release: &&Release, ending: Ending| release.step == step && release.ending == ending;
        let share = |ending| releases.iter().filter(|release| is_here(release, ending)).count() as f64 / releases.len() as f64;
        let seconds = quantile(releases.iter().filter_map(|release| release.step_seconds.get(step).copied()), 0.5);
        Self { weight, rolled_back: share(Ending::RolledBack), expired: share(Ending::Expired), seconds }
    }
}

fn times(seconds: impl Iterator<Item = u64> + Clone) -> Option<Times> {
    let of = |share| quantile(seconds.clone(), share);
    Some(Times { median_s: of(0.5)?, nine_of_ten_s: of(0.9)?, longest_s: of(1.0)? })
}

/// The smallest value that at least this share of the values does not exceed.
pub fn quantile(values: impl Iterator<Item = u64>, share: f64) -> Option<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.max(1) - 1).copied()
}
