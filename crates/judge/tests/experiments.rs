//! Experiments with made-up users and known truth, looked at every 100 users: how often they are wrong ever, and how soon right.
//!
//! `CHANGEOVER_LONG=1 cargo test --release -p judge --test experiments -- --nocapture` plays all of them (minutes on two cores) and
//! prints the rows that RESULTS.md holds.

use std::sync::atomic::{AtomicU32, Ordering};

use judge::experiment::{Better, Design, Experiment, Goal, GoalKind, VariantShare, Verdict};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Exp, LogNormal, Normal, StudentT};

const LOOK_EVERY: u32 = 100;

/// A user's value.
#[derive(Debug, Clone, Copy)]
enum Law {
    /// Converts with this probability.
    Converts(f64),
    Normal,
    Exponential,
    /// Buys with this probability; the sum is lognormal with sigma 1.
    Buys(f64),
    /// Three degrees of freedom: a variance, and no third moment.
    Heavy,
}

impl Law {
    fn kind(self) -> GoalKind {
        if matches!(self, Self::Converts(_)) { GoalKind::Conversion } else { GoalKind::Mean { cap: None } }
    }

    fn draw(self, chance: &mut Xoshiro256PlusPlus) -> f64 {
        match self {
            Self::Converts(share) => f64::from(u8::from(uniform(chance) < share)),
            Self::Normal => Normal::new(5.0, 2.0).expect("a spread").sample(chance),
            Self::Exponential => Exp::new(0.2).expect("above 0").sample(chance),
            Self::Buys(share) if uniform(chance) < share => LogNormal::new(3.0, 1.0).expect("a spread").sample(chance),
            Self::Buys(_) => 0.0,
            Self::Heavy => 5.0 + StudentT::new(3.0).expect("above 0").sample(chance),
        }
    }
}

#[derive(Clone)]
struct World {
    /// Control first; with each variant's factor (a chance to convert, or the value).
    laws: Vec<Law>,
    shares: Vec<u32>,
    /// By which users are drawn.
    drawn: Vec<u32>,
    users: u32,
    seed: u64,
}

impl World {
    fn equal(law: Law, shares: &[u32], users: u32) -> Self {
        Self { laws: vec![law; shares.len()], shares: shares.to_vec(), drawn: shares.to_vec(), users, seed: 11 }
    }
}

/// When something was said first, in users.
#[derive(Default, Clone, Copy)]
struct Said {
    verdict: Option<u32>,
    mismatch: Option<u32>,
}

fn uniform(chance: &mut Xoshiro256PlusPlus) -> f64 {
    (chance.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

fn play(world: &World, number: u32) -> Said {
    let mut chance = Xoshiro256PlusPlus::seed_from_u64(world.seed << 32 | u64::from(number));
    let names = ["control", "blue", "red", "green"];
    let variants = names.iter().zip(&world.shares).map(|(name, share)| VariantShare { name: (*name).to_owned(), share: *share });
    let goals = vec![Goal { name: "goal".to_owned(), kind: world.laws[0].kind(), better: Better::Higher }];
    let design = Design { variants: variants.collect(), control: "control".to_owned(), goals, alpha: 0.05 };
    let mut experiment = Experiment::new(design).expect("a design that can be judged");
    let (mut said, all) = (Said::default(), world.drawn.iter().sum::<u32>());
    for user in 1..=world.users {
        let mut place = (uniform(&mut chance) * f64::from(all)) as u32;
        let variant = world.drawn.iter().position(|share| {
            let is_here = place < *share;
            place = place.wrapping_sub(*share);
            is_here
        });
        let variant = variant.expect("below the sum");
        experiment.expose(variant).expect("a variant");
        experiment.settle(variant, &[world.laws[variant].draw(&mut chance)]).expect("a number");
        if user % LOOK_EVERY == 0 {
            let report = experiment.look();
            if report.ratio.is_mismatched {
                said.mismatch.get_or_insert(user);
            }
            let is_decided = |verdict| matches!(verdict, Verdict::Winner | Verdict::Worse);
            if report.goals[0].comparisons.iter().any(|comparison| is_decided(comparison.verdict)) {
                said.verdict.get_or_insert(user);
            }
            if said.verdict.is_some() || said.mismatch.is_some() {
                break;
            }
        }
    }
    said
}

fn play_all(world: &World, runs: u32) -> Vec<Said> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU32::new(0);
    let work = || {
        let numbers = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < runs));
        numbers.map(|number| play(world, number)).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("playing an experiment does not panic")).collect()
    })
}

fn is_long() -> bool {
    std::env::var_os("CHANGEOVER_LONG").is_some()
}

/// The nominal share and three standard errors.
fn at_most(nominal: f64, runs: u32) -> f64 {
    nominal + 3.0 * (nominal * (1.0 - nominal) / f64::from(runs)).sqrt()
}

#[test]
fn equal_variants_differ_ever_at_most_at_the_nominal_rate() {
    let (runs, users) = if is_long() { (1_000, 100_000) } else { (30, 2_500) };
    let two = [Law::Converts(0.01), Law::Converts(0.1), Law::Converts(0.5), Law::Normal, Law::Exponential, Law::Buys(0.05), Law::Heavy];
    let uneven = World::equal(Law::Converts(0.1), &[9, 1], users);
    let four = World::equal(Law::Converts(0.1), &[1, 1, 1, 1], users);
    let worlds = two.map(|law| World::equal(law, &[1, 1], users)).into_iter().chain([uneven, four]);
    for world in worlds {
        let said = play_all(&world, runs);
        let share = said.iter().filter(|said| said.verdict.is_some()).count() as f64 / f64::from(runs);
        let split = said.iter().filter(|said| said.mismatch.is_some()).count() as f64 / f64::from(runs);
        println!(
            "| {:?}, shares {:?}, {users} users | {runs} | {:.1} % | {:.1} % |",
            world.laws[0],
            world.shares,
            share * 100.0,
            split * 100.0
        );
        assert!(share <= at_most(0.05, runs), "{share} of {:?}", world.laws[0]);
        assert!(split <= at_most(0.001, runs), "{split} of {:?} mismatched", world.laws[0]);
    }
}

#[test]
fn a_real_effect_is_found() {
    let runs = if is_long() { 400 } else { 12 };
    let cases = [
        (Law::Converts(0.10), Law::Converts(0.15), 20_000),
        (Law::Converts(0.10), Law::Converts(0.11), 200_000),
        (Law::Converts(0.50), Law::Converts(0.52), 200_000),
        (Law::Buys(0.10), Law::Buys(0.12), 400_000),
    ];
    for (control, treated, users) in cases.into_iter().take(if is_long() { 4 } else { 1 }) {
        let said = play_all(&World { laws: vec![control, treated], ..World::equal(control, &[1, 1], users) }, runs);
        let mut found: Vec<u32> = said.iter().filter_map(|said| said.verdict).collect();
        found.sort_unstable();
        let median = found.get(runs as usize / 2).copied().expect("most are found");
        println!("| {control:?} → {treated:?} | {runs} | {:.1} % | {median} users |", 100.0 * found.len() as f64 / f64::from(runs));
        assert!(found.len() as f64 >= 0.9 * f64::from(runs), "{} of {runs} found", found.len());
    }
}

#[test]
fn a_split_that_is_meant_passes_and_another_does_not() {
    // Exposures only: the split needs no values.
    let play = |drawn: [u32; 2], users: u32, number: u64| {
        let mut chance = Xoshiro256PlusPlus::seed_from_u64(number);
        let variants = ["control", "blue"].map(|name| VariantShare { name: name.to_owned(), share: 1 }).to_vec();
        let goals = vec![Goal { name: "goal".to_owned(), kind: GoalKind::Conversion, better: Better::Higher }];
        let design = Design { variants, control: "control".to_owned(), goals, alpha: 0.05 };
        let mut experiment = Experiment::new(design).expect("a design that can be judged");
        let share = f64::from(drawn[0]) / f64::from(drawn[0] + drawn[1]);
        for user in 1..=users {
            experiment.expose(usize::from(uniform(&mut chance) >= share)).expect("a variant");
            if user % 1_000 == 0 && experiment.look().ratio.is_mismatched {
                return Some(user);
            }
        }
        None
    };
    let (runs, users) = if is_long() { (2_000, 1_000_000) } else { (20, 50_000) };
    let next = AtomicU32::new(0);
    let work = || {
        let numbers = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < runs));
        numbers.filter(|number| play([1, 1], users, u64::from(*number)).is_some()).count()
    };
    let refused = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum::<usize>()
    });
    println!("| drawn 50/50, {users} users, looked at every 1,000 | {runs} | refused {refused} |");
    assert!(refused as f64 <= at_most(0.001, runs) * f64::from(runs), "{refused} of {runs} refused");
    let found = play([50, 49], 1_000_000, 1).expect("a percent is seen in a million users");
    println!("| drawn 50/49 | refused at {found} users |");
}
