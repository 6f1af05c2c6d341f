//! Files of reference vectors in the shared format: what another implementation must compute, and where this one differs.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::bounds::{difference_bound, quantile_rank_width, ratio_lower_bound};
use crate::dispersion::overdispersion;
use crate::latency::{epoch_of_histograms, threshold_bucket};
use crate::mixture::ln_evidence;
use crate::plan::{MetricKind, Plan, epoch_seconds, units_needed};
use crate::prefix::{Cell, Opened, delays, prefix};
use crate::scalars::{ScalarSums, scalar_bounds};
use crate::split::{Drawn, ln_split_evidence};
use crate::units::{Arms, Epoch, Share, Side, Units};
use crate::verdict::{Action, Guard, Look, Scalar, ShareMetric, Verdict, judge};

/// The first case whose output is not ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub kind: String,
    pub name: String,
    pub expected: String,
    pub computed: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`: expected {}, computed {}", self.kind, self.name, self.expected, self.computed)
    }
}

impl std::error::Error for Difference {}

/// How many cases agree, if all do. A case that cannot be read counts as different.
pub fn check_vectors(text: &str) -> Result<usize, Difference> {
    let unreadable = |name: &str, why: String| Difference {
        kind: "file".to_owned(),
        name: name.to_owned(),
        expected: "reference vectors".to_owned(),
        computed: why,
    };
    let file: Value = serde_json::from_str(text).map_err(|error| unreadable("", error.to_string()))?;
    let cases = file["vectors"].as_array().ok_or_else(|| unreadable("vectors", "no such list".to_owned()))?;
    for case in cases {
        let (kind, name) = (case["kind"].as_str().unwrap_or_default(), case["name"].as_str().unwrap_or_default());
        let computed = compute(kind, &case["input"]).unwrap_or(Value::Null);
        let tolerance = case["tol"].as_f64().unwrap_or(0.0);
        if !is_same(&computed, &case["output"], tolerance, kind == "judge") {
            let (expected, computed) = (case["output"].to_string(), computed.to_string());
            return Err(Difference { kind: kind.to_owned(), name: name.to_owned(), expected, computed });
        }
    }
    Ok(cases.len())
}

/// `relative`: the tolerance is of the number's size, where that is above 1.
fn is_same(computed: &Value, expected: &Value, tolerance: f64, relative: bool) -> bool {
    match (computed, expected) {
        (Value::Object(ours), Value::Object(theirs)) => {
            theirs.iter().all(|(key, value)| ours.get(key).is_some_and(|own| is_same(own, value, tolerance, relative)))
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(own, value)| is_same(own, value, tolerance, relative))
        }
        (Value::Number(own), Value::Number(value)) => {
            let (own, value) = (own.as_f64().unwrap_or(f64::NAN), value.as_f64().unwrap_or(f64::NAN));
            let size = if relative { value.abs().max(1.0) } else { 1.0 };
            (own - value).abs() <= tolerance * size
        }
        (own, value) => own == value,
    }
}

fn compute(kind: &str, input: &Value) -> Option<Value> {
    let number = |key: &str| input[key].as_f64();
    let whole = |key: &str| input[key].as_u64();
    Some(match kind {
        "log_e" => {
            let ln_e = ln_evidence(&epochs(&input["epochs"])?, side(input)?, number("rho")?, number("delta")?, number("phi")?);
            finite(ln_e)
        }
        "prefix" => prefix_of(input)?,
        "delays" => json!(delays(whole("H")?)),
        "log_e_split" => finite(ln_split_evidence(&draws(&input["draws"])?, number("strength")?)),
        "below_parts" => below_parts(input)?,
        "sticky_w" => {
            let share = Share::of_raise(whole("t_prev")? as u16, whole("t")? as u16);
            json!([share.parts, share.of])
        }
        "epoch_len" => json!(list(&input["ages"], |age| Some(epoch_seconds(age.as_f64()? as u64)))?),
        "edge" => json!(list(&input["i"], |index| Some(model::latency_edge_ns(index.as_u64()? as usize).to_string()))?),
        "bucket" => json!(list(&input["ns"], |ns| Some(model::latency_bucket(whole_number(ns)?)))?),
        "threshold" => {
            let histogram = histogram(&input["hist"])?;
            json!(list(&input["q"], |q| Some(threshold_bucket(&histogram, q.as_u64()?)))?)
        }
        "latency_epochs" => latency_epochs(input)?,
        "margin" => {
            let plan = Plan::default();
            let of = |kind| list(&input["t_next"], |next| Some(plan.margin(kind, next.as_u64()? as u16)));
            json!([of(MetricKind::Error)?, of(MetricKind::Latency)?])
        }
        "forecast" => finite(units_needed(number("p")?, number("rho")?, number("margin")?, number("phi")?)),
        "scalar_bounds" => {
            let sums = ScalarSums { count: whole("n")?, sum: number("s1")?, sum_of_squares: number("s2")? };
            let (low, high) = scalar_bounds(&sums, number("alpha")?, number("tol")?, number("t_opt")?, whole("n_min")?);
            json!([finite(low), finite(high)])
        }
        "bound" => {
            let epochs = epochs(&input["epochs"])?;
            json!(difference_bound(&epochs, side(input)?, number("alpha")?, number("rho")?, number("phi")?))
        }
        "ratio_lower" => json!(ratio_lower_bound(&epochs(&input["epochs"])?, number("alpha")?, 1.0)),
        "quantile_width" => json!(quantile_rank_width(number("q")?, whole("n")?, number("alpha")?)),
        "phi_hat" => {
            let blocks = list(&input["blocks"], |block| Some((block[0].as_u64()?, block[1].as_u64()?)))?;
            let share = Share { parts: whole("t")? as u32, of: whole("of")? as u32 };
            json!(overdispersion(&blocks, share, whole("min_bad")?))
        }
        "judge" => judged(&input["state"], &input["opt"])?,
        _ => return None,
    })
}

/// JSON has no infinity: null.
fn finite(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { Value::Null }
}

/// Whole numbers beyond a double's precision are written as text.
fn whole_number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn list<T>(values: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    values.as_array()?.iter().map(read).collect()
}

fn side(input: &Value) -> Option<Side> {
    match input["side"].as_str()? {
        "worse" => Some(Side::Worse),
        "better" => Some(Side::Better),
        _ => None,
    }
}

/// `[t, of, n_c, b_c, n_s, b_s]`
fn epoch(value: &Value) -> Option<Epoch> {
    let at = |index: usize| value[index].as_u64();
    let share = Share { parts: at(0)? as u32, of: at(1)? as u32 };
    let (candidate, stable) = (Units { closed: at(2)?, bad: at(3)? }, Units { closed: at(4)?, bad: at(5)? });
    Some(Epoch { share, arms: Arms { candidate, stable } })
}

fn epochs(values: &Value) -> Option<Vec<Epoch>> {
    list(values, epoch)
}

fn as_list(epoch: &Epoch) -> Value {
    let arms = &epoch.arms;
    json!([epoch.share.parts, epoch.share.of, arms.candidate.closed, arms.candidate.bad, arms.stable.closed, arms.stable.bad])
}

/// `[t, of, a_c, a_s]`
fn draws(values: &Value) -> Option<Vec<Drawn>> {
    list(values, |value| {
        let share = Share { parts: value[0].as_u64()? as u32, of: value[1].as_u64()? as u32 };
        Some(Drawn { share, candidate: value[2].as_u64()?, stable: value[3].as_u64()? })
    })
}

fn prefix_of(input: &Value) -> Option<Value> {
    let cells = list(&input["cells"], |cell| {
        let at = |index: usize| cell[index].as_u64();
        Some(Cell {
            epoch: at(0)? as u32,
            second: at(1)?,
            drawn_candidate: at(2)?,
            drawn_stable: at(3)?,
            arms: Arms { candidate: Units { closed: at(4)?, bad: at(5)? }, stable: Units { closed: at(6)?, bad: at(7)? } },
        })
    })?;
    let mut opened = BTreeMap::new();
    for (number, epoch) in input["epochs"].as_object()? {
        let share = Share { parts: epoch[0].as_u64()? as u32, of: epoch[1].as_u64()? as u32 };
        let counted = epoch[2].as_bool().unwrap_or_else(|| epoch[2].as_u64() != Some(0));
        opened.insert(number.parse().ok()?, Opened { share, counted });
    }
    let seen = prefix(&cells, &opened, input["now"].as_u64()?, input["D"].as_u64()?, side(input)?, input["close"].as_u64());
    Some(Value::Array(seen.iter().map(as_list).collect()))
}

fn below_parts(input: &Value) -> Option<Value> {
    let words = list(&input["words"], whole_number)?;
    let mut used = 0;
    let value = model::below_parts(|| {
        used += 1;
        words.get(used - 1).copied().unwrap_or(u64::MAX)
    });
    Some(json!({ "value": value, "words_used": used }))
}

fn histogram(value: &Value) -> Option<BTreeMap<usize, u64>> {
    list(value, |pair| Some((pair[0].as_u64()? as usize, pair[1].as_u64()?))).map(|pairs| pairs.into_iter().collect())
}

fn latency_epochs(input: &Value) -> Option<Value> {
    let share = Share { parts: input["t"].as_u64()? as u32, of: input["of"].as_u64()? as u32 };
    let (candidate, stable) = (histogram(&input["canary_hist"])?, histogram(&input["stable_hist"])?);
    let of = |threshold: usize, shift: usize| as_list(&epoch_of_histograms(share, &candidate, &stable, threshold, shift));
    let plan = Plan::default();
    let both = |threshold: &Value| {
        let threshold = threshold.as_u64()? as usize;
        Some(json!({ "worse": of(threshold, plan.lat_shift_worse), "better": of(threshold, plan.lat_shift_better) }))
    };
    list(&input["thresholds"], both).map(Value::Array)
}

fn judged(state: &Value, changed: &Value) -> Option<Value> {
    let plan: Plan = match changed {
        Value::Null => Plan::default(),
        changed => serde_json::from_value(changed.clone()).ok()?,
    };
    let outcome = judge(&look(state)?, &plan);
    let numbers =
        |of: &BTreeMap<String, f64>| -> Map<String, Value> { of.iter().map(|(name, ln_e)| (name.clone(), finite(*ln_e))).collect() };
    let verdict = match outcome.verdict {
        Verdict::Regressed => "Regressed",
        Verdict::GuardRail => "GuardRail",
        Verdict::Inconclusive => "Inconclusive",
        Verdict::Healthy => "Healthy",
        Verdict::Expired => "Expired",
    };
    let action = match outcome.action {
        Action::Advance => "advance",
        Action::Rollback => "rollback",
        Action::Hold => "hold",
        Action::Withdraw => "withdraw",
        Action::Ask => "ask",
    };
    Some(json!({
        "verdict": verdict,
        "reason": outcome.reason,
        "action": action,
        "ln_e_worse": finite(outcome.ln_e_worse),
        "best_d": outcome.best_delay_s.map(|delay| delay.to_string()),
        "ln_e_worse_by_metric": numbers(&outcome.ln_e_worse_by_metric),
        "ln_e_better": numbers(&outcome.ln_e_better),
        "ln_e_split": finite(outcome.ln_e_split),
        "evidence_worse": finite(outcome.evidence_worse),
        "evidence_better": finite(outcome.evidence_better),
    }))
}

fn look(state: &Value) -> Option<Look> {
    let guard = |index: usize| state["guard"][index].as_u64();
    Some(Look {
        step_age_s: state["age"].as_f64()? as u64,
        next_weight: state["t_next"].as_u64()? as u16,
        regressed: state["regressed"].as_bool()?,
        split_since_s: state["split_since"].as_f64().map(|since| since as u64),
        draws: draws(&state["draws"])?,
        guard: Guard { candidate_closed: guard(0)?, candidate_bad: guard(1)?, stable_closed: guard(2)?, stable_bad: guard(3)? },
        shares: list(&state["shares"], share_metric)?,
        scalars: list(&state["scalars"], scalar)?,
    })
}

fn share_metric(value: &Value) -> Option<ShareMetric> {
    let mut worse = Vec::new();
    for (delay, of_delay) in value["worse"].as_object()? {
        worse.push((delay.parse().ok()?, epochs(of_delay)?));
    }
    Some(ShareMetric {
        name: value["name"].as_str()?.to_owned(),
        kind: if value["kind"] == "latency" { MetricKind::Latency } else { MetricKind::Error },
        part: value["a"].as_f64()?,
        phi: value["phi"].as_f64(),
        worse,
        better: epochs(&value["better"])?,
    })
}

fn scalar(value: &Value) -> Option<Scalar> {
    let sums = |of: &Value| Some(ScalarSums { count: of[0].as_u64()?, sum: of[1].as_f64()?, sum_of_squares: of[2].as_f64()? });
    Some(Scalar {
        name: value["name"].as_str()?.to_owned(),
        part: value["a"].as_f64()?,
        tolerance: value["tol"].as_f64()?,
        margin: value["margin"].as_f64()?,
        skewed: false,
        promotes: value["promotes"].as_bool()?,
        release: sums(&value["release"])?,
        step: sums(&value["step"])?,
    })
}
