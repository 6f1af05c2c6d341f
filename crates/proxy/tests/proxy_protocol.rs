//! The PROXY protocol and `X-Forwarded-*`: who is believed, and what targets are told; HAProxy on both sides.

#[allow(unused)]
mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::{Client, DEADLINE, House, Target, body, client_to, eventually, listener, routing, status};
use model::{Forwarders, IpNet, ProxyProtocol, Snapshot};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HERE: &str = "127.0.0.0/8";
const LINE: &str = "PROXY TCP4 203.0.113.9 198.51.100.7 4711 443\r\n";

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a network")).collect()
}

fn house(target: SocketAddr, headers_from: &[&str], fields_from: &[&str], tells: Option<ProxyProtocol>) -> House {
    let house = House::new(2);
    let mut routing = routing(&[("v1", 10_000)], &[("v1", &[target])]);
    routing.target_proxy_protocol = tells;
    let forwarders = Forwarders { proxy_protocol: networks(headers_from), fields: networks(fields_from) };
    let snapshot =
        Snapshot { generation: 1, services: vec![routing], forwarders: [(listener(), forwarders)].into(), ..Snapshot::default() };
    house.runtime.block_on(house.proxy.install(Arc::new(snapshot))).expect("acknowledged");
    house
}

fn refused(house: &House) -> u64 {
    let text = house.proxy.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix("changeover_proxy_protocol_refused_total "));
    line.expect("the count").parse().expect("a number")
}

#[test]
fn the_header_names_the_client_however_it_comes() {
    let target = Target::saying("here");
    let house = house(target.address, &[HERE], &[], None);
    let mut client = house.client();
    // Byte by byte, and the request in the same write as the last one.
    for byte in LINE.as_bytes() {
        client.stream.write_all(&[*byte]).expect("written");
    }
    client.send(GET);
    assert_eq!(body(&client.answer()), "here");
    client.send(GET);
    assert_eq!(status(&client.answer()), 200, "once for a connection");
    assert_eq!(target.text().matches("x-forwarded-for: 203.0.113.9\r\n").count(), 2);
    assert!(target.text().contains("x-forwarded-proto: http\r\n"));
    // Version 2, from a client that spoke TLS with the sender.
    let (source, destination) = ("[2001:db8::7]:4711".parse().expect("one"), "[2001:db8::8]:443".parse().expect("one"));
    let mut header = proxy_protocol::header(proxy_protocol::Version::V2, source, destination);
    header.extend([0x20, 0, 5, 1, 0, 0, 0, 0]);
    header[15] += 8;
    let mut client = house.client();
    client.stream.write_all(&[&header[..], GET.as_bytes()].concat()).expect("written");
    assert_eq!(body(&client.answer()), "here");
    assert!(target.text().contains("x-forwarded-for: 2001:db8::7\r\n") && target.text().contains("x-forwarded-proto: https\r\n"));
    // HTTP/2 behind it.
    let mut client = house.client();
    client.send(LINE);
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert_eq!(client.read_exact(9).as_bytes()[3], 4, "SETTINGS");
}

#[test]
fn a_check_of_the_sender_is_nobodys_connection() {
    let target = Target::saying("here");
    let house = house(target.address, &[HERE], &[], None);
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), proxy_protocol::local(proxy_protocol::Version::V2)] {
        let mut client = house.client();
        client.stream.write_all(&[&header[..], GET.as_bytes()].concat()).expect("written");
        assert_eq!(body(&client.answer()), "here");
    }
    assert_eq!(target.text().matches("x-forwarded-for: 127.0.0.1\r\n").count(), 2);
}

#[test]
fn whoever_must_say_it_and_does_not_is_closed() {
    let target = Target::saying("here");
    let house = house(target.address, &[HERE], &[], None);
    let began = Instant::now();
    let mut silent = house.client();
    for wrong in [GET, "PROXY TCP4 here there 1 2\r\n\r\n\r\n", &format!("PROXY UNKNOWN {}", "x".repeat(200))] {
        let mut client = house.client();
        client.send(wrong);
        let mut all = Vec::new();
        let _ = client.stream.read_to_end(&mut all);
        assert!(all.is_empty(), "{wrong:?}");
    }
    assert_eq!(refused(&house), 3);
    assert_eq!(silent.rest(), "");
    let waited = began.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&waited), "{waited:?}");
    assert_eq!((refused(&house), target.requests()), (4, 0));
}

#[test]
fn whoever_is_not_named_is_not_believed() {
    let target = Target::saying("here");
    let house = house(target.address, &["10.0.0.0/8"], &["10.0.0.0/8"], None);
    assert_eq!(status(&house.ask(&format!("{LINE}{GET}"))), 400, "no request");
    let claims = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\n";
    assert_eq!(status(&house.ask(&GET.replace("Host: a\r\n", &format!("Host: a\r\n{claims}")))), 200);
    let text = target.text();
    assert!(text.contains("x-forwarded-for: 127.0.0.1\r\n") && !text.contains("6.6.6.6") && !text.contains("https"), "{text}");
}

#[test]
fn whoever_is_believed_says_who_asked_before() {
    let target = Target::saying("here");
    let house = house(target.address, &[], &[HERE], None);
    let claims = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop\r\n\
                  X-Forwarded-Client-Cert: Subject=\"CN=boss\"\r\n";
    assert_eq!(status(&house.ask(&GET.replace("Host: a\r\n", &format!("Host: a\r\n{claims}")))), 200);
    let text = target.text();
    for line in ["x-forwarded-for: 6.6.6.6, 203.0.113.9, 127.0.0.1\r\n", "x-forwarded-proto: https\r\n", "x-forwarded-host: shop\r\n"] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("boss"), "who a client is by its certificate is for us to say");
    house.ask(GET);
    assert!(target.text().contains("x-forwarded-for: 127.0.0.1\r\n"));
}

/// A target that wants a header at the beginning of each connection: the headers, and how many connections there were.
fn announced(version: ProxyProtocol) -> (Target, Arc<std::sync::Mutex<Vec<String>>>) {
    let headers: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let seen = headers.clone();
    let end = if version == ProxyProtocol::V1 { b'\n' } else { 0 };
    let target = Target::new(move |message, stream| {
        if message.starts_with("PROXY ") {
            assert_eq!(end, b'\n');
            seen.lock().expect("lock").push(message.lines().next().unwrap_or_default().to_owned());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_ok()
    });
    (target, headers)
}

#[test]
fn a_connection_to_a_target_is_of_one_client() {
    let (target, headers) = announced(ProxyProtocol::V1);
    let house = house(target.address, &[], &[], Some(ProxyProtocol::V1));
    let (mut first, mut second) = (house.client(), house.client());
    for _ in 0..3 {
        for client in [&mut first, &mut second] {
            client.send(GET);
            assert_eq!(status(&client.answer()), 200);
        }
    }
    let line = |client: &Client| {
        let (own, ours) = (client.stream.local_addr().expect("one"), client.stream.peer_addr().expect("one"));
        format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}", own.port(), ours.port())
    };
    let mut seen = headers.lock().expect("lock").clone();
    seen.sort();
    let mut expect = vec![line(&first), line(&second)];
    expect.sort();
    assert_eq!(seen, expect, "one connection for each client, used again");
}

#[test]
fn clients_that_have_left_take_no_place_of_those_who_stay() {
    // More than rest at a target, on each of two threads.
    const ONCE: usize = 600;
    let (target, _) = announced(ProxyProtocol::V1);
    let house = house(target.address, &[], &[], Some(ProxyProtocol::V1));
    for _ in 0..ONCE {
        assert_eq!(status(&house.ask(GET)), 200);
    }
    let mut stays = house.client();
    for _ in 0..10 {
        stays.send(GET);
        assert_eq!(status(&stays.answer()), 200);
    }
    assert_eq!(target.connections.load(Ordering::SeqCst), ONCE + 1);
}

/// HAProxy, as it is installed for this; ended with the test.
struct Haproxy {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Haproxy {
    /// `bind`: options behind the address; `server`: options behind the target's.
    fn start(target: SocketAddr, bind: &str, server: &str) -> Self {
        if !Path::new("/usr/sbin/haproxy").exists() {
            let mut apt = Command::new("apt-get");
            apt.args(["install", "-y", "-qq", "--no-install-recommends", "haproxy"]).stdout(Stdio::null());
            assert!(apt.status().is_ok_and(|status| status.success()), "haproxy cannot be installed");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let address = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("one");
        let text = format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
             frontend main\n  bind {address} {bind}\n  default_backend next\n\
             backend next\n  option forwardfor\n  server next {target} {server}\n"
        );
        std::fs::write(folder.path().join("haproxy.cfg"), text).expect("written");
        let mut command = Command::new("/usr/sbin/haproxy");
        command
            .arg("-f")
            .arg(folder.path().join("haproxy.cfg"))
            .arg("-db")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let haproxy = Self { child: command.spawn().expect("it starts"), address, _folder: folder };
        eventually("HAProxy listens", || TcpStream::connect(address).is_ok());
        haproxy
    }

    fn ask(&self, bytes: &str) -> String {
        let mut client = client_to(self.address);
        client.stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
        client.send(bytes);
        client.answer()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn haproxy_before_us_is_understood_in_both_versions() {
    for server in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"] {
        let target = Target::saying("here");
        let house = house(target.address, &[HERE], &[HERE], None);
        // Who connects to HAProxy is passed on with the header; the field that HAProxy adds names it, too.
        let haproxy = Haproxy::start(house.address, "", server);
        assert_eq!(body(&haproxy.ask(GET)), "here", "{server}");
        assert_eq!(refused(&house), 0);
        assert!(target.text().contains("x-forwarded-for: 127.0.0.1, 127.0.0.1\r\n"), "{server}: {}", target.text());
    }
}

#[test]
fn haproxy_behind_us_understands_both_versions() {
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        let target = Target::saying("here");
        let haproxy = Haproxy::start(target.address, "accept-proxy", "");
        let house = house(haproxy.address, &[HERE], &[], Some(version));
        // A client far away, as somebody before us says: HAProxy hears of it from us.
        let mut client = house.client();
        client.send(&format!("{LINE}{GET}"));
        assert_eq!(body(&client.answer()), "here", "{version:?}");
        assert_eq!(target.text().matches("203.0.113.9").count(), 2, "from us, and from HAProxy's own header: {}", target.text());
    }
}
