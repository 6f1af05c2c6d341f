//! Space reserved for taking traffic back: a ring of records that was written in full beforehand, so that a full disk has room
//! for it, outside SQLite, so that nothing needs a journal.
//!
//! **Invariant**: a record is replayed only onto the state it was made for; replaying twice changes nothing.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

const SLOTS: u64 = 64;
const SLOT_BYTES: usize = 1024;
/// Sequence number, length, checksum.
const HEAD_BYTES: usize = 8 + 4 + 4;
/// A disk that hangs does not keep traffic on a bad version.
const WRITE_TIME_MAX: Duration = Duration::from_millis(20);

pub struct Reserve<R> {
    records: mpsc::Sender<Job<R>>,
}

type Job<R> = (R, mpsc::Sender<std::io::Result<()>>);

impl<R: Serialize + DeserializeOwned + Send + 'static> Reserve<R> {
    /// Opens or makes the ring; returns the records in it, oldest first.
    pub fn open(path: &Path) -> std::io::Result<(Self, Vec<R>)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let full = SLOTS * SLOT_BYTES as u64;
        if file.metadata()?.len() < full {
            // Written, not merely allocated: some filesystems allocate late.
            file.write_all_at(&vec![0xA5; full as usize], 0)?;
            file.sync_all()?;
        }
        let mut found: Vec<(u64, R)> = (0..SLOTS).filter_map(|slot| read(&file, slot)).collect();
        found.sort_by_key(|(sequence, _)| *sequence);
        let next = found.last().map_or(1, |(sequence, _)| sequence + 1);
        let (records, inbox) = mpsc::channel();
        std::thread::Builder::new().name("reserve".into()).spawn(move || write_until_closed(&file, next, &inbox))?;
        Ok((Self { records }, found.into_iter().map(|(_, record)| record).collect()))
    }

    /// Durable when it returns `Ok`; an error after at most 20 ms, and for a record that [does not fit](Self::fits).
    pub fn record(&self, record: R) -> std::io::Result<()> {
        let (done, wait) = mpsc::channel();
        self.records.send((record, done)).map_err(|_| std::io::Error::other("the reserve's writer has ended"))?;
        wait.recv_timeout(WRITE_TIME_MAX).unwrap_or_else(|_| Err(std::io::Error::other("the disk does not answer")))
    }

    /// A slot has room for it.
    pub fn fits(record: &R) -> bool {
        serde_json::to_vec(record).is_ok_and(|text| text.len() <= SLOT_BYTES - HEAD_BYTES)
    }
}

fn write_until_closed<R: Serialize>(file: &File, mut next: u64, inbox: &mpsc::Receiver<Job<R>>) {
    while let Ok((record, done)) = inbox.recv() {
        let written = write(file, next, &record);
        next += 1;
        let _ = done.send(written);
    }
}

fn write<R: Serialize>(file: &File, sequence: u64, record: &R) -> std::io::Result<()> {
    let text = serde_json::to_vec(record)?;
    if text.len() > SLOT_BYTES - HEAD_BYTES {
        return Err(std::io::Error::other("the record is too long"));
    }
    let mut slot = Vec::with_capacity(SLOT_BYTES);
    slot.extend_from_slice(&sequence.to_le_bytes());
    slot.extend_from_slice(&(text.len() as u32).to_le_bytes());
    slot.extend_from_slice(&checksum(sequence, &text).to_le_bytes());
    slot.extend_from_slice(&text);
    slot.resize(SLOT_BYTES, 0);
    file.write_all_at(&slot, (sequence % SLOTS) * SLOT_BYTES as u64)?;
    file.sync_data()
}

fn read<R: DeserializeOwned>(file: &File, slot: u64) -> Option<(u64, R)> {
    let mut bytes = [0u8; SLOT_BYTES];
    file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64).ok()?;
    let sequence = u64::from_le_bytes(bytes[..8].try_into().ok()?);
    let size = u32::from_le_bytes(bytes[8..12].try_into().ok()?) as usize;
    let sum = u32::from_le_bytes(bytes[12..16].try_into().ok()?);
    let text = bytes.get(HEAD_BYTES..HEAD_BYTES + size)?;
    if checksum(sequence, text) != sum {
        return None;
    }
    serde_json::from_slice(text).ok().map(|record| (sequence, record))
}

fn checksum(sequence: u64, text: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(text);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_records_come_back_in_order_and_a_torn_one_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ring");
        let (reserve, found) = Reserve::<u64>::open(&path).expect("made");
        assert!(found.is_empty());
        for number in 1..=SLOTS + 6 {
            // A loaded disk may take longer than the limit; the record is on its way all the same.
            let _ = reserve.record(number);
        }
        drop(reserve);
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("there");
        let last = SLOTS + 6;
        let at = (last % SLOTS) * SLOT_BYTES as u64;
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while read::<u64>(&file, last % SLOTS).is_none_or(|(sequence, _)| sequence != last) {
            assert!(std::time::Instant::now() < deadline, "the last record was never written");
            std::thread::yield_now();
        }
        file.write_all_at(b"torn", at + HEAD_BYTES as u64).expect("written");
        let (_, found) = Reserve::<u64>::open(&path).expect("opened");
        let expected: Vec<u64> = (7..last).collect();
        assert_eq!(found, expected);
    }
}
