//! Constants that hold a key: `IDENT = "key"` in its forms.
//!
//! One hop only: what is copied from such a constant is not followed.
//!
//! Not here: where a constant may be used (`sight`, `uses`); what encloses it (`scope`).

use std::sync::LazyLock;

use regex::bytes::Regex;

use crate::language::Language;
use crate::scope::{Scope, scope};
use crate::source::Source;

/// A name that stands for a key.
#[derive(Debug, Clone)]
pub(crate) struct Constant {
    pub(crate) name: String,
    /// The class, enum, object or module it is a member of.
    pub(crate) container: Option<String>,
    /// Reached only through its container.
    pub(crate) qualified: bool,
    /// Bytes in which a local name holds.
    pub(crate) reach: Option<(usize, usize)>,
    /// Where the name stands.
    pub(crate) at: usize,
}

fn fixed(pattern: &str) -> Regex {
    regex::bytes::RegexBuilder::new(pattern).unicode(false).build().expect("a fixed pattern")
}

/// Words before a name: `pub const`, `private static final String`, `static const char *const`.
const BEFORE: &str = r"^\s*(?:\[?[A-Za-z_@*][\w<>\[\]?.,&'*:]*\s+)*?[$*]?";
/// What may stand between `=` and the key: `new FlagKey(`, `Key.of(`, `defineFlag(`.
const WRAPPER: &str = r"(?:(?:new\s+)?(?:[\w.:]+(?:::|\.))?(?:[A-Z]\w*|from|of|new|\w*(?:[fF]lag|[fF]eature)\w*)\(\s*)?";

static ASSIGNED: LazyLock<Regex> =
    LazyLock::new(|| fixed(&format!(r"{BEFORE}([A-Za-z_$][\w$]*)\s*(?::\s*[^=;{{}}()]{{1,80}}?)?\s*:?=\s*{WRAPPER}[&*]?$")));
/// Go puts the type behind the name.
static ASSIGNED_GO: LazyLock<Regex> =
    LazyLock::new(|| fixed(&format!(r"^\s*(?:(?:const|var)\s+)?([A-Za-z_]\w*)(?:\s+[\w.\[\]*]+)?\s*:?=\s*{WRAPPER}$")));
/// `var NewFlow = Flag{Key: "new-flow"`
static FIELD_OF: LazyLock<Regex> = LazyLock::new(|| {
    fixed(&format!(
        r"{BEFORE}([A-Za-z_$][\w$]*)\s*(?::\s*[^=;{{}}()]{{1,80}}?)?\s*:?=\s*&?(?:new\s+)?[\w.:]*\s*[({{]\s*\{{?\s*(?:key|Key|name|Name|id|flagKey|flag_key)\s*[:=]\s*$"
    ))
});
static DEFINED: LazyLock<Regex> = LazyLock::new(|| fixed(r"^\s*#\s*define\s+([A-Za-z_]\w*)\s+$"));
/// Java's and Kotlin's enums with a value.
static MEMBER: LazyLock<Regex> = LazyLock::new(|| fixed(r"^\s*(?:enum\s+(?:class\s+)?\w+[^{]*\{\s*)?([A-Z][A-Za-z0-9_]*)\s*\(\s*$"));
static PROPERTY: LazyLock<Regex> = LazyLock::new(|| fixed(r"(?:^|[{,])\s*([A-Za-z_$][\w$]*)\s*:\s*$"));
/// Rust's `Self::DarkMode => "dark-mode"`, C#'s `string DarkMode => "dark-mode"`.
static ARM: LazyLock<Regex> = LazyLock::new(|| fixed(r"([A-Z]\w*)\s*=>\s*$"));

/// The constant whose value is the string from `start` to `end` (with its quotes).
pub(crate) fn constant(source: &Source<'_>, start: usize, end: usize) -> Option<Constant> {
    let (from, prefix) = statement(source, start);
    let language = source.language;
    let assigned = if language == Language::Go { &ASSIGNED_GO } else { &ASSIGNED };
    let group = |regex: &Regex| regex.captures(prefix).and_then(|found| found.get(1)).map(|name| (name.start(), name.as_bytes()));
    let property = matches!(language, Language::Script | Language::Markup | Language::Ruby).then(|| group(&PROPERTY)).flatten();
    let arm = matches!(language, Language::Rust | Language::CSharp).then(|| group(&ARM)).flatten();
    let plain = || group(assigned).filter(|_| !is_argument(source, prefix, end)).or_else(|| group(&FIELD_OF)).or_else(|| group(&DEFINED));
    let member = || (language == Language::Jvm).then(|| group(&MEMBER)).flatten();
    let ((offset, name), form) = property
        .map(|name| (name, Form::Property))
        .or_else(|| arm.map(|name| (name, Form::Arm)))
        .or_else(|| plain().map(|name| (name, Form::Plain)))
        .or_else(|| member().map(|name| (name, Form::Property)))?;
    let name = String::from_utf8_lossy(name).into_owned();
    if matches!(name.as_str(), "return" | "default" | "case" | "else" | "in" | "this" | "self") {
        return None;
    }
    let at = from + offset;
    let scope = scope(source, at, form == Form::Arm && language == Language::Rust);
    let (container, reach) = match scope {
        Scope::File => (None, None),
        Scope::Member { name } => (Some(name), None),
        Scope::Object { name } => (Some(name), None),
        Scope::Local { reach } => (None, Some(reach)),
    };
    let qualified = form != Form::Plain || container.is_some() && is_reached_through(language);
    // A property of nothing that has a name is reached by nobody.
    (!(form == Form::Property && container.is_none())).then_some(Constant { name, container, qualified, reach, at })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Property,
    Arm,
}

/// Languages in which a member is named with its class even inside of it.
fn is_reached_through(language: Language) -> bool {
    matches!(language, Language::Script | Language::Markup | Language::Python | Language::Rust | Language::Swift)
}

/// What stands before the string on its line; with the line before when that ends open (`X =` and the string on the next line).
fn statement<'a>(source: &Source<'a>, start: usize) -> (usize, &'a [u8]) {
    let mut from = source.line_start(start);
    if source.slice(from, start).trim_ascii().is_empty() {
        let end = source.back_over_space(from);
        if matches!(source.before(end), b'=' | b'(' | b':' | b'>') {
            from = source.line_start(end.saturating_sub(1));
        }
    }
    (from, source.slice(from, start).strip_prefix("\u{feff}".as_bytes()).unwrap_or(source.slice(from, start)))
}

/// `f(\n  key="x",\n)` and `<Tag\n  name="x"` look like assignments.
fn is_argument(source: &Source<'_>, prefix: &[u8], end: usize) -> bool {
    let next = source.byte(source.on_over_space(end));
    let alone = || {
        !prefix.trim_ascii().contains(&b' ')
            || prefix.trim_ascii().split(|byte| *byte == b'=').next().is_some_and(|name| !name.trim_ascii().contains(&b' '))
    };
    match source.language {
        Language::Python | Language::Ruby => matches!(next, b',' | b')'),
        Language::Jvm | Language::CSharp => matches!(next, b',' | b')') && alone() && !prefix.trim_ascii_end().ends_with(b"("),
        Language::Script | Language::Markup => alone() && prefix.ends_with(b"="),
        _ => false,
    }
}
