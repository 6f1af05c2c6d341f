//! Cumulative counts per service and version, one block per thread.
//!
//! **Invariant**: each block has one writer, so a count is a plain load and store; readers add the blocks up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use telemetry::{BUCKETS, Histogram, bucket_of};

/// Cumulative since this process started; take differences for rates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub requests: u64,
    /// 5xx of the target, resets, timeouts, and connect failures after all tries.
    pub bad: u64,
    /// Of these, those of a fixed half of the connections: how evenly failures fall on the halves says whether they come one by one.
    pub bad_of_half: u64,
    /// In so many of 64 groups of connections something failed.
    pub bad_groups: u32,
    /// Answers by class: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub classes: [u64; 5],
    /// From the request's head to the answer's end.
    pub latency: Histogram,
    pub latency_sum_ns: u64,
    /// From the request's head to the answer's head; what failed before has its whole time here.
    pub heads: Histogram,
    /// Of a service that speaks any protocol, whose connections are the requests above.
    pub connections: Connections,
}

/// What became of connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Connections {
    pub opened: u64,
    /// No target could be reached.
    pub unreached: u64,
    /// The target reset them, or ended them early without a word.
    pub reset: u64,
    pub ended: u64,
    /// From clients.
    pub bytes_up: u64,
    /// To clients.
    pub bytes_down: u64,
}

pub(crate) struct VersionCounts {
    blocks: Box<[Block]>,
}

// Two cache lines, because processors fetch them in pairs.
#[repr(align(128))]
struct Block {
    requests: AtomicU64,
    bad: AtomicU64,
    bad_of_half: AtomicU64,
    bad_groups: AtomicU64,
    sum_ns: AtomicU64,
    classes: [AtomicU64; 5],
    buckets: [AtomicU64; BUCKETS],
    heads: [AtomicU64; BUCKETS],
    opened: AtomicU64,
    unreached: AtomicU64,
    reset: AtomicU64,
    ended: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
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
            bad_of_half: AtomicU64::new(0),
            bad_groups: AtomicU64::new(0),
            sum_ns: AtomicU64::new(0),
            classes: [const { AtomicU64::new(0) }; 5],
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            heads: [const { AtomicU64::new(0) }; BUCKETS],
            opened: AtomicU64::new(0),
            unreached: AtomicU64::new(0),
            reset: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
        };
        Self { blocks: (0..threads).map(|_| block()).collect() }
    }

    pub(crate) fn record(&self, thread: usize, status: u16, bad: bool, to_head: Option<Duration>, duration: Duration) {
        let block = &self.blocks[thread];
        bump(&block.requests, 1);
        let ns = duration.as_nanos() as u64;
        bump(&block.sum_ns, ns);
        let bucket = bucket_of(ns);
        bump(&block.buckets[bucket], 1);
        let head_ns = to_head.map_or(ns, |to_head| to_head.as_nanos() as u64);
        bump(&block.heads[if head_ns == ns { bucket } else { bucket_of(head_ns) }], 1);
        if let Some(class) = block.classes.get((status / 100) as usize - 1) {
            bump(class, 1);
        }
        if bad {
            bump(&block.bad, 1);
        }
    }

    /// A connection has found a target, or none. It counts as a request now, since it may last for days.
    pub(crate) fn record_connect(&self, thread: usize, reached: bool, took: Duration) {
        let block = &self.blocks[thread];
        bump(&block.requests, 1);
        bump(&block.heads[bucket_of(took.as_nanos() as u64)], 1);
        if reached {
            bump(&block.opened, 1);
        } else {
            bump(&block.unreached, 1);
            bump(&block.bad, 1);
        }
    }

    /// One that was opened has ended.
    pub(crate) fn record_end(&self, thread: usize, bad: bool, lasted: Duration) {
        let block = &self.blocks[thread];
        let ns = lasted.as_nanos() as u64;
        bump(&block.ended, 1);
        bump(&block.sum_ns, ns);
        bump(&block.buckets[bucket_of(ns)], 1);
        if bad {
            bump(&block.reset, 1);
            bump(&block.bad, 1);
        }
    }

    pub(crate) fn record_bytes(&self, thread: usize, up: usize, down: usize) {
        let block = &self.blocks[thread];
        bump(&block.bytes_up, up as u64);
        bump(&block.bytes_down, down as u64);
    }

    /// A failure on a connection with this hash.
    pub(crate) fn record_cluster(&self, thread: usize, connection: u64) {
        let block = &self.blocks[thread];
        bump(&block.bad_of_half, connection >> 63);
        block.bad_groups.store(block.bad_groups.load(Ordering::Relaxed) | 1 << (connection & 63), Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Counts {
        let (mut counts, mut groups) = (Counts::default(), 0);
        for block in &self.blocks {
            counts.requests += block.requests.load(Ordering::Relaxed);
            counts.bad += block.bad.load(Ordering::Relaxed);
            counts.bad_of_half += block.bad_of_half.load(Ordering::Relaxed);
            groups |= block.bad_groups.load(Ordering::Relaxed);
            counts.latency_sum_ns += block.sum_ns.load(Ordering::Relaxed);
            let sums = &mut counts.connections;
            sums.opened += block.opened.load(Ordering::Relaxed);
            sums.unreached += block.unreached.load(Ordering::Relaxed);
            sums.reset += block.reset.load(Ordering::Relaxed);
            sums.ended += block.ended.load(Ordering::Relaxed);
            sums.bytes_up += block.bytes_up.load(Ordering::Relaxed);
            sums.bytes_down += block.bytes_down.load(Ordering::Relaxed);
            for (sum, class) in counts.classes.iter_mut().zip(&block.classes) {
                *sum += class.load(Ordering::Relaxed);
            }
            for (bucket, count) in block.buckets.iter().enumerate() {
                counts.latency.add_to_bucket(bucket, count.load(Ordering::Relaxed));
            }
            for (bucket, count) in block.heads.iter().enumerate() {
                counts.heads.add_to_bucket(bucket, count.load(Ordering::Relaxed));
            }
        }
        counts.bad_groups = groups.count_ones();
        counts
    }
}
