//! Feature flags: flag sets in flagd's format (schema 0.2.15), compiled once, evaluated in nanoseconds.
//!
//! **Invariants**: text never panics this room; the same set, context and time give the same answer everywhere; numbers stay as authored.
//!
//! ```
//! let text = r#"{"flags": {"new-scoring-algorithm": {
//!     "state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
//!     "targeting": {"if": [{"ends_with": [{"var": "email"}, "@example.test"]}, "on", {"fractional": [["on", 5], ["off", 95]]}]}
//! }}}"#;
//! let set = flags::Set::from_json(text, flags::Bucketing::V2).expect("a good set");
//! let context = flags::Context::of("user-1").with("email", "ana@example.test");
//! let answer = set.evaluate("new-scoring-algorithm", &context, 1_800_000_000).expect("an answer");
//! assert_eq!(answer.variant, Some("on"));
//! assert_eq!(answer.value.and_then(|value| value.as_bool()), Some(true));
//! ```
//!
//! Not here: files, sockets, the clock (`now_s` is an argument), and who may ask.

mod bucketing;
mod context;
mod document;
mod evaluation;
mod flag;
mod logic;
mod nearest;
mod prerequisites;
mod problem;
mod read;
mod set;
mod shares;
mod variant;

pub use bucketing::Bucketing;
pub use context::Context;
pub use evaluation::{Evaluation, EvaluationError, Reason};
pub use flag::Flag;
pub use prerequisites::{Prerequisite, PrerequisiteError, with_prerequisites};
pub use problem::{Problem, Severity};
pub use set::Set;
pub use shares::{SHARES_SUM, explicit_shares, place, repeatable_shares};
pub use variant::{Kind, Variant};
