//! The scales: compares the candidate with stable, from counts, and says what follows; and the variants of an experiment.
//!
//! Continuous looking is free: the evidence is a betting martingale, so that Ville's inequality bounds false rollbacks over the
//! whole release however often it is looked at. **Invariants**: nothing measured is never a pass; NaN and infinity compare with
//! nothing; counts are added before anything is computed, in any order. Not here: counting (telemetry), drawing (proxy), acting
//! (engine), time and randomness (arguments).

mod bets;
mod bounds;
mod dispersion;
pub mod experiment;
mod latency;
mod limit;
mod mixture;
mod plan;
mod prefix;
mod scalars;
mod scales;
pub mod simulation;
mod split;
mod units;
mod users;
mod vectors;
mod verdict;

pub use bounds::{difference_bound, quantile_rank_width, ratio_lower_bound};
pub use dispersion::overdispersion;
pub use latency::{epoch_of_histograms, threshold_bucket};
pub use limit::ln_evidence_over;
pub use mixture::{Mixture, ln_evidence};
pub use plan::{Expired, MetricKind, Plan, epoch_seconds, evidence_seconds, units_needed, units_until_worse};
pub use prefix::{Cell, Opened, delays, prefix};
pub use scalars::{ScalarSums, scalar_bounds};
pub use scales::{Closing, Measured, Past, SETS_MAX, Scales, Tallies, Tally};
pub use split::{Drawn, ln_ratio_evidence, ln_split_evidence};
pub use units::{Arms, Epoch, Share, Side, Units};
pub use users::scales_of_users;
pub use vectors::{Difference, check_vectors};
pub use verdict::{Action, Guard, Look, Outcome, Scalar, ShareMetric, Verdict, judge};
