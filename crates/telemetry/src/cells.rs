//! Counts for the judge: per epoch (a stretch with one weight), per second in which a unit was assigned, per arm.
//!
//! **Invariant**: a unit stays in the cell in which it was drawn. Not here: who counts them (the proxy's rings for requests, a
//! [`Cohort`](crate::Cohort) for clients and users), and what they say.

/// Errors, and two sets for each of three latency quantiles.
pub const SETS: usize = 7;

/// Units of one arm in one cell, over all threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArmCounts {
    pub drawn: u64,
    pub ended: u64,
    /// The answer's head has come, its end has not.
    pub answering: u64,
    /// Per counter set.
    pub bad: [u64; SETS],
}

/// One epoch and assignment second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CellCounts {
    pub epoch: u32,
    pub second: u64,
    pub candidate: ArmCounts,
    pub stable: ArmCounts,
}

impl ArmCounts {
    pub fn add(&mut self, other: &Self) {
        self.drawn += other.drawn;
        self.ended += other.ended;
        self.answering += other.answering;
        self.bad.iter_mut().zip(other.bad).for_each(|(sum, bad)| *sum += bad);
    }
}
