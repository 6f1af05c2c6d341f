//! One keeper per state directory.
//!
//! Invariant: the lock lives as long as the file is open; its content is only a hint for a person.
//! Not here: anything about workers.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::error::Error;

pub(crate) fn take(state_dir: &Path) -> Result<File, Error> {
    let path = state_dir.join("keeper.lock");
    let failed = |source: io::Error| Error::Lock { path: path.display().to_string(), source };
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(failed)?;
            return Err(Error::AlreadyRunning { pid: text.trim().parse().ok() });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}
