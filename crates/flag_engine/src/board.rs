//! The board: the flag sets that are served now, one per environment.
//!
//! **Invariant**: a set is published whole; whoever reads, reads one set. Not here: where sets come from (registry).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

/// A flag set as it is served.
pub struct Published {
    pub environment: Arc<str>,
    /// Rises by one with every publication in this environment, from 1; begins anew at a restart.
    pub revision: u64,
    /// Of the content: the same after a restart, hexadecimal.
    pub etag: String,
    pub set: Arc<flags::Set>,
}

/// Shared by everybody who serves or changes flags.
#[derive(Default)]
pub struct Board(RwLock<State>);

#[derive(Default)]
struct State {
    environments: BTreeMap<Arc<str>, watch::Sender<Arc<Published>>>,
    /// In the order of their first publication.
    order: Vec<Arc<str>>,
}

impl Board {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everybody who watches sees `set` next. Returns its revision.
    pub fn publish(&self, environment: &str, set: flags::Set) -> u64 {
        let etag = Sha256::digest(set.document()).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = state.environments.get(environment) {
            let revision = sender.borrow().revision + 1;
            let environment = sender.borrow().environment.clone();
            sender.send_replace(Arc::new(Published { environment, revision, etag, set: Arc::new(set) }));
            return revision;
        }
        let name: Arc<str> = environment.into();
        let first = Published { environment: name.clone(), revision: 1, etag, set: Arc::new(set) };
        state.environments.insert(name.clone(), watch::Sender::new(Arc::new(first)));
        state.order.push(name);
        1
    }

    /// Names, the default first.
    pub fn environments(&self) -> Vec<Arc<str>> {
        self.read().order.clone()
    }

    /// It is served no more; whoever watches it sees the end of the channel.
    pub fn withdraw(&self, environment: &str) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.environments.remove(environment);
        state.order.retain(|name| &**name != environment);
    }

    pub fn now(&self, environment: &str) -> Option<Arc<Published>> {
        self.read().environments.get(environment).map(|sender| sender.borrow().clone())
    }

    /// The newest set, always: what came between is skipped.
    pub fn watch(&self, environment: &str) -> Option<watch::Receiver<Arc<Published>>> {
        self.read().environments.get(environment).map(watch::Sender::subscribe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: bool) -> flags::Set {
        let text = format!(r#"{{"flags":{{"a":{{"state":"ENABLED","variants":{{"x":{value}}},"defaultVariant":"x"}}}}}}"#);
        flags::Set::from_json(&text, flags::Bucketing::V2).expect("a set")
    }

    #[test]
    fn the_same_content_has_the_same_tag_and_the_newest_set_is_seen() {
        let board = Board::default();
        assert_eq!((board.publish("b", set(true)), board.publish("a", set(true))), (1, 1));
        assert_eq!(board.environments().iter().map(|name| &**name).collect::<Vec<_>>(), ["b", "a"]);
        let (first, watching) = (board.now("b").expect("there"), board.watch("b").expect("there"));
        assert_eq!((board.publish("b", set(false)), board.publish("b", set(true))), (2, 3));
        assert!(watching.has_changed().expect("open"));
        assert_eq!((watching.borrow().revision, &watching.borrow().etag), (3, &first.etag));
        board.withdraw("b");
        assert!(board.now("b").is_none() && watching.has_changed().is_err());
    }
}
