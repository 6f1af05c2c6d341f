//! A lane: one data thread, with everything only it touches.
//!
//! **Invariant**: nothing here is shared but `Shared` and the live state of targets; between routing and claiming a
//! request there is neither an await nor a lock.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use model::ListenerName;
use telemetry::{LogRecord, LogSink};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::client::{Client, Signal};
use crate::clock::{CoarseClock, TICK, second_of};
use crate::counts::bump;
use crate::line::{Lines, Sender};
use crate::reason::Reason;
use crate::serve;
use crate::shared::Shared;
use crate::table::Table;
use crate::ticket::Words;
use crate::watched::Watched;

/// A tick this late says more about the machine than about its peers.
const TICK_LATE_MS: u64 = 1_000;

pub(crate) enum Command {
    Install(Arc<Table>, oneshot::Sender<()>),
    Acknowledge(oneshot::Sender<()>),
    Listen(ListenerName, TcpListener),
    Unlisten(ListenerName),
    /// Accepted by another lane, which has counted it as ours already.
    Serve(ListenerName, std::net::TcpStream),
    Cut(Vec<u64>),
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
    clients: RefCell<HashMap<u64, Rc<Client>>>,
    next_client: Cell<u64>,
    ticked_ms: Cell<u64>,
    /// Copies of requests that run.
    pub(crate) copies: Cell<usize>,
    listeners: RefCell<HashMap<ListenerName, AbortHandle>>,
    log: RefCell<Option<LogSink>>,
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
                Command::Serve(name, stream) => serve::adopt(&self, name, stream),
                Command::Cut(targets) => self.lines.cut(&targets),
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
        self.shared.complete_s[self.index].store(second_of(Instant::now()), Ordering::Release);
        let slept_ms = now.saturating_sub(self.ticked_ms.replace(now));
        // Stopped or frozen meanwhile: what seems overdue may lie in the sockets.
        if slept_ms < TICK_LATE_MS {
            self.lines.tick(now);
            let drain = self.shared.drain();
            self.each_client(|client| client.tick(now, drain));
        }
        if let Some(log) = self.log.borrow_mut().as_mut() {
            log.flush();
        }
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

    /// An idle line: kept if its target is still wanted.
    pub(crate) fn give_back(self: &Rc<Self>, mut sender: Sender) {
        if !self.table.borrow().poolable.contains(&sender.line.target) || sender.send.is_closed() {
            return;
        }
        if sender.send.is_ready() {
            return self.lines.put(sender);
        }
        let lane = self.clone();
        // Its request is still being sent: it stays under the limit of what moves, and can be cut.
        tokio::task::spawn_local(async move {
            if sender.send.ready().await.is_ok() && lane.table.borrow().poolable.contains(&sender.line.target) {
                lane.lines.put(sender);
            }
        });
    }

    pub(crate) fn enter_listener(&self, name: ListenerName, accepting: AbortHandle) {
        if let Some(earlier) = self.listeners.borrow_mut().insert(name, accepting) {
            earlier.abort();
        }
    }

    pub(crate) fn enter_client(self: &Rc<Self>, client: &Rc<Client>) -> Present {
        let number = self.next_client.get();
        self.next_client.set(number + 1);
        self.clients.borrow_mut().insert(number, client.clone());
        Present { lane: self.clone(), number }
    }

    /// hyper ends its connection at an upgrade; the tunnel is counted, and killed at the end of a drain, on its own.
    pub(crate) fn enter_tunnel(self: &Rc<Self>, origin: &Client) -> (Rc<Client>, Present) {
        self.shared.loads[self.index].fetch_add(1, Ordering::AcqRel);
        let client = Client::new(origin.listener.clone(), origin.peer, self.clock.clone());
        let present = self.enter_client(&client);
        (client, present)
    }

    pub(crate) fn watched(&self) -> &Watched {
        &self.shared.watched
    }

    pub(crate) fn logs(&self) -> bool {
        self.log.borrow().is_some()
    }

    pub(crate) fn log(&self, record: &LogRecord<'_>) {
        if let Some(log) = self.log.borrow_mut().as_mut()
            && log.wants(record.status, !record.reason.is_empty())
        {
            log.write(record);
        }
    }

    pub(crate) fn count_made(&self, reason: Reason) {
        bump(&self.shared.made[self.index][reason as usize], 1);
    }

    /// An answer that no version is responsible for.
    pub(crate) fn note_made(&self, reason: Reason, client: &Client, words: Option<&Words>, started: Instant) {
        self.count_made(reason);
        let Some(words) = words else { return };
        self.log(&LogRecord {
            client: client.peer.ip(),
            method: words.method.as_str(),
            host: words.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default(),
            path: words.uri.path_and_query().map_or("", |path| path.as_str()),
            protocol: if client.is_http2() { "HTTP/2" } else { "HTTP/1.1" },
            status: reason.status().as_u16(),
            bytes: 0,
            duration: started.elapsed(),
            service: "",
            version: "",
            target: "",
            reason: reason.name(),
        });
    }
}

/// A client's connection is counted and can be told to end, for as long as this lives.
pub(crate) struct Present {
    lane: Rc<Lane>,
    number: u64,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.lane.shared.loads[self.lane.index].fetch_sub(1, Ordering::AcqRel);
        if let Ok(mut clients) = self.lane.clients.try_borrow_mut() {
            clients.remove(&self.number);
        }
    }
}
