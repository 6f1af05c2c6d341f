//! What an environment serves: definitions with everything that is laid over them, as one document in flagd's format.
//!
//! Switches, rollouts, experiments and prerequisites become plain rules, so that every flagd client obeys them.
//! **Invariant**: pure; the same flags give the same document. Not here: compiling it (flags), publishing it (registry).

use std::collections::{BTreeMap, BTreeSet};

use flags::{Bucketing, Prerequisite, repeatable_shares, with_prerequisites};
use serde_json::{Map, Value, json};

use crate::flag::{Flag, Origin, Settings};

/// Prerequisites of prerequisites; more are a maze.
const DEPTH_MAX: usize = 16;

/// The definitions of the watched files of an environment, added up.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct FromFiles {
    pub(crate) flags: BTreeMap<String, Value>,
    pub(crate) evaluators: Map<String, Value>,
    /// Since when each stands there as it does; wall clock, milliseconds since 1970.
    pub(crate) since_ms: BTreeMap<String, u64>,
}

/// Everything that decides what an environment answers.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'a> {
    pub(crate) environment: &'a str,
    pub(crate) flags: &'a BTreeMap<String, Flag>,
    pub(crate) files: &'a FromFiles,
    pub(crate) bucketing: Bucketing,
}

/// The whole set. Its metadata say nothing that changes by itself: clients would take every flag for changed. The error is for people.
pub(crate) fn document(sources: Sources<'_>) -> Result<Value, String> {
    let mut served = Map::new();
    for key in sources.keys() {
        if let Some(flag) = sources.served(key, &mut Vec::new())? {
            served.insert(key.to_owned(), flag);
        }
    }
    Ok(around(sources, served))
}

/// The same where some flags cannot be served as they should, such as when the file of one that they need is watched no more: those
/// answer what they answer when that is not as needed. With what is wrong, for people.
pub(crate) fn document_of_the_rest(sources: Sources<'_>) -> (Value, Vec<String>) {
    let (mut served, mut problems) = (Map::new(), Vec::new());
    for key in sources.keys() {
        let flag = sources.served(key, &mut Vec::new()).unwrap_or_else(|problem| {
            problems.push(problem);
            let mut flag = sources.defined(key)?;
            switch_off(&mut flag, sources.settings(key).unmet.or_else(|| sources.off_variant(key)));
            Some(flag)
        });
        served.extend(flag.map(|flag| (key.to_owned(), flag)));
    }
    (around(sources, served), problems)
}

/// One flag, as the document has it.
pub(crate) fn definition(sources: Sources<'_>, key: &str) -> Result<Option<Value>, String> {
    let key = sources.keys().get(key).copied();
    key.map_or(Ok(None), |key| sources.served(key, &mut Vec::new()))
}

fn around(sources: Sources<'_>, served: Map<String, Value>) -> Value {
    let metadata = json!({ "flagSetId": sources.environment, "bucketing": sources.bucketing });
    let mut document = Map::from_iter([("flags".to_owned(), Value::Object(served)), ("metadata".to_owned(), metadata)]);
    if !sources.files.evaluators.is_empty() {
        document.insert("$evaluators".to_owned(), Value::Object(sources.files.evaluators.clone()));
    }
    Value::Object(document)
}

impl<'a> Sources<'a> {
    /// All keys of this environment, archived ones too.
    pub(crate) fn keys(self) -> BTreeSet<&'a str> {
        let ours = self.flags.values().filter(|flag| matches!(flag.origin, Origin::Store(_))).map(|flag| flag.key.as_str());
        ours.chain(self.files.flags.keys().map(String::as_str)).collect()
    }

    /// It is one of [`Self::keys`].
    pub(crate) fn has(self, key: &str) -> bool {
        self.flags.get(key).is_some_and(|flag| matches!(flag.origin, Origin::Store(_))) || self.files.flags.contains_key(key)
    }

    pub(crate) fn settings(self, key: &str) -> Settings {
        let of_file = || Origin::File.settings(self.files.since_ms.get(key).copied().unwrap_or_default());
        let kept = self.flags.get(key).filter(|flag| flag.origin != Origin::File || flag.environments.contains_key(self.environment));
        kept.map_or_else(of_file, |flag| flag.settings(self.environment))
    }

    /// The definition alone, in flagd's words: what is answered when it is on and nobody intervenes.
    pub(crate) fn defined(self, key: &str) -> Option<Value> {
        let settings = self.settings(key);
        let Some(Flag { origin: Origin::Store(definition), .. }) = self.flags.get(key) else {
            let mut flag = self.files.flags.get(key)?.clone();
            if let (Some(serve), Some(fields)) = (settings.serve, flag.as_object_mut()) {
                fields.insert("defaultVariant".to_owned(), serve.into());
            }
            return Some(flag);
        };
        let serve = settings.serve.as_ref().unwrap_or(&definition.on);
        let mut flag = json!({ "state": "ENABLED", "variants": definition.variants, "defaultVariant": serve });
        if let Some(targeting) = settings.targeting {
            flag["targeting"] = targeting;
        }
        if !definition.metadata.is_empty() {
            flag["metadata"] = Value::Object(definition.metadata.clone());
        }
        Some(flag)
    }

    /// The variant that is answered when it is off: of a file's flag the one that is `false`.
    pub(crate) fn off_variant(self, key: &str) -> Option<String> {
        if let Some(Flag { origin: Origin::Store(definition), .. }) = self.flags.get(key) {
            return definition.off.clone();
        }
        let variants = self.files.flags.get(key)?.get("variants")?.as_object()?;
        variants.iter().find(|(_, value)| **value == Value::Bool(false)).map(|(name, _)| name.clone())
    }

    /// `path`: the flags that need this one, outermost first.
    fn served(self, key: &'a str, path: &mut Vec<&'a str>) -> Result<Option<Value>, String> {
        if self.flags.get(key).is_some_and(|flag| flag.archived.is_some()) {
            return Ok(None);
        }
        let Some(mut flag) = self.defined(key) else { return Ok(None) };
        let settings = self.settings(key);
        if !settings.on {
            switch_off(&mut flag, self.off_variant(key));
            return Ok(Some(flag));
        }
        if let Some(trial) = settings.trial.as_ref().filter(|trial| trial.is_running()) {
            give_shares(&mut flag, &trial.shares);
            let metadata = flag.as_object_mut().expect("a flag is an object").entry("metadata").or_insert_with(|| json!({}));
            metadata["exposures"] = true.into();
        }
        self.guarded(key, flag, &settings, path).map(Some)
    }

    /// Answered only when the flags that it needs answer as they should.
    fn guarded(self, key: &'a str, flag: Value, settings: &Settings, path: &mut Vec<&'a str>) -> Result<Value, String> {
        if settings.requires.is_empty() {
            return Ok(flag);
        }
        path.push(key);
        if path.len() > DEPTH_MAX {
            return Err(format!("`{}` needs flags that need others, more than {DEPTH_MAX} deep", path[0]));
        }
        let needed = self.needed(settings, path)?;
        path.pop();
        let prerequisites: Vec<Prerequisite<'_>> = needed
            .iter()
            .map(|(requirement, flag)| Prerequisite { key: &requirement.flag, flag, variants: &requirement.variants })
            .collect();
        let unmet = settings.unmet.clone().or_else(|| self.off_variant(key));
        let unmet = unmet.ok_or_else(|| format!("`{key}` needs another flag, but has no variant for when that is not as needed"))?;
        with_prerequisites(key, &flag, &prerequisites, &unmet, self.bucketing).map_err(|error| format!("`{key}`: {error}"))
    }

    /// The flag as its rules alone decide it, with a variant for nobody else; absent without rules.
    pub(crate) fn rules_of(self, key: &str) -> Result<Option<Value>, String> {
        let settings = self.settings(key);
        let Some(mut flag) = self.defined(key) else { return Ok(None) };
        let has_rule = flag.get("targeting").and_then(Value::as_object).is_some_and(|rule| !rule.is_empty());
        if !has_rule && settings.requires.is_empty() {
            return Ok(None);
        }
        flag["defaultVariant"] = Value::Null;
        let keys = self.keys();
        let Some(key) = keys.get(key).copied() else { return Ok(None) };
        self.guarded(key, flag, &settings, &mut Vec::new()).map(Some)
    }

    fn needed<'s>(self, settings: &'s Settings, path: &mut Vec<&'a str>) -> Result<Vec<(&'s crate::flag::Requirement, Value)>, String> {
        let keys = self.keys();
        let mut needed = Vec::new();
        for requirement in &settings.requires {
            let key = *keys.get(requirement.flag.as_str()).ok_or_else(|| missing(path, &requirement.flag))?;
            if let Some(start) = path.iter().position(|on_the_way| *on_the_way == key) {
                return Err(format!("a circle of prerequisites: {} → {key}", path[start..].join(" → ")));
            }
            let flag = self.served(key, path)?.ok_or_else(|| missing(path, key))?;
            needed.push((requirement, flag));
        }
        Ok(needed)
    }
}

fn missing(path: &[&str], key: &str) -> String {
    format!("`{}` needs the flag `{key}`, which is not there", path.last().copied().unwrap_or_default())
}

/// The same answer for everybody, without a rule.
fn switch_off(flag: &mut Value, off: Option<String>) {
    let fields = flag.as_object_mut().expect("a flag is an object");
    fields.remove("targeting");
    match off {
        Some(off) => {
            fields.insert("state".to_owned(), "ENABLED".into());
            fields.insert("defaultVariant".to_owned(), off.into());
        }
        None => {
            fields.insert("state".to_owned(), "DISABLED".into());
        }
    }
}

/// Whom no rule decides for falls into shares; whoever has no targeting key gets the last variant, which is what there was before.
fn give_shares(flag: &mut Value, shares: &[(String, u32)]) {
    let fields = flag.as_object_mut().expect("a flag is an object");
    let shared = repeatable_shares(shares);
    let rule = match fields.remove("targeting") {
        Some(Value::Object(rule)) if !rule.is_empty() => {
            let rule = Value::Object(rule);
            // A rule may answer a boolean, which names a variant, too.
            json!({ "if": [{ "===": [rule, null] }, shared, { "cat": [rule] }] })
        }
        _ => shared,
    };
    fields.insert("targeting".to_owned(), rule);
    if let Some((last, _)) = shares.last() {
        fields.insert("defaultVariant".to_owned(), last.as_str().into());
    }
}
