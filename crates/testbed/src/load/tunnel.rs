//! A long-lived connection: it leaves HTTP by `upgrade: echo`, sends counters and checks each echo.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const PACE: Duration = Duration::from_millis(2);
const ECHO_LIMIT: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 16 * 1024;

pub struct EchoTunnel {
    shared: Arc<Shared>,
    head: String,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    echoed: AtomicU64,
}

impl EchoTunnel {
    /// Returns once the peer has switched protocols.
    pub fn open(address: SocketAddr, host: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ECHO_LIMIT))?;
        let head = handshake(&mut stream, host)?;
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || exchange(stream, &of_thread));
        Ok(Self { shared, head, thread: Some(thread) })
    }

    /// Counters that have come back so far.
    pub fn echoed(&self) -> u64 {
        self.shared.echoed.load(Ordering::Acquire)
    }

    /// Whether the tunnel has broken, or was closed by the peer.
    pub fn is_broken(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// The `x-version` of the service at the other end.
    pub fn version(&self) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("x-version"))
            .map(|(_, value)| value.trim())
    }

    /// The number of counters echoed, or the error that broke the tunnel before it was stopped.
    pub fn stop(mut self) -> io::Result<u64> {
        self.shared.stopped.store(true, Ordering::Release);
        let thread = self.thread.take().expect("the thread is joined once");
        thread.join().expect("a tunnel does not panic")?;
        Ok(self.echoed())
    }
}

impl Drop for EchoTunnel {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
    }
}

fn handshake(stream: &mut TcpStream, host: &str) -> io::Result<String> {
    let request = format!("GET /echo HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        // Byte by byte, so that nothing after the head is taken with it.
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if head.starts_with("HTTP/1.1 101 ") {
        return Ok(head);
    }
    let status = head.lines().next().unwrap_or_default();
    Err(io::Error::other(format!("no switch of protocols: `{status}`")))
}

fn exchange(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    for counter in 0_u64.. {
        if shared.stopped.load(Ordering::Acquire) {
            break;
        }
        let mut echo = [0; 8];
        stream.write_all(&counter.to_be_bytes())?;
        stream.read_exact(&mut echo)?;
        let echo = u64::from_be_bytes(echo);
        if echo != counter {
            return Err(io::Error::other(format!("sent {counter}, got {echo}")));
        }
        shared.echoed.fetch_add(1, Ordering::Release);
        thread::sleep(PACE);
    }
    Ok(())
}
