//! What must be known after our death: how many requests and tunnels were running. One number a lane, in memory that is shared
//! with the process that outlives us.
//!
//! **Invariant**: each number has one writer, the lane's thread.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapMut;

/// A cache line each, so that lanes do not disturb one another.
const SLOT_BYTES: usize = 64;

thread_local! {
    static SLOT: Cell<Option<&'static AtomicU64>> = const { Cell::new(None) };
}

/// How many ran when the process that wrote here ended. None, when it ended in order.
pub fn left_in_flight(memory: &File) -> u64 {
    let Ok(size) = memory.metadata() else { return 0 };
    let mut bytes = vec![0; size.len() as usize];
    if memory.read_exact_at(&mut bytes, 0).is_err() {
        return 0;
    }
    let first = |slot: &[u8]| slot.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    bytes.chunks_exact(SLOT_BYTES).map(first).sum()
}

/// Starts anew; one slot a lane.
pub(crate) fn open(memory: &File, lanes: usize) -> io::Result<Vec<&'static AtomicU64>> {
    // SAFETY: it is memory that the keeper made for its one worker; nobody truncates it.
    let map: &'static mut MmapMut = Box::leak(Box::new(unsafe { MmapMut::map_mut(memory)? }));
    map.fill(0);
    // SAFETY: the slots are aligned, live for ever, and are only ever used as atomics from here on.
    let slots = map.chunks_exact_mut(SLOT_BYTES).map(|slot| unsafe { AtomicU64::from_ptr(slot.as_mut_ptr().cast()) });
    // Lanes beyond it are not counted.
    Ok(slots.take(lanes).collect())
}

/// From now on this thread counts there.
pub(crate) fn use_slot(slot: &'static AtomicU64) {
    SLOT.set(Some(slot));
}

pub(crate) fn began() {
    if let Some(slot) = SLOT.get() {
        crate::counts::bump(slot, 1);
    }
}

pub(crate) fn ended() {
    if let Some(slot) = SLOT.get() {
        slot.store(slot.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }
}
