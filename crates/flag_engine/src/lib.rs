//! The caretaker of flags: keeps them, changes them when asked or when it is time, publishes compiled sets.
//!
//! **Invariant**: a change is persisted before it is published; a set that does not compile never replaces one that does.
//! Not here: evaluation (flags), protocols (flag_server), who may ask (control).

mod board;
mod change;
mod changes;
mod debt;
mod durable;
mod effective;
mod files;
mod flag;
mod meters;
mod people;
mod reads;
mod rebucket;
mod recent;
mod registry;
mod request;
mod said;
mod schedules;
mod trial;
mod trials;
mod watch;
mod watching;
mod writes;

pub use board::{Board, Published};
pub use change::{Change, Place, Proposal, References, Schedule};
pub use debt::Stage;
pub use flag::{Flag, Life, expires_ms};
pub use meters::Meters;
pub use reads::Question;
pub use registry::{Config, EnvironmentConfig, Handle, Told, start};
pub use request::{Action, Create, Request, WantedLife};
pub use trial::{REQUESTS, WantedExperiment, WantedRollout};
pub use watch::Outcome;
