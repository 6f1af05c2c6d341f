//! Upgrades when something else happens at the same time: another upgrade, a command, a death, an end; and files that are replaced.

mod house;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use house::upgrades::another_file;
use house::{DEADLINE, House, QUICK, kill_9};
use nix::sys::signal::Signal;
use testbed::load::{Load, LoadOptions};
use testbed::wait;

const BINARY: &str = env!("CARGO_BIN_EXE_changeover");

#[test]
fn another_file_takes_over_and_the_way_back_is_the_same() {
    let house = House::start("29200-29207", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let next = house.folder.path().join("changeover-next");
    another_file(&next);
    let (keeper, versions, load) = (house.keeper_pid(), house.running_versions(), house.load());
    for file in [next.as_path(), Path::new(BINARY), next.as_path()] {
        house.good(&["upgrade", "--drain", "1s", "--binary", file.to_str().expect("text")]);
        house.whole_house_runs(file);
    }
    assert_eq!((house.keeper_pid(), house.running_versions()), (keeper, versions), "the same keeper, the same children");
    let status: serde_json::Value = serde_json::from_str(&house.good(&["status", "--json"])).expect("JSON");
    assert_eq!(status["changeover"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["changeover"]["pid"], house.worker_pid());
    let tally = load.stop();
    assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);
}

/// Links are how versions are installed beside each other; a file that is installed over the running one has its name, and the running one none.
#[test]
fn the_name_counts_that_it_was_started_by() {
    let mut house = House::start("29208-29211", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    house.good(&["down", "--keep-versions"]);
    house.await_end();
    let (link, next) = (house.folder.path().join("current"), house.folder.path().join("next"));
    std::os::unix::fs::symlink(BINARY, &link).expect("linked");
    let mut within = Command::new("sh");
    within.args(["-c", "shift; exec \"$0\" \"$@\""]).arg(&link);
    house.start_again_within(within);
    house.until_up();
    house.whole_house_runs(Path::new(BINARY));

    another_file(&next);
    std::os::unix::fs::symlink(&next, house.folder.path().join("current.new")).expect("linked");
    std::fs::rename(house.folder.path().join("current.new"), &link).expect("renamed");
    house.signal_up(Signal::SIGHUP);
    house.whole_house_runs(&next);

    // Installed over it; and before that something that is no good.
    let bad = house.wrapper("bad", "export CHANGEOVER_UPGRADE_FAULT=panic@taking");
    std::fs::rename(bad, &next).expect("installed");
    assert!(house.bad(&["upgrade"], 1).contains("it panicked"));
    another_file(&next);
    let before = house.worker_pid();
    house.good(&["upgrade", "--drain", "1s"]);
    house.whole_house_runs(&next);
    assert_ne!(house.worker_pid(), before);
    assert_eq!(house.answers(), "v1");
    let events = house.events();
    assert!(!events.contains("worker_restarted"), "nothing has crashed: {events}");
}

/// What is installed is tried by an upgrade, never by a crash.
#[test]
fn a_worker_that_crashes_is_started_again_from_the_file_that_ran() {
    let mut house = House::start("29216-29217", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    house.good(&["down", "--keep-versions"]);
    house.await_end();
    let installed = house.folder.path().join("installed");
    another_file(&installed);
    let mut within = Command::new("sh");
    within.args(["-c", "shift; exec \"$0\" \"$@\""]).arg(&installed);
    house.start_again_within(within);
    house.until_up();
    for upgraded in [false, true] {
        let bad = house.wrapper("bad", "exit 1");
        std::fs::rename(bad, &installed).expect("installed");
        let before = house.worker_pid();
        kill_9(before);
        wait::until(DEADLINE, "another one serves", || house.workers().iter().any(|pid| *pid != before));
        house.until_up();
        assert_eq!(house.answers(), "v1");
        another_file(&installed);
        if !upgraded {
            house.good(&["upgrade", "--drain", "1s"]);
            house.whole_house_runs(&installed);
        }
    }
}

#[test]
fn a_second_upgrade_at_the_same_time_is_refused_and_harms_the_first_one_nothing() {
    let house = House::start("29218-29221", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let slow = house.slow_successor();
    let mut first = house.command(&["upgrade", "--binary"]);
    let first = first.arg(&slow).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let beside = house.beside();
    let error = house.bad(&["upgrade"], 3);
    assert!(error.contains("another upgrade is under way"), "{error}");
    house.signal_up(Signal::SIGHUP);
    let log = house.folder.path().join("up.log");
    wait::until(DEADLINE, "the keeper says so", || std::fs::read_to_string(&log).unwrap_or_default().contains("SIGHUP changes nothing"));
    std::fs::remove_file(house.folder.path().join("wait")).expect("removed");
    let first = first.wait_with_output().expect("it ends");
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert_eq!(house.worker_pid(), beside);
    // And the next one may come.
    house.good(&["upgrade", "--binary", BINARY]);
    assert!(!house.events().contains("upgrade_failed"), "{}", house.events());
}

/// Whoever got through to the API gets an answer, if only that nothing was done; and whoever did not knows it.
fn ask_the_api(house: &House) {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::os::unix::net::UnixStream::connect(house.state_dir().join("api.sock")) else { return };
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
    // As much as a busy machine may put between the two.
    std::thread::sleep(Duration::from_millis(20));
    stream.write_all(b"POST /v1/plan HTTP/1.1\r\nhost: local\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 "), "cut: {answer}");
}

#[test]
fn commands_meanwhile_wait_and_are_carried_out_once() {
    let house = House::start("29230-29239", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let (ends, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let acts = |commands: &[&[&str]]| {
        while !ends.load(Ordering::Acquire) {
            commands.iter().for_each(|command| drop(house.good(command)));
            done.fetch_add(1, Ordering::AcqRel);
        }
    };
    std::thread::scope(|scope| {
        let switches = scope.spawn(|| {
            let mut times = 0;
            while !ends.load(Ordering::Acquire) {
                house.good(&["maintenance", "web"]);
                house.good(&["maintenance", "web", "--off"]);
                times += 1;
            }
            times
        });
        scope.spawn(|| acts(&[&["plan"]]));
        for _ in 0..4 {
            scope.spawn(|| {
                while !ends.load(Ordering::Acquire) {
                    ask_the_api(&house);
                }
            });
        }
        let upgrades = || {
            for _ in 0..5 {
                let seen = done.load(Ordering::Acquire);
                house.good(&["upgrade", "--drain", "1s"]);
                wait::until(DEADLINE, "commands go on", || done.load(Ordering::Acquire) > seen + 3);
            }
        };
        let upgraded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(upgrades));
        ends.store(true, Ordering::Release);
        upgraded.expect("upgraded");
        let times = switches.join().expect("each was carried out");
        assert_eq!(house.events().matches("maintenance (").count(), times, "each once");
    });
}

/// Its answer waits for clients of the old process, and they for a download.
#[test]
fn a_restart_that_is_under_way_goes_on_and_is_not_done_twice() {
    let house = House::start("29240-29249", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let old = house.pids();
    let download = house.download();
    let mut restart = house.command(&["restart", "web"]);
    let restart = restart.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    wait::until(DEADLINE, "the other process serves", || house.pids().len() == 2);
    house.good(&["upgrade"]);
    let restart = restart.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&restart.stderr).into_owned();
    assert!(restart.status.success() || said.contains("it was begun"), "{said}");
    assert_eq!(download.join().expect("no panic").expect("whole"), 1_000_000);
    wait::until(DEADLINE, "one process is left, another one", || house.running_versions().len() == 1 && house.pids() != old);
    assert_eq!(house.answers(), "v1");
    assert_eq!(house.events().matches(" restarted: ").count(), 1, "{}", house.events());
}

/// Who rests on a connection of the worker before is served by it, and it follows what is deployed and restarted meanwhile.
#[test]
fn the_worker_before_follows_what_happens_to_versions() {
    let house = House::start("29250-29259", "    strategy: { blue_green: { watch: 0s, drain: 3s, standby: 0s } }\n");
    house.good(&["deploy", "web", "--version", "v1"]);
    let resting = || {
        let mut stream = std::net::TcpStream::connect(house.address).expect("connect");
        stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
        assert!(exchange(&mut stream).contains("hello from v1"));
        stream
    };
    let mut rests: Vec<_> = (0..4).map(|_| resting()).collect();
    house.good(&["upgrade"]);
    assert_eq!(house.workers().len(), 2);
    house.good(&["restart", "web"]);
    assert!(exchange(&mut rests[0]).contains("hello from v1"));
    house.good(&["deploy", "web", "--version", "v2"]);
    wait::until(DEADLINE, "only v2 runs", || house.running_versions().len() == 1);
    assert_eq!(house.workers().len(), 2, "the worker before has clients still");
    assert!(exchange(&mut rests[1]).contains("hello from v2"), "it was told");
    drop(rests);
    house.only_one_worker();
}

/// With clients that stay on workers before, and processes that are gone at once when their drain is over.
#[test]
fn upgrades_deploys_and_restarts_in_turn_lose_nothing() {
    let house = House::start("29295-29299", "    strategy: { blue_green: { watch: 0s, drain: 2s, standby: 0s } }\n");
    house.good(&["deploy", "web", "--version", "v0"]);
    // A client that asks at every pace of these: also on connections that their worker keeps only for a while.
    let paces = [Duration::from_millis(5), Duration::from_millis(500), Duration::from_secs(5)];
    let loads = paces.map(|pace| {
        Load::start(LoadOptions {
            keep_alive_clients: 8,
            fresh_clients: 1,
            h2_clients: 4,
            post_clients: 4,
            pace: Some(pace),
            ..LoadOptions::new(house.address, "web.test")
        })
    });
    for round in 1..=4 {
        house.good(&["upgrade", "--drain", "30s"]);
        house.good(&["deploy", "web", "--version", &format!("v{round}")]);
        house.good(&["upgrade", "--drain", "30s"]);
        house.good(&["restart", "web"]);
    }
    assert_eq!(house.answers(), "v4");
    let tallies = loads.map(Load::stop);
    for tally in &tallies {
        assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);
    }
    let (mut orders, mut posted) = (house.orders(), tallies.iter().flat_map(|tally| tally.posted.clone()).collect::<Vec<_>>());
    orders.sort();
    posted.sort();
    assert_eq!(orders, posted, "each order exactly once");
}

/// One request, on a connection that stays.
fn exchange(stream: &mut std::net::TcpStream) -> String {
    use std::io::{Read, Write};
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web.test\r\n\r\n").expect("written");
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.contains("hello from v") || text.ends_with('v') {
        assert_eq!(stream.read(&mut byte).expect("an answer"), 1, "closed after {text}");
        text.push(char::from(byte[0]));
    }
    text
}
