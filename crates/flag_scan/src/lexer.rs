//! Splits a file into code, comments and strings, well enough to tell a call from a remark.
//!
//! **Invariant**: spans are in order and do not overlap. The work is linear in the length, whatever the bytes are.
//! A string that does not end on its line (an apostrophe in prose) is none.
//!
//! Not here: the tables (`grammar`); what a span means (`source`).

use crate::grammar::{Grammar, Quote};
use crate::language::Language;
use crate::needles::is_word;

/// Holes in strings in holes; deeper ones are taken as text.
const DEPTH_MAX: usize = 16;
/// How often the length of the file may be read in vain, for strings that turn out to be none. Then the rest is taken as code.
const VAIN_MAX: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Comment,
    /// A whole string without holes.
    Text,
    /// A part of a string beside a hole. `opens`: code follows, in the hole.
    Part {
        opens: bool,
    },
}

/// A range of bytes with its quotes; `inner` is without them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) what: What,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) inner: (usize, usize),
}

pub(crate) fn lex(bytes: &[u8], language: Language) -> Vec<Span> {
    if language == Language::Prose {
        let end = bytes.len();
        return vec![Span { what: What::Comment, start: 0, end, inner: (0, end) }];
    }
    let mut lexer =
        Lexer { bytes, language, grammar: Grammar::of(language), spans: Vec::new(), at: 0, last: b'\n', vain: 0, signs: signs(language) };
    lexer.code(false, 0);
    lexer.spans
}

struct Lexer<'a> {
    bytes: &'a [u8],
    language: Language,
    grammar: &'static Grammar,
    spans: Vec<Span>,
    at: usize,
    /// The last byte of code that is not a space: tells a division from a regular expression.
    last: u8,
    /// Bytes read for strings that were none.
    vain: usize,
    /// Bytes with which anything but code may begin.
    signs: [bool; 256],
}

fn signs(language: Language) -> [bool; 256] {
    let grammar = Grammar::of(language);
    let opens = grammar.line.iter().chain(grammar.block.iter().map(|(open, _)| open)).chain(grammar.quotes.iter().map(|quote| &quote.open));
    let mut signs = [false; 256];
    // The last three are those of `special`.
    for byte in opens.filter_map(|open| open.bytes().next()).chain(*b"'/%") {
        signs[usize::from(byte)] = true;
    }
    signs
}

impl Lexer<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    fn before(&self) -> u8 {
        self.at.checked_sub(1).map_or(b'\n', |before| self.byte(before))
    }

    fn starts(&self, text: &str) -> bool {
        self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(text.as_bytes()))
    }

    /// Up to the end, or in a hole up to the brace that closes it.
    fn code(&mut self, hole: bool, depth: usize) {
        let mut open = 0_usize;
        while self.at < self.bytes.len() {
            let byte = self.byte(self.at);
            if hole && byte == b'}' {
                if open == 0 {
                    return;
                }
                open -= 1;
            } else if byte == b'{' {
                open += 1;
            }
            if !self.signs[usize::from(byte)] || !(self.comment() || self.special() || self.text(depth)) {
                if !byte.is_ascii_whitespace() {
                    self.last = byte;
                }
                self.at += 1;
            }
        }
    }

    fn push(&mut self, what: What, start: usize, inner: (usize, usize)) {
        self.spans.push(Span { what, start, end: self.at, inner });
    }

    fn comment(&mut self) -> bool {
        let start = self.at;
        for open in self.grammar.line {
            if self.starts(open) && self.opens_comment(open) {
                self.at = memchr::memchr(b'\n', &self.bytes[start..]).map_or(self.bytes.len(), |length| start + length);
                self.push(What::Comment, start, (start + open.len(), self.at));
                return true;
            }
        }
        for (open, close) in self.grammar.block {
            if self.starts(open) {
                self.at += open.len();
                let mut depth = 1;
                while self.at < self.bytes.len() && depth > 0 {
                    if self.starts(close) {
                        depth -= 1;
                        self.at += close.len();
                    } else if self.grammar.nests && self.starts(open) {
                        depth += 1;
                        self.at += open.len();
                    } else {
                        self.at += 1;
                    }
                }
                self.push(What::Comment, start, (start + open.len(), self.at));
                return true;
            }
        }
        false
    }

    fn opens_comment(&self, open: &str) -> bool {
        let before = self.before();
        match (self.language, open) {
            // `https://` in text or a plain value.
            (_, "//") => before != b':',
            (Language::Php, "#") => self.byte(self.at + 1) != b'[',
            (Language::Shell | Language::Yaml, _) => before.is_ascii_whitespace(),
            (Language::Properties, _) => before == b'\n' || open == "#" && before.is_ascii_whitespace(),
            _ => true,
        }
    }

    /// What is neither comment nor string but may hold their signs: characters, lifetimes, regular expressions, word lists.
    fn special(&mut self) -> bool {
        match (self.language, self.byte(self.at)) {
            (Language::Rust, b'\'') => {
                let length = match self.byte(self.at + 1) {
                    b'\\' => memchr::memchr(b'\'', self.bytes.get(self.at + 3..).unwrap_or_default()).map_or(1, |length| length + 4),
                    _ => (3..=6)
                        .find(|length| self.byte(self.at + length - 1) == b'\'')
                        .filter(|length| *length == 3 || self.byte(self.at + 1) >= 0x80)
                        .unwrap_or(1),
                };
                self.at += length;
                true
            }
            (Language::C, b'\'') if is_word(self.before()) => {
                self.at += 1;
                true
            }
            (Language::Script | Language::Markup | Language::Ruby, b'/') => self.regular_expression(),
            (Language::Ruby, b'%') if matches!(self.byte(self.at + 1), b'w' | b'i') => self.words(),
            _ => false,
        }
    }

    fn regular_expression(&mut self) -> bool {
        if is_word(self.last) || matches!(self.last, b')' | b']' | b'}' | b'"' | b'\'' | b'`' | b'<') {
            return false;
        }
        let mut at = self.at + 1;
        let mut class = false;
        loop {
            match self.byte(at) {
                b'\\' => at += 1,
                b'[' => class = true,
                b']' => class = false,
                b'/' if !class => break,
                b'\n' | 0 => return false,
                _ => {}
            }
            at += 1;
        }
        self.at = at + 1;
        self.last = b'/';
        true
    }

    /// `%w[a b]`: each word is a string.
    fn words(&mut self) -> bool {
        let close = match self.byte(self.at + 2) {
            b'[' => b']',
            b'(' => b')',
            b'{' => b'}',
            _ => return false,
        };
        self.at += 3;
        while self.at < self.bytes.len() && self.byte(self.at) != close {
            let start = self.at;
            while self.at < self.bytes.len() && !self.byte(self.at).is_ascii_whitespace() && self.byte(self.at) != close {
                self.at += 1;
            }
            if self.at > start {
                self.push(What::Text, start, (start, self.at));
            } else {
                self.at += 1;
            }
        }
        true
    }

    fn text(&mut self, depth: usize) -> bool {
        let Some(quote) = self.grammar.quotes.iter().find(|quote| self.starts(quote.open)) else { return false };
        let before = self.before();
        // An apostrophe in a plain value is no quote.
        if self.language == Language::Yaml && !(before.is_ascii_whitespace() || b"[{,:(-".contains(&before)) {
            return false;
        }
        let (raw, filled) = self.prefix(before);
        let quote = Quote { escapes: quote.escapes && !raw, hole: quote.hole.filter(|_| filled && depth < DEPTH_MAX), ..*quote };
        let remark = self.language == Language::Python && quote.open.len() == 3 && self.is_statement();
        self.string(quote, depth, remark)
    }

    /// Of a Python string: whether it is raw, whether it has holes.
    fn prefix(&self, before: u8) -> (bool, bool) {
        if self.language != Language::Python {
            return (false, true);
        }
        let two = self.at.checked_sub(2).map_or(b' ', |at| self.byte(at));
        let is = |letter: u8| before.eq_ignore_ascii_case(&letter) || before.is_ascii_alphabetic() && two.eq_ignore_ascii_case(&letter);
        (is(b'r'), is(b'f'))
    }

    /// Whether nothing but spaces stands before it on its line, and nothing open on the lines before: then it documents.
    fn is_statement(&self) -> bool {
        let line = memchr::memrchr(b'\n', &self.bytes[..self.at]).map_or(0, |end| end + 1);
        self.bytes[line..self.at].iter().all(u8::is_ascii_whitespace) && !b"=([{,+\\%".contains(&self.last)
    }

    fn string(&mut self, quote: Quote, depth: usize, remark: bool) -> bool {
        let (from, spans) = (self.at, self.spans.len());
        let mut start = self.at;
        self.at += quote.open.len();
        let mut inner = self.at;
        let mut whole = true;
        while self.at < self.bytes.len() {
            if self.starts(quote.close) {
                let end = self.at;
                self.at += quote.close.len();
                let what = if remark {
                    What::Comment
                } else if whole {
                    What::Text
                } else {
                    What::Part { opens: false }
                };
                self.push(what, start, (inner, end));
                self.last = b'"';
                return true;
            }
            match self.byte(self.at) {
                b'\\' if quote.escapes => self.at += 1,
                // `{{` is a brace.
                b'{' if quote.hole == Some("{") && self.byte(self.at + 1) == b'{' => {
                    self.at += 2;
                    continue;
                }
                b'\n' if !quote.lines => break,
                _ => {}
            }
            if let Some(hole) = quote.hole.filter(|hole| self.starts(hole)) {
                let end = self.at;
                // In `{$name}` the sign belongs to the code.
                self.at += if hole == "{$" { 1 } else { hole.len() };
                self.push(What::Part { opens: true }, start, (inner, end));
                self.last = b'(';
                self.code(true, depth + 1);
                whole = false;
                start = self.at;
                self.at += 1;
                inner = self.at;
            } else {
                self.at += 1;
            }
        }
        // Not a string after all.
        self.spans.truncate(spans);
        self.vain += self.at - from;
        if self.vain > VAIN_MAX * (self.bytes.len() + 1) {
            self.at = self.bytes.len();
            return true;
        }
        self.at = from + quote.open.len();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{What, lex};
    use crate::language::Language;

    fn read(text: &str, language: Language) -> Vec<(What, &str)> {
        lex(text.as_bytes(), language).iter().map(|span| (span.what, &text[span.inner.0..span.inner.1])).collect()
    }

    #[test]
    fn holes_are_code() {
        let found = read("`a ${f(\"b\")} c` // d", Language::Script);
        let part = |opens| What::Part { opens };
        assert_eq!(found, [(part(true), "a "), (What::Text, "b"), (part(false), " c"), (What::Comment, " d")]);
    }

    #[test]
    fn quotes_that_are_none() {
        assert_eq!(read("<p>It's here</p>\n\"x\"", Language::Script), [(What::Text, "x")]);
        assert_eq!(read("fn f<'a>(q: char) { q == '\"' || q == '\\'' } \"x\"", Language::Rust), [(What::Text, "x")]);
        assert_eq!(read("a = /[\"'`]/.test(b) / 2 + \"x\"", Language::Script), [(What::Text, "x")]);
        assert_eq!(read("1'000 + \"x\"", Language::C), [(What::Text, "x")]);
    }

    #[test]
    fn documentation_is_comment() {
        assert_eq!(read("def f():\n  \"\"\"a\"\"\"\n  g(\"\"\"b\"\"\")", Language::Python), [(What::Comment, "a"), (What::Text, "b")]);
        assert_eq!(read("/* a /* b */ c */ \"x\"", Language::Jvm), [(What::Comment, " a /* b */ c */"), (What::Text, "x")]);
    }

    #[test]
    fn anything_ends() {
        for language in
            [Language::Script, Language::Python, Language::Rust, Language::Ruby, Language::CSharp, Language::Php, Language::Yaml]
        {
            for text in ["\"", "'", "`${`${", "/*", "'\\", "f\"{", "%w[", "/", "\\", "=begin", "r#\"", "@\"", "\"{$"] {
                lex(text.as_bytes(), language);
            }
        }
    }
}
