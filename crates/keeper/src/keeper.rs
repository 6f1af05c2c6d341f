//! The loop of the keeper: one poll over signals, the worker and the processes of versions.
//!
//! Invariant: there is a worker, or a time at which the next one starts; messages of a dead worker are heard before its death.
//! Not here: the things kept (`listeners`, `children`) and the worker's process (`worker`).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use crate::channel::{ChannelError, KeeperSide};
use crate::children::Children;
use crate::error::Error;
use crate::listeners::Listeners;
use crate::protocol::{FromKeeper, PROTOCOL, Status, Survivor, ToKeeper};
use crate::restarts::Restarts;
use crate::upgrade::Upgrade;
use crate::worker::{Role, Worker, is_own_file};
use crate::{identity, notify, signals};

/// Exit codes of a first start that mean: do not try again, the user has to mend something.
const GIVES_UP: [i32; 2] = [1, 64];
pub struct Options {
    pub state_dir: PathBuf,
    /// The argument vector; the channel is in its environment as `CHANGEOVER_KEEPER_FD`.
    pub worker_command: Vec<OsString>,
    /// Opened before the first worker starts. It is an error when none of several, or the only one, can be opened.
    pub listen: Vec<SocketAddr>,
}

pub struct Keeper {
    pub(crate) options: Options,
    /// Nobody has tried what is installed under the name later.
    pub(crate) worker_is_own_file: bool,
    pub(crate) lock: File,
    boot_id: String,
    /// What a worker leaves for the next one.
    pub(crate) memory: File,
    pub(crate) signals: SignalFd,
    /// SIGHUP means that it is gone. Asked at the start: of one that is gone nobody can tell that it was one.
    pub(crate) has_terminal: bool,
    pub(crate) listeners: Listeners,
    pub(crate) children: Children,
    pub(crate) worker: Option<Worker>,
    next_start: Instant,
    restarts: Restarts,
    /// Some worker of this keeper was ready.
    pub(crate) was_ready: bool,
    /// The signal that asked us to end.
    pub(crate) ending: Option<i32>,
    pub(crate) unopened: Vec<(SocketAddr, String)>,
    pub(crate) upgrade: Option<Upgrade>,
    /// Workers before the one that serves, which finish what they have.
    pub(crate) retiring: Vec<Worker>,
    /// They were told that the keeper ends, and when it does.
    pub(crate) retiring_until: Option<Instant>,
    /// What they were told last, while there are some.
    pub(crate) routes: Option<OwnedFd>,
    /// The binary that it is to become.
    pub(crate) replaces_itself: Option<PathBuf>,
}

impl Keeper {
    pub(crate) fn new(options: Options, lock: File, memory: File, listeners: Listeners) -> Result<Self, Error> {
        let worker_is_own_file = options.worker_command.first().is_some_and(|program| is_own_file(program));
        Ok(Self {
            worker_is_own_file,
            lock,
            memory,
            boot_id: identity::boot_id().ok_or(Error::BootId)?,
            signals: signals::open()?,
            has_terminal: io::stdin().is_terminal(),
            listeners,
            children: Children::default(),
            worker: None,
            next_start: Instant::now(),
            restarts: Restarts::default(),
            was_ready: false,
            ending: None,
            unopened: Vec::new(),
            upgrade: None,
            retiring: Vec::new(),
            retiring_until: None,
            routes: None,
            replaces_itself: None,
            options,
        })
    }

    /// Runs until the worker leaves; returns the exit code.
    pub fn run(mut self) -> Result<u8, Error> {
        loop {
            self.start_worker_if_due()?;
            self.wait()?;
            if let Some(code) = self.hear_signals()? {
                self.kill_others();
                return Ok(code);
            }
            self.hear_worker()?;
            self.tell_exits()?;
            if let Some(code) = self.see_worker_end()? {
                notify::stopping();
                self.end_others()?;
                return Ok(code);
            }
            self.drive_upgrade()?;
            self.replace_itself()?;
        }
    }

    /// After an upgrade, when nothing is half said.
    fn replace_itself(&mut self) -> Result<(), Error> {
        // What is not sent yet would be lost: one that is to retire would never hear of it.
        let is_silent = !self.worker.iter().chain(&self.retiring).any(Worker::wants_to_send);
        let is_silent = is_silent && self.worker.is_some() && self.upgrade.is_none();
        let Some(binary) = self.replaces_itself.take_if(|_| is_silent) else { return Ok(()) };
        let Err(error) = self.become_binary(&binary);
        eprintln!("changeover: the keeper stays as it is: {error}");
        notify::ready();
        self.tell(FromKeeper::KeeperStays { reason: error.to_string() }, &[])
    }

    fn start_worker_if_due(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.worker.is_some() || now < self.next_start {
            return Ok(());
        }
        let role = if self.was_ready { Role::Next } else { Role::First };
        match Worker::start(&self.options.worker_command, self.worker_is_own_file, self.restarts.recent(now), role, &self.memory) {
            Ok(worker) => self.worker = Some(worker),
            // Later it may be a passing lack of memory or descriptors: the sockets are worth waiting for.
            Err(error) if self.was_ready => {
                eprintln!("changeover: cannot start the worker: {error}");
                self.next_start = now + self.restarts.crashed(now, now).max(Duration::from_millis(50));
            }
            Err(error) => return Err(Error::StartWorker(error)),
        }
        Ok(())
    }

    fn wait(&self) -> Result<(), Error> {
        let mut list = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(worker) = &self.worker {
            list.push(PollFd::new(worker.descriptor.as_fd(), PollFlags::POLLIN));
            let output = if worker.wants_to_send() { PollFlags::POLLOUT } else { PollFlags::empty() };
            list.extend(worker.channel.as_ref().map(|channel| PollFd::new(channel.as_fd(), PollFlags::POLLIN | output)));
        }
        list.extend(self.children.watched().map(|child| PollFd::new(child.as_fd(), PollFlags::POLLIN)));
        self.watch_others(&mut list);
        let start = self.worker.is_none().then_some(self.next_start);
        let timeout = start.into_iter().chain(self.upgrade_until()).min().map_or(PollTimeout::NONE, |until| {
            let left_ms = until.saturating_duration_since(Instant::now()).as_millis() + 1;
            PollTimeout::from(u16::try_from(left_ms).unwrap_or(u16::MAX))
        });
        match poll(&mut list, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn hear_signals(&mut self) -> Result<Option<u8>, Error> {
        while let Some(information) = self.signals.read_signal()? {
            let signal = i32::try_from(information.ssi_signo).unwrap_or(libc::SIGTERM);
            if signal == libc::SIGINT && self.ending.is_some() {
                if let Some(worker) = &self.worker {
                    worker.kill();
                }
                return Ok(Some(130));
            }
            if signal == libc::SIGHUP && !self.has_terminal {
                // Nobody's terminal is gone: a service manager, or a person, asks for a reload.
                if self.upgrade.is_some() {
                    eprintln!("changeover: SIGHUP changes nothing: an upgrade is under way");
                    continue;
                }
                let binary = self.options.worker_command.first().map(PathBuf::from).unwrap_or_default();
                self.tell(FromKeeper::Reload { binary }, &[])?;
                continue;
            }
            if signal != libc::SIGHUP {
                self.ending = Some(signal);
                self.hurry_retiring()?;
            }
            self.tell(FromKeeper::Terminate { signal }, &[])?;
        }
        Ok(None)
    }

    fn hear_worker(&mut self) -> Result<(), Error> {
        if let Some(worker) = &mut self.worker {
            worker.flush();
        }
        while let Some(channel) = self.worker.as_ref().and_then(|worker| worker.channel.as_ref()) {
            match hear(channel) {
                Heard::Message(message, descriptors) => self.obey(message, descriptors)?,
                Heard::Nothing => return Ok(()),
                Heard::End => self.lose_channel(),
            }
        }
        Ok(())
    }

    fn lose_channel(&mut self) {
        self.children.abandon_waiting();
        if let Some(worker) = &mut self.worker {
            worker.channel = None;
        }
    }

    fn obey(&mut self, message: ToKeeper, descriptors: Vec<OwnedFd>) -> Result<(), Error> {
        match message {
            ToKeeper::Hello { protocol: PROTOCOL, .. } => self.welcome()?,
            ToKeeper::Hello { .. } | ToKeeper::Orphan { .. } => {
                eprintln!("changeover: worker does not speak this keeper's protocol");
                self.worker.iter().for_each(Worker::kill);
            }
            ToKeeper::Ready => {
                self.was_ready = true;
                self.finish_upgrade()?;
                notify::ready();
            }
            ToKeeper::Upgrade { binary, copy, drain_ms } => self.begin_upgrade(binary, &copy, drain_ms)?,
            ToKeeper::Released { remembered } => self.released(remembered)?,
            ToKeeper::Failed { reason } => self.taking_failed(reason),
            ToKeeper::Routes {} => self.pass_routes(descriptors.into_iter().next())?,
            ToKeeper::Prepared | ToKeeper::Drained { .. } => {}
            ToKeeper::Listen { address } => self.listen(address)?,
            ToKeeper::Unlisten { address } => self.listeners.unlisten(address),
            ToKeeper::Spawn { id, spec } => {
                let answer = match self.children.spawn(&id, &spec) {
                    Ok((pid, start_time)) => FromKeeper::Spawned { id, pid, start_time, boot_id: self.boot_id.clone() },
                    Err(error) => FromKeeper::SpawnFailed { id, error: error.to_string() },
                };
                self.tell(answer, &[])?;
            }
            ToKeeper::Go { id } => self.children.go(&id),
            ToKeeper::Signal { id, signal } => self.children.signal(&id, signal),
            ToKeeper::Adopt { id, pid, start_time, boot_id } => {
                let survivor = Survivor { id, pid, start_time };
                let is_adopted = self.children.adopt(&survivor, &boot_id);
                let id = survivor.id;
                let unknown = FromKeeper::Exited { id: id.clone(), status: Status::Unknown };
                self.tell(if is_adopted { FromKeeper::Adopted { id, pid } } else { unknown }, &[])?;
            }
            ToKeeper::Forget { id } => self.children.forget(&id),
            ToKeeper::Leave { .. } => self.worker.iter_mut().for_each(|worker| worker.leaving = true),
        }
        Ok(())
    }

    pub(crate) fn welcome(&mut self) -> Result<(), Error> {
        let (remembered, retiring) = (self.remembered(), self.forerunners());
        let Some(worker) = &mut self.worker else {
            return Ok(());
        };
        let message = FromKeeper::Welcome { listeners: self.listeners.addresses(), children: self.children.list(), remembered, retiring };
        let sockets: Vec<BorrowedFd<'_>> = self.listeners.sockets().collect();
        worker.send(message, &sockets)?;
        worker.welcomed = true;
        // The one before it died while it was ending.
        match self.ending {
            Some(signal) => self.tell(FromKeeper::Terminate { signal }, &[]),
            None => Ok(()),
        }
    }

    fn listen(&mut self, address: SocketAddr) -> Result<(), Error> {
        let Some(worker) = &mut self.worker else {
            return Ok(());
        };
        match self.listeners.listen(address) {
            Ok((bound, socket)) => worker.send(FromKeeper::Listening { address, bound }, &[socket])?,
            Err(error) => {
                let error = crate::listeners::explain(&error);
                worker.send(FromKeeper::ListenFailed { address, error }, &[])?;
            }
        }
        Ok(())
    }

    /// A worker that was not welcomed yet learns it from its welcome.
    pub(crate) fn tell(&mut self, message: FromKeeper, sockets: &[BorrowedFd<'_>]) -> Result<(), Error> {
        match &mut self.worker {
            Some(worker) if worker.welcomed => Ok(worker.send(message, sockets)?),
            _ => Ok(()),
        }
    }

    fn tell_exits(&mut self) -> Result<(), Error> {
        for (id, status) in self.children.reap() {
            self.tell(FromKeeper::Exited { id, status }, &[])?;
        }
        Ok(())
    }

    fn see_worker_end(&mut self) -> Result<Option<u8>, Error> {
        if !self.worker.as_ref().is_some_and(|worker| worker.descriptor.has_ended()) {
            return Ok(None);
        }
        // Its last words, perhaps that it leaves, may have come after we last listened.
        self.hear_worker()?;
        let Some(worker) = self.worker.take() else {
            return Ok(None);
        };
        self.children.abandon_waiting();
        let status = worker.reap();
        if let Some(code) = self.last_code(&worker, status) {
            return Ok(Some(code));
        }
        if self.upgrade_after_end(status)? {
            return Ok(None);
        }
        let now = Instant::now();
        self.next_start = now + self.restarts.crashed(worker.started, now);
        eprintln!("changeover: worker ended ({status:?}), starting it again");
        Ok(None)
    }

    /// `None` means that it crashed.
    fn last_code(&self, worker: &Worker, status: Status) -> Option<u8> {
        match status {
            Status::Code(code) if worker.leaving => Some(u8::try_from(code).unwrap_or(1)),
            Status::Unknown if worker.leaving => Some(0),
            Status::Signal(_) if worker.leaving => Some(1),
            Status::Code(0) if self.ending.is_some() => Some(0),
            Status::Code(code) if !self.was_ready && GIVES_UP.contains(&code) => u8::try_from(code).ok(),
            _ => None,
        }
    }
}

pub(crate) enum Heard {
    Message(ToKeeper, Vec<OwnedFd>),
    Nothing,
    End,
}

pub(crate) fn hear(channel: &KeeperSide) -> Heard {
    match channel.try_recv() {
        Ok(Some((message, descriptors))) => Heard::Message(message, descriptors),
        Ok(None) => Heard::End,
        Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Heard::Nothing,
        Err(error) => {
            eprintln!("changeover: message of the worker not heard: {error}");
            if matches!(error, ChannelError::Io(_)) { Heard::End } else { hear(channel) }
        }
    }
}
