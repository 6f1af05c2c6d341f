//! What becomes of flags when the disk refuses, and when the process ends then: a real store that a trigger makes refuse.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flag_engine::{Action, Board, Config, Create, EnvironmentConfig, Handle, Question, Request, Schedule, WantedLife, WantedRollout};
use serde_json::{Value, json};
use store::{Batch, Reserve, Store};

/// Half a minute: the machine may be busy.
const LONG: Duration = Duration::from_secs(30);

struct Running {
    folder: PathBuf,
    store: Store,
    flags: Handle,
    task: tokio::task::JoinHandle<()>,
}

/// The table as the store makes it, and a trigger: while there is a key `refuses`, nothing else can be written.
fn prepare(folder: &Path) {
    let database = rusqlite::Connection::open(folder.join("state.db")).expect("a database");
    let table = "CREATE TABLE kept(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE happenings(seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, service TEXT NOT NULL,
          release INTEGER, kind TEXT NOT NULL, text TEXT NOT NULL);
        CREATE TRIGGER refuses BEFORE INSERT ON kept WHEN NEW.key <> 'refuses' AND EXISTS (SELECT 1 FROM kept WHERE key = 'refuses')
          BEGIN SELECT RAISE(ABORT, 'it is full'); END;
        PRAGMA user_version=1;";
    database.execute_batch(table).expect("made");
}

async fn start(folder: &Path) -> Running {
    let began = Instant::now();
    // The one before lets go of it when its thread has ended.
    let store = loop {
        match Store::open(&folder.join("state.db"), &[]) {
            Ok((store, _)) => break store,
            Err(error) => assert!(began.elapsed() < LONG, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let environments = vec![EnvironmentConfig { name: "production".to_owned(), files: Vec::new(), second_person: false }];
    let config = Config { environments, ready_after_ms: 1_000 };
    let (board, told) = (Arc::new(Board::default()), Box::new(|_: &str, _: String| {}));
    let (flags, task) = flag_engine::start(config, folder, store.clone(), board, told).await.expect("started");
    Running { folder: folder.to_owned(), store, flags, task }
}

impl Running {
    /// As a crash does: nothing more is written.
    async fn again(self) -> Self {
        self.task.abort();
        let _ = self.task.await;
        drop((self.store, self.flags));
        start(&self.folder).await
    }

    async fn refuses(&self, refuses: bool) {
        let (key, value) = ("refuses".to_owned(), "yes".to_owned());
        let batch =
            if refuses { Batch { puts: vec![(key, value)], ..Batch::default() } } else { Batch { deletes: vec![key], ..Batch::default() } };
        self.store.commit(batch).await.expect("said");
    }

    async fn write(&self, action: Action) -> Result<Value, model::Rejected> {
        self.flags.write(Request { who: "ana".to_owned(), why: None, environment: None, bound_to: None, action }).await
    }

    async fn make(&self, key: &str) {
        let life = WantedLife::KillSwitch;
        let key = key.to_owned();
        let create = Create { key: key.clone(), variants: None, on: None, off: None, owner: None, description: None, life };
        self.write(Action::Create(create)).await.expect("made");
        self.write(Action::On { key }).await.expect("on");
    }

    async fn off(&self, key: &str) {
        self.write(Action::Off { key: key.to_owned() }).await.expect("off");
    }

    fn answer(&self, key: &str) -> Option<String> {
        let now = self.flags.board().now("production").expect("published");
        now.set.evaluate(key, &flags::Context::of("ana"), 0).expect("there").variant.map(str::to_owned)
    }

    async fn schedule_off(&self, key: &str, in_ms: u64) {
        let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as u64;
        let (key, environment, who) = (key.to_owned(), "production".to_owned(), "ana".to_owned());
        let schedule = Schedule { number: 0, key, environment, on: false, at_ms: now_ms + in_ms, who, why: None };
        self.flags.schedule(schedule).await.expect("scheduled");
    }

    async fn history(&self, key: &str) -> Vec<Value> {
        let question = Question::History { key: Some(key.to_owned()), limit: 1_000 };
        self.flags.ask(question).await.expect("answered")["changes"].as_array().expect("a list").clone()
    }
}

async fn until(what: &str, mut met: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !met().await {
        assert!(began.elapsed() < LONG, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    prepare(folder.path());
    folder
}

#[tokio::test]
async fn off_acts_while_the_disk_refuses_and_outlives_a_crash_though_others_wrote_since() {
    let folder = folder();
    let running = start(folder.path()).await;
    running.make("a").await;
    running.make("b").await;
    running.refuses(true).await;
    running.off("a").await;
    assert_eq!(running.answer("a").as_deref(), Some("off"));
    running.refuses(false).await;
    // Before it is tried again by itself, another flag's change raises the newest number on the disk.
    running.off("b").await;
    let again = running.again().await;
    assert_eq!((again.answer("a").as_deref(), again.answer("b").as_deref()), (Some("off"), Some("off")));
}

#[tokio::test]
async fn off_that_is_only_in_the_reserved_space_is_in_force_after_a_restart() {
    let folder = folder();
    let running = start(folder.path()).await;
    running.make("a").await;
    running.refuses(true).await;
    running.off("a").await;
    let again = running.again().await;
    assert_eq!(again.answer("a").as_deref(), Some("off"));
    again.refuses(false).await;
    until("it was never written down", async || again.history("a").await.len() == 3).await;
    // What was meant by it then is over.
    again.write(Action::On { key: "a".to_owned() }).await.expect("on");
    assert_eq!(again.again().await.answer("a").as_deref(), Some("on"));
}

#[tokio::test]
async fn what_could_not_be_written_is_not_written_over_something_newer() {
    let folder = folder();
    let running = start(folder.path()).await;
    running.make("a").await;
    running.refuses(true).await;
    running.off("a").await;
    running.refuses(false).await;
    running.write(Action::On { key: "a".to_owned() }).await.expect("on");
    until("the history has a hole", async || running.history("a").await.len() == 4).await;
    // The caretaker turns on, as a schedule shows, and owes nothing any more.
    running.make("b").await;
    running.schedule_off("b", 2_100).await;
    until("the caretaker stands still", async || running.answer("b").as_deref() == Some("off")).await;
    assert_eq!(running.again().await.answer("a").as_deref(), Some("on"));
}

#[tokio::test]
async fn a_schedule_is_carried_out_once_while_the_disk_refuses() {
    let folder = folder();
    let running = start(folder.path()).await;
    running.make("a").await;
    running.make("b").await;
    running.schedule_off("a", 700).await;
    running.schedule_off("b", 1_700).await;
    running.refuses(true).await;
    until("it was never switched off", async || running.answer("a").as_deref() == Some("off")).await;
    let revision = running.flags.board().now("production").expect("published").revision;
    // Some looks later the other one is due; nothing else was published meanwhile.
    until("the other one was never switched off", async || running.answer("b").as_deref() == Some("off")).await;
    assert_eq!(running.flags.board().now("production").expect("published").revision, revision + 1);
    running.refuses(false).await;
    until("it was never written down", async || running.history("a").await.len() == 3).await;
}

#[tokio::test]
async fn a_scheduled_off_does_not_wait_behind_an_on_that_the_disk_refuses() {
    let folder = folder();
    let running = start(folder.path()).await;
    running.make("a").await;
    running.make("b").await;
    running.off("b").await;
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    for (key, on, after_ms) in [("b", true, 600), ("a", false, 700)] {
        let (key, environment, who) = (key.to_owned(), "production".to_owned(), "ana".to_owned());
        let schedule = Schedule { number: 0, key, environment, on, at_ms: now_ms + after_ms, who, why: None };
        running.flags.schedule(schedule).await.expect("scheduled");
    }
    running.refuses(true).await;
    until("it was never switched off", async || running.answer("a").as_deref() == Some("off")).await;
    assert_eq!(running.answer("b").as_deref(), Some("off"));
    running.refuses(false).await;
    until("it was never switched on", async || running.answer("b").as_deref() == Some("on")).await;
}

#[tokio::test]
async fn a_missed_on_that_the_disk_refuses_does_not_come_after_the_off_that_follows_it() {
    let folder = folder();
    let running = start(folder.path()).await;
    running.make("a").await;
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    for (on, after_ms) in [(true, 600), (false, 700)] {
        let (key, environment, who) = ("a".to_owned(), "production".to_owned(), "ana".to_owned());
        let schedule = Schedule { number: 0, key, environment, on, at_ms: now_ms + after_ms, who, why: None };
        running.flags.schedule(schedule).await.expect("scheduled");
    }
    running.refuses(true).await;
    until("it was never switched off", async || running.answer("a").as_deref() == Some("off")).await;
    running.refuses(false).await;
    until("it was never written down", async || running.history("a").await.len() == 3).await;
    let schedules = running.flags.ask(Question::Schedules).await.expect("answered");
    assert_eq!((running.answer("a").as_deref(), schedules["schedules"].as_array().map(Vec::len)), (Some("off"), Some(0)));
}

#[tokio::test]
async fn a_state_that_cannot_be_read_is_no_empty_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let database = rusqlite::Connection::open(folder.path().join("state.db")).expect("a database");
    let happenings = "CREATE TABLE happenings(seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, service TEXT NOT NULL,
          release INTEGER, kind TEXT NOT NULL, text TEXT NOT NULL);
        PRAGMA user_version=1;";
    database.execute_batch(happenings).expect("made");
    drop(database);
    let (store, _) = Store::open(&folder.path().join("state.db"), &[]).expect("opened");
    let environments = vec![EnvironmentConfig { name: "production".to_owned(), files: Vec::new(), second_person: false }];
    let config = Config { environments, ready_after_ms: 1_000 };
    let (board, told) = (Arc::new(Board::default()), Box::new(|_: &str, _: String| {}));
    let started = flag_engine::start(config, folder.path(), store, board.clone(), told).await;
    assert!(started.is_err() && board.now("production").is_none(), "nobody is answered as if there were no flags");
}

#[tokio::test]
async fn off_that_no_disk_takes_says_so() {
    let folder = folder();
    let path = folder.path().join("flags.json");
    // Longer than a slot of the reserved space.
    let key = "k".repeat(1_200);
    let flag = json!({ "flags": { &key: { "state": "ENABLED", "variants": { "on": true, "off": false }, "defaultVariant": "on" } } });
    std::fs::write(&path, flag.to_string()).expect("written");
    let running = start(folder.path()).await;
    let files = vec![path];
    let environments = vec![EnvironmentConfig { name: "production".to_owned(), files, second_person: false }];
    running.flags.configure(Config { environments, ready_after_ms: 1_000 }).await.expect("followed");
    running.refuses(true).await;
    let answer = running.write(Action::Off { key: key.clone() }).await.expect("off");
    assert_eq!(running.answer(&key).as_deref(), Some("off"));
    assert!(answer["warnings"][0].as_str().is_some_and(|it| it.contains("a restart would not know it")), "{answer}");
}

fn rollout(key: &str) -> Action {
    let (steps, criteria) = (vec![500, 10_000], vec!["errors".to_owned()]);
    Action::Rollout(WantedRollout { key: key.to_owned(), variant: None, steps, every_ms: 60_000, criteria })
}

#[tokio::test]
async fn a_rollout_that_was_switched_off_does_not_go_on_after_a_crash() {
    let folder = folder();
    let running = start(folder.path()).await;
    running.make("a").await;
    running.off("a").await;
    running.write(rollout("a")).await.expect("begun");
    running.refuses(true).await;
    running.off("a").await;
    let again = running.again().await;
    again.refuses(false).await;
    let trial = Question::Trial { key: "a".to_owned(), environment: None };
    assert_eq!(again.flags.ask(trial).await.expect("there")["state"]["ended"]["outcome"], "aborted");
}

#[tokio::test]
async fn a_rollout_that_was_taken_back_leaves_the_flag_on() {
    let folder = folder();
    let running = start(folder.path()).await;
    let variants = ["blue", "green", "red"].map(|name| (name.to_owned(), Value::from(name)));
    let create = Create {
        key: "a".to_owned(),
        variants: Some(serde_json::Map::from_iter(variants)),
        on: Some("blue".to_owned()),
        off: Some("red".to_owned()),
        owner: None,
        description: None,
        life: WantedLife::KillSwitch,
    };
    running.write(Action::Create(create)).await.expect("made");
    running.write(Action::On { key: "a".to_owned() }).await.expect("on");
    let Action::Rollout(wanted) = rollout("a") else { unreachable!() };
    let wanted = WantedRollout { variant: Some("green".to_owned()), ..wanted };
    let newest = running.write(Action::Rollout(wanted)).await.expect("begun")["change"].as_u64().expect("a number");
    running.task.abort();
    let (reserve, _) = Reserve::<Value>::open(&folder.path().join("flags.ring")).expect("opened");
    let record = json!({ "key": "a", "environment": "production", "after": newest, "taken_back": true });
    let _ = reserve.record(record);
    drop(reserve);
    until("the record was never written", async || {
        !Reserve::<Value>::open(&folder.path().join("flags.ring")).expect("opened").1.is_empty()
    })
    .await;
    assert_eq!(running.again().await.answer("a").as_deref(), Some("blue"));
}

#[tokio::test]
async fn a_rollout_is_looked_at_though_the_clock_was_set_back_over_a_restart() {
    let folder = folder();
    let running = start(folder.path()).await;
    running.make("a").await;
    running.off("a").await;
    running.write(rollout("a")).await.expect("begun");
    let looked_at = async |running: &Running| {
        let trial = Question::Trial { key: "a".to_owned(), environment: None };
        running.flags.ask(trial).await.expect("there")["look"]["at_s"].as_u64().unwrap_or_default()
    };
    until("it was never looked at", async || looked_at(&running).await > 0).await;
    running.task.abort();
    // As if the last look had been when the clock was an hour ahead.
    let (key, text) = running.store.values("flagscales/").await.remove(0);
    let mut judged: Value = serde_json::from_str(&text).expect("JSON");
    let later = judged["said"]["at_s"].as_u64().expect("seconds") + 3_600;
    judged["said"]["at_s"] = later.into();
    running.store.commit(Batch { puts: vec![(key, judged.to_string())], ..Batch::default() }).await.expect("written");
    let again = running.again().await;
    until("it is not looked at", async || looked_at(&again).await > later).await;
}
