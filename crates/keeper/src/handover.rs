//! How the worker of a dead keeper finds the next one: the worker listens, the new keeper connects.
//!
//! Invariant: only the holder of the lock connects, and only the same user (or root) is answered.
//! Not here: what the new keeper does with what it gets (`keeper`).

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen as listen_on, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::channel::{Channel, KeeperSide, WorkerSide};

const ANSWER_TIMEOUT_MS: i64 = 5_000;

#[derive(Debug)]
pub struct Handover {
    socket: OwnedFd,
}

/// In the worker. Takes the place of an earlier worker's socket.
///
/// After `accept`, the worker sends `ToKeeper::Orphan` with its sockets; `Welcome` comes back and the connection is its
/// new channel. `Welcome` brings the same sockets again, so the worker drops those it has by name.
pub fn listen(state_dir: &Path) -> io::Result<Handover> {
    let path = path(state_dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = new_socket(SockFlag::SOCK_NONBLOCK)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(&path)?)?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    listen_on(&socket, Backlog::new(4)?)?;
    Ok(Handover { socket })
}

impl Handover {
    /// `WouldBlock` when nobody knocks, for use after readiness.
    pub fn accept(&self) -> io::Result<WorkerSide> {
        // SAFETY: null pointers mean that the address of the peer is not wanted.
        let number = unsafe { libc::accept4(self.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for us.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        let uid = getsockopt(&socket, sockopt::PeerCredentials)?.uid();
        if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        Ok(Channel::from_fd(socket))
    }
}

impl AsFd for Handover {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Handover {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// In the keeper: the pid of the orphaned worker and the connection to it. `None` when there is none.
pub(crate) fn find_orphan(state_dir: &Path) -> io::Result<Option<(i32, KeeperSide)>> {
    let socket = new_socket(SockFlag::empty())?;
    match connect(socket.as_raw_fd(), &UnixAddr::new(&path(state_dir))?) {
        Err(nix::Error::ENOENT | nix::Error::ECONNREFUSED) => return Ok(None),
        other => other?,
    }
    // A worker that hangs must not hang the keeper for ever.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(ANSWER_TIMEOUT_MS))?;
    let pid = getsockopt(&socket, sockopt::PeerCredentials)?.pid();
    Ok(Some((pid, Channel::from_fd(socket))))
}

fn new_socket(flags: SockFlag) -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, flags | SockFlag::SOCK_CLOEXEC, None)?)
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("worker.sock")
}
