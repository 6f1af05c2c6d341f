//! Raw targets that record bytes, snapshots in a line, and a client that speaks bytes. Waits are for conditions, with deadlines.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

pub mod auditor;
pub mod frames;
pub mod http2_target;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use model::{
    Arm, HostPattern, ListenerName, Mode, Preview, Route, ServiceName, ServiceRouting, Snapshot, TargetId, VersionName, VersionTargets,
};
use proxy::{Config, Proxy};

pub const DEADLINE: Duration = Duration::from_secs(10);

pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < until, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn service() -> ServiceName {
    ServiceName::new("web").expect("name")
}

pub fn version(name: &str) -> VersionName {
    VersionName::new(name).expect("name")
}

pub fn listener() -> ListenerName {
    ListenerName::new("main").expect("name")
}

/// What a target got on one connection, and what it does with it.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub bytes: Arc<Mutex<Vec<u8>>>,
    pub requests: Arc<AtomicUsize>,
    pub connections: Arc<AtomicUsize>,
}

impl Target {
    /// `act` gets each request (head and body) and writes; `false` closes the connection.
    pub fn new(act: impl Fn(&str, &mut TcpStream) -> bool + Send + Sync + 'static) -> Target {
        let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
        let target = Target {
            address: socket.local_addr().expect("address"),
            bytes: Arc::default(),
            requests: Arc::default(),
            connections: Arc::default(),
        };
        let (own, act) = (target.clone(), Arc::new(act));
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                own.connections.fetch_add(1, Ordering::SeqCst);
                let (own, act) = (own.clone(), act.clone());
                std::thread::spawn(move || own.converse(stream, &*act));
            }
        });
        target
    }

    /// Answers each request with this text.
    pub fn saying(text: &'static str) -> Target {
        Target::new(move |_, stream| write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).is_ok())
    }

    fn converse(&self, mut stream: TcpStream, act: &(impl Fn(&str, &mut TcpStream) -> bool + ?Sized)) {
        stream.set_nodelay(true).expect("nodelay");
        let mut buffer = Vec::new();
        loop {
            let mut chunk = [0; 4096];
            let end = loop {
                if let Some(end) = message_end(&buffer) {
                    break end;
                }
                match stream.read(&mut chunk) {
                    Ok(0) | Err(_) => return,
                    Ok(read) => {
                        buffer.extend(&chunk[..read]);
                        self.bytes.lock().expect("lock").extend(&chunk[..read]);
                    }
                }
            };
            let message: Vec<u8> = buffer.drain(..end).collect();
            self.requests.fetch_add(1, Ordering::SeqCst);
            if !act(&String::from_utf8_lossy(&message), &mut stream) {
                return;
            }
        }
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("lock")).into_owned()
    }
}

/// Where the first message in the buffer ends, by content-length or chunks.
pub fn message_end(buffer: &[u8]) -> Option<usize> {
    let head = find(buffer, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    if text.contains("transfer-encoding: chunked") {
        // The last chunk follows a chunk or the head; behind it are trailers or the empty line.
        let body = &buffer[head - 2..];
        let last = find(body, b"\r\n0\r\n")? + 3;
        return Some(head - 2 + last + find(&body[last..], b"\r\n\r\n")? + 4);
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.trim().parse().expect("number"));
    (buffer.len() >= head + length).then_some(head + length)
}

fn find(buffer: &[u8], what: &[u8]) -> Option<usize> {
    buffer.windows(what.len()).position(|window| window == what)
}

pub fn routing(arms: &[(&str, u16)], versions: &[(&str, &[SocketAddr])]) -> ServiceRouting {
    let target = |name: &str, address: &SocketAddr| model::Target {
        id: TargetId::new(&format!("{}-{}", name.replace('.', "-"), address.port())).expect("name"),
        address: *address,
        healthy: true,
    };
    ServiceRouting {
        name: service(),
        routes: vec![Route { listener: listener(), host: HostPattern::Any, path: "/".into() }],
        mode: Mode::Serve,
        arms: arms.iter().map(|(name, weight)| Arm { version: version(name), weight: *weight }).collect(),
        versions: versions
            .iter()
            .map(|(name, addresses)| VersionTargets {
                version: version(name),
                targets: addresses.iter().map(|address| target(name, address)).collect(),
            })
            .collect(),
        draw: None,
        stale_cookie: None,
        mirror: None,
        previews: Vec::<Preview>::new(),
        response_header_timeout_ms: 5_000,
        stream_idle_timeout_ms: 5_000,
        target_tls: None,
        target_proxy_protocol: None,
        protocol: model::Protocol::default(),
    }
}

pub struct House {
    pub proxy: Proxy,
    pub address: SocketAddr,
    pub runtime: tokio::runtime::Runtime,
    pub socket: TcpListener,
}

impl House {
    pub fn new(threads: usize) -> House {
        House::with(Config { threads, access_log: None, black_box: None })
    }

    pub fn with(config: Config) -> House {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let proxy = Proxy::start(config).expect("start");
        let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
        proxy.listen(&listener(), socket.try_clone().expect("clone")).expect("listen");
        House { proxy, address: socket.local_addr().expect("address"), runtime, socket }
    }

    pub fn install(&self, routing: ServiceRouting) {
        let snapshot = Arc::new(Snapshot { generation: 1, services: vec![routing], ..Snapshot::default() });
        self.runtime.block_on(self.proxy.install(snapshot)).expect("acknowledged");
    }

    pub fn serving(target: &Target) -> House {
        let house = House::new(1);
        house.install(routing(&[("v1", 10_000)], &[("v1", &[target.address])]));
        house
    }

    pub fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("connect");
        stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
        Client { stream, buffer: Vec::new() }
    }

    /// One exchange on its own connection.
    pub fn ask(&self, bytes: &str) -> String {
        let mut client = self.client();
        client.send(bytes);
        client.answer()
    }
}

pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

pub const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

impl Client {
    pub fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).expect("write");
    }

    /// The peer may have closed.
    pub fn try_send(&mut self, bytes: &str) {
        let _ = self.stream.write_all(bytes.as_bytes());
    }

    /// One whole answer, framed by content-length or chunks. Panics when the connection ends before.
    pub fn answer(&mut self) -> String {
        loop {
            if let Some(end) = message_end(&self.buffer) {
                let message: Vec<u8> = self.buffer.drain(..end).collect();
                if message.starts_with(b"HTTP/1.1 100 ") {
                    continue;
                }
                return String::from_utf8_lossy(&message).into_owned();
            }
            let mut chunk = [0; 4096];
            let read = self.stream.read(&mut chunk).expect("read");
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&self.buffer));
            self.buffer.extend(&chunk[..read]);
        }
    }

    pub fn read_exact(&mut self, length: usize) -> String {
        while self.buffer.len() < length {
            let mut chunk = [0; 4096];
            let read = self.stream.read(&mut chunk).expect("read");
            assert!(read > 0, "closed");
            self.buffer.extend(&chunk[..read]);
        }
        String::from_utf8_lossy(&self.buffer.drain(..length).collect::<Vec<u8>>()).into_owned()
    }

    /// All until the end. Panics when the connection stays open.
    pub fn rest(&mut self) -> String {
        let mut all = std::mem::take(&mut self.buffer);
        if let Err(error) = self.stream.read_to_end(&mut all) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "still open after {:?}", String::from_utf8_lossy(&all));
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}

pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}

pub fn reason(answer: &str) -> &str {
    answer.lines().find_map(|line| line.strip_prefix("x-changeover-reason: ")).unwrap_or("")
}

pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

pub fn client_to(address: SocketAddr) -> Client {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
    Client { stream, buffer: Vec::new() }
}

impl Client {
    pub fn read_until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = find(&self.buffer, end.as_bytes()) {
                let text: Vec<u8> = self.buffer.drain(..at + end.len()).collect();
                return String::from_utf8_lossy(&text).into_owned();
            }
            let mut chunk = [0; 4096];
            let read = self.stream.read(&mut chunk).expect("read");
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&self.buffer));
            self.buffer.extend(&chunk[..read]);
        }
    }
}
