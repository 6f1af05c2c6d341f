//! Upgrades when somebody ends or is killed, stays or comes again: keepers, workers, terminals, sockets of a service manager.

mod house;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use house::upgrades::{HANG_MAX, has_ended, program};
use house::{DEADLINE, House, QUICK, kill_9};
use testbed::{ports, wait};

const BINARY: &str = env!("CARGO_BIN_EXE_changeover");

/// The worker is the new one, and the keeper works with it.
#[test]
fn a_keeper_that_the_new_binary_does_not_understand_stays() {
    let house = House::start("29222-29229", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let (load, log) = (house.load(), house.folder.path().join("up.log"));
    let stays = |times: usize| {
        wait::until(DEADLINE, "it is told", || house.events().matches(" keeper_stays: ").count() == times);
        assert_eq!(program(house.keeper_pid()), Path::new(BINARY).canonicalize().expect("it is there"));
        let arguments = std::fs::read(format!("/proc/{}/cmdline", house.keeper_pid())).expect("it runs");
        assert!(!arguments.starts_with(b"changeover\0keeper-resume\0"));
    };
    let refuses = house.wrapper("refuses", "test \"$1\" = keeper-check && exit 1");
    house.good(&["upgrade", "--drain", "1s", "--binary", refuses.to_str().expect("text")]);
    stays(1);
    let hangs = house.wrapper("hangs", "test \"$1\" = keeper-check && exec sleep 60");
    house.good(&["upgrade", "--drain", "1s", "--binary", hangs.to_str().expect("text")]);
    stays(2);
    house.kill_worker();
    house.until_up();
    house.good(&["deploy", "web", "--version", "v2"]);
    house.good(&["upgrade", "--drain", "1s", "--binary", BINARY]);
    wait::until(DEADLINE, "it is replaced", || {
        std::fs::read(format!("/proc/{}/cmdline", house.keeper_pid())).is_ok_and(|line| line.starts_with(b"changeover\0keeper-resume\0"))
    });
    assert!(std::fs::read_to_string(log).expect("a log").contains("the keeper stays as it is"));
    drop(load);
}

/// It said that it could; then it is as when a keeper is killed.
#[test]
fn a_keeper_that_dies_as_another_one_is_found_by_the_next() {
    let mut house = House::start("29212-29215", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let load = house.load();
    let dies = house.wrapper("dies", "test \"$1\" = keeper-resume && exit 1");
    house.good(&["upgrade", "--binary", dies.to_str().expect("text")]);
    house.await_end();
    let worker = house.worker_pid();
    assert_eq!(house.answers(), "v1");
    house.start_again();
    house.until_up();
    wait::until(DEADLINE, "the next keeper has it", || house.run(&["deploy", "web", "--version", "v2"]).status.success());
    assert_eq!((house.worker_pid(), house.answers().as_str()), (worker, "v2"));
    let tally = load.stop();
    assert_eq!(tally.lost, 0, "{:?}", tally.last_errors);
    house.good(&["upgrade", "--drain", "1s", "--binary", BINARY]);
    house.good(&["down"]);
    house.await_end();
    assert!(house.running_versions().is_empty(), "their processes are known still");
}

/// The successor dies with the keeper, whatever it does; the one that runs serves on, and is found by the next keeper.
#[test]
fn the_keeper_is_killed_in_the_middle() {
    for (ports, phase) in [("29260-29264", "checking"), ("29265-29269", "taking")] {
        let mut house = House::start(ports, QUICK);
        house.good(&["deploy", "web", "--version", "v1"]);
        let (load, worker) = (house.load(), house.worker_pid());
        let hangs = house.successor("hangs", &format!("export CHANGEOVER_UPGRADE_FAULT=hang@{phase}"));
        let mut upgrade = house.command(&["upgrade", "--binary"]);
        let upgrade = upgrade.arg(&hangs).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let beside = house.beside();
        if phase == "taking" {
            wait::until(DEADLINE, "the state was let go", || !house.state_dir().join("api.sock").exists());
        } else {
            wait::until(DEADLINE, "it has begun", || house.events().contains("upgrade_began"));
        }
        let mut up = house.up.take().expect("it runs");
        kill_9(up.id() as i32);
        up.wait().expect("it ended");
        wait::until(DEADLINE, "the successor has ended", || has_ended(beside));
        let said = upgrade.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("the keeper has ended meanwhile; all is as it was"), "{phase}: {said}");
        house.start_again();
        house.until_up();
        wait::until(DEADLINE, "the next keeper has it", || house.run(&["deploy", "web", "--version", "v2"]).status.success());
        assert_eq!((house.workers(), house.answers().as_str()), (vec![worker], "v2"), "{phase}");
        let tally = load.stop();
        assert_eq!((tally.lost, tally.connections_closed_by_peer), (0, 0), "{phase}: {:?}", tally.last_errors);
        house.good(&["upgrade"]);
        assert_ne!(house.worker_pid(), worker);
    }
}

/// Requests of the one that is killed are lost; nothing else is, and the successor, which has seen only a copy, does not take over.
#[test]
fn the_running_worker_is_killed_in_the_middle() {
    let house = House::start("29270-29279", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let (slow, running) = (house.slow_successor(), house.worker_pid());
    let mut upgrade = house.command(&["upgrade", "--binary"]);
    let mut upgrade = upgrade.arg(&slow).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    let beside = house.beside();
    kill_9(running);
    wait::until(DEADLINE, "another one serves", || house.workers().iter().any(|pid| ![running, beside].contains(pid)));
    house.until_up();
    wait::until(DEADLINE, "the successor has ended", || has_ended(beside));
    assert_eq!(house.answers(), "v1");
    upgrade.kill().expect("killed");
    upgrade.wait().expect("it ended");
    house.good(&["upgrade", "--binary", BINARY]);
    house.only_one_worker();
}

#[test]
fn an_end_waits_for_clients_of_workers_before() {
    let mut house = House::start("29280-29289", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    let download = house.download();
    house.good(&["upgrade"]);
    house.good(&["down", "--keep-versions"]);
    house.await_end();
    assert_eq!(download.join().expect("no panic").expect("whole"), 1_000_000);
    assert!(house.workers().is_empty(), "nobody is left behind");
    house.start_again();
    house.until_up();
}

/// Whoever closed a socket of systemd could not open it again: systemd still has it.
#[test]
fn sockets_of_a_service_manager_come_and_go_with_the_file() {
    let mut house = House::start("29292-29294", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    house.good(&["down", "--keep-versions"]);
    house.await_end();
    let other = SocketAddr::from(([127, 0, 0, 1], ports::free().expect("a free port")));
    let listeners = [house.address, other].map(|address| TcpListener::bind(address).expect("bound"));
    let mut command = Command::new("sh");
    command.args(["-c", "LISTEN_PID=$$ LISTEN_FDS=2 exec \"$@\"", "sh"]);
    let numbers = listeners.each_ref().map(AsRawFd::as_raw_fd);
    // SAFETY: only system calls between fork and exec. The copies come first, out of the way of 3 and 4.
    unsafe {
        command.pre_exec(move || {
            let copies = numbers.map(|number| libc_fcntl(number, F_DUPFD, 10));
            let placed = [libc_dup2(copies[0], 3), libc_dup2(copies[1], 4)];
            if placed.contains(&-1) { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        });
    }
    house.start_again_within(command);
    house.until_up();
    let log = || std::fs::read_to_string(house.folder.path().join("up.log")).expect("a log");
    let unused = format!("socket {other}: given by the service manager, and no listener of the file has this address");
    wait::until(DEADLINE, "the one that is of no use is told", || log().contains(&unused));
    let file = house.folder.path().join("changeover.yaml");
    let one = std::fs::read_to_string(&file).expect("the file");
    let two = one.replacen("listeners: { ", &format!("listeners: {{ other: '{other}', "), 1);
    let two = two + "    routes: [{ listener: main }, { listener: other }]\n";
    let serves = || std::net::TcpStream::connect(other).is_ok() && ask(other).contains("hello from v1");
    for round in 0..2 {
        std::fs::write(&file, &two).expect("written");
        house.good(&["apply"]);
        assert!(serves(), "{round}");
        // What the keeper knows of it goes on in the next binary.
        house.good(&["upgrade", "--drain", "1s"]);
        wait::until(DEADLINE, "the keeper has replaced itself", || {
            std::fs::read(format!("/proc/{}/cmdline", house.keeper_pid()))
                .is_ok_and(|line| line.starts_with(b"changeover\0keeper-resume\0"))
        });
        assert!(serves(), "{round}");
        std::fs::write(&file, &one).expect("written");
        house.good(&["apply"]);
    }
}

fn ask(address: SocketAddr) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n").expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

/// A terminal that is closed tells nobody any more that it was one.
#[test]
fn a_terminal_that_is_closed_is_an_end_and_no_upgrade() {
    let mut house = House::start("29290-29291", QUICK);
    house.good(&["deploy", "web", "--version", "v1"]);
    house.good(&["down", "--keep-versions"]);
    house.await_end();
    let terminal = "import os, pty, sys, time\n\
        pid, terminal = pty.fork()\n\
        if pid == 0: os.execv(sys.argv[1], sys.argv[1:])\n\
        sys.stdin.read()\n\
        os.close(terminal)\n\
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n";
    let mut python = Command::new("python3");
    let python = python.args(["-c", terminal, BINARY, "up"]).current_dir(house.folder.path()).stdin(Stdio::piped());
    let mut python = python.spawn().expect("it runs");
    house.until_up();
    drop(python.stdin.take());
    let ended = wait::until(HANG_MAX, "it ends", || python.try_wait().expect("a child"));
    assert_eq!(ended.code(), Some(0));
    assert!(house.workers().is_empty());
    house.start_again();
    house.until_up();
    assert!(!house.events().contains("upgrade_began"));
}

const F_DUPFD: i32 = 0;

unsafe extern "C" {
    #[link_name = "dup2"]
    fn libc_dup2(old: i32, new: i32) -> i32;
    #[link_name = "fcntl"]
    fn libc_fcntl(descriptor: i32, command: i32, argument: i32) -> i32;
}
