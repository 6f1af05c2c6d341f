//! The worker's end of the channel to the keeper. When the keeper dies, the worker serves on and
//! hands sockets and processes to the next one.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;

use engine::{ExitStatus, Handle, ProcessEvent};
use keeper::{FromKeeper, PROTOCOL, Status, Survivor, ToKeeper, WorkerSide};
use model::{Snapshot, TargetId};

use super::upgrades::{self, Upgrades};

const KEEPER_GONE: &str = "the keeper has ended meanwhile";

#[derive(Clone)]
pub(crate) struct Link(Arc<Inner>);

/// What comes from the keeper, in order.
pub(crate) type Heard = mpsc::Receiver<Hearing>;

pub(crate) enum Hearing {
    Message(FromKeeper, Vec<OwnedFd>),
    /// Nobody knows what became of these.
    Lost(Vec<String>),
    /// The keeper is gone.
    Orphaned,
}

/// For a worker that was retired.
pub(crate) enum Late {
    /// The keeper ends: end within this.
    Hurry(Duration),
    /// The worker that serves routes like this now.
    Routes(Arc<Snapshot>),
}

/// What becomes of a worker that has released the state.
pub(crate) enum Verdict {
    /// It has its place again, or the keeper is gone; what was heard is for the engine.
    Resume(Hearing),
    Retire {
        drain_ms: u64,
    },
}

struct Inner {
    state_dir: PathBuf,
    channel: Mutex<Arc<WorkerSide>>,
    /// What the next keeper would need.
    held: Mutex<Held>,
    kept: AtomicBool,
    forerunners: AtomicUsize,
    standing: Mutex<Standing>,
    stands_otherwise: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    HasNotTheState,
    HasTheState,
    /// It only finishes what it has.
    Retired,
}

#[derive(Default)]
pub(super) struct Held {
    pub(super) listeners: HashMap<SocketAddr, TcpListener>,
    pub(super) children: HashMap<String, Survivor>,
    /// Asked of a keeper that has not answered yet: when it dies, nobody knows whether they were started, and none was let go.
    pub(super) spawning: HashSet<String>,
    boot_id: String,
}

impl Link {
    pub(crate) fn meet(state_dir: &Path) -> anyhow::Result<Self> {
        let channel = WorkerSide::from_env()?;
        let pid = std::process::id() as i32;
        channel.send(&ToKeeper::Hello { protocol: PROTOCOL, pid }, &[])?;
        let mut held = Held::default();
        if let Some(identity) = keeper::process_identity(pid) {
            held.boot_id = identity.boot_id;
        }
        let inner = Inner {
            state_dir: state_dir.to_path_buf(),
            channel: Mutex::new(Arc::new(channel)),
            held: Mutex::new(held),
            kept: AtomicBool::new(true),
            forerunners: AtomicUsize::new(0),
            standing: Mutex::new(Standing::HasNotTheState),
            stands_otherwise: Condvar::new(),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// The state is open and the API answers.
    pub(crate) fn ready(&self) {
        let _ = self.send(&ToKeeper::Ready);
    }

    pub(crate) fn say(&self, message: &ToKeeper) -> Result<(), String> {
        self.send(message)
    }

    /// Reads the keeper's messages on a thread of its own, for as long as the worker lives; they are to be heard one after the other.
    pub(crate) fn listen(&self) -> Heard {
        let link = self.clone();
        let (tell, heard) = mpsc::channel();
        std::thread::spawn(move || {
            loop {
                let channel = link.channel();
                while let Ok(Some((message, sockets))) = channel.recv() {
                    if tell.send(Hearing::Message(message, sockets)).is_err() {
                        return;
                    }
                }
                link.0.kept.store(false, Ordering::SeqCst);
                let _ = tell.send(Hearing::Orphaned);
                if !link.until_it_has_the_state() {
                    return;
                }
                eprintln!("the keeper is gone; serving on. `changeover up` takes over");
                link.await_next_keeper(&tell);
            }
        });
        heard
    }

    /// Of two workers the one that has the state is found by the next keeper, and keeps what it was told.
    pub(crate) fn stands(&self, standing: Standing) {
        *self.0.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
        self.0.stands_otherwise.notify_all();
    }

    /// False: it will not have it any more.
    fn until_it_has_the_state(&self) -> bool {
        let standing = self.0.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |standing: &mut Standing| *standing == Standing::HasNotTheState;
        *self.0.stands_otherwise.wait_while(standing, waits).unwrap_or_else(PoisonError::into_inner) == Standing::HasTheState
    }

    /// Tells the engine what is heard, until the keeper wants the state released; the rest is to be heard later.
    pub(crate) fn tell(&self, engine: &Handle, heard: Heard, upgrades: &Upgrades) -> Heard {
        while let Ok(hearing) = heard.recv() {
            match hearing {
                Hearing::Message(FromKeeper::Release, _) => {
                    engine.release();
                    return heard;
                }
                Hearing::Message(FromKeeper::Reload { binary }, _) => upgrades.begin(engine.clone(), binary),
                Hearing::Message(FromKeeper::UpgradeFailed { reason }, _) => {
                    upgrades.ended();
                    upgrade_failed(engine, &reason);
                }
                Hearing::Message(message, sockets) => self.received(engine, message, sockets),
                Hearing::Lost(ids) => {
                    for id in ids.iter().filter_map(|id| TargetId::new(id).ok()) {
                        engine.tell(ProcessEvent::Exited { id, status: ExitStatus::Unknown });
                    }
                }
                Hearing::Orphaned => {
                    if upgrades.ended() {
                        upgrade_failed(engine, KEEPER_GONE);
                    }
                }
            }
        }
        heard
    }

    /// What a life begins with.
    pub(crate) fn heard_before(&self, engine: &Handle, hearing: Hearing) {
        match hearing {
            Hearing::Message(message, sockets) => self.received(engine, message, sockets),
            Hearing::Orphaned => upgrade_failed(engine, KEEPER_GONE),
            Hearing::Lost(_) => {}
        }
    }

    /// So many workers before this one have clients still.
    pub(crate) fn forerunners(&self) -> usize {
        self.0.forerunners.load(Ordering::SeqCst)
    }

    /// Workers before this one route like it; nobody waits until they do.
    pub(crate) fn pass_routes(&self, snapshot: &Snapshot) {
        if self.forerunners() == 0 {
            return;
        }
        let passed = keeper::memory_with(&serde_json::to_vec(snapshot).expect("plain data"))
            .map_err(|error| error.to_string())
            .and_then(|file| self.channel().send(&ToKeeper::Routes {}, &[file.as_fd()]).map_err(|error| error.to_string()));
        if let Err(error) = passed {
            eprintln!("error: workers before this one are not told how to route: {error}");
        }
    }

    /// A successor: its keeper gives it the state's place, with what it was welcomed with; `None`: nobody does any more.
    pub(crate) fn await_place(&self, heard: &Heard) -> Option<Hearing> {
        match heard.recv() {
            Ok(welcome @ Hearing::Message(FromKeeper::Welcome { retiring, .. }, _)) => {
                // Before anything is routed.
                self.0.forerunners.store(retiring, Ordering::SeqCst);
                Some(welcome)
            }
            _ => None,
        }
    }

    /// After the state was released.
    pub(crate) fn await_verdict(heard: &Heard) -> Verdict {
        loop {
            match heard.recv() {
                Ok(welcome @ Hearing::Message(FromKeeper::Welcome { .. }, _)) => return Verdict::Resume(welcome),
                Ok(Hearing::Message(FromKeeper::Retire { drain_ms }, _)) => return Verdict::Retire { drain_ms },
                // The next keeper adopts whoever has the state.
                Ok(Hearing::Orphaned) | Err(_) => return Verdict::Resume(Hearing::Orphaned),
                Ok(_) => {}
            }
        }
    }

    /// What comes after it was retired, until the keeper is gone.
    pub(crate) fn heard_late(heard: &Heard) -> impl Iterator<Item = Late> {
        heard.iter().filter_map(|hearing| match hearing {
            Hearing::Message(FromKeeper::Retire { drain_ms }, _) => Some(Late::Hurry(Duration::from_millis(drain_ms))),
            Hearing::Message(FromKeeper::Routes {}, files) => {
                let text = keeper::read_memory(files.into_iter().next()?);
                // Of a newer binary, and it says what this one has no word for: what was known before holds.
                text.ok().and_then(|text| serde_json::from_slice(&text).ok()).map(|snapshot| Late::Routes(Arc::new(snapshot)))
            }
            _ => None,
        })
    }

    /// The keeper lives.
    pub(super) fn has_keeper(&self) -> bool {
        self.0.kept.load(Ordering::SeqCst)
    }

    pub(super) fn channel(&self) -> Arc<WorkerSide> {
        self.0.channel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn await_next_keeper(&self, tell: &mpsc::Sender<Hearing>) {
        let next = keeper::handover::listen(&self.0.state_dir).and_then(|handover| {
            loop {
                let mut wanted = [nix::poll::PollFd::new(handover.as_fd(), nix::poll::PollFlags::POLLIN)];
                nix::poll::poll(&mut wanted, nix::poll::PollTimeout::NONE)?;
                match handover.accept() {
                    Ok(channel) => return Ok(channel),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        });
        match next {
            Ok(channel) => {
                let mut held = self.held();
                let listeners: Vec<_> = held.listeners.iter().collect();
                let message = ToKeeper::Orphan {
                    protocol: PROTOCOL,
                    pid: std::process::id() as i32,
                    boot_id: held.boot_id.clone(),
                    listeners: listeners.iter().map(|(address, _)| **address).collect(),
                    children: held.children.values().cloned().collect(),
                };
                let sockets: Vec<_> = listeners.iter().map(|(_, socket)| socket.as_fd()).collect();
                let _ = channel.send(&message, &sockets);
                let lost = std::mem::take(&mut held.spawning).into_iter().collect();
                self.0.kept.store(true, Ordering::SeqCst);
                *self.0.channel.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(channel);
                drop(held);
                let _ = tell.send(Hearing::Lost(lost));
            }
            Err(error) => {
                eprintln!("error: no next keeper can come: {error}");
                std::thread::park();
            }
        }
    }

    pub(crate) fn received(&self, engine: &Handle, message: FromKeeper, sockets: Vec<OwnedFd>) {
        let event = match message {
            // The engine asks for each listener; the keeper gives the socket that it has.
            FromKeeper::Welcome { listeners, children, retiring, .. } => {
                self.0.forerunners.store(retiring, Ordering::SeqCst);
                for child in children {
                    if let (Some(status), Ok(id)) = (child.status, TargetId::new(&child.id)) {
                        engine.tell(ProcessEvent::Exited { id, status: exit_status(status) });
                    }
                }
                Some(ProcessEvent::Held { addresses: listeners })
            }
            FromKeeper::Listening { address, .. } => {
                let Some(socket) = sockets.into_iter().next().map(TcpListener::from) else { return };
                if let Ok(copy) = socket.try_clone() {
                    self.held().listeners.insert(address, copy);
                }
                Some(ProcessEvent::Listening { address, socket })
            }
            FromKeeper::ListenFailed { address, error } => Some(ProcessEvent::ListenFailed { address, error }),
            FromKeeper::Spawned { id, pid, start_time, boot_id } => {
                self.held().spawning.remove(&id);
                self.held().children.insert(id.clone(), Survivor { id: id.clone(), pid, start_time });
                let process = engine::Process { pid, start_time, boot_id };
                TargetId::new(&id).ok().map(|id| ProcessEvent::Spawned { id, process })
            }
            FromKeeper::SpawnFailed { id, error } => TargetId::new(&id).ok().map(|id| ProcessEvent::SpawnFailed { id, error }),
            FromKeeper::Exited { id, status } => {
                self.held().children.remove(&id);
                TargetId::new(&id).ok().map(|id| ProcessEvent::Exited { id, status: exit_status(status) })
            }
            FromKeeper::Adopted { id, .. } => TargetId::new(&id).ok().map(|id| ProcessEvent::Adopted { id }),
            FromKeeper::Terminate { signal } => Some(ProcessEvent::Terminate { signal }),
            FromKeeper::Retired { pid, cut, left } => {
                self.0.forerunners.store(left, Ordering::SeqCst);
                engine.told("worker_retired", upgrades::retired(pid, cut));
                None
            }
            FromKeeper::KeeperStays { reason } => {
                engine.told("keeper_stays", format!("the keeper is still the binary before: {reason}"));
                None
            }
            FromKeeper::Release
            | FromKeeper::Retire { .. }
            | FromKeeper::Routes {}
            | FromKeeper::Reload { .. }
            | FromKeeper::UpgradeFailed { .. } => None,
        };
        if let Some(event) = event {
            engine.tell(event);
        }
    }

    pub(super) fn send(&self, message: &ToKeeper) -> Result<(), String> {
        self.channel().send(message, &[]).map_err(|error| error.to_string())
    }
}

fn upgrade_failed(engine: &Handle, reason: &str) {
    eprintln!("the upgrade failed: {reason}");
    engine.told("upgrade_failed", format!("{reason}; all is as it was"));
}

fn exit_status(status: Status) -> ExitStatus {
    match status {
        Status::Code(code) => ExitStatus::Code(code),
        Status::Signal(signal) => ExitStatus::Signal(signal),
        Status::Unknown => ExitStatus::Unknown,
    }
}
