//! What an experiment is told beforehand. **Invariant**: fixed from its first exposure on; a change begins a new experiment.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// With more, each comparison's part of alpha is too small to ever find something.
pub const VARIANTS_MAX: usize = 20;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Design {
    pub variants: Vec<VariantShare>,
    /// The name of the variant that all others are compared with.
    pub control: String,
    pub goals: Vec<Goal>,
    /// Of one false winner or loser among all comparisons and goals, however often it is looked at. 0.05 is usual.
    pub alpha: f64,
}

/// A variant and how many users it gets, relative to the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariantShare {
    pub name: String,
    pub share: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    pub name: String,
    pub kind: GoalKind,
    pub better: Better,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoalKind {
    /// A user does it or not. Intervals are exact.
    Conversion,
    /// A number per user. Intervals are asymptotic. `cap`: larger values count as this (winsorised), so that a few whales do not
    /// hide everybody else; what is compared are then capped means.
    Mean { cap: Option<f64> },
}

/// Which way a goal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Higher,
    Lower,
}

/// Why this cannot be judged.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum InvalidDesign {
    #[error("an experiment compares 2 to {VARIANTS_MAX} variants, not {0}")]
    Variants(usize),
    #[error("variant `{0}` is named twice")]
    VariantTwice(String),
    #[error("variant `{0}` has a share of 0: nobody would see it")]
    NoShare(String),
    #[error("the control `{0}` is none of the variants")]
    NoControl(String),
    #[error("an experiment has at least one goal")]
    NoGoal,
    #[error("goal `{0}` is named twice")]
    GoalTwice(String),
    #[error("the cap of goal `{0}` is not a number")]
    Cap(String),
    #[error("alpha lies between 0 and 1, usually 0.05, not at {0}")]
    Alpha(f64),
}

impl Design {
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), InvalidDesign> {
        use InvalidDesign as I;
        let variants = self.variants.len();
        if !(2..=VARIANTS_MAX).contains(&variants) {
            return Err(I::Variants(variants));
        }
        if let Some(name) = twice(self.variants.iter().map(|variant| &variant.name)) {
            return Err(I::VariantTwice(name));
        }
        if let Some(variant) = self.variants.iter().find(|variant| variant.share == 0) {
            return Err(I::NoShare(variant.name.clone()));
        }
        if !self.variants.iter().any(|variant| variant.name == self.control) {
            return Err(I::NoControl(self.control.clone()));
        }
        if self.goals.is_empty() {
            return Err(I::NoGoal);
        }
        if let Some(name) = twice(self.goals.iter().map(|goal| &goal.name)) {
            return Err(I::GoalTwice(name));
        }
        if let Some(goal) = self.goals.iter().find(|goal| matches!(goal.kind, GoalKind::Mean { cap: Some(cap) } if !cap.is_finite())) {
            return Err(I::Cap(goal.name.clone()));
        }
        if self.alpha > 0.0 && self.alpha < 1.0 { Ok(()) } else { Err(I::Alpha(self.alpha)) }
    }

    /// The variant's number, by which it is counted.
    pub fn number(&self, variant: &str) -> Option<usize> {
        self.variants.iter().position(|it| it.name == variant)
    }

    /// Comparisons that share alpha: each variant with the control, for each goal (Bonferroni).
    pub fn comparisons(&self) -> usize {
        self.goals.len() * self.variants.len().saturating_sub(1)
    }
}

impl Goal {
    pub(super) fn capped(&self, value: f64) -> f64 {
        match self.kind {
            GoalKind::Mean { cap: Some(cap) } => value.min(cap),
            GoalKind::Conversion | GoalKind::Mean { cap: None } => value,
        }
    }
}

fn twice<'a>(names: impl Iterator<Item = &'a String>) -> Option<String> {
    let mut seen = std::collections::BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(*name)).cloned()
}
