//! What a handshake with a target failed by, in words that say what to do.

use rustls::{CertificateError, Error};

pub fn explain(error: &std::io::Error) -> String {
    let Some(Error::InvalidCertificate(why)) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return error.to_string();
    };
    match why {
        // The latter two: an authority has the name of its issuer, and another key.
        CertificateError::UnknownIssuer
        | CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "its certificate comes from no authority of `ca`".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "its certificate is not valid yet".to_owned(),
        CertificateError::NotValidForName => "its certificate does not have the `name`".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            format!("its certificate is not for {}, but for {}; say `name`", expected.to_str(), presented.join(", "))
        }
        // RFC 5280 §4.2.1.9; what `openssl req -x509` makes by default.
        CertificateError::Other(_) if format!("{why:?}").contains("CaUsedAsEndEntity") => {
            "its certificate is one of an authority; make it with `-addext basicConstraints=critical,CA:FALSE`".to_owned()
        }
        other => other.to_string(),
    }
}
