//! Services that speak any protocol: raw sockets on both sides.

#[allow(unused)]
mod common;
#[path = "common/secure.rs"]
mod secure;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use common::{DEADLINE, House, eventually, listener, routing, service, version};
use model::{Draw, Forwarders, Judged, Mode, Protocol, ProxyProtocol, ReleaseId, ServiceRouting, Snapshot, Sticky, StickyBy};
use proxy::Config;
use socket2::{Domain, SockRef, Socket, Type};

/// Hands out its end of each connection.
struct Raw {
    address: SocketAddr,
    opened: mpsc::Receiver<TcpStream>,
}

impl Raw {
    fn new() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
        let (streams, opened) = mpsc::channel();
        let address = socket.local_addr().expect("address");
        std::thread::spawn(move || socket.incoming().flatten().all(|stream| streams.send(patient(stream)).is_ok()));
        Self { address, opened }
    }

    fn next(&self) -> TcpStream {
        self.opened.recv_timeout(DEADLINE).expect("a connection")
    }
}

/// Says its name, and then what it hears.
fn echo(name: &'static str) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("address");
    std::thread::spawn(move || {
        for mut stream in socket.incoming().flatten() {
            std::thread::spawn(move || {
                stream.write_all(name.as_bytes())?;
                let mut from = stream.try_clone()?;
                std::io::copy(&mut from, &mut stream)?;
                stream.shutdown(Shutdown::Write)
            });
        }
    });
    address
}

/// Where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address")
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
    stream.set_write_timeout(Some(DEADLINE)).expect("timeout");
    stream.set_nodelay(true).expect("nodelay");
    stream
}

fn tcp(arms: &[(&str, u16)], versions: &[(&str, &[SocketAddr])]) -> ServiceRouting {
    ServiceRouting { protocol: Protocol::Tcp, ..routing(arms, versions) }
}

fn serving(targets: &[SocketAddr]) -> House {
    let house = House::new(2);
    house.install(tcp(&[("v1", 10_000)], &[("v1", targets)]));
    house
}

fn connect(house: &House) -> TcpStream {
    patient(TcpStream::connect(house.address).expect("connect"))
}

/// From an address of this machine.
fn connect_from(house: &House, address: Ipv4Addr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.bind(&SocketAddr::new(IpAddr::V4(address), 0).into()).expect("bind");
    socket.connect(&house.address.into()).expect("connect");
    patient(socket.into())
}

fn take(stream: &mut TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).expect("read");
    String::from_utf8(bytes).expect("text")
}

fn rest(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a clean end");
    text
}

/// Panics when it ends in order.
fn is_reset(stream: &mut TcpStream) {
    let error = std::io::copy(stream, &mut std::io::sink()).expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
}

fn counts(house: &House, name: &str) -> (u64, u64) {
    let counts = house.proxy.counts(&service(), &version(name));
    (counts.requests, counts.bad)
}

fn running(house: &House, name: &str) -> usize {
    house.proxy.in_flight(&service(), &version(name)).tunnels
}

#[test]
fn bytes_go_both_ways_whoever_speaks_first() {
    let house = serving(&[echo("v1")]);
    let mut client = connect(&house);
    assert_eq!(take(&mut client, 2), "v1", "the target speaks first");
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
    assert_eq!(take(&mut client, 18), "GET / HTTP/1.1\r\n\r\n", "nothing is read in it");
    assert_eq!((counts(&house, "v1"), running(&house, "v1")), ((1, 0), 1), "it counts from its opening on");
    client.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(rest(&mut client), "");
    eventually("over", || running(&house, "v1") == 0 && house.proxy.in_flight(&service(), &version("v1")).requests == 0);
    let counted = house.proxy.counts(&service(), &version("v1"));
    let it = counted.connections;
    assert_eq!((it.opened, it.unreached, it.reset, it.ended, it.bytes_up, it.bytes_down), (1, 0, 0, 1, 18, 20));
    assert_eq!((counted.requests, counted.bad, counted.heads.count(), counted.latency.count()), (1, 0, 1, 1));
    let metrics = house.proxy.metrics();
    let labels = "service=\"web\",version=\"v1\"";
    for line in [
        format!("changeover_tcp_connections_total{{{labels},result=\"opened\"}} 1"),
        format!("changeover_tcp_bytes_total{{{labels},direction=\"up\"}} 18"),
        format!("changeover_tcp_connection_duration_seconds_count{{{labels}}} 1"),
        format!("changeover_in_flight{{{labels},kind=\"tunnel\"}} 0"),
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line}");
    }
    assert!(!metrics.contains("changeover_requests_total{service"), "it has no requests");
}

#[test]
fn a_half_close_is_passed_on_each_way() {
    let raw = Raw::new();
    let house = serving(&[raw.address]);
    let (mut client, mut target) = (connect(&house), raw.next());
    client.write_all(b"all I say").expect("written");
    client.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(rest(&mut target), "all I say");
    target.write_all(b"the answer").expect("written");
    assert_eq!(take(&mut client, 10), "the answer", "it goes on the other way");
    drop(target);
    assert_eq!(rest(&mut client), "");
    let (mut client, mut target) = (connect(&house), raw.next());
    target.write_all(b"all I say").expect("written");
    target.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(rest(&mut client), "all I say");
    client.write_all(b"I still hear").expect("written");
    assert_eq!(take(&mut target, 12), "I still hear");
    drop(client);
    assert_eq!(rest(&mut target), "");
    eventually("over", || running(&house, "v1") == 0);
    assert_eq!(counts(&house, "v1"), (2, 0));
}

#[test]
fn a_slow_taker_is_felt_by_the_sender_and_nothing_is_lost() {
    const MOST: usize = 64 * 1024 * 1024;
    let raw = Raw::new();
    let house = serving(&[raw.address]);
    let (client, target) = (connect(&house), raw.next());
    for (mut sender, mut taker) in [(client.try_clone().expect("clone"), target.try_clone().expect("clone")), (target, client)] {
        sender.set_write_timeout(Some(Duration::from_millis(300))).expect("timeout");
        let block: Vec<u8> = (0..65_521_u32).map(|number| (number % 251) as u8).collect();
        let mut sent = Vec::new();
        // Until nothing more is taken: what is in between is the sockets' buffers and one of ours.
        loop {
            match sender.write(&block) {
                Ok(written) => sent.extend(&block[..written]),
                Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert!(sent.len() < MOST, "nobody took it, and it is all gone");
        }
        let mut got = vec![0; sent.len()];
        taker.read_exact(&mut got).expect("all of it");
        assert!(got == sent, "in order, and whole");
    }
}

#[test]
fn a_reset_is_passed_on_as_one() {
    let raw = Raw::new();
    let house = serving(&[raw.address]);
    let (mut client, mut target) = (connect(&house), raw.next());
    target.write_all(b"before").expect("written");
    assert_eq!(take(&mut client, 6), "before");
    reset(target);
    is_reset(&mut client);
    eventually("counted", || counts(&house, "v1") == (1, 1));
    let (client, mut target) = (connect(&house), raw.next());
    reset(client);
    is_reset(&mut target);
    eventually("over", || running(&house, "v1") == 0);
    assert_eq!(counts(&house, "v1"), (2, 1), "that the client has left says nothing about the version");
}

/// Until nobody takes more.
fn stuff(stream: &mut TcpStream) {
    stream.set_write_timeout(Some(Duration::from_millis(300))).expect("timeout");
    while stream.write(&[b'x'; 65_536]).is_ok() {}
    stream.set_write_timeout(Some(DEADLINE)).expect("timeout");
}

#[test]
fn a_target_that_is_reset_under_an_upload_is_no_clean_end() {
    let raw = Raw::new();
    let house = serving(&[raw.address]);
    let (mut client, mut target) = (connect(&house), raw.next());
    target.write_all(b"more").expect("written");
    assert_eq!(take(&mut client, 4), "more");
    stuff(&mut client);
    // It has unread input, and so the kernel resets.
    drop(target);
    is_reset(&mut client);
    eventually("counted", || counts(&house, "v1") == (1, 1) && running(&house, "v1") == 0);
}

#[test]
fn a_client_that_is_reset_behind_its_upload_is_not_waited_for() {
    let raw = Raw::new();
    let house = House::new(1);
    let mut routing = tcp(&[("v1", 10_000)], &[("v1", &[raw.address])]);
    routing.stream_idle_timeout_ms = 3_600_000;
    house.install(routing);
    let (mut client, _target) = (connect(&house), raw.next());
    stuff(&mut client);
    assert_eq!(running(&house, "v1"), 1);
    reset(client);
    eventually("it is noticed although nobody reads from it", || running(&house, "v1") == 0);
    assert_eq!(counts(&house, "v1"), (1, 0));
}

#[test]
fn a_target_that_leaves_without_a_word_has_not_served() {
    let raw = Raw::new();
    let house = serving(&[raw.address]);
    let (mut client, target) = (connect(&house), raw.next());
    drop(target);
    assert_eq!(rest(&mut client), "", "as it ended, so it is passed on");
    drop(client);
    eventually("counted", || counts(&house, "v1") == (1, 1) && running(&house, "v1") == 0);
    // A client that has nothing more to say is another thing.
    let (mut client, mut target) = (connect(&house), raw.next());
    client.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(rest(&mut target), "");
    drop(target);
    assert_eq!(rest(&mut client), "");
    eventually("over", || running(&house, "v1") == 0);
    assert_eq!(counts(&house, "v1"), (2, 1));
}

#[test]
fn what_rests_for_too_long_is_reset_and_what_moves_stays() {
    let house = House::new(1);
    let mut routing = tcp(&[("v1", 10_000)], &[("v1", &[echo("v1")])]);
    routing.stream_idle_timeout_ms = 300;
    house.install(routing);
    let (mut resting, mut moving) = (connect(&house), connect(&house));
    assert_eq!(take(&mut moving, 2), "v1");
    let begun = Instant::now();
    let rests = std::thread::spawn(move || {
        is_reset(&mut resting);
        Instant::now()
    });
    while begun.elapsed() < Duration::from_secs(1) {
        moving.write_all(b"x").expect("open");
        assert_eq!(take(&mut moving, 1), "x");
    }
    let lasted = rests.join().expect("reset") - begun;
    assert!((250..900).contains(&lasted.as_millis()), "{lasted:?}");
    is_reset(&mut moving);
    assert_eq!(counts(&house, "v1"), (2, 0));
}

#[test]
fn a_target_that_does_not_listen_is_passed_over() {
    let house = serving(&[nobody(), echo("v1")]);
    for _ in 0..40 {
        assert_eq!(take(&mut connect(&house), 2), "v1");
    }
    assert_eq!(counts(&house, "v1"), (40, 0));
    let house = serving(&[nobody(), nobody()]);
    is_reset(&mut connect(&house));
    eventually("counted", || counts(&house, "v1") == (1, 1));
    assert_eq!(house.proxy.counts(&service(), &version("v1")).connections.unreached, 1);
}

#[test]
fn the_target_with_fewer_connections_gets_the_next() {
    let (one, other) = (Raw::new(), Raw::new());
    let house = serving(&[one.address, other.address]);
    let count = |raw: &Raw, kept: &mut Vec<TcpStream>| {
        kept.extend(raw.opened.try_iter());
        kept.len()
    };
    let (mut clients, mut at_one, mut at_other) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=20 {
        clients.push(connect(&house));
        eventually("opened", || running(&house, "v1") == number);
        eventually("accepted", || count(&one, &mut at_one) + count(&other, &mut at_other) == number);
        assert!(at_one.len().abs_diff(at_other.len()) <= 1, "{} and {}", at_one.len(), at_other.len());
    }
}

#[test]
fn weights_hold_for_each_connection() {
    const CONNECTIONS: usize = 2_000;
    let house = House::new(2);
    house.install(tcp(&[("v2", 2_000), ("v1", 8_000)], &[("v2", &[echo("v2")]), ("v1", &[echo("v1")])]));
    let on_candidate = (0..CONNECTIONS).filter(|_| take(&mut connect(&house), 2) == "v2").count();
    // Outside with a probability below 10⁻⁹ (six standard deviations of 18).
    assert!((290..=510).contains(&on_candidate), "{on_candidate}");
}

#[test]
fn a_raise_only_adds_addresses() {
    let (old, new) = (echo("v1"), echo("v2"));
    let house = House::new(2);
    let mut before = Vec::new();
    for weight in [500, 2_000, 6_000] {
        let mut routing = tcp(&[("v2", weight), ("v1", 10_000 - weight)], &[("v2", &[new]), ("v1", &[old])]);
        let sticky = Sticky { by: StickyBy::Address, before: 0, window_ms: 60_000 };
        routing.draw = Some(Draw { release: ReleaseId::new("release-1").expect("name"), judged: None, sticky: Some(sticky) });
        house.install(routing);
        let is_on = |last: u8| take(&mut connect_from(&house, Ipv4Addr::new(127, 0, 1, last)), 2) == "v2";
        let on_candidate: Vec<u8> = (1..=200).filter(|last| is_on(*last)).collect();
        assert!((1..=200).filter(|last| is_on(*last)).eq(on_candidate.iter().copied()), "who is there stays");
        assert!(before.iter().all(|last| on_candidate.contains(last)), "{before:?} are not all in {on_candidate:?}");
        assert!(on_candidate.len() > before.len(), "{weight}");
        before = on_candidate;
    }
    assert!((80..=160).contains(&before.len()), "{}", before.len());
}

#[test]
fn a_switch_takes_the_next_connection_and_leaves_those_that_are() {
    let (old, new) = (echo("v1"), echo("v2"));
    let house = House::new(2);
    let versions: [(&str, &[SocketAddr]); 2] = [("v1", &[old]), ("v2", &[new])];
    house.install(tcp(&[("v1", 10_000)], &versions));
    let mut before: Vec<TcpStream> = (0..10).map(|_| connect(&house)).collect();
    before.iter_mut().for_each(|client| assert_eq!(take(client, 2), "v1"));
    house.install(tcp(&[("v2", 10_000)], &versions));
    let mut after = connect(&house);
    assert_eq!(take(&mut after, 2), "v2");
    for client in &mut before {
        client.write_all(b"still").expect("open");
        assert_eq!(take(client, 5), "still");
    }
    assert_eq!((running(&house, "v1"), running(&house, "v2")), (10, 1));
    // Its farewells are for WebSockets.
    house.proxy.end_tunnels(&service(), &version("v1"), Duration::ZERO);
    before[0].write_all(b"still").expect("open");
    assert_eq!(take(&mut before[0], 5), "still");
    assert_eq!(house.proxy.cut(&service(), &version("v1")), 10);
    before.iter_mut().for_each(is_reset);
    eventually("gone", || running(&house, "v1") == 0);
    assert_eq!(counts(&house, "v1"), (10, 0), "cut by us");
    after.write_all(b"still").expect("open");
    assert_eq!(take(&mut after, 5), "still");
}

#[test]
fn a_drain_waits_and_then_cuts_and_counts() {
    let house = serving(&[echo("v1")]);
    let mut clients: Vec<TcpStream> = (0..3).map(|_| connect(&house)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(take(client, 2), "v1"));
    let mut leaves = clients.pop().expect("three");
    let proxy = house.proxy.clone();
    let drains = house.runtime.spawn(async move { proxy.drain(Duration::ZERO, Duration::from_millis(600)).await });
    let cut = house.runtime.block_on(async {
        tokio::task::spawn_blocking(move || {
            leaves.write_all(b"served on").expect("open");
            assert_eq!(take(&mut leaves, 9), "served on");
        })
        .await
        .expect("served");
        drains.await.expect("drained")
    });
    assert_eq!(cut, 2);
    clients.iter_mut().for_each(is_reset);
}

#[test]
fn on_hold_a_connection_waits_and_in_maintenance_it_is_refused() {
    let target = echo("v1");
    let house = serving(&[target]);
    let mode = |mode: Mode| house.install(ServiceRouting { mode, ..tcp(&[("v1", 10_000)], &[("v1", &[target])]) });
    let held = || house.proxy.metrics().lines().find_map(|line| line.strip_prefix("changeover_held{service=\"web\"} ").map(str::to_owned));
    mode(Mode::Hold { wait_max_ms: 10_000, queue_max: 1 });
    let mut waits = connect(&house);
    waits.write_all(b"early").expect("written");
    eventually("held", || held().as_deref() == Some("1"));
    is_reset(&mut connect(&house));
    mode(Mode::Serve);
    assert_eq!(take(&mut waits, 7), "v1early");
    eventually("given back", || held().as_deref() == Some("0"));
    // Whoever says all that it has and leaves is heard, as it would be without a hold.
    mode(Mode::Hold { wait_max_ms: 10_000, queue_max: 2 });
    let (mut leaves, gives_up) = (connect(&house), connect(&house));
    leaves.write_all(b"a line of a log").expect("written");
    leaves.shutdown(Shutdown::Write).expect("shut down");
    eventually("held", || held().as_deref() == Some("2"));
    reset(gives_up);
    eventually("it has left", || held().as_deref() == Some("1"));
    mode(Mode::Serve);
    assert_eq!(rest(&mut leaves), "v1a line of a log");
    mode(Mode::Hold { wait_max_ms: 50, queue_max: 1 });
    is_reset(&mut connect(&house));
    mode(Mode::Maintenance { page: "later".into() });
    is_reset(&mut connect(&house));
    waits.write_all(b"open").expect("open");
    assert_eq!(take(&mut waits, 4), "open", "what stands is not touched");
}

#[test]
fn the_judge_hears_of_a_reset_on_the_arm_that_was_drawn() {
    let (candidate, stable) = (Raw::new(), Raw::new());
    let house = House::new(1);
    let mut routing = tcp(&[("v2", 5_000), ("v1", 5_000)], &[("v2", &[candidate.address]), ("v1", &[stable.address])]);
    let release = ReleaseId::new("release-1").expect("name");
    let judged = Judged { epoch: 7, closing_s: 30, timeout_bad_ms: 30_000, thresholds: Vec::new() };
    routing.draw = Some(Draw { release: release.clone(), judged: Some(judged), sticky: None });
    house.install(routing);
    let mut clients: Vec<TcpStream> = (0..40).map(|_| connect(&house)).collect();
    eventually("opened", || running(&house, "v1") + running(&house, "v2") == 40);
    let sum =
        |of: fn(&proxy::CellCounts) -> u64| -> u64 { house.proxy.cells(&release, 0).map_or(0, |(_, cells)| cells.iter().map(of).sum()) };
    eventually("judged before they end", || sum(|it| it.candidate.answering + it.stable.answering) == 40);
    // Each says a word first: that it ends without one is another case.
    let ends: Vec<TcpStream> = candidate.opened.try_iter().collect();
    let on_candidate = ends.len() as u64;
    assert!((1..40).contains(&on_candidate), "{on_candidate}");
    for mut end in ends {
        end.write_all(b"x").expect("written");
        reset(end);
    }
    eventually("counted", || sum(|it| it.candidate.bad[0]) == on_candidate);
    assert_eq!(sum(|it| it.stable.bad[0]), 0);
    clients.clear();
    eventually("over", || sum(|it| it.candidate.ended + it.stable.ended) == 40);
    assert_eq!(sum(|it| it.candidate.bad[0] + it.stable.bad[0]), on_candidate);
}

#[test]
fn the_log_has_a_line_for_each_at_its_end() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("access.log");
    let log = model::AccessLog { scope: model::AccessLogScope::All, format: model::AccessLogFormat::Json };
    let house = House::with(Config { threads: 1, access_log: Some((log, path.clone())), black_box: None });
    let raw = Raw::new();
    house.install(tcp(&[("v1", 10_000)], &[("v1", &[raw.address])]));
    let lines = || std::fs::read_to_string(&path).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();
    let (mut client, mut target) = (connect(&house), raw.next());
    client.write_all(b"12345").expect("written");
    assert_eq!(take(&mut target, 5), "12345");
    target.write_all(b"123").expect("written");
    assert_eq!(take(&mut client, 3), "123");
    drop((client, target));
    eventually("a line", || lines().len() == 1);
    let line = &lines()[0];
    for part in ["\"protocol\":\"TCP\"", "\"service\":\"web\",\"version\":\"v1\"", "\"bytes\":3,\"received\":5,"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!line.contains("reason") && !line.contains("status"), "{line}");
    let (mut client, mut target) = (connect(&house), raw.next());
    // Reset before we have seen that it accepted, it would be one that did not.
    client.write_all(b"1").expect("written");
    assert_eq!(take(&mut target, 1), "1");
    reset(target);
    eventually("a line", || lines().len() == 2);
    assert!(lines()[1].contains("\"reason\":\"target_reset\""), "{}", lines()[1]);
}

#[test]
fn the_header_of_the_proxy_protocol_goes_in_and_out() {
    let raw = Raw::new();
    let house = House::new(1);
    let mut routing = tcp(&[("v1", 10_000)], &[("v1", &[raw.address])]);
    routing.target_proxy_protocol = Some(ProxyProtocol::V1);
    let forwarders = Forwarders { proxy_protocol: vec!["127.0.0.0/8".parse().expect("a network")], fields: Vec::new() };
    let snapshot = Snapshot { services: vec![routing], forwarders: [(listener(), forwarders)].into(), ..Snapshot::default() };
    house.runtime.block_on(house.proxy.install(Arc::new(snapshot))).expect("acknowledged");
    for line in ["PROXY TCP4 203.0.113.9 198.51.100.7 4711 443\r\n", "PROXY TCP4 203.0.113.10 198.51.100.7 4712 443\r\n"] {
        let mut client = connect(&house);
        client.write_all(format!("{line}hello").as_bytes()).expect("written");
        let mut target = raw.next();
        assert_eq!(take(&mut target, line.len() + 5), format!("{line}hello"), "each connection has its own");
    }
}

#[test]
fn a_client_of_ipv4_is_one_also_at_a_listener_of_both_families() {
    let raw = Raw::new();
    let house = House::new(1);
    let mut routing = tcp(&[("v1", 10_000)], &[("v1", &[raw.address])]);
    routing.target_proxy_protocol = Some(ProxyProtocol::V1);
    house.install(routing);
    let both = TcpListener::bind("[::]:0").expect("bind");
    let port = both.local_addr().expect("address").port();
    house.proxy.listen(&listener(), both).expect("listen");
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
    let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {port}\r\n", client.local_addr().expect("address").port());
    assert_eq!(take(&mut raw.next(), line.len()), line);
}

#[test]
fn the_listener_speaks_tls_and_leaves_the_protocol_to_its_clients() {
    let raw = Raw::new();
    let target = common::Target::saying("unused");
    let secured = secure::Secure::of(House::new(1), &target, &["a.test"]);
    let services = vec![tcp(&[("v1", 10_000)], &[("v1", &[raw.address])])];
    let snapshot = Snapshot { services, tls: [(listener(), secured.settings.clone())].into(), ..Snapshot::default() };
    secured.house.runtime.block_on(secured.house.proxy.install(Arc::new(snapshot))).expect("acknowledged");
    let mut config = (*secure::certificates::fresh(secured.authority.anonymous())).clone();
    for offered in [vec![b"mqtt".to_vec()], vec![b"h2".to_vec()], Vec::new()] {
        config.alpn_protocols = offered;
        let mut client = secure::connect(&secured.house, &Arc::new(config.clone()), "a.test");
        assert_eq!(client.stream.conn.alpn_protocol(), None);
        let mut target = raw.next();
        target.write_all(b"hello").expect("written");
        assert_eq!(client.read_exact(5), "hello");
        client.send("in clear");
        assert_eq!(take(&mut target, 8), "in clear");
        client.stream.conn.send_close_notify();
        client.stream.flush().expect("flushed");
        assert_eq!(rest(&mut target), "", "its word for the end is an end");
        target.write_all(b"bye").expect("written");
        drop(target);
        assert_eq!(client.read_exact(3), "bye");
        assert_eq!(client.stream.read(&mut [0; 1]).expect("a clean end"), 0);
    }
    // Without that word, it is none.
    let client = secure::connect(&secured.house, &Arc::new(config), "a.test");
    let mut target = raw.next();
    drop(client);
    is_reset(&mut target);
}
