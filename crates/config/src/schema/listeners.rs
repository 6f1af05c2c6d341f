//! What the file may say of listeners, of TLS on both sides, and of whom is believed. Not here: reading it.

use schemars::JsonSchema;

#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Listener {
    Address(String),
    Settings(Box<ListenerSettings>),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct ListenerSettings {
    address: String,
    /// Default: in clear.
    tls: Option<ListenerTls>,
    /// Of one client address, or of one /64 of IPv6. Default: no limit.
    #[schemars(range(min = 1, max = 1_000_000))]
    connections_per_address: Option<u32>,
    /// Networks whose connections begin with a header of the PROXY protocol (v1 or v2), such as `10.0.0.0/8`. Default: none
    proxy_protocol: Option<Vec<String>>,
    /// Networks whose `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` are passed on. Default: none
    trusted_proxies: Option<Vec<String>>,
}

/// Of the PROXY protocol.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ProxyProtocol {
    V1,
    V2,
}

/// One certificate, `certificates`, or `acme`. Files are PEM, and are read again when they change.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ListenerTls {
    #[schemars(length(min = 1))]
    certificates: Option<Vec<Certificate>>,
    #[schemars(length(min = 1))]
    names: Option<Vec<String>>,
    certificate: Option<String>,
    key: Option<String>,
    /// Whose certificate a client gets that asks for no name, or an unknown one: a name, `first` or `none`. Default: first.
    default: Option<String>,
    /// The authorities of clients' certificates. Default: clients need none.
    client_ca: Option<String>,
    /// Default: required, when there is a `client_ca`.
    client_auth: Option<ClientAuth>,
    acme: Option<Acme>,
}

/// Certificates that an authority is asked for, one for each name, and again in time.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Acme {
    /// Such as `example.com`; no wildcards.
    #[schemars(length(min = 1, max = 100))]
    domains: Vec<String>,
    /// Whom the authority may write to. Default: nobody.
    email: Option<String>,
    /// `letsencrypt`, `staging` or the URL of another one. Default: letsencrypt.
    directory: Option<String>,
    /// A file of authorities that the directory's own certificate comes from, or `system`. Default: system.
    ca: Option<String>,
    /// Default: tls-alpn-01; http-01 on another port than 443 when there is a listener in clear on port 80.
    challenge: Option<AcmeChallenge>,
    /// To the authority's terms: must be true.
    terms_agreed: bool,
}

#[derive(JsonSchema)]
enum AcmeChallenge {
    #[schemars(rename = "http-01")]
    Http,
    #[schemars(rename = "tls-alpn-01")]
    TlsAlpn,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum ClientAuth {
    Required,
    Optional,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Certificate {
    /// Such as `example.com` or `*.example.com`. Default: those that the certificate names.
    #[schemars(length(min = 1))]
    names: Option<Vec<String>>,
    /// The chain, the leaf first.
    certificate: String,
    key: String,
}

/// Targets are spoken to over TLS. Default: in clear.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TargetTls {
    /// A file of authorities, or `system`. Default: system.
    ca: Option<String>,
    /// What the targets' certificate names. Default: the target's address.
    name: Option<String>,
    /// Shown to targets that ask for a certificate.
    certificate: Option<String>,
    key: Option<String>,
}
