//! The whole house: the built binary, real processes, real load. Nothing is lost.

mod house;

use std::time::Instant;

use house::{DEADLINE, House, QUICK, kill_9};
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
    wait::until(DEADLINE, "serving again", || (house.run(&["status"]).status.success() && house.web()["healthy"] == 1).then_some(()));
    assert_eq!(house.pids(), pids, "adopted, not started twice");
}
