//! A/B experiments: users are split over variants, and a goal is compared between each variant and the control.
//!
//! A user counts twice over: as exposed, at once, for the check of the split; and with its values, when its time is over (the
//! goal's window after its first exposure), whatever they are. Then intervals hold at every look at once, and whoever looks daily
//! and stops at the first winner is wrong no more often than promised.
//! **Invariants**: a user counts at most once, in the variant that it saw first; no value is looked at before it is final; sums are
//! plain data, and the order of counting changes nothing but the last bits. Not here: who is which user (ledger), time, storage.

mod design;
mod ledger;
mod means;
mod proportions;
mod report;
mod sums;
#[cfg(test)]
mod tests;
mod words;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use design::{Better, Design, Goal, GoalKind, InvalidDesign, VARIANTS_MAX, VariantShare};
pub use ledger::Ledger;
pub use means::{MEANS_NONZERO_MIN, MEANS_USERS_MIN, difference_of_means, mean_interval};
pub use proportions::{Converted, Pair, difference_of_proportions, proportion_interval, ratio_of_proportions, users_until_found};
pub use report::{Comparison, GoalReport, Interval, RatioCheck, Report, VariantReport, Verdict};
pub use sums::Sums;

/// A false alarm of the split check, in the whole experiment.
pub const ALPHA_RATIO: f64 = 0.001;
/// Of the split check's prior, as at a canary.
pub(crate) const RATIO_STRENGTH: f64 = 100.0;

/// What was counted of an experiment so far. Plain data; made from a [`Design`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    design: Design,
    /// Per variant: users who were exposed.
    exposed: Vec<u64>,
    /// Users who saw two variants: in no other count.
    excluded: u64,
    /// Per goal and variant.
    values: Vec<Vec<Values>>,
    /// The most that ever spoke against the split.
    ln_ratio_max: f64,
}

/// Users of one variant whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Values {
    Conversion(Converted),
    Mean(Sums),
}

/// What cannot be counted; nothing of it was.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum CountError {
    #[error("there is no variant number {0}")]
    NoSuchVariant(usize),
    #[error("a user has one value per goal: {wanted}, not {given}")]
    Goals { wanted: usize, given: usize },
    #[error("the value {value} of goal `{goal}` is not a number that can be added up")]
    NotFinite { goal: String, value: f64 },
}

impl Experiment {
    /// Nothing is counted yet.
    ///
    /// # Errors
    /// A design that cannot be judged.
    pub fn new(design: Design) -> Result<Self, InvalidDesign> {
        design.check()?;
        let variants = design.variants.len();
        let empty = |goal: &Goal| match goal.kind {
            GoalKind::Conversion => vec![Values::Conversion(Converted::default()); variants],
            GoalKind::Mean { .. } => vec![Values::Mean(Sums::default()); variants],
        };
        let values = design.goals.iter().map(empty).collect();
        Ok(Self { design, exposed: vec![0; variants], excluded: 0, values, ln_ratio_max: 0.0 })
    }

    pub fn design(&self) -> &Design {
        &self.design
    }

    /// Per variant, in the design's order.
    pub fn exposed(&self) -> &[u64] {
        &self.exposed
    }

    pub fn excluded(&self) -> u64 {
        self.excluded
    }

    /// Per goal and variant.
    pub fn values(&self) -> &[Vec<Values>] {
        &self.values
    }

    /// A user saw a variant for the first time.
    ///
    /// # Errors
    /// No such variant.
    pub fn expose(&mut self, variant: usize) -> Result<(), CountError> {
        *self.exposed.get_mut(variant).ok_or(CountError::NoSuchVariant(variant))? += 1;
        Ok(())
    }

    /// The time of an exposed user is over: its final value for each goal. A conversion is any value but 0.
    ///
    /// # Errors
    /// No such variant, too few or too many values, or one that is not finite.
    pub fn settle(&mut self, variant: usize, values: &[f64]) -> Result<(), CountError> {
        self.check(variant, values)?;
        for ((goal, value), of_variants) in self.design.goals.iter().zip(values).zip(&mut self.values) {
            of_variants[variant].count(goal.capped(*value), true);
        }
        Ok(())
    }

    /// An exposed user of `variant` has seen another one, too, and says nothing of either. `settled`: its values, if they were
    /// counted already.
    ///
    /// # Errors
    /// As of [`Experiment::settle`].
    pub fn exclude(&mut self, variant: usize, settled: Option<&[f64]>) -> Result<(), CountError> {
        let exposed = self.exposed.get(variant).copied().ok_or(CountError::NoSuchVariant(variant))?;
        if let Some(values) = settled {
            self.check(variant, values)?;
            for ((goal, value), of_variants) in self.design.goals.iter().zip(values).zip(&mut self.values) {
                of_variants[variant].count(goal.capped(*value), false);
            }
        }
        self.exposed[variant] = exposed.saturating_sub(1);
        self.excluded += 1;
        Ok(())
    }

    fn check(&self, variant: usize, values: &[f64]) -> Result<(), CountError> {
        if variant >= self.exposed.len() {
            return Err(CountError::NoSuchVariant(variant));
        }
        if values.len() != self.design.goals.len() {
            return Err(CountError::Goals { wanted: self.design.goals.len(), given: values.len() });
        }
        match self.design.goals.iter().zip(values).find(|(_, value)| !value.is_finite()) {
            Some((goal, value)) => Err(CountError::NotFinite { goal: goal.name.clone(), value: *value }),
            None => Ok(()),
        }
    }
}

impl Values {
    /// Users whose time is over.
    pub fn users(&self) -> u64 {
        match self {
            Self::Conversion(converted) => converted.users,
            Self::Mean(sums) => sums.count,
        }
    }

    fn count(&mut self, value: f64, comes: bool) {
        match self {
            Self::Conversion(converted) => {
                let by = |count: u64, by: bool| if comes { count + u64::from(by) } else { count.saturating_sub(u64::from(by)) };
                *converted = Converted { users: by(converted.users, true), converted: by(converted.converted, value != 0.0) };
            }
            Self::Mean(sums) if comes => sums.add(value),
            Self::Mean(sums) => sums.remove(value),
        }
    }
}
