//! Which files are read: text that somebody wrote and .gitignore does not name.
//!
//! **Invariant**: a file or folder that is left out, other than by .gitignore and .ignore, is in `skipped` with the reason.
//!
//! The crate `ignore` walks and reads .gitignore as ripgrep does. The user's own global ignore file is not honoured: a scan is the same on
//! every machine.
//!
//! Not here: what is in the files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ignore::{DirEntry, WalkBuilder, WalkState};

use crate::language::Language;
use crate::{Options, Why};

/// A zero byte in so many first bytes makes a file binary, as for git.
const BINARY_BYTES: usize = 8_000;
/// No formatter leaves a line of code as long.
const LINE_BYTES_MAX: usize = 2_000;
/// Text of people and data may have longer lines: prose, JSON.
const DATA_LINE_BYTES_MAX: usize = 20_000;

const LOCKS: [&str; 12] = [
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "Cargo.lock",
    "poetry.lock",
    "uv.lock",
    "Pipfile.lock",
    "Gemfile.lock",
    "composer.lock",
    "go.sum",
    "packages.lock.json",
];

#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Relative to the folder.
    pub(crate) read: Vec<(PathBuf, Language)>,
    pub(crate) bytes: u64,
    pub(crate) skipped: Vec<(PathBuf, Why)>,
}

/// Calls `look` with every text file, on several threads at once.
pub(crate) fn walk(folder: &Path, options: &Options, look: impl Fn(&Path, Language, &[u8]) + Sync) -> Files {
    let files = Mutex::new(Files::default());
    let relative = |path: &Path| path.strip_prefix(folder).unwrap_or(path).to_owned();
    let skip = |path: &Path, why| files.lock().unwrap_or_else(PoisonError::into_inner).skipped.push((relative(path), why));
    let mut builder = WalkBuilder::new(folder);
    builder.hidden(false).git_global(false).require_git(false).threads(options.threads.max(1));
    // `filter_entry` wants a closure that owns all it uses, so folders are refused in the walk itself.
    builder.build_parallel().run(|| {
        let (files, look, skip, relative) = (&files, &look, &skip, &relative);
        let mut bytes = Vec::new();
        Box::new(move |entry| {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    skip(&path_of(&error).unwrap_or_default(), Why::Unreadable);
                    return WalkState::Continue;
                }
            };
            match entry.file_type() {
                Some(kind) if kind.is_dir() => return if is_left_out(&entry, skip) { WalkState::Skip } else { WalkState::Continue },
                Some(kind) if kind.is_file() => {}
                _ => {
                    skip(entry.path(), Why::Special);
                    return WalkState::Continue;
                }
            }
            // The pointer that a worktree or a submodule has instead of the folder.
            if entry.file_name() == ".git" {
                return WalkState::Continue;
            }
            let language = Language::of(entry.path());
            match text(entry.path(), language, options.file_bytes_max, &mut bytes) {
                Ok(()) => {
                    let path = relative(entry.path());
                    look(&path, language, &bytes);
                    let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
                    files.bytes += bytes.len() as u64;
                    files.read.push((path, language));
                }
                Err(why) => skip(entry.path(), why),
            }
            WalkState::Continue
        })
    });
    files.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a folder is left out; noted unless it belongs to the version control itself.
fn is_left_out(entry: &DirEntry, skip: impl Fn(&Path, Why)) -> bool {
    if entry.depth() == 0 {
        return false;
    }
    let has = |name: &str| entry.path().join(name).exists();
    // A shop may have a folder `vendor` of its own; package managers leave a sign in theirs.
    let dependencies = match entry.file_name().to_str().unwrap_or_default() {
        ".git" | ".hg" | ".svn" | ".jj" => return true,
        "node_modules" | "bower_components" | "site-packages" => true,
        "vendor" => has("modules.txt") || has("autoload.php") || has("bundle"),
        _ => has("pyvenv.cfg"),
    };
    if dependencies {
        skip(entry.path(), Why::Dependencies);
    }
    dependencies
}

/// Reads a file if it is text that somebody wrote.
fn text(path: &Path, language: Language, bytes_max: u64, bytes: &mut Vec<u8>) -> Result<(), Why> {
    if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| LOCKS.contains(&name)) {
        return Err(Why::Lock);
    }
    let name = path.file_name().map(|name| name.as_encoded_bytes().to_ascii_lowercase()).unwrap_or_default();
    if [&b".min.js"[..], b".min.css", b".min.mjs", b".map"].iter().any(|end| name.ends_with(end)) {
        return Err(Why::LongLines);
    }
    fill(path, bytes_max, bytes).map_err(|error| if error.kind() == io::ErrorKind::FileTooLarge { Why::Large } else { Why::Unreadable })?;
    if memchr::memchr(0, &bytes[..bytes.len().min(BINARY_BYTES)]).is_some() {
        return Err(Why::Binary);
    }
    let data = language.is_config() || language == Language::Prose;
    if has_line_above(bytes, if data { DATA_LINE_BYTES_MAX } else { LINE_BYTES_MAX }) { Err(Why::LongLines) } else { Ok(()) }
}

/// Reads a whole file of at most `bytes_max` bytes; a larger one is an error, even when it grows meanwhile.
pub(crate) fn fill(path: &Path, bytes_max: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.clear();
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length <= bytes_max {
        bytes.reserve(usize::try_from(length).unwrap_or_default() + 1);
        file.take(bytes_max + 1).read_to_end(bytes)?;
    }
    if length > bytes_max || bytes.len() as u64 > bytes_max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
}

fn has_line_above(bytes: &[u8], max: usize) -> bool {
    let mut rest = bytes;
    // Leaps: the last end of a line within `max` bytes begins the next leap.
    while rest.len() > max {
        match memchr::memrchr(b'\n', &rest[..=max]) {
            Some(end) => rest = &rest[end + 1..],
            None => return true,
        }
    }
    false
}

fn path_of(error: &ignore::Error) -> Option<PathBuf> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path.clone()),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => path_of(err),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::has_line_above;

    #[test]
    fn the_longest_line_decides() {
        assert!(!has_line_above(b"aaa\nbbb\nccc", 3));
        assert!(has_line_above(b"aaa\nbbbb\nc", 3));
        assert!(has_line_above(b"a\nbbbb", 3));
        assert!(!has_line_above(b"", 3));
    }
}
