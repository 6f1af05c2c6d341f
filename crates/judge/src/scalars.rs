//! Scalars: one number per interval and arm, such as a query's. Asymptotic bounds on the mean difference, valid at every look
//! (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, arXiv 2103.06476).

use serde::{Deserialize, Serialize};

/// Sums over the differences candidate − stable of each interval.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ScalarSums {
    pub count: u64,
    pub sum: f64,
    pub sum_of_squares: f64,
}

impl ScalarSums {
    /// Adds the difference of one interval. What is not finite was not measured.
    pub fn add(&mut self, difference: f64) {
        if difference.is_finite() {
            self.count += 1;
            self.sum += difference;
            self.sum_of_squares += difference * difference;
        }
    }
}

/// One-sided bounds, each at level `alpha`; infinite below `count_min` intervals. `tolerance` sets the smallest spread that is
/// believed; `optimal_at` the number of intervals at which they are tightest.
pub fn scalar_bounds(sums: &ScalarSums, alpha: f64, tolerance: f64, optimal_at: f64, count_min: u64) -> (f64, f64) {
    if sums.count < count_min.max(2) {
        return (f64::NEG_INFINITY, f64::INFINITY);
    }
    let n = sums.count as f64;
    let mean = sums.sum / n;
    let smallest = 1e-6 * (mean.abs() + tolerance);
    let variance = ((sums.sum_of_squares - n * mean * mean) / (n - 1.0)).max(smallest * smallest);
    let a = 2.0 * alpha;
    let rho = (-2.0 * a.ln() + (-2.0 * a.ln() + 1.0).ln()) / optimal_at;
    let half = (variance * 2.0 * (n * rho + 1.0) / (n * n * rho) * ((n * rho + 1.0).sqrt() / a).ln_1p()).sqrt();
    (mean - half, mean + half)
}
