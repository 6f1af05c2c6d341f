//! The socket as hyper wants it, with bytes that were read early put back in front, and a note of when bytes moved.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::CoarseClock;
use crate::flood::{Flood, Guard};
use crate::frames;
use crate::pace::Pace;
use crate::stream::Stream;
use crate::stream_body::Outflow;
use crate::wire;

const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A connection lets others have their turn after so many frames: about half a millisecond, be they as small as they may. Bytes alone
/// would allow it a hundred times as many.
const FRAMES_A_TURN_MAX: u32 = 512;

/// When the client last sent something. Atomics only because hyper's streams may want `Send`; one thread uses them.
pub(crate) struct Activity {
    clock: CoarseClock,
    last_ms: AtomicU64,
    /// When a head began to arrive that is not complete; 0 when none is.
    head_ms: AtomicU64,
    is_write_stalled: AtomicBool,
    /// How it takes what it is sent.
    taking: Pace,
    /// Frames of HTTP/2 that came since its connection was last polled.
    frames: AtomicU32,
}

impl Activity {
    pub(crate) fn new(clock: CoarseClock) -> Arc<Self> {
        let last_ms = AtomicU64::new(clock.now_ms());
        Arc::new(Self {
            clock,
            last_ms,
            head_ms: AtomicU64::new(0),
            is_write_stalled: AtomicBool::new(false),
            taking: Pace::new(0),
            frames: AtomicU32::new(0),
        })
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
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

    /// The start of a head is here, and not its end.
    pub(crate) fn head_begins(&self) {
        if self.head_ms.load(Ordering::Relaxed) == 0 {
            self.head_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        }
    }

    /// After a write of so many bytes; `stalled`: the socket takes no more.
    pub(crate) fn writes(&self, bytes: usize, stalled: bool) {
        if bytes > 0 {
            self.taking.moved(bytes);
        }
        if stalled != self.is_write_stalled() {
            self.is_write_stalled.store(stalled, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_write_stalled(&self) -> bool {
        self.is_write_stalled.load(Ordering::Relaxed)
    }

    /// Of a tick that took so long. Whether the client has taken too little for longer than `max_ms`.
    pub(crate) fn takes_too_little(&self, ticked_ms: u64, max_ms: u64) -> bool {
        if !self.is_write_stalled() {
            return false;
        }
        self.taking.waited(ticked_ms);
        self.taking.is_behind(max_ms)
    }

    /// The connection is polled.
    pub(crate) fn turn_begins(&self) {
        self.frames.store(0, Ordering::Relaxed);
    }

    fn frames_came(&self, count: u32) {
        self.frames.store(self.frames.load(Ordering::Relaxed).saturating_add(count), Ordering::Relaxed);
    }

    fn is_turn_over(&self) -> bool {
        self.frames.load(Ordering::Relaxed) >= FRAMES_A_TURN_MAX
    }

    pub(crate) fn last_ms(&self) -> u64 {
        self.last_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn head_ms(&self) -> u64 {
        self.head_ms.load(Ordering::Relaxed)
    }
}

pub(crate) struct Io {
    /// Absent only when this is dropped.
    stream: Option<Stream>,
    early: Bytes,
    activity: Arc<Activity>,
    outflow: Rc<Outflow>,
    guard: Box<Guard>,
    flood: Option<Flood>,
    /// The client is to be told that nothing new may be begun.
    notice: Rc<Cell<bool>>,
    /// Of that word, what is still to be written; nothing else is written before.
    saying: &'static [u8],
    left: Left,
}

/// The socket when hyper has done with it, and the flood that the connection was ended for.
pub(crate) type Left = Rc<Cell<Option<(Stream, Option<Flood>)>>>;

impl Io {
    /// `notice`: when it becomes true, the client is told.
    pub(crate) fn from_client(
        stream: Stream,
        early: Bytes,
        activity: Arc<Activity>,
        outflow: Rc<Outflow>,
        notice: Rc<Cell<bool>>,
        left: &Left,
    ) -> Self {
        let guard = Box::new(Guard::new(activity.clock.now_ms()));
        Self { stream: Some(stream), early, activity, outflow, guard, flood: None, notice, saying: &[], left: left.clone() }
    }

    fn stream(&mut self) -> &mut Stream {
        self.stream.as_mut().expect("there until this is dropped")
    }

    /// Tells the client, between two frames, that nothing new may be begun.
    fn poll_notice(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.notice.get() && self.guard.may_speak() {
            self.notice.set(false);
            self.saying = &frames::NOTICE;
        }
        while !self.saying.is_empty() {
            let said = self.saying;
            let written = ready!(Pin::new(self.stream()).poll_write(cx, said))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.saying = &said[written..];
        }
        Poll::Ready(Ok(()))
    }

    /// What came, before hyper sees it.
    fn received(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<()> {
        match self.guard.received(bytes, self.activity.clock.now_ms()) {
            Ok(frames) => self.activity.frames_came(frames),
            Err(flood) => {
                self.flood = Some(flood);
                if let Some(farewell) = self.guard.farewell() {
                    // Where the socket takes no more, the client does not listen.
                    let stream = self.stream();
                    let _ = Pin::new(&mut *stream).poll_write(cx, &farewell);
                    let _ = Pin::new(stream).poll_flush(cx);
                }
                return Err(io::Error::other("a flood of frames"));
            }
        }
        Ok(())
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        self.left.set(self.stream.take().map(|stream| (stream, self.flood)));
    }
}

/// Reads until the bytes differ from HTTP/2's preface or are all of it. `None`: the client left before it said anything.
pub(crate) async fn sniff(stream: &mut Stream, activity: &Activity) -> io::Result<Option<(bool, Bytes)>> {
    let mut early = Bytes::new();
    loop {
        let read = poll_fn(|cx| wire::poll_bytes(stream, cx)).await?;
        if read.is_empty() {
            return Ok(None);
        }
        activity.bytes_came();
        early = if early.is_empty() { read } else { [early, read].concat().into() };
        let length = early.len().min(HTTP2_PREFACE.len());
        if early[..length] != HTTP2_PREFACE[..length] {
            return Ok(Some((false, early)));
        }
        if length == HTTP2_PREFACE.len() {
            return Ok(Some((true, early)));
        }
    }
}

impl Read for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.activity.is_turn_over() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !this.early.is_empty() {
            let early = this.early.split_to(this.early.len().min(buffer.remaining()));
            this.received(cx, &early)?;
            buffer.put_slice(&early);
            return Poll::Ready(Ok(()));
        }
        // SAFETY: `ReadBuf` never de-initialises bytes, and nothing reads them before `advance`.
        let space: &mut [MaybeUninit<u8>] = unsafe { buffer.as_mut() };
        let mut read = ReadBuf::uninit(space);
        ready!(Pin::new(this.stream()).poll_read(cx, &mut read))?;
        let length = read.filled().len();
        // That it speaks is no reason to keep it: what counts is its last request, or pings would hold a place for ever.
        if length > 0 {
            this.received(cx, read.filled())?;
            // SAFETY: `poll_read` filled, and so initialised, this many bytes at the start of the space.
            unsafe { buffer.advance(length) };
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_notice(cx))?;
        let poll = Pin::new(this.stream()).poll_write(cx, bytes);
        let written = if let Poll::Ready(Ok(written)) = poll { written } else { 0 };
        this.guard.sent(&bytes[..written]);
        this.activity.writes(written, poll.is_pending());
        poll
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_notice(cx))?;
        let poll = Pin::new(this.stream()).poll_write_vectored(cx, slices);
        let written = if let Poll::Ready(Ok(written)) = poll { written } else { 0 };
        let mut left = written;
        for slice in slices {
            let sent = slice.len().min(left);
            this.guard.sent(&slice[..sent]);
            left -= sent;
        }
        this.activity.writes(written, poll.is_pending());
        poll
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_notice(cx))?;
        let poll = Pin::new(this.stream()).poll_flush(cx);
        if matches!(poll, Poll::Ready(Ok(()))) {
            this.outflow.flushed();
        }
        if this.stream().is_tls() {
            // What was written waits in the session, not at the socket.
            this.activity.writes(0, poll.is_pending());
        }
        poll
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().stream()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

    use super::*;

    /// Both ends of a connection under TLS.
    async fn pair() -> (Stream, TlsStream<TcpStream>) {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("key");
        let server = ServerConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions().expect("versions");
        let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).expect("fits");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("authority");
        let client = ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions().expect("versions");
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let socket = TcpStream::connect(listener.local_addr().expect("address")).await.expect("connect");
        let (accepted, _) = listener.accept().await.expect("accept");
        let name = ServerName::try_from("a.test").expect("name");
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let (ours, theirs) = tokio::join!(acceptor.accept(accepted), TlsConnector::from(Arc::new(client)).connect(name, socket));
        (Stream::Tls(Box::new(TlsStream::Server(ours.expect("ours")))), TlsStream::Client(theirs.expect("theirs")))
    }

    /// What a session takes is not what a client takes.
    #[tokio::test]
    async fn a_client_that_takes_nothing_is_seen_under_tls() {
        let (ours, mut theirs) = pair().await;
        let activity = Activity::new(CoarseClock::new());
        let mut io = Io::from_client(ours, Bytes::new(), activity.clone(), Rc::default(), Rc::default(), &Left::default());
        let mut written = 0;
        let stuck = loop {
            match poll_fn(|cx| Poll::Ready(Pin::new(&mut io).poll_write(cx, &[7; 4096]))).await {
                Poll::Ready(length) => written += length.expect("open"),
                Poll::Pending => panic!("the flush before said that all was sent"),
            }
            if poll_fn(|cx| Poll::Ready(Pin::new(&mut io).poll_flush(cx))).await.is_pending() {
                break activity.is_write_stalled();
            }
            assert!(!activity.is_write_stalled());
        };
        assert!(stuck);
        let read = async {
            let mut all = vec![0; written];
            theirs.read_exact(&mut all).await.expect("all of it");
        };
        let flush = poll_fn(|cx| Pin::new(&mut io).poll_flush(cx));
        let ((), flushed) = tokio::join!(read, flush);
        flushed.expect("open");
        assert!(!activity.is_write_stalled());
    }

    /// However small they are, and however many of them are here.
    #[tokio::test]
    async fn a_turn_ends_after_so_many_frames() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let mut client = TcpStream::connect(listener.local_addr().expect("address")).await.expect("connect");
        let (accepted, _) = listener.accept().await.expect("accept");
        let activity = Activity::new(CoarseClock::new());
        let mut io =
            Io::from_client(Stream::Plain(accepted), Bytes::new(), activity.clone(), Rc::default(), Rc::default(), &Left::default());
        // The preface, and DATA of one byte each, which nobody counts.
        let all = [HTTP2_PREFACE.as_slice(), &[0, 0, 1, 0, 0, 0, 0, 0, 1, 7].repeat(5_000)].concat();
        client.write_all(&all).await.expect("written");
        let (mut read, mut turns) = (0, 0);
        while read < all.len() {
            activity.turn_begins();
            turns += 1;
            let before = read;
            poll_fn(|cx| {
                let mut space = [0; 1024];
                let mut buffer = hyper::rt::ReadBuf::new(&mut space);
                while Pin::new(&mut io).poll_read(cx, buffer.unfilled())?.is_ready() {
                    read += buffer.filled().len();
                    buffer = hyper::rt::ReadBuf::new(&mut space);
                }
                if read == before { Poll::Pending } else { Poll::Ready(io::Result::Ok(())) }
            })
            .await
            .expect("no flood");
            assert!(read - before <= (FRAMES_A_TURN_MAX as usize * 10).next_multiple_of(1024) + 1024, "{}", read - before);
        }
        assert!(turns >= 9, "{turns}");
    }
}
