//! What the tests share: a small node's life on a fake disk.

use crate::disk::Disk;
use crate::disk::fake::FakeDisk;
use crate::{Batch, DataDir, OpenError, Options, Reader, Recovered, Wal};
use bytes::Bytes;
use raftqueue_raft::{Entry, HardState, Index, NodeId, Payload, Term};
use std::sync::Arc;

pub(super) const SEGMENT_BYTES: u64 = 16 * 1024;

pub(super) fn options(entropy: u64) -> Options {
    Options { segment_bytes: SEGMENT_BYTES, entropy, ..Options::default() }
}

pub(super) fn shared(disk: &FakeDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// An empty disk that was formatted.
pub(super) fn formatted(seed: u64) -> FakeDisk {
    let disk = FakeDisk::new(seed);
    DataDir::open(shared(&disk), Some("a")).unwrap().format(NodeId(7), "a").unwrap();
    disk
}

pub(super) fn open(disk: &FakeDisk, entropy: u64) -> Result<(Wal, Recovered), OpenError> {
    DataDir::open(shared(disk), Some("a"))?.open_log(options(entropy))
}

pub(super) fn hard(term: u64, vote: u64) -> HardState {
    HardState { term: Term(term), vote: (vote != 0).then_some(NodeId(vote)) }
}

/// A command entry whose bytes follow from its index, term and `size`.
pub(super) fn entry(index: u64, term: u64, size: usize) -> Entry {
    let fill = (index * 31 + term * 7) as u8;
    let meta = Bytes::from(vec![fill; 1 + size % 5]);
    Entry {
        index: Index(index),
        term: Term(term),
        payload: Payload::Command { meta, bodies: Bytes::from(vec![fill ^ 0xff; size]) },
    }
}

pub(super) fn entries(range: std::ops::Range<u64>, term: u64, size: usize) -> Vec<Entry> {
    range.map(|index| entry(index, term, size)).collect()
}

pub(super) fn batch(hard_state: HardState, entries: &[Entry]) -> Batch<'_> {
    Batch { hard_state, hard_state_changed: true, truncate_from: None, entries }
}

pub(super) fn truncating(hard_state: HardState, from: u64, entries: &[Entry]) -> Batch<'_> {
    Batch { hard_state, hard_state_changed: true, truncate_from: Some(Index(from)), entries }
}

/// Everything in the log, read in steps of a few KiB.
pub(super) fn read_all(reader: &Reader) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    let mut at = reader.first_index();
    while at <= reader.last_index() {
        let more = reader.entries(at, Index(u64::MAX), 4096).unwrap();
        at = more.last().unwrap().index.next();
        all.extend(more);
    }
    all
}
