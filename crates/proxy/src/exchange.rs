//! One request and its answer over a line, without a task of their own: whoever waits for the answer moves both.
//!
//! **Invariants**: a line that is to be used again has sent its whole request, read its whole answer and nothing behind it. Whether any
//! byte of a request was written is known exactly; what was not can be sent elsewhere.

use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, StatusCode};
use http1::{AnswerHead, Decoder, Fields, Misunderstood, Part, RequestHead, WrongLength};

use crate::body::RequestBody;
use crate::head;
use crate::line::{Broken, Line, Lines, Phase};
use crate::wire::{NoHead, Traces, Wire};

/// Answers before the last one. More than a few of them are no answers any more.
const INFORMATIONAL_MAX: u32 = 32;

/// The right to send on a line.
pub(crate) struct Sender {
    pub(crate) line: Rc<Line>,
    lines: Rc<Lines>,
    number: u64,
    /// Was found quiet just now, and so whoever asked is told by the reactor when the target speaks.
    is_heard: bool,
    sending: Sending,
}

/// What is on its way to the target.
#[derive(Default)]
struct Sending {
    body: Option<RequestBody>,
    /// The parts that were taken off the body before anything was written.
    taken: Option<VecDeque<Bytes>>,
    /// So were its trailers, and those are not given back.
    has_taken_trailers: bool,
    /// The names of trailers that the request has announced.
    announced: Option<Box<[u8]>>,
    /// The target takes no more. Its answer may be here all the same.
    has_failed: bool,
    informational: u32,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It ended, or was broken off.
    Over,
    Misunderstood,
}

impl Sender {
    pub(crate) fn new(line: Rc<Line>, lines: Rc<Lines>, number: u64) -> Self {
        Self { line, lines, number, is_heard: false, sending: Sending::default() }
    }

    /// Nothing has come on it since it was used last, and it is open.
    pub(crate) fn rests(&mut self, cx: &mut Context<'_>) -> bool {
        self.is_heard = self.line.broken().is_none() && self.line.wire.borrow_mut().as_mut().is_some_and(|wire| wire.rests(cx));
        self.is_heard
    }

    /// Puts a request on the line; it moves when the answer is polled for.
    pub(crate) fn start(&mut self, head: &RequestHead, body: RequestBody) {
        if let Some(wire) = self.line.wire.borrow_mut().as_mut() {
            wire.traces = Traces::default();
            wire.outbox.put_request(head);
        }
        self.line.begins(true);
        let announced = head.fields.get(http1::Known::Trailer).map(Box::from);
        self.line.enter(if body.is_empty() { Phase::Waiting } else { Phase::Sending });
        self.sending = Sending { body: Some(body).filter(|body| !body.is_empty()), announced, ..Sending::default() };
    }

    /// After the answer was lost: a byte of it has come all the same.
    pub(crate) fn was_answered(&self) -> bool {
        self.line.traces().has_read
    }

    /// A byte of the request may have arrived.
    pub(crate) fn was_written(&self) -> bool {
        self.line.traces().has_written || self.sending.has_taken_trailers
    }

    /// The body of a request of which nothing was written, as it was.
    pub(crate) fn take_back(&mut self) -> RequestBody {
        let sending = mem::take(&mut self.sending);
        let mut body = sending.body.unwrap_or_else(RequestBody::none);
        if let Some(taken) = sending.taken {
            body.put_back(taken);
        }
        body
    }

    /// The head of the answer to a request with this method. `inform` gets the answers before it.
    pub(crate) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        asked: &Method,
        mut inform: impl FnMut(StatusCode, &Fields),
    ) -> Poll<Result<AnswerHead, Lost>> {
        if self.line.broken().is_some() {
            return Poll::Ready(Err(Lost::Over));
        }
        self.line.is_polled_by(cx);
        let line = self.line.clone();
        let mut wire = line.wire.borrow_mut();
        let Some(wire) = wire.as_mut() else { return Poll::Ready(Err(Lost::Over)) };
        self.send(cx, wire);
        if line.broken().is_some() || self.sending.has_failed && !wire.traces.has_written {
            return Poll::Ready(Err(Lost::Over));
        }
        // The first time it is the same poll in which the line was found quiet: nothing can have come, and the reactor knows us.
        if mem::take(&mut self.is_heard) && !self.sending.has_failed {
            return Poll::Pending;
        }
        loop {
            let head = match ready!(wire.poll_head(cx, |bytes| http1::parse_answer(bytes, asked))) {
                Ok(head) => head,
                Err(NoHead::Over) => return Poll::Ready(Err(Lost::Over)),
                Err(NoHead::Refused(Misunderstood)) => return Poll::Ready(Err(Lost::Misunderstood)),
            };
            if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Ok(head));
            }
            self.sending.informational += 1;
            if self.sending.informational > INFORMATIONAL_MAX {
                return Poll::Ready(Err(Lost::Misunderstood));
            }
            // Nobody here waits for a 100: what a client expects, it was told when its body was first read.
            if head.status != StatusCode::CONTINUE {
                inform(head.status, &head.fields);
            }
        }
    }

    /// More of the answer's body. `None`: it is done, or the line is broken.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>, decoder: &mut Decoder) -> Poll<Result<Option<Part>, Lost>> {
        // A client whose own body is bad still gets the answer that has begun.
        if self.line.broken().is_some_and(|why| why != Broken::ClientBody) {
            return Poll::Ready(Err(Lost::Over));
        }
        self.line.is_polled_by(cx);
        let line = self.line.clone();
        let mut wire = line.wire.borrow_mut();
        let Some(wire) = wire.as_mut() else { return Poll::Ready(Err(Lost::Over)) };
        self.send(cx, wire);
        loop {
            match decoder.decode(&mut wire.unread) {
                Ok(Some(part)) => {
                    line.moved();
                    return Poll::Ready(Ok(Some(part)));
                }
                Ok(None) if decoder.is_done() => return Poll::Ready(Ok(None)),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Err(Lost::Misunderstood)),
            }
            match wire.poll_more(cx, decoder.expects()) {
                Poll::Pending => {
                    line.waits_for_sender(true);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(1..)) => line.moved(),
                Poll::Ready(Ok(0)) if decoder.end().is_ok() => return Poll::Ready(Ok(None)),
                Poll::Ready(_) => return Poll::Ready(Err(Lost::Over)),
            }
        }
    }

    /// A body that is all here already, and the answer's end.
    pub(crate) fn take_whole(&mut self, length: u64) -> Option<Bytes> {
        let mut wire = self.line.wire.borrow_mut();
        let wire = wire.as_mut().filter(|wire| wire.unread.len() as u64 >= length)?;
        Some(wire.unread.split_to(length as usize))
    }

    /// All of the request was sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.line.wire.borrow().as_ref().is_some_and(|wire| self.is_sent_over(wire))
    }

    /// More of the request goes out.
    pub(crate) fn is_sending(&self) -> bool {
        !self.sending.has_failed && !self.is_sent()
    }

    /// After the answer, when it came early: the rest of the request. Ready when it is sent, or will not be.
    pub(crate) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.line.is_polled_by(cx);
        let line = self.line.clone();
        let mut wire = line.wire.borrow_mut();
        let Some(wire) = wire.as_mut() else { return Poll::Ready(()) };
        self.send(cx, wire);
        let is_over = self.sending.has_failed || self.is_sent_over(wire) || line.broken().is_some();
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// What is left of the request comes by itself.
    pub(crate) fn sends_a_stream(&self) -> bool {
        self.sending.body.as_ref().is_none_or(RequestBody::is_stream)
    }

    fn is_sent_over(&self, wire: &Wire) -> bool {
        self.sending.body.is_none() && wire.is_written()
    }

    /// Whether another request may go over it.
    pub(crate) fn is_clean(&self) -> bool {
        let wire = self.line.wire.borrow();
        let is_quiet = wire.as_ref().is_some_and(|wire| wire.is_quiet() && self.is_sent_over(wire));
        is_quiet && !self.sending.has_failed && self.line.broken().is_none()
    }

    /// Moves the request as far as it goes. That the client's body is bad breaks the line.
    fn send(&mut self, cx: &mut Context<'_>, wire: &mut Wire) {
        if self.sending.has_failed || self.line.broken().is_some() {
            return;
        }
        loop {
            let is_waiting = self.gather(cx, wire).is_pending();
            if self.line.broken().is_some() {
                return;
            }
            if wire.is_written() {
                return;
            }
            match wire.poll_flush(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.sending.has_failed = true;
                    self.sent();
                    return;
                }
                Poll::Pending => {
                    self.line.waits_for_sender(false);
                    return;
                }
            }
            self.sending.taken = None;
            if self.sending.body.is_none() {
                return self.sent();
            }
            self.line.moved();
            if is_waiting {
                self.line.waits_for_sender(true);
                return;
            }
        }
    }

    /// Takes off the body what is there and fits. Pending: its sender has no more for now.
    fn gather(&mut self, cx: &mut Context<'_>, wire: &mut Wire) -> Poll<()> {
        while let Some(body) = &mut self.sending.body
            && wire.outbox.takes_more()
        {
            let polled = match body.poll_part(cx) {
                Poll::Ready(polled) => polled,
                Poll::Pending => {
                    self.line.waits_for_sender(true);
                    return Poll::Pending;
                }
            };
            let is_well = match polled {
                Some(Ok(Part::Data(data))) => {
                    self.line.came(data.len());
                    if !wire.traces.has_written {
                        self.sending.taken.get_or_insert_default().push_back(data.clone());
                    }
                    let is_last = body.is_over();
                    wire.outbox.put_data(data).and_then(|()| if is_last { wire.outbox.end_body(None) } else { Ok(()) })
                }
                Some(Ok(Part::Trailers(mut trailers))) => {
                    self.sending.has_taken_trailers = true;
                    head::filter_trailers(&mut trailers, Some(self.sending.announced.as_deref().unwrap_or_default()));
                    wire.outbox.end_body(Some(&trailers))
                }
                Some(Err(_)) => Err(WrongLength),
                None => wire.outbox.end_body(None),
            };
            if is_well.is_err() {
                // The target must not take what it has for a whole request.
                self.line.mark(Broken::ClientBody);
            }
            if is_well.is_err() || body.is_over() {
                self.sending.body = None;
            }
        }
        Poll::Ready(())
    }

    /// Nothing more is sent.
    fn sent(&mut self) {
        self.sending.body = None;
        if self.line.phase() == Phase::Sending {
            self.line.enter(Phase::Waiting);
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // The socket closes now, also when the line's marks are still looked at.
        drop(self.line.wire.take());
        self.lines.forget(self.number);
    }
}
