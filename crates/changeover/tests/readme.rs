//! The README's transcripts, run as they stand: each command, and what it prints, number by number aside.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testbed::{ports, wait};

const DEADLINE: Duration = Duration::from_secs(60);
/// flagd's, which `changeover flags serve` opens unless told otherwise.
const FLAG_PORTS: std::ops::RangeInclusive<u16> = 8013..=8016;
/// Everything on one of these, where another server has one of flagd's.
const FLAG_PORTS_ELSEWHERE: std::ops::RangeInclusive<u16> = 27_980..=27_989;

/// A command and the lines that it prints.
struct Step {
    command: String,
    prints: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

/// The blocks marked as `console`.
fn transcripts() -> Vec<Vec<Step>> {
    let text = std::fs::read_to_string(root().join("README.md")).expect("the README");
    let blocks = text.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    blocks.map(steps).collect()
}

fn steps(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => steps.push(Step { command: command.to_owned(), prints: Vec::new() }),
            None => steps.last_mut().expect("a command comes first").prints.push(line.to_owned()),
        }
    }
    steps
}

/// Numbers and the widths that follow from them do not matter.
fn masked(line: &str) -> String {
    let mut masked = String::new();
    let mut in_number = false;
    for part in line.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let (digits, rest) = part.split_at(part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len()));
        if !digits.is_empty() && !in_number {
            masked.push('0');
        }
        in_number = !digits.is_empty() && rest == ".";
        if !in_number {
            masked.push_str(rest);
        }
    }
    // One port of flags, or several.
    if masked.starts_with("flags, ") {
        return "flags".to_owned();
    }
    let words: Vec<&str> = masked.split_whitespace().collect();
    // `0.5 s` and `499.0 ms` are the same here; so is who ran it.
    words.join(" ").replace("0 ms", "0 s").replace("0 min", "0 s").replace(&user(), "root")
}

fn masked_lines<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut lines: Vec<String> = lines.map(masked).collect();
    lines.dedup_by(|line, before| *line == "flags" && *before == "flags");
    lines
}

/// Whether somebody could listen there now.
fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn user() -> String {
    nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map_or("root".to_owned(), |user| user.name)
}

/// The examples in a folder of their own, on ports of their own.
struct Stage {
    folder: tempfile::TempDir,
    ports: HashMap<&'static str, String>,
    /// Flags are served there; absent: on flagd's ports, as in the text.
    flags: Option<u16>,
    cwd: PathBuf,
    up: Option<Child>,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let copied = Command::new("cp").arg("-r").arg(root().join("examples")).arg(folder.path()).status();
        assert!(copied.is_ok_and(|status| status.success()), "the examples are copied");
        let ports: HashMap<&str, String> = ["8080", "8081"].map(|port| (port, ports::free().expect("a free port").to_string())).into();
        let elsewhere = || FLAG_PORTS_ELSEWHERE.clone().find(|port| is_free(*port)).expect("a free port");
        let flags = (!FLAG_PORTS.clone().all(is_free)).then(elsewhere);
        let stage = Self { cwd: folder.path().to_path_buf(), folder, ports, flags, up: None };
        for example in ["python", "rust"] {
            stage.edit(&format!("{example}/changeover.yaml"), |text| stage.on_our_ports(text));
        }
        let crates = root().join("crates").display().to_string();
        stage.edit("flags/rust/Cargo.toml", |text| text.replace("../../../crates", &crates));
        // What somebody who tried the text has left there.
        for example in ["python", "rust", "flags"] {
            let _ = std::fs::remove_dir_all(stage.folder.path().join("examples").join(example).join(".changeover"));
        }
        stage
    }

    fn edit(&self, file: &str, change: impl Fn(&str) -> String) {
        let file = self.folder.path().join("examples").join(file);
        let text = std::fs::read_to_string(&file).expect("the file");
        std::fs::write(&file, change(&text)).expect("written");
    }

    fn on_our_ports(&self, text: &str) -> String {
        self.ports.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(&format!(":{theirs}"), &format!(":{ours}")))
    }

    fn shell(&self, command: &str) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_changeover")).parent().expect("a folder");
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = self.on_our_ports(command);
        let mut shell = Command::new("sh");
        if let Some(port) = self.flags {
            command = command.replace("flags serve", &format!("flags serve --listen 127.0.0.1:{port}"));
            let port = port.to_string();
            shell.envs([("FLAGD_HOST", "127.0.0.1"), ("FLAGD_PORT", &port), ("FLAGD_SYNC_PORT", &port)]);
        }
        // The example's own target folder, as for a user; one that compiles for minutes has one that stays.
        match command.contains("cargo run") {
            true => shell.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("flags_example")),
            false => shell.env_remove("CARGO_TARGET_DIR"),
        };
        shell.args(["-c", &command]).current_dir(&self.cwd).env("PATH", path).stdin(Stdio::null());
        shell
    }

    /// What the command printed.
    fn run(&mut self, step: &Step) -> String {
        if let Some(folder) = step.command.strip_prefix("cd ") {
            self.cwd = self.folder.path().join(folder);
            return String::new();
        }
        if let Some(command) = step.command.strip_suffix(" &") {
            let log = self.cwd.join("up.log");
            let file = std::fs::File::create(&log).expect("a log");
            let mut shell = self.shell(&format!("exec {command}"));
            self.up = Some(shell.stdout(file.try_clone().expect("a copy")).stderr(file).spawn().expect("it starts"));
            let last = step.prints.last().map(|line| masked(line));
            return wait::until(DEADLINE, &format!("`{command}` prints its lines"), || {
                let text = std::fs::read_to_string(&log).ok()?;
                (text.lines().last().map(masked) == last).then_some(text)
            });
        }
        let output = self.shell(&step.command).stderr(Stdio::inherit()).output().expect("it runs");
        assert!(output.status.success(), "`{}`: {}", step.command, output.status);
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut up) = self.up.take() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(up.id() as i32), nix::sys::signal::Signal::SIGINT);
            let _ = up.wait();
        }
    }
}

#[test]
fn the_readme_works_when_pasted() {
    let transcripts = transcripts();
    assert_eq!(transcripts.len(), 3, "a Python and a Rust service, and flags");
    for transcript in transcripts {
        let mut stage = Stage::new();
        for step in &transcript {
            let printed = stage.run(step);
            let lines = masked_lines(printed.lines());
            let wanted = masked_lines(step.prints.iter().map(String::as_str));
            assert_eq!(lines, wanted, "`{}` printed:\n{printed}", step.command);
        }
    }
}

#[test]
fn numbers_are_masked() {
    assert_eq!(masked("  healthy    1 of 1 in 0.5 s"), masked("  healthy    1 of 1 in 499.0 ms"));
    assert_eq!(masked("http://127.0.0.1:8080"), masked("http://127.0.0.1:41001"));
    assert_ne!(masked("v1 serves"), masked("v serves"));
}
