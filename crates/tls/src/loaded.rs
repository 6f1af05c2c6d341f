//! What files hold, read and checked: a chain with its key, and authorities.

use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use crate::leaf::{self, Facts};
use crate::provider::provider;

/// More would only cost bandwidth in each handshake; a chain has two to four.
const CHAIN_MAX: usize = 16;

/// A chain and the key of its leaf, which fit each other.
#[derive(Clone)]
pub struct Pair {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) facts: Facts,
}

impl Pair {
    /// Both PEM; the leaf first. What is wrong, in words.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let (chain, key) = (certificates(chain)?, private_key(key)?);
        let facts = leaf::facts(&chain[0])?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => "the key does not belong to the certificate".to_owned(),
            other => format!("the key cannot be used: {other}"),
        })?;
        Ok(Self { certified: Arc::new(certified), facts })
    }

    /// A proof for an authority, both PEM, made for this key: webpki, which would compare the two, reads no certificate with a
    /// critical extension of ACME (RFC 8737 §3).
    pub fn proof_from_pem(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let (chain, key) = (certificates(chain)?, private_key(key)?);
        let facts = leaf::facts(&chain[0])?;
        let key = provider().key_provider.load_private_key(key).map_err(|error| format!("the key cannot be used: {error}"))?;
        Ok(Self { certified: Arc::new(CertifiedKey::new(chain, key)), facts })
    }

    /// DNS names of the leaf, lower case.
    pub fn names(&self) -> &[String] {
        &self.facts.names
    }

    /// Seconds since 1970.
    pub fn not_before_s(&self) -> i64 {
        self.facts.not_before_s
    }

    /// Who issued it, as people know it; empty when it does not say.
    pub fn issuer(&self) -> &str {
        &self.facts.issuer
    }

    /// The issuer's key identifier and the serial number, as DER has them: what renewal information is asked for by (RFC 9773 §4.1).
    pub fn number(&self) -> Option<(&[u8], &[u8])> {
        self.facts.number.as_ref().map(|(issuer, serial)| (issuer.as_slice(), serial.as_slice()))
    }

    /// Seconds since 1970.
    pub fn not_after_s(&self) -> i64 {
        self.facts.not_after_s
    }
}

/// At least one.
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let chain = chain.map_err(|error| format!("its PEM is broken: {}", words(&error)))?;
    match chain.len() {
        0 => Err("no certificate in it (`-----BEGIN CERTIFICATE-----`)".to_owned()),
        length if length > CHAIN_MAX => Err(format!("{length} certificates in a chain; {CHAIN_MAX} at most")),
        _ => Ok(chain),
    }
}

pub(crate) fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound if has_encrypted_key(text) => "the key is encrypted; only keys without a passphrase are read".to_owned(),
        pem::Error::NoItemsFound => "no private key in it (`-----BEGIN PRIVATE KEY-----`)".to_owned(),
        other => format!("its PEM is broken: {}", words(&other)),
    })
}

fn has_encrypted_key(text: &[u8]) -> bool {
    let wanted = b"ENCRYPTED";
    text.windows(wanted.len()).any(|window| window == wanted)
}

/// Without the bytes that the library would print: they may be of a key.
fn words(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "an end line is missing",
        pem::Error::IllegalSectionStart { .. } => "a begin line is malformed",
        pem::Error::Base64Decode(_) => "what is between the lines is no base64",
        _ => "it cannot be read",
    }
}

/// Authorities, and their bytes, to tell them from others.
#[derive(Clone)]
pub(crate) struct Roots {
    pub(crate) store: Arc<RootCertStore>,
    pub(crate) bytes: Vec<u8>,
}

impl Roots {
    pub(crate) fn from_pem(text: &[u8]) -> Result<Self, String> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        let all = all.map_err(|error| format!("its PEM is broken: {}", words(&error)))?;
        if all.is_empty() {
            return Err("no certificate in it (`-----BEGIN CERTIFICATE-----`)".to_owned());
        }
        let mut store = RootCertStore::empty();
        let mut bytes = Vec::new();
        for certificate in all {
            bytes.extend_from_slice(&certificate);
            store.add(certificate).map_err(|error| format!("a certificate of it cannot be an authority: {error}"))?;
        }
        Ok(Self { store: Arc::new(store), bytes })
    }

    /// Those of this machine; what is broken among them is left out.
    pub(crate) fn system() -> Result<Self, String> {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            return Err("this machine has no file of trusted authorities (Debian: package `ca-certificates`)".to_owned());
        }
        Ok(Self { store: Arc::new(store), bytes: Vec::new() })
    }
}
