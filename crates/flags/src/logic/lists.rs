//! Lists, texts as lists, and what is missing.
//!
//! **Invariant:** every item that is visited or made is counted. Not here: conditions and comparisons.

use std::borrow::Cow;

use super::evaluate::{Answer, Asked, Fault, Scope, cat, evaluate as part_of, named};
use super::operator::Each;
use super::rule::Rule;
use super::truth::truth;
use super::value::Val;
use super::{coerce, path};

/// The rules that are rarer than those of `evaluate`.
pub(super) fn evaluate<'a>(rule: &'a Rule, scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    match rule {
        Rule::List(parts) => made(parts.iter().map(|part| part_of(part, scope, asked)), asked),
        Rule::VarNamed(parts) => named(parts, scope, asked),
        Rule::Cat(parts) => cat(parts, scope, asked),
        Rule::Missing(parts) => missing(keys(parts, scope, asked)?, scope, asked),
        Rule::MissingSome(parts) => missing_some(parts, scope, asked),
        Rule::Substr(parts) => substr(parts, scope, asked),
        Rule::In(sides) => is_in(sides, scope, asked),
        Rule::Merge(parts) => merge(parts, scope, asked),
        Rule::Each(each, parts) => each_item(*each, parts, scope, asked),
        Rule::Reduce(parts) => reduce(parts, scope, asked),
        // All others are evaluated where this is called from.
        _ => Ok(Val::Null),
    }
}

fn made<'a>(items: impl Iterator<Item = Answer<'a>>, asked: &Asked<'a>) -> Answer<'a> {
    let items: Vec<_> = items.collect::<Result<_, _>>()?;
    asked.visits(items.len())?;
    finished(items)
}

fn finished<'a>(items: Vec<Val<'a>>) -> Answer<'a> {
    Val::made(items).ok_or(Fault::TooMuch)
}

/// The first argument if it is a list, else all arguments.
fn keys<'a>(parts: &'a [Rule], scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    let all = made(parts.iter().map(|part| part_of(part, scope, asked)), asked)?;
    Ok(all.item(0).filter(Val::is_list).unwrap_or(all))
}

/// Those keys whose value is not there, null, or an empty text.
fn missing<'a>(keys: Val<'a>, scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    asked.visits(keys.count())?;
    let is_missing = |key: &Val<'a>| path::find_named(key, scope, asked).is_none_or(|value| value.as_text() == Some(""));
    finished(keys.items().filter(is_missing).collect())
}

fn missing_some<'a>(parts: &'a [Rule], scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    let [wanted, keys, ..] = parts else { return finished(Vec::new()) };
    let (wanted, keys) = (part_of(wanted, scope, asked)?, part_of(keys, scope, asked)?);
    let missing = missing(keys.clone(), scope, asked)?;
    let is_enough = (keys.count() - missing.count()) as f64 >= coerce::number(&wanted);
    if is_enough { finished(Vec::new()) } else { Ok(missing) }
}

fn substr<'a>(parts: &'a [Rule], scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    let mut values = parts.iter().map(|part| part_of(part, scope, asked));
    let text = values.next().transpose()?.unwrap_or(Val::Null);
    asked.visits(text.count())?;
    let text = coerce::text(&text);
    asked.makes(text.len())?;
    let length = text.chars().count();
    // A float becomes a whole number by cutting; what is not a number becomes 0.
    let whole = |value: Val<'a>| coerce::number(&value) as i64;
    let from_end = |place: i64| length.saturating_sub(usize::try_from(place.unsigned_abs()).unwrap_or(usize::MAX));
    let place = |place: i64| usize::try_from(place).map_or_else(|_| from_end(place), |place| place.min(length));
    let start = place(values.next().transpose()?.map_or(0, whole));
    let end = match values.next().transpose()? {
        None | Some(Val::Null) => length,
        Some(count) => match whole(count) {
            count if count < 0 => from_end(count),
            count => start.saturating_add(usize::try_from(count).unwrap_or(usize::MAX)),
        },
    };
    Ok(Val::Text(Cow::Owned(text.chars().skip(start).take(end.saturating_sub(start)).collect())))
}

fn is_in<'a>([needle, hay]: &'a [Rule; 2], scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    let (needle, hay) = (part_of(needle, scope, asked)?, part_of(hay, scope, asked)?);
    asked.visits(hay.count())?;
    Ok(Val::Bool(match &hay {
        Val::Text(text) => {
            asked.visits(needle.count())?;
            text.contains(&*coerce::text(&needle))
        }
        list => list.items().any(|item| coerce::strictly_equal(&item, &needle)),
    }))
}

fn merge<'a>(parts: &'a [Rule], scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    let mut items = Vec::new();
    for part in parts {
        let value = part_of(part, scope, asked)?;
        if value.is_list() {
            asked.visits(value.count())?;
            items.extend(value.items());
        } else {
            items.push(value);
        }
    }
    asked.visits(items.len())?;
    finished(items)
}

fn each_item<'a>(each: Each, [list, body]: &'a [Rule; 2], scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    let list = part_of(list, scope, asked)?;
    asked.visits(list.count())?;
    let of = |item: &Val<'a>| part_of(body, &Scope::Item(item), asked);
    let holds = |item: Val<'a>| truth(body, &Scope::Item(&item), asked);
    match each {
        Each::Map => made(list.items().map(|item| of(&item)), asked),
        Each::Filter => {
            let mut kept = Vec::new();
            for item in list.items() {
                if truth(body, &Scope::Item(&item), asked)? {
                    kept.push(item);
                }
            }
            finished(kept)
        }
        // All of nothing is false: JsonLogic's choice.
        Each::All => Ok(Val::Bool(list.count() > 0 && !any(list.items().map(|item| holds(item).map(|holds| !holds)))?)),
        Each::Some => Ok(Val::Bool(any(list.items().map(holds))?)),
        Each::None => Ok(Val::Bool(!any(list.items().map(holds))?)),
    }
}

fn any(mut each: impl Iterator<Item = Result<bool, Fault>>) -> Result<bool, Fault> {
    each.find(|holds| !matches!(holds, Ok(false))).unwrap_or(Ok(false))
}

fn reduce<'a>([list, body, start]: &'a [Rule; 3], scope: &Scope<'_, 'a>, asked: &Asked<'a>) -> Answer<'a> {
    let list = part_of(list, scope, asked)?;
    asked.visits(list.count())?;
    let mut accumulator = part_of(start, scope, asked)?;
    for current in list.items() {
        accumulator = part_of(body, &Scope::Pair { current: &current, accumulator: &accumulator }, asked)?;
    }
    Ok(accumulator)
}
