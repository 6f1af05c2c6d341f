//! What comes of asking for a flag: values, details, errors.
//!
//! **Invariant**: whoever asks gets a value of the asked type, whatever goes wrong; what went wrong stands beside it.
//! Not here: choosing a variant (crate `flags`), where sets come from (`stream.rs`).

use flags::Variant;
use serde_json::{Map, Value};

/// OpenFeature's words for why a value was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Static,
    Default,
    TargetingMatch,
    Split,
    Cached,
    Disabled,
    Unknown,
    Error,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "STATIC",
            Self::Default => "DEFAULT",
            Self::TargetingMatch => "TARGETING_MATCH",
            Self::Split => "SPLIT",
            Self::Cached => "CACHED",
            Self::Disabled => "DISABLED",
            Self::Unknown => "UNKNOWN",
            Self::Error => "ERROR",
        }
    }

    /// As a server says it.
    pub(crate) fn of(text: &str) -> Self {
        let all = [Self::Static, Self::Default, Self::TargetingMatch, Self::Split, Self::Cached, Self::Disabled, Self::Error];
        all.into_iter().find(|reason| reason.as_str() == text).unwrap_or(Self::Unknown)
    }
}

impl From<flags::Reason> for Reason {
    fn from(reason: flags::Reason) -> Self {
        match reason {
            flags::Reason::Static => Self::Static,
            flags::Reason::Default => Self::Default,
            flags::Reason::TargetingMatch => Self::TargetingMatch,
            flags::Reason::Disabled => Self::Disabled,
        }
    }
}

/// Why the value is the default in the code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    #[error("no flags have come from the server yet")]
    NotReady,
    #[error("there is no flag `{0}`")]
    FlagNotFound(String),
    #[error("the flag `{key}` is not {asked}")]
    TypeMismatch { key: String, asked: &'static str },
    #[error("{0}")]
    ParseError(String),
    #[error("{0}")]
    General(String),
    #[error("the server did not answer in time")]
    TimedOut,
    #[error("the server cannot be asked: {0}")]
    Unreachable(String),
}

impl EvaluationError {
    /// OpenFeature's error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotReady => "PROVIDER_NOT_READY",
            Self::FlagNotFound(_) => "FLAG_NOT_FOUND",
            Self::TypeMismatch { .. } => "TYPE_MISMATCH",
            Self::ParseError(_) => "PARSE_ERROR",
            Self::General(_) | Self::TimedOut | Self::Unreachable(_) => "GENERAL",
        }
    }
}

impl From<flags::EvaluationError> for EvaluationError {
    fn from(error: flags::EvaluationError) -> Self {
        match error {
            flags::EvaluationError::FlagNotFound(key) => Self::FlagNotFound(key),
            flags::EvaluationError::ParseError(what) => Self::ParseError(what),
            other => Self::General(other.to_string()),
        }
    }
}

/// A value and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Details<T> {
    pub value: T,
    /// Nothing if the value is the code's default.
    pub variant: Option<String>,
    pub reason: Reason,
    pub error: Option<EvaluationError>,
    /// The flag's, with the set's where the flag says nothing.
    pub metadata: Map<String, Value>,
}

impl<T> Details<T> {
    pub(crate) fn error(default: T, error: EvaluationError) -> Self {
        Self { value: default, variant: None, reason: Reason::Error, error: Some(error), metadata: Map::new() }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for bool {}
    impl Sealed for String {}
    impl Sealed for i64 {}
    impl Sealed for f64 {}
    impl Sealed for serde_json::Value {}
}

/// The types of flags: `bool`, `String`, `i64`, `f64`, and `serde_json::Value` for objects.
pub trait FlagValue: sealed::Sealed + Sized {
    /// With its article.
    #[doc(hidden)]
    const NAME: &'static str;

    /// Nothing if the variant has another type.
    #[doc(hidden)]
    fn of(variant: &Variant) -> Option<Self>;
}

impl FlagValue for bool {
    const NAME: &'static str = "a boolean";
    fn of(variant: &Variant) -> Option<Self> {
        variant.as_bool()
    }
}

impl FlagValue for String {
    const NAME: &'static str = "a string";
    fn of(variant: &Variant) -> Option<Self> {
        variant.as_str().map(str::to_owned)
    }
}

/// Up to here every integer has a floating-point number of its own.
pub(crate) const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// Also for `10.0`, which loses nothing; not for `10.5`.
impl FlagValue for i64 {
    const NAME: &'static str = "an integer";
    fn of(variant: &Variant) -> Option<Self> {
        let whole = |number: &f64| number.fract() == 0.0 && number.abs() <= INTEGER_MAX;
        variant.as_i64().or_else(|| variant.as_f64().filter(whole).map(|number| number as i64))
    }
}

impl FlagValue for f64 {
    const NAME: &'static str = "a number";
    fn of(variant: &Variant) -> Option<Self> {
        variant.as_f64()
    }
}

/// Objects and lists.
impl FlagValue for Value {
    const NAME: &'static str = "an object";
    fn of(variant: &Variant) -> Option<Self> {
        variant.json().starts_with(['{', '[']).then(|| variant.value())
    }
}
