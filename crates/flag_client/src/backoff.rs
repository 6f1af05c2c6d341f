//! How long to wait before the next attempt to connect. Pure: randomness comes in as an argument.
//!
//! **Invariant**: a delay lies between [`DELAY_MIN`] and [`DELAY_MAX`]; what bounds it grows by half with every attempt in vain.
//! Not here: when an attempt was in vain (`stream.rs`).

use std::time::Duration;

/// A restarted server is back within some tens of milliseconds.
pub(crate) const DELAY_MIN: Duration = Duration::from_millis(50);
/// A server that was away for long is found again within this time.
pub(crate) const DELAY_MAX: Duration = Duration::from_secs(5);
/// Then most clients are back within the time that the server was away; with 2 it is twice that.
const GROWTH: f64 = 1.5;

#[derive(Debug)]
pub(crate) struct Backoff {
    bound: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { bound: DELAY_MIN }
    }
}

impl Backoff {
    /// `random` is uniform in 0 to 1. Spread over the whole range, so that clients which lost the same server do not come back
    /// together (Brooker, "Exponential Backoff and Jitter", 2015: full jitter).
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let bound = self.bound;
        self.bound = bound.mul_f64(GROWTH).min(DELAY_MAX);
        DELAY_MIN + (bound - DELAY_MIN).mul_f64(random.clamp(0.0, 1.0))
    }

    pub(crate) fn reset(&mut self) {
        self.bound = DELAY_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_grows_up_to_five_seconds() {
        let mut backoff = Backoff::default();
        let bounds: Vec<u128> = (0..14).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(bounds, [50, 75, 112, 168, 253, 379, 569, 854, 1_281, 1_922, 2_883, 4_324, 5_000, 5_000]);
    }

    #[test]
    fn never_shorter_than_the_least_delay_nor_longer_than_the_longest() {
        let mut backoff = Backoff::default();
        for attempt in 0..1_000 {
            let delay = backoff.next(f64::from(attempt % 7) / 6.0);
            assert!((DELAY_MIN..=DELAY_MAX).contains(&delay), "attempt {attempt}: {delay:?}");
        }
    }

    #[test]
    fn starts_anew_after_a_good_connection() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.next(1.0);
        }
        backoff.reset();
        assert_eq!(backoff.next(1.0), DELAY_MIN);
    }
}
