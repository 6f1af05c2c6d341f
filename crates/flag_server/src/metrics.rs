//! Counts, in Prometheus' text format.
//!
//! **Invariant**: labels come from fixed lists and the board's environments, never from what a client sends.
//! Source: Prometheus text exposition format 0.0.4.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use flag_engine::Board;
use flags::Reason;

use crate::admission::Refused;
use crate::readiness::Readiness;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Ofrep,
    EvaluationV1,
    EvaluationV2,
}

/// Streams that wait for changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Ofrep,
    Evaluation,
    Sync,
}

const PROTOCOLS: [&str; 3] = ["ofrep", "flagd_v1", "flagd_v2"];
const RESULTS: [&str; 8] =
    ["STATIC", "DEFAULT", "TARGETING_MATCH", "DISABLED", "FLAG_NOT_FOUND", "PARSE_ERROR", "TYPE_MISMATCH", "GENERAL"];
const STREAMS: [&str; 3] = ["ofrep", "evaluation", "sync"];
const REFUSALS: [&str; 3] = ["unauthorized", "forbidden", "unknown_environment"];

#[derive(Default)]
pub(crate) struct Metrics {
    evaluations: [[AtomicU64; RESULTS.len()]; PROTOCOLS.len()],
    bulk: AtomicU64,
    unchanged: AtomicU64,
    refused: [AtomicU64; REFUSALS.len()],
    pushed: [AtomicU64; STREAMS.len()],
    pub(crate) streams: [AtomicUsize; STREAMS.len()],
    pub(crate) connections: AtomicUsize,
    pub(crate) connections_refused: AtomicU64,
}

impl Metrics {
    pub(crate) fn evaluated(&self, protocol: Protocol, reason: Reason) {
        self.failed(protocol, reason.as_str());
    }

    /// By OpenFeature's error code; one that is not known here counts as general.
    pub(crate) fn failed(&self, protocol: Protocol, result: &str) {
        let place = RESULTS.iter().position(|known| *known == result).unwrap_or(RESULTS.len() - 1);
        self.evaluations[protocol as usize][place].fetch_add(1, Relaxed);
    }

    /// All flags were asked for; `unchanged`: the client had them already.
    pub(crate) fn bulk(&self, unchanged: bool) {
        if unchanged { &self.unchanged } else { &self.bulk }.fetch_add(1, Relaxed);
    }

    pub(crate) fn refused(&self, refused: Refused) {
        let place = match refused {
            Refused::Unauthorized => 0,
            Refused::Forbidden => 1,
            Refused::UnknownEnvironment => 2,
        };
        self.refused[place].fetch_add(1, Relaxed);
    }

    pub(crate) fn pushed(&self, stream: Stream) {
        self.pushed[stream as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn text(&self, board: &Board, readiness: &Readiness) -> String {
        let mut page = Page::default();
        page.head("changeover_flags_evaluations_total", "counter", "Flags that were asked for, by reason or error code.");
        for (protocol, counts) in PROTOCOLS.iter().zip(&self.evaluations) {
            for (result, count) in RESULTS.iter().zip(counts) {
                page.line(&[("protocol", protocol), ("result", result)], count.load(Relaxed));
            }
        }
        page.head("changeover_flags_bulk_total", "counter", "Requests for all flags, by what was answered.");
        page.line(&[("answer", "flags")], self.bulk.load(Relaxed));
        page.line(&[("answer", "not_modified")], self.unchanged.load(Relaxed));
        page.head("changeover_flags_refused_total", "counter", "Calls without a token that permits them.");
        for (why, count) in REFUSALS.iter().zip(&self.refused) {
            page.line(&[("why", why)], count.load(Relaxed));
        }
        page.head("changeover_flags_streams", "gauge", "Open streams of changes.");
        for (stream, count) in STREAMS.iter().zip(&self.streams) {
            page.line(&[("protocol", stream)], count.load(Relaxed) as u64);
        }
        page.head("changeover_flags_pushed_total", "counter", "Changes sent on streams.");
        for (stream, count) in STREAMS.iter().zip(&self.pushed) {
            page.line(&[("protocol", stream)], count.load(Relaxed));
        }
        page.head("changeover_flags_connections", "gauge", "Open connections.");
        page.line(&[], self.connections.load(Relaxed) as u64);
        page.head("changeover_flags_connections_refused_total", "counter", "Connections closed as they came: too many are open.");
        page.line(&[], self.connections_refused.load(Relaxed));
        sets(&mut page, board, readiness);
        page.text
    }
}

fn sets(page: &mut Page, board: &Board, readiness: &Readiness) {
    let served: Vec<_> = board.environments().iter().filter_map(|name| board.now(name)).collect();
    page.head("changeover_flags_set_revision", "gauge", "The set that is served: rises with every change, from 1 at a start.");
    for set in &served {
        page.line(&[("environment", &set.environment)], set.revision);
    }
    page.head("changeover_flags_set_flags", "gauge", "Flags in the set that is served.");
    for set in &served {
        page.line(&[("environment", &set.environment)], set.set.len() as u64);
    }
    page.head("changeover_flags_set_refused", "gauge", "1 while the newest version of a set cannot be served.");
    for set in &served {
        let refused = readiness.refused.iter().any(|it| *it.environment == *set.environment);
        page.line(&[("environment", &set.environment)], u64::from(refused));
    }
}

#[derive(Default)]
struct Page {
    text: String,
    name: &'static str,
}

impl Page {
    fn head(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, labels: &[(&str, &str)], value: u64) {
        let escape = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.text, "{}{labels} {value}", self.name);
    }
}
