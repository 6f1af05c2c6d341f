//! Certificates made for a test, files of them, and handshakes in memory.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Certificate, DefaultCertificate, ListenerTls};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection};
use tls::{Door, Handshake, Keyring};

pub const DEADLINE: Duration = Duration::from_secs(10);

pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < until, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An authority.
pub struct Authority {
    pub issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// PEM.
#[derive(Clone)]
pub struct Made {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("key");
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub fn certificate(&self, names: &[&str]) -> Made {
        self.with(names, KeyPair::generate().expect("key"), |_| {})
    }

    pub fn with(&self, names: &[&str], key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Made {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(|name| SanType::DnsName((*name).try_into().expect("name"))).collect();
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody"));
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Made { chain: certificate.pem(), key: key.serialize_pem() }
    }

    pub fn client(&self) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("pem")).expect("authority");
        let builder = ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions().expect("versions");
        builder.with_root_certificates(roots)
    }

    pub fn client_of(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("pem")).expect("authority");
        let builder = ClientConfig::builder_with_provider(tls::provider()).with_protocol_versions(versions).expect("versions");
        builder.with_root_certificates(roots).with_no_client_auth()
    }

    pub fn anonymous(&self) -> ClientConfig {
        self.client().with_no_client_auth()
    }

    /// An old client: it verifies handshakes that are signed with RSA keys, and no others.
    pub fn knowing_only_rsa(&self) -> ClientConfig {
        let mut provider = CryptoProvider::clone(&tls::provider());
        let known = provider.signature_verification_algorithms;
        let rsa = known.mapping.iter().filter(|(scheme, _)| format!("{scheme:?}").starts_with("RSA")).copied().collect::<Vec<_>>();
        provider.signature_verification_algorithms = WebPkiSupportedAlgorithms { all: known.all, mapping: rsa.leak() };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("pem")).expect("authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions().expect("versions");
        builder.with_root_certificates(roots).with_no_client_auth()
    }

    pub fn as_client(&self, made: &Made) -> ClientConfig {
        let chain = CertificateDer::pem_slice_iter(made.chain.as_bytes()).map(|one| one.expect("pem")).collect();
        let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).expect("key");
        self.client().with_client_auth_cert(chain, key).expect("client")
    }
}

impl Made {
    /// As two files, the certificate's written last.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (chain, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&key, &self.key).expect("written");
        std::fs::write(&chain, &self.chain).expect("written");
        (chain, key)
    }
}

pub fn entry(files: &(PathBuf, PathBuf), names: &[&str]) -> Certificate {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Certificate { names, certificate: files.0.clone(), key: files.1.clone() }
}

pub fn settings(certificates: Vec<Certificate>) -> ListenerTls {
    ListenerTls { certificates, default: DefaultCertificate::First, client_auth: None, acme: None }
}

pub fn door(keyring: &Keyring, settings: &ListenerTls) -> Arc<Door> {
    keyring.doors(&[("main".to_owned(), settings.clone())].into()).remove("main").expect("it was asked for")
}

pub fn config(door: &Door) -> Option<Arc<ServerConfig>> {
    config_for(door, false)
}

pub fn config_for(door: &Door, is_challenge: bool) -> Option<Arc<ServerConfig>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    let handshake = runtime.block_on(async { tokio::time::timeout(DEADLINE, door.handshake(is_challenge)).await }).expect("in time");
    match handshake {
        Handshake::With(config) => Some(config),
        Handshake::Refused => None,
    }
}

/// What came of a handshake.
#[derive(Debug)]
pub struct Met {
    /// The first name of the certificate that the server showed.
    pub shown: String,
    pub resumed: bool,
    pub protocol: Option<Vec<u8>>,
    /// Of the client's certificate.
    pub identity: Option<tls::Identity>,
}

/// A handshake in memory, and a word each way, so that tickets arrive. The error is the one that came first.
pub fn meet(server: Arc<ServerConfig>, client: &Arc<ClientConfig>, name: &str) -> Result<Met, rustls::Error> {
    let mut client = ClientConnection::new(client.clone(), ServerName::try_from(name.to_owned()).expect("name")).expect("client");
    let mut server = ServerConnection::new(server).expect("server");
    let (mut said, mut answered) = (false, false);
    for _ in 0..20 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("memory");
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("memory");
            server.process_new_packets()?;
        }
        if !server.is_handshaking() && !answered {
            server.writer().write_all(b"hello").expect("memory");
            answered = true;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).expect("memory");
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory");
            client.process_new_packets()?;
        }
        if !client.is_handshaking() && !said {
            client.writer().write_all(b"hello").expect("memory");
            said = true;
        }
        let mut word = [0; 5];
        if said && answered && client.reader().read(&mut word).is_ok_and(|read| read == 5) {
            let leaf = &client.peer_certificates().expect("shown")[0];
            let identity = server.peer_certificates().and_then(|chain| tls::identity(&chain[0]));
            return Ok(Met {
                shown: tls::identity(leaf)
                    .expect("readable")
                    .field
                    .split("DNS=")
                    .nth(1)
                    .unwrap_or("none")
                    .split(';')
                    .next()
                    .expect("one")
                    .to_owned(),
                resumed: server.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
                protocol: server.alpn_protocol().map(<[u8]>::to_vec),
                identity,
            });
        }
    }
    panic!("no end of the handshake");
}

/// Never resumes.
pub fn fresh(mut client: ClientConfig) -> Arc<ClientConfig> {
    client.resumption = Resumption::disabled();
    Arc::new(client)
}
