//! What stands around a place in code: the calls and tags whose argument it is.
//!
//! Not here: which names ask for flags (`calls`).

use crate::calls::{Calls, Certainty};
use crate::lexer::What;
use crate::source::{Source, is_flaggy};

/// So far back the opening of a call is looked for, in bytes of code: some ten lines.
const BACK_BYTES_MAX: usize = 800;
/// `isEnabled(String.valueOf(key(X)))`: wrappers between the key and the call.
const WRAPPERS_MAX: usize = 3;

/// What encloses a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Enclosing {
    /// Where the name of the callee begins and ends.
    pub(crate) name: (usize, usize),
    /// `name[…]` instead of `name(…)`.
    index: bool,
    /// Where the bracket is.
    at: usize,
}

/// Whether the place is an argument of a call that asks for a flag.
pub(crate) fn asks(source: &Source<'_>, calls: &Calls, at: usize) -> bool {
    if bare_call(source, calls, at) || tag(source, at) {
        return true;
    }
    let mut from = at;
    for _ in 0..=WRAPPERS_MAX {
        let Some(enclosing) = enclosing(source, from) else { return false };
        let name = source.slice(enclosing.name.0, enclosing.name.1);
        if enclosing.index {
            // `flags["dark-mode"]`
            return is_flaggy(name);
        }
        let receiver = source.qualifier(enclosing.name.0);
        let certain = match calls.certainty(name) {
            Some(Certainty::Specific | Certainty::Typed) => true,
            Some(Certainty::Shared) => !is_logger(receiver),
            // `features.get("dark-mode")`
            None => {
                matches!(name, b"get" | b"has" | b"is" | b"value" | b"Boolean" | b"String" | b"Int" | b"Float" | b"Object")
                    && receiver.is_some_and(is_receiver)
            }
        };
        if certain {
            return true;
        }
        from = enclosing.at;
    }
    false
}

fn is_receiver(name: &[u8]) -> bool {
    is_flaggy(name) || name.to_ascii_lowercase().ends_with(b"client")
}

/// `logger.isEnabled("debug")` asks for something else.
pub(crate) fn is_logger(receiver: Option<&[u8]>) -> bool {
    receiver.is_some_and(|name| name.to_ascii_lowercase().windows(3).any(|part| part == b"log"))
}

/// The next bracket around a place, with the name before it. Arrays and objects in between are passed; the end of a statement or
/// the start of a block is not.
pub(crate) fn enclosing(source: &Source<'_>, from: usize) -> Option<Enclosing> {
    let mut at = from;
    let mut closed = 0_usize;
    let mut span = source.spans.partition_point(|span| span.end <= from);
    let least = from.saturating_sub(BACK_BYTES_MAX);
    while at > least {
        if let Some(before) = span.checked_sub(1).and_then(|index| source.spans.get(index)).filter(|span| span.end >= at) {
            if before.what == (What::Part { opens: true }) {
                return None;
            }
            at = before.start;
            span -= 1;
            continue;
        }
        at -= 1;
        match source.byte(at) {
            b')' | b']' | b'}' => closed += 1,
            b'(' | b'[' | b'{' if closed > 0 => closed -= 1,
            b'(' => return Some(Enclosing { name: callee(source, at), index: false, at }),
            b'[' => {
                let start = source.word_start(at);
                if start < at {
                    return Some(Enclosing { name: (start, at), index: true, at });
                }
            }
            b'{' => {
                let end = source.back_over_space(at);
                if !matches!(source.before(end), b'(' | b',' | b'[' | b':' | b'{') {
                    return None;
                }
            }
            b';' if closed == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The name before a parenthesis: `f(`, `f<T>(`, `f::<T>(`, `f!(`.
fn callee(source: &Source<'_>, parenthesis: usize) -> (usize, usize) {
    let mut end = parenthesis;
    while matches!(source.before(end), b' ' | b'\t') {
        end -= 1;
    }
    if source.before(end) == b'>' {
        let mut depth = 0_usize;
        while end > 0 && parenthesis - end < 100 {
            end -= 1;
            match source.byte(end) {
                b'>' => depth += 1,
                b'<' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        if source.before(end) == b':' {
            end = end.saturating_sub(2);
        }
    }
    (source.word_start(end), end)
}

/// Ruby's `enabled? :dark_mode, user`.
fn bare_call(source: &Source<'_>, calls: &Calls, at: usize) -> bool {
    let mut end = at;
    while source.before(end) == b' ' {
        end -= 1;
    }
    end < at && calls.certainty(source.slice(source.word_start(end), end)).is_some()
}

/// `<FeatureFlag name="dark-mode">`.
fn tag(source: &Source<'_>, at: usize) -> bool {
    attribute(source, at).is_some() && {
        let least = at.saturating_sub(BACK_BYTES_MAX);
        let open = memchr::memrchr2(b'<', b'>', source.slice(least, at)).map(|open| least + open);
        open.is_some_and(|open| source.byte(open) == b'<' && is_flaggy(source.slice(open + 1, source.word_end(open + 1))))
    }
}

/// The name of the attribute or property whose value begins at `at`: `id` of `id="x"`, `name` of `name: "x"`.
pub(crate) fn attribute<'a>(source: &Source<'a>, at: usize) -> Option<&'a [u8]> {
    let mut end = at;
    while matches!(source.before(end), b' ' | b'{') {
        end -= 1;
    }
    if !matches!(source.before(end), b'=' | b':') || matches!(source.before(end.saturating_sub(1)), b'=' | b'!' | b':' | b'<' | b'>') {
        return None;
    }
    end -= 1;
    while matches!(source.before(end), b' ' | b'"' | b'\'') {
        end -= 1;
    }
    let mut start = end;
    while start > 0 && (source.before(start).is_ascii_alphanumeric() || matches!(source.before(start), b'_' | b'-')) {
        start -= 1;
    }
    (start < end).then(|| source.slice(start, end))
}
