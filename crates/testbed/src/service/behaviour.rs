//! How a version behaves under test: failures, hangs and latency, from a file that may change while it runs.
//!
//! One `name value` a line: `errors 0.01` (share of `GET /` answered 500), `hang 0.02` (share never answered), `latency_ms 5`
//! (median of a lognormal time to answer), `sigma 0.6` (its spread). The file `all` says what holds for every version.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The file is read again after this.
const READ_EVERY: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Behaviour {
    errors: f64,
    hang: f64,
    latency_ms: f64,
    sigma: f64,
}

pub(crate) enum Fate {
    Answers,
    Fails,
    Hangs,
}

pub(crate) struct Behaves {
    files: [PathBuf; 2],
    now: Cell<Behaviour>,
    read_at: RefCell<Option<Instant>>,
}

impl Behaves {
    /// `folder` holds a file for each version; without one it answers at once.
    pub(crate) fn new(folder: &Path, version: &str) -> Self {
        Self { files: [folder.join(version), folder.join("all")], now: Cell::default(), read_at: RefCell::default() }
    }

    fn now(&self) -> Behaviour {
        let mut read_at = self.read_at.borrow_mut();
        if read_at.is_none_or(|at| at.elapsed() >= READ_EVERY) {
            let text: Vec<String> = self.files.iter().map(|file| std::fs::read_to_string(file).unwrap_or_default()).collect();
            self.now.set(parse(&text.join("\n")));
            *read_at = Some(Instant::now());
        }
        self.now.get()
    }

    /// Waits as long as an answer takes, and says what kind it is.
    pub(crate) async fn fate(&self) -> Fate {
        let now = self.now();
        if now.latency_ms > 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(now.latency_ms * (now.sigma * normal()).exp() / 1_000.0)).await;
        }
        match fastrand::f64() {
            point if point < now.hang => Fate::Hangs,
            point if point < now.hang + now.errors => Fate::Fails,
            _ => Fate::Answers,
        }
    }
}

/// Box and Muller, 1958.
fn normal() -> f64 {
    let (a, b) = (1.0 - fastrand::f64(), fastrand::f64());
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

fn parse(text: &str) -> Behaviour {
    let of = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(key, _)| *key == name).and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0.0)
    };
    Behaviour { errors: of("errors"), hang: of("hang"), latency_ms: of("latency_ms"), sigma: of("sigma") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read() {
        let expected = Behaviour { errors: 0.01, hang: 0.0, latency_ms: 5.0, sigma: 0.0 };
        assert_eq!(parse("errors 0.01\nlatency_ms 5\n"), expected);
    }
}
