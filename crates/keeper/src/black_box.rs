//! A piece of memory that each worker inherits: what one leaves in it when it is killed, the next one reads.
//!
//! Memory and not a file: writing to it never waits for a disk. Not here: what is in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, FromRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::memfd::{MFdFlags, memfd_create};

pub(crate) const ENVIRONMENT_NAME: &str = "CHANGEOVER_BLACK_BOX_FD";
const BYTES: u64 = 64 * 1024;

pub(crate) fn create() -> io::Result<File> {
    let memory = File::from(memfd_create("changeover", MFdFlags::MFD_CLOEXEC)?);
    memory.set_len(BYTES)?;
    Ok(memory)
}

/// For the worker, once.
pub fn inherited_memory() -> io::Result<File> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let absent = || io::Error::other(format!("`{ENVIRONMENT_NAME}` does not name a descriptor"));
    let number: RawFd = std::env::var(ENVIRONMENT_NAME).ok().and_then(|text| text.parse().ok()).ok_or_else(absent)?;
    if number <= 2 || TAKEN.swap(true, Ordering::SeqCst) {
        return Err(absent());
    }
    // SAFETY: our keeper opened it for us, and nobody takes it twice.
    let memory = unsafe { File::from_raw_fd(number) };
    let flags = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
    nix::fcntl::fcntl(memory.as_fd(), flags)?;
    Ok(memory)
}
