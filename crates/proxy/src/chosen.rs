//! Where a request runs: a version and its target, and the claim on it.
//!
//! **Invariants**: what all threads share is not written to but for the target's own count: references are counted within the thread.
//! What lasts does not keep a whole table.

use std::rc::Rc;
use std::sync::Arc;

use crate::black_box;
use crate::counts::VersionCounts;
use crate::live::TargetLive;
use crate::table::{Table, Target};

#[derive(Clone)]
pub(crate) struct Chosen(Held);

#[derive(Clone)]
enum Held {
    #[allow(clippy::redundant_allocation)] // as the lane has it
    InTable {
        table: Rc<Arc<Table>>,
        service: usize,
        version: usize,
        target: usize,
    },
    Apart {
        live: Arc<TargetLive>,
        counts: Arc<VersionCounts>,
    },
}

impl Chosen {
    /// `target` is one of this version's.
    #[allow(clippy::redundant_allocation)]
    pub(crate) fn new(table: &Rc<Arc<Table>>, service: usize, version: usize, target: &Target) -> Self {
        Self(Held::InTable { table: table.clone(), service, version, target: target.index })
    }

    fn live_shared(&self) -> &Arc<TargetLive> {
        match &self.0 {
            Held::InTable { table, service, version, target } => &table.services[*service].versions[*version].targets[*target].live,
            Held::Apart { live, .. } => live,
        }
    }

    fn counts_shared(&self) -> &Arc<VersionCounts> {
        match &self.0 {
            Held::InTable { table, service, version, .. } => &table.services[*service].versions[*version].counts,
            Held::Apart { counts, .. } => counts,
        }
    }

    pub(crate) fn live(&self) -> &TargetLive {
        self.live_shared()
    }

    pub(crate) fn counts(&self) -> &VersionCounts {
        self.counts_shared()
    }

    /// For what may last longer than its table: many tables come and go meanwhile.
    pub(crate) fn set_apart(&mut self) {
        self.0 = Held::Apart { live: self.live_shared().clone(), counts: self.counts_shared().clone() };
    }

    /// A request that runs there.
    pub(crate) fn claim(&self) -> Claim {
        self.live().began();
        black_box::began();
        Claim { chosen: self.clone(), is_tunnel: false }
    }
}

/// A request, or a tunnel, that runs on a target.
pub(crate) struct Claim {
    chosen: Chosen,
    is_tunnel: bool,
}

impl Claim {
    pub(crate) fn into_tunnel(mut self) -> Self {
        self.chosen.live().became_tunnel();
        self.is_tunnel = true;
        self.lasts()
    }

    /// It may last longer than its table.
    pub(crate) fn lasts(mut self) -> Self {
        self.chosen.set_apart();
        self
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.chosen.live().ended(self.is_tunnel);
        black_box::ended();
    }
}
