//! The map of the log: where every entry stands. The writer changes it, and readers look into it.

use crate::error::RecordName;
use crate::format::segment::{IndexedRecord, RecordIdentity, RecordKind};
use crate::segment::Segment;
use raftqueue_raft::{Index, Term};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

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
        for placed in self.entries.drain(..count) {
            self.start = (placed.identity.index, placed.identity.term);
        }
    }

    fn position(&self, index: Index) -> usize {
        usize::try_from(index.0 - self.start.0.0 - 1).expect("as many as fit in memory")
    }
}

/// What readers see: only what is durable.
#[derive(Default)]
pub(crate) struct Visible {
    pub(crate) log: Log,
    pub(crate) segments: BTreeMap<u64, Arc<Segment>>,
}

/// The map behind its lock, which is never held across IO.
#[derive(Default)]
pub(crate) struct Shared(RwLock<Visible>);

impl Shared {
    pub(crate) fn new(visible: Visible) -> Shared {
        Shared(RwLock::new(visible))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Visible> {
        self.0.read().expect("no code panics while it holds the map")
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Visible> {
        self.0.write().expect("no code panics while it holds the map")
    }
}
