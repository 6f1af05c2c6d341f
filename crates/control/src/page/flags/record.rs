//! What was done to flags and what waits for a second person; and the questions that stand before every change.

use askama::Template;
use engine::Rejected;
use flag_engine::Question;
use serde_json::Value;

use super::seen::{Change, History, Proposal, Proposals, Schedules, read};
use super::{Place, ask, typed};
use crate::page::{House, Reader, part, words};

/// Of a flag; the command line shows all.
const CHANGES_SHOWN: usize = 30;

pub(super) struct Button {
    pub(super) id: String,
    pub(super) text: String,
    pub(super) class: &'static str,
}

/// A question before a change. Everything in it is text; in `says` what is between backticks is set as code.
pub(super) struct Confirm {
    pub(super) id: String,
    pub(super) question: String,
    pub(super) says: Vec<(&'static str, String)>,
    /// Hidden, name and value.
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) class: &'static str,
    pub(super) button: String,
    pub(super) command: String,
    pub(super) has_why: bool,
}

/// The questions of a page, as its pieces ask for them. Whoever may not act has none.
pub(super) struct Confirms {
    form_token: String,
    may_act: bool,
    all: Vec<Confirm>,
}

#[derive(Template)]
#[template(path = "part/flags_confirms.html")]
struct ConfirmsPart<'a> {
    form_token: &'a str,
    confirms: &'a [Confirm],
}

impl Confirms {
    pub(super) fn of(reader: &Reader) -> Self {
        Self { form_token: reader.form_token.clone(), may_act: reader.may_act, all: Vec::new() }
    }

    /// A button that opens the question.
    pub(super) fn button(&mut self, text: impl Into<String>, class: &'static str, confirm: Confirm) -> Option<Button> {
        let button = self.may_act.then(|| Button { id: confirm.id.clone(), text: text.into(), class })?;
        let says = confirm.says.into_iter().map(|(question, answer)| (question, words::marked(&answer))).collect();
        self.all.push(Confirm { says, ..confirm });
        Some(button)
    }

    pub(super) fn part(&self) -> String {
        part(&ConfirmsPart { form_token: &self.form_token, confirms: &self.all })
    }
}

#[derive(Template)]
#[template(path = "part/flags_history.html")]
struct HistoryPart {
    rows: Vec<HistoryRow>,
    /// The command that shows more.
    more: Option<String>,
}

struct HistoryRow {
    number: u64,
    at: String,
    who: String,
    why: String,
    /// As HTML.
    said: String,
    environment: String,
    revert: Option<Button>,
}

pub(super) async fn changes(house: &House, key: &str) -> Result<Vec<Change>, Rejected> {
    let question = Question::History { key: Some(key.to_owned()), limit: CHANGES_SHOWN };
    Ok(read::<History>(ask(house, question).await?).changes)
}

/// `changes`: newest first.
pub(super) fn history(key: &str, changes: &[Change], confirms: &mut Confirms, now_ms: u64) -> String {
    let rows = changes
        .iter()
        .enumerate()
        .map(|(index, change)| HistoryRow {
            number: change.number,
            at: words::when(change.at_ms, now_ms),
            who: match &change.agreed {
                Some(agreed) => format!("{}, agreed by {agreed}", change.who),
                None => change.who.clone(),
            },
            why: change.why.clone().unwrap_or_default(),
            said: words::marked(&change.said),
            environment: change.environment.clone().unwrap_or_else(|| "everywhere".to_owned()),
            revert: revert(key, change, &changes[..index], changes, confirms),
        })
        .collect();
    let more = (changes.len() == CHANGES_SHOWN).then(|| format!("changeover flags history {} --limit 1000", typed(key)));
    part(&HistoryPart { rows, more })
}

/// `newer`: those after it.
fn revert(key: &str, change: &Change, newer: &[Change], all: &[Change], confirms: &mut Confirms) -> Option<Button> {
    if change.before.is_null() {
        return None;
    }
    let lost: Vec<String> = newer.iter().filter(|it| it.environment == change.environment).map(|it| it.number.to_string()).collect();
    let place = change.environment.as_ref().map_or("everywhere".to_owned(), |it| format!("in {it}"));
    let mut says = vec![
        ("What is taken back", change.said.clone()),
        ("What happens", format!("{key} becomes {place} what it was before change {}.", change.number)),
    ];
    if !lost.is_empty() {
        says.push(("What is lost", format!("What was changed since: {}.", lost.join(", "))));
    }
    let force = if lost.is_empty() { "" } else { " --force" };
    let confirm = Confirm {
        id: format!("confirm-revert-{}", change.number),
        question: format!("Revert change {} of {key}?", change.number),
        says,
        fields: vec![
            ("action", "revert".to_owned()),
            ("key", key.to_owned()),
            ("number", change.number.to_string()),
            ("force", (!lost.is_empty()).to_string()),
            ("expect", expectation(all)),
        ],
        class: "primary",
        button: "Revert".to_owned(),
        command: format!("changeover flags revert {}{force}", change.number),
        has_why: true,
    };
    confirms.button("Revert", "", confirm)
}

/// The newest change that the reader saw.
pub(super) fn expectation(changes: &[Change]) -> String {
    changes.first().map_or(0, |change| change.number).to_string()
}

#[derive(Template)]
#[template(path = "part/flags_proposals.html")]
struct ProposalsPart {
    rows: Vec<ProposalRow>,
    schedules: Vec<String>,
}

struct ProposalRow {
    number: u64,
    what: String,
    at: String,
    who: String,
    why: String,
    /// Absent where it is about no flag, or this page's.
    href: Option<String>,
    buttons: Vec<Button>,
    why_not: Option<String>,
}

/// What waits: of one flag when `of` says which, with the changes of it that are known; else all.
pub(super) async fn waiting(
    house: &House,
    of: Option<(&str, &[Change])>,
    reader: &Reader,
    confirms: &mut Confirms,
    now_ms: u64,
) -> Result<String, Rejected> {
    let all: Proposals = read(ask(house, Question::Proposals).await?);
    let rows: Vec<ProposalRow> = all
        .proposals
        .iter()
        .filter(|it| of.is_none_or(|(key, changes)| is_of(it, key, changes)))
        .map(|it| proposal_row(it, of.map(|(key, _)| key), reader, confirms, now_ms))
        .collect();
    let schedules: Schedules = match of {
        Some(_) => read(ask(house, Question::Schedules).await?),
        None => Schedules::default(),
    };
    let schedules: Vec<String> = schedules
        .schedules
        .iter()
        .filter(|it| of.is_some_and(|(key, _)| key == it.key))
        .map(|it| {
            let switch = if it.on { "on" } else { "off" };
            format!("Will be switched {switch} in {} at {} by the clock, set by {}.", it.environment, words::when(it.at_ms, now_ms), it.who)
        })
        .collect();
    if rows.is_empty() && schedules.is_empty() {
        return Ok(String::new());
    }
    Ok(part(&ProposalsPart { rows, schedules }))
}

fn is_of(proposal: &Proposal, key: &str, changes: &[Change]) -> bool {
    let about = proposal.request.action.values().next();
    let reverts = about.and_then(|it| it.get("change")).and_then(Value::as_u64);
    key_of(proposal).is_some_and(|it| it == key) || reverts.is_some_and(|number| changes.iter().any(|it| it.number == number))
}

fn key_of(proposal: &Proposal) -> Option<&str> {
    proposal.request.action.values().next()?.get("key")?.as_str()
}

fn proposal_row(it: &Proposal, of: Option<&str>, reader: &Reader, confirms: &mut Confirms, now_ms: u64) -> ProposalRow {
    let request = &it.request;
    let (name, about) = request.action.iter().next().map_or(("", &Value::Null), |(name, about)| (name.as_str(), about));
    let about = match (name, key_of(it)) {
        ("revert", _) => format!("change {}", about["change"]),
        (_, Some(key)) => key.to_owned(),
        (_, None) => about.to_string(),
    };
    let place = request.environment.as_ref().map(|it| format!(" in {it}")).unwrap_or_default();
    let verb = match name {
        "on" => "switch on".to_owned(),
        other => other.replace('_', " "),
    };
    let what = format!("{verb} {about}{place}");
    let key = key_of(it).or(of).unwrap_or_default().to_owned();
    let is_own = request.who == reader.name;
    let mut question = |agree: bool| {
        let (action, word) = if agree { ("approve", "Approve") } else { ("reject", "Reject") };
        let happens = if agree { "It is carried out at once, in both names." } else { "It is forgotten. Nothing changes." };
        let confirm = Confirm {
            id: format!("confirm-{action}-{}", it.number),
            question: format!("{word} proposal {}?", it.number),
            says: vec![
                ("What", what.clone()),
                ("Who, and why", format!("{}{}", request.who, request.why.as_ref().map(|why| format!(": “{why}”")).unwrap_or_default())),
                ("What happens", happens.to_owned()),
            ],
            fields: vec![("action", action.to_owned()), ("key", key.clone()), ("number", it.number.to_string())],
            class: if agree { "primary" } else { "" },
            button: word.to_owned(),
            command: format!("changeover flags {action} {}", it.number),
            has_why: false,
        };
        confirms.button(word, if agree { "primary" } else { "" }, confirm)
    };
    let buttons: Vec<Button> = [if is_own { None } else { question(true) }, question(false)].into_iter().flatten().collect();
    ProposalRow {
        number: it.number,
        at: words::when(it.at_ms, now_ms),
        who: request.who.clone(),
        why: request.why.clone().unwrap_or_default(),
        href: key_of(it).filter(|_| of.is_none()).map(|key| Place::One(key.to_owned()).href()),
        why_not: (is_own && reader.may_act).then(|| "You proposed it: somebody else must agree.".to_owned()),
        what,
        buttons,
    }
}
