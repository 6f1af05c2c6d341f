//! Reads one flag.
//!
//! **Invariant:** a flag that comes of this can be evaluated; the set it is in is rejected otherwise. Not here: the set.

use hashbrown::HashSet;
use serde_json::{Map, Value};

use super::{Reader, results};
use crate::document::{Entry, Node, NodeKind};
use crate::flag::{Named, Targeting};
use crate::logic::Compiler;
use crate::nearest::did_you_mean;
use crate::{Bucketing, Flag, Kind, Severity, Variant};

/// What a flag is read with.
pub(super) struct Surroundings<'n> {
    pub(super) bucketing: Bucketing,
    pub(super) evaluators: &'n [Entry],
    /// Of the set.
    pub(super) metadata: &'n Map<String, Value>,
}

const KNOWN: [&str; 6] = ["state", "variants", "defaultVariant", "targeting", "metadata", "key"];
/// Names of variants are compared one by one.
const VARIANTS_MAX: usize = 1_000;

impl Reader<'_> {
    /// Nothing where something about it rejects the set.
    pub(super) fn flag(&mut self, key: &str, node: &Node, around: &Surroundings<'_>) -> Option<Flag> {
        let Some(entries) = node.entries() else {
            self.say(Severity::Set, node.at, format!("a flag is an object, not {}", node.describe()), None);
            return None;
        };
        for entry in entries.iter().filter(|entry| !KNOWN.contains(&&*entry.key)) {
            let hint = did_you_mean(&entry.key, KNOWN.into_iter());
            let hint = hint.or_else(|| Some("what is your own stands in `metadata`; some clients refuse the whole set for it".to_owned()));
            self.say(Severity::Warning, entry.at, format!("a flag has no property `{}`", entry.key), hint);
        }
        let is_enabled = self.state(node);
        let variants = self.variants(node);
        let (is_enabled, (kind, variants)) = (is_enabled?, variants?);
        let default_variant = self.default_variant(node, &variants)?;
        let mut metadata = around.metadata.clone();
        metadata.extend(self.metadata(node.get("metadata")));
        let targeting = match node.get("targeting") {
            Some(rule) => self.targeting(key, rule, &variants, around),
            None => Targeting::None,
        };
        Some(Flag { key: key.into(), kind, is_enabled, variants: variants.into(), default_variant, targeting, metadata })
    }

    fn state(&mut self, node: &Node) -> Option<bool> {
        let hint = Some("a flag is \"ENABLED\" or \"DISABLED\"".to_owned());
        let Some(state) = node.get("state") else {
            self.say(Severity::Set, node.at, "the flag has no `state`".to_owned(), hint);
            return None;
        };
        match state.text() {
            Some("ENABLED") => Some(true),
            Some("DISABLED") => Some(false),
            _ => {
                self.say(Severity::Set, state.at, format!("`state` cannot be {state}"), hint);
                None
            }
        }
    }

    fn variants(&mut self, node: &Node) -> Option<(Kind, Vec<Named>)> {
        let hint = || Some("for example {\"on\": true, \"off\": false}".to_owned());
        let Some(variants) = node.get("variants") else {
            self.say(Severity::Set, node.at, "the flag has no `variants`".to_owned(), hint());
            return None;
        };
        let entries = variants.entries().unwrap_or_default();
        if entries.is_empty() || entries.len() > VARIANTS_MAX {
            let message = format!("`variants` is an object of 1 to {VARIANTS_MAX} names and values");
            self.say(Severity::Set, variants.at, message, hint());
            return None;
        }
        let read = |entry: &Entry| {
            let value = entry.value.value();
            (Kind::of(&value), Variant::new(entry.value.to_string(), value))
        };
        let read: Vec<_> = entries.iter().map(read).collect();
        let kind = read.iter().find_map(|(kind, _)| *kind).unwrap_or(Kind::Object);
        for (entry, (found, _)) in entries.iter().zip(&read) {
            if *found != Some(kind) {
                let message = format!("variant `{}` is {}, but the flag is of type {}", entry.key, entry.value.describe(), kind.as_str());
                let hint = Some("all variants of a flag have one type, and none is null".to_owned());
                self.say(Severity::Warning, entry.value.at, message, hint);
            } else if matches!(entry.value.kind, NodeKind::List(_)) {
                let message = format!("variant `{}` is a list; flagd's schema knows objects, not lists", entry.key);
                self.say(Severity::Warning, entry.value.at, message, Some("put the list into an object".to_owned()));
            }
        }
        let named = entries.iter().zip(read).map(|(entry, (_, variant))| (entry.key.clone(), variant));
        Some((kind, named.collect()))
    }

    /// Outside: whether it can be used. Inside: the place, if there is one.
    fn default_variant(&mut self, node: &Node, variants: &[Named]) -> Option<Option<usize>> {
        let Some(default) = node.get("defaultVariant") else { return Some(None) };
        let name = match &default.kind {
            NodeKind::Null => return Some(None),
            // As in flagd's cores: nothing.
            NodeKind::Text(name) if name.is_empty() => return Some(None),
            NodeKind::Text(name) => name,
            _ => {
                let hint = Some("it is the name of a variant, in quotes".to_owned());
                self.say(Severity::Set, default.at, format!("`defaultVariant` is a text or null, not {}", default.describe()), hint);
                return None;
            }
        };
        let place = variants.iter().position(|(known, _)| known == name);
        if place.is_none() {
            let hint = variant_hint(name, variants);
            self.say(Severity::Set, default.at, format!("`defaultVariant` is `{name}`, which is none of the variants"), Some(hint));
            return None;
        }
        Some(place)
    }

    fn targeting(&mut self, key: &str, node: &Node, variants: &[Named], around: &Surroundings<'_>) -> Targeting {
        let entries = match &node.kind {
            NodeKind::Null => return Targeting::None,
            NodeKind::Object(entries) if entries.is_empty() => return Targeting::None,
            NodeKind::Object(entries) => entries,
            _ => return self.broken(node.at, format!("a rule is an object, not {}", node.describe()), None),
        };
        if let [first, second, ..] = entries.as_slice() {
            let message = format!("a rule is one operator, and here are two: `{}` and `{}`", first.key, second.key);
            return self.broken(node.at, message, Some("combine them with `and` or `if`".to_owned()));
        }
        let compiled = Compiler::new(key, around.bucketing, around.evaluators).compile(node);
        let mut broken = None;
        for finding in compiled.findings {
            if finding.is_fatal {
                broken.get_or_insert_with(|| finding.message.clone());
            }
            let severity = if finding.is_fatal { Severity::Flag } else { Severity::Warning };
            self.say(severity, finding.at, finding.message, finding.hint);
        }
        if let Some(why) = broken {
            return Targeting::Broken(why);
        }
        let mut said = HashSet::new();
        for (name, at) in results::of(node, around.evaluators) {
            if variants.iter().all(|(known, _)| **known != *name) && said.insert(name.clone()) {
                let hint = variant_hint(&name, variants);
                self.say(Severity::Warning, at, format!("the rule can answer `{name}`, which is none of the variants"), Some(hint));
            }
        }
        Targeting::Rule(compiled.rule)
    }

    fn broken(&mut self, at: usize, message: String, hint: Option<String>) -> Targeting {
        self.say(Severity::Flag, at, message.clone(), hint);
        Targeting::Broken(message)
    }
}

fn variant_hint(name: &str, variants: &[Named]) -> String {
    let names = || variants.iter().map(|(name, _)| &**name);
    did_you_mean(name, names()).unwrap_or_else(|| {
        let list: Vec<_> = names().take(10).map(|name| format!("`{name}`")).collect();
        format!("the variants are {}", list.join(", "))
    })
}
