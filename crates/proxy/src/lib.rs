//! The corridor: listeners, routing, balancing, lines to targets, retries, tunnels, drain.
//!
//! One thread per core, each with everything it needs (a *lane*); the control side sends tables, and each lane acknowledges.
//! Knows the snapshot and telemetry, nothing of releases. Not here: certificates, active health checks, deciding anything.

mod admission;
mod answer;
mod black_box;
mod body;
mod call;
mod carrier;
mod chosen;
mod client;
mod clock;
mod cohort;
mod connection;
mod conversation;
mod counts;
mod exchange;
mod flood;
mod flow;
mod forward;
mod forwarders;
mod frames;
#[cfg(test)]
mod fuzz;
mod grpc;
mod handle;
mod head;
mod hold;
mod io;
mod lane;
mod line;
mod live;
mod message;
mod metrics;
mod mirror;
mod number;
mod pace;
mod reason;
mod requests;
mod respond;
mod retry;
mod secure;
mod serve;
mod shared;
mod stream;
mod stream_body;
mod streams;
mod table;
mod tcp;
mod ticket;
mod trunk;
mod tunnel;
mod unit;
mod watched;
mod websocket;
mod wire;

pub use admission::raise_descriptor_limit;
pub use black_box::left_in_flight;
pub use counts::{Connections, Counts};
pub use handle::{Config, InFlight, NotAcknowledged, Proxy, tunnels_end_within};
pub use telemetry::{ArmCounts, CellCounts, Histogram, RequestEnded, SETS};
