//! Cumulative counts per service and version, one block per thread.
//!
//! **Invariant**: each block has one writer, so a count is a plain load and store; readers add the blocks up.

use std::sync::atomic::{AtomicU64, Ordering};

use telemetry::{BUCKETS, Histogram, bucket_of};

/// Cumulative since this process started; take differences for rates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub requests: u64,
    /// 5xx of the target, resets, timeouts, and connect failures after all tries.
    pub bad: u64,
    /// Answers by class: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub classes: [u64; 5],
    pub latency: Histogram,
    pub latency_sum_us: u64,
}

pub(crate) struct VersionCounts {
    blocks: Box<[Block]>,
}

// Two cache lines, because processors fetch them in pairs.
#[repr(align(128))]
struct Block {
    requests: AtomicU64,
    bad: AtomicU64,
    sum_us: AtomicU64,
    classes: [AtomicU64; 5],
    buckets: [AtomicU64; BUCKETS],
}

/// Only for counts with a single writer.
pub(crate) fn bump(count: &AtomicU64, by: u64) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

impl VersionCounts {
    pub(crate) fn new(threads: usize) -> Self {
        let block = || Block {
            requests: AtomicU64::new(0),
            bad: AtomicU64::new(0),
            sum_us: AtomicU64::new(0),
            classes: [const { AtomicU64::new(0) }; 5],
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        };
        Self { blocks: (0..threads).map(|_| block()).collect() }
    }

    pub(crate) fn record(&self, thread: usize, status: u16, bad: bool, duration_us: u64) {
        let block = &self.blocks[thread];
        bump(&block.requests, 1);
        bump(&block.sum_us, duration_us);
        bump(&block.buckets[bucket_of(duration_us)], 1);
        if let Some(class) = block.classes.get((status / 100) as usize - 1) {
            bump(class, 1);
        }
        if bad {
            bump(&block.bad, 1);
        }
    }

    pub(crate) fn read(&self) -> Counts {
        let mut counts = Counts::default();
        for block in &self.blocks {
            counts.requests += block.requests.load(Ordering::Relaxed);
            counts.bad += block.bad.load(Ordering::Relaxed);
            counts.latency_sum_us += block.sum_us.load(Ordering::Relaxed);
            for (sum, class) in counts.classes.iter_mut().zip(&block.classes) {
                *sum += class.load(Ordering::Relaxed);
            }
            for (bucket, count) in block.buckets.iter().enumerate() {
                counts.latency.add_to_bucket(bucket, count.load(Ordering::Relaxed));
            }
        }
        counts
    }
}
