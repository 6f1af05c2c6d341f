//! An upgrade, as the worker that serves begins it, and as its successor prepares itself.
//!
//! **Invariant**: what cannot serve is found out before anything is released. Not here: which of the two has its place (the keeper).

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::{Handle, Rejected};
use keeper::ToKeeper;
use serde_json::{Value, json};

use super::link::Link;

/// In the state folder: the copy that a successor looks at.
const COPY_FOLDER: &str = "upgrade";
/// A binary says its version well within this, also from a slow disk.
const VERSION_MAX: Duration = Duration::from_secs(5);

/// Downloads and tunnels of the worker before get so long, unless somebody says otherwise.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(600);

/// What is wanted; the binary that runs, and ten minutes, when absent.
pub(crate) struct Asked {
    pub(crate) binary: Option<PathBuf>,
    pub(crate) drain: Option<Duration>,
    pub(crate) who: String,
}

#[derive(Clone)]
pub(crate) struct Upgrades(Arc<Inner>);

struct Inner {
    link: Link,
    state_dir: PathBuf,
    /// What this worker was started from.
    own: PathBuf,
    runtime: tokio::runtime::Handle,
    /// One at a time: the second would take the copy away from under the first.
    is_under_way: AtomicBool,
}

impl Upgrades {
    pub(crate) fn new(link: Link, state_dir: &Path, own: PathBuf) -> Self {
        // Of a worker that was killed in the middle of one.
        let _ = fs::remove_dir_all(state_dir.join(COPY_FOLDER));
        let (state_dir, runtime) = (state_dir.to_path_buf(), tokio::runtime::Handle::current());
        Self(Arc::new(Inner { link, state_dir, own, runtime, is_under_way: AtomicBool::new(false) }))
    }

    /// Nobody waits for the answer: it is told as an event.
    pub(crate) fn begin(&self, engine: Handle, binary: PathBuf) {
        let upgrades = self.clone();
        self.0.runtime.spawn(async move {
            let asked = Asked { binary: Some(binary), drain: None, who: "a reload".to_owned() };
            if let Err(rejected) = upgrades.ask(&engine, asked).await {
                // Whoever follows the one that is under way is not meant.
                let kind = if rejected.code == "conflict" { "upgrade_refused" } else { "upgrade_failed" };
                engine.told(kind, format!("{}; all is as it was", rejected.message));
            }
        });
    }

    /// Answers when it has begun; how it ends is told as an event: `upgraded` or `upgrade_failed`.
    pub(crate) async fn ask(&self, engine: &Handle, asked: Asked) -> Result<Value, Rejected> {
        if self.0.is_under_way.swap(true, Ordering::SeqCst) {
            let rejected = Rejected::new("conflict", "another upgrade is under way");
            return Err(rejected.hint("see `changeover events` for what becomes of it"));
        }
        // Also when whoever asked does not wait for the answer: what was begun here is brought to an end.
        let (upgrades, engine) = (self.clone(), engine.clone());
        let begun = self.0.runtime.spawn(async move { upgrades.start(&engine, asked).await.inspect_err(|_| _ = upgrades.ended()) });
        begun.await.unwrap_or_else(|_| Err(Rejected::new(engine::ENDED, "changeover is ending, or is being replaced")))
    }

    /// It came to nothing. False: there was none.
    pub(crate) fn ended(&self) -> bool {
        let was_under_way = self.0.is_under_way.swap(false, Ordering::SeqCst);
        if was_under_way {
            let _ = fs::remove_dir_all(self.0.state_dir.join(COPY_FOLDER));
        }
        was_under_way
    }

    async fn start(&self, engine: &Handle, asked: Asked) -> Result<Value, Rejected> {
        let binary = asked.binary.unwrap_or_else(|| self.0.own.clone());
        let version = version_of(&binary).await?;
        let copy = self.0.state_dir.join(COPY_FOLDER);
        let failed =
            |error: &dyn std::fmt::Display| Rejected::new("failed", format!("the state cannot be copied to {}: {error}", copy.display()));
        fresh_folder(&copy).map_err(|error| failed(&error))?;
        engine.store().copy(&copy.join(engine::STATE_FILE)).await.map_err(|error| failed(&error))?;
        let text = format!("{version} ({}) is started beside this changeover {}", binary.display(), env!("CARGO_PKG_VERSION"));
        let began = engine.ask(engine::Command::UpgradeBegins { text, who: asked.who }).await?;
        let drain = asked.drain.unwrap_or(DRAIN_MAX);
        let upgrade = ToKeeper::Upgrade { binary: binary.clone(), copy, drain_ms: drain.as_millis() as u64 };
        self.0.link.say(&upgrade).map_err(|error| Rejected::new("unavailable", error))?;
        Ok(json!({ "binary": binary, "version": version, "since": began["since"], "drain_s": drain.as_secs() }))
    }
}

fn fresh_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// What it says of itself, such as `changeover 0.2.0`.
async fn version_of(binary: &Path) -> Result<String, Rejected> {
    let invalid = |why: String| Rejected::new("invalid", format!("{} {why}; nothing was changed", binary.display()));
    let metadata = fs::metadata(binary).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            invalid("is not there".to_owned()).hint("name the file with --binary; its path is taken from your folder")
        }
        _ => invalid(format!("cannot be read: {error}")),
    })?;
    if !metadata.is_file() {
        return Err(invalid("is no file".to_owned()));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(invalid("may not be executed".to_owned()).hint(format!("chmod +x {}", binary.display())));
    }
    let mut command = tokio::process::Command::new(binary);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let said = tokio::time::timeout(VERSION_MAX, command.output()).await;
    let said = said.map_err(|_| invalid(format!("does not say its version within {VERSION_MAX:?}")))?;
    let said = said.map_err(|error| match error.raw_os_error().map(nix::Error::from_raw) {
        Some(nix::Error::ENOEXEC) => invalid("is no program for this machine".to_owned()),
        _ => invalid(format!("cannot be started: {error}")),
    })?;
    let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    if !said.status.success() || !text.starts_with("changeover ") {
        return Err(invalid("is no changeover: it does not answer `--version`".to_owned()));
    }
    Ok(text)
}

/// A successor, before it has the state: an error is why it cannot take over.
pub(crate) fn prepare(copy: &Path) -> Result<(), String> {
    fault("checking");
    engine::rehearse(copy)?;
    // It is a large file, and was only for this.
    let _ = fs::remove_dir_all(copy);
    Ok(())
}

/// For tests: `CHANGEOVER_UPGRADE_FAULT=panic@checking`, or `hang@` or `kill@`, also at `taking`.
pub(crate) fn fault(phase: &str) {
    let Ok(wanted) = std::env::var("CHANGEOVER_UPGRADE_FAULT") else { return };
    match wanted.split_once('@') {
        Some(("panic", at)) if at == phase => panic!("a panic that a test asked for"),
        Some(("hang", at)) if at == phase => loop {
            std::thread::park();
        },
        Some(("kill", at)) if at == phase => {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        }
        _ => {}
    }
}

pub(crate) fn retired(pid: i32, cut: Option<usize>) -> String {
    match cut {
        Some(0) => format!("the worker before this one (pid {pid}) has ended; all of its connections had finished"),
        Some(cut) => format!("the worker before this one (pid {pid}) has ended; {cut} of its connections were cut"),
        None => format!("the worker before this one (pid {pid}) has ended without a word"),
    }
}
