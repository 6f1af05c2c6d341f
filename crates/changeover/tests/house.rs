//! The whole house: the built binary, real processes, real load. Nothing is lost.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::load::{Load, LoadOptions};
use testbed::{ports, wait};

const BINARY: &str = env!("CARGO_BIN_EXE_changeover");
const DEADLINE: Duration = Duration::from_secs(30);

/// A running changeover with one service `web`; ended, with its processes, when dropped.
struct House {
    folder: tempfile::TempDir,
    address: SocketAddr,
    up: Option<Child>,
    crash_at: Option<String>,
}

impl House {
    fn start(ports: &str, extra: &str) -> Self {
        Self::start_with(ports, extra, None)
    }

    /// `crash_at`: where the first worker ends itself, as `kill -9` does.
    fn start_with(ports: &str, extra: &str, crash_at: Option<&str>) -> Self {
        let port = ports::free().expect("a free port");
        let house = Self {
            folder: tempfile::tempdir().expect("a folder"),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            up: None,
            crash_at: crash_at.map(str::to_owned),
        };
        let orders = house.folder.path().join("orders");
        let text = format!(
            "listeners: {{ main: '{}' }}\nports: {ports}\nservices:\n  web:\n    run: {{ command: ['{BINARY}', demo-service, '{{version}}', '{{port}}', --record, '{}'] }}\n    \
             health: {{ path: /healthz, interval: 100ms, rise: 2, start_timeout: 5s }}\n{extra}",
            house.address,
            orders.display(),
        );
        std::fs::write(house.folder.path().join("changeover.yaml"), text).expect("the file");
        let mut house = house;
        house.up = Some(house.spawn_up());
        wait::until(DEADLINE, "changeover is up", || house.run(&["status"]).status.success());
        house
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.current_dir(self.folder.path()).args(args).env("DEMO_UNHEALTHY", "bad").stdin(Stdio::null());
        command
    }

    fn spawn_up(&self) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("up.log")).expect("a log");
        let mut up = self.command(&["up"]);
        if let Some(point) = &self.crash_at {
            up.env("CHANGEOVER_CRASH_AT", point);
        }
        up.stderr(log.try_clone().expect("a copy")).stdout(log).spawn().expect("up starts")
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("it runs")
    }

    /// Runs a command that must succeed; its standard output.
    fn good(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {:?}\n{err}", output.status);
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command that must fail with this code; its standard error.
    fn bad(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {err}");
        err
    }

    fn web(&self) -> Value {
        let status: Value = serde_json::from_str(&self.good(&["status", "--json"])).expect("JSON");
        status["services"][0].clone()
    }

    fn pids(&self) -> Vec<i64> {
        self.web()["targets"].as_array().into_iter().flatten().filter_map(|target| target["pid"].as_i64()).collect()
    }

    fn load(&self) -> Load {
        Load::start(LoadOptions {
            keep_alive_clients: 8,
            fresh_clients: 2,
            h2_clients: 2,
            post_clients: 4,
            pace: Some(Duration::from_millis(2)),
            ..LoadOptions::new(self.address, "web.test")
        })
    }

    fn worker_pid(&self) -> i32 {
        let up = self.up.as_ref().expect("up runs").id();
        let children = std::fs::read_to_string(format!("/proc/{up}/task/{up}/children")).expect("children");
        let is_worker = |pid: &i32| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains("\0worker\0"))
        };
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is_worker).expect("a worker")
    }

    fn orders(&self) -> Vec<String> {
        let text = std::fs::read_to_string(PathBuf::from(self.folder.path()).join("orders")).unwrap_or_default();
        text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
        if let Some(mut up) = self.up.take() {
            let _ = up.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default());
        }
    }
}

const QUICK: &str = "    strategy: { blue_green: { watch: 0s, drain: 10s } }\n";

fn kill_9(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("it lives");
}

#[test]
fn switches_under_load_lose_nothing_and_each_order_arrives_once() {
    let house = House::start("22000-22099", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    wait::until(DEADLINE, "load runs", || load.snapshot().requests > 200);
    for number in 2..8 {
        let version = format!("v{number}");
        house.good(&["deploy", "web", "--version", &version]);
        let old = format!("v{}", number - 1);
        let answered = Instant::now();
        wait::until(DEADLINE, "the new version answers", || load.last_started_on(&version));
        assert!(load.last_started_on(&old).is_none_or(|last| last <= answered), "{old} got a request after the answer");
        if number % 2 == 0 {
            let rolled = house.good(&["rollback", "web"]);
            assert!(rolled.contains("it was hot"), "{rolled}");
            wait::until(DEADLINE, "the rollback is over", || (house.web()["release"]["ending"]["outcome"] == "promoted").then_some(()));
        }
    }
    let tally = load.stop();
    assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);
    assert_eq!(tally.by_version.values().sum::<u64>(), tally.requests);
    assert_eq!(tally.connections_closed_by_peer, 0, "a switch closes no client connection");
    let (mut orders, mut posted) = (house.orders(), tally.posted);
    orders.sort();
    posted.sort();
    assert_eq!(orders, posted, "each order exactly once");
}

#[test]
fn a_version_that_never_becomes_healthy_changes_nothing() {
    let house = House::start("22100-22199", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let error = house.bad(&["deploy", "web", "--version", "bad"], 1);
    assert!(error.contains("did not become healthy within 5 s"), "{error}");
    assert!(error.contains("/healthz → 500"), "{error}");
    assert_eq!(house.web()["serves"], "v1");
}

#[test]
fn a_killed_worker_comes_back_and_touches_no_version() {
    let house = House::start("22200-22299", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let pids = house.pids();
    let worker = house.worker_pid();
    kill_9(worker);
    // The socket stays open: the kernel queues, the next worker answers.
    let answer = testbed::load::slow_download(house.address, "web.test", 1000, 10);
    assert!(answer.is_ok(), "{answer:?}");
    wait::until(DEADLINE, "the API is back", || house.run(&["status"]).status.success());
    assert_ne!(house.worker_pid(), worker);
    assert_eq!(house.pids(), pids, "the version's process is the same");
}

#[test]
fn everything_killed_and_started_again_adopts_what_runs() {
    let mut house = House::start("22300-22399", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let pids = house.pids();
    let worker = house.worker_pid();
    let mut up = house.up.take().expect("up runs");
    kill_9(up.id() as i32);
    kill_9(worker);
    up.wait().expect("it ended");
    house.up = Some(house.spawn_up());
    wait::until(DEADLINE, "serving again", || {
        (house.run(&["status"]).status.success() && house.web()["healthy"] == 1).then_some(())
    });
    assert_eq!(house.pids(), pids, "adopted, not started twice");
}

#[test]
fn mistakes_say_what_to_do() {
    let house = House::start("22400-22499", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let check = |args: &[&str], code: i32, wanted: &str| {
        let error = house.bad(args, code);
        assert!(error.contains(wanted), "{args:?} said: {error}");
    };
    check(&["deploy", "wbe", "--version", "v2"], 64, "there is: web");
    check(&["deploy", "web", "--version", "v1"], 3, "serves already");
    check(&["deploy", "web", "--version", "../x"], 64, "cannot be the name of a version");
    check(&["rollback", "web"], 3, "no other confirmed version");
    check(&["rollback", "web", "--to", "v9"], 64, "was never confirmed");
    check(&["up"], 3, "changeover apply");
    check(&["--state-dir", "nowhere", "status"], 1, "changeover up");
    check(&["--file", "nowhere.yaml", "check"], 64, "changeover init");
}

/// The release is driven to the state, the worker is killed there, and the release goes on where it was.
fn crash(state: &str, point: &str, ports: &str) {
    let manual = "    strategy: { blue_green: { promotion: manual, watch: 200ms, gates: [{ name: db, migrate: [sh, -c, 'echo ran >> migrated'] }] } }\n";
    let auto = "    strategy: { blue_green: { watch: 200ms, gates: [{ name: db, migrate: [sh, -c, 'echo ran >> migrated'] }] } }\n";
    let aborts = match state {
        "starting" | "gating" | "switching" | "draining" | "watching" | "ended" => None,
        "awaiting_promotion" => Some(false),
        "retiring" => Some(true),
        // Only a candidate that serves is returned from.
        "returning" => Some(true),
        other => panic!("state `{other}` has no crash test"),
    };
    let strategy = match (state, aborts) {
        ("returning", _) => &auto.replace("200ms", "10s"),
        (_, Some(_)) => manual,
        (_, None) => auto,
    };
    let house = House::start_with(ports, strategy, Some(&format!("2/{state}:{point}")));
    house.good(&["deploy", "web", "--version", "v1"]);
    let worker = house.worker_pid();
    let deploy = house.command(&["deploy", "web", "--version", "v2"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut deploy = deploy.expect("deploy starts");
    let now = || house.run(&["status", "--json"]).stdout;
    let release = || serde_json::from_slice::<Value>(&now()).map(|it| it["services"][0]["release"].clone()).unwrap_or_default();
    let aimed = if state == "returning" { "watching" } else { "awaiting_promotion" };
    if let Some(abort) = aborts {
        wait::until(DEADLINE, "the release waits", || release()["state"] == aimed);
        let verb = if abort { "abort" } else { "promote" };
        // The command may die with the worker, before it was carried out; it is idempotent.
        wait::until(DEADLINE, "the command is carried out", || {
            house.run(&[verb, "web"]);
            release()["number"] == 2 && release()["state"] != aimed
        });
    }
    // A command that died before its release was kept is given again, as a person would.
    wait::until(DEADLINE, &format!("the release ends, {state}:{point}"), || {
        if deploy.try_wait().expect("a child").is_some() && release()["number"] == 1 {
            deploy = house.command(&["deploy", "web", "--version", "v2"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("deploy");
        }
        release()["number"] == 2 && !release()["ending"].is_null()
    });
    let _ = deploy.wait();
    let expected = if aborts == Some(true) { ("v1", "aborted") } else { ("v2", "promoted") };
    let web = house.web();
    assert_eq!((web["serves"].as_str(), web["release"]["ending"]["outcome"].as_str()), (Some(expected.0), Some(expected.1)), "{state}:{point}");
    assert_ne!(house.worker_pid(), worker, "{state}:{point}: the worker was never killed there");
    // Once for each of the two releases.
    let migrated = std::fs::read_to_string(house.folder.path().join("migrated")).unwrap_or_default();
    assert_eq!(migrated, "ran\nran\n", "{state}:{point}");
}

#[test]
fn a_worker_killed_at_every_transition_goes_on_where_it_was() {
    let mut cases = Vec::new();
    for state in release::State::NAMES {
        for point in ["before", "persisted", "performed"] {
            cases.push((state, point));
        }
    }
    // Four at a time: two cores.
    let cases = std::sync::Arc::new(std::sync::Mutex::new(cases.into_iter().enumerate()));
    let threads: Vec<_> = (0..4).map(|_| {
        let cases = cases.clone();
        std::thread::spawn(move || {
            loop {
                let next = cases.lock().expect("not poisoned").next();
                let Some((number, (state, point))) = next else { return };
                let first = 23_000 + number * 20;
                crash(state, point, &format!("{first}-{}", first + 19));
            }
        })
    }).collect();
    for thread in threads {
        thread.join().expect("every crash is survived");
    }
}
