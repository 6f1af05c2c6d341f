//! Starting the process of a version: the same binary as `child`, which waits before it becomes the command.
//!
//! Invariant: nothing of the command runs before [`Started::go`] got its byte.
//! Not here: what the waiting process does (`trampoline`).

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, PipeWriter};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::identity::process_identity;
use crate::pidfd::PidFd;
use crate::protocol::Spec;
use crate::signals;

pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) start_time: u64,
    pub(crate) descriptor: PidFd,
    pub(crate) go: PipeWriter,
}

pub(crate) fn start(id: &str, spec: &Spec) -> io::Result<Started> {
    if spec.command.is_empty() {
        return Err(io::Error::other("the command is empty"));
    }
    let output = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&spec.output)
        .map_err(|error| io::Error::other(format!("cannot open `{}`: {error}", spec.output.display())))?;
    let (wait, go) = io::pipe()?;
    let wait_number = wait.as_raw_fd();

    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("changeover")
        .args(arguments(spec, wait_number))
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .env("CHANGEOVER_TARGET", id)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    // SAFETY: only system calls without allocation, in a process of one thread.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            signals::unblock_all()?;
            keep_open(wait_number)
        });
    }
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).expect("pids fit an int");
    // Not reaped yet, so the pid is still this process.
    match (PidFd::open(pid), process_identity(pid)) {
        (Ok(descriptor), Some(identity)) => Ok(Started { pid, start_time: identity.start_time, descriptor, go }),
        (descriptor, _) => {
            child.kill()?;
            child.wait()?;
            Err(descriptor.err().unwrap_or_else(|| io::Error::other("cannot read its start time from /proc")))
        }
    }
}

/// For use between fork and exec.
pub(crate) fn keep_open(number: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open in the parent, hence here.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty())).map(drop).map_err(io::Error::from)
}

/// An empty string stands for "none"; the environment is not among them, because anyone may read arguments.
fn arguments(spec: &Spec, wait_number: i32) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "child".into(),
        wait_number.to_string().into(),
        spec.cwd.clone().into(),
        spec.user.clone().unwrap_or_default().into(),
        spec.result.clone().unwrap_or_default().into(),
    ];
    arguments.extend(spec.command.iter().map(OsString::from));
    arguments
}
