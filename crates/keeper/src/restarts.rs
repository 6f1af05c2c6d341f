//! When a dead worker is started again: at once, unless it keeps dying right after its start.
//!
//! Pure: the time is an argument. Not here: starting it (`worker`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const QUICK_DEATH: Duration = Duration::from_millis(50);
const DELAY_MAX: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Restarts {
    crashes: VecDeque<Instant>,
    quick_in_a_row: u32,
}

impl Restarts {
    /// Returns how long to wait.
    pub(crate) fn crashed(&mut self, started: Instant, now: Instant) -> Duration {
        self.crashes.push_back(now);
        self.forget_old(now);
        if now.duration_since(started) >= QUICK_DEATH {
            self.quick_in_a_row = 0;
            return Duration::ZERO;
        }
        self.quick_in_a_row = self.quick_in_a_row.saturating_add(1);
        // The first quick death is forgiven: 0, 50, 100, 200 ms and so on.
        match self.quick_in_a_row {
            0 | 1 => Duration::ZERO,
            count => DELAY_MAX.min(QUICK_DEATH * (1 << (count - 2).min(8))),
        }
    }

    pub(crate) fn recent(&mut self, now: Instant) -> usize {
        self.forget_old(now);
        self.crashes.len()
    }

    fn forget_old(&mut self, now: Instant) {
        while self.crashes.front().is_some_and(|crash| now.duration_since(*crash) > WINDOW) {
            self.crashes.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_death_is_forgiven_once_and_the_delay_ends_at_one_second() {
        let start = Instant::now();
        let mut restarts = Restarts::default();
        let delays: Vec<_> = (0..8).map(|_| restarts.crashed(start, start).as_millis()).collect();
        assert_eq!(delays, [0, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(restarts.crashed(start, start + QUICK_DEATH), Duration::ZERO);
        assert_eq!(restarts.recent(start + Duration::from_secs(11)), 0);
    }
}
