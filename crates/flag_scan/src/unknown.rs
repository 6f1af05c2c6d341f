//! Flag calls whose key nobody knows: mostly typing errors, or flags of another environment.
//!
//! The key is the first argument; the second where the first is Go's context; or the one named `key` or `flagKey`. It is a literal, or
//! a constant of the same file.
//!
//! Not here: keys that are known (`literals`).

use std::sync::LazyLock;

use regex::bytes::Regex;

use crate::calls::Certainty;
use crate::constants::constant;
use crate::language::Language;
use crate::lexer::What;
use crate::needles::Hit;
use crate::source::{Place, Source, is_flaggy};
use crate::surroundings::is_logger;
use crate::tools::Tools;

/// Longer texts are no keys.
const KEY_BYTES_MAX: usize = 200;

/// A key in a flag call, or in the constant that such a call uses.
pub(crate) struct Stranger {
    pub(crate) key: String,
    pub(crate) at: usize,
    pub(crate) through: Option<String>,
    /// The definition of the constant.
    pub(crate) is_definition: bool,
}

static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    regex::bytes::RegexBuilder::new(r"^\{?\s*(?:flagKey|flag_key|key|flag|name)\s*[:=]\s*").unicode(false).build().expect("a fixed pattern")
});

pub(crate) fn strangers(source: &Source<'_>, tools: &Tools<'_>, hit: Hit, out: &mut Vec<Stranger>) {
    let name = source.slice(hit.start, hit.end);
    let Some(certainty) = tools.calls.certainty(name).filter(|_| matches!(source.place(hit.start), Place::Code)) else { return };
    if is_declaration(source, hit) {
        return;
    }
    let Some((start, ends)) = key_argument(source, hit.end) else { return };
    let receiver = source.qualifier(hit.start);
    let enough = match certainty {
        Certainty::Specific => true,
        // A default value follows; a setting or a row has none.
        Certainty::Typed => !ends || receiver.is_some_and(is_flaggy),
        Certainty::Shared => !is_logger(receiver),
    };
    if !enough {
        return;
    }
    match source.place(start) {
        Place::Text(span) if span.what == What::Text => {
            push(source, tools, span.inner, None, false, out);
        }
        Place::Code => {
            let end = source.word_end(start);
            let name = source.slice(start, end);
            // `Flags.DARK` and `f(x)` are somebody else's.
            if name.is_empty() || matches!(source.byte(end), b'.' | b'(' | b':' | b'[') {
                return;
            }
            if let Some(inner) = value_here(source, name, start) {
                let through = String::from_utf8_lossy(name).into_owned();
                if push(source, tools, inner, None, true, out) {
                    out.extend(out.last().map(|known| known.key.clone()).map(|key| Stranger {
                        key,
                        at: start,
                        through: Some(through),
                        is_definition: false,
                    }));
                }
            }
        }
        _ => {}
    }
}

/// `def is_enabled(key="x")`
fn is_declaration(source: &Source<'_>, hit: Hit) -> bool {
    let end = source.back_over_space(hit.start);
    matches!(source.slice(source.word_start(end), end), b"def" | b"fn" | b"func" | b"fun" | b"function")
}

/// Where the argument with the key begins, and whether it is the only one.
fn key_argument(source: &Source<'_>, mut at: usize) -> Option<(usize, bool)> {
    if matches!(source.byte(at), b'?' | b'!') {
        at += 1;
    }
    if source.byte(at) == b'<' {
        at += memchr::memchr(b'>', source.slice(at, (at + 100).min(source.bytes.len())))? + 1;
    }
    let ruby = source.language == Language::Ruby && source.byte(at) == b' ' && matches!(source.byte(at + 1), b'"' | b'\'' | b':');
    if !ruby && source.byte(at) != b'(' {
        return None;
    }
    at = source.on_over_space(at + 1);
    if source.language == Language::Go {
        let (end, more) = argument_end(source, at);
        let first = source.slice(at, end);
        if more && !matches!(source.place(at), Place::Text(_)) && is_context(first) {
            at = source.on_over_space(end + 1);
        }
    }
    if let Some(named) = NAMED.find(source.slice(at, (at + 100).min(source.bytes.len()))) {
        at = source.on_over_space(at + named.end());
    }
    let (_, more) = argument_end(source, at);
    Some((at, !more))
}

fn is_context(argument: &[u8]) -> bool {
    let argument = argument.to_ascii_lowercase();
    [&b"ctx"[..], b"context"].iter().any(|word| memchr::memmem::find(&argument, word).is_some())
}

/// Where an argument ends, and whether a comma does it.
fn argument_end(source: &Source<'_>, from: usize) -> (usize, bool) {
    let mut depth = 0_usize;
    let mut at = from;
    while at < source.bytes.len() && at - from < 2_000 {
        if let Place::Text(span) = source.place(at) {
            at = span.end;
            continue;
        }
        match source.byte(at) {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' if depth == 0 => return (at, false),
            b')' | b']' | b'}' => depth -= 1,
            b',' if depth == 0 => return (at, true),
            _ => {}
        }
        at += 1;
    }
    (at, false)
}

/// The string that a constant of this file holds; a local one only where it holds.
fn value_here(source: &Source<'_>, name: &[u8], at: usize) -> Option<(usize, usize)> {
    let texts = source.spans.iter().filter(|span| span.what == What::Text && span.end < at);
    let found = texts.filter(|span| span.inner.1 - span.inner.0 <= KEY_BYTES_MAX).filter(|span| {
        let before = source.slice(span.start.saturating_sub(name.len() + 200), span.start);
        memchr::memmem::find(before, name).is_some()
            && constant(source, span.start, span.end).is_some_and(|constant| {
                constant.name.as_bytes() == name && constant.reach.is_none_or(|(from, to)| (from..to).contains(&at))
            })
    });
    found.map(|span| span.inner).next_back()
}

/// Whether it is the key of a flag that nobody knows.
fn push(
    source: &Source<'_>,
    tools: &Tools<'_>,
    inner: (usize, usize),
    through: Option<String>,
    is_definition: bool,
    out: &mut Vec<Stranger>,
) -> bool {
    let Ok(key) = std::str::from_utf8(source.slice(inner.0, inner.1)) else { return false };
    let signs = |sign: char| sign.is_alphanumeric() || "_-.:/@".contains(sign);
    let like_a_key = !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.chars().all(signs) && key.chars().any(char::is_alphabetic);
    if !like_a_key || tools.needles.knows(key) {
        return false;
    }
    out.push(Stranger { key: key.to_owned(), at: inner.0, through, is_definition });
    true
}
