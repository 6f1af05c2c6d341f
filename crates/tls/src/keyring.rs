//! The keyring: looks after the files of all listeners and targets, on a thread of its own, so that a disk that hangs holds up nobody.
//!
//! **Invariant**: whoever has a door or a trust has it for good; the thread renews what is in it until nobody wants it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use model::{Acme, ListenerTls, TargetTls};
use tokio::sync::watch;

use crate::door::{Door, Doorkeeper};
use crate::issued::Issued;
use crate::leaf::now_s;
use crate::tickets::{TicketKeys, Tickets};
use crate::trust::{Trust, Trustkeeper};

/// How soon a changed file is seen.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// News that nobody takes are forgotten, the oldest first.
const NEWS_MAX: usize = 256;

/// Something to tell people: `certificate_loaded`, `certificate_failed` or `certificate_warning`, and what happened in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    pub kind: &'static str,
    pub text: String,
}

impl News {
    pub(crate) fn new(kind: &'static str, text: String) -> Self {
        Self { kind, text }
    }
}

/// A certificate of a listener, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub listener: String,
    pub source: Source,
    pub names: Vec<String>,
    /// Seconds since 1970; absent: it cannot be used.
    pub not_after_s: Option<i64>,
    /// What is wrong with its files now; another one may be in use.
    pub problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    /// It is asked for (`acme`).
    Authority,
}

/// Cheap to clone; the thread ends with the last one.
#[derive(Clone)]
pub struct Keyring {
    inner: Arc<Inner>,
}

struct Inner {
    wanted: Mutex<Wanted>,
    changed: Condvar,
    tickets: Arc<Tickets>,
    issued: Arc<Issued>,
    asked: watch::Sender<BTreeMap<String, Acme>>,
}

#[derive(Default)]
struct Wanted {
    doors: BTreeMap<String, (ListenerTls, Arc<Door>)>,
    trusts: Vec<(TargetTls, Weak<Trust>)>,
    /// Something above was changed since the thread looked.
    is_new: bool,
    news: Vec<News>,
    states: Vec<State>,
}

impl Keyring {
    pub fn start() -> std::io::Result<Self> {
        let inner = Arc::new(Inner {
            wanted: Mutex::default(),
            changed: Condvar::new(),
            tickets: Tickets::new(),
            issued: Arc::default(),
            asked: watch::Sender::default(),
        });
        let seen = Arc::downgrade(&inner);
        std::thread::Builder::new().name("keyring".to_owned()).spawn(move || look_after(&seen))?;
        Ok(Self { inner })
    }

    /// All listeners that speak TLS, in the order of the settings; those that were there before keep their door.
    pub fn doors(&self, wanted: &BTreeMap<String, ListenerTls>) -> BTreeMap<String, Arc<Door>> {
        let mut held = self.inner.wanted();
        let kept = |name: &String, settings: &ListenerTls| {
            let (had, door) = held.doors.get(name)?;
            if had.client_auth != settings.client_auth {
                // Nobody gets in by what was asked of clients before.
                door.wait_for_files();
            }
            Some(door.clone())
        };
        let one = |name: &String, settings: &ListenerTls| (settings.clone(), kept(name, settings).unwrap_or_else(Door::new));
        let doors: BTreeMap<_, _> = wanted.iter().map(|(name, settings)| (name.clone(), one(name, settings))).collect();
        let same =
            doors.len() == held.doors.len() && doors.iter().all(|(name, (it, _))| held.doors.get(name).is_some_and(|had| had.0 == *it));
        held.doors = doors;
        let doors = held.doors.iter().map(|(name, (_, door))| (name.clone(), door.clone())).collect();
        let asked = wanted.iter().filter_map(|(name, settings)| Some((name.clone(), settings.acme.clone()?))).collect();
        self.inner.asked.send_if_modified(|before| {
            *before != asked && {
                *before = asked;
                true
            }
        });
        if !same {
            held.is_new = true;
            drop(held);
            self.inner.changed.notify_all();
        }
        doors
    }

    /// Equal settings have one trust for as long as somebody holds it.
    pub fn trust(&self, settings: &TargetTls) -> Arc<Trust> {
        let mut held = self.inner.wanted();
        let known = held.trusts.iter().find(|(known, _)| known == settings).and_then(|(_, trust)| trust.upgrade());
        if let Some(trust) = known {
            return trust;
        }
        let trust = Trust::new(settings);
        held.trusts.retain(|(_, trust)| trust.strong_count() > 0);
        held.trusts.push((settings.clone(), Arc::downgrade(&trust)));
        held.is_new = true;
        drop(held);
        self.inner.changed.notify_all();
        trust
    }

    /// For the process that comes after this one.
    pub fn ticket_keys(&self) -> TicketKeys {
        self.inner.tickets.export()
    }

    /// From the process before this one.
    pub fn adopt_ticket_keys(&self, keys: TicketKeys) {
        self.inner.tickets.adopt(keys);
    }

    /// Certificates that come from code.
    pub fn issued(&self) -> &Issued {
        &self.inner.issued
    }

    /// Whether a listener of this name does.
    pub fn speaks_tls(&self, listener: &str) -> bool {
        self.inner.wanted().doors.contains_key(listener)
    }

    /// What authorities are asked for, by listener.
    pub fn asked(&self) -> watch::Receiver<BTreeMap<String, Acme>> {
        self.inner.asked.subscribe()
    }

    /// What happened since this was asked last.
    pub fn news(&self) -> Vec<News> {
        std::mem::take(&mut self.inner.wanted().news)
    }

    pub fn states(&self) -> Vec<State> {
        self.inner.wanted().states.clone()
    }
}

/// What there is to say of a listener's files now, without using them.
pub fn look_once(listener: &str, settings: &ListenerTls) -> Vec<News> {
    let mut news = Vec::new();
    let mut keeper = Doorkeeper::new(listener, Door::new(), Tickets::new(), Arc::default());
    keeper.follow(settings.clone(), 0);
    keeper.look(true, &mut |one| news.push(one));
    news
}

/// The same of what a service says of its targets.
pub fn look_once_at_trust(settings: &TargetTls) -> Vec<News> {
    let mut news = Vec::new();
    Trustkeeper::new(settings.clone(), Trust::new(settings)).look(&mut |one| news.push(one));
    news
}

impl Inner {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell(&self, news: News) {
        let mut held = self.wanted();
        let over = (held.news.len() + 1).saturating_sub(NEWS_MAX);
        held.news.drain(..over);
        held.news.push(news);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.changed.notify_all();
    }
}

fn look_after(keyring: &Weak<Inner>) {
    let mut doors: BTreeMap<String, Doorkeeper> = BTreeMap::new();
    let mut trusts: Vec<Trustkeeper> = Vec::new();
    while let Some(inner) = keyring.upgrade() {
        let is_new = inner.wait();
        inner.tickets.rotate(now_s());
        let wanted = is_new.then(|| inner.take_wanted(&mut trusts));
        let mut tell = |one: News| inner.tell(one);
        if let Some(wanted) = wanted {
            doors.retain(|name, _| wanted.contains_key(name));
            for (name, wanted) in wanted {
                let keeper = doors.entry(name);
                let new = |name: &String| Doorkeeper::new(name, wanted.door.clone(), inner.tickets.clone(), inner.issued.clone());
                let keeper = keeper.or_insert_with_key(new);
                keeper.follow(wanted.settings, wanted.turn);
                keeper.look(true, &mut tell);
            }
        } else {
            doors.values_mut().for_each(|keeper| keeper.look(false, &mut tell));
        }
        trusts.iter_mut().for_each(|keeper| keeper.look(&mut tell));
        inner.wanted().states = doors.values().flat_map(Doorkeeper::states).collect();
    }
}

/// A door that is to be looked after from now on so.
struct WantedDoor {
    settings: ListenerTls,
    door: Arc<Door>,
    turn: u64,
}

impl Inner {
    /// Whether something new is wanted; else it is time to look.
    fn wait(&self) -> bool {
        let held = self.wanted();
        let idle = |held: &mut Wanted| !held.is_new;
        let (mut held, _) = self.changed.wait_timeout_while(held, LOOK_EVERY, idle).unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut held.is_new)
    }

    fn take_wanted(&self, trusts: &mut Vec<Trustkeeper>) -> BTreeMap<String, WantedDoor> {
        // Under the lock: nobody takes one up again meanwhile.
        let held = self.wanted();
        trusts.retain(|keeper| Arc::strong_count(keeper.trust()) > 1);
        for (settings, trust) in held.trusts.iter().filter_map(|(settings, trust)| Some((settings, trust.upgrade()?))) {
            if !trusts.iter().any(|keeper| Arc::ptr_eq(keeper.trust(), &trust)) {
                trusts.push(Trustkeeper::new(settings.clone(), trust));
            }
        }
        let one =
            |(settings, door): &(ListenerTls, Arc<Door>)| WantedDoor { settings: settings.clone(), door: door.clone(), turn: door.turn() };
        held.doors.iter().map(|(name, it)| (name.clone(), one(it))).collect()
    }
}
