//! How a release moves: every pair of state and event is decided here. What the states are: state.
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

use model::{GateKind, Moment, Promotion, VersionName, WEIGHT_SUM, Weight};

use crate::state::{BASELINE, Effect, Ending, Event, Outcome, Release, State};

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
