//! Releases that were, newest first, with their outcome and why.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::account::{Badge, of_release, sentence};
use super::release::no_such_service;
use super::seen::{Release, Service};
use super::{Frame, House, Reader, flags, html, not_yet, query_value, words};
use crate::answers::{Questions, Segments};
use crate::caller::Caller;
use crate::reads;

/// On a page; more are a link away.
const ROWS_MAX: usize = 50;

#[derive(Template)]
#[template(path = "history.html")]
struct HistoryPage {
    frame: Frame,
    service: Option<String>,
    summary: String,
    services: Vec<String>,
    outcome: String,
    outcomes: &'static [(&'static str, &'static str)],
    rows: Vec<Row>,
    foot: String,
    older: Option<String>,
    zone: String,
}

const OUTCOMES: &[(&str, &str)] = &[
    ("promoted", "promoted"),
    ("rolled_back", "rolled back"),
    ("aborted", "aborted"),
    ("withdrawn", "withdrawn"),
    ("failed", "failed"),
    ("superseded", "superseded"),
];

struct Row {
    href: String,
    service: String,
    candidate: String,
    stable: Option<String>,
    number: u64,
    badge: Badge,
    why: String,
    started: String,
    who: String,
    took: String,
}

#[derive(Deserialize, Default)]
pub(crate) struct Filter {
    #[serde(default)]
    service: String,
    #[serde(default)]
    outcome: String,
    #[serde(default)]
    skip: usize,
}

pub(crate) async fn page(State(house): State<House>, caller: Caller, Questions(filter): Questions<Filter>) -> Response {
    shown(&house, &caller, filter).await
}

pub(crate) async fn of_service(State(house): State<House>, caller: Caller, Segments(name): Segments<String>) -> Response {
    let known = house.observed().await.is_some_and(|observed| observed.status.service(&name).is_some());
    if !known && reads::releases(&house.room, Some(&name)).await.is_empty() {
        return no_such_service(&name);
    }
    shown(&house, &caller, Filter { service: name, ..Filter::default() }).await
}

async fn shown(house: &House, caller: &Caller, filter: Filter) -> Response {
    let Some(observed) = house.observed().await else { return not_yet() };
    let only = Some(filter.service.clone()).filter(|it| !it.is_empty());
    let stored = reads::releases(&house.room, only.as_deref()).await;
    let mut releases: Vec<(String, Release)> =
        stored.iter().map(|it| (it["service"].as_str().unwrap_or_default().to_owned(), Release::read_stored(it))).collect();
    releases.sort_by_key(|(service, it)| (std::cmp::Reverse(it.began_at_ms), service.clone(), std::cmp::Reverse(it.number)));
    let of = |outcome: &str| releases.iter().filter(|(_, it)| it.ending.as_ref().is_some_and(|it| it.outcome == outcome)).count();
    let tally: Vec<String> = OUTCOMES.iter().filter(|(it, _)| of(it) > 0).map(|(it, text)| format!("{} {text}", of(it))).collect();
    let summary = if tally.is_empty() { "No release has ended yet.".to_owned() } else { account_of(releases.len(), &tally) };
    releases.retain(|(_, it)| filter.outcome.is_empty() || it.ending.as_ref().is_some_and(|it| it.outcome == filter.outcome));
    let total = releases.len();
    let rows: Vec<Row> = releases
        .iter()
        .skip(filter.skip)
        .take(ROWS_MAX)
        .map(|(service, release)| row(house, service, release, &observed.status.services, observed.at_ms))
        .collect();
    let older = (filter.skip + rows.len() < total).then(|| {
        let (service, outcome) = (query_value(&filter.service), query_value(&filter.outcome));
        format!("/history?service={service}&outcome={outcome}&skip={}", filter.skip + ROWS_MAX)
    });
    let mut services: Vec<String> = observed.status.services.iter().map(|it| it.service.clone()).collect();
    services.extend(only.iter().filter(|it| !services.contains(it)).cloned().collect::<Vec<_>>());
    let frame = Frame {
        title: "History of releases · changeover".to_owned(),
        place: "history",
        live: Some("/history/live".to_owned()),
        reader: Some(Reader::of(caller)),
        has_bar: false,
        has_flags: flags::are_served(&house.room),
        at: words::second(observed.at_ms),
    };
    let foot = format!("{} of {total} shown.", rows.len());
    html(&HistoryPage {
        frame,
        service: only,
        summary,
        services,
        outcome: filter.outcome,
        outcomes: OUTCOMES,
        rows,
        foot,
        older,
        zone: words::time_zone(),
    })
}

fn account_of(total: usize, tally: &[String]) -> String {
    format!("{}: {}.", words::counted(total as u64, "release"), tally.join(", "))
}

fn row(house: &House, name: &str, release: &Release, services: &[Service], now_ms: u64) -> Row {
    let service = services.iter().find(|it| it.service == name);
    let gone = Service::default();
    // The running one is known better than it was stored.
    let running = service.and_then(Service::running).filter(|it| it.number == release.number);
    let account = of_release(service.unwrap_or(&gone), running.unwrap_or(release));
    let why = match (&release.ending, &release.message) {
        (Some(ending), Some(message)) if ending.outcome == "promoted" => format!("“{message}”"),
        (Some(ending), None) if ending.outcome == "promoted" => sentence(&ending.reason),
        (Some(ending), _) => sentence(&ending.reason),
        (None, _) => account.say,
    };
    let span = house.observer.span(name, release.number);
    let began = release.began_at_ms.or(span.map(|it| it.began_ms));
    let took = match (began, span.and_then(|it| it.ended_ms), running) {
        (Some(began), Some(ended), _) => words::clock(ended.saturating_sub(began)),
        (Some(began), None, Some(_)) => words::clock(now_ms.saturating_sub(began)),
        _ => "–".to_owned(),
    };
    Row {
        href: if running.is_some() { format!("/services/{name}") } else { format!("/services/{name}/releases/{}", release.number) },
        service: name.to_owned(),
        candidate: release.candidate.clone(),
        stable: release.stable.clone(),
        number: release.number,
        badge: account.badge,
        why,
        started: began.map_or("–".to_owned(), |at| words::when(at, now_ms)),
        who: release.who.clone(),
        took,
    }
}
