//! The evidence of one metric on one side: a mixture over bets and over the epoch at which one began to bet, so that a long good
//! past does not hide a late regression.
//!
//! E = 1/(K+1) + Σ_k 1/(k(k+1)) · mean_j exp(Σ_{e≥k} g_j(e)/φ): the weights of all starts sum to one, and what is unspent stays as
//! cash (e-detectors: Shin, Ramdas and Rinaldo, arXiv 2203.03532). Kept as one number a bet, whatever the number of epochs.

use serde::{Deserialize, Serialize};

use crate::bets::{BETS_MAX, Factors};
use crate::units::{Epoch, Share, Side};

/// Different shares in one release: one per step, and a few more for sticky cohorts.
const SHARES_KEPT: usize = 16;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mixture {
    side: Side,
    rho: f64,
    delta: f64,
    phi: f64,
    epochs: u32,
    /// ln S_j of the recursion.
    #[serde(with = "nothing_is_null")]
    ln_sums: [f64; BETS_MAX],
    #[serde(skip)]
    factors: Vec<Factors>,
}

/// JSON has no −∞, the logarithm of a sum of nothing.
mod nothing_is_null {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::bets::BETS_MAX;

    pub(super) fn serialize<S: Serializer>(values: &[f64; BETS_MAX], serializer: S) -> Result<S::Ok, S::Error> {
        values.map(|value| value.is_finite().then_some(value)).serialize(serializer)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<[f64; BETS_MAX], D::Error> {
        let values = <[Option<f64>; BETS_MAX]>::deserialize(deserializer)?;
        Ok(values.map(|value| value.unwrap_or(f64::NEG_INFINITY)))
    }
}

impl Mixture {
    /// `rho`, `delta`: the null's boundary p_candidate = rho · p_stable + delta. `phi`: overdispersion, at least 1.
    pub fn new(side: Side, rho: f64, delta: f64, phi: f64) -> Self {
        debug_assert!(phi >= 1.0, "less than independent is not modelled");
        Self { side, rho, delta, phi, epochs: 0, ln_sums: [f64::NEG_INFINITY; BETS_MAX], factors: Vec::new() }
    }

    /// Adds the next epoch, for good. Empty ones count too.
    pub fn push(&mut self, epoch: &Epoch) {
        let factors = self.factors_of(epoch.share);
        self.epochs += 1;
        let start = -ln_of_start(self.epochs);
        for bet in 0..self.side.bets() {
            self.ln_sums[bet] = ln_add(self.ln_sums[bet], start) + factors.ln_gain(bet, epoch) / self.phi;
        }
    }

    /// ln E with `more` epochs behind those that were pushed, which are not kept: their counts still change.
    pub fn ln_evidence_with(&mut self, more: &[Epoch]) -> f64 {
        self.ln_evidence_of(more.iter().copied())
    }

    pub(crate) fn ln_evidence_of(&mut self, more: impl Iterator<Item = Epoch>) -> f64 {
        let (epochs, ln_sums) = (self.epochs, self.ln_sums);
        more.for_each(|epoch| self.push(&epoch));
        let evidence = self.ln_evidence();
        (self.epochs, self.ln_sums) = (epochs, ln_sums);
        evidence
    }

    pub fn ln_evidence(&self) -> f64 {
        let cash = -(f64::from(self.epochs) + 1.0).ln();
        let bets = self.side.bets();
        let mean = ln_sum(&self.ln_sums[..bets]) - (bets as f64).ln();
        ln_add(cash, mean)
    }

    fn factors_of(&mut self, share: Share) -> Factors {
        if let Some(known) = self.factors.iter().find(|factors| factors.share == share) {
            return *known;
        }
        let factors = Factors::new(self.side, share, self.rho, self.delta);
        if self.factors.len() < SHARES_KEPT {
            self.factors.push(factors);
        }
        factors
    }
}

/// ln E of all these epochs.
pub fn ln_evidence(epochs: &[Epoch], side: Side, rho: f64, delta: f64, phi: f64) -> f64 {
    Mixture::new(side, rho, delta, phi).ln_evidence_with(epochs)
}

/// ln(m(m+1)).
fn ln_of_start(number: u32) -> f64 {
    (f64::from(number) * (f64::from(number) + 1.0)).ln()
}

/// ln(e^a + e^b).
fn ln_add(a: f64, b: f64) -> f64 {
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    if small == f64::NEG_INFINITY { large } else { large + (small - large).exp().ln_1p() }
}

/// ln Σ e^x.
pub(crate) fn ln_sum(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest.is_infinite() {
        return largest;
    }
    largest + values.iter().map(|value| (value - largest).exp()).sum::<f64>().ln()
}
