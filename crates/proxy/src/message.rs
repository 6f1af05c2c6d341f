//! A request and its answer between the client's side and the target's, whatever each of them speaks.

use std::rc::Rc;

use http1::{AnswerHead, RequestHead};

use crate::body::{AnswerBody, RequestBody};
use crate::reason::Reason;

pub(crate) struct Request {
    /// Shared with what is remembered of the request for the log.
    pub(crate) head: Rc<RequestHead>,
    pub(crate) body: RequestBody,
}

pub(crate) struct Answer {
    pub(crate) head: AnswerHead,
    pub(crate) body: AnswerBody,
    /// Why it is one of our own.
    pub(crate) made: Option<Reason>,
}
