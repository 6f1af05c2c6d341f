//! Corners that an ordinary release never comes to: asked twice, ended in the middle, asked of what runs elsewhere.

mod house;

use std::process::{Child, Stdio};

use house::{DEADLINE, House, QUICK};
use testbed::load::EchoTunnel;
use testbed::wait;

fn quietly(house: &House, args: &[&str]) -> Child {
    house.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
}

#[test]
fn a_second_rollback_while_the_first_one_drains_changes_nothing() {
    let house = House::start("26500-26599", "    strategy: { blue_green: { watch: 0s, drain: 20s } }\n");
    house.good(&["deploy", "web", "--version", "v1"]);
    house.good(&["deploy", "web", "--version", "v2"]);
    // A tunnel keeps v2 draining.
    let tunnel = EchoTunnel::open(house.address, "web.test").expect("open");
    house.good(&["rollback", "web"]);
    assert_eq!(house.release()["state"], "draining");
    let error = house.bad(&["rollback", "web"], 3);
    assert!(error.contains("is going back to v1 already"), "{error}");
    assert_eq!(house.answers(), "v1");
    // Another version waits for it, and v2 is not returned to meanwhile.
    let mut third = quietly(&house, &["deploy", "web", "--version", "v3", "--supersede"]);
    wait::until(DEADLINE, "v3 waits", || !house.web()["queued"].is_null());
    assert_eq!(house.answers(), "v1");
    drop(tunnel);
    assert!(third.wait().expect("it ends").success());
    assert_eq!(house.answers(), "v3");
    assert!(house.good(&["rollback", "web"]).contains("v3 → v1"), "v2 was rejected");
}

const GATES: &str = "    strategy: { blue_green: { watch: 0s, gates: [{ name: db, migrate: [sh, -c, 'test {version} = v1 && exit; echo $CHANGEOVER_VERSION >> began; while ! test -e go; do sleep 0.05; done; echo $CHANGEOVER_VERSION >> migrated'] }] } }\n";

#[test]
fn a_migration_that_ends_after_its_release_does_not_run_again_nor_beside_another() {
    let house = House::start("26600-26699", GATES);
    let lines = |name: &str| {
        std::fs::read_to_string(house.folder.path().join(name)).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    house.good(&["deploy", "web", "--version", "v1"]);
    let mut second = quietly(&house, &["deploy", "web", "--version", "v2"]);
    wait::until(DEADLINE, "the migration runs", || lines("began") == ["v2"]);
    house.good(&["abort", "web"]);
    assert_eq!(second.wait().expect("it ends").code(), Some(2));
    let error = house.bad(&["retry", "web"], 3);
    assert!(error.contains("the migration `db` of release 2 still runs"), "{error}");
    // Another release waits for it, also across a killed worker.
    let mut third = quietly(&house, &["deploy", "web", "--version", "v3"]);
    wait::until(DEADLINE, "v3 waits", || house.good(&["events"]).contains("gate_waits"));
    house.kill_worker();
    house.until_up();
    wait::until(DEADLINE, "it goes on", || house.release()["state"] == "gating");
    assert_eq!(lines("began"), ["v2"], "never two at once");
    let waits = house.good(&["events", "--json"]).lines().filter(|line| line.contains("gate_waits")).count();
    assert!(waits <= 2, "told once by each worker, not again and again: {waits}");
    std::fs::write(house.folder.path().join("go"), "").expect("written");
    assert!(third.wait().expect("it ends").success());
    assert_eq!((lines("began"), lines("migrated")), (vec!["v2".to_owned(), "v3".to_owned()], vec!["v2".to_owned(), "v3".to_owned()]));
}

#[test]
fn a_migration_that_passed_behind_an_aborted_release_counts_at_its_retry() {
    let house = House::start("26700-26799", GATES);
    house.good(&["deploy", "web", "--version", "v1"]);
    let migrated = house.folder.path().join("migrated");
    let mut second = quietly(&house, &["deploy", "web", "--version", "v2"]);
    wait::until(DEADLINE, "the migration runs", || house.folder.path().join("began").exists());
    house.good(&["abort", "web"]);
    let _ = second.wait();
    std::fs::write(house.folder.path().join("go"), "").expect("written");
    wait::until(DEADLINE, "it passed", || migrated.exists());
    wait::until(DEADLINE, "it is tried again", || house.run(&["retry", "web"]).status.success());
    assert_eq!(house.answers(), "v2");
    assert_eq!(std::fs::read_to_string(migrated).expect("it ran"), "v2\n", "once");
}

#[test]
fn a_service_does_not_leave_the_file_in_mid_release() {
    let house = House::start("26800-26899", "    strategy: { blue_green: { watch: 60s } }\n");
    house.good(&["deploy", "web", "--version", "v1"]);
    let mut second = quietly(&house, &["deploy", "web", "--version", "v2"]);
    wait::until(DEADLINE, "v2 is watched", || house.release()["state"] == "watching");
    let file = house.folder.path().join("changeover.yaml");
    let text = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, &text[..text.find("services:").expect("services")]).expect("written");
    let error = house.bad(&["apply"], 3);
    assert!(error.contains("release 2 of web runs") && error.contains("changeover abort web"), "{error}");
    house.good(&["abort", "web"]);
    assert_eq!(second.wait().expect("it ends").code(), Some(2));
    wait::until(DEADLINE, "it may leave now", || house.run(&["apply"]).status.success());
    wait::until(DEADLINE, "its processes are stopped", || house.running_versions().is_empty());
}

#[test]
fn a_service_that_runs_elsewhere_is_switched_and_stopped_but_not_restarted() {
    let house = House::start("26900-26999", QUICK);
    let file = house.folder.path().join("changeover.yaml");
    let text = std::fs::read_to_string(&file).expect("the file");
    let (begin, end) = (text.find("run: {").expect("run"), text.find("    health:").expect("health"));
    std::fs::write(&file, format!("{}run: {{ runtime: static }}\n{}", &text[..begin], &text[end..])).expect("written");
    house.good(&["apply"]);
    let mut services = Vec::new();
    let mut start = |version: &str| {
        let port = testbed::ports::free().expect("a free port").to_string();
        services.push(Elsewhere(house.command(&["demo-service", version, &port]).stdout(Stdio::null()).spawn().expect("it starts")));
        format!("127.0.0.1:{port}")
    };
    let (one, two, three) = (start("v1"), start("v2"), start("v2"));
    let error = house.bad(&["deploy", "web", "--version", "v1"], 64);
    assert!(error.contains("--address"), "{error}");
    house.good(&["deploy", "web", "--version", "v1", "--address", &one]);
    // Named twice, it is still one target.
    house.good(&["deploy", "web", "--version", "v2", "--address", &two, "--address", &three, "--address", &two]);
    assert_eq!(house.answers(), "v2");
    let of = |version: &str| house.web()["targets"].as_array().into_iter().flatten().filter(|target| target["version"] == version).count();
    assert_eq!(of("v2"), 2);
    let error = house.bad(&["restart", "web"], 3);
    assert!(error.contains("runs elsewhere"), "{error}");
    house.good(&["stop", "web"]);
    wait::until(DEADLINE, "nothing is sent there", || house.status_of("/") == Some(503));
    house.good(&["start", "web"]);
    wait::until(DEADLINE, "it serves again", || house.try_answers().as_deref() == Some("v2"));
    house.good(&["rollback", "web"]);
    assert_eq!(house.answers(), "v1");
}

/// A service that changeover did not start; ended when dropped.
struct Elsewhere(Child);

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_pause_keeps_what_was_applied_since_things_were_good() {
    let house = House::start("27100-27199", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    // Lived with for long enough to be what a pause returns to.
    wait::until(DEADLINE, "this is kept as good", || {
        std::fs::read(house.state_dir().join("state.db-wal")).is_ok_and(|wal| wal.windows(9).any(|bytes| bytes == b"\"serving\""))
    });
    let file = house.folder.path().join("changeover.yaml");
    let text = std::fs::read_to_string(&file).expect("the file");
    let service =
        text[text.find("  web:").expect("web")..].replace("  web:", "  api:").replace("    run:", "    routes: [{ path: /api }]\n    run:");
    std::fs::write(&file, format!("{text}{service}")).expect("written");
    house.good(&["apply"]);
    house.good(&["deploy", "api", "--version", "v7"]);
    let running = house.running_versions();
    wait::until(DEADLINE, "paused", || {
        house.kill_worker();
        house.until_up();
        house.good(&["status"]).contains("changeover resume").then_some(())
    });
    assert_eq!(house.running_versions(), running, "nobody is stopped");
    // A later crash changes nothing about the pause.
    house.kill_worker();
    house.until_up();
    assert!(house.good(&["status"]).contains("changeover resume"));
    house.good(&["resume"]);
    let services = || house.good(&["status"]);
    assert!(services().lines().any(|line| line.starts_with("api ") && line.contains("v7")), "{}", services());
    // The demo service knows no such path; what counts is who was asked.
    let asked = || {
        house
            .good(&["metrics"])
            .lines()
            .any(|line| line.starts_with("changeover_requests_total{service=\"api\",version=\"v7\"") && !line.ends_with(" 0"))
    };
    assert!(!asked());
    assert_eq!(house.status_of("/api"), Some(404));
    wait::until(DEADLINE, "api was asked", asked);
    assert_eq!(house.good(&["plan"]).trim(), "nothing would change");
    assert_eq!(house.running_versions(), running);
}

#[test]
fn followers_miss_nothing_however_much_happened_before() {
    let house = House::start("27200-27299", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    for _ in 0..600 {
        for mode in ["{\"maintenance\":{\"page\":\"x\"}}", "\"serve\""] {
            let answer = house.post("/v1/services/web/mode", &format!("{{\"mode\":{mode}}}"));
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }
    // The ending lies beyond what is read from the store at once.
    house.good(&["deploy", "web", "--version", "v2"]);
    assert_eq!(house.answers(), "v2");
    let events = house.good(&["events", "--json"]);
    assert!(events.lines().count() > 1_200 && events.lines().last().expect("events").contains("promoted"), "{}", events.lines().count());
}

#[test]
fn a_state_that_cannot_be_opened_ends_up_with_a_reason() {
    let mut house = House::start("27000-27099", QUICK);
    house.good(&["down"]);
    house.await_end();
    let _ = std::fs::remove_file(house.state_dir().join("state.db-wal"));
    std::fs::write(house.state_dir().join("state.db"), "this is no database, and longer than a page header needs to be").expect("written");
    let output = house.run(&["up"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("cannot open the state in") && error.contains("not a database"), "{error}");
}
