//! HTTP/1.1 on one connection (RFC 9112): heads and bodies, read strictly and written anew.
//!
//! Pure: bytes in, bytes out. Not here: sockets, time, which fields may pass from one connection to the next.
//!
//! **Invariant**: whatever could be understood differently by two readers is refused. Crate `httparse` reads the lines, and hyper is
//! the measure: what it refuses is refused here, too (`tests/differential.rs`).

mod answer;
mod decode;
mod encode;
mod fields;
mod framing;
mod known;
pub mod limits;
mod request;

pub use answer::{AnswerHead, Misunderstood, parse_answer};
pub use decode::{Decoder, Malformed, Part};
pub use encode::{Outbox, WrongLength};
pub use fields::{Field, Fields};
pub use framing::{Framing, has_token};
pub use known::Known;
pub use request::{Refusal, RequestHead, parse_request};
