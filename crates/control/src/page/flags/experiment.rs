//! An experiment: per goal its variants with their intervals, and what follows from comparing them.

use askama::Template;

use super::one::About;
use super::record::{Button, Confirm, Confirms};
use super::seen::{GoalReport, Interval, Report, Trial, VariantReport};
use crate::page::account::{Badge, badge, sentence};
use crate::page::{part, words};

/// Room for the ends of an interval, in percent of the width.
const EDGE: f64 = 2.0;

#[derive(Template)]
#[template(path = "part/flag_experiment.html")]
struct Experiment {
    heading: String,
    badge: Badge,
    shares: String,
    /// Class, and the text as HTML.
    notes: Vec<(&'static str, String)>,
    goals: Vec<Goal>,
    foot: String,
    buttons: Vec<Button>,
}

struct Goal {
    name: String,
    aim: String,
    variants: Vec<Variant>,
    /// The text as HTML.
    comparisons: Vec<(Badge, String)>,
    note: String,
}

struct Variant {
    name: String,
    users: String,
    value: String,
    interval: String,
    label: String,
    bar: Option<Bar>,
}

/// In percent of the width.
struct Bar {
    low: String,
    width: String,
    value: String,
}

pub(super) fn shown(trial: &Trial, about: &About<'_>, confirms: &mut Confirms) -> String {
    let badge = match &trial.ended {
        Some(ended) => badge("", "off", format!("ended, everybody gets {}", ended.keep)),
        None => badge("run", "run", "experiment"),
    };
    let share = |(variant, share): &(String, u32)| format!("{variant}\u{a0}{}", words::weight(*share));
    let nothing = Report::default();
    let report = trial.report.as_ref().unwrap_or(&nothing);
    let mut notes = Vec::new();
    if !report.ratio.sentence.is_empty() {
        notes.push((if report.ratio.is_mismatched { "bad" } else { "" }, words::marked(&sentence(&report.ratio.sentence))));
    }
    if trial.is_full {
        notes.push(("warn", "As many users are counted as can be: nobody new is.".to_owned()));
    }
    if report.excluded > 0 {
        notes.push(("", format!("{} who saw two variants left out.", words::counted(report.excluded, "user"))));
    }
    let ended = trial.ended.as_ref().map(|it| format!(", ended {}", words::when(it.at_ms, about.now_ms))).unwrap_or_default();
    let window = words::span(trial.window_ms / 1_000);
    let foot = format!(
        "A user counts for {window} after its first exposure; {} not had that time yet. Each interval is wrong, ever, with at most {:.1}\u{a0}%.",
        match trial.waiting {
            1 => "1\u{a0}user has".to_owned(),
            count => format!("{}\u{a0}users have", words::count(count)),
        },
        report.level * 100.0
    );
    part(&Experiment {
        heading: format!("Experiment, since {}{ended}", words::when(trial.begun_ms, about.now_ms)),
        badge,
        shares: trial.shares.iter().map(share).collect::<Vec<_>>().join(", "),
        notes,
        goals: report.goals.iter().map(goal).collect(),
        foot,
        buttons: if trial.ended.is_some() { Vec::new() } else { buttons(trial, about, confirms) },
    })
}

fn goal(report: &GoalReport) -> Goal {
    let is_share = report.goal.kind == "conversion";
    let cap = report.goal.kind["mean"]["cap"].as_f64().map(|cap| format!(", larger values count as {cap}")).unwrap_or_default();
    let what = if is_share { "share of users" } else { "mean per user" };
    let aim = format!("{what}{cap}; {} is better", report.goal.better);
    let scale = scale(&report.variants);
    let comparisons = report.comparisons.iter().map(|it| {
        let badge = match it.verdict.as_str() {
            "winner" => badge("good", "ok", "better"),
            "worse" => badge("bad", "bad", "worse"),
            "ratio_mismatch" => badge("warn", "warn", "split off"),
            _ => badge("", "hold", "not known yet"),
        };
        (badge, words::marked(&it.sentence))
    });
    Goal {
        name: report.goal.name.clone(),
        aim,
        variants: report.variants.iter().map(|it| variant(it, is_share, scale)).collect(),
        comparisons: comparisons.collect(),
        note: report.note.clone(),
    }
}

/// The smallest and the largest number there is to draw.
fn scale(variants: &[VariantReport]) -> Option<(f64, f64)> {
    let ends = |it: &VariantReport| {
        let interval = it.interval.as_ref();
        [it.value, interval.and_then(|it| it.low), interval.and_then(|it| it.high)]
    };
    let all: Vec<f64> = variants.iter().flat_map(ends).flatten().filter(|it| it.is_finite()).collect();
    let (low, high) = (all.iter().copied().reduce(f64::min)?, all.iter().copied().reduce(f64::max)?);
    (high > low).then_some((low, high))
}

fn variant(it: &VariantReport, is_share: bool, scale: Option<(f64, f64)>) -> Variant {
    let number = |value: f64| if is_share { words::share(Some(value)) } else { format!("{value:.4}") };
    let value = it.value.map_or("–".to_owned(), number);
    let interval = match &it.interval {
        Some(Interval { low: Some(low), high: Some(high) }) => format!("{} to {}", number(*low), number(*high)),
        Some(Interval { low: Some(low), high: None }) => format!("at least {}", number(*low)),
        Some(Interval { low: None, high: Some(high) }) => format!("at most {}", number(*high)),
        _ => "too few users".to_owned(),
    };
    let bar = scale.zip(it.interval.as_ref()).map(|((low, high), interval)| {
        let place = |value: f64| EDGE + (value - low) / (high - low) * (100.0 - 2.0 * EDGE);
        let (from, to) = (interval.low.map_or(0.0, place), interval.high.map_or(100.0, place));
        Bar { low: format!("{from:.1}"), width: format!("{:.1}", to - from), value: format!("{:.1}", it.value.map_or(from, place)) }
    });
    Variant {
        label: format!("{}: {value}, {interval}", it.variant),
        name: it.variant.clone(),
        users: words::count(it.users),
        value,
        interval,
        bar,
    }
}

fn buttons(trial: &Trial, about: &About<'_>, confirms: &mut Confirms) -> Vec<Button> {
    let (key, place) = (about.key, about.environment);
    let of = |(number, (variant, _)): (usize, &(String, u32))| {
        let mut fields = about.fields("end", true);
        fields.push(("keep", variant.clone()));
        let confirm = Confirm {
            id: format!("confirm-keep-{}-{number}", about.index),
            question: format!("End the experiment of {key} in {place}, and give everybody {variant}?"),
            says: vec![("What happens", "Nobody new is counted. What is known stays.".to_owned())],
            fields,
            class: "primary",
            button: format!("Keep {variant}"),
            command: about.command("end", &format!(" --keep {}", super::typed(variant))),
            has_why: true,
        };
        confirms.button(format!("End, keep {variant}"), "", confirm)
    };
    trial.shares.iter().enumerate().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_drawn_on_one_scale_and_open_ends_reach_the_edge() {
        let report = |value, low, high| VariantReport {
            variant: "blue".to_owned(),
            users: 1_000,
            value: Some(value),
            interval: Some(Interval { low, high }),
        };
        let all = [report(0.2, Some(0.1), Some(0.3)), report(0.4, Some(0.3), None)];
        let scale = scale(&all);
        assert_eq!(scale, Some((0.1, 0.4)));
        let bar = |it: &VariantReport| variant(it, true, scale).bar.map(|bar| (bar.low, bar.width, bar.value));
        assert_eq!(bar(&all[0]), Some(("2.0".to_owned(), "64.0".to_owned(), "34.0".to_owned())));
        assert_eq!(bar(&all[1]), Some(("66.0".to_owned(), "34.0".to_owned(), "98.0".to_owned())));
        assert_eq!(goal(&GoalReport::default()).variants.len(), 0);
        assert_eq!(super::scale(&[report(0.2, None, None)]), None);
    }
}
