//! Doing what a form asks of flags: only from our own form, and only as its reader saw it.
//!
//! **Invariant**: what takes something back (off, pause, an end that keeps what was) is never refused because something else moved on.

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use engine::Rejected;
use flag_engine::{Action, Question, Request};
use serde::Deserialize;
use serde_json::Value;

use super::seen::{History, read};
use super::{Filter, Place, ask};
use crate::answers::{Filled, rejected};
use crate::caller::Caller;
use crate::page::acting::why;
use crate::page::{House, refused};
use crate::sessions::Note;

#[derive(Deserialize)]
pub(super) struct Form {
    form_token: String,
    action: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    environment: Option<String>,
    /// Of a proposal or a change.
    #[serde(default)]
    number: u64,
    /// What was changed later is lost.
    #[serde(default)]
    force: bool,
    /// Everybody gets this variant.
    #[serde(default)]
    keep: Option<String>,
    /// The newest change that the reader saw.
    #[serde(default)]
    expect: Option<u64>,
    #[serde(default)]
    why: String,
}

enum Wanted {
    Write(Action),
    Decide { agree: bool },
}

fn wanted(form: &Form) -> Option<Wanted> {
    let key = form.key.clone();
    Some(Wanted::Write(match form.action.as_str() {
        "on" => Action::On { key },
        "off" => Action::Off { key },
        "pause" => Action::Pause { key },
        "resume" => Action::Resume { key },
        "end" => Action::End { key, keep: form.keep.clone().filter(|keep| !keep.is_empty()) },
        "revert" => Action::Revert { change: form.number, force: form.force },
        "approve" => return Some(Wanted::Decide { agree: true }),
        "reject" => return Some(Wanted::Decide { agree: false }),
        _ => return None,
    }))
}

pub(super) async fn act(State(house): State<House>, caller: Caller, Filled(form): Filled<Form>) -> Response {
    let Some(wanted) = wanted(&form) else {
        return refused(&rejected("not_found", format!("there is no action `{}`", form.action), None));
    };
    let Some(visit) = caller.visit().filter(|visit| visit.is_ours(&form.form_token)) else {
        let hint = "act on the page itself; programs use /v1";
        return refused(&rejected("forbidden", "this form is not from your session; nothing was done", Some(hint)));
    };
    let place = if form.key.is_empty() { Place::All(Filter::default()) } else { Place::One(form.key.clone()) };
    let note = match carry_out(&house, &caller, wanted, form).await {
        Ok(text) => Note { done: true, text },
        Err(rejected) if rejected.code == "not_found" => return refused(&rejected),
        Err(rejected) => {
            let hint = rejected.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            Note { done: false, text: format!("Nothing was done: {}{hint}", rejected.message) }
        }
    };
    visit.leave_note(note);
    Redirect::to(&place.href()).into_response()
}

async fn carry_out(house: &House, caller: &Caller, wanted: Wanted, form: Form) -> Result<String, Rejected> {
    let flags = crate::flags::handle(&house.room)?;
    let action = match wanted {
        Wanted::Decide { agree } => return Ok(told(&flags.decide(form.number, agree, caller.person()).await?)),
        Wanted::Write(action) => action,
    };
    if !action.needs_no_second() {
        let newest: History = read(ask(house, Question::History { key: Some(form.key.clone()), limit: 1 }).await?);
        let newest = newest.changes.first();
        if form.expect != Some(newest.map_or(0, |it| it.number)) {
            let since = newest.map(|it| format!(": {} ({})", it.said, it.who)).unwrap_or_default();
            return Err(rejected("conflict", format!("the flag was changed while you were deciding{since}"), None));
        }
    }
    let request = Request {
        who: caller.person(),
        why: why(&form.why),
        environment: form.environment.filter(|it| !it.is_empty()),
        bound_to: None,
        action,
    };
    Ok(told(&flags.write(request).await?))
}

fn told(answer: &Value) -> String {
    let mut text = answer["said"].as_str().unwrap_or("done").to_owned();
    for warning in answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        text.push_str(&format!("; warning: {warning}"));
    }
    match answer["waits"].as_str() {
        Some(waits) => format!("{text}. {waits}"),
        None => text,
    }
}
