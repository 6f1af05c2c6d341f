//! A canary's draw, and what is counted of it for the judge.

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use common::*;
use model::{Draw, Judged, ReleaseId, Threshold};
use proxy::CellCounts;

fn release() -> ReleaseId {
    ReleaseId::new("release-1").expect("name")
}

fn judged(epoch: u32) -> Draw {
    // An answer always takes longer than 1 ns, and never an hour.
    let thresholds = vec![
        Threshold { set: 1, candidate_ns: 1, stable_ns: 3_600_000_000_000 },
        Threshold { set: 2, candidate_ns: 3_600_000_000_000, stable_ns: 1 },
    ];
    Draw { release: release(), judged: Some(Judged { epoch, closing_s: 30, timeout_bad_ms: 30_000, thresholds }), sticky: None }
}

fn house(candidate: &Target, stable: &Target, weight: u16) -> House {
    let house = House::new(2);
    let mut routing = routing(&[("v2", weight), ("v1", 10_000 - weight)], &[("v2", &[candidate.address]), ("v1", &[stable.address])]);
    routing.draw = Some(judged(7));
    house.install(routing);
    house
}

/// A target that answers with these bytes, and then stays or leaves.
fn saying(bytes: &'static str, stays: bool) -> Target {
    Target::new(move |_, stream| stream.write_all(bytes.as_bytes()).is_ok() && stays)
}

fn unused() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    socket.local_addr().expect("address")
}

fn counted(house: &House) -> CellCounts {
    // A thread says up to when it is complete at its first tick.
    let mut cells = None;
    eventually("a second is complete", || {
        cells = house.proxy.cells(&release(), 0);
        cells.is_some()
    });
    let (_, cells) = cells.expect("just seen");
    cells.into_iter().fold(CellCounts::default(), |mut sum, cell| {
        assert_eq!(cell.epoch, 7);
        for (sum, arm) in [(&mut sum.candidate, cell.candidate), (&mut sum.stable, cell.stable)] {
            sum.drawn += arm.drawn;
            sum.ended += arm.ended;
            sum.answering += arm.answering;
            sum.bad.iter_mut().zip(arm.bad).for_each(|(sum, bad)| *sum += bad);
        }
        sum
    })
}

/// Of `n` draws with probability `p`, outside these bounds with a probability below 10⁻⁹ (Bernstein's inequality).
fn bounds(n: f64, p: f64) -> std::ops::RangeInclusive<f64> {
    let l = (2e9_f64).ln();
    let half = l / 3.0 + (l * l / 9.0 + 2.0 * n * p * (1.0 - p) * l).sqrt();
    (n * p - half).max(0.0)..=n * p + half
}

#[test]
fn requests_are_drawn_with_the_weight_and_each_is_counted_once() {
    for weight in [10, 100, 500, 2_000, 5_000] {
        let (candidate, stable) = (Target::saying("v2"), Target::saying("v1"));
        let house = house(&candidate, &stable, weight);
        let mut client = house.client();
        for _ in 0..10_000 {
            client.send(GET);
            client.answer();
        }
        drop(client);
        let (on_candidate, on_stable) = (candidate.requests() as u64, stable.requests() as u64);
        assert_eq!(on_candidate + on_stable, 10_000);
        let range = bounds(10_000.0, f64::from(weight) / 10_000.0);
        assert!(range.contains(&(on_candidate as f64)), "{weight}: {on_candidate} is not in {range:?}");
        eventually("counted", || counted(&house).candidate.ended == on_candidate && counted(&house).stable.ended == on_stable);
        let counts = counted(&house);
        assert_eq!((counts.candidate.drawn, counts.stable.drawn), (on_candidate, on_stable), "{weight}");
        assert_eq!((counts.candidate.answering, counts.stable.answering), (0, 0));
        // Sets: errors, slower than 1 ns, slower than an hour.
        assert_eq!(counts.candidate.bad[..3], [0, on_candidate, 0]);
        assert_eq!(counts.stable.bad[..3], [0, 0, on_stable]);
    }
}

#[test]
fn failures_are_bad_on_the_arm_that_was_drawn() {
    let candidate = saying("HTTP/1.1 500 no\r\ncontent-length: 2\r\n\r\nno", true);
    let stable = Target::saying("v1");
    let house = house(&candidate, &stable, 5_000);
    for _ in 0..60 {
        house.ask(GET);
    }
    eventually("counted", || counted(&house).candidate.ended + counted(&house).stable.ended == 60);
    let counts = counted(&house);
    assert_eq!((counts.candidate.bad[0], counts.stable.bad[0]), (counts.candidate.drawn, 0));
}

#[test]
fn a_candidate_without_targets_is_helped_out_and_counts_as_bad() {
    let stable = Target::saying("v1");
    let house = House::new(1);
    let mut routing = routing(&[("v2", 5_000), ("v1", 5_000)], &[("v2", &[unused()]), ("v1", &[stable.address])]);
    routing.draw = Some(judged(7));
    house.install(routing);
    for _ in 0..60 {
        assert!(house.ask(GET).starts_with("HTTP/1.1 200"), "stable helps out");
    }
    eventually("counted", || counted(&house).candidate.ended + counted(&house).stable.ended == 60);
    let counts = counted(&house);
    assert!(counts.candidate.drawn > 0 && counts.stable.drawn > 0);
    assert_eq!((counts.candidate.bad[0], counts.stable.bad[0]), (counts.candidate.drawn, 0));
}

#[test]
fn an_answer_that_has_begun_and_breaks_off_is_bad() {
    let target = saying("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", false);
    let house = house(&target, &target, 5_000);
    let mut client = house.client();
    client.send(GET);
    assert!(client.rest().ends_with("half"));
    eventually("counted", || counted(&house).candidate.ended + counted(&house).stable.ended == 1);
    let counts = counted(&house);
    assert_eq!((counts.candidate.bad[0] + counts.stable.bad[0], counts.candidate.answering + counts.stable.answering), (1, 0));
}

#[test]
fn seconds_are_complete_and_since_boot() {
    let target = Target::saying("v1");
    let house = house(&target, &target, 5_000);
    house.ask(GET);
    eventually("a second is complete", || house.proxy.cells(&release(), 0).is_some());
    let (complete, cells) = house.proxy.cells(&release(), 0).expect("just seen");
    let second = cells[0].second;
    let uptime: f64 =
        std::fs::read_to_string("/proc/uptime").expect("linux").split(' ').next().expect("a number").parse().expect("a number");
    assert!((uptime - second as f64).abs() < 3.0, "{uptime} {second}");
    assert!(complete <= second + 1);
    eventually("counted", || house.proxy.cells(&release(), 0).is_some_and(|(complete, _)| complete > second));
}

#[test]
fn copies_go_to_the_mirror_and_nobody_waits_for_them() {
    let (stable, candidate) = (Target::saying("v1"), saying("HTTP/1.1 500 no\r\ncontent-length: 2\r\n\r\nno", true));
    let house = House::new(1);
    let mut routing = routing(&[("v1", 10_000)], &[("v1", &[stable.address]), ("v2", &[candidate.address])]);
    routing.previews = vec![model::Preview { version: version("v2"), host: "v2.test".into() }];
    routing.mirror = Some(model::Mirror { version: version("v2"), methods: vec!["GET".into(), "PUT".into()], body_bytes_max: 10 });
    house.install(routing);
    assert_eq!(body(&house.ask(GET)), "v1");
    // Copies go their own ways: the next one might overtake it.
    eventually("the first copy is counted", || house.proxy.mirrored(&service(), &version("v2")).requests == 1);
    for (method, text) in [("PUT", "short"), ("PUT", "longer than ten"), ("POST", "short")] {
        let answer = house.ask(&format!("{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
        assert_eq!(body(&answer), "v1");
    }
    let mirrored = || house.proxy.mirrored(&service(), &version("v2"));
    eventually("both copies are counted", || mirrored().requests == 2 && mirrored().bad == 2);
    assert_eq!((stable.requests(), candidate.requests()), (4, 2));
    assert!(candidate.text().contains("x-changeover-mirror: 1") && candidate.text().ends_with("short"), "{}", candidate.text());
    assert_eq!(house.proxy.counts(&service(), &version("v2")).requests, 0, "counted apart");
    assert!(!stable.text().contains("x-changeover-mirror"));
}

#[test]
fn a_mirror_that_hangs_delays_nobody_and_holds_a_bounded_number_of_copies() {
    let (stable, candidate) = (Target::saying("v1"), saying("", true));
    let house = House::new(1);
    let mut routing = routing(&[("v1", 10_000)], &[("v1", &[stable.address]), ("v2", &[candidate.address])]);
    routing.previews = vec![model::Preview { version: version("v2"), host: "v2.test".into() }];
    routing.mirror = Some(model::Mirror { version: version("v2"), methods: vec!["GET".into()], body_bytes_max: 0 });
    house.install(routing);
    let began = std::time::Instant::now();
    let mut client = house.client();
    for _ in 0..200 {
        client.send(GET);
        assert_eq!(body(&client.answer()), "v1");
    }
    // Each copy waits for five seconds.
    assert!(began.elapsed() < std::time::Duration::from_secs(4), "{:?}", began.elapsed());
    eventually("the copies came", || candidate.requests() == 64);
    assert_eq!(stable.requests(), 200);
}
