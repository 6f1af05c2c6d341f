//! Measurement: the one histogram layout, and the access log. Knows only `model`.
//!
//! What is measured is decided by the caller; here is no clock, no metric registry and no judgement.

mod access_log;
mod histogram;
mod time_text;

pub use access_log::{LogRecord, LogSink, LogWriter};
pub use histogram::{BUCKETS, Histogram, bucket_of};
