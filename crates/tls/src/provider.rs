//! The cryptography: one provider for the whole house, always named, never the process's default.

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

/// aws-lc-rs: its suites are all forward secret and authenticated; key exchange begins with X25519MLKEM768.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}
