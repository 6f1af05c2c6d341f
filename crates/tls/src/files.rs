//! Small files that others write: read whole, and told apart from how they were.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A bundle of all public authorities has about 250 kB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// File systems count time in ticks: what was written so shortly before it was read may be written again within the same tick.
const TICK_MAX: Duration = Duration::from_secs(2);

/// Which file is there, and since when it is as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// `None`: the file is not there, or cannot be looked at. Links are followed.
    pub(crate) fn look(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }

    /// A later change would have another stamp.
    pub(crate) fn is_settled(&self) -> bool {
        let changed = UNIX_EPOCH + Duration::from_secs(self.changed.0.max(0) as u64);
        SystemTime::now().duration_since(changed).is_ok_and(|age| age > TICK_MAX)
    }
}

/// The content, or what keeps us from it in words.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let words = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{} is not there", path.display()),
        std::io::ErrorKind::PermissionDenied => format!("{} may not be read by the user of changeover", path.display()),
        _ => format!("{}: {error}", path.display()),
    };
    // Looked at before it is opened: a pipe would wait for a writer.
    let metadata = std::fs::metadata(path).map_err(words)?;
    if !metadata.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    let mut content = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)).map_err(words)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{} is larger than {} MiB", path.display(), FILE_BYTES_MAX >> 20));
    }
    Ok(content)
}

pub(crate) fn everybody_may_read(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}
