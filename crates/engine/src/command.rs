//! What can be asked of the engine, and everything else that reaches it.

use std::net::{SocketAddr, TcpListener};

pub use model::Rejected;
use model::{Desired, Mode, ServiceName, TargetId, VersionName};
use serde_json::Value;
use store::{Happening, Store};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::edge::{ExitStatus, Process};

#[derive(Debug)]
pub enum Command {
    Deploy(WantedDeploy),
    /// The last release once more; migrations that passed do not run again.
    Retry {
        service: ServiceName,
        who: String,
    },
    /// `full`: to everybody; `step`: only if the release is at this step (from 1).
    Promote {
        service: ServiceName,
        who: String,
        full: bool,
        step: Option<usize>,
        why: Option<String>,
    },
    /// Holds a canary at its step.
    Pause {
        service: ServiceName,
        who: String,
        why: Option<String>,
    },
    Unpause {
        service: ServiceName,
        who: String,
    },
    /// What a deploy would do, and how long it would take with the traffic of now.
    Forecast {
        service: ServiceName,
        version: VersionName,
    },
    /// `force`: also when a migration cannot be undone.
    Abort {
        service: ServiceName,
        force: bool,
        who: String,
        reason: Option<String>,
    },
    Rollback {
        service: ServiceName,
        to: Option<VersionName>,
        force: bool,
        who: String,
    },
    SetMode {
        service: ServiceName,
        mode: Mode,
        who: String,
    },
    Stop {
        service: ServiceName,
        who: String,
    },
    Start {
        service: ServiceName,
        who: String,
    },
    /// Each target is replaced by a new one; answered when the old ones have drained.
    Restart {
        service: ServiceName,
        who: String,
    },
    /// Ends what was deployed and forgets it; the history stays.
    Remove {
        service: ServiceName,
        who: String,
    },
    /// After crashes in a row: drive releases again.
    Resume {
        who: String,
    },
    Apply {
        desired: Box<Desired>,
        who: String,
    },
    Plan {
        desired: Box<Desired>,
    },
    Status,
    /// What versions used, by release.
    Cost {
        service: Option<ServiceName>,
    },
    /// An upgrade begins; answers with the newest event before it.
    UpgradeBegins {
        text: String,
        who: String,
    },
    /// Where a version's output is.
    LogFile {
        service: ServiceName,
        version: Option<VersionName>,
    },
    Down {
        keep_versions: bool,
    },
}

#[derive(Debug)]
pub struct WantedDeploy {
    pub service: ServiceName,
    pub version: VersionName,
    /// For `static` services.
    pub addresses: Vec<SocketAddr>,
    pub message: Option<String>,
    pub who: String,
    pub when_running: WhenRunning,
}

/// What becomes of a deploy while another release runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenRunning {
    Refuse,
    /// It begins when the other has ended.
    Queue,
    /// The other gives its traffic back, drains and stops first.
    Supersede,
}

#[derive(Debug)]
pub enum ProcessEvent {
    Spawned {
        id: TargetId,
        process: Process,
    },
    SpawnFailed {
        id: TargetId,
        error: String,
    },
    Exited {
        id: TargetId,
        status: ExitStatus,
    },
    Adopted {
        id: TargetId,
    },
    /// The sockets that were open when we came.
    Held {
        addresses: Vec<SocketAddr>,
    },
    Listening {
        address: SocketAddr,
        socket: TcpListener,
    },
    ListenFailed {
        address: SocketAddr,
        error: String,
    },
    /// The keeper was told to end.
    Terminate {
        signal: i32,
    },
}

/// The code of what was asked of a worker that had ended, or was about to: nothing of it was done.
pub const ENDED: &str = "ended";

#[derive(Debug)]
pub enum Input {
    /// Happened elsewhere.
    Told {
        kind: String,
        text: String,
    },
    Command(Command, oneshot::Sender<Result<Value, Rejected>>),
    Process(ProcessEvent),
    /// `fallen`: so many bad answers in a row that it is not merely young.
    Health {
        target: TargetId,
        healthy: bool,
        fallen: bool,
        detail: String,
        tries: u32,
    },
    Acknowledged {
        generation: u64,
        took_us: u64,
    },
    /// Another process listens on the port that this target was given.
    PortTaken {
        target: TargetId,
    },
    /// Another worker is to go on from what is kept: end as soon as nothing is half done, and touch nothing.
    Release,
    /// No client is left on the data plane.
    CorridorDrained,
    /// What sessions of versions have used, by the pid of their leader.
    Used {
        sessions: std::collections::HashMap<i32, crate::cost::Taken>,
    },
    /// What an interval of a user's metric gave: candidate, stable.
    Measured {
        service: ServiceName,
        release: model::ReleaseId,
        metric: String,
        epoch: u32,
        values: Result<(f64, f64), String>,
    },
    GateFinished {
        release: Box<release::Release>,
        gate: usize,
        result: Result<String, String>,
    },
}

/// The way in; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
    pub(crate) happenings: broadcast::Sender<Happening>,
    pub(crate) store: Store,
}

impl Engine {
    pub async fn ask(&self, command: Command) -> Result<Value, Rejected> {
        let takes_back = matches!(command, Command::Rollback { .. } | Command::Abort { .. });
        let _urgent = takes_back.then(|| self.store.urgent());
        let (reply, answer) = oneshot::channel();
        let ended = || Rejected::new(ENDED, "changeover is ending, or is being replaced").hint("ask again in a moment");
        self.inputs.send(Input::Command(command, reply)).map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    pub fn tell(&self, event: ProcessEvent) {
        let _ = self.inputs.send(Input::Process(event));
    }

    /// The state may go to another worker.
    pub fn release(&self) {
        let _ = self.inputs.send(Input::Release);
    }

    /// Something that happened elsewhere in the house, for the events.
    pub fn told(&self, kind: &str, text: String) {
        let _ = self.inputs.send(Input::Told { kind: kind.to_owned(), text });
    }

    /// New happenings from now on. Subscribe before reading the old ones, so that none is missed.
    pub fn subscribe(&self) -> broadcast::Receiver<Happening> {
        self.happenings.subscribe()
    }

    pub fn store(&self) -> &Store {
        &self.store
    }
}
