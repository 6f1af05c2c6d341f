//! What is kept of a flag: its definition, its life, and what each environment makes of it. Plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::trial::Trial;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flag {
    pub key: String,
    pub origin: Origin,
    /// Who answers for it, and for its end.
    pub owner: Option<String>,
    pub description: Option<String>,
    pub life: Life,
    /// Wall clock, milliseconds since 1970, as all times here.
    pub created_ms: u64,
    pub archived: Option<Archived>,
    /// What an environment that is not here has: [`Origin::settings`].
    pub environments: BTreeMap<String, Settings>,
}

/// Where its variants and rules are written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Store(Definition),
    /// In a watched file; only what is laid over it is kept here.
    File,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// Name and value; all of one type.
    pub variants: Map<String, Value>,
    /// Served when the flag is on and no rule decides.
    pub on: String,
    /// Served when it is off; the code's default when absent.
    pub off: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

/// A flag without an end needs a reason for that; a kill switch is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    Temporary { expires_ms: u64 },
    Permanent { reason: String },
    KillSwitch,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    pub at_ms: u64,
    /// Although references or recent evaluations were there.
    pub forced: bool,
}

/// What one environment makes of a flag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub on: bool,
    /// JsonLogic that names a variant, or null; for flags of a file the file's counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targeting: Option<Value>,
    /// What no rule decides gets this variant instead of the definition's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve: Option<String>,
    /// Other flags that must answer as said, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Requirement>,
    /// Answered when they do not; what it answers when off, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmet: Option<String>,
    /// A rollout or an experiment, running or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// Since when it answers as it does.
    pub changed_ms: u64,
}

/// Another flag must answer one of `variants`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    pub flag: String,
    pub variants: Vec<String>,
}

impl Origin {
    /// What an environment has that nobody has touched: a flag of ours is off, a file's is as the file says.
    pub fn settings(&self, since_ms: u64) -> Settings {
        let on = matches!(self, Self::File);
        Settings { on, targeting: None, serve: None, requires: Vec::new(), unmet: None, trial: None, changed_ms: since_ms }
    }
}

impl Flag {
    pub fn settings(&self, environment: &str) -> Settings {
        self.environments.get(environment).cloned().unwrap_or_else(|| self.origin.settings(self.created_ms))
    }

    /// A record for what is laid over a flag of a file.
    pub fn of_file(key: &str, now_ms: u64) -> Self {
        Self {
            key: key.to_owned(),
            origin: Origin::File,
            owner: None,
            description: None,
            life: Life::Permanent { reason: "its file says how long it lives".to_owned() },
            created_ms: now_ms,
            archived: None,
            environments: BTreeMap::new(),
        }
    }

    pub fn is_expired(&self, now_ms: u64) -> bool {
        matches!(self.life, Life::Temporary { expires_ms } if expires_ms <= now_ms) && self.archived.is_none()
    }
}

/// When a file's flag has outlived its use: its metadata `expires`, a date or a time (ISO 8601), or milliseconds since 1970. A date
/// ends with its last moment, in UTC.
pub fn expires_ms(metadata: &Map<String, Value>) -> Option<u64> {
    let expires = metadata.get("expires")?;
    if let Some(text) = expires.as_str() {
        let moment = text.parse::<jiff::Timestamp>().ok().or_else(|| {
            let next = text.parse::<jiff::civil::Date>().ok()?.tomorrow().ok()?;
            jiff::tz::TimeZone::UTC.to_timestamp(next.at(0, 0, 0, 0)).ok()
        });
        return moment.map(|at| at.as_millisecond().max(0) as u64);
    }
    expires.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_date_a_time_or_a_number() {
        let check = |expires: Value, expected: Option<u64>| {
            let metadata = Map::from_iter([("expires".to_owned(), expires.clone())]);
            assert_eq!(expires_ms(&metadata), expected, "{expires}");
        };
        check("2026-12-31".into(), Some(1_798_761_600_000));
        check("2026-12-31T00:00:00Z".into(), Some(1_798_675_200_000));
        check(1_798_675_200_000_u64.into(), Some(1_798_675_200_000));
        check("soon".into(), None);
        check(Value::Null, None);
    }
}
