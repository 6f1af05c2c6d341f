//! Single values: each function says what it expected and gives `None` after it complained.

use std::ops::RangeInclusive;

use model::HostPattern;

use crate::node::{Kind, Node};
use crate::problems::Problems;
use crate::table::suggest;

/// A year; longer is a slip of the pen.
const DURATION_MAX_MS: u64 = 365 * 24 * 3600 * 1000;

pub(crate) fn text(node: &Node, what: &str, problems: &mut Problems) -> Option<String> {
    match &node.kind {
        Kind::Scalar(text) if text.contains('\0') => {
            problems.add(&node.at, format!("{what} must not have a zero byte"), None);
            None
        }
        Kind::Scalar(text) => Some(text.clone()),
        other => {
            problems.add(&node.at, format!("{what} must be a text, found {}", other.describe()), None);
            None
        }
    }
}

pub(crate) fn list<'a>(node: &'a Node, what: &str, problems: &mut Problems) -> Option<&'a [Node]> {
    match &node.kind {
        Kind::List(items) => Some(items),
        other => {
            problems.add(&node.at, format!("{what} must be a list, found {}", other.describe()), None);
            None
        }
    }
}

pub(crate) fn choice<T: Copy>(node: &Node, what: &str, known: &[(&str, T)], problems: &mut Problems) -> Option<T> {
    let text = text(node, what, problems)?;
    let found = known.iter().find(|(name, _)| *name == text);
    if found.is_none() {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        problems.add(&node.at, format!("unknown value `{text}` of {what}"), Some(suggest(&text, &names)));
    }
    found.map(|(_, value)| *value)
}

/// Reads with `read`, which says what it expected and what may help.
fn parsed<T>(
    node: &Node,
    what: &str,
    problems: &mut Problems,
    read: impl FnOnce(&str) -> Result<T, (String, Option<String>)>,
) -> Option<T> {
    let text = text(node, what, problems)?;
    match read(&text) {
        Ok(value) => Some(value),
        Err((expected, hint)) => {
            problems.add(&node.at, format!("{what} must be {expected}, found `{text}`"), hint);
            None
        }
    }
}

pub(crate) fn number(node: &Node, what: &str, range: RangeInclusive<u64>, problems: &mut Problems) -> Option<u64> {
    parsed(node, what, problems, |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| match range.end() {
            &u64::MAX => (format!("a whole number, {} or more", range.start()), None),
            end => (format!("a whole number from {} to {end}", range.start()), None),
        })
    })
}

/// Milliseconds.
pub(crate) fn duration(node: &Node, what: &str, min_ms: u64, problems: &mut Problems) -> Option<u64> {
    parsed(node, what, problems, |text| {
        let expected = "a duration such as `500ms`, `10s` or `5m`".to_owned();
        if text.parse::<f64>().is_ok() {
            return Err((expected, Some(format!("say `{text}s`"))));
        }
        let parsed: jiff::SignedDuration = text.parse().map_err(|_| (expected, None))?;
        let ms = u64::try_from(parsed.as_millis()).map_err(|_| ("a time to come".to_owned(), None))?;
        if parsed.subsec_nanos() % 1_000_000 != 0 {
            return Err(("whole milliseconds".to_owned(), None));
        }
        match ms {
            ms if ms < min_ms => Err((format!("at least {min_ms}ms"), None)),
            ms if ms > DURATION_MAX_MS => Err(("at most 8760h, a year".to_owned(), None)),
            ms => Ok(ms),
        }
    })
}

/// Parts per 10,000.
pub(crate) fn percent(node: &Node, what: &str, problems: &mut Problems) -> Option<u16> {
    parsed(node, what, problems, |text| {
        let expected = || "a share from `0%` to `100%`, with two decimals at most".to_owned();
        let Some(number) = text.strip_suffix('%').map(str::trim_end) else {
            return Err((expected(), text.parse::<f64>().is_ok().then(|| format!("say `{text}%`"))));
        };
        basis_points(number).ok_or_else(|| (expected(), None))
    })
}

/// A share of 0 to 1, to any precision.
pub(crate) fn share(node: &Node, what: &str, problems: &mut Problems) -> Option<f64> {
    percentage(node, what, 100.0, problems)
}

/// `0.5%` is 0.005.
pub(crate) fn percentage(node: &Node, what: &str, max: f64, problems: &mut Problems) -> Option<f64> {
    parsed(node, what, problems, |text| {
        let expected = || format!("a share such as `0.1%`, at most {max}%");
        let Some(number) = text.strip_suffix('%').map(str::trim_end) else {
            return Err((expected(), text.parse::<f64>().is_ok().then(|| format!("say `{text}%`"))));
        };
        let share = number.parse::<f64>().ok().filter(|share| (0.0..=max).contains(share));
        share.map(|share| share / 100.0).ok_or_else(|| (expected(), None))
    })
}

/// Finite.
pub(crate) fn real(node: &Node, what: &str, range: RangeInclusive<f64>, problems: &mut Problems) -> Option<f64> {
    parsed(node, what, problems, |text| {
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && range.contains(number));
        number.ok_or_else(|| match range.end() {
            &f64::MAX => (format!("a number, {} or more", range.start()), None),
            end => (format!("a number from {} to {end}", range.start()), None),
        })
    })
}

fn basis_points(number: &str) -> Option<u16> {
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 2 {
        return None;
    }
    let part: u16 = format!("{part:0<2}").parse().ok()?;
    let points = whole.parse::<u16>().ok()?.checked_mul(100)?.checked_add(part)?;
    (points <= 10_000).then_some(points)
}

pub(crate) fn statuses(node: &Node, what: &str, problems: &mut Problems) -> Option<(u16, u16)> {
    parsed(node, what, problems, |text| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok((first, last)),
            _ => Err(("a status such as `200` or a range such as `200-299`".to_owned(), None)),
        }
    })
}

pub(crate) fn path(node: &Node, what: &str, problems: &mut Problems) -> Option<String> {
    parsed(node, what, problems, |text| {
        if !text.starts_with('/') {
            return Err(("a path that starts with `/`".to_owned(), Some(format!("say `/{text}`"))));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(("a path without blanks, `#` or bare non-ASCII letters".to_owned(), None));
        }
        Ok(text.to_owned())
    })
}

pub(crate) fn host_pattern(node: &Node, what: &str, problems: &mut Problems) -> Option<HostPattern> {
    parsed(node, what, problems, |text| {
        let lower = text.to_ascii_lowercase();
        let pattern = match lower.strip_prefix('*') {
            Some("") => return Ok(HostPattern::Any),
            Some(suffix) if suffix.starts_with('.') && is_host(&suffix[1..]) => HostPattern::Suffix(suffix.to_owned()),
            None if is_host(&lower) => HostPattern::Exact(lower),
            _ => {
                let port = lower.rsplit_once(':').filter(|(host, _)| is_host(host));
                let hint = port.map(|(host, _)| format!("leave the port out: `{host}`"));
                return Err(("`*`, a host or `*.` and a host".to_owned(), hint));
            }
        };
        Ok(pattern)
    })
}

/// A DNS name, an IPv4 address or `[IPv6]`.
pub(crate) fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact() {
        let check = |text: &str, expect: Option<u16>| assert_eq!(basis_points(text), expect, "{text}");
        check("0.5", Some(50));
        check("1", Some(100));
        check("0.07", Some(7));
        check("100", Some(10_000));
        check("100.01", None);
        check("0.005", None);
        check("-1", None);
        check("99999", None);
        check("", None);
    }
}
