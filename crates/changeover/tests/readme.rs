//! The README's transcripts, run as they stand: each command, and what it prints, number by number aside.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use testbed::{ports, wait};

const DEADLINE: Duration = Duration::from_secs(60);

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
    let words: Vec<&str> = masked.split_whitespace().collect();
    // `0.5 s` and `499.0 ms` are the same here; so is who ran it.
    words.join(" ").replace("0 ms", "0 s").replace("0 min", "0 s").replace(&user(), "root")
}

fn user() -> String {
    nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map_or("root".to_owned(), |user| user.name)
}

/// The examples in a folder of their own, on ports of their own.
struct Stage {
    folder: tempfile::TempDir,
    ports: HashMap<&'static str, String>,
    cwd: PathBuf,
    up: Option<Child>,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let copied = Command::new("cp").arg("-r").arg(root().join("examples")).arg(folder.path()).status();
        assert!(copied.is_ok_and(|status| status.success()), "the examples are copied");
        let ports: HashMap<&str, String> = ["8080", "8081"].map(|port| (port, ports::free().expect("a free port").to_string())).into();
        let stage = Self { cwd: folder.path().to_path_buf(), folder, ports, up: None };
        for example in ["python", "rust"] {
            let file = stage.folder.path().join("examples").join(example).join("changeover.yaml");
            let text = std::fs::read_to_string(&file).expect("the file");
            std::fs::write(&file, stage.on_our_ports(&text)).expect("written");
        }
        stage
    }

    fn on_our_ports(&self, text: &str) -> String {
        self.ports.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(&format!(":{theirs}"), &format!(":{ours}")))
    }

    fn shell(&self, command: &str) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_changeover")).parent().expect("a folder");
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        shell.args(["-c", &self.on_our_ports(command)]).current_dir(&self.cwd).env("PATH", path).stdin(Stdio::null());
        // The example's own target folder, as for a user.
        shell.env_remove("CARGO_TARGET_DIR");
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
            return wait::until(DEADLINE, &format!("`{command}` prints its lines"), || {
                let text = std::fs::read_to_string(&log).ok()?;
                (text.lines().count() >= step.prints.len()).then_some(text)
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
    assert_eq!(transcripts.len(), 2, "a Python and a Rust service");
    for transcript in transcripts {
        let mut stage = Stage::new();
        for step in &transcript {
            let printed = stage.run(step);
            let lines: Vec<String> = printed.lines().map(masked).collect();
            let wanted: Vec<String> = step.prints.iter().map(|line| masked(line)).collect();
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
