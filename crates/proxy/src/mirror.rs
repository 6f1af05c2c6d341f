//! Mirroring: a copy of a request goes to a version by which nobody is answered yet.
//!
//! **Invariants**: the client's own request never waits for its copy, and its answer is never the copy's; a copy that would be too
//! much (too many at once, a body that is too long) is left out; copies are counted apart.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::Method;
use http1::{Decoder, Framing, Part, RequestHead};

use crate::body::RequestBody;
use crate::carrier::Carrier;
use crate::chosen::Chosen;
use crate::counts::VersionCounts;
use crate::grpc;
use crate::lane::Lane;

use crate::line::{Announcement, Phase, Wanted};
use crate::table::Table;

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
    chosen: Chosen,
    address: std::net::SocketAddr,
    trust: Option<Arc<tls::Trust>>,
    protocol: model::Protocol,
    /// A copy is our own request.
    announces: Option<Announcement>,
    counts: Arc<VersionCounts>,
    response_header_timeout_ms: u64,
    stream_idle_timeout_ms: u64,
    head: RequestHead,
    body: VecDeque<Bytes>,
    bytes_left: usize,
}

impl Copied {
    /// `None` when this request is not mirrored.
    #[allow(clippy::redundant_allocation)] // as the lane has it
    pub(crate) fn of(lane: &Rc<Lane>, table: &Rc<Arc<Table>>, service: usize, head: &RequestHead) -> Option<Self> {
        let (number, service) = (service, &table.services[service]);
        let mirror = service.mirror.as_ref().filter(|mirror| mirror.methods.contains(&head.method))?;
        let least = if let Framing::Length(length) = head.framing { length } else { 0 };
        if lane.copies.get() >= COPIES_MAX || least > mirror.body_max as u64 {
            return None;
        }
        let (version, target) = service.pick(Some(mirror.version), 0, &[], lane.clock.now_ms())?;
        let mut head = head.clone();
        head.fields.set_named(FIELD, b"1");
        lane.copies.set(lane.copies.get() + 1);
        Some(Self {
            lane: lane.clone(),
            chosen: Chosen::new(table, number, version, target),
            address: target.address,
            trust: service.trust.clone(),
            protocol: service.protocol,
            announces: service.announces.map(Announcement::of_nobody),
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
            let claim = self.chosen.claim();
            let (status, is_bad, to_head) = match self.exchange().await {
                Some((status, is_bad, head)) => (status, is_bad, Some(head.saturating_duration_since(started))),
                None => (BAD_GATEWAY, true, None),
            };
            self.counts.record(self.lane.index, status, is_bad, to_head, started.elapsed());
            drop(claim);
        });
    }

    /// The answer's status, whether it is bad, and when its head came; `None` without an answer.
    async fn exchange(&mut self) -> Option<(u16, bool, Instant)> {
        let number = self.chosen.live().number;
        let trust = self.trust.as_ref();
        let wanted = Wanted { target: number, trust, announces: self.announces, protocol: self.protocol };
        let idle = poll_fn(|cx| Poll::Ready(self.lane.lines.take(&wanted, cx))).await;
        let mut sender = match idle {
            Some(sender) => sender,
            None => self.lane.lines.connect(&wanted, self.address).await.ok()?,
        };
        sender.line().limits(self.response_header_timeout_ms, self.stream_idle_timeout_ms);
        sender.start(&self.head, RequestBody::stored(std::mem::take(&mut self.body)));
        let answer = poll_fn(|cx| sender.poll_answer(cx, &self.head.method, |_, _| {})).await.ok()?;
        let (status, head) = (answer.status.as_u16(), Instant::now());
        let is_call = sender.is_http2() && grpc::is_grpc(&self.head.fields);
        let early = grpc::status_of_head(&answer).filter(|_| is_call);
        let Some(late) = discard(Decoder::new(answer.framing), &mut sender).await else { return Some((BAD_GATEWAY, true, head)) };
        if answer.lasts {
            self.lane.give_back(sender);
        }
        let is_failed_call = is_call && early.or(late).is_none_or(grpc::is_bad);
        Some((status, status >= 500 || is_failed_call, head))
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.lane.copies.set(self.lane.copies.get() - 1);
    }
}

/// Reads an answer to its end, and the status of a call there; `None` when it was broken off.
async fn discard(mut decoder: Decoder, sender: &mut Carrier) -> Option<Option<u8>> {
    sender.line().enter(Phase::Answering);
    sender.line().waits_for_sender(true);
    let (mut left, mut status) = (ANSWER_BYTES_MAX, None);
    loop {
        match poll_fn(|cx| sender.poll_part(cx, &mut decoder)).await {
            Ok(Some(Part::Data(data))) => match left.checked_sub(data.len()) {
                Some(rest) => left = rest,
                None => return None,
            },
            Ok(Some(Part::Trailers(trailers))) => status = grpc::status(&trailers),
            Ok(None) => return Some(status),
            Err(_) => return None,
        }
    }
}
