//! What is true of a target now, shared by all threads: in flight, failures, ejection.
//!
//! **Invariant**: a claim is counted before the table is verified, so a reader that sees zero after a switch can trust it.
//! State survives snapshots by target id. Not here: active health, which arrives inside the snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use model::{ServiceName, TargetId, VersionName};

use crate::clock::now_ms;

/// So many failures in a row, over all threads, eject a target.
const FAILURES_TO_EJECT: u32 = 5;
const EJECTION_FIRST_MS: u64 = 1_000;
/// Doubling stops here: a target that came back is found again within a minute.
const EJECTION_MAX_MS: u64 = 60_000;

pub(crate) struct TargetLive {
    /// Never reused in this process: a short key for pools.
    pub(crate) number: u64,
    pub(crate) id: TargetId,
    pub(crate) service: ServiceName,
    pub(crate) version: VersionName,
    requests: AtomicUsize,
    tunnels: AtomicUsize,
    /// Since it served last.
    failures: AtomicU32,
    /// Connections that it did not accept, since it did last.
    unconnected: AtomicU32,
    ejections: AtomicU32,
    ejected_until_ms: AtomicU64,
    /// By active checks, in the last table.
    healthy: AtomicBool,
}

impl TargetLive {
    pub(crate) fn new(id: TargetId, service: ServiceName, version: VersionName) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            id,
            service,
            version,
            requests: AtomicUsize::new(0),
            tunnels: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            unconnected: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
            healthy: AtomicBool::new(false),
        })
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }

    pub(crate) fn tunnels(&self) -> usize {
        self.tunnels.load(Ordering::Acquire)
    }

    pub(crate) fn is_ejected(&self, now_ms: u64) -> bool {
        self.ejected_until_ms.load(Ordering::Relaxed) > now_ms
    }

    /// What active checks found. One that became healthy is ejected no more: it failed while it was not.
    pub(crate) fn checked(&self, healthy: bool) {
        if !self.healthy.swap(healthy, Ordering::Relaxed) && healthy {
            self.forgive();
            self.ejected_until_ms.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn succeeded(&self) {
        // Read first: the usual case must not write to a line that all threads share.
        if self.failures.load(Ordering::Relaxed) != 0 || self.unconnected.load(Ordering::Relaxed) != 0 {
            self.forgive();
        }
    }

    /// It accepted, which says nothing of how it serves; and some targets never say a word.
    pub(crate) fn connected(&self) {
        if self.failures.load(Ordering::Relaxed) == 0 {
            self.succeeded();
        } else {
            self.unconnected.store(0, Ordering::Relaxed);
        }
    }

    fn forgive(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.unconnected.store(0, Ordering::Relaxed);
        self.ejections.store(0, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.eject_if_bad();
    }

    pub(crate) fn not_connected(&self) {
        self.unconnected.fetch_add(1, Ordering::Relaxed);
        self.eject_if_bad();
    }

    fn eject_if_bad(&self) {
        let failures = self.failures.load(Ordering::Relaxed).saturating_add(self.unconnected.load(Ordering::Relaxed));
        if failures < FAILURES_TO_EJECT {
            return;
        }
        let now = now_ms();
        if self.is_ejected(now) {
            return;
        }
        let times = self.ejections.fetch_add(1, Ordering::Relaxed).min(16);
        let pause = (EJECTION_FIRST_MS << times).min(EJECTION_MAX_MS);
        self.ejected_until_ms.store(now + pause, Ordering::Relaxed);
    }

    pub(crate) fn began(&self) {
        self.requests.fetch_add(1, Ordering::SeqCst);
    }

    /// Counted as a tunnel before it stops being counted as a request: a reader never sees neither.
    pub(crate) fn became_tunnel(&self) {
        self.tunnels.fetch_add(1, Ordering::SeqCst);
        self.requests.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn ended(&self, is_tunnel: bool) {
        let count = if is_tunnel { &self.tunnels } else { &self.requests };
        let before = count.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "a claim is released once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_eject() {
        let name = |text| TargetId::new(text).expect("name");
        let live = TargetLive::new(name("t1"), ServiceName::new("web").expect("name"), VersionName::new("v1").expect("name"));
        (0..4).for_each(|_| live.failed());
        assert!(!live.is_ejected(now_ms()));
        live.succeeded();
        (0..4).for_each(|_| live.failed());
        assert!(!live.is_ejected(now_ms()), "a success starts the count again");
        live.failed();
        assert!(live.is_ejected(now_ms()));
        assert!(!live.is_ejected(now_ms() + 1_100));
        live.checked(false);
        assert!(live.is_ejected(now_ms()));
        live.checked(true);
        assert!(!live.is_ejected(now_ms()), "it failed while it was starting");
        (0..5).for_each(|_| live.failed());
        live.checked(true);
        assert!(live.is_ejected(now_ms()), "it was healthy all the time");
    }

    #[test]
    fn a_target_that_accepts_is_not_ejected_for_what_it_refused_long_ago() {
        let name = |text| TargetId::new(text).expect("name");
        let live = TargetLive::new(name("t1"), ServiceName::new("web").expect("name"), VersionName::new("v1").expect("name"));
        for _ in 0..10 {
            (0..4).for_each(|_| live.not_connected());
            live.connected();
        }
        assert!(!live.is_ejected(now_ms()));
        // One that accepts and then dies is another thing.
        for _ in 0..5 {
            live.connected();
            live.failed();
        }
        assert!(live.is_ejected(now_ms()));
    }

    #[test]
    fn a_claim_moves_to_tunnel_and_ends() {
        let live = TargetLive::new(
            TargetId::new("t1").expect("name"),
            ServiceName::new("web").expect("name"),
            VersionName::new("v1").expect("name"),
        );
        live.began();
        live.began();
        assert_eq!((live.requests(), live.tunnels()), (2, 0));
        live.became_tunnel();
        assert_eq!((live.requests(), live.tunnels()), (1, 1));
        live.ended(true);
        live.ended(false);
        assert_eq!((live.requests(), live.tunnels()), (0, 0));
    }
}
