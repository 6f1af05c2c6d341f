//! The worker is killed at every transition of a release, and at random moments: the state is the one before or the one after,
//! the release goes on, no step is skipped and none runs twice.

mod house;

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use house::{DEADLINE, House, kill_9};
use serde_json::Value;
use testbed::wait;

/// What brings a release into the transition.
enum Cause {
    /// It goes there by itself.
    Nothing,
    Command(&'static [&'static str]),
    /// The candidate's process ends.
    CandidateDies,
}

struct Case {
    strategy: &'static str,
    version: &'static str,
    cause: Cause,
    /// The engine holds the release in its state meanwhile.
    pause: bool,
    /// Who serves in the end, and the outcome of the release.
    expected: (&'static str, &'static str),
}

const AUTO: &str = "blue_green: { watch: 200ms, gates: [{ name: db, migrate: [sh, -c, 'echo ran >> migrated'] }] }";
const MANUAL: &str = "blue_green: { promotion: manual, watch: 200ms, gates: [{ name: db, migrate: [sh, -c, 'echo ran >> migrated'] }] }";
const LONG_WATCH: &str = "blue_green: { watch: 60s, gates: [{ name: db, migrate: [sh, -c, 'echo ran >> migrated'] }] }";
const LONG_GATE: &str = "blue_green: { watch: 0s, gates: [{ name: slow, command: [sh, -c, 'test {version} = v1 || sleep 60'] }] }";
const BAD_GATE: &str = "blue_green: { watch: 0s, gates: [{ name: smoke, command: [sh, -c, 'test {version} = v1'] }] }";
const STEPS: &str = "canary: { steps: [10%, { weight: 50%, gates: [{ name: smoke, command: ['true'] }] }], dwell: 100ms, watch: 0s, keep: 0s, \
    gates: [{ name: db, migrate: [sh, -c, 'echo ran >> migrated'] }], analysis: { none: a crash } }";
const LONG_STEP: &str = "canary: { steps: [10%], dwell: 60s, watch: 0s, keep: 0s, analysis: { none: a crash } }";
const LONG_STEP_GATE: &str = "canary: { steps: [10%, { weight: 50%, gates: [{ name: slow, command: [sleep, '60'] }] }], dwell: 100ms, watch: 0s, \
    keep: 0s, analysis: { none: a crash } }";
const BAD_STEP_GATE: &str = "canary: { steps: [10%, { weight: 50%, gates: [{ name: smoke, command: ['false'] }] }], dwell: 100ms, watch: 0s, \
    keep: 0s, analysis: { none: a crash } }";

/// How each transition is reached; one that is new in the code has no row here, and the test says so.
fn case(state: &str, event: &str) -> Case {
    use Cause::{CandidateDies, Command, Nothing};
    const ABORT: Cause = Command(&["abort", "web"]);
    const ROLLBACK: Cause = Command(&["rollback", "web"]);
    let row = |strategy, version, cause, pause, expected| Case { strategy, version, cause, pause, expected };
    match (state, event) {
        ("none", "deploy")
        | ("starting", "targets_became_healthy")
        | ("gating", "gate_passed")
        | ("switching", "snapshot_acknowledged")
        | ("draining", "drained")
        | ("watching", "watch_passed") => row(AUTO, "v2", Nothing, false, ("v2", "promoted")),
        ("starting", "start_failed") => row(AUTO, "bad", Nothing, false, ("v1", "failed")),
        ("starting", "taken_back") => row(AUTO, "bad", ABORT, true, ("v1", "aborted")),
        ("gating", "gate_failed") => row(BAD_GATE, "v2", Nothing, false, ("v1", "failed")),
        ("gating", "start_failed") => row(LONG_GATE, "v2", CandidateDies, false, ("v1", "failed")),
        ("gating", "taken_back") => row(LONG_GATE, "v2", ABORT, false, ("v1", "aborted")),
        ("awaiting_promotion", "promoted") => row(MANUAL, "v2", Command(&["promote", "web"]), false, ("v2", "promoted")),
        ("awaiting_promotion", "start_failed") => row(MANUAL, "v2", CandidateDies, false, ("v1", "failed")),
        ("awaiting_promotion", "taken_back") => row(MANUAL, "v2", ABORT, false, ("v1", "aborted")),
        ("step_gating", "gate_passed")
        | ("preparing", "targets_became_healthy")
        | ("raising", "snapshot_acknowledged")
        | ("judging", "advanced") => row(STEPS, "v2", Nothing, false, ("v2", "promoted")),
        ("step_gating", "gate_failed") => row(BAD_STEP_GATE, "v2", Nothing, false, ("v1", "rolled_back")),
        ("step_gating", "regressed") => row(LONG_STEP_GATE, "v2", CandidateDies, false, ("v1", "rolled_back")),
        ("step_gating", "taken_back") => row(LONG_STEP_GATE, "v2", ABORT, false, ("v1", "aborted")),
        // It had no traffic yet.
        ("preparing", "regressed") => row(LONG_STEP, "v2", CandidateDies, true, ("v1", "failed")),
        ("preparing", "taken_back") => row(LONG_STEP, "v2", ABORT, true, ("v1", "aborted")),
        ("raising", "regressed") => row(LONG_STEP, "v2", CandidateDies, true, ("v1", "rolled_back")),
        ("raising", "taken_back") => row(LONG_STEP, "v2", ABORT, true, ("v1", "aborted")),
        ("judging", "regressed") => row(LONG_STEP, "v2", CandidateDies, false, ("v1", "rolled_back")),
        ("judging", "taken_back") => row(LONG_STEP, "v2", ABORT, false, ("v1", "aborted")),
        ("switching" | "draining", "watch_failed") => row(AUTO, "v2", CandidateDies, true, ("v1", "rolled_back")),
        ("switching" | "draining", "taken_back") => row(AUTO, "v2", ROLLBACK, true, ("v1", "aborted")),
        ("watching", "watch_failed") => row(LONG_WATCH, "v2", CandidateDies, false, ("v1", "rolled_back")),
        ("watching", "taken_back") | ("returning", "snapshot_acknowledged") | ("retiring", "drained") => {
            row(LONG_WATCH, "v2", ROLLBACK, false, ("v1", "aborted"))
        }
        ("none", "rollback") => row(AUTO, "v2", Nothing, false, ("v1", "promoted")),
        other => panic!("the transition {other:?} has no crash test"),
    }
}

fn crash(state: &str, event: &str, point: &str, ports: &str) {
    let case = case(state, event);
    let is_rollback = (state, event) == ("none", "rollback");
    let number = if is_rollback { 3 } else { 2 };
    let strategy = format!("    strategy: {{ {} }}\n", case.strategy);
    let at = format!("{number}/{state}+{event}:{point}");
    let pause = format!("{number}/{state}");
    let mut environment = vec![("CHANGEOVER_CRASH_AT", at.as_str())];
    if case.pause {
        environment.push(("CHANGEOVER_PAUSE_AT", &pause));
    }
    let house = House::start_with(ports, &strategy, &environment);
    std::fs::write(house.state_dir().join("pause"), "").expect("written");
    house.good(&["deploy", "web", "--version", "v1"]);
    let worker = house.worker_pid();
    let deploy = || quietly(&house, &["deploy", "web", "--version", case.version]);
    let mut deploying = deploy();
    if is_rollback {
        assert!(deploying.wait().expect("it ends").success(), "{at}");
        deploying = quietly(&house, &["rollback", "web"]);
    }
    let is_in = |state: &str| {
        let release = house.release();
        release["number"] == number && release["state"] == state
    };
    // Those that come by themselves after the command.
    let from = if matches!(state, "returning" | "retiring") { "watching" } else { state };
    match case.cause {
        Cause::Nothing => {}
        Cause::Command(command) => {
            wait::until(DEADLINE, &format!("{at}: the release is there"), || is_in(from));
            // The command may die with the worker before it was carried out; it is given again, as a person would.
            wait::until(DEADLINE, &format!("{at}: the command is carried out"), || {
                house.run(command);
                let release = house.release();
                release["number"] == number && release["state"] != from
            });
        }
        Cause::CandidateDies => {
            wait::until(DEADLINE, &format!("{at}: the release is there"), || is_in(from));
            let web = house.web();
            let mut targets = web["targets"].as_array().into_iter().flatten();
            let candidate = targets.find(|target| target["version"] == case.version).expect("a target");
            kill_9(candidate["pid"].as_i64().expect("a pid") as i32);
        }
    }
    wait::until(DEADLINE, &format!("{at}: the release ends"), || {
        let release = house.release();
        if deploying.try_wait().expect("a child").is_some() && release["number"] == number - 1 {
            deploying = if is_rollback { quietly(&house, &["rollback", "web"]) } else { deploy() };
        }
        release["number"] == number && !release["ending"].is_null()
    });
    let _ = deploying.wait();
    let web = house.web();
    let ended = (web["serves"].as_str(), web["release"]["ending"]["outcome"].as_str());
    assert_eq!(ended, (Some(case.expected.0), Some(case.expected.1)), "{at}");
    assert_eq!(house.answers(), case.expected.0, "{at}");
    assert_ne!(house.worker_pid(), worker, "{at}: the worker was never killed there");
    let migrated = std::fs::read_to_string(house.folder.path().join("migrated")).unwrap_or_default().lines().count();
    let releases = if case.strategy.contains("migrated") { if case.version == "bad" { 1 } else { 2 } } else { 0 };
    assert_eq!(migrated, releases, "{at}: once for each release that came so far");
    check_story(&house, &at);
}

fn quietly(house: &House, args: &[&str]) -> Child {
    house.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
}

/// What is told of each release: no step twice, numbers that only grow.
fn check_story(house: &House, at: &str) {
    let mut last = 0;
    let mut told: BTreeMap<(u64, String), usize> = BTreeMap::new();
    for line in house.good(&["events", "--json"]).lines() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let seq = event["seq"].as_u64().expect("a number");
        assert!(seq > last, "{at}: event {seq} after {last}");
        last = seq;
        if let (Some(release), Some(kind)) = (event["release"].as_u64(), event["kind"].as_str()) {
            *told.entry((release, kind.to_owned())).or_default() += 1;
        }
    }
    let steps = [
        "began",
        "healthy",
        "switched",
        "drained",
        "watching",
        "watch_passed",
        "returned",
        "promoted",
        "failed",
        "aborted",
        "rolled_back",
        "regressed",
        "withdrawn",
    ];
    for ((release, kind), count) in told {
        assert!(count == 1 || !steps.contains(&kind.as_str()), "{at}: release {release}: {kind} {count} times");
    }
}

#[test]
fn a_worker_killed_at_every_transition_goes_on_where_it_was() {
    let mut cases = Vec::new();
    // A measurement is invalid after a minute of wrong splits; it goes the same way as `regressed`.
    for (state, event) in release::TRANSITIONS.into_iter().filter(|(_, event)| *event != "withdrawn") {
        for point in ["before", "persisted", "performed"] {
            cases.push((state, event, point));
        }
    }
    // Four at a time: two cores.
    let cases = Arc::new(Mutex::new(cases.into_iter().enumerate()));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let cases = cases.clone();
            std::thread::spawn(move || {
                loop {
                    let next = cases.lock().expect("not poisoned").next();
                    let Some((number, (state, event, point))) = next else { return };
                    let first = 23_000 + number * 10;
                    crash(state, event, point, &format!("{first}-{}", first + 9));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("every crash is survived");
    }
}

fn rests(house: &House, commanded: &mut Child) -> bool {
    let Some(web) = house.try_web() else { return false };
    if !web["paused"].is_null() {
        house.run(&["resume"]);
        return false;
    }
    let ended = commanded.try_wait().expect("a child").is_some() && !web["release"]["ending"].is_null();
    ended && web["healthy"] == web["wanted"]
}

/// Commands and kills at random moments on one house, release after release.
fn random_runs(runs: u64, first_port: u16, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut house = House::start(&format!("{first_port}-{}", first_port + 99), RANDOM);
    house.good(&["deploy", "web", "--version", "v1"]);
    let mut pids = std::collections::BTreeSet::new();
    for run in 0..runs {
        let at = format!("seed {seed}, run {run}");
        let before = house.web();
        let serves = before["serves"].as_str().expect("somebody serves").to_owned();
        let number = before["release"]["number"].as_u64().expect("a number");
        let version = format!("v{}", run + 2);
        let command: &[&str] = if random.u8(0..3) == 0 { &["rollback", "web"] } else { &["deploy", "web", "--version", &version] };
        let mut commanded = quietly(&house, command);
        // Up to where a release takes that long; the worker may just have been started by the kill before.
        for _ in 0..random.u8(1..3) {
            let pause = Duration::from_millis(random.u64(0..400));
            let until = std::time::Instant::now() + pause;
            wait::until(DEADLINE, "the moment", || std::time::Instant::now() >= until);
            match random.u8(0..6) {
                0 => {
                    house.kill_all();
                    house.start_again();
                }
                1 => drop(quietly(&house, &["rollback", "web"]).wait()),
                _ => house.kill_worker(),
            }
        }
        let until = std::time::Instant::now() + DEADLINE;
        while !rests(&house, &mut commanded) {
            if std::time::Instant::now() > until {
                let (ended, events) = (commanded.try_wait(), house.good(&["events"]));
                let last: Vec<&str> = events.lines().rev().take(30).collect();
                panic!("{at}: it does not rest: {command:?} {ended:?}\n{:#}\n{}", house.web(), last.join("\n"));
            }
        }
        let web = house.web();
        let release = &web["release"];
        let ended = release["ending"]["outcome"].as_str().expect("ended");
        if release["number"].as_u64() > Some(number + 3) {
            panic!("{at}: at most three commands were given: {release}");
        }
        // The state is the one before or the one after.
        let (candidate, stable) = (release["candidate"].as_str(), release["stable"].as_str());
        let expected = if ended == "promoted" { candidate } else { stable };
        assert_eq!(web["serves"].as_str(), expected, "{at}: {ended}");
        assert!(release["number"].as_u64() > Some(number) || web["serves"] == serves, "{at}: nothing began, nothing changed");
        wait::until(DEADLINE, &format!("{at}: it answers"), || house.try_answers().as_deref() == expected);
        // Nothing was started twice: what runs is what is known, no more than active and standby.
        wait::until(DEADLINE, &format!("{at}: only what is known runs"), || {
            let known: std::collections::BTreeSet<i64> = house.pids().into_iter().collect();
            let running = house.running_versions();
            pids = known.clone();
            known == running && known.len() <= 2
        });
    }
    // Each migration once, or interrupted and then not at all.
    let text = std::fs::read_to_string(house.folder.path().join("migrated")).unwrap_or_default();
    let mut seen = std::collections::BTreeSet::new();
    for release in text.lines() {
        assert!(seen.insert(release.to_owned()), "seed {seed}: the migration of release {release} ran twice");
    }
    check_story(&house, &format!("seed {seed}"));
    println!("seed {seed}: {runs} runs, {} migrations", seen.len());
}

const RANDOM: &str =
    "    strategy: { blue_green: { watch: 100ms, gates: [{ name: db, migrate: [sh, -c, 'echo $CHANGEOVER_RELEASE >> migrated'] }] } }\n";

/// 100 runs; `CHANGEOVER_LONG=1` makes 1,000, with seeds of the day.
#[test]
fn random_kills_leave_the_state_before_or_after() {
    let long = std::env::var_os("CHANGEOVER_LONG").is_some();
    let runs = if long { 250 } else { 25 };
    let base = if long { fastrand::u64(..) >> 8 } else { 4 };
    let threads: Vec<_> =
        (0..4u16).map(|thread| std::thread::spawn(move || random_runs(runs, 24_200 + thread * 100, base + u64::from(thread)))).collect();
    for thread in threads {
        thread.join().expect("every crash is survived");
    }
}
