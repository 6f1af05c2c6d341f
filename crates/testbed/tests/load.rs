//! The load loses nothing on a sound service and notices each loss on an unsound one.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use testbed::load::{EchoTunnel, Load, LoadOptions, slow_download};
use testbed::recorder::{Recorder, Step};
use testbed::{ports, service, wait};

const DEADLINE: Duration = Duration::from_secs(10);

fn serve(version: &str, record: Option<PathBuf>) -> SocketAddr {
    let port = ports::free().expect("a free port");
    let options = service::Options { port, version: version.to_owned(), record, ..service::Options::default() };
    std::thread::spawn(move || service::run(options));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    wait::until(DEADLINE, "service listens", || TcpStream::connect(address).is_ok());
    address
}

fn load(address: SocketAddr) -> LoadOptions {
    LoadOptions { pace: Some(Duration::from_millis(1)), ..LoadOptions::new(address, "shop.test") }
}

/// A keep-alive client against scripted connections, until `done` holds.
fn lose(scripts: Vec<Vec<Step>>, done: impl Fn(&testbed::load::Tally) -> bool) -> testbed::load::Tally {
    let target = Recorder::start_with(scripts).expect("a recorder");
    let options = LoadOptions { keep_alive_clients: 1, ..load(target.address()) };
    let load = Load::start(options);
    wait::until(DEADLINE, "the load saw it", || done(&load.snapshot()));
    load.stop()
}

#[test]
fn counts_what_a_version_answered_and_when() {
    let begun = Instant::now();
    let options = LoadOptions { keep_alive_clients: 2, fresh_clients: 2, ..load(serve("v7", None)) };
    let load = Load::start(options);
    wait::until(DEADLINE, "100 answers", || load.snapshot().requests >= 100);
    assert!(load.last_started_on("v7").is_some_and(|last| last > begun));
    assert_eq!(load.last_started_on("v8"), None);
    let tally = load.stop();
    assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);
    assert_eq!(tally.by_version["v7"], tally.requests);
    assert_eq!(tally.connections_closed_by_peer, 0);
}

#[test]
fn each_acknowledged_order_is_recorded_exactly_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("orders");
    let options = LoadOptions { post_clients: 4, ..load(serve("v1", Some(record.clone()))) };
    let load = Load::start(options);
    wait::until(DEADLINE, "100 orders", || load.snapshot().posted.len() >= 100);
    let tally = load.stop();
    assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);

    let written = std::fs::read_to_string(record).expect("the record");
    let mut recorded: Vec<_> = written.lines().map(|line| line.to_owned()).collect();
    let mut posted: Vec<_> = tally.posted.iter().map(|id| format!("{id} v1")).collect();
    recorded.sort();
    posted.sort();
    assert_eq!(recorded, posted);
}

#[test]
fn a_body_cut_in_the_middle_is_lost() {
    let cut = Step::answer("HTTP/1.1 200 OK\r\ncontent-length: 100\r\nx-version: v1\r\n\r\nhalf");
    let tally = lose(vec![vec![Step::await_head(), cut, Step::Close]], |tally| tally.lost >= 2);
    assert_eq!(tally.lost, tally.requests);
    assert!(tally.by_version.is_empty());
    assert!(tally.last_errors[0].contains("truncated"), "{:?}", tally.last_errors);
}

#[test]
fn a_reset_and_a_silent_close_and_a_500_are_lost() {
    let failed = Step::answer("HTTP/1.1 503 Sorry\r\ncontent-length: 0\r\n\r\n");
    for end in [Step::Reset, Step::Close, failed] {
        let tally = lose(vec![vec![Step::await_head(), end]], |tally| tally.lost >= 1);
        assert_eq!(tally.lost, tally.requests, "{:?}", tally.last_errors);
    }
}

#[test]
fn an_idle_connection_closed_in_order_loses_nothing() {
    let answer = || Step::answer("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-version: v1\r\n\r\n");
    let closing = vec![Step::await_head(), answer(), Step::Close];
    let mut staying = Vec::new();
    for _ in 0..1000 {
        staying.extend([Step::await_head(), answer()]);
    }
    let tally = {
        let target = Recorder::start_with(vec![closing, staying]).expect("a recorder");
        let options = LoadOptions { keep_alive_clients: 1, pace: Some(Duration::from_millis(20)), ..load(target.address()) };
        let load = Load::start(options);
        wait::until(DEADLINE, "three answers", || load.snapshot().requests >= 3);
        load.stop()
    };
    assert_eq!((tally.lost, tally.connections_closed_by_peer), (0, 1), "{:?}", tally.last_errors);
}

#[test]
fn refused_connections_are_lost() {
    let port = ports::free().expect("a free port");
    let options = LoadOptions { fresh_clients: 1, h2_clients: 1, ..load(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) };
    let load = Load::start(options);
    wait::until(DEADLINE, "20 losses", || load.snapshot().lost >= 20);
    assert_eq!(load.stop().last_errors.len(), 10);
}

#[test]
fn tunnels_and_downloads_arrive_whole() {
    let address = serve("v1", None);
    let tunnel = EchoTunnel::open(address, "shop.test").expect("a tunnel");
    assert_eq!(tunnel.version(), Some("v1"));
    let begun = Instant::now();
    assert_eq!(slow_download(address, "shop.test", 100_001, 200).expect("whole"), 100_001);
    assert!(begun.elapsed() >= Duration::from_millis(190));
    assert!(tunnel.stop().expect("sound") > 5);
}

#[test]
fn a_short_download_and_a_broken_tunnel_are_errors() {
    let short = Step::answer("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc");
    let target = Recorder::start(vec![Step::await_head(), short]).expect("a recorder");
    assert!(slow_download(target.address(), "shop.test", 4, 1).is_err());

    let switch = Step::answer("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    let script = vec![Step::await_head(), switch, Step::Close];
    let target = Recorder::start(script).expect("a recorder");
    let tunnel = EchoTunnel::open(target.address(), "shop.test").expect("a tunnel");
    wait::until(DEADLINE, "the tunnel broke", || tunnel.is_broken());
    assert!(tunnel.stop().is_err());
}
