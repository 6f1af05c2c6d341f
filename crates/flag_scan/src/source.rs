//! One file as the rules see it: its bytes, its spans, its lines.
//!
//! Not here: what a place means for a flag (`literals`, `identifiers`, `config`).

use std::path::Path;

use crate::language::{Language, is_test};
use crate::lexer::{Span, What, lex};
use crate::needles::is_word;

/// So much of a line is kept, in characters: enough to recognise it.
const TEXT_CHARS_MAX: usize = 300;

pub(crate) struct Source<'a> {
    /// Relative to the checkout.
    pub(crate) path: &'a Path,
    pub(crate) bytes: &'a [u8],
    pub(crate) language: Language,
    pub(crate) spans: Vec<Span>,
    /// Where each line begins.
    lines: Vec<usize>,
    /// From here on all is test; 0 for a test file.
    tests_from: usize,
}

/// What stands at a place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    Code,
    Comment,
    Text(Span),
}

impl<'a> Source<'a> {
    pub(crate) fn new(path: &'a Path, bytes: &'a [u8], language: Language) -> Self {
        let lines = std::iter::once(0).chain(memchr::memchr_iter(b'\n', bytes).map(|end| end + 1)).collect();
        let tests_from = if is_test(path) {
            0
        } else if language == Language::Rust {
            memchr::memmem::find(bytes, b"#[cfg(test)]\nmod ").unwrap_or(usize::MAX)
        } else {
            usize::MAX
        };
        Self { path, bytes, language, spans: lex(bytes, language), lines, tests_from }
    }

    pub(crate) fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(b'\n')
    }

    /// The byte before `at`; an end of line at the start of the file.
    pub(crate) fn before(&self, at: usize) -> u8 {
        at.checked_sub(1).map_or(b'\n', |before| self.byte(before))
    }

    pub(crate) fn slice(&self, start: usize, end: usize) -> &'a [u8] {
        self.bytes.get(start..end).unwrap_or_default()
    }

    pub(crate) fn place(&self, at: usize) -> Place {
        let index = self.spans.partition_point(|span| span.end <= at);
        match self.spans.get(index).filter(|span| span.start <= at) {
            None => Place::Code,
            Some(Span { what: What::Comment, .. }) => Place::Comment,
            Some(span) => Place::Text(*span),
        }
    }

    pub(crate) fn is_test(&self, at: usize) -> bool {
        at >= self.tests_from
    }

    /// Of a byte: the index of its line, from 0.
    pub(crate) fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at).saturating_sub(1)
    }

    pub(crate) fn line_start(&self, at: usize) -> usize {
        self.lines.get(self.line_of(at)).copied().unwrap_or(0)
    }

    /// Where a line begins, by its index.
    pub(crate) fn start_of(&self, index: usize) -> usize {
        self.lines.get(index).copied().unwrap_or(self.bytes.len())
    }

    pub(crate) fn line_count(&self) -> usize {
        self.lines.len()
    }

    /// Line and column of a byte, both from 1; the column in characters.
    pub(crate) fn position(&self, at: usize) -> (usize, usize) {
        let start = self.line_start(at);
        (self.line_of(at) + 1, String::from_utf8_lossy(self.slice(start, at)).trim_start_matches('\u{feff}').chars().count() + 1)
    }

    /// A line without its end, by its index.
    pub(crate) fn line(&self, index: usize) -> &'a [u8] {
        let start = self.lines.get(index).copied().unwrap_or(self.bytes.len());
        let end = self.lines.get(index + 1).copied().unwrap_or(self.bytes.len());
        self.slice(start, end).trim_ascii_end()
    }

    /// The lines around a byte as text, and the number of the first of them. Long lines are cut.
    pub(crate) fn excerpt(&self, at: usize, around: usize) -> (usize, String) {
        let line = self.line_of(at);
        let (first, last) = (line.saturating_sub(around), (line + around).min(self.lines.len().saturating_sub(1)));
        let cut = |index: usize| {
            String::from_utf8_lossy(self.line(index)).trim_start_matches('\u{feff}').chars().take(TEXT_CHARS_MAX).collect::<String>()
        };
        (first + 1, (first..=last).map(cut).collect::<Vec<_>>().join("\n"))
    }

    /// Spaces before the first sign of a line; nothing for an empty line. A tab is four.
    pub(crate) fn indent(&self, index: usize) -> Option<usize> {
        let line = self.line(index);
        let spaces = line.iter().take_while(|byte| byte.is_ascii_whitespace()).map(|byte| if *byte == b'\t' { 4 } else { 1 }).sum();
        (!line.is_empty()).then_some(spaces)
    }

    /// Back over spaces, ends of lines and comments.
    pub(crate) fn back_over_space(&self, mut at: usize) -> usize {
        loop {
            while at > 0 && self.before(at).is_ascii_whitespace() {
                at -= 1;
            }
            match at
                .checked_sub(1)
                .map(|before| self.spans.partition_point(|span| span.end <= before))
                .and_then(|index| self.spans.get(index))
            {
                Some(span) if span.what == What::Comment && span.start < at => at = span.start,
                _ => return at,
            }
        }
    }

    /// On over spaces, ends of lines and comments.
    pub(crate) fn on_over_space(&self, mut at: usize) -> usize {
        loop {
            while at < self.bytes.len() && self.byte(at).is_ascii_whitespace() {
                at += 1;
            }
            match self.spans.get(self.spans.partition_point(|span| span.end <= at)) {
                Some(span) if span.what == What::Comment && span.start <= at => at = span.end,
                _ => return at,
            }
        }
    }

    /// Where the identifier begins that ends at `end`; `end` if there is none. `$` and a closing `?` or `!` belong to it.
    pub(crate) fn word_start(&self, end: usize) -> usize {
        let mut at = if matches!(self.before(end), b'?' | b'!') { end - 1 } else { end };
        let closing = at;
        while at > 0 && (is_word(self.before(at)) || self.before(at) == b'$') {
            at -= 1;
        }
        if at == closing { end } else { at }
    }

    pub(crate) fn word_end(&self, start: usize) -> usize {
        let mut at = start;
        while at < self.bytes.len() && (is_word(self.byte(at)) || self.byte(at) == b'$') {
            at += 1;
        }
        at
    }

    /// The identifier that qualifies the one at `start`: `Flags` of `Flags.DARK`, `a::Flags::DARK`, `Flags?.DARK`. Empty when something else
    /// than an identifier stands before the sign.
    pub(crate) fn qualifier(&self, start: usize) -> Option<&'a [u8]> {
        let sign = self.back_over_space(start);
        let end = match (self.before(sign.saturating_sub(1)), self.before(sign)) {
            (b':', b':') | (b'-', b'>') | (b'?', b'.') => sign - 2,
            (b'.', b'.') => return None,
            (_, b'.') => sign - 1,
            _ => return None,
        };
        let end = self.back_over_space(end);
        Some(self.slice(self.word_start(end), end))
    }
}

/// Whether a name speaks of flags.
pub(crate) fn is_flaggy(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    [&b"flag"[..], b"feature", b"toggle", b"experiment", b"flipper", b"unleash"]
        .iter()
        .any(|word| memchr::memmem::find(&name, word).is_some())
}
