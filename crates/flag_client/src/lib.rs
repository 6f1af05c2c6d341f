//! Feature flags in a Rust program.
//!
//! ```no_run
//! use changeover_flags::{Context, Flags};
//!
//! # fn main() -> Result<(), changeover_flags::OptionsError> {
//! let flags = Flags::connect("http://127.0.0.1:8015")?;
//! let user = Context::of("user-1").with("country", "AT");
//! if flags.is_enabled("new-scoring-algorithm", &user) {
//!     // the new way
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Flags`] evaluates in-process: whole sets are streamed from the server (flagd's sync protocol) and kept fresh, so a call takes
//! nanoseconds and works while the server is down. [`Remote`] asks the server each time. Both are OpenFeature providers (`provider`).
//!
//! **Invariants**: a call always answers, at worst with the default in the code; it never blocks and never panics; a set is used
//! whole or not at all.
//! Not here: the rules (crate `flags`), the server (crate `flag_server`).

mod ask;
mod background;
mod backoff;
mod bootstrap;
mod client;
mod clock;
mod context;
mod evaluate;
mod options;
#[doc(hidden)]
pub mod proto;
#[cfg(feature = "open-feature")]
pub mod provider;
mod remote;
mod report;
mod shared;
mod status;
mod stream;
mod structs;
mod wire;

pub use ask::Snapshot;
pub use client::Flags;
pub use context::IntoContext;
pub use evaluate::{Details, EvaluationError, FlagValue, Reason};
pub use flags::Context;
pub use options::{EVALUATION_TIMEOUT, INIT_DEADLINE, KEEP_ALIVE, Options, OptionsError};
pub use remote::Remote;
pub use report::{ReportError, Reported};
pub use status::{State, Status};
