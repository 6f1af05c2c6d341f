//! A set of flags: read once, then only asked.
//!
//! **Invariant:** immutable and whole; nobody ever sees half of a set. Not here: reading (`read`), where sets come from.

use hashbrown::HashMap;
use serde_json::{Map, Value};

use crate::logic::Asked;
use crate::{Bucketing, Context, Evaluation, EvaluationError, Flag, Problem, document, read};

/// A flag set, compiled; immutable.
#[derive(Debug)]
pub struct Set {
    pub(crate) bucketing: Bucketing,
    pub(crate) document: Box<str>,
    pub(crate) metadata: Map<String, Value>,
    /// Sorted by key.
    pub(crate) flags: Box<[Flag]>,
    /// hashbrown's own hash (foldhash, seeded at random): a third of what the standard library's costs for a short key.
    pub(crate) places: HashMap<Box<str>, usize>,
    pub(crate) warnings: Vec<Problem>,
}

impl Set {
    /// Reads and compiles flagd's format (schema 0.2.15) from JSON.
    ///
    /// # Errors
    /// Everything that rejects the set: no JSON, too large, a flag without state or variants, a default variant that is none.
    /// What spoils one flag's rule only, or nothing at all, is among [`Set::warnings`].
    pub fn from_json(text: &str, bucketing: Bucketing) -> Result<Self, Vec<Problem>> {
        read::set(text, document::read_json, bucketing)
    }

    /// The same from YAML.
    ///
    /// # Errors
    /// As [`Set::from_json`].
    pub fn from_yaml(text: &str, bucketing: Bucketing) -> Result<Self, Vec<Problem>> {
        read::set(text, document::read_yaml, bucketing)
    }

    /// What is wrong without rejecting the set, in the order of the text.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The generation of `fractional` that this set was compiled for.
    pub fn bucketing(&self) -> Bucketing {
        self.bucketing
    }

    /// The whole set as JSON text: as given, if it was JSON with its flags by key.
    pub fn document(&self) -> &str {
        &self.document
    }

    /// Of the set: `flagSetId`, `version` and others.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    pub fn len(&self) -> usize {
        self.flags.len()
    }

    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// Sorted by key.
    pub fn flags(&self) -> impl Iterator<Item = &Flag> {
        self.flags.iter()
    }

    pub fn flag(&self, key: &str) -> Option<&Flag> {
        self.flags.get(*self.places.get(key)?)
    }

    /// What flag `key` answers to `context` at `now_s` (Unix seconds; rules see it as `$flagd.timestamp`).
    ///
    /// # Errors
    /// No such flag; a rule that cannot be evaluated; a rule that chose what is none of the flag's variants.
    pub fn evaluate<'a>(&'a self, key: &str, context: &Context, now_s: i64) -> Result<Evaluation<'a>, EvaluationError> {
        let flag = self.flag(key).ok_or_else(|| EvaluationError::FlagNotFound(key.to_owned()))?;
        flag.evaluate(&Asked::new(context, &flag.key, now_s, self.bucketing))
    }
}
