//! Latency as a share metric: a request is bad when it is slower than a threshold that was frozen from stable before the release.

use std::collections::BTreeMap;

use crate::units::{Arms, Epoch, Share, Units};

/// Of a quantile, in parts per 10,000.
const PARTS: u64 = 10_000;
/// So many requests beyond the quantile are needed to freeze it.
const BEYOND_MIN: u64 = 20;

/// The smallest bucket `i` such that the share of requests in buckets ≥ `i` is at most 1 − `quantile`/10,000. `None`: too few.
pub fn threshold_bucket(histogram: &BTreeMap<usize, u64>, quantile: u64) -> Option<usize> {
    let count: u64 = histogram.values().sum();
    if count * (PARTS - quantile) < BEYOND_MIN * PARTS {
        return None;
    }
    let mut below = 0;
    for (bucket, requests) in histogram {
        below += requests;
        if below * PARTS >= quantile * count {
            return Some(bucket + 1);
        }
    }
    None
}

/// A closed epoch: the candidate's requests are bad from bucket `threshold + shift` on, stable's from `threshold` on.
pub fn epoch_of_histograms(
    share: Share,
    candidate: &BTreeMap<usize, u64>,
    stable: &BTreeMap<usize, u64>,
    threshold: usize,
    shift: usize,
) -> Epoch {
    let units = |histogram: &BTreeMap<usize, u64>, from: usize| Units {
        closed: histogram.values().sum(),
        bad: histogram.range(from..).map(|(_, count)| count).sum(),
    };
    Epoch { share, arms: Arms { candidate: units(candidate, threshold + shift), stable: units(stable, threshold) } }
}
