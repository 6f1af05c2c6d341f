//! The count that all clients of a load write to.
//!
//! **Invariant:** `lost <= requests`, and only requests that have ended are counted.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

const ERRORS_MAX: usize = 10;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that have ended, one way or the other.
    pub requests: u64,
    /// Any error, reset, truncated body, or status of 500 and more that no version gave.
    pub lost: u64,
    /// Answers of 500 and more that a version gave itself, by its `x-version`.
    pub failed_by_version: BTreeMap<String, u64>,
    /// Complete answers by the `x-version` they carried.
    pub by_version: BTreeMap<String, u64>,
    /// Connections that the peer closed in order, while idle or by `connection: close` or GOAWAY.
    pub connections_closed_by_peer: u64,
    /// The latest errors, oldest first.
    pub last_errors: Vec<String>,
    /// Ids of orders that were acknowledged with 201.
    pub posted: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Ledger(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    tally: Tally,
    last_started: BTreeMap<String, Instant>,
}

impl Ledger {
    pub(crate) fn tally(&self) -> Tally {
        self.entries().tally.clone()
    }

    pub(crate) fn last_started_on(&self, version: &str) -> Option<Instant> {
        self.entries().last_started.get(version).copied()
    }

    pub(crate) fn answered(&self, started: Instant, version: Option<&str>, posted: Option<String>) {
        let mut entries = self.entries();
        entries.tally.requests += 1;
        entries.tally.posted.extend(posted);
        if let Some(version) = version {
            entries.note_version(version, started);
        }
    }

    pub(crate) fn failed(&self, version: &str) {
        let tally = &mut self.entries().tally;
        tally.requests += 1;
        *tally.failed_by_version.entry(version.to_owned()).or_default() += 1;
    }

    pub(crate) fn lost(&self, error: String) {
        let tally = &mut self.entries().tally;
        tally.requests += 1;
        tally.lost += 1;
        if tally.last_errors.len() == ERRORS_MAX {
            tally.last_errors.remove(0);
        }
        tally.last_errors.push(error);
    }

    pub(crate) fn closed_by_peer(&self) {
        self.entries().tally.connections_closed_by_peer += 1;
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().expect("no client panics while it holds the ledger")
    }
}

impl Entries {
    fn note_version(&mut self, version: &str, started: Instant) {
        if let Some(count) = self.tally.by_version.get_mut(version) {
            *count += 1;
        } else {
            self.tally.by_version.insert(version.to_owned(), 1);
        }
        match self.last_started.get_mut(version) {
            Some(last) => *last = started.max(*last),
            None => {
                self.last_started.insert(version.to_owned(), started);
            }
        }
    }
}
