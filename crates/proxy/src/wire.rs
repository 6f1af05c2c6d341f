//! A stream that speaks HTTP/1.1: what was read and is not understood yet, and what is to be written.
//!
//! **Invariant**: one that rests holds no buffer. Reads go into a space that the thread's wires share, and only what a read has brought
//! is kept; only a large part of a body is read into memory of its own.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http1::Outbox;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::stream::Stream;

/// One read brings at most so much.
const READ_BYTES_MAX: usize = 64 * 1024;
/// From here on a copy costs more than memory of its own.
const DIRECT_BYTES_MIN: u64 = 16 * 1024;
/// A read that fills its space does not say whether more is there, and costs another that finds nothing.
const DIRECT_SPARE_BYTES: usize = 64;

thread_local! {
    static SPACE: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES_MAX]);
}

pub(crate) struct Wire {
    pub(crate) stream: Stream,
    pub(crate) unread: Bytes,
    /// So many bytes of what is unread were looked at in vain: the head in them is not complete.
    looked_at: usize,
    pub(crate) outbox: Outbox,
    /// Under TLS: what the session took may not be on its way yet.
    is_flushing: bool,
    pub(crate) traces: Traces,
}

/// Whether anything was read or written, since this was last set to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Traces {
    pub(crate) has_read: bool,
    pub(crate) has_written: bool,
}

/// Why no head was read.
pub(crate) enum NoHead<E> {
    /// The connection ended, orderly or not.
    Over,
    Refused(E),
}

impl Wire {
    pub(crate) fn new(stream: Stream, early: Bytes) -> Self {
        Self { stream, unread: early, looked_at: 0, outbox: Outbox::default(), is_flushing: false, traces: Traces::default() }
    }

    /// Nothing of a message is half read.
    pub(crate) fn is_quiet(&self) -> bool {
        self.unread.is_empty()
    }

    /// Reads until `parse` finds a head: what it makes of it, and the number of bytes that it took.
    pub(crate) fn poll_head<T, E>(
        &mut self,
        cx: &mut Context<'_>,
        parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, E>,
    ) -> Poll<Result<T, NoHead<E>>> {
        if self.unread.len() > self.looked_at {
            match parse(&self.unread).map_err(NoHead::Refused)? {
                Some((head, length)) => {
                    self.took(length);
                    return Poll::Ready(Ok(head));
                }
                None => self.looked_at = self.unread.len(),
            }
        }
        loop {
            let found = ready!(SPACE.with_borrow_mut(|space| {
                let read = match poll_into(&mut self.stream, cx, space) {
                    Poll::Ready(Ok(read @ 1..)) => &space[..read],
                    Poll::Ready(_) => return Poll::Ready(Err(NoHead::Over)),
                    Poll::Pending => return Poll::Pending,
                };
                self.traces.has_read = true;
                if !self.unread.is_empty() {
                    return Poll::Ready(self.look_again(read, &parse));
                }
                // Nearly always a whole head comes in one read.
                let Some((head, length)) = parse(read).map_err(NoHead::Refused)? else {
                    (self.unread, self.looked_at) = (Bytes::copy_from_slice(read), read.len());
                    return Poll::Ready(Ok(None));
                };
                if length < read.len() {
                    self.unread = Bytes::copy_from_slice(&read[length..]);
                }
                Poll::Ready(Ok(Some(head)))
            }))?;
            if let Some(head) = found {
                return Poll::Ready(Ok(head));
            }
        }
    }

    /// A head that comes piece by piece is parsed again only when the piece may have ended it, or it could be made very expensive.
    #[cold]
    fn look_again<T, E>(&mut self, read: &[u8], parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, E>) -> Result<Option<T>, NoHead<E>> {
        let mut all = std::mem::take(&mut self.unread).try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        all.extend_from_slice(read);
        self.unread = all.freeze();
        let from = std::mem::replace(&mut self.looked_at, self.unread.len()).saturating_sub(3);
        if !may_end_head(&self.unread[from..]) && self.unread.len() < http1::limits::HEAD_BYTES_MAX {
            return Ok(None);
        }
        let Some((head, length)) = parse(&self.unread).map_err(NoHead::Refused)? else { return Ok(None) };
        self.took(length);
        Ok(Some(head))
    }

    fn took(&mut self, length: usize) {
        self.unread = if length == self.unread.len() { Bytes::new() } else { self.unread.split_off(length) };
        self.looked_at = 0;
    }

    /// Reads more of a body, of which so many bytes are expected; 0: the connection has ended.
    pub(crate) fn poll_more(&mut self, cx: &mut Context<'_>, expected: u64) -> Poll<io::Result<usize>> {
        debug_assert!(self.unread.is_empty(), "what is there is taken first");
        let read = if expected >= DIRECT_BYTES_MIN {
            let size = usize::try_from(expected).unwrap_or(usize::MAX).min(READ_BYTES_MAX);
            let mut own = BytesMut::with_capacity(size + DIRECT_SPARE_BYTES);
            let read = ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut own))?;
            self.unread = own.freeze();
            read
        } else {
            ready!(SPACE.with_borrow_mut(|space| {
                let read = ready!(poll_into(&mut self.stream, cx, space))?;
                self.unread = Bytes::copy_from_slice(&space[..read]);
                Poll::Ready(io::Result::Ok(read))
            }))?
        };
        self.looked_at = 0;
        self.traces.has_read |= read > 0;
        Poll::Ready(Ok(read))
    }

    /// Of a connection on which nothing may come now: it is still open, and nothing has.
    pub(crate) fn rests(&mut self, cx: &mut Context<'_>) -> bool {
        // Without a system call as long as the reactor has heard nothing.
        self.unread.is_empty() && SPACE.with_borrow_mut(|space| poll_into(&mut self.stream, cx, space).is_pending())
    }

    /// All that was to be written is on its way.
    pub(crate) fn is_written(&self) -> bool {
        self.outbox.is_empty() && !self.is_flushing
    }

    /// Writes all that is to be written.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let written = match self.outbox.piece() {
                Some(piece) => ready!(stream.poll_write(cx, piece))?,
                None => ready!(stream.poll_write_vectored(cx, &self.outbox.pieces()))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.traces.has_written = true;
            self.outbox.advance(written);
            self.is_flushing = self.stream.is_tls();
        }
        if self.is_flushing {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_flushing = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// What has come; nothing: the connection has ended.
pub(crate) fn poll_bytes(stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    SPACE.with_borrow_mut(|space| poll_into(stream, cx, space).map_ok(|read| Bytes::copy_from_slice(&space[..read])))
}

fn poll_into(stream: &mut Stream, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(space);
    ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}

/// An empty line, also one of bare line feeds, which the parser takes, too.
fn may_end_head(bytes: &[u8]) -> bool {
    bytes.windows(3).any(|window| window[..2] == *b"\n\n" || window == b"\n\r\n") || bytes.ends_with(b"\n\n")
}
