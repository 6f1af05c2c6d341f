//! What was changed: who, when, why, before, after. Nothing is forgotten.

use serde::{Deserialize, Serialize};

use crate::flag::Flag;
use crate::request::Request;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Rises, with gaps.
    pub number: u64,
    /// Wall clock, milliseconds since 1970.
    pub at_ms: u64,
    pub who: String,
    pub why: Option<String>,
    /// Absent: it concerns all of them.
    pub environment: Option<String>,
    pub key: String,
    pub action: String,
    pub said: String,
    /// Who agreed, where a second person is asked for.
    pub agreed: Option<String>,
    /// Absent: there was none.
    pub before: Option<Flag>,
    pub after: Option<Flag>,
}

/// A change that waits for a second person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    pub number: u64,
    pub at_ms: u64,
    pub request: Request,
}

/// A switch at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    pub number: u64,
    pub key: String,
    pub environment: String,
    pub on: bool,
    /// Wall clock; a time that was missed is caught up with once.
    pub at_ms: u64,
    pub who: String,
    pub why: Option<String>,
}

/// Where keys stand in the code of one repository, as it was last scanned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct References {
    pub repository: String,
    pub commit: Option<String>,
    pub at_ms: u64,
    /// Per key: `file:line` and what stands there.
    pub places: std::collections::BTreeMap<String, Vec<Place>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub file: String,
    pub line: usize,
    pub kind: String,
}

pub(crate) fn change_key(key: &str, number: u64) -> String {
    format!("flagchange/{key}/{number:012}")
}

/// By its number, whose flag it was.
pub(crate) fn number_key(number: u64) -> String {
    format!("flagnumber/{number:012}")
}
