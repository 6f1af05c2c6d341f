//! One client of a load: a request, its whole answer, a note in the ledger, again.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::sync::watch;

use super::LoadOptions;
use super::connection::{Connection, Failure, Idle, Outgoing, chain};
use super::ledger::Ledger;

/// An answer that takes longer counts as lost.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Keeps a client from spinning while its peer refuses connections.
const PAUSE_AFTER_LOSS: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    KeepAlive,
    Fresh,
    H2,
    Post,
}

pub(crate) struct Client {
    kind: Kind,
    options: Rc<LoadOptions>,
    ledger: Arc<Ledger>,
    connection: Option<Connection>,
    id_prefix: String,
    orders: u64,
}

struct Answer {
    status: StatusCode,
    version: Option<String>,
    closes: bool,
}

impl Client {
    pub(crate) fn new(kind: Kind, options: Rc<LoadOptions>, ledger: Arc<Ledger>) -> Self {
        Self { kind, options, ledger, connection: None, id_prefix: id_prefix(), orders: 0 }
    }

    pub(crate) async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            let pause = match self.ask().await {
                Ok(()) => self.options.pace,
                Err(error) => {
                    self.ledger.lost(format!("{:?}: {error}", self.kind));
                    self.connection = None;
                    Some(self.options.pace.unwrap_or(PAUSE_AFTER_LOSS))
                }
            };
            if let Some(pause) = pause {
                let _ = tokio::time::timeout(pause, stopped.wait_for(|stop| *stop)).await;
            }
        }
    }

    async fn ask(&mut self) -> Result<(), String> {
        let kept = self.take_kept().await?;
        let is_new = kept.is_none();
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.open().await?,
        };
        let (request, id) = self.request();
        let started = Instant::now();
        let answer = tokio::time::timeout(ANSWER_LIMIT, exchange(&mut connection, request)).await;
        let answer = match answer.map_err(|_| format!("no whole answer in {ANSWER_LIMIT:?}"))? {
            Ok(answer) => answer,
            Err(Failure::Unsent) if is_new => return Err("closed before its first request".into()),
            Err(Failure::Unsent) => {
                self.ledger.closed_by_peer();
                return Ok(());
            }
            Err(Failure::Lost(error)) => return Err(error),
        };
        self.keep(connection, answer.closes);
        self.note(&answer, started, id)
    }

    /// The connection of the last request, unless the peer has closed it since.
    async fn take_kept(&mut self) -> Result<Option<Connection>, String> {
        let Some(mut connection) = self.connection.take() else {
            return Ok(None);
        };
        match connection.look().await {
            Idle::Open => Ok(Some(connection)),
            Idle::Broken(error) => Err(format!("idle connection broke: {error}")),
            Idle::Closed => {
                self.ledger.closed_by_peer();
                Ok(None)
            }
        }
    }

    async fn open(&self) -> Result<Connection, String> {
        let address = self.options.address;
        match self.kind {
            Kind::H2 => Connection::open_h2(address).await,
            Kind::KeepAlive | Kind::Fresh | Kind::Post => Connection::open_h1(address).await,
        }
    }

    fn keep(&mut self, connection: Connection, peer_closes: bool) {
        if self.kind == Kind::Fresh {
            return;
        }
        if peer_closes {
            self.ledger.closed_by_peer();
            return;
        }
        self.connection = Some(connection);
    }

    fn note(&self, answer: &Answer, started: Instant, id: Option<String>) -> Result<(), String> {
        if let Some(version) = answer.version.as_deref().filter(|_| answer.status.is_server_error()) {
            self.ledger.failed(version);
            return Ok(());
        }
        if answer.status.is_server_error() {
            return Err(format!("status {}", answer.status));
        }
        let posted = id.filter(|_| answer.status == StatusCode::CREATED);
        self.ledger.answered(started, answer.version.as_deref(), posted);
        Ok(())
    }

    fn request(&mut self) -> (Outgoing, Option<String>) {
        let host = self.options.host.as_str();
        let get = Request::builder().method(Method::GET);
        let (request, body, id) = match self.kind {
            Kind::KeepAlive => (get.uri("/").header(HOST, host), Bytes::new(), None),
            Kind::Fresh => {
                let request = get.uri("/").header(HOST, host).header(CONNECTION, "close");
                (request, Bytes::new(), None)
            }
            Kind::H2 => (get.uri(format!("http://{host}/")), Bytes::new(), None),
            Kind::Post => {
                self.orders += 1;
                let id = format!("{}-{}", self.id_prefix, self.orders);
                let post = Request::builder().method(Method::POST).uri("/orders");
                let request = post.header(HOST, host).header("x-id", &id);
                (request, Bytes::from(format!("order {id}")), Some(id))
            }
        };
        let request = request.body(Full::new(body));
        (request.expect("the host of a load is a valid host name"), id)
    }
}

async fn exchange(connection: &mut Connection, request: Outgoing) -> Result<Answer, Failure> {
    let response = connection.send(request).await?;
    let (head, mut body) = response.into_parts();
    while let Some(frame) = body.frame().await {
        frame.map_err(|error| Failure::Lost(format!("truncated body: {}", chain(&error))))?;
    }
    Ok(Answer { status: head.status, version: version(&head.headers), closes: says_close(&head.headers) })
}

fn version(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("x-version")?;
    value.to_str().ok().map(str::to_owned)
}

fn says_close(headers: &HeaderMap) -> bool {
    headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Unlike that of any other client, also of other processes and earlier runs.
fn id_prefix() -> String {
    static CLIENTS: AtomicU64 = AtomicU64::new(0);
    let client = CLIENTS.fetch_add(1, Ordering::Relaxed);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}-{client}", std::process::id(), since.as_micros())
}
