//! What carries one request to its target and the answer back: a line of HTTP/1.1, or a call of HTTP/2.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, StatusCode};
use http1::{AnswerHead, Decoder, Fields, Part, RequestHead};

use crate::body::RequestBody;
use crate::call::Call;
use crate::exchange::{Lost, Sender};
use crate::line::Line;

pub(crate) enum Carrier {
    Http1(Box<Sender>),
    Http2(Box<Call>),
}

impl Carrier {
    pub(crate) fn line(&self) -> &Rc<Line> {
        match self {
            Self::Http1(sender) => &sender.line,
            Self::Http2(call) => &call.line,
        }
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Puts a request on it; it moves when the answer is polled for.
    pub(crate) fn start(&mut self, head: &RequestHead, body: RequestBody) {
        match self {
            Self::Http1(sender) => sender.start(head, body),
            Self::Http2(call) => call.start(head, body),
        }
    }

    /// After the answer was lost: some of it has come all the same.
    pub(crate) fn was_answered(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.was_answered(),
            Self::Http2(call) => call.was_answered(),
        }
    }

    /// The target may have seen something of the request, or it cannot be put together again.
    pub(crate) fn was_written(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.was_written(),
            Self::Http2(call) => call.was_written(),
        }
    }

    /// The body of a request that was not written, as it was.
    pub(crate) fn take_back(&mut self) -> RequestBody {
        match self {
            Self::Http1(sender) => sender.take_back(),
            Self::Http2(call) => call.take_back(),
        }
    }

    /// The head of the answer to a request with this method. `inform` gets the answers before it.
    pub(crate) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        asked: &Method,
        inform: impl FnMut(StatusCode, &Fields),
    ) -> Poll<Result<AnswerHead, Lost>> {
        match self {
            Self::Http1(sender) => sender.poll_answer(cx, asked, inform),
            Self::Http2(call) => call.poll_answer(cx, asked, inform),
        }
    }

    /// More of the answer's body. `None`: it is done, or the line is broken. `decoder`: of HTTP/1.1.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>, decoder: &mut Decoder) -> Poll<Result<Option<Part>, Lost>> {
        match self {
            Self::Http1(sender) => sender.poll_part(cx, decoder),
            Self::Http2(call) => call.poll_part(cx),
        }
    }

    pub(crate) fn is_answer_over(&self, decoder: &Decoder) -> bool {
        match self {
            Self::Http1(_) => decoder.is_done(),
            Self::Http2(call) => call.is_answer_over(),
        }
    }

    /// With which code of HTTP/2 the target has ended it.
    pub(crate) fn reset(&self) -> Option<h2::Reason> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(call) => call.reset(),
        }
    }

    /// A body that is all here already, and the answer's end.
    pub(crate) fn take_whole(&mut self, length: u64) -> Option<Bytes> {
        match self {
            Self::Http1(sender) => sender.take_whole(length),
            Self::Http2(call) => (length == 0 && call.is_answer_over()).then(Bytes::new),
        }
    }

    /// All of the request was sent.
    pub(crate) fn is_sent(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_sent(),
            Self::Http2(call) => call.is_sent(),
        }
    }

    /// More of the request goes out.
    pub(crate) fn is_sending(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_sending(),
            Self::Http2(call) => call.is_sending(),
        }
    }

    /// It may not be polled for long: what others could use is given back.
    pub(crate) fn rests(&self) {
        if let Self::Http2(call) = self {
            call.rests();
        }
    }

    /// While nobody takes more of the answer: the request goes on.
    pub(crate) fn keep_sending(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Http1(sender) => drop(sender.poll_rest(cx)),
            Self::Http2(call) => call.keep_sending(cx),
        }
    }
}
