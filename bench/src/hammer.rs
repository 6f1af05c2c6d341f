//! A cheap load: fixed bytes out, just enough parsing to know that the answer is whole and good.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::contender::Front;
use crate::numbers::quantile;
use crate::process::Process;
use crate::secure;

const FIELDS: [(&str, &str); 5] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) bench"),
    ("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br"),
    ("cookie", "session=8c2f1e6a0b9d4f73; theme=dark"),
];
const HOST: &str = "shop.example.com";
pub const SMALL_PATH: &str = "/products/42?sort=price";
/// Requests at the same time on a connection of HTTP/2.
const STREAMS: usize = 8;

/// So many requests at the same time, for so long.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    pub address: SocketAddr,
    pub front: Front,
    pub path: &'a str,
    /// Requests at the same time; over HTTP/2 eight of them share a connection.
    pub connections: usize,
    pub millis: u64,
    /// Requests per second, all together, however long the answers take; 0: each follows the answer before it.
    pub rate: u64,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    pub count: u64,
    /// From when the request was due, and could be sent.
    pub p50_us: f64,
    pub p99_us: f64,
}

impl Load<'_> {
    /// From a process of its own.
    pub fn run(&self, own: &Path, core: Option<usize>) -> anyhow::Result<Answered> {
        let number = |number: u64| number.to_string();
        let mut command = Command::new(own);
        command.arg("role-hammer").arg(self.address.to_string()).arg(self.front.name()).arg(self.path);
        command.args([self.connections as u64, self.millis, self.rate].map(number)).stdout(Stdio::piped());
        let text = output(command, core)?;
        let numbers = text.split_whitespace().map(str::parse::<f64>).collect::<Result<Vec<_>, _>>()?;
        let [count, p50_us, p99_us] = numbers[..] else { anyhow::bail!("the load said {text:?}") };
        Ok(Answered { count: count as u64, p50_us, p99_us })
    }

    /// Once, in this process; whether all was well.
    pub(crate) fn runs_here(&self) -> bool {
        self.drive().is_ok_and(|latencies| !latencies.is_empty())
    }

    fn drive(&self) -> anyhow::Result<Vec<f64>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let latencies = Rc::new(RefCell::new(Vec::new()));
            let until = Instant::now() + Duration::from_millis(self.millis);
            let shares = if self.is_http2() { self.connections.div_ceil(STREAMS) } else { self.connections };
            let mut clients = Vec::new();
            for _ in 0..shares {
                let pace = || Pace::new(self.rate, self.connections, until, latencies.clone());
                let (stream, path) = (secure::connect(self.address, self.front).await?, self.path.to_owned());
                if self.is_http2() {
                    let (send, connection) = h2::client::handshake(stream).await?;
                    let driving = tokio::task::spawn_local(connection);
                    for _ in 0..STREAMS.min(self.connections) {
                        clients.push(tokio::task::spawn_local(ask_http2(send.clone(), path.clone(), pace())));
                    }
                    drop(driving);
                } else {
                    clients.push(tokio::task::spawn_local(ask_http1(stream, path, pace())));
                }
            }
            for client in clients {
                client.await??;
            }
            Ok(latencies.take())
        })
    }

    fn is_http2(&self) -> bool {
        matches!(self.front, Front::Http2 | Front::TlsHttp2)
    }
}

pub(crate) fn output(command: Command, core: Option<usize>) -> anyhow::Result<String> {
    let mut process = Process::start(command, core, Signal::SIGKILL)?;
    let mut text = String::new();
    process.child().stdout.take().expect("piped").read_to_string(&mut text)?;
    let status = process.child().wait()?;
    ensure!(status.success(), "the load failed");
    Ok(text)
}

/// `role-hammer ADDRESS FRONT PATH CONNECTIONS MILLIS RATE`: prints how many requests were answered, and the median and 99th percentile
/// of their microseconds.
pub(crate) fn play(arguments: &[String]) -> anyhow::Result<()> {
    let front = Front::ALL.into_iter().find(|(name, _)| *name == arguments[1]).context("no such front")?.1;
    let load = Load {
        address: arguments[0].parse()?,
        front,
        path: &arguments[2],
        connections: arguments[3].parse()?,
        millis: arguments[4].parse()?,
        rate: arguments[5].parse()?,
    };
    let latencies = load.drive()?;
    println!("{} {} {}", latencies.len(), quantile(&latencies, 0.5), quantile(&latencies, 0.99));
    Ok(())
}

/// When the requests of one client are due.
struct Pace {
    interval: Option<Duration>,
    due: Instant,
    until: Instant,
    latencies: Rc<RefCell<Vec<f64>>>,
}

impl Pace {
    fn new(rate: u64, clients: usize, until: Instant, latencies: Rc<RefCell<Vec<f64>>>) -> Self {
        let interval = (rate > 0).then(|| Duration::from_secs_f64(clients as f64 / rate as f64));
        let due = Instant::now() + interval.unwrap_or_default().mul_f64(fastrand::f64());
        Self { interval, due, until, latencies }
    }

    /// When the next request begins: now, or when it was due while the client still waited. `None`: no more.
    async fn next(&mut self) -> Option<Instant> {
        let Some(interval) = self.interval else {
            let now = Instant::now();
            // Always one: it tells whether anybody answers.
            return (now < self.until || self.latencies.borrow().is_empty()).then_some(now);
        };
        let due = self.due;
        self.due += interval;
        if due >= self.until {
            return None;
        }
        if due <= Instant::now() {
            return Some(due);
        }
        tokio::time::sleep_until(due.into()).await;
        // The timer's own delay is not the proxy's.
        Some(Instant::now())
    }

    fn answered(&self, began: Instant) {
        self.latencies.borrow_mut().push(began.elapsed().as_secs_f64() * 1e6);
    }
}

fn request(path: &str) -> Vec<u8> {
    let fields: String = FIELDS.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\n{fields}\r\n").into_bytes()
}

async fn ask_http1(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: String, mut pace: Pace) -> anyhow::Result<()> {
    let (request, mut buffer) = (request(&path), vec![0; 64 * 1024]);
    while let Some(began) = pace.next().await {
        stream.write_all(&request).await?;
        stream.flush().await?;
        read_answer(&mut stream, &mut buffer).await?;
        pace.answered(began);
    }
    Ok(())
}

/// One answer with a `content-length`; nothing follows it.
pub(crate) async fn read_answer(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> anyhow::Result<()> {
    let mut filled = 0;
    let mut left = loop {
        let size = stream.read(&mut buffer[filled..]).await?;
        ensure!(size > 0, "the peer closed");
        filled += size;
        if let Some(whole) = whole_length(&buffer[..filled])? {
            break whole.checked_sub(filled).context("more than one answer")?;
        }
    };
    while left > 0 {
        let size = stream.read(buffer).await?;
        ensure!(size > 0, "the peer closed");
        left = left.checked_sub(size).context("more than one answer")?;
    }
    Ok(())
}

async fn ask_http2(mut send: h2::client::SendRequest<Bytes>, path: String, mut pace: Pace) -> anyhow::Result<()> {
    while let Some(began) = pace.next().await {
        let mut request = http::Request::get(format!("http://{HOST}{path}"));
        for (name, value) in FIELDS {
            request = request.header(name, value);
        }
        send = send.ready().await?;
        let (answer, _) = send.send_request(request.body(())?, true)?;
        let answer = answer.await?;
        ensure!(answer.status() == 200, "an answer that is not good: {}", answer.status());
        let mut body = answer.into_body();
        while let Some(data) = body.data().await {
            let length = data?.len();
            body.flow_control().release_capacity(length)?;
        }
        pace.answered(began);
    }
    Ok(())
}

/// Whether the answer has all of its `content-length`.
pub(crate) fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    Ok(whole_length(answer)?.is_some_and(|whole| answer.len() >= whole))
}

/// Of head and body, when the head is whole.
fn whole_length(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..end])?;
    ensure!(head.starts_with("HTTP/1.1 200"), "an answer that is not good: {head}");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Ok(Some(end + 4 + length.context("an answer without content-length")?))
}

/// Connections under TLS from a process of its own on core 1, each with a full handshake and one request; how many.
pub fn shakes(own: &Path, address: SocketAddr, connections: usize, millis: u64) -> anyhow::Result<u64> {
    let mut command = Command::new(own);
    command.arg("role-shake").args([address.to_string(), connections.to_string(), millis.to_string()]).stdout(Stdio::piped());
    Ok(output(command, Some(1))?.trim().parse()?)
}

/// `role-shake ADDRESS CONNECTIONS MILLIS`: opens connections under TLS, with a full handshake and one request each; prints how many.
pub(crate) fn play_shake(arguments: &[String]) -> anyhow::Result<()> {
    let address: SocketAddr = arguments[0].parse()?;
    let (connections, millis): (usize, u64) = (arguments[1].parse()?, arguments[2].parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let count = local.block_on(&runtime, async {
        let until = Instant::now() + Duration::from_millis(millis);
        let clients = (0..connections).map(|_| {
            tokio::task::spawn_local(async move {
                let (request, mut buffer, mut count) = (request(SMALL_PATH), vec![0; 16 * 1024], 0u64);
                while Instant::now() < until {
                    let mut stream = secure::connect(address, Front::Tls).await?;
                    stream.write_all(&request).await?;
                    stream.flush().await?;
                    read_answer(&mut stream, &mut buffer).await?;
                    count += 1;
                }
                anyhow::Ok(count)
            })
        });
        let mut count = 0;
        for client in clients.collect::<Vec<_>>() {
            count += client.await??;
        }
        anyhow::Ok(count)
    })?;
    println!("{count}");
    Ok(())
}

/// `role-idle ADDRESS CONNECTIONS`: opens them, asks once on each, says `ready`, and holds them until standard input ends.
pub(crate) fn play_idle(arguments: &[String]) -> anyhow::Result<()> {
    let address: SocketAddr = arguments[0].parse()?;
    let connections: usize = arguments[1].parse()?;
    let mut streams = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    let request = request(SMALL_PATH);
    for _ in 0..connections {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.write_all(&request)?;
        let mut filled = 0;
        while whole_length(&buffer[..filled])?.is_none_or(|whole| filled < whole) {
            let size = stream.read(&mut buffer[filled..])?;
            ensure!(size > 0, "the peer closed");
            filled += size;
        }
        streams.push(stream);
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Of whoever the load connects to.
pub(crate) async fn open(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
