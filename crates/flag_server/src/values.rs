//! JSON to `google.protobuf.Struct` and back.
//!
//! **Invariant**: a number that is whole comes out as JSON's whole number (10, not 10.0): a Struct knows only doubles, and
//! rules that print or hash a number must see what the client wrote.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::{Map, Number};

/// Doubles are exact up to here, 2^53.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
/// Deeper values are cut to null: what reads them is recursive.
const DEPTH_MAX: usize = 64;

pub(crate) fn object(fields: Struct) -> Map<String, serde_json::Value> {
    fields_of(fields, DEPTH_MAX)
}

fn fields_of(fields: Struct, depth: usize) -> Map<String, serde_json::Value> {
    fields.fields.into_iter().map(|(name, value)| (name, json(value, depth))).collect()
}

fn json(value: Value, depth: usize) -> serde_json::Value {
    let (Some(kind), Some(below)) = (value.kind, depth.checked_sub(1)) else { return serde_json::Value::Null };
    match kind {
        Kind::NullValue(_) => serde_json::Value::Null,
        Kind::BoolValue(it) => it.into(),
        Kind::StringValue(it) => it.into(),
        Kind::NumberValue(it) if it.fract() == 0.0 && it.abs() <= WHOLE_MAX => (it as i64).into(),
        Kind::NumberValue(it) => Number::from_f64(it).map_or(serde_json::Value::Null, Into::into),
        Kind::StructValue(it) => fields_of(it, below).into(),
        Kind::ListValue(it) => it.values.into_iter().map(|value| json(value, below)).collect::<Vec<_>>().into(),
    }
}

pub(crate) fn structure(fields: &Map<String, serde_json::Value>) -> Struct {
    Struct { fields: fields.iter().map(|(name, value)| (name.clone(), protobuf(value))).collect() }
}

/// Of an object; anything else has no form as a Struct.
pub(crate) fn structure_of(value: &serde_json::Value) -> Option<Struct> {
    value.as_object().map(structure)
}

fn protobuf(value: &serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(it) => Kind::BoolValue(*it),
        serde_json::Value::Number(it) => it.as_f64().map_or(Kind::NullValue(0), Kind::NumberValue),
        serde_json::Value::String(it) => Kind::StringValue(it.clone()),
        serde_json::Value::Array(it) => Kind::ListValue(ListValue { values: it.iter().map(protobuf).collect() }),
        serde_json::Value::Object(it) => Kind::StructValue(structure(it)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_stay_whole() {
        let authored = serde_json::json!({ "age": 10, "rate": 0.25, "big": 1e300, "list": [true, null, "x", { "deep": -3 }] });
        let there = structure_of(&authored).expect("an object");
        assert_eq!(serde_json::Value::Object(object(there)).to_string(), authored.to_string());
    }
}
