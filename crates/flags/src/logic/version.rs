//! `sem_ver`: Semantic Versioning 2.0.0, leniently read.
//!
//! **Invariant:** a version that cannot be read compares with nothing. A leading `v` and missing minor and patch numbers are forgiven;
//! build metadata counts for nothing. Not here: ranges; flagd has none.

use std::cmp::Ordering;

/// Longer ones are refused, as in npm.
const VERSION_BYTES_MAX: usize = 256;
/// Numbers up to here are the same in every language that a flag set is evaluated in.
const NUMBER_MAX: u64 = (1 << 53) - 1;
/// Of that number.
const NUMBER_DIGITS_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version<'a> {
    numbers: [u64; 3],
    /// Without the `-`; empty for a release.
    before: &'a str,
}

/// A version that a rule writes out.
#[derive(Debug)]
pub(crate) struct OwnedVersion {
    numbers: [u64; 3],
    before: Box<str>,
}

impl OwnedVersion {
    pub(crate) fn borrowed(&self) -> Version<'_> {
        Version { numbers: self.numbers, before: &self.before }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    SameMajor,
    SameMinor,
}

impl Relation {
    pub(crate) fn of(text: &str) -> Option<Self> {
        Some(match text {
            "=" => Self::Equal,
            "!=" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            "^" => Self::SameMajor,
            "~" => Self::SameMinor,
            _ => return None,
        })
    }

    pub(crate) fn holds(self, one: Version<'_>, other: Version<'_>) -> bool {
        match self {
            Self::SameMajor => one.numbers[0] == other.numbers[0],
            Self::SameMinor => one.numbers[..2] == other.numbers[..2],
            Self::Equal => one.cmp(other).is_eq(),
            Self::NotEqual => one.cmp(other).is_ne(),
            Self::Less => one.cmp(other).is_lt(),
            Self::LessOrEqual => one.cmp(other).is_le(),
            Self::Greater => one.cmp(other).is_gt(),
            Self::GreaterOrEqual => one.cmp(other).is_ge(),
        }
    }
}

impl<'a> Version<'a> {
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        if text.len() > VERSION_BYTES_MAX {
            return None;
        }
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let mut rest = text.as_bytes();
        let mut numbers = [0; 3];
        let mut count = 0;
        loop {
            let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            *numbers.get_mut(count)? = number(&rest[..length])?;
            count += 1;
            rest = &rest[length..];
            match rest.strip_prefix(b".") {
                Some(more) => rest = more,
                None => break,
            }
        }
        if rest.is_empty() {
            return Some(Self { numbers, before: "" });
        }
        // What follows stands only after all three numbers.
        let rest = (count == 3).then(|| &text[text.len() - rest.len()..])?;
        let (before, build) = rest.split_once('+').map_or((rest, None), |(before, build)| (before, Some(build)));
        let is_good = build.is_none_or(|build| build.split('.').all(word));
        if before.is_empty() {
            return is_good.then_some(Self { numbers, before });
        }
        let before = before.strip_prefix('-')?;
        (is_good && before.split('.').all(identifier)).then_some(Self { numbers, before })
    }

    pub(crate) fn owned(self) -> OwnedVersion {
        OwnedVersion { numbers: self.numbers, before: self.before.into() }
    }

    /// Precedence, §11 of the specification.
    fn cmp(self, other: Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.before.is_empty(), other.before.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.before.split('.').map(Identifier::of).cmp(other.before.split('.').map(Identifier::of)),
        })
    }
}

/// Digits without leading zeros.
fn number(digits: &[u8]) -> Option<u64> {
    let is_plain = matches!(digits, [b'0'] | [b'1'..=b'9', ..]) && digits.len() <= NUMBER_DIGITS_MAX;
    let number = || digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    is_plain.then(number).filter(|number| *number <= NUMBER_MAX)
}

fn word(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Of a pre-release: a number has no leading zeros.
fn identifier(part: &str) -> bool {
    let is_number = part.bytes().all(|digit| digit.is_ascii_digit());
    word(part) && (!is_number || part == "0" || !part.starts_with('0'))
}

/// Numbers come before words; they have no leading zeros, so that length decides first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Identifier<'a> {
    Number(usize, &'a str),
    Word(&'a str),
}

impl<'a> Identifier<'a> {
    fn of(part: &'a str) -> Self {
        if part.bytes().all(|digit| digit.is_ascii_digit()) { Self::Number(part.len(), part) } else { Self::Word(part) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precedence_of_the_specification() {
        let rising = "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.0.1 1.2 2";
        let versions: Vec<_> = rising.split(' ').map(|text| Version::read(text).expect("a version")).collect();
        for (place, one) in versions.iter().enumerate() {
            for (other_place, other) in versions.iter().enumerate() {
                assert_eq!(one.cmp(*other), place.cmp(&other_place));
            }
        }
    }

    #[test]
    fn what_is_a_version() {
        for good in ["1", "1.2", "1.2.3", "v1.2.3", "V1", "1.2.3-x-y.0", "1.2.3+build.01", "0.0.0", "9007199254740991.0.0"] {
            assert!(Version::read(good).is_some(), "{good}");
        }
        for bad in ["", "v", "a", "1.", ".1", "1.2.3.4", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "1-a", "1.2 ", "-1", "1.2.3-ü", "1e3"] {
            assert!(Version::read(bad).is_none(), "{bad}");
        }
        assert!(Relation::Equal.holds(Version::read("1.0.0+one").expect("good"), Version::read("1").expect("good")));
    }
}
