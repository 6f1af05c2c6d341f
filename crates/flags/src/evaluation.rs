//! What comes of an evaluation, in OpenFeature's words.
//!
//! **Invariant:** `STATIC` is only said of a flag without a rule, because clients keep such answers. Not here: evaluating (`set`).

use crate::{Flag, Variant};

/// Why this variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The flag has no rule.
    Static,
    /// The rule decided nothing.
    Default,
    /// The rule chose the variant.
    TargetingMatch,
    /// The flag is switched off: the default in the code applies.
    Disabled,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "STATIC",
            Self::Default => "DEFAULT",
            Self::TargetingMatch => "TARGETING_MATCH",
            Self::Disabled => "DISABLED",
        }
    }
}

/// An answer. Without `value`, the default in the asking code applies.
#[derive(Debug, Clone, Copy)]
pub struct Evaluation<'a> {
    pub flag: &'a Flag,
    pub variant: Option<&'a str>,
    pub value: Option<&'a Variant>,
    pub reason: Reason,
}

/// Why there is no answer; the default in the asking code applies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    #[error("there is no flag `{0}`")]
    FlagNotFound(String),
    /// The rule cannot be evaluated at all; `Set::warnings` says where.
    #[error("{0}")]
    ParseError(String),
    #[error("{0}")]
    General(String),
}

impl EvaluationError {
    /// OpenFeature's error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::FlagNotFound(_) => "FLAG_NOT_FOUND",
            Self::ParseError(_) => "PARSE_ERROR",
            Self::General(_) => "GENERAL",
        }
    }
}
