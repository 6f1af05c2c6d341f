//! The listening sockets, by address.
//!
//! Invariant: one socket per address, open until `Unlisten` or the end of the keeper; what is queued on it survives a worker.
//! Not here: accepting.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::channel::DESCRIPTORS_MAX;
use crate::replace::KeptListener;

const BACKLOG: libc::c_int = 4096;

struct Listener {
    /// As it was asked for: port 0 means any.
    address: SocketAddr,
    bound: SocketAddr,
    socket: OwnedFd,
    /// From systemd, which holds it, too: bound by us it could not be.
    is_inherited: bool,
}

#[derive(Default)]
pub(crate) struct Listeners {
    open: Vec<Listener>,
    /// From systemd, not asked for now.
    inherited: Vec<(SocketAddr, OwnedFd)>,
}

impl Listeners {
    pub(crate) fn with_inherited() -> Self {
        Self { open: Vec::new(), inherited: inherited_from_systemd() }
    }

    /// Asking again for the same address gives the same socket, with the address that it is bound to.
    pub(crate) fn listen(&mut self, address: SocketAddr) -> io::Result<(SocketAddr, BorrowedFd<'_>)> {
        let known = self.open.iter().position(|listener| listener.address == address);
        let index = match known {
            Some(index) => index,
            None if self.open.len() >= DESCRIPTORS_MAX => return Err(io::Error::other("too many listeners")),
            None => {
                let given = self.take_inherited(address);
                let is_inherited = given.is_some();
                let (bound, socket) = given.map_or_else(|| bind(address), Ok)?;
                self.open.push(Listener { address, bound, socket, is_inherited });
                self.open.len() - 1
            }
        };
        let listener = &self.open[index];
        Ok((listener.bound, listener.socket.as_fd()))
    }

    pub(crate) fn insert(&mut self, address: SocketAddr, bound: SocketAddr, socket: OwnedFd) {
        self.open.push(Listener { address, bound, socket, is_inherited: false });
    }

    /// After the keeper has become another binary.
    pub(crate) fn resume(&mut self, kept: &KeptListener, socket: OwnedFd) {
        let KeptListener { address, bound, is_inherited, .. } = *kept;
        self.open.push(Listener { address, bound, socket, is_inherited });
    }

    pub(crate) fn inherit(&mut self, address: SocketAddr, socket: OwnedFd) {
        self.inherited.push((address, socket));
    }

    pub(crate) fn kept(&self) -> Vec<KeptListener> {
        let kept = |listener: &Listener| KeptListener {
            address: listener.address,
            bound: listener.bound,
            socket: listener.socket.as_raw_fd(),
            is_inherited: listener.is_inherited,
        };
        self.open.iter().map(kept).collect()
    }

    pub(crate) fn kept_inherited(&self) -> Vec<(SocketAddr, RawFd)> {
        self.inherited.iter().map(|(address, socket)| (*address, socket.as_raw_fd())).collect()
    }

    pub(crate) fn unlisten(&mut self, address: SocketAddr) {
        for listener in self.open.extract_if(.., |listener| listener.address == address) {
            if listener.is_inherited {
                // Whoever wants it again gets it again.
                self.inherited.push((listener.bound, listener.socket));
            }
        }
    }

    /// From systemd, and nobody accepts on them.
    pub(crate) fn unused(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.inherited.iter().map(|(bound, _)| *bound)
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.open.iter().map(|listener| listener.address).collect()
    }

    pub(crate) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.iter().map(|listener| listener.socket.as_fd())
    }

    fn take_inherited(&mut self, address: SocketAddr) -> Option<(SocketAddr, OwnedFd)> {
        let index = self.inherited.iter().position(|(bound, _)| *bound == address)?;
        Some(self.inherited.remove(index))
    }
}

fn bind(address: SocketAddr) -> io::Result<(SocketAddr, OwnedFd)> {
    let socket = TcpListener::bind(address)?;
    // std asks for 128; a restart of the worker must fit into the queue.
    // SAFETY: the descriptor is open and already listens; this only sets the length of the queue.
    if unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) } < 0 {
        return Err(io::Error::last_os_error());
    }
    socket.set_nonblocking(true)?;
    Ok((socket.local_addr()?, socket.into()))
}

/// What a socket that was handed over listens on.
pub(crate) fn bound(socket: &OwnedFd) -> io::Result<SocketAddr> {
    TcpListener::from(socket.try_clone()?).local_addr()
}

/// For people: what is in the way, and how to find it.
pub(crate) fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there".to_owned(),
        io::ErrorKind::PermissionDenied => "not allowed: a port below 1024 needs root or the capability CAP_NET_BIND_SERVICE".to_owned(),
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has this address".to_owned(),
        _ => error.to_string(),
    }
}

/// sd_listen_fds(3): descriptors from 3 on, meant for us only if `LISTEN_PID` is ours.
fn inherited_from_systemd() -> Vec<(SocketAddr, OwnedFd)> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Vec::new();
    }
    let count = i32::try_from(number("LISTEN_FDS").unwrap_or(0)).unwrap_or(0).min(200);
    (3..3 + count).filter_map(inherited).collect()
}

fn inherited(number: i32) -> Option<(SocketAddr, OwnedFd)> {
    // SAFETY: systemd opened it for this process, which asks once, at its start.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: as above; fcntl has shown that it is open.
    let socket = TcpListener::from(unsafe { OwnedFd::from_raw_fd(number) });
    socket.set_nonblocking(true).ok()?;
    Some((socket.local_addr().ok()?, socket.into()))
}
