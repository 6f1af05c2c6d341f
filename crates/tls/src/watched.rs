//! Files whose content is used, looked at again and again.
//!
//! **Invariant**: what was read and could be used stays until something else can be used.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use crate::files::{self, Stamp};

/// A pair is written in two steps: only what is still wrong when it is looked at so often is told.
const LOOKS_TO_TELL: u32 = 3;

pub(crate) struct Watched<T> {
    paths: Vec<PathBuf>,
    read: fn(&[Vec<u8>]) -> Result<T, String>,
    stamps: Vec<Option<Stamp>>,
    settled: bool,
    content: u64,
    value: Option<T>,
    problem: Option<String>,
    /// How often the problem was met.
    looks: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Same,
    /// Something usable that is new.
    Loaded,
    /// It is wrong, and told now.
    Failed,
}

impl<T> Watched<T> {
    pub(crate) fn new(paths: Vec<PathBuf>, read: fn(&[Vec<u8>]) -> Result<T, String>) -> Self {
        Self { paths, read, stamps: Vec::new(), settled: false, content: 0, value: None, problem: None, looks: 0 }
    }

    pub(crate) fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// What is wrong with the files as they are now; `value` may be of an earlier time.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    pub(crate) fn look(&mut self) -> Look {
        let stamps: Vec<_> = self.paths.iter().map(|path| Stamp::look(path)).collect();
        // Without a file there is no stamp to trust: it may be a right that is missing.
        let can_tell = stamps.iter().all(Option::is_some) && (!stamps.is_empty() || self.value.is_some());
        if stamps == self.stamps && self.settled && can_tell {
            return self.still_failing();
        }
        self.settled = stamps.iter().flatten().all(Stamp::is_settled);
        self.stamps = stamps;
        let contents: Result<Vec<_>, _> = self.paths.iter().map(|path| files::read(path)).collect();
        let contents = match contents {
            Ok(contents) => contents,
            Err(problem) => return self.failed(problem),
        };
        let content = fingerprint(&contents);
        if content == self.content && self.value.is_some() {
            // As it was when it was last good.
            (self.problem, self.looks) = (None, 0);
            return Look::Same;
        }
        match (self.read)(&contents) {
            Ok(value) => {
                (self.content, self.value, self.problem, self.looks) = (content, Some(value), None, 0);
                Look::Loaded
            }
            Err(problem) => self.failed(format!("{}: {problem}", self.paths[0].display())),
        }
    }

    fn failed(&mut self, problem: String) -> Look {
        if self.problem.as_ref() != Some(&problem) {
            self.looks = 0;
        }
        self.problem = Some(problem);
        self.still_failing()
    }

    /// Told at once where nothing serves instead, and once.
    fn still_failing(&mut self) -> Look {
        if self.problem.is_none() {
            return Look::Same;
        }
        self.looks = self.looks.saturating_add(1);
        let tell_at = if self.value.is_none() { 1 } else { LOOKS_TO_TELL };
        if self.looks == tell_at { Look::Failed } else { Look::Same }
    }
}

/// Within this process only.
fn fingerprint(contents: &[Vec<u8>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    hasher.finish()
}
