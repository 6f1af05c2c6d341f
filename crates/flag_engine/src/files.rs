//! Watched files of flags: read when they change, refused when they are wrong.
//!
//! **Invariant**: what was good stays in force until something good replaces it, also over a restart.
//! Not here: publishing (registry).

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flags::Bucketing;
use serde_json::{Map, Value};

use crate::effective::FromFiles;

/// Larger ones are no flags.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One file, as it was last seen.
pub(crate) struct Watched {
    pub(crate) path: PathBuf,
    stamp: Option<Stamp>,
    /// As it was at the last look, when that was another than what was read.
    changing: Option<Stamp>,
    /// In force: flags and evaluators.
    pub(crate) good: Option<Good>,
    /// Why what stands there now is not in force.
    pub(crate) problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Good {
    pub(crate) flags: Map<String, Value>,
    pub(crate) evaluators: Map<String, Value>,
    /// Since when each flag stands there as it does; wall clock, milliseconds since 1970.
    #[serde(default)]
    pub(crate) since_ms: BTreeMap<String, u64>,
}

impl Good {
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        self.flags == other.flags && self.evaluators == other.evaluators
    }

    /// What is not in `before` as it is here is so since `now_ms`.
    pub(crate) fn dated(mut self, before: Option<&Self>, now_ms: u64) -> Self {
        let same = before.filter(|before| before.evaluators == self.evaluators);
        let since = |key: &String, flag: &Value| {
            let known = same.filter(|before| before.flags.get(key) == Some(flag)).and_then(|before| before.since_ms.get(key).copied());
            (key.clone(), known.unwrap_or(now_ms))
        };
        self.since_ms = self.flags.iter().map(|(key, flag)| since(key, flag)).collect();
        self
    }
}

#[derive(PartialEq, Eq, Clone, Copy)]
struct Stamp(i64, i64, u64, u64);

impl Watched {
    pub(crate) fn new(path: PathBuf, good: Option<Good>) -> Self {
        Self { path, stamp: None, changing: None, good, problem: None }
    }

    /// What stands there, if it has changed since it was last looked at.
    pub(crate) fn look(&mut self, bucketing: Bucketing) -> Option<Result<Good, String>> {
        let stamp = std::fs::metadata(&self.path).ok().map(|it| Stamp(it.mtime(), it.mtime_nsec(), it.ino(), it.size()));
        // One that is gone is told once, and its flags stay: a file is being replaced, or somebody made a mistake.
        if stamp == self.stamp && (stamp.is_some() || self.problem.is_some()) {
            return None;
        }
        // Half of a file may be valid, with flags missing: one that is being written is left alone until a look finds it unchanged.
        if self.good.is_some() && self.stamp.is_some() && stamp.is_some() && self.changing != stamp {
            self.changing = stamp;
            return None;
        }
        (self.stamp, self.changing) = (stamp, None);
        Some(read(&self.path, bucketing))
    }
}

fn read(path: &Path, bucketing: Bucketing) -> Result<Good, String> {
    let shown = path.display();
    let about = std::fs::metadata(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    // Who opens a pipe waits for somebody who writes, and a device has no end.
    if !about.is_file() {
        return Err(format!("{shown} is no regular file"));
    }
    if about.len() > FILE_BYTES_MAX {
        return Err(format!("{shown} has more than {FILE_BYTES_MAX} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    parse(&text, path, bucketing)
}

/// Reads a file's `text`; messages say file, line and column.
pub(crate) fn parse(text: &str, path: &Path, bucketing: Bucketing) -> Result<Good, String> {
    let is_yaml = path.extension().is_some_and(|it| it == "yaml" || it == "yml");
    let set = if is_yaml { flags::Set::from_yaml(text, bucketing) } else { flags::Set::from_json(text, bucketing) };
    let told = |problems: &mut dyn Iterator<Item = &flags::Problem>| {
        let told: Vec<String> = problems.map(|problem| format!("{}:{problem}", path.display())).collect();
        told.join("\n")
    };
    let set = set.map_err(|problems| told(&mut problems.iter()))?;
    // flagd serves the rest; here a flag that could never be answered is a mistake like any other.
    let mut broken = set.warnings().iter().filter(|it| it.severity == flags::Severity::Flag).peekable();
    if broken.peek().is_some() {
        return Err(told(&mut broken));
    }
    let mut document: Value = serde_json::from_str(set.document()).map_err(|error| format!("{}: {error}", path.display()))?;
    let object = |value: Value| match value {
        Value::Object(object) => object,
        // The form with keys inside.
        Value::Array(list) => list.into_iter().filter_map(with_key).collect(),
        _ => Map::new(),
    };
    Ok(Good { flags: object(document["flags"].take()), evaluators: object(document["$evaluators"].take()), since_ms: BTreeMap::new() })
}

fn with_key(mut flag: Value) -> Option<(String, Value)> {
    let key = flag.as_object_mut()?.remove("key")?;
    Some((key.as_str()?.to_owned(), flag))
}

/// All files of an environment, added up. The error names what stands in two of them.
pub(crate) fn sum<'a>(files: impl Iterator<Item = (&'a Path, &'a Good)>) -> Result<FromFiles, String> {
    let mut sum = FromFiles::default();
    let mut seen: BTreeMap<&str, &Path> = BTreeMap::new();
    for (path, good) in files {
        for (key, flag) in &good.flags {
            if let Some(other) = seen.insert(key, path) {
                return Err(format!("flag `{key}` stands in {} and in {}", other.display(), path.display()));
            }
            sum.flags.insert(key.clone(), flag.clone());
            sum.since_ms.insert(key.clone(), good.since_ms.get(key).copied().unwrap_or_default());
        }
        for (name, rule) in &good.evaluators {
            if sum.evaluators.insert(name.clone(), rule.clone()).is_some_and(|other| other != *rule) {
                return Err(format!("evaluator `{name}` of {} stands differently in another file", path.display()));
            }
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_as_old_as_its_last_change() {
        let good = |text: &str, before: Option<&Good>, now_ms| {
            parse(text, Path::new("flags.json"), Bucketing::V2).expect("a set").dated(before, now_ms)
        };
        let flag = |value: u8| format!(r#"{{"state": "ENABLED", "variants": {{"a": {value}}}, "defaultVariant": "a"}}"#);
        let first = good(&format!(r#"{{"flags": {{"x": {}, "y": {}}}}}"#, flag(1), flag(1)), None, 100);
        let next = good(&format!(r#"{{"flags": {{"y": {}, "x": {}, "z": {}}}}}"#, flag(2), flag(1), flag(1)), Some(&first), 200);
        let since: Vec<u64> = ["x", "y", "z"].map(|key| next.since_ms[key]).into();
        assert_eq!(since, [100, 200, 200]);
        assert!(next.says_the_same(&good(&format!(r#"{{"flags": {{"x": {}, "y": {}, "z": {}}}}}"#, flag(1), flag(2), flag(1)), None, 300)));
    }

    #[test]
    fn a_mistake_has_its_place() {
        let text = "{\"flags\": {\n  \"x\": {\"state\": \"ENABLED\", \"variants\": {\"on\": true}, \"defaultVariant\": \"onn\"}}}";
        let error = parse(text, Path::new("flags.json"), Bucketing::V2).expect_err("no such variant");
        assert!(error.starts_with("flags.json:2:") && error.contains("did you mean `on`?"), "{error}");
        let rule = text.replace("\"onn\"", "\"on\", \"targeting\": {\"iff\": []}");
        assert!(parse(&rule, Path::new("flags.json"), Bucketing::V2).expect_err("no such operator").starts_with("flags.json:2:"));
    }
}
