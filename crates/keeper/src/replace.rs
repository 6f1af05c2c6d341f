//! The keeper becomes another binary in place: the same process, so that its children stay its children, with the same descriptors.
//!
//! What it knows goes through a memory file, as JSON with a format of its own. Before that, the new binary says in a process beside it that it
//! understands that JSON. Invariant: when it comes to nothing, this keeper goes on as before.
//! Not here: workers (`upgrade`).

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::channel::Channel;
use crate::children::{Children, KeptChild};
use crate::error::Error;
use crate::keeper::{Keeper, Options};
use crate::listeners::Listeners;
use crate::pidfd::PidFd;
use crate::protocol::PROTOCOL;
use crate::spawn::keep_open;
use crate::worker::Worker;

/// First arguments of the hidden commands; the second one is the memory file's number.
pub const RESUME: &str = "keeper-resume";
pub const CHECK: &str = "keeper-check";
/// Raised when a field changes its meaning.
const FORMAT: u32 = 1;
const CHECK_MAX: Duration = Duration::from_secs(5);

#[derive(Serialize, Deserialize)]
pub(crate) struct Kept {
    format: u32,
    protocol: u32,
    state_dir: Vec<u8>,
    worker_command: Vec<Vec<u8>>,
    listen: Vec<SocketAddr>,
    lock: RawFd,
    memory: RawFd,
    listeners: Vec<KeptListener>,
    inherited: Vec<(SocketAddr, RawFd)>,
    children: Vec<KeptChild>,
    worker: Option<KeptWorker>,
    retiring: Vec<KeptWorker>,
    was_ready: bool,
    ending: Option<i32>,
    #[serde(default)]
    has_terminal: bool,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct KeptListener {
    pub(crate) address: SocketAddr,
    pub(crate) bound: SocketAddr,
    pub(crate) socket: RawFd,
    #[serde(default)]
    pub(crate) is_inherited: bool,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct KeptWorker {
    pub(crate) pid: i32,
    pub(crate) is_own: bool,
    pub(crate) welcomed: bool,
    pub(crate) leaving: bool,
    pub(crate) channel: Option<RawFd>,
    pub(crate) descriptor: RawFd,
    pub(crate) cut: Option<usize>,
}

impl Keeper {
    /// Only returns when it comes to nothing.
    pub(crate) fn become_binary(&self, binary: &Path) -> io::Result<Infallible> {
        let kept = self.kept();
        let mut file = File::from(memfd_create("changeover-keeper", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&serde_json::to_vec(&kept)?)?;
        check(binary, &file)?;
        file.rewind()?;
        let inheriting = [file.as_raw_fd()].into_iter().chain(kept.descriptors()).collect::<Vec<_>>();
        inheriting.iter().try_for_each(|number| keep_open(*number))?;
        let text = |text: &[u8]| CString::new(text).map_err(io::Error::other);
        let arguments = [text(b"changeover")?, text(RESUME.as_bytes())?, text(file.as_raw_fd().to_string().as_bytes())?];
        let Err(errno) = nix::unistd::execv(&text(binary.as_os_str().as_bytes())?, &arguments);
        for number in inheriting {
            close_on_exec(number)?;
        }
        Err(errno.into())
    }

    fn kept(&self) -> Kept {
        Kept {
            format: FORMAT,
            protocol: PROTOCOL,
            state_dir: self.options.state_dir.as_os_str().as_bytes().to_vec(),
            worker_command: self.options.worker_command.iter().map(|part| part.as_bytes().to_vec()).collect(),
            listen: self.options.listen.clone(),
            lock: self.lock.as_raw_fd(),
            memory: self.memory.as_raw_fd(),
            listeners: self.listeners.kept(),
            inherited: self.listeners.kept_inherited(),
            children: self.children.kept(),
            worker: self.worker.as_ref().map(Worker::kept),
            retiring: self.retiring.iter().map(Worker::kept).collect(),
            was_ready: self.was_ready,
            ending: self.ending,
            has_terminal: self.has_terminal,
        }
    }
}

impl Kept {
    fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        let workers = self.worker.iter().chain(&self.retiring).flat_map(|worker| [worker.channel, Some(worker.descriptor)]).flatten();
        let sockets = self.listeners.iter().map(|listener| listener.socket).chain(self.inherited.iter().map(|(_, socket)| *socket));
        let pipes = self.children.iter().flat_map(|child| [child.go, child.descriptor]).flatten();
        [self.lock, self.memory].into_iter().chain(workers).chain(sockets).chain(pipes)
    }
}

/// Asks the binary, in a process of its own, whether it could go on from there.
fn check(binary: &Path, file: &File) -> io::Result<()> {
    let mut copy = file.try_clone()?;
    copy.rewind()?;
    let mut child = Command::new(binary).arg(CHECK).stdin(copy).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let descriptor = PidFd::open(i32::try_from(child.id()).expect("pids fit an int"));
    let until = Instant::now() + CHECK_MAX;
    while !descriptor.as_ref().is_ok_and(PidFd::has_ended) {
        if Instant::now() >= until || descriptor.is_err() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::other(format!("it did not say within {CHECK_MAX:?} that it understands this keeper")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("it does not understand what this keeper knows")) }
}

fn close_on_exec(number: RawFd) -> io::Result<()> {
    // SAFETY: open in this process, which owns it.
    let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map(drop).map_err(io::Error::from)
}

fn read(mut from: impl Read) -> Result<Kept, Error> {
    let mut text = Vec::new();
    from.read_to_end(&mut text)?;
    let kept: Kept = serde_json::from_slice(&text).map_err(io::Error::other)?;
    if kept.format != FORMAT || kept.protocol != PROTOCOL {
        return Err(Error::System(io::Error::other("another format")));
    }
    Ok(kept)
}

/// For the hidden command `CHECK`: whether what is on standard input is understood.
pub fn check_resume() -> Result<(), Error> {
    read(io::stdin().lock()).map(drop)
}

/// For the hidden command `RESUME`: the keeper goes on where the binary before it was. To be called before any thread is started.
pub fn resume(number: RawFd) -> Result<Keeper, Error> {
    let kept = read(owned::<File>(number)?)?;
    let mut listeners = Listeners::default();
    for listener in kept.listeners {
        listeners.resume(&listener, owned(listener.socket)?);
    }
    for (address, socket) in kept.inherited {
        listeners.inherit(address, owned(socket)?);
    }
    let options = Options {
        state_dir: PathBuf::from(OsString::from_vec(kept.state_dir)),
        worker_command: kept.worker_command.into_iter().map(OsString::from_vec).collect(),
        listen: kept.listen,
    };
    let mut children = Children::default();
    for child in kept.children {
        let (go, descriptor) = (child.go.map(owned).transpose()?, child.descriptor.map(owned).transpose()?);
        children.resume(child, go, descriptor);
    }
    let mut keeper = Keeper::new(options, owned(kept.lock)?, owned(kept.memory)?, listeners)?;
    keeper.children = children;
    keeper.worker = kept.worker.map(resume_worker).transpose()?;
    keeper.retiring = kept.retiring.into_iter().map(resume_worker).collect::<io::Result<_>>()?;
    (keeper.was_ready, keeper.ending) = (kept.was_ready, kept.ending);
    keeper.has_terminal |= kept.has_terminal;
    Ok(keeper)
}

fn resume_worker(kept: KeptWorker) -> io::Result<Worker> {
    let channel = kept.channel.map(owned::<OwnedFd>).transpose()?.map(Channel::from_fd);
    Ok(Worker::resumed(&kept, PidFd::resumed(owned(kept.descriptor)?, kept.pid), channel))
}

fn owned<T: From<OwnedFd>>(number: RawFd) -> io::Result<T> {
    close_on_exec(number)?;
    // SAFETY: the binary before us left it open for us, and each is taken once.
    Ok(T::from(unsafe { OwnedFd::from_raw_fd(number) }))
}
