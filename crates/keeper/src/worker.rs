//! The worker as the keeper sees it: a process and a channel.
//!
//! Invariant: sending never blocks the keeper; what does not fit waits in order.
//! Not here: when it is started again (`restarts`), what its messages do (`keeper`).

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::black_box;
use crate::channel::{self, ChannelError, ENVIRONMENT_NAME, KeeperSide};
use crate::children;
use crate::pidfd::PidFd;
use crate::protocol::{FromKeeper, Status};
use crate::replace::KeptWorker;
use crate::signals;
use crate::spawn::keep_open;

/// Names the file that a worker was started from. Of itself it knows only where that file was, and not when another one has its name.
pub const BINARY_ENVIRONMENT_NAME: &str = "CHANGEOVER_WORKER_BINARY";
/// Names the folder with a copy of the state, to a worker that is to take over from one that runs.
pub const COPY_ENVIRONMENT_NAME: &str = "CHANGEOVER_UPGRADE_COPY";

const OWN_FILE: &str = "/proc/self/exe";

/// Whether a name leads to the file that this process runs.
pub(crate) fn is_own_file(program: &OsStr) -> bool {
    let file = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    file(Path::new(program)).is_some_and(|it| Some(it) == file(Path::new(OWN_FILE)))
}

/// From now on the worker serves on when the keeper dies; one that is to take over does not, until it says so.
pub fn outlive_keeper() -> io::Result<()> {
    set_pdeathsig(None).map_err(io::Error::from)
}

#[derive(Clone, Copy)]
pub(crate) enum Role<'a> {
    First,
    /// After one that has died.
    Next,
    /// Beside one that runs.
    Successor {
        copy: &'a Path,
    },
}

pub(crate) struct Worker {
    pub(crate) descriptor: PidFd,
    pub(crate) started: Instant,
    /// It said hello and was welcomed.
    pub(crate) welcomed: bool,
    /// It said that it is done.
    pub(crate) leaving: bool,
    /// `None` once the other end is closed.
    pub(crate) channel: Option<KeeperSide>,
    /// When it was retired: the connections that it said it has cut.
    pub(crate) cut: Option<usize>,
    pub(crate) pid: i32,
    pub(crate) is_own: bool,
    waiting: VecDeque<(FromKeeper, Vec<OwnedFd>)>,
}

impl Worker {
    /// `is_own`: the program is the file that this keeper itself runs, whatever has its name by now.
    pub(crate) fn start(command: &[OsString], is_own: bool, crashes: usize, role: Role<'_>, memory: &File) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or_else(|| io::Error::other("no worker command"))?;
        let (ours, theirs) = channel::pair()?;
        let number = theirs.as_raw_fd();
        let memory = memory.as_raw_fd();
        let is_successor = matches!(role, Role::Successor { .. });
        let mut command = Command::new(if is_own { OsStr::new(OWN_FILE) } else { program });
        command
            .arg0(program)
            .args(arguments)
            .env(ENVIRONMENT_NAME, number.to_string())
            .env(black_box::ENVIRONMENT_NAME, memory.to_string())
            .env(BINARY_ENVIRONMENT_NAME, program)
            .env("CHANGEOVER_WORKER_CRASHES", crashes.to_string())
            .env("CHANGEOVER_WORKER_SUCCEEDS", if matches!(role, Role::First) { "0" } else { "1" })
            .env_remove("NOTIFY_SOCKET")
            .env_remove(COPY_ENVIRONMENT_NAME)
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDNAMES")
            .stdin(Stdio::null())
            // Ctrl-C at the terminal is for the keeper, which passes it on in order.
            .process_group(0);
        if let Role::Successor { copy } = role {
            command.env(COPY_ENVIRONMENT_NAME, copy);
        }
        // SAFETY: only system calls without allocation.
        unsafe {
            command.pre_exec(move || {
                signals::unblock_all()?;
                if is_successor {
                    // Without a keeper nobody would tell it what to do. It is undone when it has the state: `outlive_keeper`.
                    set_pdeathsig(Signal::SIGKILL)?;
                }
                keep_open(memory)?;
                keep_open(number)
            });
        }
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).expect("pids fit an int");
        let descriptor = PidFd::open(pid).inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        })?;
        Ok(Self { is_own: true, ..Self::adopted(pid, descriptor, ours) })
    }

    pub(crate) fn adopted(pid: i32, descriptor: PidFd, channel: KeeperSide) -> Self {
        Self {
            descriptor,
            started: Instant::now(),
            welcomed: false,
            leaving: false,
            channel: Some(channel),
            cut: None,
            pid,
            is_own: false,
            waiting: VecDeque::new(),
        }
    }

    pub(crate) fn kept(&self) -> KeptWorker {
        KeptWorker {
            pid: self.pid,
            is_own: self.is_own,
            welcomed: self.welcomed,
            leaving: self.leaving,
            channel: self.channel.as_ref().map(AsRawFd::as_raw_fd),
            descriptor: self.descriptor.as_raw_fd(),
            cut: self.cut,
        }
    }

    /// After the keeper has become another binary.
    pub(crate) fn resumed(kept: &KeptWorker, descriptor: PidFd, channel: Option<KeeperSide>) -> Self {
        Self {
            descriptor,
            started: Instant::now(),
            welcomed: kept.welcomed,
            leaving: kept.leaving,
            channel,
            cut: kept.cut,
            pid: kept.pid,
            is_own: kept.is_own,
            waiting: VecDeque::new(),
        }
    }

    pub(crate) fn send(&mut self, message: FromKeeper, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let copies = sockets.iter().map(BorrowedFd::try_clone_to_owned).collect::<io::Result<_>>()?;
        self.waiting.push_back((message, copies));
        self.flush();
        Ok(())
    }

    /// Instead of those of its kind that wait still: a worker that hangs must not cost a descriptor each time.
    pub(crate) fn send_newest(&mut self, message: FromKeeper, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.waiting.retain(|(waiting, _)| *waiting != message);
        self.send(message, sockets)
    }

    pub(crate) fn wants_to_send(&self) -> bool {
        self.channel.is_some() && !self.waiting.is_empty()
    }

    pub(crate) fn flush(&mut self) {
        while let (Some(channel), Some((message, sockets))) = (&self.channel, self.waiting.front()) {
            let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            match channel.try_send(message, &borrowed) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(ChannelError::Io(_)) => return self.waiting.clear(),
                Err(error) => {
                    eprintln!("changeover: message to the worker dropped: {error}");
                    self.waiting.pop_front();
                }
            }
        }
    }

    pub(crate) fn kill(&self) {
        let _ = self.descriptor.signal(libc::SIGKILL);
    }

    /// Only after its end. How another's child ended cannot be told.
    pub(crate) fn reap(&self) -> Status {
        if self.is_own { children::reap(self.pid) } else { Status::Unknown }
    }
}
