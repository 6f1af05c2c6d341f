//! Whether a key in a configuration file means the flag.
//!
//! A flag's key is often the name of something else, too: a service, an image, a table. So a plain value counts only where the
//! file itself speaks of flags: in its own name, in the name of the entry, or in the entry right above.
//!
//! Not here: code (`literals`).

use crate::key::Form;
use crate::language::Language;
use crate::needles::Hit;
use crate::source::{Place, Source, is_flaggy};
use crate::surroundings::attribute;

/// Entries that name something else than a flag.
const OTHERS: [&[u8]; 16] = [
    b"name",
    b"id",
    b"image",
    b"tag",
    b"tags",
    b"path",
    b"host",
    b"service",
    b"app",
    b"repository",
    b"version",
    b"type",
    b"title",
    b"nameOverride",
    b"uses",
    b"class",
];

/// Prefixes of environment variables for flags.
const PREFIXES: [&[u8]; 8] = [b"FEATURE_", b"FEATURES_", b"FLAG_", b"FLAGS_", b"FF_", b"TOGGLE_", b"ENABLE_", b"FEATURE_FLAG_"];

/// `words`: how many words the key has.
pub(crate) fn counts(source: &Source<'_>, hit: Hit, form: Form, words: usize) -> bool {
    let before = source.slice(source.line_start(hit.start), hit.start);
    if before.ends_with(b"flags/") {
        // An address of the flag: `/ofrep/v1/evaluate/flags/dark-mode`.
        return true;
    }
    if form == Form::Upper {
        let start = source.word_start(hit.start);
        let prefix = source.slice(start, hit.start);
        return if prefix.is_empty() {
            words >= 3 && is_entry(source, hit.end)
        } else {
            PREFIXES.iter().any(|known| prefix.ends_with(known))
        };
    }
    if form != Form::Literal {
        // `newCheckout: true` below `features:`.
        return stands_alone(source, hit) && is_told(source, hit);
    }
    match source.place(hit.start) {
        Place::Text(span) if span.inner != (hit.start, hit.end) => false,
        Place::Text(span) => is_told(source, hit) || words >= 2 && (is_entry(source, span.end) || !is_other(source, span.start)),
        _ => stands_alone(source, hit) && is_told(source, hit),
    }
}

/// A whole word of a list or a value, or a part of a dotted name.
fn stands_alone(source: &Source<'_>, hit: Hit) -> bool {
    let edge = |byte: u8| byte.is_ascii_whitespace() || b",[]{}:=\"'".contains(&byte);
    let dotted = source.language == Language::Properties && source.before(hit.start) == b'.';
    (edge(source.before(hit.start)) || dotted) && edge(source.byte(hit.end))
}

/// Whether it is the name of an entry.
fn is_entry(source: &Source<'_>, end: usize) -> bool {
    let mut at = end;
    while matches!(source.byte(at), b' ' | b'"' | b'\'') {
        at += 1;
    }
    matches!(source.byte(at), b':' | b'=')
}

fn is_other(source: &Source<'_>, start: usize) -> bool {
    let name = attribute(source, start);
    let list = || source.line(source.line_of(start)).trim_ascii_start();
    name.is_some_and(|name| OTHERS.contains(&name)) || OTHERS.iter().any(|name| list().starts_with(name) && list().contains(&b'['))
}

/// Whether the entry speaks of flags: its own name, or the nearest one around it.
fn is_told(source: &Source<'_>, hit: Hit) -> bool {
    let own = source.slice(source.line_start(hit.start), hit.start);
    match source.language {
        Language::Json => parent_in_braces(source, hit.start).is_some_and(is_flaggy),
        Language::Toml => is_flaggy(own) || section(source, hit.start).is_some_and(is_flaggy),
        Language::Properties | Language::Xml => is_flaggy(own) || section(source, hit.start).is_some_and(is_flaggy),
        Language::Hcl => is_flaggy(own) || parent_by_indent(source, hit.start).is_some_and(is_flaggy),
        _ => {
            let name = own.split(|byte| *byte == b':').next().unwrap_or_default();
            own.contains(&b':') && is_flaggy(name)
                || parent_by_indent(source, hit.start).is_some_and(is_flaggy) && !is_other(source, hit.start)
        }
    }
}

/// The line that encloses this one by its indentation. A list may stand at the indentation of its name.
fn parent_by_indent<'a>(source: &Source<'a>, at: usize) -> Option<&'a [u8]> {
    let line = source.line_of(at);
    let own = source.indent(line)?;
    let is_item = |line: usize| source.line(line).trim_ascii_start().starts_with(b"-");
    let item = is_item(line);
    let found = (0..line).rev().find(|above| {
        let indent = source.indent(*above);
        indent.is_some_and(|indent| indent < own || item && indent == own && !is_item(*above))
    })?;
    // Inside of an item, the list's name stands above the item.
    if !item && is_item(found) { parent_by_indent(source, source.start_of(found)) } else { Some(source.line(found)) }
}

/// `[features]` above.
fn section<'a>(source: &Source<'a>, at: usize) -> Option<&'a [u8]> {
    (0..source.line_of(at)).rev().map(|line| source.line(line)).find(|line| line.starts_with(b"["))
}

/// The name of the entry whose value is the object or list around the place; of a value, its own name is the nearest.
fn parent_in_braces<'a>(source: &Source<'a>, at: usize) -> Option<&'a [u8]> {
    let at = match source.place(at) {
        Place::Text(span) => span.start,
        _ => at,
    };
    let own = attribute(source, at);
    if own.is_some() {
        return own;
    }
    let mut depth = 0_usize;
    let mut place = at;
    let mut span = source.spans.partition_point(|span| span.end <= at);
    while place > 0 {
        if let Some(before) = span.checked_sub(1).and_then(|index| source.spans.get(index)).filter(|span| span.end >= place) {
            place = before.start;
            span -= 1;
            continue;
        }
        place -= 1;
        match source.byte(place) {
            b'}' | b']' => depth += 1,
            b'{' | b'[' if depth > 0 => depth -= 1,
            b'{' | b'[' => return attribute(source, place),
            _ => {}
        }
    }
    None
}
