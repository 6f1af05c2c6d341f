//! A client's connection: who is there, whether it is busy, and how to tell it to end.
//!
//! **Invariant**: a connection on which a head is arriving or a request runs is never closed as idle.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::HeaderValue;
use http1::{Fields, Known};
use model::{Forwarders, ListenerName};

use crate::clock::CoarseClock;
use crate::conversation::Conversation;
use crate::forwarders;
use crate::io::Activity;
use crate::line::Announcement;

/// A client may rest between requests for so long.
const IDLE_MAX_MS: u64 = 75_000;
/// A connection that rested for so long also gives back what its next request would be served with: an idle one is then little more
/// than a socket.
const PARK_AFTER_MS: u64 = 500;
/// Where room is needed, it is made by those that rested for so long: a client that is about to ask again soon has done so.
const RESTS_AFTER_MS: u64 = 1_000;
/// A head that has begun must be complete within this, or a slow client could hold connections for ever.
const HEAD_MAX_MS: u64 = 30_000;
/// A client that takes no byte of its answer for so long is given up, and later one that takes too little (`pace.rs`).
const WRITE_BEHIND_MAX_MS: u64 = 300_000;

/// Of HTTP/2, between saying that nothing new may be begun and ending it: a request that the client had begun when it heard that is
/// served. hyper alone waits for one round trip, and a client may answer its ping before it sends a request that it had ready.
const NOTICE_MS: u64 = 1_000;
/// An idle connection that was told to end and does not is killed after this.
const GRACEFUL_MAX_MS: u64 = 30_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Signal {
    None,
    /// End after what runs.
    Graceful,
    Kill,
}

/// Of a connection. A listener on `[::]` sees its clients of IPv4 as `::ffff:…`; here they are what they are.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    peer: SocketAddr,
    destination: SocketAddr,
}

impl Ends {
    pub(crate) fn new(peer: SocketAddr, destination: SocketAddr) -> Self {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        Self { peer: canonical(peer), destination: canonical(destination) }
    }

    /// The client's address.
    pub(crate) fn ip(&self) -> IpAddr {
        self.peer.ip()
    }
}

pub(crate) struct Client {
    pub(crate) listener: ListenerName,
    pub(crate) peer: SocketAddr,
    pub(crate) activity: Arc<Activity>,
    /// A line of a head.
    forwarded_for: Box<[u8]>,
    /// It may say of its requests whom they are from.
    believed: Option<Arc<Forwarders>>,
    /// Of connections to targets that are told who it is; no other client of the lane has it.
    pub(crate) number: u64,
    /// What it connected to.
    pub(crate) destination: SocketAddr,
    http2: Cell<bool>,
    tls: Cell<bool>,
    /// Who it is, by its verified certificate; on the heap, since few have one.
    identity: OnceCell<Box<[u8]>>,
    socket: Cell<std::os::fd::RawFd>,
    busy: Cell<u32>,
    /// Asked to park.
    park: Cell<bool>,
    is_parked: Cell<bool>,
    /// What it speaks HTTP/1.1 over.
    conversation: OnceCell<Rc<Conversation>>,
    signal: Cell<Signal>,
    /// When it was told to end because it was idle; 0: never.
    told_ms: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Client {
    pub(crate) fn new(
        listener: ListenerName,
        Ends { peer, destination }: Ends,
        believed: Option<Arc<Forwarders>>,
        number: u64,
        clock: CoarseClock,
    ) -> Rc<Self> {
        let forwarded_for = format!("x-forwarded-for: {}\r\n", peer.ip()).into_bytes().into();
        Rc::new(Self {
            listener,
            peer,
            activity: Activity::new(clock),
            forwarded_for,
            believed,
            number,
            destination,
            http2: Cell::new(false),
            tls: Cell::new(false),
            identity: OnceCell::new(),
            socket: Cell::new(-1),
            busy: Cell::new(0),
            park: Cell::new(false),
            is_parked: Cell::new(false),
            conversation: OnceCell::new(),
            signal: Cell::new(Signal::None),
            told_ms: Cell::new(0),
            waker: RefCell::new(None),
        })
    }

    /// Whom a request with these fields is from.
    pub(crate) fn address(&self, fields: &Fields) -> IpAddr {
        match &self.believed {
            None => self.peer.ip(),
            Some(forwarders) => forwarders::client_of(forwarders, fields, self.peer.ip()),
        }
    }

    /// What its requests say of whom they are from is passed on.
    pub(crate) fn is_believed(&self) -> bool {
        self.believed.is_some()
    }

    /// What a target is told of it.
    pub(crate) fn announcement(&self, version: proxy_protocol::Version) -> Announcement {
        Announcement { version, client: self.number, ends: Some((self.peer, self.destination)) }
    }

    /// It speaks TLS with whoever passes it on.
    pub(crate) fn spoke_tls(&self) {
        self.tls.set(true);
    }

    /// `X-Forwarded-For` as a line of a head.
    pub(crate) fn forwarded_for(&self) -> &[u8] {
        &self.forwarded_for
    }

    /// The socket, for as long as the connection is open.
    pub(crate) fn speaks_over(&self, socket: std::os::fd::RawFd) {
        self.socket.set(socket);
    }

    pub(crate) fn speaks_http1(&self, conversation: &Rc<Conversation>) {
        let _ = self.conversation.set(conversation.clone());
    }

    /// Answers before the last one go this way; only HTTP/1.1 has one.
    pub(crate) fn conversation(&self) -> Option<&Rc<Conversation>> {
        self.conversation.get()
    }

    /// Over HTTP/1, the client has closed, or half-closed, its side. Nobody looks while a request runs. HTTP/2 ends the
    /// request itself.
    pub(crate) fn has_hung_up(&self) -> bool {
        !self.is_http2() && self.polls(libc::POLLRDHUP) & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
    }

    /// The connection was reset, whatever has come before and is still unread.
    pub(crate) fn has_reset(&self) -> bool {
        self.polls(0) & (libc::POLLHUP | libc::POLLERR) != 0
    }

    /// Bytes have come, also when the reactor has not told yet.
    pub(crate) fn has_spoken(&self) -> bool {
        self.polls(libc::POLLIN) & libc::POLLIN != 0 && !self.has_hung_up()
    }

    fn polls(&self, events: libc::c_short) -> libc::c_short {
        if self.socket.get() < 0 {
            return 0;
        }
        let mut polled = libc::pollfd { fd: self.socket.get(), events, revents: 0 };
        // SAFETY: one descriptor, open while this connection is; it does not wait.
        let count = unsafe { libc::poll(&mut polled, 1, 0) };
        if count > 0 { polled.revents } else { 0 }
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.http2.get()
    }

    pub(crate) fn speaks_http2(&self) {
        self.http2.set(true);
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls.get()
    }

    /// `X-Forwarded-Client-Cert` as a line of a head.
    pub(crate) fn identity(&self) -> Option<&[u8]> {
        self.identity.get().map(Box::as_ref)
    }

    /// `identity`: the value of `X-Forwarded-Client-Cert`.
    pub(crate) fn speaks_tls(&self, identity: Option<HeaderValue>) {
        self.tls.set(true);
        self.activity.head_done();
        if let Some(identity) = identity {
            let line = [Known::XForwardedClientCert.name().as_bytes(), b": ", identity.as_bytes(), b"\r\n"].concat();
            let _ = self.identity.set(line.into());
        }
    }

    pub(crate) fn begin(self: &Rc<Self>) -> Busy {
        self.activity.head_done();
        self.busy.set(self.busy.get() + 1);
        Busy(self.clone())
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy.get() > 0
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.signal.get() == Signal::Kill
    }

    /// Told to end, sooner or later.
    pub(crate) fn is_told(&self) -> bool {
        self.signal.get() != Signal::None
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if self.signal.get() < signal {
            self.signal.set(signal);
            self.wake();
        }
    }

    /// Whether it is parked. The tick before was `ticked_ms` ago. `drain`: when a drain began and how long idle connections are still kept.
    pub(crate) fn tick(&self, now_ms: u64, ticked_ms: u64, drain: Option<(u64, u64)>) -> bool {
        if self.activity.takes_too_little(ticked_ms, WRITE_BEHIND_MAX_MS) {
            self.signal(Signal::Kill);
            return false;
        }
        if self.is_http2() && self.is_told() {
            // Its time between the two words may be over.
            self.wake();
        }
        if self.busy.get() > 0 {
            return false;
        }
        let told_ms = self.told_ms.get();
        if told_ms != 0 && now_ms.saturating_sub(told_ms) > GRACEFUL_MAX_MS {
            self.signal(Signal::Kill);
            return false;
        }
        let head_ms = self.activity.head_ms();
        if head_ms != 0 && !self.is_http2() {
            if now_ms.saturating_sub(head_ms) > HEAD_MAX_MS {
                self.signal(Signal::Kill);
            }
            return false;
        }
        let rested_ms = now_ms.saturating_sub(self.activity.last_ms());
        let is_over = match drain {
            Some((since_ms, grace_ms)) => rested_ms.min(now_ms.saturating_sub(since_ms)) >= grace_ms,
            None => rested_ms > IDLE_MAX_MS,
        };
        if is_over {
            if told_ms == 0 {
                self.told_ms.set(now_ms.max(1));
            }
            self.signal(Signal::Graceful);
        }
        if rested_ms >= PARK_AFTER_MS && self.conversation.get().is_some() && !self.is_parked.get() && !self.park.replace(true) {
            self.wake();
        }
        self.is_parked.get()
    }

    /// When it began to rest, if it does and has done so for a moment.
    pub(crate) fn rests_since_ms(&self, now_ms: u64) -> Option<u64> {
        let last_ms = self.activity.last_ms();
        let is_between = self.is_http2() || self.activity.head_ms() == 0;
        (is_between && !self.is_busy() && !self.is_told() && now_ms.saturating_sub(last_ms) >= RESTS_AFTER_MS).then_some(last_ms)
    }

    /// Another client needs its place more.
    pub(crate) fn makes_room(&self, now_ms: u64) {
        self.told_ms.set(now_ms.max(1));
        self.signal(Signal::Graceful);
    }

    /// Between two requests: whether the connection is not to be kept ready for the next one.
    pub(crate) fn is_to_rest(&self) -> bool {
        self.park.get() || self.is_told()
    }

    pub(crate) fn parks(&self, is_parked: bool) {
        self.park.set(false);
        self.is_parked.set(is_parked);
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Runs this unless the connection is killed first.
    pub(crate) async fn unless_killed<F: Future>(&self, mut work: Pin<&mut F>) -> Option<F::Output> {
        poll_fn(|cx| {
            if self.is_killed() {
                return Poll::Ready(None);
            }
            self.is_polled_by(cx);
            work.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Drives hyper's connection until it ends, or is killed: `None`. Told to end, the client gets `notice` first, and hyper's own word, after
    /// which it serves nothing new, a while later.
    pub(crate) async fn drive<C: Connection>(&self, mut connection: Pin<&mut C>, notice: &Cell<bool>) -> Option<C::Output> {
        let (mut noticed_ms, mut told) = (None, false);
        poll_fn(|cx| {
            if self.is_killed() {
                return Poll::Ready(None);
            }
            self.is_polled_by(cx);
            self.activity.turn_begins();
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(Some(ended));
            }
            // Only after it has read what is there: told to end while idle, hyper closes without a look.
            if self.signal.get() != Signal::Graceful || told {
                return Poll::Pending;
            }
            let now_ms = self.activity.now_ms();
            match noticed_ms {
                None => {
                    noticed_ms = Some(now_ms);
                    notice.set(true);
                }
                Some(noticed_ms) if now_ms.saturating_sub(noticed_ms) >= NOTICE_MS => {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
                Some(_) => return Poll::Pending,
            }
            connection.as_mut().poll(cx).map(Some)
        })
        .await
    }

    fn is_polled_by(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Any signal ends the wait.
    pub(crate) async fn signalled(&self) {
        poll_fn(|cx| {
            if self.is_told() {
                return Poll::Ready(());
            }
            self.is_polled_by(cx);
            Poll::Pending
        })
        .await;
    }
}

/// hyper's server connection of HTTP/2.
pub(crate) trait Connection: Future {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<I, S, B, E> Connection for hyper::server::conn::http2::Connection<I, S, E>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        hyper::server::conn::http2::Connection::graceful_shutdown(self);
    }
}

/// A request runs on the client's connection.
pub(crate) struct Busy(Rc<Client>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
        self.0.activity.head_done();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK_MS: u64 = 50;

    fn client() -> (Rc<Client>, u64) {
        let clock = CoarseClock::new();
        let now_ms = clock.now_ms();
        let ends = Ends { peer: "127.0.0.1:1".parse().expect("address"), destination: "127.0.0.1:2".parse().expect("address") };
        (Client::new(ListenerName::new("main").expect("name"), ends, None, 1, clock), now_ms)
    }

    /// Told what, after so long.
    fn told(client: &Client, begun_ms: u64, after_ms: u64) -> Signal {
        client.tick(begun_ms + after_ms, TICK_MS, None);
        client.signal.get()
    }

    #[test]
    fn a_client_that_rests_is_told_to_end_and_then_made_to() {
        for speaks_http2 in [false, true] {
            let (client, now_ms) = client();
            client.http2.set(speaks_http2);
            assert_eq!(told(&client, now_ms, IDLE_MAX_MS), Signal::None);
            assert_eq!(told(&client, now_ms, IDLE_MAX_MS + 1), Signal::Graceful);
            assert_eq!(told(&client, now_ms, IDLE_MAX_MS + 1 + GRACEFUL_MAX_MS), Signal::Graceful);
            assert_eq!(told(&client, now_ms, IDLE_MAX_MS + 2 + GRACEFUL_MAX_MS), Signal::Kill);
        }
    }

    #[test]
    fn a_head_that_does_not_end_ends_its_connection() {
        let (client, now_ms) = client();
        client.activity.head_begins();
        assert_eq!(told(&client, now_ms, HEAD_MAX_MS), Signal::None);
        assert_eq!(told(&client, now_ms, HEAD_MAX_MS + 1), Signal::Kill);
        // One that was complete does not count for the next.
        let (client, now_ms) = self::client();
        client.activity.head_begins();
        client.activity.head_done();
        assert_eq!(told(&client, now_ms, HEAD_MAX_MS + 1), Signal::None);
    }

    #[test]
    fn while_a_request_runs_nothing_is_too_long() {
        let (client, now_ms) = client();
        let busy = client.begin();
        assert_eq!(told(&client, now_ms, 1_000_000_000), Signal::None);
        drop(busy);
        assert_eq!(told(&client, now_ms, 1_000_000_000), Signal::Graceful);
    }

    #[test]
    fn a_client_that_takes_too_little_of_its_answer_is_given_up() {
        let ticks_until_killed = |bytes_a_tick: usize| {
            let (client, now_ms) = client();
            let _busy = client.begin();
            (1..20_000_u64).find(|tick| {
                client.activity.writes(bytes_a_tick, true);
                told(&client, now_ms, tick * TICK_MS) == Signal::Kill
            })
        };
        assert_eq!(ticks_until_killed(0), Some(WRITE_BEHIND_MAX_MS / TICK_MS + 1));
        assert!(ticks_until_killed(1).is_some(), "a byte now and then is not enough");
        assert_eq!(ticks_until_killed(12), None);
        // Nothing waits for it.
        let (client, now_ms) = client();
        let _busy = client.begin();
        client.activity.writes(0, true);
        client.activity.writes(1, false);
        assert!((1..20_000).all(|tick| told(&client, now_ms, tick * TICK_MS) == Signal::None));
    }

    #[test]
    fn only_who_has_rested_a_moment_makes_room() {
        let (client, now_ms) = client();
        assert_eq!(client.rests_since_ms(now_ms + RESTS_AFTER_MS - 1), None);
        assert_eq!(client.rests_since_ms(now_ms + RESTS_AFTER_MS), Some(now_ms));
        client.activity.head_begins();
        assert_eq!(client.rests_since_ms(now_ms + RESTS_AFTER_MS), None);
        client.activity.head_done();
        let busy = client.begin();
        assert_eq!(client.rests_since_ms(now_ms + RESTS_AFTER_MS), None);
        drop(busy);
        client.makes_room(now_ms);
        assert_eq!((client.signal.get(), client.rests_since_ms(now_ms + RESTS_AFTER_MS)), (Signal::Graceful, None));
    }
}
