//! The corridor: listeners, routing, balancing, lines to targets, retries, tunnels, drain.
//!
//! One thread per core, each with everything it needs (a *lane*); the control side sends tables, and each lane acknowledges.
//! Knows the snapshot and telemetry, nothing of releases. Not here: TLS, active health checks, deciding anything.

mod answer;
mod black_box;
mod body;
mod client;
mod clock;
mod cohort;
mod counts;
mod forward;
mod handle;
mod head;
mod io;
mod lane;
mod line;
mod live;
mod metrics;
mod mirror;
mod reason;
mod respond;
mod retry;
mod serve;
mod shared;
mod table;
mod ticket;
mod tunnel;
mod unit;
mod watched;

pub use black_box::left_in_flight;
pub use counts::Counts;
pub use handle::{Config, InFlight, NotAcknowledged, Proxy};
pub use telemetry::{ArmCounts, CellCounts, Histogram, RequestEnded, SETS};
