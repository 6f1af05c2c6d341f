//! What a deploy would do, and how long its steps would take with the traffic of now. Too little traffic is said beforehand,
//! with a plan that would work.

use judge::{MetricKind, Plan, evidence_seconds};
use model::{Canary, Judging, ServiceName, VersionName, WEIGHT_SUM, Weight, thousands};
use serde_json::{Value, json};

use crate::analysis::QUANTILES;
use crate::command::Rejected;
use crate::engine::Caretaker;
use crate::releases::in_words;
use crate::said::weight;

/// Ladders and budgets that are tried when the wanted ones need too long; the first that fits is proposed.
const LADDERS: [&[Weight]; 2] = [&[1_000, 2_500, 5_000, WEIGHT_SUM], &[2_500, 5_000, WEIGHT_SUM]];
const BUDGETS: [f64; 5] = [0.001, 0.002, 0.005, 0.01, 0.02];
/// Longest times of a step, in seconds.
const LIMITS_S: [u64; 4] = [1_800, 7_200, 14_400, 43_200];

/// Traffic as it is now.
struct Traffic {
    /// Requests per second.
    rate: f64,
    /// Stable's share of failed requests.
    errors: f64,
}

struct Ahead {
    weight: Weight,
    /// Without any evidence it lasts so long.
    waits_s: f64,
    /// What evidence needs beyond that; infinite: it never comes.
    evidence_s: f64,
    seconds: f64,
    limit_s: f64,
}

impl Ahead {
    fn fits(&self) -> bool {
        self.waits_s + self.evidence_s <= self.limit_s / 2.0
    }
}

/// Each step below 100 %.
fn ahead(canary: &Canary, judging: &Judging, traffic: &Traffic) -> Vec<Ahead> {
    let timeout_bad = judging.timeout_bad_ms.div_ceil(1_000);
    let plan = Plan { budget: judging.budget, lat_budget: judging.latency_budget, ..Plan::default() };
    let waits = (judging.warm_up_ms + canary.sticky_window_ms) as f64 / 1_000.0 + timeout_bad as f64;
    let latencies = QUANTILES.map(|(_, quantile)| (MetricKind::Latency, 1.0 - quantile as f64 / 10_000.0, 1.0));
    let metrics: Vec<_> = std::iter::once((MetricKind::Error, traffic.errors, 1.0)).chain(latencies).collect();
    let nexts = canary.steps.iter().skip(1).map(|step| step.weight);
    let steps = canary.steps.iter().zip(nexts).filter(|(step, _)| (1..WEIGHT_SUM).contains(&step.weight));
    steps
        .map(|(step, next)| {
            let evidence_s = evidence_seconds(&plan, &metrics, step.weight, next, traffic.rate);
            let seconds = (step.dwell_ms as f64 / 1_000.0).max(waits + evidence_s);
            Ahead { weight: step.weight, waits_s: waits, evidence_s, seconds, limit_s: step.max_ms as f64 / 1_000.0 }
        })
        .collect()
}

/// A plan that this traffic is enough for, in words of the file.
fn proposal(canary: &Canary, judging: &Judging, traffic: &Traffic) -> Option<String> {
    let own: Vec<Weight> = canary.steps.iter().map(|step| step.weight).collect();
    let ladders = std::iter::once(own.as_slice()).chain(LADDERS);
    let plans = ladders.flat_map(|ladder| BUDGETS.into_iter().flat_map(move |budget| LIMITS_S.map(|limit_s| (ladder, budget, limit_s))));
    // The least that has to be given up: first time, then the budget, then small steps.
    let mut plans: Vec<_> = plans.filter(|(_, budget, _)| *budget >= judging.budget).collect();
    plans.sort_by(|a, b| (a.2, a.1).partial_cmp(&(b.2, b.1)).unwrap_or(std::cmp::Ordering::Equal));
    plans.into_iter().find_map(|(ladder, budget, limit_s)| {
        let steps = ladder.iter().map(|weight| model::Step {
            weight: *weight,
            dwell_ms: 0,
            max_ms: limit_s * 1_000,
            gates: Vec::new(),
            targets: None,
        });
        let tried = Canary { steps: steps.collect(), ..canary.clone() };
        let judging = Judging { budget, latency_budget: judging.latency_budget.max(2.0 * budget), ..judging.clone() };
        ahead(&tried, &judging, traffic).iter().all(Ahead::fits).then(|| {
            let ladder: Vec<String> = ladder.iter().map(|weight| format!("{}%", f64::from(*weight) / 100.0)).collect();
            let (budget, latency) = (shown(judging.budget), shown(judging.latency_budget));
            let limit = limit_s / 60;
            format!("steps: [{}], max_step: {limit}m, analysis: {{ budget: {budget}, latency_budget: {latency} }}", ladder.join(", "))
        })
    })
}

fn shown(share: f64) -> String {
    format!("{}%", (share * 1e6).round() / 1e4)
}

impl Caretaker {
    pub(crate) fn forecast(&self, name: &ServiceName, version: &VersionName) -> Result<Value, Rejected> {
        let service = self.service(name)?;
        let desired = self.deployable(name)?;
        let gates: Vec<&str> = desired.strategy.gates.iter().map(|gate| gate.name.as_str()).collect();
        let Some(canary) = desired.strategy.canary.as_ref().filter(|_| service.active.is_some()) else {
            let steps = json!([]);
            return Ok(json!({
                "service": name, "from": service.active, "candidate": version, "strategy": "blue_green", "units": self.units_of(name), "gates": gates, "steps": steps,
                "watch_ms": desired.strategy.watch_ms, "note": null, "proposal": null,
            }));
        };
        let traffic = self.traffic(name);
        let judging = match &canary.analysis {
            model::Analysis::Judged(judging) => Some(judging),
            model::Analysis::None { .. } => None,
        };
        let ahead = judging.map(|judging| ahead(canary, judging, &traffic)).unwrap_or_default();
        let steps: Vec<Value> = canary
            .steps
            .iter()
            .map(|step| {
                let of = ahead.iter().find(|ahead| ahead.weight == step.weight);
                let seconds = of.map(|ahead| ahead.seconds).filter(|seconds| seconds.is_finite());
                let unjudged = step.dwell_ms as f64 / 1_000.0;
                let lasts = if of.is_some() {
                    seconds
                } else if step.weight < WEIGHT_SUM {
                    Some(unjudged)
                } else {
                    None
                };
                json!({
                    "weight": step.weight, "dwell_ms": step.dwell_ms, "max_ms": step.max_ms,
                    "gates": step.gates.iter().map(|gate| gate.name.as_str()).collect::<Vec<_>>(),
                    "seconds": lasts, "requests": lasts.map(|seconds| (seconds * traffic.rate).ceil() as u64),
                    "candidate_requests":
                        lasts.map(|seconds| (seconds * traffic.rate * f64::from(step.weight) / f64::from(WEIGHT_SUM)).ceil() as u64),
                    "fits": of.is_none_or(Ahead::fits),
                })
            })
            .collect();
        let (note, proposal) = match self.too_little_traffic(name, canary) {
            Some((note, proposal)) => (Some(note), proposal),
            None => (None, None),
        };
        Ok(json!({
            "service": name, "from": service.active, "candidate": version, "strategy": "canary", "units": self.units_of(name), "gates": gates, "steps": steps,
            "rate": traffic.rate, "errors": traffic.errors, "watch_ms": desired.strategy.watch_ms, "note": note, "proposal": proposal,
            "unjudged": match &canary.analysis { model::Analysis::None { reason } => Some(reason), model::Analysis::Judged(_) => None },
        }))
    }

    fn traffic(&self, name: &ServiceName) -> Traffic {
        let Some(stable) = self.services.get(name).and_then(|service| service.active.clone()) else {
            return Traffic { rate: 0.0, errors: 0.0 };
        };
        let counts = self.data_plane.counts(name, &stable);
        Traffic { rate: self.data_plane.recent(name, &stable).rate, errors: counts.bad as f64 / counts.requests.max(1) as f64 }
    }

    /// Why the plan does not fit the traffic, and one that would.
    pub(crate) fn too_little_traffic(&self, name: &ServiceName, canary: &Canary) -> Option<(String, Option<String>)> {
        let model::Analysis::Judged(judging) = &canary.analysis else { return None };
        let traffic = self.traffic(name);
        if traffic.rate == 0.0 {
            let text = format!("there is no traffic now: nothing can be judged without {}, and the steps would hold", self.units_of(name));
            return Some((text, None));
        }
        let ahead = ahead(canary, judging, &traffic);
        let worst = ahead.iter().filter(|ahead| !ahead.fits()).max_by(|a, b| a.evidence_s.total_cmp(&b.evidence_s))?;
        let needs = match worst.seconds {
            seconds if seconds.is_finite() => format!("about {}", in_words(seconds * 1_000.0)),
            _ => format!("more {} than will ever come", self.units_of(name)),
        };
        let text = format!(
            "little traffic: at {} {}/s the step of {} needs {needs} to be settled, and its limit is {}",
            thousands(traffic.rate.round() as u64),
            self.units_of(name),
            weight(f64::from(worst.weight) / f64::from(WEIGHT_SUM)),
            in_words(worst.limit_s * 1_000.0)
        );
        Some((text, proposal(canary, judging, &traffic)))
    }

    /// At the start of a release.
    pub(crate) async fn tell_of_little_traffic(&mut self, name: &ServiceName) {
        let Some(canary) = self.running_release(name).filter(|it| it.stable.is_some()).and_then(|it| it.settings.canary.clone()) else {
            return;
        };
        let Some((text, proposal)) = self.too_little_traffic(name, &canary) else { return };
        let proposal = proposal.map(|proposal| format!("\n             a plan that would work: {proposal}")).unwrap_or_default();
        self.tell(name, "little_traffic", format!("traffic    {text}{proposal}")).await;
    }
}
