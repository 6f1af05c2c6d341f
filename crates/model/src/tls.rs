//! TLS as the user wants it: paths of files, absolute, never what is in them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a listener shows its clients, and asks of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerTls {
    /// At least one, or `acme`.
    pub certificates: Vec<Certificate>,
    pub default: DefaultCertificate,
    /// No certificate is asked of clients when absent.
    pub client_auth: Option<ClientAuth>,
    /// Only files when absent.
    #[serde(default)]
    pub acme: Option<Acme>,
}

/// Certificates that an authority is asked for (RFC 8555), one for each name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acme {
    /// At least one; exact, lower case, each once.
    pub domains: Vec<String>,
    /// Whom the authority may write to.
    pub email: Option<String>,
    /// Where the authority's directory is: `https://`.
    pub directory: String,
    /// Whom we trust when we speak to the authority.
    pub ca: Authorities,
    pub challenge: Challenge,
}

/// How an authority sees that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Challenge {
    /// A request in clear on port 80 (RFC 8555 §8.3).
    #[serde(rename = "http-01")]
    Http,
    /// A handshake on port 443 (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
}

impl Challenge {
    /// As the protocol, and the file, name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http-01",
            Self::TlsAlpn => "tls-alpn-01",
        }
    }

    /// Where the authority connects to.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::TlsAlpn => 443,
        }
    }
}

/// A chain, the leaf first, and the leaf's key; both PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Exact names, or `*.example.com` for one label; lower case. Empty: those that the certificate names.
    pub names: Vec<String>,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What a client gets that names no host, or one that no certificate has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultCertificate {
    /// The first of the list that can be used.
    First,
    /// The one for this name.
    Name(String),
    /// None: the handshake is refused.
    Nothing,
}

/// Certificates of clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAuth {
    /// PEM: the authorities that clients' certificates come from.
    pub ca: PathBuf,
    /// Else a client may come without.
    pub required: bool,
}

/// How targets of a service are spoken to over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetTls {
    pub ca: Authorities,
    /// What a target's certificate must name, and what is asked for (SNI); the address when absent.
    pub name: Option<String>,
    /// Shown to targets that ask for one: chain and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authorities {
    /// Those that this machine trusts.
    System,
    /// PEM.
    File(PathBuf),
}
