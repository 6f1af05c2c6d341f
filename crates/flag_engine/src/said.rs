//! What follows from a look at a rollout, and how one says it: pure.

use std::collections::BTreeMap;

use judge::Scales;
use model::thousands;
use release::rollout::{Action, Rollout};
use serde::{Deserialize, Serialize};

use crate::trial::What;

/// A criterion that was observed less often in a step says nothing.
const OBSERVED_MIN: u64 = 100;

/// The newest look, in words.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) verdict: String,
    pub(crate) sentence: String,
    /// 1 decides.
    pub(crate) evidence_worse: f64,
    pub(crate) evidence_better: f64,
    /// Per criterion: users of the variant, bad ones; users of the control, bad ones.
    pub(crate) seen: BTreeMap<String, [u64; 4]>,
    pub(crate) at_s: u64,
}

/// What follows from a look, and how one says it.
pub(crate) fn weigh(
    scales: &Scales,
    outcome: &judge::Outcome,
    rollout: &Rollout,
    observed: &[u64],
    what: &What,
    now_s: u64,
) -> (Action, Said) {
    let (variant, control) = match what {
        What::Rollout { variant, control, .. } => (variant.as_str(), control.as_str()),
        What::Experiment { .. } => ("", ""),
    };
    let seen: BTreeMap<String, [u64; 4]> = scales
        .metrics()
        .iter()
        .map(|metric| {
            let [candidate, stable] = scales.known(metric);
            (metric.name.clone(), [candidate.closed, candidate.bad, stable.closed, stable.bad])
        })
        .collect();
    let counts = |name: &str| {
        let [users, bad, others, others_bad] = seen.get(name).copied().unwrap_or_default();
        format!(
            "{} of {} users of `{variant}` against {} of {} of `{control}`",
            thousands(bad),
            thousands(users),
            thousands(others_bad),
            thousands(others)
        )
    };
    let worst = outcome.ln_e_worse_by_metric.iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or("", |(name, _)| name.as_str());
    let silent = rollout.plan.criteria.names().iter().zip(observed).find(|(_, count)| **count < OBSERVED_MIN);
    let (action, verdict, sentence) = match (outcome.action, silent) {
        (judge::Action::Advance, Some((name, count))) => {
            let sentence = format!("`{name}` was observed {count} times in this step, which says nothing: it is held");
            (Action::Hold, "not measured", sentence)
        }
        (judge::Action::Advance, None) => (Action::Advance, "healthy", format!("not worse: {}", counts(worst))),
        (judge::Action::Rollback, _) => (Action::Rollback, "regressed", format!("`{worst}` is worse: {}", counts(worst))),
        (judge::Action::Withdraw, _) => {
            (Action::Withdraw, "withdrawn", "users are not split as the shares say, so that nothing can be compared".to_owned())
        }
        (judge::Action::Hold | judge::Action::Ask, Some((name, count))) => {
            (Action::Hold, "not measured", format!("`{name}` was observed {count} times in this step so far"))
        }
        (judge::Action::Hold | judge::Action::Ask, None) if outcome.verdict == judge::Verdict::Expired => {
            (Action::Hold, "expired", format!("no decision in {} min, it waits on: {}", rollout.plan.max_step_s / 60, counts(worst)))
        }
        (judge::Action::Hold | judge::Action::Ask, None) => (Action::Hold, "not yet", format!("not decided: {}", counts(worst))),
    };
    let said = Said {
        verdict: verdict.to_owned(),
        sentence,
        evidence_worse: outcome.evidence_worse,
        evidence_better: outcome.evidence_better,
        seen,
        at_s: now_s,
    };
    (action, said)
}
