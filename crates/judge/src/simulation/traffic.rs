//! Made-up traffic: per second and arm, how many requests are drawn, and what becomes of them.

use model::{LATENCY_BUCKETS, WEIGHT_SUM, Weight, latency_edge_ns};

use super::chance::{Chance, geometric, poisson};
use super::scenario::{Impossible, Measures, Scenario, Version};
use crate::plan::MetricKind;
use crate::scales::{Closing, Measured, SETS_MAX, Tallies, Tally};

/// Name and the share of stable's answers above the threshold.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.05), ("p99", 0.01)];
const SECOND_NS: f64 = 1e9;

/// What does not change from release to release.
pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    pub(crate) metrics: Vec<Measured>,
    candidate: Thresholds,
    stable: Thresholds,
}

/// Of one arm: thresholds in nanoseconds, lowest first, and the counter sets they belong to.
struct Thresholds(Vec<(u64, usize)>);

/// The units of one arm that were drawn in one second.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Made {
    pub(crate) drawn: u64,
    pub(crate) failed: u64,
    pub(crate) hung: u64,
    slow: u64,
    /// Answered well at once, but above the threshold; per counter set.
    above: [u64; SETS_MAX],
}

/// One second of a release.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Second {
    pub(crate) candidate: Made,
    pub(crate) stable: Made,
}

impl<'a> World<'a> {
    /// # Errors
    /// Numbers that no traffic can have.
    pub(crate) fn new(scenario: &'a Scenario) -> Result<Self, Impossible> {
        scenario.check()?;
        let (mut candidate, mut stable) = (Vec::new(), Vec::new());
        let plan = &scenario.plan;
        let of_errors = Closing { candidate: plan.timeout_bad.max(1), stable: plan.timeout_bad.max(1) };
        let mut metrics = vec![Measured {
            name: "errors".to_owned(),
            kind: MetricKind::Error,
            part: if scenario.measures == Measures::Errors { 1.0 } else { 0.5 },
            phi: Some(scenario.phi),
            sets: [0, 0],
            closing: [of_errors; 2],
            since: Some(1),
        }];
        let quantiles = if scenario.measures == Measures::Errors { &[][..] } else { &QUANTILES[..] };
        for (number, (name, above)) in quantiles.iter().enumerate() {
            let bucket = frozen(scenario, *above);
            let sets = [1 + 2 * number, 2 + 2 * number];
            let closing = [plan.lat_shift_worse, plan.lat_shift_better].map(|shift| {
                let (of_candidate, of_stable) = (edge(bucket + shift), edge(bucket));
                Closing { candidate: of_candidate.div_ceil(SECOND_NS as u64), stable: of_stable.div_ceil(SECOND_NS as u64) }
            });
            if closing.iter().any(|closing| closing.candidate.max(closing.stable) > plan.closing) {
                return Err(Impossible::Closing);
            }
            candidate.push((edge(bucket + plan.lat_shift_worse), sets[0]));
            candidate.push((edge(bucket + plan.lat_shift_better), sets[1]));
            stable.extend(sets.map(|set| (edge(bucket), set)));
            let (kind, part, name) = (MetricKind::Latency, 1.0 / 6.0, (*name).to_owned());
            metrics.push(Measured { name, kind, part, phi: Some(1.0), sets, closing, since: Some(1) });
        }
        candidate.sort_unstable();
        stable.sort_unstable();
        Ok(Self { scenario, metrics, candidate: Thresholds(candidate), stable: Thresholds(stable) })
    }

    /// The requests of second `now` while the candidate's weight is `weight`.
    pub(crate) fn second(&self, now: u64, weight: Weight, chance: &mut Chance) -> Second {
        let scenario = self.scenario;
        let drawn_with = f64::from(scenario.drawn_weight.unwrap_or(weight));
        let to_candidate = scenario.rps * drawn_with / f64::from(WEIGHT_SUM);
        let to_stable = scenario.rps * (f64::from(WEIGHT_SUM) - drawn_with) / f64::from(WEIGHT_SUM);
        let burst = scenario.bursts.and_then(|bursts| bursts.at(now));
        let errors = |version: &Version| match burst {
            Some(errors) if scenario.stable.errors > 0.0 => errors * version.errors / scenario.stable.errors,
            Some(errors) => errors,
            None => version.errors_at(now, weight) * scenario.errors_course.at(now),
        };
        let latency = scenario.latency_course.at(now);
        let made = |version: &Version, thresholds: &Thresholds, rate: f64, chance: &mut Chance| {
            let above = thresholds.0.iter().map(|(threshold, _)| self.share_above(version, *threshold as f64, latency));
            version.made(rate, errors(version), thresholds, &above.collect::<Vec<f64>>(), chance)
        };
        let candidate = made(&scenario.candidate, &self.candidate, to_candidate, chance);
        let stable = made(&scenario.stable, &self.stable, to_stable, chance);
        Second { candidate, stable }
    }

    /// What is known of a second's units when the youngest are `age` seconds old.
    pub(crate) fn tallies(&self, second: &Second, age: u64) -> Tallies {
        let of = |made: &Made, version: &Version, thresholds: &Thresholds| {
            let failed = if age >= version.fails_after_s { made.failed } else { 0 };
            let slow = if age >= version.slow_s { made.slow } else { 0 };
            let mut bad = made.above;
            for (threshold, set) in &thresholds.0 {
                let above = |units: u64, age_s: u64| if age_s * SECOND_NS as u64 >= *threshold { units } else { 0 };
                bad[*set] += above(failed, version.fails_after_s) + above(slow, version.slow_s);
            }
            bad[0] = failed;
            let ended = made.drawn - made.hung - (made.failed - failed) - (made.slow - slow);
            Tally { drawn: if self.scenario.completed_only { ended } else { made.drawn }, ended, answering: 0, bad }
        };
        let Scenario { candidate, stable, .. } = self.scenario;
        Tallies { candidate: of(&second.candidate, candidate, &self.candidate), stable: of(&second.stable, stable, &self.stable) }
    }

    /// Ages at which a second's cell changes.
    pub(crate) fn ages(&self) -> Vec<u64> {
        let versions = [&self.scenario.candidate, &self.scenario.stable];
        let late = versions.iter().flat_map(|version| [version.fails_after_s, if version.slow > 0.0 { version.slow_s } else { 0 }]);
        let mut ages: Vec<u64> = late.chain([0]).collect();
        ages.sort_unstable();
        ages.dedup();
        ages
    }

    /// The share of a version's answers that take at least `threshold` nanoseconds.
    fn share_above(&self, version: &Version, threshold: f64, factor: f64) -> f64 {
        let above = |factor: f64| lognormal_above(threshold, self.scenario.latency_median_ms * 1e6 * factor, self.scenario.latency_sigma);
        let factor = factor * version.latency_factor;
        if version.tail > 0.0 {
            return (1.0 - version.tail) * above(factor) + version.tail * above(factor * version.tail_factor);
        }
        above(factor)
    }
}

impl Version {
    fn errors_at(&self, now: u64, weight: Weight) -> f64 {
        let by_weight = self.errors_from_weight.filter(|(from, _)| weight >= *from).map(|(_, errors)| errors);
        let by_second = self.errors_from_s.filter(|(from, _)| now >= *from).map(|(_, errors)| errors);
        by_second.or(by_weight).unwrap_or(self.errors)
    }

    /// `above`: per threshold, the share of good answers that reach it.
    fn made(&self, rate: f64, errors: f64, thresholds: &Thresholds, above: &[f64], chance: &mut Chance) -> Made {
        let errors = errors.min(1.0);
        let groups = poisson(chance, rate * errors / self.error_group);
        let failed = (0..groups).map(|_| if self.error_group > 1.0 { geometric(chance, self.error_group) } else { 1 }).sum();
        let (hung, slow) = (poisson(chance, rate * self.hangs), poisson(chance, rate * self.slow));
        let mut made = Made { drawn: failed + hung + slow, failed, hung, slow, above: [0; SETS_MAX] };
        let good = (rate * (1.0 - errors - self.hangs - self.slow)).max(0.0);
        // From the slowest down: those between one threshold and the next.
        let (mut reached, mut share_below) = (0, 0.0);
        for ((_, set), share) in thresholds.0.iter().zip(above).rev() {
            reached += poisson(chance, good * (share - share_below));
            made.above[*set] = reached;
            share_below = *share;
        }
        made.drawn += reached + poisson(chance, good * (1.0 - share_below));
        made
    }
}

/// The bucket whose edge is exceeded by at most this share of stable's answers, as it would be frozen before the release.
fn frozen(scenario: &Scenario, above: f64) -> usize {
    let median = scenario.latency_median_ms * 1e6 * scenario.stable.latency_factor;
    let is_enough = |bucket: &usize| lognormal_above(latency_edge_ns(*bucket) as f64, median, scenario.latency_sigma) <= above;
    (0..LATENCY_BUCKETS).find(is_enough).unwrap_or(LATENCY_BUCKETS)
}

fn edge(bucket: usize) -> u64 {
    if bucket < LATENCY_BUCKETS { latency_edge_ns(bucket) } else { u64::MAX }
}

fn lognormal_above(ns: f64, median_ns: f64, sigma: f64) -> f64 {
    0.5 * libm::erfc((ns / median_ns).ln() / (sigma * std::f64::consts::SQRT_2))
}
