//! The prefix rule: a look uses all units that were assigned long enough ago, and sets those still open against the claim.
//!
//! Never "what has completed so far": with equal arms, a candidate that fails at once beside a stable that fails late would be
//! rolled back in up to 100 % of releases.

use std::collections::BTreeMap;

use crate::units::{Arms, Epoch, Share, Side, Units};

/// One assignment second of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cell {
    pub epoch: u32,
    pub second: u64,
    pub drawn_candidate: u64,
    pub drawn_stable: u64,
    pub arms: Arms,
}

/// An epoch as it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    pub share: Share,
    /// Warm-up epochs keep their place, and their units are left out where this is false.
    pub counted: bool,
}

/// Delays at which the rollback side looks, in seconds, for a largest closing age of `closing_s`.
pub fn delays(closing_s: u64) -> Vec<u64> {
    const LADDER: [u64; 11] = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1_200, 3_000];
    LADDER.into_iter().filter(|delay| *delay < closing_s).chain([closing_s]).collect()
}

/// The epochs, in order of their number, as seen at second `now` of all units assigned at least `delay_s` ago. A unit that is
/// open at age `closes_s` is bad (`None`: never by its age).
pub fn prefix(cells: &[Cell], epochs: &BTreeMap<u32, Opened>, now: u64, delay_s: u64, side: Side, closes_s: Option<u64>) -> Vec<Epoch> {
    let mut seen: BTreeMap<u32, Arms> = epochs.keys().map(|number| (*number, Arms::default())).collect();
    for cell in cells.iter().filter(|cell| cell.second + 1 + delay_s <= now) {
        let (Some(opened), Some(arms)) = (epochs.get(&cell.epoch), seen.get_mut(&cell.epoch)) else { continue };
        if !opened.counted {
            continue;
        }
        let all_closed = closes_s.is_some_and(|closes_s| cell.second + 1 + closes_s <= now);
        let add = |sum: &mut Units, drawn: u64, units: Units, open_is_bad: bool| {
            let open = drawn.saturating_sub(units.closed);
            sum.closed += units.closed + open;
            sum.bad += units.bad.min(units.closed) + if all_closed || open_is_bad { open } else { 0 };
        };
        add(&mut arms.candidate, cell.drawn_candidate, cell.arms.candidate, side == Side::Better);
        add(&mut arms.stable, cell.drawn_stable, cell.arms.stable, side == Side::Worse);
    }
    epochs.iter().map(|(number, opened)| Epoch { share: opened.share, arms: seen[number] }).collect()
}
