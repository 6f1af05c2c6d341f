//! What a scan found.
//!
//! Not here: what follows from it (`judge`, `removal`), other formats (`sarif`).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a reference is; in this order the first wins where one line is several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An argument of a call that asks for a flag.
    Call,
    /// A constant, an enum's member or a property that holds the key.
    Definition,
    /// In a configuration file.
    Config,
    /// Any of the others in a test.
    Test,
    /// Elsewhere in code: an import of a constant, a variable named like the flag, a list of keys.
    Other,
    /// In a comment or in documentation, between delimiters. Changes nothing that runs.
    Comment,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Definition => "definition",
            Self::Config => "config",
            Self::Test => "test",
            Self::Other => "other",
            Self::Comment => "comment",
        }
    }
}

/// A place that speaks of a flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    pub key: String,
    /// Relative to the folder that was scanned.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub kind: Kind,
    /// The other spelling or the constant that stands there instead of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    /// The number of the first line in `text`: smaller than `line` when lines around it are kept.
    pub first_line: usize,
    /// The line, with as many around it as asked for; each cut at 300 characters.
    pub text: String,
}

impl Reference {
    /// Its own line, without spaces around.
    pub fn line_text(&self) -> &str {
        self.text.lines().nth(self.line.saturating_sub(self.first_line)).unwrap_or_default().trim()
    }
}

/// Why a file or folder was not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It has zero bytes in it.
    Binary,
    /// It has a line that nobody wrote: minified or generated.
    LongLines,
    /// A package manager's lock file.
    Lock,
    /// Dependencies of a package manager: the whole folder.
    Dependencies,
    /// Above `Options::file_bytes_max`.
    Large,
    /// It could not be read.
    Unreadable,
    /// A pipe, a socket, a link or a device.
    Special,
}

/// The references of one checkout.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// By file, line and key.
    pub references: Vec<Reference>,
    /// Keys in flag calls that nobody knows.
    pub unknown: Vec<Reference>,
    /// How many files were looked at.
    pub files: usize,
    pub bytes: u64,
    /// By path; what .gitignore names is not in it.
    pub skipped: Vec<(PathBuf, Why)>,
    /// More references were found than are kept (`REFERENCES_MAX`).
    pub truncated: bool,
    pub commit: Option<String>,
    /// The address of `origin`, without credentials; without one, the name of the folder.
    pub repository: Option<String>,
}

impl Report {
    /// The whole report as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// References to a key, comments included.
    pub fn of<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Reference> {
        self.references.iter().filter(move |reference| reference.key == key)
    }
}
