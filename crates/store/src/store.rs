//! The durable state: SQLite in WAL mode, `synchronous=FULL`, one writer thread. No SQL outside this file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

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
    /// Keys from the first on, below the second.
    pub delete_ranges: Vec<(String, String)>,
    pub happenings: Vec<Happening>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the state cannot be written")]
    Unavailable(#[source] rusqlite::Error),
    /// It may or may not have been written.
    #[error("the disk does not answer within {0:?}")]
    Unknown(Duration),
    #[error("the space reserved for taking back cannot be opened")]
    Reserve(#[source] std::io::Error),
    #[error("the state directory's writer has ended")]
    Ended,
    #[error("it was written by a newer changeover (format {0}); run that one, or use another state directory")]
    Newer(i64),
}

impl StoreError {
    /// Another process has it open.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Unavailable(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy))
    }
}

/// A commit that takes longer than this has an unknown outcome.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(5);
/// While somebody wants traffic back, nobody waits longer than this for the disk.
const URGENT_TIME_MAX: Duration = Duration::from_millis(20);

enum Job {
    Commit(Batch, oneshot::Sender<Result<(), StoreError>>),
    Happenings { since: u64, service: Option<String>, limit: usize, reply: oneshot::Sender<Vec<Happening>> },
    Values { prefix: String, reply: oneshot::Sender<Result<Vec<(String, String)>, StoreError>> },
    Copy { to: PathBuf, reply: oneshot::Sender<Result<(), StoreError>> },
    Close { reply: oneshot::Sender<()> },
}

#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    /// A commit was given up; until the writer answers again, others are refused at once.
    stuck: Arc<AtomicBool>,
    urgent: Arc<AtomicUsize>,
}

/// While it lives, commits wait only 20 ms.
pub struct Urgent(Arc<AtomicUsize>);

impl Drop for Urgent {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What was stored when we came: values by key, and the last event's number.
pub struct Loaded {
    pub values: Vec<(String, String)>,
    pub last_seq: u64,
}

const FORMAT: i64 = 1;
const OWNER_ONLY: u32 = 0o600;
/// So many events are kept; a release makes about ten.
const HAPPENINGS_MAX: u64 = 100_000;
/// Older ones are removed after so many commits.
const TRIM_EVERY: u32 = 1_000;

impl Store {
    /// `loaded`: prefixes of the keys that are read now; what grows with the history is read when somebody asks for it.
    pub fn open(path: &Path, loaded: &[&str]) -> Result<(Self, Loaded), StoreError> {
        let connection = open(path)?;
        let read = loaded.iter().map(|prefix| values(&connection, prefix));
        let values = read.collect::<rusqlite::Result<Vec<_>>>().map_err(StoreError::Unavailable)?.concat();
        let last_seq = connection
            .query_row("SELECT COALESCE(MAX(seq), 0) FROM happenings", [], |row| row.get::<_, i64>(0))
            .map_err(StoreError::Unavailable)?;
        let (jobs, inbox) = mpsc::channel();
        let stuck = Arc::new(AtomicBool::new(false));
        let unstick = stuck.clone();
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_until_closed(connection, &inbox, &unstick))
            .map_err(|_| StoreError::Ended)?;
        Ok((Self { jobs, stuck, urgent: Arc::default() }, Loaded { values, last_seq: last_seq as u64 }))
    }

    pub fn urgent(&self) -> Urgent {
        self.urgent.fetch_add(1, Ordering::SeqCst);
        Urgent(self.urgent.clone())
    }

    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::SeqCst)
    }

    /// Durable when it returns.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let began = Instant::now();
        if self.is_stuck() {
            return Err(StoreError::Unknown(Duration::ZERO));
        }
        let (reply, mut answer) = oneshot::channel();
        self.jobs.send(Job::Commit(batch, reply)).map_err(|_| StoreError::Ended)?;
        loop {
            match tokio::time::timeout(URGENT_TIME_MAX, &mut answer).await {
                Ok(answer) => return answer.unwrap_or(Err(StoreError::Ended)),
                Err(_) if began.elapsed() >= COMMIT_TIME_MAX || self.urgent.load(Ordering::SeqCst) > 0 => {
                    self.stuck.store(true, Ordering::SeqCst);
                    if let Ok(written) = answer.try_recv() {
                        self.stuck.store(false, Ordering::SeqCst);
                        return written;
                    }
                    return Err(StoreError::Unknown(began.elapsed()));
                }
                Err(_) => {}
            }
        }
    }

    pub async fn happenings(&self, since: u64, service: Option<String>, limit: usize) -> Vec<Happening> {
        let (reply, answer) = oneshot::channel();
        let _ = self.jobs.send(Job::Happenings { since, service, limit, reply });
        answer.await.unwrap_or_default()
    }

    /// Like [`values`](Self::values), for those who hold others up while they wait: no longer than for a commit.
    pub async fn values_in_time(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        let began = Instant::now();
        if self.is_stuck() {
            return Err(StoreError::Unknown(Duration::ZERO));
        }
        let (reply, mut answer) = oneshot::channel();
        self.jobs.send(Job::Values { prefix: prefix.to_owned(), reply }).map_err(|_| StoreError::Ended)?;
        loop {
            match tokio::time::timeout(URGENT_TIME_MAX, &mut answer).await {
                Ok(answer) => return answer.unwrap_or(Err(StoreError::Ended)),
                Err(_) if began.elapsed() >= COMMIT_TIME_MAX || self.urgent.load(Ordering::SeqCst) > 0 => {
                    return Err(StoreError::Unknown(began.elapsed()));
                }
                Err(_) => {}
            }
        }
    }

    /// A copy of all of it, as of one moment, in a file that is not there yet.
    pub async fn copy(&self, to: &Path) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Copy { to: to.to_path_buf(), reply }).map_err(|_| StoreError::Ended)?;
        answer.await.unwrap_or(Err(StoreError::Ended))
    }

    /// When it returns, what was asked before is done, and another process may open the file. What is asked later fails.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job::Close { reply }).is_ok() {
            let _ = answer.await;
        }
    }

    pub async fn values(&self, prefix: &str) -> Vec<(String, String)> {
        let (reply, answer) = oneshot::channel();
        let _ = self.jobs.send(Job::Values { prefix: prefix.to_owned(), reply });
        answer.await.ok().and_then(Result::ok).unwrap_or_default()
    }
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let (connection, format) = prepare(path).map_err(StoreError::Unavailable)?;
    if format > FORMAT { Err(StoreError::Newer(format)) } else { Ok(connection) }
}

/// Keys are in it: only its owner reads it. SQLite gives the files beside it the same rights.
fn keep_others_out(path: &Path) {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    // Refused, or on a file system without rights: SQLite itself says what is wrong with the file, if anything is. One that is
    // there is not opened: closing it again would give up the locks that this process has on it.
    let _ = std::fs::OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(path);
    for beside in ["", "-wal", "-shm", "-journal"] {
        let mut file = path.as_os_str().to_owned();
        file.push(beside);
        let _ = std::fs::set_permissions(file, std::fs::Permissions::from_mode(OWNER_ONLY));
    }
}

/// The database and the format that it was written in.
fn prepare(path: &Path) -> rusqlite::Result<(Connection, i64)> {
    keep_others_out(path);
    let connection = Connection::open(path)?;
    // Exclusive first: then the index of the WAL is in memory, and an open on a full disk needs no new page.
    connection.execute_batch("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")?;
    let format: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if format == 0 {
        connection.execute_batch(&format!(
            "BEGIN;
             CREATE TABLE kept(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
             CREATE TABLE happenings(seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, service TEXT NOT NULL,
               release INTEGER, kind TEXT NOT NULL, text TEXT NOT NULL);
             PRAGMA user_version={FORMAT};
             COMMIT;"
        ))?;
    }
    Ok((connection, format))
}

fn write_until_closed(mut connection: Connection, inbox: &mpsc::Receiver<Job>, stuck: &AtomicBool) {
    let mut commits = 0;
    while let Ok(job) = inbox.recv() {
        match job {
            Job::Commit(batch, reply) => {
                commits += 1;
                let written = write(&mut connection, &batch).map_err(StoreError::Unavailable);
                // First the answer: who gives up looks for it once more after saying that we are stuck.
                let _ = reply.send(written);
                stuck.store(false, Ordering::SeqCst);
                if commits % TRIM_EVERY == 0 {
                    let _ = trim(&connection);
                }
            }
            Job::Happenings { since, service, limit, reply } => {
                let _ = reply.send(read(&connection, since, service.as_deref(), limit).unwrap_or_default());
            }
            Job::Values { prefix, reply } => {
                let _ = reply.send(values(&connection, &prefix).map_err(StoreError::Unavailable));
            }
            Job::Copy { to, reply } => {
                let to = to.to_string_lossy();
                let copied = connection.execute("VACUUM INTO ?1", [&*to]).map(drop);
                let _ = reply.send(copied.map_err(StoreError::Unavailable));
            }
            Job::Close { reply } => {
                // With the connection goes the lock on the file.
                drop(connection);
                let _ = reply.send(());
                return;
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
    for (from, below) in &batch.delete_ranges {
        transaction.prepare_cached("DELETE FROM kept WHERE key >= ?1 AND key < ?2")?.execute(params![from, below])?;
    }
    for it in &batch.happenings {
        transaction.prepare_cached("INSERT OR REPLACE INTO happenings VALUES(?1, ?2, ?3, ?4, ?5, ?6)")?.execute(params![
            it.seq as i64,
            it.at_ms as i64,
            it.service,
            it.release.map(|n| n as i64),
            it.kind,
            it.text
        ])?;
    }
    transaction.commit()
}

fn trim(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute("DELETE FROM happenings WHERE seq <= (SELECT MAX(seq) FROM happenings) - ?1", [HAPPENINGS_MAX as i64])
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
    // The key's own order, not a scan: behind a prefix comes no character that is larger.
    let mut statement = connection.prepare_cached("SELECT key, value FROM kept WHERE key >= ?1 AND key < ?2 ORDER BY key")?;
    let rows = statement.query_map(params![prefix, format!("{prefix}\u{10FFFF}")], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn only_its_owner_reads_it_also_one_that_was_open_to_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.db");
        for _ in 0..2 {
            let (store, _) = Store::open(&path, &[]).expect("opened");
            store.commit(Batch { puts: vec![("a".to_owned(), "b".to_owned())], ..Batch::default() }).await.expect("written");
            let files: Vec<_> = std::fs::read_dir(folder.path()).expect("files").map(|entry| entry.expect("one").path()).collect();
            assert!(files.len() >= 2, "the database and its log: {files:?}");
            for file in files {
                assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600, "{}", file.display());
                // As an earlier release left them.
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("permitted");
            }
            drop(store);
        }
    }
}
