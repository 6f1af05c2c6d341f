//! Seeded chance: a generator per release, and counts.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Poisson};

pub(crate) type Chance = Xoshiro256PlusPlus;

/// The generator of release `number`: the same whichever thread plays it.
pub(crate) fn chance(seed: u64, number: u32) -> Chance {
    let first = Chance::seed_from_u64(seed).next_u64();
    Chance::seed_from_u64(first.wrapping_add(u64::from(number)))
}

/// How many of something that happens `mean` times on average.
pub(crate) fn poisson(chance: &mut Chance, mean: f64) -> u64 {
    Poisson::new(mean).map_or(0, |poisson| poisson.sample(chance) as u64)
}

/// Strictly between 0 and 1.
pub(crate) fn uniform(chance: &mut Chance) -> f64 {
    ((chance.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// At least 1, `mean` on average, without memory.
pub(crate) fn geometric(chance: &mut Chance, mean: f64) -> u64 {
    if mean <= 1.0 {
        return 1;
    }
    1 + (uniform(chance).ln() / (-1.0 / mean).ln_1p()) as u64
}
