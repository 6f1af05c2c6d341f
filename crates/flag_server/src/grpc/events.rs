//! The event stream of flagd's evaluation: ready, changes, keep-alive, shutdown.
//!
//! **Invariant**: the names of what changed are enough for a client to drop what it keeps; values are never pushed here.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use prost_types::Struct;
use tonic::{Request, Response, Status};

use super::Service;
use crate::admission::{self, Scope};
use crate::follow::{Pass, Word, follow};
use crate::metrics;

pub(super) type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(super) struct Event {
    pub(super) kind: &'static str,
    pub(super) data: Option<Struct>,
}

impl Service {
    /// JavaScript's provider sends no selector here: then it is the token's environment, or the default.
    pub(super) fn events<R, T: 'static>(
        &self,
        request: &Request<R>,
        message: impl Fn(Event) -> T + Send + 'static,
    ) -> Result<Response<Boxed<T>>, Status> {
        let headers = request.metadata().as_ref();
        let environment = self.0.admit(headers, Scope::Evaluate, "")?;
        let token = admission::token(headers).map(str::to_owned);
        let pass = Pass { environment, scope: Some((Scope::Evaluate, token)) };
        let shared = self.0.clone();
        let events = follow(&self.0, pass, metrics::Stream::Evaluation)?.map(move |word| {
            let (kind, data) = match word {
                Word::Ready(_) => ("provider_ready", None),
                Word::Changed { from, to } => ("configuration_change", Some(shared.changes.between(&from, &to))),
                Word::KeepAlive => ("keep_alive", None),
                Word::Shutdown => ("provider_shutdown", None),
                Word::Refused(refused) => return Err(refused.into()),
            };
            Ok(message(Event { kind, data }))
        });
        Ok(Response::new(Box::pin(events)))
    }
}
