//! Process descriptors: a handle that never comes to mean another process.
//!
//! Invariant: a signal is sent only through a descriptor that was verified after opening.
//! Not here: what makes a process the right one (`identity`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Linux 6.9; older kernels answer EINVAL.
const SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;

#[derive(Debug)]
pub(crate) struct PidFd {
    descriptor: OwnedFd,
    pid: i32,
}

impl PidFd {
    pub(crate) fn open(pid: i32) -> io::Result<Self> {
        if pid <= 0 {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // SAFETY: no pointers are passed.
        let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let number = i32::try_from(number).expect("descriptors fit an int");
        // SAFETY: the kernel has just made it for us; it closes on exec by itself.
        Ok(Self { descriptor: unsafe { OwnedFd::from_raw_fd(number) }, pid })
    }

    /// The same one, after this process has become another binary.
    pub(crate) fn resumed(descriptor: OwnedFd, pid: i32) -> Self {
        Self { descriptor, pid }
    }

    /// Readable means ended, whether reaped or not.
    pub(crate) fn has_ended(&self) -> bool {
        let mut list = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut list, PollTimeout::ZERO), Ok(count) if count > 0)
    }

    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        self.send(signal, 0)
    }

    /// To every process of the group that this process leads.
    pub(crate) fn signal_group(&self, signal: i32) -> io::Result<()> {
        match self.send(signal, SIGNAL_PROCESS_GROUP) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            other => return other,
        }
        // An old kernel: only while the leader lives does its number surely name this group.
        if self.has_ended() {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // SAFETY: no pointers are passed.
        if unsafe { libc::kill(-self.pid, signal) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn send(&self, signal: i32, flags: libc::c_uint) -> io::Result<()> {
        let information = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a null siginfo is allowed and means the one of kill(2).
        let answer = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.descriptor.as_raw_fd(), signal, information, flags) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
