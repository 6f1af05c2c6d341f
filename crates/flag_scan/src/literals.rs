//! Whether a key between delimiters is a reference to the flag, and of which kind.
//!
//! Not here: identifiers (`identifiers`), configuration (`config`), calls with keys that nobody knows (`unknown`).

use crate::Kind;
use crate::constants::{Constant, constant};
use crate::language::Language;
use crate::lexer::What;
use crate::needles::Hit;
use crate::source::{Place, Source, is_flaggy};
use crate::surroundings::{asks, attribute};
use crate::tools::Tools;

/// Attributes and properties whose value names something else: CSS classes and element ids look like keys.
const OTHERS: [&[u8]; 22] = [
    b"class",
    b"className",
    b"id",
    b"name",
    b"for",
    b"htmlFor",
    b"type",
    b"href",
    b"src",
    b"path",
    b"to",
    b"role",
    b"slot",
    b"placeholder",
    b"template",
    b"partial",
    b"layout",
    b"ref",
    b"testID",
    b"testId",
    b"styleName",
    b"selector",
];

/// What a literal is.
pub(crate) struct Literal {
    pub(crate) kind: Kind,
    pub(crate) constant: Option<Constant>,
    /// A word like `search`, as a constant: it counts when a flag call uses the constant.
    pub(crate) weak: bool,
}

/// Where the literal begins and ends with its delimiters, if it is one.
pub(crate) fn delimited(source: &Source<'_>, tools: &Tools<'_>, hit: Hit) -> Option<(usize, usize)> {
    let is_delimiter = |byte: u8| tools.options.delimiters.as_bytes().contains(&byte);
    match source.place(hit.start) {
        Place::Text(span) if span.what == What::Text && span.inner == (hit.start, hit.end) => {
            // A word of `%w[…]` has no quotes.
            let quote = source.before(hit.start);
            (span.start == span.inner.0 || is_delimiter(quote) || quote == b'#').then_some((span.start, span.end))
        }
        // `:dark_mode`
        Place::Code if source.language == Language::Ruby && source.before(hit.start) == b':' && source.before(hit.start - 1) != b':' => {
            (!matches!(source.byte(hit.end), b'?' | b'!' | b'-' | b'.')).then_some((hit.start - 1, hit.end))
        }
        _ => None,
    }
}

/// In a comment only what stands between delimiters is more than a word.
pub(crate) fn is_quoted(source: &Source<'_>, tools: &Tools<'_>, hit: Hit) -> bool {
    let delimiters = tools.options.delimiters.as_bytes();
    delimiters.contains(&source.before(hit.start)) && source.before(hit.start) == source.byte(hit.end)
}

/// `exact`: the key itself, not another spelling. `words`: how many the key has.
pub(crate) fn literal(source: &Source<'_>, tools: &Tools<'_>, (start, end): (usize, usize), words: usize, exact: bool) -> Option<Literal> {
    if asks(source, &tools.calls, start) {
        return Some(Literal { kind: Kind::Call, constant: None, weak: false });
    }
    let is_name_of_other =
        || attribute(source, start).is_some_and(|name| OTHERS.contains(&name) || name.starts_with(b"data-") || name.starts_with(b"aria-"));
    if let Some(constant) = constant(source, start, end).filter(|_| exact) {
        let told = is_flaggy(constant.name.as_bytes())
            || constant.container.as_deref().is_some_and(|name| is_flaggy(name.as_bytes()))
            || constant.container.is_none() && constant.reach.is_none() && is_flag_file(source);
        if constant.qualified && is_name_of_other() {
            return None;
        }
        return Some(Literal { kind: Kind::Definition, constant: Some(constant), weak: words < 2 && !told });
    }
    let weak_spelling = !exact && words < 3 && source.byte(start) != b':';
    if words < 2 || weak_spelling || is_name_of_other() {
        return None;
    }
    Some(Literal { kind: Kind::Other, constant: None, weak: false })
}

fn is_flag_file(source: &Source<'_>) -> bool {
    source.path.file_name().is_some_and(|name| is_flaggy(name.as_encoded_bytes()))
}
