//! What a release is tried against: a small real service, clients that notice every lost request,
//! and a target that records bytes.
//!
//! **Invariant:** no client here ever retries; a request that was written and not fully answered is lost.
//! Not here: the product. Nothing in this room knows of proxies, releases or configuration.

pub mod fuzz;
mod hyper_io;
pub mod load;
pub mod ports;
pub mod recorder;
pub mod service;
pub mod tools;
pub mod wait;
