//! Clients of a listener that speaks TLS, who count what they lose.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::DEADLINE;

/// Between two requests of a client.
const PACE: Duration = Duration::from_millis(5);
const KEEP_ALIVE: usize = 4;
const FRESH: usize = 2;

#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub requests: usize,
    pub lost: Vec<String>,
    /// Different ones.
    pub certificates: usize,
}

pub struct Clients {
    stop: Arc<AtomicBool>,
    shared: Arc<Mutex<(Seen, BTreeSet<Vec<u8>>)>>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    pub fn start(roots: &Path, port: u16, name: &str) -> Self {
        let mut store = RootCertStore::empty();
        store.add(CertificateDer::from_pem_file(roots).expect("pem")).expect("an authority");
        let builder = ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions().expect("versions");
        let mut config = builder.with_root_certificates(store).with_no_client_auth();
        // Each connection meets the certificate that is shown now.
        config.resumption = rustls::client::Resumption::disabled();
        let (config, stop, shared) =
            (Arc::new(config), Arc::new(AtomicBool::new(false)), Arc::<Mutex<(Seen, BTreeSet<Vec<u8>>)>>::default());
        let one = |number: usize| {
            let (config, stop, shared, name) = (config.clone(), stop.clone(), shared.clone(), name.to_owned());
            std::thread::spawn(move || {
                let mut open = None;
                while !stop.load(Ordering::Relaxed) {
                    let asked = ask(&mut open, &config, port, &name);
                    let mut shared = shared.lock().expect("nobody panics");
                    shared.0.requests += 1;
                    match asked {
                        Ok(certificate) => drop(shared.1.insert(certificate)),
                        Err(error) => {
                            shared.0.lost.push(error.to_string());
                            open = None;
                        }
                    }
                    drop(shared);
                    if number >= KEEP_ALIVE {
                        open = None;
                    }
                    std::thread::sleep(PACE);
                }
            })
        };
        let threads = (0..KEEP_ALIVE + FRESH).map(one).collect();
        Self { stop, shared, threads }
    }

    pub fn seen(&self) -> Seen {
        let shared = self.shared.lock().expect("nobody panics");
        Seen { certificates: shared.1.len(), ..shared.0.clone() }
    }

    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let seen = |it: &Self| it.seen();
        let Self { stop, shared, threads } = self;
        threads.into_iter().for_each(|thread| thread.join().expect("clients do not panic"));
        seen(&Self { stop, shared, threads: Vec::new() })
    }
}

type Open = StreamOwned<ClientConnection, TcpStream>;

/// The leaf that the server showed on this connection.
fn ask(open: &mut Option<Open>, config: &Arc<ClientConfig>, port: u16, name: &str) -> std::io::Result<Vec<u8>> {
    if open.is_none() {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(DEADLINE))?;
        let client = ClientConnection::new(config.clone(), ServerName::try_from(name.to_owned()).expect("a name"));
        *open = Some(StreamOwned::new(client.map_err(std::io::Error::other)?, socket));
    }
    let stream = open.as_mut().expect("just opened");
    write!(stream, "GET / HTTP/1.1\r\nhost: {name}\r\n\r\n")?;
    let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
    let head_ends = |text: &[u8]| text.windows(4).position(|it| it == b"\r\n\r\n").map(|at| at + 4);
    let length = |head: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        line.trim().parse::<usize>().ok()
    };
    loop {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Err(std::io::Error::other("closed before its answer"));
        }
        text.extend_from_slice(&chunk[..read]);
        let Some(body) = head_ends(&text) else { continue };
        let head = String::from_utf8_lossy(&text[..body]).to_lowercase();
        if !head.starts_with("http/1.1 200") {
            return Err(std::io::Error::other(head));
        }
        if text.len() - body >= length(&head).unwrap_or(0) {
            return Ok(stream.conn.peer_certificates().expect("shown")[0].to_vec());
        }
    }
}
