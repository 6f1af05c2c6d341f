//! A listener's TLS: what its handshakes are made with, kept up to date from its files.
//!
//! **Invariant**: the settings of a handshake are whole; a change of files or settings counts from the next handshake on.

use std::sync::Arc;

use model::{ClientAuth, DefaultCertificate, ListenerTls};
use rustls::ServerConfig;
use rustls::server::{NoClientAuth, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use tokio::sync::watch;

use crate::issued::{Challenges, Issued};
use crate::keyring::{self, News, Source};
use crate::leaf::now_s;
use crate::loaded::{Pair, Roots};
use crate::names::{Names, Resolver};
use crate::provider::provider;
use crate::tickets::Tickets;
use crate::watched::{Look, Watched};
use crate::{ACME_CHALLENGE, HTTP1, HTTP2, files};

/// An expiry is told so long before.
const EXPIRES_SOON_S: i64 = 14 * 24 * 3600;

/// What the data plane holds of a listener's TLS.
pub struct Door {
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    /// Rises when what is ready must not be used any more.
    turn: u64,
    ready: Option<Ready>,
}

/// With what a client is answered.
#[derive(Clone)]
pub enum Handshake {
    With(Arc<ServerConfig>),
    /// Whom to let in is not known: the file of the clients' authorities cannot be read.
    Refused,
}

#[derive(Clone)]
struct Ready {
    clients: Handshake,
    challenges: Arc<ServerConfig>,
}

impl Door {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: watch::Sender::default() })
    }

    /// Handshakes wait until the files were looked at once more.
    pub(crate) fn wait_for_files(&self) {
        self.state.send_modify(|state| *state = State { turn: state.turn + 1, ready: None });
    }

    pub(crate) fn turn(&self) -> u64 {
        self.state.borrow().turn
    }

    /// Unless it is of an earlier turn.
    fn open(&self, turn: u64, ready: Ready) {
        self.state.send_if_modified(|state| {
            let is_due = state.turn == turn;
            if is_due {
                state.ready = Some(ready);
            }
            is_due
        });
    }

    /// Waits while the files were not read for the first time. `is_challenge`: the client speaks nothing but `acme-tls/1`.
    pub async fn handshake(&self, is_challenge: bool) -> Handshake {
        let mut state = self.state.subscribe();
        let Ok(state) = state.wait_for(|state| state.ready.is_some()).await else { return Handshake::Refused };
        let Some(ready) = &state.ready else { return Handshake::Refused };
        if is_challenge { Handshake::With(ready.challenges.clone()) } else { ready.clients.clone() }
    }
}

/// Looks after a door; on the keyring's thread.
pub(crate) struct Doorkeeper {
    name: String,
    settings: ListenerTls,
    door: Arc<Door>,
    tickets: Arc<Tickets>,
    issued: Arc<Issued>,
    resolver: Arc<Resolver>,
    pairs: Vec<Watched<Pair>>,
    /// Told of each pair that its end is near.
    warned: Vec<Warned>,
    client_ca: Option<Watched<Roots>>,
    /// Of the door, when these settings came.
    turn: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Warned {
    Not,
    Soon,
    Expired,
}

impl Doorkeeper {
    /// With nothing to show yet.
    pub(crate) fn new(name: &str, door: Arc<Door>, tickets: Arc<Tickets>, issued: Arc<Issued>) -> Self {
        let resolver = Resolver::new(issued.clone());
        Self {
            name: name.to_owned(),
            settings: ListenerTls { certificates: Vec::new(), default: DefaultCertificate::Nothing, client_auth: None, acme: None },
            door,
            tickets,
            issued,
            resolver,
            pairs: Vec::new(),
            warned: Vec::new(),
            client_ca: None,
            turn: 0,
        }
    }

    /// What stays in the settings stays loaded.
    pub(crate) fn follow(&mut self, settings: ListenerTls, turn: u64) {
        self.turn = turn;
        let old = std::mem::take(&mut self.pairs);
        let mut old: Vec<_> = self.settings.certificates.iter().zip(old).collect();
        let pairs = settings.certificates.iter().map(|wanted| {
            let same = old.iter().position(|(had, _)| had.certificate == wanted.certificate && had.key == wanted.key);
            same.map_or_else(|| Watched::new(vec![wanted.certificate.clone(), wanted.key.clone()], read_pair), |at| old.swap_remove(at).1)
        });
        self.pairs = pairs.collect();
        self.warned = vec![Warned::Not; self.pairs.len()];
        if self.settings.client_auth.as_ref().map(|auth| &auth.ca) != settings.client_auth.as_ref().map(|auth| &auth.ca) {
            self.client_ca =
                settings.client_auth.as_ref().map(|auth| Watched::new(vec![auth.ca.clone()], |files| Roots::from_pem(&files[0])));
        }
        self.settings = settings;
    }

    /// Reads what has changed. `anew`: the settings have.
    pub(crate) fn look(&mut self, anew: bool, tell: &mut dyn FnMut(News)) {
        let mut names_changed = anew;
        for index in 0..self.pairs.len() {
            let had_one = self.pairs[index].value().is_some();
            match self.pairs[index].look() {
                Look::Same => {}
                Look::Loaded => {
                    names_changed = true;
                    self.warned[index] = Warned::Not;
                    if had_one {
                        tell(News::new("certificate_loaded", format!("listener {}: {} was read again", self.name, self.what(index))));
                    }
                    self.warn_of_key(index, tell);
                }
                Look::Failed => {
                    // A bad one has its names all the same, if they are known: nobody else answers for them.
                    names_changed |= !had_one;
                    let problem = self.pairs[index].problem().unwrap_or_default();
                    let goes_on = if had_one { "; the one from before is still shown" } else { "; its names are not served" };
                    tell(News::new("certificate_failed", format!("listener {}: {problem}{goes_on}", self.name)));
                }
            }
            self.warn_of_end(index, tell);
        }
        if names_changed {
            let names = self.names();
            if names.refuses_strangers() && self.settings.default != DefaultCertificate::Nothing {
                let text = format!(
                    "listener {}: no certificate that can be used is the default: clients that name no known host are refused",
                    self.name
                );
                tell(News::new("certificate_warning", text));
            }
            self.resolver.replace(names);
        }
        let ca_changed = match self.client_ca.as_mut().map(Watched::look) {
            Some(Look::Failed) => {
                let ca = self.client_ca.as_ref();
                let problem = ca.and_then(Watched::problem).unwrap_or_default();
                let has_one = ca.is_some_and(|ca| ca.value().is_some());
                let goes_on = if has_one { "; the authorities from before still count" } else { "; nobody gets in" };
                tell(News::new("certificate_failed", format!("listener {}: {problem}{goes_on}", self.name)));
                false
            }
            Some(Look::Loaded) => true,
            Some(Look::Same) | None => false,
        };
        if anew || ca_changed {
            self.door.open(self.turn, self.ready());
        }
    }

    fn what(&self, index: usize) -> String {
        self.settings.certificates[index].certificate.display().to_string()
    }

    fn warn_of_key(&self, index: usize, tell: &mut dyn FnMut(News)) {
        let key = &self.settings.certificates[index].key;
        if files::everybody_may_read(key) {
            let text = format!("listener {}: everybody on this machine may read the key {}", self.name, key.display());
            tell(News::new("certificate_warning", text));
        }
        if self.names_of(index).is_empty() {
            let text = format!("listener {}: {} names no host; give it `names`", self.name, self.what(index));
            tell(News::new("certificate_warning", text));
        }
    }

    fn warn_of_end(&mut self, index: usize, tell: &mut dyn FnMut(News)) {
        let Some(pair) = self.pairs[index].value() else { return };
        let left_s = pair.not_after_s() - now_s();
        let (now, text) = match left_s {
            ..0 => (Warned::Expired, "has expired; it is still shown".to_owned()),
            0..EXPIRES_SOON_S => (Warned::Soon, format!("expires in {} hours", left_s / 3600)),
            _ if pair.facts.not_before_s > now_s() => (Warned::Soon, "is not valid yet; it is shown all the same".to_owned()),
            _ => return,
        };
        if self.warned[index] < now {
            self.warned[index] = now;
            tell(News::new("certificate_warning", format!("listener {}: {} {text}", self.name, self.what(index))));
        }
    }

    fn names_of(&self, index: usize) -> &[String] {
        let given = &self.settings.certificates[index].names;
        if given.is_empty() { self.pairs[index].value().map_or(&[], |pair| pair.names()) } else { given }
    }

    /// Names that an authority is asked for.
    fn asked(&self) -> &[String] {
        self.settings.acme.as_ref().map_or(&[], |acme| &acme.domains)
    }

    fn names(&self) -> Names {
        let mut names = Names::default();
        for (index, pair) in self.pairs.iter().enumerate() {
            let certified = pair.value().map(|pair| pair.certified.clone());
            self.names_of(index).iter().for_each(|name| names.add(name, certified.clone()));
        }
        self.asked().iter().for_each(|name| names.ask_for(name));
        match &self.settings.default {
            DefaultCertificate::First => match self.asked().first() {
                Some(name) if self.pairs.is_empty() => names.default_is_of(name),
                _ => self.pairs.iter().filter_map(Watched::value).for_each(|pair| names.default_is(pair.certified.clone())),
            },
            DefaultCertificate::Name(name) => names.default_is_of(name),
            DefaultCertificate::Nothing => {}
        }
        names
    }

    fn ready(&self) -> Ready {
        let clients = match (&self.settings.client_auth, self.client_ca.as_ref().map(Watched::value)) {
            (None, _) => {
                let sealer = self.tickets.sealer(&[self.name.as_bytes(), b"anybody"]);
                Handshake::With(server_config(Arc::new(NoClientAuth), self.resolver.clone(), Some(sealer), &[HTTP2, HTTP1]))
            }
            (Some(auth), Some(Some(roots))) => self.verifying(auth, roots),
            (Some(_), _) => Handshake::Refused,
        };
        let challenges = Arc::new(Challenges(self.issued.clone()));
        Ready { clients, challenges: server_config(Arc::new(NoClientAuth), challenges, None, &[ACME_CHALLENGE]) }
    }

    fn verifying(&self, auth: &ClientAuth, roots: &Roots) -> Handshake {
        let builder = WebPkiClientVerifier::builder_with_provider(roots.store.clone(), provider());
        let builder = if auth.required { builder } else { builder.allow_unauthenticated() };
        let Ok(verifier) = builder.build() else { return Handshake::Refused };
        let asked: &[u8] = if auth.required { b"required" } else { b"optional" };
        let sealer = self.tickets.sealer(&[self.name.as_bytes(), asked, &roots.bytes]);
        Handshake::With(server_config(verifier, self.resolver.clone(), Some(sealer), &[HTTP2, HTTP1]))
    }

    /// Of each certificate.
    pub(crate) fn states(&self) -> impl Iterator<Item = keyring::State> {
        let asked = self.asked().iter().map(|name| {
            let not_after_s = self.issued.not_after_s(name);
            let problem = not_after_s.is_none().then(|| "not issued yet".to_owned());
            keyring::State { listener: self.name.clone(), source: Source::Authority, names: vec![name.clone()], not_after_s, problem }
        });
        self.pairs
            .iter()
            .enumerate()
            .map(|(index, pair)| keyring::State {
                listener: self.name.clone(),
                source: Source::File(self.settings.certificates[index].certificate.clone()),
                names: self.names_of(index).to_vec(),
                not_after_s: pair.value().map(Pair::not_after_s),
                problem: pair.problem().map(str::to_owned),
            })
            .chain(asked)
    }
}

fn read_pair(files: &[Vec<u8>]) -> Result<Pair, String> {
    Pair::from_pem(&files[0], &files[1])
}

fn server_config(
    verifier: Arc<dyn rustls::server::danger::ClientCertVerifier>,
    resolver: Arc<dyn ResolvesServerCert>,
    sealer: Option<Arc<dyn rustls::server::ProducesTickets>>,
    protocols: &[&[u8]],
) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().expect("it has suites for both");
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    // Sessions are in tickets only: nothing is kept of a client that has left, and any thread and process can go on.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match sealer {
        Some(sealer) => config.ticketer = sealer,
        None => config.send_tls13_tickets = 0,
    }
    Arc::new(config)
}
