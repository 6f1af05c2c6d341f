//! The first look at a file: keys, their spellings, constants that hold them, and keys that nobody knows.
//!
//! **Invariant**: at most one reference per line and key; of several the one that says most is kept.
//!
//! Not here: uses of constants (`uses`).

use std::collections::{BTreeMap, HashSet};

use crate::config;
use crate::identifiers::identifier;
use crate::key::Form;
use crate::language::Language;
use crate::literals::{delimited, is_quoted, literal};
use crate::needles::{Hit, Meaning};
use crate::report::{Kind, Reference};
use crate::source::{Place, Source, is_flaggy};
use crate::tools::Tools;
use crate::unknown::strangers;
use crate::uses::Holder;

/// What one file gives.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) references: Vec<Reference>,
    /// Definitions that count only when a flag call uses them, with their holder's index in `holders`.
    pub(crate) weak: Vec<(usize, Reference)>,
    pub(crate) holders: Vec<Holder>,
    pub(crate) unknown: Vec<Reference>,
}

/// Whether a hit can be a reference, or make others so: only then the file is split into code and text. Two words in another spelling, such
/// as `userName`, are in most files.
pub(crate) fn is_promising(tools: &Tools<'_>, bytes: &[u8], language: Language, hit: Hit) -> bool {
    let at = |at: usize| bytes.get(at).copied().unwrap_or(b'\n');
    let before = at(hit.start.wrapping_sub(1));
    let enclosed = || !before.is_ascii_alphanumeric() && !b" \t\n(.".contains(&before);
    let line = || {
        let start = memchr::memrchr(b'\n', &bytes[..hit.start]).map_or(0, |end| end + 1);
        let end = memchr::memchr(b'\n', &bytes[hit.end..]).map_or(bytes.len(), |length| hit.end + length);
        &bytes[start..end]
    };
    tools.needles.meanings(hit).iter().any(|meaning| match *meaning {
        Meaning::Call => true,
        Meaning::Key(key, Form::Literal) => enclosed() || tools.words[key] >= 3 || language.is_config() || is_flaggy(line()),
        Meaning::Key(key, _) => tools.words[key] >= 3 || is_flaggy(line()),
    })
}

pub(crate) fn look(source: &Source<'_>, tools: &Tools<'_>, hits: &[Hit]) -> Findings {
    let mut findings = Findings::default();
    let mut found: Vec<(usize, usize, Kind, Option<String>)> = Vec::new();
    let mut later = Vec::new();
    for &hit in hits {
        for &meaning in tools.needles.meanings(hit) {
            let Meaning::Key(key, form) = meaning else { continue };
            match direct(source, tools, hit, key, form, &mut findings) {
                Direct::Is(kind) => found.push((key, hit.start, kind, other_name(source, hit, form))),
                Direct::IsNot => {}
                Direct::MayBeIdentifier => later.push((hit, key, form)),
            }
        }
    }
    let speaks: HashSet<usize> =
        found.iter().filter(|(_, _, kind, _)| matches!(kind, Kind::Call | Kind::Definition)).map(|(key, ..)| *key).collect();
    for (hit, key, form) in later {
        if let Some(kind) = identifier(source, tools, hit, form, tools.words[key], speaks.contains(&key)) {
            found.push((key, hit.start, kind, Some(String::from_utf8_lossy(source.slice(hit.start, hit.end)).into_owned())));
        }
    }
    let references = found.into_iter().map(|(key, at, kind, through)| refer(source, tools, &tools.known[key].key, at, kind, through));
    findings.references.extend(references);
    findings.references = once(std::mem::take(&mut findings.references));
    let mut unknown = Vec::new();
    for &hit in hits.iter().filter(|hit| tools.needles.meanings(**hit).contains(&Meaning::Call)) {
        strangers(source, tools, hit, &mut unknown);
    }
    let unknown = unknown.into_iter().map(|stranger| {
        let kind = if stranger.is_definition { Kind::Definition } else { Kind::Call };
        refer(source, tools, &stranger.key, stranger.at, kind, stranger.through)
    });
    findings.unknown = once(unknown.collect());
    findings
}

enum Direct {
    Is(Kind),
    IsNot,
    MayBeIdentifier,
}

/// Everything but identifiers, which need to know what else is in the file.
fn direct(source: &Source<'_>, tools: &Tools<'_>, hit: Hit, key: usize, form: Form, findings: &mut Findings) -> Direct {
    let words = tools.words[key];
    let place = source.place(hit.start);
    if matches!(place, Place::Comment) {
        // A quoted `search` in a remark about searching is a word.
        let told = words >= 2 || is_flaggy(source.line(source.line_of(hit.start)));
        return if told && form == Form::Literal && is_quoted(source, tools, hit) { Direct::Is(Kind::Comment) } else { Direct::IsNot };
    }
    if source.language.is_config() {
        return if config::counts(source, hit, form, words) { Direct::Is(Kind::Config) } else { Direct::IsNot };
    }
    if let Some(range) = delimited(source, tools, hit) {
        let Some(literal) = literal(source, tools, range, words, form == Form::Literal) else { return Direct::IsNot };
        let weak = literal.weak;
        if let Some(constant) = literal.constant {
            if weak {
                let reference = refer(source, tools, &tools.known[key].key, hit.start, literal.kind, None);
                findings.weak.push((findings.holders.len(), reference));
            }
            findings.holders.push(Holder { key, constant, path: source.path.to_owned(), language: source.language, weak });
        }
        return if weak { Direct::IsNot } else { Direct::Is(literal.kind) };
    }
    if form == Form::Literal && is_plain(source, hit, words) { Direct::Is(Kind::Other) } else { Direct::MayBeIdentifier }
}

/// Without delimiters: the end of a flag's address, and a word of a shell's command about flags.
fn is_plain(source: &Source<'_>, hit: Hit, words: usize) -> bool {
    let (before, after) = (source.before(hit.start), source.byte(hit.end));
    if source.slice(source.line_start(hit.start), hit.start).ends_with(b"flags/") {
        return !matches!(after, b'-' | b'.');
    }
    source.language == Language::Shell
        && words >= 2
        && before.is_ascii_whitespace()
        && (after.is_ascii_whitespace() || after == b';')
        && is_flaggy(source.line(source.line_of(hit.start)))
}

fn other_name(source: &Source<'_>, hit: Hit, form: Form) -> Option<String> {
    (form != Form::Literal).then(|| String::from_utf8_lossy(source.slice(hit.start, hit.end)).into_owned())
}

pub(crate) fn refer(source: &Source<'_>, tools: &Tools<'_>, key: &str, at: usize, kind: Kind, through: Option<String>) -> Reference {
    let (line, column) = source.position(at);
    let (first_line, text) = source.excerpt(at, tools.options.context_lines);
    let kind = if kind != Kind::Comment && source.is_test(at) { Kind::Test } else { kind };
    Reference { key: key.to_owned(), file: source.path.to_owned(), line, column, kind, through, first_line, text }
}

/// One per line and key: the first kind in the order of `Kind`, and of these the leftmost.
pub(crate) fn once(references: Vec<Reference>) -> Vec<Reference> {
    let mut kept: BTreeMap<(usize, String), Reference> = BTreeMap::new();
    for reference in references {
        let place = (reference.line, reference.key.clone());
        match kept.get(&place) {
            Some(other)
                if (other.kind, other.through.is_some(), other.column)
                    <= (reference.kind, reference.through.is_some(), reference.column) => {}
            _ => {
                kept.insert(place, reference);
            }
        }
    }
    kept.into_values().collect()
}
