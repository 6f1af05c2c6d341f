//! What one message may take. All of it is held in memory at once, so each has a bound.

/// Fields in a head, and in trailers. Real heads have some thirty.
pub const FIELDS_MAX: usize = 100;
/// A head, with its first line. Browsers stop at less.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// A request's target: what crate `http` can hold.
pub const TARGET_BYTES_MAX: usize = u16::MAX as usize - 1;
/// Bytes of chunks' size lines (zeros, spaces, extensions) that data has not paid for: they are thrown away, so more is only work
/// (RFC 9112 §7.1.1). Each chunk pays for a line of [`SIZE_LINE_BYTES`], and each byte of data for two more.
pub const EXCESS_BYTES_MAX: u64 = 16 * 1024;
pub const SIZE_LINE_BYTES: u64 = 16;
/// Of a body or a chunk: whoever counts in signed numbers must read the same.
pub const LENGTH_MAX: u64 = i64::MAX as u64;
pub const TRAILER_BYTES_MAX: usize = 16 * 1024;
