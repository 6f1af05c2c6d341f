//! The clockwork of a flag's rollout: a treated variant climbs its steps among users who have the control variant otherwise.
//!
//! ```text
//! Planned ─▶ Raising ─▶ Judging ─▶ Raising of the next step … ─▶ Ended(promoted)
//!                └─────────┴─▶ Ended(rolled_back, withdrawn, aborted)
//! ```
//! Pure, like a release's: time comes in as an argument, the judge's word as data, effects go out as data. Whoever drives it keeps the
//! next state first and performs the effects afterwards; after a crash [`Rollout::effects`] says what to perform again.
//! **Invariant**: the weight only rises, or goes to 0 for good; so pausing, going on and restarting change nobody's variant.
//! Not here: which flag it is, who is on which side of a weight (flags), counting (telemetry), statistics (judge), clocks.

mod plan;
mod step;
#[cfg(test)]
mod tests;

use model::{WEIGHT_SUM, Weight};
use serde::{Deserialize, Serialize};

pub use plan::{CRITERIA_MAX, Criteria, InvalidPlan, Plan, Steps};
pub use step::{IllegalEvent, Next, step};

/// One rollout, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    pub plan: Plan,
    pub state: State,
    /// The epoch that was opened last, as the judge's scales number them; 0 before the first.
    pub epoch: u32,
    /// A person holds it at its step.
    pub paused: Option<Paused>,
}

/// Seconds are those of the wall clock, since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody is treated yet.
    Planned,
    /// The step's weight is set; not every evaluator has it yet.
    Raising {
        step: usize,
    },
    /// Treated users are compared with the others since `since_s`.
    Judging {
        step: usize,
        since_s: u64,
    },
    Ended {
        outcome: Outcome,
        reason: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everybody is treated.
    Promoted,
    /// By itself: the treated variant is worse.
    RolledBack,
    /// By a person, or the flag was switched off.
    Aborted,
    /// Users were not split as they were meant to be: nothing is known of the treated variant.
    Withdrawn,
}

/// It is not raised further; what regresses is taken back all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    pub who: String,
    pub why: Option<String>,
    pub since_s: u64,
}

/// What the judge says follows from a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Advance,
    Rollback,
    Hold,
    Withdraw,
    Ask,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Started,
    /// Every evaluator assigns by this epoch. One that is not the newest says nothing.
    Acknowledged {
        epoch: u32,
    },
    /// The open epoch has lasted its time.
    EpochDue,
    /// A look at step `step`; once a second.
    Judged {
        step: usize,
        action: Action,
        reason: String,
    },
    /// A person lets it go on from step `step`, whatever the judge says; `full`: to everybody.
    AdvancedByHand {
        step: usize,
        full: bool,
        who: String,
    },
    Paused {
        who: String,
        why: Option<String>,
    },
    Resumed {
        who: String,
    },
    Aborted {
        reason: String,
    },
    /// The flag is switched off for everybody.
    OffByHand {
        who: String,
    },
}

/// What to do. All but [`Effect::Report`] may be done twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Users whose place is below `weight` are treated from now on; they count for `epoch`, opened as the step's first.
    SetWeight { weight: Weight, step: usize, epoch: u32 },
    /// The same weight goes on in a new epoch.
    OpenEpoch { epoch: u32 },
    /// To be told, for people.
    Report { text: String },
}

impl Rollout {
    pub fn new(plan: Plan) -> Self {
        Self { plan, state: State::Planned, epoch: 0, paused: None }
    }

    /// The treated variant's share of users now.
    pub fn weight(&self) -> Weight {
        match &self.state {
            State::Planned => 0,
            State::Raising { step } | State::Judging { step, .. } => self.plan.steps.weight(*step),
            State::Ended { outcome: Outcome::Promoted, .. } => WEIGHT_SUM,
            State::Ended { outcome: Outcome::RolledBack | Outcome::Aborted | Outcome::Withdrawn, .. } => 0,
        }
    }

    /// The step that users are drawn for.
    pub fn step(&self) -> Option<usize> {
        match &self.state {
            State::Raising { step } | State::Judging { step, .. } => Some(*step),
            State::Planned | State::Ended { .. } => None,
        }
    }

    /// The weight before this step: users below it were treated already and do not count.
    pub fn before(&self) -> Weight {
        self.step().and_then(|step| step.checked_sub(1)).map_or(0, |before| self.plan.steps.weight(before))
    }

    /// The weight behind this step, which the judge's margin is about.
    pub fn next_weight(&self) -> Weight {
        self.step().map_or(WEIGHT_SUM, |step| self.plan.steps.weight(step + 1))
    }

    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended { .. })
    }

    /// What holds in this state, to be performed again after a crash.
    pub fn effects(&self) -> Vec<Effect> {
        self.step().map(|step| Effect::SetWeight { weight: self.weight(), step, epoch: self.epoch }).into_iter().collect()
    }
}

impl State {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Raising { .. } => "raising",
            Self::Judging { .. } => "judging",
            Self::Ended { .. } => "ended",
        }
    }
}

impl Event {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Acknowledged { .. } => "acknowledged",
            Self::EpochDue => "epoch_due",
            Self::Judged { .. } => "judged",
            Self::AdvancedByHand { .. } => "advanced_by_hand",
            Self::Paused { .. } => "paused",
            Self::Resumed { .. } => "resumed",
            Self::Aborted { .. } => "aborted",
            Self::OffByHand { .. } => "off_by_hand",
        }
    }
}
