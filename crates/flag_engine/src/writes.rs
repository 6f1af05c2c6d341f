//! What a request makes of the flags: pure, so that it can be tried before it is kept.
//!
//! **Invariant**: what is returned is complete; nothing was changed yet. Not here: keeping it, publishing it (registry).

use std::collections::{BTreeMap, BTreeSet};

use model::Rejected;
use serde_json::{Map, Value, json};

use crate::effective::{FromFiles, Sources};
use crate::flag::{Archived, Definition, Flag, Life, Origin, Requirement, Settings};
use crate::request::{Action, Create, WantedLife};
use crate::trial::{Trial, without_trial};

/// A temporary flag ends then unless something else is said.
pub(crate) const LIFE_DEFAULT_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// Keys stand in paths, logs and code.
const KEY_CHARS_MAX: usize = 200;
/// More is a list, not a choice.
const VARIANTS_MAX: usize = 100;

/// What is there before a write.
#[derive(Clone, Copy)]
pub(crate) struct Before<'a> {
    pub(crate) sources: Sources<'a>,
    pub(crate) environments: &'a [&'a FromFiles],
    /// Those that there are; a flag has settings of others too, that may come back.
    pub(crate) names: &'a [&'a str],
    pub(crate) now_ms: u64,
    /// Of the change that this becomes.
    pub(crate) number: u64,
}

/// The flag as it becomes; what the answer and the history say.
pub(crate) struct Write {
    pub(crate) flag: Flag,
    pub(crate) said: String,
}

impl Before<'_> {
    fn flags(&self) -> &BTreeMap<String, Flag> {
        self.sources.flags
    }

    fn is_in_a_file(&self, key: &str) -> bool {
        self.environments.iter().any(|files| files.flags.contains_key(key))
    }

    /// The flag's record; one that stands in a file only gets one.
    pub(crate) fn flag(&self, key: &str) -> Result<Flag, Rejected> {
        if let Some(flag) = self.flags().get(key) {
            return Ok(flag.clone());
        }
        if self.is_in_a_file(key) {
            return Ok(Flag::of_file(key, self.now_ms));
        }
        let near = near(key, self.flags().keys().chain(self.environments.iter().flat_map(|files| files.flags.keys())));
        let hint = near.map_or("see `changeover flags list`, or make it with `changeover flags create`".to_owned(), |near| {
            format!("did you mean `{near}`?")
        });
        Err(Rejected::new("not_found", format!("there is no flag `{key}`")).hint(hint))
    }

    /// A flag that is not archived, and what this environment makes of it.
    pub(crate) fn living(&self, key: &str) -> Result<(Flag, Settings), Rejected> {
        let flag = self.flag(key)?;
        if flag.archived.is_some() {
            let hint = format!("take it back with `changeover flags restore {key}`");
            return Err(Rejected::new("conflict", format!("`{key}` is archived")).hint(hint));
        }
        if matches!(flag.origin, Origin::File) && !self.sources.files.flags.contains_key(key) {
            let environment = self.sources.environment;
            return Err(Rejected::new("not_found", format!("no file of environment `{environment}` has the flag `{key}`")));
        }
        let settings = flag.settings(self.sources.environment);
        Ok((flag, settings))
    }

    pub(crate) fn put(&self, mut flag: Flag, settings: Settings, said: String) -> Write {
        let settings = Settings { changed_ms: self.now_ms, ..settings };
        flag.environments.insert(self.sources.environment.to_owned(), settings);
        Write { flag, said }
    }

    pub(crate) fn variants(&self, key: &str) -> Vec<String> {
        let of = self.sources.defined(key);
        let names = of.as_ref().and_then(|flag| flag.get("variants")?.as_object()).map(|all| all.keys().cloned().collect());
        names.unwrap_or_default()
    }

    pub(crate) fn has_variant(&self, key: &str, variant: &str) -> Result<(), Rejected> {
        let variants = self.variants(key);
        if variants.iter().any(|name| name == variant) {
            return Ok(());
        }
        let hint = near(variant, variants.iter()).map_or_else(
            || format!("it has {}", variants.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        Err(Rejected::new("invalid", format!("`{key}` has no variant `{variant}`")).hint(hint))
    }

    /// Who needs `key` in an environment that there is.
    pub(crate) fn dependents(&self, key: &str) -> Vec<String> {
        let here = |flag: &Flag, name: &str| flag.environments.get(name).is_some_and(|it| it.requires.iter().any(|it| it.flag == key));
        let needs = |flag: &&Flag| flag.archived.is_none() && self.names.iter().any(|name| here(flag, name));
        self.flags().values().filter(needs).map(|flag| flag.key.clone()).collect()
    }

    /// Everything that concerns one flag and needs no history.
    pub(crate) fn write(&self, action: &Action, who: &str) -> Result<Write, Rejected> {
        let environment = self.sources.environment;
        match action {
            Action::Create(create) => self.create(create),
            Action::Describe { key, owner, description, life } => {
                let mut flag = self.flag(key)?;
                if matches!(flag.origin, Origin::File) {
                    return Err(in_a_file(key, "its owner and its end stand in its metadata there"));
                }
                flag.owner = owner.clone().or(flag.owner);
                flag.description = description.clone().or(flag.description);
                if let Some(life) = life {
                    flag.life = self.life(life, flag.owner.as_deref())?;
                }
                Ok(Write { flag, said: format!("{key}: described") })
            }
            Action::On { key } => {
                let (flag, settings) = self.living(key)?;
                let defined = self.sources.defined(key).unwrap_or_default();
                let has_rule = defined["targeting"].as_object().is_some_and(|rule| !rule.is_empty()) || !settings.requires.is_empty();
                let is_shared = settings.trial.as_ref().is_some_and(Trial::is_running);
                let said = match defined["defaultVariant"].as_str() {
                    Some(serve) if !has_rule && !is_shared => {
                        format!("{key} is on in {environment}: everybody gets `{serve}`")
                    }
                    _ => format!("{key} is on in {environment}"),
                };
                Ok(self.put(flag, Settings { on: true, ..settings }, said))
            }
            Action::Off { key } => {
                let (flag, settings) = self.living(key)?;
                let answer = self.sources.off_variant(key).map_or("the code's default".to_owned(), |off| format!("`{off}`"));
                let said = format!("{key} is off in {environment}: everybody gets {answer}");
                let settings = without_trial(settings, &format!("by {who}"), self.now_ms);
                Ok(self.put(flag, Settings { on: false, ..settings }, said))
            }
            Action::Target { key, targeting, serve } => self.target(key, targeting.as_ref(), serve.as_deref()),
            Action::Require { key, flag, variants, unmet } => self.require(key, flag, variants, unmet.as_deref()),
            Action::Unrequire { key, flag: other } => {
                let (flag, mut settings) = self.living(key)?;
                if settings.trial.as_ref().is_some_and(Trial::is_running) {
                    return Err(watched(key));
                }
                let before = settings.requires.len();
                settings.requires.retain(|requirement| requirement.flag != *other);
                if settings.requires.len() == before {
                    return Err(Rejected::new("not_found", format!("`{key}` does not need `{other}` in {environment}")));
                }
                Ok(self.put(flag, settings, format!("{key} does not need {other} any more in {environment}")))
            }
            Action::Restore { key } => {
                let mut flag = self.flag(key)?;
                if flag.archived.take().is_none() {
                    return Err(Rejected::new("conflict", format!("`{key}` is not archived")));
                }
                Ok(Write { flag, said: format!("{key} is back") })
            }
            Action::Archive { key, force } => {
                let mut flag = self.archivable(key)?;
                flag.archived = Some(Archived { at_ms: self.now_ms, forced: *force });
                Ok(Write { flag, said: format!("{key} is archived: whoever asks gets the code's default, and is counted") })
            }
            Action::Rollout(wanted) => self.rollout(wanted, self.number),
            Action::Experiment(wanted) => self.experiment(wanted, self.number),
            Action::Pause { key } => self.pause_trial(key, true, who),
            Action::Resume { key } => self.pause_trial(key, false, who),
            Action::End { key, keep } => self.end_trial(key, keep.as_deref(), who),
            Action::Revert { .. } | Action::Bucketing { .. } => Err(Rejected::new("invalid", "this is no write to one flag")),
        }
    }

    pub(crate) fn archivable(&self, key: &str) -> Result<Flag, Rejected> {
        let flag = self.flag(key)?;
        if flag.archived.is_some() {
            return Err(Rejected::new("conflict", format!("`{key}` is archived already")));
        }
        if matches!(flag.origin, Origin::File) {
            return Err(in_a_file(key, "take it out of the file instead"));
        }
        let is_watched = |name: &&&str| flag.environments.get(**name).is_some_and(|it| it.trial.as_ref().is_some_and(Trial::is_running));
        if let Some(environment) = self.names.iter().find(is_watched) {
            let hint = format!("end it first: changeover flags end {key} --environment {environment}");
            return Err(Rejected::new("conflict", format!("users of `{key}` are watched in {environment}")).hint(hint));
        }
        let dependents = self.dependents(key);
        if !dependents.is_empty() {
            let hint = format!("first `changeover flags unrequire {} {key}`", dependents[0]);
            return Err(Rejected::new("conflict", format!("{} needs `{key}`", dependents.join(", "))).hint(hint));
        }
        Ok(flag)
    }

    fn create(&self, create: &Create) -> Result<Write, Rejected> {
        let key = create.key.as_str();
        let good = (1..=KEY_CHARS_MAX).contains(&key.len())
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:".contains(&b))
            && key.as_bytes()[0].is_ascii_alphanumeric();
        if !good {
            let hint = format!("1 to {KEY_CHARS_MAX} of a-z, A-Z, 0-9, `.`, `_`, `-`, `/` and `:`, such as `new-scoring-algorithm`");
            return Err(Rejected::new("invalid", format!("`{key}` cannot be the key of a flag")).hint(hint));
        }
        if let Some(flag) = self.flags().get(key).filter(|flag| matches!(flag.origin, Origin::Store(_))) {
            let archived = if flag.archived.is_some() { " (archived)" } else { "" };
            return Err(Rejected::new("conflict", format!("there is a flag `{key}` already{archived}")));
        }
        if self.is_in_a_file(key) {
            return Err(in_a_file(key, "change it there"));
        }
        let life = self.life(&create.life, create.owner.as_deref())?;
        let definition = definition(create)?;
        let environments: BTreeMap<String, Settings> = BTreeMap::new();
        let flag = Flag {
            key: key.to_owned(),
            origin: Origin::Store(definition),
            owner: create.owner.clone(),
            description: create.description.clone(),
            life,
            created_ms: self.now_ms,
            archived: None,
            environments,
        };
        Ok(Write { flag, said: format!("{key} is there, off everywhere") })
    }

    fn life(&self, wanted: &WantedLife, owner: Option<&str>) -> Result<Life, Rejected> {
        let has_owner = owner.is_some_and(|owner| !owner.trim().is_empty());
        match wanted {
            WantedLife::KillSwitch => Ok(Life::KillSwitch),
            WantedLife::Permanent { reason } if reason.trim().is_empty() => {
                let hint = "say why it has no end, such as --permanent \"a customer's contract\"";
                Err(Rejected::new("invalid", "a permanent flag needs a reason").hint(hint))
            }
            WantedLife::Permanent { reason } => Ok(Life::Permanent { reason: reason.clone() }),
            WantedLife::Temporary { .. } if !has_owner => {
                let hint = "say who takes it out again, such as --owner ana; or --permanent REASON, or --kill-switch";
                Err(Rejected::new("invalid", "a temporary flag needs an owner").hint(hint))
            }
            WantedLife::Temporary { expires_ms: Some(at) } if *at <= self.now_ms => {
                Err(Rejected::new("invalid", "its end is in the past").hint("such as --expires 30d"))
            }
            WantedLife::Temporary { expires_ms } => Ok(Life::Temporary { expires_ms: expires_ms.unwrap_or(self.now_ms + LIFE_DEFAULT_MS) }),
        }
    }

    fn target(&self, key: &str, targeting: Option<&Value>, serve: Option<&str>) -> Result<Write, Rejected> {
        let (flag, mut settings) = self.living(key)?;
        if targeting.is_some() && matches!(flag.origin, Origin::File) {
            return Err(in_a_file(key, "change its rules there"));
        }
        if settings.trial.as_ref().is_some_and(|trial| trial.is_running()) {
            return Err(watched(key));
        }
        if let Some(serve) = serve {
            self.has_variant(key, serve)?;
            settings.serve = Some(serve.to_owned());
        }
        if let Some(targeting) = targeting {
            let is_none = targeting.is_null() || targeting.as_object().is_some_and(Map::is_empty);
            settings.targeting = (!is_none).then(|| targeting.clone());
        }
        let on = if settings.on { "" } else { "; it is off: changeover flags on " };
        let said = format!("{key}: rules changed in {}{on}{}", self.sources.environment, if settings.on { "" } else { key });
        Ok(self.put(flag, settings, said))
    }

    /// Whether the last flag of `way` needs `key` in this environment, over whichever others, on or off; `way` is how.
    fn leads_to(&self, key: &str, way: &mut Vec<String>, seen: &mut BTreeSet<String>) -> bool {
        let Some(last) = way.last().cloned() else { return false };
        if last == key {
            return true;
        }
        for requirement in self.sources.settings(&last).requires {
            if !seen.insert(requirement.flag.clone()) {
                continue;
            }
            way.push(requirement.flag);
            if self.leads_to(key, way, seen) {
                return true;
            }
            way.pop();
        }
        false
    }

    fn require(&self, key: &str, other: &str, variants: &[String], unmet: Option<&str>) -> Result<Write, Rejected> {
        let (flag, mut settings) = self.living(key)?;
        if settings.trial.as_ref().is_some_and(Trial::is_running) {
            return Err(watched(key));
        }
        self.living(other)?;
        if variants.is_empty() {
            return Err(Rejected::new("invalid", format!("which variant of `{other}` does `{key}` need?")).hint("such as --variant on"));
        }
        for variant in variants {
            self.has_variant(other, variant)?;
        }
        if let Some(unmet) = unmet {
            self.has_variant(key, unmet)?;
            settings.unmet = Some(unmet.to_owned());
        }
        let mut way = vec![other.to_owned()];
        if self.leads_to(key, &mut way, &mut BTreeSet::new()) {
            let circle = format!("a circle of prerequisites: {key} → {}", way.join(" → "));
            return Err(Rejected::new("invalid", circle).hint("none of them could ever be answered: let one need another flag, or none"));
        }
        settings.requires.retain(|requirement| requirement.flag != other);
        settings.requires.push(Requirement { flag: other.to_owned(), variants: variants.to_vec() });
        let said = format!("{key} needs {other} = {} in {}", variants.join(" or "), self.sources.environment);
        Ok(self.put(flag, settings, said))
    }
}

fn watched(key: &str) -> Rejected {
    let hint = format!("end it first: changeover flags end {key}");
    Rejected::new("conflict", format!("users of `{key}` are watched: its rules must stay as they are")).hint(hint)
}

fn in_a_file(key: &str, what: &str) -> Rejected {
    Rejected::new("conflict", format!("`{key}` stands in a watched file")).hint(what)
}

fn definition(create: &Create) -> Result<Definition, Rejected> {
    let invalid = |message: String, hint: &str| Err(Rejected::new("invalid", message).hint(hint));
    let variants =
        create.variants.clone().unwrap_or_else(|| Map::from_iter([("on".to_owned(), json!(true)), ("off".to_owned(), json!(false))]));
    if variants.is_empty() || variants.len() > VARIANTS_MAX {
        return invalid(
            format!("a flag has 1 to {VARIANTS_MAX} variants"),
            "such as --variant blue=\\\"#00f\\\" --variant red=\\\"#f00\\\"",
        );
    }
    let kind = |value: &Value| match value {
        Value::Bool(_) => "boolean",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Object(_) => "object",
        Value::Null | Value::Array(_) => "none of these",
    };
    let kinds: BTreeSet<&str> = variants.values().map(kind).collect();
    if kinds.len() != 1 || kinds.contains("none of these") {
        return invalid("the variants must all be booleans, strings, numbers or objects".to_owned(), "one type per flag");
    }
    let named = |wanted: &Option<String>, found: Option<String>| match wanted {
        Some(name) if variants.contains_key(name) => Ok(Some(name.clone())),
        Some(name) => {
            let names = variants.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            Err(Rejected::new("invalid", format!("there is no variant `{name}`")).hint(format!("there are {names}")))
        }
        None => Ok(found),
    };
    let is_false = |name: &&String| variants[*name] == Value::Bool(false);
    let off = variants.keys().find(is_false).or_else(|| variants.keys().find(|name| *name == "off")).cloned();
    let off = named(&create.off, off)?;
    let others: Vec<&String> = variants.keys().filter(|name| Some(*name) != off.as_ref()).collect();
    let on = others.iter().find(|name| **name == "on").or(others.first().filter(|_| others.len() == 1)).map(|name| (*name).clone());
    let Some(on) = named(&create.on, on)? else {
        return invalid("which variant does it answer when it is on?".to_owned(), "say it with --on VARIANT");
    };
    Ok(Definition { variants, on, off, metadata: Map::new() })
}

/// The name that was most likely meant.
pub(crate) fn near<'a>(name: &str, names: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let (far, closest) = names.map(|other| (strsim::levenshtein(name, other), other)).min_by_key(|(far, _)| *far)?;
    (far <= 1 + name.len() / 5).then_some(closest)
}
