//! Maps and sets by numbers that were given out here, one after the other: nobody can choose them to collide.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

pub(crate) type ByNumber<T> = HashMap<u64, T, BuildHasherDefault<Spread>>;
pub(crate) type Numbers = HashSet<u64, BuildHasherDefault<Spread>>;

#[derive(Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64");
    }

    fn write_u64(&mut self, number: u64) {
        // Over all bits: the table looks at both ends.
        self.0 = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
