//! The keeper with real processes: this binary is keeper, worker and child in one, told apart by its first argument.
//!
//! Not here: what a real worker does; `worker` obeys the test word by word and logs what it hears.

mod house;
mod worker;

use std::io::Read;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;

use house::House;
use keeper::{FromKeeper, Status, ToKeeper};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_ref().and_then(|argument| argument.to_str()) {
        Some("child") => keeper::child_main(arguments),
        Some("keeper") => run_keeper(PathBuf::from(arguments.next().expect("a state directory"))),
        Some("worker") => worker::run(&PathBuf::from(arguments.next().expect("a state directory"))),
        Some("--list") => ExitCode::SUCCESS,
        _ => run_tests(),
    }
}

fn run_keeper(state_dir: PathBuf) -> ExitCode {
    let worker_command = vec!["/proc/self/exe".into(), "worker".into(), state_dir.clone().into()];
    let options = keeper::Options { state_dir, worker_command, listen: Vec::new() };
    match keeper::open(options).and_then(keeper::Keeper::run) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::from(99)
        }
    }
}

fn run_tests() -> ExitCode {
    let tests: &[(&str, fn())] = &[
        ("worker_killed_keeps_socket_and_child", worker_killed_keeps_socket_and_child),
        ("child_without_go_ends_with_the_worker", child_without_go_ends_with_the_worker),
        ("exit_codes_are_told_and_retold", exit_codes_are_told_and_retold),
        ("adopt_refuses_a_wrong_start_time", adopt_refuses_a_wrong_start_time),
        ("command_not_found_is_127_and_a_line", command_not_found_is_127_and_a_line),
        ("result_outlives_the_keeper", result_outlives_the_keeper),
        ("next_keeper_takes_over_the_orphan", next_keeper_takes_over_the_orphan),
        ("terminate_then_leave_ends_with_0", terminate_then_leave_ends_with_0),
    ];
    for (name, test) in tests {
        print!("{name} ... ");
        test();
        println!("ok");
    }
    ExitCode::SUCCESS
}

fn answer(address: std::net::SocketAddr) -> i32 {
    let mut text = String::new();
    TcpStream::connect(address).expect("never refused").read_to_string(&mut text).expect("an answer");
    text.parse().expect("a pid")
}

fn worker_killed_keeps_socket_and_child() {
    let house = House::new();
    let first = house.worker();
    let address = house.listen();
    let child = house.run("a", "exec sleep 1000");
    assert_eq!(answer(address), first);
    // Stopped, it surely does not answer: the connection waits in the queue.
    house::kill(first, libc::SIGSTOP);
    let mut queued = TcpStream::connect(address).expect("the queue is open");
    house::kill(first, libc::SIGKILL);
    let mut text = String::new();
    queued.read_to_string(&mut text).expect("the next worker answers");
    assert_eq!(text.parse::<i32>().ok(), Some(house.worker()));
    assert_ne!(house.worker(), first);
    let children = house.welcomed_children();
    assert!(children.iter().any(|known| known.pid == child && known.running && known.status.is_none()));
    assert_eq!(keeper::port_belongs_to_session(address.port(), child), Some(false));
    house.tell(&ToKeeper::Signal { id: "a".into(), signal: libc::SIGTERM });
    house.wait_for_exit("a", Status::Signal(libc::SIGTERM));
}

fn child_without_go_ends_with_the_worker() {
    let house = House::new();
    let first = house.worker();
    let pid = house.spawn("a", house.spec("echo ran"));
    house::kill(first, libc::SIGKILL);
    house::until("it ends", || keeper::process_identity(pid).is_none());
    assert_eq!(house.output(), "");
}

fn exit_codes_are_told_and_retold() {
    let house = House::new();
    house.run("a", "exit 7");
    house.wait_for_exit("a", Status::Code(7));
    let first = house.worker();
    house::kill(first, libc::SIGKILL);
    house::until("the next worker", || house.worker() != first);
    let children = house.welcomed_children();
    assert!(children.iter().any(|child| child.id == "a" && child.status == Some(Status::Code(7))));
    house.tell(&ToKeeper::Forget { id: "a".into() });
    // The id is free again.
    house.run("a", "kill -9 $$");
    house.wait_for_exit("a", Status::Signal(9));
}

fn adopt_refuses_a_wrong_start_time() {
    let house = House::new();
    house.worker();
    let mut stranger = std::process::Command::new("sleep").arg("1000").env("CHANGEOVER_TARGET", "s").spawn().expect("sleep starts");
    let pid = i32::try_from(stranger.id()).expect("a pid");
    house::until("it is sleep", || std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep"));
    let identity = keeper::process_identity(pid).expect("it lives");
    let adopt = |start_time| {
        let boot_id = identity.boot_id.clone();
        house.tell(&ToKeeper::Adopt { id: "s".into(), pid, start_time, boot_id });
    };
    adopt(identity.start_time + 1);
    house.wait_for_exit("s", Status::Unknown);
    adopt(identity.start_time);
    house.wait_for(|message| *message == FromKeeper::Adopted { id: "s".into(), pid });
    stranger.kill().expect("it lives");
    stranger.wait().expect("it is ours");
}

fn command_not_found_is_127_and_a_line() {
    let house = House::new();
    let mut spec = house.spec("");
    spec.command = vec!["no-such-command".into()];
    house.spawn("a", spec);
    house.tell(&ToKeeper::Go { id: "a".into() });
    house.wait_for_exit("a", Status::Code(127));
    assert!(house.output().starts_with("changeover: cannot run `no-such-command`: No such file"), "{}", house.output());
}

fn result_outlives_the_keeper() {
    let mut house = House::new();
    let gate = house.path("gate");
    let result = house.path("result");
    let mut spec = house.spec(&format!("echo began; until [ -e {} ]; do sleep 0.01; done; exit 3", gate.display()));
    spec.result = Some(result.clone());
    house.spawn("job", spec);
    house.tell(&ToKeeper::Go { id: "job".into() });
    house::until("the job began", || house.output() == "began\n");
    let worker = house.worker();
    house.kill_keeper();
    house::kill(worker, libc::SIGKILL);
    std::fs::write(gate, "").expect("the gate opens");
    house::until("the result", || {
        std::fs::read(&result).is_ok_and(|bytes| serde_json::from_slice::<Status>(&bytes).ok() == Some(Status::Code(3)))
    });
}

fn next_keeper_takes_over_the_orphan() {
    let mut house = House::new();
    let worker = house.worker();
    let address = house.listen();
    let child = house.run("a", "exec sleep 1000");
    house::until("it is sleep", || house::command_name(child) == "sleep");
    house.kill_keeper();
    assert_eq!(answer(address), worker);
    house.start_keeper();
    house::until("a second welcome", || house.welcomes() == 2);
    assert_eq!(house.worker(), worker);
    assert!(house.welcomed_children().iter().any(|known| known.pid == child && known.status.is_none()));
    // The new keeper holds the socket too.
    house::kill(worker, libc::SIGKILL);
    assert_ne!(answer(address), worker);
    house.tell(&ToKeeper::Signal { id: "a".into(), signal: libc::SIGKILL });
    house.wait_for_exit("a", Status::Unknown);
}

fn terminate_then_leave_ends_with_0() {
    let mut house = House::new();
    house.worker();
    house::kill(house.keeper_pid(), libc::SIGTERM);
    house.wait_for(|message| *message == FromKeeper::Terminate { signal: libc::SIGTERM });
    house.tell(&ToKeeper::Leave { keep_versions: false });
    assert_eq!(house.keeper_exit_code(), Some(0));
}
