//! A line: one connection to a target, with its limits, the thread's pool of idle lines, and the way to cut them.
//!
//! **Invariant**: a line is in the pool or used by one request, never both. Limits are watched by the thread's tick, so a
//! request arms no timer of its own. Breaking a line is marked before its socket closes: a cut body is never a clean end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::body::RequestBody;
use crate::clock::CoarseClock;
use crate::io::Io;
use crate::live::Claim;

/// Shorter than the keep-alive of common servers (5 s and more), so that the target rarely closes first.
const IDLE_MAX_MS: u64 = 4_000;
/// Idle lines per target and thread.
const IDLE_LINES_MAX: usize = 256;
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Bounds the head of an answer and what is buffered per line.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    /// The request's body is on its way.
    Sending,
    /// Nothing is left to send; the answer has not begun.
    Waiting,
    Answering,
    Tunnel,
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
    /// The client's own body was malformed or ended early.
    ClientBody,
}

/// What the sender, its bodies, the tick and `cut` share about one line.
pub(crate) struct Line {
    pub(crate) target: u64,
    clock: CoarseClock,
    phase: Cell<Phase>,
    last_ms: Cell<u64>,
    header_timeout_ms: Cell<u64>,
    idle_timeout_ms: Cell<u64>,
    broken: Cell<Option<Broken>>,
    /// The body that is on its way waits for whoever sends it; else for whoever takes it.
    waits_for_sender: Cell<bool>,
    /// Bytes of an answer came since the request went over.
    answered: Arc<AtomicBool>,
    /// Of the answer that is on its way: given up with the line, also when nobody polls the answer any more.
    claim: RefCell<Option<Claim>>,
    task: RefCell<Option<AbortHandle>>,
}

impl Line {
    pub(crate) fn moved(&self) {
        self.waits_for_sender.set(false);
        self.last_ms.set(self.clock.now_ms());
    }

    pub(crate) fn waits_for_sender(&self) {
        self.waits_for_sender.set(true);
    }

    pub(crate) fn goes_over(&self) {
        self.answered.store(false, Ordering::Relaxed);
    }

    pub(crate) fn was_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    pub(crate) fn hold(&self, claim: Option<Claim>) {
        *self.claim.borrow_mut() = claim;
    }

    pub(crate) fn release(&self) {
        drop(self.claim.take());
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

    pub(crate) fn broken(&self) -> Option<Broken> {
        self.broken.get()
    }

    pub(crate) fn mark(&self, why: Broken) {
        if self.broken.get().is_none() {
            self.broken.set(Some(why));
        }
    }

    fn break_off(&self, why: Broken) {
        self.mark(why);
        self.release();
        if let Some(task) = self.task.borrow().as_ref() {
            task.abort();
        }
    }

    fn overdue(&self, now_ms: u64) -> Option<Broken> {
        let (limit, why) = match self.phase.get() {
            Phase::Idle | Phase::Tunnel => return None,
            Phase::Sending if self.waits_for_sender.get() => (self.idle_timeout_ms.get(), Broken::RequestStalled),
            Phase::Sending => (self.idle_timeout_ms.get(), Broken::TargetStalled),
            Phase::Waiting => (self.header_timeout_ms.get(), Broken::ResponseTimeout),
            Phase::Answering if self.waits_for_sender.get() => (self.idle_timeout_ms.get(), Broken::AnswerStalled),
            Phase::Answering => (self.idle_timeout_ms.get(), Broken::ClientStalled),
        };
        (now_ms.saturating_sub(self.last_ms.get()) > limit).then_some(why)
    }
}

/// The right to send on a line.
pub(crate) struct Sender {
    pub(crate) send: SendRequest<RequestBody>,
    pub(crate) line: Rc<Line>,
}

pub(crate) struct Lines {
    clock: CoarseClock,
    idle: RefCell<HashMap<u64, Vec<Sender>>>,
    all: RefCell<HashMap<u64, Rc<Line>>>,
    next: Cell<u64>,
}

impl Lines {
    pub(crate) fn new(clock: CoarseClock) -> Self {
        Self { clock, idle: RefCell::default(), all: RefCell::default(), next: Cell::new(0) }
    }

    /// The line used last, so that the others may grow old.
    pub(crate) fn take(&self, target: u64) -> Option<Sender> {
        let mut idle = self.idle.borrow_mut();
        let senders = idle.get_mut(&target)?;
        while let Some(sender) = senders.pop() {
            if sender.send.is_ready() && sender.line.broken().is_none() {
                return Some(sender);
            }
        }
        None
    }

    pub(crate) fn put(&self, sender: Sender) {
        if sender.send.is_closed() || sender.line.broken().is_some() {
            return;
        }
        sender.line.enter(Phase::Idle);
        let mut idle = self.idle.borrow_mut();
        let senders = idle.entry(sender.line.target).or_default();
        if senders.len() < IDLE_LINES_MAX {
            senders.push(sender);
        }
    }

    pub(crate) async fn connect(self: &Rc<Self>, target: u64, address: SocketAddr) -> io::Result<Sender> {
        let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.map_err(timed_out)??;
        stream.set_nodelay(true)?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_BYTES_MAX).max_headers(HEADERS_MAX);
        let answered = Arc::new(AtomicBool::new(false));
        let (send, connection) = builder.handshake(Io::to_target(stream, answered.clone())).await.map_err(io::Error::other)?;
        let line = self.register(target, answered);
        let number = self.next.get();
        let removal = Removal { lines: self.clone(), number };
        let task = tokio::task::spawn_local(async move {
            let _removal = removal;
            let _ = connection.with_upgrades().await;
        });
        *line.task.borrow_mut() = Some(task.abort_handle());
        Ok(Sender { send, line })
    }

    fn register(&self, target: u64, answered: Arc<AtomicBool>) -> Rc<Line> {
        let line = Rc::new(Line {
            target,
            clock: self.clock.clone(),
            phase: Cell::new(Phase::Idle),
            last_ms: Cell::new(self.clock.now_ms()),
            header_timeout_ms: Cell::new(u64::MAX),
            idle_timeout_ms: Cell::new(u64::MAX),
            broken: Cell::new(None),
            waits_for_sender: Cell::new(false),
            answered,
            claim: RefCell::new(None),
            task: RefCell::new(None),
        });
        self.next.set(self.next.get() + 1);
        self.all.borrow_mut().insert(self.next.get(), line.clone());
        line
    }

    /// A tunnel outlives the connection's task: from here on its own task is what `cut` aborts.
    pub(crate) fn adopt(self: &Rc<Self>, line: &Rc<Line>, tunnel: impl Future<Output = ()> + 'static) {
        self.next.set(self.next.get() + 1);
        let number = self.next.get();
        self.all.borrow_mut().insert(number, line.clone());
        let removal = Removal { lines: self.clone(), number };
        let task = tokio::task::spawn_local(async move {
            let _removal = removal;
            tunnel.await;
        });
        *line.task.borrow_mut() = Some(task.abort_handle());
    }

    pub(crate) fn tick(&self, now_ms: u64) {
        // Idle lines die by being dropped, outside the borrow: a drop may come back here.
        let mut old = Vec::new();
        for senders in self.idle.borrow_mut().values_mut() {
            old.extend(
                senders.extract_if(.., |sender| sender.send.is_closed() || now_ms.saturating_sub(sender.line.last_ms.get()) > IDLE_MAX_MS),
            );
        }
        drop(old);
        for line in self.all.borrow().values() {
            if let Some(why) = line.overdue(now_ms) {
                line.break_off(why);
            }
        }
    }

    /// Closes what is idle on targets that do not serve.
    pub(crate) fn retain(&self, serves: impl Fn(u64) -> bool) {
        let gone: Vec<_> = self.idle.borrow_mut().extract_if(|target, _| !serves(*target)).collect();
        drop(gone);
    }

    pub(crate) fn cut(&self, targets: &[u64]) {
        self.retain(|target| !targets.contains(&target));
        let all = self.all.borrow();
        let running = all.values().filter(|line| targets.contains(&line.target) && line.phase.get() != Phase::Idle);
        running.for_each(|line| line.break_off(Broken::Cut));
    }
}

/// Forgets a line when its task ends, however it ends.
struct Removal {
    lines: Rc<Lines>,
    number: u64,
}

impl Drop for Removal {
    fn drop(&mut self) {
        // A task that is dropped while the map is read (runtime shutdown) leaves its entry: everything goes anyway.
        if let Ok(mut all) = self.lines.all.try_borrow_mut()
            && let Some(line) = all.remove(&self.number)
        {
            line.release();
        }
    }
}
