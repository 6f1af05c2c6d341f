//! Trials while something else happens to their flag.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flag_engine::{
    Action, Board, Config, Create, EnvironmentConfig, Handle, Outcome, Question, Request, WantedExperiment, WantedLife, WantedRollout,
};
use serde_json::{Value, json};
use store::Store;

const LONG: Duration = Duration::from_secs(30);

async fn start(folder: &std::path::Path) -> Handle {
    let (store, _) = Store::open(&folder.join("state.db"), &[]).expect("opened");
    let environments = vec![EnvironmentConfig { name: "production".to_owned(), files: Vec::new(), second_person: false }];
    let config = Config { environments, ready_after_ms: 1_000 };
    let (board, told) = (Arc::new(Board::default()), Box::new(|_: &str, _: String| {}));
    flag_engine::start(config, folder, store, board, told).await.expect("started").0
}

async fn write(flags: &Handle, action: Action) -> Result<Value, model::Rejected> {
    flags.write(Request { who: "ana".to_owned(), why: None, environment: None, bound_to: None, action }).await
}

async fn make(flags: &Handle, key: &str) {
    let (key, life) = (key.to_owned(), WantedLife::KillSwitch);
    let create = Create { key, variants: None, on: None, off: None, owner: None, description: None, life };
    write(flags, Action::Create(create)).await.expect("made");
}

fn rollout(key: &str) -> Action {
    let (steps, criteria) = (vec![5_000, 10_000], vec!["errors".to_owned()]);
    Action::Rollout(WantedRollout { key: key.to_owned(), variant: None, steps, every_ms: 60_000, criteria })
}

/// Shows `user` what it gets, and says that it went well. True when that counts.
fn counts(flags: &Handle, user: &str) -> bool {
    let set = flags.board().now("production").expect("published");
    let context = flags::Context::of(user);
    let evaluation = set.set.evaluate("a", &context, 0).expect("there");
    flags.meters().evaluated("production", &evaluation, &context);
    let outcome = Outcome { user: Some(user), request: None, metric: "errors", value: None, failed: false };
    flags.meters().outcome_reported("production", &outcome)
}

#[tokio::test]
async fn after_another_bucketing_users_count_by_the_variant_that_they_get() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = start(folder.path()).await;
    make(&flags, "a").await;
    write(&flags, rollout("a")).await.expect("begun");
    write(&flags, Action::Bucketing { to: flags::Bucketing::V3, rebucket: true }).await.expect("moved");
    let began = Instant::now();
    let names: Vec<String> = (0..100).map(|user| format!("user-{user}")).collect();
    // Just after a raise nobody counts.
    while !names.iter().any(|name| counts(&flags, name)) {
        assert!(began.elapsed() < LONG, "nobody counts");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(names.iter().filter(|name| !counts(&flags, name)).count(), 0);
}

#[tokio::test]
async fn an_experiment_that_ends_keeps_its_last_second() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = start(folder.path()).await;
    make(&flags, "a").await;
    let goals = serde_json::from_value(json!([{ "name": "signup", "kind": "conversion", "better": "higher" }])).expect("a goal");
    let shares = vec![("on".to_owned(), 5_000), ("off".to_owned(), 5_000)];
    let wanted = WantedExperiment { key: "a".to_owned(), shares, control: None, goals, window_ms: 60_000 };
    write(&flags, Action::Experiment(wanted)).await.expect("begun");
    for user in 0..100 {
        counts(&flags, &format!("user-{user}"));
    }
    write(&flags, Action::End { key: "a".to_owned(), keep: None }).await.expect("ended");
    let report = flags.ask(Question::Trial { key: "a".to_owned(), environment: None }).await.expect("there");
    assert_eq!(report["waiting"], 100, "{report}");
}

#[tokio::test]
async fn what_is_watched_keeps_its_rules_and_is_not_archived() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = start(folder.path()).await;
    make(&flags, "a").await;
    make(&flags, "b").await;
    write(&flags, rollout("a")).await.expect("begun");
    let (key, flag, variants) = ("a".to_owned(), "b".to_owned(), vec!["on".to_owned()]);
    let refused = write(&flags, Action::Require { key: key.clone(), flag, variants, unmet: None }).await.expect_err("watched");
    assert_eq!(refused.code, "conflict");
    let refused = write(&flags, Action::Archive { key: key.clone(), force: true }).await.expect_err("watched");
    assert_eq!(refused.hint.as_deref(), Some("end it first: changeover flags end a --environment production"));
    write(&flags, Action::End { key: key.clone(), keep: None }).await.expect("ended");
    write(&flags, Action::Archive { key, force: true }).await.expect("archived");
}

#[tokio::test]
async fn off_is_never_refused_for_what_evaluators_and_files_have_become() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("flags.json");
    let with = |flags: &str| json!({ "flags": serde_json::from_str::<Value>(flags).expect("JSON") }).to_string();
    std::fs::write(&file, with(r#"{"f": {"state": "ENABLED", "variants": {"x": true}, "defaultVariant": "x"}}"#)).expect("written");
    let (store, _) = Store::open(&folder.path().join("state.db"), &[]).expect("opened");
    let environments = |files| vec![EnvironmentConfig { name: "production".to_owned(), files, second_person: false }];
    let config = Config { environments: environments(vec![file]), ready_after_ms: 1_000 };
    let (board, told) = (Arc::new(Board::default()), Box::new(|_: &str, _: String| {}));
    let flags = flag_engine::start(config, folder.path(), store, board, told).await.expect("started").0;
    make(&flags, "a").await;
    make(&flags, "b").await;
    let (flag, variants) = ("f".to_owned(), vec!["x".to_owned()]);
    write(&flags, Action::Require { key: "b".to_owned(), flag, variants, unmet: None }).await.expect("needed");
    for key in ["a", "b"] {
        write(&flags, Action::On { key: key.to_owned() }).await.expect("on");
    }
    // The file goes, and `b` cannot be served any more.
    flags.configure(Config { environments: environments(Vec::new()), ready_after_ms: 1_000 }).await.expect("configured");
    write(&flags, Action::Off { key: "a".to_owned() }).await.expect("off");
    let now = flags.board().now("production").expect("published");
    let answer = |key: &str| now.set.evaluate(key, &flags::Context::of("ana"), 0).expect("there").variant.map(str::to_owned);
    assert_eq!((answer("a").as_deref(), answer("b").as_deref()), (Some("off"), Some("off")));
}

#[tokio::test]
async fn a_trial_that_could_not_be_watched_is_watched_when_it_can_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = start(folder.path()).await;
    make(&flags, "a").await;
    let goals = serde_json::from_value(json!([{ "name": "errors", "kind": "conversion", "better": "higher" }])).expect("a goal");
    let shares = vec![("on".to_owned(), 5_000), ("off".to_owned(), 5_000)];
    let wanted = WantedExperiment { key: "a".to_owned(), shares, control: None, goals, window_ms: 60_000 };
    // Where its users are to be kept, something else stands: whichever number it gets.
    let names: Vec<_> = (1..10).map(|number| folder.path().join(format!("experiment-{number}.users"))).collect();
    names.iter().for_each(|name| std::fs::create_dir(name).expect("made"));
    write(&flags, Action::Experiment(wanted)).await.expect("begun");
    assert!(!counts(&flags, "ana"));
    names.iter().for_each(|name| std::fs::remove_dir(name).expect("removed"));
    let began = Instant::now();
    while !counts(&flags, "ana") {
        assert!(began.elapsed() < LONG, "it is not watched");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn reverting_to_a_rollout_says_that_it_does_not_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = start(folder.path()).await;
    make(&flags, "a").await;
    write(&flags, rollout("a")).await.expect("begun");
    let off = write(&flags, Action::Off { key: "a".to_owned() }).await.expect("off")["change"].as_u64().expect("a number");
    let answer = write(&flags, Action::Revert { change: off, force: false }).await.expect("reverted");
    assert!(answer["said"].as_str().is_some_and(|said| said.contains("does not go on")), "{answer}");
    let now = flags.board().now("production").expect("published");
    let on = (0..100).filter(|user| {
        let context = flags::Context::of(format!("user-{user}"));
        now.set.evaluate("a", &context, 0).expect("there").variant == Some("on")
    });
    assert_eq!(on.count(), 0);
}
