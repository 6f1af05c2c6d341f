//! Who may ask, what, and of which environment: the questions that the server asks its owner.
//!
//! **Invariant**: every call passes here before it reads a set; a stream passes again at each change and each keep-alive,
//! so that a token which was taken away ends it.
//!
//! Not here: token files. Those are the owner's.

use std::sync::Arc;

use flag_engine::Board;
use http::HeaderMap;
use http::header::AUTHORIZATION;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// May ask what a flag answers, and report exposures and outcomes. Never sees a rule.
    Evaluate,
    /// May read whole sets, rules included.
    Sync,
    /// May change sets. The server offers nothing that needs it.
    Write,
}

/// A call that may go on.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// What it is answered from.
    pub environment: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("a token is needed: send it as `authorization: Bearer TOKEN` or as `x-api-key`")]
    Unauthorized,
    #[error("this token does not permit this call")]
    Forbidden,
    #[error("there is no such environment: the selector is `flagSetId=ENVIRONMENT`")]
    UnknownEnvironment,
}

/// Asked once per call, so it must be quick.
pub trait Admission: Send + Sync {
    /// `token` as presented; `environment` as the selector names it. The environment of the answer is, in this order, the
    /// token's, the selector's, the board's default; a token of another environment than the selector's is `Forbidden`.
    fn admit(&self, token: Option<&str>, scope: Scope, environment: Option<&str>) -> Result<Admitted, Refused>;
}

/// Admits everybody to everything on the board: for a port that only friends can reach.
pub struct Open(pub Arc<Board>);

impl Admission for Open {
    fn admit(&self, _token: Option<&str>, _scope: Scope, environment: Option<&str>) -> Result<Admitted, Refused> {
        let all = self.0.environments();
        let found = match environment {
            Some(name) => all.into_iter().find(|known| **known == *name),
            None => all.into_iter().next(),
        };
        found.map(|environment| Admitted { environment }).ok_or(Refused::UnknownEnvironment)
    }
}

/// The token of a call, from either place.
pub(crate) fn token(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    bearer.or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok()))
}
