//! How targets are spoken to over TLS: whom we trust, and who we are to them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{Authorities, TargetTls};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::sync::watch;

use crate::keyring::News;
use crate::loaded::{Pair, Roots};
use crate::provider::provider;
use crate::watched::{Look, Watched};
use crate::{HTTP1, files};

/// Of all threads; a target gives one or two tickets a connection.
const SESSIONS_MAX: usize = 1_024;

type Loaded = Result<Arc<ClientConfig>, String>;

/// What the data plane and the health checks hold of a service's `tls`.
pub struct Trust {
    /// Differs between any two settings: connections made under others are not used again.
    pub number: u64,
    name: Option<ServerName<'static>>,
    loaded: watch::Sender<Option<Loaded>>,
}

impl Trust {
    pub(crate) fn new(settings: &TargetTls) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = settings.name.as_ref().and_then(|name| ServerName::try_from(name.clone()).ok());
        Arc::new(Self { number: NEXT.fetch_add(1, Ordering::Relaxed), name, loaded: watch::Sender::new(None) })
    }

    /// Waits while the files were not read for the first time. An error is what is wrong with them.
    pub async fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let mut loaded = self.loaded.subscribe();
        let loaded = loaded.wait_for(Option::is_some).await.map_err(|_| "its files are not looked after any more".to_owned())?;
        loaded.clone().expect("waited for")
    }

    /// What the certificate of a target at this address must name.
    pub fn name(&self, address: IpAddr) -> ServerName<'static> {
        self.name.clone().unwrap_or_else(|| ServerName::IpAddress(address.to_canonical().into()))
    }
}

/// To speak HTTP/1.1 with a server that these authorities vouch for. Reads files: not for a thread that must not wait.
///
/// # Errors
/// What is wrong with the authorities' file, in words.
pub fn client_config(ca: &Authorities) -> Result<Arc<ClientConfig>, String> {
    let roots = match ca {
        Authorities::System => Roots::system(),
        Authorities::File(file) => {
            files::read(file).and_then(|text| Roots::from_pem(&text).map_err(|problem| format!("{}: {problem}", file.display())))
        }
    }?;
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let mut config = builder.map_err(|error| error.to_string())?.with_root_certificates(roots.store).with_no_client_auth();
    config.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// Looks after a trust; on the keyring's thread.
pub(crate) struct Trustkeeper {
    trust: Arc<Trust>,
    roots: Watched<Roots>,
    identity: Option<Watched<(Vec<u8>, Vec<u8>)>>,
    is_first: bool,
}

impl Trustkeeper {
    pub(crate) fn new(settings: TargetTls, trust: Arc<Trust>) -> Self {
        let roots = match &settings.ca {
            Authorities::System => Watched::new(Vec::new(), |_| Roots::system()),
            Authorities::File(file) => Watched::new(vec![file.clone()], |files| Roots::from_pem(&files[0])),
        };
        let identity = settings.identity.clone().map(|(chain, key)| {
            Watched::new(vec![chain, key], |files| {
                // Whether they fit each other.
                Pair::from_pem(&files[0], &files[1]).map(|_| (files[0].clone(), files[1].clone()))
            })
        });
        Self { trust, roots, identity, is_first: true }
    }

    pub(crate) fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    pub(crate) fn look(&mut self, tell: &mut dyn FnMut(News)) {
        let roots = (self.roots.look(), self.roots.problem().map(str::to_owned), self.roots.value().is_some());
        let identity = self.identity.as_mut().map(|it| (it.look(), it.problem().map(str::to_owned), it.value().is_some()));
        let mut changed = std::mem::take(&mut self.is_first);
        for (look, problem, has_one) in [Some(roots), identity].into_iter().flatten() {
            changed |= look == Look::Loaded;
            if look == Look::Failed {
                let goes_on = if has_one { "; what was read before still counts" } else { "; these targets are not reached" };
                tell(News::new("certificate_failed", format!("tls to targets: {}{goes_on}", problem.unwrap_or_default())));
            }
        }
        if changed {
            self.trust.loaded.send_replace(Some(self.config()));
        }
    }

    fn config(&self) -> Loaded {
        let problem = |problem: Option<&str>| problem.unwrap_or("not read").to_owned();
        let roots = self.roots.value().ok_or_else(|| problem(self.roots.problem()))?;
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?.with_root_certificates(roots.store.clone());
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.value().ok_or_else(|| problem(identity.problem()))?;
                let (chain, key) = (crate::loaded::certificates(chain)?, crate::loaded::private_key(key)?);
                builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
            }
        };
        config.alpn_protocols = vec![HTTP1.to_vec()];
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Ok(Arc::new(config))
    }
}
