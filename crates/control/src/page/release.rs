//! One service: its running or last release; and one release that is over.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use engine::Happening;

use super::account::{self, Account, Badge, badge, of_release, of_service};
use super::actions::{self, Actions, Button, Choice, Confirm};
use super::charts::{self, Drawing, Line};
use super::seen::{Analysis, Metric, Release, Service};
use super::{Frame, House, Reader, flags, html, not_yet, part, refused, words};
use crate::answers::{Segments, rejected};
use crate::caller::Caller;
use crate::observer::{Observed, Span, Trend};
use crate::reads;
use crate::sessions::Note;

/// Of a timeline; a release makes about ten.
const EVENTS_MAX: usize = 200;
/// The engine looks at its store and its targets first.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(5);
/// Of a table beside a chart: each stands for half a minute.
const ROW_SECONDS: u64 = 30;

#[derive(Template)]
#[template(path = "service.html")]
pub(crate) struct ServicePage {
    pub(crate) frame: Frame,
    pub(crate) name: String,
    /// The release's number, on the page of one that is over.
    pub(crate) crumb: Option<u64>,
    pub(crate) parts: Vec<(&'static str, String)>,
    pub(crate) zone: String,
}

#[derive(Template)]
#[template(path = "part/notes.html")]
pub(crate) struct Notes {
    pub(crate) notes: Vec<Shown>,
}

pub(crate) struct Shown {
    pub(crate) class: &'static str,
    pub(crate) icon: &'static str,
    pub(crate) html: String,
}

#[derive(Template)]
#[template(path = "part/verdict.html")]
struct VerdictPart {
    heading: String,
    account: Account,
    answers: Vec<(&'static str, String)>,
    buttons: Vec<Button>,
    bar: bool,
}

#[derive(Template)]
#[template(path = "part/steps.html")]
struct Steps {
    note: String,
    steps: Vec<Step>,
    limits: Option<String>,
}

struct Step {
    class: &'static str,
    what: String,
    time: String,
}

#[derive(Template)]
#[template(path = "part/evidence.html")]
struct Evidence {
    heading: &'static str,
    note: String,
    rows: Vec<EvidenceRow>,
}

struct EvidenceRow {
    name: String,
    badge: Badge,
    stable: String,
    candidate: String,
    label: String,
    known: bool,
    back_x: String,
    back: String,
    advance: String,
    sentence: String,
}

#[derive(Template)]
#[template(path = "part/charts.html")]
struct Charts {
    heading: &'static str,
    note: &'static str,
    charts: Vec<Chart>,
    lines: Vec<Line>,
}

struct Chart {
    id: &'static str,
    title: &'static str,
    label: String,
    legend: String,
    drawing: Drawing,
    rows: Vec<(String, Vec<String>)>,
}

#[derive(Template)]
#[template(path = "part/legend.html")]
struct Legend {
    lines: Vec<(&'static str, String, String)>,
}

#[derive(Template)]
#[template(path = "part/versions.html")]
struct Versions {
    note: &'static str,
    rows: Vec<VersionRow>,
    /// Requests were counted by version.
    counted: bool,
    split: Option<(&'static str, String)>,
}

struct VersionRow {
    is_candidate: bool,
    version: String,
    role: String,
    share: String,
    requests: String,
    failed: String,
    targets: String,
}

#[derive(Template)]
#[template(path = "part/other.html")]
struct Other {
    choices: Vec<Choice>,
    lines: Vec<String>,
}

#[derive(Template)]
#[template(path = "part/timeline.html")]
struct Timeline {
    rows: Vec<TimelineRow>,
}

struct TimelineRow {
    at: String,
    since: String,
    strong: bool,
    html: String,
}

#[derive(Template)]
#[template(path = "part/confirms.html")]
struct Confirms<'a> {
    service: &'a str,
    form_token: &'a str,
    confirms: Vec<Confirm>,
}

/// What is shown of a service, piece by piece: each has its place on the page.
pub(crate) struct View {
    pub(crate) title: String,
    pub(crate) parts: Vec<(&'static str, String)>,
    /// Changes when the charts are about something else.
    pub(crate) charts_about: String,
    pub(crate) lines: Vec<Line>,
    pub(crate) trend: Trend,
    pub(crate) has_bar: bool,
}

/// What a view is made of besides the service.
pub(crate) struct Around<'a> {
    pub(crate) reader: &'a Reader,
    pub(crate) note: Option<Note>,
    pub(crate) events: &'a [Happening],
    pub(crate) trend: Option<Trend>,
    pub(crate) now_ms: u64,
}

impl View {
    /// `release` is the service's own, or one that is long over.
    pub(crate) fn of(service: &Service, release: Option<&Release>, is_last: bool, around: Around<'_>) -> Self {
        let account = release.map_or_else(|| of_service(service), |release| of_release(service, release));
        let actions = if is_last { actions::of(service, around.reader.may_act) } else { Actions::default() };
        let runs = release.is_some_and(|it| it.ending.is_none());
        let title = format!("{} · {}", title(&account, release), service.service);
        let lines = charts::lines(service.serves.as_ref(), release.filter(|_| around.trend.is_some()));
        let trend = around.trend.unwrap_or_default();
        let has_bar = runs && !actions.buttons.is_empty();
        let Actions { buttons, choices, confirms } = actions;
        let mut parts = vec![("said", part(&said(around.note)))];
        parts.push(("notes", if is_last { part(&notes(service, around.reader)) } else { String::new() }));
        let answers = account.answers.iter().map(|(question, answer)| (*question, words::marked(answer))).collect();
        parts.push(("verdict", part(&VerdictPart { heading: heading(service, release), account, answers, buttons, bar: has_bar })));
        parts.push(("steps", release.and_then(|it| steps(it, around.events, around.now_ms)).map(|it| part(&it)).unwrap_or_default()));
        let analysis = release.and_then(|it| it.analysis.as_ref()).filter(|it| !it.metrics.is_empty());
        parts.push(("evidence", analysis.map(|it| part(&evidence(it, runs))).unwrap_or_default()));
        let charts_about = format!(
            "{:?}/{:?}",
            release.map(|it| (it.number, it.ending.is_some())),
            lines.iter().map(|it| &it.version).collect::<Vec<_>>()
        );
        let show_charts = is_last || !trend.points.is_empty();
        parts.push(("charts", if show_charts { part(&chart_panel(&trend, &lines, runs)) } else { String::new() }));
        parts.push(("versions", if is_last { part(&versions(service, release)) } else { String::new() }));
        let other = other(service, release, choices, around.events);
        parts.push(("other", if is_last { part(&other) } else { String::new() }));
        parts.push(("timeline", if release.is_some() { part(&timeline(around.events)) } else { String::new() }));
        parts.push(("confirms", part(&Confirms { service: &service.service, form_token: &around.reader.form_token, confirms })));
        Self { title, parts, charts_about, lines, trend, has_bar }
    }
}

/// State first: it is the tab and the bookmark.
fn title(account: &Account, release: Option<&Release>) -> String {
    match release {
        Some(release) if release.ending.is_none() && release.is_canary() => {
            let short = account.say.split(['.', ':']).next().unwrap_or_default().to_lowercase();
            format!("{} · {short}", words::weight(release.candidate_weight()))
        }
        _ => account::sentence(&account.badge.text).trim_end_matches('.').to_owned(),
    }
}

fn code(version: &str) -> String {
    format!("<span class=\"v\">{}</span>", words::escape(version))
}

fn heading(service: &Service, release: Option<&Release>) -> String {
    let name = words::escape(&service.service);
    match release {
        Some(Release { stable: Some(stable), candidate, .. }) => format!("{name} {} → {}", code(stable), code(candidate)),
        Some(release) => format!("{name} → {}", code(&release.candidate)),
        None => name,
    }
}

/// What became of what was asked: until the next page.
pub(crate) fn said(note: Option<Note>) -> Notes {
    let shown = |note: Note| {
        let (class, icon) = if note.done { ("", "ok") } else { ("warn", "warn") };
        Shown { class, icon, html: words::marked(&note.text) }
    };
    Notes { notes: note.into_iter().map(shown).collect() }
}

/// What is out of the ordinary.
fn notes(service: &Service, reader: &Reader) -> Notes {
    let mut notes = Vec::new();
    if reader.scope == "read" {
        notes.push(Shown { class: "", icon: "dot", html: "You may look, not act: this token has the scope read.".to_owned() });
    }
    if let Some(paused) = service.running().and_then(|release| release.paused.as_ref()) {
        let why = paused.why.as_ref().map(|why| format!(": “{why}”")).unwrap_or_default();
        let html = format!("{}. A regression is still rolled back.", words::escape(&format!("Paused by {}{why}", paused.who)));
        notes.push(Shown { class: "warn", icon: "hold", html });
    }
    if !service.paused.is_null() {
        let html = "Releases are paused, because the worker crashed several times in a row.".to_owned();
        notes.push(Shown { class: "warn", icon: "hold", html });
    }
    if let Some(mode) = service.mode.as_object().and_then(|mode| mode.keys().next()) {
        let what = if mode == "hold" { "requests wait" } else { "every request is answered 503 with a page" };
        let html = words::marked(&format!(
            "{}: {what}. End it with `changeover {mode} {} --off`.",
            account::sentence(mode).trim_end_matches('.'),
            service.service
        ));
        notes.push(Shown { class: "warn", icon: "warn", html });
    }
    if let Some(queued) = &service.queued {
        let html = words::marked(&format!("Release {} (`{}`) waits for this one to end.", queued.number, queued.version));
        notes.push(Shown { class: "", icon: "hand", html });
    }
    Notes { notes }
}

fn steps(release: &Release, events: &[Happening], now_ms: u64) -> Option<Steps> {
    let by = match &release.message {
        Some(message) => format!("by {}: “{message}”", release.who),
        None => format!("by {}", release.who),
    };
    let began = events.first().map(|it| it.at_ms).or(release.began_at_ms);
    let started = began.map_or(by.clone(), |at| format!("started {} {by}", words::when(at, now_ms)));
    if release.is_canary() && !release.steps.is_empty() {
        return Some(canary_steps(release, &started));
    }
    // The phases of a switch; what was reached stands in the events.
    let phases = [
        ("starting", "Start"),
        ("gating", "Gates"),
        ("awaiting_promotion", "You"),
        ("switching", "Switch"),
        ("draining", "Drain"),
        ("watching", "Watch"),
    ];
    let back = ["returning", "retiring"].contains(&release.state.as_str());
    let now = phases.iter().position(|(state, _)| *state == release.state);
    let outcome = release.ending.as_ref().map(|it| it.outcome.as_str());
    if now.is_none() && !back && outcome != Some("promoted") {
        return None;
    }
    let asks = release.state == "awaiting_promotion";
    let steps = phases
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != 2 || asks)
        .map(|(index, (_, what))| {
            let (class, time) = match now {
                _ if outcome == Some("promoted") => ("done", String::new()),
                _ if back => ("ended", "going back".to_owned()),
                Some(now) if index < now => ("done", String::new()),
                Some(now) if index == now => (if asks { "hold" } else { "now" }, "now".to_owned()),
                _ => ("todo", "to come".to_owned()),
            };
            Step { class, what: (*what).to_owned(), time }
        })
        .collect();
    Some(Steps { note: started, steps, limits: None })
}

fn canary_steps(release: &Release, started: &str) -> Steps {
    let outcome = release.ending.as_ref().map(|it| it.outcome.as_str());
    let now = release.at_step();
    let steps = release
        .steps
        .iter()
        .enumerate()
        .map(|(index, step)| {
            let spent = release.step_age_ms.map_or("now".to_owned(), |ms| format!("now, {}", words::clock(ms)));
            let (class, time) = match outcome {
                Some("promoted") => ("done", String::new()),
                _ if index < now => ("done", String::new()),
                Some(_) if index == now => ("ended", "ended".to_owned()),
                Some(_) => ("todo", "not reached".to_owned()),
                None if index == now && (release.paused.is_some() || release.waits.is_some()) => ("hold", spent),
                None if index == now => ("now", spent),
                None => {
                    ("todo", step.dwell_ms.filter(|ms| *ms > 0).map_or("to come".to_owned(), |ms| format!("at least {}", words::clock(ms))))
                }
            };
            Step { class, what: words::weight(step.weight), time }
        })
        .collect();
    let limits = release.steps.get(now).filter(|_| outcome.is_none()).and_then(|step| {
        let passed = |dwell: u64| if release.step_age_ms.is_some_and(|age| age >= dwell) { " (passed)" } else { "" };
        let least = step.dwell_ms.filter(|ms| *ms > 0).map(|ms| format!("at least {} in this step{}", words::clock(ms), passed(ms)));
        let most = step.max_ms.map(|ms| format!("at most {}", words::clock(ms)));
        let both: Vec<String> = least.into_iter().chain(most).collect();
        (!both.is_empty()).then(|| account::sentence(&both.join(", ")))
    });
    Steps { note: format!("{} of {} · {started}", now + 1, release.steps.len()), steps, limits }
}

fn evidence(analysis: &Analysis, runs: bool) -> Evidence {
    let split_off = analysis.split.as_ref().is_some_and(|split| split.ok == Some(false));
    let rows: Vec<EvidenceRow> = analysis.metrics.iter().map(|metric| evidence_row(metric, split_off)).collect();
    let judged = analysis.metrics.iter().filter(|it| it.state != "dry_run" && it.kind != "guard");
    let (total, fine) = judged.fold((0, 0), |(total, fine), it| (total + 1, fine + u32::from(it.state == "fine")));
    if runs {
        return Evidence { heading: "Is it worse?", note: format!("{fine} of {total} metrics can advance; all must"), rows };
    }
    Evidence { heading: "The evidence when it ended", note: "all metrics together decide".to_owned(), rows }
}

fn evidence_row(metric: &Metric, split_off: bool) -> EvidenceRow {
    let (badge, known) = match metric.state.as_str() {
        _ if split_off => (badge("bad", "bad", "split off"), false),
        "warming" => (badge("", "hold", "waits"), false),
        "no_data" => (badge("warn", "warn", "no data"), false),
        "fine" => (badge("good", "ok", "fine"), true),
        "suspect" => (badge("warn", "warn", "suspect"), true),
        "worse" => (badge("bad", "bad", "worse"), true),
        "dry_run" => (badge("", "off", "dry run"), true),
        _ => (badge("", "hold", "not yet"), true),
    };
    let part_of = |share: Option<f64>| share.filter(|share| share.is_finite()).unwrap_or(0.0).clamp(0.0, 1.0);
    let (back, advance) = (part_of(metric.worse), part_of(metric.better));
    let name = account::name(metric);
    let label = if known {
        format!("{name}: {:.0} % of the evidence to roll back, {:.0} % of the evidence to advance", back * 100.0, advance * 100.0)
    } else {
        format!("{name}: no evidence")
    };
    EvidenceRow {
        badge,
        stable: metric.stable_text.clone().unwrap_or_else(|| "–".to_owned()),
        candidate: metric.candidate_text.clone().unwrap_or_else(|| "–".to_owned()),
        label,
        known,
        back_x: format!("{:.1}", 50.0 - back * 50.0),
        back: format!("{:.1}", back * 50.0),
        advance: format!("{:.1}", advance * 50.0),
        sentence: account::sentence(&metric.sentence),
        name,
    }
}

fn chart_panel(trend: &Trend, lines: &[Line], runs: bool) -> Charts {
    let heading = if lines.len() > 1 { "Both versions over time" } else { "Over time" };
    let note = if runs || lines.len() < 2 { "last 10 minutes" } else { "as it was when it ended" };
    let charts = charts::shown(trend, lines)
        .into_iter()
        .map(|kind| {
            let now: Vec<String> =
                lines.iter().map(|line| format!("{} {}", line.version, (kind.write)(charts::last(trend, line, kind)))).collect();
            let legend = legend(trend, lines, kind);
            let (label, drawing) = (format!("{}: now {}", kind.title, now.join(", ")), charts::draw(trend, lines, kind));
            Chart { id: kind.id, title: kind.title, label, legend, drawing, rows: table(trend, lines, kind) }
        })
        .collect();
    Charts { heading, note, charts, lines: lines.to_vec() }
}

pub(crate) fn legend(trend: &Trend, lines: &[Line], kind: &charts::Kind) -> String {
    let lines = lines.iter().map(|line| (line.role, line.version.clone(), (kind.write)(charts::last(trend, line, kind)))).collect();
    part(&Legend { lines })
}

fn table(trend: &Trend, lines: &[Line], kind: &charts::Kind) -> Vec<(String, Vec<String>)> {
    let data = charts::data(trend, lines, 0);
    let seconds: Vec<u64> = data["seconds"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_u64).collect();
    let row = |index: usize| {
        let values = data["values"][kind.id].as_array().into_iter().flatten();
        (words::second(seconds[index] * 1_000), values.map(|row| (kind.write)(row[index].as_f64())).collect())
    };
    (0..seconds.len()).rev().filter(|index| seconds[*index].is_multiple_of(ROW_SECONDS)).map(row).collect()
}

fn versions(service: &Service, release: Option<&Release>) -> Versions {
    let running = release.filter(|it| it.ending.is_none());
    let weight = running.map_or(0, Release::candidate_weight);
    let mut names: Vec<&String> = Vec::new();
    let stable = running.and_then(|it| it.stable.as_ref());
    for name in stable
        .into_iter()
        .chain(service.serves.as_ref())
        .chain(running.map(|it| &it.candidate))
        .chain(service.targets.iter().map(|it| &it.version))
    {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let rows = names
        .into_iter()
        .map(|name| {
            let is_candidate = running.is_some_and(|it| it.candidate == *name);
            let is_stable = running.map_or(service.serves.as_ref() == Some(name), |it| it.stable.as_ref() == Some(name));
            let parts = match (running, is_candidate) {
                (Some(_), true) => weight,
                (Some(_), false) if is_stable => 10_000 - weight,
                (None, _) if is_stable => 10_000,
                _ => 0,
            };
            let role = match (is_candidate, is_stable) {
                (true, _) if parts == 0 => "candidate, preview only",
                (true, _) => "candidate",
                (_, true) if running.is_some() => "stable",
                (_, true) => "active, stable",
                _ if service.rejected.contains(name) => "rejected",
                _ => "standby",
            };
            let measured = release.and_then(|it| it.versions.iter().find(|it| it.version == *name));
            let targets = service.targets.iter().filter(|it| it.version == *name);
            let (healthy, frozen, all) = targets
                .fold((0, 0, 0), |(healthy, frozen, all), it| (healthy + u32::from(it.healthy), frozen + u32::from(it.frozen), all + 1));
            VersionRow {
                is_candidate,
                version: name.clone(),
                role: role.to_owned(),
                share: words::weight(parts),
                requests: measured.and_then(|it| it.requests).map_or("–".to_owned(), words::count),
                failed: measured.and_then(|it| it.bad).map_or("–".to_owned(), words::count),
                targets: if frozen > 0 { format!("{frozen} of {all} frozen") } else { format!("{healthy} of {all} healthy") },
            }
        })
        .collect();
    let split = release.and_then(|it| it.analysis.as_ref()).and_then(|it| it.split.as_ref()).and_then(|it| it.ok).map(|ok| {
        if ok {
            ("ok", "The split matches the weight.".to_owned())
        } else {
            ("bad", "The split does not match the weight: nothing is judged.".to_owned())
        }
    });
    let counted = release.is_some_and(|it| it.versions.iter().any(|it| it.requests.is_some()));
    Versions { note: if counted { "so far" } else { "" }, rows, counted, split }
}

fn other(service: &Service, release: Option<&Release>, choices: Vec<Choice>, events: &[Happening]) -> Other {
    let name = &service.service;
    let mut lines = vec![format!("In a terminal: `changeover status`, `changeover logs {name}`")];
    let preview = events.iter().rev().find(|it| it.kind == "preview" || it.text.trim_start().starts_with("preview "));
    if service.running().is_some()
        && let Some(preview) = preview
    {
        let text = preview.text.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
        lines.insert(0, format!("Preview of the candidate: {text}"));
    }
    if service.running().is_none() {
        lines.insert(0, format!("A new version: `changeover deploy {name} --version …`"));
        lines.insert(1, account::rollback_takes(&service.rollback));
    }
    let mut lines: Vec<String> = lines.iter().map(|line| words::marked(line)).collect();
    if let Some(release) = release.filter(|it| it.ending.is_some()) {
        let number = release.number;
        lines.push(format!(
            "<a href=\"/services/{name}/releases/{number}\">Release {number} on a page of its own</a>",
            name = words::escape(name)
        ));
    }
    Other { choices, lines }
}

fn timeline(events: &[Happening]) -> Timeline {
    let strong = ["promoted", "failed", "rolled_back", "aborted", "withdrawn", "superseded", "switched"];
    let first = events.first().map_or(0, |it| it.at_ms);
    let row = |(index, it): (usize, &Happening)| {
        let after = it.at_ms.saturating_sub(first);
        let since = match after {
            _ if index == 0 => "start".to_owned(),
            0..60_000 => format!("+{}", words::ms(Some(after as f64))),
            _ => format!("+{}", words::clock(after)),
        };
        // Texts are laid out for a terminal.
        let columns: Vec<String> = it.text.split("  ").map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect();
        let shown = match columns.as_slice() {
            // Begins with the name of the service.
            all if it.kind == "began" => all.join(" · "),
            all => account::sentence(&all.join(": ")),
        };
        TimelineRow { at: words::second(it.at_ms), since, strong: strong.contains(&it.kind.as_str()), html: words::marked(&shown) }
    };
    Timeline { rows: events.iter().enumerate().map(row).collect() }
}

impl House {
    /// What is now; waits for the first look after a start.
    pub(crate) async fn observed(&self) -> Option<Arc<Observed>> {
        let mut now = self.observer.subscribe();
        let seen = tokio::time::timeout(FIRST_LOOK_MAX, now.wait_for(|observed| observed.at_ms > 0)).await;
        seen.ok()?.ok().map(|it| it.clone())
    }

    pub(crate) async fn events_of(&self, service: &str, release: u64) -> Vec<Happening> {
        let Some(Span { first_seq, last_seq, .. }) = self.observer.span(service, release) else { return Vec::new() };
        let store = self.room.counter.engine.store();
        let mut events = store.happenings(first_seq.saturating_sub(1), Some(service.to_owned()), EVENTS_MAX).await;
        events.retain(|it| it.seq <= last_seq && it.release == Some(release));
        events
    }
}

pub(crate) async fn page(State(house): State<House>, caller: Caller, Segments(name): Segments<String>) -> Response {
    let Some(observed) = house.observed().await else { return not_yet() };
    let Some(service) = observed.status.service(&name) else { return no_such_service(&name) };
    let release = service.release.as_ref();
    let events = match release {
        Some(release) => house.events_of(&name, release.number).await,
        None => Vec::new(),
    };
    let trend = release.map_or_else(|| Some(house.observer.trend(&name)), |release| house.observer.trend_of(&name, release));
    // After an ending that nobody saw, the version that serves is shown.
    let trend = trend.or_else(|| Some(house.observer.trend(&name)));
    let reader = Reader::of(&caller);
    let note = caller.visit().and_then(|visit| visit.take_note());
    let view = View::of(service, release, true, Around { reader: &reader, note, events: &events, trend, now_ms: observed.at_ms });
    let live = Some(format!("/services/{name}/live"));
    shown(&house, &name, None, view, reader, live, observed.at_ms)
}

pub(crate) async fn finished(State(house): State<House>, caller: Caller, Segments((name, number)): Segments<(String, u64)>) -> Response {
    let Some(observed) = house.observed().await else { return not_yet() };
    let now = observed.status.service(&name);
    if now.and_then(Service::running).is_some_and(|it| it.number == number) {
        return Redirect::to(&format!("/services/{name}")).into_response();
    }
    let stored = reads::releases(&house.room, Some(&name)).await;
    let Some(stored) = stored.iter().find(|it| it["number"] == number) else {
        return refused(&rejected("not_found", format!("there is no release {number} of {name}"), None));
    };
    let mut release = Release::read_stored(stored);
    if release.analysis.is_none() {
        let stored = reads::last_look(&house.room, &name, number).await;
        release.analysis = stored.and_then(|it| serde_json::from_value(it).ok());
    }
    let gone = Service { service: name.clone(), ..Service::default() };
    let service = now.unwrap_or(&gone);
    let events = house.events_of(&name, number).await;
    let trend = house.observer.trend_of(&name, &release);
    let reader = Reader::of(&caller);
    let view =
        View::of(service, Some(&release), false, Around { reader: &reader, note: None, events: &events, trend, now_ms: observed.at_ms });
    shown(&house, &name, Some(number), view, reader, None, observed.at_ms)
}

fn shown(house: &House, name: &str, crumb: Option<u64>, view: View, reader: Reader, live: Option<String>, at_ms: u64) -> Response {
    let frame = Frame {
        title: view.title,
        place: "services",
        live,
        reader: Some(reader),
        has_bar: view.has_bar,
        has_flags: flags::are_served(&house.room),
        at: words::second(at_ms),
    };
    html(&ServicePage { frame, name: name.to_owned(), crumb, parts: view.parts, zone: words::time_zone() })
}

pub(crate) fn no_such_service(name: &str) -> Response {
    refused(&rejected("not_found", format!("there is no service {name}"), Some("what there is stands on the page of services")))
}
