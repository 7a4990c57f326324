//! The map of the log: where every entry stands. The writer changes it, and readers look into it.

use crate::disk::Disk;
use crate::error::RecordName;
use crate::format::segment::{IndexedRecord, RecordIdentity, RecordKind};
use crate::segment::Segment;
use raftqueue_raft::{Index, Term};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A record and the place where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlacedRecord {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) identity: RecordIdentity,
}

impl PlacedRecord {
    pub(crate) fn name(&self) -> RecordName {
        name_of(&self.identity)
    }
}

/// The name by which peers know a record.
pub(crate) fn name_of(identity: &RecordIdentity) -> RecordName {
    RecordName { index: identity.index, term: identity.term, crc: identity.entry_crc }
}

/// The durable log. Entry `start.0 + 1 + i` stands at `entries[i]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// The last index before the first entry that is there, and its term.
    start: (Index, Term),
    entries: VecDeque<PlacedRecord>,
}

/// A record does not follow the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfOrder {
    pub(crate) expected: Index,
}

impl Log {
    pub(crate) fn new(start: (Index, Term)) -> Log {
        Log { start, entries: VecDeque::new() }
    }

    pub(crate) fn start(&self) -> (Index, Term) {
        self.start
    }

    pub(crate) fn last(&self) -> (Index, Term) {
        self.entries.back().map_or(self.start, |last| (last.identity.index, last.identity.term))
    }

    /// Takes one record: an entry that follows, or a truncation.
    pub(crate) fn apply(&mut self, placed: PlacedRecord) -> Result<(), OutOfOrder> {
        let RecordIdentity { kind, index, term, .. } = placed.identity;
        let expected = self.last().0.next();
        if kind == RecordKind::Truncation {
            if index > expected || index == Index(0) {
                return Err(OutOfOrder { expected });
            }
            if index <= self.start.0 {
                // The cut reaches into released segments: what is left before it is the new start.
                *self = Log::new((index.prev(), term));
            } else {
                self.entries.truncate(self.position(index));
            }
        } else if index == expected {
            self.entries.push_back(placed);
        } else {
            return Err(OutOfOrder { expected });
        }
        Ok(())
    }

    /// Says which of `records` would not follow, without taking any.
    pub(crate) fn check_order<'a>(
        &self,
        records: &'a [IndexedRecord],
    ) -> Result<(), (&'a IndexedRecord, OutOfOrder)> {
        let mut expected = self.last().0.next();
        for record in records {
            let RecordIdentity { kind, index, .. } = record.identity;
            let follows = match kind {
                RecordKind::Truncation => index <= expected && index != Index(0),
                _ => index == expected,
            };
            if !follows {
                return Err((record, OutOfOrder { expected }));
            }
            expected = if kind == RecordKind::Truncation { index } else { index.next() };
        }
        Ok(())
    }

    pub(crate) fn get(&self, index: Index) -> Option<&PlacedRecord> {
        if index <= self.start.0 {
            return None;
        }
        self.entries.get(self.position(index))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PlacedRecord> {
        self.entries.iter()
    }

    /// Forgets the entries of segments before `segment`. Places rise with indexes, so those are the first ones.
    pub(crate) fn release_before(&mut self, segment: u64) {
        let count = self.entries.partition_point(|placed| placed.segment < segment);
        if let Some(last) = count.checked_sub(1).and_then(|last| self.entries.get(last)) {
            self.start = (last.identity.index, last.identity.term);
        }
        self.entries.drain(..count);
        // A long log that was cut gives its memory back.
        if self.entries.capacity() > 4 * self.entries.len() + ENTRIES_SPARE {
            self.entries.shrink_to(2 * self.entries.len() + ENTRIES_SPARE);
        }
    }

    /// The first and the last entry that stand in a segment; the last is before the first if there are none.
    pub(crate) fn span(&self, segment: u64) -> (Index, Index) {
        let count = |count: usize| Index(self.start.0.0 + count as u64);
        let before = self.entries.partition_point(|placed| placed.segment < segment);
        let to = self.entries.partition_point(|placed| placed.segment <= segment);
        (count(before).next(), count(to))
    }

    fn position(&self, index: Index) -> usize {
        usize::try_from(index.0 - self.start.0.0 - 1).expect("as many as fit in memory")
    }
}

/// Entries for which the map keeps room when it becomes shorter.
const ENTRIES_SPARE: usize = 1024;

/// What readers see: only what is durable.
#[derive(Default)]
pub(crate) struct Visible {
    pub(crate) log: Log,
    /// The segments of the log.
    pub(crate) segments: BTreeMap<u64, Arc<Segment>>,
    /// Segments that are kept for their bodies.
    pub(crate) released: BTreeMap<u64, Arc<Segment>>,
}

/// The map behind its lock, which is never held across IO, and what else the writer and its readers share.
pub(crate) struct Shared {
    visible: RwLock<Visible>,
    pub(crate) disk: Arc<dyn Disk>,
    /// The number of the next snapshot, places file or kept file.
    next_file: AtomicU64,
    /// Records that do not verify, by segment and offset.
    pub(crate) holes: Mutex<BTreeMap<(u64, u64), PlacedRecord>>,
}

impl Shared {
    pub(crate) fn new(visible: Visible, disk: Arc<dyn Disk>, next_file: u64) -> Shared {
        let (visible, next_file) = (RwLock::new(visible), AtomicU64::new(next_file));
        Shared { visible, disk, next_file, holes: Mutex::default() }
    }

    /// A number that no file had before.
    pub(crate) fn next_file(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// Above every number so far.
    pub(crate) fn files_end(&self) -> u64 {
        self.next_file.load(Ordering::Relaxed)
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Visible> {
        self.visible.read().expect("no code panics while it holds the map")
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Visible> {
        self.visible.write().expect("no code panics while it holds the map")
    }
}
