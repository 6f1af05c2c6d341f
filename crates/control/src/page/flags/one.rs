//! One flag: its life, what each environment answers and may be made to answer, its trials, its history.

use std::collections::BTreeMap;

use askama::Template;
use engine::Rejected;
use flag_engine::Question;

use super::record::{Button, Confirm, Confirms, changes, expectation, history, waiting};
use super::seen::{Change, InEnvironment, Line, Trial, read};
use super::{View, answer, ask, experiment, life, rollout, stage, typed};
use crate::page::account::Badge;
use crate::page::{House, Reader, part, words};

#[derive(Template)]
#[template(path = "part/flag_head.html")]
struct Head<'a> {
    key: &'a str,
    stage: Badge,
    expired: bool,
    description: &'a str,
    facts: Vec<(&'static str, String)>,
    note: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "part/flag_environments.html")]
struct Environments {
    all: Vec<Environment>,
}

struct Environment {
    name: String,
    answer: Badge,
    facts: Vec<(&'static str, String)>,
    counts: Vec<Count>,
    buttons: Vec<Button>,
    definition: Option<String>,
    /// As HTML.
    trial: String,
}

/// How often a variant was answered.
struct Count {
    variant: String,
    count: String,
    share: String,
    width: String,
}

/// What the pieces of the page are made from.
pub(super) struct Asked {
    pub(super) flag: Line,
    /// Newest first.
    pub(super) changes: Vec<Change>,
    pub(super) trials: BTreeMap<String, Trial>,
    pub(super) now_ms: u64,
}

pub(super) async fn view(house: &House, key: &str, reader: &Reader, now_ms: u64) -> Result<View, Rejected> {
    let flag: Line = read(ask(house, Question::Flag { key: key.to_owned() }).await?);
    let mut trials = BTreeMap::new();
    for (name, _) in flag.environments.iter().filter(|(_, it)| it.trial.is_some()) {
        let trial = ask(house, Question::Trial { key: key.to_owned(), environment: Some(name.clone()) }).await?;
        trials.insert(name.clone(), read(trial));
    }
    let asked = Asked { flag, changes: changes(house, key).await?, trials, now_ms };
    let mut confirms = Confirms::of(reader);
    let waits = waiting(house, Some((key, &asked.changes)), reader, &mut confirms, now_ms).await?;
    Ok(assembled(&asked, waits, reader, confirms))
}

pub(super) fn assembled(asked: &Asked, waits: String, reader: &Reader, mut confirms: Confirms) -> View {
    let flag = &asked.flag;
    let environments = flag.environments.iter().enumerate().map(|(index, (name, it))| environment(asked, index, name, it, &mut confirms));
    let environments = part(&Environments { all: environments.collect() });
    let history = history(&flag.key, &asked.changes, &mut confirms, asked.now_ms);
    let parts = vec![
        ("head", part(&head(flag, reader, asked.now_ms))),
        ("proposals", waits),
        ("environments", environments),
        ("history", history),
        ("confirms", confirms.part()),
    ];
    View { title: format!("{} · {} · changeover", stage(&flag.stage).text, flag.key), parts, expect: Some(expectation(&asked.changes)) }
}

fn head<'a>(flag: &'a Line, reader: &Reader, now_ms: u64) -> Head<'a> {
    let mut facts = vec![
        ("Owner", flag.owner.clone().unwrap_or_else(|| "nobody".to_owned())),
        ("Life", life(flag.life.as_ref(), flag.expired, now_ms)),
    ];
    if flag.created_ms > 0 {
        facts.push(("Made", words::when(flag.created_ms, now_ms)));
    }
    if flag.from_file {
        facts.push(("Written in", "a watched file; what is done here is laid over it".to_owned()));
    }
    let note = (reader.scope == "read").then_some("You may look, not act: this token has the scope read.");
    let description = flag.description.as_deref().unwrap_or_default();
    Head { key: &flag.key, stage: stage(&flag.stage), expired: flag.expired, description, facts, note }
}

fn environment(asked: &Asked, index: usize, name: &str, it: &InEnvironment, confirms: &mut Confirms) -> Environment {
    let now_ms = asked.now_ms;
    let mut facts = Vec::new();
    if it.changed_ms > 0 {
        facts.push(("Since", words::when(it.changed_ms, now_ms)));
    }
    facts.push(("Last asked", it.last_evaluated_ms.map_or("never of this server".to_owned(), |at_ms| words::when(at_ms, now_ms))));
    if !it.requires.is_empty() {
        let needs: Vec<String> = it.requires.iter().map(|it| format!("{} = {}", it.flag, it.variants.join(" or "))).collect();
        facts.push(("Needs", needs.join(", ")));
    }
    let buttons = if asked.flag.stage == "archived" { None } else { switch(asked, index, name, it, confirms) };
    let trial = asked.trials.get(name).map_or(String::new(), |trial| {
        let about = About { key: &asked.flag.key, environment: name, index, expect: expectation(&asked.changes), now_ms };
        if trial.kind == "rollout" { rollout::shown(trial, &about, confirms) } else { experiment::shown(trial, &about, confirms) }
    });
    Environment {
        name: name.to_owned(),
        answer: answer(it),
        facts,
        counts: counts(&it.evaluations),
        buttons: buttons.into_iter().collect(),
        definition: asked.flag.definitions.get(name).and_then(|it| serde_json::to_string_pretty(it).ok()),
        trial,
    }
}

/// Where a trial runs, for its buttons.
pub(super) struct About<'a> {
    pub(super) key: &'a str,
    pub(super) environment: &'a str,
    /// Of the environment, for ids.
    pub(super) index: usize,
    /// The newest change that the reader saw.
    pub(super) expect: String,
    pub(super) now_ms: u64,
}

impl About<'_> {
    /// `sees`: refused when something else was changed since. What takes something back is not.
    pub(super) fn fields(&self, action: &str, sees: bool) -> Vec<(&'static str, String)> {
        let mut fields = vec![("action", action.to_owned()), ("key", self.key.to_owned()), ("environment", self.environment.to_owned())];
        if sees {
            fields.push(("expect", self.expect.clone()));
        }
        fields
    }

    pub(super) fn command(&self, action: &str, more: &str) -> String {
        format!("changeover flags {action} {}{more} --environment {}", typed(self.key), typed(self.environment))
    }
}

fn switch(asked: &Asked, index: usize, name: &str, it: &InEnvironment, confirms: &mut Confirms) -> Option<Button> {
    let key = &asked.flag.key;
    let about = About { key, environment: name, index, expect: expectation(&asked.changes), now_ms: asked.now_ms };
    let (action, text, class) = if it.on { ("off", "Switch off", "danger") } else { ("on", "Switch on", "primary") };
    let mut says = vec![(
        "What happens",
        if it.on {
            "Everybody gets the variant for off, within a second, whatever rules say.".to_owned()
        } else {
            "Rules decide again; everybody else gets what it serves when it is on.".to_owned()
        },
    )];
    if it.on && it.trial.is_some() && !it.shares.is_empty() {
        says.push(("And the trial", "What runs is ended; its result so far stays.".to_owned()));
    }
    says.push(("How to undo it", "Revert it in the history, or switch it back.".to_owned()));
    let confirm = Confirm {
        id: format!("confirm-{action}-{index}"),
        question: format!("{text} {key} in {name}?"),
        says,
        fields: about.fields(action, !it.on),
        class: if it.on { "danger fill" } else { "primary" },
        button: text.to_owned(),
        command: about.command(action, ""),
        has_why: true,
    };
    confirms.button(text, class, confirm)
}

fn counts(evaluations: &BTreeMap<String, u64>) -> Vec<Count> {
    let total: u64 = evaluations.values().sum();
    let of = |(variant, count): (&String, &u64)| {
        let share = if total == 0 { 0.0 } else { *count as f64 / total as f64 };
        Count {
            variant: if variant.is_empty() { "code’s default".to_owned() } else { variant.clone() },
            count: words::count(*count),
            share: format!("{:.1}\u{a0}%", share * 100.0),
            width: format!("{:.1}", share * 100.0),
        }
    };
    evaluations.iter().map(of).collect()
}
