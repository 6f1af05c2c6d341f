//! Certificates that come from code, not from files: issued by an authority that was asked; and what is shown to it as a proof.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::loaded::Pair;

/// Where an authority looks for the answer to a token (RFC 8555 §8.3).
const TOKENS: &[u8] = b"/.well-known/acme-challenge/";

type ByName<T> = ArcSwap<HashMap<String, T>>;

/// Shared by all listeners. Names are in lower case, exact.
#[derive(Default)]
pub struct Issued {
    certificates: ByName<Pair>,
    challenges: ByName<Pair>,
    tokens: ByName<Bytes>,
}

impl Issued {
    /// From the next handshake on, where the listener has the name in `acme`; `None` takes it back. Files that have it go first.
    pub fn set(&self, name: &str, pair: Option<&Pair>) {
        put(&self.certificates, &name.to_ascii_lowercase(), pair.cloned());
    }

    /// What an authority is shown that asks with `acme-tls/1` (RFC 8737), and nobody else.
    pub fn set_challenge(&self, name: &str, pair: Option<&Pair>) {
        put(&self.challenges, &name.to_ascii_lowercase(), pair.cloned());
    }

    /// What an authority is answered that asks for this token over HTTP; `None` takes it back.
    pub fn set_token(&self, token: &str, answer: Option<Bytes>) {
        put(&self.tokens, token, answer);
    }

    /// The answer, where a request's target, with its query or without, is that of a token which is pending. For each request:
    /// nothing but a look at how the target begins, unless it begins so.
    pub fn answer_for(&self, target: &[u8]) -> Option<Bytes> {
        let rest = target.strip_prefix(TOKENS)?;
        let token = rest.split(|byte| *byte == b'?').next().unwrap_or_default();
        self.tokens.load().get(std::str::from_utf8(token).ok()?).cloned()
    }

    pub(crate) fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.certificates.load().get(name).map(|pair| pair.certified.clone())
    }

    pub(crate) fn not_after_s(&self, name: &str) -> Option<i64> {
        self.certificates.load().get(name).map(Pair::not_after_s)
    }
}

fn put<T: Clone>(all: &ByName<T>, name: &str, value: Option<T>) {
    all.rcu(|before| {
        let mut after = HashMap::clone(before);
        match &value {
            Some(value) => after.insert(name.to_owned(), value.clone()),
            None => after.remove(name),
        };
        after
    });
}

pub(crate) struct Challenges(pub(crate) Arc<Issued>);

impl ResolvesServerCert for Challenges {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        self.0.challenges.load().get(&name).map(|pair| pair.certified.clone())
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenges")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pending_tokens_are_answered() {
        let issued = Issued::default();
        let asks = |path: &str| issued.answer_for(path.as_bytes());
        assert_eq!(asks("/.well-known/acme-challenge/abc"), None);
        issued.set_token("abc", Some(Bytes::from_static(b"abc.print")));
        assert_eq!(asks("/.well-known/acme-challenge/abc").as_deref(), Some(b"abc.print".as_slice()));
        for other in
            ["/.well-known/acme-challenge/ABC", "/.well-known/acme-challenge/abc/", "/.well-known/acme-challenge/", "/abc", "?", ""]
        {
            assert_eq!(asks(other), None, "{other}");
        }
        issued.set_token("abc", None);
        assert_eq!(asks("/.well-known/acme-challenge/abc"), None);
    }
}
