//! The clerk: asks authorities for the certificates that listeners want, and again in time. One task owns what is known of each
//! name; a job owns a name while it speaks to an authority for it.
//!
//! **Invariant**: a try is kept before it begins, a certificate before it is shown; what fails takes nothing away from what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{Acme, Authorities, Challenge};
use store::Store;
use tls::Keyring;
use tokio::sync::{Mutex, watch};
use tokio::task::{AbortHandle, Id, JoinSet};

use crate::board::{Board, OfName};
use crate::kept::{self, Held};
use crate::plan::{self, Tries};

/// Names for which an authority is asked at once.
const JOBS_MAX: usize = 4;
/// The clock of the wall may be set: what is due is looked at again after this.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A store that refuses is tried again after this.
const PAUSE_S: i64 = 10;

/// Tells people: kind and words.
pub type Teller = Box<dyn Fn(&'static str, String) + Send + Sync>;

/// What the clerk needs of the house.
pub struct Needs {
    pub store: Store,
    pub keyring: Keyring,
    /// Names of the listeners that are open: an authority that looks meets them.
    pub open: watch::Receiver<BTreeSet<String>>,
    pub told: Teller,
}

pub(crate) struct House {
    pub(crate) store: Store,
    pub(crate) keyring: Keyring,
    pub(crate) told: Teller,
    /// Held while an account is opened.
    pub(crate) opening: Mutex<()>,
}

/// What is wanted for a name.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) directory: String,
    pub(crate) ca: Authorities,
    pub(crate) email: Option<String>,
    pub(crate) challenge: Challenge,
    /// Where the authority's question may arrive.
    listeners: BTreeSet<String>,
}

impl Wanted {
    /// Tries of another question do not count for this one.
    pub(crate) fn question(&self) -> String {
        format!("{} {}", self.directory, self.challenge.name())
    }
}

/// What is known of a name.
#[derive(Default)]
struct Known {
    held: Option<Held>,
    tries: Option<Tries>,
    /// The store refused.
    not_before_s: i64,
    job: Option<AbortHandle>,
}

/// What a job leaves.
pub(crate) enum Done {
    /// It is kept, and shown.
    Issued(Held),
    /// `is_kept`: else the store refused.
    Failed { tries: Tries, is_kept: bool },
    /// The authority was asked when to renew.
    Looked { held: Held, is_kept: bool },
}

pub struct Clerk {
    house: Arc<House>,
    open: watch::Receiver<BTreeSet<String>>,
    board: Board,
    wanted: BTreeMap<String, Wanted>,
    known: BTreeMap<String, Known>,
    jobs: JoinSet<Done>,
}

impl Clerk {
    /// Reads what is kept and shows it, without asking anybody.
    pub async fn open(needs: Needs) -> Self {
        let Needs { store, keyring, open, told } = needs;
        let mut known: BTreeMap<String, Known> = BTreeMap::new();
        for (key, text) in store.values(kept::CERTIFICATES).await {
            let name = key[kept::CERTIFICATES.len()..].to_owned();
            // The parser's own words may be those of the key.
            match serde_json::from_str(&text).map_err(|_| "it cannot be read".to_owned()).and_then(Held::read) {
                Ok(held) => {
                    keyring.issued().set(&name, Some(&held.pair));
                    known.entry(name).or_default().held = Some(held);
                }
                Err(error) => told(
                    "certificate_failed",
                    format!("the certificate of {name} that was kept cannot be used: {error}; another one is asked for"),
                ),
            }
        }
        for (key, text) in store.values(kept::TRIES).await {
            known.entry(key[kept::TRIES.len()..].to_owned()).or_default().tries = serde_json::from_str(&text).ok();
        }
        let house = Arc::new(House { store, keyring, told, opening: Mutex::default() });
        Self { house, open, board: Board::default(), wanted: BTreeMap::new(), known, jobs: JoinSet::new() }
    }

    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// For ever.
    pub async fn run(mut self) {
        let mut asked = self.house.keyring.asked();
        loop {
            let wanted = wanted(&asked.borrow_and_update());
            if wanted != self.wanted {
                self.follow(wanted).await;
            }
            let pause = self.begin_what_is_due();
            tokio::select! {
                changed = asked.changed() => if changed.is_err() { return },
                changed = self.open.changed() => if changed.is_err() { return },
                Some(ended) = self.jobs.join_next_with_id() => match ended {
                    Ok((job, done)) => self.ended(job, Some(done)),
                    // It was called off, or a mistake of ours ended it.
                    Err(error) => self.ended(error.id(), None),
                },
                () = self.board.is_asked() => self.try_now(),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// What somebody wants at once waits no more; how often it failed still counts for the next pause.
    fn try_now(&mut self) {
        for name in std::mem::take(&mut self.board.write().wanted_now) {
            if let Some(tries) = self.known.get_mut(&name).and_then(|known| known.tries.as_mut()) {
                tries.not_before_s = now_s();
            }
        }
    }

    async fn follow(&mut self, wanted: BTreeMap<String, Wanted>) {
        for (name, known) in &mut self.known {
            // What was asked for differently is asked for again.
            if self.wanted.get(name) != wanted.get(name)
                && let Some(job) = known.job.take()
            {
                job.abort();
            }
        }
        self.wanted = wanted;
        // A name that comes back may use what it had; what has expired is of no use to anybody.
        let now_s = now_s();
        let is_of_use = |known: &Known| known.held.as_ref().is_some_and(|held| held.pair.not_after_s() > now_s);
        let gone: Vec<_> = self.known.iter().filter(|(name, known)| !self.wanted.contains_key(*name) && !is_of_use(known)).collect();
        let gone: Vec<String> = gone.into_iter().map(|(name, _)| name.clone()).collect();
        for name in gone {
            if kept::forget(&self.house.store, &name).await.is_ok() {
                self.house.keyring.issued().set(&name, None);
                self.known.remove(&name);
            }
        }
        self.board.write().names.retain(|name, _| self.wanted.contains_key(name));
    }

    /// Returns for how long there is nothing more to begin.
    fn begin_what_is_due(&mut self) -> Duration {
        let now_s = now_s();
        let mut pause = LOOK_EVERY;
        for (name, wanted) in &self.wanted {
            let known = self.known.entry(name.clone()).or_default();
            let (next_s, is_order) = next(name, wanted, known, now_s);
            let order_s = order_s(name, wanted, known, now_s);
            let tries = known.tries.as_ref().filter(|tries| tries.question == wanted.question() && tries.failures > 0);
            let of_name = OfName {
                directory: wanted.directory.clone(),
                failures: tries.map_or(0, |tries| tries.failures),
                problem: tries.map(|tries| tries.problem.clone()),
                next_s: order_s.max(now_s),
            };
            self.board.write().names.insert(name.clone(), of_name);
            if known.job.is_some() || !is_met(&self.house.keyring, &self.open.borrow(), wanted) {
                continue;
            }
            if next_s > now_s {
                pause = pause.min(Duration::from_secs((next_s - now_s) as u64));
                continue;
            }
            if self.jobs.len() >= JOBS_MAX {
                // One that ends wakes us.
                continue;
            }
            let job = crate::job::Job {
                house: self.house.clone(),
                name: name.clone(),
                wanted: wanted.clone(),
                held: known.held.clone(),
                tries: known.tries.clone(),
                is_told: known.not_before_s > 0,
            };
            known.job = Some(match &known.held {
                Some(held) if !is_order => self.jobs.spawn(job.look(held.clone())),
                _ => self.jobs.spawn(job.order()),
            });
        }
        pause
    }

    fn ended(&mut self, job: Id, done: Option<Done>) {
        let is_its = |known: &Known| known.job.as_ref().is_some_and(|it| it.id() == job);
        // What was called off leaves nothing: it begins again.
        let Some((_, known)) = self.known.iter_mut().find(|(_, known)| is_its(known)) else { return };
        known.job = None;
        let is_kept = match done {
            Some(Done::Issued(held)) => {
                (known.held, known.tries) = (Some(held), None);
                self.board.write().issued += 1;
                true
            }
            Some(Done::Failed { tries, is_kept }) => {
                known.tries = Some(tries);
                is_kept
            }
            Some(Done::Looked { held, is_kept }) => {
                known.held = Some(held);
                is_kept
            }
            None => false,
        };
        known.not_before_s = if is_kept { 0 } else { now_s() + PAUSE_S };
    }
}

/// When to do something for the name next, and whether that is to order.
fn next(name: &str, wanted: &Wanted, known: &Known, now_s: i64) -> (i64, bool) {
    let order_s = order_s(name, wanted, known, now_s);
    let look_s = known.held.as_ref().filter(|held| is_of(held, wanted)).map_or(i64::MAX, |held| held.kept.look_s);
    (order_s.min(look_s).max(known.not_before_s), order_s <= look_s || order_s <= now_s)
}

fn order_s(name: &str, wanted: &Wanted, known: &Known, now_s: i64) -> i64 {
    let held = known.held.as_ref().filter(|held| is_of(held, wanted));
    let renewal_s = held.map(|held| held.renewal_s(name, true));
    plan::due_s(renewal_s, known.tries.as_ref(), &wanted.question(), now_s)
}

/// Issued by whom it is wanted from.
fn is_of(held: &Held, wanted: &Wanted) -> bool {
    held.kept.directory == wanted.directory
}

/// Whether an authority that looks would meet us.
fn is_met(keyring: &Keyring, open: &BTreeSet<String>, wanted: &Wanted) -> bool {
    let is_open = |name: &String| open.contains(name);
    match wanted.challenge {
        Challenge::TlsAlpn => wanted.listeners.iter().any(is_open),
        Challenge::Http => open.iter().any(|name| !keyring.speaks_tls(name)),
    }
}

fn wanted(asked: &BTreeMap<String, Acme>) -> BTreeMap<String, Wanted> {
    let mut all: BTreeMap<String, Wanted> = BTreeMap::new();
    for (listener, acme) in asked {
        for domain in &acme.domains {
            let wanted = all.entry(domain.clone()).or_insert_with(|| Wanted {
                directory: acme.directory.clone(),
                ca: acme.ca.clone(),
                email: acme.email.clone(),
                challenge: acme.challenge,
                listeners: BTreeSet::new(),
            });
            wanted.listeners.insert(listener.clone());
        }
    }
    all
}

/// Seconds since 1970.
pub(crate) fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
