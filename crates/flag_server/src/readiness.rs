//! Whether the server should get calls, and which sets were refused.
//!
//! **Invariant**: a refused set never makes the server unready: the last good one is served.

/// What `/readyz`, health checks and metrics say; asked for each of them.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// Every environment has a set to serve.
    pub ready: bool,
    /// Newest versions that cannot be served.
    pub refused: Vec<RefusedSet>,
}

/// A version of a set that does not compile, while the last good one is served.
#[derive(Debug, Clone)]
pub struct RefusedSet {
    pub environment: String,
    /// The file, or the change that would have made it.
    pub source: String,
    pub problems: Vec<flags::Problem>,
}
