//! What a flag can answer.
//!
//! **Invariant:** the text of a variant is as its author wrote it: `10.0` never becomes `10`. Not here: choosing one (`set`).

use serde_json::Value;

/// The type that all variants of a flag share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    String,
    Number,
    Object,
}

impl Kind {
    /// Lower case, as flagd's schema says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Number => "number",
            Self::Object => "object",
        }
    }

    /// Nothing for `null`. A list counts as an object, as the typed evaluation of every provider takes it.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::Bool(_) => Some(Self::Boolean),
            Value::String(_) => Some(Self::String),
            Value::Number(_) => Some(Self::Number),
            Value::Array(_) | Value::Object(_) => Some(Self::Object),
        }
    }
}

/// One value that a flag can answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    json: Box<str>,
    value: Value,
}

impl Variant {
    pub(crate) fn new(json: impl Into<Box<str>>, value: Value) -> Self {
        Self { json: json.into(), value }
    }

    /// JSON, exactly as authored.
    pub fn json(&self) -> &str {
        &self.json
    }

    pub fn as_bool(&self) -> Option<bool> {
        self.value.as_bool()
    }

    pub fn as_str(&self) -> Option<&str> {
        self.value.as_str()
    }

    /// Only for what was written as an integer: not for `10.0`.
    pub fn as_i64(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// Any number.
    pub fn as_f64(&self) -> Option<f64> {
        self.value.as_f64()
    }

    /// A copy, for objects and lists.
    pub fn value(&self) -> Value {
        self.value.clone()
    }
}
