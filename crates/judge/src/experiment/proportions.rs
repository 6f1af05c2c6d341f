//! Exact intervals for conversions that hold at every look at once: no large sample, no normal law.
//!
//! With Y = 1 for a user who converts and w the treated variant's share of the two, for every constant c
//!     Z = A·(Y − c)/w − (1 − A)·(Y − c)/(1 − w)
//! has mean p₁ − p₀ because users are drawn, so that the product of 1 + λ·(Z − δ) is a bet that the null p₁ − p₀ ≤ δ cannot win in
//! the long run (Waudby-Smith and Ramdas, arXiv 2010.09686; Ville 1939). A mixture over λ and c is one, too; all δ that it does not
//! refute are the interval. For the ratio the bet is on p₁ − ρ·p₀, divided by 1 + ρ, where it is worth the same at ρ = 1: a lift
//! excludes 0 exactly when the difference does. The shares must be those that users are drawn with, which the split check looks after.
//! **Invariant**: bets do not depend on δ or ρ, so that evidence falls with them and what is refuted is an interval.

use serde::{Deserialize, Serialize};

use super::report::Interval;
use crate::mixture::ln_sum;

/// λ from the largest legal one down, by halves: the smallest is best for about 1e9 users.
const BETS: i32 = 14;
/// Values for c, and how much is put on each: it saves half of the users near 50 %, where Z without it is too loud.
const CENTRES: [(f64, f64); 3] = [(0.0, 0.5), (0.5, 0.25), (1.0, 0.25)];
/// Never more than this fraction of the legal maximum.
const CAP: f64 = 0.98;
/// More will not come, and no bet is small enough for them.
const USERS_MAX: f64 = 1e10;
const STEPS_MAX: usize = 200;
/// Of an interval's end; of a ratio's, relative.
const PRECISION: f64 = 1e-12;
/// A larger ratio is not told apart from infinity.
const RATIO_MAX: f64 = 1e6;

/// Users of a variant whose time is over, and how many of them converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Converted {
    pub users: u64,
    pub converted: u64,
}

/// Two variants and the shares by which users were drawn between them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    pub treated: Converted,
    pub control: Converted,
    pub treated_share: u32,
    pub control_share: u32,
}

/// Of p₁ − p₀, two-sided; a false interval ever at most `level` of the time.
pub fn difference_of_proportions(pair: &Pair, level: f64) -> Interval {
    let low = lowest_difference(pair, level / 2.0);
    let high = -lowest_difference(&pair.swapped(), level / 2.0);
    Interval { low: Some(low), high: Some(high) }
}

/// Of p₁ / p₀; without an upper end while p₀ may be 0.
pub fn ratio_of_proportions(pair: &Pair, level: f64) -> Interval {
    let low = lowest_ratio(pair, level / 2.0);
    let high = Some(lowest_ratio(&pair.swapped(), level / 2.0)).filter(|low| *low > 0.0).map(|low| 1.0 / low);
    Interval { low: Some(low), high }
}

/// Of one variant's p, two-sided.
pub fn proportion_interval(of: Converted, level: f64) -> Interval {
    let (converted, others) = (of.converted as f64, of.users.saturating_sub(of.converted) as f64);
    let excess = |hits: f64, misses: f64, p: f64| {
        let terms: Vec<f64> =
            (0..BETS).map(|bet| CAP * 0.5_f64.powi(bet)).map(|l| hits * (l * (1.0 - p)).ln_1p() + misses * (-l * p).ln_1p()).collect();
        ln_sum(&terms) - f64::from(BETS).ln() - (2.0 / level).ln()
    };
    let low = last_refuted(0.0, 1.0, |p| excess(converted, others, p));
    let high = 1.0 - last_refuted(0.0, 1.0, |p| excess(others, converted, p));
    Interval { low: Some(low), high: Some(high) }
}

/// Users of both variants together until shares of `treated` and `control` that convert are told apart (medians of simulations are 70 to 90 % of it); infinite:
/// never. Shares as of [`Pair`].
pub fn users_until_found([treated, control]: [f64; 2], [treated_share, control_share]: [u32; 2], level: f64) -> f64 {
    if treated < control {
        return users_until_found([control, treated], [control_share, treated_share], level);
    }
    let nobody = Converted::default();
    let inverse = Pair { treated: nobody, control: nobody, treated_share, control_share }.inverse_shares();
    let [w, v] = inverse.map(|inverse| 1.0 / inverse);
    let one_user = [w * treated, w * (1.0 - treated), v * control, v * (1.0 - control)];
    let values = |c: f64| [(1.0 - c) * inverse[0], -c * inverse[0], (c - 1.0) * inverse[1], c * inverse[1]];
    let lacks = |ln_users: f64| (2.0 / level).ln() - ln_evidence(one_user.map(|part| part * ln_users.exp()), inverse, values);
    let ln_users = last_refuted(0.0, USERS_MAX.ln(), lacks);
    if treated > control && lacks(USERS_MAX.ln()) < 0.0 { ln_users.exp() } else { f64::INFINITY }
}

impl Pair {
    fn swapped(&self) -> Self {
        Self { treated: self.control, control: self.treated, treated_share: self.control_share, control_share: self.treated_share }
    }

    /// Users by what they are worth to a bet: treated and converted, treated and not, control and converted, control and not.
    fn counts(&self) -> [f64; 4] {
        let [treated, control] = [self.treated, self.control].map(|it| [it.converted as f64, it.users.saturating_sub(it.converted) as f64]);
        [treated[0], treated[1], control[0], control[1]]
    }

    /// 1/w and 1/(1 − w), each in one division.
    fn inverse_shares(&self) -> [f64; 2] {
        let [treated, control] = [self.treated_share, self.control_share].map(f64::from);
        [(treated + control) / treated, (treated + control) / control]
    }

    /// Against p₁ − p₀ ≤ δ.
    fn ln_difference_above(&self, delta: f64) -> f64 {
        let [of_treated, of_control] = self.inverse_shares();
        let values =
            |c: f64| [(1.0 - c) * of_treated - delta, -c * of_treated - delta, (c - 1.0) * of_control - delta, c * of_control - delta];
        ln_evidence(self.counts(), [of_treated, of_control], values)
    }

    /// Against p₁ ≤ ρ·p₀. Doubled, so that at ρ = 1 it is the bet on the difference.
    fn ln_ratio_above(&self, rho: f64) -> f64 {
        let [of_treated, of_control] = self.inverse_shares();
        let (one, other) = (2.0 / (1.0 + rho), 2.0 * rho / (1.0 + rho));
        let values = |c: f64| [(one - c) * of_treated, -c * of_treated, (c - other) * of_control, c * of_control];
        ln_evidence(self.counts(), [of_treated, of_control], values)
    }
}

/// ln E against a null, under which a user's `values` for a centre c have a mean of at most 0. Four kinds of users, as of
/// [`Pair::counts`].
fn ln_evidence(counts: [f64; 4], [of_treated, of_control]: [f64; 2], values: impl Fn(f64) -> [f64; 4]) -> f64 {
    let mut terms = Vec::with_capacity(CENTRES.len() * BETS as usize);
    for (c, weight) in CENTRES {
        // Legal for every difference, and, twice as large, for every ratio.
        let worst = (c * of_treated).max((1.0 - c) * of_control) + 1.0;
        let worst_ratio = (c * of_treated).max((2.0 - c) * of_control);
        let (largest, values) = (CAP / worst.max(worst_ratio), values(c));
        for bet in 0..BETS {
            let lambda = largest * 0.5_f64.powi(bet);
            let gain: f64 =
                counts.iter().zip(values).filter(|(count, _)| **count > 0.0).map(|(count, z)| count * (lambda * z).ln_1p()).sum();
            terms.push((weight / f64::from(BETS)).ln() + gain);
        }
    }
    ln_sum(&terms)
}

fn lowest_difference(pair: &Pair, level: f64) -> f64 {
    last_refuted(-1.0, 1.0, |delta| pair.ln_difference_above(delta) - (1.0 / level).ln())
}

fn lowest_ratio(pair: &Pair, level: f64) -> f64 {
    let excess = |ln_ratio: f64| pair.ln_ratio_above(ln_ratio.exp()) - (1.0 / level).ln();
    let least = -RATIO_MAX.ln();
    let ln_ratio = last_refuted(least, RATIO_MAX.ln(), excess);
    if ln_ratio > least { ln_ratio.exp() } else { 0.0 }
}

/// The largest value that is refuted, or `low`: `excess` falls, and what it is at least 0 for is refuted. The Illinois form of false
/// position (Dowell and Jarratt 1971) with a bisection now and then; it ends on the refuted side.
fn last_refuted(low: f64, high: f64, excess: impl Fn(f64) -> f64) -> f64 {
    let (mut refuted, mut open) = (low, high);
    let (mut above, mut below) = (excess(low), excess(high));
    if above < 0.0 {
        return low;
    }
    let mut was_refuted = None;
    for step in 0..STEPS_MAX {
        if open - refuted <= PRECISION {
            break;
        }
        let guess = (refuted * below - open * above) / (below - above);
        let is_inside = guess > refuted && guess < open && step % 4 != 3;
        let middle = if is_inside { guess } else { (refuted + open) / 2.0 };
        let found = excess(middle);
        if found >= 0.0 {
            (refuted, above) = (middle, found);
            below *= if was_refuted == Some(true) { 0.5 } else { 1.0 };
        } else {
            (open, below) = (middle, found);
            above *= if was_refuted == Some(false) { 0.5 } else { 1.0 };
        }
        was_refuted = Some(found >= 0.0);
    }
    refuted
}
