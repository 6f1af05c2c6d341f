//! What a rule works on: values borrowed from the rule or the context, or made on the way.
//!
//! **Invariant:** whole numbers stay whole as long as no operation needs more. Not here: coercion.

use std::borrow::Cow;
use std::rc::Rc;

use serde_json::{Map, Value};

#[derive(Debug, Clone)]
pub(crate) enum Val<'a> {
    Null,
    Bool(bool),
    Whole(i64),
    /// A whole number above those; identifiers can be, and are hashed by their exact value.
    Large(u64),
    /// Any other number; NaN and the infinities can come of arithmetic.
    Real(f64),
    Text(Cow<'a, str>),
    /// As it stands in the context or the rule.
    Items(&'a [Value]),
    /// Made by an operation.
    Made(Rc<Made<'a>>),
    Object(&'a Map<String, Value>),
    /// All data of a scope, which no operation looks into.
    Whence,
}

/// A list that an operation made.
#[derive(Debug)]
pub(crate) struct Made<'a> {
    items: Box<[Val<'a>]>,
    /// How many made lists are within each other here.
    depth: usize,
}

impl<'a> From<&'a Value> for Val<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(whole), _) => Self::Whole(whole),
                (None, Some(large)) => Self::Large(large),
                (None, None) => Self::Real(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            Value::Array(items) => Self::Items(items),
            Value::Object(entries) => Self::Object(entries),
        }
    }
}

/// A rule could pile lists into lists as often as a context has items; going through them recurses.
const MADE_DEPTH_MAX: usize = 64;

impl<'a> Val<'a> {
    /// Nothing where that would be nested too deeply.
    pub(crate) fn made(items: impl Into<Box<[Val<'a>]>>) -> Option<Self> {
        let items = items.into();
        let below = |item: &Val<'_>| if let Val::Made(made) = item { made.depth } else { 0 };
        let depth = 1 + items.iter().map(below).max().unwrap_or(0);
        (depth <= MADE_DEPTH_MAX).then(|| Self::Made(Rc::new(Made { items, depth })))
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self, Self::Items(_) | Self::Made(_))
    }

    /// Of a list; 0 of anything else.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Items(items) => items.len(),
            Self::Made(made) => made.items.len(),
            _ => 0,
        }
    }

    /// Of a list, from 0.
    pub(crate) fn item(&self, place: usize) -> Option<Val<'a>> {
        match self {
            Self::Items(items) => items.get(place).map(Val::from),
            Self::Made(made) => made.items.get(place).cloned(),
            _ => None,
        }
    }

    /// Of a list; none of anything else.
    pub(crate) fn items(&self) -> impl Iterator<Item = Val<'a>> + '_ {
        (0..self.count()).filter_map(|place| self.item(place))
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}
