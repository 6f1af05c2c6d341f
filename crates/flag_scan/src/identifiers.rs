//! Whether an identifier that is spelt like a key (`darkMode`, `NEW_CHECKOUT_FLOW`) is a reference to the flag.
//!
//! Spellings know no scope, so the rule asks for evidence, the more the fewer words a key has: three words in this order are hardly
//! chance; two count beside a flag-like name, in a flag call, or in a file that otherwise speaks of the flag; one never counts alone.
//!
//! Not here: constants with any other name (`uses`).

use crate::Kind;
use crate::key::Form;
use crate::language::Language;
use crate::needles::Hit;
use crate::source::{Place, Source, is_flaggy};
use crate::surroundings::asks;
use crate::tools::Tools;

/// `known_here`: the file has a call or a definition of the same flag.
pub(crate) fn identifier(source: &Source<'_>, tools: &Tools<'_>, hit: Hit, form: Form, words: usize, known_here: bool) -> Option<Kind> {
    let in_text = matches!(source.place(hit.start), Place::Text(_));
    // In a template's attribute stands code: `v-if="flags.darkMode"`.
    if in_text && source.language != Language::Markup
        || !is_identifier(source.slice(hit.start, hit.end))
        || source.before(hit.start) == b'-'
    {
        return None;
    }
    let qualifier = source.qualifier(hit.start);
    if qualifier.is_some_and(is_flaggy) {
        return Some(if asks(source, &tools.calls, hit.start) { Kind::Call } else { Kind::Other });
    }
    if in_text {
        return None;
    }
    if asks(source, &tools.calls, hit.start) && words >= 2 {
        return Some(Kind::Call);
    }
    let by_words = words >= 3;
    let by_file = words == 2 && known_here && qualifier.is_none() && form != Form::Pascal;
    let by_line = words == 2 && qualifier.is_none() && is_taken_from_flags(source, hit);
    (by_words || by_file || by_line).then_some(Kind::Other)
}

/// `const { darkMode } = useFlags();`
fn is_taken_from_flags(source: &Source<'_>, hit: Hit) -> bool {
    let line = source.line(source.line_of(hit.end));
    let rest = line.get(hit.end - source.line_start(hit.end)..).unwrap_or_default();
    let Some(sign) = memchr::memmem::find(rest, b"} =") else { return false };
    is_flaggy(&rest[sign..])
}

fn is_identifier(name: &[u8]) -> bool {
    name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80)
}
