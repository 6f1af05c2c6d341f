//! Where the programs of other languages are that the tests drive: `cargo xtask test` installs them into the target folder.
//!
//! **Invariant:** a missing tool is a failed test with a way out, never a skipped one. Not here: installing (xtask).

use std::path::{Path, PathBuf};

/// The Python whose folder has the packages of `PYTHON_TOOLS` in xtask.
///
/// # Panics
/// When it was never installed.
pub fn python() -> PathBuf {
    tool("python", "bin/python3")
}

/// A program that came with one of these packages, by name.
///
/// # Panics
/// When it was never installed.
pub fn python_program(name: &str) -> PathBuf {
    tool("python", &format!("bin/{name}"))
}

/// The folder with the packages of `NODE_TOOLS` in xtask, for `NODE_PATH`. An ES module finds them only from a file below its parent.
///
/// # Panics
/// When they were never installed.
pub fn node_modules() -> PathBuf {
    tool("node", "node_modules")
}

/// The OpenFeature client with flagd's own Rust provider, which is no part of the workspace because it needs `protoc`.
///
/// # Panics
/// When it was never built.
pub fn rust_client() -> PathBuf {
    tool("rust_client", "debug/rust_client")
}

fn tool(folder: &str, path: &str) -> PathBuf {
    let wanted = target().join(folder).join(path);
    // `tools` is written last: without it the folder is half made.
    let made = target().join(folder).join("tools");
    assert!(
        wanted.exists() && made.exists(),
        "{} is missing: run `cargo xtask test` once, it installs what the tests drive into the target folder",
        wanted.display()
    );
    wanted
}

/// As cargo sees it from the workspace's folder.
fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let target = workspace.join(target);
    target.canonicalize().unwrap_or(target)
}
