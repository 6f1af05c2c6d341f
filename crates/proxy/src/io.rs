//! The socket as hyper wants it, with bytes that were read early put back in front, and a note of when bytes moved.
//!
//! Not here: TLS.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::clock::CoarseClock;

const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// When the client last sent something. Atomics only because hyper's upgrade wants `Send`; one thread uses them.
pub(crate) struct Activity {
    clock: CoarseClock,
    last_ms: AtomicU64,
    /// When a head began to arrive that is not complete; 0 when none is.
    head_ms: AtomicU64,
    /// Since when the socket takes no more; 0 when it does.
    write_stalled_ms: AtomicU64,
    /// The answer broke off, and only a reset says so to this client.
    broken_off: AtomicBool,
}

impl Activity {
    pub(crate) fn new(clock: CoarseClock) -> Arc<Self> {
        let last_ms = AtomicU64::new(clock.now_ms());
        Arc::new(Self {
            clock,
            last_ms,
            head_ms: AtomicU64::new(0),
            write_stalled_ms: AtomicU64::new(0),
            broken_off: AtomicBool::new(false),
        })
    }

    fn bytes_came(&self) {
        let now = self.clock.now_ms();
        self.last_ms.store(now, Ordering::Relaxed);
        if self.head_ms.load(Ordering::Relaxed) == 0 {
            self.head_ms.store(now, Ordering::Relaxed);
        }
    }

    /// A request was parsed, or answered: no head is half here, as far as one can know.
    pub(crate) fn head_done(&self) {
        self.last_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        self.head_ms.store(0, Ordering::Relaxed);
    }

    pub(crate) fn write_stalled_ms(&self) -> u64 {
        self.write_stalled_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn is_write_stalled(&self) -> bool {
        self.write_stalled_ms() != 0
    }

    pub(crate) fn break_off(&self) {
        self.broken_off.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_broken_off(&self) -> bool {
        self.broken_off.load(Ordering::Relaxed)
    }

    pub(crate) fn last_ms(&self) -> u64 {
        self.last_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn head_ms(&self) -> u64 {
        self.head_ms.load(Ordering::Relaxed)
    }
}

pub(crate) struct Io {
    stream: TcpStream,
    early: Bytes,
    side: Side,
}

/// What is noted of the other end.
enum Side {
    Client(Arc<Activity>),
    /// Set when bytes come.
    Target(Arc<AtomicBool>),
}

impl Io {
    pub(crate) fn to_target(stream: TcpStream, answered: Arc<AtomicBool>) -> Self {
        Self { stream, early: Bytes::new(), side: Side::Target(answered) }
    }

    pub(crate) fn from_client(stream: TcpStream, early: Bytes, activity: Arc<Activity>) -> Self {
        Self { stream, early, side: Side::Client(activity) }
    }

    fn note_write(&self, stalled: bool) {
        let Side::Client(activity) = &self.side else { return };
        match (stalled, activity.is_write_stalled()) {
            (true, false) => activity.write_stalled_ms.store(activity.clock.now_ms().max(1), Ordering::Relaxed),
            (false, true) => activity.write_stalled_ms.store(0, Ordering::Relaxed),
            _ => {}
        }
    }

    pub(crate) fn into_parts(self) -> (TcpStream, Bytes) {
        (self.stream, self.early)
    }
}

/// Reads until the bytes differ from HTTP/2's preface or are all of it. `None`: the client left before it said anything.
pub(crate) async fn sniff(stream: &mut TcpStream, activity: &Activity) -> io::Result<Option<(bool, Bytes)>> {
    let mut early = [0; HTTP2_PREFACE.len()];
    let mut length = 0;
    while length < early.len() {
        let read = stream.read(&mut early[length..]).await?;
        if read == 0 {
            return Ok(None);
        }
        activity.bytes_came();
        length += read;
        if early[..length] != HTTP2_PREFACE[..length] {
            return Ok(Some((false, Bytes::copy_from_slice(&early[..length]))));
        }
    }
    Ok(Some((true, Bytes::copy_from_slice(&early))))
}

impl Read for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            let length = this.early.len().min(buffer.remaining());
            buffer.put_slice(&this.early[..length]);
            this.early.advance(length);
            return Poll::Ready(Ok(()));
        }
        // SAFETY: `ReadBuf` never de-initialises bytes, and nothing reads them before `advance`.
        let space: &mut [MaybeUninit<u8>] = unsafe { buffer.as_mut() };
        let mut read = ReadBuf::uninit(space);
        let poll = Pin::new(&mut this.stream).poll_read(cx, &mut read);
        let length = read.filled().len();
        if length > 0 {
            // SAFETY: `poll_read` filled, and so initialised, this many bytes at the start of the space.
            unsafe { buffer.advance(length) };
            match &this.side {
                Side::Client(activity) => activity.bytes_came(),
                Side::Target(answered) => answered.store(true, Ordering::Relaxed),
            }
        }
        poll
    }
}

impl Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.note_write(poll.is_pending());
        poll
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.note_write(poll.is_pending());
        poll
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
