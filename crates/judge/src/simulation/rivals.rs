//! Other rules on the same traffic, for comparison: what they would have done is counted, nothing follows from it.

use serde::Serialize;

use super::chance::chance;
use super::peeked_test::PeekedTest;
use super::rank_test::RankTest;
use super::scenario::{Impossible, Scenario};
use super::threshold_rule::ThresholdRule;
use super::traffic::World;
use crate::units::{Arms, Units};

/// When one rule gave the alarm, per release: seconds from its start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alarms {
    pub rule: &'static str,
    pub seconds: Vec<Option<u64>>,
}

/// A rule that may give the alarm once.
pub(super) trait Rival {
    /// Errors of the units that were drawn in second `now`.
    fn alarms(&mut self, now: u64, arms: &Arms) -> bool;
}

/// Plays the traffic of a scenario whose steps are forced; outcomes are known at once.
///
/// # Errors
/// Numbers that no traffic can have.
pub fn rivals(scenario: &Scenario) -> Result<Vec<Alarms>, Impossible> {
    const RULES: [&str; 3] = ["peeked z-test", "over 1 % in a minute, third", "Mann-Whitney"];
    let world = World::new(scenario)?;
    let of_releases = super::on_all_cores(scenario.runs, &|_| {}, |number| of_release(scenario, &world, number));
    let of_rule = |(number, rule)| Alarms { rule, seconds: of_releases.iter().map(|alarms| alarms[number]).collect() };
    Ok(RULES.into_iter().enumerate().map(of_rule).collect())
}

fn of_release(scenario: &Scenario, world: &World<'_>, number: u32) -> [Option<u64>; 3] {
    let mut rules: [Box<dyn Rival>; 3] = [Box::<PeekedTest>::default(), Box::<ThresholdRule>::default(), Box::<RankTest>::default()];
    let (mut chance, mut alarms, mut now) = (chance(scenario.seed, number), [None; 3], 0);
    for weight in &scenario.steps {
        for _ in 0..scenario.forced_s.unwrap_or(scenario.plan.max_step) {
            let made = world.second(now, *weight, &mut chance);
            let candidate = Units { closed: made.candidate.drawn, bad: made.candidate.failed };
            let stable = Units { closed: made.stable.drawn, bad: made.stable.failed };
            for (rule, alarm) in rules.iter_mut().zip(&mut alarms) {
                if alarm.is_none() && rule.alarms(now, &Arms { candidate, stable }) {
                    *alarm = Some(now + 1);
                }
            }
            now += 1;
        }
    }
    alarms
}
