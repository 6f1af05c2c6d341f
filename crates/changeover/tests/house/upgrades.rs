//! Binaries to upgrade to, good and bad.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use testbed::load::slow_download;
use testbed::wait;

use super::{BINARY, DEADLINE, House};

/// A start that hangs is given up after half a minute.
pub const HANG_MAX: Duration = Duration::from_secs(60);

impl House {
    pub fn keeper_pid(&self) -> i32 {
        self.up.as_ref().expect("it runs").id() as i32
    }

    pub fn only_one_worker(&self) {
        wait::until(HANG_MAX, "the workers before have ended", || self.workers().len() == 1);
    }

    pub fn events(&self) -> String {
        self.good(&["events"])
    }

    /// A program that behaves like the real one, but for what the lines before it do.
    pub fn wrapper(&self, name: &str, lines: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{lines}\nexec {BINARY} \"$@\"\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        path
    }

    /// An upgrade that comes to nothing; what is said of it.
    pub fn upgrade_fails(&self, binary: &Path) -> String {
        self.bad(&["upgrade", "--binary", binary.to_str().expect("text")], 1)
    }
    pub fn whole_house_runs(&self, file: &Path) {
        let file = file.canonicalize().expect("it is there");
        wait::until(DEADLINE, "the worker is that one", || program(self.worker_pid()) == file);
        wait::until(DEADLINE, "the keeper is that one", || program(self.keeper_pid()) == file);
    }

    /// A successor that says which process it is, and does this then.
    pub fn successor(&self, name: &str, lines: &str) -> PathBuf {
        let pid = self.folder.path().join("pid");
        let told = format!("echo $$ > {0}.new; mv {0}.new {0}", pid.display());
        self.wrapper(name, &format!("if test -n \"$CHANGEOVER_UPGRADE_COPY\"; then {told}; {lines}; fi"))
    }

    /// One that begins when the file is gone.
    pub fn slow_successor(&self) -> PathBuf {
        let wait = self.folder.path().join("wait");
        std::fs::write(&wait, "").expect("written");
        self.successor("slow", &format!("while test -e {}; do sleep 0.05; done", wait.display()))
    }

    pub fn beside(&self) -> i32 {
        let path = self.folder.path().join("pid");
        wait::until(DEADLINE, "one is beside", || std::fs::read_to_string(&path).ok()?.trim().parse().ok())
    }

    /// Of 1 MB, in 6 s; it has begun.
    pub fn download(&self) -> JoinHandle<std::io::Result<u64>> {
        let address = self.address;
        let download = std::thread::spawn(move || slow_download(address, "web.test", 1_000_000, 6_000));
        wait::until(DEADLINE, "the download runs", || {
            let metrics = self.good(&["metrics"]);
            metrics.lines().any(|line| line.starts_with("changeover_in_flight{") && !line.ends_with(" 0"))
        });
        download
    }
}

/// What a process runs; the name that the file has now.
pub fn program(pid: i32) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default()
}

pub fn another_file(path: &Path) {
    let beside = path.with_extension("new");
    std::fs::copy(BINARY, &beside).expect("copied");
    std::fs::rename(&beside, path).expect("installed");
}

pub fn has_ended(pid: i32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}
