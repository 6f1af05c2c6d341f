//! A trial as it runs: who was exposed to what, and what became of it.
//!
//! **Invariants**: a user counts by the variant it got, and only if shares gave it that; nothing that was not measured counts as
//! good. Not here: what follows from the counts (trials), statistics (judge).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use flags::{Bucketing, Context};
use model::Weight;
use telemetry::{CellCounts, Cohort, Draw, Member, RequestEnded, request_name, trace_id};
use xxhash_rust::xxh3::xxh3_64;

use crate::meters::{steady_ms, wall_ms};
use crate::people::People;
use crate::recent::Recent;
use crate::trial::REQUESTS;

/// So long after what first became of a user, it is what it is.
pub(crate) const CLOSING_S: u64 = 10;
/// Users that are watched at once; about 100 bytes each.
const USERS_MAX: usize = 262_144;
/// Requests that were evaluated for and have not ended, and those that ended before anybody said what they were evaluated for.
const REQUESTS_MAX: usize = 262_144;
/// No request takes longer and counts.
const REQUEST_S: u64 = 300;
/// Clients report exposures within this after the request has ended.
const EARLY_S: u64 = 10;
/// After a raise nobody is counted for so long: streams have brought the weight to every client by then. Left out by their arm, those
/// who have not heard of it would look like a wrong split.
const SETTLES: Duration = Duration::from_secs(1);
/// An outcome that is reported later than this after the exposure counts no more.
const EXPOSED_S: u64 = 600;

pub(crate) struct Watch {
    pub(crate) number: u64,
    key: String,
    bucketing: Bucketing,
    /// The flag as rules alone decide it: whom they name was not drawn.
    rules: ArcSwapOption<flags::Set>,
    state: Mutex<State>,
}

enum State {
    Users(Box<Users>),
    People(Box<People>),
}

/// Of a rollout.
struct Users {
    variant: String,
    control: String,
    criteria: Vec<String>,
    draw: Draw,
    /// Exposures count from then on.
    drawn_from: Duration,
    weight: Weight,
    cohort: Cohort,
    /// Users by request that has not ended.
    open: Recent<Exposed>,
    /// How requests ended of which nobody has said yet what they were evaluated for; true is badly.
    early: Recent<bool>,
    exposed: Recent<Exposed>,
    /// Per criterion: outcomes in this step, whichever.
    observed: Vec<u64>,
}

#[derive(Clone, Copy)]
struct Exposed {
    member: Member,
    /// What it was exposed by: an outcome that comes after a raise belongs to the step before.
    draw: Draw,
    arm: usize,
}

/// What became of a user, or of a request, as a client says it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome<'a> {
    pub user: Option<&'a str>,
    pub request: Option<&'a str>,
    /// A rollout's criterion or an experiment's goal.
    pub metric: &'a str,
    /// Of a goal; 1 when absent.
    pub value: Option<f64>,
    /// Of a criterion.
    pub failed: bool,
}

fn request_of(context: &Context) -> Option<u64> {
    let text = |name: &str| context.get(name).and_then(|value| value.as_str().map(str::to_owned));
    let trace = || text("traceparent").and_then(|value| trace_id(&value).map(str::to_owned));
    text("requestId").or_else(trace).filter(|id| !id.is_empty()).map(|id| request_name(&id))
}

fn now() -> Duration {
    Duration::from_millis(steady_ms())
}

impl Watch {
    pub(crate) fn of_rollout(
        number: u64,
        key: &str,
        bucketing: Bucketing,
        rules: Option<flags::Set>,
        [variant, control]: [&str; 2],
        criteria: &[String],
    ) -> Self {
        let users = Users {
            variant: variant.to_owned(),
            control: control.to_owned(),
            criteria: criteria.to_vec(),
            draw: Draw { epoch: 0, before: 0 },
            drawn_from: Duration::ZERO,
            weight: 0,
            cohort: Cohort::new(CLOSING_S, USERS_MAX),
            open: Recent::new(REQUESTS_MAX, REQUEST_S),
            early: Recent::new(REQUESTS_MAX, EARLY_S),
            exposed: Recent::new(USERS_MAX, EXPOSED_S),
            observed: vec![0; criteria.len()],
        };
        Self { number, key: key.to_owned(), bucketing, rules: swapped(rules), state: Mutex::new(State::Users(Box::new(users))) }
    }

    pub(crate) fn of_experiment(number: u64, key: &str, bucketing: Bucketing, rules: Option<flags::Set>, people: People) -> Self {
        Self { number, key: key.to_owned(), bucketing, rules: swapped(rules), state: Mutex::new(State::People(Box::new(people))) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever is counted from now on is counted for this draw.
    pub(crate) fn draw(&self, draw: Draw, weight: Weight) {
        let State::Users(users) = &mut *self.state() else { return };
        if users.draw.before != draw.before {
            users.observed.fill(0);
            users.drawn_from = now() + SETTLES;
        }
        (users.draw, users.weight) = (draw, weight);
    }

    /// Other flags, which it needs, may answer otherwise now.
    pub(crate) fn follow_rules(&self, rules: Option<flags::Set>) {
        self.rules.store(rules.map(Arc::new));
    }

    /// Shares decided, as far as one can see from here.
    fn is_drawn(&self, context: Option<&Context>) -> bool {
        let rules = self.rules.load();
        match (rules.as_deref(), context) {
            (None, _) => true,
            // The context that decided is not known.
            (Some(_), None) => false,
            (Some(rules), Some(context)) => {
                let decided = rules.evaluate(&self.key, context, (wall_ms() / 1_000) as i64);
                decided.is_ok_and(|evaluation| evaluation.variant.is_none())
            }
        }
    }

    pub(crate) fn evaluated(&self, variant: &str, context: &Context) {
        if let Some(user) = context.targeting_key().filter(|key| !key.is_empty()) {
            self.exposed(user, variant, request_of(context), Some(context));
        }
    }

    /// A client evaluated by itself.
    pub(crate) fn reported(&self, user: &str, variant: &str, request: Option<&str>) {
        self.exposed(user, variant, request.map(request_name), None);
    }

    fn exposed(&self, user: &str, variant: &str, request: Option<u64>, context: Option<&Context>) {
        if !self.is_drawn(context) {
            return;
        }
        let hash = xxh3_64(user.as_bytes());
        let place = flags::place(&self.key, user, self.bucketing);
        match &mut *self.state() {
            State::Users(users) => users.exposed(Member { hash, place: Some(place) }, variant, request),
            State::People(people) => people.exposed(hash, variant, now().as_secs()),
        }
    }

    /// The data plane has answered a request.
    pub(crate) fn ended(&self, ended: RequestEnded) {
        if let State::Users(users) = &mut *self.state() {
            users.ended(ended);
        }
    }

    pub(crate) fn awaits_requests(&self) -> bool {
        matches!(&*self.state(), State::Users(users) if users.criteria.iter().any(|name| name == REQUESTS))
    }

    /// True when somebody waits for it.
    pub(crate) fn outcome(&self, outcome: &Outcome<'_>) -> bool {
        match &mut *self.state() {
            State::Users(users) => users.outcome(outcome),
            State::People(people) => {
                let Some(user) = outcome.user else { return false };
                people.outcome(xxh3_64(user.as_bytes()), outcome.metric, outcome.value.unwrap_or(1.0), now().as_secs())
            }
        }
    }

    /// Cells that are not closed for good, complete up to `second`; and how often each criterion was observed in this step.
    pub(crate) fn read(&self, second: u64) -> Option<(Vec<CellCounts>, Vec<u64>)> {
        match &mut *self.state() {
            State::Users(users) => Some((users.cohort.read(second), users.observed.clone())),
            State::People(_) => None,
        }
    }

    pub(crate) fn people<T>(&self, ask: impl FnOnce(&mut People) -> T) -> Option<T> {
        match &mut *self.state() {
            State::Users(_) => None,
            State::People(people) => Some(ask(people)),
        }
    }
}

fn swapped(rules: Option<flags::Set>) -> ArcSwapOption<flags::Set> {
    ArcSwapOption::from(rules.map(Arc::new))
}

impl Users {
    fn exposed(&mut self, member: Member, variant: &str, request: Option<u64>) {
        if now() < self.drawn_from {
            return;
        }
        let arm = if variant == self.variant {
            0
        } else if variant == self.control {
            1
        } else {
            return;
        };
        // A client that has not heard of the newest weight yet.
        if member.place.is_some_and(|place| (place < self.weight) != (arm == 0)) {
            return;
        }
        let (exposed, now_s) = (Exposed { member, draw: self.draw, arm }, now().as_secs());
        self.exposed.put(member.hash, exposed, now_s);
        let Some(request) = request else { return };
        match self.early.take(request, now_s) {
            Some(bad) => self.count(exposed, REQUESTS, bad),
            None => self.open.put(request, exposed, now_s),
        }
    }

    fn ended(&mut self, ended: RequestEnded) {
        let now_s = now().as_secs();
        let names = || ended.names.into_iter().filter(|name| *name != 0);
        match names().find_map(|name| self.open.take(name, now_s)) {
            Some(exposed) => self.count(exposed, REQUESTS, ended.bad),
            None => names().for_each(|name| self.early.put(name, ended.bad, now_s)),
        }
    }

    fn outcome(&mut self, outcome: &Outcome<'_>) -> bool {
        let metric = outcome.metric;
        if metric == REQUESTS || !self.criteria.iter().any(|name| name == metric) {
            return false;
        }
        let now_s = now().as_secs();
        let by_user = outcome.user.and_then(|user| self.exposed.get(xxh3_64(user.as_bytes()), now_s));
        let by_request = || outcome.request.and_then(|id| self.open.get(request_name(id), now_s));
        let Some(exposed) = by_user.or_else(by_request) else { return false };
        self.count(exposed, metric, outcome.failed);
        true
    }

    fn count(&mut self, exposed: Exposed, criterion: &str, bad: bool) {
        let Some(set) = self.criteria.iter().position(|name| name == criterion) else { return };
        self.observed[set] += u64::from(exposed.draw.before == self.draw.before);
        let window = Duration::from_secs(CLOSING_S);
        if let Some(seat) = self.cohort.enter(exposed.member, exposed.draw, exposed.arm, now(), window).filter(|_| bad) {
            self.cohort.bad(seat, 1 << set);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Watch {
        let criteria = ["checkout".to_owned()];
        let watch = Watch::of_rollout(1, "flag", Bucketing::V2, None, ["new", "old"], &criteria);
        watch.draw(Draw { epoch: 1, before: 0 }, 500);
        watch
    }

    fn told(watch: &Watch, user: &str) -> bool {
        watch.outcome(&Outcome { user: Some(user), request: None, metric: "checkout", value: None, failed: false })
    }

    #[test]
    fn who_was_exposed_before_a_raise_says_nothing_of_the_split_after_it() {
        let watch = users();
        let names: Vec<String> = (0..2_000).map(|user| user.to_string()).collect();
        for name in &names {
            let place = flags::place("flag", name, Bucketing::V2);
            watch.reported(name, if place < 500 { "new" } else { "old" }, None);
        }
        // Their outcomes come when the weight is another: all of them had the old variant, whatever their place.
        watch.draw(Draw { epoch: 2, before: 500 }, 2_000);
        assert!(names.iter().all(|name| told(&watch, name)));
        let cells = watch.read(now().as_secs() + 1).map(|(cells, _)| cells).unwrap_or_default();
        assert!(cells.iter().all(|cell| cell.epoch == 1), "{cells:?}");
        // Just after a raise a client may still show what was right before.
        watch.reported("late", "old", None);
        assert!(!told(&watch, "late"));
    }
}
