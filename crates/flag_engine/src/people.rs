//! The users of an experiment, kept in a file of their own, to which is only added.
//!
//! **Invariants**: what was written is counted again in the same way after a restart; half a record is none. A record is written
//! within a second, not synced: a power failure forgets what the kernel had not written yet. Not here: who counts (judge).

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use judge::experiment::{Design, Experiment, Ledger, Report};

/// About 60 bytes each in memory; beyond that nobody new is counted.
const USERS_MAX: usize = 2_000_000;
/// User, second, value, kind, number, checksum.
const RECORD_BYTES: usize = 32;
const CHECKED_BYTES: usize = 28;

pub(crate) struct People {
    experiment: Experiment,
    ledger: Ledger,
    unwritten: Vec<u8>,
    /// Seconds do not fall.
    now_s: u64,
}

#[derive(Clone, Copy)]
enum What {
    Saw = 0,
    Did = 1,
}

impl People {
    /// Reads what `path` holds.
    pub(crate) fn open(design: &Design, window_ms: u64, path: &Path) -> std::io::Result<Self> {
        let experiment = Experiment::new(design.clone()).map_err(std::io::Error::other)?;
        let ledger = Ledger::new(window_ms.div_ceil(1_000), USERS_MAX);
        let mut people = Self { experiment, ledger, unwritten: Vec::new(), now_s: 0 };
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => file.read_to_end(&mut bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        for record in bytes.as_chunks::<RECORD_BYTES>().0 {
            people.replay(record);
        }
        people.unwritten.clear();
        Ok(people)
    }

    fn replay(&mut self, record: &[u8; RECORD_BYTES]) {
        let word = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("eight bytes"));
        if crc32fast::hash(&record[..CHECKED_BYTES]).to_le_bytes() != record[CHECKED_BYTES..] {
            return;
        }
        let number = usize::from(u16::from_le_bytes([record[26], record[27]]));
        match record[24] {
            0 => self.saw(word(0), number, word(8)),
            _ => drop(self.did(word(0), number, f64::from_bits(word(16)), word(8))),
        }
    }

    fn note(&mut self, user: u64, value: f64, what: What, number: usize) {
        let mut record = [0; RECORD_BYTES];
        record[..8].copy_from_slice(&user.to_le_bytes());
        record[8..16].copy_from_slice(&self.now_s.to_le_bytes());
        record[16..24].copy_from_slice(&value.to_bits().to_le_bytes());
        record[24] = what as u8;
        record[26..CHECKED_BYTES].copy_from_slice(&(number as u16).to_le_bytes());
        let sum = crc32fast::hash(&record[..CHECKED_BYTES]);
        record[CHECKED_BYTES..].copy_from_slice(&sum.to_le_bytes());
        self.unwritten.extend_from_slice(&record);
    }

    /// A user, by the hash of its key, saw a variant.
    pub(crate) fn exposed(&mut self, user: u64, variant: &str, now_s: u64) {
        if let Some(variant) = self.experiment.design().number(variant) {
            self.saw(user, variant, now_s);
        }
    }

    fn saw(&mut self, user: u64, variant: usize, now_s: u64) {
        self.now_s = self.now_s.max(now_s);
        if self.ledger.saw(&mut self.experiment, user, variant, self.now_s) == Ok(true) {
            self.note(user, 0.0, What::Saw, variant);
        }
    }

    /// True when it counts.
    pub(crate) fn outcome(&mut self, user: u64, metric: &str, value: f64, now_s: u64) -> bool {
        let goal = self.experiment.design().goals.iter().position(|goal| goal.name == metric);
        goal.is_some_and(|goal| self.did(user, goal, value, now_s))
    }

    fn did(&mut self, user: u64, goal: usize, value: f64, now_s: u64) -> bool {
        self.now_s = self.now_s.max(now_s);
        let counts = self.ledger.did(&mut self.experiment, user, goal, value, self.now_s) == Ok(true);
        if counts {
            self.note(user, value, What::Did, goal);
        }
        counts
    }

    /// Writes what is new.
    pub(crate) fn write(&mut self, path: &Path) -> std::io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        // What a crash left half written is cut off, so that records stay where they are looked for.
        let length = file.metadata()?.len();
        let whole = length - length % RECORD_BYTES as u64;
        if whole < length {
            file.set_len(whole)?;
        }
        file.write_all(&self.unwritten)?;
        self.unwritten.clear();
        Ok(())
    }

    /// What is known at second `now_s`.
    pub(crate) fn report(&mut self, now_s: u64) -> Report {
        self.now_s = self.now_s.max(now_s);
        // The ledger is this experiment's.
        let _ = self.ledger.settle(&mut self.experiment, self.now_s);
        self.experiment.look()
    }

    /// Users whose time is not over.
    pub(crate) fn waiting(&self) -> usize {
        self.ledger.open()
    }

    /// Nobody new is counted any more.
    pub(crate) fn is_full(&self) -> bool {
        self.ledger.len() >= USERS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use judge::experiment::{Better, Goal, GoalKind, VariantShare};

    #[test]
    fn a_restart_counts_the_same_and_half_a_record_is_none() {
        let variants = ["old", "new"].map(|name| VariantShare { name: name.to_owned(), share: 1 }).to_vec();
        let goal = Goal { name: "signup".to_owned(), kind: GoalKind::Conversion, better: Better::Higher };
        let design = Design { variants, control: "old".to_owned(), goals: vec![goal], alpha: 0.05 };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users");
        let mut people = People::open(&design, 10_000, &path).expect("made");
        for user in 0..100 {
            people.exposed(user, if user % 2 == 0 { "old" } else { "new" }, 1_000 + user);
            people.exposed(user, if user % 2 == 0 { "old" } else { "new" }, 1_000 + user);
        }
        assert!(people.outcome(98, "signup", 1.0, 1_100) && !people.outcome(3, "signup", 1.0, 1_100), "its time is over");
        people.exposed(99, "old", 1_101);
        people.write(&path).expect("written");
        let length = std::fs::metadata(&path).expect("there").len();
        let mut file = OpenOptions::new().append(true).open(&path).expect("opened");
        file.write_all(&[7; 11]).expect("half a record");
        let mut again = People::open(&design, 10_000, &path).expect("read");
        assert_eq!(again.report(2_000), people.report(2_000));
        again.exposed(500, "new", 2_001);
        again.write(&path).expect("written");
        assert_eq!(std::fs::metadata(&path).expect("there").len(), length + RECORD_BYTES as u64);
        assert_eq!((again.waiting(), people.waiting(), again.report(2_001).excluded), (1, 0, 1));
    }
}
