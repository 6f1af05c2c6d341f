//! Many switches under every kind of client: nothing fails, nothing is cut, nobody reaches the old version afterwards.

mod house;

use std::time::{Duration, Instant};

use house::{DEADLINE, House};
use testbed::load::{EchoTunnel, Load, LoadOptions, slow_download};
use testbed::wait;

/// The version that is left may still be drained from when traffic comes back: what it runs must not be cut.
const STRATEGY: &str = "    strategy: { blue_green: { promotion: manual, drain: 1h, watch: 1h } }\n";

/// 40 switches; `CHANGEOVER_LONG=1` makes 1,000.
#[test]
fn no_request_is_lost_in_many_switches() {
    let cycles = if std::env::var_os("CHANGEOVER_LONG").is_some() { 500 } else { 20 };
    let house = House::start("26200-26299", STRATEGY);
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = Load::start(LoadOptions {
        keep_alive_clients: 64,
        fresh_clients: 4,
        h2_clients: 4,
        post_clients: 8,
        pace: Some(Duration::from_millis(10)),
        ..LoadOptions::new(house.address, "web.test")
    });
    let tunnel = EchoTunnel::open(house.address, "web.test").expect("open");
    let address = house.address;
    let (size, millis) = (1_000_000, cycles * 100);
    let download = std::thread::spawn(move || slow_download(address, "web.test", size, millis));
    wait::until(DEADLINE, "load runs", || load.snapshot().requests > 500);
    for cycle in 0..cycles {
        let deployed = house.post("/v1/services/web/deploy", r#"{"version":"v2"}"#);
        assert!(deployed.starts_with("HTTP/1.1 200"), "{deployed}");
        wait::until(DEADLINE, "v2 waits for its promotion", || house.release()["state"] == "awaiting_promotion");
        for (verb, old, new) in [("promote", "v1", "v2"), ("rollback", "v2", "v1")] {
            let answer = house.post(&format!("/v1/services/web/{verb}"), "{}");
            let answered = Instant::now();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            wait::until(DEADLINE, "the new version answers", || load.last_started_on(new).is_some_and(|started| started > answered));
            let tally = load.snapshot();
            wait::until(DEADLINE, "every client has asked again", || load.snapshot().requests > tally.requests + 160);
            let last = load.last_started_on(old);
            assert!(last.is_none_or(|last| last <= answered), "cycle {cycle}: {old} got a request that began after the answer");
        }
        wait::until(DEADLINE, "the release ends", || !house.release()["ending"].is_null());
    }
    assert!(!tunnel.is_broken(), "the tunnel was cut");
    assert!(tunnel.stop().expect("whole to the end") > 0);
    assert_eq!(download.join().expect("no panic").expect("whole"), size);
    let tally = load.stop();
    assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);
    assert_eq!(tally.connections_closed_by_peer, 0, "a switch closes no client connection");
    assert_eq!(tally.by_version.values().sum::<u64>(), tally.requests);
    let (mut orders, mut posted) = (house.orders(), tally.posted);
    orders.sort();
    posted.sort();
    assert_eq!(orders, posted, "each order exactly once");
    println!("{} switches, {} requests, {} orders, 0 lost", 2 * cycles, tally.requests, orders.len());
}
