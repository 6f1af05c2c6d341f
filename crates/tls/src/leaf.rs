//! What a certificate says of its owner: names, how long it is good, and the identity that targets are told.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

/// More names of one certificate are not looked at; the largest in the wild have a few hundred.
const NAMES_MAX: usize = 1_000;
/// Bounds what is told to targets of a client's certificate, as a field of the request.
const IDENTITY_BYTES_MAX: usize = 4 * 1024;

/// Seconds since 1970.
pub(crate) fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Of a certificate of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// DNS names, lower case, `*.` in front where it stands for one label.
    pub(crate) names: Vec<String>,
    /// Seconds since 1970.
    pub(crate) not_before_s: i64,
    pub(crate) not_after_s: i64,
    /// Common name, or organization.
    pub(crate) issuer: String,
    /// Key identifier of the issuer, serial number.
    pub(crate) number: Option<(Vec<u8>, Vec<u8>)>,
}

fn parse<'a>(leaf: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(leaf).map(|(_, certificate)| certificate).map_err(|error| format!("no certificate: {error}"))
}

fn general_names<'a>(certificate: &'a X509Certificate<'a>) -> impl Iterator<Item = &'a GeneralName<'a>> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    extension.into_iter().flat_map(|extension| &extension.value.general_names).take(NAMES_MAX)
}

pub(crate) fn facts(leaf: &CertificateDer<'_>) -> Result<Facts, String> {
    let certificate = parse(leaf)?;
    let dns = general_names(&certificate).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let validity = certificate.validity();
    let issuer = certificate.issuer();
    let issuer = issuer.iter_common_name().chain(issuer.iter_organization()).find_map(|name| name.as_str().ok());
    let key = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(it) => it.key_identifier.as_ref().map(|key| key.0.to_vec()),
        _ => None,
    });
    Ok(Facts {
        names: dns.collect(),
        not_before_s: validity.not_before.timestamp(),
        not_after_s: validity.not_after.timestamp(),
        issuer: issuer.unwrap_or_default().to_owned(),
        number: key.map(|key| (key, certificate.tbs_certificate.raw_serial().to_vec())),
    })
}

/// Who a client is, by its verified certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// As Envoy's `X-Forwarded-Client-Cert`: `Hash=…;Subject="…";URI=…;DNS=…`; visible ASCII, at most 4 KiB.
    pub field: String,
    /// Seconds since 1970. A resumed session brings its certificate along: it may have expired meanwhile.
    pub not_after_s: i64,
}

impl Identity {
    pub fn has_expired(&self) -> bool {
        self.not_after_s < now_s()
    }
}

/// `None`: it cannot be read, or says more than fits.
pub fn identity(leaf: &CertificateDer<'_>) -> Option<Identity> {
    let certificate = parse(leaf).ok()?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
    let hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut field = format!("Hash={hash};Subject={}", quoted(&certificate.subject().to_string()));
    for name in general_names(&certificate) {
        let (kind, value) = match name {
            GeneralName::URI(uri) => ("URI", *uri),
            GeneralName::DNSName(name) => ("DNS", *name),
            GeneralName::RFC822Name(address) => ("Email", *address),
            _ => continue,
        };
        field.push_str(&format!(";{kind}={}", plain_or_quoted(value)));
        if field.len() > IDENTITY_BYTES_MAX {
            return None;
        }
    }
    (field.len() <= IDENTITY_BYTES_MAX).then_some(Identity { field, not_after_s: certificate.validity().not_after.timestamp() })
}

/// Whatever would end the value early, or end the element, is quoted.
fn plain_or_quoted(value: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/@*+%?&=#".contains(&byte);
    // `=` and `,` part elements of the field.
    if value.bytes().all(|byte| is_plain(byte) && byte != b'=') && !value.is_empty() { value.to_owned() } else { quoted(value) }
}

/// Bytes that are not visible ASCII are percent-encoded: a subject may hold any letter, and line ends.
fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => text.extend(['\\', byte as char]),
            b'%' => text.push_str("%25"),
            b' '..=b'~' => text.push(byte as char),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text.push('"');
    text
}
