//! YAML with positions; the only place that knows the YAML library.
//!
//! **Invariant:** what comes out is what JSON can say, numbers as written wherever JSON can write them so. Not here: JSON.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, SnippetMode, Spanned, UserMessageFormatter};

use super::{BYTES_MAX, DEPTH_MAX, Document, Entry, Node, NodeKind, Unreadable};

pub(crate) fn read(text: &str) -> Result<Document, Unreadable> {
    if text.len() > BYTES_MAX {
        let message = format!("the flag set has {} bytes; {BYTES_MAX} are the most", text.len());
        return Err(Unreadable { at: 0, message, hint: None });
    }
    let options = serde_saphyr::options! {
        with_snippet: false,
        // `on` and `off` are names of variants, and YAML 1.2 takes them for texts.
        strict_booleans: true,
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX },
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(Document { root: node(raw, text)?, is_json: false, twice: Vec::new() }),
        Err(error) => Err(explain(&error, text)),
    }
}

fn explain(error: &serde_saphyr::Error, text: &str) -> Unreadable {
    let location = error.location().unwrap_or(Location::UNKNOWN);
    let message = error.render_with_options(serde_saphyr::render_options! {
        formatter: &UserMessageFormatter,
        snippets: SnippetMode::Off,
    });
    let message = message.split(" at line ").next().unwrap_or_default().replace('\n', " ");
    Unreadable { at: byte(location, text), message, hint: None }
}

/// What the YAML library hands us, before positions become bytes.
enum Raw {
    Null,
    Bool(bool),
    Whole(i128),
    Real(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Object(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

fn node(raw: Spanned<Raw>, text: &str) -> Result<Node, Unreadable> {
    let at = byte(raw.referenced, text);
    let kind = match raw.value {
        Raw::Null => NodeKind::Null,
        Raw::Bool(value) => NodeKind::Bool(value),
        Raw::Whole(number) => NodeKind::Number(as_written(raw.defined, text).unwrap_or_else(|| number.to_string().into())),
        Raw::Real(number) if !number.is_finite() => {
            let hint = Some("write it in quotes if a text is meant".to_owned());
            return Err(Unreadable { at, message: "JSON has no such number".to_owned(), hint });
        }
        Raw::Real(number) => NodeKind::Number(as_written(raw.defined, text).unwrap_or_else(|| format!("{number:?}").into())),
        Raw::Text(value) => NodeKind::Text(value.into()),
        Raw::List(items) => NodeKind::List(items.into_iter().map(|item| node(item, text)).collect::<Result<_, _>>()?),
        Raw::Object(entries) => {
            NodeKind::Object(entries.into_iter().map(|(key, value)| entry(key, value, text)).collect::<Result<_, _>>()?)
        }
    };
    Ok(Node { at, kind })
}

fn entry(key: Spanned<Raw>, value: Spanned<Raw>, text: &str) -> Result<Entry, Unreadable> {
    let at = byte(key.referenced, text);
    let name = match key.value {
        Raw::Text(name) => name,
        // `on: true` and `1: …` are names too, as in every other reader of flagd's YAML.
        Raw::Bool(_) | Raw::Whole(_) | Raw::Real(_) => covered(key.defined, text).unwrap_or_default().to_owned(),
        _ => return Err(Unreadable { at, message: "a name must be a plain word".to_owned(), hint: None }),
    };
    Ok(Entry { key: name.into(), at, value: node(value, text)? })
}

/// If JSON can write it so.
fn as_written(location: Location, text: &str) -> Option<Box<str>> {
    let written = covered(location, text)?;
    serde_json::from_str::<serde_json::Number>(written).ok().map(|_| written.into())
}

fn covered(location: Location, text: &str) -> Option<&str> {
    let span = location.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let length = usize::try_from(span.byte_len()?).ok()?;
    text.get(start..start.checked_add(length)?).map(str::trim)
}

fn byte(location: Location, text: &str) -> usize {
    if let Some(at) = location.span().byte_offset() {
        return usize::try_from(at).unwrap_or(0).min(text.len());
    }
    let line = usize::try_from(location.line().saturating_sub(1)).unwrap_or(0);
    let column = usize::try_from(location.column().saturating_sub(1)).unwrap_or(0);
    let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    before + text[before..].chars().take(column).map(char::len_utf8).sum::<usize>()
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

macro_rules! whole {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, number: $type) -> Result<Raw, E> {
            Ok(Raw::Whole(number.into()))
        })*
    };
}

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    whole!(visit_i64: i64, visit_u64: u64, visit_i128: i128);

    fn visit_u128<E>(self, number: u128) -> Result<Raw, E> {
        Ok(i128::try_from(number).map_or(Raw::Real(number as f64), Raw::Whole))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Raw, E> {
        Ok(Raw::Real(number))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
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
        Ok(Raw::Object(entries))
    }
}
