//! The scales tried on made-up traffic with known truth: how often they are wrong, and how soon they are right.
//!
//! It drives [`Scales`](crate::Scales) itself, one look a second, as a release would: no formula of the judge is written twice.
//! **Invariant**: a scenario with its seed gives the same releases with any number of threads. Not here:
//! what a real service does; arrivals are Poisson, units are independent unless the scenario says otherwise, latency is lognormal.

mod chance;
mod cohorts;
mod peeked_test;
mod rank_test;
mod release;
mod rivals;
mod scenario;
mod summary;
mod threshold_rule;
mod traffic;

use std::sync::atomic::{AtomicU32, Ordering};

pub use cohorts::{CohortRelease, Cohorts, cohort_releases};
pub use release::{Ending, Moment, Release};
pub use rivals::{Alarms, rivals};
pub use scenario::{Bursts, Course, Impossible, Measures, Scenario, Version};
pub use summary::{StepSummary, Summary, Times, quantile};

/// Plays all releases of a scenario.
///
/// # Errors
/// Numbers that no traffic can have.
pub fn run(scenario: &Scenario) -> Result<Summary, Impossible> {
    Ok(Summary::of(scenario, &releases(scenario, &|_| {})?))
}

/// The releases one by one, in order of their number. `progress` hears how many have ended, from any thread.
///
/// # Errors
/// Numbers that no traffic can have.
pub fn releases(scenario: &Scenario, progress: &(dyn Fn(u32) + Sync)) -> Result<Vec<Release>, Impossible> {
    let world = traffic::World::new(scenario)?;
    Ok(on_all_cores(scenario.runs, progress, |number| release::play(scenario, &world, number, |_| {})))
}

/// What the scales said in each second of one release of a scenario.
///
/// # Errors
/// Numbers that no traffic can have.
pub fn moments(scenario: &Scenario, number: u32) -> Result<Vec<Moment>, Impossible> {
    let (world, mut moments) = (traffic::World::new(scenario)?, Vec::new());
    release::play(scenario, &world, number, |moment| moments.push(moment));
    Ok(moments)
}

/// `play(0..runs)` in order of the number, whichever thread played it.
fn on_all_cores<T: Send>(runs: u32, progress: &(dyn Fn(u32) + Sync), play: impl Fn(u32) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(runs as usize);
    let (next, ended) = (AtomicU32::new(0), AtomicU32::new(0));
    let work = || {
        let mut played = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= runs {
                return played;
            }
            played.push((number, play(number)));
            progress(ended.fetch_add(1, Ordering::Relaxed) + 1);
        }
    };
    let mut played: Vec<(u32, T)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("playing a release does not panic")).collect()
    });
    played.sort_by_key(|(number, _)| *number);
    played.into_iter().map(|(_, outcome)| outcome).collect()
}
