//! JSON as protobuf's `Struct`, and back (protobuf's JSON mapping).
//!
//! **Invariant**: a whole number comes back as an integer, for `Struct` knows only floating point. Not here: the calls (`remote.rs`).

use flags::Context;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as Proto};
use serde_json::{Map, Value};

use crate::evaluate::INTEGER_MAX;

pub(crate) fn from_context(context: &Context) -> Struct {
    Struct { fields: context.iter().map(|(name, value)| (name.to_owned(), from_json(value))).collect() }
}

fn from_json(value: &Value) -> Proto {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(truth) => Kind::BoolValue(*truth),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(from_json).collect() }),
        Value::Object(fields) => {
            Kind::StructValue(Struct { fields: fields.iter().map(|(name, value)| (name.clone(), from_json(value))).collect() })
        }
    };
    Proto { kind: Some(kind) }
}

/// How deep a message may be nested is bounded by its decoder.
pub(crate) fn to_object(fields: Struct) -> Map<String, Value> {
    fields.fields.into_iter().map(|(name, value)| (name, to_json(value))).collect()
}

fn to_json(value: Proto) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(truth)) => Value::Bool(truth),
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() <= INTEGER_MAX => Value::from(number as i64),
        Some(Kind::NumberValue(number)) => Value::from(number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(to_json).collect(),
        Some(Kind::StructValue(fields)) => Value::Object(to_object(fields)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let context = Context::of("u").with("age", 30).with("share", 0.5).with("tags", serde_json::json!(["a", {"b": null, "c": true}]));
        let back = Value::Object(to_object(from_context(&context)));
        assert_eq!(back, serde_json::json!({"targetingKey": "u", "age": 30, "share": 0.5, "tags": ["a", {"b": null, "c": true}]}));
    }
}
