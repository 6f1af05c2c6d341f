//! Feature flags, as far as the file says it.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    /// Each address serves something, no address twice.
    pub listen: Vec<(FlagPort, SocketAddr)>,
    /// At least one; the first is the default.
    pub environments: Vec<FlagEnvironment>,
    /// So long everybody must have got the same variant before a flag is ready to remove.
    pub ready_after_ms: u64,
    /// Also on this machine's own addresses a token is needed; elsewhere it always is.
    pub tokens_required: bool,
}

/// What a port serves; flagd's ports by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlagPort {
    All,
    /// gRPC evaluation, 8013.
    Evaluation,
    /// Health and metrics, 8014.
    Management,
    /// gRPC sync of whole sets, 8015.
    Sync,
    /// OFREP, 8016.
    Ofrep,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlagEnvironment {
    pub name: String,
    /// In flagd's format, watched; absolute.
    pub files: Vec<PathBuf>,
    /// Changes need a second person's consent.
    pub second_person: bool,
}
