//! File systems of a test's own, which root may mount.

use std::path::Path;
use std::process::{Command, Stdio};

pub fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).stderr(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// A mounted folder, unmounted when dropped.
pub struct Mounted(tempfile::TempDir);

impl Mounted {
    /// A folder on which nothing is mounted yet.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn text(&self) -> &str {
        self.0.path().to_str().expect("text")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run("umount", &["--lazy", self.text()]);
    }
}

pub fn left_out(why: &str) {
    assert!(!nix::unistd::getuid().is_root(), "as root this must work: {why}");
    eprintln!("left out, not root: {why}");
}

pub fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("a file");
    for chunk in [64 * 1024, 4096, 512, 1] {
        while file.write_all(&vec![1u8; chunk]).is_ok() {}
    }
}
