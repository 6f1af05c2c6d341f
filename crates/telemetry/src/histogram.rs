//! Log-linear histogram of microseconds: 16 steps per octave, so a quantile is at most 6.25 % too high.
//!
//! **Invariant**: one layout everywhere, so that histograms of threads and workers can be added and subtracted.

const STEPS_LOG2: u32 = 4;
const STEPS: usize = 1 << STEPS_LOG2;
/// Values from 2^37 µs (38 hours) on share the last bucket.
const EXPONENT_MAX: u32 = 36;

pub const BUCKETS: usize = (EXPONENT_MAX - STEPS_LOG2 + 2) as usize * STEPS;

pub fn bucket_of(value_us: u64) -> usize {
    if value_us < STEPS as u64 {
        return value_us as usize;
    }
    let exponent = 63 - value_us.leading_zeros();
    if exponent > EXPONENT_MAX {
        return BUCKETS - 1;
    }
    let step = (value_us >> (exponent - STEPS_LOG2)) as usize & (STEPS - 1);
    (exponent - STEPS_LOG2 + 1) as usize * STEPS + step
}

/// The largest value that falls into the bucket.
pub fn bucket_upper_us(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let shift = (bucket / STEPS - 1) as u32;
    let start = ((STEPS + bucket % STEPS) as u64) << shift;
    start + (1 << shift) - 1
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
    pub fn record_us(&mut self, value_us: u64) {
        self.counts[bucket_of(value_us)] += 1;
    }

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

    /// So many values are at most `bound_us`, to the precision of the layout.
    pub fn count_up_to_us(&self, bound_us: u64) -> u64 {
        self.counts[..=bucket_of(bound_us)].iter().sum()
    }

    /// `None` when nothing was measured: nothing measured is not zero.
    pub fn quantile_us(&self, quantile: f64) -> Option<u64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = ((quantile * total as f64).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(bucket_upper_us(bucket));
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
        for exponent in 0..40 {
            for offset in [0u64, 1, 7] {
                let value = (1u64 << exponent) + offset;
                let bucket = bucket_of(value);
                if bucket < BUCKETS - 1 {
                    assert!(bucket_upper_us(bucket) >= value, "{value}");
                    assert!(bucket == 0 || bucket_upper_us(bucket - 1) < value, "{value}");
                }
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_near() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile_us(0.5), None);
        (1..=1000).for_each(|value| histogram.record_us(value));
        let check = |quantile, expect: u64| {
            let got = histogram.quantile_us(quantile).expect("measured");
            assert!(got >= expect && got <= expect * 107 / 100, "{quantile}: {got}");
        };
        check(0.5, 500);
        check(0.99, 990);
        assert_eq!(histogram.since(&histogram).count(), 0);
    }
}
