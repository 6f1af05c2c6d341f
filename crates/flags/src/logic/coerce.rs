//! JavaScript's coercions, as JsonLogic relies on them: to a boolean, a number, a text; both kinds of equality; order.
//!
//! **Invariant:** total: every value has an answer. The source is ECMAScript, with JsonLogic's one exception: an empty list is false.
//! Not here: arithmetic.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write as _;

use super::value::Val;

pub(crate) fn truthy(value: &Val<'_>) -> bool {
    match value {
        Val::Null => false,
        Val::Bool(value) => *value,
        Val::Whole(number) => *number != 0,
        Val::Large(_) => true,
        Val::Real(number) => *number != 0.0 && !number.is_nan(),
        Val::Text(text) => !text.is_empty(),
        Val::Items(_) | Val::Made(_) => value.count() > 0,
        Val::Object(_) | Val::Whence => true,
    }
}

pub(crate) fn number(value: &Val<'_>) -> f64 {
    match value {
        Val::Null => 0.0,
        Val::Bool(value) => f64::from(u8::from(*value)),
        Val::Whole(number) => *number as f64,
        Val::Large(number) => *number as f64,
        Val::Real(number) => *number,
        Val::Text(text) => number_of(text),
        Val::Items(_) | Val::Made(_) => match (value.count(), value.item(0)) {
            (0, _) => 0.0,
            (1, Some(item)) => number(&item),
            _ => f64::NAN,
        },
        Val::Object(_) | Val::Whence => f64::NAN,
    }
}

/// Ours is stricter than Rust's own parser, which knows `inf` and `nan`, and wider: blanks around, other bases. An empty text is no number,
/// as in the Python core; for JavaScript it is 0, so that an empty attribute would be less than 18.
fn number_of(text: &str) -> f64 {
    let text = text.trim();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned == "Infinity" {
        return if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    for (prefix, base) in [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let plain = digits.bytes().all(|digit| digit.is_ascii_alphanumeric());
            return u64::from_str_radix(digits, base).ok().filter(|_| plain).map_or(f64::NAN, |whole| whole as f64);
        }
    }
    if !unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return f64::NAN;
    }
    text.parse().unwrap_or(f64::NAN)
}

pub(crate) fn text<'v>(value: &'v Val<'_>) -> Cow<'v, str> {
    match value {
        Val::Text(text) => Cow::Borrowed(text),
        _ => {
            let mut text = String::new();
            write_text(value, &mut text);
            Cow::Owned(text)
        }
    }
}

/// Appends; a nothing inside a list is an empty text, by itself it is `null`.
pub(crate) fn write_text(value: &Val<'_>, text: &mut String) {
    match value {
        Val::Null => text.push_str("null"),
        Val::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Val::Whole(number) => {
            // Writing to a text cannot fail.
            let _ = write!(text, "{number}");
        }
        Val::Large(number) => {
            let _ = write!(text, "{number}");
        }
        Val::Real(number) => write_number(*number, text),
        Val::Text(part) => text.push_str(part),
        Val::Items(_) | Val::Made(_) => {
            for (place, item) in value.items().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                if !matches!(item, Val::Null) {
                    write_text(&item, text);
                }
            }
        }
        Val::Object(_) | Val::Whence => text.push_str("[object Object]"),
    }
}

/// ECMAScript's Number::toString: the shortest digits, with an exponent from 1e21 and below 1e-6.
fn write_number(number: f64, text: &mut String) {
    if number.is_nan() {
        return text.push_str("NaN");
    }
    if number.is_infinite() {
        return text.push_str(if number > 0.0 { "Infinity" } else { "-Infinity" });
    }
    let size = number.abs();
    let _ = if number == 0.0 {
        write!(text, "0")
    } else if (1e-6..1e21).contains(&size) {
        write!(text, "{number}")
    } else {
        let written = format!("{number:e}");
        let signed = if size >= 1.0 { written.replace('e', "e+") } else { written };
        write!(text, "{signed}")
    };
}

/// `===`. Lists are equal when their items are; JavaScript compares which list it is, which a rule cannot mean.
pub(crate) fn strictly_equal(one: &Val<'_>, other: &Val<'_>) -> bool {
    match (one, other) {
        (Val::Null, Val::Null) => true,
        (Val::Bool(one), Val::Bool(other)) => one == other,
        (Val::Whole(one), Val::Whole(other)) => one == other,
        (Val::Large(one), Val::Large(other)) => one == other,
        (Val::Whole(_) | Val::Large(_) | Val::Real(_), Val::Whole(_) | Val::Large(_) | Val::Real(_)) => number(one) == number(other),
        (Val::Text(one), Val::Text(other)) => one == other,
        (Val::Items(_) | Val::Made(_), Val::Items(_) | Val::Made(_)) => {
            one.count() == other.count() && one.items().zip(other.items()).all(|(one, other)| strictly_equal(&one, &other))
        }
        (Val::Object(one), Val::Object(other)) => one == other,
        _ => false,
    }
}

/// `==`. Two lists, or two objects, are equal only when they are the same one. Nothing equals 0 and false, which is not JavaScript's way,
/// but that of both flagd cores.
pub(crate) fn loosely_equal(one: &Val<'_>, other: &Val<'_>) -> bool {
    use Val::{Bool, Items, Large, Made, Null, Object, Real, Text, Whence, Whole};
    match (one, other) {
        (Null, Null) => true,
        (Null, Text(_) | Items(_) | Made(_) | Object(_) | Whence) | (Text(_) | Items(_) | Made(_) | Object(_) | Whence, Null) => false,
        (Items(one), Items(other)) => std::ptr::eq(*one, *other),
        (Object(one), Object(other)) => std::ptr::eq(*one, *other),
        (Items(_) | Made(_) | Object(_) | Whence, Items(_) | Made(_) | Object(_) | Whence) => false,
        (Text(_), Text(_)) | (Bool(_), Bool(_)) | (Whole(_) | Large(_) | Real(_), Whole(_) | Large(_) | Real(_)) => {
            strictly_equal(one, other)
        }
        (Items(_) | Made(_) | Object(_) | Whence, Text(expected)) => text(one) == *expected,
        (Text(expected), Items(_) | Made(_) | Object(_) | Whence) => text(other) == *expected,
        _ => number(one) == number(other),
    }
}

/// For `<` and its like: as texts where one is a text and the other one is no number, else as numbers; nothing where that fails.
pub(crate) fn order(one: &Val<'_>, other: &Val<'_>) -> Option<Ordering> {
    match (one, other) {
        (Val::Whole(one), Val::Whole(other)) => Some(one.cmp(other)),
        (Val::Text(one), Val::Text(other)) => Some(one.cmp(other)),
        (Val::Text(text), Val::Items(_) | Val::Made(_) | Val::Object(_)) => Some(text.as_ref().cmp(&self::text(other))),
        (Val::Items(_) | Val::Made(_) | Val::Object(_), Val::Text(text)) => Some(self::text(one).as_ref().cmp(text)),
        _ => number(one).partial_cmp(&number(other)),
    }
}
