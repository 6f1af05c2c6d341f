//! Time for the data threads: precise where measured, coarse (a tick) where only limits are watched.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Every limit is checked so often; all limits here are far longer.
pub(crate) const TICK: Duration = Duration::from_millis(50);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since the process started to ask; never 0, so that 0 can mean "not set".
pub(crate) fn now_ms() -> u64 {
    START.elapsed().as_millis() as u64 + 1
}

/// The time of the thread's last tick: reading it costs a load, not a system call.
#[derive(Clone)]
pub(crate) struct CoarseClock(Arc<AtomicU64>);

impl CoarseClock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(now_ms())))
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn advance(&self) -> u64 {
        let now = now_ms();
        self.0.store(now, Ordering::Relaxed);
        now
    }
}
