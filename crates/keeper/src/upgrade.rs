//! A second worker beside the one that runs, until it has taken over or come to nothing.
//!
//! Invariant: exactly one of the two has the state. The one before lets go only when the other one is prepared, and gets its place back
//! only when the other one is dead. Both serve meanwhile, from the same sockets.
//! Not here: what the workers do (`changeover`), the keeper's own replacement (`replace`).

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};

use crate::black_box;
use crate::error::Error;
use crate::keeper::{Heard, Keeper, hear};
use crate::notify;
use crate::protocol::{FromKeeper, PROTOCOL, Status, ToKeeper};
use crate::worker::{Role, Worker};

/// Opening and checking the copy of a large state takes a second or two.
const CHECKING_MAX: Duration = Duration::from_secs(30);
/// The worker finishes a switch that is under way, and what it writes.
const RELEASING_MAX: Duration = Duration::from_secs(10);
const TAKING_MAX: Duration = Duration::from_secs(20);
/// Workers that were retired and have not ended: each holds memory and connections to targets.
const RETIRING_MAX: usize = 8;

pub(crate) struct Upgrade {
    /// While it is not in its place: the successor before it takes over, the worker before it afterwards.
    beside: Option<Worker>,
    phase: Phase,
    until: Instant,
    /// Of the successor.
    memory: File,
    binary: PathBuf,
    drain_ms: u64,
    /// What the worker before gave for it.
    remembered: Option<String>,
    /// Why it comes to nothing.
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The successor looks at the copy.
    Checking,
    /// The worker was asked to let go.
    Releasing,
    /// The successor is in its place, and not ready yet.
    Taking,
}

impl Keeper {
    pub(crate) fn begin_upgrade(&mut self, binary: PathBuf, copy: &Path, drain_ms: u64) -> Result<(), Error> {
        let refused = if self.upgrade.is_some() {
            Some("another upgrade is under way".to_owned())
        } else if self.retiring.len() >= RETIRING_MAX {
            Some(format!("{RETIRING_MAX} workers of earlier upgrades still have connections to finish"))
        } else if self.ending.is_some() {
            Some("changeover is ending".to_owned())
        } else {
            None
        };
        if let Some(reason) = refused {
            return self.tell(FromKeeper::UpgradeFailed { reason }, &[]);
        }
        let mut command = self.options.worker_command.clone();
        if let Some(program) = command.first_mut() {
            *program = binary.clone().into_os_string();
        }
        let started = black_box::create().and_then(|memory| {
            let worker = Worker::start(&command, false, 0, Role::Successor { copy }, &memory)?;
            Ok((memory, worker))
        });
        match started {
            Ok((memory, worker)) => {
                notify::reloading();
                self.upgrade = Some(Upgrade {
                    beside: Some(worker),
                    phase: Phase::Checking,
                    until: Instant::now() + CHECKING_MAX,
                    memory,
                    binary,
                    drain_ms,
                    remembered: None,
                    reason: None,
                });
                Ok(())
            }
            Err(error) => {
                let reason = format!("{} cannot be started: {error}", binary.display());
                self.tell(FromKeeper::UpgradeFailed { reason }, &[])
            }
        }
    }

    /// The one before has its clients still, and its place no more.
    pub(crate) fn has_one_before(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| upgrade.phase == Phase::Taking && upgrade.beside.is_some())
    }

    /// When the keeper ends in the middle.
    pub(crate) fn take_one_before(&mut self) -> Option<Worker> {
        self.upgrade.take_if(|upgrade| upgrade.phase == Phase::Taking)?.beside
    }

    pub(crate) fn beside(&self) -> Option<&Worker> {
        self.upgrade.as_ref()?.beside.as_ref()
    }

    /// What to wait for besides the worker in its place.
    pub(crate) fn watch_others<'a>(&'a self, list: &mut Vec<PollFd<'a>>) {
        for worker in self.beside().into_iter().chain(&self.retiring) {
            list.push(PollFd::new(worker.descriptor.as_fd(), PollFlags::POLLIN));
            let output = if worker.wants_to_send() { PollFlags::POLLOUT } else { PollFlags::empty() };
            list.extend(worker.channel.as_ref().map(|channel| PollFd::new(channel.as_fd(), PollFlags::POLLIN | output)));
        }
    }

    pub(crate) fn upgrade_until(&self) -> Option<Instant> {
        self.upgrade.as_ref().map(|upgrade| upgrade.until)
    }

    pub(crate) fn drive_upgrade(&mut self) -> Result<(), Error> {
        self.hear_beside()?;
        self.see_beside_end()?;
        self.see_time_up();
        self.see_retired()
    }

    fn hear_beside(&mut self) -> Result<(), Error> {
        loop {
            let Some(upgrade) = &mut self.upgrade else { return Ok(()) };
            let Some(beside) = &mut upgrade.beside else { return Ok(()) };
            beside.flush();
            let Some(channel) = &beside.channel else { return Ok(()) };
            match hear(channel) {
                Heard::Nothing => return Ok(()),
                Heard::End => beside.channel = None,
                Heard::Message(message, _) if upgrade.phase == Phase::Taking => drop(message),
                Heard::Message(ToKeeper::Hello { protocol: PROTOCOL, .. }, _) => {}
                Heard::Message(ToKeeper::Hello { protocol, .. }, _) => {
                    upgrade.reason = Some(format!(
                        "{} speaks protocol {protocol} with its keeper, and this one {PROTOCOL}: end this changeover with `changeover down \
                         --keep-versions` and start that one",
                        upgrade.binary.display()
                    ));
                    beside.kill();
                }
                Heard::Message(ToKeeper::Prepared, _) if upgrade.phase == Phase::Checking => {
                    (upgrade.phase, upgrade.until) = (Phase::Releasing, Instant::now() + RELEASING_MAX);
                    self.tell(FromKeeper::Release, &[])?;
                }
                Heard::Message(ToKeeper::Failed { reason }, _) => drop(upgrade.reason.get_or_insert(reason)),
                Heard::Message(..) => {
                    upgrade.reason = Some(format!("{} does not behave like a successor", upgrade.binary.display()));
                    beside.kill();
                }
            }
        }
    }

    fn see_beside_end(&mut self) -> Result<(), Error> {
        let Some(upgrade) = &mut self.upgrade else { return Ok(()) };
        if !upgrade.beside.as_ref().is_some_and(|beside| beside.descriptor.has_ended()) {
            return Ok(());
        }
        self.hear_beside()?;
        let Some(upgrade) = &mut self.upgrade else { return Ok(()) };
        let Some(beside) = upgrade.beside.take() else { return Ok(()) };
        let status = beside.reap();
        if upgrade.phase == Phase::Taking {
            // The one before; nobody needs it any more, unless the successor comes to nothing.
            return self.tell_retired(beside.pid, None);
        }
        let reason = upgrade.reason.take().unwrap_or_else(|| ended_early(status));
        let was_released = upgrade.phase == Phase::Releasing;
        self.give_up_upgrade(reason, was_released)
    }

    /// The worker in its place has the state, or gets it back.
    fn give_up_upgrade(&mut self, reason: String, was_released: bool) -> Result<(), Error> {
        self.upgrade = None;
        notify::ready();
        if was_released {
            self.welcome()?;
        }
        self.tell(FromKeeper::UpgradeFailed { reason }, &[])
    }

    /// The worker in its place has let go of the state: its successor takes it.
    pub(crate) fn released(&mut self, remembered: String) -> Result<(), Error> {
        let Some(upgrade) = self.upgrade.as_mut().filter(|upgrade| upgrade.phase == Phase::Releasing) else { return Ok(()) };
        let Some(successor) = upgrade.beside.take() else { return Ok(()) };
        upgrade.beside = self.worker.replace(successor);
        upgrade.remembered = Some(remembered);
        (upgrade.phase, upgrade.until) = (Phase::Taking, Instant::now() + TAKING_MAX);
        // Nobody can make these pids durable any more.
        self.children.abandon_waiting();
        self.welcome()
    }

    /// For the successor, once.
    pub(crate) fn remembered(&mut self) -> Option<String> {
        self.upgrade.as_mut().and_then(|upgrade| upgrade.remembered.take())
    }

    /// The worker in its place is ready.
    pub(crate) fn finish_upgrade(&mut self) -> Result<(), Error> {
        let Some(upgrade) = self.upgrade.take_if(|upgrade| upgrade.phase == Phase::Taking) else { return Ok(()) };
        if let Some(program) = self.options.worker_command.first_mut() {
            *program = upgrade.binary.clone().into_os_string();
        }
        self.worker_is_own_file = false;
        self.memory = upgrade.memory;
        if let Some(before) = upgrade.beside {
            self.retire(before, upgrade.drain_ms)?;
        }
        self.replaces_itself = Some(upgrade.binary);
        Ok(())
    }

    /// The worker in its place has ended, in the middle of an upgrade. True: another one has its place.
    pub(crate) fn upgrade_after_end(&mut self, status: Status) -> Result<bool, Error> {
        let Some(upgrade) = &mut self.upgrade else { return Ok(false) };
        match upgrade.phase {
            Phase::Checking => {
                // It may be in the middle of anything: with the next worker somebody may ask again.
                if let Some(beside) = upgrade.beside.take() {
                    beside.kill();
                    self.retiring.push(beside);
                }
                self.upgrade = None;
                notify::ready();
                Ok(false)
            }
            Phase::Releasing => {
                self.worker = upgrade.beside.take();
                (upgrade.phase, upgrade.until) = (Phase::Taking, Instant::now() + TAKING_MAX);
                self.welcome()?;
                Ok(self.worker.is_some())
            }
            Phase::Taking => {
                let reason = upgrade.reason.take().unwrap_or_else(|| ended_early(status));
                self.worker = upgrade.beside.take();
                eprintln!("changeover: the upgrade failed: {reason}");
                let is_back = self.worker.is_some();
                self.give_up_upgrade(reason, true)?;
                Ok(is_back)
            }
        }
    }

    /// Last words of the worker in its place, while it takes over.
    pub(crate) fn taking_failed(&mut self, reason: String) {
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.reason.get_or_insert(reason);
        }
    }

    fn see_time_up(&mut self) {
        let Some(upgrade) = self.upgrade.as_mut().filter(|upgrade| Instant::now() >= upgrade.until) else { return };
        let (who, reason) = match upgrade.phase {
            Phase::Checking => (upgrade.beside.as_ref(), format!("it was not ready within {CHECKING_MAX:?}")),
            Phase::Releasing => {
                (upgrade.beside.as_ref(), format!("the running worker did not let go of the state within {RELEASING_MAX:?}"))
            }
            Phase::Taking => (self.worker.as_ref(), format!("it did not serve within {TAKING_MAX:?}")),
        };
        upgrade.reason.get_or_insert(reason);
        who.into_iter().for_each(Worker::kill);
        // Its end is seen in a moment.
        upgrade.until = Instant::now() + CHECKING_MAX;
    }
}

fn ended_early(status: Status) -> String {
    match status {
        Status::Code(code) => format!("it ended before it was ready, with exit status {code}"),
        Status::Signal(signal) => format!("it was killed by signal {signal} before it was ready"),
        Status::Unknown => "it ended before it was ready".to_owned(),
    }
}
