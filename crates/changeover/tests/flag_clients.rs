//! A thousand programs with flags in them, while the worker is killed, and switched off all at once.

mod house;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use changeover_flags::{Flags, Options, State};
use house::{DEADLINE, House};
use testbed::wait;

const CLIENTS: usize = 1_000;

/// Each has a stream of its own; all of them in one runtime.
fn clients(runtime: &tokio::runtime::Runtime, port: u16, number: usize) -> Vec<Flags> {
    let options = || Options::new(format!("http://127.0.0.1:{port}")).runtime(runtime.handle().clone()).no_reports();
    let clients: Vec<Flags> = (0..number).map(|_| Flags::start(options()).expect("good options")).collect();
    wait::until(2 * DEADLINE, "all are ready", || clients.iter().all(|flags| flags.state() == State::Ready));
    clients
}

#[test]
fn a_thousand_clients_see_off_at_once_keep_their_values_over_a_kill_and_come_back_by_themselves() {
    let port = 27_961;
    let house = House::start("27960-27960", &format!("flags:\n  listen: 127.0.0.1:{port}\n"));
    for key in ["left", "right"] {
        house.good(&["flags", "create", key, "--owner", "ana"]);
    }
    // `right` answers as `left` does, always: both change in one set.
    house.good(&["flags", "on", "right"]);
    house.good(&["flags", "require", "right", "left", "--variant", "on"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let all = clients(&runtime, port, CLIENTS);
    let (torn, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let sees = |on: bool| all.iter().filter(|flags| flags.is_enabled("left", "ann") == on).count();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for flags in &all {
                    let seen = flags.snapshot();
                    if seen.is_enabled("left", "ann") != seen.is_enabled("right", "ann") {
                        torn.fetch_add(1, Ordering::Relaxed);
                    }
                }
                std::thread::yield_now();
            }
        });
        for on in [true, false, true] {
            let began = Instant::now();
            house.good(&["flags", if on { "on" } else { "off" }, "left"]);
            wait::until(DEADLINE, "all see it", || sees(on) == CLIENTS);
            println!("all {CLIENTS} see it {:?} after the command began", began.elapsed());
        }
        house.kill_worker();
        let mut stale = 0;
        wait::until(2 * DEADLINE, "all are back", || {
            assert_eq!(sees(true), CLIENTS, "in-process clients keep their values");
            let back = all.iter().filter(|flags| flags.state() == State::Ready).count();
            stale = stale.max(CLIENTS - back);
            back == CLIENTS && stale > 0
        });
        house.until_up();
        house.good(&["flags", "off", "left"]);
        wait::until(DEADLINE, "all see what was said after the kill", || sees(false) == CLIENTS);
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(torn.load(Ordering::Relaxed), 0, "nobody sees a half-written set");
}

#[test]
fn an_answer_to_off_means_that_it_is_durable() {
    let port = 27_963;
    let house = House::start("27962-27962", &format!("flags:\n  listen: 127.0.0.1:{port}\n"));
    house.good(&["flags", "create", "a", "--owner", "ana"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let flags = clients(&runtime, port, 1).remove(0);
    for _ in 0..5 {
        house.good(&["flags", "on", "a"]);
        wait::until(Duration::from_secs(10), "on is seen", || flags.is_enabled("a", "ann"));
        house.good(&["flags", "off", "a"]);
        house.kill_worker();
        house.until_up();
        wait::until(Duration::from_secs(20), "off is seen", || !flags.is_enabled("a", "ann"));
        assert!(house.good(&["flags", "eval", "a", "-u", "ann"]).starts_with("a = false"));
    }
}
