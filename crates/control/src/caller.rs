//! Who asks, and what they may.

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::sessions::Visit;
use crate::tokens::{FlagRight, Scope};

#[derive(Clone)]
pub(crate) enum Caller {
    /// Over the Unix socket: whoever may open it. They say their name themselves, unless they show a token: then that is who they
    /// are, and of flags they may what it permits.
    Local { uid: Option<u32>, token: Option<(String, Scope)> },
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
            Self::Local { token: Some((name, _)), .. } => name.clone(),
            Self::Local { .. } => said.unwrap_or_else(|| "somebody".to_owned()),
            Self::Remote { name, .. } => name.clone(),
        }
    }

    /// A name that is not for the caller to choose: the token's, or the system user's.
    pub(crate) fn person(&self) -> String {
        match self {
            Self::Local { token: Some((name, _)), .. } | Self::Remote { name, .. } => name.clone(),
            Self::Local { uid, .. } => {
                let user = uid.and_then(|uid| nix::unistd::User::from_uid(uid.into()).ok().flatten());
                user.map_or_else(|| "somebody".to_owned(), |user| user.name)
            }
        }
    }

    pub(crate) fn may_act(&self) -> bool {
        matches!(self, Self::Local { .. } | Self::Remote { scope: Scope::Act, .. })
    }

    /// May look at what runs.
    pub(crate) fn may_read(&self) -> bool {
        matches!(self, Self::Local { .. } | Self::Remote { scope: Scope::Read | Scope::Act, .. })
    }

    /// Whether it permits this of flags; if only of one environment, of which.
    pub(crate) fn of_flags(&self, wanted: FlagRight) -> Option<Option<&str>> {
        match self {
            Self::Local { token: None, .. } => Some(None),
            Self::Local { token: Some((_, scope)), .. } | Self::Remote { scope, .. } => scope.of_flags(wanted),
        }
    }

    pub(crate) fn visit(&self) -> Option<&Visit> {
        match self {
            Self::Local { .. } => None,
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
