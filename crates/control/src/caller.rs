//! Who asks, and what they may.

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::sessions::Visit;
use crate::tokens::Scope;

#[derive(Clone)]
pub(crate) enum Caller {
    /// Over the Unix socket: whoever may open it. They say their name themselves.
    Local,
    /// Over TCP, by a token.
    Remote {
        name: String,
        scope: Scope,
        /// In a browser.
        visit: Option<Visit>,
    },
}

impl Caller {
    /// A token's name is not for its user to choose.
    pub(crate) fn who(&self, said: Option<String>) -> String {
        match self {
            Self::Local => said.unwrap_or_else(|| "somebody".to_owned()),
            Self::Remote { name, .. } => name.clone(),
        }
    }

    pub(crate) fn may_act(&self) -> bool {
        matches!(self, Self::Local | Self::Remote { scope: Scope::Act, .. })
    }

    pub(crate) fn visit(&self) -> Option<&Visit> {
        match self {
            Self::Local => None,
            Self::Remote { visit, .. } => visit.as_ref(),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().expect("both doors say who comes in").clone())
    }
}
