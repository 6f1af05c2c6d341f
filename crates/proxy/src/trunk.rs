//! Trunks: connections of HTTP/2 to targets, each for many requests of its thread at once.
//!
//! **Invariants**: a trunk that has failed, or that its target will end, gets no new request; those that run on it go on. Who finds no
//! trunk makes one, and who comes meanwhile waits for that one instead of making another.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;

use crate::line::CONNECT_TIMEOUT;
use crate::stream::Stream;

/// Requests on one trunk; a target may allow less. More than this on one socket only wait for each other.
const CALLS_MAX: usize = 100;
/// Trunks of one thread to one target. When all are full, requests wait on the least busy one.
const TRUNKS_MAX: usize = 16;
/// Longer than lines rest: a target says by GOAWAY what it has not seen, and that can be sent again.
const IDLE_MAX_MS: u64 = 60_000;
/// Of one that is for a single client, and useless when that has left.
const IDLE_OF_CLIENT_MAX_MS: u64 = 4_000;
/// What a target may send ahead of one answer: 64 MB/s at a round trip of a millisecond, and no more memory for a client that does not read.
const WINDOW_BYTES: u32 = 64 * 1024;
/// And in all: clients that do not read hold their own windows, and no one else's.
const TRUNK_WINDOW_BYTES: u32 = CALLS_MAX as u32 * WINDOW_BYTES;
/// What waits to be sent of one request.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// Requests that were given up, for a moment: what a target still sends of them is no error of its.
const RESETS_MAX: usize = 4_096;
/// Frames of data with nothing in them and no end: h2 bears a hundred on one connection, in all.
const EMPTY_MAX: u32 = 50;
/// When nothing of what we sent is acknowledged for so long, the way there is gone (as in gRPC's proposal A18).
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);
/// Whoever waited less says nothing about the trunk.
const PATIENT_MS: u64 = 1_000;
/// Of an answer's head; as much as one of HTTP/1.1 may have.
const HEAD_BYTES_MAX: u32 = 64 * 1024;

/// What a trunk must be.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) target: u64,
    pub(crate) security: u64,
    /// The client that the target was told of; 0: it is for all.
    pub(crate) client: u64,
}

pub(crate) struct Trunk {
    place: Place,
    send: SendRequest<Bytes>,
    pub(crate) is_tls: bool,
    socket: RawFd,
    calls: Cell<usize>,
    rests_since_ms: Cell<u64>,
    /// When something of an answer came last.
    heard_ms: Cell<u64>,
    empty: Cell<u32>,
    /// Nothing new may begin on it.
    is_over: Rc<Cell<bool>>,
}

impl Trunk {
    pub(crate) async fn open(place: Place, stream: Stream) -> io::Result<Rc<Self>> {
        let (socket, is_tls) = (stream.socket().as_raw_fd(), stream.is_tls());
        socket2::SockRef::from(stream.socket()).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
        let mut builder = h2::client::Builder::new();
        builder.enable_push(false).initial_window_size(WINDOW_BYTES).initial_connection_window_size(TRUNK_WINDOW_BYTES);
        builder.max_send_buffer_size(SEND_BYTES_MAX).max_header_list_size(HEAD_BYTES_MAX);
        // h2 counts over a whole connection what it takes for an attack: small frames that nobody reads, late ones of requests that were
        // given up. Here clients make both, each for itself, and must not end what a hundred others have. What waits is bounded by the
        // windows, and gathered.
        builder.data_frame_budget(usize::MAX).max_local_error_reset_streams(None).max_concurrent_reset_streams(RESETS_MAX);
        let (send, mut connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
        let mut pings = connection.ping_pong().expect("asked for once");
        let is_over = Rc::new(Cell::new(false));
        let ends = is_over.clone();
        tokio::task::spawn_local(async move {
            let _ = connection.await;
            ends.set(true);
        });
        // Whoever answers speaks HTTP/2, and has said how many requests it allows (RFC 9113 §3.4): until then nothing is sent, and so
        // another target may be tried.
        let answered = tokio::time::timeout(CONNECT_TIMEOUT, pings.ping(h2::Ping::opaque())).await;
        answered.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(io::Error::other)?;
        Ok(Rc::new(Self {
            place,
            send,
            is_tls,
            socket,
            calls: Cell::new(0),
            rests_since_ms: Cell::new(0),
            heard_ms: Cell::new(0),
            empty: Cell::new(0),
            is_over,
        }))
    }

    /// What begins a request; none when the trunk has failed, or its target said that it will end.
    pub(crate) fn sender(&self, cx: &mut Context<'_>) -> Option<SendRequest<Bytes>> {
        let mut send = self.send.clone();
        match send.poll_ready(cx) {
            Poll::Ready(Ok(())) => Some(send),
            _ => {
                self.retire();
                None
            }
        }
    }

    pub(crate) fn retire(&self) {
        self.is_over.set(true);
    }

    /// Its target may have left, and the reactor not have told yet. Of one that carries requests, their ends tell.
    fn has_been_left(&self) -> bool {
        if self.calls.get() > 0 {
            return false;
        }
        let mut polled = libc::pollfd { fd: self.socket, events: libc::POLLRDHUP, revents: 0 };
        // SAFETY: one descriptor, open while the trunk is not over; it does not wait.
        let count = unsafe { libc::poll(&mut polled, 1, 0) };
        count > 0 && polled.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
    }

    fn is_old(&self, now_ms: u64) -> bool {
        let idle_max_ms = if self.place.client == 0 { IDLE_MAX_MS } else { IDLE_OF_CLIENT_MAX_MS };
        self.calls.get() == 0 && now_ms.saturating_sub(self.rests_since_ms.get()) > idle_max_ms
    }

    fn room(&self) -> usize {
        CALLS_MAX.min(self.send.current_max_send_streams()).saturating_sub(self.calls.get())
    }
}

/// A request on a trunk.
pub(crate) struct OnTrunk {
    pub(crate) trunk: Rc<Trunk>,
    began_ms: u64,
    clock: crate::clock::CoarseClock,
}

impl OnTrunk {
    pub(crate) fn new(trunk: Rc<Trunk>, clock: crate::clock::CoarseClock) -> Self {
        trunk.calls.set(trunk.calls.get() + 1);
        Self { trunk, began_ms: clock.now_ms(), clock }
    }

    /// Something of its answer has come.
    pub(crate) fn heard(&self) {
        self.trunk.heard_ms.set(self.clock.now_ms());
    }

    /// A frame of data with nothing in it.
    pub(crate) fn said_nothing(&self) {
        self.trunk.empty.set(self.trunk.empty.get() + 1);
        if self.trunk.empty.get() >= EMPTY_MAX {
            self.trunk.retire();
        }
    }

    pub(crate) fn is_patient(&self) -> bool {
        self.clock.now_ms().saturating_sub(self.began_ms) >= PATIENT_MS
    }

    /// It waited in vain. When nobody else has heard anything since it began, nothing may come through at all: others are not to wait for
    /// the same.
    pub(crate) fn waited_in_vain(&self) {
        if self.trunk.heard_ms.get() <= self.began_ms {
            self.trunk.retire();
        }
    }
}

impl Drop for OnTrunk {
    fn drop(&mut self) {
        self.trunk.calls.set(self.trunk.calls.get() - 1);
        self.trunk.rests_since_ms.set(self.clock.now_ms());
    }
}

/// Of one thread.
#[derive(Default)]
pub(crate) struct Trunks {
    open: RefCell<HashMap<Place, Vec<Rc<Trunk>>>>,
    /// Who makes one holds the lock; in it, when the last try failed.
    opening: RefCell<HashMap<Place, Arc<Opening>>>,
}

pub(crate) type Opening = tokio::sync::Mutex<Option<Instant>>;

impl Trunks {
    /// One with room; a full one only where there may be no other.
    pub(crate) fn take(&self, place: Place) -> Option<Rc<Trunk>> {
        let mut open = self.open.borrow_mut();
        let trunks = open.get_mut(&place)?;
        loop {
            trunks.retain(|trunk| !trunk.is_over.get());
            let with_room = trunks.iter().find(|trunk| trunk.room() > 0);
            let least_busy = || trunks.iter().min_by_key(|trunk| trunk.calls.get()).filter(|_| trunks.len() >= TRUNKS_MAX);
            let trunk = with_room.or_else(least_busy)?;
            if !trunk.has_been_left() {
                return Some(trunk.clone());
            }
            trunk.retire();
        }
    }

    pub(crate) fn opening(&self, place: Place) -> Arc<Opening> {
        self.opening.borrow_mut().entry(place).or_default().clone()
    }

    pub(crate) fn put(&self, trunk: &Rc<Trunk>, now_ms: u64) {
        trunk.rests_since_ms.set(now_ms);
        self.open.borrow_mut().entry(trunk.place).or_default().push(trunk.clone());
    }

    /// One that is taken out ends by itself when its last request has.
    pub(crate) fn retain(&self, serves: impl Fn(u64) -> bool) {
        let gone: Vec<_> = self.open.borrow_mut().extract_if(|place, _| !serves(place.target)).collect();
        drop(gone);
    }

    /// One that was for this client alone is for nobody now.
    pub(crate) fn client_left(&self, client: u64) {
        let gone: Vec<_> = self.open.borrow_mut().extract_if(|place, _| place.client == client).collect();
        drop(gone);
    }

    pub(crate) fn tick(&self, now_ms: u64) {
        let mut old = Vec::new();
        for trunks in self.open.borrow_mut().values_mut() {
            old.extend(trunks.extract_if(.., |trunk| trunk.is_over.get() || trunk.is_old(now_ms)));
        }
        drop(old);
        self.open.borrow_mut().retain(|_, trunks| !trunks.is_empty());
        // Only who waits has use for it.
        self.opening.borrow_mut().retain(|_, opening| Arc::strong_count(opening) > 1);
    }
}
