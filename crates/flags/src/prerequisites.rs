//! Prerequisite flags, compiled away into plain rules: flagd's format has none, and this way every unmodified flagd client obeys them.
//!
//! **Invariant:** for every user the result answers what the flag answers when all prerequisites answer what they must, and `unmet`
//! otherwise; each user stays in the same bucket of each flag. Not here: cycles; the caller compiles prerequisites before what needs them.

use serde_json::{Map, Value, json};

use crate::Bucketing;

/// A flag that has to answer one of `variants`.
#[derive(Debug, Clone, Copy)]
pub struct Prerequisite<'a> {
    pub key: &'a str,
    /// Its own definition, already with its own prerequisites.
    pub flag: &'a Value,
    pub variants: &'a [String],
}

/// Why prerequisites cannot be expressed as a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrerequisiteError {
    #[error("flag `{key}` has no variant `{variant}`")]
    NoVariant { key: String, variant: String },
    #[error("flag `{key}` is not an object with `variants`")]
    NoFlag { key: String },
    /// A shared rule means something else in another flag as soon as it depends on the flag's key.
    #[error("the rule of prerequisite `{key}` refers to an evaluator: write that rule out in the flag itself")]
    Evaluator { key: String },
    #[error("the rule of prerequisite `{key}` uses all of `$flagd`: use `$flagd.flagKey` or `$flagd.timestamp`")]
    Properties { key: String },
    /// The third generation hashes the list of the flag's key and the user; in another flag's rule, no value is that list.
    #[error(
        "prerequisite `{key}` divides its users by `fractional` without a first argument, which bucketing v3 cannot repeat in another flag: \
         give it {{\"cat\": [{{\"var\": \"$flagd.flagKey\"}}, {{\"var\": \"targetingKey\"}}]}} (this draws its users anew)"
    )]
    Shorthand { key: String },
}

/// The flag's definition, with a rule that answers `unmet` unless all prerequisites are met. A prerequisite that is disabled, or has no
/// answer, is not met. Names of variants that a rule computes as numbers are not seen: flagd's schema leaves them undefined.
///
/// # Errors
/// A variant that a flag does not have; a prerequisite whose rule means something else in another flag.
pub fn with_prerequisites(
    key: &str,
    flag: &Value,
    prerequisites: &[Prerequisite<'_>],
    unmet: &str,
    bucketing: Bucketing,
) -> Result<Value, PrerequisiteError> {
    has_variant(key, flag, unmet)?;
    if prerequisites.is_empty() {
        return Ok(flag.clone());
    }
    let conditions = prerequisites.iter().map(|prerequisite| prerequisite.condition(bucketing)).collect::<Result<Vec<_>, _>>()?;
    let own = rule(flag).cloned().unwrap_or_else(|| default(flag).into());
    let mut flag = flag.clone();
    flag["targeting"] = json!({"if": [{ "and": conditions }, own, unmet]});
    Ok(flag)
}

fn has_variant(key: &str, flag: &Value, variant: &str) -> Result<(), PrerequisiteError> {
    let variants = flag.get("variants").and_then(Value::as_object).ok_or_else(|| PrerequisiteError::NoFlag { key: key.to_owned() })?;
    if variants.contains_key(variant) {
        return Ok(());
    }
    Err(PrerequisiteError::NoVariant { key: key.to_owned(), variant: variant.to_owned() })
}

fn rule(flag: &Value) -> Option<&Value> {
    flag.get("targeting").filter(|rule| rule.as_object().is_some_and(|rule| !rule.is_empty()))
}

fn default(flag: &Value) -> Option<&str> {
    flag.get("defaultVariant").and_then(Value::as_str).filter(|name| !name.is_empty())
}

impl Prerequisite<'_> {
    /// Whether it answers one of the variants, as a rule for another flag.
    fn condition(&self, bucketing: Bucketing) -> Result<Value, PrerequisiteError> {
        for variant in self.variants {
            has_variant(self.key, self.flag, variant)?;
        }
        if self.flag["state"] != "ENABLED" {
            return Ok(Value::Bool(false));
        }
        let is_default = default(self.flag).is_some_and(|name| self.variants.iter().any(|variant| variant == name));
        let Some(rule) = rule(self.flag) else { return Ok(Value::Bool(is_default)) };
        let mut answers: Vec<Value> = self.variants.iter().map(|variant| variant.as_str().into()).collect();
        // A boolean answer names a variant too.
        let booleans = [true, false].into_iter().filter(|answer| self.variants.contains(&answer.to_string()));
        answers.extend(booleans.map(Value::Bool));
        if is_default {
            answers.push(Value::Null);
        }
        let rule = Elsewhere { key: self.key, bucketing }.rule(rule, true)?;
        Ok(json!({"in": [rule, answers]}))
    }
}

/// Rewrites a flag's rule so that it gives the same in another flag.
struct Elsewhere<'a> {
    key: &'a str,
    bucketing: Bucketing,
}

impl Elsewhere<'_> {
    /// `is_root` is whether the data is the evaluation context: an item of a list knows neither flag nor user.
    fn rule(&self, rule: &Value, is_root: bool) -> Result<Value, PrerequisiteError> {
        match rule {
            Value::Array(items) => items.iter().map(|item| self.rule(item, is_root)).collect(),
            Value::Object(entries) if entries.len() == 1 => match entries.iter().next() {
                Some((operator, arguments)) => self.operation(operator, arguments, is_root),
                None => Ok(rule.clone()),
            },
            _ => Ok(rule.clone()),
        }
    }

    fn operation(&self, operator: &str, arguments: &Value, is_root: bool) -> Result<Value, PrerequisiteError> {
        let key = || self.key.to_owned();
        let name = match arguments {
            Value::Array(arguments) => arguments.first().and_then(Value::as_str),
            other => other.as_str(),
        };
        match (operator, name) {
            ("$ref", _) => return Err(PrerequisiteError::Evaluator { key: key() }),
            ("var", Some("$flagd.flagKey")) if is_root => return Ok(key().into()),
            ("var", Some("$flagd")) if is_root => return Err(PrerequisiteError::Properties { key: key() }),
            _ => {}
        }
        let is_list_operator = matches!(operator, "map" | "filter" | "reduce" | "all" | "none" | "some");
        let mut rewritten = match arguments {
            Value::Array(arguments) => {
                let parts = arguments.iter().enumerate();
                parts.map(|(place, part)| self.rule(part, is_root && !(is_list_operator && place == 1))).collect::<Result<Value, _>>()?
            }
            other => self.rule(other, is_root)?,
        };
        if let (true, "fractional", Some(buckets)) = (is_root, operator, rewritten.as_array_mut())
            && buckets.first().is_some_and(Value::is_array)
        {
            buckets.insert(0, self.by()?);
        }
        Ok(Value::Object(Map::from_iter([(operator.to_owned(), rewritten)])))
    }

    /// What the shorthand hashes, written out: null without a user.
    fn by(&self) -> Result<Value, PrerequisiteError> {
        match self.bucketing {
            Bucketing::V2 => Ok(json!({"if": [{"var": "targetingKey"}, {"cat": [self.key, {"var": "targetingKey"}]}, null]})),
            Bucketing::V3 => Err(PrerequisiteError::Shorthand { key: self.key.to_owned() }),
        }
    }
}
