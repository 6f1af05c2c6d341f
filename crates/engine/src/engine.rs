//! The event loop: one task that owns all state, wakes on one closed [`Input`], persists, then acts.

mod beginning;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{Desired, Moment, ServiceName, Snapshot, TargetId, VersionName};
use release::{Effect, Event, Release, Service, State, TargetView};
use store::{Batch, Happening, Reserve, Store, StoreError};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::analysis::{self, Analysis};
use crate::command::{Input, ProcessEvent, Rejected};
use crate::edge::{Counts, DataPlane, FlagPlane, Processes};
use crate::fault_points;
use crate::gates::Job;
use crate::leaving::Restarting;
use crate::take_back::TakenBack;
use crate::targets::{Entry, Kept, Life};

use beginning::{Clock, RELEASE_MAX_MS};
pub use beginning::{STATE_FILE, rehearse, start};

pub struct Config {
    pub state_dir: PathBuf,
    /// The folder of `changeover.yaml`.
    pub folder: PathBuf,
    /// What the file says now; the last applied one counts when absent.
    pub desired: Option<Desired>,
    /// Requests and tunnels that ran when the worker before us was killed.
    pub cut: u64,
    /// An engine of this same process had the state before, and nothing has crashed since.
    pub resumes: bool,
    /// Trust in targets that are asked for their health over TLS.
    pub keyring: tls::Keyring,
}

pub(crate) type Reply = oneshot::Sender<Result<serde_json::Value, Rejected>>;

pub(crate) struct Caretaker {
    pub(crate) config: Config,
    pub(crate) desired: Desired,
    /// What was applied, while what was good before is followed instead.
    pub(crate) shelved: Option<Desired>,
    pub(crate) services: BTreeMap<ServiceName, Service>,
    pub(crate) targets: BTreeMap<TargetId, Entry>,
    pub(crate) jobs: HashMap<TargetId, Job>,
    /// HTTP gates that were asked and have not answered.
    pub(crate) asking: HashSet<(model::ReleaseId, usize)>,
    pub(crate) store: Store,
    pub(crate) data_plane: Arc<dyn DataPlane>,
    pub(crate) processes: Arc<dyn Processes>,
    pub(crate) flags: Arc<dyn FlagPlane>,
    pub(crate) inputs: mpsc::UnboundedSender<Input>,
    pub(crate) next_port: u16,
    happenings: broadcast::Sender<Happening>,
    last_seq: u64,
    /// Happenings whose commit has an unknown outcome.
    unsure: Vec<Happening>,
    pub(crate) published: Arc<Snapshot>,
    acknowledged: u64,
    pub(crate) doors: crate::doors::Doors,
    pub(crate) reserve: Reserve<TakenBack>,
    /// What is in memory may differ from what is on the disk: it is written again when the disk answers.
    pub(crate) unsaved: bool,
    /// After a write that failed, what is not urgent waits until then.
    pub(crate) not_before: Moment,
    /// Of the canaries that run.
    pub(crate) analyses: BTreeMap<ServiceName, Analysis>,
    /// The second of the last look that was tried, per service.
    pub(crate) tried: HashMap<ServiceName, u64>,
    /// Releases that were held because a migration keeps them from being taken back.
    pub(crate) warned: HashSet<model::ReleaseId>,
    /// What copies and stable had counted when a step of copies began.
    pub(crate) mirrors: HashMap<ServiceName, (model::ReleaseId, [Counts; 2])>,
    pub(crate) restarts: HashMap<(ServiceName, VersionName), Restarts>,
    pub(crate) watches: HashMap<ServiceName, Watch>,
    pub(crate) switching: Vec<Waiting>,
    pub(crate) restarting: Vec<Restarting>,
    /// After crashes in a row: the version that serves, per service; their releases are not driven.
    pub(crate) paused: BTreeMap<ServiceName, Option<VersionName>>,
    pub(crate) good: crate::pause::Watched,
    pub(crate) rotating: crate::logs::Rotating,
    pub(crate) costs: crate::cost::Costs,
    /// What is looked at every second is looked at again then.
    next_second: Moment,
    pub(crate) switch_began: HashMap<ServiceName, std::time::Instant>,
    pub(crate) last_switch_us: HashMap<ServiceName, u64>,
    pub(crate) ending: Option<Ending>,
    /// Asked to let go, and until when it may finish what is half done.
    releasing: Option<Moment>,
}

/// Starts again after an exit that nobody asked for: back-off and a limit.
#[derive(Default, Clone, Copy)]
pub(crate) struct Restarts {
    pub count: u32,
    pub not_before: Moment,
}

/// What was counted when the candidate began to serve.
pub(crate) struct Watch {
    pub candidate: Counts,
    pub stable: Counts,
    /// That it fails, but cannot be taken back.
    pub told: bool,
}

/// A rollback or a promotion whose answer waits for the switch.
pub(crate) struct Waiting {
    pub service: ServiceName,
    pub release: u64,
    pub reply: Reply,
    pub from: Option<VersionName>,
    pub to: Option<VersionName>,
    pub hot: bool,
    pub began: std::time::Instant,
    /// The newest event before it.
    pub since: u64,
}

pub(crate) struct Ending {
    pub keep_versions: bool,
    /// No client is left.
    pub drained: bool,
    pub replies: Vec<Reply>,
}

/// How the event loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Down,
    /// For another worker to go on; nothing was touched.
    Released,
}

/// While something moves, deadlines are looked at this often; else every `REST`.
const BUSY: Duration = Duration::from_millis(10);
/// So many of them are remembered; a transition tells two or three.
const UNSURE_MAX: usize = 64;
/// An event that could not be kept is looked at again after this.
const RETRY_MS: u64 = 200;
const REST: Duration = Duration::from_millis(200);

impl Caretaker {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Input>, kept: Vec<Kept>, taken_back: Vec<TakenBack>) -> Ended {
        self.replay(taken_back);
        self.recover(kept).await;
        if !self.config.resumes && (fault_points::crashes() > 0 || self.config.cut > 0) {
            let cut = self.config.cut;
            let text =
                format!("the worker ended without warning and was started again; {cut} requests and tunnels were running and are cut");
            eprintln!("{text}");
            self.tell_of("", None, "worker_restarted", text).await;
        }
        self.tell_pause().await;
        let mut looked_at = tokio::time::Instant::now();
        loop {
            let pause = if self.moves() { BUSY } else { REST };
            tokio::select! {
                // First what is due: whoever asks without a pause must not keep us from it.
                biased;
                () = tokio::time::sleep_until(looked_at + pause) => {
                    self.look_at_deadlines().await;
                    looked_at = tokio::time::Instant::now();
                }
                input = inbox.recv() => match input {
                    Some(input) => self.handle(input).await,
                    None => return Ended::Down,
                },
            }
            if self.has_ended() {
                return Ended::Down;
            }
            if self.lets_go() && inbox.is_empty() {
                self.answer_half_done();
                return Ended::Released;
            }
        }
    }

    /// Once a second: what need not be looked at more often.
    pub(crate) async fn look_every_second(&mut self) {
        let now = self.now();
        if now < self.next_second {
            return;
        }
        self.next_second = now + 1_000;
        self.look_at_good().await;
        self.look_at_logs();
        self.look_at_costs();
        self.listen_again();
    }

    async fn handle(&mut self, input: Input) {
        match input {
            Input::Told { kind, text } => self.tell_of("", None, &kind, text).await,
            Input::Command(command, reply) => self.command(command, reply).await,
            Input::Process(event) => self.process_event(event).await,
            Input::Health { target, healthy, fallen, detail, tries } => {
                if let Some(entry) = self.targets.get_mut(&target) {
                    entry.fallen = fallen;
                }
                self.health(&target, healthy, detail, tries).await;
            }
            Input::Acknowledged { generation, took_us } => self.acknowledged(generation, took_us).await,
            Input::PortTaken { target } => self.port_taken(&target).await,
            Input::Release => {
                self.releasing = Some(self.now() + RELEASE_MAX_MS);
                self.keep_costs().await;
            }
            Input::CorridorDrained => self.corridor_drained().await,
            Input::Used { sessions } => self.used(&sessions).await,
            Input::Measured { service, release, metric, epoch, values } => self.measured(&service, &release, &metric, epoch, values),
            Input::GateFinished { release, gate, result } => {
                self.asking.remove(&(release.id.clone(), gate));
                self.gate_done(&release, gate, result.map(|_| ())).await;
            }
        }
    }

    async fn process_event(&mut self, event: ProcessEvent) {
        match event {
            ProcessEvent::Spawned { id, process } => self.spawned(&id, process).await,
            ProcessEvent::SpawnFailed { id, error } => {
                if self.gate_spawn_failed(&id, error.clone()).await {
                    return;
                }
                if let Some(kept) = self.targets.get(&id).map(|entry| entry.kept.clone()) {
                    self.forget_target(&id).await;
                    self.start_failed(&kept, &error).await;
                }
            }
            ProcessEvent::Exited { id, status } => self.exited(&id, status).await,
            ProcessEvent::Adopted { .. } => {}
            ProcessEvent::Held { addresses } => self.held(&addresses),
            ProcessEvent::Listening { address, socket } => self.listening(address, socket).await,
            ProcessEvent::ListenFailed { address, error } => self.listen_failed(address, error).await,
            ProcessEvent::Terminate { signal } => {
                let keep_versions = signal != nix::sys::signal::Signal::SIGINT as i32;
                self.begin_ending(keep_versions, None).await;
            }
        }
    }

    async fn health(&mut self, target: &TargetId, healthy: bool, detail: String, tries: u32) {
        let Some(entry) = self.targets.get_mut(target) else { return };
        if entry.leaves() || entry.kept.frozen {
            return;
        }
        entry.detail = detail;
        entry.tries = tries;
        let was_assumed = entry.assumed && (healthy || entry.fallen);
        entry.assumed &= !was_assumed;
        if entry.healthy == healthy && !was_assumed {
            return;
        }
        entry.healthy = healthy;
        let kept = entry.kept.clone();
        if healthy {
            self.restarts.remove(&(kept.service.clone(), kept.version.clone()));
        } else {
            let text = format!("{} on {} is not healthy", kept.version, kept.address);
            self.tell(&kept.service, "target_became_unhealthy", text).await;
        }
        self.publish();
        self.look_at_release(&kept.service).await;
    }

    pub(crate) fn views(&self, service: &ServiceName) -> Vec<TargetView> {
        self.targets
            .values()
            .filter(|entry| entry.kept.service == *service && !entry.leaves() && !entry.kept.frozen)
            .map(Entry::view)
            .collect()
    }

    /// Gives the data plane the routing of the current state, when it differs.
    pub(crate) fn publish(&mut self) {
        let services = self
            .desired
            .services
            .iter()
            .filter_map(|(name, desired)| {
                self.services
                    .get(name)
                    .map(|service| release::route(desired, &self.routed(service), &self.views(name), self.judged(service)))
            })
            .collect();
        let tls = self.desired.listeners.iter().filter_map(|(name, listener)| Some((name.clone(), listener.tls.clone()?))).collect();
        let limits = self.desired.listeners.iter().filter_map(|(name, listener)| Some((name.clone(), listener.connections_per_address?)));
        let generation = self.published.generation;
        let listeners = self.desired.listeners.iter().filter(|(_, listener)| !listener.forwarders.is_empty());
        let forwarders = listeners.map(|(name, listener)| (name.clone(), listener.forwarders.clone())).collect();
        let snapshot = Snapshot { generation, services, tls, connections_per_address: limits.collect(), forwarders };
        if *self.published == snapshot && generation > 0 {
            return;
        }
        let snapshot = Arc::new(Snapshot { generation: generation + 1, ..snapshot });
        self.published = snapshot.clone();
        let generation = snapshot.generation;
        let install = self.data_plane.install(snapshot);
        let (inputs, data_plane) = (self.inputs.clone(), self.data_plane.clone());
        tokio::spawn(async move {
            let mut install = install;
            let took = loop {
                match install.await {
                    Ok(took) => break took,
                    // A lane that is stuck may come back; a newer generation does no harm to an older one that asks again.
                    Err(error) => eprintln!("error: generation {generation}: {error}"),
                }
                install = data_plane.acknowledge();
            };
            let _ = inputs.send(Input::Acknowledged { generation, took_us: took.as_micros() as u64 });
        });
    }

    async fn acknowledged(&mut self, generation: u64, _took_us: u64) {
        self.acknowledged = self.acknowledged.max(generation);
        if self.acknowledged < self.published.generation {
            return;
        }
        self.listen_when_routed();
        self.analyses_acknowledged();
        let names: Vec<ServiceName> = self.services.keys().cloned().collect();
        for name in names {
            self.look_at_release(&name).await;
        }
    }

    pub(crate) fn all_acknowledged(&self) -> bool {
        self.acknowledged >= self.published.generation
    }

    /// Persists the next state, then makes it the state. The caller performs what follows from it.
    /// `cause` is the event or the command.
    pub(crate) async fn advance(&mut self, next: Service, cause: &str, told: Vec<(&str, String)>) -> Result<(), Rejected> {
        let before = self.running_release(&next.name).map_or("none", |release| release.state.name());
        let number = next.release.as_ref().map_or(0, |release| release.number);
        fault_points::crash(number, (before, cause), "before");
        let analysis = self.analysis_for(&next);
        if let Err(error) = self.keep(&next, analysis.as_ref(), told).await {
            // It may still be written: what counts is what is in memory.
            self.unsaved = true;
            return Err(error);
        }
        fault_points::crash(number, (before, cause), "persisted");
        if let Some(analysis) = analysis {
            self.analyses.insert(next.name.clone(), analysis);
        }
        self.services.insert(next.name.clone(), next);
        Ok(())
    }

    /// Persists the service's next state, with what is told about it.
    async fn keep(&mut self, next: &Service, analysis: Option<&Analysis>, told: Vec<(&str, String)>) -> Result<(), Rejected> {
        let number = next.release.as_ref().map(|release| release.number);
        let happenings: Vec<Happening> =
            told.into_iter().map(|(kind, text)| self.happening_of(next.name.as_str(), number, kind, text)).collect();
        let clock = serde_json::to_string(&Clock { boot_id: boot_id(), now: self.now() }).expect("plain data");
        let mut puts =
            vec![(format!("service/{}", next.name), serde_json::to_string(next).expect("plain data")), ("clock".to_owned(), clock)];
        if let Some(release) = &next.release {
            puts.push((format!("release/{}/{:08}", next.name, release.number), serde_json::to_string(release).expect("plain data")));
        }
        if let Some(analysis) = analysis {
            puts.push((analysis::key(&next.name, analysis.number), serde_json::to_string(analysis).expect("plain data")));
        }
        let batch = Batch { puts, happenings: happenings.clone(), ..Batch::default() };
        if let Err(error) = self.store.commit(batch).await {
            if matches!(error, StoreError::Unknown(_)) {
                self.unsure.extend(happenings);
                self.unsure.drain(..self.unsure.len().saturating_sub(UNSURE_MAX));
            }
            return Err(unavailable(&error));
        }
        self.unsure.retain(|unsure| happenings.iter().all(|it| it.seq != unsure.seq));
        for happening in happenings {
            let _ = self.happenings.send(happening);
        }
        Ok(())
    }

    /// A happening that may have been written already keeps its number: told again, it is still one.
    fn happening_of(&mut self, service: &str, release: Option<u64>, kind: &str, text: String) -> Happening {
        let unsure = self.unsure.iter().find(|it| it.service == service && it.release == release && it.kind == kind);
        match unsure.map(|it| (it.seq, it.at_ms)) {
            Some((seq, at_ms)) => Happening { seq, at_ms, service: service.to_owned(), release, kind: kind.to_owned(), text },
            None => self.happening(service, release, kind, text),
        }
    }

    fn happening(&mut self, service: &str, release: Option<u64>, kind: &str, text: String) -> Happening {
        self.last_seq += 1;
        Happening { seq: self.last_seq, at_ms: wall_ms(), service: service.to_owned(), release, kind: kind.to_owned(), text }
    }

    /// Tells something that changes no state; not worth failing for.
    pub(crate) async fn tell(&mut self, service: &ServiceName, kind: &str, text: String) {
        let number = self.running_release(service).map(|release| release.number);
        self.tell_of(service.as_str(), number, kind, text).await;
    }

    /// Of a release that does not run, or of no service (`""`).
    pub(crate) async fn tell_of(&mut self, service: &str, release: Option<u64>, kind: &str, text: String) {
        let happening = self.happening(service, release, kind, text);
        let batch = Batch { happenings: vec![happening.clone()], ..Batch::default() };
        if self.store.commit(batch).await.is_ok() {
            let _ = self.happenings.send(happening);
        }
    }

    /// Moves a service's release by an event: persist, then perform.
    pub(crate) async fn apply(&mut self, name: &ServiceName, event: Event) {
        let Some(service) = self.services.get(name) else { return };
        let next = match service.apply(&event, self.now()) {
            Ok(next) => next,
            Err(illegal) => {
                eprintln!("service {name}: {} means nothing in {}", illegal.event, illegal.state);
                return;
            }
        };
        let Some(before) = service.running_release().cloned() else { return };
        let told = self.told(&next, &before, &event);
        match self.advance(next, event.name(), told).await {
            Ok(()) => {
                Box::pin(self.perform(name)).await;
                fault_points::crash(before.number, (before.state.name(), event.name()), "performed");
            }
            Err(error) => {
                eprintln!("error: service {name}: {}", error.message);
                self.not_before = self.now() + RETRY_MS;
            }
        }
    }

    /// Performs what follows from the state; idempotent.
    pub(crate) async fn perform(&mut self, name: &ServiceName) {
        let release = self.services.get(name).and_then(|service| service.release.clone());
        let Some(release) = release.filter(|_| !self.paused.contains_key(name)) else {
            self.publish();
            self.reconcile(name).await;
            return;
        };
        if matches!(release.state, State::Raising { .. } | State::Switching | State::Returning { .. }) {
            self.switch_began.entry(name.clone()).or_insert_with(std::time::Instant::now);
        }
        self.publish();
        if !release.addresses.is_empty()
            && matches!(release.state, State::Starting)
            && let Err(error) = self.set_static(name, &release.candidate, &release.addresses).await
        {
            eprintln!("error: service {name}: {error}");
        }
        for effect in release.effects() {
            match effect {
                Effect::RunGate { gate } => self.run_gate(&release, gate).await,
                // Looked at as deadlines.
                Effect::AwaitHealthy | Effect::AwaitAcknowledgement | Effect::Drain { .. } | Effect::Watch | Effect::Judge => {}
            }
        }
        if release.state.serves_candidate() && self.running_release(name).is_some() {
            let (data_plane, stable) = (&self.data_plane, release.stable.as_ref());
            self.watches.entry(name.clone()).or_insert_with(|| Watch {
                candidate: data_plane.counts(name, &release.candidate),
                stable: stable.map(|stable| data_plane.counts(name, stable)).unwrap_or_default(),
                told: false,
            });
        } else {
            self.watches.remove(name);
        }
        self.reconcile(name).await;
        if matches!(release.state, State::Ended { .. }) {
            self.forget_logs(name);
            self.forget_jobs();
            self.forget_static(name).await;
        }
        self.begin_queued(name).await;
        Box::pin(self.look_at_release(name)).await;
    }

    pub(crate) fn now(&self) -> Moment {
        boot_ms()
    }

    /// The number of the newest event: who follows from here on misses nothing of what comes.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    fn moves(&self) -> bool {
        self.ending.is_some()
            || self.services.values().any(|service| service.running_release().is_some())
            || self.targets.values().any(|entry| entry.life != Life::Running)
    }

    pub(crate) fn running_release(&self, name: &ServiceName) -> Option<&Release> {
        self.services.get(name).and_then(Service::running_release)
    }
}

pub(crate) fn unavailable(error: &StoreError) -> Rejected {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    Rejected::new("unavailable", format!("{error}{source}; nothing was changed"))
        .hint("look at the disk of the state directory; `changeover rollback` works all the same")
}

/// `CLOCK_BOOTTIME` in milliseconds.
fn boot_ms() -> Moment {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).expect("the boot clock exists");
    now.tv_sec() as u64 * 1_000 + now.tv_nsec() as u64 / 1_000_000
}

pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
}
