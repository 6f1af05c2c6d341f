//! What is searched for, as one automaton: every key in every spelling, and the names of flag calls.
//!
//! **Invariant**: a hit has no letter, digit or `_` on either side, except an upper-case spelling, which may have a prefix
//! (`FEATURE_DARK_MODE`).
//!
//! Aho & Corasick 1975, by the crate `aho-corasick`: one look at each byte, whatever the number of keys.

use std::collections::{BTreeMap, HashSet};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use crate::ScanError;
use crate::key::{Form, spellings};

/// What a needle stands for. One needle may stand for several keys (`dark-mode` and `darkMode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The index of a key.
    Key(usize, Form),
    /// A name of a flag call.
    Call,
}

/// Where a needle was found: a range of bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hit {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) needle: usize,
}

pub(crate) struct Needles {
    automaton: AhoCorasick,
    meanings: Vec<Vec<Meaning>>,
    /// Every key in every spelling.
    texts: HashSet<String>,
}

impl Needles {
    pub(crate) fn new(keys: &[String], calls: &[String]) -> Result<Self, ScanError> {
        let mut texts: BTreeMap<String, Vec<Meaning>> = BTreeMap::new();
        for (index, key) in keys.iter().enumerate() {
            for (form, spelling) in spellings(key) {
                texts.entry(spelling).or_default().push(Meaning::Key(index, form));
            }
        }
        for call in calls {
            texts.entry(call.clone()).or_default().push(Meaning::Call);
        }
        // Where a text is somebody's key, it is nobody's other spelling.
        for meanings in texts.values_mut() {
            if meanings.iter().any(|meaning| matches!(meaning, Meaning::Key(_, Form::Literal))) {
                meanings.retain(|meaning| matches!(meaning, Meaning::Call | Meaning::Key(_, Form::Literal)));
            }
        }
        let is_key = |meanings: &Vec<Meaning>| meanings.iter().any(|meaning| matches!(meaning, Meaning::Key(..)));
        let keys = texts.iter().filter(|(_, meanings)| is_key(meanings)).map(|(text, _)| text.clone()).collect();
        Ok(Self { automaton: automaton(texts.keys())?, meanings: texts.into_values().collect(), texts: keys })
    }

    /// Whether it is a key, or another spelling of one.
    pub(crate) fn knows(&self, text: &str) -> bool {
        self.texts.contains(text)
    }

    pub(crate) fn meanings(&self, hit: Hit) -> &[Meaning] {
        self.meanings.get(hit.needle).map_or(&[], Vec::as_slice)
    }

    /// All hits that stand alone, in the order of their ends.
    pub(crate) fn find(&self, bytes: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        for found in self.automaton.find_overlapping_iter(bytes) {
            let hit = Hit { start: found.start(), end: found.end(), needle: found.pattern().as_usize() };
            if bytes.get(hit.end).is_some_and(|&byte| is_word(byte)) {
                continue;
            }
            let before = hit.start.checked_sub(1).and_then(|before| bytes.get(before)).copied().unwrap_or(b' ');
            // Most words `enabled` are no calls; their files need no closer look.
            let called = matches!(bytes.get(hit.end), Some(b'(' | b'<' | b'?' | b'!'))
                || matches!(bytes.get(hit.end..hit.end + 2), Some([b' ', b'(' | b'"' | b'\'' | b':']));
            if !called && self.meanings(hit) == [Meaning::Call] {
                continue;
            }
            let prefixed = || before == b'_' && self.meanings(hit).iter().any(|meaning| matches!(meaning, Meaning::Key(_, Form::Upper)));
            if !is_word(before) || prefixed() {
                hits.push(hit);
            }
        }
        hits
    }
}

/// Overlapping matches are wanted: of `search` and `search-v2`, the longer may fail where the shorter stands.
pub(crate) fn automaton<T: AsRef<[u8]>>(texts: impl Iterator<Item = T>) -> Result<AhoCorasick, ScanError> {
    let mut builder = AhoCorasick::builder();
    builder.match_kind(MatchKind::Standard).kind(Some(AhoCorasickKind::DFA));
    let texts: Vec<T> = texts.collect();
    // A DFA of very many keys would not fit in the caches, nor in memory.
    if texts.iter().map(|text| text.as_ref().len()).sum::<usize>() > DFA_BYTES_MAX {
        builder.kind(Some(AhoCorasickKind::ContiguousNFA));
    }
    builder.build(&texts).map_err(ScanError::Needles)
}

/// About 2,000 keys: a state takes some 256 bytes, so 50 MB at most.
const DFA_BYTES_MAX: usize = 200_000;

/// Part of an identifier. Bytes of other scripts count as letters.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::Needles;

    #[test]
    fn hits_stand_alone() {
        let needles = Needles::new(&["search".to_owned(), "dark-mode".to_owned()], &[]).expect("few needles");
        let found = |text: &str| needles.find(text.as_bytes()).len();
        assert_eq!(found("\"search\" searching research _search"), 1);
        assert_eq!(found("darkMode DARK_MODE FEATURE_DARK_MODE xDarkMode"), 3);
    }
}
