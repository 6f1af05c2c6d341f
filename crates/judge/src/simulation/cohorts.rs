//! Sticky clients: who is on the candidate stays there, so a unit is one client in one step, not a request.
//!
//! Clients differ in how much they ask (Zipf) and in how often they fail (Gamma), which is what ruins a count of requests.

use model::{WEIGHT_SUM, Weight};
use rand_distr::{Distribution, Exp, Gamma};
use serde::{Deserialize, Serialize};

use super::chance::{Chance, chance, poisson, uniform};
use super::on_all_cores;
use crate::mixture::ln_evidence;
use crate::plan::{MetricKind, Plan, epoch_seconds};
use crate::scales::{Closing, Measured, Scales, Tallies, Tally};
use crate::units::{Arms, Epoch, Share, Side, Units};
use crate::verdict::Verdict;

/// Clients, a ladder of weights, and what the candidate does to its clients' errors. Every step is forced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cohorts {
    pub clients: usize,
    pub rps: f64,
    /// Mean share of errors per request, and the shape of its Gamma distribution over clients.
    pub errors: f64,
    pub shape: f64,
    /// So many clients fail at 90 %.
    pub chronic: usize,
    pub steps: Vec<Weight>,
    pub step_s: u64,
    /// Per step: the candidate multiplies a client's errors by this.
    pub factors: Vec<f64>,
    /// A unit is bad if it fails within so many seconds of its first request.
    pub window_s: u64,
    pub runs: u32,
    pub seed: u64,
}

impl Default for Cohorts {
    fn default() -> Self {
        Self {
            clients: 20_000,
            rps: 1_000.0,
            errors: 0.005,
            shape: 0.1,
            chronic: 0,
            steps: vec![500, 2_000, 5_000],
            step_s: 900,
            factors: vec![1.0; 3],
            window_s: 60,
            runs: 200,
            seed: 77,
        }
    }
}

/// Seconds from the release's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CohortRelease {
    pub regressed_at: Option<u64>,
    pub split_at: Option<u64>,
    /// Requests were counted instead, and the same evidence was asked for.
    pub by_request_at: Option<u64>,
}

/// Plays all releases, in order of their number.
pub fn cohort_releases(cohorts: &Cohorts) -> Vec<CohortRelease> {
    on_all_cores(cohorts.runs, &|_| {}, |number| play(cohorts, number))
}

struct Client {
    /// Where it is in the hash of the release: on the candidate below the weight.
    place: Weight,
    rate: f64,
    errors: f64,
}

/// A change of the cell of second `drawn`: one client more is drawn, or is bad.
#[derive(Clone, Copy)]
struct Change {
    drawn: u64,
    is_candidate: bool,
    is_bad: bool,
}

fn play(cohorts: &Cohorts, number: u32) -> CohortRelease {
    let mut chance = chance(cohorts.seed, number);
    let clients = clients(cohorts, &mut chance);
    let closing = cohorts.window_s + Plan::default().timeout_bad;
    let plan = Plan { warm_up: 0, timeout_bad: closing, closing, ..Plan::default() };
    let closes = Closing { candidate: closing, stable: closing };
    let errors = Measured {
        name: "errors".to_owned(),
        kind: MetricKind::Error,
        part: 1.0,
        phi: Some(1.0),
        sets: [0, 0],
        closing: [closes; 2],
        since: Some(1),
    };
    let mut scales = Scales::new(plan, vec![errors], Vec::new()).of_cohorts();
    let (mut release, mut by_request) = (CohortRelease::default(), Vec::new());
    let mut before = 0;
    for (step, weight) in cohorts.steps.iter().enumerate() {
        let (began, factor) = (step as u64 * cohorts.step_s, cohorts.factors.get(step).copied().unwrap_or(1.0));
        scales.begin_step(step, Share::of_raise(before, *weight), cohorts.steps.get(step + 1).copied().unwrap_or(WEIGHT_SUM));
        scales.acknowledged(began);
        let changes = changes(cohorts, &clients, before, *weight, factor, &mut chance);
        let mut cells = vec![(0, Tallies::default()); cohorts.step_s as usize];
        for second in 0..cohorts.step_s {
            let now = began + second;
            if scales.is_due(now) {
                scales.open_next(now);
                scales.acknowledged(now);
            }
            cells[second as usize].0 = scales.epoch();
            for change in &changes[second as usize] {
                let (epoch, cell) = &mut cells[change.drawn as usize];
                change.apply(cell);
                scales.put(*epoch, began + change.drawn, *cell);
            }
            let outcome = scales.look(now + 1);
            if outcome.verdict == Verdict::Regressed {
                release.regressed_at.get_or_insert(now + 1);
            }
            if outcome.reason == "split" {
                release.split_at.get_or_insert(now + 1);
            }
            let length = epoch_seconds(0);
            if (second + 1) % length == 0 {
                by_request.push(requests(&clients, *weight, factor, length, &mut chance));
                if ln_evidence(&by_request, Side::Worse, 1.1, 0.000_2, 1.0) >= 20_f64.ln() {
                    release.by_request_at.get_or_insert(now + 1);
                }
            }
        }
        before = *weight;
    }
    release
}

fn clients(cohorts: &Cohorts, chance: &mut Chance) -> Vec<Client> {
    let all: f64 = (1..=cohorts.clients).map(|rank| 1.0 / rank as f64).sum();
    let gamma = Gamma::new(cohorts.shape, cohorts.errors / cohorts.shape).expect("shape and mean are above 0");
    let mut clients: Vec<Client> = (1..=cohorts.clients)
        .map(|rank| Client {
            place: model::below_parts(|| rand::Rng::next_u64(chance)),
            rate: cohorts.rps / all / rank as f64,
            errors: gamma.sample(chance).min(0.9),
        })
        .collect();
    // The first of a shuffle.
    let mut order: Vec<usize> = (0..clients.len()).collect();
    for at in 0..cohorts.chronic.min(clients.len()) {
        let with = at + (uniform(chance) * (order.len() - at) as f64) as usize;
        order.swap(at, with);
        clients[order[at]].errors = 0.9;
    }
    clients
}

impl Client {
    fn errors_on(&self, weight: Weight, factor: f64) -> f64 {
        if self.place < weight { (self.errors * factor).min(0.95) } else { self.errors }
    }
}

/// What happens in each second of a step to the units that are drawn in it: clients that were on stable so far.
fn changes(cohorts: &Cohorts, clients: &[Client], before: Weight, weight: Weight, factor: f64, chance: &mut Chance) -> Vec<Vec<Change>> {
    let mut changes = vec![Vec::new(); cohorts.step_s as usize];
    let window = cohorts.window_s as f64;
    for client in clients.iter().filter(|client| client.place >= before) {
        let first = Exp::new(client.rate).expect("every client asks for something").sample(chance);
        let Some(of_second) = changes.get_mut(first as usize) else { continue };
        let (is_candidate, errors, drawn) = (client.place < weight, client.errors_on(weight, factor), first as u64);
        of_second.push(Change { drawn, is_candidate, is_bad: false });
        let later = poisson(chance, client.rate * window * errors);
        let bad_at = if uniform(chance) < errors {
            first
        } else if later > 0 {
            // The first of `later` moments within the window.
            first + window * (1.0 - uniform(chance).powf(1.0 / later as f64))
        } else {
            continue;
        };
        if let Some(of_second) = changes.get_mut(bad_at as usize) {
            of_second.push(Change { drawn, is_candidate, is_bad: true });
        }
    }
    changes
}

impl Change {
    fn apply(self, cell: &mut Tallies) {
        let tally: &mut Tally = if self.is_candidate { &mut cell.candidate } else { &mut cell.stable };
        if self.is_bad { tally.bad[0] += 1 } else { tally.drawn += 1 }
    }
}

/// An epoch in which requests are counted, as if each were drawn for itself.
fn requests(clients: &[Client], weight: Weight, factor: f64, seconds: u64, chance: &mut Chance) -> Epoch {
    let mut means = [[0.0; 2]; 2];
    for client in clients {
        let of_arm = &mut means[usize::from(client.place >= weight)];
        let (requests, errors) = (client.rate * seconds as f64, client.errors_on(weight, factor));
        of_arm[0] += requests * (1.0 - errors);
        of_arm[1] += requests * errors;
    }
    let [candidate, stable] = means.map(|[good, bad]| {
        let bad = poisson(chance, bad);
        Units { closed: poisson(chance, good) + bad, bad }
    });
    Epoch { share: Share::of_weight(weight), arms: Arms { candidate, stable } }
}
