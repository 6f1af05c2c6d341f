//! One release: its states, the events that move it, and what follows from each state.
//!
//! ```text
//! Starting ─▶ Gating ─▶ AwaitingPromotion ─▶ Switching ─▶ Draining ─▶ Watching ─▶ Ended(promoted)
//!     │          │              │                └───────────┴────────────┴─▶ Returning ─┐
//!     └──────────┴──────────────┴──────────────────────────────────────────▶ Retiring ◀──┘
//!                                                                               └─▶ Ended(failed, …)
//! ```
//! A canary climbs its steps between `Gating` and `Switching`:
//! ```text
//! StepGating ─▶ Preparing ─▶ Raising ─▶ Judging ─▶ StepGating of the next step … ─▶ Preparing of the last ─▶ Switching
//! ```
//! **Invariant**: the candidate serves everybody in `Switching`, `Draining`, `Watching` and after `promoted`, a step's share from
//! `Raising` on, and nobody else, nowhere else.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use model::{Canary, Gate, GateKind, Moment, Promotion, ReleaseId, ServiceName, Strategy, VersionName, WEIGHT_SUM, Weight};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    pub id: ReleaseId,
    /// Counts the releases of a service; for people.
    pub number: u64,
    pub service: ServiceName,
    pub kind: Kind,
    pub candidate: VersionName,
    /// Where the candidate runs, when it is not started by us.
    #[serde(default)]
    pub addresses: Vec<SocketAddr>,
    /// Who served before; absent at the first deployment ever.
    pub stable: Option<VersionName>,
    pub settings: Settings,
    pub state: State,
    pub entered_at: Moment,
    /// A person holds it at its step.
    #[serde(default)]
    pub paused: Option<Paused>,
    /// A migration that cannot be undone has begun: its gate's name.
    pub irreversible: Option<String>,
    /// Migrations that passed, in this release or the one that it retries: they do not run again.
    #[serde(default)]
    pub migrated: BTreeSet<String>,
    pub who: String,
    pub message: Option<String>,
    /// Wall clock, milliseconds since 1970; for people only.
    pub began_at_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Deploy,
    /// Back to a version that was confirmed before: no gates, no watch.
    Rollback,
}

/// Held at its step: it is not raised further; what regresses is taken back all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    pub who: String,
    pub why: Option<String>,
    pub since: Moment,
}

/// What of the strategy counts for this release; fixed at its begin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub promotion: Promotion,
    pub gates: Vec<Gate>,
    pub start_timeout_ms: u64,
    pub drain_ms: u64,
    pub watch_ms: u64,
    pub standby_ms: u64,
    #[serde(default)]
    pub canary: Option<Canary>,
}

impl Settings {
    pub fn deploy(strategy: &Strategy, start_timeout_ms: u64) -> Self {
        Self {
            promotion: strategy.promotion,
            gates: strategy.gates.clone(),
            start_timeout_ms,
            drain_ms: strategy.drain_ms,
            watch_ms: strategy.watch_ms,
            standby_ms: strategy.standby_ms,
            canary: strategy.canary.clone(),
        }
    }

    pub fn rollback(strategy: &Strategy, start_timeout_ms: u64) -> Self {
        Self { promotion: Promotion::Auto, gates: Vec::new(), watch_ms: 0, canary: None, ..Self::deploy(strategy, start_timeout_ms) }
    }

    pub fn steps(&self) -> &[model::Step] {
        self.canary.as_ref().map_or(&[], |canary| &canary.steps)
    }

    /// All gates are numbered through: the release's own, then those of each step.
    pub fn gate(&self, number: usize) -> Option<&Gate> {
        self.all_gates().nth(number)
    }

    pub fn all_gates(&self) -> impl Iterator<Item = &Gate> {
        self.gates.iter().chain(self.steps().iter().flat_map(|step| &step.gates))
    }

    /// The numbers of a step's gates.
    fn gates_of(&self, step: usize) -> std::ops::Range<usize> {
        let before: usize = self.steps()[..step].iter().map(|step| step.gates.len()).sum();
        let first = self.gates.len() + before;
        first..first + self.steps()[step].gates.len()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The candidate's targets start and become healthy.
    Starting,
    /// The candidate can be previewed; gate number `gate` runs.
    Gating {
        gate: usize,
    },
    /// A person decides.
    AwaitingPromotion,
    /// Gate number `gate` runs before step `step`; `weight` stays what it was.
    StepGating {
        step: usize,
        gate: usize,
        weight: Weight,
    },
    /// The targets that step `step` needs become healthy; `weight` stays what it was.
    Preparing {
        step: usize,
        weight: Weight,
    },
    /// The step's weight is in the next snapshot; not every data thread has it yet.
    Raising {
        step: usize,
    },
    /// The step's share of traffic is compared with stable's.
    Judging {
        step: usize,
    },
    /// The candidate serves in the next snapshot; not every data thread has it yet.
    Switching,
    /// What the old version took, it finishes.
    Draining,
    /// The candidate serves; a failure takes traffic back.
    Watching,
    /// Stable serves in the next snapshot again.
    Returning {
        ending: Ending,
    },
    /// The candidate finishes what it took, then stops.
    Retiring {
        ending: Ending,
    },
    Ended {
        ending: Ending,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    pub outcome: Outcome,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Promoted,
    /// By itself, after the switch.
    RolledBack,
    /// By a person.
    Aborted,
    /// It never got traffic.
    Failed,
    /// Traffic could not be measured as it was meant to be: nothing is known of the candidate.
    Withdrawn,
    /// Replaced by another release.
    Superseded,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    TargetsBecameHealthy,
    StartFailed {
        reason: String,
    },
    GatePassed {
        gate: usize,
    },
    GateFailed {
        gate: usize,
        reason: String,
    },
    Promoted,
    /// Every data thread has the snapshot of the current state.
    SnapshotAcknowledged,
    /// Nothing runs any more on the version that was left, or its time was up and `cut` were ended.
    Drained {
        cut: usize,
    },
    WatchPassed,
    WatchFailed {
        reason: String,
    },
    /// Step `step` is passed, by the judge or by a person; `full`: all others too.
    Advanced {
        step: usize,
        full: bool,
    },
    /// The candidate is worse than stable, or does not run.
    Regressed {
        reason: String,
    },
    /// The measurement is invalid.
    Withdrawn {
        reason: String,
    },
    /// Taking back: a person's abort, or another release instead.
    TakenBack {
        outcome: Outcome,
        reason: String,
    },
}

/// Behind a version's name: fresh targets of it.
pub const BASELINE: &str = "+baseline";

/// What follows from being in a state. Idempotent; performed again after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    AwaitHealthy,
    RunGate {
        gate: usize,
    },
    AwaitAcknowledgement,
    /// Wait until nothing runs on this version, at most the drain time.
    Drain {
        version: VersionName,
    },
    Watch,
    Judge,
}

/// Every pair of state and event that means something; a test holds [`step`] to it, and another kills the worker at each.
pub const TRANSITIONS: [(&str, &str); 40] = [
    ("starting", "targets_became_healthy"),
    ("starting", "start_failed"),
    ("starting", "taken_back"),
    ("gating", "gate_passed"),
    ("gating", "gate_failed"),
    ("gating", "start_failed"),
    ("gating", "taken_back"),
    ("awaiting_promotion", "promoted"),
    ("awaiting_promotion", "start_failed"),
    ("awaiting_promotion", "taken_back"),
    ("step_gating", "gate_passed"),
    ("step_gating", "gate_failed"),
    ("step_gating", "regressed"),
    ("step_gating", "withdrawn"),
    ("step_gating", "taken_back"),
    ("preparing", "targets_became_healthy"),
    ("preparing", "regressed"),
    ("preparing", "withdrawn"),
    ("preparing", "taken_back"),
    ("raising", "snapshot_acknowledged"),
    ("raising", "regressed"),
    ("raising", "withdrawn"),
    ("raising", "taken_back"),
    ("judging", "advanced"),
    ("judging", "regressed"),
    ("judging", "withdrawn"),
    ("judging", "taken_back"),
    ("switching", "snapshot_acknowledged"),
    ("switching", "watch_failed"),
    ("switching", "taken_back"),
    ("draining", "drained"),
    ("draining", "watch_failed"),
    ("draining", "taken_back"),
    ("watching", "watch_passed"),
    ("watching", "watch_failed"),
    ("watching", "taken_back"),
    ("returning", "snapshot_acknowledged"),
    ("retiring", "drained"),
    // Not of the clockwork: a release begins.
    ("none", "deploy"),
    ("none", "rollback"),
];

/// This event means nothing in this state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Illegal {
    pub state: &'static str,
    pub event: &'static str,
}

impl State {
    pub const NAMES: [&str; 13] = [
        "starting",
        "gating",
        "awaiting_promotion",
        "step_gating",
        "preparing",
        "raising",
        "judging",
        "switching",
        "draining",
        "watching",
        "returning",
        "retiring",
        "ended",
    ];

    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Gating { .. } => "gating",
            Self::AwaitingPromotion => "awaiting_promotion",
            Self::StepGating { .. } => "step_gating",
            Self::Preparing { .. } => "preparing",
            Self::Raising { .. } => "raising",
            Self::Judging { .. } => "judging",
            Self::Switching => "switching",
            Self::Draining => "draining",
            Self::Watching => "watching",
            Self::Returning { .. } => "returning",
            Self::Retiring { .. } => "retiring",
            Self::Ended { .. } => "ended",
        }
    }

    /// The step that is prepared or judged.
    pub fn step(&self) -> Option<usize> {
        match self {
            Self::StepGating { step, .. } | Self::Preparing { step, .. } | Self::Raising { step } | Self::Judging { step } => Some(*step),
            Self::Starting | Self::Gating { .. } | Self::AwaitingPromotion | Self::Switching | Self::Draining => None,
            Self::Watching | Self::Returning { .. } | Self::Retiring { .. } | Self::Ended { .. } => None,
        }
    }

    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }

    /// The candidate serves everybody, or is on its way back: no step is to come.
    pub fn is_past_the_steps(&self) -> bool {
        match self {
            Self::Starting | Self::Gating { .. } | Self::AwaitingPromotion => false,
            Self::StepGating { .. } | Self::Preparing { .. } | Self::Raising { .. } | Self::Judging { .. } => false,
            Self::Switching | Self::Draining | Self::Watching => true,
            Self::Returning { .. } | Self::Retiring { .. } | Self::Ended { .. } => true,
        }
    }

    /// The number of the gate that runs.
    pub fn gate(&self) -> Option<usize> {
        match self {
            Self::Gating { gate } | Self::StepGating { gate, .. } => Some(*gate),
            _ => None,
        }
    }

    /// Whether the candidate serves everybody.
    pub fn serves_candidate(&self) -> bool {
        match self {
            Self::Switching | Self::Draining | Self::Watching => true,
            Self::Ended { ending } => ending.outcome == Outcome::Promoted,
            Self::Starting | Self::Gating { .. } | Self::AwaitingPromotion => false,
            Self::StepGating { .. } | Self::Preparing { .. } | Self::Raising { .. } | Self::Judging { .. } => false,
            Self::Returning { .. } | Self::Retiring { .. } => false,
        }
    }

    /// Whether the candidate may be reached by its preview host and field.
    pub fn previews_candidate(&self) -> bool {
        matches!(self, Self::Gating { .. } | Self::AwaitingPromotion) || self.step().is_some()
    }
}

impl Event {
    pub fn name(&self) -> &'static str {
        match self {
            Self::TargetsBecameHealthy => "targets_became_healthy",
            Self::StartFailed { .. } => "start_failed",
            Self::GatePassed { .. } => "gate_passed",
            Self::GateFailed { .. } => "gate_failed",
            Self::Promoted => "promoted",
            Self::SnapshotAcknowledged => "snapshot_acknowledged",
            Self::Drained { .. } => "drained",
            Self::WatchPassed => "watch_passed",
            Self::WatchFailed { .. } => "watch_failed",
            Self::Advanced { .. } => "advanced",
            Self::Regressed { .. } => "regressed",
            Self::Withdrawn { .. } => "withdrawn",
            Self::TakenBack { .. } => "taken_back",
        }
    }
}

impl Release {
    /// Who serves while the release is in its current state.
    pub fn serving(&self) -> Option<&VersionName> {
        if self.state.serves_candidate() { Some(&self.candidate) } else { self.stable.as_ref() }
    }

    /// Nothing runs any more: the step that was set is prepared again, and until then the candidate gets nothing.
    pub fn prepare_again(&mut self) {
        match self.state {
            State::Raising { step } | State::Judging { step } => self.state = State::Preparing { step, weight: 0 },
            State::StepGating { step, .. } | State::Preparing { step, .. } => {
                self.state = State::Preparing { step: step.saturating_sub(1), weight: 0 };
            }
            State::Starting | State::Gating { .. } | State::AwaitingPromotion | State::Switching | State::Draining => {}
            State::Watching | State::Returning { .. } | State::Retiring { .. } | State::Ended { .. } => {}
        }
    }

    /// The candidate's share of traffic in the current state.
    pub fn weight(&self) -> Weight {
        let of = |step: usize| self.settings.steps().get(step).map_or(0, |step| step.weight);
        match &self.state {
            State::StepGating { weight, .. } | State::Preparing { weight, .. } => *weight,
            State::Raising { step } | State::Judging { step } => of(*step),
            state if state.serves_candidate() => WEIGHT_SUM,
            _ => 0,
        }
    }

    /// A fresh copy of stable that the candidate is compared with, under a name of its own.
    pub fn baseline(&self) -> Option<VersionName> {
        let wanted = self.settings.canary.as_ref().is_some_and(|canary| canary.baseline) && !self.state.is_past_the_steps();
        let stable = self.stable.as_ref().filter(|_| wanted)?;
        VersionName::new(&format!("{stable}{BASELINE}")).ok()
    }

    pub fn effects(&self) -> Vec<Effect> {
        match &self.state {
            State::Starting | State::Preparing { .. } => vec![Effect::AwaitHealthy],
            State::Gating { gate } | State::StepGating { gate, .. } => vec![Effect::RunGate { gate: *gate }],
            State::AwaitingPromotion | State::Ended { .. } => vec![],
            State::Raising { .. } | State::Switching | State::Returning { .. } => vec![Effect::AwaitAcknowledgement],
            State::Judging { .. } => vec![Effect::Judge],
            State::Draining => self.stable.iter().map(|version| Effect::Drain { version: version.clone() }).collect(),
            State::Watching => vec![Effect::Watch],
            State::Retiring { .. } => vec![Effect::Drain { version: self.candidate.clone() }],
        }
    }

    fn after_gate(&self, passed: usize) -> State {
        if passed < self.settings.gates.len() {
            State::Gating { gate: passed }
        } else if self.settings.promotion == Promotion::Manual && self.stable.is_some() {
            State::AwaitingPromotion
        } else {
            self.after_promotion()
        }
    }

    /// At the first deployment ever there is nothing to compare with, and nobody to protect.
    fn after_promotion(&self) -> State {
        if self.settings.steps().is_empty() || self.stable.is_none() { State::Switching } else { self.enter(0) }
    }

    /// With the weight of now, until everything is ready.
    fn enter(&self, step: usize) -> State {
        let (gates, weight) = (self.settings.gates_of(step), self.weight());
        if gates.is_empty() { State::Preparing { step, weight } } else { State::StepGating { step, gate: gates.start, weight } }
    }

    fn after_step_gate(&self, step: usize, gate: usize, weight: Weight) -> State {
        let next = gate + 1;
        let is_last = !self.settings.gates_of(step).contains(&next);
        if is_last { State::Preparing { step, weight } } else { State::StepGating { step, gate: next, weight } }
    }

    fn raise(&self, step: usize) -> State {
        if self.settings.steps()[step].weight == WEIGHT_SUM { State::Switching } else { State::Raising { step } }
    }

    fn after_step(&self, step: usize, full: bool) -> State {
        let last = self.settings.steps().len() - 1;
        self.enter(if full { last } else { (step + 1).min(last) })
    }

    fn after_switch(&self) -> State {
        if self.stable.is_some() { State::Draining } else { promoted("first deployment of the service") }
    }

    fn after_drain(&self) -> State {
        match self.settings.watch_ms {
            0 => promoted("switched"),
            _ => State::Watching,
        }
    }
}

fn promoted(reason: &str) -> State {
    State::Ended { ending: Ending { outcome: Outcome::Promoted, reason: reason.to_owned() } }
}

fn ending(outcome: Outcome, reason: &str) -> Ending {
    Ending { outcome, reason: reason.to_owned() }
}

/// The next release after an event. Pure; every pair of state and event is decided here.
pub fn step(release: &Release, event: &Event, now: Moment) -> Result<Release, Illegal> {
    use Event as E;
    use State as S;
    let retire = |outcome, reason: &str| S::Retiring { ending: ending(outcome, reason) };
    let give_back = |outcome, reason: &str| match release.stable {
        Some(_) => S::Returning { ending: ending(outcome, reason) },
        // At the first deployment ever there is nobody to go back to.
        None => S::Retiring { ending: ending(outcome, reason) },
    };
    // What has had no traffic has not been rolled back.
    let take_back = |outcome, reason: &str| match release.weight() {
        0 => retire(if outcome == Outcome::RolledBack { Outcome::Failed } else { outcome }, reason),
        _ => give_back(outcome, reason),
    };
    let state = match (&release.state, event) {
        (S::Starting, E::TargetsBecameHealthy) => release.after_gate(0),
        (S::Starting, E::StartFailed { reason }) => retire(Outcome::Failed, reason),
        (S::Gating { gate }, E::GatePassed { gate: passed }) if gate == passed => release.after_gate(gate + 1),
        (S::Gating { gate }, E::GateFailed { gate: failed, reason }) if gate == failed => retire(Outcome::Failed, reason),
        (S::Gating { .. } | S::AwaitingPromotion, E::StartFailed { reason }) => retire(Outcome::Failed, reason),
        (S::AwaitingPromotion, E::Promoted) => release.after_promotion(),
        (S::StepGating { step, gate, weight }, E::GatePassed { gate: passed }) if gate == passed => {
            release.after_step_gate(*step, *gate, *weight)
        }
        (S::Preparing { step, .. }, E::TargetsBecameHealthy) => release.raise(*step),
        (S::Raising { step }, E::SnapshotAcknowledged) => S::Judging { step: *step },
        (S::Judging { step }, E::Advanced { step: passed, full }) if step == passed => release.after_step(*step, *full),
        (S::Switching, E::SnapshotAcknowledged) => release.after_switch(),
        (S::Draining, E::Drained { .. }) => release.after_drain(),
        (S::Watching, E::WatchPassed) => promoted("healthy through the watch"),
        // A migration has ruled stable out: only a person who forces it goes back.
        (
            S::StepGating { .. } | S::Preparing { .. } | S::Raising { .. } | S::Judging { .. },
            E::GateFailed { .. } | E::Regressed { .. } | E::Withdrawn { .. },
        )
        | (S::Switching | S::Draining | S::Watching, E::WatchFailed { .. })
            if release.irreversible.is_some() =>
        {
            return Err(Illegal { state: release.state.name(), event: event.name() });
        }
        (S::StepGating { gate, .. }, E::GateFailed { gate: failed, reason }) if gate == failed => take_back(Outcome::RolledBack, reason),
        (S::StepGating { .. } | S::Preparing { .. } | S::Raising { .. } | S::Judging { .. }, E::Regressed { reason }) => {
            take_back(Outcome::RolledBack, reason)
        }
        (S::StepGating { .. } | S::Preparing { .. } | S::Raising { .. } | S::Judging { .. }, E::Withdrawn { reason }) => {
            take_back(Outcome::Withdrawn, reason)
        }
        (S::Switching | S::Draining | S::Watching, E::WatchFailed { reason }) => give_back(Outcome::RolledBack, reason),
        (S::Returning { ending }, E::SnapshotAcknowledged) => S::Retiring { ending: ending.clone() },
        (S::Retiring { ending }, E::Drained { .. }) => S::Ended { ending: ending.clone() },
        (S::Starting | S::Gating { .. } | S::AwaitingPromotion, E::TakenBack { outcome, reason }) => retire(*outcome, reason),
        (S::StepGating { .. } | S::Preparing { .. } | S::Raising { .. } | S::Judging { .. }, E::TakenBack { outcome, reason }) => {
            take_back(*outcome, reason)
        }
        (S::Switching | S::Draining | S::Watching, E::TakenBack { outcome, reason }) => give_back(*outcome, reason),

        (
            S::Starting,
            E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::SnapshotAcknowledged
            | E::Drained { .. }
            | E::WatchPassed
            | E::WatchFailed { .. }
            | E::Advanced { .. }
            | E::Regressed { .. }
            | E::Withdrawn { .. },
        )
        | (
            S::Gating { .. },
            E::TargetsBecameHealthy
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::SnapshotAcknowledged
            | E::Drained { .. }
            | E::WatchPassed
            | E::WatchFailed { .. }
            | E::Advanced { .. }
            | E::Regressed { .. }
            | E::Withdrawn { .. },
        )
        | (
            S::AwaitingPromotion,
            E::TargetsBecameHealthy
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::SnapshotAcknowledged
            | E::Drained { .. }
            | E::WatchPassed
            | E::WatchFailed { .. }
            | E::Advanced { .. }
            | E::Regressed { .. }
            | E::Withdrawn { .. },
        )
        | (
            S::StepGating { .. },
            E::TargetsBecameHealthy
            | E::StartFailed { .. }
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::SnapshotAcknowledged
            | E::Drained { .. }
            | E::WatchPassed
            | E::WatchFailed { .. }
            | E::Advanced { .. },
        )
        | (
            S::Preparing { .. },
            E::StartFailed { .. }
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::SnapshotAcknowledged
            | E::Drained { .. }
            | E::WatchPassed
            | E::WatchFailed { .. }
            | E::Advanced { .. },
        )
        | (
            S::Raising { .. },
            E::TargetsBecameHealthy
            | E::StartFailed { .. }
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::Drained { .. }
            | E::WatchPassed
            | E::WatchFailed { .. }
            | E::Advanced { .. },
        )
        | (
            S::Judging { .. },
            E::TargetsBecameHealthy
            | E::StartFailed { .. }
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::SnapshotAcknowledged
            | E::Drained { .. }
            | E::WatchPassed
            | E::WatchFailed { .. }
            | E::Advanced { .. },
        )
        | (
            S::Switching,
            E::TargetsBecameHealthy
            | E::StartFailed { .. }
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::Drained { .. }
            | E::WatchPassed
            | E::Advanced { .. }
            | E::Regressed { .. }
            | E::Withdrawn { .. },
        )
        | (
            S::Draining,
            E::TargetsBecameHealthy
            | E::StartFailed { .. }
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::SnapshotAcknowledged
            | E::WatchPassed
            | E::Advanced { .. }
            | E::Regressed { .. }
            | E::Withdrawn { .. },
        )
        | (
            S::Watching,
            E::TargetsBecameHealthy
            | E::StartFailed { .. }
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::SnapshotAcknowledged
            | E::Drained { .. }
            | E::Advanced { .. }
            | E::Regressed { .. }
            | E::Withdrawn { .. },
        )
        | (
            S::Returning { .. },
            E::TargetsBecameHealthy
            | E::StartFailed { .. }
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::Drained { .. }
            | E::WatchPassed
            | E::WatchFailed { .. }
            | E::Advanced { .. }
            | E::Regressed { .. }
            | E::Withdrawn { .. }
            | E::TakenBack { .. },
        )
        | (
            S::Retiring { .. },
            E::TargetsBecameHealthy
            | E::StartFailed { .. }
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::SnapshotAcknowledged
            | E::WatchPassed
            | E::WatchFailed { .. }
            | E::Advanced { .. }
            | E::Regressed { .. }
            | E::Withdrawn { .. }
            | E::TakenBack { .. },
        )
        | (
            S::Ended { .. },
            E::TargetsBecameHealthy
            | E::StartFailed { .. }
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::SnapshotAcknowledged
            | E::Drained { .. }
            | E::WatchPassed
            | E::WatchFailed { .. }
            | E::Advanced { .. }
            | E::Regressed { .. }
            | E::Withdrawn { .. }
            | E::TakenBack { .. },
        ) => return Err(Illegal { state: release.state.name(), event: event.name() }),
    };
    let mut next = Release { state, entered_at: now, ..release.clone() };
    if let E::GatePassed { gate } = event
        && let Some(passed) = release.settings.gate(*gate).filter(|gate| matches!(gate.kind, GateKind::Migrate { .. }))
    {
        next.migrated.insert(passed.name.clone());
    }
    Ok(next)
}
