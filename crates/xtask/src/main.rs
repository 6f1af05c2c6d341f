//! The one task runner: `cargo xtask test | ci | tidy`. Standard library only.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let done = match task.as_str() {
        "test" | "ci" => tidy() && run("cargo", &["build", "--workspace", "--all-targets"]) && run("cargo", &["test", "--workspace"]),
        "tidy" => tidy(),
        _ => {
            eprintln!("usage: cargo xtask test | ci | tidy");
            return ExitCode::from(64);
        }
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).status();
    status.is_ok_and(|status| status.success())
}

/// Which room may know which; the picture in ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("release", &["model"]),
    ("telemetry", &["model"]),
    ("proxy", &["model", "telemetry"]),
    ("config", &["model"]),
    ("keeper", &[]),
    ("engine", &["model", "release"]),
    ("control", &["model", "engine"]),
    ("testbed", &[]),
];

/// Checks the arrows between the rooms against the table.
fn tidy() -> bool {
    let mut good = true;
    for (room, may_know) in ARROWS {
        let path = format!("crates/{room}/Cargo.toml");
        let Ok(manifest) = std::fs::read_to_string(&path) else {
            eprintln!("error: cannot read {path}");
            return false;
        };
        let normal = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for (other, _) in ARROWS {
            let known = normal.lines().any(|line| line.starts_with(&format!("{other}.")) || line.starts_with(&format!("{other} ")));
            if known && !may_know.contains(other) {
                eprintln!("error: {path}: `{room}` must not know `{other}`");
                good = false;
            }
        }
    }
    good
}
