//! What the stream writes and evaluations read.
//!
//! **Invariant**: a set is exchanged whole and only for another good one, so nobody ever sees half of one, nor none after one.
//! Not here: the stream (`stream.rs`), what an answer looks like (`evaluate.rs`).

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use flags::{Bucketing, Context, Problem, Set};
use hashbrown::HashSet;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::report::Reports;
use crate::status::{State, Status};

/// A set in use.
pub(crate) struct Held {
    pub(crate) set: Set,
    /// Flags in a rollout or an experiment: their evaluations are reported.
    pub(crate) exposed: HashSet<Box<str>>,
    /// What the server adds to every context, over what the program says.
    added: Map<String, Value>,
}

impl Held {
    fn new(set: Set, added: Map<String, Value>) -> Self {
        let wanted = |flag: &&flags::Flag| flag.metadata().get("exposures").is_some_and(|value| value == true);
        let exposed = set.flags().filter(wanted).map(|flag| flag.key().into()).collect();
        Self { set, exposed, added }
    }

    /// With what the server adds: a copy then, else as it is.
    pub(crate) fn enriched<'a>(&self, context: &'a Context) -> Cow<'a, Context> {
        if self.added.is_empty() {
            return Cow::Borrowed(context);
        }
        Cow::Owned(self.added.iter().fold(context.clone(), |context, (name, value)| context.with(name, value.clone())))
    }
}

pub(crate) struct Shared {
    held: ArcSwapOption<Held>,
    status: watch::Sender<Status>,
    in_error: AtomicU64,
    pub(crate) reports: Option<Arc<Reports>>,
}

impl Shared {
    pub(crate) fn new(reports: Option<Arc<Reports>>) -> Self {
        Self { held: ArcSwapOption::empty(), status: watch::Sender::default(), in_error: AtomicU64::new(0), reports }
    }

    pub(crate) fn held(&self) -> arc_swap::Guard<Option<Arc<Held>>> {
        self.held.load()
    }

    pub(crate) fn has_values(&self) -> bool {
        self.held.load().is_some()
    }

    /// `added`: what the server adds to every context.
    pub(crate) fn accept(&self, set: Set, added: Map<String, Value>, from_server: bool) {
        self.held.store(Some(Arc::new(Held::new(set, added))));
        self.update(|status| status.accepted(from_server));
    }

    /// Wakes whoever waits for a state.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    pub(crate) fn state(&self) -> State {
        self.status.borrow().state
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(crate) fn count_error(&self) {
        self.in_error.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn errors(&self) -> u64 {
        self.in_error.load(Ordering::Relaxed)
    }
}

/// A set as the server sends it, or as a person wrote it. It says itself how it buckets; one that says nothing is flagd's, of today: v2.
/// What is wrong with a set is said in one sentence.
pub(crate) fn compile(text: &str) -> Result<Set, String> {
    let set = compile_for(text, Bucketing::default())?;
    let Some(named) = set.metadata().get("bucketing") else {
        return Ok(set);
    };
    match Bucketing::deserialize(named) {
        Ok(bucketing) if bucketing == set.bucketing() => Ok(set),
        Ok(bucketing) => compile_for(text, bucketing),
        Err(_) => Err(format!("the set buckets by {named}, which this program does not know: update changeover-flags")),
    }
}

fn compile_for(text: &str, bucketing: Bucketing) -> Result<Set, String> {
    let is_json = text.trim_start().starts_with('{');
    let set = if is_json { Set::from_json(text, bucketing) } else { Set::from_yaml(text, bucketing) };
    set.map_err(|problems| sentence(&problems))
}

fn sentence(problems: &[Problem]) -> String {
    let Some(first) = problems.first() else {
        return "nobody knows why".to_owned();
    };
    let more = if problems.len() > 1 { format!(" (and {} more)", problems.len() - 1) } else { String::new() };
    format!("{}{more}", first.to_string().replace('\n', "; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_says_how_it_buckets_in_json_and_in_yaml() {
        let bucketing = |text| compile(text).map(|set| set.bucketing());
        assert_eq!(bucketing(r#"{"flags": {}}"#), Ok(Bucketing::V2));
        assert_eq!(bucketing(r#"{"flags": {}, "metadata": {"bucketing": "v3"}}"#), Ok(Bucketing::V3));
        assert_eq!(bucketing("flags: {}\nmetadata: {bucketing: v3}\n"), Ok(Bucketing::V3));
        let unknown = bucketing(r#"{"flags": {}, "metadata": {"bucketing": "v9"}}"#).expect_err("unknown");
        assert!(unknown.contains("v9"), "{unknown}");
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        let wrong = compile("{\"flags\":\n  {\"a\": {\"state\": \"ENABLED\"}}}").expect_err("no variants");
        assert!(wrong.contains("2:") && wrong.contains("`a`") && !wrong.contains('\n'), "{wrong}");
    }
}
