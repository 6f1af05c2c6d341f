//! One flag of a set: its variants, its rule, and how it is evaluated.
//!
//! **Invariant:** the default variant is one of the variants. Not here: reading (`read`).

use serde_json::{Map, Value};

use crate::logic::{Asked, Rule, Val, evaluate};
use crate::{Evaluation, EvaluationError, Kind, Reason, Variant};

/// One flag of a set.
#[derive(Debug)]
pub struct Flag {
    pub(crate) key: Box<str>,
    pub(crate) kind: Kind,
    pub(crate) is_enabled: bool,
    pub(crate) variants: Box<[Named]>,
    /// A place in `variants`.
    pub(crate) default_variant: Option<usize>,
    pub(crate) targeting: Targeting,
    pub(crate) metadata: Map<String, Value>,
}

/// A variant and its name.
pub(crate) type Named = (Box<str>, Variant);

#[derive(Debug)]
pub(crate) enum Targeting {
    None,
    Rule(Rule),
    /// It cannot be evaluated; why, for people.
    Broken(String),
}

impl Flag {
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What its variants are; that of the first one where they differ.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Names and values, in the order of the text.
    pub fn variants(&self) -> impl Iterator<Item = (&str, &Variant)> {
        self.variants.iter().map(|(name, variant)| (&**name, variant))
    }

    pub fn variant(&self, name: &str) -> Option<&Variant> {
        self.named(name).map(|(_, variant)| variant)
    }

    fn named(&self, name: &str) -> Option<(&str, &Variant)> {
        self.variants().find(|(known, _)| *known == name)
    }

    /// Without one, the default in the asking code applies.
    pub fn default_variant(&self) -> Option<&str> {
        self.default().map(|(name, _)| name)
    }

    fn default(&self) -> Option<(&str, &Variant)> {
        let (name, variant) = self.variants.get(self.default_variant?)?;
        Some((name, variant))
    }

    pub fn has_targeting(&self) -> bool {
        !matches!(self.targeting, Targeting::None)
    }

    /// The set's, overridden by its own.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    pub(crate) fn evaluate(&self, asked: &Asked<'_>) -> Result<Evaluation<'_>, EvaluationError> {
        if !self.is_enabled {
            return Ok(Evaluation { flag: self, variant: None, value: None, reason: Reason::Disabled });
        }
        let rule = match &self.targeting {
            Targeting::None => return Ok(self.by_default(Reason::Static)),
            Targeting::Broken(why) => return Err(EvaluationError::ParseError(format!("the rule of flag `{}`: {why}", self.key))),
            Targeting::Rule(rule) => rule,
        };
        let answer = evaluate(rule, &crate::logic::Scope::Root, asked);
        match &answer {
            Ok(Val::Null) => Ok(self.by_default(Reason::Default)),
            Ok(Val::Text(name)) => self.chosen(name),
            Ok(Val::Bool(true)) => self.chosen("true"),
            Ok(Val::Bool(false)) => self.chosen("false"),
            Ok(other) => self.chosen(&crate::logic::text(other)),
            Err(fault) => Err(EvaluationError::General(format!("the rule of flag `{}` gives no answer: {}", self.key, fault.as_str()))),
        }
    }

    /// Without a default variant this is `DEFAULT`, as the default in the code may change at any time.
    fn by_default(&self, reason: Reason) -> Evaluation<'_> {
        match self.default() {
            Some((variant, value)) => Evaluation { flag: self, variant: Some(variant), value: Some(value), reason },
            None => Evaluation { flag: self, variant: None, value: None, reason: Reason::Default },
        }
    }

    fn chosen(&self, name: &str) -> Result<Evaluation<'_>, EvaluationError> {
        match self.named(name) {
            Some((variant, value)) => {
                Ok(Evaluation { flag: self, variant: Some(variant), value: Some(value), reason: Reason::TargetingMatch })
            }
            None => Err(EvaluationError::General(format!("the rule of flag `{}` chose `{name}`, which is none of its variants", self.key))),
        }
    }
}
