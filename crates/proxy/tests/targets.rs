//! Targets that fail, and which requests are sent again; hold, preview, tunnels, HTTP/2, drain.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{GET, House, Target, body, eventually, listener, reason, routing, service, status, version};
use model::Mode;

/// An address where nobody listens: bound once, then closed.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address")
}

#[test]
fn a_refused_connect_goes_to_another_target_for_every_method() {
    let target = Target::saying("ok");
    let house = House::new(1);
    house.install(routing(&[("v1", 10_000)], &[("v1", &[nobody(), target.address, nobody()])]));
    for _ in 0..20 {
        assert_eq!(status(&house.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")), 200);
    }
    assert_eq!(target.requests(), 20);
    assert_eq!(house.proxy.counts(&service(), &version("v1")).bad, 0);
}

#[test]
fn when_nobody_listens_the_answer_says_so() {
    let house = House::new(1);
    house.install(routing(&[("v1", 10_000)], &[("v1", &[nobody()])]));
    let answer = house.ask(GET);
    assert_eq!((status(&answer), reason(&answer)), (502, "connect_failed"));
    assert!(answer.contains("hint: "), "{answer}");
    assert_eq!(house.proxy.counts(&service(), &version("v1")).bad, 1);
    house.install(routing(&[], &[]));
    assert_eq!(reason(&house.ask(GET)), "nothing_deployed");
}

/// Answers the first request of a connection, reads the second and closes without a byte.
fn closes_on_the_second() -> Target {
    let asked = AtomicUsize::new(0);
    Target::new(move |_, stream| {
        if asked.fetch_add(1, Ordering::SeqCst) == 1 {
            return false;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_ok()
    })
}

#[test]
fn a_get_on_a_reused_line_is_sent_again_once_and_a_post_never() {
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    for (request, expect, requests) in [(GET, 200, 3), (post, 502, 2)] {
        let target = closes_on_the_second();
        let house = House::serving(&target);
        let mut client = house.client();
        client.send(GET);
        assert_eq!(status(&client.answer()), 200);
        client.send(request);
        assert_eq!(status(&client.answer()), expect);
        assert_eq!(target.requests(), requests, "{request}");
    }
}

#[test]
fn a_target_that_never_answers_is_a_504() {
    let target = Target::new(|_, _| {
        loop {
            std::thread::park()
        }
    });
    let house = House::new(1);
    let mut given = routing(&[("v1", 10_000)], &[("v1", &[target.address])]);
    given.response_header_timeout_ms = 200;
    house.install(given);
    let answer = house.ask(GET);
    assert_eq!((status(&answer), reason(&answer)), (504, "response_timeout"));
}

#[test]
fn a_stalled_answer_is_broken_off() {
    let target = Target::new(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n").expect("write");
        loop {
            std::thread::park()
        }
    });
    let house = House::new(1);
    let mut given = routing(&[("v1", 10_000)], &[("v1", &[target.address])]);
    given.stream_idle_timeout_ms = 200;
    house.install(given);
    let mut client = house.client();
    client.send(GET);
    let answer = client.rest();
    assert!(answer.contains("hi") && !answer.ends_with("0\r\n\r\n"), "{answer:?}");
}

#[test]
fn held_requests_are_released_to_the_new_version() {
    let (old, new) = (Target::saying("old"), Target::saying("new"));
    let house = House::new(2);
    let versions: &[(&str, &[SocketAddr])] = &[("v1", &[old.address]), ("v2", &[new.address])];
    let mut held = routing(&[("v1", 10_000)], versions);
    held.mode = Mode::Hold { wait_max_ms: 10_000, queue_max: 3 };
    house.install(held);
    let mut clients: Vec<_> = (0..3).map(|_| house.client()).collect();
    clients.iter_mut().for_each(|client| client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"));
    eventually("all wait", || house.proxy.metrics().contains("changeover_held{service=\"web\"} 3\n"));
    assert_eq!(reason(&house.ask(GET)), "hold_full");
    house.install(routing(&[("v2", 10_000)], versions));
    for mut client in clients {
        assert_eq!(body(&client.answer()), "new");
    }
    assert_eq!(old.requests(), 0);
}

#[test]
fn a_hold_ends_after_its_time_and_maintenance_shows_its_page() {
    let target = Target::saying("ok");
    let house = House::new(1);
    let mut given = routing(&[("v1", 10_000)], &[("v1", &[target.address])]);
    given.mode = Mode::Hold { wait_max_ms: 30, queue_max: 1 };
    house.install(given.clone());
    let answer = house.ask(GET);
    assert_eq!((status(&answer), reason(&answer)), (504, "hold_timeout"));
    given.mode = Mode::Maintenance { page: "<h1>back soon</h1>".into() };
    house.install(given);
    let answer = house.ask(GET);
    assert_eq!((status(&answer), reason(&answer), body(&answer)), (503, "maintenance", "<h1>back soon</h1>"));
    assert_eq!(target.requests(), 0);
}

#[test]
fn a_preview_is_reached_by_host_and_by_field_and_by_nobody_else() {
    let (old, new) = (Target::saying("old"), Target::saying("new"));
    let house = House::new(1);
    let versions: &[(&str, &[SocketAddr])] = &[("v1", &[old.address]), ("v2", &[new.address]), ("v3", &[new.address])];
    let mut given = routing(&[("v1", 10_000)], versions);
    given.previews = vec![model::Preview { version: version("v2"), host: "v2.web.localhost".into() }];
    house.install(given);
    let check = |fields: &str, expect: &str| {
        let answer = house.ask(&format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"));
        let got = if status(&answer) == 200 { body(&answer) } else { reason(&answer) };
        assert_eq!(got, expect, "{fields}");
    };
    check("Host: a", "old");
    check("Host: V2.web.localhost:8080", "new");
    check("Host: a\r\nx-changeover-version: v2", "new");
    check("Host: a\r\nx-changeover-version: v1", "old");
    check("Host: a\r\nx-changeover-version: v3", "no_such_version");
}

fn echo() -> Target {
    Target::new(|head, stream| {
        if !head.to_ascii_lowercase().contains("upgrade: websocket") {
            return stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno").is_ok();
        }
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello").expect("write");
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..read]).expect("write");
        }
        false
    })
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn a_tunnel_survives_a_switch_and_is_cut_on_demand() {
    let (old, new) = (echo(), Target::saying("new"));
    let house = House::new(1);
    let versions: &[(&str, &[SocketAddr])] = &[("v1", &[old.address]), ("v2", &[new.address])];
    house.install(routing(&[("v1", 10_000)], versions));
    let mut client = house.client();
    client.send(&format!("{UPGRADE}early"));
    assert_eq!(status(&client.read_until("\r\n\r\n")), 101);
    assert_eq!(client.read_exact(10), "helloearly");
    house.install(routing(&[("v2", 10_000)], versions));
    client.send("ping");
    assert_eq!(client.read_exact(4), "ping");
    let in_flight = house.proxy.in_flight(&service(), &version("v1"));
    assert_eq!((in_flight.requests, in_flight.tunnels), (0, 1));
    assert_eq!(house.proxy.cut(&service(), &version("v1")), 1);
    assert_eq!(client.rest(), "");
    eventually("gone", || house.proxy.in_flight(&service(), &version("v1")).tunnels == 0);
}

#[test]
fn a_drain_waits_for_tunnels_and_cuts_them_at_its_limit() {
    let target = echo();
    let house = House::serving(&target);
    let mut client = house.client();
    client.send(&format!("{UPGRADE}ping"));
    client.read_until("helloping");
    assert_eq!(house.runtime.block_on(house.proxy.drain(Duration::ZERO, Duration::from_millis(200))), 1);
    assert_eq!(client.rest(), "");
}

#[test]
fn a_client_that_half_closes_is_still_answered() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let mut client = house.client();
    client.send(GET);
    client.stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
    assert_eq!(body(&client.answer()), "ok");
}

#[test]
fn a_refused_upgrade_stays_http() {
    let target = Target::saying("no");
    let house = House::serving(&target);
    let mut client = house.client();
    client.send(&format!("{UPGRADE}{GET}"));
    assert_eq!(body(&client.answer()), "no");
    assert_eq!(body(&client.answer()), "no");
    assert_eq!(target.requests(), 2);
    assert_eq!(house.proxy.in_flight(&service(), &version("v1")).tunnels, 0);
}

#[test]
fn every_answer_of_a_drain_says_close_and_idle_connections_get_their_grace() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let (mut fresh, mut idle, mut silent) = (house.client(), house.client(), house.client());
    idle.send(GET);
    assert!(!idle.answer().contains("connection: close"));
    let proxy = house.proxy.clone();
    let began = Instant::now();
    let drain = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(proxy.drain(Duration::from_millis(300), common::DEADLINE))
    });
    eventually("drain has begun", || house.ask(GET).contains("connection: close"));
    for client in [&mut fresh, &mut idle] {
        client.send(GET);
        assert!(client.answer().contains("connection: close"));
        assert_eq!(client.rest(), "");
    }
    house.proxy.unlisten(&listener());
    assert_eq!(silent.rest(), "");
    assert!(began.elapsed() >= Duration::from_millis(300), "an idle connection is kept for its grace");
    assert_eq!(drain.join().expect("drain"), 0);
}

#[test]
fn a_drain_cuts_what_does_not_end() {
    let target = Target::new(|_, _| {
        loop {
            std::thread::park()
        }
    });
    let house = House::serving(&target);
    let mut client = house.client();
    client.send(GET);
    eventually("it arrives", || target.requests() == 1);
    assert_eq!(house.runtime.block_on(house.proxy.drain(Duration::ZERO, Duration::from_millis(50))), 1);
    assert_eq!(client.rest(), "");
}

#[test]
fn unlisten_leaves_the_socket_to_others() {
    let target = Target::saying("ok");
    let house = House::serving(&target);
    let mut client = house.client();
    client.send(GET);
    assert_eq!(status(&client.answer()), 200);
    house.proxy.unlisten(&listener());
    // The same thread handles the next request after the command, so from here on it does not accept.
    client.send(GET);
    assert_eq!(status(&client.answer()), 200);
    let other = proxy::Proxy::start(proxy::Config { threads: 1, access_log: None, black_box: None }).expect("start");
    let given = routing(&[("v1", 10_000)], &[("v1", &[target.address])]);
    let snapshot = std::sync::Arc::new(model::Snapshot { generation: 1, services: vec![given], ..model::Snapshot::default() });
    house.runtime.block_on(other.install(snapshot)).expect("acknowledged");
    let mut waiting = house.client();
    waiting.send(GET);
    other.listen(&listener(), house.socket.try_clone().expect("clone")).expect("listen");
    assert_eq!(status(&waiting.answer()), 200);
}

#[test]
fn metrics_and_access_log_tell_what_happened() {
    let target = Target::saying("ok");
    let folder = std::env::temp_dir().join(format!("proxy-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let file = folder.join("access.log");
    let settings = model::AccessLog { scope: model::AccessLogScope::All, format: model::AccessLogFormat::Json };
    let house = House::with(proxy::Config { threads: 1, access_log: Some((settings, file.clone())), black_box: None });
    assert_eq!(reason(&house.ask(GET)), "no_route");
    house.install(routing(&[("v1", 10_000)], &[("v1", &[target.address])]));
    house.ask("GET /x?y=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let has = |text: &str| house.proxy.metrics().contains(text);
    eventually("counted", || has("changeover_requests_total{service=\"web\",version=\"v1\",code=\"2xx\"} 1"));
    assert!(has("changeover_made_answers_total{reason=\"no_route\"} 1"));
    let log = || std::fs::read_to_string(&file).unwrap_or_default();
    eventually("logged", || log().lines().count() == 2);
    assert!(log().contains(r#""reason":"no_route""#) && log().contains(r#""path":"/x?y=1""#), "{}", log());
    std::fs::remove_dir_all(&folder).expect("remove");
}
