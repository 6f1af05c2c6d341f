//! What a checkout must not have: unknown keys, flags long expired, archived keys that are still asked for.
//!
//! Not here: exit codes; which flags are expired.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{Kind, Known, Reference, Report, Stage};

/// How much debt is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Budget {
    /// So many expired flags may still be referenced.
    pub expired_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// A flag call with a key that nobody knows: it always answers the default.
    UnknownKey,
    /// An archived flag is still referenced: it answers the code's default.
    ArchivedKey,
    /// An expired flag is still referenced, and there are more of these than the budget allows.
    ExpiredPastBudget,
}

impl Rule {
    /// Of all rules, in the order of their ids in SARIF.
    pub const ALL: [Self; 3] = [Self::UnknownKey, Self::ArchivedKey, Self::ExpiredPastBudget];

    /// As SARIF and JSON name it.
    pub fn id(self) -> &'static str {
        match self {
            Self::UnknownKey => "flags/unknown-key",
            Self::ArchivedKey => "flags/archived-key",
            Self::ExpiredPastBudget => "flags/expired-flag",
        }
    }

    /// One sentence for people.
    pub fn description(self) -> &'static str {
        match self {
            Self::UnknownKey => "A flag call asks for a key that no environment knows.",
            Self::ArchivedKey => "The flag is archived, but code still refers to it.",
            Self::ExpiredPastBudget => "The flag is expired and still referenced, and the debt budget is used up.",
        }
    }
}

/// Why a check fails. Each has at least one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub rule: Rule,
    pub key: String,
    /// What is wrong, and how to mend it.
    pub message: String,
    pub places: Vec<Reference>,
}

/// Keys that are nearer than this are meant: one letter in five.
const NEAR_SHARE: usize = 5;

impl Report {
    /// What is wrong in this checkout, by rule and key. Empty: the check passes. Comments never count.
    ///
    /// Expired flags count against the budget together: with one too many, all of them are named, for nobody knows better which to remove.
    pub fn judge(&self, known: &[Known], budget: Budget) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut strangers: BTreeMap<&str, Vec<Reference>> = BTreeMap::new();
        for reference in &self.unknown {
            strangers.entry(&reference.key).or_default().push(reference.clone());
        }
        for (key, places) in strangers {
            let hint =
                nearest(key, known).map_or_else(|| "add the flag, or remove the call".to_owned(), |near| format!("did you mean `{near}`?"));
            findings.push(Finding {
                rule: Rule::UnknownKey,
                key: key.to_owned(),
                message: format!("no flag `{key}` is known; {hint}"),
                places,
            });
        }
        let mut places: BTreeMap<&str, Vec<&Reference>> = BTreeMap::new();
        for reference in self.references.iter().filter(|reference| reference.kind != Kind::Comment) {
            places.entry(&reference.key).or_default().push(reference);
        }
        let of = |flag: &Known| places.get(flag.key.as_str()).map(|places| places.iter().map(|place| (*place).clone()).collect::<Vec<_>>());
        let mut known: Vec<&Known> = known.iter().collect();
        known.sort_by(|one, other| one.key.cmp(&other.key));
        for flag in known.iter().filter(|flag| flag.stage == Stage::Archived) {
            let Some(places) = of(flag) else { continue };
            let message = format!("flag `{}` is archived and answers the code's default; remove what refers to it", flag.key);
            findings.push(Finding { rule: Rule::ArchivedKey, key: flag.key.clone(), message, places });
        }
        let expired: Vec<(&Known, Vec<Reference>)> =
            known.iter().filter(|flag| flag.expired && flag.stage != Stage::Archived).filter_map(|flag| Some((*flag, of(flag)?))).collect();
        if expired.len() > budget.expired_max {
            let count = expired.len();
            findings.extend(expired.into_iter().map(|(flag, places)| Finding {
                rule: Rule::ExpiredPastBudget,
                key: flag.key.clone(),
                message: format!(
                    "flag `{}` is expired and still referenced; {count} such flags, {} allowed: remove it, or give it more time",
                    flag.key, budget.expired_max
                ),
                places,
            }));
        }
        findings
    }
}

fn nearest<'a>(key: &str, known: &'a [Known]) -> Option<&'a str> {
    let near = known.iter().map(|flag| (distance(key, &flag.key), flag.key.as_str())).min()?;
    (near.0 <= (key.chars().count() / NEAR_SHARE).max(1)).then_some(near.1)
}

/// Edits from one text to the other (Levenshtein 1966).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = index;
        row[0] = index + 1;
        for (column, next) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *next);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}
