//! The clockworks of a release and of a flag's rollout: pure decisions. Time comes in as an argument, effects go out as data.
//!
//! Whoever drives it persists the next state first and performs the effects afterwards; the effects of a state follow from
//! the state alone ([`State::effects`]), so that after a crash they are simply performed again.
//! Not here: targets, processes, sockets, health checks (engine), statistics (judge).

mod clockwork;
pub mod rollout;
mod routing;
mod service;
mod state;

#[cfg(test)]
mod tests;

pub use clockwork::{Illegal, TRANSITIONS, step};
pub use routing::{TargetView, preview_host, route};
pub use service::{Deploy, Queued, Refusal, Rollback, Service, Standby, Standing};
pub use state::{BASELINE, Effect, Ending, Event, Kind, Outcome, Paused, Release, Settings, State};
