//! Which flags changed between two sets, for streams that tell it.
//!
//! **Invariant**: a flag that answers differently is always named; one that answers the same may be named too (its text
//! changed, or a shared rule did).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use flag_engine::Published;
use prost_types::Struct;
use serde::Deserialize;
use serde_json::value::RawValue;

/// All streams of an environment ask for the same few pairs: the newest, and those of readers that lag.
const KEPT_MAX: usize = 8;

/// Computed once per pair of sets, whoever asks.
#[derive(Default)]
pub(crate) struct Changes(Mutex<Vec<Change>>);

struct Change {
    from: Arc<Published>,
    to: Arc<Published>,
    data: Struct,
}

impl Changes {
    /// flagd's form: `{"flags": {"<key>": {"type": "write" | "update" | "delete"}}}`.
    pub(crate) fn between(&self, from: &Arc<Published>, to: &Arc<Published>) -> Struct {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.iter().find(|it| Arc::ptr_eq(&it.from, from) && Arc::ptr_eq(&it.to, to)) {
            return known.data.clone();
        }
        let flags: serde_json::Map<_, _> = changed(&from.set, &to.set)
            .into_iter()
            .map(|(key, kind)| (key.to_owned(), serde_json::json!({ "type": kind, "flagKey": key, "source": &*to.environment })))
            .collect();
        let mut data = serde_json::Map::new();
        data.insert("flags".to_owned(), flags.into());
        let data = crate::values::structure(&data);
        if kept.len() == KEPT_MAX {
            kept.remove(0);
        }
        kept.push(Change { from: from.clone(), to: to.clone(), data: data.clone() });
        data
    }
}

/// A set as text, split only as far as is needed to compare.
#[derive(Deserialize)]
struct Split<'a> {
    #[serde(borrow)]
    flags: BTreeMap<String, &'a RawValue>,
    #[serde(borrow, default, rename = "$evaluators")]
    evaluators: Option<&'a RawValue>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
}

fn changed<'a>(from: &'a flags::Set, to: &'a flags::Set) -> BTreeMap<&'a str, &'static str> {
    let split = |set: &'a flags::Set| serde_json::from_str::<Split<'a>>(set.document()).ok();
    let (old, new) = (split(from), split(to));
    let same = |key: &str| {
        let (Some(old), Some(new)) = (&old, &new) else { return false };
        let text = |raw: Option<&RawValue>| raw.map(|it| it.get().to_owned());
        text(old.evaluators) == text(new.evaluators)
            && text(old.metadata) == text(new.metadata)
            && old.flags.get(key).map(|it| it.get()) == new.flags.get(key).map(|it| it.get())
    };
    let gone = from.flags().filter(|flag| to.flag(flag.key()).is_none()).map(|flag| (flag.key(), "delete"));
    let there = to.flags().filter_map(|flag| match from.flag(flag.key()) {
        None => Some((flag.key(), "write")),
        Some(_) if same(flag.key()) => None,
        Some(_) => Some((flag.key(), "update")),
    });
    gone.chain(there).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> flags::Set {
        flags::Set::from_json(text, flags::Bucketing::V2).expect("a set")
    }

    fn flag(value: bool) -> String {
        format!(r#"{{"state":"ENABLED","variants":{{"x":{value}}},"defaultVariant":"x"}}"#)
    }

    #[test]
    fn what_changed_is_named() {
        let old = set(&format!(r#"{{"flags":{{"a":{},"b":{},"c":{}}}}}"#, flag(true), flag(true), flag(true)));
        let new = set(&format!(r#"{{"flags":{{"a":{},"b":{},"d":{}}}}}"#, flag(true), flag(false), flag(true)));
        let changes = changed(&old, &new);
        assert_eq!(changes.into_iter().collect::<Vec<_>>(), [("b", "update"), ("c", "delete"), ("d", "write")]);
    }

    #[test]
    fn a_shared_rule_changes_every_flag() {
        let with = |rule: &str| set(&format!(r#"{{"flags":{{"a":{}}},"$evaluators":{{"r":{rule}}}}}"#, flag(true)));
        assert_eq!(changed(&with("{\"==\":[1,1]}"), &with("{\"==\":[1,2]}")).len(), 1);
    }
}
