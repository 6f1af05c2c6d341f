//! What a definition is inside of, read from the indentation: no parser knows eight languages, but their formatters agree on that.
//!
//! Not here: the definition itself (`constants`).

use std::sync::LazyLock;

use regex::bytes::Regex;

use crate::source::Source;

/// So many lines upward the head of a class or function is looked for.
const LINES_MAX: usize = 2_000;

pub(crate) enum Scope {
    /// The whole file, and who imports it.
    File,
    /// Of a class, enum, module, ….
    Member { name: String },
    /// Of an object or map that has a name.
    Object { name: String },
    /// Inside of a function: the bytes in which it holds.
    Local { reach: (usize, usize) },
}

fn fixed(pattern: &str) -> Regex {
    regex::bytes::RegexBuilder::new(pattern).unicode(false).build().expect("a fixed pattern")
}

static TYPE: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r"^\s*(?:[\w@()]+\s+)*(?:class|enum|interface|struct|module|trait|namespace|record|object|impl|protocol|extension)\s+(?:class\s+|struct\s+)?(?:[\w:<>]+\s+for\s+)?(?:[\w]+(?:::|\.))*([A-Za-z_]\w*)",
    )
});
static OBJECT: LazyLock<Regex> = LazyLock::new(|| fixed(r"^\s*(?:[A-Za-z_]\w*\s+)*([A-Za-z_$][\w$]*)\s*(?::[^=]*)?=\s*[^;=]*[{(\[]\s*$"));
static PROPERTY: LazyLock<Regex> = LazyLock::new(|| fixed(r"^\s*([A-Za-z_$][\w$]*)\s*:\s*\{\s*$"));
static FUNCTION: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"\b(?:def|fn|func|function|fun)\b|=>\s*\{\s*$|^\s*(?:[\w<>\[\],.?@]+\s+)*\w+\s*\([^;]*\)[^;=]*\{\s*$"));

/// Of the place `at`. `through`: functions and their blocks are passed, as for the arms of a `match` in an `impl`.
pub(crate) fn scope(source: &Source<'_>, at: usize, through: bool) -> Scope {
    let line = source.line_of(at);
    let Some(own) = source.indent(line) else { return Scope::File };
    // `enum Flag { DARK("dark-mode") }` on one line.
    let before = source.slice(source.line_start(at), at);
    if let Some(name) = TYPE.captures(before).and_then(|found| found.get(1)).filter(|_| before.contains(&b'{')) {
        return Scope::Member { name: text(name.as_bytes()) };
    }
    let mut bound = own;
    for above in (line.saturating_sub(LINES_MAX)..line).rev() {
        let Some(indent) = source.indent(above).filter(|indent| *indent < bound) else { continue };
        let head = source.line(above);
        // A brace alone, or `) {` at the end of a long head, belongs to the lines before.
        if head.trim_ascii().iter().all(|byte| b"{}()[];,".contains(byte)) {
            continue;
        }
        bound = indent;
        if let Some(name) = TYPE.captures(head).and_then(|found| found.get(1)) {
            return Scope::Member { name: text(name.as_bytes()) };
        }
        if !through {
            let object = OBJECT.captures(head).or_else(|| PROPERTY.captures(head)).and_then(|found| found.get(1));
            if let Some(name) = object.filter(|name| !matches!(name.as_bytes(), b"const" | b"var" | b"let")) {
                return Scope::Object { name: text(name.as_bytes()) };
            }
            if FUNCTION.is_match(head) {
                return Scope::Local { reach: (at, block_end(source, line, own)) };
            }
        }
        if bound == 0 {
            break;
        }
    }
    Scope::File
}

/// Where the block ends that the line is in: at the next line that is less indented.
fn block_end(source: &Source<'_>, line: usize, indent: usize) -> usize {
    let after = (line + 1..source.line_count()).find(|after| source.indent(*after).is_some_and(|other| other < indent));
    after.map_or(source.bytes.len(), |after| source.start_of(after))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
