//! Between OpenFeature's types and ours.
//!
//! **Invariant**: nothing of a context is changed: integers stay integers, times are RFC 3339. What has no form in JSON is left out.
//! Not here: evaluations (`mod.rs`).

use std::any::Any;

use flags::Context;
use open_feature::{
    EvaluationContext, EvaluationContextFieldValue as Field, EvaluationError, EvaluationErrorCode, EvaluationReason, FlagMetadata,
    FlagMetadataValue, StructValue, Value as OfValue,
};
use serde_json::{Map, Value};
use time::format_description::well_known::Rfc3339;

use crate::evaluate::{self, Reason};

pub(super) fn context(from: &EvaluationContext) -> Context {
    let start = from.targeting_key.as_ref().map_or_else(Context::new, Context::of);
    from.custom_fields.iter().filter_map(|(name, field)| Some((name, json_of(field)?))).fold(start, |context, (name, value)| {
        // OpenFeature has a place of its own for the targeting key, which wins.
        if name == "targetingKey" && from.targeting_key.is_some() { context } else { context.with(name, value) }
    })
}

fn json_of(field: &Field) -> Option<Value> {
    match field {
        Field::Bool(truth) => Some(Value::Bool(*truth)),
        Field::Int(number) => Some(Value::from(*number)),
        Field::Float(number) => Some(Value::from(*number)),
        Field::String(text) => Some(Value::String(text.clone())),
        Field::DateTime(time) => time.format(&Rfc3339).ok().map(Value::String),
        Field::Struct(any) => json_of_any(&**any),
    }
}

/// The SDK takes any type as a structure; these can be read.
fn json_of_any(any: &(dyn Any + Send + Sync)) -> Option<Value> {
    if let Some(value) = any.downcast_ref::<Value>() {
        return Some(value.clone());
    }
    if let Some(fields) = any.downcast_ref::<Map<String, Value>>() {
        return Some(Value::Object(fields.clone()));
    }
    if let Some(fields) = any.downcast_ref::<StructValue>() {
        return Some(json_of_fields(fields));
    }
    any.downcast_ref::<OfValue>().map(json_of_value)
}

fn json_of_fields(fields: &StructValue) -> Value {
    Value::Object(fields.fields.iter().map(|(name, value)| (name.clone(), json_of_value(value))).collect())
}

fn json_of_value(value: &OfValue) -> Value {
    match value {
        OfValue::Bool(truth) => Value::Bool(*truth),
        OfValue::Int(number) => Value::from(*number),
        OfValue::Float(number) => Value::from(*number),
        OfValue::String(text) => Value::String(text.clone()),
        OfValue::Array(items) => items.iter().map(json_of_value).collect(),
        OfValue::Struct(fields) => json_of_fields(fields),
    }
}

/// Fields that are `null` are left out, for the SDK has no such value.
pub(super) fn structure(fields: &Map<String, Value>) -> StructValue {
    StructValue { fields: fields.iter().filter_map(|(name, value)| Some((name.clone(), value_of(value)?))).collect() }
}

fn value_of(value: &Value) -> Option<OfValue> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(truth) => OfValue::Bool(*truth),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => OfValue::Int(whole),
            None => OfValue::Float(number.as_f64()?),
        },
        Value::String(text) => OfValue::String(text.clone()),
        Value::Array(items) => OfValue::Array(items.iter().filter_map(value_of).collect()),
        Value::Object(fields) => OfValue::Struct(structure(fields)),
    })
}

/// The SDK's metadata is flat.
pub(super) fn metadata(fields: &Map<String, Value>) -> FlagMetadata {
    let flat = |value: &Value| match value {
        Value::Bool(truth) => Some(FlagMetadataValue::Bool(*truth)),
        Value::Number(number) => number.as_i64().map(FlagMetadataValue::Int).or_else(|| number.as_f64().map(FlagMetadataValue::Float)),
        Value::String(text) => Some(FlagMetadataValue::String(text.clone())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    FlagMetadata { values: fields.iter().filter_map(|(name, value)| Some((name.clone(), flat(value)?))).collect() }
}

pub(super) fn reason(reason: Reason) -> EvaluationReason {
    match reason {
        Reason::Static => EvaluationReason::Static,
        Reason::Default => EvaluationReason::Default,
        Reason::TargetingMatch => EvaluationReason::TargetingMatch,
        Reason::Split => EvaluationReason::Split,
        Reason::Cached => EvaluationReason::Cached,
        Reason::Disabled => EvaluationReason::Disabled,
        Reason::Unknown => EvaluationReason::Unknown,
        Reason::Error => EvaluationReason::Error,
    }
}

pub(super) fn error(error: &evaluate::EvaluationError) -> EvaluationError {
    let code = match error {
        evaluate::EvaluationError::NotReady => EvaluationErrorCode::ProviderNotReady,
        evaluate::EvaluationError::FlagNotFound(_) => EvaluationErrorCode::FlagNotFound,
        evaluate::EvaluationError::TypeMismatch { .. } => EvaluationErrorCode::TypeMismatch,
        evaluate::EvaluationError::ParseError(_) => EvaluationErrorCode::ParseError,
        other => EvaluationErrorCode::General(other.code().to_owned()),
    };
    EvaluationError { code, message: Some(error.to_string()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn a_context_keeps_its_types() {
        let from = EvaluationContext::default()
            .with_targeting_key("user-1")
            .with_custom_field("targetingKey", "another")
            .with_custom_field("age", 30)
            .with_custom_field("share", 0.5)
            .with_custom_field("member", true)
            .with_custom_field("since", OffsetDateTime::UNIX_EPOCH)
            .with_custom_field("plan", Field::new_struct(StructValue::default().with_field("seats", 3)))
            .with_custom_field("raw", Arc::new(json!({"a": [1]})))
            .with_custom_field("opaque", Arc::new(7_u8));
        let context = context(&from);
        assert_eq!(context.targeting_key(), Some("user-1"));
        let read = |name| context.get(name).cloned();
        assert_eq!(read("age"), Some(json!(30)));
        assert_eq!(read("share"), Some(json!(0.5)));
        assert_eq!(read("member"), Some(json!(true)));
        assert_eq!(read("since"), Some(json!("1970-01-01T00:00:00Z")));
        assert_eq!(read("plan"), Some(json!({"seats": 3})));
        assert_eq!(read("raw"), Some(json!({"a": [1]})));
        assert_eq!(read("opaque"), None);
    }

    #[test]
    fn a_structure_keeps_whole_numbers() {
        let fields = json!({"whole": 3, "part": 0.5, "none": null, "list": [1, "a"], "deep": {"x": true}});
        let value = structure(fields.as_object().expect("an object"));
        assert_eq!(value.fields.get("whole"), Some(&OfValue::Int(3)));
        assert_eq!(value.fields.get("part"), Some(&OfValue::Float(0.5)));
        assert_eq!(value.fields.get("none"), None);
        assert_eq!(json_of_fields(&value), json!({"whole": 3, "part": 0.5, "list": [1, "a"], "deep": {"x": true}}));
    }
}
