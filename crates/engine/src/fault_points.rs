//! Where a test may end the worker, as `kill -9` does, or hold a release in a state.
//!
//! `CHANGEOVER_CRASH_AT=2/gating+gate_passed:before`: release 2, the transition, and `before`, `persisted` or `performed`; only
//! the first worker of a keeper dies. `CHANGEOVER_PAUSE_AT=2/switching`: release 2 does not leave that state by itself while
//! the file `pause` is in the state directory.

use std::path::Path;
use std::sync::OnceLock;

use release::Release;

fn wanted(variable: &'static str, value: &'static OnceLock<Option<String>>) -> Option<&'static str> {
    value.get_or_init(|| std::env::var(variable).ok()).as_deref()
}

/// `point`: `before` the state is kept, `persisted`, or `performed` when its effects were.
pub(crate) fn crash(release: u64, transition: (&str, &str), point: &str) {
    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    let Some(wanted) = wanted("CHANGEOVER_CRASH_AT", &WANTED) else { return };
    if crashes() == 0 && wanted == format!("{release}/{}+{}:{point}", transition.0, transition.1) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

pub(crate) fn pauses(release: &Release, state_dir: &Path) -> bool {
    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    let Some(wanted) = wanted("CHANGEOVER_PAUSE_AT", &WANTED) else { return false };
    wanted == format!("{}/{}", release.number, release.state.name()) && state_dir.join("pause").exists()
}

/// How often the worker crashed within the last seconds, as its keeper tells.
pub(crate) fn crashes() -> u32 {
    std::env::var("CHANGEOVER_WORKER_CRASHES").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}
