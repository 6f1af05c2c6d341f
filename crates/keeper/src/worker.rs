//! The worker as the keeper sees it: a process and a channel.
//!
//! Invariant: sending never blocks the keeper; what does not fit waits in order.
//! Not here: when it is started again (`restarts`), what its messages do (`keeper`).

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::black_box;
use crate::channel::{self, ChannelError, ENVIRONMENT_NAME, KeeperSide};
use crate::children;
use crate::pidfd::PidFd;
use crate::protocol::{FromKeeper, Status};
use crate::replace::KeptWorker;
use crate::signals;
use crate::spawn::keep_open;

/// Names the folder with a copy of the state, to a worker that is to take over from one that runs.
pub const COPY_ENVIRONMENT_NAME: &str = "CHANGEOVER_UPGRADE_COPY";

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
    pub(crate) fn start(command: &[OsString], crashes: usize, role: Role<'_>, memory: &File) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or_else(|| io::Error::other("no worker command"))?;
        let (ours, theirs) = channel::pair()?;
        let number = theirs.as_raw_fd();
        let memory = memory.as_raw_fd();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env(ENVIRONMENT_NAME, number.to_string())
            .env(black_box::ENVIRONMENT_NAME, memory.to_string())
            .env("CHANGEOVER_WORKER_CRASHES", crashes.to_string())
            .env("CHANGEOVER_WORKER_SUCCEEDS", if matches!(role, Role::First) { "0" } else { "1" })
            .env_remove("NOTIFY_SOCKET")
            .env_remove(COPY_ENVIRONMENT_NAME)
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_PID")
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
