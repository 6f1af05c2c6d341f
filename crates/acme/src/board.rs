//! What the house may read of the clerk's work, and ask of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Board(Arc<Inner>);

#[derive(Default)]
struct Inner {
    written: Mutex<Written>,
    wake: Notify,
}

#[derive(Default)]
pub(crate) struct Written {
    pub(crate) names: BTreeMap<String, OfName>,
    pub(crate) issued: u64,
    /// Names that somebody wants to be tried at once.
    pub(crate) wanted_now: BTreeSet<String>,
}

/// A name that an authority is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfName {
    /// The authority's directory.
    pub directory: String,
    /// In a row.
    pub failures: u32,
    /// Of the last of them.
    pub problem: Option<String>,
    /// When the authority is asked next, in seconds since 1970; now, while it is.
    pub next_s: i64,
}

impl Board {
    pub(crate) fn write(&self) -> MutexGuard<'_, Written> {
        self.0.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn of(&self, name: &str) -> Option<OfName> {
        self.write().names.get(name).cloned()
    }

    /// Tries again at once, however often it failed; a certificate that is good is not asked for again. False: nobody asks for it.
    pub fn try_now(&self, name: &str) -> bool {
        let mut written = self.write();
        let is_known = written.names.contains_key(name);
        if is_known {
            written.wanted_now.insert(name.to_owned());
            self.0.wake.notify_one();
        }
        is_known
    }

    pub(crate) async fn is_asked(&self) {
        self.0.wake.notified().await;
    }

    /// In Prometheus' text format; empty while nobody is asked for anything.
    pub fn metrics(&self) -> String {
        let written = self.write();
        let mut out = String::new();
        if written.names.is_empty() {
            return out;
        }
        let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&OfName) -> i64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (of, it) in &written.names {
                let _ = writeln!(out, "{name}{{name=\"{of}\"}} {}", value(it));
            }
        };
        family("changeover_acme_failures", "gauge", "Tries in a row that brought no certificate.", &|it| it.failures.into());
        family("changeover_acme_next_timestamp_seconds", "gauge", "When the authority is asked for a certificate next.", &|it| it.next_s);
        let issued = "changeover_acme_issued_total";
        let _ = writeln!(out, "# HELP {issued} Certificates that were issued.\n# TYPE {issued} counter\n{issued} {}", written.issued);
        out
    }
}
