//! A house that speaks TLS, and clients that speak bytes over it.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

#[path = "../../../tls/tests/common/mod.rs"]
pub mod certificates;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use model::{ListenerTls, Snapshot};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::common::{DEADLINE, House, Target, listener, routing};
use certificates::{Authority, Made, entry, fresh, settings};

pub struct Secure {
    pub house: House,
    pub authority: Authority,
    pub folder: tempfile::TempDir,
    pub settings: ListenerTls,
}

impl Secure {
    pub fn serving(target: &Target, names: &[&str]) -> Self {
        Self::of(House::new(1), target, names)
    }

    pub fn of(house: House, target: &Target, names: &[&str]) -> Self {
        let (authority, folder) = (Authority::new("ca"), tempfile::tempdir().expect("folder"));
        let files = authority.certificate(names).write(folder.path(), "site");
        let secure = Self { house, authority, folder, settings: settings(vec![entry(&files, &[])]) };
        secure.install(target);
        secure
    }

    pub fn install(&self, target: &Target) {
        let services = vec![routing(&[("v1", 10_000)], &[("v1", &[target.address])])];
        let snapshot = Snapshot { generation: 1, services, tls: [(listener(), self.settings.clone())].into(), ..Snapshot::default() };
        self.house.runtime.block_on(self.house.proxy.install(Arc::new(snapshot))).expect("acknowledged");
    }

    pub fn client(&self, name: &str) -> Client {
        connect(&self.house, &fresh(self.authority.anonymous()), name)
    }
}

pub struct Client {
    pub stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: Vec<u8>,
}

pub fn connect(house: &House, config: &Arc<ClientConfig>, name: &str) -> Client {
    try_connect(house, config, name).expect("handshake")
}

/// With the handshake done, as far as the client knows.
pub fn try_connect(house: &House, config: &Arc<ClientConfig>, name: &str) -> io::Result<Client> {
    let mut socket = TcpStream::connect(house.address)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.set_nodelay(true)?;
    let mut session = ClientConnection::new(config.clone(), ServerName::try_from(name.to_owned()).expect("name")).expect("client");
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(Client { stream: StreamOwned::new(session, socket), buffer: Vec::new() })
}

/// Under TLS 1.3 a client learns only afterwards that its certificate was refused.
pub fn refuses(house: &House, config: &Arc<ClientConfig>, name: &str) -> bool {
    try_connect(house, config, name).and_then(|mut client| client.try_ask(crate::common::GET)).is_err()
}

impl Client {
    pub fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).and_then(|()| self.stream.flush()).expect("written");
    }

    pub fn ask(&mut self, request: &str) -> String {
        self.try_ask(request).expect("answered")
    }

    pub fn try_ask(&mut self, request: &str) -> io::Result<String> {
        self.stream.write_all(request.as_bytes())?;
        self.try_answer()
    }

    pub fn answer(&mut self) -> String {
        self.try_answer().expect("answered")
    }

    fn try_answer(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = crate::common::message_end(&self.buffer) {
                return Ok(String::from_utf8_lossy(&self.buffer.drain(..end).collect::<Vec<_>>()).into_owned());
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let mut chunk = vec![0; 64 * 1024];
        let read = self.stream.read(&mut chunk)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a clean end"));
        }
        self.buffer.extend(&chunk[..read]);
        Ok(())
    }

    pub fn read_exact(&mut self, length: usize) -> String {
        while self.buffer.len() < length {
            self.more().expect("more");
        }
        String::from_utf8_lossy(&self.buffer.drain(..length).collect::<Vec<u8>>()).into_owned()
    }

    pub fn read_until(&mut self, end: &str) -> String {
        loop {
            let found = self.buffer.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(at) = found {
                return String::from_utf8_lossy(&self.buffer.drain(..at + end.len()).collect::<Vec<u8>>()).into_owned();
            }
            self.more().expect("more");
        }
    }

    /// All until the end, which must be announced (`close_notify`).
    pub fn rest(&mut self) -> String {
        let mut all = std::mem::take(&mut self.buffer);
        self.stream.read_to_end(&mut all).expect("a clean end");
        String::from_utf8_lossy(&all).into_owned()
    }

    pub fn leaf(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().expect("shown")[0].to_vec()
    }
}

pub fn leaf(made: &Made) -> Vec<u8> {
    CertificateDer::from_pem_slice(made.chain.as_bytes()).expect("pem").to_vec()
}

pub fn metric(house: &House, name: &str) -> u64 {
    let text = house.proxy.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

/// The text of `GET /`, over a connection that negotiates HTTP/2.
pub fn over_http2(secure: &Secure, config: &Arc<ClientConfig>, name: &str) -> String {
    secure.house.runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(secure.house.address).await.expect("connect");
        let name = ServerName::try_from(name.to_owned()).expect("name");
        let stream = tokio_rustls::TlsConnector::from(config.clone()).connect(name, socket).await.expect("handshake");
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut send, connection) = hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.expect("HTTP/2");
        tokio::spawn(connection);
        let request = http::Request::get("https://a.test/").body(http_body_util::Empty::<bytes::Bytes>::new()).expect("request");
        let response = send.send_request(request).await.expect("answer");
        let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("whole").to_bytes();
        String::from_utf8(body.to_vec()).expect("text")
    })
}
