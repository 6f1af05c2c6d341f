//! How a flag leaves the code: the value to keep, and the places in the order that is safe.
//!
//! While anything still asks, constants must be there; while a constant is there, configuration must answer. So: calls, then tests, then
//! constants, then configuration, then remarks.
//!
//! **Invariant**: code is never changed here.
//!
//! Not here: whether a flag may go (its stage says so).

use std::fmt;

use serde::Serialize;

use crate::{Kind, Known, Reference, Report, Stage};

/// Places of one kind, to be done together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What to do there.
    pub what: String,
    pub places: Vec<Reference>,
}

/// Its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removal {
    pub key: String,
    /// As JSON; unknown while the flag is not ready.
    pub keep: Option<String>,
    /// Whether its stage says that it may go.
    pub ready: bool,
    /// In the order that is safe; none is empty.
    pub steps: Vec<Step>,
}

impl Report {
    /// The plan to remove one flag from this checkout.
    pub fn removal(&self, known: &Known) -> Removal {
        let keep = known.keep.as_deref().map_or_else(|| "the value to keep".to_owned(), |value| format!("`{value}`"));
        let order: [(&[Kind], String); 5] = [
            (&[Kind::Call, Kind::Other], format!("replace the flag by {keep} and remove the branch that is never taken")),
            (&[Kind::Test], "remove tests of the other branch, and the flag from the rest".to_owned()),
            (&[Kind::Definition], "remove the constants, once nothing uses them".to_owned()),
            (&[Kind::Config], "remove it from configuration, once no running version asks".to_owned()),
            (&[Kind::Comment], "mend comments and documentation".to_owned()),
        ];
        let steps = order.into_iter().map(|(kinds, what)| {
            let mut places: Vec<Reference> = self.of(&known.key).filter(|reference| kinds.contains(&reference.kind)).cloned().collect();
            places.sort_by_key(|reference| reference.kind);
            Step { what, places }
        });
        let ready = matches!(known.stage, Stage::ReadyToRemove | Stage::Archived);
        Removal { key: known.key.clone(), keep: known.keep.clone(), ready, steps: steps.filter(|step| !step.places.is_empty()).collect() }
    }
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        match &self.keep {
            Some(value) => writeln!(f, ": keep {value}")?,
            None => writeln!(f, ": no value to keep is decided")?,
        }
        if !self.ready {
            writeln!(f, "not ready to be removed: it may still answer differently")?;
        }
        if self.steps.is_empty() {
            writeln!(f, "nothing refers to it")?;
        }
        for (index, step) in self.steps.iter().enumerate() {
            writeln!(f, "{}. {}", index + 1, step.what)?;
            for place in &step.places {
                let through = place.through.as_deref().map(|name| format!("  (as {name})")).unwrap_or_default();
                writeln!(f, "   {}:{}:{}  {}{through}", place.file.display(), place.line, place.column, place.line_text())?;
            }
        }
        Ok(())
    }
}
