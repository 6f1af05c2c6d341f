//! Rules as conditions: a boolean at once, without a value in between. Most of what a typical rule does is this.
//!
//! **Invariant:** says what `coerce::truthy` says of the rule's value. Not here: rules that are no conditions (`evaluate`).

use super::coerce;
use super::evaluate::{Asked, Fault, Scope, evaluate};
use super::operator::{Equality, Order};
use super::rule::{Known, Rule, SemVer};
use super::value::Val;
use super::version::{Relation, Version};

/// Whether the rule's value counts as true.
pub(super) fn truth<'a>(rule: &'a Rule, scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Result<bool, Fault> {
    match rule {
        Rule::And(parts) if !parts.is_empty() => every(parts, true, scope, asked),
        Rule::Or(parts) => every(parts, false, scope, asked).map(|none| !none),
        _ => match condition(rule, scope, asked) {
            Some(holds) => Ok(holds? == Some(true)),
            None => evaluate(rule, scope, asked).map(|value| coerce::truthy(&value)),
        },
    }
}

fn every<'a>(parts: &'a [Rule], wanted: bool, scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Result<bool, Fault> {
    for part in parts {
        if truth(part, scope, asked)? != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

/// For rules whose value is a boolean, or null, which is the inner `None`; the outer one is for all others.
pub(super) fn condition<'a>(rule: &'a Rule, scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Option<Result<Option<bool>, Fault>> {
    Some(match rule {
        Rule::Not(part) => truth(part, scope, asked).map(|holds| Some(!holds)),
        Rule::Truth(part) => truth(part, scope, asked).map(Some),
        Rule::Equal(equality, sides) => equal(*equality, sides, scope, asked).map(Some),
        Rule::EqualText(equality, parts) => equals_text(*equality, &parts.0, &parts.1, scope, asked).map(Some),
        Rule::Order(order, parts) => ordered(*order, parts, scope, asked).map(Some),
        Rule::InTexts(parts) => with_text(&parts.0, scope, asked, |text| Some(text.is_some_and(|text| parts.1.contains(text)))),
        Rule::StartsWith(sides) => affix(sides, |text, part| text.starts_with(part), scope, asked),
        Rule::EndsWith(sides) => affix(sides, |text, part| text.ends_with(part), scope, asked),
        Rule::SemVer(parts) => versions(parts, scope, asked),
        _ => return None,
    })
}

/// Gives the rule's text to `then`, or nothing if its value is something else. Most texts are borrowed from the context.
fn with_text<'a, T>(rule: &'a Rule, scope: &Scope<'_, 'a>, asked: &Asked<'a>, then: impl FnOnce(Option<&str>) -> T) -> Result<T, Fault> {
    match rule {
        Rule::Literal(value) => Ok(then(value.as_str())),
        Rule::Var(path, None) if path.is_plain() => Ok(then(path.plain(asked).and_then(|value| value.as_str()))),
        _ => Ok(then(evaluate(rule, scope, asked)?.as_text())),
    }
}

fn equal<'a>(equality: Equality, [one, other]: &'a [Rule; 2], scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Result<bool, Fault> {
    Ok(equality.holds(&evaluate(one, scope, asked)?, &evaluate(other, scope, asked)?))
}

impl Equality {
    fn holds(self, one: &Val<'_>, other: &Val<'_>) -> bool {
        let equal = if self.strict { coerce::strictly_equal(one, other) } else { coerce::loosely_equal(one, other) };
        equal != self.negated
    }
}

fn equals_text<'a>(equality: Equality, rule: &'a Rule, text: &'a str, scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Result<bool, Fault> {
    if let Rule::Var(path, None) = rule
        && path.is_plain()
        && let Some(serde_json::Value::String(found)) = path.plain(asked)
    {
        return Ok((found == text) != equality.negated);
    }
    Ok(equality.holds(&evaluate(rule, scope, asked)?, &Val::Text(text.into())))
}

fn ordered<'a>(order: Order, parts: &'a [Rule], scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Result<bool, Fault> {
    let [first, rest @ ..] = parts else { return Ok(false) };
    let mut before = evaluate(first, scope, asked)?;
    for part in rest {
        let value = evaluate(part, scope, asked)?;
        let holds = coerce::order(&before, &value).is_some_and(|found| match order {
            Order::Less => found.is_lt(),
            Order::LessOrEqual => found.is_le(),
            Order::Greater => found.is_gt(),
            Order::GreaterOrEqual => found.is_ge(),
        });
        if !holds {
            return Ok(false);
        }
        before = value;
    }
    Ok(true)
}

/// Null unless both are texts.
fn affix<'a>(
    [text, part]: &'a [Rule; 2],
    holds: fn(&str, &str) -> bool,
    scope: &Scope<'_, 'a>,
    asked: &Asked<'a>,
) -> Result<Option<bool>, Fault> {
    let part = evaluate(part, scope, asked)?;
    with_text(text, scope, asked, |text| text.zip(part.as_text()).map(|(text, part)| holds(text, part)))
}

/// Null where one of the three makes no sense.
fn versions<'a>(parts: &'a SemVer, scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Result<Option<bool>, Fault> {
    let relation = match &parts.relation {
        Known::Yes(relation) => Some(*relation),
        Known::Later(rule) => Relation::of(&coerce::text(&evaluate(rule, scope, asked)?)),
    };
    let computed;
    let other = match &parts.other {
        Known::Yes(other) => Some(other.borrowed()),
        Known::Later(rule) => {
            computed = evaluate(rule, scope, asked)?;
            return with_version(&parts.version, scope, asked, |one| Some(relation?.holds(one?, Version::read(&coerce::text(&computed))?)));
        }
    };
    with_version(&parts.version, scope, asked, |one| Some(relation?.holds(one?, other?)))
}

/// A number is a version too.
fn with_version<'a, T>(
    rule: &'a Rule,
    scope: &Scope<'_, 'a>,
    asked: &Asked<'a>,
    then: impl FnOnce(Option<Version<'_>>) -> T,
) -> Result<T, Fault> {
    if let Rule::Var(path, None) = rule
        && path.is_plain()
        && let Some(serde_json::Value::String(text)) = path.plain(asked)
    {
        return Ok(then(Version::read(text)));
    }
    let value = evaluate(rule, scope, asked)?;
    Ok(then(Version::read(&coerce::text(&value))))
}
