//! Mirroring: a copy of a request goes to a version by which nobody is answered yet.
//!
//! **Invariants**: the client's own request never waits for its copy, and its answer is never the copy's; a copy that would be too
//! much (too many at once, a body that is too long) is left out; copies are counted apart.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use http_body::Body;
use hyper::body::Incoming;

use crate::body::RequestBody;
use crate::clock::now_ms;
use crate::counts::VersionCounts;
use crate::lane::Lane;
use crate::line::{Phase, Sender};
use crate::live::{Claim, TargetLive};
use crate::table::Service;

/// Copies that run at once on a thread; beyond that the candidate does not keep up, and more would only cost memory.
const COPIES_MAX: usize = 64;
/// Of a copy's answer nothing is wanted; one that is longer is broken off.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// So that a service can tell a copy.
const FIELD: &str = "x-changeover-mirror";
const BAD_GATEWAY: u16 = 502;

/// As a table has it.
pub(crate) struct Mirror {
    pub(crate) version: usize,
    pub(crate) methods: Vec<Method>,
    pub(crate) body_max: usize,
    pub(crate) counts: Arc<VersionCounts>,
}

/// A request on its way to be copied; its body is gathered while it passes.
pub(crate) struct Copied {
    lane: Rc<Lane>,
    target: Arc<TargetLive>,
    address: std::net::SocketAddr,
    counts: Arc<VersionCounts>,
    response_header_timeout_ms: u64,
    stream_idle_timeout_ms: u64,
    head: Request<()>,
    body: VecDeque<Bytes>,
    bytes_left: usize,
}

impl Copied {
    /// `None` when this request is not mirrored.
    pub(crate) fn of(lane: &Rc<Lane>, service: &Service, request: &Request<RequestBody>) -> Option<Self> {
        let mirror = service.mirror.as_ref().filter(|mirror| mirror.methods.contains(request.method()))?;
        let least = request.body().size_hint().lower();
        if lane.copies.get() >= COPIES_MAX || least > mirror.body_max as u64 {
            return None;
        }
        let (_, target) = service.pick(Some(mirror.version), 0, &[], now_ms())?;
        let mut head = Request::new(());
        head.method_mut().clone_from(request.method());
        head.uri_mut().clone_from(request.uri());
        head.headers_mut().clone_from(request.headers());
        head.headers_mut().insert(FIELD, HeaderValue::from_static("1"));
        lane.copies.set(lane.copies.get() + 1);
        Some(Self {
            lane: lane.clone(),
            target: target.live.clone(),
            address: target.address,
            counts: mirror.counts.clone(),
            response_header_timeout_ms: service.response_header_timeout_ms,
            stream_idle_timeout_ms: service.stream_idle_timeout_ms,
            head,
            body: VecDeque::new(),
            bytes_left: mirror.body_max,
        })
    }

    /// A part of the body passes; false when it is too long to be copied.
    pub(crate) fn take(&mut self, part: &Bytes) -> bool {
        let Some(left) = self.bytes_left.checked_sub(part.len()) else { return false };
        self.bytes_left = left;
        self.body.push_back(part.clone());
        true
    }

    /// The request is complete: its copy goes out, by itself.
    pub(crate) fn send(mut self) {
        tokio::task::spawn_local(async move {
            let started = Instant::now();
            let claim = Claim::new(&self.target);
            let (status, to_head) = match self.exchange().await {
                Some((status, head)) => (status, Some(head.saturating_duration_since(started))),
                None => (BAD_GATEWAY, None),
            };
            self.counts.record(self.lane.index, status, status >= 500, to_head, started.elapsed());
            drop(claim);
        });
    }

    /// The answer's status and when its head came; `None` without an answer.
    async fn exchange(&mut self) -> Option<(u16, Instant)> {
        let number = self.target.number;
        let mut sender = match self.lane.lines.take(number) {
            Some(sender) => sender,
            None => self.lane.lines.connect(number, self.address).await.ok()?,
        };
        sender.line.limits(self.response_header_timeout_ms, self.stream_idle_timeout_ms);
        let body = RequestBody::stored(std::mem::take(&mut self.body));
        let mut request = std::mem::take(&mut self.head).map(|()| body);
        request.body_mut().goes_over(&sender.line);
        let response = sender.send.try_send_request(request).await.ok()?;
        let (status, head) = (response.status().as_u16(), Instant::now());
        let is_whole = discard(response.into_body(), &sender).await;
        if is_whole {
            self.lane.give_back(sender);
        }
        Some((if is_whole { status } else { BAD_GATEWAY }, head))
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.lane.copies.set(self.lane.copies.get() - 1);
    }
}

/// Reads an answer to its end; false when it was broken off.
async fn discard(mut incoming: Incoming, sender: &Sender) -> bool {
    sender.line.enter(Phase::Answering);
    sender.line.waits_for_sender();
    let mut left = ANSWER_BYTES_MAX;
    loop {
        match poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
            Some(Ok(frame)) => {
                sender.line.moved();
                sender.line.waits_for_sender();
                let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return false };
                left = rest;
            }
            Some(Err(_)) => return false,
            None => return sender.line.broken().is_none(),
        }
    }
}
