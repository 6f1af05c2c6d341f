//! One release: its states, the events that move it, and what follows from each state.
//!
//! ```text
//! Starting ─▶ Gating ─▶ AwaitingPromotion ─▶ Switching ─▶ Draining ─▶ Watching ─▶ Ended(promoted)
//!     │          │              │                └───────────┴────────────┴─▶ Returning ─┐
//!     └──────────┴──────────────┴──────────────────────────────────────────▶ Retiring ◀──┘
//!                                                                               └─▶ Ended(failed, …)
//! ```
//! **Invariant**: the candidate serves in `Switching`, `Draining`, `Watching` and after `promoted`, and nowhere else.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use model::{BlueGreen, Gate, GateKind, Moment, Promotion, ReleaseId, ServiceName, VersionName};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// What of the strategy counts for this release; fixed at its begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub promotion: Promotion,
    pub gates: Vec<Gate>,
    pub start_timeout_ms: u64,
    pub drain_ms: u64,
    pub watch_ms: u64,
    pub standby_ms: u64,
}

impl Settings {
    pub fn deploy(strategy: &BlueGreen, start_timeout_ms: u64) -> Self {
        Self {
            promotion: strategy.promotion,
            gates: strategy.gates.clone(),
            start_timeout_ms,
            drain_ms: strategy.drain_ms,
            watch_ms: strategy.watch_ms,
            standby_ms: strategy.standby_ms,
        }
    }

    pub fn rollback(strategy: &BlueGreen, start_timeout_ms: u64) -> Self {
        Self { promotion: Promotion::Auto, gates: Vec::new(), watch_ms: 0, ..Self::deploy(strategy, start_timeout_ms) }
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
    /// Never switched.
    Failed,
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
    /// Taking back: a person's abort, or another release instead.
    TakenBack {
        outcome: Outcome,
        reason: String,
    },
}

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
}

/// Every pair of state and event that means something; a test holds [`step`] to it, and another kills the worker at each.
pub const TRANSITIONS: [(&str, &str); 23] = [
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
    pub const NAMES: [&str; 9] =
        ["starting", "gating", "awaiting_promotion", "switching", "draining", "watching", "returning", "retiring", "ended"];

    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Gating { .. } => "gating",
            Self::AwaitingPromotion => "awaiting_promotion",
            Self::Switching => "switching",
            Self::Draining => "draining",
            Self::Watching => "watching",
            Self::Returning { .. } => "returning",
            Self::Retiring { .. } => "retiring",
            Self::Ended { .. } => "ended",
        }
    }

    /// Whether the candidate serves.
    pub fn serves_candidate(&self) -> bool {
        match self {
            Self::Switching | Self::Draining | Self::Watching => true,
            Self::Ended { ending } => ending.outcome == Outcome::Promoted,
            Self::Starting | Self::Gating { .. } | Self::AwaitingPromotion => false,
            Self::Returning { .. } | Self::Retiring { .. } => false,
        }
    }

    /// Whether the candidate may be reached by its preview host and field.
    pub fn previews_candidate(&self) -> bool {
        matches!(self, Self::Gating { .. } | Self::AwaitingPromotion)
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
            Self::TakenBack { .. } => "taken_back",
        }
    }
}

impl Release {
    /// Who serves while the release is in its current state.
    pub fn serving(&self) -> Option<&VersionName> {
        if self.state.serves_candidate() { Some(&self.candidate) } else { self.stable.as_ref() }
    }

    pub fn effects(&self) -> Vec<Effect> {
        match &self.state {
            State::Starting => vec![Effect::AwaitHealthy],
            State::Gating { gate } => vec![Effect::RunGate { gate: *gate }],
            State::AwaitingPromotion | State::Ended { .. } => vec![],
            State::Switching | State::Returning { .. } => vec![Effect::AwaitAcknowledgement],
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
            State::Switching
        }
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
    let state = match (&release.state, event) {
        (S::Starting, E::TargetsBecameHealthy) => release.after_gate(0),
        (S::Starting, E::StartFailed { reason }) => retire(Outcome::Failed, reason),
        (S::Gating { gate }, E::GatePassed { gate: passed }) if gate == passed => release.after_gate(gate + 1),
        (S::Gating { gate }, E::GateFailed { gate: failed, reason }) if gate == failed => retire(Outcome::Failed, reason),
        (S::Gating { .. } | S::AwaitingPromotion, E::StartFailed { reason }) => retire(Outcome::Failed, reason),
        (S::AwaitingPromotion, E::Promoted) => S::Switching,
        (S::Switching, E::SnapshotAcknowledged) => release.after_switch(),
        (S::Draining, E::Drained { .. }) => release.after_drain(),
        (S::Watching, E::WatchPassed) => promoted("healthy through the watch"),
        // A migration has ruled stable out: only a person who forces it goes back.
        (S::Switching | S::Draining | S::Watching, E::WatchFailed { .. }) if release.irreversible.is_some() => {
            return Err(Illegal { state: release.state.name(), event: event.name() });
        }
        (S::Switching | S::Draining | S::Watching, E::WatchFailed { reason }) => give_back(Outcome::RolledBack, reason),
        (S::Returning { ending }, E::SnapshotAcknowledged) => S::Retiring { ending: ending.clone() },
        (S::Retiring { ending }, E::Drained { .. }) => S::Ended { ending: ending.clone() },
        (S::Starting | S::Gating { .. } | S::AwaitingPromotion, E::TakenBack { outcome, reason }) => retire(*outcome, reason),
        (S::Switching | S::Draining | S::Watching, E::TakenBack { outcome, reason }) => give_back(*outcome, reason),

        (
            S::Starting,
            E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::SnapshotAcknowledged
            | E::Drained { .. }
            | E::WatchPassed
            | E::WatchFailed { .. },
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
            | E::WatchFailed { .. },
        )
        | (
            S::AwaitingPromotion,
            E::TargetsBecameHealthy
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::SnapshotAcknowledged
            | E::Drained { .. }
            | E::WatchPassed
            | E::WatchFailed { .. },
        )
        | (
            S::Switching,
            E::TargetsBecameHealthy
            | E::StartFailed { .. }
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::Drained { .. }
            | E::WatchPassed,
        )
        | (
            S::Draining,
            E::TargetsBecameHealthy
            | E::StartFailed { .. }
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::SnapshotAcknowledged
            | E::WatchPassed,
        )
        | (
            S::Watching,
            E::TargetsBecameHealthy
            | E::StartFailed { .. }
            | E::GatePassed { .. }
            | E::GateFailed { .. }
            | E::Promoted
            | E::SnapshotAcknowledged
            | E::Drained { .. },
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
            | E::TakenBack { .. },
        ) => return Err(Illegal { state: release.state.name(), event: event.name() }),
    };
    let mut next = Release { state, entered_at: now, ..release.clone() };
    if let E::GatePassed { gate } = event {
        let passed = &release.settings.gates[*gate];
        if matches!(passed.kind, GateKind::Migrate { .. }) {
            next.migrated.insert(passed.name.clone());
        }
    }
    Ok(next)
}
