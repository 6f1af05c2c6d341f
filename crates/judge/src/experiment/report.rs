//! What an experiment shows at one look: estimates, intervals, a verdict per comparison, and a sentence for each.

use serde::{Deserialize, Serialize};

use super::design::{Better, Goal};
use super::means::{difference_of_means, mean_interval};
use super::proportions::{Pair, difference_of_proportions, proportion_interval, ratio_of_proportions};
use super::{ALPHA_RATIO, Experiment, GoalKind, RATIO_STRENGTH, Values, words};
use crate::split::ln_ratio_evidence;

/// An end that is absent lies at infinity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: Option<f64>,
    pub high: Option<f64>,
}

/// Everything that was found so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub control: String,
    /// Of one false verdict in the whole experiment.
    pub alpha: f64,
    /// So many comparisons share alpha (Bonferroni) …
    pub comparisons: u64,
    /// … so that every interval here is false, ever, with at most this probability.
    pub level: f64,
    /// Users who saw two variants, and are left out.
    pub excluded: u64,
    pub ratio: RatioCheck,
    pub goals: Vec<GoalReport>,
}

/// Whether users are split as the shares say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RatioCheck {
    /// Per variant, in the design's order.
    pub shares: Vec<u32>,
    pub exposed: Vec<u64>,
    /// Valid whenever it is looked at: the smallest so far.
    pub p_value: f64,
    /// Below 0.001: no winner is named any more.
    pub is_mismatched: bool,
    pub sentence: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoalReport {
    pub goal: Goal,
    pub variants: Vec<VariantReport>,
    /// Each other variant with the control.
    pub comparisons: Vec<Comparison>,
    /// How the numbers are meant.
    pub note: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantReport {
    pub variant: String,
    pub exposed: u64,
    /// Of these, those whose time is over; all numbers are of them.
    pub users: u64,
    /// The share that converted, 0 to 1, or the mean; absent without users.
    pub value: Option<f64>,
    /// Absent before there are enough users.
    pub interval: Option<Interval>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub variant: String,
    /// Variant − control; absent without users.
    pub difference: Option<f64>,
    pub difference_interval: Option<Interval>,
    /// Variant / control − 1; absent where the control's value may be 0.
    pub lift: Option<f64>,
    pub lift_interval: Option<Interval>,
    pub verdict: Verdict,
    pub sentence: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Better than the control.
    Winner,
    Worse,
    NoDifferenceYet,
    /// Users are not split as they were meant to be, so that variants may differ for that reason alone.
    RatioMismatch,
}

impl Experiment {
    /// Looks at all that was counted. Looking often is free; the split check remembers the worst that it saw.
    pub fn look(&mut self) -> Report {
        let arms: Vec<(u32, u64)> = self.design.variants.iter().map(|it| it.share).zip(self.exposed.iter().copied()).collect();
        self.ln_ratio_max = self.ln_ratio_max.max(ln_ratio_evidence(&arms, RATIO_STRENGTH));
        let p_value = (-self.ln_ratio_max).exp().min(1.0);
        let is_mismatched = p_value < ALPHA_RATIO;
        let ratio = RatioCheck {
            sentence: words::ratio(&self.design.variants, &self.exposed, p_value, is_mismatched),
            shares: arms.iter().map(|(share, _)| *share).collect(),
            exposed: self.exposed.clone(),
            p_value,
            is_mismatched,
        };
        let comparisons = self.design.comparisons();
        let level = self.design.alpha / comparisons.max(1) as f64;
        let goals = (0..self.design.goals.len()).map(|goal| self.goal(goal, level, is_mismatched)).collect();
        let control = self.design.control.clone();
        Report { control, alpha: self.design.alpha, comparisons: comparisons as u64, level, excluded: self.excluded, ratio, goals }
    }

    fn goal(&self, number: usize, level: f64, is_mismatched: bool) -> GoalReport {
        let (goal, values, variants) = (&self.design.goals[number], &self.values[number], &self.design.variants);
        let of = |variant: usize| VariantReport {
            variant: variants[variant].name.clone(),
            exposed: self.exposed[variant],
            users: values[variant].users(),
            value: values[variant].value(),
            interval: values[variant].interval(level),
        };
        let control = self.design.number(&self.design.control).unwrap_or(0);
        let others = (0..variants.len()).filter(|variant| *variant != control);
        GoalReport {
            goal: goal.clone(),
            variants: (0..variants.len()).map(of).collect(),
            comparisons: others.map(|variant| self.comparison(goal, [variant, control], values, level, is_mismatched)).collect(),
            note: words::note(goal),
        }
    }

    fn comparison(&self, goal: &Goal, [variant, control]: [usize; 2], values: &[Values], level: f64, is_mismatched: bool) -> Comparison {
        let variants = &self.design.variants;
        let intervals = match (&values[variant], &values[control]) {
            (Values::Conversion(treated), Values::Conversion(of_control)) => {
                let shares = [variant, control].map(|number| variants[number].share);
                let pair = Pair { treated: *treated, control: *of_control, treated_share: shares[0], control_share: shares[1] };
                let ratio = ratio_of_proportions(&pair, level);
                let lift = Interval { low: ratio.low.map(|low| low - 1.0), high: ratio.high.map(|high| high - 1.0) };
                Some((difference_of_proportions(&pair, level), Some(lift)))
            }
            (Values::Mean(treated), Values::Mean(of_control)) => difference_of_means(treated, of_control, level),
            (Values::Conversion(_), Values::Mean(_)) | (Values::Mean(_), Values::Conversion(_)) => None,
        };
        let (difference_interval, lift_interval) = intervals.map_or((None, None), |(difference, lift)| (Some(difference), lift));
        let [value, of_control] = [variant, control].map(|number| values[number].value());
        let difference = value.zip(of_control).map(|(value, of_control)| value - of_control);
        let lift = value.zip(of_control).filter(|(_, of_control)| *of_control > 0.0).map(|(value, of_control)| value / of_control - 1.0);
        let verdict = if is_mismatched { Verdict::RatioMismatch } else { verdict(goal.better, difference_interval) };
        let names = [variant, control].map(|number| variants[number].name.as_str());
        let sentence = words::comparison(goal, names, verdict, difference_interval);
        let lift = lift.filter(|_| lift_interval.is_some());
        Comparison { variant: names[0].to_owned(), difference, difference_interval, lift, lift_interval, verdict, sentence }
    }
}

fn verdict(better: Better, difference: Option<Interval>) -> Verdict {
    let is_above = difference.and_then(|it| it.low).is_some_and(|low| low > 0.0);
    let is_below = difference.and_then(|it| it.high).is_some_and(|high| high < 0.0);
    match better {
        Better::Higher if is_above => Verdict::Winner,
        Better::Lower if is_below => Verdict::Winner,
        Better::Higher if is_below => Verdict::Worse,
        Better::Lower if is_above => Verdict::Worse,
        Better::Higher | Better::Lower => Verdict::NoDifferenceYet,
    }
}

impl Values {
    /// The share that converted, or the mean.
    pub fn value(&self) -> Option<f64> {
        match self {
            Self::Conversion(it) => (it.users > 0).then(|| it.converted as f64 / it.users as f64),
            Self::Mean(sums) => (sums.count > 0).then_some(sums.mean),
        }
    }

    fn interval(&self, level: f64) -> Option<Interval> {
        match self {
            Self::Conversion(converted) => Some(proportion_interval(*converted, level)),
            Self::Mean(sums) => mean_interval(sums, level),
        }
    }
}

impl GoalKind {
    pub(super) fn is_conversion(self) -> bool {
        matches!(self, Self::Conversion)
    }
}
