//! Certificates and what is negotiated with them: files read and watched, names chosen, clients verified, tickets sealed.
//!
//! **Invariant**: what cannot be used never replaces what can; one bad file takes away the names of its certificate, and nothing
//! else. A listener whose clients must be verified lets nobody in before it knows their authorities.
//! Not here: sockets, HTTP, who asks for certificates (ACME). Keys never leave this room, and are never printed.

mod door;
mod files;
mod issued;
mod keyring;
mod leaf;
mod loaded;
mod names;
mod provider;
mod tickets;
mod trust;
mod watched;
mod words;

pub use door::{Door, Handshake};
pub use issued::Issued;
pub use keyring::{Keyring, News, Source, State, look_once, look_once_at_trust};
pub use leaf::{Identity, identity};
pub use loaded::Pair;
pub use provider::provider;
pub use rustls::{ClientConfig, ServerConfig, pki_types};
pub use tickets::TicketKeys;
pub use trust::{Trust, client_config};
pub use words::explain;

/// Protocols of the application, as they are negotiated (RFC 7301).
pub const HTTP2: &[u8] = b"h2";
pub const HTTP1: &[u8] = b"http/1.1";
/// A certificate authority looks whether a name is ours (RFC 8737).
pub const ACME_CHALLENGE: &[u8] = b"acme-tls/1";
