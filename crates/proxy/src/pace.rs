//! Whether a client that moves something all the time also moves enough of it.
//!
//! A limit on rest alone lets a client hold a request, or an answer, for ever with a byte now and then. So each moment in which we wait
//! for it counts, and each byte makes up for a part of a second.

use std::sync::atomic::{AtomicI64, Ordering};

/// No link in use is slower for long; who attacks has to spend as much on each connection. Kestrel and IIS ask for the same 240 a second,
/// Apache for 500.
const BYTES_PER_S: u64 = 240;

/// Atomic only because hyper's streams may want `Send`; one thread uses it.
pub(crate) struct Pace {
    /// Negative: ahead.
    behind_ms: AtomicI64,
    ahead_max_ms: i64,
}

impl Pace {
    /// `ahead_max_ms`: so much of what came faster counts for later.
    pub(crate) fn new(ahead_max_ms: u32) -> Self {
        Self { behind_ms: AtomicI64::new(0), ahead_max_ms: ahead_max_ms.into() }
    }

    pub(crate) fn begins(&self) {
        self.behind_ms.store(0, Ordering::Relaxed);
    }

    pub(crate) fn waited(&self, ms: u64) {
        self.behind_ms.store(self.behind_ms() + ms as i64, Ordering::Relaxed);
    }

    pub(crate) fn moved(&self, bytes: usize) {
        let made_up_ms = (bytes as u64).saturating_mul(1_000) / BYTES_PER_S;
        let behind_ms = self.behind_ms().saturating_sub_unsigned(made_up_ms).max(-self.ahead_max_ms);
        self.behind_ms.store(behind_ms, Ordering::Relaxed);
    }

    pub(crate) fn is_behind(&self, max_ms: u64) -> bool {
        self.behind_ms() > max_ms.min(i64::MAX as u64) as i64
    }

    fn behind_ms(&self) -> i64 {
        self.behind_ms.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a client that sends so many bytes each second is too far behind.
    fn ends_after_s(pace: &Pace, bytes_per_s: usize) -> Option<u64> {
        (1..=100_000).find(|_| {
            pace.waited(1_000);
            pace.moved(bytes_per_s);
            pace.is_behind(60_000)
        })
    }

    #[test]
    fn who_is_slow_ends_later_than_who_rests_and_who_keeps_up_never() {
        assert_eq!(ends_after_s(&Pace::new(0), 0), Some(61));
        assert_eq!(ends_after_s(&Pace::new(0), 1), Some(61));
        assert_eq!(ends_after_s(&Pace::new(0), 120), Some(121));
        assert_eq!(ends_after_s(&Pace::new(0), 240), None);
        assert_eq!(ends_after_s(&Pace::new(0), 1_000_000), None);
    }

    #[test]
    fn what_came_fast_counts_for_a_while() {
        let ahead = Pace::new(120_000);
        ahead.moved(usize::MAX);
        assert_eq!(ends_after_s(&ahead, 0), Some(181));
        ahead.begins();
        assert_eq!(ends_after_s(&ahead, 0), Some(61));
    }
}
