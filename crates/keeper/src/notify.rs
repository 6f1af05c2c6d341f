//! What a service manager is told (sd_notify(3)): `NOTIFY_SOCKET` names a datagram socket, a message is lines `NAME=value`.
//!
//! Invariant: nobody waits long for the manager, and nothing fails because of it. Own code, because it is one datagram.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Up, also after a reload.
pub(crate) fn ready() {
    tell(&format!("READY=1\nMAINPID={}", std::process::id()));
}

/// `Type=notify-reload` wants the time with it (CLOCK_MONOTONIC, µs).
pub(crate) fn reloading() {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.tv_sec() * 1_000_000 + now.tv_nsec() / 1_000);
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
}

pub(crate) fn stopping() {
    tell("STOPPING=1");
}

fn tell(text: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(path.as_encoded_bytes(), text) {
        eprintln!("changeover: the service manager cannot be told `{}`: {error}", text.lines().next().unwrap_or_default());
    }
}

fn send(path: &[u8], text: &str) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let address = match path {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(Duration::from_secs(1)))?;
    socket.send_to_addr(text.as_bytes(), &address).map(drop)
}
