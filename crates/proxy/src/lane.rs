//! A lane: one data thread, with everything only it touches.
//!
//! **Invariant**: nothing here is shared but `Shared` and the live state of targets; between routing and claiming a
//! request there is neither an await nor a lock.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::{IpAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http1::RequestHead;
use model::ListenerName;
use telemetry::{LogRecord, LogSink};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::admission::{Addresses, Admitted};
use crate::carrier::Carrier;
use crate::client::{Client, Signal};
use crate::clock::{CoarseClock, DateLine, TICK, second_of};
use crate::counts::bump;
use crate::exchange::Sender;
use crate::flood::Flood;
use crate::line::Lines;
use crate::number::ByNumber;
use crate::reason::Reason;
use crate::serve;
use crate::shared::Shared;
use crate::table::Table;
use crate::ticket;
use crate::watched::Watched;

/// A tick this late says more about the machine than about its peers.
const TICK_LATE_MS: u64 = 1_000;
/// So many resting connections are asked to end in a tick in which there is no place for new ones.
const ROOM_A_TICK: usize = 32;

pub(crate) enum Command {
    Install(Arc<Table>, oneshot::Sender<()>),
    Acknowledge(oneshot::Sender<()>),
    Listen(ListenerName, TcpListener),
    Unlisten(ListenerName),
    /// Accepted by another lane, which has counted it as ours already.
    Serve(ListenerName, std::net::TcpStream, Option<Box<Admitted>>),
    Cut(Vec<u64>),
    /// Tunnels on these targets, or all, are asked to end within so long.
    EndTunnels(Option<Vec<u64>>, Duration),
    DrainBegan,
    KillClients,
    Stop,
}

pub(crate) struct Lane {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: CoarseClock,
    pub(crate) lines: Rc<Lines>,
    // A counted reference within the thread, so that a request does not write to a line all threads share.
    #[allow(clippy::redundant_allocation)]
    table: RefCell<Rc<Arc<Table>>>,
    changed: Notify,
    clients: RefCell<ByNumber<Rc<Client>>>,
    next_client: Cell<u64>,
    ticked_ms: Cell<u64>,
    /// Copies of requests that run.
    pub(crate) copies: Cell<usize>,
    listeners: RefCell<HashMap<ListenerName, AbortHandle>>,
    log: RefCell<Option<LogSink>>,
    pub(crate) date: RefCell<DateLine>,
}

impl Lane {
    pub(crate) fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let clock = CoarseClock::new();
        Rc::new(Self {
            index,
            lines: Rc::new(Lines::new(clock.clone())),
            table: RefCell::new(Rc::new(Arc::new(Table::default()))),
            changed: Notify::new(),
            clients: RefCell::default(),
            next_client: Cell::new(0),
            ticked_ms: Cell::new(clock.now_ms()),
            copies: Cell::new(0),
            listeners: RefCell::default(),
            date: RefCell::new(DateLine::new()),
            log: RefCell::new(shared.log.as_ref().map(telemetry::LogWriter::sink)),
            shared,
            clock,
        })
    }

    pub(crate) async fn run(self: Rc<Self>, mut commands: mpsc::UnboundedReceiver<Command>) {
        let lane = self.clone();
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(TICK).await;
                lane.tick();
            }
        });
        while let Some(command) = commands.recv().await {
            match command {
                Command::Install(table, acknowledge) => {
                    self.install(table);
                    let _ = acknowledge.send(());
                }
                Command::Acknowledge(acknowledge) => drop(acknowledge.send(())),
                Command::Listen(name, socket) => serve::listen(&self, name, socket),
                Command::Unlisten(name) => {
                    if let Some(accepting) = self.listeners.borrow_mut().remove(&name) {
                        accepting.abort();
                    }
                }
                Command::Serve(name, stream, admitted) => serve::adopt(&self, name, stream, admitted),
                Command::Cut(targets) => self.lines.cut(&targets),
                Command::EndTunnels(targets, within) => self.lines.end_tunnels(targets.as_deref(), within),
                Command::DrainBegan => self.each_client(|client| {
                    if client.is_http2() {
                        client.signal(Signal::Graceful);
                    }
                }),
                Command::KillClients => self.each_client(|client| client.signal(Signal::Kill)),
                Command::Stop => return,
            }
        }
    }

    fn install(&self, table: Arc<Table>) {
        self.lines.retain(|target| table.serving.contains(&target));
        *self.table.borrow_mut() = Rc::new(table);
        self.changed.notify_waiters();
    }

    fn tick(&self) {
        let now = self.clock.advance();
        self.date.borrow_mut().advance();
        self.shared.complete_s[self.index].store(second_of(Instant::now()), Ordering::Release);
        let slept_ms = now.saturating_sub(self.ticked_ms.replace(now));
        // Stopped or frozen meanwhile: what seems overdue may lie in the sockets.
        if slept_ms < TICK_LATE_MS {
            self.lines.tick(now, slept_ms);
            let drain = self.shared.drain();
            let parked = self.clients.borrow().values().filter(|client| client.tick(now, slept_ms, drain)).count();
            self.shared.parked[self.index].store(parked, Ordering::Relaxed);
            if self.shared.is_full() {
                self.make_room(now);
            }
        }
        if let Some(log) = self.log.borrow_mut().as_mut() {
            log.flush();
        }
    }

    /// Whoever waits to be accepted has more use for a place than who rests; those that rested longest go first.
    fn make_room(&self, now_ms: u64) {
        let clients = self.clients.borrow();
        let mut resting: Vec<_> = clients.values().filter_map(|client| Some((client.rests_since_ms(now_ms)?, client))).collect();
        if resting.len() > ROOM_A_TICK {
            resting.select_nth_unstable_by_key(ROOM_A_TICK, |(since_ms, _)| *since_ms);
            resting.truncate(ROOM_A_TICK);
        }
        resting.iter().for_each(|(_, client)| client.makes_room(now_ms));
    }

    fn each_client(&self, action: impl Fn(&Client)) {
        self.clients.borrow().values().for_each(|client| action(client));
    }

    #[allow(clippy::redundant_allocation)]
    pub(crate) fn table(&self) -> Rc<Arc<Table>> {
        self.table.borrow().clone()
    }

    /// The next table. There is no await between reading the present one and waiting, so none is missed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shared.drain().is_some()
    }

    /// A line whose request and answer are whole: kept if nothing follows them and its target is still wanted.
    /// A call ends with its answer.
    pub(crate) fn give_back(&self, carrier: Carrier) {
        let Carrier::Http1(sender) = carrier else { return };
        if sender.is_clean() && self.table.borrow().poolable.contains(&sender.line.target) {
            self.lines.put(sender);
        }
    }

    /// The answer has ended, and its request is still being sent.
    pub(crate) fn finish(self: &Rc<Self>, mut sender: Box<Sender>) {
        let lane = self.clone();
        tokio::task::spawn_local(async move {
            poll_fn(|cx| sender.poll_rest(cx)).await;
            lane.give_back(Carrier::Http1(sender));
        });
    }

    pub(crate) fn enter_listener(&self, name: ListenerName, accepting: AbortHandle) {
        if let Some(earlier) = self.listeners.borrow_mut().insert(name, accepting) {
            earlier.abort();
        }
    }

    /// From 1 on; none comes twice.
    pub(crate) fn next_client(&self) -> u64 {
        self.next_client.set(self.next_client.get() + 1);
        self.next_client.get()
    }

    pub(crate) fn enter_client(self: &Rc<Self>, client: &Rc<Client>, admitted: Option<Box<Admitted>>) -> Present {
        self.clients.borrow_mut().insert(client.number, client.clone());
        Present { lane: self.clone(), number: client.number, _admitted: admitted }
    }

    pub(crate) fn watched(&self) -> &Watched {
        &self.shared.watched
    }

    pub(crate) fn logs(&self) -> bool {
        self.log.borrow().is_some()
    }

    /// Whether the log wants a line of a request that ended so.
    pub(crate) fn wants(&self, status: u16, reason: Option<Reason>) -> bool {
        self.log.borrow().as_ref().is_some_and(|log| log.wants(status, reason.is_some()))
    }

    pub(crate) fn log(&self, record: &LogRecord<'_>) {
        if let Some(log) = self.log.borrow_mut().as_mut() {
            log.write(record);
        }
    }

    pub(crate) fn count_made(&self, reason: Reason) {
        bump(&self.shared.made[self.index][reason as usize], 1);
    }

    /// A connection was ended for it.
    pub(crate) fn note_flood(&self, flood: Flood, client: &Client) {
        bump(&self.shared.floods[self.index][flood as usize], 1);
        self.note_made(Reason::Flood, client, None, Instant::now());
    }

    /// A connection that its address may not have: it is closed without a word, as nobody knows yet what it would understand.
    pub(crate) fn note_refused(&self, addresses: &Addresses, client: IpAddr) {
        let reason = Reason::TooManyConnections;
        self.count_made(reason);
        let status = reason.status().as_u16();
        if addresses.is_to_be_told(self.clock.now_ms()) && self.wants(status, Some(reason)) {
            self.log(&LogRecord { status, reason: reason.name(), ..LogRecord::of_connection(client) });
        }
    }

    /// An answer that no version is responsible for. Without `words` the head itself was refused.
    pub(crate) fn note_made(&self, reason: Reason, client: &Client, words: Option<&RequestHead>, started: Instant) {
        self.count_made(reason);
        let (status, duration) = (reason.status().as_u16(), started.elapsed());
        if !self.wants(status, Some(reason)) {
            return;
        }
        self.log(&LogRecord { status, duration, reason: reason.name(), ..ticket::record(client, words) });
    }
}

/// A client's connection is counted and can be told to end, for as long as this lives.
pub(crate) struct Present {
    lane: Rc<Lane>,
    number: u64,
    /// Where an address may have only so many.
    _admitted: Option<Box<Admitted>>,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.lane.shared.loads[self.lane.index].fetch_sub(1, Ordering::AcqRel);
        if let Ok(mut clients) = self.lane.clients.try_borrow_mut() {
            clients.remove(&self.number);
        }
        self.lane.lines.client_left(self.number);
    }
}
