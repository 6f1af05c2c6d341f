//! The scales of a flag's rollout: units are users, each counted at its first exposure in a step, as sticky clients are.
//!
//! The statistic is the canary's, for the same reason: whom a raise moves is fixed by a hash, so a user's requests are one draw.

use crate::plan::{MetricKind, Plan};
use crate::scales::{Closing, Measured, SETS_MAX, Scales};

/// Scales for users of a rollout. `criteria`: names of metrics in which a user is bad or not, one counter set each, in this order;
/// at most [`SETS_MAX`], further ones are left out. Each has the same part of alpha. `closing_s`: so long after its first exposure a
/// user is what it is, in every criterion; whoever was not bad by then is good.
pub fn scales_of_users(plan: Plan, criteria: &[String], closing_s: u64) -> Scales {
    let criteria = &criteria[..criteria.len().min(SETS_MAX)];
    let closes = Closing { candidate: closing_s, stable: closing_s };
    let measured = |(set, name): (usize, &String)| Measured {
        name: name.clone(),
        kind: MetricKind::Error,
        part: 1.0 / criteria.len() as f64,
        // A user is one unit, however its requests hang together.
        phi: Some(1.0),
        sets: [set, set],
        closing: [closes; 2],
        since: Some(1),
    };
    let metrics = criteria.iter().enumerate().map(measured).collect();
    // Nothing warms up: the code of both variants runs already.
    let plan = Plan { warm_up: 0, timeout_bad: closing_s, closing: closing_s, ..plan };
    Scales::new(plan, metrics, Vec::new()).of_cohorts()
}
