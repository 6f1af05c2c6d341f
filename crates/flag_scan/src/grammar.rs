//! How the languages write comments and strings, as tables.
//!
//! Not here: reading by them (`lexer`).

use crate::language::Language;

/// One way to write a string.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quote {
    pub(crate) open: &'static str,
    pub(crate) close: &'static str,
    /// A backslash takes the next byte's meaning away.
    pub(crate) escapes: bool,
    /// It may go over the end of a line.
    pub(crate) lines: bool,
    /// What opens code inside of the string; a brace closes it.
    pub(crate) hole: Option<&'static str>,
}

pub(crate) struct Grammar {
    /// What opens a comment up to the end of the line.
    pub(crate) line: &'static [&'static str],
    pub(crate) block: &'static [(&'static str, &'static str)],
    /// Block comments nest.
    pub(crate) nests: bool,
    /// The longest opening first.
    pub(crate) quotes: &'static [Quote],
}

const fn quote(open: &'static str, close: &'static str) -> Quote {
    Quote { open, close, escapes: true, lines: false, hole: None }
}

const fn raw(open: &'static str, close: &'static str) -> Quote {
    Quote { open, close, escapes: false, lines: true, hole: None }
}

const fn holes(open: &'static str, hole: &'static str, lines: bool) -> Quote {
    Quote { open, close: open, escapes: true, lines, hole: Some(hole) }
}

const DOUBLE: Quote = quote("\"", "\"");
const SINGLE: Quote = quote("'", "'");
const BACKTICK: Quote = quote("`", "`");
const SLASHES: &[(&str, &str)] = &[("/*", "*/")];

macro_rules! grammar {
    ($line:expr, $block:expr, $nests:expr, $quotes:expr) => {{
        const GRAMMAR: &Grammar = &Grammar { line: $line, block: $block, nests: $nests, quotes: $quotes };
        GRAMMAR
    }};
}

impl Grammar {
    pub(crate) fn of(language: Language) -> &'static Self {
        match language {
            Language::Script => grammar!(&["//"], SLASHES, false, &[holes("`", "${", true), DOUBLE, SINGLE]),
            Language::Markup => grammar!(&["//"], &[("<!--", "-->"), ("/*", "*/")], false, &[holes("`", "${", true), DOUBLE, SINGLE]),
            // The prefix of a string (`f`, `r`) is read by the lexer.
            Language::Python => grammar!(
                &["#"],
                &[],
                false,
                &[holes("\"\"\"", "{", true), holes("'''", "{", true), holes("\"", "{", false), holes("'", "{", false)]
            ),
            Language::Go => grammar!(&["//"], SLASHES, false, &[raw("`", "`"), DOUBLE, SINGLE]),
            Language::Jvm => grammar!(&["//"], SLASHES, true, &[raw("\"\"\"", "\"\"\""), holes("\"", "${", false), SINGLE]),
            Language::Swift => grammar!(&["//"], SLASHES, true, &[raw("\"\"\"", "\"\"\""), DOUBLE]),
            Language::CSharp => grammar!(
                &["//"],
                SLASHES,
                false,
                &[
                    raw("\"\"\"", "\"\"\""),
                    raw("@\"", "\""),
                    Quote { open: "$\"", close: "\"", escapes: true, lines: false, hole: Some("{") },
                    DOUBLE,
                    SINGLE,
                ]
            ),
            Language::C => grammar!(&["//"], SLASHES, false, &[DOUBLE, SINGLE]),
            Language::Rust => grammar!(
                &["//"],
                SLASHES,
                true,
                &[
                    raw("r##\"", "\"##"),
                    raw("r#\"", "\"#"),
                    raw("r\"", "\""),
                    Quote { open: "\"", close: "\"", escapes: true, lines: true, hole: None },
                    SINGLE,
                ]
            ),
            Language::Ruby => grammar!(&["#"], &[("\n=begin", "\n=end")], false, &[holes("\"", "#{", true), SINGLE, BACKTICK]),
            Language::Php => grammar!(&["//", "#"], &[("/*", "*/"), ("<!--", "-->")], false, &[holes("\"", "{$", true), SINGLE]),
            Language::Shell => grammar!(
                &["#"],
                &[],
                false,
                &[
                    Quote { open: "\"", close: "\"", escapes: true, lines: true, hole: None },
                    Quote { open: "'", close: "'", escapes: false, lines: true, hole: None },
                ]
            ),
            Language::Json => grammar!(&["//"], SLASHES, false, &[DOUBLE, SINGLE]),
            Language::Yaml => grammar!(&["#"], &[], false, &[DOUBLE, SINGLE]),
            Language::Toml => grammar!(&["#"], &[], false, &[raw("\"\"\"", "\"\"\""), raw("'''", "'''"), DOUBLE, SINGLE]),
            Language::Properties => grammar!(&["#", ";", "!"], &[], false, &[DOUBLE, SINGLE]),
            Language::Hcl => grammar!(&["#", "//"], SLASHES, false, &[holes("\"", "${", false)]),
            Language::Xml => grammar!(&[], &[("<!--", "-->")], false, &[DOUBLE, SINGLE]),
            Language::Prose => grammar!(&[], &[], false, &[]),
            Language::Other => grammar!(&[], &[], false, &[DOUBLE, SINGLE, BACKTICK]),
        }
    }
}
