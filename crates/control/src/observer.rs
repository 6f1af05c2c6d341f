//! Looks at the engine once a second, and when something happened, for as long as there is a page: what is, how it was in the last
//! ten minutes, and where in the events each release is.
//!
//! **Invariant**: bounded in versions, points and releases; nothing in here is worth keeping over a restart.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::{Command, Handle, Happening};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::page::seen::{Release, Service, Status};

/// One a second for ten minutes.
pub(crate) const POINTS_MAX: usize = 600;
/// Of a service: stable, candidate, and the ones before.
const VERSIONS_MAX: usize = 4;
/// Changes of weight within the points; a release has some five.
const MARKS_MAX: usize = 32;
/// Releases whose events are known to begin somewhere; the oldest are forgotten.
const SPANS_MAX: usize = 20_000;
/// Pages that are live at once: each costs some rendering a second, and a team has a few windows each.
pub(crate) const LIVE_MAX: usize = 64;
const EACH: Duration = Duration::from_secs(1);
/// Events come in groups.
const GATHER: Duration = Duration::from_millis(15);
/// Read from the store at once.
const PAGE_EVENTS: usize = 1_000;

/// How a version did at a second.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Point {
    /// Seconds since 1970.
    pub(crate) at_s: u64,
    pub(crate) rate: Option<f64>,
    /// 0 to 1.
    pub(crate) errors: Option<f64>,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

/// A moment to point at in a chart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) at_s: u64,
    pub(crate) text: String,
    pub(crate) bad: bool,
}

/// The points of a service, by version.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trend {
    pub(crate) points: BTreeMap<String, VecDeque<Point>>,
    pub(crate) marks: VecDeque<Mark>,
}

#[derive(Default)]
struct Kept {
    now: Trend,
    /// As it was when the last release ended.
    frozen: Option<(u64, Trend)>,
    /// Release and weight of the last mark.
    marked: Option<(u64, Option<u32>)>,
}

/// Where a release is in the events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) began_ms: u64,
    pub(crate) ended_ms: Option<u64>,
}

#[derive(Default)]
pub(crate) struct Observed {
    pub(crate) status: Status,
    pub(crate) at_ms: u64,
}

pub(crate) struct Observer {
    now: watch::Sender<Arc<Observed>>,
    trends: Mutex<HashMap<String, Kept>>,
    spans: Mutex<BTreeMap<(String, u64), Span>>,
    /// One for each live page.
    pub(crate) places: Arc<Semaphore>,
}

impl Default for Observer {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(LIVE_MAX));
        Self { now: watch::Sender::new(Arc::default()), trends: Mutex::default(), spans: Mutex::default(), places }
    }
}

impl Observer {
    pub(crate) async fn run(self: Arc<Self>, engine: Handle, end: CancellationToken) {
        let mut happenings = engine.subscribe();
        let mut last = self.catch_up(&engine, 0).await;
        let mut seconds = tokio::time::interval(EACH);
        seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let points = tokio::select! {
                () = end.cancelled() => return,
                _ = seconds.tick() => true,
                happened = happenings.recv() => {
                    match happened {
                        Ok(happening) if happening.seq > last => {
                            last = happening.seq;
                            self.note(&happening);
                        }
                        Ok(_) => {}
                        Err(broadcast::error::RecvError::Lagged(_)) => last = self.catch_up(&engine, last).await,
                        Err(broadcast::error::RecvError::Closed) => return,
                    }
                    tokio::time::sleep(GATHER).await;
                    while let Ok(happening) = happenings.try_recv() {
                        last = last.max(happening.seq);
                        self.note(&happening);
                    }
                    false
                }
            };
            self.look(&engine, points).await;
        }
    }

    /// `points`: a whole second has gone by.
    pub(crate) async fn look(&self, engine: &Handle, points: bool) {
        if let Ok(status) = engine.ask(Command::Status).await {
            self.saw(Status::read(&status), wall_ms(), points);
        }
    }

    async fn catch_up(&self, engine: &Handle, since: u64) -> u64 {
        let mut last = since;
        loop {
            let page = engine.store().happenings(last, None, PAGE_EVENTS).await;
            let full = page.len() == PAGE_EVENTS;
            for happening in page {
                last = last.max(happening.seq);
                self.note(&happening);
            }
            if !full {
                return last;
            }
        }
    }

    fn note(&self, happening: &Happening) {
        let Some(release) = happening.release else { return };
        let mut spans = lock(&self.spans);
        let fresh = Span { first_seq: happening.seq, last_seq: happening.seq, began_ms: happening.at_ms, ended_ms: None };
        let span = spans.entry((happening.service.clone(), release)).or_insert(fresh);
        span.last_seq = span.last_seq.max(happening.seq);
        if ["promoted", "failed", "rolled_back", "aborted", "withdrawn", "superseded"].contains(&happening.kind.as_str()) {
            span.ended_ms = Some(happening.at_ms);
        }
        if spans.len() > SPANS_MAX
            && let Some(oldest) = spans.iter().min_by_key(|(_, span)| span.first_seq).map(|(key, _)| key.clone())
        {
            spans.remove(&oldest);
        }
    }

    fn saw(&self, status: Status, at_ms: u64, points: bool) {
        if points {
            let mut trends = lock(&self.trends);
            trends.retain(|name, _| status.services.iter().any(|service| service.service == *name));
            for service in &status.services {
                trends.entry(service.service.clone()).or_default().saw(service, at_ms / 1_000);
            }
        }
        self.now.send_replace(Arc::new(Observed { status, at_ms }));
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Observed>> {
        self.now.subscribe()
    }

    pub(crate) fn span(&self, service: &str, release: u64) -> Option<Span> {
        lock(&self.spans).get(&(service.to_owned(), release)).copied()
    }

    /// The points of a service now.
    pub(crate) fn trend(&self, service: &str) -> Trend {
        lock(&self.trends).get(service).map(|kept| kept.now.clone()).unwrap_or_default()
    }

    /// The points of a release: as they are while it runs, as they were when it ended.
    pub(crate) fn trend_of(&self, service: &str, release: &Release) -> Option<Trend> {
        let trends = lock(&self.trends);
        let kept = trends.get(service)?;
        match &kept.frozen {
            _ if release.ending.is_none() => Some(kept.now.clone()),
            Some((number, trend)) if *number == release.number => Some(trend.clone()),
            _ => None,
        }
    }
}

impl Kept {
    fn saw(&mut self, service: &Service, at_s: u64) {
        let release = service.release.as_ref().filter(|release| release.ending.is_none());
        let compared = release.map(|release| release.versions.as_slice()).unwrap_or_default();
        for version in compared {
            let (rate, errors, p50_ms, p99_ms) = (version.rate, version.errors, version.p50_ms, version.p99_ms);
            self.now.add(&version.version, Point { at_s, rate, errors, p50_ms, p99_ms });
        }
        if compared.is_empty()
            && let Some(version) = &service.serves
        {
            self.now.add(version, Point { at_s, rate: service.rate, errors: service.errors, p50_ms: None, p99_ms: service.p99_ms });
        }
        self.mark(service, at_s);
        self.now.forget(at_s);
    }

    fn mark(&mut self, service: &Service, at_s: u64) {
        let Some(release) = &service.release else { return };
        let seen = (release.number, if release.ending.is_some() { None } else { Some(release.candidate_weight()) });
        let before = self.marked.replace(seen);
        // What was before we came is not known.
        let Some(before) = before.filter(|before| *before != seen) else { return };
        let ended = release.ending.as_ref();
        let text = match (ended, seen.1) {
            (Some(ending), _) if ending.outcome == "promoted" => None,
            (Some(_), _) => (before.1 > Some(0)).then(|| ("back".to_owned(), true)),
            (None, Some(0)) => (before.0 == seen.0 && before.1 > Some(0)).then(|| ("back".to_owned(), true)),
            (None, weight) => Some((crate::page::words::weight(weight.unwrap_or_default()), false)),
        };
        if let Some((text, bad)) = text {
            self.now.marks.push_back(Mark { at_s, text, bad });
        }
        if ended.is_some() && before.0 == seen.0 && before.1.is_some() {
            self.frozen = Some((release.number, self.now.clone()));
        }
    }
}

impl Trend {
    fn add(&mut self, version: &str, point: Point) {
        let points = self.points.entry(version.to_owned()).or_default();
        if points.back().is_none_or(|last| last.at_s < point.at_s) {
            points.push_back(point);
        }
    }

    fn forget(&mut self, at_s: u64) {
        let oldest = at_s.saturating_sub(POINTS_MAX as u64 - 1);
        for points in self.points.values_mut() {
            while points.front().is_some_and(|point| point.at_s < oldest) {
                points.pop_front();
            }
        }
        self.points.retain(|_, points| !points.is_empty());
        while self.marks.front().is_some_and(|mark| mark.at_s < oldest) || self.marks.len() > MARKS_MAX {
            self.marks.pop_front();
        }
        while self.points.len() > VERSIONS_MAX
            && let Some(stalest) = self.points.iter().min_by_key(|(_, points)| points.back().map(|point| point.at_s)).map(|it| it.0.clone())
        {
            self.points.remove(&stalest);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_and_versions_are_bounded() {
        let observer = Observer::default();
        for second in 0..2_000_u64 {
            let version = format!("v{}", second / 100);
            let status = serde_json::json!({ "services": [{ "service": "web", "serves": version, "rate": 1.0 }] });
            observer.saw(Status::read(&status), second * 1_000, true);
        }
        let trend = observer.trend("web");
        assert_eq!(trend.points.len(), VERSIONS_MAX);
        assert!(trend.points.values().all(|points| points.len() <= POINTS_MAX));
        observer.saw(Status::default(), 2_000_000, true);
        assert!(observer.trend("web").points.is_empty(), "a service that is gone is forgotten");
    }

    #[test]
    fn a_release_that_was_taken_back_keeps_its_points() {
        let observer = Observer::default();
        let see = |second: u64, weight: u32, ending: serde_json::Value| {
            let status = serde_json::json!({ "services": [{ "service": "web", "serves": "v1", "release": {
                "number": 2, "candidate": "v2", "stable": "v1", "state": "x", "strategy": "canary", "weight": weight, "ending": ending,
                "versions": [{ "version": "v1", "rate": 9.0 }, { "version": "v2", "rate": 1.0 }] } }] });
            observer.saw(Status::read(&status), second * 1_000, true);
        };
        see(1, 0, serde_json::Value::Null);
        see(2, 100, serde_json::Value::Null);
        see(3, 0, serde_json::json!({ "outcome": "rolled_back", "reason": "worse" }));
        let release = Release { number: 2, ending: Some(Default::default()), ..Release::default() };
        let trend = observer.trend_of("web", &release).expect("kept");
        let marks: Vec<_> = trend.marks.iter().map(|mark| (mark.at_s, mark.text.replace('\u{a0}', " "))).collect();
        assert_eq!(marks, [(2, "1 %".to_owned()), (3, "back".to_owned())]);
        assert_eq!(trend.points["v2"].len(), 2);
    }
}
