//! A rollout: its steps, what its judge says, the numbers per criterion, and what a person may do about it.

use askama::Template;

use super::one::About;
use super::record::{Button, Confirm, Confirms};
use super::seen::{Look, Trial};
use crate::page::account::{Badge, badge, sentence};
use crate::page::{part, words};

#[derive(Template)]
#[template(path = "part/flag_rollout.html")]
struct Rollout {
    heading: String,
    badge: Badge,
    /// Class, weight, what is to say of it.
    steps: Vec<(&'static str, String, String)>,
    verdict: Option<Badge>,
    /// As HTML.
    sentence: String,
    bar: Option<Bar>,
    variant: String,
    control: String,
    criteria: Vec<Criterion>,
    buttons: Vec<Button>,
}

/// In percent of the width.
struct Bar {
    label: String,
    back_x: String,
    back: String,
    advance: String,
}

struct Criterion {
    name: String,
    variant: String,
    control: String,
}

pub(super) fn shown(trial: &Trial, about: &About<'_>, confirms: &mut Confirms) -> String {
    let ended = trial.state.get("ended");
    let text = |name: &str| ended.and_then(|it| it[name].as_str()).unwrap_or_default();
    let badge = match (text("outcome"), &trial.paused) {
        ("promoted", _) => badge("good", "ok", "promoted"),
        ("rolled_back", _) => badge("bad", "back", "rolled back"),
        ("", Some(paused)) => badge("warn", "hold", format!("paused by {}", paused.who)),
        ("", None) => badge("run", "run", format!("{} of users", words::weight(trial.weight))),
        (other, _) => badge("", "off", other.replace('_', " ")),
    };
    let look = trial.look.as_ref();
    let said = match (ended, look) {
        (Some(_), _) => text("reason"),
        (None, Some(look)) if !look.sentence.is_empty() => look.sentence.as_str(),
        (None, _) => "nothing was seen yet",
    };
    let buttons = if ended.is_some() { Vec::new() } else { buttons(trial, about, confirms) };
    part(&Rollout {
        heading: format!("Rollout of {}, since {}", trial.variant, words::when(trial.begun_ms, about.now_ms)),
        badge,
        steps: steps(trial),
        verdict: look.filter(|look| ended.is_none() && !look.verdict.is_empty()).map(verdict),
        sentence: words::marked(&sentence(said)),
        bar: look.map(bar),
        variant: trial.variant.clone(),
        control: trial.control.clone(),
        criteria: look.map(criteria).unwrap_or_default(),
        buttons,
    })
}

fn verdict(look: &Look) -> Badge {
    match look.verdict.as_str() {
        "healthy" => badge("good", "ok", "healthy"),
        waits @ ("not yet" | "not measured") => badge("", "hold", waits),
        "regressed" => badge("bad", "bad", "regressed"),
        other => badge("warn", "warn", other),
    }
}

/// None once it is over and was not promoted: how far it came says its history.
fn steps(trial: &Trial) -> Vec<(&'static str, String, String)> {
    let ended = trial.state.get("ended");
    if ended.is_some_and(|it| it["outcome"] != "promoted") {
        return Vec::new();
    }
    let now = if ended.is_some() { trial.steps.len() } else { trial.step.unwrap_or_default() };
    let step = |(index, weight): (usize, &u32)| {
        let (class, time) = match index {
            _ if index < now => ("done", "done".to_owned()),
            _ if index > now => ("todo", String::new()),
            _ if trial.paused.is_some() => ("hold", "paused".to_owned()),
            _ => ("now", format!("now, at least {}", words::span(trial.every_s))),
        };
        (class, words::weight(*weight), time)
    };
    trial.steps.iter().enumerate().map(step).collect()
}

fn bar(look: &Look) -> Bar {
    let part_of = |share: f64| if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let (back, advance) = (part_of(look.evidence_worse), part_of(look.evidence_better));
    Bar {
        label: format!("{:.0} % of the evidence to roll back, {:.0} % of the evidence to advance", back * 100.0, advance * 100.0),
        back_x: format!("{:.1}", 50.0 - back * 50.0),
        back: format!("{:.1}", back * 50.0),
        advance: format!("{:.1}", advance * 50.0),
    }
}

fn criteria(look: &Look) -> Vec<Criterion> {
    let of = |bad: u64, users: u64| {
        let share = (users > 0).then(|| bad as f64 / users as f64);
        format!("{} ({} of {} users)", words::share(share), words::count(bad), words::count(users))
    };
    let criterion = |(name, seen): (&String, &(u64, u64, u64, u64))| {
        let (users, bad, others, others_bad) = *seen;
        Criterion { name: name.clone(), variant: of(bad, users), control: of(others_bad, others) }
    };
    look.seen.iter().map(criterion).collect()
}

fn buttons(trial: &Trial, about: &About<'_>, confirms: &mut Confirms) -> Vec<Button> {
    let (key, place, index) = (about.key, about.environment, about.index);
    let weight = words::weight(trial.weight);
    let pause = if trial.paused.is_some() {
        Confirm {
            id: format!("confirm-resume-{index}"),
            question: format!("Let the rollout of {key} in {place} go on?"),
            says: vec![("What happens", format!("It goes on from {weight} of users, as its judge says."))],
            fields: about.fields("resume", true),
            class: "primary",
            button: "Resume".to_owned(),
            command: about.command("resume", ""),
            has_why: true,
        }
    } else {
        Confirm {
            id: format!("confirm-pause-{index}"),
            question: format!("Pause the rollout of {key} in {place} at {weight} of users?"),
            says: vec![("What happens", "Nobody new gets the variant. What regresses is still taken back.".to_owned())],
            fields: about.fields("pause", false),
            class: "",
            button: "Pause".to_owned(),
            command: about.command("pause", ""),
            has_why: true,
        }
    };
    let end = Confirm {
        id: format!("confirm-end-{index}"),
        question: format!("End the rollout of {key} in {place}?"),
        says: vec![
            ("What happens", format!("Everybody gets {} again.", trial.control)),
            ("How to undo it", "Begin another rollout.".to_owned()),
        ],
        fields: about.fields("end", false),
        class: "danger fill",
        button: "End it".to_owned(),
        command: about.command("end", ""),
        has_why: true,
    };
    let mut fields = about.fields("end", true);
    fields.push(("keep", trial.variant.clone()));
    let promote = Confirm {
        id: format!("confirm-promote-{index}"),
        question: format!("Give {} to everybody in {place} now?", trial.variant),
        says: vec![
            ("What happens", format!("{weight} → 100\u{a0}% of users at once; the steps that are left are skipped.")),
            ("What is not known yet", "How it does with more users: this skips evidence.".to_owned()),
        ],
        fields,
        class: "primary",
        button: "Give it to everybody".to_owned(),
        command: about.command("end", &format!(" --keep {}", super::typed(&trial.variant))),
        has_why: true,
    };
    let text = pause.button.clone();
    let buttons = [
        confirms.button(text, "", pause),
        confirms.button("Take it back", "danger", end),
        confirms.button("Give it to everybody", "", promote),
    ];
    buttons.into_iter().flatten().collect()
}
