//! Certificates by themselves: an authority is asked for those that listeners want, and asked again in time (ACME, RFC 8555).
//!
//! **Invariant**: what fails takes nothing away from what is there. Nobody is asked more often than the plan allows, whatever crashes.
//! Not here: answering handshakes and requests (rooms `tls` and `proxy` do that, with what is shown to them), what the file says.

mod account;
mod board;
mod clerk;
mod failure;
mod job;
mod kept;
mod order;
mod plan;
mod wire;

pub use board::{Board, OfName};
pub use clerk::{Clerk, Needs, Teller};
