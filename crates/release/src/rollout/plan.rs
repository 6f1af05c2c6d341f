//! What a rollout is told beforehand. **Invariant**: a plan that exists can be judged: its steps rise, and it has a criterion.

use model::{WEIGHT_SUM, Weight};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The judge has so many counter sets.
pub const CRITERIA_MAX: usize = 7;

/// Fixed before the rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub steps: Steps,
    pub criteria: Criteria,
    /// A step lasts at least so long, in seconds, counted from when every evaluator had its weight.
    pub every_s: u64,
    /// A step without a decision for so long has expired; what follows then, the judge says.
    pub max_step_s: u64,
}

/// Weights in parts per 10,000, rising. Behind the last one comes everybody, whether 10,000 is written down or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Weight>", into = "Vec<Weight>")]
pub struct Steps(Vec<Weight>);

/// Names of the metrics that users are compared by; at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Criteria(Vec<String>);

/// Why this cannot be rolled out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidPlan {
    #[error("a rollout has at least one step below 100 %: --steps 1,5,20,100")]
    NoSteps,
    #[error("a step lies between 0.01 % and 100 %, not at {}", percent(*.0))]
    OutOfRange(Weight),
    #[error("steps rise, so that nobody loses the feature: {} does not lie above {}", percent(.0[1]), percent(.0[0]))]
    NotRising([Weight; 2]),
    #[error("a rollout without criteria would only wait and raise: name at least one metric, such as --criteria errors")]
    NoCriteria,
    #[error("a rollout is judged by at most {CRITERIA_MAX} criteria, not by {0}")]
    TooManyCriteria(usize),
    #[error("criterion `{0}` is named twice")]
    CriterionTwice(String),
}

impl Steps {
    /// # Errors
    /// None below 100 %, out of range, or not rising.
    pub fn new(weights: Vec<Weight>) -> Result<Self, InvalidPlan> {
        if let Some(weight) = weights.iter().find(|weight| !(1..=WEIGHT_SUM).contains(*weight)) {
            return Err(InvalidPlan::OutOfRange(*weight));
        }
        if let Some(pair) = weights.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(InvalidPlan::NotRising([pair[0], pair[1]]));
        }
        if weights.first().is_none_or(|first| *first == WEIGHT_SUM) {
            return Err(InvalidPlan::NoSteps);
        }
        Ok(Self(weights))
    }

    /// Of a step, counted from 0; everybody behind the last one.
    pub fn weight(&self, step: usize) -> Weight {
        self.0.get(step).copied().unwrap_or(WEIGHT_SUM)
    }

    pub fn weights(&self) -> &[Weight] {
        &self.0
    }
}

impl Criteria {
    /// # Errors
    /// None, too many, or one twice.
    pub fn new(names: Vec<String>) -> Result<Self, InvalidPlan> {
        if names.is_empty() {
            return Err(InvalidPlan::NoCriteria);
        }
        if names.len() > CRITERIA_MAX {
            return Err(InvalidPlan::TooManyCriteria(names.len()));
        }
        match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            Some((_, name)) => Err(InvalidPlan::CriterionTwice(name.clone())),
            None => Ok(Self(names)),
        }
    }

    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<Vec<Weight>> for Steps {
    type Error = InvalidPlan;

    fn try_from(weights: Vec<Weight>) -> Result<Self, InvalidPlan> {
        Self::new(weights)
    }
}

impl TryFrom<Vec<String>> for Criteria {
    type Error = InvalidPlan;

    fn try_from(names: Vec<String>) -> Result<Self, InvalidPlan> {
        Self::new(names)
    }
}

impl From<Steps> for Vec<Weight> {
    fn from(steps: Steps) -> Self {
        steps.0
    }
}

impl From<Criteria> for Vec<String> {
    fn from(criteria: Criteria) -> Self {
        criteria.0
    }
}

/// `0.5 %` of 50.
pub(super) fn percent(weight: Weight) -> String {
    format!("{} %", f64::from(weight) / 100.0)
}
