//! The whole house: the built binary, real processes, real load. Nothing is lost.

mod house;

use std::process::Stdio;
use std::time::Instant;

use house::{DEADLINE, House, QUICK, kill_9};
use serde_json::Value;
use testbed::wait;

#[test]
fn switches_under_load_lose_nothing_and_each_order_arrives_once() {
    let house = House::start("22000-22099", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    wait::until(DEADLINE, "load runs", || load.snapshot().requests > 200);
    for number in 2..8 {
        let version = format!("v{number}");
        house.good(&["deploy", "web", "--version", &version]);
        let old = format!("v{}", number - 1);
        let answered = Instant::now();
        wait::until(DEADLINE, "the new version answers", || load.last_started_on(&version));
        assert!(load.last_started_on(&old).is_none_or(|last| last <= answered), "{old} got a request after the answer");
        if number % 2 == 0 {
            let rolled = house.good(&["rollback", "web"]);
            assert!(rolled.contains("it was hot"), "{rolled}");
            wait::until(DEADLINE, "the rollback is over", || (house.web()["release"]["ending"]["outcome"] == "promoted").then_some(()));
        }
    }
    let tally = load.stop();
    assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);
    assert_eq!(tally.by_version.values().sum::<u64>(), tally.requests);
    assert_eq!(tally.connections_closed_by_peer, 0, "a switch closes no client connection");
    let (mut orders, mut posted) = (house.orders(), tally.posted);
    orders.sort();
    posted.sort();
    assert_eq!(orders, posted, "each order exactly once");
}

#[test]
fn a_version_that_never_becomes_healthy_changes_nothing() {
    let house = House::start("22100-22199", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let error = house.bad(&["deploy", "web", "--version", "bad"], 1);
    assert!(error.contains("did not become healthy within 5 s"), "{error}");
    assert!(error.contains("/healthz → 500"), "{error}");
    assert_eq!(house.web()["serves"], "v1");
}

#[test]
fn a_killed_worker_comes_back_and_touches_no_version() {
    let house = House::start("22200-22299", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let pids = house.pids();
    let worker = house.worker_pid();
    kill_9(worker);
    // The socket stays open: the kernel queues, the next worker answers.
    let answer = testbed::load::slow_download(house.address, "web.test", 1000, 10);
    assert!(answer.is_ok(), "{answer:?}");
    wait::until(DEADLINE, "the API is back", || house.run(&["status"]).status.success());
    assert_ne!(house.worker_pid(), worker);
    assert_eq!(house.pids(), pids, "the version's process is the same");
}

#[test]
fn everything_killed_and_started_again_adopts_what_runs() {
    let mut house = House::start("22300-22399", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let pids = house.pids();
    house.kill_all();
    house.start_again();
    wait::until(DEADLINE, "serving again", || {
        (house.run(&["status"]).status.success() && house.web()["healthy"] == 1).then_some(())
    });
    assert_eq!(house.pids(), pids, "adopted, not started twice");
}

#[test]
fn mistakes_say_what_to_do() {
    let house = House::start("22400-22499", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let check = |args: &[&str], code: i32, wanted: &str| {
        let error = house.bad(args, code);
        assert!(error.contains(wanted), "{args:?} said: {error}");
    };
    check(&["deploy", "wbe", "--version", "v2"], 64, "there is: web");
    check(&["deploy", "web", "--version", "v1"], 3, "serves already");
    check(&["deploy", "web", "--version", "../x"], 64, "cannot be the name of a version");
    check(&["rollback", "web"], 3, "no other confirmed version");
    check(&["rollback", "web", "--to", "v9"], 64, "was never confirmed");
    check(&["up"], 3, "changeover apply");
    check(&["--state-dir", "nowhere", "status"], 1, "changeover up");
    check(&["--file", "nowhere.yaml", "check"], 64, "changeover init");
}

/// The release is driven to the state, the worker is killed there, and the release goes on where it was.
fn crash(state: &str, point: &str, ports: &str) {
    let manual = "    strategy: { blue_green: { promotion: manual, watch: 200ms, gates: [{ name: db, migrate: [sh, -c, 'echo ran >> migrated'] }] } }\n";
    let auto = "    strategy: { blue_green: { watch: 200ms, gates: [{ name: db, migrate: [sh, -c, 'echo ran >> migrated'] }] } }\n";
    let aborts = match state {
        "starting" | "gating" | "switching" | "draining" | "watching" | "ended" => None,
        "awaiting_promotion" => Some(false),
        "retiring" => Some(true),
        // Only a candidate that serves is returned from.
        "returning" => Some(true),
        other => panic!("state `{other}` has no crash test"),
    };
    let strategy = match (state, aborts) {
        ("returning", _) => &auto.replace("200ms", "10s"),
        (_, Some(_)) => manual,
        (_, None) => auto,
    };
    let house = House::start_with(ports, strategy, Some(&format!("2/{state}:{point}")));
    house.good(&["deploy", "web", "--version", "v1"]);
    let worker = house.worker_pid();
    let deploy = house.command(&["deploy", "web", "--version", "v2"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut deploy = deploy.expect("deploy starts");
    let now = || house.run(&["status", "--json"]).stdout;
    let release = || serde_json::from_slice::<Value>(&now()).map(|it| it["services"][0]["release"].clone()).unwrap_or_default();
    let aimed = if state == "returning" { "watching" } else { "awaiting_promotion" };
    if let Some(abort) = aborts {
        wait::until(DEADLINE, "the release waits", || release()["state"] == aimed);
        let verb = if abort { "abort" } else { "promote" };
        // The command may die with the worker, before it was carried out; it is idempotent.
        wait::until(DEADLINE, "the command is carried out", || {
            house.run(&[verb, "web"]);
            release()["number"] == 2 && release()["state"] != aimed
        });
    }
    // A command that died before its release was kept is given again, as a person would.
    wait::until(DEADLINE, &format!("the release ends, {state}:{point}"), || {
        if deploy.try_wait().expect("a child").is_some() && release()["number"] == 1 {
            deploy = house.command(&["deploy", "web", "--version", "v2"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("deploy");
        }
        release()["number"] == 2 && !release()["ending"].is_null()
    });
    let _ = deploy.wait();
    let expected = if aborts == Some(true) { ("v1", "aborted") } else { ("v2", "promoted") };
    let web = house.web();
    assert_eq!((web["serves"].as_str(), web["release"]["ending"]["outcome"].as_str()), (Some(expected.0), Some(expected.1)), "{state}:{point}");
    assert_ne!(house.worker_pid(), worker, "{state}:{point}: the worker was never killed there");
    // Once for each of the two releases.
    let migrated = std::fs::read_to_string(house.folder.path().join("migrated")).unwrap_or_default();
    assert_eq!(migrated, "ran\nran\n", "{state}:{point}");
}

#[test]
fn a_worker_killed_at_every_transition_goes_on_where_it_was() {
    let mut cases = Vec::new();
    for state in release::State::NAMES {
        for point in ["before", "persisted", "performed"] {
            cases.push((state, point));
        }
    }
    // Four at a time: two cores.
    let cases = std::sync::Arc::new(std::sync::Mutex::new(cases.into_iter().enumerate()));
    let threads: Vec<_> = (0..4).map(|_| {
        let cases = cases.clone();
        std::thread::spawn(move || {
            loop {
                let next = cases.lock().expect("not poisoned").next();
                let Some((number, (state, point))) = next else { return };
                let first = 23_000 + number * 20;
                crash(state, point, &format!("{first}-{}", first + 19));
            }
        })
    }).collect();
    for thread in threads {
        thread.join().expect("every crash is survived");
    }
}
