//! Browsers that signed in, in memory: a new worker knows none of them.
//!
//! **Invariant**: a session is worth no more than its token is now, and the token itself is not in it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use crate::tokens::{Digest, digest, random_hex};

/// A working day; then the token is asked for again.
pub(crate) const SESSION_MAX: Duration = Duration::from_secs(12 * 3600);
/// Many times the people of a company; the oldest goes first.
const SESSIONS_MAX: usize = 1_000;
/// A person mistypes twice; a program that guesses gets nowhere with this.
const LOGIN_BURST: f64 = 5.0;
const LOGINS_PER_SECOND: f64 = 0.5;
/// Addresses that guess at the same time; more of them wait together.
const GUESSERS_MAX: usize = 1_024;

/// A browser that signed in.
#[derive(Clone)]
pub(crate) struct Visit(Arc<Inner>);

struct Inner {
    key: Digest,
    token: Digest,
    began: Instant,
    /// In every form: another site cannot know it.
    form_token: String,
    /// Shown once, on the next page.
    note: Mutex<Option<Note>>,
}

/// What became of what was asked.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    pub(crate) done: bool,
    pub(crate) text: String,
}

impl Visit {
    pub(crate) fn token(&self) -> &Digest {
        &self.0.token
    }

    pub(crate) fn form_token(&self) -> &str {
        &self.0.form_token
    }

    pub(crate) fn is_ours(&self, form_token: &str) -> bool {
        self.0.form_token.as_bytes().ct_eq(form_token.as_bytes()).into()
    }

    pub(crate) fn leave_note(&self, note: Note) {
        *self.0.note.lock().unwrap_or_else(PoisonError::into_inner) = Some(note);
    }

    pub(crate) fn take_note(&self) -> Option<Note> {
        self.0.note.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[derive(Default)]
pub(crate) struct Sessions {
    /// By the digest of what the cookie holds.
    visits: Mutex<HashMap<Digest, Visit>>,
    guesses: Mutex<HashMap<IpAddr, Budget>>,
}

#[derive(Clone, Copy)]
struct Budget {
    left: f64,
    at: Instant,
}

impl Budget {
    fn now(self) -> f64 {
        (self.left + self.at.elapsed().as_secs_f64() * LOGINS_PER_SECOND).min(LOGIN_BURST)
    }
}

impl Sessions {
    /// Returns what the cookie shall hold.
    pub(crate) fn open(&self, token: Digest) -> std::io::Result<String> {
        let id = random_hex()?;
        let key = digest(&id);
        let visit = Visit(Arc::new(Inner { key, token, began: Instant::now(), form_token: random_hex()?, note: Mutex::new(None) }));
        let mut visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        visits.retain(|_, visit| visit.0.began.elapsed() < SESSION_MAX);
        if visits.len() >= SESSIONS_MAX
            && let Some(oldest) = visits.values().min_by_key(|visit| visit.0.began).map(|visit| visit.0.key)
        {
            visits.remove(&oldest);
        }
        visits.insert(key, visit);
        Ok(id)
    }

    pub(crate) fn of(&self, cookie: &str) -> Option<Visit> {
        let visits = self.visits.lock().unwrap_or_else(PoisonError::into_inner);
        visits.get(&digest(cookie)).filter(|visit| visit.0.began.elapsed() < SESSION_MAX).cloned()
    }

    pub(crate) fn is_open(&self, visit: &Visit) -> bool {
        visit.0.began.elapsed() < SESSION_MAX && self.visits.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&visit.0.key)
    }

    pub(crate) fn close(&self, visit: &Visit) {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner).remove(&visit.0.key);
    }

    /// Whether this address may try another token; a wrong one costs.
    pub(crate) fn may_try(&self, from: IpAddr) -> bool {
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        guesses.retain(|_, budget| budget.now() < LOGIN_BURST);
        guesses.get(&from).is_none_or(|budget| budget.now() >= 1.0) && (guesses.contains_key(&from) || guesses.len() < GUESSERS_MAX)
    }

    pub(crate) fn guessed_wrong(&self, from: IpAddr) {
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        let left = guesses.get(&from).map_or(LOGIN_BURST, |budget| budget.now());
        if guesses.len() < GUESSERS_MAX || guesses.contains_key(&from) {
            guesses.insert(from, Budget { left: left - 1.0, at: Instant::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guesser_is_slowed_down_and_others_are_not() {
        let sessions = Sessions::default();
        let (guesser, person): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let tries = (0..100).take_while(|_| sessions.may_try(guesser).then(|| sessions.guessed_wrong(guesser)).is_some()).count();
        assert_eq!(tries, 5);
        assert!(sessions.may_try(person));
    }

    #[test]
    fn the_cookie_opens_only_its_own_session() {
        let sessions = Sessions::default();
        let id = sessions.open([7; 32]).expect("random numbers");
        let visit = sessions.of(&id).expect("it is open");
        assert_eq!(visit.token(), &[7; 32]);
        assert!(visit.is_ours(visit.form_token()) && !visit.is_ours("") && visit.form_token() != id);
        assert!(sessions.of("").is_none() && sessions.of(visit.form_token()).is_none());
        sessions.close(&visit);
        assert!(sessions.of(&id).is_none());
    }
}
