//! Where `var` looks: `user.address.0.city`, taken apart once.
//!
//! **Invariant:** the properties of `$flagd` are ours, whatever the context says. Not here: defaults.

use std::borrow::Cow;

use serde_json::Value;

use super::coerce;
use super::evaluate::{Asked, Scope};
use super::value::Val;
use crate::context::TARGETING_KEY;

#[derive(Debug)]
pub(crate) struct Path {
    origin: Origin,
    steps: Box<[Step]>,
}

/// What the steps start from.
#[derive(Debug)]
enum Origin {
    TargetingKey,
    FlagKey,
    Timestamp,
    /// A value of the context.
    Named(Box<str>),
    /// Whatever the scope holds: an item of a list, or all of the context.
    Scope,
    /// There is no such property of `$flagd`.
    Nowhere,
}

#[derive(Debug)]
struct Step {
    name: Box<str>,
    /// As a place in a list; `007` is none.
    place: Option<usize>,
}

impl Path {
    /// `is_root` is whether the data is the evaluation context, not an item of a list.
    pub(crate) fn new(text: &str, is_root: bool) -> Self {
        if text.is_empty() {
            return Self { origin: Origin::Scope, steps: Box::new([]) };
        }
        if !is_root {
            return Self { origin: Origin::Scope, steps: steps(text) };
        }
        let (first, rest) = text.split_once('.').map_or((text, None), |(first, rest)| (first, Some(rest)));
        let origin = match (first, rest) {
            (TARGETING_KEY, _) => Origin::TargetingKey,
            ("$flagd", Some("flagKey")) => return Self { origin: Origin::FlagKey, steps: Box::new([]) },
            ("$flagd", Some("timestamp")) => return Self { origin: Origin::Timestamp, steps: Box::new([]) },
            ("$flagd", None) => Origin::Scope,
            ("$flagd", Some(_)) => Origin::Nowhere,
            _ => Origin::Named(first.into()),
        };
        Self { origin, steps: rest.map(steps).unwrap_or_default() }
    }

    /// Whether it is a value of the context by itself, with no steps into it.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.origin, Origin::Named(_) | Origin::TargetingKey) && self.steps.is_empty()
    }

    /// That value.
    pub(crate) fn plain<'a>(&self, asked: &Asked<'a>) -> Option<&'a Value> {
        match &self.origin {
            Origin::Named(name) => asked.context.get(name),
            _ => asked.context.get(TARGETING_KEY),
        }
    }

    /// `None` and null are both "not there".
    pub(crate) fn find<'a>(&self, scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Option<Val<'a>> {
        let start = match (&self.origin, scope) {
            (Origin::TargetingKey, _) => Val::from(asked.context.get(TARGETING_KEY)?),
            (Origin::FlagKey, _) => Val::Text(Cow::Borrowed(asked.flag_key)),
            (Origin::Timestamp, _) => Val::Whole(asked.now_s),
            (Origin::Named(name), _) => Val::from(asked.context.get(name)?),
            (Origin::Nowhere, _) => return None,
            (Origin::Scope, Scope::Root) => Val::Whence,
            (Origin::Scope, Scope::Item(item)) => (*item).clone(),
            (Origin::Scope, Scope::Pair { current, accumulator }) => {
                let Some((first, rest)) = self.steps.split_first() else { return Some(Val::Whence) };
                return match &*first.name {
                    "current" => walk((*current).clone(), rest),
                    "accumulator" => walk((*accumulator).clone(), rest),
                    _ => None,
                };
            }
        };
        walk(start, &self.steps)
    }
}

fn steps(text: &str) -> Box<[Step]> {
    let place = |part: &str| part.parse().ok().filter(|place: &usize| place.to_string() == part);
    text.split('.').map(|part| Step { name: part.into(), place: place(part) }).collect()
}

fn walk<'a>(start: Val<'a>, steps: &[Step]) -> Option<Val<'a>> {
    let mut value = start;
    for step in steps {
        value = match (&value, step.place) {
            (Val::Object(entries), _) => Val::from(entries.get(&*step.name)?),
            (Val::Items(_) | Val::Made(_), Some(place)) => value.item(place)?,
            (Val::Items(_) | Val::Made(_), None) if &*step.name == "length" => Val::Whole(i64::try_from(value.count()).ok()?),
            (Val::Text(text), Some(place)) => Val::Text(Cow::Owned(text.chars().nth(place)?.to_string())),
            (Val::Text(text), None) if &*step.name == "length" => Val::Whole(i64::try_from(text.chars().count()).ok()?),
            _ => return None,
        };
    }
    (!matches!(value, Val::Null)).then_some(value)
}

/// For names that are computed: a null or empty one means all data.
pub(crate) fn find_named<'a>(name: &Val<'a>, scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Option<Val<'a>> {
    let text = if matches!(name, Val::Null) { Cow::Borrowed("") } else { coerce::text(name) };
    Path::new(&text, matches!(scope, Scope::Root)).find(scope, asked)
}
