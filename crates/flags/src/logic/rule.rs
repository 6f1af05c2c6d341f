//! A compiled rule: a tree in which names, literals and weights are already what they mean.
//!
//! **Invariant:** immutable; evaluated by many threads at once. Not here: how it is made (`compile`) and what it gives (`evaluate`).

use hashbrown::HashSet;
use serde_json::Value;

use super::fractional::Fractional;
use super::operator::{Arithmetic, Each, Equality, Order};
use super::path::Path;
use super::version::{OwnedVersion, Relation};

#[derive(Debug)]
pub(crate) enum Rule {
    Literal(Value),
    List(Box<[Rule]>),
    /// A value of the data, or else the second.
    Var(Path, Option<Box<Rule>>),
    /// The same, of a name that is computed.
    VarNamed(Box<[Rule]>),
    Missing(Box<[Rule]>),
    MissingSome(Box<[Rule]>),
    /// Condition, result, condition, result, and at last what else.
    If(Box<[Rule]>),
    And(Box<[Rule]>),
    Or(Box<[Rule]>),
    Not(Box<Rule>),
    Truth(Box<Rule>),
    Equal(Equality, Box<[Rule; 2]>),
    /// With a literal text.
    EqualText(Equality, Box<(Rule, Box<str>)>),
    Order(Order, Box<[Rule]>),
    Arithmetic(Arithmetic, Box<[Rule]>),
    Cat(Box<[Rule]>),
    Substr(Box<[Rule]>),
    In(Box<[Rule; 2]>),
    /// In a literal list of texts.
    InTexts(Box<(Rule, Texts)>),
    Merge(Box<[Rule]>),
    Each(Each, Box<[Rule; 2]>),
    Reduce(Box<[Rule; 3]>),
    Fractional(Box<Fractional>),
    SemVer(Box<SemVer>),
    StartsWith(Box<[Rule; 2]>),
    EndsWith(Box<[Rule; 2]>),
}

impl Rule {
    pub(crate) const NOTHING: Self = Self::Literal(Value::Null);

    pub(crate) fn literal(&self) -> Option<&Value> {
        match self {
            Self::Literal(value) => Some(value),
            _ => None,
        }
    }
}

/// From so many texts on, looking one up in a table is faster than comparing one by one.
const TABLE_MIN: usize = 9;

#[derive(Debug)]
pub(crate) enum Texts {
    Few(Box<[Box<str>]>),
    Many(HashSet<Box<str>>),
}

impl Texts {
    pub(crate) fn new(texts: Vec<Box<str>>) -> Self {
        if texts.len() < TABLE_MIN { Self::Few(texts.into()) } else { Self::Many(texts.into_iter().collect()) }
    }

    pub(crate) fn contains(&self, text: &str) -> bool {
        match self {
            Self::Few(texts) => texts.iter().any(|known| **known == *text),
            Self::Many(texts) => texts.contains(text),
        }
    }
}

#[derive(Debug)]
pub(crate) struct SemVer {
    pub(crate) version: Rule,
    /// A relation that is computed is looked up when it is known.
    pub(crate) relation: Known<Relation>,
    pub(crate) other: Known<OwnedVersion>,
}

/// Known beforehand, or a rule that gives it.
#[derive(Debug)]
pub(crate) enum Known<T> {
    Yes(T),
    Later(Rule),
}
