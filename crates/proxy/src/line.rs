//! A line: one connection to a target, with its limits, the thread's pool of idle lines, and the way to cut them.
//!
//! **Invariant**: a line is in the pool or used by one request, never both. Limits are watched by the thread's tick, so a
//! request arms no timer of its own. Breaking a line is marked before its socket closes: a cut body is never a clean end.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::Protocol;
use tls::Trust;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::call::{Call, Halves};
use crate::carrier::Carrier;
use crate::chosen::Claim;
use crate::client::{Client, Signal};
use crate::clock::CoarseClock;
use crate::exchange::Sender;
use crate::number::ByNumber;
use crate::pace::Pace;
use crate::secure;
use crate::stream::Stream;
use crate::trunk::{OnTrunk, Place, Trunk, Trunks};
use crate::tunnel::FAREWELL_MAX;
use crate::wire::{Traces, Wire};

/// Shorter than the keep-alive of common servers (5 s and more), so that the target rarely closes first.
const IDLE_MAX_MS: u64 = 4_000;
/// Idle lines per target and thread.
const IDLE_LINES_MAX: usize = 256;
/// An upload that was fast may rest so much longer in all: whoever sends a file may have to make more of it.
const BODY_AHEAD_MAX_MS: u32 = 120_000;
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    /// The request's body is on its way.
    Sending,
    /// Nothing is left to send; the answer has not begun.
    Waiting,
    Answering,
    Tunnel,
    /// It carries a connection of a service that speaks any protocol.
    Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    RequestStalled,
    ResponseTimeout,
    AnswerStalled,
    /// The target takes no more of the request's body.
    TargetStalled,
    /// The client takes no more of the answer.
    ClientStalled,
    Cut,
    /// Nothing moved on the connection, either way.
    Idle,
    /// The client's own body was malformed or ended early.
    ClientBody,
    /// The client of a connection was reset, behind what it had said and its target did not take.
    ClientLeft,
}

/// What the request that runs on a line, the tick and `cut` share about it.
pub(crate) struct Line {
    pub(crate) target: u64,
    /// Of the trust that it was made under; 0 in clear.
    security: u64,
    /// The client that the target was told of; 0: none, and it is for all.
    client_number: u64,
    clock: CoarseClock,
    phase: Cell<Phase>,
    last_ms: Cell<u64>,
    header_timeout_ms: Cell<u64>,
    idle_timeout_ms: Cell<u64>,
    /// Until then its client waits, whatever moves.
    deadline_ms: Cell<u64>,
    broken: Cell<Option<Broken>>,
    /// The body that is on its way waits for whoever sends it; else for whoever takes it.
    waits_for_sender: Cell<bool>,
    /// Of a connection: its target takes less than its client has said, and so nobody reads from the client.
    target_is_behind: Cell<bool>,
    /// Of the request's body, until the answer begins: its client is behind.
    pace: Pace,
    keeps_pace: Cell<bool>,
    /// Of the answer that is on its way: given up with the line, also when nobody polls the answer any more.
    claim: RefCell<Option<Claim>>,
    /// Of a tunnel or a connection.
    client: RefCell<Option<Rc<Client>>>,
    /// When a tunnel is asked to end; 0: not yet.
    ends_at_ms: Cell<u64>,
    /// Absent when the line was broken off, or has become a tunnel.
    pub(crate) wire: RefCell<Option<Wire>>,
    /// Of a call of HTTP/2, which has no wire of its own.
    pub(crate) call: RefCell<Option<Halves>>,
    /// Of a wire that was broken off.
    traces: Cell<Traces>,
    /// Whoever runs on it.
    waker: RefCell<Option<Waker>>,
}

impl Line {
    pub(crate) fn moved(&self) {
        self.waits_for_sender.set(false);
        self.last_ms.set(self.clock.now_ms());
    }

    /// A request begins; whether its body has to keep a pace.
    pub(crate) fn begins(&self, keeps_pace: bool) {
        self.pace.begins();
        self.keeps_pace.set(keeps_pace);
    }

    /// So much of the request's body has come.
    pub(crate) fn came(&self, bytes: usize) {
        self.pace.moved(bytes);
        self.moved();
    }

    pub(crate) fn waits_for_sender(&self, waits: bool) {
        self.waits_for_sender.set(waits);
    }

    pub(crate) fn hold(&self, claim: Option<Claim>) {
        *self.claim.borrow_mut() = claim;
    }

    pub(crate) fn release(&self) {
        drop(self.claim.take());
    }

    pub(crate) fn carries(&self, client: &Rc<Client>) {
        *self.client.borrow_mut() = Some(client.clone());
    }

    pub(crate) fn target_is_behind(&self, is_behind: bool) {
        self.target_is_behind.set(is_behind);
    }

    /// Who is not read from is not heard to be reset either.
    fn client_is_gone(&self) -> bool {
        self.target_is_behind.get() && self.client.borrow().as_ref().is_some_and(|client| client.has_reset())
    }

    /// Some time within `within_ms`, so that not all clients of a version come back at once.
    fn ask_to_end(&self, within_ms: u64) {
        if self.phase.get() == Phase::Tunnel && self.ends_at_ms.get() == 0 {
            self.ends_at_ms.set(self.clock.now_ms() + fastrand::u64(0..=within_ms));
        }
    }

    fn end_if_due(&self, now_ms: u64) {
        let ends_at_ms = self.ends_at_ms.get();
        if ends_at_ms != 0
            && now_ms >= ends_at_ms
            && let Some(client) = self.client.borrow().as_ref()
        {
            client.signal(Signal::Graceful);
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.moved();
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn limits(&self, header_timeout_ms: u64, idle_timeout_ms: u64) {
        self.header_timeout_ms.set(header_timeout_ms);
        self.idle_timeout_ms.set(idle_timeout_ms);
    }

    /// From now on.
    pub(crate) fn ends_within(&self, ms: u64) {
        self.deadline_ms.set(self.clock.now_ms().saturating_add(ms));
    }

    pub(crate) fn broken(&self) -> Option<Broken> {
        self.broken.get()
    }

    pub(crate) fn mark(&self, why: Broken) {
        if self.broken.get().is_none() {
            self.broken.set(Some(why));
        }
    }

    /// Who is to be woken when the line is broken off.
    pub(crate) fn is_polled_by(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    pub(crate) fn traces(&self) -> Traces {
        self.wire.borrow().as_ref().map_or(self.traces.get(), |wire| wire.traces)
    }

    fn break_off(&self, why: Broken) {
        self.mark(why);
        self.release();
        if let Some(wire) = self.wire.take() {
            self.traces.set(wire.traces);
        }
        // Dropped, it is reset.
        drop(self.call.take());
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What comes of an answer that nobody takes.
    fn gather(&self) {
        if self.phase.get() == Phase::Answering
            && !self.waits_for_sender.get()
            && let Some(halves) = self.call.borrow_mut().as_mut()
        {
            halves.gather();
        }
    }

    fn overdue(&self, now_ms: u64, ticked_ms: u64) -> Option<Broken> {
        if now_ms > self.deadline_ms.get() && !matches!(self.phase.get(), Phase::Idle | Phase::Tunnel) {
            return Some(Broken::ResponseTimeout);
        }
        if self.phase.get() == Phase::Sending && self.waits_for_sender.get() && self.keeps_pace.get() {
            self.pace.waited(ticked_ms);
            if self.pace.is_behind(self.idle_timeout_ms.get()) {
                return Some(Broken::RequestStalled);
            }
        }
        let (limit, why) = match self.phase.get() {
            Phase::Idle | Phase::Tunnel => return None,
            Phase::Sending if self.waits_for_sender.get() => (self.idle_timeout_ms.get(), Broken::RequestStalled),
            Phase::Sending => (self.idle_timeout_ms.get(), Broken::TargetStalled),
            Phase::Waiting => (self.header_timeout_ms.get(), Broken::ResponseTimeout),
            Phase::Answering if self.waits_for_sender.get() => (self.idle_timeout_ms.get(), Broken::AnswerStalled),
            Phase::Answering => (self.idle_timeout_ms.get(), Broken::ClientStalled),
            Phase::Connection if self.client_is_gone() => return Some(Broken::ClientLeft),
            Phase::Connection => (self.idle_timeout_ms.get(), Broken::Idle),
        };
        (now_ms.saturating_sub(self.last_ms.get()) > limit).then_some(why)
    }
}

/// What a line must be.
pub(crate) struct Wanted<'a> {
    pub(crate) target: u64,
    pub(crate) trust: Option<&'a Arc<Trust>>,
    pub(crate) announces: Option<Announcement>,
    pub(crate) protocol: Protocol,
}

impl Wanted<'_> {
    fn place(&self) -> Place {
        Place { target: self.target, security: number_of(self.trust), client: self.client() }
    }

    fn client(&self) -> u64 {
        self.announces.map_or(0, |announcement| announcement.client)
    }
}

/// What a target is told at the beginning of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Announcement {
    pub(crate) version: proxy_protocol::Version,
    pub(crate) client: u64,
    /// The client, and what it connected to; `None`: the connection is our own.
    pub(crate) ends: Option<(SocketAddr, SocketAddr)>,
}

impl Announcement {
    pub(crate) fn of_nobody(version: proxy_protocol::Version) -> Self {
        Self { version, client: u64::MAX, ends: None }
    }

    fn header(&self) -> Vec<u8> {
        match self.ends {
            Some((source, destination)) => proxy_protocol::header(self.version, source, destination),
            None => proxy_protocol::local(self.version),
        }
    }
}

pub(crate) struct Lines {
    clock: CoarseClock,
    // Boxed once, so that a request passes a pointer on.
    #[allow(clippy::vec_box)]
    idle: RefCell<ByNumber<Vec<Box<Sender>>>>,
    all: RefCell<ByNumber<Rc<Line>>>,
    next: Cell<u64>,
    trunks: Trunks,
    /// Some target was told of a client.
    announces: Cell<bool>,
}

impl Lines {
    pub(crate) fn new(clock: CoarseClock) -> Self {
        let (idle, all, next, trunks, announces) = Default::default();
        Self { clock, idle, all, next, trunks, announces }
    }

    /// What can carry a request at once.
    pub(crate) fn take(self: &Rc<Self>, wanted: &Wanted<'_>, cx: &mut Context<'_>) -> Option<Carrier> {
        if wanted.protocol == Protocol::Http2 {
            return self.call(wanted.place(), cx).map(Carrier::Http2);
        }
        self.take_line(wanted, cx).map(Carrier::Http1)
    }

    /// The line used last, so that the others may grow old. One that was made under another trust, that the target has
    /// closed, or on which it spoke unasked, is none.
    fn take_line(&self, wanted: &Wanted<'_>, cx: &mut Context<'_>) -> Option<Box<Sender>> {
        let client = wanted.client();
        loop {
            // Outside the borrow: a sender that is dropped comes back here.
            let mut sender = {
                let mut idle = self.idle.borrow_mut();
                let senders = idle.get_mut(&wanted.target)?;
                // Lines that announce another client stay for that one.
                let index = senders.iter().rposition(|sender| sender.line.client_number == client)?;
                senders.remove(index)
            };
            if sender.line.security == number_of(wanted.trust) && sender.rests(cx) {
                return Some(sender);
            }
        }
    }

    pub(crate) fn put(&self, sender: Box<Sender>) {
        if sender.line.broken().is_some() {
            return;
        }
        sender.line.enter(Phase::Idle);
        let mut idle = self.idle.borrow_mut();
        let senders = idle.entry(sender.line.target).or_default();
        // One that announces its client may never be asked for again.
        let oldest = (senders.len() >= IDLE_LINES_MAX).then(|| senders.remove(0));
        senders.push(sender);
        drop(idle);
        drop(oldest);
    }

    /// Nobody else can use what announced it.
    pub(crate) fn client_left(&self, number: u64) {
        if !self.announces.get() {
            return;
        }
        let mut gone = Vec::new();
        for senders in self.idle.borrow_mut().values_mut() {
            gone.extend(senders.extract_if(.., |sender| sender.line.client_number == number));
        }
        drop(gone);
        self.trunks.client_left(number);
    }

    pub(crate) async fn connect(self: &Rc<Self>, wanted: &Wanted<'_>, address: SocketAddr) -> io::Result<Carrier> {
        if wanted.protocol == Protocol::Http2 {
            return Box::pin(self.connect_trunk(wanted, address)).await.map(Carrier::Http2);
        }
        self.connect_line(wanted, address).await.map(Carrier::Http1)
    }

    pub(crate) async fn connect_line(self: &Rc<Self>, wanted: &Wanted<'_>, address: SocketAddr) -> io::Result<Box<Sender>> {
        let stream = open(wanted, address).await?;
        let (line, number) = self.register(wanted.place(), Some(Wire::new(stream, Bytes::new())));
        Ok(Box::new(Sender::new(line, self.clone(), number)))
    }

    /// On a trunk that is made, for this request or for one that came just before.
    async fn connect_trunk(self: &Rc<Self>, wanted: &Wanted<'_>, address: SocketAddr) -> io::Result<Box<Call>> {
        let (place, began) = (wanted.place(), Instant::now());
        let mut failed = self.trunks.opening(place).lock_owned().await;
        if let Some(call) = poll_fn(|cx| Poll::Ready(self.call(place, cx))).await {
            return Ok(call);
        }
        if failed.is_some_and(|at| at >= began) {
            // It would fail as it did for the one before, and take as long.
            return Err(io::ErrorKind::NotConnected.into());
        }
        let (lines, trust, announces, protocol) = (self.clone(), wanted.trust.cloned(), wanted.announces, wanted.protocol);
        // By itself: when those who ask have less time than it takes, it comes about all the same, for those who ask next.
        let opening = tokio::task::spawn_local(async move {
            let wanted = Wanted { target: place.target, trust: trust.as_ref(), announces, protocol };
            let opened = async { Trunk::open(place, open(&wanted, address).await?).await }.await;
            let trunk = opened.inspect_err(|_| *failed = Some(Instant::now()))?;
            lines.trunks.put(&trunk, lines.clock.now_ms());
            io::Result::Ok(())
        });
        opening.await.map_err(io::Error::other)??;
        poll_fn(|cx| Poll::Ready(self.call(place, cx))).await.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// On a trunk that is there, and can be used.
    fn call(self: &Rc<Self>, place: Place, cx: &mut Context<'_>) -> Option<Box<Call>> {
        loop {
            let trunk = self.trunks.take(place)?;
            // One that cannot is not taken again.
            if let Some(send) = trunk.sender(cx) {
                let (line, number) = self.register(place, None);
                return Some(Box::new(Call::new(line, self.clone(), number, OnTrunk::new(trunk, self.clock.clone()), send)));
            }
        }
    }

    fn register(&self, place: Place, wire: Option<Wire>) -> (Rc<Line>, u64) {
        if place.client != 0 {
            self.announces.set(true);
        }
        let line = Rc::new(Line {
            target: place.target,
            security: place.security,
            client_number: place.client,
            clock: self.clock.clone(),
            phase: Cell::new(Phase::Idle),
            last_ms: Cell::new(self.clock.now_ms()),
            header_timeout_ms: Cell::new(u64::MAX),
            idle_timeout_ms: Cell::new(u64::MAX),
            deadline_ms: Cell::new(u64::MAX),
            broken: Cell::new(None),
            waits_for_sender: Cell::new(false),
            target_is_behind: Cell::new(false),
            pace: Pace::new(BODY_AHEAD_MAX_MS),
            keeps_pace: Cell::new(true),
            claim: RefCell::new(None),
            client: RefCell::new(None),
            ends_at_ms: Cell::new(0),
            wire: RefCell::new(wire),
            call: RefCell::new(None),
            traces: Cell::default(),
            waker: RefCell::new(None),
        });
        let number = self.next.get() + 1;
        self.next.set(number);
        self.all.borrow_mut().insert(number, line.clone());
        (line, number)
    }

    /// A line whose sender is gone is gone.
    pub(crate) fn forget(&self, number: u64) {
        // Dropped while the map is read (runtime shutdown): everything goes anyway.
        let line = self.all.try_borrow_mut().ok().and_then(|mut all| all.remove(&number));
        if let Some(line) = line {
            line.release();
        }
    }

    /// The tick before was `ticked_ms` ago.
    pub(crate) fn tick(&self, now_ms: u64, ticked_ms: u64) {
        // Idle lines die by being dropped, outside the borrow: a drop comes back here.
        let mut old = Vec::new();
        for senders in self.idle.borrow_mut().values_mut() {
            old.extend(senders.extract_if(.., |sender| now_ms.saturating_sub(sender.line.last_ms.get()) > IDLE_MAX_MS));
        }
        drop(old);
        self.trunks.tick(now_ms);
        for line in self.all.borrow().values() {
            line.end_if_due(now_ms);
            line.gather();
            if let Some(why) = line.overdue(now_ms, ticked_ms) {
                line.break_off(why);
            }
        }
    }

    /// Closes what is idle on targets that do not serve.
    pub(crate) fn retain(&self, serves: impl Fn(u64) -> bool) {
        let gone: Vec<_> = self.idle.borrow_mut().extract_if(|target, _| !serves(*target)).collect();
        drop(gone);
        self.trunks.retain(serves);
    }

    /// Asks tunnels to end, of these targets or of all, each at its own moment; one that was asked keeps its moment.
    pub(crate) fn end_tunnels(&self, targets: Option<&[u64]>, within: Duration) {
        // The last of them still gets its time to say farewell.
        let within_ms = within.saturating_sub(FAREWELL_MAX * 2).as_millis() as u64;
        let all = self.all.borrow();
        let asked = all.values().filter(|line| targets.is_none_or(|targets| targets.contains(&line.target)));
        asked.for_each(|line| line.ask_to_end(within_ms));
    }

    pub(crate) fn cut(&self, targets: &[u64]) {
        self.retain(|target| !targets.contains(&target));
        let all = self.all.borrow();
        let running = all.values().filter(|line| targets.contains(&line.target) && line.phase.get() != Phase::Idle);
        running.for_each(|line| line.break_off(Broken::Cut));
    }
}

/// A connection, its target told who is meant, and shaken hands with.
async fn open(wanted: &Wanted<'_>, address: SocketAddr) -> io::Result<Stream> {
    let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
    let mut stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.map_err(timed_out)??;
    stream.set_nodelay(true)?;
    if let Some(announcement) = &wanted.announces {
        // Before anything else, also before TLS. It fits into the empty buffer of a new socket.
        stream.write_all(&announcement.header()).await?;
    }
    match wanted.trust {
        None => Ok(Stream::Plain(stream)),
        // On the heap: requests to targets in clear do not carry it.
        Some(trust) => Box::pin(secure::connect(trust, address, stream, wanted.protocol)).await,
    }
}

fn number_of(trust: Option<&Arc<Trust>>) -> u64 {
    trust.map_or(0, |trust| trust.number)
}
