//! What must survive: values and events in SQLite, and a ring of records written beforehand for taking something back.
//!
//! **Invariant**: what was answered as written is durable. Not here: what the values mean (the rooms that write them).

mod reserve;
mod store;

pub use reserve::Reserve;
pub use store::{Batch, Happening, Loaded, Store, StoreError, Urgent};
