//! Who is told what was evaluated and what clients report.
//!
//! **Invariant**: an evaluation is told only once its answer is settled; an answer of the wrong type is no exposure.

use serde::Deserialize;

/// Where exposures and outcomes go. On the path of every evaluation: it counts or queues, and never waits.
pub trait Audience: Send + Sync {
    /// One flag was asked for, by a client that is about to act on the answer.
    fn evaluated(&self, environment: &str, evaluation: &flags::Evaluation<'_>, context: &flags::Context);
    /// A client read all flags ahead (OFREP bulk, `ResolveAll`). Not an exposure: most of them are never looked at.
    fn prefetched(&self, _environment: &str, _evaluation: &flags::Evaluation<'_>, _context: &flags::Context) {}
    /// A key that the set does not have: a typo, or a flag that was archived while code still asks for it.
    fn missing(&self, environment: &str, key: &str);
    /// What a client saw by itself. How many lines were taken, or for people why none was.
    fn reported(&self, environment: &str, report: Report) -> Result<usize, String>;
}

/// The body of `POST /changeover/v1/report`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    #[serde(default)]
    pub exposures: Vec<Exposure>,
    #[serde(default)]
    pub outcomes: Vec<Outcome>,
}

/// A user met a variant, in a client that evaluates in its own process.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Exposure {
    pub flag: String,
    pub variant: String,
    pub targeting_key: String,
    pub request_id: Option<String>,
    /// Milliseconds since 1970; now, if absent.
    #[serde(rename = "at_ms")]
    pub at_ms: Option<u64>,
}

/// What came of it: of a user, or of a request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Outcome {
    pub targeting_key: Option<String>,
    pub request_id: Option<String>,
    pub metric: String,
    pub value: Option<f64>,
    pub failed: Option<bool>,
}
