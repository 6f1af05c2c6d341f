//! Names as types: what was checked once need not be checked again.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName {
    /// What the name was meant for, such as `service`.
    pub what: &'static str,
    pub text: String,
    /// The rule, in words.
    pub rule: &'static str,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` cannot be the name of a {}: {}", self.text, self.what, self.rule)
    }
}

impl std::error::Error for InvalidName {}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidName { what: $what, text: text.to_owned(), rule: $rule })
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

/// A DNS label, because it becomes a part of the preview's host name and of file names.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Safe as a file name, a host name's part and a command's argument: `v2`, `2026-11-23.4`, a git hash, an image tag.
fn is_version(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
        && text.as_bytes()[0].is_ascii_alphanumeric()
}

fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

name!(
    /// A service: something with clients.
    ServiceName, "service", "1 to 63 of a-z, 0-9 and `-`, not first or last", is_label
);
name!(
    /// A listener: an address on which clients connect.
    ListenerName, "listener", "1 to 63 of a-z, 0-9 and `-`, not first or last", is_label
);
name!(
    /// A version: one build of a service, named by its user.
    VersionName, "version", "1 to 128 of a-z, A-Z, 0-9, `.`, `_`, `+` and `-`, first a letter or digit", is_version
);
name!(
    /// A target: one address that serves one version. Unique over machines and time.
    TargetId, "target", "1 to 64 of a-z, A-Z, 0-9 and `-`", is_id
);
name!(
    /// A release: the act of moving a service to a candidate. Unique over machines and time.
    ReleaseId, "release", "1 to 64 of a-z, A-Z, 0-9 and `-`", is_id
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let check = |text: &str, service: bool, version: bool| {
            assert_eq!(ServiceName::new(text).is_ok(), service, "service {text:?}");
            assert_eq!(VersionName::new(text).is_ok(), version, "version {text:?}");
        };
        check("web", true, true);
        check("2026-11-23.4", false, true);
        check("", false, false);
        check("-x", false, false);
        check("a/b", false, false);
        check("..", false, false);
        check("Web", false, true);
    }
}
