//! TCP services in the whole house: Redis, and a service of our own, replaced while their connections are used.

mod house;

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use house::{DEADLINE, House};
use serde_json::Value;
use testbed::wait;

/// A real server that keeps what it is told in memory; it says its version when asked for `replica-announce-ip`.
fn redis(ports: &str, strategy: &str) -> House {
    House::of(&format!(
        "listeners: {{ cache: '{{address}}' }}\nports: {ports}\nservices:\n  cache:\n    protocol: tcp\n    \
         run: {{ command: [redis-server, --port, '{{port}}', --bind, 127.0.0.1, --save, '', --appendonly, 'no', --replica-announce-ip, '{{version}}'] }}\n    \
         health: {{ interval: 100ms, rise: 2, start_timeout: 10s }}\n    strategy: {strategy}\n"
    ))
}

/// One connection, in Redis' own protocol (RESP2).
struct Redis {
    stream: BufReader<TcpStream>,
}

impl Redis {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The last line of the answer, without its kind.
    fn ask(&mut self, words: &[&str]) -> io::Result<String> {
        let mut text = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| text += &format!("${}\r\n{word}\r\n", word.len()));
        self.stream.get_mut().write_all(text.as_bytes())?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let (kind, rest) = line.trim_end().split_at(1);
        match kind {
            "+" | ":" => Ok(rest.to_owned()),
            "$" => {
                let length: usize = rest.parse().map_err(io::Error::other)?;
                let mut bytes = vec![0; length + 2];
                self.stream.read_exact(&mut bytes)?;
                Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
            }
            "*" => (0..rest.parse::<usize>().map_err(io::Error::other)?).try_fold(String::new(), |_, _| self.answer()),
            _ => Err(io::Error::other(line)),
        }
    }

    fn version(&mut self) -> io::Result<String> {
        self.ask(&["CONFIG", "GET", "replica-announce-ip"])
    }
}

/// Clients that count with Redis: each connection has a key of its own, and every answer must be the next number.
struct Counting {
    stop: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    commands: Arc<AtomicUsize>,
    lost: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Counting {
    /// So many clients, whose connections last for so many commands.
    fn start(address: SocketAddr, lengths: &[usize]) -> Self {
        let mut all =
            Self { stop: Arc::default(), connections: Arc::default(), commands: Arc::default(), lost: Arc::default(), threads: Vec::new() };
        for (client, length) in lengths.iter().copied().enumerate() {
            let (stop, connections, commands, lost) = (all.stop.clone(), all.connections.clone(), all.commands.clone(), all.lost.clone());
            all.threads.push(std::thread::spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let key = format!("{client}:{number}");
                    if let Err(error) = count(address, &key, length, &commands) {
                        lost.lock().expect("lock").push(format!("{key}: {error}"));
                    }
                    connections.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        all
    }

    fn stop(self) -> (usize, usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        let lost = self.lost.lock().expect("lock").clone();
        (self.connections.load(Ordering::Relaxed), self.commands.load(Ordering::Relaxed), lost)
    }
}

fn count(address: SocketAddr, key: &str, length: usize, commands: &AtomicUsize) -> io::Result<()> {
    let mut redis = Redis::connect(address)?;
    for expected in 1..=length {
        let got = redis.ask(&["INCR", key])?;
        commands.fetch_add(1, Ordering::Relaxed);
        if got != expected.to_string() {
            return Err(io::Error::other(format!("{got} instead of {expected}")));
        }
        // Long ones outlast a switch.
        if length > 1 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    redis.ask(&["QUIT"]).map(drop)
}

#[test]
fn redis_is_switched_twenty_times_under_load_and_no_connection_is_lost() {
    let house = redis("26500-26599", "{ blue_green: { watch: 0s, drain: 30s } }");
    house.good(&["deploy", "cache", "--version", "v0"]);
    // Of 2 ms a command: up to 0.8 s, and as short as it can be.
    let load = Counting::start(house.address, &[400, 300, 200, 100, 50, 20, 1, 1]);
    wait::until(DEADLINE, "load runs", || load.commands.load(Ordering::Relaxed) > 500);
    for number in 1..=20 {
        let version = format!("v{number}");
        let told = house.good(&["deploy", "cache", "--version", &version]);
        assert!(!told.contains("cut after"), "{told}");
        let met = Redis::connect(house.address).and_then(|mut redis| redis.version()).expect("an answer");
        assert_eq!(met, version);
    }
    let (connections, commands, lost) = load.stop();
    eprintln!("{connections} connections, {commands} commands, {} lost", lost.len());
    assert!(lost.is_empty(), "{lost:?}");
    assert!(connections > 200 && commands > 2_000, "{connections} connections, {commands} commands");
}

#[test]
fn open_connections_stay_and_new_ones_go_to_the_new_version_also_at_a_rollback() {
    let house = redis("26600-26629", "{ blue_green: { watch: 0s, drain: 1h } }");
    house.good(&["deploy", "cache", "--version", "v1"]);
    let mut old: Vec<Redis> = (0..5).map(|_| Redis::connect(house.address).expect("open")).collect();
    old.iter_mut().for_each(|redis| assert_eq!(redis.version().expect("open"), "v1"));
    let version_now = || Redis::connect(house.address).and_then(|mut redis| redis.version()).expect("an answer");
    std::thread::scope(|scope| {
        let deploy = scope.spawn(|| house.good(&["deploy", "cache", "--version", "v2"]));
        wait::until(DEADLINE, "v2 serves", || version_now() == "v2");
        // What is open is counted when the drain begins.
        wait::until(DEADLINE, "v1 drains", || house.release()["state"] == "draining");
        old.iter_mut().for_each(|redis| assert_eq!(redis.version().expect("it stays"), "v1"));
        assert!(!deploy.is_finished(), "it waits for what is open");
        old.clear();
        let told = deploy.join().expect("deployed");
        assert!(told.contains("5 open on the old version (they may stay for 60 min)"), "{told}");
        assert!(told.contains("all finished in"), "{told}");
        assert!(!told.contains("preview"), "{told}");
    });
    let mut stays = Redis::connect(house.address).expect("open");
    assert_eq!(stays.version().expect("open"), "v2");
    house.good(&["rollback", "cache"]);
    assert_eq!(version_now(), "v1");
    assert_eq!(stays.version().expect("it stays"), "v2");
    drop(stays);
    wait::until(DEADLINE, "the rollback is over", || house.release()["ending"]["outcome"] == "promoted");
    assert_eq!(house.web()["protocol"], "tcp");
}

#[test]
fn what_stays_too_long_is_cut_and_counted() {
    let house = redis("26630-26659", "{ blue_green: { watch: 0s, drain: 1s } }");
    house.good(&["deploy", "cache", "--version", "v1"]);
    let mut old: Vec<Redis> = (0..3).map(|_| Redis::connect(house.address).expect("open")).collect();
    old.iter_mut().for_each(|redis| assert_eq!(redis.version().expect("open"), "v1"));
    let told = house.good(&["deploy", "cache", "--version", "v2"]);
    assert!(told.contains("drain      3 connections cut after 1"), "{told}");
    for redis in &mut old {
        let error = redis.answer().expect_err("cut");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
}

#[test]
fn on_hold_new_connections_wait() {
    let house = redis("26660-26689", "{ blue_green: { watch: 0s, drain: 1s } }");
    house.good(&["deploy", "cache", "--version", "v1"]);
    let mut open = Redis::connect(house.address).expect("open");
    assert_eq!(open.version().expect("open"), "v1");
    house.good(&["hold", "cache"]);
    assert!(house.good(&["status"]).contains("hold, new connections wait"));
    assert_eq!(open.version().expect("what is open goes on"), "v1");
    let address = house.address;
    let waits = std::thread::spawn(move || Redis::connect(address).and_then(|mut redis| redis.version()));
    let metrics = || house.good(&["metrics"]);
    wait::until(DEADLINE, "it waits", || metrics().contains("changeover_held{service=\"cache\"} 1"));
    house.good(&["hold", "cache", "--off"]);
    assert_eq!(waits.join().expect("no panic").expect("served"), "v1");
}

/// Answers a line with its version; `bad` resets the connection instead.
const LINES: &str = r#"
import socket, struct, sys, threading
port, version = int(sys.argv[1]), sys.argv[2]
server = socket.create_server(("127.0.0.1", port), backlog=128)
def serve(client):
    try:
        while client.recv(64):
            if version == "bad":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                break
            client.sendall(version.encode() + b"\n")
    except OSError:
        pass
    client.close()
while True:
    threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()
"#;

#[test]
fn a_canary_that_resets_connections_is_rolled_back_by_itself() {
    let house = House::of(
        "listeners: { lines: '{address}' }\nports: 26690-26719\nservices:\n  lines:\n    protocol: tcp\n    \
         run: { command: [python3, lines.py, '{port}', '{version}'] }\n    health: { interval: 100ms, rise: 2, start_timeout: 10s }\n    \
         strategy: { canary: { steps: [20%], dwell: 2s, watch: 1s, drain: 2s, keep: 0s } }\n",
    );
    std::fs::write(house.folder.path().join("lines.py"), LINES).expect("written");
    house.good(&["deploy", "lines", "--version", "v1"]);
    let (stop, address) = (AtomicBool::new(false), house.address);
    let (good, bad) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"who\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    };
    let (error, rolled_back) = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let count = if ask().is_ok_and(|line| line == "v1\n") { &good } else { &bad };
                    count.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let ended = house.run(&["deploy", "lines", "--version", "bad"]);
        let told = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
        let (code, since) = (ended.status.code(), bad.load(Ordering::Relaxed));
        let began = Instant::now();
        // Nobody is sent there any more.
        wait::until(DEADLINE, "served by v1 again", || good.load(Ordering::Relaxed) > 0 && began.elapsed() > Duration::from_millis(300));
        let after = bad.load(Ordering::Relaxed) - since;
        stop.store(true, Ordering::Relaxed);
        ((code, told), after)
    });
    let (code, told) = error;
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("20 % of new connections go to bad") && told.contains("connections"), "{told}");
    let ending: Value = house.release()["ending"].clone();
    assert_eq!(ending["outcome"], "rolled_back", "{ending}");
    assert!(rolled_back <= 4, "{rolled_back} failed after it was taken back");
    assert!(bad.load(Ordering::Relaxed) > 0 && good.load(Ordering::Relaxed) > bad.load(Ordering::Relaxed));
}

#[test]
fn an_upgrade_of_changeover_leaves_open_connections() {
    let house = redis("26720-26749", "{ blue_green: { watch: 0s, drain: 1s } }");
    house.good(&["deploy", "cache", "--version", "v1"]);
    let mut open = Redis::connect(house.address).expect("open");
    assert_eq!(open.ask(&["INCR", "a"]).expect("open"), "1");
    house.good(&["upgrade"]);
    assert_eq!(open.ask(&["INCR", "a"]).expect("it stays with the worker before"), "2");
    let mut new = Redis::connect(house.address).expect("open");
    assert_eq!(new.ask(&["INCR", "a"]).expect("open"), "3", "the same target");
}

#[test]
fn the_file_is_explained() {
    let house = redis("26750-26779", "{ blue_green: { watch: 0s, drain: 90s } }");
    let told = house.good(&["check"]);
    assert!(told.contains("service cache: whatever comes to listener cache") && told.contains("at most 90s (`drain`)"), "{told}");
    assert!(house.good(&["deploy", "cache", "--version", "v1", "--dry-run"]).contains("all new connections at once"));
}
