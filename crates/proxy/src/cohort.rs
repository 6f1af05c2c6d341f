//! Sticky clients: who a client is, and on which arm. How it fares for the judge: `telemetry::Cohort`, shared by the threads.
//!
//! **Invariant**: a client's place is a hash of its key, salted by the release, on the same scale as the weight: a raise only adds
//! clients.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http1::{Fields, Known};
use model::{Sticky, StickyBy, Weight};
use telemetry::{CellCounts, Cohort, Draw, Member, Seat};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::clock::since_boot;

/// Clients whose requests are watched at once; beyond that new ones are not counted.
const CLIENTS_MAX: usize = 65_536;
/// Longer keys are not ours.
const KEY_BYTES_MAX: usize = 256;

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

    pub(crate) fn client(&self, fields: &Fields, address: IpAddr) -> ClientKey {
        let of_address = || match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            // A household has a /64.
            IpAddr::V6(address) => address.octets()[..8].to_vec(),
        };
        match &self.sticky.by {
            StickyBy::Address => self.key(&of_address(), None),
            StickyBy::Header(name) => match fields.get_named(name).filter(|value| !value.is_empty()) {
                Some(value) => self.key(&value[..value.len().min(KEY_BYTES_MAX)], None),
                None => self.key(&of_address(), None),
            },
            StickyBy::Cookie(name) => match cookie(fields, name) {
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
pub(crate) fn cookie<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    let lines = fields.all(Known::Cookie).filter(|value| value.is_ascii()).filter_map(|value| std::str::from_utf8(value).ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).find(|value| !value.is_empty() && value.len() <= KEY_BYTES_MAX)
}

/// Clients of one release that are counted; shared by the threads.
pub(crate) struct Clients(Mutex<Cohort>);

impl Clients {
    pub(crate) fn new(closing_s: u64) -> Self {
        Self(Mutex::new(Cohort::new(closing_s, CLIENTS_MAX)))
    }

    fn cohort(&self) -> std::sync::MutexGuard<'_, Cohort> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request of a client. What it counts as, when what becomes of it counts.
    pub(crate) fn enter(&self, key: &ClientKey, sticky: &Sticky, epoch: u32, arm: usize, now: Instant) -> Option<Seat> {
        let (member, draw) = (Member { hash: key.hash, place: Some(key.place) }, Draw { epoch, before: sticky.before });
        let mut cohort = self.cohort();
        let seat = cohort.enter(member, draw, arm, since_boot(now), Duration::from_millis(sticky.window_ms))?;
        cohort.awaits(seat);
        Some(seat)
    }

    /// A request of a client that counts was bad in these sets. `is_answered`: its answer has come, or it has ended without one.
    pub(crate) fn tell(&self, client: Seat, sets: u8, is_answered: bool) {
        let mut cohort = self.cohort();
        if is_answered {
            cohort.answered(client);
        }
        cohort.bad(client, sets);
    }

    /// `second`: up to which cells are complete.
    pub(crate) fn read(&self, second: u64) -> Vec<CellCounts> {
        self.cohort().read(second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cohorts(before: Weight, release: &str) -> Cohorts {
        Cohorts::new(Sticky { by: StickyBy::Header("x-user".into()), before, window_ms: 60_000 }, release)
    }

    fn fields(name: &str, value: &str) -> Fields {
        let mut fields = Fields::default();
        fields.push_named(name, value.as_bytes());
        fields
    }

    fn of_user(user: &str) -> Fields {
        fields("x-user", user)
    }

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_raise_only_adds_clients_and_each_release_has_its_own() {
        let (one, other) = (cohorts(0, "r1"), cohorts(0, "r2"));
        let places = |cohorts: &Cohorts| -> Vec<Weight> {
            (0..20_000).map(|user| cohorts.client(&of_user(&user.to_string()), ADDRESS).place).collect()
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
    fn requests_of_a_client_count_together() {
        let (cohorts, clients, now) = (cohorts(0, "r1"), Clients::new(90), Instant::now());
        let second = crate::clock::second_of(now);
        let key = cohorts.client(&of_user("ana"), ADDRESS);
        let seat = clients.enter(&key, &cohorts.sticky, 1, 0, now).expect("its first request");
        assert_eq!(clients.enter(&key, &cohorts.sticky, 1, 0, now + Duration::from_secs(1)), Some(seat));
        assert_eq!(clients.enter(&key, &cohorts.sticky, 1, 0, now + Duration::from_secs(61)), None, "its window is over");
        clients.tell(seat, 0b01, true);
        let first = clients.read(second + 1)[0].candidate;
        assert_eq!((first.drawn, first.bad[0], first.bad[1]), (1, 1, 0));
        // Its other request has no answer by the closing age.
        assert_eq!(clients.read(second + 91)[0].candidate.bad[1], 1);
    }

    #[test]
    fn cookies_are_found_among_others() {
        let fields = fields("cookie", "a=1; id=abc; b=2");
        assert_eq!((cookie(&fields, "id"), cookie(&fields, "i")), (Some("abc"), None));
    }
}
