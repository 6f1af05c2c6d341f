//! A map of the file being read: fields are taken by name; what was never asked for is a mistake.

use crate::node::{At, Key, Kind, Node};
use crate::problems::Problems;

pub(crate) struct Table<'a> {
    entries: Vec<&'a (Key, Node)>,
    asked: Vec<&'static str>,
    /// Such as `` `health` of service `web` ``.
    pub(crate) place: String,
    pub(crate) at: At,
}

impl<'a> Table<'a> {
    pub(crate) fn open(node: &'a Node, place: impl Into<String>, problems: &mut Problems) -> Option<Self> {
        let place = place.into();
        let entries = entries(node, &place, problems)?.iter().collect();
        Some(Self { entries, asked: Vec::new(), place, at: node.at.clone() })
    }

    /// A table in which every field has its default; mistakes point at `at`.
    pub(crate) fn empty(at: &At, place: impl Into<String>) -> Self {
        Self { entries: Vec::new(), asked: Vec::new(), place: place.into(), at: at.clone() }
    }

    /// The field's value; `None` when absent or left empty.
    pub(crate) fn take(&mut self, field: &'static str) -> Option<&'a Node> {
        self.take_entry(field).map(|(_, node)| node)
    }

    pub(crate) fn take_entry(&mut self, field: &'static str) -> Option<&'a (Key, Node)> {
        self.asked.push(field);
        let entry = self.entries.iter().find(|(key, _)| key.text == field)?;
        (!matches!(entry.1.kind, Kind::Nothing)).then_some(*entry)
    }

    /// The field, when it is there without a value.
    pub(crate) fn left_empty(&self, field: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(key, node)| key.text == field && matches!(node.kind, Kind::Nothing)).map(|(_, node)| node)
    }

    /// The field as a table, with its place; a table of defaults when absent.
    pub(crate) fn take_table(&mut self, field: &'static str, problems: &mut Problems) -> Option<Table<'a>> {
        let place = format!("`{field}` of {}", self.place);
        match self.take(field) {
            Some(node) => Table::open(node, place, problems),
            None => Some(Table::empty(&self.at, place)),
        }
    }

    pub(crate) fn missing(&self, field: &str, hint: &str, problems: &mut Problems) {
        problems.add(&self.at, format!("missing field `{field}` in {}", self.place), Some(hint.to_owned()));
    }

    /// To be called once all fields were taken.
    pub(crate) fn finish(self, problems: &mut Problems) {
        for (key, _) in &self.entries {
            if !self.asked.contains(&key.text.as_str()) {
                let message = format!("unknown field `{}` in {}", key.text, self.place);
                problems.add(&key.at, message, Some(suggest(&key.text, &self.asked)));
            }
        }
    }
}

/// The entries of a map whose keys are the user's own.
pub(crate) fn entries<'a>(node: &'a Node, place: &str, problems: &mut Problems) -> Option<&'a [(Key, Node)]> {
    match &node.kind {
        Kind::Map(entries) => Some(entries),
        Kind::Nothing => Some(&[]),
        other => {
            problems.add(&node.at, format!("{place} must be a map, found {}", other.describe()), None);
            None
        }
    }
}

/// `did you mean …?` for a near word, the list of words otherwise.
pub(crate) fn suggest(word: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|name| (distance(word, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= (name.len() / 3).max(1) => format!("did you mean `{name}`?"),
        _ => format!("expected {}", list(known)),
    }
}

fn list(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => "nothing".to_owned(),
    }
}

/// Edits (insert, delete, replace, swap of neighbours) between two words.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().take(64).collect(), right.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for i in 1..=left.len() {
        let mut next = vec![i];
        for j in 1..=right.len() {
            let replace = row[j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = replace.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[right.len()]
}
