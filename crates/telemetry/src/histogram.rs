//! Histogram of latencies on the house's grid (`model::latency_edge_ns`): 16 steps per octave, so a quantile is at most 4.5 % too
//! high. What is shorter than 1 µs shares a bucket, and so does what is longer than 4 hours.
//!
//! **Invariant**: one layout everywhere, so that histograms of threads and workers can be added and subtracted.

use model::{latency_bucket, latency_edge_ns};

/// Of the grid: 2^10 ns.
const FIRST: usize = 160;
/// Of the grid: 2^44 ns.
const LAST: usize = 703;

pub const BUCKETS: usize = LAST - FIRST + 1;

pub fn bucket_of(ns: u64) -> usize {
    latency_bucket(ns).clamp(FIRST, LAST) - FIRST
}

/// The largest value that falls into the bucket.
fn bucket_upper_ns(bucket: usize) -> u64 {
    latency_edge_ns(FIRST + bucket + 1) - 1
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS] }
    }
}

impl Histogram {
    pub fn add_to_bucket(&mut self, bucket: usize, count: u64) {
        self.counts[bucket] += count;
    }

    pub fn add(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
    }

    /// What came in after `earlier` was read from the same source. A source that restarted gives zeros, never a wrap.
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let counts = self.counts.iter().zip(&earlier.counts).map(|(a, b)| a.saturating_sub(*b)).collect();
        Histogram { counts }
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// So many values are at most `bound_ns`, to the precision of the layout.
    pub fn count_up_to_ns(&self, bound_ns: u64) -> u64 {
        self.counts[..=bucket_of(bound_ns)].iter().sum()
    }

    /// Counts by bucket of the house's grid; empty ones left out.
    pub fn on_grid(&self) -> impl Iterator<Item = (usize, u64)> {
        let used = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        used.map(|(bucket, count)| (FIRST + bucket, *count))
    }

    /// `None` when nothing was measured: nothing measured is not zero.
    pub fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = ((quantile * total as f64).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(bucket_upper_ns(bucket));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for exponent in 10..44 {
            for offset in [0u64, 1, 7] {
                let value = (1u64 << exponent) + offset;
                let bucket = bucket_of(value);
                assert!(bucket_upper_ns(bucket) >= value, "{value}");
                assert!(bucket == 0 || bucket_upper_ns(bucket - 1) < value, "{value}");
            }
        }
        assert_eq!((bucket_of(0), bucket_of(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn quantiles_are_near() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile_ns(0.5), None);
        (1..=1000).for_each(|value| histogram.add_to_bucket(bucket_of(value * 1_000), 1));
        let check = |quantile, expect: u64| {
            let got = histogram.quantile_ns(quantile).expect("measured");
            assert!(got >= expect && got <= expect * 105 / 100, "{quantile}: {got}");
        };
        check(0.5, 500_000);
        check(0.99, 990_000);
        assert_eq!(histogram.since(&histogram).count(), 0);
    }
}
