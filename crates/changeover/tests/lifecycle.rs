//! What becomes of versions, requests and modes when services are superseded, restarted, stopped, removed, and when
//! changeover itself ends, crashes or comes back after a reboot.

mod house;

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use house::{DEADLINE, House, QUICK, kill_9};
use serde_json::Value;
use testbed::load::{EchoTunnel, Load, LoadOptions, slow_download};
use testbed::{ports, wait};
use tokio_tungstenite::tungstenite::{self, Message};

/// A download that takes two seconds, begun; its result comes later.
fn download(house: &House) -> mpsc::Receiver<std::io::Result<u64>> {
    let (tell, told) = mpsc::channel();
    let address = house.address;
    std::thread::spawn(move || tell.send(slow_download(address, "web.test", 100_000, 2_000)));
    wait::until(DEADLINE, "the download runs", || in_flight(house) >= 1);
    told
}

/// Requests that run now, as the metrics tell.
fn in_flight(house: &House) -> u64 {
    let text = house.good(&["metrics"]);
    let lines = text.lines().filter(|line| line.starts_with("changeover_in_flight{"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn whole(download: &mpsc::Receiver<std::io::Result<u64>>) {
    let result = download.recv_timeout(DEADLINE).expect("it ends");
    assert!(matches!(result, Ok(100_000)), "{result:?}");
}

fn load(address: SocketAddr) -> Load {
    Load::start(LoadOptions {
        keep_alive_clients: 4,
        fresh_clients: 2,
        pace: Some(Duration::from_millis(2)),
        ..LoadOptions::new(address, "web.test")
    })
}

#[test]
fn a_superseded_release_gives_its_traffic_back_and_drains_before_the_next_begins() {
    let house = House::start("25000-25099", "    strategy: { blue_green: { watch: 60s, drain: 20s } }\n");
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    let mut second =
        house.command(&["deploy", "web", "--version", "v2"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("deploy");
    wait::until(DEADLINE, "v2 is watched", || house.release()["state"] == "watching");
    let error = house.bad(&["deploy", "web", "--version", "v3"], 3);
    assert!(error.contains("already running (release 2, ") && error.contains(" ago") && error.contains("--supersede"), "{error}");
    let running = download(&house);
    let mut third = house
        .command(&["deploy", "web", "--version", "v3", "--supersede"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("deploy");
    wait::until(DEADLINE, "v1 serves meanwhile", || house.answers() == "v1");
    assert_eq!(second.wait().expect("it ends").code(), Some(2), "superseded is not promoted");
    whole(&running);
    wait::until(DEADLINE, "v3 is watched", || {
        let release = house.release();
        release["number"] == 3 && release["state"] == "watching"
    });
    assert_eq!(house.answers(), "v3");
    house.good(&["rollback", "web"]);
    assert_eq!(third.wait().expect("it ends").code(), Some(2));
    let tally = load.stop();
    assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);
}

#[test]
fn a_queued_release_begins_when_the_other_has_ended() {
    let house = House::start("25100-25199", "    strategy: { blue_green: { watch: 1s } }\n");
    house.good(&["deploy", "web", "--version", "v1"]);
    let mut second = house.command(&["deploy", "web", "--version", "v2"]).stdout(Stdio::null()).spawn().expect("deploy");
    wait::until(DEADLINE, "v2 is watched", || house.release()["state"] == "watching");
    let told = house.good(&["deploy", "web", "--version", "v3", "--queue"]);
    assert!(second.wait().expect("it ends").success());
    assert!(told.contains("web v2 → v3"), "{told}");
    assert_eq!(house.web()["confirmed"], serde_json::json!(["v1", "v2", "v3"]));
}

#[test]
fn a_retry_migrates_once() {
    let gates = "    strategy: { blue_green: { watch: 0s, gates: [{ name: db, migrate: [sh, -c, 'echo ran >> migrated'] }, { name: smoke, command: [test, -e, ready] }] } }\n";
    let house = House::start("25200-25299", gates);
    let error = house.bad(&["deploy", "web", "--version", "v1"], 1);
    assert!(error.contains("gate smoke failed: exit code 1"), "{error}");
    std::fs::write(house.folder.path().join("ready"), "").expect("written");
    house.good(&["retry", "web"]);
    assert_eq!(house.answers(), "v1");
    assert_eq!(std::fs::read_to_string(house.folder.path().join("migrated")).expect("it ran"), "ran\n");
    let error = house.bad(&["retry", "web"], 3);
    assert!(error.contains("did not fail"), "{error}");
}

#[test]
fn restart_stop_start_and_remove_lose_nothing_that_was_begun() {
    let house = House::start("25300-25399", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let before = house.pids();
    let load = house.load();
    let running = download(&house);
    house.good(&["restart", "web"]);
    whole(&running);
    assert_ne!(house.pids(), before);
    let tally = load.stop();
    assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);

    let running = download(&house);
    house.good(&["stop", "web"]);
    wait::until(DEADLINE, "new requests are refused", || house.try_answers().is_none());
    whole(&running);
    wait::until(DEADLINE, "no process is left", || house.running_versions().is_empty());
    house.good(&["start", "web"]);
    wait::until(DEADLINE, "it serves again", || house.try_answers().as_deref() == Some("v1"));

    let running = download(&house);
    house.good(&["remove", "web"]);
    whole(&running);
    wait::until(DEADLINE, "no process is left", || house.running_versions().is_empty());
    assert_eq!(house.web()["serves"], Value::Null);
    assert!(house.good(&["history", "web"]).contains("v1"), "the history stays");
    house.good(&["deploy", "web", "--version", "v1"]);
    assert_eq!(house.answers(), "v1");
}

#[test]
fn apply_adds_and_removes_services_and_listeners_under_load() {
    let house = House::start("25400-25499", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let file = house.folder.path().join("changeover.yaml");
    let alone = std::fs::read_to_string(&file).expect("the file");
    let port = ports::free().expect("a free port");
    let service = alone[alone.find("  web:").expect("web")..].replace("  web:", "  api:");
    let with_api = alone
        .replace("ports:", &format!("  side: '127.0.0.1:{port}'\nports:"))
        .replace("listeners: {", "listeners:\n ")
        .replace(" }\n  side", "\n  side");
    let with_api = format!("{with_api}{}", service.replace("    run:", "    routes: [{ listener: side }]\n    run:"));
    let with_api = with_api.replace("  web:\n", "  web:\n    routes: [{ listener: main }]\n");
    let side: SocketAddr = ([127, 0, 0, 1], port).into();
    let load = house.load();
    for _ in 0..3 {
        std::fs::write(&file, &with_api).expect("written");
        let plan = house.good(&["plan"]);
        assert!(plan.contains("+ service api") && plan.contains("+ listener side"), "{plan}");
        house.good(&["apply"]);
        house.good(&["deploy", "api", "--version", "v1"]);
        let beside = self::load(side);
        wait::until(DEADLINE, "api answers", || beside.snapshot().requests > 50);
        let tally = beside.stop();
        assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);
        // A bad file changes nothing.
        std::fs::write(&file, with_api.replace("health:", "helth:")).expect("written");
        let error = house.bad(&["apply"], 64);
        assert!(error.contains("did you mean `health`"), "{error}");
        std::fs::write(&file, &alone).expect("written");
        house.good(&["apply"]);
        wait::until(DEADLINE, "its processes are stopped", || house.running_versions().len() == 1);
        wait::until(DEADLINE, "the listener is closed", || std::net::TcpStream::connect(side).is_err());
    }
    let tally = load.stop();
    assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);
    assert_eq!(tally.connections_closed_by_peer, 0);
}

#[test]
fn hold_and_maintenance_survive_restarts_and_deploys() {
    let mut house = House::start("25500-25599", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    house.good(&["maintenance", "web"]);
    assert_eq!(house.status_of("/"), Some(503));
    house.kill_all();
    house.start_again();
    wait::until(DEADLINE, "up again", || house.status_of("/") == Some(503));
    house.good(&["deploy", "web", "--version", "v2"]);
    assert_eq!(house.status_of("/"), Some(503));
    house.good(&["maintenance", "web", "--off"]);
    assert_eq!(house.answers(), "v2");

    house.good(&["hold", "web", "--wait", "20s"]);
    house.kill_worker();
    let address = house.address;
    let waiting = std::thread::spawn(move || slow_download(address, "web.test", 10, 1));
    house.until_up();
    house.good(&["deploy", "web", "--version", "v3"]);
    assert!(!waiting.is_finished(), "it still waits");
    house.good(&["hold", "web", "--off"]);
    assert_eq!(waiting.join().expect("no panic").expect("answered after the hold"), 10);
}

#[test]
fn ctrl_c_stops_the_versions_and_sigterm_leaves_them() {
    let mut house = House::start("25600-25699", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let pids = house.pids();
    let running = download(&house);
    house.signal_up(nix::sys::signal::Signal::SIGTERM);
    whole(&running);
    house.await_end();
    assert_eq!(house.running_versions().into_iter().collect::<Vec<i64>>(), pids, "SIGTERM leaves the versions");
    house.start_again();
    wait::until(DEADLINE, "serving again", || house.try_answers().as_deref() == Some("v1"));
    assert_eq!(house.pids(), pids, "adopted");
    let running = download(&house);
    house.signal_up(nix::sys::signal::Signal::SIGINT);
    whole(&running);
    house.await_end();
    assert!(house.running_versions().is_empty(), "Ctrl-C stops the versions");
    house.start_again();
    wait::until(DEADLINE, "started again", || house.try_answers().as_deref() == Some("v1"));
}

#[test]
fn requests_that_ran_when_the_worker_was_killed_are_counted() {
    let house = House::start("25700-25799", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    wait::until(DEADLINE, "load runs", || load.snapshot().requests > 200);
    let (one, two) = (download(&house), download(&house));
    wait::until(DEADLINE, "both run", || in_flight(&house) >= 2);
    let before = load.snapshot();
    assert_eq!(before.lost, 0);
    house.kill_worker();
    house.until_up();
    for cut in [one, two] {
        assert!(cut.recv_timeout(DEADLINE).expect("it ends").is_err(), "no retry hides it");
    }
    let goes_on = load.snapshot().requests + 200;
    wait::until(DEADLINE, "load goes on", || load.snapshot().requests > goes_on);
    let tally = load.stop();
    // One request a client at most was under way; no connection was refused.
    assert!(tally.lost <= 16, "{} lost: {:?}", tally.lost, tally.last_errors);
    assert!(!tally.last_errors.iter().any(|error| error.contains("refused")), "{:?}", tally.last_errors);
    let events = house.good(&["events", "--json"]);
    let restarted = events.lines().find(|line| line.contains("worker_restarted")).expect("it is told");
    let text = serde_json::from_str::<Value>(restarted).expect("JSON")["text"].as_str().expect("text").to_owned();
    let cut: u64 = text.split_whitespace().find_map(|word| word.parse().ok()).expect("a number");
    assert!((2..=2 + 16).contains(&cut), "{text}");
    println!("killed under load: {} of {} requests lost; told: {text}", tally.lost, tally.requests);
}

#[test]
fn after_crashes_in_a_row_releases_are_paused_and_what_served_serves() {
    let house = House::start("25800-25899", "    strategy: { blue_green: { watch: 2s } }\n");
    house.good(&["deploy", "web", "--version", "v1"]);
    let mut deploy = house.command(&["deploy", "web", "--version", "v2"]).stdout(Stdio::piped()).spawn().expect("deploy");
    wait::until(DEADLINE, "v2 is watched", || house.release()["state"] == "watching");
    let crashes = || house.good(&["events", "--json"]).lines().filter(|line| line.contains("\"paused\"")).count();
    wait::until(DEADLINE, "paused", || {
        house.kill_worker();
        house.until_up();
        !house.web()["paused"].is_null()
    });
    assert!(crashes() >= 1);
    assert!(house.try_answers().is_some(), "somebody serves");
    let release = house.release();
    assert_eq!(release["state"], "watching", "the release is not driven");
    house.good(&["resume"]);
    assert!(deploy.wait().expect("it ends").success(), "it goes on where it was");
    assert_eq!(house.answers(), "v2");
}

#[test]
fn a_stranger_on_the_port_is_not_taken_for_the_version() {
    let house = House::start("25900-25999", QUICK);
    let file = house.folder.path().join("changeover.yaml");
    let text = std::fs::read_to_string(&file).expect("the file");
    // Another session answers on the port that the version was given; the version itself listens nowhere.
    let begin = text.find("command: ").expect("a command") + "command: ".len();
    let end = begin + text[begin..].find(" }").expect("its end");
    let binary = env!("CARGO_BIN_EXE_changeover");
    let command = format!("[sh, -c, 'setsid timeout 20 {binary} demo-service v1 $PORT & exec sleep 60']");
    std::fs::write(&file, format!("{}{command}{}", &text[..begin], &text[end..])).expect("written");
    house.good(&["apply"]);
    let error = house.bad(&["deploy", "web", "--version", "v1"], 1);
    assert!(error.contains("another process listens on port 259"), "{error}");
}

/// A new boot as the product sees it: another boot id, a boot clock that begins anew, no process left.
fn reboot(house: &mut House) {
    house.kill_all();
    for pid in house.running_versions() {
        kill_9(pid as i32);
    }
    let boot_id = house.folder.path().join("boot_id");
    std::fs::write(&boot_id, "00000000-0000-4000-8000-000000000001\n").expect("written");
    let up = format!("mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"", boot_id.display());
    let mut command = Command::new("unshare");
    // The boot clock goes on from two minutes before the machine's own begin, so every stored moment lies in the future.
    let uptime = std::fs::read_to_string("/proc/uptime").expect("uptime");
    let seconds: u64 = uptime.split('.').next().expect("a number").parse().expect("a number");
    let offset = format!("-{}", seconds.saturating_sub(2));
    command.args(["--mount", "--time", "--boottime", &offset, "sh", "-c", &up, "sh"]);
    house.start_again_within(command);
}

#[test]
fn a_canary_is_judged_on_after_a_reboot() {
    if !nix::unistd::getuid().is_root() {
        return eprintln!("left out, not root: a boot id of our own");
    }
    let strategy = "    strategy: { canary: { steps: [20%], dwell: 4s, watch: 0s, drain: 5s, analysis: { tolerate: { slower: 900% }, warm_up: 1s, \
        timeout_bad: 1s, budget: 5%, latency_budget: 20% } } }\n";
    let mut house = House::start("27910-27939", strategy);
    house.behaves("all", "latency_ms 20\nsigma 0.3\n");
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    let mut deploying = house.command(&["deploy", "web", "--version", "v2"]).stderr(Stdio::null()).spawn().expect("it starts");
    wait::until(DEADLINE, "it is counted", || house.release()["analysis"]["split"]["candidate"].as_u64() > Some(100));
    reboot(&mut house);
    wait::until(DEADLINE, "it goes on to its end", || (house.try_web()?["release"]["ending"]["outcome"] == "promoted").then_some(()));
    assert_eq!(house.web()["serves"], "v2");
    let _ = deploying.kill();
    let _ = deploying.wait();
    drop(load);
}

#[test]
fn after_a_reboot_the_active_version_starts_before_the_standby() {
    if !nix::unistd::getuid().is_root() {
        return eprintln!("left out, not root: a boot id of our own");
    }
    let mut house = House::start("26000-26099", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    house.good(&["deploy", "web", "--version", "v2"]);
    reboot(&mut house);
    wait::until(DEADLINE, "both are healthy", || {
        let web = house.try_web()?;
        let healthy = web["targets"].as_array()?.iter().filter(|target| target["healthy"] == true).count();
        (healthy == 2).then_some(())
    });
    assert_eq!(house.answers(), "v2");
    let web = house.web();
    let age = |version: &str| {
        let mut targets = web["targets"].as_array().into_iter().flatten();
        targets.find(|target| target["version"] == version).and_then(|target| target["since_ms"].as_u64()).expect("a target")
    };
    assert!(age("v2") > age("v1"), "the active one first: {web}");
    let left = web["rollback"]["left_ms"].as_u64().expect("hot");
    assert!(left <= 600_000, "what was left of the stay: {left} ms");
    assert!(house.good(&["rollback", "web"]).contains("it was hot"));
}

/// Of the old version, to the end of its drain: told before they are cut, and not all at once.
#[test]
fn websockets_are_told_to_come_back_before_the_drain_ends() {
    let house = House::start("29800-29899", "    strategy: { blue_green: { watch: 0s, drain: 9s } }\n");
    house.good(&["deploy", "web", "--version", "v1"]);
    let open = || {
        let stream = std::net::TcpStream::connect(house.address).expect("connect");
        stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
        let (mut socket, _) = tungstenite::client("ws://web.test/ws", stream).expect("open");
        socket.send(Message::text("hello")).expect("send");
        assert_eq!(socket.read().expect("echo"), Message::text("hello"));
        socket
    };
    let old: Vec<_> = (0..8).map(|_| open()).collect();
    let farewells = old.into_iter().map(|mut socket| {
        std::thread::spawn(move || {
            let Ok(Message::Close(Some(close))) = socket.read() else { panic!("cut without a word") };
            let told = std::time::Instant::now();
            assert_eq!(u16::from(close.code), 1012);
            // The library has answered; now the connection ends.
            assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)));
            told
        })
    });
    let farewells: Vec<_> = farewells.collect();
    let deployed = house.good(&["deploy", "web", "--version", "v2"]);
    assert!(deployed.contains("drain      all finished"), "{deployed}");
    let mut told: Vec<_> = farewells.into_iter().map(|farewell| farewell.join().expect("told")).collect();
    told.sort();
    assert!(*told.last().expect("some") - told[0] > std::time::Duration::from_millis(50), "spread out");
    open().close(None).expect("close");
}

#[test]
fn a_tunnel_lives_through_switches_until_its_drain_ends() {
    let house = House::start("26100-26199", "    strategy: { blue_green: { watch: 0s, drain: 2s } }\n");
    house.good(&["deploy", "web", "--version", "v1"]);
    let tunnel = EchoTunnel::open(house.address, "web.test").expect("open");
    let mut deploy = house.command(&["deploy", "web", "--version", "v2"]).stdout(Stdio::piped()).spawn().expect("deploy");
    wait::until(DEADLINE, "v2 serves", || house.answers() == "v2");
    let echoed = tunnel.echoed();
    wait::until(DEADLINE, "the tunnel lives on", || tunnel.echoed() > echoed + 20);
    assert!(!tunnel.is_broken());
    wait::until(DEADLINE, "the drain is over", || tunnel.is_broken());
    let mut told = String::new();
    std::io::Read::read_to_string(&mut deploy.stdout.take().expect("piped"), &mut told).expect("text");
    assert!(deploy.wait().expect("it ends").success());
    assert!(told.contains("1 cut after 2"), "the count is told: {told}");
}
