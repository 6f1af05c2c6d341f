//! The second look: where the constants are used that hold a key.
//!
//! Constants are known only after the first look at all files, so files of their languages are read again, for the names alone.
//!
//! Not here: what another file sees (`sight`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use aho_corasick::AhoCorasick;

use crate::constants::Constant;
use crate::language::Language;
use crate::needles::{automaton, is_word};
use crate::sight::{Imports, Seen, renamed, seen};
use crate::source::{Place, Source};
use crate::surroundings::asks;
use crate::tools::Tools;
use crate::{Kind, ScanError};

/// A constant, its key and its file.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) key: usize,
    pub(crate) constant: Constant,
    pub(crate) path: PathBuf,
    pub(crate) language: Language,
    /// Counts only when a flag call uses it.
    pub(crate) weak: bool,
}

/// A use of a holder.
#[derive(Debug)]
pub(crate) struct Use {
    pub(crate) holder: usize,
    pub(crate) at: usize,
    pub(crate) kind: Kind,
    pub(crate) through: String,
}

pub(crate) struct Holders {
    pub(crate) all: Vec<Holder>,
    automaton: AhoCorasick,
    /// For each needle, the holders of that name.
    named: Vec<Vec<usize>>,
}

impl Holders {
    /// Nothing when there is nothing to look for.
    pub(crate) fn new(all: Vec<Holder>) -> Result<Option<Self>, ScanError> {
        let mut names: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, holder) in all.iter().enumerate() {
            names.entry(&holder.constant.name).or_default().push(index);
        }
        if names.is_empty() {
            return Ok(None);
        }
        let automaton = automaton(names.keys())?;
        let named = names.into_values().collect();
        Ok(Some(Self { automaton, named, all }))
    }

    pub(crate) fn concern(&self, language: Language) -> bool {
        self.all.iter().any(|holder| holder.language.sees(language))
    }

    /// The names in a file, standing alone: start, end, and which.
    pub(crate) fn find(&self, bytes: &[u8], language: Language) -> Vec<(usize, usize, usize)> {
        let alone = |start: usize, end: usize| {
            !start.checked_sub(1).and_then(|before| bytes.get(before)).is_some_and(|byte| is_word(*byte))
                && !bytes.get(end).is_some_and(|byte| is_word(*byte))
        };
        let concerned =
            |needle: usize| self.named.get(needle).into_iter().flatten().any(|holder| self.all[*holder].language.sees(language));
        self.automaton
            .find_overlapping_iter(bytes)
            .map(|found| (found.start(), found.end(), found.pattern().as_usize()))
            .filter(|(start, end, needle)| alone(*start, *end) && concerned(*needle))
            .collect()
    }

    /// Which of the names are uses of a holder.
    pub(crate) fn uses(&self, source: &Source<'_>, tools: &Tools<'_>, hits: &[(usize, usize, usize)]) -> Vec<Use> {
        let imports = Imports::of(source);
        let mut uses = Vec::new();
        for &(start, end, needle) in hits {
            if !is_name_here(source, start, end) {
                continue;
            }
            let candidates: Vec<usize> = self
                .named
                .get(needle)
                .into_iter()
                .flatten()
                .copied()
                .filter(|holder| self.all[*holder].language.sees(source.language))
                .collect();
            let own: Vec<usize> = candidates.iter().copied().filter(|holder| self.all[*holder].path == source.path).collect();
            // A local one before one of the file.
            let here = own.iter().rev().copied().filter(|holder| is_used_here(source, &self.all[*holder].constant, start, end));
            if let Some(holder) = here.max_by_key(|holder| self.all[*holder].constant.reach.is_some()) {
                uses.push(self.use_of(source, tools, holder, start, None));
            }
            if own.iter().any(|holder| !self.all[*holder].constant.qualified) {
                continue;
            }
            for holder in candidates.into_iter().filter(|holder| !own.contains(holder)) {
                match seen(source, &imports, &self.all[holder], start) {
                    Some(Seen::Used) => uses.push(self.use_of(source, tools, holder, start, None)),
                    Some(Seen::Imported) => {
                        uses.push(Use { holder, at: start, kind: Kind::Other, through: self.all[holder].constant.name.clone() });
                        if let Some(other) = renamed(source, end) {
                            self.follow(source, tools, holder, other, &imports, &mut uses);
                        }
                    }
                    None => {}
                }
            }
        }
        uses
    }

    /// The uses of an import's other name.
    fn follow(&self, source: &Source<'_>, tools: &Tools<'_>, holder: usize, name: &[u8], imports: &Imports, uses: &mut Vec<Use>) {
        for start in memchr::memmem::find_iter(source.bytes, name) {
            let end = start + name.len();
            let alone = !is_word(source.before(start)) && !is_word(source.byte(end));
            if alone && is_name_here(source, start, end) && imports.around(start).is_none() && source.qualifier(start).is_none() {
                uses.push(self.use_of(source, tools, holder, start, Some(name)));
            }
        }
    }

    fn use_of(&self, source: &Source<'_>, tools: &Tools<'_>, holder: usize, at: usize, other: Option<&[u8]>) -> Use {
        let kind = if asks(source, &tools.calls, at) { Kind::Call } else { Kind::Other };
        let through = other.map_or_else(|| self.all[holder].constant.name.clone(), |name| String::from_utf8_lossy(name).into_owned());
        Use { holder, at, kind, through }
    }
}

/// Code, and not the name of a property in an object; in a shell's string, `$NAME`.
fn is_name_here(source: &Source<'_>, start: usize, end: usize) -> bool {
    match source.place(start) {
        Place::Code => {
            let object =
                || source.byte(source.on_over_space(end)) == b':' && matches!(source.before(source.back_over_space(start)), b'{' | b',');
            !(source.language == Language::Script && object())
        }
        Place::Text(_) => source.language == Language::Shell && matches!(source.before(start), b'$' | b'{'),
        Place::Comment => false,
    }
}

/// Whether a name in the constant's own file is the constant.
fn is_used_here(source: &Source<'_>, constant: &Constant, start: usize, end: usize) -> bool {
    if start == constant.at || (start..end).contains(&constant.at) {
        return false;
    }
    if let Some((from, to)) = constant.reach {
        return (from..to).contains(&start) && source.qualifier(start).is_none();
    }
    match source.qualifier(start) {
        Some(b"self" | b"Self" | b"this" | b"cls" | b"static") => constant.container.is_some(),
        Some(b"crate" | b"super") => constant.container.is_none(),
        Some(qualifier) => constant.container.as_deref().is_some_and(|name| name.as_bytes() == qualifier),
        None => !constant.qualified,
    }
}
