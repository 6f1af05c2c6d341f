//! The handle: what the rest of the house may ask of the data plane.
//!
//! **Invariant**: `install` returns `Ok` only when every lane, woken, routes by the new table.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use model::{ListenerName, ReleaseId, ServiceName, Snapshot, TargetId, VersionName};
use telemetry::{CellCounts, LogWriter, RequestEnded};
use tls::Keyring;
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, oneshot};

use crate::black_box;
use crate::clock::second_of;
use crate::counts::Counts;
use crate::lane::{Command, Lane};
use crate::metrics;
use crate::shared::Shared;
use crate::table::Table;

/// A lane that does not answer for so long is stuck; better to say so than to wait on.
const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(5);
/// A data thread that did not tick for so long counts as gone.
const SILENT_S: u64 = 5;
const TUNNELS_END_WITHIN_MAX: Duration = Duration::from_secs(10);
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// After a kill, sockets close at the lanes' next turn.
const KILL_MAX: Duration = Duration::from_secs(1);

pub struct Config {
    pub threads: usize,
    /// The file is opened for append.
    pub access_log: Option<(model::AccessLog, PathBuf)>,
    /// Where the number of running requests survives a crash; see [`left_in_flight`](crate::left_in_flight).
    pub black_box: Option<File>,
}

/// So many lanes did not acknowledge a table in time. It may still be installed later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAcknowledged {
    pub lanes: usize,
}

impl fmt::Display for NotAcknowledged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} data threads did not acknowledge the new routing table within {ACKNOWLEDGE_MAX:?}", self.lanes)
    }
}

impl std::error::Error for NotAcknowledged {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InFlight {
    pub requests: usize,
    pub tunnels: usize,
}

#[derive(Clone)]
pub struct Proxy {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for lane in &self.shared.commands {
            let _ = lane.send(Command::Stop);
        }
    }
}

impl Proxy {
    pub fn start(config: Config) -> io::Result<Proxy> {
        let log = config.access_log.map(|(settings, path)| LogWriter::open(settings, &path)).transpose()?;
        let (commands, inboxes): (Vec<_>, Vec<_>) = (0..config.threads.max(1)).map(|_| mpsc::unbounded_channel()).unzip();
        let shared = Arc::new(Shared::new(commands, log, Keyring::start()?));
        let proxy = Proxy { inner: Arc::new(Inner { shared: shared.clone() }) };
        let slots = match &config.black_box {
            Some(memory) => black_box::open(memory, inboxes.len())?,
            None => Vec::new(),
        };
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let (built, is_built) = std::sync::mpsc::channel();
            let (shared, slot) = (shared.clone(), slots.get(index).copied());
            std::thread::Builder::new().name(format!("lane-{index}")).spawn(move || {
                fastrand::seed(random_seed());
                if let Some(slot) = slot {
                    black_box::use_slot(slot);
                }
                // It belongs to the thread that makes it.
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
                let (runtime, error) = match runtime {
                    Ok(runtime) => (Some(runtime), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                let _ = built.send(error);
                if let Some(runtime) = runtime {
                    runtime.block_on(async move { Lane::new(index, shared).run(inbox).await });
                }
            })?;
            is_built.recv().map_err(io::Error::other)??;
        }
        Ok(proxy)
    }

    /// Resolves when every data thread, woken, has acknowledged the new generation; says how long that took.
    pub async fn install(&self, snapshot: Arc<Snapshot>) -> Result<Duration, NotAcknowledged> {
        let acknowledged = self.send_table(&snapshot);
        let answered = Self::answered(acknowledged).await;
        self.inner.shared.registry().forget_gone();
        answered
    }

    /// Whether somebody waits for how requests end; while they do, requests without an id get one.
    pub fn watch_requests(&self, on: bool) {
        self.inner.shared.watched.set(on);
    }

    /// Requests that have ended since this was asked last.
    pub fn requests_ended(&self) -> Vec<RequestEnded> {
        self.inner.shared.watched.take()
    }

    /// Resolves when every data thread has taken what was installed before; commands reach a lane in order.
    pub async fn acknowledge(&self) -> Result<Duration, NotAcknowledged> {
        let ask = |lane: &mpsc::UnboundedSender<Command>| {
            let (acknowledge, acknowledged) = oneshot::channel();
            let _ = lane.send(Command::Acknowledge(acknowledge));
            acknowledged
        };
        let asked = self.inner.shared.commands.iter().map(ask).collect();
        Self::answered(asked).await
    }

    async fn answered(acknowledged: Vec<oneshot::Receiver<()>>) -> Result<Duration, NotAcknowledged> {
        let started = Instant::now();
        let lanes = acknowledged.len();
        let waits =
            acknowledged.into_iter().map(|inbox| async move { matches!(tokio::time::timeout(ACKNOWLEDGE_MAX, inbox).await, Ok(Ok(()))) });
        let answered = join_all(waits).await.into_iter().filter(|answered| *answered).count();
        if answered == lanes { Ok(started.elapsed()) } else { Err(NotAcknowledged { lanes: lanes - answered }) }
    }

    /// Under the lock, so that two installs reach all lanes in one order.
    fn send_table(&self, snapshot: &Snapshot) -> Vec<oneshot::Receiver<()>> {
        let shared = &self.inner.shared;
        let mut registry = shared.registry();
        let table = Arc::new(Table::compile(snapshot, &mut *registry, &shared.keyring));
        let send = |lane: &mpsc::UnboundedSender<Command>| {
            let (acknowledge, acknowledged) = oneshot::channel();
            let _ = lane.send(Command::Install(table.clone(), acknowledge));
            acknowledged
        };
        shared.commands.iter().map(send).collect()
    }

    /// The socket is shared with other processes: it is closed here, never shut down.
    pub fn listen(&self, name: &ListenerName, socket: TcpListener) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        for lane in &self.inner.shared.commands {
            let _ = lane.send(Command::Listen(name.clone(), socket.try_clone()?));
        }
        Ok(())
    }

    /// Stops accepting; connections stay.
    pub fn unlisten(&self, name: &ListenerName) {
        self.tell(|| Command::Unlisten(name.clone()));
    }

    pub fn in_flight(&self, service: &ServiceName, version: &VersionName) -> InFlight {
        let registry = self.inner.shared.registry();
        registry.of(service, version).fold(InFlight::default(), |sum, live| InFlight {
            requests: sum.requests + live.requests(),
            tunnels: sum.tunnels + live.tunnels(),
        })
    }

    pub fn in_flight_of(&self, target: &TargetId) -> InFlight {
        let live = self.inner.shared.registry().known(target);
        live.map_or_else(InFlight::default, |live| InFlight { requests: live.requests(), tunnels: live.tunnels() })
    }

    /// Cuts what still runs on the version; returns how many requests and tunnels that were.
    pub fn cut(&self, service: &ServiceName, version: &VersionName) -> usize {
        let registry = self.inner.shared.registry();
        let running = registry.of(service, version).map(|live| live.requests() + live.tunnels()).sum();
        let targets: Vec<u64> = registry.of(service, version).map(|live| live.number).collect();
        drop(registry);
        self.tell(|| Command::Cut(targets.clone()));
        running
    }

    /// WebSockets of the version get a close frame (1012, "service restart"), each at its own moment within this time. Asked again,
    /// those that were asked keep their moment. Tunnels of other protocols stay.
    pub fn end_tunnels(&self, service: &ServiceName, version: &VersionName, within: Duration) {
        let targets: Vec<u64> = self.inner.shared.registry().of(service, version).map(|live| live.number).collect();
        self.tell(|| Command::EndTunnels(Some(targets.clone()), within));
    }

    /// The same for one target.
    pub fn end_tunnels_of(&self, target: &TargetId, within: Duration) {
        if let Some(live) = self.inner.shared.registry().known(target) {
            self.tell(|| Command::EndTunnels(Some(vec![live.number]), within));
        }
    }

    pub fn counts(&self, service: &ServiceName, version: &VersionName) -> Counts {
        let counts = self.inner.shared.registry().counts.get(&(service.clone(), version.clone())).cloned();
        counts.map(|counts| counts.read()).unwrap_or_default()
    }

    /// What was counted for the judge of a release, and the second since boot up to which every thread's draws are complete.
    /// Nothing is read when that is not after `after`.
    pub fn cells(&self, release: &ReleaseId, after: u64) -> Option<(u64, Vec<CellCounts>)> {
        let shared = &self.inner.shared;
        let seconds = || shared.complete_s.iter().map(|second| second.load(Ordering::Acquire));
        // A thread that is stuck draws nothing; the others do not wait for it.
        let newest = seconds().max()?;
        let complete = seconds().filter(|second| second + SILENT_S >= newest).min().filter(|complete| *complete > after)?;
        let cells = shared.registry().cells.get(release).cloned()?;
        Some((complete, cells.read(complete)))
    }

    /// The second in which a request would be drawn now.
    pub fn second(&self) -> u64 {
        second_of(Instant::now())
    }

    /// Of the copies that a version got.
    pub fn mirrored(&self, service: &ServiceName, version: &VersionName) -> Counts {
        let counts = self.inner.shared.registry().mirrored.get(&(service.clone(), version.clone())).cloned();
        counts.map(|counts| counts.read()).unwrap_or_default()
    }

    /// Certificates of listeners, trust in targets, tickets.
    pub fn keyring(&self) -> &Keyring {
        &self.inner.shared.keyring
    }

    /// In Prometheus' text format.
    pub fn metrics(&self) -> String {
        metrics::text(&self.inner.shared)
    }

    /// Two-phase: until `unlisten`, connections are still accepted, but every answer on HTTP/1 says `Connection: close` and
    /// HTTP/2 gets GOAWAY; idle connections go after `idle_grace`. Resolves when all are gone, or after `limit` with the
    /// number of connections that were cut.
    pub async fn drain(&self, idle_grace: Duration, limit: Duration) -> usize {
        let shared = &self.inner.shared;
        shared.begin_drain(idle_grace.as_millis() as u64);
        self.tell(|| Command::DrainBegan);
        let farewells = tunnels_end_within(limit);
        if self.empties_within(limit - farewells).await {
            return 0;
        }
        self.tell(|| Command::EndTunnels(None, farewells));
        if self.empties_within(farewells).await {
            return 0;
        }
        let cut = shared.connections();
        self.tell(|| Command::KillClients);
        self.empties_within(KILL_MAX).await;
        cut
    }

    async fn empties_within(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while self.inner.shared.connections() > 0 {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
        true
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for lane in &self.inner.shared.commands {
            let _ = lane.send(command());
        }
    }
}

/// The last part of a drain belongs to the farewells of tunnels: long enough that their clients do not come back all at once.
pub fn tunnels_end_within(drain: Duration) -> Duration {
    (drain / 3).min(TUNNELS_END_WITHIN_MAX)
}

/// From the operating system, another one for each thread: equal seeds would draw the same arms everywhere.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
