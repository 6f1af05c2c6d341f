//! Which flags have had their time: the evidence, what the code keeps, and where it names them.

use askama::Template;
use engine::Rejected;
use flag_engine::Question;

use super::list::Head;
use super::seen::{Debt, Keeps, Line};
use super::{Moment, Place, View, ask_once, stage};
use crate::page::account::{Badge, badge};
use crate::page::{House, part, words};

/// Those that have had their time come first.
const ROWS_MAX: usize = 200;
/// Of one repository; the command line lists all.
const PLACES_SHOWN: usize = 20;

#[derive(Template)]
#[template(path = "part/flags_debt.html")]
struct Table {
    rows: Vec<Row>,
    ready_after: String,
    /// So many are not shown.
    more: usize,
}

struct Row {
    href: String,
    key: String,
    stage: Badge,
    expired: bool,
    owner: String,
    no_owner: bool,
    age: String,
    last_asked: String,
    /// As HTML.
    answers: String,
    since: String,
    dependents: String,
    in_code: String,
    repositories: Vec<(String, Vec<String>)>,
}

pub(super) async fn view(house: &House, at: Moment) -> Result<View, Rejected> {
    let debt = ask_once(house, &house.flags.debt, Question::Debt, at).await?;
    Ok(assembled(&debt))
}

pub(super) fn assembled(debt: &Debt) -> View {
    let count = |is: &dyn Fn(&Line) -> bool| debt.flags.iter().filter(|it| is(it)).count();
    let (expired, ready) = (count(&|it| it.expired), count(&|it| it.stage == "ready_to_remove"));
    let orphans = count(&|it| it.no_owner);
    let heading = match (expired, ready) {
        (0, 0) => "No flag has had its time".to_owned(),
        _ => format!("{expired} expired, {ready} ready to remove"),
    };
    let tally = if orphans > 0 { vec![badge("warn", "warn", format!("{orphans} without an owner"))] } else { Vec::new() };
    let mut lines: Vec<&Line> = debt.flags.iter().collect();
    lines.sort_by_key(|it| (it.stage == "archived", it.stage != "ready_to_remove", !it.expired));
    let more = lines.len().saturating_sub(ROWS_MAX);
    let table = Table {
        rows: lines.into_iter().take(ROWS_MAX).map(|it| row(it, debt.now_ms)).collect(),
        ready_after: words::span(debt.ready_after_ms / 1_000),
        more,
    };
    let title = format!("{heading} · flags · changeover");
    View { title, parts: vec![("head", part(&Head { heading, tally, link: None })), ("debt", part(&table))], expect: None }
}

/// What everybody gets; and when it is time, what the code keeps.
fn everywhere(keeps: &Keeps, it_is_time: bool) -> String {
    let plain = |text: &str| text.replace('`', "'");
    match &keeps.variant {
        Some(variant) if it_is_time => format!("`{}` everywhere: keep `{}`", plain(variant), plain(&keeps.value.to_string())),
        Some(variant) => format!("`{}` everywhere", plain(variant)),
        None => "the code’s default everywhere".to_owned(),
    }
}

fn row(line: &Line, now_ms: u64) -> Row {
    let last_ms = line.environments.values().filter_map(|it| it.last_evaluated_ms).max();
    let answers =
        line.keeps.as_ref().map_or("different ones".to_owned(), |it| everywhere(it, line.expired || line.stage == "ready_to_remove"));
    let since = if line.keeps.is_some() && line.since_ms > 0 { words::when(line.since_ms, now_ms) } else { String::new() };
    let places: usize = line.references.values().map(|it| it.places.len()).sum();
    let repositories = line.references.iter().map(|(name, it)| {
        let commit = it.commit.as_ref().map(|commit| format!(" at {}", commit.chars().take(12).collect::<String>())).unwrap_or_default();
        let mut places: Vec<String> =
            it.places.iter().take(PLACES_SHOWN).map(|it| format!("{}:{} {}", it.file, it.line, it.kind.replace('_', " "))).collect();
        if it.places.len() > PLACES_SHOWN {
            places.push(format!("and {} more", it.places.len() - PLACES_SHOWN));
        }
        (format!("{name}{commit}"), places)
    });
    Row {
        href: Place::One(line.key.clone()).href(),
        key: line.key.clone(),
        stage: stage(&line.stage),
        expired: line.expired,
        owner: if line.no_owner { "nobody".to_owned() } else { line.owner.clone().unwrap_or_else(|| "–".to_owned()) },
        no_owner: line.no_owner,
        age: if line.created_ms == 0 { "–".to_owned() } else { words::span(now_ms.saturating_sub(line.created_ms) / 1_000) },
        last_asked: last_ms.map_or("never".to_owned(), |at_ms| words::when(at_ms, now_ms)),
        answers: words::marked(&answers),
        since,
        dependents: if line.dependents.is_empty() { "none".to_owned() } else { line.dependents.join(", ") },
        in_code: match (line.scanned, places) {
            (0, _) => "not scanned".to_owned(),
            (_, 0) => "nowhere".to_owned(),
            (_, places) => words::counted(places as u64, "place"),
        },
        repositories: repositories.collect(),
    }
}
