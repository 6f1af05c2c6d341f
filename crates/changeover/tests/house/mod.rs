//! A running changeover in a folder of its own, driven as a person would.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses what it needs of the house")]

pub mod authority;
pub mod clients;
pub mod mounted;
pub mod open;
pub mod upgrades;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use testbed::load::{Load, LoadOptions};
use testbed::{ports, wait};

const BINARY: &str = env!("CARGO_BIN_EXE_changeover");
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A running changeover with one service `web`; ended, with its processes, when dropped.
pub struct House {
    pub folder: tempfile::TempDir,
    pub address: SocketAddr,
    pub up: Option<Child>,
    /// Of `up`.
    environment: Vec<(String, String)>,
    state: Option<PathBuf>,
}

impl House {
    pub fn start(ports: &str, extra: &str) -> Self {
        Self::start_with(ports, extra, &[])
    }

    /// With fault points in the environment of `up`.
    pub fn start_with(ports: &str, extra: &str, environment: &[(&str, &str)]) -> Self {
        Self::build(ports, extra, environment, None)
    }

    /// With the state directory somewhere else.
    pub fn start_in(state: &std::path::Path, ports: &str, extra: &str) -> Self {
        Self::build(ports, extra, &[], Some(state.to_path_buf()))
    }

    /// With this file; `{address}` in it becomes the house's own.
    pub fn of(file: &str) -> Self {
        let mut house = Self::new(&[], None);
        std::fs::write(house.folder.path().join("changeover.yaml"), file.replace("{address}", &house.address.to_string()))
            .expect("the file");
        house.open();
        house
    }

    fn build(ports: &str, extra: &str, environment: &[(&str, &str)], state: Option<PathBuf>) -> Self {
        let mut house = Self::new(environment, state);
        let orders = house.folder.path().join("orders");
        let text = format!(
            "listeners: {{ main: '{}' }}\nports: {ports}\nservices:\n  web:\n    run: {{ command: ['{BINARY}', demo-service, '{{version}}', '{{port}}', --record, '{}', --behaviour, '{}'] }}\n    \
             health: {{ path: /healthz, interval: 100ms, rise: 2, start_timeout: 5s }}\n{extra}",
            house.address,
            orders.display(),
            house.folder.path().join("behaviour").display(),
        );
        std::fs::create_dir(house.folder.path().join("behaviour")).expect("a folder");
        std::fs::write(house.folder.path().join("changeover.yaml"), text).expect("the file");
        house.open();
        house
    }

    fn new(environment: &[(&str, &str)], state: Option<PathBuf>) -> Self {
        let port = ports::free().expect("a free port");
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            up: None,
            environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            state,
        }
    }

    fn open(&mut self) {
        self.up = Some(self.spawn_up());
        wait::until(DEADLINE, "changeover is up", || self.run(&["status"]).status.success());
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.current_dir(self.folder.path()).args(args).env("DEMO_UNHEALTHY", "bad").stdin(Stdio::null());
        if let Some(state) = &self.state {
            command.env("CHANGEOVER_STATE_DIR", state);
        }
        command
    }

    pub fn spawn_up(&self) -> Child {
        self.spawn_within(self.command(&["up"]))
    }

    fn spawn_within(&self, mut up: Command) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("up.log")).expect("a log");
        up.envs(self.environment.iter().cloned());
        up.stderr(log.try_clone().expect("a copy")).stdout(log).spawn().expect("up starts")
    }

    /// A command that does not end in time is killed, and its test fails by what it printed.
    pub fn run(&self, args: &[&str]) -> Output {
        let child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let pid = child.id() as i32;
        let (ended, waits) = std::sync::mpsc::channel::<()>();
        let guard = std::thread::spawn(move || {
            if waits.recv_timeout(2 * DEADLINE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                kill_9(pid);
            }
        });
        let output = child.wait_with_output().expect("it ends");
        drop(ended);
        guard.join().expect("no panic");
        output
    }

    /// Runs a command that must succeed; its standard output.
    pub fn good(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {:?}\n{err}", output.status);
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a command that must fail with this code; its standard error.
    pub fn bad(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {err}");
        err
    }

    /// The version that answers a new client.
    pub fn answers(&self) -> String {
        self.try_answers().expect("an answer")
    }

    pub fn try_answers(&self) -> Option<String> {
        self.ask("/")?.lines().find_map(|line| line.strip_prefix("x-version: ")).map(str::to_owned)
    }

    /// The whole answer, as text.
    fn ask(&self, path: &str) -> Option<String> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(self.address).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// `kill -9` of keeper and worker; the versions run on.
    pub fn kill_all(&mut self) {
        let mut up = self.up.take().expect("up runs");
        kill_9(up.id() as i32);
        up.wait().expect("it ended");
        // One that was just being started ends by itself, or is seen as a worker then.
        wait::until(DEADLINE, "no worker is left", || {
            let worker = self.try_worker_pid();
            worker.map(|worker| nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker), nix::sys::signal::Signal::SIGKILL)).is_none()
        });
    }

    /// `kill -9` of the worker, once there is one.
    pub fn kill_worker(&self) {
        let worker = wait::until(DEADLINE, "there is a worker", || self.try_worker_pid());
        // It may just have died by itself.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker), nix::sys::signal::Signal::SIGKILL);
    }

    pub fn start_again(&mut self) {
        self.up = Some(self.spawn_up());
    }

    /// Starts `up` beneath another command, which gets it as its last arguments.
    pub fn start_again_within(&mut self, mut command: Command) {
        command.current_dir(self.folder.path()).args([BINARY, "up"]).stdin(Stdio::null());
        self.up = Some(self.spawn_within(command));
    }

    pub fn until_up(&self) {
        wait::until(DEADLINE, "changeover answers", || self.run(&["status"]).status.success());
    }

    pub fn signal_up(&self, signal: nix::sys::signal::Signal) {
        let up = self.up.as_ref().expect("up runs").id();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(up as i32), signal).expect("it lives");
    }

    /// Asks the API itself, without a process: status line, head and body.
    pub fn post(&self, path: &str, body: &str) -> String {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(self.state_dir().join("api.sock")).expect("the API");
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: local\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// Waits until `up` has ended.
    pub fn await_end(&mut self) {
        let mut up = self.up.take().expect("up runs");
        wait::until(DEADLINE, "up ends", || up.try_wait().expect("a child").is_some());
    }

    pub fn status_of(&self, path: &str) -> Option<u16> {
        self.ask(path)?.split(' ').nth(1)?.parse().ok()
    }

    pub fn web(&self) -> Value {
        let status: Value = serde_json::from_str(&self.good(&["status", "--json"])).expect("JSON");
        status["services"][0].clone()
    }

    pub fn try_web(&self) -> Option<Value> {
        let status = self.run(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).ok().filter(|_| status.status.success())?;
        Some(status["services"][0].clone())
    }

    /// All processes of versions of this house, whether they are known or not.
    pub fn running_versions(&self) -> std::collections::BTreeSet<i64> {
        let orders = self.folder.path().join("orders");
        processes(|words| words.get(1) == Some(&b"demo-service".as_slice()) && words.contains(&orders.as_os_str().as_encoded_bytes()))
    }

    /// How a version behaves from now on; see the testbed's service.
    pub fn behaves(&self, version: &str, how: &str) {
        std::fs::write(self.folder.path().join("behaviour").join(version), how).expect("written");
    }

    pub fn pids(&self) -> Vec<i64> {
        self.web()["targets"].as_array().into_iter().flatten().filter_map(|target| target["pid"].as_i64()).collect()
    }

    pub fn load(&self) -> Load {
        Load::start(LoadOptions {
            keep_alive_clients: 8,
            fresh_clients: 2,
            h2_clients: 2,
            post_clients: 4,
            pace: Some(Duration::from_millis(2)),
            ..LoadOptions::new(self.address, "web.test")
        })
    }

    /// The release that runs, or the last one; `Null` also while nothing answers.
    pub fn release(&self) -> Value {
        let status = self.run(&["status", "--json"]).stdout;
        serde_json::from_slice::<Value>(&status).map(|it| it["services"][0]["release"].clone()).unwrap_or_default()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| self.folder.path().join(".changeover"))
    }

    pub fn worker_pid(&self) -> i32 {
        self.try_worker_pid().expect("a worker")
    }

    /// The newest worker of this house, whoever is its parent.
    fn try_worker_pid(&self) -> Option<i32> {
        self.workers().last().copied()
    }

    /// Also those that finish what they have after an upgrade; the oldest first.
    pub fn workers(&self) -> Vec<i32> {
        let state_dir = self.state_dir();
        let is_worker =
            |words: &[&[u8]]| words.get(1) == Some(&b"worker".as_slice()) && words.contains(&state_dir.as_os_str().as_encoded_bytes());
        processes(is_worker).into_iter().map(|pid| pid as i32).collect()
    }

    pub fn orders(&self) -> Vec<String> {
        let text = std::fs::read_to_string(PathBuf::from(self.folder.path()).join("orders")).unwrap_or_default();
        text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let down = self.run(&["down"]);
        if let Some(mut up) = self.up.take() {
            if !down.status.success() {
                if let Some(worker) = self.try_worker_pid() {
                    kill_9(worker);
                }
                let _ = up.kill();
            }
            let _ = up.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default());
        }
    }
}

/// Those whose command line is like this.
fn processes(is_wanted: impl Fn(&[&[u8]]) -> bool) -> std::collections::BTreeSet<i64> {
    let is_ours = |pid: &i64| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        is_wanted(&line.split(|byte| *byte == 0).collect::<Vec<&[u8]>>())
    };
    let all = std::fs::read_dir("/proc").expect("processes").flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
}

pub const QUICK: &str = "    strategy: { blue_green: { watch: 0s, drain: 10s } }\n";

pub fn kill_9(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("it lives");
}
