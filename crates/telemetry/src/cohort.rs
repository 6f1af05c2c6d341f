//! Those who stick to their arm, counted as the judge's units: a proxy's clients on a canary, a flag's users in a rollout.
//!
//! A member has a place from 0 to 9,999 and is on the candidate below the weight, so that a raise only adds members. It is drawn
//! when it first shows up in a step, is bad as soon as anything of it is, and leaves at the closing age.
//! **Invariants**: a member is counted at most once a step, and only while it has not moved at an earlier one; whether it is counted
//! is decided before its arm is looked at. Not here: hashing keys to places, clocks (time is an argument), what is bad.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use model::Weight;

use crate::cells::{ArmCounts, CellCounts};

/// Bits of the filter of members that were counted in a step: 1 MB, and about one in a thousand is left out at 500,000 members.
const SEEN_BITS: u64 = 1 << 23;
const SEEN_HASHES: u64 = 4;
/// Cells stay so long beyond their closing, for the reader to come.
const SLACK_S: u64 = 10;

/// Somebody who was told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// 64 uniform bits of its key, independent of the place.
    pub hash: u64,
    /// On the candidate below the weight. Absent: its arm was not drawn (a rule named it), so it is never counted.
    pub place: Option<Weight>,
}

/// Where a member is drawn: what is the same for all of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    pub epoch: u32,
    /// Members below this weight moved at an earlier step, and do not count at this one. It never falls: with a lower one only those
    /// count who were drawn in that step.
    pub before: Weight,
}

/// What a member is counted as: once in each step, and apart from what it was in the step before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seat {
    /// The member's.
    pub hash: u64,
    /// The draw's.
    pub before: Weight,
}

/// The members of one release or rollout.
#[derive(Debug)]
pub struct Cohort {
    closing_s: u64,
    watched_max: usize,
    expired_at: u64,
    /// The weight before the step that is counted.
    before: Weight,
    /// Those that were counted in this step: a Bloom filter. A false positive leaves a member out whatever its arm.
    seen: Box<[u64]>,
    watched: HashMap<Seat, Watched>,
    /// By the second in which they were drawn.
    order: VecDeque<(u64, Seat)>,
    cells: BTreeMap<(u32, u64), [ArmCounts; 2]>,
}

#[derive(Debug)]
struct Watched {
    since: Duration,
    cell: (u32, u64),
    arm: usize,
    /// Counter sets in which it is bad.
    bad: u8,
    /// What counts of it and has no answer yet.
    open: u32,
}

impl Cohort {
    /// `closing_s`: so long after it was drawn a member is what it is. `watched_max`: so many are watched at once (about 100 bytes
    /// each); beyond that new ones are not counted, whatever their arm.
    pub fn new(closing_s: u64, watched_max: usize) -> Self {
        let seen = vec![0; (SEEN_BITS / 64) as usize].into_boxed_slice();
        let (watched, order, cells) = (HashMap::new(), VecDeque::new(), BTreeMap::new());
        Self { closing_s, watched_max, expired_at: 0, before: 0, seen, watched, order, cells }
    }

    /// Something of a member happens on `arm` (0 is the candidate) at `now`, the time since a fixed moment whose whole seconds are
    /// the cells'. Its seat, when what becomes of it counts: for `window` from the first time on.
    pub fn enter(&mut self, member: Member, draw: Draw, arm: usize, now: Duration, window: Duration) -> Option<Seat> {
        let (second, seat) = (now.as_secs(), Seat { hash: member.hash, before: draw.before });
        self.expire(second);
        if let Some(watched) = self.watched.get(&seat) {
            return (now.saturating_sub(watched.since) < window).then_some(seat);
        }
        if draw.before < self.before {
            return None;
        }
        if self.before != draw.before {
            self.before = draw.before;
            self.seen.fill(0);
        }
        let has_moved = member.place.is_none_or(|place| place < draw.before);
        if has_moved || self.has_seen(member.hash) || self.watched.len() >= self.watched_max {
            return None;
        }
        self.see(member.hash);
        let cell = (draw.epoch, second);
        self.order.push_back((second, seat));
        self.watched.insert(seat, Watched { since: now, cell, arm, bad: 0, open: 0 });
        self.cells.entry(cell).or_default()[arm].drawn += 1;
        Some(seat)
    }

    /// What entered has an answer to come; without one by the closing age, the member is bad in every set.
    pub fn awaits(&mut self, seat: Seat) {
        if let Some(watched) = self.watched.get_mut(&seat) {
            watched.open += 1;
        }
    }

    /// The answer that was awaited is there, or will not come.
    pub fn answered(&mut self, seat: Seat) {
        if let Some(watched) = self.watched.get_mut(&seat) {
            watched.open = watched.open.saturating_sub(1);
        }
    }

    /// Something of a member was bad in these counter sets, one bit each. Nobody is bad twice in a set; whoever is not watched any
    /// more stays what it was.
    pub fn bad(&mut self, seat: Seat, sets: u8) {
        let Some(watched) = self.watched.get_mut(&seat) else { return };
        let fresh = sets & !watched.bad;
        watched.bad |= sets;
        let (cell, arm) = (watched.cell, watched.arm);
        let Some(counts) = self.cells.get_mut(&cell) else { return };
        for (set, bad) in counts[arm].bad.iter_mut().enumerate() {
            *bad += u64::from(fresh >> set & 1);
        }
    }

    /// All cells that are not closed for good. `second`: up to which they are complete.
    pub fn read(&mut self, second: u64) -> Vec<CellCounts> {
        self.expire(second);
        let cell = |(&(epoch, second), counts): (&(u32, u64), &[ArmCounts; 2])| CellCounts {
            epoch,
            second,
            candidate: counts[0],
            stable: counts[1],
        };
        self.cells.iter().map(cell).collect()
    }

    /// Forgets members and cells that are closed; once a second is enough.
    fn expire(&mut self, second: u64) {
        if second <= self.expired_at {
            return;
        }
        self.expired_at = second;
        while let Some((_, seat)) = self.order.pop_front_if(|(since, _)| *since + self.closing_s < second) {
            // What has no answer by now has failed, and was slow.
            if self.watched.get(&seat).is_some_and(|watched| watched.open > 0) {
                self.bad(seat, u8::MAX);
            }
            self.watched.remove(&seat);
        }
        let oldest = second.saturating_sub(self.closing_s + SLACK_S);
        self.cells.retain(|(_, of), _| *of >= oldest);
    }

    fn bits(hash: u64) -> impl Iterator<Item = u64> {
        let step = (hash >> 32) | 1;
        (0..SEEN_HASHES).map(move |n| hash.wrapping_add(n.wrapping_mul(step)) % SEEN_BITS)
    }

    fn has_seen(&self, hash: u64) -> bool {
        Self::bits(hash).all(|bit| self.seen[(bit / 64) as usize] >> (bit % 64) & 1 == 1)
    }

    fn see(&mut self, hash: u64) {
        for bit in Self::bits(hash) {
            self.seen[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);
    const FIRST: Draw = Draw { epoch: 1, before: 0 };

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn member(hash: u64, place: Weight) -> Member {
        Member { hash, place: Some(place) }
    }

    #[test]
    fn a_member_counts_once_a_step_and_only_before_it_moves() {
        let (mut cohort, ana) = (Cohort::new(90, 10), member(7, 300));
        let seat = cohort.enter(ana, FIRST, 0, at(10), WINDOW).expect("its first time");
        assert_eq!(cohort.enter(ana, FIRST, 0, at(11), WINDOW), Some(seat), "within its window all of it counts");
        assert_eq!(cohort.enter(ana, FIRST, 0, at(70), WINDOW), None);
        cohort.bad(seat, 0b01);
        cohort.bad(seat, 0b11);
        let counts = cohort.read(12);
        assert_eq!((counts.len(), counts[0].candidate.drawn, counts[0].candidate.bad[..2].to_vec()), (1, 1, vec![1, 1]));
        // After its closing it is not counted again in this step …
        assert_eq!(cohort.enter(ana, Draw { epoch: 2, ..FIRST }, 0, at(210), WINDOW), None);
        // … in the next one it is, unless it has moved.
        assert!(cohort.enter(ana, Draw { epoch: 3, before: 300 }, 0, at(220), WINDOW).is_some());
        assert_eq!(cohort.enter(ana, Draw { epoch: 4, before: 301 }, 0, at(400), WINDOW), None);
        assert_eq!(cohort.enter(member(8, 9_000), FIRST, 1, at(400), WINDOW), None, "of a step that is over");
    }

    #[test]
    fn what_was_bad_in_one_step_says_nothing_of_the_next() {
        let (mut cohort, ben) = (Cohort::new(90, 10), member(7, 5_000));
        let first = cohort.enter(ben, FIRST, 1, at(10), WINDOW).expect("its first time");
        let second = cohort.enter(ben, Draw { epoch: 2, before: 300 }, 0, at(12), WINDOW).expect("it has not moved before");
        cohort.bad(first, 1);
        let bad = |cells: &[CellCounts]| cells.iter().map(|cell| [cell.candidate.bad[0], cell.stable.bad[0]]).collect::<Vec<_>>();
        assert_eq!(bad(&cohort.read(13)), [[0, 1], [0, 0]]);
        cohort.bad(second, 1);
        assert_eq!(bad(&cohort.read(13)), [[0, 1], [1, 0]]);
        // What comes late of the step before belongs there; nobody new is drawn in it.
        assert_eq!(cohort.enter(ben, FIRST, 1, at(13), WINDOW), Some(first));
        assert_eq!(cohort.enter(member(8, 5_000), FIRST, 1, at(13), WINDOW), None);
    }

    #[test]
    fn who_was_named_by_a_rule_or_is_too_many_is_not_counted() {
        let mut cohort = Cohort::new(90, 2);
        assert_eq!(cohort.enter(Member { hash: 1, place: None }, FIRST, 0, at(10), WINDOW), None);
        assert_eq!([2, 3, 4].map(|hash| cohort.enter(member(hash, 5), FIRST, 0, at(10), WINDOW).is_some()), [true, true, false]);
        assert_eq!(cohort.read(11).iter().map(|cell| cell.candidate.drawn).sum::<u64>(), 2);
    }

    #[test]
    fn what_has_no_answer_at_the_end_is_bad() {
        let mut cohort = Cohort::new(90, 10);
        let [_, fine] = [1, 2].map(|hash| {
            let seat = cohort.enter(member(hash, 5), FIRST, 0, at(10), WINDOW).expect("its first time");
            cohort.awaits(seat);
            seat
        });
        cohort.answered(fine);
        assert_eq!(cohort.read(100)[0].candidate.bad[0], 0);
        let counts = cohort.read(101)[0].candidate;
        assert_eq!((counts.drawn, counts.bad[0], counts.bad[1]), (2, 1, 1));
        cohort.bad(fine, 1);
        assert_eq!(cohort.read(101)[0].candidate.bad[0], 1, "too late to be bad");
        assert!(cohort.read(112).is_empty(), "nobody has to read it any more");
    }
}
