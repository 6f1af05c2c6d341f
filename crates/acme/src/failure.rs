//! Why an authority brought nothing, in words that say whose turn it is.

use instant_acme::{Error, Problem};

use crate::plan::Fault;
use crate::wire::WireError;

/// More of what an authority says is cut: it ends up in events.
const DETAIL_CHARS_MAX: usize = 600;

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    pub(crate) words: String,
    /// The authority says when to come again.
    pub(crate) retry_after_s: Option<u64>,
    /// A number that is used once was not taken: nothing happened, and the same may be tried at once (RFC 8555 §6.5).
    pub(crate) is_stale: bool,
}

impl Failure {
    pub(crate) fn new(fault: Fault, words: impl Into<String>) -> Self {
        Self { fault, words: words.into(), retry_after_s: None, is_stale: false }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self {
                // RFC 9110 §15.6: its own fault.
                fault: if problem.status.is_some_and(|status| status >= 500) { Fault::Unreachable } else { Fault::Refused },
                is_stale: kind(problem.r#type.as_deref()) == "badNonce",
                ..Self::new(Fault::Refused, format!("the authority says: {}", said(&problem)))
            },
            Error::Timeout(next) => Self {
                retry_after_s: next.map(|next| next.saturating_duration_since(std::time::Instant::now()).as_secs() + 1),
                ..Self::new(Fault::Unreachable, "the authority came to no decision in time")
            },
            Error::Json(_) => Self::new(Fault::Unreachable, "what the authority answers is no ACME; is `directory` right?"),
            Error::Other(error) => match error.downcast::<WireError>() {
                Ok(error) => Self::new(Fault::Unreachable, error.to_string()),
                Err(error) => Self::new(Fault::Unreachable, format!("the authority's answer: {error}")),
            },
            other => Self::new(Fault::Unreachable, format!("the authority's answer: {other}")),
        }
    }
}

/// `urn:ietf:params:acme:error:unauthorized` is `unauthorized`.
fn kind(r#type: Option<&str>) -> &str {
    r#type.and_then(|it| it.rsplit(':').next()).unwrap_or_default()
}

/// What it says, and of which name.
pub(crate) fn said(problem: &Problem) -> String {
    let mut parts = vec![phrase(problem.detail.as_deref(), problem.r#type.as_deref())];
    parts.extend(problem.subproblems.iter().map(|sub| phrase(sub.detail.as_deref(), sub.r#type.as_deref())));
    let text = parts.join("; ");
    // Control characters would end up on somebody's terminal.
    let clean = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    clean.take(DETAIL_CHARS_MAX).collect()
}

fn phrase(detail: Option<&str>, r#type: Option<&str>) -> String {
    match (detail, kind(r#type)) {
        (Some(detail), "") => detail.to_owned(),
        (Some(detail), kind) => format!("{detail} ({kind})"),
        (None, "") => "no".to_owned(),
        (None, kind) => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_in_words() {
        let check = |json: &str, expected: &str, fault: Fault| {
            let problem: Problem = serde_json::from_str(json).expect("a problem");
            let failure = Failure::from(Error::Api(problem));
            assert_eq!((failure.words.as_str(), failure.fault), (expected, fault), "{json}");
        };
        check(
            r#"{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"not for a.test","status":400}"#,
            "the authority says: not for a.test (rejectedIdentifier)",
            Fault::Refused,
        );
        check(
            r#"{"detail":"two\nlines","subproblems":[{"type":"urn:ietf:params:acme:error:dns","detail":"no record"}]}"#,
            "the authority says: two lines; no record (dns)",
            Fault::Refused,
        );
        check(
            r#"{"type":"urn:ietf:params:acme:error:serverInternal","status":500}"#,
            "the authority says: serverInternal",
            Fault::Unreachable,
        );
        let stale: Problem = serde_json::from_str(r#"{"type":"urn:ietf:params:acme:error:badNonce"}"#).expect("a problem");
        assert!(Failure::from(Error::Api(stale)).is_stale);
    }
}
