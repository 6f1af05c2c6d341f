//! Reads a flag set: checks it against flagd's schema 0.2.15 and compiles its rules.
//!
//! **Invariant:** what flagd's own readers reject as a whole is rejected as a whole; what they only warn of, or what makes one flag answer
//! `PARSE_ERROR`, is kept with a problem that has a place. Not here: a single flag (`read::flag`).

mod flag;
mod results;

use hashbrown::HashMap;
use serde_json::{Map, Value};

use crate::document::{Document, Entry, Node, NodeKind, Unreadable, line_and_column};
use crate::nearest::did_you_mean;
use crate::{Bucketing, Flag, Problem, Set, Severity};

/// Flags of one set: every client gets all of them at each change.
const FLAGS_MAX: usize = 10_000;
/// Problems that are told of at once; the first ones are often the reason for the rest.
const PROBLEMS_MAX: usize = 100;

pub(crate) fn set(text: &str, read: fn(&str) -> Result<Document, Unreadable>, bucketing: Bucketing) -> Result<Set, Vec<Problem>> {
    let mut reader = Reader { text, problems: Vec::new(), key: None };
    let document = match read(text) {
        Ok(document) => document,
        Err(unreadable) => {
            reader.say(Severity::Set, unreadable.at, unreadable.message, unreadable.hint);
            return Err(reader.problems);
        }
    };
    for (at, name) in &document.twice {
        reader.say(Severity::Warning, *at, format!("`{name}` is here twice; the last one counts"), None);
    }
    let read = reader.whole(&document.root, bucketing);
    let mut problems = reader.problems;
    problems.sort_by_key(|problem| (problem.severity != Severity::Set, problem.line, problem.column));
    match read {
        Some((metadata, flags)) if problems.first().is_none_or(|problem| problem.severity != Severity::Set) => {
            let places: HashMap<_, _> = flags.iter().enumerate().map(|(place, flag)| (flag.key.clone(), place)).collect();
            let is_by_key = document.root.get("flags").is_some_and(|flags| flags.entries().is_some());
            // YAML is not what clients read, and neither are flags as a list.
            let is_ready = is_by_key && document.is_json;
            let document = if is_ready { text.into() } else { by_key(document.root).to_string().into() };
            Ok(Set { bucketing, document, metadata, flags: flags.into(), places, warnings: problems })
        }
        _ => Err(problems),
    }
}

/// The same with the flags as an object.
fn by_key(mut root: Node) -> Node {
    let NodeKind::Object(entries) = &mut root.kind else { return root };
    for entry in entries.iter_mut().filter(|entry| &*entry.key == "flags") {
        let NodeKind::List(flags) = &mut entry.value.kind else { continue };
        let flags = std::mem::take(flags).into_iter().filter_map(|mut flag| {
            let NodeKind::Object(properties) = &mut flag.kind else { return None };
            let place = properties.iter().position(|property| &*property.key == "key")?;
            let key = properties.remove(place).value;
            Some(Entry { key: key.text()?.into(), at: key.at, value: flag })
        });
        entry.value.kind = NodeKind::Object(flags.collect());
    }
    root
}

/// Collects what it finds.
struct Reader<'t> {
    text: &'t str,
    problems: Vec<Problem>,
    /// The key of the one that is being read.
    key: Option<String>,
}

impl Reader<'_> {
    fn say(&mut self, severity: Severity, at: usize, message: String, hint: Option<String>) {
        // The first that rejects the set is always told.
        let is_first = severity == Severity::Set && self.problems.iter().all(|problem| problem.severity != Severity::Set);
        if self.problems.len() < PROBLEMS_MAX || is_first {
            let (line, column) = line_and_column(self.text, at);
            self.problems.truncate(PROBLEMS_MAX - 1);
            self.problems.push(Problem { severity, message, hint, line, column, flag: self.key.clone() });
        }
    }

    fn whole(&mut self, root: &Node, bucketing: Bucketing) -> Option<(Map<String, Value>, Vec<Flag>)> {
        let Some(entries) = root.entries() else {
            let hint = Some("a flag set is an object with `flags`, and perhaps `$evaluators` and `metadata`".to_owned());
            self.say(Severity::Set, root.at, format!("a flag set is expected, found {}", root.describe()), hint);
            return None;
        };
        const KNOWN: [&str; 4] = ["flags", "$evaluators", "metadata", "$schema"];
        for entry in entries.iter().filter(|entry| !KNOWN.contains(&&*entry.key)) {
            let hint = did_you_mean(&entry.key, KNOWN.into_iter());
            self.say(Severity::Warning, entry.at, format!("a flag set has no property `{}`", entry.key), hint);
        }
        let metadata = self.metadata(root.get("metadata"));
        let evaluators = self.evaluators(root.get("$evaluators"));
        let Some(flags) = root.get("flags") else {
            let hint = Some("an empty set is written {\"flags\": {}}".to_owned());
            self.say(Severity::Set, root.at, "the set has no `flags`".to_owned(), hint);
            return None;
        };
        let keyed = self.keyed(flags)?;
        if keyed.len() > FLAGS_MAX {
            self.say(Severity::Set, flags.at, format!("the set has {} flags; {FLAGS_MAX} are the most", keyed.len()), None);
            return None;
        }
        let context = flag::Surroundings { bucketing, evaluators, metadata: &metadata };
        let mut read = Vec::with_capacity(keyed.len());
        for (key, node) in keyed {
            self.key = Some(key.to_owned());
            read.extend(self.flag(key, node, &context));
            self.key = None;
        }
        read.sort_by(|one, other| one.key.cmp(&other.key));
        Some((metadata, read))
    }

    /// Keys and definitions, each key once.
    fn keyed<'n>(&mut self, flags: &'n Node) -> Option<Vec<(&'n str, &'n Node)>> {
        let keyed: Vec<(&str, &Node)> = match &flags.kind {
            NodeKind::Object(entries) => entries.iter().map(|entry| (&*entry.key, &entry.value)).collect(),
            NodeKind::List(items) => self.listed(items),
            _ => {
                let hint = Some("flags stand by key: {\"my-flag\": {…}}".to_owned());
                self.say(Severity::Set, flags.at, format!("`flags` is an object, not {}", flags.describe()), hint);
                return None;
            }
        };
        for (_, node) in keyed.iter().filter(|(key, _)| key.is_empty()) {
            self.say(Severity::Set, node.at, "the key of a flag is empty".to_owned(), None);
        }
        Some(keyed)
    }

    /// The list form, in which each flag has its `key` inside.
    fn listed<'n>(&mut self, items: &'n [Node]) -> Vec<(&'n str, &'n Node)> {
        let mut keyed = Vec::with_capacity(items.len());
        let mut known = hashbrown::HashSet::new();
        for item in items {
            match item.get("key").and_then(Node::text) {
                Some(key) if known.insert(key) => keyed.push((key, item)),
                Some(key) => self.say(Severity::Set, item.at, format!("flag `{key}` is in the list twice"), None),
                None => self.say(Severity::Set, item.at, "a flag in a list needs a `key`".to_owned(), None),
            }
        }
        keyed
    }

    fn evaluators<'n>(&mut self, node: Option<&'n Node>) -> &'n [Entry] {
        let Some(node) = node else { return &[] };
        node.entries().unwrap_or_else(|| {
            self.say(Severity::Set, node.at, format!("`$evaluators` is an object of rules, not {}", node.describe()), None);
            &[]
        })
    }

    fn metadata(&mut self, node: Option<&Node>) -> Map<String, Value> {
        let Some(node) = node else { return Map::new() };
        let Some(entries) = node.entries() else {
            self.say(Severity::Set, node.at, format!("`metadata` is an object, not {}", node.describe()), None);
            return Map::new();
        };
        for entry in entries {
            if matches!(entry.value.kind, NodeKind::Null | NodeKind::List(_) | NodeKind::Object(_)) {
                let message = format!("metadata `{}` is a text, a number or a boolean, not {}", entry.key, entry.value.describe());
                self.say(Severity::Warning, entry.value.at, message, Some("some clients refuse the whole set for it".to_owned()));
            }
        }
        node.map()
    }
}
