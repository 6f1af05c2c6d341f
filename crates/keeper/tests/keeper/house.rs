//! A keeper in a directory of its own, and what a test can do to it. All waiting is for a condition, with a deadline.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child as Process, Command};
use std::time::{Duration, Instant};

use keeper::{Child, FromKeeper, Spec, Status, ToKeeper};

pub(crate) struct House {
    directory: tempfile::TempDir,
    keeper: Process,
}

pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: no pointers are passed.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

pub(crate) fn command_name(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn start(directory: &std::path::Path) -> Process {
    Command::new("/proc/self/exe").arg("keeper").arg(directory).spawn().expect("the keeper starts")
}

impl House {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let keeper = start(directory.path());
        Self { directory, keeper }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn start_keeper(&mut self) {
        self.keeper = start(self.directory.path());
    }

    pub(crate) fn kill_keeper(&mut self) {
        self.keeper.kill().expect("it lives");
        self.keeper.wait().expect("it is ours");
    }

    pub(crate) fn keeper_pid(&self) -> i32 {
        i32::try_from(self.keeper.id()).expect("a pid")
    }

    pub(crate) fn keeper_exit_code(&mut self) -> Option<i32> {
        self.keeper.wait().expect("it is ours").code()
    }

    fn log(&self) -> Vec<(i32, FromKeeper)> {
        let text = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("a line")).collect()
    }

    pub(crate) fn wait_for(&self, wanted: impl Fn(&FromKeeper) -> bool) -> FromKeeper {
        until("a message", || self.log().iter().any(|(_, message)| wanted(message)));
        self.log().into_iter().map(|(_, message)| message).rfind(|message| wanted(message)).expect("just seen")
    }

    pub(crate) fn wait_for_exit(&self, id: &str, status: Status) {
        self.wait_for(|message| *message == FromKeeper::Exited { id: id.to_owned(), status });
    }

    /// The pid of the worker that was welcomed last.
    pub(crate) fn worker(&self) -> i32 {
        let is_welcome = |message: &FromKeeper| matches!(message, FromKeeper::Welcome { .. });
        self.wait_for(is_welcome);
        self.log().into_iter().rfind(|(_, message)| is_welcome(message)).expect("just seen").0
    }

    pub(crate) fn welcomes(&self) -> usize {
        self.log().iter().filter(|(_, message)| matches!(message, FromKeeper::Welcome { .. })).count()
    }

    pub(crate) fn welcomed_children(&self) -> Vec<Child> {
        match self.wait_for(|message| matches!(message, FromKeeper::Welcome { .. })) {
            FromKeeper::Welcome { children, .. } => children,
            _ => unreachable!("it was asked for"),
        }
    }

    pub(crate) fn tell(&self, message: &ToKeeper) {
        let bytes = serde_json::to_vec(message).expect("a message");
        let socket = UnixDatagram::unbound().expect("a socket");
        until("a worker that listens", || socket.send_to(&bytes, self.path("control.sock")).is_ok());
    }

    pub(crate) fn listen(&self) -> SocketAddr {
        self.tell(&ToKeeper::Listen { address: "127.0.0.1:0".parse().expect("an address") });
        match self.wait_for(|message| matches!(message, FromKeeper::Listening { .. })) {
            FromKeeper::Listening { bound, .. } => bound,
            _ => unreachable!("it was asked for"),
        }
    }

    pub(crate) fn spec(&self, script: &str) -> Spec {
        Spec {
            command: ["sh", "-c", script].map(String::from).to_vec(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd: self.directory.path().to_owned(),
            user: None,
            output: self.path("output"),
            result: None,
        }
    }

    pub(crate) fn spawn(&self, id: &str, spec: Spec) -> i32 {
        self.tell(&ToKeeper::Spawn { id: id.to_owned(), spec });
        match self.wait_for(|message| matches!(message, FromKeeper::Spawned { id: told, .. } if told == id)) {
            FromKeeper::Spawned { pid, .. } => pid,
            _ => unreachable!("it was asked for"),
        }
    }

    pub(crate) fn run(&self, id: &str, script: &str) -> i32 {
        let pid = self.spawn(id, self.spec(script));
        self.tell(&ToKeeper::Go { id: id.to_owned() });
        pid
    }

    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.path("output")).unwrap_or_default()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        let mut pids: Vec<i32> = self.log().iter().map(|(pid, _)| *pid).collect();
        pids.sort_unstable();
        pids.dedup();
        for pid in pids {
            let is_ours = std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.contains(&*self.directory.path().to_string_lossy()));
            if is_ours {
                kill(pid, libc::SIGKILL);
            }
        }
    }
}
