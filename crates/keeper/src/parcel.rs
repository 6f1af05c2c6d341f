//! Memory files that carry what is too large for a message.
//!
//! Invariant: written once; readers share the file, so each reads from its own position.
//! Not here: what is in them.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};

pub fn memory_with(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("changeover-parcel", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

pub fn read_memory(file: OwnedFd) -> io::Result<Vec<u8>> {
    let file = File::from(file);
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
