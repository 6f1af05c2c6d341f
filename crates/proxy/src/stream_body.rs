//! An answer's body on a stream of HTTP/2.
//!
//! **Invariant**: what all streams of a connection have given to hyper, and its socket has not taken, has a bound, however wide the
//! client's windows are: two hundred streams that nobody reads must not hold two hundred buffers.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http1::Part;

use crate::body::{AnswerBody, BrokenOff};

/// Enough to fill a socket anew, and little beside it.
const GIVEN_BYTES_MAX: usize = 512 * 1024;

/// What the streams of one connection have given.
#[derive(Default)]
pub(crate) struct Outflow {
    /// In bytes, since the connection was last flushed.
    given: Cell<usize>,
    /// Who waits to give more.
    givers: RefCell<Vec<Waker>>,
}

impl Outflow {
    fn poll_takes_more(&self, cx: &Context<'_>) -> Poll<()> {
        if self.given.get() < GIVEN_BYTES_MAX {
            return Poll::Ready(());
        }
        let mut givers = self.givers.borrow_mut();
        if !givers.iter().any(|giver| giver.will_wake(cx.waker())) {
            givers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn gives(&self, bytes: usize) {
        self.given.set(self.given.get() + bytes);
    }

    /// All that hyper had is on its way, or was taken back by a reset.
    pub(crate) fn flushed(&self) {
        if self.given.take() > 0 {
            self.givers.take().into_iter().for_each(Waker::wake);
        }
    }
}

pub(crate) struct StreamBody {
    body: AnswerBody,
    outflow: Rc<Outflow>,
    /// It broke off; the stream is told of that next.
    is_error_due: bool,
}

impl StreamBody {
    pub(crate) fn new(body: AnswerBody, outflow: &Rc<Outflow>) -> Self {
        Self { body, outflow: outflow.clone(), is_error_due: false }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    /// hyper resets the stream with its code.
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        // One that is broken off says so, whatever waits before it.
        if self.outflow.poll_takes_more(cx).is_pending() && !self.body.breaks() {
            self.body.waits_for_client(cx);
            return Poll::Pending;
        }
        let part = ready!(self.body.poll_part(cx));
        if matches!((&part, &self.body), (Some(Err(BrokenOff)), AnswerBody::Target(_))) && !std::mem::replace(&mut self.is_error_due, true)
        {
            // What came before goes first: a reset would take it back.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(part.map(|part| {
            part.map_err(|BrokenOff| self.body.reset().unwrap_or(h2::Reason::INTERNAL_ERROR).into()).map(|part| match part {
                Part::Data(data) => {
                    self.outflow.gives(data.len());
                    Frame::data(data)
                }
                Part::Trailers(trailers) => Frame::trailers(trailers.to_map()),
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            AnswerBody::Empty | AnswerBody::Tunnel(_) => SizeHint::with_exact(0),
            AnswerBody::Text(text) => SizeHint::with_exact(text.len() as u64),
            AnswerBody::Target(_) => SizeHint::default(),
        }
    }
}
