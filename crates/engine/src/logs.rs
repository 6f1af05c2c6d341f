//! A version's output: a file that the version itself appends to, kept small without taking it away.
//!
//! The oldest part is copied to `<version>.log.1` and cut out of the file's beginning while the version goes on appending at
//! its end: nothing is lost and nobody waits. Where the filesystem cannot collapse a file (only ext4 and XFS can), its
//! beginning becomes a hole, which takes no space and which `logs` skips; where it cannot do that either, the file is
//! truncated, and what was written between the end of the copy and the truncation is lost (fallocate(2)).

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use model::{ServiceName, VersionName};
use nix::fcntl::{FallocateFlags, fallocate};

use crate::engine::Caretaker;

/// Of one file; with its predecessors a version has at most five times as much.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
const PREDECESSORS: u32 = 4;
/// What is cut out must be whole blocks; the largest block size of the filesystems that can is 64 KiB.
const BLOCK_BYTES: u64 = 64 * 1024;

/// Files that are being rotated.
#[derive(Default, Clone)]
pub(crate) struct Rotating(Arc<Mutex<HashSet<PathBuf>>>);

impl Caretaker {
    /// Rotates logs that have grown; removes those of versions that nobody can go back to.
    pub(crate) fn look_at_logs(&self) {
        for entry in self.targets.values().filter(|entry| entry.kept.ours) {
            let file = self.log_file(&entry.kept.service, &entry.kept.version);
            if !std::fs::metadata(&file).is_ok_and(|it| it.blocks() * 512 > BYTES_MAX) {
                continue;
            }
            let rotating = self.rotating.clone();
            if !rotating.lock().insert(file.clone()) {
                continue;
            }
            tokio::task::spawn_blocking(move || {
                if let Err(error) = rotate(&file) {
                    eprintln!("error: cannot rotate {}: {error}", file.display());
                }
                rotating.lock().remove(&file);
            });
        }
    }

    /// When a release has ended: the logs of versions that are not known any more go.
    pub(crate) fn forget_logs(&self, name: &ServiceName) {
        let Some(service) = self.services.get(name) else { return };
        let known: HashSet<&VersionName> = service
            .confirmed
            .iter()
            .chain(&service.rejected)
            .chain(service.release.iter().map(|release| &release.candidate))
            .chain(self.targets.values().filter(|entry| entry.kept.service == *name).map(|entry| &entry.kept.version))
            .collect();
        let folder = self.config.state_dir.join("logs").join(name.as_str());
        for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let file_name = file.file_name();
            let version = file_name.to_str().and_then(|text| text.rsplit_once(".log")).map(|(version, _)| version);
            if version.is_some_and(|version| !known.iter().any(|known| known.as_str() == version)) {
                let _ = std::fs::remove_file(file.path());
            }
        }
    }
}

impl Rotating {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn predecessor(file: &Path, number: u32) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn rotate(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let begin = first_data(&file)? / BLOCK_BYTES * BLOCK_BYTES;
    // The last block stays: a collapse must not reach the end.
    let end = file.metadata()?.len().saturating_sub(1) / BLOCK_BYTES * BLOCK_BYTES;
    if end <= begin {
        return Ok(());
    }
    for number in (1..PREDECESSORS).rev() {
        let _ = std::fs::rename(predecessor(path, number), predecessor(path, number + 1));
    }
    let mut copy = File::create(predecessor(path, 1))?;
    file.seek(SeekFrom::Start(begin))?;
    io::copy(&mut (&mut file).take(end - begin), &mut copy)?;
    copy.flush()?;
    cut_out(&file, end)
}

/// Removes the first `end` bytes, as well as the filesystem can.
fn cut_out(file: &File, end: u64) -> io::Result<()> {
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    for how in [FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, hole] {
        if fallocate(file, how, 0, end as i64).is_ok() {
            return Ok(());
        }
    }
    file.set_len(0)
}

/// Where the first byte is that is not in the hole of earlier rotations.
pub fn first_data(file: &File) -> io::Result<u64> {
    match nix::unistd::lseek(file, 0, nix::unistd::Whence::SeekData) {
        Ok(offset) => Ok(offset as u64),
        // Nothing but a hole, or nothing at all.
        Err(nix::errno::Errno::ENXIO) => Ok(file.metadata()?.len()),
        Err(nix::errno::Errno::EINVAL) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

const LAST_LINES: usize = 10;
const LAST_BYTES: u64 = 16 * 1024;

/// The end of a log file, each line after `    | `; nothing of what was there before `since`, in bytes.
pub(crate) fn last_lines(file: &Path, since: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(file)?;
        let size = file.metadata()?.len();
        // Rotation may have made it shorter.
        let since = if since > size { 0 } else { since };
        file.seek(SeekFrom::Start(size.saturating_sub(LAST_BYTES).max(since)))?;
        let mut bytes = Vec::new();
        file.take(LAST_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    if last.is_empty() {
        return String::new();
    }
    let shown: Vec<String> = last.iter().map(|line| format!("    | {line}")).collect();
    format!("\n  its last lines:\n{}", shown.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line that was written is in one of the files, in order, although the writer goes on all the time.
    fn rotate_under_writing(folder: &Path) {
        let path = folder.join("v1.log");
        let mut writer = OpenOptions::new().append(true).create(true).open(&path).expect("a file");
        let (begun, wait) = std::sync::mpsc::channel();
        let writing = std::thread::spawn(move || {
            for number in 0..400_000u32 {
                writeln!(writer, "line {number:08} of a service that talks much").expect("written");
                if number == 50_000 {
                    begun.send(()).expect("heard");
                }
            }
        });
        wait.recv().expect("begun");
        for number in 1..=3u32 {
            rotate(&path).expect("rotated");
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while number < 3 && std::fs::metadata(&path).expect("there").blocks() * 512 < 4 * BLOCK_BYTES {
                assert!(std::time::Instant::now() < deadline, "the writer goes on");
                std::thread::yield_now();
            }
        }
        writing.join().expect("no panic");
        let mut all = Vec::new();
        for file in [predecessor(&path, 3), predecessor(&path, 2), predecessor(&path, 1), path] {
            let mut opened = File::open(&file).expect("there");
            opened.seek(SeekFrom::Start(first_data(&opened).expect("known"))).expect("sought");
            opened.read_to_end(&mut all).expect("read");
        }
        let text = String::from_utf8(all).expect("text");
        let numbers: Vec<u32> = text.lines().map(|line| line[5..13].parse().expect("a whole line")).collect();
        assert_eq!(numbers, (0..400_000).collect::<Vec<u32>>());
    }

    #[test]
    fn rotation_loses_nothing() {
        rotate_under_writing(tempfile::tempdir().expect("a folder").path());
    }

    #[test]
    fn rotation_loses_nothing_where_only_holes_can_be_made() {
        // A tmpfs.
        rotate_under_writing(tempfile::tempdir_in("/dev/shm").expect("a folder").path());
    }
}
