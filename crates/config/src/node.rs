//! YAML as a tree of positioned nodes. Scalars keep the text as written (`1.10` stays `1.10`).

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, SnippetMode, Spanned, UserMessageFormatter};

/// Deeper nesting than any valid file has; keeps the recursion small.
const DEPTH_MAX: usize = 32;

/// Bytes of the file's text.
#[derive(Debug, Clone, Default)]
pub(crate) struct At(pub(crate) Range<usize>);

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Nothing,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) at: At,
    pub(crate) text: String,
}

impl Kind {
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

pub(crate) fn read(text: &str) -> Result<Node, (At, String)> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX },
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(node(raw, text)),
        Err(error) => Err(explain(&error, text)),
    }
}

fn explain(error: &serde_saphyr::Error, text: &str) -> (At, String) {
    let location = error.location().unwrap_or(Location::UNKNOWN);
    let message = error.render_with_options(serde_saphyr::render_options! {
        formatter: &UserMessageFormatter,
        snippets: SnippetMode::Off,
    });
    let message = message.split(" at line ").next().unwrap_or_default().replace('\n', " ");
    (at(location, text), message)
}

/// What the YAML library hands us, before positions become bytes.
enum Raw {
    Nothing,
    /// A number or a switch: its text is in the file.
    Written,
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<RawKey>, Spanned<Raw>)>),
}

/// The text of a key; `None` for a number or a switch.
struct RawKey(Option<String>);

fn node(raw: Spanned<Raw>, text: &str) -> Node {
    let kind = match raw.value {
        Raw::Nothing => Kind::Nothing,
        Raw::Written => Kind::Scalar(written(raw.defined, text)),
        Raw::Text(value) => Kind::Scalar(value),
        Raw::List(items) => Kind::List(items.into_iter().map(|item| node(item, text)).collect()),
        Raw::Map(entries) => Kind::Map(entries.into_iter().map(|(k, v)| (key(k, text), node(v, text))).collect()),
    };
    Node { at: at(raw.referenced, text), kind }
}

fn key(raw: Spanned<RawKey>, text: &str) -> Key {
    let written = || written(raw.defined, text);
    Key { at: at(raw.referenced, text), text: raw.value.0.unwrap_or_else(written) }
}

fn written(location: Location, text: &str) -> String {
    text.get(at(location, text).0).unwrap_or_default().trim().to_owned()
}

/// The location's bytes, without blanks at the end.
fn at(location: Location, text: &str) -> At {
    let span = location.span();
    let (Some(start), Some(length)) = (span.byte_offset(), span.byte_len()) else { return At(start_of(location, text)) };
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    let length = usize::try_from(length).unwrap_or(0);
    match text.get(start..start.saturating_add(length)) {
        Some(covered) => At(start..start + covered.trim_end().len()),
        None => At(start_of(location, text)),
    }
}

fn start_of(location: Location, text: &str) -> Range<usize> {
    let line = usize::try_from(location.line().saturating_sub(1)).unwrap_or(0);
    let column = usize::try_from(location.column().saturating_sub(1)).unwrap_or(0);
    let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let inside: usize = text[before..].chars().take(column).map(char::len_utf8).sum();
    before + inside..before + inside
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

impl<'de> Deserialize<'de> for RawKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Raw::deserialize(deserializer)? {
            Raw::Text(text) => Ok(Self(Some(text))),
            Raw::Written => Ok(Self(None)),
            Raw::Nothing | Raw::List(_) | Raw::Map(_) => Err(serde::de::Error::custom("a key must be a plain word")),
        }
    }
}

struct RawVisitor;

macro_rules! written {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Raw, E> {
            Ok(Raw::Written)
        })*
    };
}

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    written!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64);

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}
