//! Time for the data threads: precise where measured, coarse (a tick) where only limits are watched.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

/// `Date` as a line of an answer (RFC 9110 §6.6.1), of the thread's last tick.
pub(crate) struct DateLine {
    unix_s: u64,
    line: String,
}

impl DateLine {
    pub(crate) fn new() -> Self {
        let mut date = Self { unix_s: 0, line: String::new() };
        date.advance();
        date
    }

    pub(crate) fn advance(&mut self) {
        let now = SystemTime::now();
        let unix_s = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if unix_s != self.unix_s {
            (self.unix_s, self.line) = (unix_s, format!("date: {}\r\n", httpdate::fmt_http_date(now)));
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.line.as_bytes()
    }
}

/// The moment of `START`, in nanoseconds since boot.
static START_SINCE_BOOT_NS: LazyLock<u64> = LazyLock::new(|| {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for the answer.
    let answered = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) } == 0;
    let since_boot = if answered { now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64 } else { 0 };
    since_boot.saturating_sub(START.elapsed().as_nanos() as u64)
});

/// Seconds since boot, so that they go on over a restart of the process.
pub(crate) fn second_of(moment: Instant) -> u64 {
    since_boot(moment).as_secs()
}

pub(crate) fn since_boot(moment: Instant) -> Duration {
    let since_start = moment.saturating_duration_since(*START).as_nanos() as u64;
    Duration::from_nanos(*START_SINCE_BOOT_NS + since_start)
}
