//! Environments that come, go and change their files, and what that must not do to users.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flag_engine::{Action, Board, Config, Create, EnvironmentConfig, Handle, Request, WantedLife, WantedRollout};
use serde_json::Value;
use store::Store;

/// Half a minute: the machine may be busy.
const LONG: Duration = Duration::from_secs(30);

fn environment(name: &str, files: &[&Path]) -> EnvironmentConfig {
    EnvironmentConfig { name: name.to_owned(), files: files.iter().map(PathBuf::from).collect(), second_person: false }
}

fn config(environments: Vec<EnvironmentConfig>) -> Config {
    Config { environments, ready_after_ms: 1_000 }
}

async fn start(folder: &Path, environments: Vec<EnvironmentConfig>) -> Handle {
    let (store, _) = Store::open(&folder.join("state.db"), &[]).expect("opened");
    let (board, told) = (Arc::new(Board::default()), Box::new(|_: &str, _: String| {}));
    flag_engine::start(config(environments), folder, store, board, told).await.expect("started").0
}

async fn write(flags: &Handle, environment: &str, action: Action) -> Result<u64, model::Rejected> {
    let environment = Some(environment.to_owned());
    let answer = flags.write(Request { who: "ana".to_owned(), why: None, environment, bound_to: None, action }).await;
    answer.map(|answer| answer["change"].as_u64().expect("a number"))
}

fn create(key: &str) -> Action {
    let (key, life) = (key.to_owned(), WantedLife::KillSwitch);
    Action::Create(Create { key, variants: None, on: None, off: None, owner: None, description: None, life })
}

fn rollout(key: &str) -> Action {
    let (steps, criteria) = (vec![500, 10_000], vec!["errors".to_owned()]);
    Action::Rollout(WantedRollout { key: key.to_owned(), variant: None, steps, every_ms: 60_000, criteria })
}

fn archive(key: &str) -> Action {
    Action::Archive { key: key.to_owned(), force: false }
}

fn answer(flags: &Handle, environment: &str, key: &str) -> Option<String> {
    let now = flags.board().now(environment)?;
    now.set.evaluate(key, &flags::Context::of("ana"), 0).ok()?.variant.map(str::to_owned)
}

async fn until(what: &str, met: impl Fn() -> bool) {
    let began = Instant::now();
    while !met() {
        assert!(began.elapsed() < LONG, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const FLAG: &str = r#"{"flags": {"a": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"}}}"#;

#[tokio::test]
async fn a_file_that_gets_another_name_takes_its_flags_from_nobody_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (folder.path().join("old.json"), folder.path().join("new.json"));
    std::fs::write(&old, FLAG).expect("written");
    std::fs::write(&new, FLAG).expect("written");
    let flags = start(folder.path(), vec![environment("production", &[&old])]).await;
    assert_eq!(answer(&flags, "production", "a").as_deref(), Some("on"));
    let (done, watching) = (Arc::new(AtomicBool::new(false)), flags.clone());
    let over = done.clone();
    let watcher = std::thread::spawn(move || {
        let mut lost = 0_u32;
        while !over.load(Ordering::Relaxed) {
            lost += u32::from(answer(&watching, "production", "a").is_none());
        }
        lost
    });
    flags.configure(config(vec![environment("production", &[&new])])).await.expect("followed");
    done.store(true, Ordering::Relaxed);
    assert_eq!(watcher.join().expect("watched"), 0, "somebody was told that the flag is not there");
    assert_eq!(answer(&flags, "production", "a").as_deref(), Some("on"));
    // It is kept: what was good is in force again although the file is wrong now.
    std::fs::write(&new, "{").expect("written");
    flags.configure(config(vec![environment("other", &[])])).await.expect("followed");
    flags.configure(config(vec![environment("production", &[&new])])).await.expect("followed");
    assert_eq!(answer(&flags, "production", "a").as_deref(), Some("on"));
}

#[tokio::test]
async fn a_file_that_is_none_holds_nobody_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("flags.json");
    make_pipe(&pipe);
    let flags = tokio::time::timeout(LONG / 3, start(folder.path(), vec![environment("production", &[&pipe])])).await.expect("started");
    assert!(flags.problems().get("production").is_some_and(|it| it.contains("no regular file")), "{:?}", flags.problems());
}

fn make_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo");
    assert!(made.success());
}

#[tokio::test]
async fn what_ran_in_an_environment_that_is_gone_keeps_no_flag_from_being_archived() {
    let folder = tempfile::tempdir().expect("a folder");
    let both = || vec![environment("production", &[]), environment("staging", &[])];
    let flags = start(folder.path(), both()).await;
    for key in ["a", "b", "c"] {
        write(&flags, "production", create(key)).await.expect("made");
    }
    write(&flags, "staging", rollout("a")).await.expect("begun");
    let (variants, unmet) = (vec!["on".to_owned()], None);
    let require = Action::Require { key: "b".to_owned(), flag: "c".to_owned(), variants, unmet };
    write(&flags, "staging", require).await.expect("needed");
    assert_eq!(write(&flags, "production", archive("a")).await.expect_err("watched").code, "conflict");
    assert_eq!(write(&flags, "production", archive("c")).await.expect_err("needed").code, "conflict");
    flags.configure(config(vec![environment("production", &[])])).await.expect("followed");
    write(&flags, "production", archive("a")).await.expect("nobody is watched any more");
    write(&flags, "production", archive("c")).await.expect("nobody needs it any more");
}

#[tokio::test]
async fn a_revert_does_not_archive_what_could_not_be_archived() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = start(folder.path(), vec![environment("production", &[])]).await;
    write(&flags, "production", create("a")).await.expect("made");
    write(&flags, "production", archive("a")).await.expect("archived");
    let restored = write(&flags, "production", Action::Restore { key: "a".to_owned() }).await.expect("back");
    write(&flags, "production", rollout("a")).await.expect("begun");
    let revert = Action::Revert { change: restored, force: false };
    let error = write(&flags, "production", revert).await.expect_err("users are watched");
    assert!(error.message.contains("are watched in production"), "{error:?}");
    assert!(answer(&flags, "production", "a").is_some());
}

#[tokio::test]
async fn a_revert_that_ends_a_rollout_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = start(folder.path(), vec![environment("production", &[])]).await;
    write(&flags, "production", create("a")).await.expect("made");
    let on = write(&flags, "production", Action::On { key: "a".to_owned() }).await.expect("on");
    write(&flags, "production", Action::Off { key: "a".to_owned() }).await.expect("off");
    write(&flags, "production", rollout("a")).await.expect("begun");
    let action = Action::Revert { change: on, force: true };
    let request = Request { who: "ana".to_owned(), why: None, environment: None, bound_to: None, action };
    let answer: Value = flags.write(request).await.expect("reverted");
    assert!(answer["said"].as_str().is_some_and(|said| said.contains("the rollout or experiment that ran ends")), "{answer}");
}

#[tokio::test]
async fn half_a_file_takes_no_flags_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("flags.yaml");
    let flag = |key: &str| format!("  {key}:\n    state: ENABLED\n    variants: {{\"on\": true}}\n    defaultVariant: \"on\"\n");
    // Valid at the end of every flag.
    let (half, whole) = (format!("flags:\n{}", flag("a")), format!("flags:\n{}{}", flag("a"), flag("b")));
    std::fs::write(&path, &whole).expect("written");
    let flags = start(folder.path(), vec![environment("production", &[&path])]).await;
    let (done, watching) = (Arc::new(AtomicBool::new(false)), flags.clone());
    let over = done.clone();
    let watcher = std::thread::spawn(move || {
        let mut lost = 0_u32;
        while !over.load(Ordering::Relaxed) {
            lost += u32::from(answer(&watching, "production", "b").is_none());
            std::thread::yield_now();
        }
        lost
    });
    // Somebody writes it in place, slowly, for a second.
    for round in 0..20 {
        std::fs::write(&path, format!("{half}# {}\n", "x".repeat(round))).expect("written");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let changed = whole.replace("\"on\": true}\n    defaultVariant: \"on\"\n  b", "\"on\": false}\n    defaultVariant: \"on\"\n  b");
    std::fs::write(&path, changed).expect("written");
    let is_false = || {
        let now = flags.board().now("production").expect("published");
        let evaluation = now.set.evaluate("a", &flags::Context::of("ana"), 0).expect("there");
        evaluation.value.and_then(|value| value.as_bool()) == Some(false)
    };
    until("what was written in the end was never seen", is_false).await;
    done.store(true, Ordering::Relaxed);
    assert_eq!(watcher.join().expect("watched"), 0, "somebody was told that the flag is not there");
}

#[tokio::test]
async fn a_file_that_comes_back_with_a_flag_of_ours_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("flags.json");
    std::fs::write(&path, FLAG).expect("written");
    let flags = start(folder.path(), vec![environment("production", &[]), environment("staging", &[&path])]).await;
    flags.configure(config(vec![environment("production", &[])])).await.expect("followed");
    write(&flags, "production", create("a")).await.expect("made");
    flags.configure(config(vec![environment("production", &[]), environment("staging", &[&path])])).await.expect("followed");
    assert!(flags.problems().get("staging").is_some_and(|it| it.contains("was made with")), "{:?}", flags.problems());
}
