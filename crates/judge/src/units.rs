//! What is counted: units (one client request, or one sticky client in one step), per arm, in stretches of one weight.

use model::{WEIGHT_SUM, Weight};
use serde::{Deserialize, Serialize};

/// The probability with which a unit goes to the candidate: `parts` of `of`, exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Share {
    pub parts: u32,
    pub of: u32,
}

impl Share {
    pub fn of_weight(weight: Weight) -> Self {
        Self { parts: u32::from(weight), of: u32::from(WEIGHT_SUM) }
    }

    /// Sticky cohorts: of the clients that were on stable at weight `before`, those that move at `weight`.
    pub fn of_raise(before: Weight, weight: Weight) -> Self {
        Self { parts: u32::from(weight - before), of: u32::from(WEIGHT_SUM - before) }
    }

    pub(crate) fn candidate(self) -> f64 {
        f64::from(self.parts) / f64::from(self.of)
    }

    pub(crate) fn stable(self) -> f64 {
        f64::from(self.of - self.parts) / f64::from(self.of)
    }
}

/// Closed units of one arm. Torn reads are harmless: `bad` may exceed `closed` for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Units {
    pub closed: u64,
    pub bad: u64,
}

impl Units {
    pub(crate) fn good(self) -> u64 {
        self.closed.saturating_sub(self.bad)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Arms {
    pub candidate: Units,
    pub stable: Units,
}

/// The counts of a stretch with one weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    pub share: Share,
    pub arms: Arms,
}

/// Which claim is being tested; what is not known yet is set against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The candidate is worse than the tolerance allows: evidence for a rollback.
    Worse,
    /// The candidate is better than the margin demands: evidence for an advance.
    Better,
}
