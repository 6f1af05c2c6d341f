//! One data thread before one target, for profilers that count instructions: nothing else runs in its process.
//!
//! `one_lane proxy LISTEN TARGET [LANES]`: proxies until its standard input ends.
//! `one_lane target ADDRESS [BYTES]`: answers every request without a body with so many bytes.
//! `one_lane load ADDRESS CONNECTIONS REQUESTS`: asks so often over each of so many keep-alive connections, one request at a time on each.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use model::{AccessLog, AccessLogFormat, AccessLogScope, Arm, HostPattern, Mode, Route, ServiceRouting, Snapshot, VersionTargets};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};

// As the product has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REQUEST: &[u8] = b"GET /products/42?sort=price HTTP/1.1\r\nhost: shop.example.com\r\nuser-agent: Mozilla/5.0 (X11; Linux x86_64) bench\r\naccept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\naccept-language: en-US,en;q=0.5\r\naccept-encoding: gzip, deflate, br\r\ncookie: session=8c2f1e6a0b9d4f73; theme=dark\r\n\r\n";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = |index: usize| arguments[index].parse::<SocketAddr>().expect("an address");
    let number = |index: usize, otherwise: usize| arguments.get(index).map_or(otherwise, |text| text.parse().expect("a number"));
    match arguments.first().map(String::as_str) {
        Some("proxy") => proxy(address(1), address(2), number(3, 1)),
        Some("target") => run(target(address(1), number(2, 1024))),
        Some("load") => run(load(address(1), number(2, 16), number(3, 100))),
        _ => panic!("see the head of this file"),
    }
}

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, work);
}

fn proxy(listen: SocketAddr, target: SocketAddr, threads: usize) {
    let folder = std::env::temp_dir().join(format!("one-lane-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let log = AccessLog { scope: AccessLogScope::Failed, format: AccessLogFormat::Json };
    let config = proxy::Config { threads, access_log: Some((log, folder.join("access.log"))), black_box: None };
    let proxy = proxy::Proxy::start(config).expect("started");
    let (main, version) = (model::ListenerName::new("main").expect("a name"), model::VersionName::new("v1").expect("a name"));
    proxy.listen(&main, TcpListener::bind(listen).expect("bound")).expect("listening");
    let target = model::Target { id: model::TargetId::new("t1").expect("a name"), address: target, healthy: true };
    let routing = ServiceRouting {
        target_tls: None,
        target_proxy_protocol: None,
        protocol: model::Protocol::default(),
        name: model::ServiceName::new("web").expect("a name"),
        routes: vec![Route { listener: main, host: HostPattern::Any, path: "/".into() }],
        mode: Mode::Serve,
        arms: vec![Arm { version: version.clone(), weight: 10_000 }],
        versions: vec![VersionTargets { version, targets: vec![target] }],
        draw: None,
        stale_cookie: None,
        mirror: None,
        previews: Vec::new(),
        response_header_timeout_ms: 30_000,
        stream_idle_timeout_ms: 60_000,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let snapshot = Arc::new(Snapshot { generation: 1, services: vec![routing], ..Snapshot::default() });
    runtime.block_on(proxy.install(snapshot)).expect("installed");
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("read");
    let _ = std::fs::remove_dir_all(&folder);
}

async fn target(address: SocketAddr, bytes: usize) {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {bytes}\r\nserver: target\r\n\r\n").into_bytes();
    answer.resize(answer.len() + bytes, b'x');
    let answer = Rc::new(answer);
    let listener = tokio::net::TcpListener::bind(address).await.expect("bound");
    loop {
        let (stream, _) = listener.accept().await.expect("accepted");
        spawn_local(answer_all(stream, answer.clone()));
    }
}

async fn answer_all(mut stream: TcpStream, answer: Rc<Vec<u8>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut read, mut filled) = (vec![0; 16 * 1024], 0);
    loop {
        let size = stream.read(&mut read[filled..]).await?;
        if size == 0 {
            return Ok(());
        }
        filled += size;
        if read[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            stream.write_all(&answer).await?;
        }
    }
}

async fn load(address: SocketAddr, connections: usize, requests: usize) {
    let clients: Vec<_> = (0..connections).map(|_| spawn_local(ask(address, requests))).collect();
    for client in clients {
        client.await.expect("no panic").expect("answered");
    }
}

async fn ask(address: SocketAddr, requests: usize) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut read, mut left) = (vec![0; 256 * 1024], None);
    for _ in 0..requests {
        stream.write_all(REQUEST).await?;
        let mut filled = 0;
        loop {
            let size = stream.read(&mut read[filled..]).await?;
            assert!(size > 0, "the peer closed");
            filled += size;
            if left.is_none()
                && let Some(end) = read[..filled].windows(4).position(|window| window == b"\r\n\r\n")
            {
                let head = std::str::from_utf8(&read[..end]).expect("text");
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                let length =
                    head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
                left = Some(end + 4 + length.expect("a length"));
            }
            if left == Some(filled) {
                break;
            }
        }
        left = None;
    }
    Ok(())
}
