//! What may be sent again, and how often.
//!
//! Again to another target or line: when no connection came about, or no byte was written; any method.
//! Again once: an idempotent request without a body on a reused line that ended without one byte of an answer, because the
//! target probably closed the idle line just then. **Invariant**: nothing else is sent twice, a written POST never.

use http::Method;

use crate::chosen::Chosen;

/// Targets that one request tries, whatever their number: beyond that, more tries only add load.
const TARGETS_MAX: usize = 8;
/// Lines of one target that may turn out closed before it counts as tried.
const VAIN_MAX: u32 = 3;
/// A stop for the sum of everything, so that the loop has an end that can be seen.
const ROUNDS_MAX: u32 = 32;

pub(crate) struct Attempts {
    tried: [u64; TARGETS_MAX],
    tried_count: usize,
    vain: u32,
    rounds: u32,
    harmless: bool,
    choice: Option<Chosen>,
}

impl Attempts {
    pub(crate) fn new(method: &Method, has_body: bool) -> Self {
        let idempotent = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
        Self::with(idempotent && !has_body)
    }

    /// Of a connection of which nothing is sent before it stands.
    pub(crate) fn of_connection() -> Self {
        Self::with(false)
    }

    fn with(harmless: bool) -> Self {
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

    /// Of a round that has begun.
    pub(crate) fn is_first_round(&self) -> bool {
        self.rounds <= 1
    }

    pub(crate) fn begin_round(&mut self) {
        self.rounds += 1;
    }

    pub(crate) fn failed_on(&mut self, chosen: Chosen) {
        self.choice = Some(chosen);
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
    pub(crate) fn last_choice(&mut self) -> Option<Chosen> {
        self.choice.take()
    }

    /// Whether a request that may have arrived is sent again; once.
    pub(crate) fn may_repeat(&mut self) -> bool {
        std::mem::take(&mut self.harmless)
    }
}
