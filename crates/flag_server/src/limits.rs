//! What one client can take from the others, bounded. Each limit has its reason.
//!
//! Not here: what a flag set may hold (room `flags`), how often a token may ask.

use std::time::Duration;

/// Open connections of all ports together; a descriptor and some 10 KiB each. More are closed as they come.
pub const CONNECTIONS_MAX: usize = 16_384;
/// A provider keeps one or two streams; more on one connection is a client that leaks them.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// Streams that wait for changes, of all connections together.
pub const STREAMS_MAX: usize = 32_768;
/// The body of an evaluation. A context is a few hundred bytes; flagd's own limit is of this order.
pub const CONTEXT_BYTES_MAX: usize = 64 * 1024;
/// The body of a report: `REPORT_ITEMS_MAX` lines of it.
pub const REPORT_BYTES_MAX: usize = 512 * 1024;
/// Exposures, and outcomes, in one report. A client that has more sends two.
pub const REPORT_ITEMS_MAX: usize = 1_000;
/// A key, a name, a targeting key or a request id in a report: they are kept per user, so they are short.
pub const REPORT_TEXT_BYTES_MAX: usize = 256;
/// HTTP/1.1: the buffer of a connection, and so its longest head (then 431).
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// HTTP/2: the same for a request's fields.
pub const FIELDS_BYTES_MAX: u32 = 16 * 1024;
/// HTTP/1.1: how long a head may take; also how long a connection may idle between two requests.
pub const HEAD_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a new connection may say nothing: long enough for a client that connects ahead of its first call.
pub const FIRST_REQUEST_WAIT_MAX: Duration = Duration::from_secs(120);
/// How long a body may take (then 408).
pub const BODY_WAIT_MAX: Duration = Duration::from_secs(10);
/// flagd's rhythm: its providers take a stream without a word for dead after three of them.
pub const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(20);
/// HTTP/2: a ping without an answer for so long ends the connection.
pub const PING_WAIT_MAX: Duration = Duration::from_secs(20);
/// Bytes sent and not taken by the peer's machine for so long end the connection: a reader that stopped is cut.
pub const UNREAD_WAIT_MAX: Duration = Duration::from_secs(60);
/// HTTP/2: what is buffered per stream for a slow reader, on top of the one message it is at.
pub const SEND_BUFFER_BYTES_MAX: usize = 256 * 1024;
/// After an accept error (out of descriptors, mostly) the next try waits, or the thread would spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
