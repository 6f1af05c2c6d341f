//! The sentences of a report.

use super::design::{Goal, GoalKind, VariantShare};
use super::means::{MEANS_NONZERO_MIN, MEANS_USERS_MIN};
use super::report::{Interval, Verdict};

pub(super) fn ratio(variants: &[VariantShare], exposed: &[u64], p_value: f64, is_mismatched: bool) -> String {
    let (all, meant): (u64, u64) = (exposed.iter().sum(), variants.iter().map(|variant| u64::from(variant.share)).sum());
    let percents = |parts: &mut dyn Iterator<Item = u64>, of: u64| {
        parts.map(|part| format!("{:.2}", 100.0 * part as f64 / of.max(1) as f64)).collect::<Vec<_>>().join(" / ")
    };
    let seen = percents(&mut exposed.iter().copied(), all);
    let wanted = percents(&mut variants.iter().map(|variant| u64::from(variant.share)), meant);
    if all == 0 {
        return "nobody was exposed yet".to_owned();
    }
    if !is_mismatched {
        return format!("users split {seen} %, and {wanted} % was meant: that is chance");
    }
    format!(
        "users split {seen} %, and {wanted} % was meant: by chance that happens in {} of experiments, so something loses users \
        of one variant, and no winner is named",
        if p_value < 1e-6 { "less than one in a million".to_owned() } else { format!("{:.3} %", p_value * 100.0) }
    )
}

pub(super) fn note(goal: &Goal) -> String {
    match goal.kind {
        GoalKind::Conversion => "exact at every look, for any number of users".to_owned(),
        GoalKind::Mean { cap } => {
            let capped = cap.map(|cap| format!("; values above {cap} count as {cap}")).unwrap_or_default();
            format!("valid at every look from {MEANS_USERS_MIN} users a variant on, approximately{capped}")
        }
    }
}

/// `[variant, control]`.
pub(super) fn comparison(goal: &Goal, [variant, control]: [&str; 2], verdict: Verdict, difference: Option<Interval>) -> String {
    let name = &goal.name;
    let Some(Interval { low: Some(low), high: Some(high) }) = difference else {
        return format!(
            "too few users: `{name}` needs {MEANS_USERS_MIN} users and {MEANS_NONZERO_MIN} values other than 0 in `{variant}` and `{control}`"
        );
    };
    let scale = if goal.kind.is_conversion() { 100.0 } else { 1.0 };
    let (low, high) = (scale * low, scale * high);
    match verdict {
        Verdict::RatioMismatch => {
            format!("no winner between `{variant}` and `{control}`: users are not split as they were meant to be")
        }
        Verdict::NoDifferenceYet => {
            let range = range(low, high);
            let unit = if goal.kind.is_conversion() { " points" } else { "" };
            format!("no difference in `{name}` yet between `{variant}` and `{control}`: {range}{unit}")
        }
        Verdict::Winner | Verdict::Worse => {
            let is_higher = low > 0.0;
            let range = if is_higher { range(low, high) } else { range(-high, -low) };
            let is_better = verdict == Verdict::Winner;
            match (goal.kind.is_conversion(), is_higher == is_better) {
                // Higher is better: one word says both.
                (true, true) => {
                    let how = if is_better { "better" } else { "worse" };
                    format!("`{variant}` converts {range} points {how} than `{control}` (`{name}`)")
                }
                (true, false) => {
                    let (how, so) = if is_higher { ("more", "worse") } else { ("less", "better") };
                    format!("`{variant}` has {range} points {how} `{name}` than `{control}`, which is {so}")
                }
                (false, _) => {
                    let how = if is_higher { "higher" } else { "lower" };
                    let so = if is_better { "better" } else { "worse" };
                    format!("`{name}` of `{variant}` is {range} {how} than of `{control}`, which is {so}")
                }
            }
        }
    }
}

/// Both ends with as many digits as their distance deserves: two that count.
fn range(low: f64, high: f64) -> String {
    let width = high - low;
    let digits = if width > 0.0 { (1.0 - width.log10().floor()).clamp(0.0, 9.0) as usize } else { 2 };
    format!("{low:.digits$} to {high:.digits$}")
}
