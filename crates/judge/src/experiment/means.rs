//! Intervals for means that hold at every look at once, asymptotically: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform
//! central limit theory and asymptotic confidence sequences" (Annals of Statistics 2024, arXiv 2103.06476), theorem 2.2.
//!
//! Two variants are compared by that paper's estimator for experiments with the variants' own means as regression (its section 3):
//! the difference of means, with variance s₁²/n₁ + s₀²/n₀ at n₁ + n₀ users. Nothing is said before [`MEANS_USERS_MIN`] users.

use super::report::Interval;
use super::sums::Sums;

/// Fewer users in a variant, and the normal law is too far away.
pub const MEANS_USERS_MIN: u64 = 1_000;
/// Of a goal that is 0 for most (what they spend), so many must be something else: they are what the law needs many of.
pub const MEANS_NONZERO_MIN: u64 = 100;
/// Users at which intervals are tightest, relative to what is possible there.
const OPTIMAL_AT: f64 = 20_000.0;

/// Two-sided, with a false interval ever at most `level` of the time. Absent before enough users.
pub fn mean_interval(sums: &Sums, level: f64) -> Option<Interval> {
    is_enough(sums).then(|| {
        let n = sums.count as f64;
        let half = (factor(n, level) * sums.variance() / n).sqrt();
        Interval { low: Some(sums.mean - half), high: Some(sums.mean + half) }
    })
}

/// Of treated − control, and of treated / control − 1. The latter is absent where the control's mean may be 0 or less. Both hold
/// together, since they refute the same.
pub fn difference_of_means(treated: &Sums, control: &Sums, level: f64) -> Option<(Interval, Option<Interval>)> {
    if !is_enough(treated) || !is_enough(control) {
        return None;
    }
    let [of_treated, of_control] = [treated, control].map(|sums| sums.variance() / sums.count as f64);
    let factor = factor((treated.count + control.count) as f64, level);
    let (difference, half) = (treated.mean - control.mean, (factor * (of_treated + of_control)).sqrt());
    let interval = Interval { low: Some(difference - half), high: Some(difference + half) };
    // {r: (m₁ − r·m₀)² ≤ factor · (v₁ + r²·v₀)}, as Fieller 1954 has it: a·r² − 2b·r + c ≤ 0.
    let (a, b, c) =
        (control.mean * control.mean - factor * of_control, treated.mean * control.mean, treated.mean * treated.mean - factor * of_treated);
    let lift = (a > 0.0 && control.mean > 0.0).then(|| {
        let root = (b * b - a * c).max(0.0).sqrt();
        Interval { low: Some((b - root) / a - 1.0), high: Some((b + root) / a - 1.0) }
    });
    Some((interval, lift))
}

fn is_enough(sums: &Sums) -> bool {
    sums.count >= MEANS_USERS_MIN && sums.nonzero >= MEANS_NONZERO_MIN
}

/// What the variance of a mean of `n` is multiplied by, under the root, instead of the square of a normal quantile.
fn factor(n: f64, level: f64) -> f64 {
    let x = -2.0 * level.ln();
    let rho_squared = (x + (x + 1.0).ln()) / OPTIMAL_AT;
    let m = n * rho_squared + 1.0;
    2.0 * m / (n * rho_squared) * (m.sqrt() / level).ln()
}
