//! What can be asked of the caretaker of flags.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::trial::{WantedExperiment, WantedRollout};

/// Somebody wants something changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub who: String,
    /// Kept in the history.
    pub why: Option<String>,
    /// Needed where there are several, by actions that concern one.
    pub environment: Option<String>,
    /// Who asks may change this environment only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_to: Option<String>,
    pub action: Action,
}

/// Times are wall clock, milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Create(Create),
    Describe {
        key: String,
        owner: Option<String>,
        description: Option<String>,
        life: Option<WantedLife>,
    },
    On {
        key: String,
    },
    Off {
        key: String,
    },
    /// `targeting`: JsonLogic, null for none. `serve`: whom no rule decides for gets this variant.
    Target {
        key: String,
        targeting: Option<Value>,
        serve: Option<String>,
    },
    Require {
        key: String,
        flag: String,
        variants: Vec<String>,
        unmet: Option<String>,
    },
    Unrequire {
        key: String,
        flag: String,
    },
    Rollout(WantedRollout),
    Experiment(WantedExperiment),
    /// Nobody new gets the variant, until it is resumed.
    Pause {
        key: String,
    },
    Resume {
        key: String,
    },
    /// Ends a rollout or an experiment; `keep`: everybody gets this variant, else the one there was before.
    End {
        key: String,
        keep: Option<String>,
    },
    Archive {
        key: String,
        force: bool,
    },
    Restore {
        key: String,
    },
    /// Makes the flag what it was before that change.
    Revert {
        change: u64,
        force: bool,
    },
    /// `rebucket`: also while a rollout or an experiment runs.
    Bucketing {
        to: flags::Bucketing,
        rebucket: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Create {
    pub key: String,
    /// `on: true, off: false` when absent.
    pub variants: Option<Map<String, Value>>,
    /// Served when it is on; `on`, or the only other variant, when absent.
    pub on: Option<String>,
    /// Served when it is off; the variant that is `false`, or `off`, when absent.
    pub off: Option<String>,
    pub owner: Option<String>,
    pub description: Option<String>,
    pub life: WantedLife,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WantedLife {
    /// 30 days when no end is given.
    Temporary {
        expires_ms: Option<u64>,
    },
    Permanent {
        reason: String,
    },
    KillSwitch,
}

impl Action {
    /// What the history calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Describe { .. } => "describe",
            Self::On { .. } => "on",
            Self::Off { .. } => "off",
            Self::Target { .. } => "target",
            Self::Require { .. } => "require",
            Self::Unrequire { .. } => "unrequire",
            Self::Rollout(_) => "rollout",
            Self::Experiment(_) => "experiment",
            Self::Pause { .. } => "pause",
            Self::Resume { .. } => "resume",
            Self::End { .. } => "end",
            Self::Archive { .. } => "archive",
            Self::Restore { .. } => "restore",
            Self::Revert { .. } => "revert",
            Self::Bucketing { .. } => "bucketing",
        }
    }

    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Create(Create { key, .. })
            | Self::Describe { key, .. }
            | Self::On { key }
            | Self::Off { key }
            | Self::Target { key, .. }
            | Self::Require { key, .. }
            | Self::Unrequire { key, .. }
            | Self::Rollout(WantedRollout { key, .. })
            | Self::Experiment(WantedExperiment { key, .. })
            | Self::Pause { key }
            | Self::Resume { key }
            | Self::End { key, .. }
            | Self::Archive { key, .. }
            | Self::Restore { key } => Some(key),
            Self::Revert { .. } | Self::Bucketing { .. } => None,
        }
    }

    /// It concerns the flag in all environments.
    pub fn is_everywhere(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Describe { .. } | Self::Archive { .. } | Self::Restore { .. })
    }

    /// Nobody has to agree: it takes something back, or changes no answer.
    pub fn needs_no_second(&self) -> bool {
        matches!(self, Self::Off { .. } | Self::Pause { .. } | Self::End { keep: None, .. } | Self::Create(_) | Self::Describe { .. })
    }
}
