//! Measurement: the one histogram layout, the judge's units where they stick to their arm, what requests are called, and the access log. Knows only `model`.
//!
//! What is measured is decided by the caller; here is no clock, no metric registry and no judgement.

mod access_log;
mod cells;
mod cohort;
mod histogram;
mod request;
mod time_text;

pub use access_log::{LogRecord, LogSink, LogWriter};
pub use cells::{ArmCounts, CellCounts, SETS};
pub use cohort::{Cohort, Draw, Member, Seat};
pub use histogram::{BUCKETS, Histogram, bucket_of};
pub use request::{REQUEST_ID_FIELD, RequestEnded, request_name, trace_id};
