//! Rollouts of made-up users with known truth: clockwork, cohort and scales together, as a flag's rollout runs them.
//!
//! `CHANGEOVER_LONG=1 cargo test --release -p release --test rollouts -- --nocapture` plays all of them (minutes on two cores) and
//! prints the rows that the judge's RESULTS.md holds.
//!
//! Every second about 1,000 exposures of a million users; an exposure goes wrong with the arm's probability, at once. Looks,
//! epochs, acknowledgements and raises happen as in the engine, only without its clock and its disk.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use judge::{MetricKind, Scales, Share, Tallies, Tally, scales_of_users, units_until_worse};
use model::{WEIGHT_SUM, Weight};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Poisson};
use release::rollout::{Action, Criteria, Effect, Event, Outcome, Plan, Rollout, State, Steps, step};
use telemetry::{ArmCounts, Cohort, Draw, Member};

const USERS: u64 = 1_000_000;
const EXPOSURES_PER_S: f64 = 1_000.0;
const WATCHED_MAX: usize = 262_144;

#[derive(Clone)]
struct World {
    steps: Vec<Weight>,
    every_s: u64,
    closing_s: u64,
    /// Bad shares: treated, control.
    bad: [f64; 2],
    /// Drawn with so much less than the weight says, in parts per 10,000.
    short: Weight,
    lasts_s: u64,
    seed: u64,
}

impl World {
    fn at_10_percent(closing_s: u64, bad: [f64; 2], lasts_s: u64) -> Self {
        Self { steps: vec![1_000, WEIGHT_SUM], every_s: lasts_s, closing_s, bad, short: 0, lasts_s, seed: 7 }
    }
}

struct Ended {
    state: State,
    seconds: u64,
    /// Bad exposures of treated users.
    harmed: u64,
}

impl Ended {
    fn is(&self, wanted: Outcome) -> bool {
        matches!(self.state, State::Ended { outcome, .. } if outcome == wanted)
    }
}

/// What the engine holds of one rollout.
struct Driver {
    rollout: Rollout,
    scales: Scales,
    cohort: Cohort,
    unacknowledged: bool,
}

impl Driver {
    fn new(world: &World) -> Self {
        let criteria = Criteria::new(vec!["errors".to_owned()]).expect("one");
        let steps = Steps::new(world.steps.clone()).expect("rising");
        let plan = Plan { steps, criteria, every_s: world.every_s, max_step_s: world.lasts_s };
        let scales = scales_of_users(judge::Plan::default(), plan.criteria.names(), world.closing_s);
        let cohort = Cohort::new(world.closing_s, WATCHED_MAX);
        Self { rollout: Rollout::new(plan), scales, cohort, unacknowledged: false }
    }

    fn apply(&mut self, event: &Event, now: u64) {
        let next = step(&self.rollout, event, now).expect("a legal event");
        self.rollout = next.rollout;
        for effect in next.effects {
            match effect {
                Effect::SetWeight { step, epoch, .. } if !self.rollout.is_ended() => {
                    let (before, weight) = (self.rollout.before(), self.rollout.weight());
                    self.scales.limits(self.rollout.plan.every_s, self.rollout.plan.max_step_s);
                    let opened = self.scales.begin_step(step, Share::of_raise(before, weight), self.rollout.next_weight());
                    assert_eq!(opened, epoch, "both number the epochs alike");
                    self.unacknowledged = true;
                }
                Effect::OpenEpoch { epoch } => {
                    assert_eq!(self.scales.open_next(now), epoch);
                    self.unacknowledged = true;
                }
                Effect::SetWeight { .. } | Effect::Report { .. } => {}
            }
        }
    }

    fn begin_second(&mut self, now: u64) {
        if self.scales.is_due(now) && matches!(self.rollout.state, State::Judging { .. }) {
            self.apply(&Event::EpochDue, now);
        }
        if std::mem::take(&mut self.unacknowledged) {
            self.scales.acknowledged(now);
            self.apply(&Event::Acknowledged { epoch: self.rollout.epoch }, now);
        }
    }

    /// All of the second before `now` is counted.
    fn look(&mut self, now: u64) {
        let tally = |arm: ArmCounts| Tally { drawn: arm.drawn, ended: arm.ended, answering: arm.answering, bad: arm.bad };
        for cell in self.cohort.read(now) {
            self.scales.put(cell.epoch, cell.second, Tallies { candidate: tally(cell.candidate), stable: tally(cell.stable) });
        }
        let outcome = self.scales.look(now);
        let action = match outcome.action {
            judge::Action::Advance => Action::Advance,
            judge::Action::Rollback => Action::Rollback,
            judge::Action::Hold => Action::Hold,
            judge::Action::Withdraw => Action::Withdraw,
            judge::Action::Ask => Action::Ask,
        };
        self.apply(&Event::Judged { step: self.scales.step(), action, reason: outcome.reason }, now);
    }
}

fn play(world: &World, number: u32) -> Ended {
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(world.seed << 32 | u64::from(number));
    let (salt, poisson) = (chance.next_u64(), Poisson::new(EXPOSURES_PER_S).expect("above 0"));
    let (mut driver, mut harmed) = (Driver::new(world), 0);
    let is_bad = world.bad.map(|share| (share * 2_f64.powi(64)) as u64);
    driver.apply(&Event::Started, 0);
    for now in 0..world.lasts_s {
        driver.begin_second(now);
        let (weight, draw) = (driver.rollout.weight(), Draw { epoch: driver.rollout.epoch, before: driver.rollout.before() });
        for _ in 0..poisson.sample(&mut chance) as u64 {
            let hash = mixed(salt ^ mixed(chance.next_u64() % USERS));
            let mut word = hash;
            let place = model::below_parts(|| {
                word = mixed(word);
                word
            });
            let arm = usize::from(place >= weight - world.short);
            let is_bad = chance.next_u64() < is_bad[arm];
            harmed += u64::from(is_bad && arm == 0);
            let member = Member { hash, place: Some(place) };
            let seat = driver.cohort.enter(member, draw, arm, Duration::from_secs(now), Duration::from_secs(60));
            if let Some(seat) = seat.filter(|_| is_bad) {
                driver.cohort.bad(seat, 1);
            }
        }
        driver.look(now + 1);
        if driver.rollout.is_ended() {
            return Ended { state: driver.rollout.state, seconds: now + 1, harmed };
        }
    }
    Ended { state: driver.rollout.state, seconds: world.lasts_s, harmed }
}

/// A bijection that scatters (splitmix64's finalizer; Steele, Lea and Flood 2014).
fn mixed(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// All rollouts, whichever thread played them.
fn play_all(world: &World, runs: u32) -> Vec<Ended> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU32::new(0);
    let work = || {
        let numbers = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < runs));
        numbers.map(|number| play(world, number)).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("playing a rollout does not panic")).collect()
    })
}

fn quantile(values: impl Iterator<Item = u64>, at: f64) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values[((values.len() - 1) as f64 * at).round() as usize]
}

fn is_long() -> bool {
    std::env::var_os("CHANGEOVER_LONG").is_some()
}

#[test]
fn three_points_more_errors_are_taken_back() {
    let (runs, ages): (u32, &[u64]) = if is_long() { (400, &[10, 30, 90]) } else { (24, &[10]) };
    for closing_s in ages {
        let world = World::at_10_percent(*closing_s, [0.04, 0.01], 1_800);
        let ended = play_all(&world, runs);
        assert!(ended.iter().all(|ended| ended.is(Outcome::RolledBack)), "closing {closing_s} s");
        let units = units_until_worse(&judge::Plan::default(), MetricKind::Error, 1.0, Share::of_weight(1_000), [0.04, 0.01], 1.0);
        let forecast = *closing_s as f64 + units / EXPOSURES_PER_S;
        let [median, most] = [0.5, 0.9].map(|at| quantile(ended.iter().map(|ended| ended.seconds), at));
        let harmed = quantile(ended.iter().map(|ended| ended.harmed), 0.5);
        println!(
            "| 1 % → 4 %, a user closes at {closing_s} s | {runs} | taken back 100 % | {median} s | {most} s | {forecast:.1} s | {harmed} |"
        );
        assert!((median as f64 - forecast).abs() <= 2.0 + 0.1 * forecast, "median {median} s, forecast {forecast:.1} s");
    }
}

#[test]
fn equal_variants_are_taken_back_at_most_at_the_nominal_rate() {
    let (runs, lasts_s) = if is_long() { (1_000, 1_800) } else { (10, 200) };
    let ended = play_all(&World::at_10_percent(30, [0.01, 0.01], lasts_s), runs);
    let count = |outcome| ended.iter().filter(|ended| ended.is(outcome)).count();
    let (wrong, split) = (count(Outcome::RolledBack), count(Outcome::Withdrawn));
    println!("| equal, 1 %, held at 10 % for {lasts_s} s | {runs} | taken back {wrong}, withdrawn {split} |");
    let alpha = judge::Plan::default().alpha;
    let most = alpha * f64::from(runs);
    assert!(if is_long() { (wrong as f64) < most } else { wrong <= 1 }, "{wrong} of {runs} taken back");
    assert!(split <= 1 + runs as usize / 300, "{split} of {runs} withdrawn");
}

#[test]
fn equal_variants_climb_to_everybody() {
    let (runs, steps, every_s) = if is_long() { (200, vec![100, 500, 2_000, WEIGHT_SUM], 120) } else { (2, vec![2_000, WEIGHT_SUM], 60) };
    let world = World { steps, every_s, ..World::at_10_percent(30, [0.01, 0.01], 1_800) };
    let ended = play_all(&world, runs);
    let count = |outcome| ended.iter().filter(|ended| ended.is(outcome)).count();
    let (promoted, wrong) = (count(Outcome::Promoted), count(Outcome::RolledBack));
    let median = quantile(ended.iter().map(|ended| ended.seconds), 0.5);
    println!(
        "| equal, 1 %, {:?}, at least {every_s} s a step | {runs} | promoted {promoted}, taken back {wrong}, median {median} s |",
        world.steps
    );
    assert!(promoted as f64 >= 0.95 * f64::from(runs), "{promoted} of {runs} promoted");
}

#[test]
fn a_wrong_split_is_withdrawn() {
    let world = World { short: 100, ..World::at_10_percent(10, [0.01, 0.01], 300) };
    let ended = play_all(&world, if is_long() { 100 } else { 4 });
    assert!(ended.iter().all(|ended| ended.is(Outcome::Withdrawn)));
    println!("| drawn with 9 % instead of 10 % | withdrawn, median {} s |", quantile(ended.iter().map(|it| it.seconds), 0.5));
}
