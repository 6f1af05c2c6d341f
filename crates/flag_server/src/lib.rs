//! The wire of feature flags: OFREP 0.3, flagd's evaluation (v1 and v2) and sync (v1), health, metrics; HTTP/1.1 and h2c on
//! the same port.
//!
//! **Invariants**: a call reads one set, whole; an answer over OFREP or evaluation never shows a rule; a stream always sends
//! the newest set, so that nothing queues behind a slow reader.
//!
//! Not here: where sets come from and who may ask (`Board`, `Admission`), what becomes of exposures (`Audience`), sockets'
//! addresses.

mod admission;
mod audience;
mod changes;
mod connection;
mod follow;
mod grpc;
pub mod limits;
mod management;
mod metrics;
mod ofrep;
mod readiness;
mod report;
mod roles;
mod selector;
mod server;
mod shared;
mod values;

pub use admission::{Admission, Admitted, Open, Refused, Scope};
pub use audience::{Audience, Exposure, Outcome, Report};
pub use readiness::{Readiness, RefusedSet};
pub use roles::Role;
pub use server::{Config, Server};

/// The messages and services, generated from `proto/`.
pub mod proto {
    pub mod evaluation_v1 {
        tonic::include_proto!("flagd.evaluation.v1");
    }
    pub mod evaluation_v2 {
        tonic::include_proto!("flagd.evaluation.v2");
    }
    pub mod sync_v1 {
        tonic::include_proto!("flagd.sync.v1");
    }
    pub mod health_v1 {
        tonic::include_proto!("grpc.health.v1");
    }
}
