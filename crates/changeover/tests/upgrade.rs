//! changeover replaces itself under every kind of client: nothing is lost, and a binary that is no good changes nothing.

mod house;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use house::upgrades::HANG_MAX;
use house::{DEADLINE, House, QUICK, kill_9};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testbed::load::{EchoTunnel, Load, LoadOptions, slow_download};
use testbed::wait;
use tokio_tungstenite::tungstenite::{self, Message};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: web.test\r\n\r\n";

/// The head and the body of an answer that has a length.
fn answer(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut byte = [0; 1];
    while !text.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).expect("an answer");
        text.push(byte[0] as char);
    }
    let length = text.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    stream.read_exact(&mut body).expect("a body");
    text + &String::from_utf8_lossy(&body)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
    stream
}

fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(REQUEST).expect("written");
    answer(stream)
}

fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

/// Returns when no thread of it runs any more.
fn stop(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("it lives");
    let is_stopped = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    let tasks = || std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").flatten();
    wait::until(DEADLINE, "all threads have stopped", || tasks().all(is_stopped));
}

/// Keeps doing something of its own until it is dropped; how often it was done, or how it failed.
struct Background {
    ends: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Background {
    fn start(mut act: impl FnMut() + Send + 'static) -> Self {
        let (ends, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ending, counting) = (ends.clone(), count.clone());
        let thread = std::thread::spawn(move || {
            while !ending.load(Ordering::Acquire) {
                act();
                counting.fetch_add(1, Ordering::AcqRel);
            }
        });
        Self { ends, count, thread: Some(thread) }
    }

    fn stop(mut self) -> u64 {
        self.ends.store(true, Ordering::Release);
        self.thread.take().expect("once").join().expect("nothing was lost");
        self.count.load(Ordering::Acquire)
    }
}

/// A client that talks over a WebSocket, and comes back when it is told to, never cut.
fn talks(address: SocketAddr) -> impl FnMut() + Send + 'static {
    move || {
        let (mut socket, _) = tungstenite::client("ws://web.test/ws", connect(address)).expect("open");
        for number in 0.. {
            let text = format!("message {number}");
            if socket.send(Message::text(text.clone())).is_err() {
                panic!("cut while talking");
            }
            match socket.read() {
                Ok(Message::Text(echo)) => assert_eq!(echo.as_str(), text),
                Ok(Message::Close(Some(close))) => {
                    assert_eq!(u16::from(close.code), 1012);
                    return;
                }
                other => panic!("{other:?}"),
            }
            if number > 400 {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// An upload of 64 kB that takes more than a second.
fn uploads(address: SocketAddr) -> impl FnMut() + Send + 'static {
    move || {
        let mut stream = connect(address);
        stream.write_all(b"PUT /upload HTTP/1.1\r\nhost: web.test\r\ncontent-length: 65536\r\n\r\n").expect("written");
        for _ in 0..32 {
            stream.write_all(&[b'x'; 2048]).expect("written");
            std::thread::sleep(Duration::from_millis(40));
        }
        let answer = answer(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// A client that rests for a second between two requests, on one connection for as long as the peer keeps it.
fn rests(address: SocketAddr) -> impl FnMut() + Send + 'static {
    let mut stream = connect(address);
    move || {
        let answer = ask(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        if answer.contains("connection: close") {
            stream = connect(address);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// 6 upgrades; `CHANGEOVER_LONG=1` makes 50, and downloads of 1 GiB.
#[test]
fn upgrades_in_a_row_lose_nothing() {
    let long = std::env::var_os("CHANGEOVER_LONG").is_some();
    let (cycles, megabytes) = if long { (50, 1_024) } else { (6, 64) };
    let house = House::start("29900-29949", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    house.good(&["upgrade", "--drain", "10s"]);
    house.only_one_worker();
    let before = (descriptors(house.keeper_pid()), descriptors(house.worker_pid()));
    let load = Load::start(LoadOptions {
        keep_alive_clients: 32,
        fresh_clients: 4,
        h2_clients: 4,
        post_clients: 8,
        pace: Some(Duration::from_millis(10)),
        ..LoadOptions::new(house.address, "web.test")
    });
    let address = house.address;
    let download = move || {
        let bytes = megabytes * 1024 * 1024;
        assert_eq!(slow_download(address, "web.test", bytes, 3_000).expect("whole"), bytes);
    };
    let others = [
        ("WebSocket talks", Background::start(talks(address))),
        ("uploads", Background::start(uploads(address))),
        ("requests after a rest", Background::start(rests(address))),
        ("downloads", Background::start(download)),
    ];
    wait::until(DEADLINE, "load runs", || load.snapshot().requests > 500);
    for _ in 0..cycles {
        // A machine has memory for some workers, not for fifty.
        wait::until(HANG_MAX, "most of the workers before have ended", || house.workers().len() <= 5);
        let seen = load.snapshot().requests;
        house.good(&["upgrade", "--drain", "10s"]);
        wait::until(DEADLINE, "clients go on", || load.snapshot().requests > seen + 100);
    }
    let counts: Vec<String> = others.into_iter().map(|(what, background)| format!("{} {what}", background.stop())).collect();
    let tally = load.stop();
    assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);
    let (mut orders, mut posted) = (house.orders(), tally.posted);
    orders.sort();
    posted.sort();
    assert_eq!(orders, posted, "each order exactly once");
    house.only_one_worker();
    house.good(&["upgrade"]);
    house.only_one_worker();
    // A line to a target, or somebody who asks just now, may have one for a moment.
    wait::until(DEADLINE, "no more descriptors than before", || {
        descriptors(house.keeper_pid()) == before.0 && descriptors(house.worker_pid()) <= before.1
    });
    let cut = house.events().lines().filter(|line| line.contains("worker_retired") && !line.contains("had finished")).count();
    assert_eq!(cut, 0, "{}", house.events());
    println!("{cycles} upgrades, {} requests, {} orders, {}: 0 lost", tally.requests, orders.len(), counts.join(", "));
}

#[test]
fn connections_that_rest_or_are_fresh_get_their_next_request_answered() {
    let house = House::start("29950-29979", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let mut fresh: Vec<TcpStream> = (0..20).map(|_| connect(house.address)).collect();
    let mut resting: Vec<TcpStream> = (0..20).map(|_| connect(house.address)).collect();
    for stream in &mut resting {
        assert!(!ask(stream).contains("connection: close"));
    }
    let old = house.worker_pid();
    house.good(&["upgrade"]);
    assert_ne!(house.worker_pid(), old);
    for stream in fresh.iter_mut().chain(&mut resting) {
        let answer = ask(stream);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello from v1"), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "it is told to come back elsewhere: {answer}");
    }
    house.only_one_worker();
}

#[test]
fn connections_that_wait_for_a_stopped_worker_are_all_served() {
    let mut house = House::start("29980-29999", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let queue = |house: &House| -> Vec<TcpStream> {
        let streams = (0..100).map(|_| {
            let mut stream = connect(house.address);
            stream.write_all(REQUEST).expect("written");
            stream
        });
        streams.collect()
    };
    let served = |streams: Vec<TcpStream>| {
        for mut stream in streams {
            assert!(answer(&mut stream).ends_with("hello from v1"));
        }
    };
    // An upgrade that is asked for meanwhile begins when the worker goes on.
    let old = house.worker_pid();
    stop(old);
    house.signal_up(Signal::SIGHUP);
    let waiting = queue(&house);
    kill(Pid::from_raw(old), Signal::SIGCONT).expect("continued");
    served(waiting);
    wait::until(DEADLINE, "it is upgraded", || house.events().contains(" upgraded: "));
    house.only_one_worker();
    // One that is killed.
    let old = house.worker_pid();
    stop(old);
    let waiting = queue(&house);
    kill_9(old);
    served(waiting);
    house.until_up();
    house.good(&["down"]);
    house.await_end();
}

#[test]
fn a_binary_that_panics_or_refuses_the_state_changes_nothing_and_says_why() {
    let house = House::start("30000-30029", "    strategy: { blue_green: { watch: 1h, drain: 10s } }\n");
    house.good(&["deploy", "web", "--version", "v1"]);
    let mut deploy =
        house.command(&["deploy", "web", "--version", "v2"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    wait::until(DEADLINE, "v2 is watched", || house.release()["state"] == "watching");
    let load = house.load();
    let worker = house.worker_pid();
    let newer = "if test -n \"$CHANGEOVER_UPGRADE_COPY\"; then python3 -c 'import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute(\"PRAGMA \
                 user_version=99\")' \"$CHANGEOVER_UPGRADE_COPY/state.db\"; fi";
    let broken = "if test -n \"$CHANGEOVER_UPGRADE_COPY\"; then python3 -c 'import sqlite3, sys; base = sqlite3.connect(sys.argv[1]); \
                  base.execute(\"UPDATE kept SET value = 1 WHERE key LIKE \\\"service/%\\\"\"); base.commit()' \"$CHANGEOVER_UPGRADE_COPY/state.db\"; fi";
    let quits = "test \"$1\" = worker && exit 3";
    for (name, lines, why) in [
        ("panics", "export CHANGEOVER_UPGRADE_FAULT=panic@checking", "it panicked: "),
        ("newer", newer, "written by a newer changeover (format 99)"),
        ("broken", broken, "it does not understand what is kept as `service/web`"),
        ("quits", quits, "with exit status 3"),
        ("panics-late", "export CHANGEOVER_UPGRADE_FAULT=panic@taking", "it panicked: "),
        ("dies-late", "export CHANGEOVER_UPGRADE_FAULT=kill@taking", "killed by signal 9"),
    ] {
        let error = house.upgrade_fails(&house.wrapper(name, lines));
        assert!(error.contains(why) && error.contains("all is as it was"), "{name}: {error}");
        assert_eq!(house.workers(), [worker], "{name}");
        assert_eq!(house.release()["state"], "watching", "{name}");
    }
    house.wrapper("not", "echo 'nothing'; exit 0");
    std::fs::write(house.folder.path().join("text"), "no program").expect("written");
    for (name, why) in [("not", "is no changeover"), ("nowhere", "is not there"), ("text", "may not be executed"), (".", "is no file")] {
        let error = house.bad(&["upgrade", "--binary", name], 64);
        assert!(error.contains(why) && error.contains("nothing was changed"), "{error}");
    }
    // It still does all that it did.
    let seen = load.snapshot().requests;
    wait::until(DEADLINE, "clients go on", || load.snapshot().requests > seen + 100);
    let tally = load.stop();
    assert_eq!((tally.lost, tally.connections_closed_by_peer), (0, 0), "{:?}", tally.last_errors);
    house.good(&["rollback", "web"]);
    assert_eq!(house.answers(), "v1");
    assert_eq!(deploy.wait().expect("it ends").code(), Some(2), "a deploy that is followed sees its end");
    house.good(&["upgrade"]);
    assert_ne!(house.worker_pid(), worker);
}

#[test]
fn a_binary_that_hangs_is_given_up() {
    let houses = [("30030-30039", "checking", "it was not ready within 30s"), ("30040-30049", "taking", "it did not serve within 20s")];
    let tries = houses.map(|(ports, phase, why)| {
        std::thread::spawn(move || {
            let house = House::start(ports, QUICK);
            house.good(&["deploy", "web", "--version", "v1"]);
            let (load, worker) = (house.load(), house.worker_pid());
            let hangs = house.wrapper("hangs", &format!("export CHANGEOVER_UPGRADE_FAULT=hang@{phase}"));
            let error = house.upgrade_fails(&hangs);
            assert!(error.contains(why), "{error}");
            assert_eq!(house.workers(), [worker]);
            let tally = load.stop();
            assert_eq!((tally.lost, tally.connections_closed_by_peer), (0, 0), "{:?}", tally.last_errors);
            house.good(&["deploy", "web", "--version", "v2"]);
        })
    });
    for hang in tries {
        hang.join().expect("given up");
    }
}

#[test]
fn a_release_goes_on_in_the_next_worker_and_a_tunnel_stays_until_its_drain_ends() {
    let house = House::start("30050-30079", "    strategy: { blue_green: { watch: 3s, drain: 10s } }\n");
    house.good(&["deploy", "web", "--version", "v1"]);
    let mut deploy = house.command(&["deploy", "web", "--version", "v2"]).stdout(Stdio::null()).spawn().expect("it runs");
    wait::until(DEADLINE, "v2 is watched", || house.release()["state"] == "watching");
    let tunnel = EchoTunnel::open(house.address, "web.test").expect("open");
    // Long enough to be seen alive, also on a machine that is busy.
    house.good(&["upgrade", "--drain", "6s"]);
    let echoed = tunnel.echoed();
    wait::until(DEADLINE, "the tunnel lives on", || tunnel.echoed() > echoed + 5);
    assert!(deploy.wait().expect("it ends").success());
    assert_eq!(house.answers(), "v2");
    wait::until(DEADLINE, "the tunnel is cut", || tunnel.is_broken());
    house.only_one_worker();
    wait::until(DEADLINE, "the count is told", || house.events().contains("1 of its connections were cut"));
}

/// What systemd would be told.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn hear(&self) -> String {
        let mut buffer = [0; 512];
        let length = self.socket.recv(&mut buffer).expect("a word");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

#[test]
fn a_service_manager_gives_the_sockets_and_is_told_what_happens() {
    let mut house = House::start("30080-30099", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    house.good(&["down", "--keep-versions"]);
    house.await_end();
    let path = house.folder.path().join("notify");
    let manager = Manager { socket: UnixDatagram::bind(&path).expect("bound"), path };
    manager.socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
    // Queued before anybody runs, as with socket activation.
    let listener = TcpListener::bind(house.address).expect("bound");
    let mut early = connect(house.address);
    early.write_all(REQUEST).expect("written");
    let mut command = Command::new("sh");
    command.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"", "sh"]).env("NOTIFY_SOCKET", &manager.path);
    let number: RawFd = listener.as_raw_fd();
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(move || if libc_dup2(number, 3) < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) });
    }
    house.start_again_within(command);
    drop(listener);
    let up = house.keeper_pid();
    assert_eq!(manager.hear(), format!("READY=1\nMAINPID={up}"));
    assert!(answer(&mut early).ends_with("hello from v1"), "the socket that was given, never another one");
    let binary = format!("/proc/{up}/exe");
    house.signal_up(Signal::SIGHUP);
    assert!(manager.hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(manager.hear(), format!("READY=1\nMAINPID={up}"), "the same process");
    wait::until(DEADLINE, "the keeper has replaced itself", || {
        std::fs::read(format!("/proc/{up}/cmdline")).is_ok_and(|line| line.starts_with(b"changeover\0keeper-resume\0"))
    });
    assert!(std::fs::read_link(binary).is_ok());
    assert_eq!(house.answers(), "v1");
    // A binary that is no good is a reload that failed, and the service is up.
    house.good(&["upgrade"]);
    assert!(manager.hear().starts_with("RELOADING=1\n"));
    assert!(manager.hear().starts_with("READY=1\n"));
    house.upgrade_fails(&house.wrapper("panics", "export CHANGEOVER_UPGRADE_FAULT=panic@checking"));
    assert!(manager.hear().starts_with("RELOADING=1\n"));
    assert!(manager.hear().starts_with("READY=1\n"));
    house.good(&["down"]);
    assert_eq!(manager.hear(), "STOPPING=1");
    house.await_end();
}

/// Also what a restart by the manager leaves alone: processes of versions (`KillMode`).
#[test]
fn the_unit_for_systemd_is_sound() {
    let contrib = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../contrib");
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(contrib.join("changeover.service")).expect("the unit");
    let program = folder.path().join("changeover");
    std::fs::copy(env!("CARGO_BIN_EXE_changeover"), &program).expect("a program");
    // It is not installed where the unit says.
    let unit = folder.path().join("changeover.service");
    std::fs::write(&unit, text.replace("/usr/local/bin/changeover", program.to_str().expect("text"))).expect("written");
    std::fs::copy(contrib.join("changeover.socket"), folder.path().join("changeover.socket")).expect("copied");
    let verified =
        Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&unit).arg(folder.path().join("changeover.socket")).output();
    let verified = verified.expect("systemd-analyze is installed");
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && said.is_empty(), "{said}");
    for line in ["Type=notify", "ExecReload=/bin/kill -HUP $MAINPID", "KillMode=process", "Restart=always"] {
        assert!(text.lines().any(|it| it == line), "{line}");
    }
}

unsafe extern "C" {
    #[link_name = "dup2"]
    fn libc_dup2(old: RawFd, new: RawFd) -> i32;
}
