//! The worker's end of the channel to the keeper, as the engine's `Processes`. When the keeper dies, the worker serves on and
//! hands sockets and processes to the next one.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use engine::{ExitStatus, Handle, ProcessEvent, Processes, Spawn};
use keeper::{ChannelError, FromKeeper, PROTOCOL, Spec, Status, Survivor, ToKeeper, WorkerSide};
use model::TargetId;

use super::upgrades::{self, Upgrades};

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

/// What becomes of a worker that has released the state.
pub(crate) enum Verdict {
    /// It has its place again; what was heard of it is for the engine.
    Resume(Option<Hearing>),
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
    awaits_nobody: AtomicBool,
}

#[derive(Default)]
struct Held {
    listeners: HashMap<SocketAddr, TcpListener>,
    children: HashMap<String, Survivor>,
    /// Asked of a keeper that has not answered yet: when it dies, nobody knows whether they were started, and none was let go.
    spawning: HashSet<String>,
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
            awaits_nobody: AtomicBool::new(false),
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
                if link.0.awaits_nobody.load(Ordering::SeqCst) {
                    return;
                }
                eprintln!("the keeper is gone; serving on. `changeover up` takes over");
                link.await_next_keeper(&tell);
            }
        });
        heard
    }

    /// A keeper that dies is not waited for: this worker is not the one that it kept.
    pub(crate) fn awaits_nobody(&self) {
        self.0.awaits_nobody.store(true, Ordering::SeqCst);
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
                Hearing::Message(message, sockets) => self.received(engine, message, sockets),
                Hearing::Lost(ids) => {
                    for id in ids.iter().filter_map(|id| TargetId::new(id).ok()) {
                        engine.tell(ProcessEvent::Exited { id, status: ExitStatus::Unknown });
                    }
                }
                Hearing::Orphaned => {}
            }
        }
        heard
    }

    /// A successor: its keeper gives it the state's place, with what it was welcomed with; `None`: nobody does any more.
    pub(crate) fn await_place(heard: &Heard) -> Option<Hearing> {
        match heard.recv() {
            Ok(welcome @ Hearing::Message(FromKeeper::Welcome { .. }, _)) => Some(welcome),
            _ => None,
        }
    }

    /// After the state was released.
    pub(crate) fn await_verdict(heard: &Heard) -> Verdict {
        loop {
            match heard.recv() {
                Ok(welcome @ Hearing::Message(FromKeeper::Welcome { .. }, _)) => return Verdict::Resume(Some(welcome)),
                Ok(Hearing::Message(FromKeeper::Retire { drain_ms }, _)) => return Verdict::Retire { drain_ms },
                // The next keeper adopts whoever has the state.
                Ok(Hearing::Orphaned) | Err(_) => return Verdict::Resume(None),
                Ok(_) => {}
            }
        }
    }

    fn channel(&self) -> Arc<WorkerSide> {
        self.0.channel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
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
            FromKeeper::Welcome { listeners, children, .. } => {
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
            FromKeeper::UpgradeFailed { reason } => {
                eprintln!("the upgrade failed: {reason}");
                engine.told("upgrade_failed", format!("{reason}; all is as it was"));
                None
            }
            FromKeeper::Retired { pid, cut } => {
                engine.told("worker_retired", upgrades::retired(pid, cut));
                None
            }
            FromKeeper::KeeperStays { reason } => {
                engine.told("keeper_stays", format!("the keeper is still the binary before: {reason}"));
                None
            }
            FromKeeper::Release | FromKeeper::Retire { .. } | FromKeeper::Reload { .. } => None,
        };
        if let Some(event) = event {
            engine.tell(event);
        }
    }

    fn send(&self, message: &ToKeeper) -> Result<(), String> {
        self.channel().send(message, &[]).map_err(|error| error.to_string())
    }
}

fn exit_status(status: Status) -> ExitStatus {
    match status {
        Status::Code(code) => ExitStatus::Code(code),
        Status::Signal(signal) => ExitStatus::Signal(signal),
        Status::Unknown => ExitStatus::Unknown,
    }
}

impl Processes for Link {
    fn spawn(&self, id: &TargetId, spawn: &Spawn) -> Result<(), String> {
        let spec = Spec {
            command: spawn.command.clone(),
            env: spawn.env.clone(),
            cwd: spawn.cwd.clone(),
            user: spawn.user.clone(),
            output: spawn.output.clone(),
            result: spawn.result.clone(),
        };
        let mut held = self.held();
        held.spawning.insert(id.to_string());
        match self.channel().send(&ToKeeper::Spawn { id: id.to_string(), spec }, &[]) {
            // The next keeper comes, and then it is told as lost.
            Ok(()) | Err(ChannelError::Io(_)) => Ok(()),
            Err(error) => {
                held.spawning.remove(id.as_str());
                Err(error.to_string())
            }
        }
    }

    fn go(&self, id: &TargetId) -> Result<(), String> {
        self.send(&ToKeeper::Go { id: id.to_string() })
    }

    fn signal(&self, id: &TargetId, signal: i32) -> Result<(), String> {
        self.send(&ToKeeper::Signal { id: id.to_string(), signal })
    }

    fn adopt(&self, id: &TargetId, process: &engine::Process) -> Result<(), String> {
        let survivor = Survivor { id: id.to_string(), pid: process.pid, start_time: process.start_time };
        self.held().children.insert(id.to_string(), survivor);
        self.send(&ToKeeper::Adopt {
            id: id.to_string(),
            pid: process.pid,
            start_time: process.start_time,
            boot_id: process.boot_id.clone(),
        })
    }

    fn forget(&self, id: &TargetId) -> Result<(), String> {
        self.send(&ToKeeper::Forget { id: id.to_string() })
    }

    fn listen(&self, address: SocketAddr) -> Result<(), String> {
        self.send(&ToKeeper::Listen { address })
    }

    fn unlisten(&self, address: SocketAddr) -> Result<(), String> {
        self.held().listeners.remove(&address);
        self.send(&ToKeeper::Unlisten { address })
    }

    fn listens(&self, process: &engine::Process, port: u16) -> Option<bool> {
        keeper::port_belongs_to_session(port, process.pid)
    }

    fn is_kept(&self) -> bool {
        self.0.kept.load(Ordering::SeqCst)
    }

    fn leave(&self, keep_versions: bool) -> Result<(), String> {
        self.send(&ToKeeper::Leave { keep_versions })
    }
}
