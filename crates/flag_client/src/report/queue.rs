//! What waits to be reported. Pure: time comes in as an argument.
//!
//! **Invariant**: bounded, whatever the program does; what did not fit is counted. The same answer to the same user is reported once
//! in [`WINDOW_MS`]. Not here: sending (`sender.rs`), locks (`mod.rs`).

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashSet};
use serde::Serialize;

/// Ten seconds' worth at a thousand a second, some 2 MB.
pub(crate) const WAITING_MAX: usize = 10_000;
/// So many are sent without waiting for the next second.
pub(crate) const URGENT: usize = 500;
/// In one report. With the longest texts it has 300 kB, of which the server takes 512.
const BATCH: usize = 250;
/// Long enough to spare the server, short enough that it learns who is still there.
pub(crate) const WINDOW_MS: u64 = 60_000;
/// Names, keys and ids longer than this would make the server refuse the whole report.
const TEXT_BYTES_MAX: usize = 256;
/// Users remembered per half of a window, eight bytes each.
const SEEN_MAX: usize = 100_000;

/// Somebody got a variant of a flag that is in a rollout or an experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Exposure {
    pub(crate) flag: String,
    pub(crate) variant: String,
    pub(crate) targeting_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
    /// Unix time in milliseconds.
    #[serde(rename = "at_ms")]
    pub(crate) at_ms: u64,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) targeting_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
    pub(crate) metric: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<bool>,
}

/// One report.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Batch {
    pub(crate) exposures: Vec<Exposure>,
    pub(crate) outcomes: Vec<Outcome>,
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.exposures.len() + self.outcomes.len()
    }
}

#[derive(Default)]
pub(crate) struct Queue {
    exposures: VecDeque<Exposure>,
    outcomes: VecDeque<Outcome>,
    seen: Seen,
    pub(crate) dropped: u64,
}

impl Queue {
    /// `named`: flag, variant, targeting key, request. Nothing is added when it was reported a short time ago.
    /// Whether with this one it has become urgent to send.
    pub(crate) fn expose(&mut self, named: &(&str, &str, &str, Option<&str>), at_ms: u64) -> bool {
        let print = self.seen.print(named);
        if self.seen.contains(print, at_ms) {
            return false;
        }
        let (flag, variant, targeting_key, request_id) = *named;
        let fits = [flag, variant, targeting_key].into_iter().chain(request_id).all(fits);
        if self.exposures.len() == WAITING_MAX || !fits {
            // Not remembered either: with room it is reported the next time.
            self.dropped += 1;
            return false;
        }
        self.seen.insert(print);
        self.exposures.push_back(Exposure {
            flag: flag.to_owned(),
            variant: variant.to_owned(),
            targeting_key: targeting_key.to_owned(),
            request_id: request_id.map(str::to_owned),
            at_ms,
        });
        self.len() == URGENT
    }

    /// An outcome of nobody is of no use. Whether with this one it has become urgent to send.
    pub(crate) fn outcome(&mut self, outcome: Outcome) -> bool {
        let of = || [&outcome.targeting_key, &outcome.request_id].into_iter().flatten();
        let good = of().next().is_some() && of().chain([&outcome.metric]).all(|text| fits(text));
        if self.outcomes.len() == WAITING_MAX || !good {
            self.dropped += 1;
            return false;
        }
        self.outcomes.push_back(outcome);
        self.len() == URGENT
    }

    pub(crate) fn len(&self) -> usize {
        self.exposures.len() + self.outcomes.len()
    }

    /// The oldest, at most [`BATCH`]; exposures first, for outcomes refer to them.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        let exposures: Vec<Exposure> = self.exposures.drain(..self.exposures.len().min(BATCH)).collect();
        let room = BATCH - exposures.len();
        let outcomes = self.outcomes.drain(..self.outcomes.len().min(room)).collect();
        let batch = Batch { exposures, outcomes };
        (batch.len() > 0).then_some(batch)
    }

    /// What the server certainly has not taken: to the front again, as far as there is room.
    pub(crate) fn put_back(&mut self, batch: Batch) {
        for exposure in batch.exposures.into_iter().rev() {
            if self.exposures.len() < WAITING_MAX { self.exposures.push_front(exposure) } else { self.dropped += 1 }
        }
        for outcome in batch.outcomes.into_iter().rev() {
            if self.outcomes.len() < WAITING_MAX { self.outcomes.push_front(outcome) } else { self.dropped += 1 }
        }
    }
}

fn fits(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len())
}

/// What was reported lately, as fingerprints in two halves of a window: the older half is forgotten at once.
#[derive(Default)]
struct Seen {
    hasher: DefaultHashBuilder,
    now: HashSet<u64>,
    before: HashSet<u64>,
    turned_ms: u64,
}

impl Seen {
    fn print(&self, named: &(&str, &str, &str, Option<&str>)) -> u64 {
        self.hasher.hash_one(named)
    }

    fn contains(&mut self, print: u64, at_ms: u64) -> bool {
        // A clock that was set back turns the window too.
        let age = at_ms.abs_diff(self.turned_ms);
        if age >= WINDOW_MS {
            self.now.clear();
            self.before.clear();
            self.turned_ms = at_ms;
        } else if age >= WINDOW_MS / 2 || self.now.len() >= SEEN_MAX {
            self.before = std::mem::take(&mut self.now);
            self.turned_ms = at_ms;
        }
        self.now.contains(&print) || self.before.contains(&print)
    }

    fn insert(&mut self, print: u64) {
        self.now.insert(print);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str) -> Outcome {
        Outcome { targeting_key: Some("u".to_owned()), request_id: None, metric: name.to_owned(), value: None, failed: None }
    }

    #[test]
    fn once_per_user_variant_and_request_in_a_window() {
        let mut queue = Queue::default();
        let start = 1_000_000;
        for at in [start, start + 1, start + WINDOW_MS / 2 - 1] {
            queue.expose(&("f", "on", "u", None), at);
        }
        assert_eq!(queue.len(), 1);
        queue.expose(&("f", "off", "u", None), start);
        queue.expose(&("f", "on", "v", None), start);
        queue.expose(&("f", "on", "u", Some("r-1")), start);
        assert_eq!(queue.len(), 4);
        queue.expose(&("f", "on", "u", None), start + WINDOW_MS);
        assert_eq!(queue.len(), 5, "the window has passed");
    }

    #[test]
    fn urgent_once() {
        let mut queue = Queue::default();
        let urgent: Vec<usize> = (1..=2 * URGENT).filter(|_| queue.outcome(metric("m"))).collect();
        assert_eq!(urgent, [URGENT]);
    }

    #[test]
    fn bounded_and_counted() {
        let mut queue = Queue::default();
        for user in 0..WAITING_MAX + 7 {
            queue.expose(&("f", "on", &user.to_string(), None), 1_000_000);
            queue.outcome(metric("m"));
        }
        assert_eq!((queue.len(), queue.dropped), (2 * WAITING_MAX, 14));
        let batch = queue.take().expect("full");
        assert_eq!(batch.len(), BATCH);
        queue.expose(&("f", "on", "one more", None), 1_000_000);
        queue.put_back(batch);
        assert_eq!((queue.exposures.len(), queue.dropped), (WAITING_MAX, 15));
    }

    #[test]
    fn what_would_spoil_a_report_is_dropped() {
        let mut queue = Queue::default();
        queue.outcome(Outcome { targeting_key: None, ..metric("m") });
        queue.outcome(metric(""));
        queue.expose(&("f", "on", &"u".repeat(257), None), 1);
        assert_eq!((queue.len(), queue.dropped), (0, 3));
    }

    #[test]
    fn put_back_keeps_the_order() {
        let mut queue = Queue::default();
        for name in ["a", "b", "c"] {
            queue.outcome(metric(name));
        }
        let batch = queue.take().expect("three");
        queue.outcome(metric("d"));
        queue.put_back(batch);
        let names: Vec<String> = queue.take().expect("four").outcomes.into_iter().map(|outcome| outcome.metric).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn as_the_server_reads_it() {
        let mut queue = Queue::default();
        queue.expose(&("f", "on", "u", Some("r")), 5);
        queue.outcome(Outcome { value: Some(12.5), ..metric("checkout") });
        let json = serde_json::to_value(queue.take()).expect("JSON");
        let expected = serde_json::json!({
            "exposures": [{"flag": "f", "variant": "on", "targetingKey": "u", "requestId": "r", "at_ms": 5}],
            "outcomes": [{"targetingKey": "u", "metric": "checkout", "value": 12.5}],
        });
        assert_eq!(json, expected);
    }
}
