//! The PROXY protocol, versions 1 and 2: what whoever passes a connection on says first, so that the client's address is not lost.
//!
//! Source: "The PROXY protocol, versions 1 & 2" (haproxy.org, doc/proxy-protocol.txt). **Invariant**: not a byte behind the header is read.
//! Not here: who is believed (`proxy`).

mod parse;
mod read;
mod write;

use std::net::SocketAddr;

pub use parse::{Malformed, Parsed, parse};
pub use read::{Unreadable, read};
pub use write::{Version, header, local};

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// Where the client is, and what it connected to. `None`: the connection is the sender's own, such as a health check.
    pub addresses: Option<Addresses>,
    /// The client spoke TLS with the sender (`PP2_TYPE_SSL`).
    pub is_tls: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}
