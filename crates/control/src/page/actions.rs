//! What can be done about a release now, and what is said before it is done. A button that cannot act says why.

use super::account::{name, rollback_takes, sentence, stable};
use super::acting::Action;
use super::seen::{Release, Service};
use super::words::{self, marked};

pub(crate) struct Button {
    /// Of its confirmation.
    pub(crate) id: &'static str,
    pub(crate) class: &'static str,
    pub(crate) text: String,
    pub(crate) why_not: Option<String>,
}

/// An action that is not for every day.
pub(crate) struct Choice {
    pub(crate) what: String,
    pub(crate) about: String,
    pub(crate) button: Button,
}

/// Step two of an action.
pub(crate) struct Confirm {
    pub(crate) id: &'static str,
    pub(crate) action: &'static str,
    pub(crate) expect: String,
    pub(crate) to: Option<String>,
    pub(crate) question: String,
    pub(crate) says: Vec<(&'static str, String)>,
    /// The first answer is what is not known yet: it is kept up to date.
    pub(crate) unknown: bool,
    pub(crate) why_needed: Option<&'static str>,
    pub(crate) keep: &'static str,
    pub(crate) button: String,
    pub(crate) pending: &'static str,
    pub(crate) class: &'static str,
    pub(crate) command: String,
}

#[derive(Default)]
pub(crate) struct Actions {
    pub(crate) buttons: Vec<Button>,
    pub(crate) choices: Vec<Choice>,
    pub(crate) confirms: Vec<Confirm>,
}

/// What is offered for the release that `service` has now.
pub(crate) fn of(service: &Service, may_act: bool) -> Actions {
    let mut actions = Actions::default();
    let not = |_: Action| (!may_act).then(|| "this token has the scope read".to_owned());
    if let Some(release) = service.running() {
        running(&mut actions, service, release, &not);
    } else if let Some(release) = &service.release {
        over(&mut actions, service, release, &not);
    }
    if !service.paused.is_null() {
        resume(&mut actions, service, &not);
    }
    actions
}

type Not<'a> = &'a dyn Fn(Action) -> Option<String>;

impl Actions {
    fn offer(&mut self, action: Action, class: &'static str, text: impl Into<String>, not: Not<'_>, confirm: Confirm) {
        let why_not = not(action);
        let button = Button { id: confirm.id, class, text: text.into(), why_not };
        if button.why_not.is_none() {
            self.confirms.push(confirm);
        }
        self.buttons.push(button);
    }

    /// The last one is not for every day.
    fn set_aside(&mut self, what: String, about: String) {
        if let Some(button) = self.buttons.pop() {
            self.choices.push(Choice { what, about, button });
        }
    }
}

fn confirm(action: Action, service: &Service, release: &Release) -> Confirm {
    Confirm {
        id: action.path(),
        action: action.path(),
        expect: release.expectation(),
        to: None,
        question: String::new(),
        says: Vec::new(),
        unknown: false,
        why_needed: None,
        keep: "Change nothing",
        button: String::new(),
        pending: "One moment …",
        class: "primary",
        command: format!("changeover {} {}", action.path(), service.service),
    }
}

fn running(actions: &mut Actions, service: &Service, release: &Release, not: Not<'_>) {
    let (name, candidate, stable) = (&service.service, &release.candidate, stable(release));
    if ["returning", "retiring"].contains(&release.state.as_str()) {
        return;
    }
    actions.offer(Action::Abort, "danger", "Abort", not, abort(service, release));
    if release.is_canary() && release.weight.is_some_and(|weight| weight > 0) {
        let weight = words::weight(release.candidate_weight());
        if release.paused.is_some() {
            let says =
                vec![("What happens", format!("The release goes on from {weight}.")), ("What clients notice", "Nothing.".to_owned())];
            let question = format!("Resume the release of {name} {candidate}?");
            let command = format!("changeover resume {name}");
            let confirm = Confirm {
                question,
                says,
                keep: "Stay paused",
                button: "Resume".to_owned(),
                command,
                ..confirm(Action::Unpause, service, release)
            };
            actions.offer(Action::Unpause, "primary", "Resume", not, confirm);
        } else {
            let says = vec![
                (
                    "What happens",
                    format!(
                        "The weight stays at {weight}. Counting goes on, and a regression is still rolled back. Nothing advances until you resume."
                    ),
                ),
                ("What clients notice", "Nothing.".to_owned()),
                ("Can it be undone", "Yes, with Resume. The time limit of this step stands still while paused.".to_owned()),
            ];
            let question = format!("Pause {name} at {weight}?");
            let confirm = Confirm {
                question,
                says,
                keep: "Keep going",
                button: format!("Pause at {weight}"),
                ..confirm(Action::Pause, service, release)
            };
            actions.offer(Action::Pause, "", "Pause", not, confirm);
        }
        promote_canary(actions, service, release, not);
    } else if release.state == "awaiting_promotion" {
        let takes = service.last_switch_us.map_or(String::new(), |us| format!(", in about {}", words::ms(Some(us / 1_000.0))));
        let says = vec![
            ("What happens", marked(&format!("All traffic switches from {stable} to `{candidate}` at once{takes}. {stable} stays hot."))),
            ("What clients notice", "Nothing. Requests under way finish where they are. None is lost.".to_owned()),
            ("Can it be undone", "Yes: while it is watched by itself, and afterwards with a rollback.".to_owned()),
        ];
        let question = format!("Promote {name} {candidate} to all clients?");
        let confirm = Confirm {
            question,
            says,
            keep: "Not yet",
            button: format!("Promote {candidate}"),
            pending: "Promoting …",
            ..confirm(Action::Promote, service, release)
        };
        actions.offer(Action::Promote, "primary", format!("Promote {candidate}"), not, confirm);
    }
    before_stable(actions, service, release, not);
}

fn abort(service: &Service, release: &Release) -> Confirm {
    let (name, candidate, stable) = (&service.service, &release.candidate, stable(release));
    let weight = release.candidate_weight();
    let notice = match (weight, service.rate) {
        (0, _) => "Nothing: no client has it.".to_owned(),
        (weight, Some(rate)) if rate >= 1.0 => {
            let moved = words::rate(Some(rate * f64::from(weight) / 10_000.0));
            format!("About {moved} requests per second move to {}. Requests under way finish. None is lost.", stable.replace('`', ""))
        }
        _ => "Requests under way finish where they are. None is lost.".to_owned(),
    };
    let happens = if weight == 0 {
        format!("`{candidate}` is stopped. {stable} serves on.")
    } else {
        format!("`{candidate}` goes from {} to 0\u{a0}% within 100\u{a0}ms. {stable} serves everyone.", words::weight(weight))
    };
    let says = vec![
        ("What happens", marked(&happens)),
        ("What clients notice", notice),
        ("Can it be undone", marked("Yes: `retry` starts the release again.")),
    ];
    Confirm {
        question: format!("Abort {name} {candidate}?"),
        says,
        keep: "Keep it running",
        button: format!("Abort {candidate}"),
        pending: "Aborting …",
        class: "danger fill",
        ..confirm(Action::Abort, service, release)
    }
}

fn promote_canary(actions: &mut Actions, service: &Service, release: &Release, not: Not<'_>) {
    let (service_name, candidate) = (&service.service, &release.candidate);
    let open: Vec<String> = release
        .analysis
        .iter()
        .flat_map(|it| &it.metrics)
        .filter(|it| it.state != "fine" && it.state != "dry_run")
        .map(|it| format!("{}: {}", name(it), sentence(&it.sentence)))
        .collect();
    let unknown = if open.is_empty() { "Nothing that is measured here; only time is missing.".to_owned() } else { open.join(" ") };
    let says = |happens: String| {
        let moved = "Then nothing is done, and the page says so.".to_owned();
        vec![("What is not known yet", marked(&unknown)), ("What happens", marked(&happens)), ("If the step has moved on", moved)]
    };
    let next = release.step.and_then(|step| release.steps.get(step + 1));
    let Some(next) = next else { return };
    let to = words::weight(next.weight);
    let why_needed = (!open.is_empty()).then_some("this skips evidence");
    let rate = |weight: u32| service.rate.map(|rate| words::rate(Some(rate * f64::from(weight) / 10_000.0)));
    let load = match (rate(next.weight), rate(release.candidate_weight())) {
        (Some(more), Some(now)) => {
            format!("`{candidate}` gets about {more} requests per second instead of {now}. A regression is still rolled back by itself.")
        }
        _ => format!("`{candidate}` gets {to}. A regression is still rolled back by itself."),
    };
    let promote = Confirm {
        question: format!("Promote {service_name} {candidate} to {to} now?"),
        says: says(load),
        unknown: true,
        why_needed,
        keep: "Wait for the evidence",
        button: format!("Promote to {to}"),
        pending: "Promoting …",
        ..confirm(Action::Promote, service, release)
    };
    let primary = if release.waits.is_some() { "primary" } else { "" };
    actions.offer(Action::Promote, primary, format!("Promote to {to}"), not, promote);
    if next.weight >= 10_000 {
        return;
    }
    let full = Confirm {
        question: format!("Promote {service_name} {candidate} to 100\u{a0}% now?"),
        says: says(format!("`{candidate}` serves everyone. {} stays hot; guard rails still roll back.", stable(release))),
        unknown: true,
        why_needed: Some("this skips evidence"),
        keep: "Wait for the evidence",
        button: "Promote to 100\u{a0}%".to_owned(),
        pending: "Promoting …",
        class: "danger fill",
        command: format!("changeover promote {service_name} --full"),
        ..confirm(Action::PromoteFully, service, release)
    };
    let about = format!("Skips {to}. Guard rails still watch.");
    actions.offer(Action::PromoteFully, "", "Promote fully…", not, full);
    actions.set_aside("Promote to 100\u{a0}%".to_owned(), about);
}

/// During a release a plain rollback is an abort; this is for when stable is bad too.
fn before_stable(actions: &mut Actions, service: &Service, release: &Release, not: Not<'_>) {
    let Some(is_stable) = &release.stable else { return };
    let older = service.confirmed.iter().rev().find(|it| *it != is_stable && **it != release.candidate && !service.rejected.contains(it));
    let Some(older) = older else { return };
    let (name, candidate) = (&service.service, &release.candidate);
    let says = vec![
        (
            "What happens",
            marked(&format!(
                "The release of `{candidate}` is aborted, then `{is_stable}` is replaced by `{older}`. Both newer versions are rejected."
            )),
        ),
        ("When to use it", marked(&format!("When `{is_stable}` is bad too. To get rid of `{candidate}` only, abort is enough."))),
        ("What clients notice", format!("Traffic moves only once {older} is healthy. None is lost.")),
    ];
    let confirm = Confirm {
        question: format!("Roll {name} back to {older}, the version before stable?"),
        says,
        to: Some(older.clone()),
        button: format!("Roll back to {older}"),
        pending: "Rolling back …",
        class: "danger fill",
        command: format!("changeover rollback {name} --to {older}"),
        ..confirm(Action::Rollback, service, release)
    };
    // The engine takes one way back at a time.
    let first_abort = |action: Action| not(action).or_else(|| Some(format!("abort the release of {candidate} first")));
    let about = marked(&format!("Only if `{is_stable}` is bad too. To get rid of `{candidate}`, abort."));
    actions.offer(Action::Rollback, "danger", "Roll back…", &first_abort, confirm);
    actions.set_aside(marked(&format!("Roll back to `{older}`")), about);
}

fn over(actions: &mut Actions, service: &Service, release: &Release, not: Not<'_>) {
    let (name, candidate) = (&service.service, &release.candidate);
    let outcome = release.ending.as_ref().map_or("", |ending| ending.outcome.as_str());
    if ["rolled_back", "aborted", "withdrawn", "failed"].contains(&outcome) {
        let reason = release.ending.as_ref().map_or(String::new(), |ending| sentence(&ending.reason));
        let says = vec![
            ("What is known", marked(&format!("{reason} Nothing about this version has changed since."))),
            ("What happens", "A new release of the same version begins. Migrations that passed do not run again.".to_owned()),
            ("Can it be undone", "Yes, with Abort, at any moment.".to_owned()),
        ];
        let why_needed = (outcome == "rolled_back").then_some("this version was rejected");
        let question = format!("Retry {name} {candidate}?");
        let confirm = Confirm {
            question,
            says,
            why_needed,
            button: format!("Retry {candidate}"),
            pending: "Retrying …",
            ..confirm(Action::Retry, service, release)
        };
        actions.offer(Action::Retry, "", "Retry…", not, confirm);
    }
    let (Some(serves), Some(to)) = (&service.serves, &service.rollback.to) else { return };
    if to == serves {
        return;
    }
    let says = vec![
        ("What happens", marked(&format!("`{to}` serves everyone instead of `{serves}`, which is rejected."))),
        ("How long it takes", marked(&rollback_takes(&service.rollback))),
        ("What clients notice", "Requests under way finish where they are. None is lost.".to_owned()),
    ];
    let confirm = Confirm {
        question: format!("Roll {name} back from {serves} to {to}?"),
        says,
        to: None,
        button: format!("Roll back to {to}"),
        pending: "Rolling back …",
        class: "danger fill",
        ..confirm(Action::Rollback, service, release)
    };
    actions.offer(Action::Rollback, "danger", format!("Roll back to {to}"), not, confirm);
}

fn resume(actions: &mut Actions, service: &Service, not: Not<'_>) {
    let nothing = Release::default();
    let says = vec![
        ("What happens", "Releases are driven again, of all services.".to_owned()),
        ("Why they were paused", "The worker crashed several times in a row; see the output of changeover up.".to_owned()),
    ];
    let confirm = Confirm {
        question: "Let releases go on?".to_owned(),
        says,
        keep: "Stay paused",
        button: "Resume releases".to_owned(),
        command: "changeover resume".to_owned(),
        ..confirm(Action::Resume, service, service.release.as_ref().unwrap_or(&nothing))
    };
    actions.offer(Action::Resume, "primary", "Resume releases", not, confirm);
}
