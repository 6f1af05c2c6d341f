//! Which certificate a client gets, by the name that it asks for (SNI, RFC 6066 §3).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::issued::Issued;

/// Certificates of one name, such as one with an RSA and one with an ECDSA key. None: they cannot be used at present.
type Choice = Vec<Arc<CertifiedKey>>;

/// By name; immutable.
#[derive(Default)]
pub(crate) struct Names {
    exact: HashMap<String, Choice>,
    /// By what follows `*.`.
    wildcards: HashMap<String, Choice>,
    default: Choice,
    /// Certificates of these names come from an authority, now or later.
    asked: HashSet<String>,
    /// Of them, the one for whoever names nobody.
    default_asked: Option<String>,
}

impl Names {
    /// `name` is in lower case; `*.` stands for one label (RFC 9525 §6.3).
    pub(crate) fn add(&mut self, name: &str, certified: Option<Arc<CertifiedKey>>) {
        let choice = match name.strip_prefix("*.") {
            Some(suffix) => self.wildcards.entry(suffix.to_owned()).or_default(),
            None => self.exact.entry(name.to_owned()).or_default(),
        };
        choice.extend(certified);
    }

    pub(crate) fn default_is(&mut self, certified: Arc<CertifiedKey>) {
        self.default.push(certified);
    }

    /// One that an authority is asked for.
    pub(crate) fn ask_for(&mut self, name: &str) {
        self.asked.insert(name.to_owned());
    }

    pub(crate) fn default_is_of(&mut self, name: &str) {
        match self.find(name) {
            Some(choice) => self.default = choice.clone(),
            None => self.default_asked = self.asked.get(name).cloned(),
        }
    }

    /// Nobody is shown to whoever asks for no name, or an unknown one.
    pub(crate) fn refuses_strangers(&self) -> bool {
        self.default.is_empty() && self.default_asked.is_none()
    }

    fn find(&self, name: &str) -> Option<&Choice> {
        let wildcard = || name.split_once('.').and_then(|(_, suffix)| self.wildcards.get(suffix));
        self.exact.get(name).or_else(wildcard)
    }
}

/// What handshakes ask; replaced as a whole.
pub(crate) struct Resolver {
    names: ArcSwap<Names>,
    issued: Arc<Issued>,
}

impl Resolver {
    pub(crate) fn new(issued: Arc<Issued>) -> Arc<Self> {
        Arc::new(Self { names: ArcSwap::default(), issued })
    }

    pub(crate) fn replace(&self, names: Names) {
        self.names.store(Arc::new(names));
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let names = self.names.load();
        let fitting = |choice: &Choice| {
            let fits = |certified: &&Arc<CertifiedKey>| certified.key.choose_scheme(hello.signature_schemes()).is_some();
            choice.iter().find(fits).cloned()
        };
        let issued = |name: &str| {
            let certified = self.issued.certificate(name)?;
            fitting(&vec![certified])
        };
        let default = || match &names.default_asked {
            Some(name) => issued(name),
            None => fitting(&names.default),
        };
        let Some(name) = hello.server_name().map(str::to_ascii_lowercase) else { return default() };
        match names.find(&name) {
            Some(choice) => fitting(choice),
            // While it is not there, nobody else answers for it.
            None if names.asked.contains(&name) => issued(&name),
            None => default(),
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}
