//! The durable state: SQLite in WAL mode, `synchronous=FULL`, one writer thread. No SQL outside this file.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// Something that happened; `seq` is monotonic with gaps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Happening {
    pub seq: u64,
    /// Wall clock, milliseconds since 1970.
    pub at_ms: u64,
    pub service: String,
    /// The release's number.
    pub release: Option<u64>,
    pub kind: String,
    pub text: String,
}

/// Written together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    pub puts: Vec<(String, String)>,
    pub deletes: Vec<String>,
    pub happenings: Vec<Happening>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the state cannot be written")]
    Unavailable(#[source] rusqlite::Error),
    /// It may or may not have been written.
    #[error("the disk does not answer within {0:?}")]
    Unknown(Duration),
    #[error("the state directory's writer has ended")]
    Ended,
}

/// A commit that takes longer than this has an unknown outcome.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(5);

enum Job {
    Commit(Batch, oneshot::Sender<Result<(), StoreError>>),
    Happenings { since: u64, service: Option<String>, limit: usize, reply: oneshot::Sender<Vec<Happening>> },
    Values { prefix: String, reply: oneshot::Sender<Vec<(String, String)>> },
}

#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
}

/// What was stored when we came: values by key, and the last event's number.
pub struct Loaded {
    pub values: Vec<(String, String)>,
    pub last_seq: u64,
}

const FORMAT: i64 = 1;

impl Store {
    pub fn open(path: &Path) -> Result<(Self, Loaded), StoreError> {
        let connection = open(path).map_err(StoreError::Unavailable)?;
        let values = values(&connection, "").map_err(StoreError::Unavailable)?;
        let last_seq = connection
            .query_row("SELECT COALESCE(MAX(seq), 0) FROM happenings", [], |row| row.get::<_, i64>(0))
            .map_err(StoreError::Unavailable)?;
        let (jobs, inbox) = mpsc::channel();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_until_closed(connection, &inbox))
            .map_err(|_| StoreError::Ended)?;
        Ok((Self { jobs }, Loaded { values, last_seq: last_seq as u64 }))
    }

    /// Durable when it returns.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Commit(batch, reply)).map_err(|_| StoreError::Ended)?;
        match tokio::time::timeout(COMMIT_TIME_MAX, answer).await {
            Ok(answer) => answer.unwrap_or(Err(StoreError::Ended)),
            Err(_) => Err(StoreError::Unknown(COMMIT_TIME_MAX)),
        }
    }

    pub async fn happenings(&self, since: u64, service: Option<String>, limit: usize) -> Vec<Happening> {
        let (reply, answer) = oneshot::channel();
        let _ = self.jobs.send(Job::Happenings { since, service, limit, reply });
        answer.await.unwrap_or_default()
    }

    pub async fn values(&self, prefix: &str) -> Vec<(String, String)> {
        let (reply, answer) = oneshot::channel();
        let _ = self.jobs.send(Job::Values { prefix: prefix.to_owned(), reply });
        answer.await.unwrap_or_default()
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA locking_mode=EXCLUSIVE;
         CREATE TABLE IF NOT EXISTS kept(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS happenings(seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, service TEXT NOT NULL,
           release INTEGER, kind TEXT NOT NULL, text TEXT NOT NULL);",
    )?;
    let format: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if format == 0 {
        connection.pragma_update(None, "user_version", FORMAT)?;
    }
    Ok(connection)
}

fn write_until_closed(mut connection: Connection, inbox: &mpsc::Receiver<Job>) {
    while let Ok(job) = inbox.recv() {
        match job {
            Job::Commit(batch, reply) => {
                let _ = reply.send(write(&mut connection, &batch).map_err(StoreError::Unavailable));
            }
            Job::Happenings { since, service, limit, reply } => {
                let _ = reply.send(read(&connection, since, service.as_deref(), limit).unwrap_or_default());
            }
            Job::Values { prefix, reply } => {
                let _ = reply.send(values(&connection, &prefix).unwrap_or_default());
            }
        }
    }
}

fn write(connection: &mut Connection, batch: &Batch) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (key, value) in &batch.puts {
        transaction.prepare_cached("INSERT OR REPLACE INTO kept VALUES(?1, ?2)")?.execute(params![key, value])?;
    }
    for key in &batch.deletes {
        transaction.prepare_cached("DELETE FROM kept WHERE key = ?1")?.execute(params![key])?;
    }
    for it in &batch.happenings {
        transaction
            .prepare_cached("INSERT INTO happenings VALUES(?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![it.seq as i64, it.at_ms as i64, it.service, it.release.map(|n| n as i64), it.kind, it.text])?;
    }
    transaction.commit()
}

fn read(connection: &Connection, since: u64, service: Option<&str>, limit: usize) -> rusqlite::Result<Vec<Happening>> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, at_ms, service, release, kind, text FROM happenings
         WHERE seq > ?1 AND (?2 IS NULL OR service = ?2) ORDER BY seq LIMIT ?3",
    )?;
    let rows = statement.query_map(params![since as i64, service, limit as i64], |row| {
        Ok(Happening {
            seq: row.get::<_, i64>(0)? as u64,
            at_ms: row.get::<_, i64>(1)? as u64,
            service: row.get(2)?,
            release: row.get::<_, Option<i64>>(3)?.map(|n| n as u64),
            kind: row.get(4)?,
            text: row.get(5)?,
        })
    })?;
    rows.collect()
}

fn values(connection: &Connection, prefix: &str) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement = connection.prepare("SELECT key, value FROM kept WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key")?;
    let rows = statement.query_map(params![prefix], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}
