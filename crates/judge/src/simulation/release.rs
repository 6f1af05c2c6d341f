//! One simulated release: the steps of a plan, one look a second, and what the scales say is done.

use std::collections::VecDeque;

use model::Weight;
use serde::Serialize;

use super::chance::chance;
use super::scenario::Scenario;
use super::traffic::{Second, World};
use crate::plan::Plan;
use crate::scales::Scales;
use crate::units::Share;
use crate::verdict::{Action, Outcome, Verdict};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    Promoted,
    RolledBack,
    /// A step reached its longest time. A real release would go on by default; this one ends here.
    Expired,
    /// The traffic split does not match the weight.
    Split,
    /// All steps were forced, and nothing was found.
    RanOut,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Release {
    pub number: u32,
    pub ending: Ending,
    /// From its start, in seconds.
    pub seconds: u64,
    /// The step in which it ended, from 0.
    pub step: usize,
    /// How long each step lasted that was left for the next.
    pub step_seconds: Vec<u64>,
    pub candidate_requests: u64,
    /// Those that fail or hang, of the candidate's.
    pub candidate_failed: u64,
}

/// One second of one release. Evidence of 1 decides.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Moment {
    pub second: u64,
    pub weight: Weight,
    pub evidence_worse: f64,
    pub evidence_better: f64,
}

/// Plays release `number`; `watch` sees every second.
pub(crate) fn play(scenario: &Scenario, world: &World<'_>, number: u32, mut watch: impl FnMut(Moment)) -> Release {
    let mut release = Running::new(scenario, world, number);
    let ended = |ending, step, release: Running<'_>| Release { number, ending, step, ..release.record };
    for (step, weight) in scenario.steps.iter().enumerate() {
        release.begin(step, *weight);
        loop {
            let outcome = release.second(*weight);
            let (evidence_worse, evidence_better) = (outcome.evidence_worse, outcome.evidence_better);
            watch(Moment { second: release.now(), weight: *weight, evidence_worse, evidence_better });
            match release.follows(step, &outcome) {
                Follows::Wait => {}
                Follows::Next => break,
                Follows::End(ending) => return ended(ending, step, release),
            }
        }
    }
    let ending = if scenario.forced_s.is_some() { Ending::RanOut } else { Ending::Promoted };
    ended(ending, scenario.steps.len() - 1, release)
}

enum Follows {
    Wait,
    Next,
    End(Ending),
}

struct Running<'a> {
    scenario: &'a Scenario,
    world: &'a World<'a>,
    chance: super::chance::Chance,
    scales: Scales,
    /// The last seconds, youngest first, and their epochs: their units may still be open.
    young: VecDeque<(u32, Second)>,
    ages: Vec<u64>,
    step_since: u64,
    record: Release,
}

impl<'a> Running<'a> {
    fn new(scenario: &'a Scenario, world: &'a World<'a>, number: u32) -> Self {
        let suspicion = if scenario.promotion_only { f64::INFINITY } else { scenario.plan.suspicion };
        let alpha = if scenario.promotion_only { 0.0 } else { scenario.plan.alpha };
        // What has ended says nothing about the split.
        let alpha_split = if scenario.completed_only { 0.0 } else { scenario.plan.alpha_split };
        let plan = Plan { alpha, alpha_split, suspicion, ..scenario.plan.clone() };
        Self {
            scenario,
            world,
            chance: chance(scenario.seed, number),
            scales: Scales::new(plan, world.metrics.clone(), Vec::new()),
            young: VecDeque::new(),
            ages: world.ages(),
            step_since: 0,
            record: Release {
                number,
                ending: Ending::RanOut,
                seconds: 0,
                step: 0,
                step_seconds: Vec::new(),
                candidate_requests: 0,
                candidate_failed: 0,
            },
        }
    }

    fn now(&self) -> u64 {
        self.record.seconds
    }

    fn begin(&mut self, step: usize, weight: Weight) {
        self.step_since = self.now();
        self.scales.begin_step(step, Share::of_weight(weight), self.scenario.next_weight(step));
        self.scales.acknowledged(self.now());
    }

    /// Requests are made for a second, then the scales look.
    fn second(&mut self, weight: Weight) -> Outcome {
        if self.scales.is_due(self.now()) {
            self.scales.open_next(self.now());
            self.scales.acknowledged(self.now());
        }
        let made = self.world.second(self.now(), weight, &mut self.chance);
        self.record.candidate_requests += made.candidate.drawn;
        self.record.candidate_failed += made.candidate.failed + made.candidate.hung;
        self.young.push_front((self.scales.epoch(), made));
        self.young.truncate(self.ages.last().map_or(1, |age| *age as usize + 1));
        for age in &self.ages {
            if let Some((epoch, second)) = self.young.get(*age as usize) {
                self.scales.put(*epoch, self.record.seconds - age, self.world.tallies(second, *age));
            }
        }
        self.record.seconds += 1;
        self.scales.look(self.now())
    }

    fn follows(&mut self, step: usize, outcome: &Outcome) -> Follows {
        let age = self.now() - self.step_since;
        if outcome.action == Action::Rollback && outcome.verdict != Verdict::Expired {
            return Follows::End(Ending::RolledBack);
        }
        if outcome.reason == "split" {
            return Follows::End(Ending::Split);
        }
        let may_leave = age >= self.scenario.stay_s.get(step).copied().unwrap_or(0);
        let leaves = match self.scenario.forced_s {
            Some(forced_s) => age >= forced_s,
            None => may_leave && outcome.action == Action::Advance,
        };
        if leaves {
            self.record.step_seconds.push(age);
            return Follows::Next;
        }
        let is_expired = self.scenario.forced_s.is_none() && age >= self.scenario.plan.max_step;
        if is_expired { Follows::End(Ending::Expired) } else { Follows::Wait }
    }
}
