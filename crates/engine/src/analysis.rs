//! The judge at work on a running release: what it is told, and what is kept of it. In words: said. Driven by: looks.
//!
//! **Invariants**: the scales are kept before what they say is acted upon, in the same transaction for both arms; a look that could
//! not be kept did not happen.

use std::collections::BTreeMap;

use judge::{Closing, Measured, MetricKind, Plan, Scalar, ScalarSums, Scales, Share};
use model::{Independence, Judged, Judging, ReleaseId, ServiceName, Threshold, VersionName, WEIGHT_SUM, Weight, latency_edge_ns};
use release::{Release, State};
use serde::{Deserialize, Serialize};

use crate::measure::Measurement;
use crate::said::Said;

/// Latency quantiles in parts per 10,000.
pub(crate) const QUANTILES: [(&str, u64); 3] = [("p50", 5_000), ("p95", 9_500), ("p99", 9_900)];
const ERRORS: &str = "errors";
/// Of alpha: errors, each latency quantile; with metrics of the user's own they give up a fifth.
const PART_ERRORS: f64 = 0.5;
const PART_LATENCY: f64 = 0.5 / 3.0;
const PART_OF_OWN: f64 = 0.2;
/// Without a request for so long there is no traffic.
pub(crate) const SILENT_S: u64 = 60;

/// The scales of one release, and what belongs to them. Plain data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Analysis {
    pub release: ReleaseId,
    pub number: u64,
    pub candidate: VersionName,
    pub stable: VersionName,
    /// What the candidate is compared with: stable, or a fresh baseline of it.
    pub compared: VersionName,
    pub judging: Judging,
    pub scales: Scales,
    /// Per quantile: stable's bucket, frozen before the epoch from which it counts.
    pub frozen: [Option<usize>; 3],
    /// The step that was begun, and its weight.
    pub step: Option<usize>,
    pub weight: Weight,
    pub measured: BTreeMap<String, Measurement>,
    pub last: Option<Said>,
    /// What is told once in a step.
    pub told: Vec<String>,
    /// Looks that were recorded so far, and when the last one was.
    pub looks: u64,
    pub recorded_at_s: u64,
    pub last_draw_s: u64,
    /// What is counted are connections of any protocol.
    #[serde(default)]
    pub of_connections: bool,
}

impl Analysis {
    /// Before the first step of a release. `heads`: stable's times to the answer's head; `phi`: its overdispersion, if measured.
    pub(crate) fn new(release: &Release, judging: &Judging, heads: &BTreeMap<usize, u64>, phi: Option<f64>) -> Option<Self> {
        let stable = release.stable.clone()?;
        let frozen = QUANTILES.map(|(_, quantile)| judge::threshold_bucket(heads, quantile));
        let timeout_bad = judging.timeout_bad_ms.div_ceil(1_000);
        let shifts = shifts(judging.slower);
        let slowest = frozen.iter().flatten().map(|bucket| closing(*bucket, shifts)[1].candidate).max().unwrap_or(0);
        let canary = release.settings.canary.as_ref()?;
        let is_sticky = canary.sticky.is_some();
        // A client's last request of its window may take its whole time.
        let window_s = if is_sticky { canary.sticky_window_ms.div_ceil(1_000) } else { 0 };
        let plan = Plan {
            tol_abs: judging.more_errors,
            lat_shift_worse: shifts[0],
            lat_shift_better: shifts[1],
            budget: judging.budget,
            lat_budget: judging.latency_budget,
            warm_up: judging.warm_up_ms.div_ceil(1_000),
            timeout_bad,
            closing: window_s + timeout_bad.max(slowest),
            expired: match judging.expired {
                model::Expired::Hold => judge::Expired::Hold,
                model::Expired::Rollback => judge::Expired::Rollback,
                model::Expired::Ask => judge::Expired::Ask,
            },
            ..Plan::default()
        };
        let own: Vec<&model::UserMetric> = judging.metrics.iter().filter(|metric| !metric.dry_run).collect();
        let rest = if own.is_empty() { 1.0 } else { 1.0 - PART_OF_OWN };
        // Where a client is the unit, what its requests do together is no matter.
        let phi = phi.filter(|_| !is_sticky);
        let phi = match judging.independence {
            Independence::Required if is_sticky => Some(1.0),
            Independence::Known(phi) => Some(phi),
            Independence::Required => phi,
            Independence::Assumed => Some(phi.unwrap_or(1.0)),
        };
        // Of latencies nothing was measured beforehand: their thresholds are known only now.
        let latency_phi = if judging.independence == Independence::Assumed { Some(1.0) } else { phi };
        let age = if is_sticky { plan.closing } else { timeout_bad };
        let at_timeout = Closing { candidate: age, stable: age };
        let errors = Measured {
            name: ERRORS.to_owned(),
            kind: MetricKind::Error,
            part: PART_ERRORS * rest,
            phi,
            sets: [0, 0],
            closing: [at_timeout; 2],
            since: Some(1),
        };
        let latency = |(index, (name, _)): (usize, &(&str, u64))| Measured {
            name: (*name).to_owned(),
            kind: MetricKind::Latency,
            part: PART_LATENCY * rest,
            phi: latency_phi,
            sets: [1 + 2 * index, 2 + 2 * index],
            closing: frozen[index].filter(|_| !is_sticky).map_or([at_timeout; 2], |bucket| closing(bucket, shifts)),
            since: frozen[index].map(|_| 1),
        };
        let metrics = std::iter::once(errors).chain(QUANTILES.iter().enumerate().map(latency)).collect();
        let scalars = own.iter().map(|metric| Scalar {
            name: metric.name.clone(),
            part: PART_OF_OWN / own.len() as f64,
            tolerance: metric.tolerance,
            margin: metric.margin.unwrap_or(f64::MAX),
            promotes: metric.margin.is_some(),
            skewed: metric.skewed,
            release: ScalarSums::default(),
            step: ScalarSums::default(),
        });
        let scales = Scales::new(plan, metrics, scalars.collect());
        let scales = if is_sticky { scales.of_cohorts() } else { scales };
        Some(Self {
            release: release.id.clone(),
            number: release.number,
            candidate: release.candidate.clone(),
            compared: release.baseline().unwrap_or_else(|| stable.clone()),
            stable,
            scales,
            measured: judging.metrics.iter().map(|metric| (metric.name.clone(), Measurement::default())).collect(),
            judging: judging.clone(),
            frozen,
            step: None,
            weight: 0,
            last: None,
            told: Vec::new(),
            looks: 0,
            recorded_at_s: 0,
            last_draw_s: 0,
            of_connections: false,
        })
    }

    /// The next epoch with the step's weight. What became known of stable's latency meanwhile counts from here on.
    pub(crate) fn begin_step(&mut self, release: &Release, step: usize, heads: &BTreeMap<usize, u64>) {
        self.join(heads);
        let steps = release.settings.steps();
        let next = steps.get(step + 1).map_or(WEIGHT_SUM, |next| next.weight);
        self.scales.limits(steps[step].dwell_ms.div_ceil(1_000), steps[step].max_ms.div_ceil(1_000));
        let share = match step.checked_sub(1) {
            Some(before) if self.scales.is_of_cohorts() => Share::of_raise(steps[before].weight, steps[step].weight),
            // The draw between candidate and baseline, of requests that went to one of the two.
            _ if release.baseline().is_some() => {
                let (weight, rest) = (steps[step].weight, WEIGHT_SUM - steps[step].weight);
                Share { parts: u32::from(weight), of: u32::from(weight + weight.min(rest)) }
            }
            _ => Share::of_weight(steps[step].weight),
        };
        self.scales.begin_step(step, share, next);
        (self.step, self.weight, self.last_draw_s) = (Some(step), steps[step].weight, 0);
        self.told.clear();
        self.measured.values_mut().for_each(|measurement| measurement.in_step = false);
    }

    pub(crate) fn knows_all_thresholds(&self) -> bool {
        self.frozen.iter().all(Option::is_some)
    }

    /// Freezes thresholds that are not yet, from what stable has shown by now; true when there are new ones.
    pub(crate) fn join(&mut self, heads: &BTreeMap<usize, u64>) -> bool {
        let before = self.frozen;
        for (index, (name, quantile)) in QUANTILES.iter().enumerate().filter(|(index, _)| self.frozen[*index].is_none()).collect::<Vec<_>>()
        {
            let Some(bucket) = judge::threshold_bucket(heads, *quantile) else { continue };
            let whole = Closing { candidate: self.scales.plan().closing, stable: self.scales.plan().closing };
            let ages = if self.scales.is_of_cohorts() { [whole; 2] } else { closing(bucket, shifts(self.judging.slower)) };
            // The ring of cells is as long as it is.
            if ages[1].candidate <= self.scales.plan().closing {
                self.frozen[index] = Some(bucket);
                self.scales.join(name, ages);
            }
        }
        self.frozen != before
    }

    /// In another boot its clocks mean nothing.
    pub(crate) fn begin_anew(&mut self) {
        self.scales.begin_anew();
        (self.step, self.recorded_at_s, self.last_draw_s) = (None, 0, 0);
        for measurement in self.measured.values_mut() {
            (measurement.next_at, measurement.at, measurement.missing_since) = (0, None, None);
        }
    }

    /// What the data plane counts in the open epoch.
    pub(crate) fn judged(&self) -> Judged {
        let plan = self.scales.plan();
        let thresholds =
            self.frozen.iter().enumerate().filter_map(|(index, bucket)| Some((index, (*bucket)?))).flat_map(|(index, bucket)| {
                let sides = [(1 + 2 * index, plan.lat_shift_worse), (2 + 2 * index, plan.lat_shift_better)];
                sides.map(|(set, shift)| Threshold {
                    set,
                    candidate_ns: latency_edge_ns(bucket + shift),
                    stable_ns: latency_edge_ns(bucket),
                })
            });
        Judged {
            epoch: self.scales.epoch(),
            closing_s: plan.closing,
            timeout_bad_ms: plan.timeout_bad * 1_000,
            thresholds: thresholds.collect(),
        }
    }
}

/// Buckets between stable's threshold and the candidate's, for worse and for better: 16 an octave, and two more to be let on.
fn shifts(slower: f64) -> [usize; 2] {
    let worse = (16.0 * (1.0 + slower).log2()).round().max(1.0) as usize;
    [worse, worse + 2]
}

/// Ages at which the sets of a latency metric close, in seconds.
fn closing(bucket: usize, shifts: [usize; 2]) -> [Closing; 2] {
    let s = |bucket: usize| latency_edge_ns(bucket).div_ceil(1_000_000_000);
    shifts.map(|shift| Closing { candidate: s(bucket + shift), stable: s(bucket) })
}

/// Whether the release is at a step that is judged.
pub(crate) fn is_judged(release: &Release) -> bool {
    release.state.step().is_some() && (1..WEIGHT_SUM).contains(&release.weight())
}

pub(crate) fn key(service: &ServiceName, number: u64) -> String {
    format!("analysis/{service}/{number:08}")
}

pub(crate) fn look_key(service: &ServiceName, number: u64, look: u64) -> String {
    format!("look/{service}/{number:08}/{look:08}")
}

/// A step ends in its own way, and only from the state that is judged.
pub(crate) fn judged_step(release: &Release) -> Option<usize> {
    match release.state {
        State::Judging { step } => Some(step),
        _ => None,
    }
}
