//! One direction of a connection of any protocol: bytes from one socket to the other, as fast as the slower side takes them.
//!
//! **Invariants**: a buffer is held only while bytes wait in it; what moves without waiting goes through one of the thread. An end is
//! passed on after everything before it.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

const BUFFER_BYTES: usize = 64 * 1024;
/// Others have their turn after so many reads.
const READS_A_TURN: usize = 16;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER_BYTES].into());
}

/// Whose socket failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    Sender,
    Taker,
}

#[derive(Default)]
pub(crate) struct Flow {
    pub(crate) bytes: u64,
    /// What the taker has not taken yet.
    waits: Box<[u8]>,
    /// So much of it is taken.
    taken: usize,
    /// Under TLS: what the session took may not be on its way yet.
    is_flushing: bool,
    end: End,
    /// Its sender was reset: what came before is passed on, and no end.
    is_broken: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum End {
    #[default]
    NotYet,
    /// The sender has ended; the taker is to be told.
    Came,
    Passed,
}

impl Flow {
    /// The sender says no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.end != End::NotYet
    }

    /// The taker takes less than has come.
    pub(crate) fn is_behind(&self) -> bool {
        !self.waits.is_empty()
    }

    /// The sender's socket has failed while it was written to. That used up its error: it reads as an end now.
    pub(crate) fn breaks(&mut self) {
        self.is_broken = true;
    }

    /// Ready when the end was passed on. `moved` is told of bytes that came.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        mut moved: impl FnMut(usize),
    ) -> Poll<Result<(), Failed>> {
        for _ in 0..READS_A_TURN {
            ready!(self.poll_waiting(cx, to, &mut moved))?;
            if self.end == End::Passed {
                return Poll::Ready(Ok(()));
            }
            if self.end == End::Came {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(|_| Failed::Taker)?;
                self.end = End::Passed;
                return Poll::Ready(Ok(()));
            }
            let read = BUFFER.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *from).poll_read(cx, &mut read)).map_err(|_| Failed::Sender)?;
                let bytes = read.filled();
                if bytes.is_empty() && self.is_broken {
                    return Poll::Ready(Err(Failed::Sender));
                } else if bytes.is_empty() {
                    self.end = End::Came;
                } else {
                    self.bytes += bytes.len() as u64;
                    moved(bytes.len());
                    self.write(cx, to, bytes)?;
                }
                Poll::Ready(Ok(()))
            });
            match read {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    ready!(self.poll_flush(cx, to))?;
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// What cannot be written now waits.
    fn write(&mut self, cx: &mut Context<'_>, to: &mut Stream, mut bytes: &[u8]) -> Result<(), Failed> {
        self.is_flushing = to.is_tls();
        while !bytes.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Ready(Ok(written @ 1..)) => bytes = &bytes[written..],
                Poll::Ready(_) => return Err(Failed::Taker),
                Poll::Pending => {
                    (self.waits, self.taken) = (bytes.into(), 0);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// While something waits, nothing is read: the sender feels how slow the taker is.
    fn poll_waiting(&mut self, cx: &mut Context<'_>, to: &mut Stream, moved: &mut impl FnMut(usize)) -> Poll<Result<(), Failed>> {
        while self.taken < self.waits.len() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.waits[self.taken..])).map_err(|_| Failed::Taker)?;
            if written == 0 {
                return Poll::Ready(Err(Failed::Taker));
            }
            self.taken += written;
            // The connection is not idle while somebody takes something.
            moved(0);
        }
        (self.waits, self.taken) = (Box::default(), 0);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<Result<(), Failed>> {
        if self.is_flushing {
            ready!(Pin::new(to).poll_flush(cx)).map_err(|_| Failed::Taker)?;
            self.is_flushing = false;
        }
        Poll::Ready(Ok(()))
    }
}
