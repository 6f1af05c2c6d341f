//! The way of one request: admitted, routed, held or refused, claimed, sent, answered.
//!
//! **Invariants**: a request reads one table at a time; one that raced onto a target which a newer table does not permit is
//! picked again, never answered 503. What may have reached a target is sent again only if that is harmless (see `retry`).

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use model::{Mode, StickyBy};

use crate::body::{AnswerBody, RequestBody};
use crate::client::{Busy, Client};
use crate::clock::now_ms;
use crate::cohort::{self, Cohorts};
use crate::counts::VersionCounts;
use crate::head::{self, Head};
use crate::lane::Lane;
use crate::line::{Broken, Sender};
use crate::live::Claim;
use crate::mirror::Copied;
use crate::reason::Reason;
use crate::retry::{Attempts, Spare};
use crate::table::{Routed, Service, Table};
use crate::ticket::{Ticket, Words};
use crate::unit::Unit;
use crate::watched::Names;
use crate::{answer, respond};

/// Everything about a request that outlives its attempts.
pub(crate) struct Passage {
    pub(crate) lane: Rc<Lane>,
    pub(crate) client: Rc<Client>,
    pub(crate) head: Head,
    pub(crate) upgrade: Option<OnUpgrade>,
    started: Instant,
    words: Option<Box<Words>>,
    busy: Option<Busy>,
    attempts: Attempts,
    /// The arm that was drawn: retries keep it.
    arm: Option<usize>,
    unit: Option<Box<Unit>>,
    has_waited: bool,
    /// Of a sticky client: goes with the answer.
    cookie: Option<Box<HeaderValue>>,
    names: Names,
}

/// So often it is seen whether a client on hold is still there.
const HOLD_LOOK: Duration = Duration::from_secs(1);

/// A place in the queue of a hold; given back also when the client leaves.
struct Place(Arc<std::sync::atomic::AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A version was chosen and its target claimed.
pub(crate) struct Chosen {
    pub(crate) claim: Claim,
    pub(crate) counts: Arc<VersionCounts>,
}

pub(crate) async fn handle(lane: Rc<Lane>, client: Rc<Client>, mut request: Request<Incoming>) -> Response<AnswerBody> {
    let started = Instant::now();
    let busy = Some(client.begin(hyper::body::Body::is_end_stream(request.body())));
    let words = lane.logs().then(|| {
        let host = request.headers().get(header::HOST).cloned();
        Box::new(Words { method: request.method().clone(), host, uri: request.uri().clone() })
    });
    let http2 = client.is_http2();
    let mut response = match head::admit(&mut request, &client) {
        Ok(head) => {
            let names = lane.watched().names(request.headers_mut());
            let upgrade = head.upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
            let request = request.map(RequestBody::new);
            let attempts = Attempts::new(&request);
            let passage = Passage {
                lane: lane.clone(),
                client,
                head,
                upgrade,
                started,
                words,
                busy,
                attempts,
                arm: None,
                unit: None,
                has_waited: false,
                cookie: None,
                names,
            };
            passage.run(request).await
        }
        Err(reason) => {
            lane.note_made(reason, &client, words.as_deref(), started);
            answer::made(reason)
        }
    };
    if lane.is_draining() && !http2 && response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

impl Passage {
    async fn run(mut self, mut request: Request<RequestBody>) -> Response<AnswerBody> {
        let (mut hold_until, mut place) = (None, None);
        loop {
            let table = self.lane.table();
            let routed = match self.route(&table, &request) {
                Ok(routed) => routed,
                Err(reason) => return self.made(reason),
            };
            match &table.services[routed.service].mode {
                Mode::Serve => place = None,
                Mode::Maintenance { .. } => {
                    let page = table.services[routed.service].maintenance.clone();
                    self.note(Reason::Maintenance);
                    return answer::maintenance(page);
                }
                Mode::Hold { wait_max_ms, queue_max } => {
                    let wait = Duration::from_millis(*wait_max_ms);
                    let until = *hold_until.get_or_insert_with(|| tokio::time::Instant::now() + wait);
                    self.has_waited = true;
                    match self.hold(&table, routed, until, *queue_max, &mut place).await {
                        Ok(()) => continue,
                        Err(reason) => return self.made(reason),
                    }
                }
            }
            request = match self.attempt(&table, routed, request).await {
                Attempt::Answered(mut response) => {
                    if let Some(cookie) = self.cookie {
                        response.headers_mut().append(header::SET_COOKIE, *cookie);
                    }
                    return response;
                }
                Attempt::Again(request) => request,
            };
        }
    }

    fn route(&self, table: &Table, request: &Request<RequestBody>) -> Result<Routed, Reason> {
        let wanted = request.headers().get(model::VERSION_FIELD).map(HeaderValue::as_bytes);
        table.route(&self.client.listener, &self.head.host, request.uri().path(), wanted)
    }

    /// Waits for the next table, in the place that was taken at the first wait.
    async fn hold(
        &self,
        table: &Table,
        routed: Routed,
        until: tokio::time::Instant,
        queue_max: u32,
        place: &mut Option<Place>,
    ) -> Result<(), Reason> {
        let held = &table.services[routed.service].held;
        if !place.as_ref().is_some_and(|place| Arc::ptr_eq(&place.0, held)) {
            let before = held.fetch_add(1, Ordering::Relaxed);
            *place = Some(Place(held.clone()));
            if before >= queue_max {
                return Err(Reason::HoldFull);
            }
        }
        loop {
            let look = (tokio::time::Instant::now() + HOLD_LOOK).min(until);
            let changed = tokio::time::timeout_at(look, self.lane.changed()).await;
            if self.client.has_hung_up() {
                // Whoever gave up has most likely asked again: sent now, it would arrive twice.
                return Err(Reason::ClientLeft);
            }
            match changed {
                Ok(()) => return Ok(()),
                Err(_) if look == until => return Err(Reason::HoldTimeout),
                Err(_) => {}
            }
        }
    }

    async fn attempt(&mut self, table: &Table, routed: Routed, mut request: Request<RequestBody>) -> Attempt {
        let service = &table.services[routed.service];
        if routed.only.is_none() && service.arms.is_empty() {
            return Attempt::Answered(self.made(Reason::NothingDeployed));
        }
        if routed.only.is_none() && self.arm.is_none() {
            self.draw(service, request.headers());
        }
        if service.mirror.is_some() && routed.only.is_none() && self.head.upgrade.is_none() && self.attempts.is_first() {
            // Its own request does not wait for it.
            if let Some(copied) = Copied::of(&self.lane, service, &request) {
                request.body_mut().copy_to(copied);
            }
        }
        let arm = self.arm.unwrap_or(0);
        let picked = if self.attempts.exhausted() { None } else { service.pick(routed.only, arm, self.attempts.tried(), now_ms()) };
        let Some((index, target)) = picked else {
            return Attempt::Answered(self.no_target_left());
        };
        let version = &service.versions[index];
        if let Some(unit) = self.unit.as_mut().filter(|_| service.arms.get(arm).is_some_and(|(_, drawn)| *drawn != index)) {
            // The other version helps out: that the drawn one could not is what counts.
            unit.failed();
        }
        // No await since the table was read: a switch that this thread acknowledged cannot lie between.
        let chosen = Chosen { claim: Claim::new(&target.live), counts: version.counts.clone() };
        self.attempts.begin_round();
        let number = target.live.number;
        let (sender, reused) = match self.lane.lines.take(number) {
            Some(sender) => (sender, true),
            None => match self.lane.lines.connect(number, target.address).await {
                Ok(sender) => (sender, false),
                Err(error) => {
                    // A lack of ours says nothing about the target.
                    if !is_ours(&error) {
                        target.live.failed();
                    }
                    self.attempts.connect_failed(number);
                    self.attempts.failed_on(chosen.counts, target.live.clone());
                    return Attempt::Again(request);
                }
            },
        };
        if !reused && !self.still_permitted(table, &request, &version.name, number) {
            return Attempt::Again(request);
        }
        sender.line.limits(service.response_header_timeout_ms, service.stream_idle_timeout_ms);
        self.send(chosen, sender, reused, target.address, request).await
    }

    /// Between two arms; counted in the epoch that this table has.
    fn draw(&mut self, service: &Service, headers: &HeaderMap) {
        if let Some(name) = service.stale_cookie.as_deref().filter(|name| cohort::cookie(headers, name).is_some()) {
            self.cookie = HeaderValue::try_from(format!("{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax")).ok().map(Box::new);
        }
        if let Some(cohorts) = &service.cohorts {
            return self.draw_client(service, cohorts, headers);
        }
        self.arm = service.draw();
        if let (Some(arm @ 0..=1), Some(epoch)) = (self.arm, &service.epoch) {
            let now = self.now();
            self.unit = Some(Box::new(Unit::draw(epoch, self.lane.index, arm, now)));
        }
    }

    /// When it is drawn: an earlier second may be complete already.
    fn now(&self) -> Instant {
        if self.has_waited || !self.attempts.is_first() { Instant::now() } else { self.started }
    }

    fn draw_client(&mut self, service: &Service, cohorts: &Cohorts, headers: &HeaderMap) {
        let key = cohorts.client(headers, self.client.peer.ip());
        self.arm = service.arm_at(|| key.place);
        if let (StickyBy::Cookie(name), Some(value)) = (&cohorts.sticky.by, &key.new_cookie) {
            self.cookie = HeaderValue::try_from(format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax")).ok().map(Box::new);
        }
        if let (Some(arm @ 0..=1), Some(epoch)) = (self.arm, &service.epoch) {
            let now = self.now();
            self.unit = Unit::of_client(epoch, &key, &cohorts.sticky, arm, now).map(Box::new);
        }
    }

    /// After an await the table may have changed under the claim.
    fn still_permitted(&self, old: &Table, request: &Request<RequestBody>, version: &model::VersionName, target: u64) -> bool {
        let table = self.lane.table();
        if std::ptr::eq(old, &**table) {
            return true;
        }
        let Ok(routed) = self.route(&table, request) else {
            return false;
        };
        let service = &table.services[routed.service];
        matches!(service.mode, Mode::Serve) && service.permits(routed.only, version, target)
    }

    async fn send(
        &mut self,
        chosen: Chosen,
        mut sender: Sender,
        reused: bool,
        address: std::net::SocketAddr,
        mut request: Request<RequestBody>,
    ) -> Attempt {
        if !request.headers().contains_key(header::HOST) {
            // Only an HTTP/1.0 client may leave it out; the target's connection is HTTP/1.1.
            if let Ok(value) = HeaderValue::try_from(address.to_string()) {
                request.headers_mut().insert(header::HOST, value);
            }
        }
        if let Some(protocol) = &self.head.upgrade {
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(header::UPGRADE, protocol.clone());
        }
        let spare = if reused { self.attempts.spare(&request) } else { None };
        request.body_mut().goes_over(&sender.line);
        // Made before: a client that leaves meanwhile ends this future, and its request is counted all the same.
        let ticket = self.ticket(chosen, Reason::ClientLeft.status().as_u16());
        match sender.send.try_send_request(request).await {
            Ok(response) => {
                ticket.target.succeeded();
                Attempt::Answered(respond::respond(self, ticket, sender, response))
            }
            Err(mut error) => self.unanswered(ticket, &sender, error.take_message(), spare),
        }
    }

    fn unanswered(&mut self, mut ticket: Ticket, sender: &Sender, unsent: Option<Request<RequestBody>>, spare: Option<Spare>) -> Attempt {
        let reason = match sender.line.broken() {
            Some(Broken::ResponseTimeout | Broken::AnswerStalled | Broken::TargetStalled) => Reason::ResponseTimeout,
            Some(Broken::RequestStalled) => Reason::RequestStalled,
            Some(Broken::ClientBody) => Reason::BadRequest,
            Some(Broken::Cut) => Reason::Cut,
            Some(Broken::ClientStalled) | None => Reason::TargetReset,
        };
        // What has begun to be answered was received: it is not sent again.
        let spare = spare.filter(|_| !sender.line.was_answered());
        let was_written = unsent.is_none();
        let again = match reason {
            Reason::TargetReset | Reason::Cut => unsent.or_else(|| self.attempts.use_spare(spare)),
            _ => None,
        };
        if let Some(request) = again {
            self.attempts.sent_in_vain(ticket.target.number);
            self.attempts.failed_on(ticket.counts.clone(), ticket.target.clone());
            (self.words, self.busy, self.unit) = ticket.goes_on();
            // A line that was closed when hyper came to it carried nothing; what was written may have been seen.
            if let Some(unit) = self.unit.as_mut().filter(|_| was_written) {
                unit.failed();
            }
            return Attempt::Again(request);
        }
        let fault_of_target = matches!(reason, Reason::TargetReset | Reason::ResponseTimeout);
        if fault_of_target {
            ticket.target.failed();
        }
        ticket.status = reason.status().as_u16();
        ticket.bad = fault_of_target || reason == Reason::Cut;
        ticket.reason = Some(reason);
        self.lane.count_made(reason);
        Attempt::Answered(answer::made(reason))
    }

    fn no_target_left(&mut self) -> Response<AnswerBody> {
        let Some((counts, live)) = self.attempts.last_choice() else {
            return self.made(Reason::NoTarget);
        };
        let reason = Reason::ConnectFailed;
        let mut ticket = self.ticket(Chosen { claim: Claim::new(&live), counts }, reason.status().as_u16());
        ticket.bad = true;
        ticket.reason = Some(reason);
        self.lane.count_made(reason);
        answer::made(reason)
    }

    fn ticket(&mut self, chosen: Chosen, status: u16) -> Ticket {
        Ticket {
            lane: self.lane.clone(),
            client: self.client.clone(),
            target: chosen.claim.target().clone(),
            claim: Some(chosen.claim),
            counts: chosen.counts,
            started: self.started,
            to_head: None,
            unit: self.unit.take(),
            status,
            bytes: 0,
            bad: false,
            reason: Some(Reason::ClientLeft),
            words: self.words.take(),
            busy: self.busy.take(),
            counts_once: true,
            names: self.names,
        }
    }

    fn note(&self, reason: Reason) {
        self.lane.note_made(reason, &self.client, self.words.as_deref(), self.started);
    }

    fn made(&mut self, reason: Reason) -> Response<AnswerBody> {
        self.note(reason);
        if let Some(unit) = self.unit.as_mut().filter(|_| reason != Reason::ClientLeft) {
            unit.failed();
        }
        if reason != Reason::ClientLeft {
            self.lane.watched().ended(self.names, true);
        }
        answer::made(reason)
    }
}

/// No descriptor, no port or no memory left on this machine.
fn is_ours(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL | libc::ENOBUFS | libc::ENOMEM))
}

enum Attempt {
    Answered(Response<AnswerBody>),
    Again(Request<RequestBody>),
}
