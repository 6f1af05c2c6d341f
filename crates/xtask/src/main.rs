//! The one task runner: `cargo xtask test | ci | tidy | set-up | fuzz`. Standard library only.
//!
//! `test` first installs what the tests drive and the machine lacks (as root, on Debian), then checks arrows, format and lints.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let done = match task.as_str() {
        "test" | "ci" => {
            set_up()
                && tidy()
                && run("cargo", &["fmt", "--all", "--check"])
                && run("cargo", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"])
                && run("cargo", &["build", "--workspace", "--all-targets"])
                && run("cargo", &["test", "--workspace"])
        }
        "tidy" => tidy(),
        "set-up" => set_up(),
        "fuzz" => return fuzz(),
        _ => {
            eprintln!("usage: cargo xtask test | ci | tidy | set-up | fuzz --seconds N [--seed N]");
            return ExitCode::from(64);
        }
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).status();
    status.is_ok_and(|status| status.success())
}

/// Rooms that read what comes from outside, and fuzz it.
const FUZZED: &[&str] = &["http1", "proxy", "config", "flags"];

/// Each target for so many seconds, all of a room at once; with a seed, only the input that it makes. No nightly compiler is needed.
fn fuzz() -> ExitCode {
    let argument = |name: &str| std::env::args().skip_while(|argument| argument != name).nth(1);
    let (seconds, seed) = (argument("--seconds").unwrap_or_else(|| "60".to_owned()), argument("--seed"));
    let is_good = FUZZED.iter().all(|room| {
        let mut command = Command::new("cargo");
        command.args(["test", "--quiet", "--package", room, "fuzz", "--", "--nocapture"]);
        command.env("CHANGEOVER_FUZZ_SECONDS", &seconds);
        if let Some(seed) = &seed {
            command.env("CHANGEOVER_FUZZ_SEED", seed);
        }
        command.status().is_ok_and(|status| status.success())
    });
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Programs that the tests drive, and Debian's packages that hold them.
const PROGRAMS: &[(&str, &str)] = &[
    ("python3", "python3"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("mkfs.ext4", "e2fsprogs"),
    ("fsfreeze", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("chromium", "chromium"),
    ("chromium", "fonts-dejavu-core"),
    ("prometheus", "prometheus"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("haproxy", "haproxy"),
    ("systemd-analyze", "systemd"),
    ("protoc", "protobuf-compiler"),
    ("protoc", "libprotobuf-dev"),
    ("pebble", "pebble"),
    ("pebble-challtestsrv", "pebble"),
    ("redis-server", "redis-server"),
];

/// Nothing is installed where nothing is missing. Without root or apt it says what will fail.
fn set_up() -> bool {
    let folders: Vec<_> =
        std::env::var_os("PATH").iter().flat_map(std::env::split_paths).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    let is_there = |program: &str| folders.iter().any(|folder| folder.join(program).exists());
    let mut missing: Vec<&str> = PROGRAMS.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    missing.dedup();
    if missing.is_empty() {
        return python_tools() && node_tools() && rust_client();
    }
    eprintln!("installing {}", missing.join(", "));
    let install = [&["install", "--yes", "--no-install-recommends"], missing.as_slice()].concat();
    if run("apt-get", &["update", "--quiet"]) && run("apt-get", &install) {
        return python_tools() && node_tools() && rust_client();
    }
    eprintln!(
        "error: could not install {}: as root on Debian this is done with apt-get; elsewhere, install them by hand",
        missing.join(", ")
    );
    false
}

/// From PyPI: a fuzzer that reads the API's document, the way to speak to a browser, OpenFeature's Python side, and gRPC.
const PYTHON_TOOLS: &[&str] = &[
    "schemathesis==4.32.5",
    "websocket-client==1.9.2",
    "openfeature-sdk==0.10.0",
    "openfeature-flagd-core==2.0.0",
    "openfeature-provider-flagd==0.6.1",
    "openfeature-provider-ofrep==0.3.0",
    "grpcio==1.85.3",
    "grpcio-health-checking==1.85.1",
];

/// Puts them into a folder of their own, `python` in the target folder; once.
fn python_tools() -> bool {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), std::path::PathBuf::from);
    let folder = target.join("python");
    let (made, pip) = (folder.join("tools"), folder.join("bin").join("pip"));
    let wanted = PYTHON_TOOLS.join("\n");
    if std::fs::read_to_string(&made).is_ok_and(|text| text == wanted) {
        return true;
    }
    eprintln!("installing {} into {}", PYTHON_TOOLS.join(", "), folder.display());
    let (folder, pip) = (folder.to_string_lossy(), pip.to_string_lossy());
    let make = || run("python3", &["-m", "venv", &folder]);
    // Debian keeps this part of Python in a package of its own.
    let made_it = make() || (run("apt-get", &["install", "--yes", "--no-install-recommends", "python3-venv"]) && make());
    let install = [&["install", "--quiet", "--disable-pip-version-check"], PYTHON_TOOLS].concat();
    if made_it && run(&pip, &install) && std::fs::write(&made, wanted).is_ok() {
        return true;
    }
    eprintln!("error: could not install {}: it needs python3 with venv and pip, and PyPI", PYTHON_TOOLS.join(", "));
    false
}

/// From npm: OpenFeature's JavaScript side. `ofrep-core` is the one that `ofrep-provider` asks for; the web provider brings its own.
const NODE_TOOLS: &[&str] = &[
    "@openfeature/core@1.12.0",
    "@openfeature/server-sdk@1.23.0",
    "@openfeature/web-sdk@1.10.0",
    "@openfeature/flagd-core@4.0.1",
    "@openfeature/flagd-provider@0.16.1",
    "@openfeature/ofrep-core@0.1.4",
    "@openfeature/ofrep-provider@0.1.3",
    "@openfeature/ofrep-web-provider@0.4.3",
    "@grpc/grpc-js@1.14.7",
];

/// Puts them into a folder of their own, `node` in the target folder; once. Nothing of theirs runs while they are installed.
fn node_tools() -> bool {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), std::path::PathBuf::from);
    let folder = target.join("node");
    let made = folder.join("tools");
    let wanted = NODE_TOOLS.join("\n");
    if std::fs::read_to_string(&made).is_ok_and(|text| text == wanted) {
        return true;
    }
    eprintln!("installing {} into {}", NODE_TOOLS.join(", "), folder.display());
    // A manifest of its own: otherwise npm looks for one in the folders above.
    let manifest = || std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join("package.json"), "{\"private\":true}"));
    let place = folder.to_string_lossy();
    let install = ["install", "--prefix", &place, "--save-exact", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    if manifest().is_ok() && run("npm", &[&install, NODE_TOOLS].concat()) && std::fs::write(&made, wanted).is_ok() {
        return true;
    }
    eprintln!("error: could not install {}: it needs node, npm and npm's registry", NODE_TOOLS.join(", "));
    false
}

/// flagd's own Rust provider in a small client, built into the target folder; apart from the workspace, for it needs `protoc`.
fn rust_client() -> bool {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), std::path::PathBuf::from);
    let (folder, manifest) = (target.join("rust_client"), "crates/flag_server/tests/rust_client/Cargo.toml");
    let place = folder.to_string_lossy();
    let built = run("cargo", &["build", "--quiet", "--locked", "--manifest-path", manifest, "--target-dir", &place]);
    if built && std::fs::write(folder.join("tools"), manifest).is_ok() {
        return true;
    }
    eprintln!("error: could not build {manifest}: it needs protoc with its own definitions (protobuf-compiler, libprotobuf-dev)");
    false
}

/// Which room may know which; the picture in ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("judge", &["model"]),
    ("release", &["model"]),
    ("telemetry", &["model"]),
    ("http1", &[]),
    ("proxy", &["http1", "model", "proxy_protocol", "telemetry", "tls"]),
    ("proxy_protocol", &[]),
    ("config", &["model"]),
    ("keeper", &[]),
    ("store", &[]),
    ("engine", &["model", "proxy_protocol", "release", "judge", "store", "tls"]),
    ("flag_engine", &["model", "release", "judge", "telemetry", "flags", "store"]),
    ("control", &["model", "engine", "flags", "flag_engine"]),
    ("flag_server", &["flags", "flag_engine"]),
    ("flags", &[]),
    ("flag_client", &["flags"]),
    ("flag_scan", &[]),
    ("tls", &["model"]),
    ("acme", &["model", "store", "tls"]),
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
