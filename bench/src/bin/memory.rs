//! Memory per idle keep-alive connection, and what a large upload and a large download to slow readers add.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use bench::contender::{Contender, NAMES, Setting};
use bench::numbers::{argument, table};
use bench::process::{Process, memory_bytes};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

const STREAM_BYTES: u64 = 1 << 30;
/// The slow readers pause this long …
const PAUSE: Duration = Duration::from_millis(5);
/// … after so many bytes: about 200 MB/s.
const GULP_BYTES: usize = 1 << 20;

/// What is idle has been idle for a while.
const SETTLE: Duration = Duration::from_secs(5);

fn main() -> anyhow::Result<()> {
    bench::play_role();
    let connections = argument("--connections", 8_000);
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let port = testbed::ports::free()?;
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    let own = std::env::current_exe()?;
    let mut command = Command::new(&own);
    command.args(["role-target", &port.to_string()]);
    let _target = Process::start(command, None, Signal::SIGKILL)?;
    testbed::wait::until(Duration::from_secs(5), "the target listens", || TcpStream::connect(target).is_ok());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut rows = vec![["", "kB per idle connection"].map(str::to_owned).to_vec()];
    let mut json = serde_json::Map::new();
    for name in NAMES {
        let measured = Contender::start(name, [target, target], Setting::plain(threads, None))
            .and_then(|contender| idle(&own, &contender, connections));
        match measured {
            Ok(bytes) => {
                rows.push(vec![name.to_owned(), format!("{:.2}", bytes / 1_000.0)]);
                json.insert(name.to_owned(), serde_json::json!({ "bytes_per_connection": bytes }));
            }
            Err(error) => println!("{name}: not measured: {error:#}"),
        }
    }
    println!("{connections} idle keep-alive connections, each after one request");
    table(&rows);
    let (download, upload) = streams()?;
    println!("1 GiB download to a slow reader: +{:.1} MiB   1 GiB upload to a slow reader: +{:.1} MiB", mib(download), mib(upload));
    println!(
        "{}",
        serde_json::json!({ "benchmark": "memory", "contenders": json, "download_growth_bytes": download, "upload_growth_bytes": upload })
    );
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// Bytes per connection.
fn idle(own: &std::path::Path, contender: &Contender, connections: u64) -> anyhow::Result<f64> {
    let family = contender.family();
    let before = memory_bytes(&family);
    let mut command = Command::new(own);
    command.args(["role-idle", &contender.address.to_string(), &connections.to_string()]).stdout(Stdio::piped());
    let mut clients = Process::start_with_input(command)?;
    let mut line = String::new();
    BufReader::new(clients.child().stdout.take().expect("piped")).read_line(&mut line)?;
    ensure!(line == "ready\n", "the clients could not connect");
    std::thread::sleep(SETTLE);
    Ok(memory_bytes(&family).saturating_sub(before) as f64 / connections as f64)
}

/// What the largest memory seen during each lies above that before.
fn streams() -> anyhow::Result<(u64, u64)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let target = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    let contender = Contender::start("changeover", [target, target], Setting::plain(2, None))?;
    let family = contender.family();
    let address = contender.address;
    // Warm, so that what any first request allocates is not counted.
    transfer(address, "GET /small HTTP/1.1\r\nhost: web.test\r\n\r\n", 0, 10, || ())?;
    let growth = |head: String, send: u64, receive: u64| -> anyhow::Result<u64> {
        let (before, mut most) = (memory_bytes(&family), 0);
        transfer(address, &head, send, receive, || most = memory_bytes(&family).max(most))?;
        Ok(most.saturating_sub(before))
    };
    let download = growth("GET /large HTTP/1.1\r\nhost: web.test\r\n\r\n".to_owned(), 0, STREAM_BYTES)?;
    let upload = growth(format!("PUT /large HTTP/1.1\r\nhost: web.test\r\ncontent-length: {STREAM_BYTES}\r\n\r\n"), STREAM_BYTES, 10)?;
    Ok((download, upload))
}

/// Sends head and body, and reads an answer of exactly `receive` bytes, slowly; `look` is called now and then.
fn transfer(address: SocketAddr, head: &str, send: u64, receive: u64, mut look: impl FnMut()) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(head.as_bytes())?;
    let block = vec![b'x'; GULP_BYTES];
    let mut left = send;
    while left > 0 {
        let size = left.min(block.len() as u64);
        stream.write_all(&block[..size as usize])?;
        left -= size;
        if (left / GULP_BYTES as u64).is_multiple_of(32) {
            look();
        }
    }
    let (head, mut received) = read_head(&mut stream)?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut buffer = vec![0; 64 * 1024];
    let (mut gulp, mut looked) = (0, Instant::now());
    while received < receive {
        let size = stream.read(&mut buffer)?;
        ensure!(size > 0, "closed after {received} of {receive} bytes");
        received += size as u64;
        gulp += size;
        if gulp > GULP_BYTES {
            gulp = 0;
            std::thread::sleep(PAUSE);
        }
        if looked.elapsed() > Duration::from_millis(100) {
            look();
            looked = Instant::now();
        }
    }
    ensure!(received == receive, "{received} instead of {receive} bytes");
    look();
    Ok(())
}

/// The head as text, and how many bytes of the body came with it.
fn read_head(stream: &mut TcpStream) -> anyhow::Result<(String, u64)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let size = stream.read(&mut buffer)?;
        ensure!(size > 0, "closed before the head ended");
        bytes.extend_from_slice(&buffer[..size]);
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok((String::from_utf8_lossy(&bytes[..end]).into_owned(), (bytes.len() - end - 4) as u64));
        }
    }
}

/// A target that sends much, or reads much slowly, or says that it is well.
fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    loop {
        let (head, early) = read_head(&mut stream)?;
        let answer = |stream: &mut TcpStream, size: u64| write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
        if head.starts_with("GET /large") {
            answer(&mut stream, STREAM_BYTES)?;
            let block = vec![b'x'; GULP_BYTES];
            for _ in 0..STREAM_BYTES / GULP_BYTES as u64 {
                stream.write_all(&block)?;
            }
            continue;
        }
        if head.starts_with("PUT") {
            let mut buffer = vec![0; GULP_BYTES];
            let mut received = early;
            while received < STREAM_BYTES {
                let size = stream.read(&mut buffer)?;
                ensure!(size > 0, "closed");
                received += size as u64;
                std::thread::sleep(Duration::from_micros(size as u64 * PAUSE.as_micros() as u64 / GULP_BYTES as u64));
            }
        }
        answer(&mut stream, 10)?;
        stream.write_all(b"0123456789")?;
    }
}
