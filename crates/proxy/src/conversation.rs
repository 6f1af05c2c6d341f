//! HTTP/1.1 with one client: the wire, and the body of the request that is being read.
//!
//! **Invariants**: a request's body is read to its end before the next head is looked for, or the connection ends. A client that waits
//! for `100 Continue` gets it when its body is first read, and that is when a target is there for it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http1::{AnswerHead, Decoder, Fields, Framing, Known, Part, Refusal, RequestHead, WrongLength};

use crate::body::{AnswerBody, BrokenOff};
use crate::io::Activity;
use crate::stream::Stream;
use crate::wire::{NoHead, Wire};

/// Answers before the last one wait for a client that does not read, up to about this.
const INFORMATIONAL_BYTES_MAX: usize = 16 * 1024;

pub(crate) struct Conversation {
    wire: RefCell<Option<Wire>>,
    decoder: RefCell<Decoder>,
    awaits_continue: Cell<bool>,
    activity: Arc<Activity>,
}

/// What was found where a request may begin.
pub(crate) enum Heard {
    Request(RequestHead),
    Refused(Refusal),
    /// The client rests.
    Nothing,
    Over,
}

/// How an answer went to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    Whole,
    /// The client must see that it is not whole; it knows by its framing, or only by a reset.
    Broken,
    BrokenByReset,
}

impl Conversation {
    pub(crate) fn new(stream: Stream, early: Bytes, activity: Arc<Activity>) -> Self {
        let decoder = RefCell::new(Decoder::new(Framing::Bodiless(None)));
        Self { wire: RefCell::new(Some(Wire::new(stream, early))), decoder, awaits_continue: Cell::new(false), activity }
    }

    fn with_wire<T>(&self, use_it: impl FnOnce(&mut Wire) -> T) -> Option<T> {
        self.wire.borrow_mut().as_mut().map(use_it)
    }

    /// The stream, and what was read of it and not understood.
    pub(crate) fn end(&self) -> Option<(Stream, Bytes)> {
        self.wire.take().map(|wire| (wire.stream, wire.unread))
    }

    /// Whether the client speaks, or has left. Without a buffer.
    pub(crate) fn poll_speaks(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &*self.wire.borrow() {
            Some(wire) if wire.is_quiet() => wire.stream.socket().poll_read_ready(cx).map(drop),
            _ => Poll::Ready(()),
        }
    }

    /// Nothing of a request is here.
    pub(crate) fn is_quiet(&self) -> bool {
        self.wire.borrow().as_ref().is_some_and(Wire::is_quiet)
    }

    /// The next request.
    pub(crate) fn poll_request(&self, cx: &mut Context<'_>) -> Poll<Heard> {
        let mut wire = self.wire.borrow_mut();
        let Some(wire) = wire.as_mut() else { return Poll::Ready(Heard::Over) };
        let head = match wire.poll_head(cx, http1::parse_request) {
            Poll::Ready(Ok(head)) => head,
            Poll::Ready(Err(NoHead::Over)) => return Poll::Ready(Heard::Over),
            Poll::Ready(Err(NoHead::Refused(refusal))) => return Poll::Ready(Heard::Refused(refusal)),
            Poll::Pending if wire.is_quiet() => return Poll::Pending,
            Poll::Pending => {
                self.activity.head_begins();
                return Poll::Pending;
            }
        };
        *self.decoder.borrow_mut() = Decoder::new(head.framing);
        // Who has sent some of the body waits for nothing (RFC 9110 §10.1.1).
        let awaits = head.fields.has(Known::Expect) && !head.is_http10 && !head.framing.is_empty() && wire.is_quiet();
        self.awaits_continue.set(awaits);
        Poll::Ready(Heard::Request(head))
    }

    /// More of the request's body.
    pub(crate) fn poll_part(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, BrokenOff>>> {
        let (mut wire, mut decoder) = (self.wire.borrow_mut(), self.decoder.borrow_mut());
        let Some(wire) = wire.as_mut() else { return Poll::Ready(Some(Err(BrokenOff))) };
        if self.awaits_continue.take() {
            wire.outbox.put_informational(StatusCode::CONTINUE, &Fields::default());
        }
        if !wire.is_written() && matches!(self.flush(cx, wire), Poll::Ready(Err(_))) {
            return Poll::Ready(Some(Err(BrokenOff)));
        }
        loop {
            match decoder.decode(&mut wire.unread) {
                Ok(Some(part)) => return Poll::Ready(Some(Ok(part))),
                Ok(None) if decoder.is_done() => return Poll::Ready(None),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Some(Err(BrokenOff))),
            }
            match ready!(wire.poll_more(cx, decoder.expects())) {
                Ok(1..) => {}
                Ok(0) | Err(_) => {
                    let _ = decoder.end();
                    return Poll::Ready(Some(Err(BrokenOff)));
                }
            }
        }
    }

    /// All of the request's body was read.
    pub(crate) fn is_body_read(&self) -> bool {
        self.decoder.borrow().is_done()
    }

    /// The client waits for a word that it has not got: it may send its body or not, and so nothing behind it can be understood.
    pub(crate) fn awaits_continue(&self) -> bool {
        self.awaits_continue.get()
    }

    /// The request's body was malformed or ended early.
    pub(crate) fn has_failed(&self) -> bool {
        self.decoder.borrow().has_failed()
    }

    /// So much of the body comes still, as far as is known.
    pub(crate) fn expects(&self) -> u64 {
        self.decoder.borrow().expects()
    }

    /// An answer before the last one, on its way as far as the client takes it.
    pub(crate) fn inform(&self, status: StatusCode, fields: &Fields) {
        self.with_wire(|wire| {
            if wire.outbox.len() < INFORMATIONAL_BYTES_MAX {
                wire.outbox.put_informational(status, fields);
            }
        });
    }

    /// Writes what waits, and does not wait for it.
    pub(crate) fn push(&self, cx: &mut Context<'_>) {
        self.with_wire(|wire| {
            let _ = self.flush(cx, wire);
        });
    }

    pub(crate) fn begin_answer(&self, head: &AnswerHead, more: &[&[u8]]) {
        self.with_wire(|wire| wire.outbox.put_answer(head, more));
    }

    /// Writes the answer whose head was put.
    pub(crate) fn poll_answer(&self, cx: &mut Context<'_>, body: &mut AnswerBody, announced: Option<&[u8]>) -> Poll<Delivered> {
        loop {
            // The body may read from this client, for a request that is still on its way: nothing is borrowed meanwhile.
            let gathered = self.gather(cx, body, announced);
            let mut wires = self.wire.borrow_mut();
            let Some(wire) = wires.as_mut() else { return Poll::Ready(Delivered::Broken) };
            let broken = if wire.outbox.ends_by_close() { Delivered::BrokenByReset } else { Delivered::Broken };
            let mut is_stuck = false;
            if !wire.is_written() {
                match self.flush(cx, wire) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Delivered::Broken),
                    // Nobody waits for a client that does not read, to tell it that there is no more.
                    Poll::Pending if gathered == Gathered::Broken || body.breaks() => return Poll::Ready(broken),
                    Poll::Pending => is_stuck = true,
                }
            }
            if is_stuck {
                drop(wires);
                // A client may send all of its request before it reads.
                body.keep_sending(cx);
                return Poll::Pending;
            }
            match gathered {
                Gathered::All => return Poll::Ready(Delivered::Whole),
                Gathered::Broken => return Poll::Ready(broken),
                Gathered::Waits => return Poll::Pending,
                Gathered::Enough => {}
            }
        }
    }

    fn gather(&self, cx: &mut Context<'_>, body: &mut AnswerBody, announced: Option<&[u8]>) -> Gathered {
        while self.with_wire(|wire| wire.outbox.takes_more()).unwrap_or(false) {
            if body.is_over() {
                let is_whole = self.with_wire(|wire| wire.outbox.end_body(None)) == Some(Ok(()));
                return if is_whole { Gathered::All } else { Gathered::Broken };
            }
            let part = match body.poll_part(cx) {
                Poll::Pending => return Gathered::Waits,
                Poll::Ready(part) => part,
            };
            let put = self.with_wire(|wire| match part {
                Some(Ok(Part::Data(data))) => wire.outbox.put_data(data),
                Some(Ok(Part::Trailers(mut trailers))) => {
                    crate::head::filter_trailers(&mut trailers, Some(announced.unwrap_or_default()));
                    wire.outbox.end_body(Some(&trailers))
                }
                Some(Err(BrokenOff)) => Err(WrongLength),
                None => wire.outbox.end_body(None),
            });
            if put != Some(Ok(())) {
                return Gathered::Broken;
            }
        }
        Gathered::Enough
    }

    fn flush(&self, cx: &mut Context<'_>, wire: &mut Wire) -> Poll<std::io::Result<()>> {
        let before = wire.outbox.len();
        let flushed = wire.poll_flush(cx);
        self.activity.writes(before - wire.outbox.len(), flushed.is_pending());
        flushed
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gathered {
    /// The body has ended.
    All,
    /// There is more; first this has to go.
    Enough,
    /// There is no more for now.
    Waits,
    Broken,
}
