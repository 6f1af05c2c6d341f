//! From a change being published to each of 1,000 streaming clients having read it, some of which do not read at all.
//!
//! `--binary 1` measures the built binary instead: `off` and `on` through its API, from the request on.
//!
//! The server has one thread on core 0, all clients one on core 1: half gRPC events, a quarter gRPC sync, a quarter
//! server-sent events, each on a connection of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::flag_service::{document, publish, start};
use bench::numbers::{argument, ms, quantile, table};
use bench::process::{Process, pin};
use bytes::{Buf, Bytes, BytesMut};
use flag_engine::Board;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::Signal;
use testbed::{ports, wait};
use tokio::sync::mpsc;

/// An empty gRPC message.
const EMPTY: Bytes = Bytes::from_static(&[0; 5]);
const KINDS: [&str; 3] = ["flagd events", "flagd sync", "server-sent events"];
const SEEN_WAIT_MAX: Duration = Duration::from_secs(30);
const START_MAX: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

/// Which kind of client has read a change, and when.
type Seen = (usize, Instant);

fn main() -> anyhow::Result<()> {
    let (clients, rounds, flags) = (argument("--clients", 1_000), argument("--rounds", 50), argument("--flags", 100) as usize);
    let (deaf, of_binary) = (argument("--deaf", 5), argument("--binary", 0) == 1);
    let subject = if of_binary { Subject::binary(flags)? } else { Subject::server(flags)? };
    let address = subject.address();
    pin(1)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut latencies, mut answers) = ([Vec::new(), Vec::new(), Vec::new()], Vec::new());
    runtime.block_on(async {
        let events = address_of_events(address).await?;
        let (seen, mut inbox) = mpsc::unbounded_channel();
        for index in 0..clients {
            listen(address, if index % 2 == 0 { 0 } else { 1 + (index / 2 % 2) as usize }, &events, seen.clone()).await?;
        }
        let mut unread = Vec::new();
        for _ in 0..deaf {
            unread.push(deaf_client(address).await?);
        }
        // Each has its first message.
        for _ in 0..clients {
            inbox.recv().await;
        }
        for round in 0..rounds {
            let on = round % 2 == 0;
            let set = document(flags, if on { "on" } else { "off" });
            tokio::time::sleep(PAUSE).await;
            let published = Instant::now();
            let answered = subject.change(on, &set).await?;
            answers.push(ms(answered - published));
            for _ in 0..clients {
                let (kind, at) = tokio::time::timeout(SEEN_WAIT_MAX, inbox.recv()).await?.ok_or_else(|| anyhow::anyhow!("no clients"))?;
                latencies[kind].push(ms(at - published));
            }
        }
        anyhow::Ok(())
    })?;
    drop(subject);
    if of_binary {
        let of = |share: f64| quantile(&answers, share);
        println!("the API's answer, when it is durable: p50 {:.1} ms, p99 {:.1} ms", of(0.5), of(0.99));
    }
    report(&latencies, clients, rounds, flags);
    Ok(())
}

/// What is measured.
enum Subject {
    /// The server's room in this process, on core 0.
    Server { board: Arc<Board>, address: SocketAddr, _server: flag_server::Server },
    /// The built binary: changes are asked of its API, and written to disk.
    Binary { socket: PathBuf, address: SocketAddr, _up: Process, _folder: tempfile::TempDir },
}

impl Subject {
    fn server(flags: usize) -> anyhow::Result<Self> {
        let board = Arc::new(Board::default());
        publish(&board, &document(flags, "off"))?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        pin(0)?;
        let server = start(board.clone(), listener)?;
        Ok(Self::Server { board, address, _server: server })
    }

    fn binary(flags: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("flags.json"), document(flags, "off"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
        let mut up = Command::new(bench::contender::binary()?);
        up.current_dir(folder.path()).args(["flags", "serve", "flags.json", "--listen", &address.to_string()]);
        up.stdout(Stdio::null()).stderr(Stdio::null());
        let up = Process::start(up, Some(0), Signal::SIGINT)?;
        let socket = folder.path().join(".changeover/api.sock");
        let create = r#"{"action":{"create":{"key":"switch","owner":"bench","life":{"temporary":{"expires_ms":null}}}}}"#;
        wait::until(START_MAX, "it answers", || post(&socket, create).is_ok());
        Ok(Self::Binary { socket, address, _up: up, _folder: folder })
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Server { address, .. } | Self::Binary { address, .. } => *address,
        }
    }

    /// When it was answered.
    async fn change(&self, on: bool, set: &str) -> anyhow::Result<Instant> {
        match self {
            Self::Server { board, .. } => {
                publish(board, set)?;
                Ok(Instant::now())
            }
            Self::Binary { socket, .. } => {
                let (socket, verb) = (socket.clone(), if on { "on" } else { "off" });
                let body = format!(r#"{{"action":{{"{verb}":{{"key":"switch"}}}}}}"#);
                tokio::task::spawn_blocking(move || post(&socket, &body).map(|()| Instant::now())).await?
            }
        }
    }
}

fn post(socket: &Path, body: &str) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    let head = "POST /v1/flags HTTP/1.1\r\nhost: local\r\ncontent-type: application/json\r\nconnection: close\r\n";
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}

fn report(latencies: &[Vec<f64>; 3], clients: u64, rounds: u64, flags: usize) {
    let mut rows = vec![["", "messages", "p50 ms", "p99 ms", "max ms"].map(str::to_owned).to_vec()];
    let all = latencies.concat();
    let lines = KINDS.iter().copied().zip(latencies.iter().map(Vec::as_slice)).chain([("all", all.as_slice())]);
    for (name, values) in lines {
        let of = |share: f64| format!("{:.1}", quantile(values, share));
        rows.push(vec![name.to_owned(), values.len().to_string(), of(0.5), of(0.99), of(1.0)]);
    }
    println!("{clients} streaming clients, {rounds} changes, {flags} flags; from before the change is asked for to each client's read");
    table(&rows);
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| quantile(&all, share));
    println!(
        "{}",
        serde_json::json!({ "benchmark": "flags_push", "clients": clients, "flags": flags, "p50_ms": p50, "p99_ms": p99, "max_ms": max })
    );
}

async fn connect(address: SocketAddr) -> anyhow::Result<TokioIo<tokio::net::TcpStream>> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(stream))
}

fn call(address: SocketAddr, path: &str) -> anyhow::Result<hyper::Request<Full<Bytes>>> {
    let request =
        hyper::Request::post(format!("http://{address}{path}")).header("content-type", "application/grpc").header("te", "trailers");
    Ok(request.body(Full::new(EMPTY))?)
}

const SYNC: &str = "/flagd.sync.v1.FlagSyncService/SyncFlags";

/// One client; it tells of its first message too.
async fn listen(address: SocketAddr, kind: usize, events: &str, seen: mpsc::UnboundedSender<Seen>) -> anyhow::Result<()> {
    let io = connect(address).await?;
    let body = if kind == 2 {
        let (mut send, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        let request = hyper::Request::get(events).header("host", "flags").body(Full::new(Bytes::new()))?;
        send.send_request(request).await?.into_body()
    } else {
        let (mut send, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        let path = if kind == 0 { "/flagd.evaluation.v2.Service/EventStream" } else { SYNC };
        let body = send.send_request(call(address, path)?).await?.into_body();
        // The connection ends with its last sender.
        tokio::spawn(async move {
            let _send = send;
            std::future::pending::<()>().await;
        });
        body
    };
    tokio::spawn(read(body, kind, seen));
    Ok(())
}

async fn read(mut body: hyper::body::Incoming, kind: usize, seen: mpsc::UnboundedSender<Seen>) {
    let mut rest = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { return };
        rest.extend_from_slice(&data);
        while let Some(size) = if kind == 2 { event(&rest) } else { message(&rest) } {
            rest.advance(size);
            if seen.send((kind, Instant::now())).is_err() {
                return;
            }
        }
    }
}

/// Bytes of the first whole event.
fn event(text: &[u8]) -> Option<usize> {
    let data = text.windows(6).position(|window| window == b"data: ")?;
    Some(data + text[data..].windows(2).position(|window| window == b"\n\n")? + 2)
}

/// Bytes of the first whole gRPC message.
fn message(bytes: &[u8]) -> Option<usize> {
    let head: [u8; 4] = bytes.get(1..5)?.try_into().ok()?;
    let size = 5 + u32::from_be_bytes(head) as usize;
    (bytes.len() >= size).then_some(size)
}

/// Asks for whole sets, and reads none of them.
async fn deaf_client(address: SocketAddr) -> anyhow::Result<hyper::Response<hyper::body::Incoming>> {
    let (mut send, connection) = http2::handshake(TokioExecutor::new(), connect(address).await?).await?;
    tokio::spawn(connection);
    let response = send.send_request(call(address, SYNC)?).await?;
    tokio::spawn(async move {
        let _send = send;
        std::future::pending::<()>().await;
    });
    Ok(response)
}

async fn address_of_events(address: SocketAddr) -> anyhow::Result<String> {
    let (mut send, connection) = http1::handshake(connect(address).await?).await?;
    tokio::spawn(connection);
    let request = hyper::Request::post("/ofrep/v1/evaluate/flags").header("host", "flags").body(Full::new(Bytes::from_static(b"{}")))?;
    let answer = send.send_request(request).await?.into_body().collect().await?.to_bytes();
    let json: serde_json::Value = serde_json::from_slice(&answer)?;
    Ok(json["eventStreams"][0]["endpoint"]["requestUri"].as_str().unwrap_or_default().to_owned())
}
