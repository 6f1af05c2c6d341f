//! The listening sockets, by name.
//!
//! Invariant: one socket per address, open until `Unlisten` or the end of the keeper; what is queued on it survives a worker.
//! Not here: accepting.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::channel::DESCRIPTORS_MAX;

const BACKLOG: libc::c_int = 4096;

struct Listener {
    name: String,
    requested: SocketAddr,
    address: SocketAddr,
    socket: OwnedFd,
}

#[derive(Default)]
pub(crate) struct Listeners {
    open: Vec<Listener>,
    /// From systemd, not asked for yet.
    inherited: Vec<(SocketAddr, OwnedFd)>,
}

impl Listeners {
    pub(crate) fn with_inherited() -> Self {
        Self {
            open: Vec::new(),
            inherited: inherited_from_systemd(),
        }
    }

    /// Asking again for the same thing gives the same socket.
    pub(crate) fn listen(
        &mut self,
        name: &str,
        address: SocketAddr,
    ) -> io::Result<(SocketAddr, BorrowedFd<'_>)> {
        if let Some(index) = self.open.iter().position(|listener| listener.name == name) {
            let known = &self.open[index];
            if known.requested != address && known.address != address {
                return Err(io::Error::other(format!(
                    "`{name}` already listens on {}",
                    known.address
                )));
            }
            return Ok((known.address, known.socket.as_fd()));
        }
        if self.open.len() >= DESCRIPTORS_MAX {
            return Err(io::Error::other("too many listeners"));
        }
        let (bound, socket) = self
            .take_inherited(address)
            .map_or_else(|| bind(address), Ok)?;
        self.insert(name.to_owned(), address, bound, socket);
        let newest = self.open.last().expect("it was just inserted");
        Ok((newest.address, newest.socket.as_fd()))
    }

    pub(crate) fn insert(
        &mut self,
        name: String,
        requested: SocketAddr,
        address: SocketAddr,
        socket: OwnedFd,
    ) {
        self.open.push(Listener {
            name,
            requested,
            address,
            socket,
        });
    }

    pub(crate) fn unlisten(&mut self, name: &str) {
        self.open.retain(|listener| listener.name != name);
    }

    pub(crate) fn names(&self) -> Vec<(String, SocketAddr)> {
        self.open
            .iter()
            .map(|listener| (listener.name.clone(), listener.address))
            .collect()
    }

    pub(crate) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.iter().map(|listener| listener.socket.as_fd())
    }

    fn take_inherited(&mut self, address: SocketAddr) -> Option<(SocketAddr, OwnedFd)> {
        let index = self
            .inherited
            .iter()
            .position(|(bound, _)| *bound == address)?;
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

/// sd_listen_fds(3): descriptors from 3 on, meant for us only if `LISTEN_PID` is ours.
fn inherited_from_systemd() -> Vec<(SocketAddr, OwnedFd)> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u32>().ok())
    };
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Vec::new();
    }
    let count = i32::try_from(number("LISTEN_FDS").unwrap_or(0))
        .unwrap_or(0)
        .min(200);
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
