//! A flag set's text as a tree that remembers where everything stood.
//!
//! **Invariant:** numbers and the order of names stay as authored, and nothing is nested deeper than [`DEPTH_MAX`].
//! Not here: what the tree means (`read`, `logic`).

mod json;
mod write;
mod yaml;

use std::fmt;

pub(crate) use json::read as read_json;
pub(crate) use yaml::read as read_yaml;

/// Bytes of one set. flagd's own transports carry 4 MiB; this leaves room for reading more than can be sent.
pub(crate) const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Objects and lists within each other. Below serde_json's limit of 128, so that every set that stands can be read by others.
pub(crate) const DEPTH_MAX: usize = 120;

/// A value and where it begins, in bytes.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) at: usize,
    pub(crate) kind: NodeKind,
}

#[derive(Debug, Clone)]
pub(crate) enum NodeKind {
    Null,
    Bool(bool),
    /// A JSON number as written; finite.
    Number(Box<str>),
    Text(Box<str>),
    List(Vec<Node>),
    Object(Vec<Entry>),
}

/// A name of an object; unique within it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Box<str>,
    pub(crate) at: usize,
    pub(crate) value: Node,
}

/// Why a text cannot be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) at: usize,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// A tree, and the names that stood twice in one object: the last one counts.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: Node,
    pub(crate) is_json: bool,
    pub(crate) twice: Vec<(usize, Box<str>)>,
}

impl Node {
    pub(crate) fn entries(&self) -> Option<&[Entry]> {
        match &self.kind {
            NodeKind::Object(entries) => Some(entries),
            _ => None,
        }
    }

    pub(crate) fn items(&self) -> Option<&[Node]> {
        match &self.kind {
            NodeKind::List(items) => Some(items),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Of an object, by name.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries()?.iter().find(|entry| &*entry.key == key).map(|entry| &entry.value)
    }

    /// For messages.
    pub(crate) fn describe(&self) -> &'static str {
        match self.kind {
            NodeKind::Null => "null",
            NodeKind::Bool(_) => "a boolean",
            NodeKind::Number(_) => "a number",
            NodeKind::Text(_) => "a text",
            NodeKind::List(_) => "a list",
            NodeKind::Object(_) => "an object",
        }
    }
}

impl fmt::Display for Node {
    /// Compact JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write::json(self, f)
    }
}

/// Line and column of byte `at`, both from 1; columns are characters.
pub(crate) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
