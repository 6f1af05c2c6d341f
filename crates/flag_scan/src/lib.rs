//! Where a checkout of source code speaks of which flag.
//!
//! One walk over the files: an automaton finds every key in every spelling and every name of a flag call; only files with a hit are
//! split into code, comments and strings, and judged. Constants that hold a key are then looked for by name, in the files of their
//! language.
//!
//! **Invariant**: nothing is written, no code is changed, no command is run. Every file under the folder is looked at, ignored by
//! .gitignore, or counted as skipped with the reason. Memory grows with what is found, not with the checkout.
//!
//! Not here: arguments and exit codes; what a flag's stage is.

mod calls;
mod config;
mod constants;
mod first;
mod grammar;
mod identifiers;
mod judge;
mod key;
mod language;
mod lexer;
mod literals;
mod needles;
mod read;
mod removal;
mod report;
mod repository;
mod sarif;
mod scan;
mod scope;
mod sight;
mod source;
mod surroundings;
mod tools;
mod unknown;
mod uses;

use serde::{Deserialize, Serialize};

pub use judge::{Budget, Finding, Rule};
pub use removal::{Removal, Step};
pub use report::{Kind, Reference, Report, Why};
pub use repository::Repository;
pub use scan::{ScanError, scan};

/// A flag that the store knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub key: String,
    pub stage: Stage,
    pub expired: bool,
    /// The value to keep, as JSON, when it is ready to be removed.
    #[serde(default)]
    pub keep: Option<String>,
}

/// How far a flag is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    New,
    Active,
    Launched,
    ReadyToRemove,
    Archived,
}

/// How to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// At least 1; more than the processor has cores gains nothing.
    pub threads: usize,
    /// Lines kept before and after each reference.
    pub context_lines: usize,
    /// Names of wrappers that ask for a flag, such as `feature`, besides those of the known SDKs.
    pub calls: Vec<String>,
    /// Signs that must stand around a key in code and comments.
    pub delimiters: String,
    /// Larger files are skipped, and counted.
    pub file_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            context_lines: 0,
            calls: Vec::new(),
            delimiters: "\"'`".to_owned(),
            // Nobody writes so much into one file; tables of data are that large.
            file_bytes_max: 2 * 1024 * 1024,
        }
    }
}
