//! Sticky clients: who a client is, on which arm, and how it fares for the judge.
//!
//! A client's place is a hash of its key, salted by the release, on the same scale as the weight: a raise only adds clients.
//! **Invariants**: a client is counted at most once a step, and only while it has not moved at an earlier one; whether it is
//! counted is decided before its arm is looked at.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, header};
use model::{Sticky, StickyBy, Weight};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::unit::{ArmCounts, CellCounts};

/// Clients whose requests are watched at once; beyond that new ones are not counted.
const CLIENTS_MAX: usize = 65_536;
/// Longer keys are not ours.
const KEY_BYTES_MAX: usize = 256;
/// Bits of the filter of clients that were counted in a step: about one in a thousand is left out at 500,000 clients.
const SEEN_BITS: u64 = 1 << 23;
const SEEN_HASHES: u64 = 4;
/// Cells stay so long beyond their closing, for the reader to come.
const SLACK_S: u64 = 10;

/// A service whose clients stick, as a table has it.
pub(crate) struct Cohorts {
    pub(crate) sticky: Sticky,
    salt: u64,
}

/// A client that was told apart.
pub(crate) struct ClientKey {
    /// Unlike the place, the same for all releases' salts.
    pub(crate) hash: u64,
    pub(crate) place: Weight,
    /// It has no cookie yet: this one is given out.
    pub(crate) new_cookie: Option<String>,
}

impl Cohorts {
    pub(crate) fn new(sticky: Sticky, release: &str) -> Self {
        Self { sticky, salt: xxh3_64_with_seed(release.as_bytes(), 0) }
    }

    pub(crate) fn client(&self, headers: &HeaderMap, address: IpAddr) -> ClientKey {
        let of_address = || match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            // A household has a /64.
            IpAddr::V6(address) => address.octets()[..8].to_vec(),
        };
        match &self.sticky.by {
            StickyBy::Address => self.key(&of_address(), None),
            StickyBy::Header(name) => match headers.get(name.as_str()).filter(|value| !value.is_empty()) {
                Some(value) => self.key(&value.as_bytes()[..value.len().min(KEY_BYTES_MAX)], None),
                None => self.key(&of_address(), None),
            },
            StickyBy::Cookie(name) => match cookie(headers, name) {
                Some(value) => self.key(value.as_bytes(), None),
                None => {
                    let value = format!("{:032x}", fastrand::u128(..));
                    self.key(value.as_bytes(), Some(value.clone()))
                }
            },
        }
    }

    fn key(&self, key: &[u8], new_cookie: Option<String>) -> ClientKey {
        let mut word = self.salt;
        let place = model::below_parts(|| {
            word = word.wrapping_add(1);
            xxh3_64_with_seed(key, word)
        });
        ClientKey { hash: xxh3_64_with_seed(key, !self.salt), place, new_cookie }
    }
}

/// The value of a cookie (RFC 6265 §5.4), if it is one of ours by its looks.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).find(|value| !value.is_empty() && value.len() <= KEY_BYTES_MAX)
}

/// Clients of one release that are counted; shared by the threads.
pub(crate) struct Clients(Mutex<State>);

struct State {
    closing_s: u64,
    expired_at: u64,
    /// The weight before the step that is counted.
    before: Weight,
    /// Those that were counted in this step.
    seen: Box<[u64]>,
    watched: HashMap<u64, Watched>,
    order: VecDeque<(u64, u64)>,
    cells: BTreeMap<(u32, u64), [ArmCounts; 2]>,
}

struct Watched {
    since: Instant,
    before: Weight,
    cell: (u32, u64),
    arm: usize,
    /// Counter sets in which it is bad.
    bad: u8,
    /// Requests of it that count and have no answer yet.
    open: u32,
}

impl Clients {
    pub(crate) fn new(closing_s: u64) -> Self {
        let seen = vec![0; (SEEN_BITS / 64) as usize].into_boxed_slice();
        let state =
            State { closing_s, expired_at: 0, before: 0, seen, watched: HashMap::new(), order: VecDeque::new(), cells: BTreeMap::new() };
        Self(Mutex::new(state))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request of a client in `cell` (epoch and second). True when what becomes of it counts.
    pub(crate) fn enter(&self, key: &ClientKey, sticky: &Sticky, cell: (u32, u64), arm: usize, now: Instant) -> bool {
        let mut state = self.state();
        state.expire(cell.1);
        // A thread that has not the newest table yet.
        if sticky.before < state.before {
            return false;
        }
        if state.before != sticky.before {
            state.before = sticky.before;
            state.seen.fill(0);
        }
        if let Some(watched) = state.watched.get_mut(&key.hash).filter(|watched| watched.before == sticky.before) {
            let counts = now.saturating_duration_since(watched.since) < Duration::from_millis(sticky.window_ms);
            watched.open += u32::from(counts);
            return counts;
        }
        if key.place < sticky.before || state.has_seen(key.hash) || state.watched.len() >= CLIENTS_MAX {
            return false;
        }
        state.see(key.hash);
        state.order.push_back((cell.1, key.hash));
        state.watched.insert(key.hash, Watched { since: now, before: sticky.before, cell, arm, bad: 0, open: 1 });
        state.cells.entry(cell).or_default()[arm].drawn += 1;
        true
    }

    /// A request of a client that counts was bad in these sets. `is_answered`: its answer has come, or it has ended without one.
    pub(crate) fn tell(&self, client: u64, sets: u8, is_answered: bool) {
        let mut state = self.state();
        let Some(watched) = state.watched.get_mut(&client) else { return };
        watched.open = watched.open.saturating_sub(u32::from(is_answered));
        state.mark(client, sets);
    }

    /// `second`: up to which cells are complete.
    pub(crate) fn read(&self, second: u64) -> Vec<CellCounts> {
        let mut state = self.state();
        state.expire(second);
        let cell = |(&(epoch, second), counts): (&(u32, u64), &[ArmCounts; 2])| CellCounts {
            epoch,
            second,
            candidate: counts[0],
            stable: counts[1],
        };
        state.cells.iter().map(cell).collect()
    }
}

impl State {
    /// Forgets clients and cells that are closed; once a second is enough.
    fn expire(&mut self, second: u64) {
        if second <= self.expired_at {
            return;
        }
        self.expired_at = second;
        while let Some((since, client)) = self.order.front().copied().filter(|(since, _)| since + self.closing_s < second) {
            self.order.pop_front();
            // A request of its window that has no answer by now has failed, and was slow.
            if self.watched.get(&client).is_some_and(|watched| watched.cell.1 == since && watched.open > 0) {
                self.mark(client, u8::MAX);
            }
            // It may have come again at a later step.
            if self.watched.get(&client).is_some_and(|watched| watched.cell.1 == since) {
                self.watched.remove(&client);
            }
        }
        let oldest = second.saturating_sub(self.closing_s + SLACK_S);
        self.cells.retain(|(_, of), _| *of >= oldest);
    }

    fn mark(&mut self, client: u64, sets: u8) {
        let Some(watched) = self.watched.get_mut(&client) else { return };
        let fresh = sets & !watched.bad;
        watched.bad |= sets;
        let (cell, arm) = (watched.cell, watched.arm);
        let Some(counts) = self.cells.get_mut(&cell) else { return };
        for (set, bad) in counts[arm].bad.iter_mut().enumerate() {
            *bad += u64::from(fresh >> set & 1);
        }
    }

    fn bits(client: u64) -> impl Iterator<Item = u64> {
        let step = (client >> 32) | 1;
        (0..SEEN_HASHES).map(move |n| client.wrapping_add(n.wrapping_mul(step)) % SEEN_BITS)
    }

    fn has_seen(&self, client: u64) -> bool {
        Self::bits(client).all(|bit| self.seen[(bit / 64) as usize] >> (bit % 64) & 1 == 1)
    }

    fn see(&mut self, client: u64) {
        for bit in Self::bits(client) {
            self.seen[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cohorts(before: Weight, release: &str) -> Cohorts {
        Cohorts::new(Sticky { by: StickyBy::Header("x-user".into()), before, window_ms: 60_000 }, release)
    }

    fn headers(user: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static("x-user"), user.parse().expect("a value"))])
    }

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_raise_only_adds_clients_and_each_release_has_its_own() {
        let (one, other) = (cohorts(0, "r1"), cohorts(0, "r2"));
        let places = |cohorts: &Cohorts| -> Vec<Weight> {
            (0..20_000).map(|user| cohorts.client(&headers(&user.to_string()), ADDRESS).place).collect()
        };
        let (first, second) = (places(&one), places(&other));
        assert_eq!(first, places(&cohorts(500, "r1")), "steps do not move anybody");
        for weight in [100, 500, 2_000] {
            let on = |places: &[Weight]| places.iter().filter(|place| **place < weight).count() as f64;
            let (expected, both) =
                (f64::from(weight) * 2.0, first.iter().zip(&second).filter(|(a, b)| **a < weight && **b < weight).count());
            // Six standard deviations.
            assert!((on(&first) - expected).abs() < 6.0 * expected.sqrt(), "{weight}: {}", on(&first));
            assert!(both as f64 <= 2.0 * f64::from(weight) / 10_000.0 * expected + 20.0, "{weight}: {both} on both");
        }
    }

    #[test]
    fn a_client_counts_once_a_step_and_only_before_it_moves() {
        let (cohorts, clients, now) = (cohorts(0, "r1"), Clients::new(90), Instant::now());
        let key = cohorts.client(&headers("ana"), ADDRESS);
        assert!(clients.enter(&key, &cohorts.sticky, (1, 10), 0, now));
        assert!(clients.enter(&key, &cohorts.sticky, (1, 11), 0, now), "its other requests within the window count, too");
        clients.tell(key.hash, 0b01, true);
        clients.tell(key.hash, 0b11, true);
        let counts = clients.read(12);
        assert_eq!((counts.len(), counts[0].candidate.drawn, counts[0].candidate.bad[..2].to_vec()), (1, 1, vec![1, 1]));
        // After its closing it is not counted again in this step …
        let later = now + Duration::from_secs(200);
        assert!(!clients.enter(&key, &cohorts.sticky, (2, 210), 0, later));
        // … in the next one it is, unless it has moved.
        let next = Sticky { before: key.place, ..cohorts.sticky.clone() };
        assert!(clients.enter(&key, &next, (3, 220), 0, later));
        let moved = Sticky { before: key.place + 1, ..cohorts.sticky };
        assert!(!clients.enter(&key, &moved, (4, 400), 0, later));
    }

    #[test]
    fn a_client_whose_request_has_no_answer_at_the_end_is_bad() {
        let (cohorts, clients, now) = (cohorts(0, "r1"), Clients::new(90), Instant::now());
        let [hung, fine] = ["ana", "ben"].map(|user| cohorts.client(&headers(user), ADDRESS));
        for key in [&hung, &fine] {
            assert!(clients.enter(key, &cohorts.sticky, (1, 10), 0, now));
        }
        clients.tell(fine.hash, 0, true);
        assert_eq!(clients.read(100)[0].candidate.bad[0], 0);
        let counts = clients.read(101)[0].candidate;
        assert_eq!((counts.drawn, counts.bad[0], counts.bad[1]), (2, 1, 1));
    }

    #[test]
    fn cookies_are_found_among_others() {
        let headers = HeaderMap::from_iter([(header::COOKIE, "a=1; id=abc; b=2".parse().expect("a value"))]);
        assert_eq!((cookie(&headers, "id"), cookie(&headers, "i")), (Some("abc"), None));
    }
}
