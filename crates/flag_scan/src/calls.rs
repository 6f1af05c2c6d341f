//! The names under which SDKs ask for a flag, in the spellings of their languages.
//!
//! Names are compared without case, `_`, a closing `?` or `!`, and without `Async`: `get_boolean_value`, `GetBooleanValueAsync`
//! and `getBooleanValue` are one name.
//!
//! Not here: reading the call around a place (`surroundings`).

use std::collections::HashSet;

/// OpenFeature's types, as the SDKs of its languages name them.
const TYPES: [&str; 13] =
    ["bool", "boolean", "string", "number", "int", "integer", "long", "double", "float", "object", "struct", "json", "variant"];

/// What stands around the type. OpenFeature: Java, JavaScript, Python, C#, PHP, Rust, Swift and Kotlin (`get…Value`), Ruby
/// (`fetch_…_value`), Go (`…Value`), React (`use…FlagValue`). LaunchDarkly: `…Variation`.
const TYPED: [(&str, &str); 12] = [
    ("get", "value"),
    ("get", "details"),
    ("fetch", "value"),
    ("fetch", "details"),
    ("", "value"),
    ("", "value details"),
    ("use", "flag value"),
    ("use", "flag details"),
    ("use suspense", "flag value"),
    ("", "variation"),
    ("", "variation detail"),
    ("evaluate", ""),
];

/// Names that nothing but flags has.
const SPECIFIC: [&str; 20] = [
    "use flag",
    "use suspense flag",
    "use feature flag",
    "use feature is on",
    "use feature value",
    "use feature",
    "is feature enabled",
    "is flag enabled",
    "feature enabled",
    "feature is on",
    "flag enabled",
    "get feature flag",
    "get feature value",
    "has feature",
    "has feature flag",
    "feature flag",
    "feature gate",
    "check gate",
    "variation detail",
    "evaluate flag",
];

/// Names that others have, too: for an unknown key, more is asked of the call (`unknown`).
const SHARED: [&str; 6] = ["is enabled", "enabled", "is on", "variation", "get variant", "is disabled"];

/// How far a name alone says that a flag is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// Only flags are asked for like this.
    Specific,
    /// Typed getters: settings and rows have them, too, but without a default value.
    Typed,
    /// `isEnabled`: buttons and loggers have it, too.
    Shared,
}

pub(crate) struct Calls {
    specific: HashSet<String>,
    typed: HashSet<String>,
    shared: HashSet<String>,
    spellings: Vec<String>,
    additional: Vec<String>,
}

impl Calls {
    /// `additional`: names of wrappers, such as `feature`.
    pub(crate) fn new(additional: &[String]) -> Self {
        let typed: Vec<String> = TYPED
            .iter()
            .flat_map(|(before, after)| TYPES.iter().map(move |kind| format!("{before} {kind} {after}").trim().to_owned()))
            .collect();
        let written = typed.iter().map(String::as_str).chain(SPECIFIC).chain(SHARED);
        let mut spellings: Vec<String> = written.flat_map(spell).collect();
        spellings.extend(additional.iter().cloned());
        spellings.sort_unstable();
        spellings.dedup();
        Self {
            specific: SPECIFIC.iter().copied().chain(additional.iter().map(String::as_str)).map(plain).collect(),
            typed: typed.iter().map(|name| plain(name)).collect(),
            shared: SHARED.iter().map(|name| plain(name)).collect(),
            spellings,
            additional: additional.to_vec(),
        }
    }

    /// As they stand in code, for the search.
    pub(crate) fn spellings(&self) -> &[String] {
        &self.spellings
    }

    /// Whether a flag is asked for by a call of this name.
    pub(crate) fn certainty(&self, name: &[u8]) -> Option<Certainty> {
        // Hooks (`useFlag`) are JavaScript's; `use_feature` is of Rust's build scripts.
        if name.starts_with(b"use_") && !self.additional.iter().any(|additional| additional.as_bytes() == name) {
            return None;
        }
        let name = plain(&String::from_utf8_lossy(name));
        let name = name.strip_suffix("async").unwrap_or(&name);
        if self.specific.contains(name) {
            Some(Certainty::Specific)
        } else if self.typed.contains(name) {
            Some(Certainty::Typed)
        } else if self.shared.contains(name) {
            Some(Certainty::Shared)
        } else {
            None
        }
    }
}

fn plain(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn spell(name: &str) -> Vec<String> {
    let words: Vec<&str> = name.split_whitespace().collect();
    let capital = |word: &str| word.chars().next().into_iter().flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect::<String>();
    let pascal: String = words.iter().map(|word| capital(word)).collect();
    let camel: String = words.iter().take(1).map(|word| (*word).to_owned()).chain(words.iter().skip(1).map(|word| capital(word))).collect();
    let snake = words.join("_");
    // A word alone, such as `enabled`, is asked as `enabled?` (Ruby) or `Enabled(` (Go).
    vec![format!("{pascal}Async"), format!("{camel}Async"), format!("{snake}_async"), pascal, camel, snake]
}

#[cfg(test)]
mod tests {
    use super::{Calls, Certainty};

    #[test]
    fn the_spellings_of_a_name_are_one_name() {
        let calls = Calls::new(&["feature".to_owned()]);
        for name in [
            "getBooleanValue",
            "GetBooleanValueAsync",
            "get_boolean_value",
            "get_boolean_value_async",
            "BooleanValue",
            "fetch_integer_value",
        ] {
            assert_eq!(calls.certainty(name.as_bytes()), Some(Certainty::Typed), "{name}");
        }
        assert_eq!(calls.certainty(b"enabled?"), Some(Certainty::Shared));
        assert_eq!(calls.certainty(b"feature"), Some(Certainty::Specific));
        assert_eq!(calls.certainty(b"useFlag"), Some(Certainty::Specific));
        assert_eq!([calls.certainty(b"getUser"), calls.certainty(b"use_feature")], [None; 2]);
        assert!(calls.spellings().iter().any(|spelling| spelling == "get_bool_value"));
    }
}
