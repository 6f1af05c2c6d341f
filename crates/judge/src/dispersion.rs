//! Overdispersion: how much more bad units vary than independent ones would, measured on stable alone before the release.

use crate::units::Share;

/// `blocks`: per 60 s of stable's traffic, split by the key that units cluster by: bad in the pseudo-candidate, bad in both. `None`:
/// fewer than `bad_min` bad ones, so it is unknown.
pub fn overdispersion(blocks: &[(u64, u64)], share: Share, bad_min: u64) -> Option<f64> {
    if blocks.iter().map(|(_, both)| both).sum::<u64>() < bad_min {
        return None;
    }
    let (w, v) = (share.candidate(), 1.0 - share.candidate());
    let seen: f64 = blocks.iter().map(|(one, both)| (*one as f64 - *both as f64 * w).powi(2)).sum();
    let expected: f64 = blocks.iter().map(|(_, both)| *both as f64 * w * v).sum();
    Some((seen / expected).max(1.0))
}
