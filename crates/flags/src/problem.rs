//! What is wrong with a flag set, said to the person who wrote it.
//!
//! **Invariant:** a problem names its place whenever the text has one. Not here: finding problems (`read`, `logic`).

use std::fmt;

/// How much of the set a problem spoils.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The whole set is rejected.
    Set,
    /// The set stands; this flag answers `PARSE_ERROR`, as flagd's does.
    Flag,
    /// Every flag answers; the schema says otherwise, or it is likely a mistake.
    Warning,
}

/// One thing that is wrong. Lines and columns count from 1, columns in characters; 0 is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
    pub line: usize,
    pub column: usize,
    /// The key of the flag that it is about.
    pub flag: Option<String>,
}

impl fmt::Display for Problem {
    /// `line:column: message`, then the hint on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}: ", self.line, self.column)?;
        }
        match &self.flag {
            Some(flag) => write!(f, "flag `{flag}`: {}", self.message)?,
            None => f.write_str(&self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}
