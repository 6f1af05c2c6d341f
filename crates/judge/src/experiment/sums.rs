//! Mean and spread of a stream of numbers, in a form that neither cancels nor grows (Welford 1962; merged as by Chan, Golub and
//! LeVeque 1983).

use serde::{Deserialize, Serialize};

/// Finite values only.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Sums {
    pub count: u64,
    /// Values other than 0.
    pub nonzero: u64,
    pub mean: f64,
    /// Sum of squared distances from the mean.
    pub squares: f64,
}

impl Sums {
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        self.nonzero += u64::from(value != 0.0);
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    /// Takes back a value that was added.
    pub fn remove(&mut self, value: f64) {
        if self.count <= 1 {
            *self = Self::default();
            return;
        }
        self.count -= 1;
        self.nonzero = self.nonzero.saturating_sub(u64::from(value != 0.0));
        let with = value - self.mean;
        self.mean -= with / self.count as f64;
        self.squares = (self.squares - with * (value - self.mean)).max(0.0);
    }

    /// As if all values of both had been added to one.
    pub fn merge(&mut self, other: &Self) {
        let (a, b) = (self.count as f64, other.count as f64);
        if other.count == 0 {
            return;
        }
        let apart = other.mean - self.mean;
        self.count += other.count;
        self.nonzero += other.nonzero;
        self.mean += apart * b / (a + b);
        self.squares += other.squares + apart * apart * a * b / (a + b);
    }

    /// The sample variance; 0 below two values.
    pub fn variance(&self) -> f64 {
        if self.count < 2 { 0.0 } else { self.squares / (self.count - 1) as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = f64>) -> Sums {
        values.into_iter().fold(Sums::default(), |mut sums, value| {
            sums.add(value);
            sums
        })
    }

    fn is_close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * b.abs().max(1e-9)
    }

    #[test]
    fn a_large_offset_does_not_eat_the_spread() {
        // In sums of squares, 1e9 squared leaves no digit for a variance of 2.5.
        let sums = of((1..=5).map(|n| 1e9 + f64::from(n)));
        assert!(is_close(sums.mean, 1e9 + 3.0) && is_close(sums.variance(), 2.5), "{sums:?}");
    }

    #[test]
    fn parts_merge_and_what_was_added_can_be_taken_back() {
        let value = |n: u32| f64::from(n * n % 101) * 0.37;
        let (all, mut parts) = (of((0..1_000).map(value)), of((0..300).map(value)));
        parts.merge(&of((300..1_000).map(value)));
        parts.merge(&Sums::default());
        assert!(is_close(parts.mean, all.mean) && is_close(parts.variance(), all.variance()));
        assert_eq!((parts.count, parts.nonzero), (all.count, all.nonzero));
        let mut fewer = all;
        (300..1_000).for_each(|n| fewer.remove(value(n)));
        let few = of((0..300).map(value));
        assert!(is_close(fewer.mean, few.mean) && is_close(fewer.variance(), few.variance()) && fewer.nonzero == few.nonzero);
        (0..300).for_each(|n| fewer.remove(value(n)));
        assert_eq!(fewer, Sums::default());
    }
}
