//! A server with a set on a free port, and somebody who remembers what it was told.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flag_engine::Board;
use flag_server::{Admission, Admitted, Audience, Config, Open, Readiness, Refused, Report, Role, Scope, Server};
use flags::{Bucketing, Set};

pub(crate) const WAIT: Duration = Duration::from_secs(30);
pub(crate) const SET: &str = include_str!("scripts/set.json");

#[derive(Default)]
pub(crate) struct Told {
    /// `key=variant by targeting key`, in the order of the evaluations.
    pub(crate) evaluated: Mutex<Vec<String>>,
    pub(crate) missing: Mutex<Vec<String>>,
    pub(crate) reports: Mutex<Vec<Report>>,
}

impl Audience for Told {
    fn evaluated(&self, _environment: &str, evaluation: &flags::Evaluation<'_>, context: &flags::Context) {
        let (variant, who) = (evaluation.variant.unwrap_or("-"), context.targeting_key().unwrap_or("-"));
        self.evaluated.lock().expect("not poisoned").push(format!("{}={variant} by {who}", evaluation.flag.key()));
    }

    fn missing(&self, _environment: &str, key: &str) {
        self.missing.lock().expect("not poisoned").push(key.to_owned());
    }

    fn reported(&self, _environment: &str, report: Report) -> Result<usize, String> {
        let count = report.exposures.len() + report.outcomes.len();
        self.reports.lock().expect("not poisoned").push(report);
        Ok(count)
    }
}

pub(crate) struct House {
    pub(crate) board: Arc<Board>,
    pub(crate) told: Arc<Told>,
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
}

impl House {
    /// Everything on one port, open to everybody; the environment `live` with `SET`.
    pub(crate) fn open() -> Self {
        Self::with(|board| Arc::new(Open(board)), ready())
    }

    /// The same with a set of the caller's.
    pub(crate) fn of(text: &str) -> Self {
        let house = Self::open();
        house.board.publish("live", set(text));
        house
    }

    /// The same behind tokens.
    pub(crate) fn guarded() -> Self {
        Self::with(Tokens::admission, ready())
    }

    pub(crate) fn with(admission: impl FnOnce(Arc<Board>) -> Arc<dyn Admission>, readiness: Readiness) -> Self {
        let board = Arc::new(Board::default());
        board.publish("live", set(SET));
        let admission = admission(board.clone());
        let told = Arc::new(Told::default());
        let server = Server::start(Config {
            threads: 2,
            board: board.clone(),
            admission,
            audience: told.clone(),
            readiness: Arc::new(move || readiness.clone()),
            context: serde_json::Map::new(),
            origins: vec![http::HeaderValue::from_static("*")],
            stream_key: [7; 32],
        })
        .expect("threads");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        server.listen(Role::All, listener).expect("the server listens");
        Self { board, told, server, address }
    }

    /// Another answer of the flag `pushed`.
    pub(crate) fn publish_new(&self) {
        let now = self.board.now("live").expect("a set");
        let document = now.set.document();
        let spaced = document.replace(r#""defaultVariant": "old""#, r#""defaultVariant": "new""#);
        let changed = spaced.replace(r#""defaultVariant":"old""#, r#""defaultVariant":"new""#);
        assert_ne!(document, changed, "there is nothing to change");
        self.board.publish("live", set(&changed));
    }
}

/// Admits `ENVIRONMENT-evaluate` and `ENVIRONMENT-sync` to what their names say.
pub(crate) struct Tokens {
    board: Arc<Board>,
}

impl Tokens {
    pub(crate) fn admission(board: Arc<Board>) -> Arc<dyn Admission> {
        Arc::new(Self { board })
    }
}

impl Admission for Tokens {
    fn admit(&self, token: Option<&str>, scope: Scope, environment: Option<&str>) -> Result<Admitted, Refused> {
        let (own, may) = token.and_then(|token| token.split_once('-')).ok_or(Refused::Unauthorized)?;
        let own = self.board.environments().into_iter().find(|name| **name == *own).ok_or(Refused::Unauthorized)?;
        let is_permitted = matches!((scope, may), (Scope::Evaluate, "evaluate" | "sync") | (Scope::Sync, "sync"));
        if !is_permitted || environment.is_some_and(|asked| *asked != *own) {
            return Err(Refused::Forbidden);
        }
        Ok(Admitted { environment: own })
    }
}

fn ready() -> Readiness {
    Readiness { ready: true, refused: Vec::new() }
}

pub(crate) fn changed() -> String {
    SET.replace(r#""defaultVariant": "old""#, r#""defaultVariant": "new""#)
}

pub(crate) fn set(text: &str) -> Set {
    Set::from_json(text, Bucketing::V2).expect("a set")
}
