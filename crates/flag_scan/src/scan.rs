//! The two looks at a checkout, on several threads.
//!
//! Not here: what a file gives (`first`, `uses`); which files are read (`read`).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::calls::Calls;
use crate::first::{self, Findings, once, refer};
use crate::key::words;
use crate::language::Language;
use crate::needles::Needles;
use crate::read::{Files, walk};
use crate::source::Source;
use crate::tools::Tools;
use crate::uses::{Holder, Holders};
use crate::{Known, Options, Reference, Report, Repository};

/// More references than this are a mistake (a key that is a word of every file), and nobody reads them. About 100 MB.
const REFERENCES_MAX: usize = 200_000;

/// Why a checkout could not be scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("{0} is not a folder that can be read")]
    Folder(PathBuf, #[source] std::io::Error),
    #[error("a flag without a key cannot be looked for")]
    EmptyKey,
    #[error("too many keys to look for at once")]
    Needles(#[source] aho_corasick::BuildError),
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

impl ScanError {
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Folder(..) => "give the folder of a checkout, such as `.`",
            Self::EmptyKey => "every flag needs a key",
            Self::Needles(_) => "scan for fewer flags at once",
            Self::Thread(_) => "ask for fewer threads",
        }
    }
}

/// Looks for the flags of `known` in the text files under `folder`, and for flag calls with other keys.
///
/// Two scans of the same files give the same report. See `Report` for what is in it.
pub fn scan(folder: &Path, known: &[Known], options: &Options) -> Result<Report, ScanError> {
    let listed = std::fs::read_dir(folder).map_err(|error| ScanError::Folder(folder.to_owned(), error))?;
    drop(listed);
    if known.iter().any(|known| known.key.is_empty()) {
        return Err(ScanError::EmptyKey);
    }
    let keys: Vec<String> = known.iter().map(|known| known.key.clone()).collect();
    let calls = Calls::new(&options.calls);
    let needles = Needles::new(&keys, calls.spellings())?;
    let tools = Tools { known, words: keys.iter().map(|key| words(key).len()).collect(), calls, needles, options };

    let collected = Mutex::new(Collected::default());
    let files = walk(folder, options, |path, language, bytes| {
        let hits = tools.needles.find(bytes);
        if !hits.iter().any(|hit| first::is_promising(&tools, bytes, language, *hit)) {
            return;
        }
        let source = Source::new(path, bytes, language);
        let findings = first::look(&source, &tools, &hits);
        collected.lock().unwrap_or_else(PoisonError::into_inner).take(findings);
    });
    let mut collected = collected.into_inner().unwrap_or_else(PoisonError::into_inner);
    let used = second(folder, &tools, &files, std::mem::take(&mut collected.holders))?;
    let asked: Vec<(PathBuf, usize, String)> = used.iter().filter(|used| used.confirms).map(|used| used.definition.clone()).collect();
    let definitions =
        collected.weak.into_iter().filter(|(at, reference)| asked.contains(&(reference.file.clone(), *at, reference.key.clone())));
    collected.references.extend(definitions.map(|(_, reference)| reference));
    collected.references.extend(used.into_iter().map(|used| used.reference));
    Ok(report(folder, files, collected.references, collected.unknown, collected.truncated))
}

#[derive(Default)]
struct Collected {
    references: Vec<Reference>,
    unknown: Vec<Reference>,
    holders: Vec<Holder>,
    /// Definitions to be confirmed, with the byte at which their constant stands.
    weak: Vec<(usize, Reference)>,
    truncated: bool,
}

impl Collected {
    fn take(&mut self, findings: Findings) {
        self.truncated |= self.references.len() + self.unknown.len() > REFERENCES_MAX;
        if self.truncated {
            return;
        }
        let weak = findings
            .weak
            .into_iter()
            .filter_map(|(index, reference)| findings.holders.get(index).map(|holder| (holder.constant.at, reference)));
        self.weak.extend(weak);
        self.references.extend(findings.references);
        self.unknown.extend(findings.unknown);
        self.holders.extend(findings.holders);
    }
}

/// A use of a constant.
struct Used {
    reference: Reference,
    /// The constant is weak, and this use shows that it is a flag's.
    confirms: bool,
    /// The constant's file, place and key.
    definition: (PathBuf, usize, String),
}

/// The second look, only at files of languages that have such constants.
fn second(folder: &Path, tools: &Tools<'_>, files: &Files, mut holders: Vec<Holder>) -> Result<Vec<Used>, ScanError> {
    // In the order of the paths, whatever the threads did.
    holders.sort_by(|one, other| (&one.path, one.constant.at, one.key).cmp(&(&other.path, other.constant.at, other.key)));
    let Some(holders) = Holders::new(holders)? else { return Ok(Vec::new()) };
    let concerned: Vec<&(PathBuf, Language)> = files.read.iter().filter(|(_, language)| holders.concern(*language)).collect();
    let next = AtomicUsize::new(0);
    let used = Mutex::new(Vec::new());
    let work = || {
        let mut bytes = Vec::new();
        while let Some((path, language)) = concerned.get(next.fetch_add(1, Ordering::Relaxed)) {
            // What cannot be read any more was changed during the scan.
            if crate::read::fill(&folder.join(path), tools.options.file_bytes_max, &mut bytes).is_err() {
                continue;
            }
            let hits = holders.find(&bytes, *language);
            if hits.is_empty() {
                continue;
            }
            let source = Source::new(path, &bytes, *language);
            let found = holders.uses(&source, tools, &hits).into_iter().filter_map(|found| {
                let holder = holders.all.get(found.holder)?;
                let asks = found.kind == crate::Kind::Call;
                let key = tools.known.get(holder.key)?.key.clone();
                let reference = refer(&source, tools, &key, found.at, found.kind, Some(found.through));
                let definition = (holder.path.clone(), holder.constant.at, key);
                (asks || !holder.weak).then_some(Used { reference, confirms: holder.weak, definition })
            });
            let found: Vec<Used> = found.collect();
            let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
            if used.len() < REFERENCES_MAX {
                used.extend(found);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..tools.options.threads {
            std::thread::Builder::new().spawn_scoped(scope, work).map_err(ScanError::Thread)?;
        }
        work();
        Ok(())
    })?;
    Ok(used.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn report(folder: &Path, mut files: Files, mut references: Vec<Reference>, mut unknown: Vec<Reference>, truncated: bool) -> Report {
    references.sort_by(|one, other| one.file.cmp(&other.file));
    let mut kept = Vec::with_capacity(references.len());
    while !references.is_empty() {
        let first = references.partition_point(|reference| reference.file <= references[0].file);
        kept.extend(once(references.drain(..first).collect()));
    }
    unknown.sort_by(|one, other| (&one.file, one.line, one.column).cmp(&(&other.file, other.line, other.column)));
    files.skipped.sort();
    let truncated = truncated || kept.len() > REFERENCES_MAX;
    kept.truncate(REFERENCES_MAX);
    let Repository { address, commit } = Repository::read(folder);
    Report {
        references: kept,
        unknown,
        files: files.read.len(),
        bytes: files.bytes,
        skipped: files.skipped,
        truncated,
        commit,
        repository: address,
    }
}
