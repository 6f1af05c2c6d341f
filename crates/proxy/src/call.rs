//! One request and its answer on a stream of HTTP/2 to a target (RFC 9113 §8.1).
//!
//! **Invariants**: what a target says it has not seen (REFUSED_STREAM, or a stream beyond its GOAWAY; RFC 9113 §8.7) can be sent again,
//! whatever it is, as long as all that was taken of its body is kept; anything else counts as seen. What is dropped before its end is
//! reset with CANCEL, and so the target learns that nobody waits.

use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use http1::{AnswerHead, Fields, Framing, Known, Part, RequestHead};

use crate::body::RequestBody;
use crate::exchange::Lost;
use crate::grpc::is_grpc;
use crate::head;
use crate::line::{Broken, Line, Lines, Phase};
use crate::trunk::OnTrunk;

/// Answers before the last one. More than a few of them are no answers any more.
const INFORMATIONAL_MAX: u32 = 32;
/// Of a body that was taken, so much is kept until the answer begins, for the case that its target has not seen it.
const KEPT_BYTES_MAX: usize = 64 * 1024;

pub(crate) struct Call {
    pub(crate) line: Rc<Line>,
    lines: Rc<Lines>,
    number: u64,
    on: OnTrunk,
    send: Option<SendRequest<Bytes>>,
    sending: Sending,
    /// How the target, or the connection, ended it.
    reset: Option<h2::Reason>,
    /// Nothing of it was seen, as far as the target says.
    is_unseen: bool,
    is_answered: bool,
    informational: u32,
}

/// The stream itself; gone when it was broken off.
pub(crate) struct Halves {
    send: SendStream<Bytes>,
    answer: Option<ResponseFuture>,
    receive: Option<RecvStream>,
    /// Of the answer: has come, and nobody has taken it.
    gathered: BytesMut,
}

impl Halves {
    fn new(send: SendStream<Bytes>, answer: ResponseFuture) -> Self {
        Self { send, answer: Some(answer), receive: None, gathered: BytesMut::new() }
    }

    /// For a client that takes nothing for now: frames of a few bytes would cost many times what is in them. Only while nobody waits for
    /// what comes: the stream wakes one.
    pub(crate) fn gather(&mut self) {
        let Some(receive) = &mut self.receive else { return };
        while let Poll::Ready(Some(Ok(data))) = receive.poll_data(&mut Context::from_waker(Waker::noop())) {
            self.gathered.extend_from_slice(&data);
        }
    }
}

#[derive(Default)]
struct Sending {
    body: Option<RequestBody>,
    /// Taken off the body and not sent.
    next: Bytes,
    /// All that was taken, while it is not too much.
    kept: Option<VecDeque<Bytes>>,
    kept_bytes: usize,
    has_taken_trailers: bool,
    announced: Option<Box<[u8]>>,
    /// The target takes no more. Its answer may be here all the same.
    has_failed: bool,
}

impl Call {
    pub(crate) fn new(line: Rc<Line>, lines: Rc<Lines>, number: u64, on: OnTrunk, send: SendRequest<Bytes>) -> Self {
        Self {
            line,
            lines,
            number,
            on,
            send: Some(send),
            sending: Sending::default(),
            reset: None,
            is_unseen: true,
            is_answered: false,
            informational: 0,
        }
    }

    pub(crate) fn start(&mut self, head: &RequestHead, body: RequestBody) {
        // A stream may send a message now and then for as long as it likes; nothing in its head says whether it is one.
        self.line.begins(!is_grpc(&head.fields));
        self.line.enter(if body.is_empty() { Phase::Waiting } else { Phase::Sending });
        let announced = head.fields.get(Known::Trailer).map(Box::from);
        let is_empty = body.is_empty();
        self.sending = Sending { body: Some(body).filter(|_| !is_empty), kept: Some(VecDeque::new()), announced, ..Sending::default() };
        let Some(request) = request_of(head, self.on.trunk.is_tls) else {
            // A host that HTTP/2 cannot name.
            return self.line.mark(Broken::ClientBody);
        };
        let Some(mut send) = self.send.take() else { return };
        match send.send_request(request, is_empty) {
            Ok((answer, send)) => {
                self.is_unseen = false;
                *self.line.call.borrow_mut() = Some(Halves::new(send, answer));
            }
            Err(_) => self.on.trunk.retire(),
        }
    }

    pub(crate) fn was_answered(&self) -> bool {
        self.is_answered
    }

    /// The target may have seen it, or it cannot be put together again.
    pub(crate) fn was_written(&self) -> bool {
        !self.is_unseen || self.sending.has_taken_trailers || self.sending.kept.is_none()
    }

    pub(crate) fn take_back(&mut self) -> RequestBody {
        let sending = mem::take(&mut self.sending);
        let mut body = sending.body.unwrap_or_else(RequestBody::none);
        if let Some(kept) = sending.kept {
            body.put_back(kept);
        }
        body
    }

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
        let mut call = line.call.borrow_mut();
        let Some(halves) = call.as_mut() else { return Poll::Ready(Err(Lost::Over)) };
        self.send(cx, halves);
        if line.broken().is_some() {
            return Poll::Ready(Err(Lost::Over));
        }
        let Some(answer) = &mut halves.answer else { return Poll::Ready(Err(Lost::Over)) };
        while let Poll::Ready(Some(Ok(early))) = answer.poll_informational(cx) {
            self.informational += 1;
            if self.informational > INFORMATIONAL_MAX {
                return Poll::Ready(Err(Lost::Misunderstood));
            }
            if early.status() == StatusCode::SWITCHING_PROTOCOLS {
                // HTTP/2 has none (RFC 9113 §8.6), and a client of HTTP/1.1 would believe it.
                return Poll::Ready(Err(Lost::Misunderstood));
            }
            if early.status() != StatusCode::CONTINUE {
                let mut fields = Fields::default();
                fields.extend_from_map(early.headers());
                inform(early.status(), &fields);
            }
        }
        match ready!(Pin::new(answer).poll(cx)) {
            Ok(response) => {
                self.is_answered = true;
                self.on.heard();
                self.sending.kept = None;
                let (parts, receive) = response.into_parts();
                let head = head_of(parts.status, &parts.headers, receive.is_end_stream(), asked);
                halves.answer = None;
                halves.receive = Some(receive);
                self.lets_go(halves);
                Poll::Ready(head.ok_or(Lost::Misunderstood))
            }
            Err(error) => {
                self.ended(&error);
                let is_nonsense = error.is_library() && (error.is_reset() || error.is_go_away());
                Poll::Ready(Err(if is_nonsense { Lost::Misunderstood } else { Lost::Over }))
            }
        }
    }

    fn ended(&mut self, error: &h2::Error) {
        let is_refused = error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        let is_beyond_goaway = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
        self.is_unseen |= is_refused || is_beyond_goaway;
        if !error.is_reset() {
            self.on.trunk.retire();
        }
        self.reset = error.reason().filter(|_| error.is_reset() && error.is_remote());
    }

    /// With which code the target has reset the stream.
    pub(crate) fn reset(&self) -> Option<h2::Reason> {
        self.reset
    }

    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part>, Lost>> {
        if self.line.broken().is_some_and(|why| why != Broken::ClientBody) {
            return Poll::Ready(Err(Lost::Over));
        }
        self.line.is_polled_by(cx);
        let line = self.line.clone();
        let mut call = line.call.borrow_mut();
        let Some(halves) = call.as_mut() else { return Poll::Ready(Err(Lost::Over)) };
        self.send(cx, halves);
        let polled = self.poll_received(cx, halves);
        if polled.is_ready() {
            // Whoever takes it may take nothing more for long.
            self.lets_go(halves);
        }
        polled
    }

    fn poll_received(&mut self, cx: &mut Context<'_>, halves: &mut Halves) -> Poll<Result<Option<Part>, Lost>> {
        let line = self.line.clone();
        let Some(receive) = &mut halves.receive else { return Poll::Ready(Err(Lost::Over)) };
        if !halves.gathered.is_empty() {
            let data = mem::take(&mut halves.gathered).freeze();
            let _ = receive.flow_control().release_capacity(data.len());
            line.moved();
            return Poll::Ready(Ok(Some(Part::Data(data))));
        }
        loop {
            match receive.poll_data(cx) {
                Poll::Pending => {
                    line.waits_for_sender(true);
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(data))) => {
                    // The client takes it, or the next part is not asked for.
                    let _ = receive.flow_control().release_capacity(data.len());
                    line.moved();
                    self.on.heard();
                    if !data.is_empty() {
                        return Poll::Ready(Ok(Some(Part::Data(data))));
                    } else if !receive.is_end_stream() {
                        self.on.said_nothing();
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.ended(&error);
                    return Poll::Ready(Err(Lost::Over));
                }
                Poll::Ready(None) => break,
            }
        }
        match ready!(receive.poll_trailers(cx)) {
            Ok(Some(map)) => {
                let mut trailers = Fields::default();
                trailers.extend_from_map(&map);
                line.moved();
                Poll::Ready(Ok(Some(Part::Trailers(trailers))))
            }
            Ok(None) => Poll::Ready(Ok(None)),
            Err(error) => {
                self.ended(&error);
                Poll::Ready(Err(Lost::Over))
            }
        }
    }

    /// All of the answer has been read.
    pub(crate) fn is_answer_over(&self) -> bool {
        let call = self.line.call.borrow();
        call.as_ref().is_some_and(|halves| halves.gathered.is_empty() && halves.receive.as_ref().is_some_and(RecvStream::is_end_stream))
    }

    pub(crate) fn is_sent(&self) -> bool {
        self.sending.body.is_none()
    }

    pub(crate) fn is_sending(&self) -> bool {
        !self.sending.has_failed && !self.is_sent()
    }

    /// Room on the trunk that it asked for and does not use yet: nobody polls it for now, and others send there, too.
    fn lets_go(&self, halves: &mut Halves) {
        if !self.sending.next.is_empty() {
            halves.send.reserve_capacity(0);
        }
    }

    pub(crate) fn rests(&self) {
        if let Some(halves) = self.line.call.borrow_mut().as_mut() {
            self.lets_go(halves);
        }
    }

    /// While nobody takes more of the answer: its request goes on.
    pub(crate) fn keep_sending(&mut self, cx: &mut Context<'_>) {
        self.line.is_polled_by(cx);
        let line = self.line.clone();
        if let Some(halves) = line.call.borrow_mut().as_mut() {
            self.send(cx, halves);
        }
    }

    /// Moves the request as far as its target takes it. That the client's body is bad breaks the line.
    fn send(&mut self, cx: &mut Context<'_>, halves: &mut Halves) {
        while !self.sending.has_failed && self.line.broken().is_none() {
            if self.sending.next.is_empty() {
                let Some(body) = &mut self.sending.body else { return };
                let Poll::Ready(part) = body.poll_part(cx) else {
                    self.line.waits_for_sender(true);
                    return;
                };
                let is_over = body.is_over();
                match part {
                    Some(Ok(Part::Data(data))) => {
                        self.line.came(data.len());
                        self.keep(&data);
                        self.sending.next = data;
                        if self.sending.next.is_empty() && is_over {
                            return self.end(halves, None);
                        }
                    }
                    Some(Ok(Part::Trailers(mut trailers))) => {
                        self.sending.has_taken_trailers = true;
                        head::filter_trailers(&mut trailers, Some(self.sending.announced.as_deref().unwrap_or_default()));
                        return self.end(halves, Some(trailers.to_map()).filter(|map| !map.is_empty()));
                    }
                    None => return self.end(halves, None),
                    Some(Err(_)) => {
                        self.sending.body = None;
                        // The target must not take what it has for a whole request.
                        self.line.mark(Broken::ClientBody);
                        halves.send.send_reset(h2::Reason::CANCEL);
                        return;
                    }
                }
            } else {
                halves.send.reserve_capacity(self.sending.next.len());
                if halves.send.capacity() == 0 {
                    match halves.send.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(_))) => continue,
                        Poll::Ready(_) => return self.fails(),
                        Poll::Pending => {
                            self.line.waits_for_sender(false);
                            return;
                        }
                    }
                }
                let length = halves.send.capacity().min(self.sending.next.len());
                let data = self.sending.next.split_to(length);
                let is_last = self.sending.next.is_empty() && self.sending.body.as_ref().is_none_or(RequestBody::is_over);
                if halves.send.send_data(data, is_last).is_err() {
                    return self.fails();
                }
                self.line.moved();
                if is_last {
                    return self.sent();
                }
            }
        }
    }

    fn keep(&mut self, data: &Bytes) {
        let sending = &mut self.sending;
        sending.kept_bytes += data.len();
        if sending.kept_bytes > KEPT_BYTES_MAX {
            sending.kept = None;
        } else if let Some(kept) = &mut sending.kept {
            kept.push_back(data.clone());
        }
    }

    fn end(&mut self, halves: &mut Halves, trailers: Option<HeaderMap>) {
        // Trailers that HTTP/2 refuses are none: without an end, the target would wait for more.
        let is_said = trailers.is_some_and(|map| halves.send.send_trailers(map).is_ok());
        let ended = if is_said { Ok(()) } else { halves.send.send_data(Bytes::new(), true) };
        if ended.is_err() { self.fails() } else { self.sent() }
    }

    fn fails(&mut self) {
        self.sending.has_failed = true;
        self.waits();
    }

    fn sent(&mut self) {
        self.sending.body = None;
        self.waits();
    }

    fn waits(&self) {
        if self.line.phase() == Phase::Sending {
            self.line.enter(Phase::Waiting);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let timed_out = matches!(self.line.broken(), Some(Broken::ResponseTimeout | Broken::AnswerStalled | Broken::TargetStalled));
        // Clients that keep their deadlines leave before we would say so.
        if timed_out || !self.is_answered && self.on.is_patient() {
            self.on.waited_in_vain();
        }
        drop(self.line.call.take());
        self.lines.forget(self.number);
    }
}

/// `None`: it has no form in HTTP/2.
fn request_of(head: &RequestHead, is_tls: bool) -> Option<http::Request<()>> {
    let host = head.fields.get(Known::Host)?;
    let uri = Uri::builder().scheme(if is_tls { "https" } else { "http" }).authority(host).path_and_query(head.target()).build().ok()?;
    let mut headers = head.fields.to_map();
    for name in [header::HOST, header::CONNECTION, header::UPGRADE] {
        headers.remove(name);
    }
    if let Framing::Length(length) = head.framing {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let mut request = http::Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = headers;
    Some(request)
}

/// `None`: it can be read in two ways, or changes to a protocol that HTTP/2 does not know.
fn head_of(status: StatusCode, headers: &HeaderMap, is_end: bool, asked: &Method) -> Option<AnswerHead> {
    if status.is_informational() {
        return None;
    }
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let said = value.to_str().ok().filter(|said| said.bytes().all(|byte| byte.is_ascii_digit()))?.parse::<u64>().ok()?;
        if length.replace(said).is_some_and(|before| before != said) {
            return None;
        }
    }
    let is_bodiless = *asked == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let framing = match (is_bodiless, length, is_end) {
        // An empty frame may end it, too.
        (true, length, _) => Framing::Bodiless(length),
        (false, Some(1..), true) => return None,
        (false, _, true) => Framing::Length(0),
        (false, Some(length), false) => Framing::Length(length),
        (false, None, false) => Framing::Chunked,
    };
    let mut head = AnswerHead::new(status, framing);
    head.fields.extend_from_map(headers);
    Some(head)
}
