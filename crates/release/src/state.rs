//! What a release is: its settings, its states, what can happen to it, what follows from a state. How it moves: clockwork.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use model::{Canary, Gate, Moment, Promotion, ReleaseId, ServiceName, Strategy, VersionName, Weight};
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
    pub frozen_ms: u64,
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
            frozen_ms: strategy.frozen_ms,
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
    pub(crate) fn gates_of(&self, step: usize) -> std::ops::Range<usize> {
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
