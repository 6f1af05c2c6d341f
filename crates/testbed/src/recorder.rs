//! A raw TCP target: it keeps exactly the bytes each connection sent and answers by a script.
//!
//! **Invariant:** it parses nothing, so what it kept is what came over the wire.
//! Plain threads, no runtime: a test may hold it wherever it likes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::net::TcpSocket;

const POLL: Duration = Duration::from_millis(20);

/// One line of a connection's script. After the last one the connection is read until the peer closes it.
#[derive(Clone, Debug)]
pub enum Step {
    /// Reads until these bytes were seen, after those that the previous `Await` found.
    Await(Vec<u8>),
    /// Reads until the connection has sent this many bytes in all.
    AwaitBytes(usize),
    Pause(Duration),
    Answer(Vec<u8>),
    /// Orderly end: FIN.
    Close,
    /// Hard end: RST.
    Reset,
}

impl Step {
    /// Reads until a request head is complete.
    pub fn await_head() -> Self {
        Self::Await(b"\r\n\r\n".to_vec())
    }

    pub fn answer(bytes: impl AsRef<[u8]>) -> Self {
        Self::Answer(bytes.as_ref().to_vec())
    }
}

pub struct Recorder {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    connections: Mutex<Vec<Vec<u8>>>,
}

impl Recorder {
    /// Every connection runs the same script.
    pub fn start(script: Vec<Step>) -> io::Result<Self> {
        Self::start_with(vec![script])
    }

    /// The nth connection runs the nth script; further ones run the last.
    pub fn start_with(scripts: Vec<Vec<Step>>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &scripts, &of_thread));
        Ok(Self { address, shared })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The bytes of each connection so far, in the order they were accepted.
    pub fn connections(&self) -> Vec<Vec<u8>> {
        self.shared.lock().clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        // Wakes the accepting thread, which then lets go of the port.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.connections.lock().expect("no thread panics while it holds the record")
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

fn accept(listener: &TcpListener, scripts: &[Vec<Step>], shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.stopped() {
            return;
        }
        let index = {
            let mut connections = shared.lock();
            connections.push(Vec::new());
            connections.len() - 1
        };
        let script = scripts.get(index).or(scripts.last()).cloned().unwrap_or_default();
        let mut connection = Connection { stream, index, searched: 0, shared: Arc::clone(shared) };
        thread::spawn(move || {
            // A peer that goes away in the middle ends the script; its bytes are kept.
            let _ = connection.play(script);
        });
    }
}

struct Connection {
    stream: TcpStream,
    index: usize,
    searched: usize,
    shared: Arc<Shared>,
}

impl Connection {
    fn play(&mut self, script: Vec<Step>) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        self.stream.set_read_timeout(Some(POLL))?;
        for step in script {
            match step {
                Step::Await(bytes) => self.await_bytes(&bytes)?,
                Step::AwaitBytes(count) => while self.sent(|sent| sent.len() < count) && self.read()? {},
                Step::Pause(duration) => thread::sleep(duration),
                Step::Answer(bytes) => self.stream.write_all(&bytes)?,
                Step::Close => return self.stream.shutdown(Shutdown::Both),
                Step::Reset => return reset(self.stream.try_clone()?),
            }
        }
        while self.read()? {}
        Ok(())
    }

    fn await_bytes(&mut self, wanted: &[u8]) -> io::Result<()> {
        loop {
            let from = self.searched;
            if let Some(at) = self.sent(|sent| find(&sent[from..], wanted)) {
                self.searched = from + at + wanted.len();
                return Ok(());
            }
            if !self.read()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Keeps what came next. `false` once the peer has closed or the recorder was dropped.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.shared.lock()[self.index].extend_from_slice(&buffer[..count]);
                Ok(true)
            }
            Err(error) if is_pause(&error) => Ok(!self.shared.stopped()),
            Err(error) => Err(error),
        }
    }

    fn sent<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(&self.shared.lock()[self.index])
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn find(haystack: &[u8], wanted: &[u8]) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    haystack.windows(wanted.len()).position(|window| window == wanted)
}

/// Zero linger belongs to the socket, so the RST goes out when its last handle is dropped.
fn reset(stream: TcpStream) -> io::Result<()> {
    TcpSocket::from_std_stream(stream).set_zero_linger()
}
