//! Bodies in both directions, unboxed, one enum each.
//!
//! **Invariant**: an answer's body holds the claim until its end; a body that was broken off ends in an error, never in a
//! clean end, so the client sees that it is incomplete.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::head;
use crate::lane::Lane;
use crate::line::{Broken, Line, Phase, Sender};
use crate::mirror::Copied;
use crate::reason::Reason;
use crate::ticket::Ticket;

pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// What goes to the target. `line` is set when a line is chosen.
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
    /// Of a copy: what was gathered.
    stored: VecDeque<Bytes>,
    line: Option<Rc<Line>>,
    /// Gathers what passes, for a copy.
    copied: Option<Box<Copied>>,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming) -> Self {
        Self { incoming: (!incoming.is_end_stream()).then_some(incoming), stored: VecDeque::new(), line: None, copied: None }
    }

    pub(crate) fn none() -> Self {
        Self::stored(VecDeque::new())
    }

    pub(crate) fn stored(stored: VecDeque<Bytes>) -> Self {
        Self { incoming: None, stored, line: None, copied: None }
    }

    /// When all of it has passed, its copy goes out.
    pub(crate) fn copy_to(&mut self, copied: Copied) {
        if self.incoming.is_none() { copied.send() } else { self.copied = Some(Box::new(copied)) }
    }

    pub(crate) fn goes_over(&mut self, line: &Rc<Line>) {
        line.goes_over();
        line.enter(if self.incoming.is_some() || !self.stored.is_empty() { Phase::Sending } else { Phase::Waiting });
        self.line = Some(line.clone());
    }

    fn sent(&mut self) {
        self.incoming = None;
        if let Some(copied) = self.copied.take() {
            copied.send();
        }
        if let Some(line) = &self.line
            && line.phase() == Phase::Sending
        {
            line.enter(Phase::Waiting);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(part) = self.stored.pop_front() {
            if self.stored.is_empty() {
                self.sent();
            }
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(incoming).poll_frame(cx);
        if let (Poll::Pending, Some(line)) = (&polled, &self.line) {
            line.waits_for_sender();
        }
        match ready!(polled) {
            Some(Ok(frame)) => {
                if let Some(line) = &self.line {
                    line.moved();
                }
                if let Some(part) = frame.data_ref() {
                    if self.copied.as_mut().is_some_and(|copied| !copied.take(part)) {
                        self.copied = None;
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                // Nothing comes after them, and hyper does not ask again.
                self.sent();
                Poll::Ready(Some(Ok(filter_trailers(frame))))
            }
            Some(Err(error)) => {
                if let Some(line) = &self.line {
                    line.mark(Broken::ClientBody);
                }
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.sent();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stored.is_empty() && self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let stored = || SizeHint::with_exact(self.stored.iter().map(|part| part.len() as u64).sum());
        self.incoming.as_ref().map_or_else(stored, Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // hyper does not poll for the end of a body whose length it knows.
        if self.incoming.as_ref().is_some_and(Body::is_end_stream) {
            self.sent();
        }
    }
}

/// What goes to the client.
pub(crate) enum AnswerBody {
    Empty,
    Text(Bytes),
    Target(Flow),
}

/// An answer on its way from a target.
pub(crate) struct Flow {
    incoming: Incoming,
    lane: Rc<Lane>,
    sender: Option<Sender>,
    ticket: Ticket,
    ended: bool,
    /// An HTTP/1.0 client tells the end of an answer by the end of the connection.
    ends_with_connection: bool,
}

impl Flow {
    pub(crate) fn new(incoming: Incoming, lane: Rc<Lane>, sender: Sender, mut ticket: Ticket, ends_with_connection: bool) -> Self {
        sender.line.enter(Phase::Answering);
        sender.line.waits_for_sender();
        sender.line.hold(ticket.claim.take());
        Self { incoming, lane, sender: Some(sender), ticket, ended: false, ends_with_connection }
    }

    fn break_off(&mut self) {
        match self.broken() {
            Some(Broken::ClientStalled) => self.ticket.abandoned(),
            Some(Broken::Cut) => self.ticket.broke(Reason::Cut),
            Some(Broken::AnswerStalled) => self.ticket.broke(Reason::AnswerStalled),
            _ => self.ticket.broke(Reason::TargetReset),
        }
        if self.ends_with_connection {
            self.ticket.client.activity.break_off();
        }
    }

    fn broken(&self) -> Option<Broken> {
        self.sender.as_ref().and_then(|sender| sender.line.broken())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if let (Poll::Pending, Some(sender)) = (&polled, &self.sender) {
            sender.line.waits_for_sender();
        }
        match ready!(polled) {
            Some(Ok(frame)) => {
                if let Some(sender) = &self.sender {
                    sender.line.moved();
                }
                let frame = match frame.into_data() {
                    Ok(data) => {
                        self.ticket.bytes += data.len() as u64;
                        Frame::data(data)
                    }
                    Err(frame) => filter_trailers(frame),
                };
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.break_off();
                Poll::Ready(Some(Err(error.into())))
            }
            // hyper ends a body cleanly when its connection's task is aborted.
            None => match self.broken() {
                Some(_) => {
                    self.break_off();
                    Poll::Ready(Some(Err("the target's answer was broken off".into())))
                }
                None => {
                    self.ended = true;
                    Poll::Ready(None)
                }
            },
        }
    }
}

fn filter_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            head::filter_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(_) => Frame::trailers(HeaderMap::new()),
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let complete = self.ended || (self.incoming.is_end_stream() && self.broken().is_none());
        let Some(sender) = self.sender.take() else { return };
        sender.line.release();
        if complete {
            self.lane.give_back(sender);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            AnswerBody::Empty => Poll::Ready(None),
            AnswerBody::Text(text) if text.is_empty() => Poll::Ready(None),
            AnswerBody::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            AnswerBody::Target(flow) => flow.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Empty => true,
            AnswerBody::Text(text) => text.is_empty(),
            AnswerBody::Target(flow) => flow.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Empty => SizeHint::with_exact(0),
            AnswerBody::Text(text) => SizeHint::with_exact(text.len() as u64),
            AnswerBody::Target(flow) => flow.incoming.size_hint(),
        }
    }
}
