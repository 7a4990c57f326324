//! What the tests share: a small node's life on a fake disk.

use crate::disk::Disk;
use crate::disk::fake::FakeDisk;
use crate::{
    AppendError, Batch, Change, DataDir, OpenError, Options, PlacesFile, Reader, Recovered, SnapshotFile,
    SnapshotHead, SnapshotWriter, Wal,
};
use bytes::Bytes;
use raftqueue_raft::{Configuration, Entry, HardState, Index, NodeId, Payload, Term};
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

/// Writes a snapshot that covers everything up to `index`, as a keeper would.
pub(super) fn write_snapshot(wal: &Wal, index: Index, term: Term) -> Result<SnapshotFile, AppendError> {
    let disk = wal.disk();
    let head = SnapshotHead {
        index,
        term,
        configuration_index: Index(0),
        configuration: Configuration::default().into(),
        stamp_ms: index.0,
        term_runs: (index > Index(0)).then_some((Index(1), term)).into_iter().collect(),
    };
    let written = SnapshotWriter::create(&*disk, wal.next_file(), &head).and_then(|mut writer| match writer
        .section(&index.0.to_le_bytes())
    {
        Ok(()) => writer.finish(&*disk),
        Err(error) => {
            writer.abandon(&*disk);
            Err(error)
        }
    });
    written.map_err(|source| AppendError::Failed { operation: "write a snapshot", source })
}

/// Does all that waits.
pub(super) fn tidy(wal: &mut Wal) -> Result<(), AppendError> {
    while wal.doomed_files() > 0 {
        wal.upkeep()?;
    }
    Ok(())
}

/// Cuts the log before `index`, as far as whole segments allow, by two snapshots and as if nothing held a message. Says how
/// many files went.
pub(super) fn cut(wal: &mut Wal, index: Index) -> Result<usize, AppendError> {
    let index = index.min(wal.last_index().next());
    let newest = wal.manifest().snapshots.last().map_or(Index(1), |newest| newest.index);
    if index.0 < 1 || index.prev() < newest {
        return Ok(0);
    }
    let at = index.prev();
    let reader = wal.reader();
    let term = reader.term(at).expect("not before the older snapshot");
    let mut gone = 0;
    for is_second in [false, true] {
        let snapshot = write_snapshot(wal, at, term)?;
        let mut change = Change { snapshot: Some(snapshot), ..Change::default() };
        let sealed = reader.segments();
        for segment in sealed.iter().take(sealed.len() - 1).filter(|_| is_second) {
            let to = reader.segment_span(*segment).expect("one of the log").last;
            if to <= at {
                let number = wal.next_file();
                change.places.push(PlacesFile {
                    number,
                    size: 0,
                    crc: 0,
                    segment: *segment,
                    to,
                    messages: 0,
                });
            }
        }
        gone += wal.switch(&change)?.gone.len();
        tidy(wal)?;
    }
    Ok(gone)
}
