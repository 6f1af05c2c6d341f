//! A unit of the judge: one client request that was drawn to an arm, from its draw to its end.
//!
//! Counters lie in cells by epoch and assignment second, one ring per thread. **Invariants**: a cell has one writer; a unit is
//! counted where it was drawn, whatever happens to the routing meanwhile; it ends exactly once, when it is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use telemetry::{ArmCounts, CellCounts, SETS, Seat};

use crate::clock::second_of;
use crate::cohort::{ClientKey, Clients};

/// Seconds that a cell stays beyond the age at which all its units are closed, for the reader to come.
const SLACK_S: u64 = 10;
/// At most two epochs share a second.
const EPOCHS: u64 = 2;

/// The counters of one release.
pub(crate) struct Cells {
    lanes: Box<[Ring]>,
    seconds: u64,
    /// Where clients stick, they are the units.
    pub(crate) clients: Option<Clients>,
}

struct Ring {
    slots: Box<[Slot]>,
}

// Two cache lines: threads do not share them.
#[repr(align(128))]
#[derive(Default)]
struct Slot {
    /// Epoch and second; 0 when empty or being cleared.
    tag: AtomicU64,
    arms: [ArmSlot; 2],
}

#[derive(Default)]
struct ArmSlot {
    drawn: AtomicU32,
    ended: AtomicU32,
    answering: AtomicU32,
    bad: [AtomicU32; SETS],
}

/// Only for counts with a single writer.
fn bump(count: &AtomicU32, by: u32) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

impl Cells {
    pub(crate) fn new(threads: usize, closing_s: u64, sticky: bool) -> Self {
        if sticky {
            return Self { lanes: Box::default(), seconds: 0, clients: Some(Clients::new(closing_s)) };
        }
        let seconds = closing_s + SLACK_S;
        let ring = |_| Ring { slots: (0..seconds * EPOCHS).map(|_| Slot::default()).collect() };
        Self { lanes: (0..threads).map(ring).collect(), seconds, clients: None }
    }

    fn slot(&self, lane: usize, epoch: u32, second: u64) -> &Slot {
        let index = u64::from(epoch) % EPOCHS * self.seconds + second % self.seconds;
        &self.lanes[lane].slots[index as usize]
    }

    /// All cells, added up over the threads; an open one is torn at most by what happens just now.
    pub(crate) fn read(&self, second: u64) -> Vec<CellCounts> {
        if let Some(clients) = &self.clients {
            return clients.read(second);
        }
        let mut cells: BTreeMap<u64, CellCounts> = BTreeMap::new();
        for slot in self.lanes.iter().flat_map(|ring| &ring.slots) {
            let tag = slot.tag.load(Ordering::Acquire);
            if tag == 0 {
                continue;
            }
            let (epoch, second) = of_tag(tag);
            let [candidate, stable] = [0, 1].map(|arm| slot.arms[arm].read());
            std::sync::atomic::fence(Ordering::Acquire);
            // Cleared meanwhile: it was closed long ago.
            if slot.tag.load(Ordering::Relaxed) != tag {
                continue;
            }
            let cell = cells.entry(tag).or_insert(CellCounts { epoch, second, ..CellCounts::default() });
            cell.candidate.add(&candidate);
            cell.stable.add(&stable);
        }
        cells.into_values().collect()
    }
}

impl ArmSlot {
    fn read(&self) -> ArmCounts {
        // What is part of the other first: torn, the differences stay at or above zero.
        let bad = std::array::from_fn(|set| u64::from(self.bad[set].load(Ordering::Relaxed)));
        let ended = u64::from(self.ended.load(Ordering::Relaxed));
        let answering = u64::from(self.answering.load(Ordering::Relaxed));
        ArmCounts { drawn: u64::from(self.drawn.load(Ordering::Relaxed)), ended, answering, bad }
    }

    fn clear(&self) {
        for count in [&self.drawn, &self.ended, &self.answering].into_iter().chain(&self.bad) {
            count.store(0, Ordering::Relaxed);
        }
    }
}

fn tag_of(epoch: u32, second: u64) -> u64 {
    u64::from(epoch) << 40 | second & ((1 << 40) - 1)
}

fn of_tag(tag: u64) -> (u32, u64) {
    ((tag >> 40) as u32, tag & ((1 << 40) - 1))
}

/// An epoch as a table has it.
pub(crate) struct Epoch {
    pub(crate) cells: Arc<Cells>,
    pub(crate) number: u32,
    pub(crate) timeout_bad: Duration,
    /// Counter set, and the age from which on an answer is bad in it; per arm.
    pub(crate) thresholds: [Vec<(usize, Duration)>; 2],
}

pub(crate) struct Unit {
    epoch: Arc<Epoch>,
    /// A request of a sticky client: the client is the unit.
    client: Option<Seat>,
    lane: usize,
    second: u64,
    pub(crate) arm: usize,
    drawn_at: Instant,
    failed: bool,
    /// The answer's head has come.
    answering: bool,
    over: bool,
}

impl Unit {
    /// Counts the draw. `arm`: 0 is the candidate.
    pub(crate) fn draw(epoch: &Arc<Epoch>, lane: usize, arm: usize, now: Instant) -> Self {
        let second = second_of(now);
        let (slot, tag) = (epoch.cells.slot(lane, epoch.number, second), tag_of(epoch.number, second));
        if slot.tag.load(Ordering::Relaxed) != tag {
            slot.tag.store(0, Ordering::Relaxed);
            std::sync::atomic::fence(Ordering::Release);
            slot.arms.iter().for_each(ArmSlot::clear);
            slot.tag.store(tag, Ordering::Release);
        }
        bump(&slot.arms[arm].drawn, 1);
        Self { epoch: epoch.clone(), client: None, lane, second, arm, drawn_at: now, failed: false, answering: false, over: false }
    }

    /// A request of a sticky client; `None` when it does not count.
    pub(crate) fn of_client(epoch: &Arc<Epoch>, key: &ClientKey, sticky: &model::Sticky, arm: usize, now: Instant) -> Option<Self> {
        let client = epoch.cells.clients.as_ref()?.enter(key, sticky, epoch.number, arm, now)?;
        let (epoch, second) = (epoch.clone(), second_of(now));
        Some(Self { epoch, client: Some(client), lane: 0, second, arm, drawn_at: now, failed: false, answering: false, over: false })
    }

    /// Tells of the client what this request was.
    fn tell_client(&mut self, client: Seat, is_over: bool) {
        let Some(clients) = &self.epoch.cells.clients else { return };
        let age = self.drawn_at.elapsed();
        let mut sets = 0;
        if !self.answering {
            let slow = self.epoch.thresholds[self.arm].iter().filter(|(_, threshold)| age >= *threshold);
            sets |= slow.fold(0, |sets, (set, _)| sets | 1 << set);
        }
        if self.failed || is_over && !self.answering && age >= self.epoch.timeout_bad {
            sets |= 1;
        }
        clients.tell(client, sets, !self.answering);
    }

    /// Absent when the cell was closed and used again.
    fn slot(&self) -> Option<&ArmSlot> {
        let slot = self.epoch.cells.slot(self.lane, self.epoch.number, self.second);
        (slot.tag.load(Ordering::Relaxed) == tag_of(self.epoch.number, self.second)).then(|| &slot.arms[self.arm])
    }

    /// An attempt that reached a target failed, or another version had to help: bad, whatever the client got.
    pub(crate) fn failed(&mut self) {
        self.failed = true;
    }

    /// How long it took is known now. What is bad, or whole, ends here.
    pub(crate) fn answered(&mut self, bad: bool, is_whole: bool) {
        let age = self.drawn_at.elapsed();
        self.failed |= bad || age >= self.epoch.timeout_bad;
        if let Some(client) = self.client {
            self.tell_client(client, is_whole);
            (self.answering, self.over) = (true, is_whole);
            return;
        }
        let Some(slot) = self.slot() else { return };
        self.count_latency(slot, age);
        if self.failed || is_whole {
            self.count_end(slot, age);
            self.over = true;
        } else {
            bump(&slot.answering, 1);
        }
        self.answering = true;
    }

    fn count_latency(&self, slot: &ArmSlot, age: Duration) {
        for (set, threshold) in &self.epoch.thresholds[self.arm] {
            if age >= *threshold {
                bump(&slot.bad[*set], 1);
            }
        }
    }

    fn count_end(&self, slot: &ArmSlot, age: Duration) {
        let is_late = age >= self.epoch.timeout_bad;
        // A reader has closed it by its age already: bad without an answer, good with one that had begun.
        let bad = if self.answering { self.failed && !is_late } else { self.failed || is_late };
        if bad {
            bump(&slot.bad[0], 1);
        }
        bump(&slot.ended, 1);
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        if let Some(client) = self.client {
            return self.tell_client(client, true);
        }
        let age = self.drawn_at.elapsed();
        let Some(slot) = self.slot() else { return };
        if self.answering {
            bump(&slot.answering, u32::MAX);
        } else {
            self.count_latency(slot, age);
        }
        self.count_end(slot, age);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch() -> Arc<Epoch> {
        let thresholds = [vec![(1, Duration::ZERO)], vec![(1, Duration::from_secs(3_600))]];
        Arc::new(Epoch { cells: Arc::new(Cells::new(1, 30, false)), number: 3, timeout_bad: Duration::from_secs(30), thresholds })
    }

    fn only(epoch: &Epoch) -> CellCounts {
        let cells = epoch.cells.read(0);
        assert_eq!(cells.len(), 1);
        cells[0]
    }

    #[test]
    fn a_unit_that_its_client_left_is_closed_and_not_bad() {
        let epoch = epoch();
        let unit = Unit::draw(&epoch, 0, 0, Instant::now());
        assert_eq!((only(&epoch).candidate.drawn, only(&epoch).candidate.ended), (1, 0));
        drop(unit);
        let counts = only(&epoch).candidate;
        assert_eq!((counts.ended, counts.bad[0], counts.bad[1]), (1, 0, 1));
    }

    #[test]
    fn a_unit_is_bad_by_its_age_and_by_its_end() {
        let epoch = epoch();
        let long_ago = Instant::now().checked_sub(Duration::from_secs(31)).expect("the machine runs longer");
        drop(Unit::draw(&epoch, 0, 1, long_ago));
        assert_eq!(only(&epoch).stable.bad[0], 1, "without an answer at 30 s it has failed");
        let mut streams = Unit::draw(&epoch, 0, 0, Instant::now());
        streams.answered(false, false);
        assert_eq!(epoch.cells.read(0).iter().map(|cell| cell.candidate.answering).sum::<u64>(), 1);
        streams.drawn_at = long_ago;
        streams.failed();
        drop(streams);
        let sum = |of: fn(&CellCounts) -> u64| epoch.cells.read(0).iter().map(of).sum::<u64>();
        assert_eq!(sum(|cell| cell.candidate.bad[0]), 0, "its answer had begun: at 30 s it was closed as good");
        assert_eq!(sum(|cell| cell.candidate.ended), 1);
    }

    #[test]
    fn a_cell_that_is_used_again_forgets_those_before() {
        let epoch = epoch();
        let now = Instant::now();
        let old = Unit::draw(&epoch, 0, 0, now);
        // The ring is 40 s long.
        let later = Unit::draw(&epoch, 0, 0, now + Duration::from_secs(40));
        drop(old);
        assert_eq!((only(&epoch).candidate.drawn, only(&epoch).candidate.ended), (1, 0));
        drop(later);
    }
}
