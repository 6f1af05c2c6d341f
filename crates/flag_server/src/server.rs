//! The server: threads of its own, sockets that come from outside, and taking leave.
//!
//! **Invariants**: every thread accepts from every socket, and each connection stays on its thread. The threads end with the
//! server. Dropping it cuts; `drain` lets clients finish.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flag_engine::Board;
use hmac::{Hmac, KeyInit};
use http::HeaderValue;
use sha2::Sha256;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::admission::Admission;
use crate::audience::Audience;
use crate::changes::Changes;
use crate::connection;
use crate::follow::left;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::roles::{self, Role};
use crate::shared::Shared;

/// How often `drain` looks whether everybody has gone.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a server works with.
pub struct Config {
    /// At least one; one per core that may be used.
    pub threads: usize,
    pub board: Arc<Board>,
    pub admission: Arc<dyn Admission>,
    pub audience: Arc<dyn Audience>,
    /// Asked by `/readyz`, health checks and metrics; quick.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// Values added to every evaluation's context, over what the client says; in-process clients get them with the set.
    pub context: serde_json::Map<String, serde_json::Value>,
    /// Origins of pages that may ask over OFREP from a browser, `*` for any.
    pub origins: Vec<HeaderValue>,
    /// Signs the addresses of OFREP's event streams. Random; the same after a restart, or clients have to ask anew.
    pub stream_key: [u8; 32],
}

/// Serves until it is dropped.
pub struct Server {
    shared: Arc<Shared>,
    origins: Vec<HeaderValue>,
    threads: Mutex<Vec<Thread>>,
}

struct Thread {
    commands: mpsc::UnboundedSender<Command>,
    /// Taken when the thread is waited for.
    handle: Option<std::thread::JoinHandle<()>>,
}

enum Command {
    Listen(SocketAddr, TcpListener, axum::Router),
    Unlisten(SocketAddr),
}

impl Server {
    /// Serves nothing until `listen`.
    pub fn start(config: Config) -> io::Result<Self> {
        let Config { threads, board, admission, audience, readiness, context, origins, stream_key } = config;
        let shared = Arc::new(Shared {
            board,
            admission,
            audience,
            readiness,
            context,
            signer: signer(&stream_key),
            metrics: Metrics::default(),
            changes: Changes::default(),
            draining: watch::Sender::new(false),
        });
        let threads = (0..threads.max(1)).map(|index| Thread::start(index, shared.clone())).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { shared, origins, threads: Mutex::new(threads) })
    }

    /// Accepts on `listener` too, which may be shared with others. On an address that it accepts on already, the new role
    /// counts from now on, for new connections.
    pub fn listen(&self, role: Role, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let router = roles::router(role, &self.shared, &self.origins);
        for thread in &*self.threads.lock().unwrap_or_else(PoisonError::into_inner) {
            let command = Command::Listen(address, listener.try_clone()?, router.clone());
            thread.commands.send(command).map_err(|_| io::Error::other("a thread of the flag server has ended"))?;
        }
        Ok(())
    }

    /// Accepts no more there; connections that are open stay.
    pub fn unlisten(&self, address: SocketAddr) {
        for thread in &*self.threads.lock().unwrap_or_else(PoisonError::into_inner) {
            // A thread that has ended accepts nothing.
            let _ = thread.commands.send(Command::Unlisten(address));
        }
    }

    /// Takes leave of everybody: streams get their last word, connections their last answer, HTTP/2 its GOAWAY; new
    /// connections are not accepted. Returns once all have gone, or after `max`; how many were still open.
    pub async fn drain(&self, max: Duration) -> usize {
        self.shared.draining.send_replace(true);
        let open = || self.shared.metrics.connections.load(Relaxed);
        let all_gone = async {
            while open() > 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let _ = tokio::time::timeout(max, all_gone).await;
        open()
    }

    /// Prometheus' text, as `/metrics` gives it.
    pub fn metrics(&self) -> String {
        self.shared.metrics.text(&self.shared.board, &(self.shared.readiness)())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.draining.send_replace(true);
        for thread in self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let Thread { commands, handle } = thread;
            // The end of the channel ends the thread.
            drop(commands);
            if let Some(handle) = handle {
                let _ = handle.join();
            }
        }
    }
}

impl Thread {
    fn start(index: usize, shared: Arc<Shared>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (commands, inbox) = mpsc::unbounded_channel();
        let handle = std::thread::Builder::new().name(format!("flags-{index}")).spawn(move || runtime.block_on(work(inbox, shared)))?;
        Ok(Self { commands, handle: Some(handle) })
    }
}

/// HMAC fills a short key with zeros up to its block (RFC 2104 §2).
fn signer(key: &[u8; 32]) -> Hmac<Sha256> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    Hmac::new(&block.into())
}

async fn work(mut inbox: mpsc::UnboundedReceiver<Command>, shared: Arc<Shared>) {
    let mut accepting: HashMap<SocketAddr, AbortHandle> = HashMap::new();
    let mut draining = shared.draining.subscribe();
    let mut has_left = false;
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                None => return,
                Some(Command::Unlisten(address)) => {
                    if let Some(task) = accepting.remove(&address) {
                        task.abort();
                    }
                }
                Some(Command::Listen(..)) if has_left => {}
                Some(Command::Listen(address, listener, router)) => {
                    // It was made nonblocking before; registering fails only when the runtime is gone.
                    if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                        let task = tokio::spawn(connection::accept(listener, router, shared.clone()));
                        if let Some(former) = accepting.insert(address, task.abort_handle()) {
                            former.abort();
                        }
                    }
                }
            },
            () = left(&mut draining), if !has_left => {
                has_left = true;
                accepting.drain().for_each(|(_, task)| task.abort());
            }
        }
    }
}
