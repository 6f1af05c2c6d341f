//! The reason for the house: a switch loses nothing, and afterwards nothing new reaches the old version.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{GET, House, Target, body, client_to, eventually, routing, service, status, version};

#[test]
fn switch_under_load_loses_nothing_and_the_old_version_gets_nothing_new() {
    let (old, new) = (Target::saying("old"), Target::saying("new"));
    let house = House::new(2);
    let versions: &[(&str, &[std::net::SocketAddr])] = &[("v1", &[old.address]), ("v2", &[new.address])];
    house.install(routing(&[("v1", 10_000)], versions));
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..8)
        .map(|number| {
            let (stop, answered) = (stop.clone(), answered.clone());
            let mut client = house.client();
            let address = house.address;
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    if number >= 6 {
                        client = client_to(address);
                    }
                    client.send(GET);
                    assert_eq!(status(&client.answer()), 200);
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for round in 0..20 {
        let mark = answered.load(Ordering::SeqCst);
        eventually("load runs", || answered.load(Ordering::SeqCst) > mark + 100);
        let (to, from, from_name) = if round % 2 == 0 { ("v2", &old, "v1") } else { ("v1", &new, "v2") };
        house.install(routing(&[(to, 10_000)], versions));
        eventually("old drains", || house.proxy.in_flight(&service(), &version(from_name)).requests == 0);
        let reached = from.requests();
        let mark = answered.load(Ordering::SeqCst);
        eventually("load runs on", || answered.load(Ordering::SeqCst) > mark + 100);
        assert_eq!(from.requests(), reached, "round {round}: a new request reached the old version");
    }
    stop.store(true, Ordering::SeqCst);
    load.into_iter().for_each(|thread| thread.join().expect("every request was answered"));
    let counts = house.proxy.counts(&service(), &version("v1"));
    assert_eq!(counts.bad, 0);
    assert_eq!(counts.classes[1], counts.requests);
    assert!(counts.latency.quantile_ns(0.5).is_some());
}

#[test]
fn a_client_connection_stays_open_across_a_switch() {
    let (old, new) = (Target::saying("old"), Target::saying("new"));
    let house = House::new(1);
    let versions: &[(&str, &[std::net::SocketAddr])] = &[("v1", &[old.address]), ("v2", &[new.address])];
    house.install(routing(&[("v1", 10_000)], versions));
    let mut client = house.client();
    client.send(GET);
    assert_eq!(body(&client.answer()), "old");
    house.install(routing(&[("v2", 10_000)], versions));
    client.send(GET);
    assert_eq!(body(&client.answer()), "new");
}

#[test]
fn a_request_in_flight_ends_on_the_old_version() {
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let old = Target::new(move |_, stream| {
        use std::io::Write;
        gate.lock().expect("lock").recv().expect("go");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold").is_ok()
    });
    let new = Target::saying("new");
    let house = House::new(1);
    let versions: &[(&str, &[std::net::SocketAddr])] = &[("v1", &[old.address]), ("v2", &[new.address])];
    house.install(routing(&[("v1", 10_000)], versions));
    let mut client = house.client();
    client.send(GET);
    eventually("it arrives", || old.requests() == 1);
    house.install(routing(&[("v2", 10_000)], versions));
    assert_eq!(house.proxy.in_flight(&service(), &version("v1")).requests, 1);
    go.send(()).expect("target waits");
    assert_eq!(body(&client.answer()), "old");
    eventually("drained", || house.proxy.in_flight(&service(), &version("v1")).requests == 0);
}

#[test]
fn what_runs_too_long_is_cut() {
    let old = Target::new(|_, _| {
        loop {
            std::thread::park()
        }
    });
    let house = House::serving(&old);
    let mut client = house.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    eventually("it arrives", || old.requests() == 1);
    assert_eq!(house.proxy.cut(&service(), &version("v1")), 1);
    let answer = client.answer();
    assert_eq!((status(&answer), common::reason(&answer)), (502, "cut"));
    assert_eq!(house.proxy.counts(&service(), &version("v1")).bad, 1);
}
