//! What is kept, and what is owed to a disk that refused.
//!
//! **Invariant**: what is owed goes with the next commit, before it; a record of the reserved space counts only onto the state it was
//! made for.

use model::Rejected;
use serde::{Deserialize, Serialize};
use store::{Batch, StoreError};

use crate::change::{Change, change_key, number_key};
use crate::flag::{Flag, Settings};
use crate::meters::wall_ms;
use crate::registry::{Registry, kept};
use crate::trial::without_trial;

/// A flag that was switched off although that could not be made durable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SwitchedOff {
    key: String,
    environment: String,
    /// The newest change before it.
    after: u64,
    /// Only its rollout has ended; the flag is on, and answers what it did before.
    #[serde(default)]
    taken_back: bool,
}

impl Registry {
    pub(crate) fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Durable when it returns, together with everything that the disk owes. What it refuses may have reached the disk all the same:
    /// who takes it back in memory [owes back](Self::owe_back) to the disk what was there before.
    pub(crate) async fn commit(&mut self, puts: Vec<(String, String)>, deletes: Vec<String>) -> Result<(), Rejected> {
        let mut all = self.owed.clone();
        all.extend(deletes.into_iter().map(|key| (key, None)));
        all.extend(puts.into_iter().map(|(key, value)| (key, Some(value))));
        // Never without what is owed: a replay of the reserved space goes by it.
        all.insert("flaglast".to_owned(), Some(kept(&self.number)));
        let mut batch = Batch::default();
        for (key, value) in all {
            match value {
                Some(value) => batch.puts.push((key, value)),
                None => batch.deletes.push(key),
            }
        }
        let written = self.store.commit(batch).await;
        // Of a disk that was stuck before, nothing was asked.
        self.unsure = matches!(written, Err(StoreError::Unknown(waited)) if !waited.is_zero());
        written.map_err(|error| Rejected::new("unavailable", format!("nothing was changed: {error}")))?;
        self.owed.clear();
        Ok(())
    }

    /// The next commit that succeeds writes these too.
    pub(crate) fn owe(&mut self, values: impl IntoIterator<Item = (String, Option<String>)>) {
        self.owed.extend(values);
    }

    pub(crate) fn puts(change: &Change) -> (Vec<(String, String)>, Vec<String>) {
        let mut puts = vec![(change_key(&change.key, change.number), kept(change)), (number_key(change.number), kept(&change.key))];
        let mut deletes = Vec::new();
        match &change.after {
            Some(flag) => puts.push((format!("flag/{}", change.key), kept(flag))),
            None => deletes.push(format!("flag/{}", change.key)),
        }
        (puts, deletes)
    }

    /// Switching off acts although the disk refuses. True when a restart knows it all the same.
    pub(crate) fn switched_off_anyway(&mut self, change: Change, environment: &str, error: &Rejected) -> bool {
        let record = SwitchedOff {
            key: change.key.clone(),
            environment: environment.to_owned(),
            after: change.number - 1,
            taken_back: change.action != "off",
        };
        let recorded = self.reserve.record(record);
        match &recorded {
            Ok(()) => eprintln!("flag {}: off; kept in the reserved space, because {}", change.key, error.message),
            Err(also) => eprintln!("error: flag {}: off, but not durably: {}; {also}", change.key, error.message),
        }
        self.owe_change(&change);
        recorded.is_ok()
    }

    pub(crate) fn owe_change(&mut self, change: &Change) {
        let (puts, deletes) = Self::puts(change);
        let puts = puts.into_iter().map(|(key, value)| (key, Some(value)));
        self.owe(puts.chain(deletes.into_iter().map(|key| (key, None))));
    }

    /// After a commit that was refused: what was there before it, in case it was written all the same.
    pub(crate) fn owe_back(&mut self, values: impl IntoIterator<Item = (String, Option<String>)>) {
        if self.unsure {
            self.owe(values);
        }
    }

    pub(crate) async fn save_again(&mut self) {
        if !self.owed.is_empty() {
            // What is still refused is tried again.
            let _ = self.commit(Vec::new(), Vec::new()).await;
        }
    }

    /// Before anything else at a start. A flag that was changed since means it no more.
    pub(crate) fn replay(&mut self, records: Vec<SwitchedOff>) {
        let newest = self.number;
        for record in records.into_iter().filter(|record| record.after >= newest) {
            let now_ms = wall_ms();
            let flag = self.flags.entry(record.key.clone()).or_insert_with(|| Flag::of_file(&record.key, now_ms));
            let before = flag.clone();
            let settings = without_trial(flag.settings(&record.environment), "while the disk refused", now_ms);
            let on = settings.on && record.taken_back;
            let settings = Settings { on, changed_ms: now_ms, ..settings };
            flag.environments.insert(record.environment.clone(), settings);
            let after = flag.clone();
            let (action, said) = if record.taken_back { ("rolled_back", "its rollout was taken back") } else { ("off", "switched off") };
            eprintln!("flag {}: {said} before the restart, and stays so", record.key);
            let change = Change {
                number: record.after + 1,
                at_ms: now_ms,
                who: "changeover".to_owned(),
                why: Some("it was done while the disk refused".to_owned()),
                environment: Some(record.environment),
                key: record.key,
                action: action.to_owned(),
                said: said.to_owned(),
                agreed: None,
                before: Some(before),
                after: Some(after),
            };
            self.number = self.number.max(change.number);
            self.owe_change(&change);
        }
    }
}
