//! How requests ended, told to whoever evaluated something for them; only while somebody waits for it.
//!
//! **Invariant**: nothing is stored while nobody waits, and never more than [`ENDED_MAX`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use http1::Fields;
use telemetry::{REQUEST_ID_FIELD, RequestEnded, request_name, trace_id};

/// Taken twenty times a second: room for a million a second.
const ENDED_MAX: usize = 65_536;

#[derive(Default)]
pub(crate) struct Watched {
    on: AtomicBool,
    ended: Mutex<Vec<RequestEnded>>,
    lost: AtomicU64,
}

/// The names of a request that is watched.
pub(crate) type Names = [u64; 2];
pub(crate) const UNWATCHED: Names = [0; 2];

impl Watched {
    pub(crate) fn set(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// What a request is called; one without an id gets one, for its target to hand on.
    pub(crate) fn names(&self, fields: &mut Fields) -> Names {
        if !self.on.load(Ordering::Relaxed) {
            return UNWATCHED;
        }
        // Ids are ASCII text.
        let text = |value| std::str::from_utf8(value).ok().filter(|text| text.is_ascii() && !text.is_empty());
        let trace = fields.get_named("traceparent").and_then(text).and_then(trace_id).map_or(0, request_name);
        let known = fields.get_named(REQUEST_ID_FIELD).and_then(text).map(request_name);
        let id = known.unwrap_or_else(|| {
            let id = format!("{:032x}", fastrand::u128(..));
            fields.set_named(REQUEST_ID_FIELD, id.as_bytes());
            request_name(&id)
        });
        [id, trace]
    }

    pub(crate) fn ended(&self, names: Names, bad: bool) {
        if names == UNWATCHED {
            return;
        }
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() < ENDED_MAX {
            ended.push(RequestEnded { names, bad });
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn take(&self) -> Vec<RequestEnded> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Requests of which nobody was told how they ended.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_called_by_its_id_and_its_trace_and_gets_an_id_only_when_somebody_waits() {
        let (watched, mut fields) = (Watched::default(), Fields::default());
        assert_eq!((watched.names(&mut fields), fields.len()), (UNWATCHED, 0));
        watched.set(true);
        let [id, trace] = watched.names(&mut fields);
        let given = std::str::from_utf8(fields.get_named(REQUEST_ID_FIELD).expect("given")).expect("text");
        assert_eq!((id, trace, given.len()), (request_name(given), 0, 32));
        fields.set_named(REQUEST_ID_FIELD, b"mine");
        fields.push_named("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let names = watched.names(&mut fields);
        assert_eq!(names, [request_name("mine"), request_name("4bf92f3577b34da6a3ce929d0e0e4736")]);
        watched.ended(names, true);
        watched.ended(UNWATCHED, true);
        assert_eq!(watched.take(), [RequestEnded { names, bad: true }]);
        (0..ENDED_MAX + 3).for_each(|_| watched.ended(names, false));
        assert_eq!((watched.take().len(), watched.lost(), watched.take().len()), (ENDED_MAX, 3, 0));
    }
}
