//! A client's connection: who is there, whether it is busy, and how to tell it to end.
//!
//! **Invariant**: a connection on which a head is arriving or a request runs is never closed as idle.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use http::HeaderValue;
use model::ListenerName;

use crate::clock::CoarseClock;
use crate::io::Activity;

/// A client may rest between requests for so long.
const IDLE_MAX_MS: u64 = 75_000;
/// A connection that rested for so long gives its buffers back: an idle one is then little more than a socket.
const PARK_AFTER_MS: u64 = 500;
/// A head that has begun must be complete within this, or a slow client could hold connections for ever.
const HEAD_MAX_MS: u64 = 30_000;
/// A client that takes no byte of its answer for so long is given up.
const WRITE_STALLED_MAX_MS: u64 = 300_000;

/// An idle connection that was told to end and does not is killed after this.
const GRACEFUL_MAX_MS: u64 = 30_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Signal {
    None,
    /// End after what runs.
    Graceful,
    Kill,
}

pub(crate) struct Client {
    pub(crate) listener: ListenerName,
    pub(crate) peer: SocketAddr,
    pub(crate) activity: Arc<Activity>,
    forwarded_for: HeaderValue,
    http2: Cell<bool>,
    socket: Cell<std::os::fd::RawFd>,
    busy: Cell<u32>,
    /// The last request had no body: nothing of it can still be under way.
    bodiless: Cell<bool>,
    /// Asked to park.
    park: Cell<bool>,
    signal: Cell<Signal>,
    /// When it was told to end because it was idle; 0: never.
    told_ms: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Client {
    pub(crate) fn new(listener: ListenerName, peer: SocketAddr, clock: CoarseClock) -> Rc<Self> {
        let forwarded_for = HeaderValue::try_from(peer.ip().to_canonical().to_string()).expect("an address is a field value");
        Rc::new(Self {
            listener,
            peer,
            activity: Activity::new(clock),
            forwarded_for,
            http2: Cell::new(false),
            socket: Cell::new(-1),
            busy: Cell::new(0),
            bodiless: Cell::new(false),
            park: Cell::new(false),
            signal: Cell::new(Signal::None),
            told_ms: Cell::new(0),
            waker: RefCell::new(None),
        })
    }

    pub(crate) fn forwarded_for(&self) -> HeaderValue {
        self.forwarded_for.clone()
    }

    /// The socket, for as long as `drive` runs on it.
    pub(crate) fn speaks_over(&self, socket: std::os::fd::RawFd) {
        self.socket.set(socket);
    }

    /// Over HTTP/1, the client has closed, or half-closed, its side. hyper does not look while a request runs. HTTP/2 ends the
    /// request itself.
    pub(crate) fn has_hung_up(&self) -> bool {
        if self.is_http2() || self.socket.get() < 0 {
            return false;
        }
        let mut polled = libc::pollfd { fd: self.socket.get(), events: libc::POLLRDHUP, revents: 0 };
        // SAFETY: one descriptor, open while a request of this client runs; it does not wait.
        let count = unsafe { libc::poll(&mut polled, 1, 0) };
        count > 0 && polled.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.http2.get()
    }

    pub(crate) fn speaks_http2(&self) {
        self.http2.set(true);
    }

    pub(crate) fn begin(self: &Rc<Self>, bodiless: bool) -> Busy {
        self.activity.head_done();
        self.bodiless.set(bodiless);
        self.busy.set(self.busy.get() + 1);
        Busy(self.clone())
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy.get() > 0
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.signal.get() == Signal::Kill
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if self.signal.get() < signal {
            self.signal.set(signal);
            self.wake();
        }
    }

    /// `drain`: when a drain began and how long idle connections are still kept.
    pub(crate) fn tick(&self, now_ms: u64, drain: Option<(u64, u64)>) {
        let stalled_ms = self.activity.write_stalled_ms();
        if stalled_ms != 0 && now_ms.saturating_sub(stalled_ms) > WRITE_STALLED_MAX_MS {
            return self.signal(Signal::Kill);
        }
        if self.busy.get() > 0 {
            return;
        }
        let told_ms = self.told_ms.get();
        if told_ms != 0 && now_ms.saturating_sub(told_ms) > GRACEFUL_MAX_MS {
            return self.signal(Signal::Kill);
        }
        let head_ms = self.activity.head_ms();
        if head_ms != 0 && !self.is_http2() {
            if now_ms.saturating_sub(head_ms) > HEAD_MAX_MS {
                self.signal(Signal::Kill);
            }
            return;
        }
        let last_ms = self.activity.last_ms();
        let over = match drain {
            Some((since_ms, grace_ms)) => now_ms.saturating_sub(last_ms.max(since_ms)) >= grace_ms,
            None => now_ms.saturating_sub(last_ms) > IDLE_MAX_MS,
        };
        if over {
            if told_ms == 0 {
                self.told_ms.set(now_ms.max(1));
            }
            self.signal(Signal::Graceful);
        } else if now_ms.saturating_sub(last_ms) >= PARK_AFTER_MS && !self.park.get() && self.may_park() && drain.is_none() {
            self.park.set(true);
            self.wake();
        }
    }

    /// Between two requests, with nothing half read and nothing half written: hyper's connection holds no state.
    fn may_park(&self) -> bool {
        self.busy.get() == 0 && self.bodiless.get() && !self.is_http2() && self.activity.head_ms() == 0 && !self.activity.is_write_stalled()
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Drives hyper's connection until it ends, is killed or parks.
    pub(crate) async fn drive<C: Connection>(&self, mut connection: Pin<&mut C>) -> End {
        let mut told = false;
        poll_fn(|cx| {
            if self.signal.get() == Signal::Kill {
                return Poll::Ready(End::Over);
            }
            let mut waker = self.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            drop(waker);
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Over);
            }
            // Only after it has read what is there: told to end while idle, hyper closes without a look.
            if self.signal.get() == Signal::Graceful && !told {
                told = true;
                connection.as_mut().graceful_shutdown();
                if connection.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(End::Over);
                }
            }
            // Asked after the poll: it may just have read something.
            match self.park.take() && self.may_park() && !told {
                true => Poll::Ready(End::Parked),
                false => Poll::Pending,
            }
        })
        .await
    }

    /// Before the first byte nothing has to be told to hyper: any signal ends the wait.
    pub(crate) async fn signalled(&self) {
        poll_fn(|cx| {
            if self.signal.get() != Signal::None {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Over,
    /// It rests: its parts can be taken and put together again when the client speaks.
    Parked,
}

/// hyper's two kinds of server connection.
pub(crate) trait Connection: Future {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<I, S, B> Connection for hyper::server::conn::http1::UpgradeableConnection<I, S>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        hyper::server::conn::http1::UpgradeableConnection::graceful_shutdown(self);
    }
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
