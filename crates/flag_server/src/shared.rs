//! What all calls share, and the two questions that each of them begins with: may it, and what is the answer?
//!
//! **Invariant**: every evaluation of every protocol passes through `answer`, so that all of them count and agree.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use flag_engine::{Board, Published};
use flags::{Context, Evaluation, EvaluationError};
use hmac::Hmac;
use http::HeaderMap;
use sha2::Sha256;
use tokio::sync::watch;

use crate::admission::{self, Admission, Refused, Scope};
use crate::audience::Audience;
use crate::changes::Changes;
use crate::metrics::{Metrics, Protocol};
use crate::readiness::Readiness;
use crate::selector::{self, BadSelector};

pub(crate) struct Shared {
    pub(crate) board: Arc<Board>,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) audience: Arc<dyn Audience>,
    pub(crate) readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// Added to every evaluation's context, over what the client says.
    pub(crate) context: serde_json::Map<String, serde_json::Value>,
    /// Keyed; of the addresses of event streams.
    pub(crate) signer: Hmac<Sha256>,
    pub(crate) metrics: Metrics,
    pub(crate) changes: Changes,
    /// True once the server takes its leave.
    pub(crate) draining: watch::Sender<bool>,
}

/// Why a call does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Selector(#[from] BadSelector),
}

impl Shared {
    /// The set that a call is answered from. `selector` is what its body says.
    pub(crate) fn set_for(&self, headers: &HeaderMap, scope: Scope, selector: &str) -> Result<Arc<Published>, Denied> {
        let admitted = self.admit(headers, scope, selector)?;
        self.board.now(&admitted).ok_or(Denied::Refused(Refused::UnknownEnvironment))
    }

    /// The environment of a call.
    pub(crate) fn admit(&self, headers: &HeaderMap, scope: Scope, selector: &str) -> Result<Arc<str>, Denied> {
        let environment = selector::environment(headers, selector)?;
        match self.admission.admit(admission::token(headers), scope, environment) {
            Ok(admitted) => Ok(admitted.environment),
            Err(refused) => {
                self.metrics.refused(refused);
                Err(refused.into())
            }
        }
    }

    /// What a client says about its user, and what the server adds.
    pub(crate) fn context(&self, mut said: serde_json::Map<String, serde_json::Value>) -> Context {
        said.extend(self.context.iter().map(|(name, value)| (name.clone(), value.clone())));
        Context::from_object(said)
    }

    /// One flag, asked for by a client that acts on the answer. `accept` refuses an answer of a type that was not asked for,
    /// before anybody counts it.
    pub(crate) fn answer<'a, T>(
        &self,
        published: &'a Published,
        key: &str,
        context: &Context,
        protocol: Protocol,
        accept: impl FnOnce(Evaluation<'a>) -> Result<T, WrongType>,
    ) -> Result<T, NoAnswer> {
        match published.set.evaluate(key, context, now_s()) {
            Ok(evaluation) => {
                let accepted = accept(evaluation).inspect_err(|_| self.metrics.failed(protocol, "TYPE_MISMATCH"))?;
                self.metrics.evaluated(protocol, evaluation.reason);
                self.audience.evaluated(&published.environment, &evaluation, context);
                Ok(accepted)
            }
            Err(error) => {
                self.metrics.failed(protocol, error.code());
                if matches!(error, EvaluationError::FlagNotFound(_)) {
                    self.audience.missing(&published.environment, key);
                }
                Err(NoAnswer::Evaluation(error))
            }
        }
    }

    /// All flags, in the order of their keys; for clients that read ahead.
    pub(crate) fn answers<'a>(
        &self,
        published: &'a Published,
        context: &Context,
    ) -> impl Iterator<Item = (&'a str, Result<Evaluation<'a>, EvaluationError>)> {
        let now_s = now_s();
        published.set.flags().map(move |flag| {
            let answer = published.set.evaluate(flag.key(), context, now_s);
            if let Ok(evaluation) = &answer {
                self.audience.prefetched(&published.environment, evaluation, context);
            }
            (flag.key(), answer)
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the flag `{key}` has variants of type {has}, asked for was {asked}")]
pub(crate) struct WrongType {
    pub(crate) key: String,
    pub(crate) has: &'static str,
    pub(crate) asked: &'static str,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error(transparent)]
    Evaluation(EvaluationError),
    #[error(transparent)]
    WrongType(#[from] WrongType),
}

/// Seconds since 1970, for rules that look at the time.
fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
