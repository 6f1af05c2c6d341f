//! The time, as cheap as it can be had.
//!
//! **Invariant**: never an error; without a clock it is 1970. Not here: waiting (`stream.rs`).

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

const MS_PER_S: i64 = 1_000;
const NS_PER_MS: i64 = 1_000_000;

/// From the clock that the kernel sets at each tick: a tenth of the cost of the exact one, and some milliseconds behind.
fn now() -> TimeSpec {
    clock_gettime(ClockId::CLOCK_REALTIME_COARSE).unwrap_or(TimeSpec::new(0, 0))
}

/// Unix time in seconds.
pub(crate) fn now_s() -> i64 {
    now().tv_sec()
}

/// Unix time in milliseconds.
pub(crate) fn now_ms() -> u64 {
    let now = now();
    u64::try_from(now.tv_sec() * MS_PER_S + now.tv_nsec() / NS_PER_MS).unwrap_or(0)
}
