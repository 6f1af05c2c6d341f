//! What runs between fork and the command of a version: waits for its go, changes user and directory, becomes the command.
//!
//! Invariant: at end of file instead of a go it exits silently; the command inherits no descriptor but 0, 1 and 2.
//! A job (with a result file) is run beneath it instead, so that its exit status outlives keeper and worker;
//! SIGKILL to the group ends both, and then there is no result file.
//! Not here: session, output and environment, which the keeper has set already.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, exit};

use nix::sys::signal::{SigHandler, Signal, raise, signal};
use nix::unistd::{Gid, Uid, User, initgroups, setgid, setuid};

use crate::protocol::Status;
use crate::signals;

const EXIT_NO_GO: i32 = 125;
const EXIT_CANNOT_WRITE: i32 = 126;
const EXIT_CANNOT_RUN: i32 = 127;

struct Plan {
    wait: File,
    cwd: PathBuf,
    user: Option<String>,
    result: Option<PathBuf>,
    command: Vec<OsString>,
}

/// For the hidden first argument `child`; `arguments` are those after it. Called before any thread is started.
pub fn child_main(arguments: impl IntoIterator<Item = OsString>) -> ! {
    let Some(mut plan) = plan(arguments) else {
        eprintln!("changeover: `child` is started by the keeper only");
        exit(64);
    };
    close_the_rest_on_exec();
    let mut byte = [0];
    if plan.wait.read_exact(&mut byte).is_err() {
        exit(EXIT_NO_GO);
    }
    match &plan.result {
        Some(result) => run_beneath(&plan, result),
        None => {
            let Err(error) = become_command(&plan);
            refuse(&plan, &error);
            exit(EXIT_CANNOT_RUN)
        }
    }
}

fn plan(arguments: impl IntoIterator<Item = OsString>) -> Option<Plan> {
    let mut arguments = arguments.into_iter();
    let number: i32 = arguments.next()?.to_str()?.parse().ok().filter(|number| *number > 2)?;
    let cwd = arguments.next()?.into();
    let user = arguments.next()?.into_string().ok()?;
    let result = arguments.next()?;
    let command: Vec<OsString> = arguments.collect();
    // SAFETY: the keeper opened it for us; a wrong number only makes the read fail.
    let wait = unsafe { File::from_raw_fd(number) };
    Some(Plan {
        wait,
        cwd,
        user: (!user.is_empty()).then_some(user),
        result: (!result.is_empty()).then(|| result.into()),
        command: (!command.is_empty()).then_some(command)?,
    })
}

fn close_the_rest_on_exec() {
    // SAFETY: no pointers are passed. The result does not matter: all our own descriptors close on exec anyway.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

fn become_command(plan: &Plan) -> io::Result<Infallible> {
    Err(prepared(plan)?.exec())
}

/// `Command` and not a bare execvp: it also puts back SIGPIPE, which the runtime ignores.
fn prepared(plan: &Plan) -> io::Result<Command> {
    let account = plan.user.as_deref().map(account).transpose()?;
    let cwd = plan.cwd.clone();
    let mut command = Command::new(&plan.command[0]);
    command.args(&plan.command[1..]);
    // SAFETY: this process has one thread, so even initgroups may allocate.
    unsafe {
        command.pre_exec(move || {
            if let Some((name, uid, gid)) = &account {
                initgroups(name, *gid)?;
                setgid(*gid)?;
                setuid(*uid)?;
            }
            nix::unistd::chdir(&cwd)?;
            signals::unblock_all()
        });
    }
    Ok(command)
}

fn account(name: &str) -> io::Result<(CString, Uid, Gid)> {
    let user = User::from_name(name)?.ok_or_else(|| io::Error::other(format!("no user `{name}`")))?;
    Ok((CString::new(name)?, user.uid, user.gid))
}

fn refuse(plan: &Plan, error: &io::Error) {
    eprintln!("changeover: cannot run `{}`: {error}", plan.command[0].to_string_lossy());
}

/// Before the command runs, a file with the ending `began` stands beside the result, durably: without it, nothing ever ran.
fn run_beneath(plan: &Plan, result: &Path) -> ! {
    if let Err(error) = write_durably(&result.with_extension("began"), &std::process::id()) {
        eprintln!("changeover: cannot write beside `{}`: {error}", result.display());
        exit(EXIT_CANNOT_WRITE);
    }
    // Signals to the group are for the command; we must live to write down how it ended.
    let ended = signals::block_all().and_then(|()| prepared(plan)?.spawn()?.wait());
    let status = match ended {
        Ok(status) => told(status),
        Err(error) => {
            refuse(plan, &error);
            Status::Code(EXIT_CANNOT_RUN)
        }
    };
    if let Err(error) = write_durably(result, &status) {
        eprintln!("changeover: cannot write `{}`: {error}", result.display());
    }
    end_like(status)
}

pub(crate) fn told(status: ExitStatus) -> Status {
    status.code().map(Status::Code).or(status.signal().map(Status::Signal)).unwrap_or(Status::Unknown)
}

fn write_durably(path: &Path, content: &impl serde::Serialize) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("not a file"))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut file = File::create(&temporary)?;
    serde_json::to_writer(&mut file, content)?;
    file.flush()?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

fn end_like(status: Status) -> ! {
    match status {
        Status::Code(code) => exit(code),
        Status::Signal(number) => {
            die_by(number);
            exit(128 + number)
        }
        Status::Unknown => exit(EXIT_CANNOT_RUN),
    }
}

/// Returns only if the signal did not end us.
fn die_by(number: i32) {
    let Ok(name) = Signal::try_from(number) else {
        return;
    };
    // The command has dumped its core already; ours would overwrite it.
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    // SAFETY: the default action runs no code of ours. It fails for SIGKILL, which needs no reset.
    let _ = unsafe { signal(name, SigHandler::SigDfl) };
    let _ = signals::unblock_all();
    let _ = raise(name);
}
