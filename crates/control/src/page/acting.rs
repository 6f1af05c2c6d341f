//! Doing what a form asks: only as its reader saw it, only from our own form.

use std::time::Instant;

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use engine::{Command, Rejected};
use model::ServiceName;
use serde::Deserialize;

use super::seen::{Service, Status};
use super::{House, refused, words};
use crate::answers::{Filled, Segments, rejected};
use crate::caller::Caller;
use crate::sessions::Note;
use crate::verbs::{service as service_name, version};

/// A thought, not an essay: the history shows it in a line.
const WHY_CHARS_MAX: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Promote,
    PromoteFully,
    Pause,
    /// Of a pause.
    Unpause,
    Abort,
    Rollback,
    Retry,
    /// Of all releases, after crashes in a row.
    Resume,
}

const PATHS: &[(Action, &str)] = &[
    (Action::Promote, "promote"),
    (Action::PromoteFully, "promote-fully"),
    (Action::Pause, "pause"),
    (Action::Unpause, "unpause"),
    (Action::Abort, "abort"),
    (Action::Rollback, "rollback"),
    (Action::Retry, "retry"),
    (Action::Resume, "resume"),
];

impl Action {
    pub(crate) fn path(self) -> &'static str {
        PATHS.iter().find(|(action, _)| *action == self).map_or("", |(_, path)| path)
    }
}

#[derive(Deserialize)]
pub(crate) struct Form {
    form_token: String,
    /// Release, state and step that the reader saw.
    #[serde(default)]
    expect: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    to: Option<String>,
}

/// What the engine is asked. `step` is the one that the reader saw: the engine compares once more.
fn command(
    action: Action,
    service: ServiceName,
    who: String,
    why: Option<String>,
    to: Option<&str>,
    step: Option<usize>,
) -> Result<Command, Rejected> {
    Ok(match action {
        Action::Promote => Command::Promote { service, who, full: false, step, why },
        Action::PromoteFully => Command::Promote { service, who, full: true, step, why },
        Action::Pause => Command::Pause { service, who, why },
        Action::Unpause => Command::Unpause { service, who },
        Action::Abort => {
            let reason = why.map(|why| format!("aborted by {who}: {why}"));
            Command::Abort { service, force: false, who, reason }
        }
        Action::Rollback => Command::Rollback { service, to: to.map(version).transpose()?, force: false, who },
        Action::Retry => Command::Retry { service, who },
        Action::Resume => Command::Resume { who },
    })
}

pub(crate) async fn act(
    State(house): State<House>,
    caller: Caller,
    Segments((name, action)): Segments<(String, String)>,
    Filled(form): Filled<Form>,
) -> Response {
    let Some((action, _)) = PATHS.iter().find(|(_, path)| *path == action) else {
        return refused(&rejected("not_found", format!("there is no action `{action}`"), None));
    };
    let Some(visit) = caller.visit().filter(|visit| visit.is_ours(&form.form_token)) else {
        let hint = "act on the page itself; programs use /v1";
        return refused(&rejected("forbidden", "this form is not from your session; nothing was done", Some(hint)));
    };
    let note = match carry_out(&house, &caller, *action, &name, form).await {
        Ok(text) => Note { done: true, text },
        Err(rejected) if rejected.code == "not_found" => return refused(&rejected),
        Err(rejected) => {
            let hint = rejected.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            Note { done: false, text: format!("Nothing was done: {}{hint}", rejected.message) }
        }
    };
    // The page that comes next shows what was done.
    house.observer.look(&house.room.counter.engine, false).await;
    visit.leave_note(note);
    Redirect::to(&format!("/services/{}", super::query_value(&name))).into_response()
}

/// As the history keeps it; none when nothing was written.
pub(crate) fn why(written: &str) -> Option<String> {
    let line = written.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(line.chars().filter(|c| !c.is_control()).take(WHY_CHARS_MAX).collect()).filter(|why: &String| !why.is_empty())
}

async fn carry_out(house: &House, caller: &Caller, action: Action, name: &str, form: Form) -> Result<String, Rejected> {
    let engine = &house.room.counter.engine;
    let id = service_name(name)?;
    let now = Status::read(&engine.ask(Command::Status).await?);
    let service = now.service(name).ok_or_else(|| rejected("not_found", format!("there is no service `{name}`"), None))?;
    let is = service.release.as_ref().map_or(String::new(), |release| release.expectation());
    if form.expect != is && action != Action::Resume {
        return Err(rejected("conflict", format!("the release moved on while you were deciding{}", moved_to(service)), None));
    }
    let why = why(&form.why);
    let to = form.to.as_deref().filter(|to| !to.is_empty());
    // People count from 1.
    let step = service.release.as_ref().and_then(|release| release.step).map(|step| step + 1);
    let began = Instant::now();
    let answer = engine.ask(command(action, id, caller.who(None), why, to, step)?).await?;
    let took = words::ms(Some(began.elapsed().as_secs_f64() * 1_000.0));
    let serves = answer["to"].as_str().map(|to| format!(" {to} serves everyone.")).unwrap_or_default();
    Ok(match action {
        Action::Abort => format!("Aborted in {took}.{serves}"),
        Action::Rollback if answer["hot"] == true => format!("Rolled back in {took}.{serves}"),
        Action::Rollback => "The rollback began: the version must start first.".to_owned(),
        Action::Promote | Action::PromoteFully => format!("Promoted in {took}."),
        Action::Retry => format!("Release {} began.", answer["release"]),
        Action::Resume => "Releases go on.".to_owned(),
        Action::Pause => "Paused.".to_owned(),
        Action::Unpause => "It goes on.".to_owned(),
    })
}

fn moved_to(service: &Service) -> String {
    let Some(release) = &service.release else { return String::new() };
    match &release.ending {
        Some(ending) => format!(": it is {}", ending.outcome.replace('_', " ")),
        None if release.is_canary() => format!(": it is at {}", words::weight(release.candidate_weight())),
        None => format!(": it is {}", release.state.replace('_', " ")),
    }
}
