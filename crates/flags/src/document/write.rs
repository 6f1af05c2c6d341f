//! A tree as compact JSON, and as plain values.
//!
//! **Invariant:** numbers are written as they were authored. Not here: reading.

use std::fmt;

use serde_json::{Map, Value};

use super::{Node, NodeKind};

pub(super) fn json(node: &Node, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match &node.kind {
        NodeKind::Null => f.write_str("null"),
        NodeKind::Bool(value) => write!(f, "{value}"),
        NodeKind::Number(number) => f.write_str(number),
        NodeKind::Text(value) => text(value, f),
        NodeKind::List(items) => {
            f.write_str("[")?;
            for (place, item) in items.iter().enumerate() {
                comma(place, f)?;
                json(item, f)?;
            }
            f.write_str("]")
        }
        NodeKind::Object(entries) => {
            f.write_str("{")?;
            for (place, entry) in entries.iter().enumerate() {
                comma(place, f)?;
                text(&entry.key, f)?;
                f.write_str(":")?;
                json(&entry.value, f)?;
            }
            f.write_str("}")
        }
    }
}

fn comma(place: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if place > 0 { f.write_str(",") } else { Ok(()) }
}

fn text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
}

impl Node {
    pub(crate) fn value(&self) -> Value {
        match &self.kind {
            NodeKind::Null => Value::Null,
            NodeKind::Bool(value) => Value::Bool(*value),
            NodeKind::Number(number) => serde_json::from_str(number).unwrap_or_default(),
            NodeKind::Text(text) => Value::String(text.to_string()),
            NodeKind::List(items) => items.iter().map(Node::value).collect(),
            NodeKind::Object(_) => Value::Object(self.map()),
        }
    }

    /// Empty for anything but an object.
    pub(crate) fn map(&self) -> Map<String, Value> {
        self.entries().unwrap_or_default().iter().map(|entry| (entry.key.to_string(), entry.value.value())).collect()
    }
}
