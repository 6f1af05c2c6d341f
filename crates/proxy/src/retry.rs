//! What may be sent again, and how often.
//!
//! Again to another target or line: when no connection came about, or hyper proves that nothing was written; any method.
//! Again once: an idempotent request without a body on a reused line that ended without one byte of an answer, because the
//! target probably closed the idle line just then. **Invariant**: nothing else is sent twice, a written POST never.

use std::sync::Arc;

use http::{HeaderMap, Method, Request, Uri};
use http_body::Body;

use crate::body::RequestBody;
use crate::counts::VersionCounts;
use crate::live::TargetLive;

/// Targets that one request tries, whatever their number: beyond that, more tries only add load.
const TARGETS_MAX: usize = 8;
/// Lines of one target that may turn out closed before it counts as tried.
const VAIN_MAX: u32 = 3;
/// A stop for the sum of everything, so that the loop has an end that can be seen.
const ROUNDS_MAX: u32 = 32;

/// Enough of a request to send it once more.
pub(crate) struct Spare {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

pub(crate) struct Attempts {
    tried: [u64; TARGETS_MAX],
    tried_count: usize,
    vain: u32,
    rounds: u32,
    harmless: bool,
    choice: Option<(Arc<VersionCounts>, Arc<TargetLive>)>,
}

impl Attempts {
    pub(crate) fn new(request: &Request<RequestBody>) -> Self {
        let idempotent = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
        let harmless = idempotent && request.body().is_end_stream();
        Self { tried: [0; TARGETS_MAX], tried_count: 0, vain: 0, rounds: 0, harmless, choice: None }
    }

    pub(crate) fn tried(&self) -> &[u64] {
        &self.tried[..self.tried_count]
    }

    pub(crate) fn exhausted(&self) -> bool {
        self.tried_count == TARGETS_MAX || self.rounds >= ROUNDS_MAX
    }

    pub(crate) fn is_first(&self) -> bool {
        self.rounds == 0
    }

    pub(crate) fn begin_round(&mut self) {
        self.rounds += 1;
    }

    pub(crate) fn failed_on(&mut self, counts: Arc<VersionCounts>, live: Arc<TargetLive>) {
        self.choice = Some((counts, live));
    }

    pub(crate) fn connect_failed(&mut self, target: u64) {
        if self.tried_count < TARGETS_MAX {
            self.tried[self.tried_count] = target;
            self.tried_count += 1;
        }
    }

    pub(crate) fn sent_in_vain(&mut self, target: u64) {
        self.vain += 1;
        if self.vain.is_multiple_of(VAIN_MAX) {
            self.connect_failed(target);
        }
    }

    /// Whom to hold responsible when nothing is left to try; `None` when nothing was ever chosen.
    pub(crate) fn last_choice(&mut self) -> Option<(Arc<VersionCounts>, Arc<TargetLive>)> {
        self.choice.take()
    }

    pub(crate) fn spare(&self, request: &Request<RequestBody>) -> Option<Spare> {
        self.harmless.then(|| Spare { method: request.method().clone(), uri: request.uri().clone(), headers: request.headers().clone() })
    }

    pub(crate) fn use_spare(&mut self, spare: Option<Spare>) -> Option<Request<RequestBody>> {
        let spare = spare?;
        self.harmless = false;
        let mut request = Request::new(RequestBody::none());
        *request.method_mut() = spare.method;
        *request.uri_mut() = spare.uri;
        *request.headers_mut() = spare.headers;
        Some(request)
    }
}
