//! The bootstrap file: the last good set, for a start while the server is down.
//!
//! **Invariant**: the file holds a whole set or what it held before; nobody but its owner reads it, for rules tell who customers are.
//! Not here: when it is read and written (`stream.rs`).

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::wire::SET_BYTES_MAX;

/// Why the bootstrap file is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootstrapError {
    #[error("cannot read the bootstrap file {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the bootstrap file {path} is larger than {SET_BYTES_MAX} bytes: is it a flag set?")]
    Large { path: PathBuf },
    #[error("the bootstrap file {path} was refused: {why}")]
    Refused { path: PathBuf, why: String },
    #[error("cannot write the bootstrap file {path}: {source}")]
    Write { path: PathBuf, source: std::io::Error },
}

/// The file's text; it need not be a good set.
pub(crate) fn read(path: &Path) -> Result<String, BootstrapError> {
    let wrong = |source| BootstrapError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(SET_BYTES_MAX as u64 + 1).read_to_string(&mut text)).map_err(wrong)?;
    if text.len() > SET_BYTES_MAX {
        return Err(BootstrapError::Large { path: path.to_owned() });
    }
    Ok(text)
}

/// Written beside it, brought to the disk, then renamed: a crash leaves the old file or the new one.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), BootstrapError> {
    let wrong = |source| BootstrapError::Write { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Made with mode 0600, under a name that no other process uses.
    let mut beside = tempfile::NamedTempFile::new_in(folder).map_err(wrong)?;
    beside.write_all(text.as_bytes()).and_then(|()| beside.as_file().sync_all()).map_err(wrong)?;
    beside.persist(path).map_err(|error| wrong(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_only_by_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("flags.json");
        for text in ["{\"flags\":{}}", "{}"] {
            write(&path, text).expect("written");
            assert_eq!(read(&path).expect("read"), text);
        }
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(files, 1, "nothing is left beside it");
    }

    #[test]
    fn a_missing_file_or_folder_is_told_with_its_path() {
        let path = Path::new("/nowhere/flags.json");
        assert!(read(path).expect_err("missing").to_string().contains("/nowhere/flags.json"));
        assert!(write(path, "").expect_err("missing").to_string().contains("/nowhere/flags.json"));
    }
}
