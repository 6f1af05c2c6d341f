//! What the handle and all lanes share: the ways to the lanes, loads, the registry of live state, the drain.
//!
//! **Invariant**: the registry's lock is taken by the control side only, never in a request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use model::{ListenerName, ReleaseId, ServiceName, TargetId, VersionName};
use telemetry::LogWriter;
use tls::Keyring;
use tokio::sync::mpsc::UnboundedSender;

use crate::admission::{self, Addresses};
use crate::clock::now_ms;
use crate::counts::VersionCounts;
use crate::flood::Flood;
use crate::lane::Command;
use crate::live::TargetLive;
use crate::reason::Reason;
use crate::secure::Handshakes;
use crate::table::Lives;
use crate::unit::Cells;
use crate::watched::Watched;

pub(crate) struct Shared {
    pub(crate) commands: Vec<UnboundedSender<Command>>,
    /// Client connections per lane, including those on their way to it.
    pub(crate) loads: Vec<AtomicUsize>,
    pub(crate) accepted: Vec<AtomicU64>,
    /// Of all lanes; beyond it clients wait in the kernel's queue.
    pub(crate) connections_max: usize,
    /// Per lane: draws of earlier seconds since boot are all counted.
    pub(crate) complete_s: Vec<AtomicU64>,
    /// Client connections that rest without buffers, per lane.
    pub(crate) parked: Vec<AtomicUsize>,
    /// Answers made by the proxy, per lane and reason.
    pub(crate) made: Vec<Vec<AtomicU64>>,
    /// Connections that were ended for a flood of frames, per lane and kind.
    pub(crate) floods: Vec<[AtomicU64; Flood::ALL.len()]>,
    pub(crate) handshakes: Vec<Handshakes>,
    /// Connections that did not begin with the header that they had to begin with, per lane.
    pub(crate) headers_refused: Vec<AtomicU64>,
    pub(crate) keyring: Keyring,
    pub(crate) log: Option<LogWriter>,
    pub(crate) watched: Watched,
    registry: Mutex<Registry>,
    /// 0 while no drain has begun.
    drain_since_ms: AtomicU64,
    drain_grace_ms: AtomicU64,
}

impl Shared {
    pub(crate) fn new(commands: Vec<UnboundedSender<Command>>, log: Option<LogWriter>, keyring: Keyring) -> Self {
        let threads = commands.len();
        let zeros = |_| Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            commands,
            loads: (0..threads).map(|_| AtomicUsize::new(0)).collect(),
            accepted: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            connections_max: admission::connections_max(),
            complete_s: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            parked: (0..threads).map(|_| AtomicUsize::new(0)).collect(),
            made: (0..threads).map(zeros).collect(),
            floods: (0..threads).map(|_| Default::default()).collect(),
            headers_refused: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            handshakes: (0..threads).map(|_| Handshakes::default()).collect(),
            keyring,
            log,
            watched: Watched::default(),
            registry: Mutex::new(Registry { threads, ..Registry::default() }),
            drain_since_ms: AtomicU64::new(0),
            drain_grace_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        // A panic under the lock leaves maps that are still maps.
        self.registry.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn begin_drain(&self, grace_ms: u64) {
        self.drain_grace_ms.store(grace_ms, Ordering::Relaxed);
        self.drain_since_ms.store(now_ms(), Ordering::Release);
    }

    /// Since when, and how long idle connections are kept.
    pub(crate) fn drain(&self) -> Option<(u64, u64)> {
        match self.drain_since_ms.load(Ordering::Acquire) {
            0 => None,
            since => Some((since, self.drain_grace_ms.load(Ordering::Relaxed))),
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.loads.iter().map(|load| load.load(Ordering::Acquire)).sum()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.connections() >= self.connections_max
    }
}

/// Beyond this the counts of versions that are gone leave the metrics: about 25 lines and 9 kB each.
const GONE_MAX: usize = 64;

#[derive(Default)]
pub(crate) struct Registry {
    threads: usize,
    targets: HashMap<TargetId, Arc<TargetLive>>,
    pub(crate) counts: HashMap<(ServiceName, VersionName), Arc<VersionCounts>>,
    pub(crate) mirrored: HashMap<(ServiceName, VersionName), Arc<VersionCounts>>,
    held: HashMap<ServiceName, Arc<AtomicU32>>,
    pub(crate) cells: HashMap<ReleaseId, Arc<Cells>>,
    addresses: HashMap<ListenerName, Arc<Addresses>>,
}

impl Registry {
    pub(crate) fn of<'a>(&'a self, service: &'a ServiceName, version: &'a VersionName) -> impl Iterator<Item = &'a Arc<TargetLive>> {
        self.targets.values().filter(move |live| live.service == *service && live.version == *version)
    }

    pub(crate) fn known(&self, target: &TargetId) -> Option<Arc<TargetLive>> {
        self.targets.get(target).cloned()
    }

    pub(crate) fn held(&self) -> Vec<(ServiceName, u32)> {
        let one = |(service, held): (&ServiceName, &Arc<AtomicU32>)| (service.clone(), held.load(Ordering::Relaxed));
        let mut all: Vec<_> = self.held.iter().map(one).collect();
        all.sort();
        all
    }

    /// Forgets targets that no table and no request knows any more, and counts of versions that are gone, once they are many.
    pub(crate) fn forget_gone(&mut self) {
        if self.counts.len() > GONE_MAX {
            self.counts.retain(|_, counts| Arc::strong_count(counts) > 1);
        }
        if self.mirrored.len() > GONE_MAX {
            self.mirrored.retain(|_, counts| Arc::strong_count(counts) > 1);
        }
        self.targets.retain(|_, live| Arc::strong_count(live) > 1);
        self.cells.retain(|_, cells| Arc::strong_count(cells) > 1);
    }
}

impl Lives for Registry {
    fn target(&mut self, id: &TargetId, service: &ServiceName, version: &VersionName) -> Arc<TargetLive> {
        let new = || TargetLive::new(id.clone(), service.clone(), version.clone());
        self.targets.entry(id.clone()).or_insert_with(new).clone()
    }

    fn counts(&mut self, service: &ServiceName, version: &VersionName) -> Arc<VersionCounts> {
        let threads = self.threads;
        let key = (service.clone(), version.clone());
        self.counts.entry(key).or_insert_with(|| Arc::new(VersionCounts::new(threads))).clone()
    }

    fn mirrored(&mut self, service: &ServiceName, version: &VersionName) -> Arc<VersionCounts> {
        let threads = self.threads;
        let key = (service.clone(), version.clone());
        self.mirrored.entry(key).or_insert_with(|| Arc::new(VersionCounts::new(threads))).clone()
    }

    fn held(&mut self, service: &ServiceName) -> Arc<AtomicU32> {
        self.held.entry(service.clone()).or_default().clone()
    }

    fn addresses(&mut self, listener: &ListenerName) -> Arc<Addresses> {
        self.addresses.entry(listener.clone()).or_default().clone()
    }

    fn cells(&mut self, release: &ReleaseId, closing_s: u64, sticky: bool) -> Arc<Cells> {
        let threads = self.threads;
        self.cells.entry(release.clone()).or_insert_with(|| Arc::new(Cells::new(threads, closing_s, sticky))).clone()
    }
}
