//! A peer that says what it is told to, in pieces, and then nothing more.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use hyper::rt::{Read, ReadBufCursor, Write};

pub(crate) struct Script {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
    /// A server speaks when it was spoken to.
    may_speak: bool,
    waiting: Option<Waker>,
}

impl Script {
    pub(crate) fn of_client(bytes: &[u8], piece: usize) -> Self {
        Self { bytes: bytes.to_vec(), at: 0, piece, may_speak: true, waiting: None }
    }

    pub(crate) fn of_server(bytes: &[u8], piece: usize) -> Self {
        Self { may_speak: false, ..Self::of_client(bytes, piece) }
    }
}

impl Read for Script {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if !self.may_speak {
            self.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let length = self.piece.min(self.bytes.len() - self.at).min(buffer.remaining());
        buffer.put_slice(&self.bytes[self.at..self.at + length]);
        self.at += length;
        Poll::Ready(Ok(()))
    }
}

impl Write for Script {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.may_speak = true;
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
