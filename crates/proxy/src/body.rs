//! Bodies in both directions, unboxed, one enum each.
//!
//! **Invariant**: an answer's body holds the claim until its end; a body that was broken off ends in an error, never in a
//! clean end, so the client sees that it is incomplete.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use http1::{AnswerHead, Decoder, Framing, Part};
use hyper::body::Incoming;

use crate::carrier::Carrier;
use crate::chosen::Claim;
use crate::conversation::Conversation;
use crate::head;
use crate::lane::Lane;
use crate::line::{Broken, Phase};
use crate::mirror::Copied;
use crate::reason::Reason;
use crate::ticket::Ticket;
use crate::tunnel::Tunnel;

/// The body broke off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BrokenOff;

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the body was broken off")
    }
}

impl std::error::Error for BrokenOff {}

/// What goes to the target.
pub(crate) struct RequestBody {
    source: Source,
    /// Comes before the source: what was gathered for a copy, or was taken and not sent.
    stored: Option<VecDeque<Bytes>>,
    /// Gathers what passes, for a copy.
    copied: Option<Box<Copied>>,
}

enum Source {
    None,
    Http1(Rc<Conversation>),
    Http2(Incoming),
}

impl RequestBody {
    fn from_source(source: Source) -> Self {
        Self { source, stored: None, copied: None }
    }

    pub(crate) fn none() -> Self {
        Self::from_source(Source::None)
    }

    pub(crate) fn http1(conversation: Rc<Conversation>) -> Self {
        Self::from_source(Source::Http1(conversation))
    }

    pub(crate) fn http2(incoming: Incoming) -> Self {
        Self::from_source(if incoming.is_end_stream() { Source::None } else { Source::Http2(incoming) })
    }

    pub(crate) fn stored(stored: VecDeque<Bytes>) -> Self {
        Self { source: Source::None, stored: Some(stored).filter(|stored| !stored.is_empty()), copied: None }
    }

    /// Nothing comes at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.stored.is_none() && matches!(self.source, Source::None)
    }

    /// Of HTTP/2: it can be read without anybody who reads the connection.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.source, Source::Http2(_))
    }

    /// When all of it has passed, its copy goes out.
    pub(crate) fn copy_to(&mut self, copied: Copied) {
        if self.is_empty() { copied.send() } else { self.copied = Some(Box::new(copied)) }
    }

    /// Taken from here before, and not sent. What was put back earlier, and not taken again, comes behind it.
    pub(crate) fn put_back(&mut self, mut taken: VecDeque<Bytes>) {
        taken.extend(self.stored.take().into_iter().flatten());
        self.stored = Some(taken).filter(|taken| !taken.is_empty());
    }

    /// Nothing more comes, and nobody has to ask for that.
    pub(crate) fn is_over(&self) -> bool {
        self.is_empty()
    }

    fn over(&mut self) {
        self.source = Source::None;
        if let Some(copied) = self.copied.take() {
            copied.send();
        }
    }

    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, BrokenOff>>> {
        if let Some(stored) = &mut self.stored {
            let part = stored.pop_front();
            self.stored = self.stored.take().filter(|stored| !stored.is_empty());
            return Poll::Ready(part.map(|part| Ok(Part::Data(part))));
        }
        let part = match &mut self.source {
            Source::None => return Poll::Ready(None),
            Source::Http1(conversation) => {
                let part = ready!(conversation.poll_part(cx));
                if conversation.is_body_read() {
                    self.source = Source::None;
                }
                part
            }
            Source::Http2(incoming) => ready!(Pin::new(incoming).poll_frame(cx)).map(part_of_frame),
        };
        match &part {
            Some(Ok(Part::Data(data))) if self.copied.as_mut().is_some_and(|copied| !copied.take(data)) => self.copied = None,
            Some(Err(BrokenOff)) => self.copied = None,
            _ => {}
        }
        if matches!(self.source, Source::None) || matches!(part, None | Some(Ok(Part::Trailers(_)))) {
            self.over();
        }
        Poll::Ready(part)
    }
}

fn part_of_frame(frame: Result<Frame<Bytes>, hyper::Error>) -> Result<Part, BrokenOff> {
    match frame.map_err(|_| BrokenOff)?.into_data() {
        Ok(data) => Ok(Part::Data(data)),
        Err(frame) => {
            let mut trailers = http1::Fields::default();
            if let Ok(map) = frame.into_trailers() {
                trailers.extend_from_map(&map);
            }
            Ok(Part::Trailers(trailers))
        }
    }
}

/// What goes to the client.
pub(crate) enum AnswerBody {
    Empty,
    Text(Bytes),
    Target(Box<Flow>),
    /// After a 101, no body but a tunnel.
    Tunnel(Box<Tunnel>),
}

/// An answer on its way from a target.
pub(crate) struct Flow {
    decoder: Decoder,
    lane: Rc<Lane>,
    /// Absent when the answer has ended, and its line is used again or gone.
    sender: Option<Carrier>,
    ticket: Option<Ticket>,
    lasts: bool,
    /// The answer has ended, and the request has not.
    is_rest: bool,
    is_broken: bool,
    /// As its target ended it.
    reset: Option<h2::Reason>,
}

impl AnswerBody {
    /// The body that follows this head.
    pub(crate) fn of(head: &AnswerHead, lane: &Rc<Lane>, mut sender: Carrier, mut ticket: Ticket) -> Self {
        sender.line().enter(Phase::Answering);
        let length = match head.framing {
            Framing::Bodiless(_) => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        // A call whose answer has ended is over, whatever it had still to send; and a status alone stays one block.
        if (sender.is_sent() || sender.is_http2())
            && let Some(data) = length.and_then(|length| sender.take_whole(length))
        {
            // Whole: the line goes back before the client has read the head.
            ticket.answered(true);
            ticket.bytes = data.len() as u64;
            ticket.ended();
            if head.lasts {
                lane.give_back(sender);
            }
            return if data.is_empty() { AnswerBody::Empty } else { AnswerBody::Text(data) };
        }
        ticket.answered(length == Some(0));
        sender.line().waits_for_sender(true);
        ticket.chosen.set_apart();
        sender.line().hold(ticket.claim.take().map(Claim::lasts));
        let flow = Flow {
            decoder: Decoder::new(head.framing),
            lane: lane.clone(),
            sender: Some(sender),
            ticket: Some(ticket),
            lasts: head.lasts,
            is_rest: false,
            is_broken: false,
            reset: None,
        };
        AnswerBody::Target(Box::new(flow))
    }

    /// Nothing more comes, and nobody has to ask for that.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            AnswerBody::Empty | AnswerBody::Tunnel(_) => true,
            AnswerBody::Text(text) => text.is_empty(),
            AnswerBody::Target(flow) => flow.ticket.is_none() && !flow.is_broken,
        }
    }

    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, BrokenOff>>> {
        match self {
            AnswerBody::Empty | AnswerBody::Tunnel(_) => Poll::Ready(None),
            AnswerBody::Text(text) if text.is_empty() => Poll::Ready(None),
            AnswerBody::Text(text) => Poll::Ready(Some(Ok(Part::Data(std::mem::take(text))))),
            AnswerBody::Target(flow) => flow.poll_part(cx),
        }
    }

    /// Whether its line was broken off while nobody asked for more.
    pub(crate) fn breaks(&mut self) -> bool {
        let AnswerBody::Target(flow) = self else { return false };
        if flow.broken().is_some_and(|why| why != Broken::ClientBody) && !flow.is_rest {
            flow.break_off();
        }
        flow.is_broken
    }

    /// With which code of HTTP/2 its target has ended it.
    pub(crate) fn reset(&self) -> Option<h2::Reason> {
        if let AnswerBody::Target(flow) = self { flow.reset } else { None }
    }

    /// The answer came before all of its request was sent.
    pub(crate) fn has_rest(&self) -> bool {
        matches!(self, AnswerBody::Target(flow) if flow.sender.as_ref().is_some_and(|sender| sender.is_sending()))
    }

    /// While the client takes no more of the answer: its request goes on.
    pub(crate) fn keep_sending(&mut self, cx: &mut Context<'_>) {
        if let AnswerBody::Target(flow) = self
            && let Some(sender) = flow.sender.as_mut().filter(|sender| sender.is_sending())
        {
            sender.keep_sending(cx);
            // Whatever the request waits for, the answer waits for its client.
            sender.line().waits_for_sender(false);
        }
    }

    /// Its client takes no more for now: nobody else is behind. When the line is broken off, whoever waits is woken.
    pub(crate) fn waits_for_client(&self, cx: &Context<'_>) {
        if let AnswerBody::Target(flow) = self
            && let Some(sender) = &flow.sender
        {
            sender.line().is_polled_by(cx);
            sender.line().waits_for_sender(false);
            sender.rests();
        }
    }

    /// When the answer came before all of its request was sent: the rest goes now, as far as the target takes it.
    pub(crate) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            AnswerBody::Target(flow) => flow.poll_rest(cx),
            _ => Poll::Ready(()),
        }
    }
}

impl Flow {
    fn broken(&self) -> Option<Broken> {
        self.sender.as_ref().and_then(|sender| sender.line().broken())
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, BrokenOff>>> {
        let (Some(sender), Some(ticket)) = (&mut self.sender, &mut self.ticket) else {
            return Poll::Ready(self.is_broken.then_some(Err(BrokenOff)));
        };
        let mut part = match ready!(sender.poll_part(cx, &mut self.decoder)) {
            Ok(part) => part,
            Err(_) => {
                self.break_off();
                return Poll::Ready(Some(Err(BrokenOff)));
            }
        };
        match &mut part {
            Some(Part::Data(data)) => ticket.bytes += data.len() as u64,
            Some(Part::Trailers(trailers)) => {
                ticket.trailers(trailers);
                head::filter_trailers(trailers, None);
            }
            None => {}
        }
        let is_over = part.is_none() || sender.is_answer_over(&self.decoder);
        if is_over {
            self.end();
        }
        Poll::Ready(part.map(Ok))
    }

    fn break_off(&mut self) {
        self.is_broken = true;
        self.reset = self.sender.as_ref().and_then(Carrier::reset);
        let (broken, Some(mut ticket)) = (self.broken(), self.ticket.take()) else { return };
        match broken {
            Some(Broken::ClientStalled | Broken::ClientBody | Broken::ClientLeft) => ticket.abandoned(),
            Some(Broken::Cut) => ticket.broke(Reason::Cut),
            Some(Broken::AnswerStalled) => ticket.broke(Reason::AnswerStalled),
            Some(Broken::ResponseTimeout) => ticket.broke(Reason::ResponseTimeout),
            _ => ticket.broke(Reason::TargetReset),
        }
        self.sender = None;
    }

    /// The answer is whole.
    fn end(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            ticket.ended();
        }
        let Some(sender) = &mut self.sender else { return };
        sender.line().release();
        // A call whose answer has ended is over: what it sends is not wanted any more.
        if sender.is_sent() || sender.is_http2() {
            return self.give_back();
        }
        sender.line().enter(Phase::Sending);
        self.is_rest = true;
    }

    fn give_back(&mut self) {
        if let Some(sender) = self.sender.take().filter(|_| self.lasts) {
            self.lane.give_back(sender);
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(Carrier::Http1(sender)) = self.sender.as_mut().filter(|_| self.is_rest) {
            ready!(sender.poll_rest(cx));
            self.give_back();
        }
        Poll::Ready(())
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        // The rest of a stream of HTTP/2 goes on without its answer: it stays under the limit of what moves, and can be cut.
        if let Some(Carrier::Http1(sender)) = self.sender.take()
            && self.is_rest
            && self.lasts
            && sender.sends_a_stream()
        {
            self.lane.finish(sender);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn what_is_put_back_comes_before_what_was_put_back_earlier() {
        let parts = |texts: &[&'static str]| texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect::<VecDeque<_>>();
        let mut body = RequestBody::stored(parts(&["a", "b", "c"]));
        let take = |body: &mut RequestBody| match body.poll_part(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(Part::Data(data)))) => Some(data),
            _ => None,
        };
        let taken = VecDeque::from([take(&mut body).expect("a part")]);
        body.put_back(taken);
        let all: Vec<Bytes> = std::iter::from_fn(|| take(&mut body)).collect();
        assert_eq!(all, ["a", "b", "c"]);
    }
}
