//! Evaluates a compiled rule.
//!
//! **Invariant:** work and memory are bounded: items of lists that are visited, and bytes of texts that are made, are counted.
//! Not here: conditions (`truth`), lists, `fractional`.

use std::borrow::Cow;
use std::cell::Cell;

use super::rule::Rule;
use super::truth::{condition, truth};
use super::value::Val;
use super::{arithmetic, coerce, fractional, lists, path};
use crate::{Bucketing, Context};

/// Items of lists that one evaluation may visit or make. A context of 1 MiB has fewer; a rule that loops in loops has more.
const ITEMS_MAX: u32 = 100_000;
/// Bytes of text that one evaluation may make; no variant's name and no user's key is nearly as long.
const TEXT_BYTES_MAX: u32 = 1024 * 1024;

/// Who asks what, and how much it may still cost.
pub(crate) struct Asked<'a> {
    pub(crate) context: &'a Context,
    pub(crate) flag_key: &'a str,
    pub(crate) now_s: i64,
    pub(crate) bucketing: Bucketing,
    items_left: Cell<u32>,
    bytes_left: Cell<u32>,
}

/// What `var` sees.
#[derive(Clone, Copy)]
pub(crate) enum Scope<'s, 'a> {
    /// The evaluation context.
    Root,
    /// An item of a list.
    Item(&'s Val<'a>),
    /// Of `reduce`.
    Pair { current: &'s Val<'a>, accumulator: &'s Val<'a> },
}

/// Why a rule gives nothing at all, not even null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    DivisionByZero,
    TooMuch,
}

impl Fault {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::DivisionByZero => "it divides by zero",
            Self::TooMuch => "it takes too much work: its lists or texts grow without bound",
        }
    }
}

impl<'a> Asked<'a> {
    pub(crate) fn new(context: &'a Context, flag_key: &'a str, now_s: i64, bucketing: Bucketing) -> Self {
        Self { context, flag_key, now_s, bucketing, items_left: Cell::new(ITEMS_MAX), bytes_left: Cell::new(TEXT_BYTES_MAX) }
    }

    pub(crate) fn visits(&self, items: usize) -> Result<(), Fault> {
        spend(&self.items_left, items)
    }

    pub(crate) fn makes(&self, bytes: usize) -> Result<(), Fault> {
        spend(&self.bytes_left, bytes)
    }
}

fn spend(left: &Cell<u32>, amount: usize) -> Result<(), Fault> {
    let rest = u32::try_from(amount).ok().and_then(|amount| left.get().checked_sub(amount)).ok_or(Fault::TooMuch)?;
    left.set(rest);
    Ok(())
}

pub(crate) type Answer<'a> = Result<Val<'a>, Fault>;

pub(crate) fn evaluate<'a>(rule: &'a Rule, scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    match rule {
        Rule::Literal(value) => Ok(Val::from(value)),
        Rule::Var(path, default) => match (path.find(scope, asked), default) {
            (Some(found), _) => Ok(found),
            (None, Some(default)) => evaluate(default, scope, asked),
            (None, None) => Ok(Val::Null),
        },
        Rule::If(parts) => choose(parts, scope, asked),
        Rule::And(parts) => first(parts, false, scope, asked),
        Rule::Or(parts) => first(parts, true, scope, asked),
        Rule::Fractional(parts) => fractional::evaluate(parts, scope, asked),
        Rule::Arithmetic(operation, parts) => arithmetic::evaluate(*operation, parts, scope, asked),
        rule => match condition(rule, scope, asked) {
            Some(holds) => Ok(holds?.map_or(Val::Null, Val::Bool)),
            None => lists::evaluate(rule, scope, asked),
        },
    }
}

fn choose<'a>(parts: &'a [Rule], scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    let (pairs, last) = parts.as_chunks::<2>();
    for [condition, result] in pairs {
        if truth(condition, scope, asked)? {
            return evaluate(result, scope, asked);
        }
    }
    last.first().map_or(Ok(Val::Null), |last| evaluate(last, scope, asked))
}

/// The first part whose truth is `wanted`, or else the last one.
fn first<'a>(parts: &'a [Rule], wanted: bool, scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    let mut last = Val::Null;
    for part in parts {
        last = evaluate(part, scope, asked)?;
        if coerce::truthy(&last) == wanted {
            break;
        }
    }
    Ok(last)
}

/// `var` with a computed name.
pub(super) fn named<'a>(parts: &'a [Rule], scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    let name = parts.first().map_or(Ok(Val::Null), |name| evaluate(name, scope, asked))?;
    match (path::find_named(&name, scope, asked), parts.get(1)) {
        (Some(found), _) => Ok(found),
        (None, Some(default)) => evaluate(default, scope, asked),
        (None, None) => Ok(Val::Null),
    }
}

/// All parts as one text, paid for.
pub(super) fn cat<'a>(parts: &'a [Rule], scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    let mut text = String::new();
    for part in parts {
        let value = evaluate(part, scope, asked)?;
        asked.visits(value.count())?;
        let before = text.len();
        coerce::write_text(&value, &mut text);
        asked.makes(text.len() - before)?;
    }
    Ok(Val::Text(Cow::Owned(text)))
}
