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
    sources.key(key).map_or(Ok(None), |key| sources.served(key, &mut Vec::new()))
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

    fn key(self, key: &str) -> Option<&'a str> {
        let ours = self.flags.get(key).filter(|flag| matches!(flag.origin, Origin::Store(_))).map(|flag| flag.key.as_str());
        ours.or_else(|| self.files.flags.get_key_value(key).map(|(key, _)| key.as_str()))
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
        let Some(key) = self.key(key) else { return Ok(None) };
        self.guarded(key, flag, &settings, &mut Vec::new()).map(Some)
    }

    fn needed<'s>(self, settings: &'s Settings, path: &mut Vec<&'a str>) -> Result<Vec<(&'s crate::flag::Requirement, Value)>, String> {
        let mut needed = Vec::new();
        for requirement in &settings.requires {
            let key = self.key(&requirement.flag).ok_or_else(|| missing(path, &requirement.flag))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flag::{Archived, Definition, Life, Requirement};

    const ENVIRONMENT: &str = "production";

    fn flag(key: &str, requires: &[&str]) -> Flag {
        let variants = Map::from_iter([("on".to_owned(), json!(true)), ("off".to_owned(), json!(false))]);
        let definition = Definition { variants, on: "on".to_owned(), off: Some("off".to_owned()), metadata: Map::new() };
        let origin = Origin::Store(definition);
        let requires = requires.iter().map(|flag| Requirement { flag: (*flag).to_owned(), variants: vec!["on".to_owned()] });
        let settings = Settings { on: true, requires: requires.collect(), ..origin.settings(0) };
        Flag {
            key: key.to_owned(),
            origin,
            life: Life::KillSwitch,
            environments: [(ENVIRONMENT.to_owned(), settings)].into(),
            ..Flag::of_file(key, 0)
        }
    }

    /// What `sources` of these answer for `key`; the error of the document.
    fn check(flags: &[Flag], files: &FromFiles, key: &str, expected: Result<Option<&str>, &str>) {
        let flags: BTreeMap<String, Flag> = flags.iter().map(|flag| (flag.key.clone(), flag.clone())).collect();
        let sources = Sources { environment: ENVIRONMENT, flags: &flags, files, bucketing: Bucketing::V2 };
        let answered = document(sources).map(|document| {
            let set = flags::Set::from_json(&document.to_string(), Bucketing::V2).expect("a set");
            set.evaluate(key, &flags::Context::of("ana"), 0).ok().and_then(|it| it.variant.map(str::to_owned))
        });
        let said = answered.as_ref().map(Option::as_deref).map_err(String::as_str);
        match (said, expected) {
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (said, expected) => assert_eq!(said, expected, "{key}"),
        }
    }

    fn with(mut flag: Flag, change: impl FnOnce(&mut Settings)) -> Flag {
        change(flag.environments.entry(ENVIRONMENT.to_owned()).or_insert_with(|| flag.origin.settings(0)));
        flag
    }

    #[test]
    fn off_wins_over_rules_and_archived_over_everything() {
        let none = FromFiles::default();
        let rule = |it: &mut Settings| it.targeting = Some(json!({ "if": [true, "on", null] }));
        check(&[flag("a", &[])], &none, "a", Ok(Some("on")));
        check(&[with(flag("a", &[]), rule)], &none, "a", Ok(Some("on")));
        check(&[with(with(flag("a", &[]), rule), |it| it.on = false)], &none, "a", Ok(Some("off")));
        check(&[with(flag("a", &[]), |it| it.serve = Some("off".to_owned()))], &none, "a", Ok(Some("off")));
        let archived = Flag { archived: Some(Archived { at_ms: 1, forced: false }), ..flag("a", &[]) };
        check(&[archived], &none, "a", Ok(None));
    }

    #[test]
    fn a_flag_answers_as_those_that_it_needs_allow() {
        let none = FromFiles::default();
        let off = |it: &mut Settings| it.on = false;
        check(&[flag("a", &["b"]), flag("b", &[])], &none, "a", Ok(Some("on")));
        check(&[flag("a", &["b"]), with(flag("b", &[]), off)], &none, "a", Ok(Some("off")));
        check(&[flag("a", &["b"]), flag("b", &["c"]), with(flag("c", &[]), off)], &none, "a", Ok(Some("off")));
        check(&[flag("a", &["b"])], &none, "a", Err("`a` needs the flag `b`, which is not there"));
        check(&[flag("a", &["b"]), flag("b", &["a"])], &none, "a", Err("a circle of prerequisites: a → b → a"));
        // What is off needs nothing.
        check(&[with(flag("a", &["b"]), off)], &none, "a", Ok(Some("off")));
    }

    #[test]
    fn where_one_cannot_be_served_the_others_are() {
        let flags: BTreeMap<String, Flag> = [flag("a", &["gone"]), flag("b", &[])].map(|flag| (flag.key.clone(), flag)).into();
        let files = FromFiles::default();
        let (document, problems) =
            document_of_the_rest(Sources { environment: ENVIRONMENT, flags: &flags, files: &files, bucketing: Bucketing::V2 });
        assert_eq!(
            (document["flags"]["a"]["defaultVariant"].as_str(), document["flags"]["b"]["defaultVariant"].as_str()),
            (Some("off"), Some("on"))
        );
        assert_eq!(problems.len(), 1, "{problems:?}");
    }

    #[test]
    fn a_flag_of_a_file_is_on_until_it_is_switched_off_here() {
        let defined = json!({ "state": "ENABLED", "variants": { "yes": true, "no": false }, "defaultVariant": "yes" });
        let files = FromFiles { flags: [("a".to_owned(), defined)].into(), ..FromFiles::default() };
        check(&[], &files, "a", Ok(Some("yes")));
        check(&[with(Flag::of_file("a", 0), |it| it.on = false)], &files, "a", Ok(Some("no")));
        check(&[Flag::of_file("a", 0)], &FromFiles::default(), "a", Ok(None));
    }
}
