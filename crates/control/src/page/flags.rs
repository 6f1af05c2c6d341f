//! Flags on the page: all of them, one of them, and which have had their time.
//!
//! **Invariant**: everything here was asked of the caretaker as the API asks it; keys and the words of people are text, never markup.
//! Not here: who may look or act (guard), what a change does (flag_engine).

mod acting;
mod debt;
mod experiment;
mod list;
mod one;
mod record;
mod rollout;
mod seen;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use engine::Rejected;
use flag_engine::{Life, Question};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Mutex;

use super::account::{Badge, badge};
use super::release::said;
use super::{Frame, House, Reader, html, live, not_yet, part, query_value, refused, words};
use crate::Room;
use crate::answers::Questions;
use crate::caller::Caller;
use seen::{Debt, InEnvironment, List, read};

pub(crate) fn router() -> Router<House> {
    Router::new()
        .route("/flags", get(all))
        .route("/flags/live", get(live_all))
        .route("/flags/flag", get(one_flag))
        .route("/flags/flag/live", get(live_flag))
        .route("/flags/debt", get(all_debt))
        .route("/flags/debt/live", get(live_debt))
        .route("/flags/act", post(acting::act))
}

/// Without flags there is no link to them.
pub(crate) fn are_served(room: &Room) -> bool {
    (room.counter.flags)().is_some()
}

async fn ask(house: &House, question: Question) -> Result<Value, Rejected> {
    crate::flags::handle(&house.room)?.ask(question).await
}

/// When something is looked at; open pages look all at the same time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now_ms: u64,
    pub(crate) is_live: bool,
}

/// What all open pages share: flags by the thousand are asked for once a moment, not once a page, since who answers also switches
/// flags off.
#[derive(Default)]
pub(crate) struct Shared {
    list: Newest<List>,
    debt: Newest<Debt>,
}

/// The moment, and what was answered then.
type Newest<T> = Mutex<(u64, Arc<T>)>;

async fn ask_once<T: DeserializeOwned + Default>(
    house: &House,
    newest: &Newest<T>,
    question: Question,
    at: Moment,
) -> Result<Arc<T>, Rejected> {
    if !at.is_live {
        return Ok(Arc::new(read(ask(house, question).await?)));
    }
    let mut newest = newest.lock().await;
    if newest.0 != at.now_ms {
        *newest = (at.now_ms, Arc::new(read(ask(house, question).await?)));
    }
    Ok(newest.1.clone())
}

/// Which flags are listed: empty is all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Filter {
    /// In the key, the description or the owner.
    #[serde(default)]
    q: String,
    /// A stage, or `expired`.
    #[serde(default)]
    stage: String,
}

impl Filter {
    fn query(&self) -> String {
        if *self == Self::default() { String::new() } else { format!("?q={}&stage={}", query_value(&self.q), query_value(&self.stage)) }
    }
}

/// What of flags is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    All(Filter),
    One(String),
    Debt,
}

impl Place {
    fn href(&self) -> String {
        match self {
            Self::All(filter) => format!("/flags{}", filter.query()),
            Self::One(key) => format!("/flags/flag?key={}", query_value(key)),
            Self::Debt => "/flags/debt".to_owned(),
        }
    }

    fn live(&self) -> String {
        match self {
            Self::All(filter) => format!("/flags/live{}", filter.query()),
            Self::One(key) => format!("/flags/flag/live?key={}", query_value(key)),
            Self::Debt => "/flags/debt/live".to_owned(),
        }
    }

    fn crumbs(&self) -> Vec<(String, String)> {
        let here = match self {
            Self::All(_) => return Vec::new(),
            Self::One(key) => key.clone(),
            Self::Debt => "Debt".to_owned(),
        };
        vec![("/flags".to_owned(), "Flags".to_owned()), (String::new(), here)]
    }

    /// In a terminal.
    fn command(&self) -> String {
        match self {
            Self::All(_) => "changeover flags list --json".to_owned(),
            Self::One(key) => format!("changeover flags show {} --json", typed(key)),
            Self::Debt => "changeover flags debt --json".to_owned(),
        }
    }
}

/// What is shown, in pieces that are kept up to date one by one.
pub(crate) struct View {
    pub(crate) title: String,
    pub(crate) parts: Vec<(&'static str, String)>,
    /// What a form must have seen, so that an open question can say that it is outdated.
    pub(crate) expect: Option<String>,
}

pub(crate) async fn view(house: &House, place: &Place, reader: &Reader, at: Moment) -> Result<View, Rejected> {
    match place {
        Place::All(filter) => list::view(house, filter, reader, at).await,
        Place::One(key) => one::view(house, key, reader, at.now_ms).await,
        Place::Debt => debt::view(house, at).await,
    }
}

#[derive(Template)]
#[template(path = "flags.html")]
struct FlagsPage {
    frame: Frame,
    /// Address and text; no address where one is.
    crumbs: Vec<(String, String)>,
    parts: Vec<(&'static str, String)>,
    command: String,
    zone: String,
}

#[derive(Deserialize)]
struct Of {
    key: String,
}

async fn all(State(house): State<House>, caller: Caller, Questions(filter): Questions<Filter>) -> Response {
    shown(&house, &caller, &Place::All(filter)).await
}

async fn one_flag(State(house): State<House>, caller: Caller, Questions(of): Questions<Of>) -> Response {
    shown(&house, &caller, &Place::One(of.key)).await
}

async fn all_debt(State(house): State<House>, caller: Caller) -> Response {
    shown(&house, &caller, &Place::Debt).await
}

async fn live_all(State(house): State<House>, caller: Caller, Questions(filter): Questions<Filter>) -> Response {
    live::flags(house, caller, Place::All(filter))
}

async fn live_flag(State(house): State<House>, caller: Caller, Questions(of): Questions<Of>) -> Response {
    live::flags(house, caller, Place::One(of.key))
}

async fn live_debt(State(house): State<House>, caller: Caller) -> Response {
    live::flags(house, caller, Place::Debt)
}

async fn shown(house: &House, caller: &Caller, place: &Place) -> Response {
    let Some(observed) = house.observed().await else { return not_yet() };
    let reader = Reader::of(caller);
    let view = match view(house, place, &reader, Moment { now_ms: observed.at_ms, is_live: false }).await {
        Ok(view) => view,
        Err(rejected) => return refused(&rejected),
    };
    let note = caller.visit().and_then(crate::sessions::Visit::take_note);
    let mut parts = vec![("said", part(&said(note)))];
    parts.extend(view.parts);
    let frame = Frame {
        title: view.title,
        place: "flags",
        live: Some(place.live()),
        reader: Some(reader),
        has_bar: false,
        has_flags: true,
        at: words::second(observed.at_ms),
    };
    html(&FlagsPage { frame, crumbs: place.crumbs(), parts, command: place.command(), zone: words::time_zone() })
}

/// What an environment answers, in a few words.
fn answer(it: &InEnvironment) -> Badge {
    let trial = it.trial.as_ref().filter(|_| !it.shares.is_empty());
    if let Some(trial) = trial {
        let share = |(variant, share): &(String, u32)| format!("{variant}\u{a0}{}", words::weight(*share));
        let shares: Vec<String> = it.shares.iter().filter(|(_, share)| *share > 0).map(share).collect();
        let icon = if trial.paused.is_some() { "hold" } else { "run" };
        return badge("run", icon, shares.join(", "));
    }
    let everybody = it.answers.get("everybody").and_then(Value::as_str);
    match everybody {
        Some(variant) if it.on => badge("good", "ok", variant),
        Some("off") => badge("", "off", "off"),
        Some(variant) => badge("", "off", format!("off ({variant})")),
        None if it.answers.contains_key("by_rule") => badge("", "hand", "by rule"),
        None => badge("", "off", "off (code’s default)"),
    }
}

fn stage(stage: &str) -> Badge {
    match stage {
        "new" => badge("", "dot", "new"),
        "launched" => badge("good", "ok", "launched"),
        "ready_to_remove" => badge("warn", "hand", "ready to remove"),
        "archived" => badge("", "off", "archived"),
        other => badge("", "run", other.replace('_', " ")),
    }
}

fn life(life: Option<&Life>, expired: bool, now_ms: u64) -> String {
    match life {
        Some(Life::KillSwitch) => "A kill switch: it stays.".to_owned(),
        Some(Life::Permanent { reason }) => format!("Permanent: {reason}"),
        Some(Life::Temporary { expires_ms }) if expired => format!("Temporary, expired {}", words::when(*expires_ms, now_ms)),
        Some(Life::Temporary { expires_ms }) => {
            format!(
                "Temporary, until {} ({} left)",
                words::when(*expires_ms, now_ms),
                words::span(expires_ms.saturating_sub(now_ms) / 1_000)
            )
        }
        None => "–".to_owned(),
    }
}

/// As one writes it in a shell.
fn typed(word: &str) -> String {
    let is_plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/@".contains(&byte));
    if is_plain && !word.starts_with('-') { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}
