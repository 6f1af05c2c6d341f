//! How many connections there may be: of one address at a listener, and in all.
//!
//! **Invariant**: whoever is admitted is counted until its `Admitted` is dropped, on whichever thread that is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Beside connections: listening sockets, the store, logs, timers, the API with its 256 connections.
const RESERVED_DESCRIPTORS: u64 = 300;
/// Where the kernel names no limit, its own is this one by default (`fs.nr_open`).
const DESCRIPTORS_MAX: u64 = 1024 * 1024;

/// The connections of one listener, by address, over all threads. The lock is taken when a connection begins and when it ends.
#[derive(Default)]
pub(crate) struct Addresses {
    open: Mutex<HashMap<Place, u32>>,
    told_ms: AtomicU64,
}

/// Who shares a count. Of IPv6 the network: a customer is given a /64 (RFC 6177), and all addresses in it are one client's to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    V4(Ipv4Addr),
    V6Network(u64),
}

impl Place {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Place::V4(address),
            IpAddr::V6(address) => Place::V6Network((address.to_bits() >> 64) as u64),
        }
    }
}

/// A connection that counts.
pub(crate) struct Admitted {
    addresses: Arc<Addresses>,
    place: Place,
}

impl Addresses {
    /// `None`: the address has `max` connections already.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr, max: u32) -> Option<Admitted> {
        let place = Place::of(address);
        let mut open = self.open();
        let count = open.entry(place).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Admitted { addresses: self.clone(), place })
    }

    /// Whether a refusal is to be told: at most once a second.
    pub(crate) fn is_to_be_told(&self, now_ms: u64) -> bool {
        let told_ms = self.told_ms.load(Ordering::Relaxed);
        let is_due = told_ms == 0 || now_ms.saturating_sub(told_ms) >= 1_000;
        is_due && self.told_ms.compare_exchange(told_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Place, u32>> {
        // A panic under the lock leaves a map that is still one.
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.addresses.open().entry(self.place) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Lets this process have as many descriptors as it may: the lower limit is one for programs that use `select`. Whatever it starts
/// inherits that.
pub fn raise_descriptor_limit() {
    let Some(mut limit) = descriptor_limit() else { return };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a whole limit; failing changes nothing.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

fn descriptor_limit() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    (unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0).then_some(limit)
}

/// So many clients may be connected: each leaves a descriptor for a line to a target.
pub(crate) fn connections_max() -> usize {
    let limit = descriptor_limit().map_or(DESCRIPTORS_MAX, |limit| limit.rlim_cur.min(DESCRIPTORS_MAX));
    ((limit - RESERVED_DESCRIPTORS.min(limit / 4)) / 2) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn an_address_has_so_many_and_another_has_its_own() {
        let addresses = Arc::new(Addresses::default());
        let first = addresses.admit(address("10.0.0.1"), 2).expect("one");
        let _second = addresses.admit(address("::ffff:10.0.0.1"), 2).expect("two, said in another way");
        assert!(addresses.admit(address("10.0.0.1"), 2).is_none());
        let _other = addresses.admit(address("10.0.0.2"), 2).expect("its first");
        drop(first);
        assert!(addresses.admit(address("10.0.0.1"), 2).is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let addresses = Arc::new(Addresses::default());
        let _first = addresses.admit(address("2001:db8:0:1::1"), 1).expect("one");
        assert!(addresses.admit(address("2001:db8:0:1:ffff::2"), 1).is_none());
        assert!(addresses.admit(address("2001:db8:0:2::1"), 1).is_some());
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let addresses = Arc::new(Addresses::default());
        drop(addresses.admit(address("10.0.0.1"), 1));
        assert!(addresses.open().is_empty());
        // A limit that was lowered meanwhile takes effect as connections end.
        let both: Vec<_> = (0..2).map(|_| addresses.admit(address("10.0.0.1"), 2)).collect();
        assert!(addresses.admit(address("10.0.0.1"), 1).is_none());
        drop(both);
        assert!(addresses.admit(address("10.0.0.1"), 1).is_some());
    }

    #[test]
    fn refusals_are_told_once_a_second() {
        let addresses = Addresses::default();
        let told: Vec<_> = [10, 11, 1_009, 1_010, 1_500, 2_010].map(|now_ms| addresses.is_to_be_told(now_ms)).into();
        assert_eq!(told, [true, false, false, true, false, true]);
    }
}
