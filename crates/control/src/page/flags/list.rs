//! All flags: what each environment answers, and what is wrong with the files.

use askama::Template;
use engine::Rejected;
use flag_engine::Question;

use super::record::{Confirms, waiting};
use super::seen::{Environment, Line, List};
use super::{Filter, Moment, Place, View, answer, ask_once, stage};
use crate::page::account::{Badge, badge};
use crate::page::{House, Reader, part, words};

/// On a page: a browser draws them at once, and who looks for one of more searches.
const ROWS_MAX: usize = 200;
/// Fewer are seen at a glance.
const FILTER_FROM: usize = 12;
const STAGES: &[(&str, &str)] = &[
    ("new", "new"),
    ("active", "active"),
    ("launched", "launched"),
    ("ready_to_remove", "ready to remove"),
    ("expired", "expired"),
    ("archived", "archived"),
];

#[derive(Template)]
#[template(path = "part/flags_head.html")]
pub(super) struct Head {
    pub(super) heading: String,
    pub(super) tally: Vec<Badge>,
    /// Address and text.
    pub(super) link: Option<(&'static str, &'static str)>,
}

#[derive(Template)]
#[template(path = "part/flags_problems.html")]
struct Problems<'a> {
    problems: Vec<(&'a str, Vec<String>)>,
}

#[derive(Template)]
#[template(path = "part/flags_list.html")]
struct Table<'a> {
    /// Name, and whether a second person is asked.
    environments: Vec<(&'a str, bool)>,
    rows: Vec<Row<'a>>,
    /// There is no flag at all.
    is_empty: bool,
    /// So many are not shown.
    more: usize,
}

#[derive(Template)]
#[template(path = "part/flags_filter.html")]
struct FilterPart<'a> {
    filter: &'a Filter,
    stages: &'static [(&'static str, &'static str)],
}

struct Row<'a> {
    href: String,
    key: &'a str,
    description: &'a str,
    stage: Badge,
    expired: bool,
    owner: &'a str,
    /// None: it is not there.
    answers: Vec<(&'a str, Option<Badge>)>,
}

pub(super) async fn view(house: &House, filter: &Filter, reader: &Reader, at: Moment) -> Result<View, Rejected> {
    let list = ask_once(house, &house.flags.list, Question::List, at).await?;
    let mut confirms = Confirms::of(reader);
    let waits = waiting(house, None, reader, &mut confirms, at.now_ms).await?;
    Ok(assembled(&list, filter, waits, &confirms))
}

pub(super) fn assembled(list: &List, filter: &Filter, waits: String, confirms: &Confirms) -> View {
    let expired = list.flags.iter().filter(|it| it.expired).count();
    let ready = list.flags.iter().filter(|it| it.stage == "ready_to_remove").count();
    let running = list.flags.iter().filter(|it| it.environments.values().any(|it| !it.shares.is_empty())).count();
    let refused = list.environments.iter().filter(|it| it.problem.is_some()).count();
    let tally = [
        (refused, badge("bad", "bad", format!("{refused} with a refused file"))),
        (running, badge("run", "run", format!("{running} in a rollout or an experiment"))),
        (expired, badge("warn", "warn", format!("{expired} expired"))),
        (ready, badge("warn", "hand", format!("{ready} ready to remove"))),
    ];
    let heading = match list.flags.len() {
        0 => "No flag yet".to_owned(),
        count => words::counted(count as u64, "flag"),
    };
    let title = if refused > 0 { format!("A file is refused · {heading} · changeover") } else { format!("{heading} · changeover") };
    let tally = tally.into_iter().filter(|(count, _)| *count > 0).map(|(_, badge)| badge).collect();
    let head = Head { heading, tally, link: Some(("/flags/debt", "Debt")) };
    let has_filter = list.flags.len() >= FILTER_FROM || *filter != Filter::default();
    let parts = vec![
        ("head", part(&head)),
        ("problems", part(&Problems { problems: list.environments.iter().filter_map(problem).collect() })),
        ("proposals", waits),
        ("filter", if has_filter { part(&FilterPart { filter, stages: STAGES }) } else { String::new() }),
        ("flags", part(&table(list, filter))),
        ("confirms", confirms.part()),
    ];
    View { title, parts, expect: None }
}

/// An environment, and the lines of its problem: file, line, column and message; hints.
fn problem(environment: &Environment) -> Option<(&str, Vec<String>)> {
    let lines = environment.problem.as_ref()?.lines().map(words::marked).collect();
    Some((&environment.environment, lines))
}

fn is_wanted(line: &Line, filter: &Filter) -> bool {
    let wanted = filter.q.trim().to_lowercase();
    let texts = [Some(&line.key), line.owner.as_ref(), line.description.as_ref()];
    let stage = filter.stage.is_empty() || line.stage == filter.stage || (filter.stage == "expired" && line.expired);
    stage && texts.into_iter().flatten().any(|text| text.to_lowercase().contains(&wanted))
}

fn table<'a>(list: &'a List, filter: &Filter) -> Table<'a> {
    let environments: Vec<(&str, bool)> = list.environments.iter().map(|it| (it.environment.as_str(), it.second_person)).collect();
    let wanted: Vec<&Line> = list.flags.iter().filter(|line| is_wanted(line, filter)).collect();
    let total = wanted.len();
    let rows = wanted
        .into_iter()
        .take(ROWS_MAX)
        .map(|line| Row {
            href: Place::One(line.key.clone()).href(),
            key: &line.key,
            stage: stage(&line.stage),
            expired: line.expired,
            description: line.description.as_deref().unwrap_or_default(),
            owner: line.owner.as_deref().unwrap_or("nobody"),
            answers: environments.iter().map(|(name, _)| (*name, line.environments.get(*name).map(answer))).collect(),
        })
        .collect();
    Table { environments, is_empty: list.flags.is_empty(), more: total.saturating_sub(ROWS_MAX), rows }
}
