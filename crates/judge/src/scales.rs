//! The scales in use: counts per epoch and assignment second go in, one look a second comes out.
//!
//! Constant memory, whatever the traffic and the time: cells of the last seconds, totals per epoch, and one number a bet of all that
//! is older. Everything is plain data, so that a look can be kept, and gone on with after a crash.
//! **Invariant**: a closed unit never changes; an epoch enters the evidence for good only when all its units are closed.

use std::collections::BTreeMap;

use model::Weight;
use serde::{Deserialize, Serialize};

use crate::mixture::Mixture;
use crate::plan::{MetricKind, Plan, epoch_seconds};
use crate::prefix::delays;
use crate::split::{Drawn, ln_split_evidence};
use crate::units::{Arms, Epoch, Share, Side, Units};
use crate::verdict::{Circumstances, Guard, Outcome, Scalar, Verdict, Weighed};

/// Errors, and for each latency quantile one set per side.
pub const SETS_MAX: usize = 7;

/// Units of one arm, of one epoch and assignment second. Read torn, it does no harm: differences saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Assigned to this arm.
    pub drawn: u64,
    pub ended: u64,
    /// The answer's head has come, its end has not: how long it took is known, how it ends is not.
    pub answering: u64,
    /// Per counter set.
    pub bad: [u64; SETS_MAX],
}

/// One assignment second of one epoch, both arms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tallies {
    pub candidate: Tally,
    pub stable: Tally,
}

/// When the units of one arm close in one counter set: seconds of age, rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    pub candidate: u64,
    pub stable: u64,
}

/// A metric that is a share of bad units, as the plan of a release has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub name: String,
    pub kind: MetricKind,
    /// Its part of alpha; all metrics' parts sum to 1.
    pub part: f64,
    /// Absent: unknown, and it was required.
    pub phi: Option<f64>,
    /// Counter sets of the rollback side and of the promotion side; the same for errors.
    pub sets: [usize; 2],
    /// Ages at which those sets close.
    pub closing: [Closing; 2],
    /// It counts from this epoch on; absent while its threshold is not known.
    pub since: Option<u32>,
}

/// Evidence of one metric over the epochs that are complete.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Evidence {
    /// Absent where the overdispersion is required and unknown.
    worse: Option<Mixture>,
    better: Option<Mixture>,
}

/// A stretch with one weight.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stretch {
    number: u32,
    share: Share,
    step: usize,
    warm: bool,
    /// The step's age when it was opened, in seconds.
    opened_at_age: u64,
    /// Nobody is assigned to it from this second on.
    ended_at: Option<u64>,
    /// Closed for good, per counter set.
    closed: [Arms; SETS_MAX],
    drawn: [u64; 2],
    /// Seconds that are younger.
    cells: BTreeMap<u64, Tallies>,
}

/// An epoch for display, at the closing age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    pub number: u32,
    pub share: Share,
    pub step: usize,
    pub warm: bool,
    pub closed: [Arms; SETS_MAX],
    /// Candidate, stable.
    pub drawn: [u64; 2],
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scales {
    plan: Plan,
    metrics: Vec<Measured>,
    /// Units are sticky clients.
    #[serde(default)]
    cohorts: bool,
    evidence: Vec<Evidence>,
    scalars: Vec<Scalar>,
    /// Not complete yet, oldest first; the last one is open.
    stretches: Vec<Stretch>,
    /// Complete, for display.
    past: Vec<Past>,
    /// Of complete epochs.
    ln_split: f64,
    next_number: u32,
    step: usize,
    next_weight: Weight,
    /// The step clock: since every data thread has acknowledged the weight.
    step_since: Option<u64>,
    /// Seconds that the step was paused.
    paused_s: u64,
    regressed: bool,
    split_since: Option<u64>,
    looked_at: u64,
}

impl Scales {
    /// Before the first step. Sets of `metrics` are below [`SETS_MAX`], closing ages at most `plan.closing`.
    pub fn new(plan: Plan, metrics: Vec<Measured>, scalars: Vec<Scalar>) -> Self {
        debug_assert!(metrics.iter().all(|metric| metric.sets.iter().all(|set| *set < SETS_MAX)));
        let evidence = metrics.iter().map(|metric| Evidence { worse: worse(&plan, metric), better: None }).collect();
        Self {
            plan,
            metrics,
            cohorts: false,
            evidence,
            scalars,
            stretches: Vec::new(),
            past: Vec::new(),
            ln_split: 0.0,
            next_number: 1,
            step: 0,
            next_weight: model::WEIGHT_SUM,
            step_since: None,
            paused_s: 0,
            regressed: false,
            split_since: None,
            looked_at: 0,
        }
    }

    /// Units are sticky clients: one is bad as soon as one of its requests is, and good only at the closing age.
    pub fn of_cohorts(self) -> Self {
        Self { cohorts: true, ..self }
    }

    pub fn is_of_cohorts(&self) -> bool {
        self.cohorts
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn metrics(&self) -> &[Measured] {
        &self.metrics
    }

    /// The number of the open epoch; 0 before the first.
    pub fn epoch(&self) -> u32 {
        self.next_number - 1
    }

    pub fn step(&self) -> usize {
        self.step
    }

    pub fn is_warming(&self) -> bool {
        self.stretches.last().is_some_and(|stretch| stretch.warm)
    }

    /// Opens the first epoch of a step: promotion begins to gather its evidence anew. Returns the epoch's number.
    pub fn begin_step(&mut self, step: usize, share: Share, next_weight: Weight) -> u32 {
        (self.step, self.next_weight, self.step_since, self.paused_s) = (step, next_weight, None, 0);
        for (evidence, metric) in self.evidence.iter_mut().zip(&self.metrics) {
            let (rho, delta) = self.plan.demand(metric.kind, next_weight);
            evidence.better = self.plan.known(metric.phi).map(|phi| Mixture::new(Side::Better, rho, delta, phi));
        }
        self.scalars.iter_mut().for_each(|scalar| scalar.step = Default::default());
        self.open(share, self.plan.warm_up > 0, 0)
    }

    /// Of the step that begins: how long it lasts at least and at most, in seconds.
    pub fn limits(&mut self, dwell: u64, max_step: u64) {
        (self.plan.dwell, self.plan.max_step) = (dwell, max_step);
    }

    /// The next epoch of this step is due.
    pub fn is_due(&self, now: u64) -> bool {
        let (Some(stretch), Some(age)) = (self.stretches.last(), self.step_age(now)) else { return false };
        let length = if stretch.warm { self.plan.warm_up } else { epoch_seconds(stretch.opened_at_age) };
        age >= stretch.opened_at_age + length
    }

    /// The open epoch is so young that a further one might share a second with the one before it.
    pub fn is_young(&self, now: u64) -> bool {
        let Some(stretch) = self.stretches.last() else { return false };
        self.step_age(now).is_none_or(|age| age < stretch.opened_at_age + 2)
    }

    /// The step's age without the time that it was paused.
    pub fn limit_age(&self, now: u64) -> u64 {
        self.step_age(now).unwrap_or(0).saturating_sub(self.paused_s)
    }

    /// An epoch may be opened before it is due: not during a warm-up, and no three in a second.
    pub fn may_open(&self, now: u64) -> bool {
        !self.is_warming() && !self.is_young(now)
    }

    /// Opens the next epoch of this step; returns its number.
    pub fn open_next(&mut self, now: u64) -> u32 {
        let share = self.stretches.last().map_or(Share { parts: 1, of: 2 }, |stretch| stretch.share);
        self.open(share, false, self.step_age(now).unwrap_or(0))
    }

    /// A metric's threshold is known: it counts from the next epoch on. It must close by the plan's closing age.
    pub fn join(&mut self, name: &str, closing: [Closing; 2]) {
        let since = self.next_number;
        if let Some(metric) = self.metrics.iter_mut().find(|metric| metric.name == name && metric.since.is_none()) {
            (metric.closing, metric.since) = (closing, Some(since));
        }
    }

    fn open(&mut self, share: Share, warm: bool, opened_at_age: u64) -> u32 {
        let number = self.next_number;
        self.next_number += 1;
        let (step, closed) = (self.step, [Arms::default(); SETS_MAX]);
        let stretch = Stretch { number, share, step, warm, opened_at_age, ended_at: None, closed, drawn: [0; 2], cells: BTreeMap::new() };
        self.stretches.push(stretch);
        number
    }

    /// Every data thread assigns to the open epoch from second `now` on.
    pub fn acknowledged(&mut self, now: u64) {
        self.step_since.get_or_insert(now);
        let open = self.stretches.len().saturating_sub(1);
        for stretch in &mut self.stretches[..open] {
            stretch.ended_at.get_or_insert(now);
        }
    }

    /// No unit is assigned any more.
    pub fn stop(&mut self, now: u64) {
        for stretch in &mut self.stretches {
            stretch.ended_at.get_or_insert(now);
        }
    }

    /// The limit of the step stands still for so long.
    pub fn was_paused(&mut self, seconds: u64) {
        self.paused_s += seconds;
    }

    /// Seconds since every data thread had the step's weight.
    pub fn step_age(&self, now: u64) -> Option<u64> {
        self.step_since.map(|since| now.saturating_sub(since))
    }

    /// What a cell has counted so far. Cells of seconds that are closed for good are refused.
    pub fn put(&mut self, epoch: u32, second: u64, tallies: Tallies) {
        if second + 1 + self.plan.closing <= self.looked_at {
            return;
        }
        if let Some(stretch) = self.stretches.iter_mut().find(|stretch| stretch.number == epoch) {
            stretch.cells.insert(second, tallies);
        }
    }

    /// The difference candidate − stable of one interval of a scalar, in which nothing warmed up and no weight changed.
    pub fn observe(&mut self, name: &str, difference: f64) {
        if let Some(scalar) = self.scalars.iter_mut().find(|scalar| scalar.name == name) {
            scalar.release.add(difference);
            scalar.step.add(difference);
        }
    }

    /// Whoever counted is gone, with the units that were open. Cells from the last look on are dropped; what was open closes, not
    /// bad unless its age had closed it, in both arms.
    pub fn abandon(&mut self) {
        let (now, metrics, cohorts) = (self.looked_at, &self.metrics, self.cohorts);
        for stretch in &mut self.stretches {
            stretch.cells.retain(|second, _| *second < now);
            for (second, tallies) in &mut stretch.cells {
                let mut bad = [[0; SETS_MAX]; 2];
                for set in sets(metrics, cohorts) {
                    let is_closed = |closes: u64| second + 1 + closes <= now;
                    let (candidate, stable) = (is_closed(set.closing.candidate), is_closed(set.closing.stable));
                    bad[0][set.number] = units(&tallies.candidate, set.rule, set.number, candidate, false).bad;
                    bad[1][set.number] = units(&tallies.stable, set.rule, set.number, stable, false).bad;
                }
                for (tally, bad) in [&mut tallies.candidate, &mut tallies.stable].into_iter().zip(bad) {
                    *tally = Tally { drawn: tally.drawn, ended: tally.drawn, answering: 0, bad };
                }
            }
        }
    }

    /// The clock has begun anew, and whoever counted is gone: what was counted is closed for good. A step begins next.
    pub fn begin_anew(&mut self) {
        self.abandon();
        for stretch in &mut self.stretches {
            stretch.ended_at = Some(0);
        }
        // Later than every cell.
        self.fold(u64::MAX);
        (self.looked_at, self.step_since, self.paused_s) = (0, None, 0);
        self.split_since = None;
    }

    /// Looks at second `now`, up to which all cells are complete.
    pub fn look(&mut self, now: u64) -> Outcome {
        let now = now.max(self.looked_at);
        self.looked_at = now;
        self.fold(now);
        let ln_e_split = self.ln_split_with(now);
        if self.split_since.is_none() && ln_e_split >= (1.0 / self.plan.alpha_split).ln() {
            self.split_since = Some(now);
        }
        let weighed = self.weigh(now);
        let step_age_s = self.step_age(now).unwrap_or(0);
        let circumstances = Circumstances {
            step_age_s,
            limit_age_s: self.limit_age(now),
            regressed: self.regressed,
            split_since_s: self.split_since.map(|since| now - since),
            guard: self.guard(now),
            scalars: &self.scalars,
        };
        let outcome = weighed.outcome(&circumstances, &self.plan, ln_e_split);
        self.regressed |= outcome.verdict == Verdict::Regressed;
        outcome
    }

    /// Seconds in which every unit is closed leave the cells, and epochs of which that is all leave for good.
    fn fold(&mut self, now: u64) {
        let (metrics, closing, cohorts) = (&self.metrics, self.plan.closing, self.cohorts);
        for stretch in &mut self.stretches {
            while let Some(first) = stretch.cells.first_entry().filter(|cell| (cell.key() + 1).saturating_add(closing) <= now) {
                let tallies = first.remove();
                stretch.drawn[0] += tallies.candidate.drawn;
                stretch.drawn[1] += tallies.stable.drawn;
                for set in sets(metrics, cohorts) {
                    add(&mut stretch.closed[set.number].candidate, units(&tallies.candidate, set.rule, set.number, true, false));
                    add(&mut stretch.closed[set.number].stable, units(&tallies.stable, set.rule, set.number, true, false));
                }
            }
        }
        while let Some(first) = self.stretches.first()
            && first.ended_at.is_some_and(|ended| ended + 1 + closing <= now)
        {
            let stretch = self.stretches.remove(0);
            let step = self.step;
            for (evidence, metric) in self.evidence.iter_mut().zip(&self.metrics) {
                if let Some(worse) = &mut evidence.worse {
                    worse.push(&epoch_of(&stretch, metric, Side::Worse, stretch.closed[metric.sets[0]]));
                }
                if let Some(better) = evidence.better.as_mut().filter(|_| stretch.step == step) {
                    better.push(&epoch_of(&stretch, metric, Side::Better, stretch.closed[metric.sets[1]]));
                }
            }
            self.ln_split += ln_split_evidence(&[drawn(&stretch, now)], self.plan.split_strength);
            let Stretch { number, share, step, warm, closed, drawn, .. } = stretch;
            self.past.push(Past { number, share, step, warm, closed, drawn });
        }
    }

    fn ln_split_with(&self, now: u64) -> f64 {
        let draws: Vec<Drawn> = self.stretches.iter().map(|stretch| drawn(stretch, now)).collect();
        self.ln_split + ln_split_evidence(&draws, self.plan.split_strength)
    }

    fn weigh(&mut self, now: u64) -> Weighed {
        let (metrics, stretches, step, closing, cohorts) = (&self.metrics, &self.stretches, self.step, self.plan.closing, self.cohorts);
        let mut per_delay: Vec<(u64, Vec<f64>)> = delays(closing).into_iter().map(|delay| (delay, Vec::new())).collect();
        let mut better = Vec::new();
        for (evidence, metric) in self.evidence.iter_mut().zip(metrics) {
            for (delay, worse) in &mut per_delay {
                let epochs = || stretches.iter().map(|stretch| seen(stretch, metric, Side::Worse, cohorts, now, *delay));
                worse.push(evidence.worse.as_mut().map_or(0.0, |mixture| mixture.ln_evidence_of(epochs())));
            }
            let of_step = stretches.iter().filter(|stretch| stretch.step == step);
            let epochs = of_step.map(|stretch| seen(stretch, metric, Side::Better, cohorts, now, closing));
            better.push(evidence.better.as_mut().map_or(0.0, |mixture| mixture.ln_evidence_of(epochs)));
        }
        let missing = metrics.iter().find(|metric| self.plan.known(metric.phi).is_none()).map(|metric| metric.name.clone());
        let names = metrics.iter().map(|metric| (metric.name.clone(), metric.part)).collect();
        Weighed::new(names, &per_delay, better, missing)
    }

    /// Errors of the units that were assigned in the last seconds.
    fn guard(&self, now: u64) -> Guard {
        let mut guard = Guard::default();
        let Some(errors) = self.metrics.iter().find(|metric| metric.kind == MetricKind::Error) else { return guard };
        let Set { number: set, rule, closing, .. } = Set::of(errors, Side::Worse, self.cohorts);
        for (second, tallies) in self.stretches.iter().flat_map(|stretch| &stretch.cells) {
            let of = |tally: &Tally, closes: u64| {
                let is_closed = second + 1 + closes <= now;
                let seen = units(tally, rule, set, is_closed, false);
                // Only what is closed counts here; `units` also holds what is open. Of clients none is closed before it leaves the
                // cells: those that were bad so far, of all.
                let counts_all = is_closed || rule == Rule::Cohort;
                Units { closed: if counts_all { seen.closed } else { tally.ended.min(tally.drawn) }, bad: seen.bad }
            };
            let (candidate, stable) = (of(&tallies.candidate, closing.candidate), of(&tallies.stable, closing.stable));
            guard.candidate_closed += candidate.closed;
            guard.candidate_bad += candidate.bad;
            guard.stable_closed += stable.closed;
            guard.stable_bad += stable.bad;
        }
        guard
    }

    /// All epochs of the release for display, complete ones and the others as they are at the closing age.
    pub fn epochs(&self) -> Vec<Past> {
        let now = self.looked_at;
        let young = self.stretches.iter().map(|stretch| {
            let mut closed = stretch.closed;
            for set in sets(&self.metrics, self.cohorts) {
                closed[set.number] = prefix_of(stretch, &set, set.side, now, self.plan.closing);
            }
            let drawn = drawn(stretch, now);
            let drawn = [drawn.candidate, drawn.stable];
            Past { number: stretch.number, share: stretch.share, step: stretch.step, warm: stretch.warm, closed, drawn }
        });
        self.past.iter().copied().chain(young).collect()
    }

    /// The epochs of the release for one metric and side, as all units say that were assigned at least `delay` seconds ago.
    pub fn seen(&self, metric: &Measured, side: Side, delay: u64) -> Vec<Epoch> {
        let now = self.looked_at;
        let past = self.past.iter().map(|past| past.epoch(metric, side));
        past.chain(self.stretches.iter().map(|stretch| seen(stretch, metric, side, self.cohorts, now, delay))).collect()
    }

    /// All units of the release and those that are known to be bad, for display: candidate, stable.
    pub fn known(&self, metric: &Measured) -> [Units; 2] {
        let (set, now) = (Set::of(metric, Side::Worse, self.cohorts), self.looked_at);
        let mut known = [Units::default(); 2];
        for past in self.past.iter().filter(|past| counts(past.number, past.warm, metric, Side::Worse)) {
            add(&mut known[0], past.closed[set.number].candidate);
            add(&mut known[1], past.closed[set.number].stable);
        }
        for stretch in self.stretches.iter().filter(|it| counts(it.number, it.warm, metric, Side::Worse)) {
            add(&mut known[0], stretch.closed[set.number].candidate);
            add(&mut known[1], stretch.closed[set.number].stable);
            for (second, tallies) in stretch.cells.range(..now) {
                let is_closed = |closes: u64| second + 1 + closes <= now;
                add(&mut known[0], units(&tallies.candidate, set.rule, set.number, is_closed(set.closing.candidate), false));
                add(&mut known[1], units(&tallies.stable, set.rule, set.number, is_closed(set.closing.stable), false));
            }
        }
        known
    }

    /// Units drawn in this step so far: candidate, stable.
    pub fn drawn_in_step(&self) -> [u64; 2] {
        let of_step = |step: usize| step == self.step;
        let past = self.past.iter().filter(|past| of_step(past.step)).map(|past| past.drawn);
        let young = self.stretches.iter().filter(|stretch| of_step(stretch.step)).map(|stretch| {
            let drawn = drawn(stretch, self.looked_at);
            [drawn.candidate, drawn.stable]
        });
        past.chain(young).fold([0, 0], |sum, drawn| [sum[0] + drawn[0], sum[1] + drawn[1]])
    }

    /// Units of the open epochs that were drawn from second `since` on, both arms.
    pub fn drawn_since(&self, since: u64) -> u64 {
        let cells = self.stretches.iter().flat_map(|stretch| stretch.cells.range(since..));
        cells.map(|(_, tallies)| tallies.candidate.drawn + tallies.stable.drawn).sum()
    }

    /// The epochs of this step for one metric, on the promotion side.
    pub fn seen_in_step(&self, metric: &Measured) -> Vec<Epoch> {
        let (now, closing) = (self.looked_at, self.plan.closing);
        let past = self.past.iter().filter(|past| past.step == self.step).map(|past| past.epoch(metric, Side::Better));
        let young = self.stretches.iter().filter(|stretch| stretch.step == self.step);
        past.chain(young.map(|stretch| seen(stretch, metric, Side::Better, self.cohorts, now, closing))).collect()
    }

    /// The candidate's share of the open epoch, 0 to 1.
    pub fn share(&self) -> f64 {
        self.stretches.last().map_or(0.0, |stretch| stretch.share.candidate())
    }

    pub fn next_weight(&self) -> Weight {
        self.next_weight
    }

    pub fn looked_at(&self) -> u64 {
        self.looked_at
    }

    /// Candidate and stable of the rollback side of errors, of units assigned in the last seconds.
    pub fn recent_errors(&self) -> Guard {
        self.guard(self.looked_at)
    }

    pub fn scalars(&self) -> &[Scalar] {
        &self.scalars
    }
}

impl Past {
    /// The units of one metric on one side; none where it does not count.
    pub fn epoch(&self, metric: &Measured, side: Side) -> Epoch {
        let arms = if counts(self.number, self.warm, metric, side) { self.closed[metric.set(side)] } else { Arms::default() };
        Epoch { share: self.share, arms }
    }
}

impl Measured {
    pub fn set(&self, side: Side) -> usize {
        self.sets[side as usize]
    }
}

fn worse(plan: &Plan, metric: &Measured) -> Option<Mixture> {
    let (rho, delta) = plan.tolerance(metric.kind);
    plan.known(metric.phi).map(|phi| Mixture::new(Side::Worse, rho, delta, phi))
}

/// What an open unit is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Open until its answer has ended; at the closing age it is bad, unless its answer has begun.
    Errors,
    /// Open until its answer's head has come; at the closing age it is bad.
    Latency,
    /// A client: open until the closing age, then good; bad at once.
    Cohort,
}

/// One counter set, and when it closes.
struct Set {
    number: usize,
    rule: Rule,
    side: Side,
    closing: Closing,
}

impl Set {
    fn of(metric: &Measured, side: Side, cohorts: bool) -> Self {
        let rule = match metric.kind {
            _ if cohorts => Rule::Cohort,
            MetricKind::Error => Rule::Errors,
            MetricKind::Latency => Rule::Latency,
        };
        Self { number: metric.set(side), rule, side, closing: metric.closing[side as usize] }
    }
}

/// Each counter set once.
fn sets(metrics: &[Measured], cohorts: bool) -> impl Iterator<Item = Set> {
    metrics.iter().flat_map(move |metric| {
        let better = (metric.sets[0] != metric.sets[1]).then(|| Set::of(metric, Side::Better, cohorts));
        std::iter::once(Set::of(metric, Side::Worse, cohorts)).chain(better)
    })
}

/// Warm-up epochs count on the rollback side of errors only; every other metric leaves them out but keeps their place.
fn counts(epoch: u32, warm: bool, metric: &Measured, side: Side) -> bool {
    let has_joined = metric.since.is_some_and(|since| epoch >= since);
    has_joined && (!warm || metric.kind == MetricKind::Error && side == Side::Worse)
}

fn epoch_of(stretch: &Stretch, metric: &Measured, side: Side, arms: Arms) -> Epoch {
    let arms = if counts(stretch.number, stretch.warm, metric, side) { arms } else { Arms::default() };
    Epoch { share: stretch.share, arms }
}

/// The epoch as all its units say that were assigned at least `delay` seconds ago; open ones are set against the claim.
fn seen(stretch: &Stretch, metric: &Measured, side: Side, cohorts: bool, now: u64, delay: u64) -> Epoch {
    if !counts(stretch.number, stretch.warm, metric, side) {
        return Epoch { share: stretch.share, arms: Arms::default() };
    }
    Epoch { share: stretch.share, arms: prefix_of(stretch, &Set::of(metric, side, cohorts), side, now, delay) }
}

fn prefix_of(stretch: &Stretch, set: &Set, side: Side, now: u64, delay: u64) -> Arms {
    let mut arms = stretch.closed[set.number];
    for (second, tallies) in &stretch.cells {
        if second + 1 + delay > now {
            break;
        }
        let is_closed = |closes: u64| second + 1 + closes <= now;
        let (candidate, stable) = (is_closed(set.closing.candidate), is_closed(set.closing.stable));
        add(&mut arms.candidate, units(&tallies.candidate, set.rule, set.number, candidate, side == Side::Better));
        add(&mut arms.stable, units(&tallies.stable, set.rule, set.number, stable, side == Side::Worse));
    }
    arms
}

fn add(sum: &mut Units, units: Units) {
    sum.closed += units.closed;
    sum.bad += units.bad;
}

/// All units of a cell's arm in one counter set. `is_closed`: the youngest has reached the closing age.
fn units(tally: &Tally, rule: Rule, set: usize, is_closed: bool, open_is_bad: bool) -> Units {
    let ended = tally.ended.min(tally.drawn);
    let answering = tally.answering.min(tally.drawn - ended);
    let open = match rule {
        Rule::Errors if !is_closed => tally.drawn - ended,
        Rule::Errors | Rule::Latency => tally.drawn - ended - answering,
        Rule::Cohort if is_closed => 0,
        Rule::Cohort => tally.drawn - tally.bad[set].min(tally.drawn),
    };
    let known = tally.drawn - open;
    let bad = tally.bad[set].min(known) + if is_closed || open_is_bad { open } else { 0 };
    Units { closed: tally.drawn, bad }
}

fn drawn(stretch: &Stretch, now: u64) -> Drawn {
    let [mut candidate, mut stable] = stretch.drawn;
    for (_, tallies) in stretch.cells.range(..now) {
        candidate += tallies.candidate.drawn;
        stable += tallies.stable.drawn;
    }
    Drawn { share: stretch.share, candidate, stable }
}
