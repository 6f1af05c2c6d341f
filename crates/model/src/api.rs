//! The API and the page over TCP, as far as the file says it.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Api {
    pub listen: SocketAddr,
    /// The file with the tokens; absolute. `tokens` in the state directory when absent.
    pub tokens: Option<PathBuf>,
    /// Names under which browsers reach it, besides its address and `localhost`. Lower case, no port.
    pub hosts: Vec<String>,
}
