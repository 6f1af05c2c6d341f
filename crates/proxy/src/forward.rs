//! The way of one request: admitted, routed, held or refused, claimed, sent, answered.
//!
//! **Invariants**: a request reads one table at a time; one that raced onto a target which a newer table does not permit is
//! picked again, never answered 503. What may have reached a target is sent again only if that is harmless (see `retry`).

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http1::{AnswerHead, Fields, Known, RequestHead};
use model::{Mode, Protocol, StickyBy};

use crate::body::RequestBody;
use crate::carrier::Carrier;
use crate::chosen::{Chosen, Claim};
use crate::client::{Busy, Client};
use crate::cohort::{self, Cohorts};
use crate::exchange::Lost;
use crate::head::{self, Head};
use crate::hold::Waiting;
use crate::lane::Lane;
use crate::line::Broken;
use crate::line::Wanted;
use crate::message::{Answer, Request};
use crate::mirror::Copied;
use crate::reason::Reason;
use crate::retry::Attempts;
use crate::table::{Routed, Service, Table};
use crate::ticket::{self, Ticket};
use crate::unit::Unit;
use crate::watched::Names;
use crate::{answer, grpc, respond};

/// Everything about a request that outlives its attempts.
pub(crate) struct Passage {
    pub(crate) lane: Rc<Lane>,
    pub(crate) client: Rc<Client>,
    pub(crate) head: Head,
    started: Instant,
    /// Of a stream of HTTP/2; a connection of HTTP/1.1 knows by itself.
    busy: Option<Busy>,
    attempts: Attempts,
    /// The arm that was drawn: retries keep it.
    arm: Option<usize>,
    unit: Option<Box<Unit>>,
    has_waited: bool,
    /// Until then the client of a call of gRPC waits.
    deadline: Option<Instant>,
    /// Of a sticky client: goes with the answer.
    cookie: Option<Box<str>>,
    names: Names,
}

pub(crate) async fn handle(lane: &Rc<Lane>, client: &Rc<Client>, mut request: Request, busy: Option<Busy>) -> Answer {
    let started = Instant::now();
    // Not shared yet: nothing is cloned.
    let own = Rc::make_mut(&mut request.head);
    let head = match head::admit(own, client) {
        Ok(head) => head,
        Err(reason) => {
            lane.note_made(reason, client, Some(own), started);
            return answer::made(reason);
        }
    };
    // Before any route: an authority asks whether a name is ours, whatever becomes of its requests.
    if let Some(proof) = lane.shared.keyring.issued().answer_for(own.target()) {
        return answer::proof(proof);
    }
    let names = lane.watched().names(&mut own.fields);
    let attempts = Attempts::new(&own.method, !request.body.is_empty());
    let (lane, client) = (lane.clone(), client.clone());
    let passage = Passage {
        lane,
        client,
        head,
        started,
        busy,
        attempts,
        arm: None,
        unit: None,
        has_waited: false,
        deadline: None,
        cookie: None,
        names,
    };
    passage.run(request).await
}

impl Passage {
    async fn run(mut self, mut request: Request) -> Answer {
        let mut waiting = Waiting::default();
        loop {
            let table = self.lane.table();
            let routed = match self.route(&table, &request.head) {
                Ok(routed) => routed,
                Err(reason) => return self.made(&request.head, reason),
            };
            match &table.services[routed.service].mode {
                Mode::Serve => waiting.leaves_queue(),
                Mode::Maintenance { .. } => {
                    let page = table.services[routed.service].maintenance.clone();
                    self.note(&request.head, Reason::Maintenance);
                    return answer::maintenance(page);
                }
                Mode::Hold { wait_max_ms, queue_max } => {
                    self.has_waited = true;
                    let held = &table.services[routed.service].held;
                    match waiting.for_change(&self.lane, &self.client, Client::has_hung_up, held, *wait_max_ms, *queue_max).await {
                        Ok(()) => continue,
                        Err(reason) => return self.made(&request.head, reason),
                    }
                }
            }
            match self.attempt(&table, routed, &mut request).await {
                Attempt::Answered(mut answer) => {
                    if let Some(cookie) = self.cookie {
                        answer.head.fields.push(Known::SetCookie, cookie.as_bytes());
                    }
                    return answer;
                }
                Attempt::Again => {}
            }
        }
    }

    fn route(&self, table: &Table, head: &RequestHead) -> Result<Routed, Reason> {
        table.route(&self.client.listener, &self.head.host, head.path(), head.fields.get_named(model::VERSION_FIELD))
    }

    #[allow(clippy::redundant_allocation)] // as the lane has it
    async fn attempt(&mut self, table: &Rc<Arc<Table>>, routed: Routed, request: &mut Request) -> Attempt {
        let service = &table.services[routed.service];
        if routed.only.is_none() && service.arms.is_empty() {
            return Attempt::Answered(self.made(&request.head, Reason::NothingDeployed));
        }
        if routed.only.is_none() && self.arm.is_none() {
            self.draw(service, &request.head.fields);
        }
        if service.mirror.is_some() && routed.only.is_none() && self.head.upgrade.is_none() && self.attempts.is_first() {
            // Its own request does not wait for it.
            if let Some(copied) = Copied::of(&self.lane, table, routed.service, &request.head) {
                request.body.copy_to(copied);
            }
        }
        let arm = self.arm.unwrap_or(0);
        let picked =
            if self.attempts.exhausted() { None } else { service.pick(routed.only, arm, self.attempts.tried(), self.lane.clock.now_ms()) };
        let Some((index, target)) = picked else {
            return Attempt::Answered(self.no_target_left(&request.head));
        };
        let version = &service.versions[index];
        if let Some(unit) = self.unit.as_mut().filter(|_| service.arms.get(arm).is_some_and(|(_, drawn)| *drawn != index)) {
            // The other version helps out: that the drawn one could not is what counts.
            unit.failed();
        }
        // No await since the table was read: a switch that this thread acknowledged cannot lie between.
        let chosen = Chosen::new(table, routed.service, index, target);
        let claim = chosen.claim();
        self.attempts.begin_round();
        let number = target.live.number;
        let trust = service.trust.as_ref();
        let announces = service.announces.map(|version| self.client.announcement(version));
        let wanted = Wanted { target: number, trust, announces, protocol: service.protocol };
        let idle = poll_fn(|cx| Poll::Ready(self.lane.lines.take(&wanted, cx))).await;
        let (sender, reused) = match idle {
            Some(sender) => (sender, true),
            None => match self.lane.lines.connect(&wanted, target.address).await {
                Ok(sender) => (sender, false),
                Err(error) => {
                    // A lack of ours says nothing about the target.
                    if !is_ours(&error) {
                        target.live.not_connected();
                    }
                    self.attempts.connect_failed(number);
                    self.attempts.failed_on(chosen);
                    return Attempt::Again;
                }
            },
        };
        if !reused && !self.still_permitted(table, &request.head, &version.name, number) {
            return Attempt::Again;
        }
        let header_timeout_ms = match service.protocol {
            Protocol::Http2 if grpc::is_grpc(&request.head.fields) => {
                if let Some(left) = self.left_of_call(request) {
                    sender.line().ends_within(grpc::given_ms(left));
                }
                // Who says no deadline waits for as long as a stream may rest.
                service.stream_idle_timeout_ms
            }
            _ => service.response_header_timeout_ms,
        };
        sender.line().limits(header_timeout_ms, service.stream_idle_timeout_ms);
        self.send(chosen, claim, sender, reused, target.address, request).await
    }

    /// How long the client of a call still waits, if it has said. Its target is told when that is less than it said.
    fn left_of_call(&mut self, request: &mut Request) -> Option<Duration> {
        if self.deadline.is_none() {
            self.deadline = self.started.checked_add(grpc::timeout(&request.head.fields)?);
        }
        let left = self.deadline?.saturating_duration_since(Instant::now());
        if self.has_waited || !self.attempts.is_first_round() {
            grpc::set_timeout(&mut Rc::make_mut(&mut request.head).fields, left);
        }
        Some(left)
    }

    /// Between two arms; counted in the epoch that this table has.
    fn draw(&mut self, service: &Service, fields: &Fields) {
        if let Some(name) = service.stale_cookie.as_deref().filter(|name| cohort::cookie(fields, name).is_some()) {
            self.cookie = Some(format!("{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax").into());
        }
        if let Some(cohorts) = &service.cohorts {
            return self.draw_client(service, cohorts, fields);
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

    fn draw_client(&mut self, service: &Service, cohorts: &Cohorts, fields: &Fields) {
        let key = cohorts.client(fields, self.client.address(fields));
        self.arm = service.arm_at(|| key.place);
        if let (StickyBy::Cookie(name), Some(value)) = (&cohorts.sticky.by, &key.new_cookie) {
            self.cookie = Some(format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax").into());
        }
        if let (Some(arm @ 0..=1), Some(epoch)) = (self.arm, &service.epoch) {
            let now = self.now();
            self.unit = Unit::of_client(epoch, &key, &cohorts.sticky, arm, now).map(Box::new);
        }
    }

    /// After an await the table may have changed under the claim.
    fn still_permitted(&self, old: &Table, head: &RequestHead, version: &model::VersionName, target: u64) -> bool {
        let table = self.lane.table();
        if std::ptr::eq(old, &**table) {
            return true;
        }
        let Ok(routed) = self.route(&table, head) else {
            return false;
        };
        let service = &table.services[routed.service];
        matches!(service.mode, Mode::Serve) && service.permits(routed.only, version, target)
    }

    async fn send(
        &mut self,
        chosen: Chosen,
        claim: Claim,
        mut sender: Carrier,
        reused: bool,
        address: std::net::SocketAddr,
        request: &mut Request,
    ) -> Attempt {
        if !request.head.fields.has(Known::Host) {
            // Only an HTTP/1.0 client may leave it out; the target's connection is HTTP/1.1.
            Rc::make_mut(&mut request.head).fields.push(Known::Host, address.to_string().as_bytes());
        }
        let has_upgrade = request.head.fields.has(Known::Upgrade);
        // HTTP/2 has none: the target answers as to any other request (RFC 9110 §7.8).
        if let Some(protocol) = self.head.upgrade.as_ref().filter(|_| !has_upgrade && !sender.is_http2()) {
            let fields = &mut Rc::make_mut(&mut request.head).fields;
            fields.set(Known::Connection, b"upgrade");
            fields.push(Known::Upgrade, protocol);
        }
        // Made before: a client that leaves meanwhile ends this future, and its request is counted all the same.
        let mut ticket = self.ticket(chosen, claim, &request.head, Reason::ClientLeft.status().as_u16());
        if sender.is_http2() && grpc::is_grpc(&request.head.fields) {
            ticket.call = ticket::Call::Awaited;
        }
        sender.start(&request.head, std::mem::replace(&mut request.body, RequestBody::none()));
        match self.answer(&mut sender, &request.head).await {
            Ok(head) => {
                ticket.chosen.live().succeeded();
                Attempt::Answered(respond::respond(self, ticket, sender, head))
            }
            Err(lost) => self.unanswered(ticket, &mut sender, reused, lost, request),
        }
    }

    async fn answer(&self, sender: &mut Carrier, head: &RequestHead) -> Result<AnswerHead, Lost> {
        // Whom answers before the last one reach; HTTP/1.0 has none.
        let conversation = self.client.conversation().filter(|_| !head.is_http10);
        poll_fn(|cx| {
            let mut has_news = false;
            let polled = sender.poll_answer(cx, &head.method, |status, fields| {
                if let Some(conversation) = conversation {
                    let mut fields = fields.clone();
                    head::remove_hop_by_hop(&mut fields);
                    conversation.inform(status, &fields);
                    has_news = true;
                }
            });
            if let Some(conversation) = conversation.filter(|_| has_news) {
                conversation.push(cx);
            }
            polled
        })
        .await
    }

    fn unanswered(&mut self, mut ticket: Ticket, sender: &mut Carrier, reused: bool, lost: Lost, request: &mut Request) -> Attempt {
        let reason = match sender.line().broken() {
            Some(Broken::ResponseTimeout | Broken::AnswerStalled | Broken::TargetStalled) => Reason::ResponseTimeout,
            Some(Broken::RequestStalled) => Reason::RequestStalled,
            Some(Broken::ClientBody) => Reason::BadRequest,
            Some(Broken::Cut) => Reason::Cut,
            Some(Broken::ClientStalled | Broken::ClientLeft | Broken::Idle) | None if lost == Lost::Misunderstood => Reason::BadAnswer,
            Some(Broken::ClientStalled | Broken::ClientLeft | Broken::Idle) | None => Reason::TargetReset,
        };
        let (was_written, was_answered) = (sender.was_written(), sender.was_answered());
        // Who resets a stream has seen it.
        let closed_at_rest = reused && !was_answered && sender.reset().is_none();
        let is_again = match reason {
            // What has begun to be answered was received: it is not sent again.
            Reason::TargetReset | Reason::Cut => !was_written || closed_at_rest && self.attempts.may_repeat(),
            _ => false,
        };
        if is_again {
            request.body = sender.take_back();
            self.attempts.sent_in_vain(ticket.chosen.live().number);
            self.attempts.failed_on(ticket.chosen.clone());
            (self.busy, self.unit) = ticket.goes_on();
            // A line on which nothing was written carried nothing; what was written may have been seen.
            if let Some(unit) = self.unit.as_mut().filter(|_| was_written) {
                unit.failed();
            }
            return Attempt::Again;
        }
        let fault_of_target = matches!(reason, Reason::TargetReset | Reason::ResponseTimeout | Reason::BadAnswer);
        if fault_of_target {
            ticket.chosen.live().failed();
        }
        ticket.status = reason.status().as_u16();
        ticket.bad = fault_of_target || reason == Reason::Cut;
        ticket.reason = Some(reason);
        self.lane.count_made(reason);
        Attempt::Answered(answer::made(reason))
    }

    fn no_target_left(&mut self, head: &Rc<RequestHead>) -> Answer {
        let Some(chosen) = self.attempts.last_choice() else {
            return self.made(head, Reason::NoTarget);
        };
        let reason = Reason::ConnectFailed;
        let claim = chosen.claim();
        let mut ticket = self.ticket(chosen, claim, head, reason.status().as_u16());
        ticket.bad = true;
        ticket.reason = Some(reason);
        self.lane.count_made(reason);
        answer::made(reason)
    }

    fn ticket(&mut self, chosen: Chosen, claim: Claim, head: &Rc<RequestHead>, status: u16) -> Ticket {
        Ticket {
            lane: self.lane.clone(),
            client: self.client.clone(),
            chosen,
            claim: Some(claim),
            started: self.started,
            to_head: None,
            is_whole: false,
            unit: self.unit.take(),
            status,
            bytes: 0,
            bad: false,
            call: ticket::Call::No,
            deadline: self.deadline,
            reason: Some(Reason::ClientLeft),
            words: self.lane.logs().then(|| head.clone()),
            busy: self.busy.take(),
            counts_once: true,
            names: self.names,
        }
    }

    fn note(&self, head: &RequestHead, reason: Reason) {
        self.lane.note_made(reason, &self.client, Some(head), self.started);
    }

    fn made(&mut self, head: &RequestHead, reason: Reason) -> Answer {
        self.note(head, reason);
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
pub(crate) fn is_ours(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL | libc::ENOBUFS | libc::ENOMEM))
}

enum Attempt {
    Answered(Answer),
    Again,
}
