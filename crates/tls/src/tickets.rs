//! Session tickets: sealed with keys that all threads share, and that can be handed to the process that comes after us.
//!
//! **Invariant**: a ticket opens only at the listener that gave it out, and only while that asks the same of its clients. A session
//! brings its client's certificate along unverified: one from elsewhere would be a way around the verification.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

use crate::leaf::now_s;

/// New tickets are sealed with a key for so long …
const ROTATE_S: i64 = 6 * 3600;
/// … and opened for so long after it was made: a ticket lives six hours at least.
const LIFE_S: i64 = 12 * 3600;
const KEYS_MAX: usize = 4;
const SECRET_BYTES: usize = 32;
const NAME_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;

/// The secrets of tickets, newest first. Whoever has them can read TLS 1.2 sessions that were resumed, and speak as their clients:
/// they go to a successor over a private channel, and onto no disk.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKeys {
    keys: Vec<TicketKey>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct TicketKey {
    secret: [u8; SECRET_BYTES],
    /// Seconds since 1970.
    made_s: i64,
}

impl TicketKeys {
    pub(crate) fn new(now_s: i64) -> Self {
        Self { keys: vec![TicketKey::random(now_s)] }
    }

    /// Those that may still open tickets; `None` when that is none.
    fn live(mut self, now_s: i64) -> Option<Self> {
        self.keys.retain(|key| (now_s - LIFE_S..=now_s + ROTATE_S).contains(&key.made_s));
        self.keys.sort_by_key(|key| std::cmp::Reverse(key.made_s));
        self.keys.truncate(KEYS_MAX);
        (!self.keys.is_empty()).then_some(self)
    }

    /// `None` while nothing has to change.
    fn rotated(&self, now_s: i64) -> Option<Self> {
        let newest = self.keys.first()?;
        // A clock that went back far makes keys of the future: they are not waited for.
        if (newest.made_s..newest.made_s + ROTATE_S).contains(&now_s) {
            return None;
        }
        let mut keys = vec![TicketKey::random(now_s)];
        keys.extend(self.clone().live(now_s).map(|live| live.keys).unwrap_or_default());
        keys.truncate(KEYS_MAX);
        Some(Self { keys })
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKeys({})", self.keys.len())
    }
}

impl TicketKey {
    fn random(now_s: i64) -> Self {
        let mut secret = [0; SECRET_BYTES];
        aws_lc_rs::rand::fill(&mut secret).expect("the system gives random bytes");
        Self { secret, made_s: now_s }
    }
}

/// Where all listeners take their keys from.
pub(crate) struct Tickets {
    keys: ArcSwap<TicketKeys>,
}

impl Tickets {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { keys: ArcSwap::from_pointee(TicketKeys::new(now_s())) })
    }

    pub(crate) fn export(&self) -> TicketKeys {
        TicketKeys::clone(&self.keys.load())
    }

    /// Replaces ours: whoever runs beside us must be able to open what we seal. Keys that are too old change nothing.
    pub(crate) fn adopt(&self, keys: TicketKeys) {
        if let Some(keys) = keys.live(now_s()) {
            self.keys.store(Arc::new(keys));
        }
    }

    pub(crate) fn rotate(&self, now_s: i64) {
        if let Some(keys) = self.keys.load().rotated(now_s) {
            self.keys.store(Arc::new(keys));
        }
    }

    /// For a listener; `binding` is whatever must be equal where a ticket is given out and where it is accepted.
    pub(crate) fn sealer(self: &Arc<Self>, binding: &[&[u8]]) -> Arc<dyn ProducesTickets> {
        let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for part in binding {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let binding = digest.finish().as_ref().to_vec();
        let keys = self.keys.load_full();
        let derived = ArcSwap::from_pointee(Derived::of(&keys, &binding));
        Arc::new(Sealer { tickets: self.clone(), binding, derived })
    }
}

/// Keys of one listener, as they follow from the shared ones.
struct Derived {
    from: Arc<TicketKeys>,
    keys: Vec<([u8; NAME_BYTES], RandomizedNonceKey)>,
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Derived {
    fn of(from: &Arc<TicketKeys>, binding: &[u8]) -> Self {
        let one = |key: &TicketKey| {
            // RFC 5869: the secret is uniformly random, so it is expanded only.
            let secret = Prk::new_less_safe(HKDF_SHA256, &key.secret);
            let (mut name, mut sealing) = ([0; NAME_BYTES], [0; SECRET_BYTES]);
            for (label, out) in [(&b"changeover ticket name"[..], &mut name[..]), (b"changeover ticket key", &mut sealing[..])] {
                let info = [label, binding];
                let filled = secret.expand(&info, Length(out.len())).and_then(|material| material.fill(out));
                filled.expect("HKDF gives 255 digests, and this is one");
            }
            (name, RandomizedNonceKey::new(&AES_256_GCM_SIV, &sealing).expect("32 bytes are a key"))
        };
        Self { from: from.clone(), keys: from.keys.iter().map(one).collect() }
    }
}

/// A ticket: name of the key, nonce, the sealed session and its tag (RFC 5077 §4 in outline; the seal is AES-256-GCM-SIV, RFC 8452).
struct Sealer {
    tickets: Arc<Tickets>,
    binding: Vec<u8>,
    derived: ArcSwap<Derived>,
}

impl Sealer {
    fn derived(&self) -> Arc<Derived> {
        let (derived, keys) = (self.derived.load_full(), self.tickets.keys.load_full());
        if Arc::ptr_eq(&derived.from, &keys) {
            return derived;
        }
        let derived = Arc::new(Derived::of(&keys, &self.binding));
        self.derived.store(derived.clone());
        derived
    }
}

impl ProducesTickets for Sealer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFE_S as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let derived = self.derived();
        let (name, key) = derived.keys.first()?;
        let mut sealed = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(name), &mut sealed).ok()?;
        Some([&name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_BYTES)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES)?;
        let derived = self.derived();
        let (name, key) = derived.keys.iter().find(|(known, _)| known == name)?;
        let nonce = aws_lc_rs::aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let length = key.open_in_place(nonce, Aad::from(name), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_in_the_next_process_and_nowhere_else() {
        let tickets = Tickets::new();
        let ticket = tickets.sealer(&[b"main", b"no clients"]).encrypt(b"session").expect("sealed");
        let kept = serde_json::to_string(&tickets.export()).expect("plain data");
        let next = Tickets::new();
        let sealer = next.sealer(&[b"main", b"no clients"]);
        assert_eq!(sealer.decrypt(&ticket), None, "its keys are its own");
        next.adopt(serde_json::from_str(&kept).expect("as it was"));
        assert_eq!(sealer.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(next.sealer(&[b"main", b"clients of x"]).decrypt(&ticket), None, "it now asks for certificates");
        assert_eq!(next.sealer(&[b"other", b"no clients"]).decrypt(&ticket), None, "another listener");
        assert_eq!(next.sealer(&[b"mainno", b" clients"]).decrypt(&ticket), None, "parts do not run into each other");
        let mut changed = ticket.clone();
        *changed.last_mut().expect("not empty") ^= 1;
        assert_eq!(sealer.decrypt(&changed), None);
        (0..ticket.len()).for_each(|length| assert_eq!(sealer.decrypt(&ticket[..length]), None));
    }

    #[test]
    fn keys_rotate_and_grow_old() {
        let (tickets, start) = (Tickets::new(), now_s());
        let sealer = tickets.sealer(&[b"main"]);
        let ticket = sealer.encrypt(b"session").expect("sealed");
        let before = tickets.export();
        tickets.rotate(start + ROTATE_S - 60);
        assert_eq!(tickets.export(), before, "not yet");
        tickets.rotate(start + ROTATE_S + 60);
        assert_eq!(tickets.export().keys.len(), 2);
        assert_eq!(sealer.decrypt(&ticket).as_deref(), Some(&b"session"[..]), "the key before still opens");
        let newer = sealer.encrypt(b"session").expect("sealed");
        assert_ne!(newer[..NAME_BYTES], ticket[..NAME_BYTES]);
        tickets.rotate(start + 2 * ROTATE_S + 120);
        assert_eq!(sealer.decrypt(&ticket), None, "after twelve hours it is over");
        assert!(sealer.decrypt(&newer).is_some());
        let old = TicketKeys { keys: vec![TicketKey::random(start - LIFE_S - 1)] };
        let now = tickets.export();
        tickets.adopt(old);
        assert_eq!(tickets.export(), now, "keys of yesterday are not taken");
        assert_eq!(format!("{now:?}"), "TicketKeys(2)");
    }
}
