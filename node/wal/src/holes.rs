//! Records of the log that do not verify, and how they are made whole again.
//!
//! Everything about such a record but its content is known: its name, its lengths and its place. So the very bytes that
//! stood there can be put back: its head follows from its name and its content, and its content from another node, which
//! holds a record of the same name. They are written where they stood, and synced. A crash in the midst of that leaves a
//! record that does not verify, as before. Its neighbours are not touched, and what leads to it need not change.
//!
//! On purpose this does not ask other nodes, nor decide when a record is looked at.

use crate::batch::record_of;
use crate::disk::read_exactly;
use crate::error::{ReadError, RecordName};
use crate::format::configuration;
use crate::format::segment::{RECORD_BYTES, RecordHeader, RecordIdentity, RecordKind};
use crate::log::{PlacedRecord, Shared};
use crate::reader::Reader;
use crate::segment::Segment;
use bytes::Bytes;
use raftqueue_raft::{Configuration, Entry, Index};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::{Arc, MutexGuard};
use thiserror::Error;

/// A record of the log that does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Its name, which is the same on every node that has it.
    pub name: RecordName,
    placed: PlacedRecord,
}

/// How a record was found that somebody doubts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It is as it was written.
    Verifies,
    /// It does not verify.
    Rots,
    /// It is not part of the log any more.
    Gone,
}

/// What came of mending a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mended {
    /// It verifies.
    Whole {
        /// What it says, if it is a configuration: nobody could know before.
        configuration: Option<Arc<Configuration>>,
        /// Something was written for it; else it verified after all.
        is_written: bool,
    },
    /// It is not part of the log any more.
    Gone,
    /// Its content is not here.
    Lacking,
}

/// Why a record could not be mended.
#[derive(Debug, Error)]
pub enum MendError {
    /// What was given for it is another record.
    #[error("what was given is not the record of index {} term {} crc {:08x}", .0.index, .0.term, .0.crc)]
    AnotherRecord(RecordName),
    /// What was written does not read back: the disk cannot hold it there.
    #[error("{file} does not keep what is written at {offset}")]
    NotKept {
        /// The file.
        file: String,
        /// Where.
        offset: u64,
    },
    /// The disk refused. If it is full this may be tried again, else the process must end.
    #[error("cannot write {file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
}

impl Shared {
    /// A record does not verify.
    pub(crate) fn note_hole(&self, placed: PlacedRecord) {
        self.lock_holes().insert((placed.segment, placed.offset), placed);
    }

    fn fill_hole(&self, placed: &PlacedRecord) {
        self.lock_holes().remove(&(placed.segment, placed.offset));
    }

    fn lock_holes(&self) -> MutexGuard<'_, BTreeMap<(u64, u64), PlacedRecord>> {
        self.holes.lock().expect("no code panics while it holds the holes")
    }

    /// The segment of a record, if that is still part of the log.
    fn segment_of(&self, placed: &PlacedRecord) -> Option<Arc<Segment>> {
        let visible = self.read();
        let is_of_log = placed.identity.kind == RecordKind::Truncation
            || visible.log.get(placed.identity.index) == Some(placed);
        visible.segments.get(&placed.segment).filter(|_| is_of_log).map(Arc::clone)
    }
}

impl Reader {
    /// The records of the log that are known not to verify, by their places.
    #[must_use]
    pub fn holes(&self) -> Vec<Hole> {
        let known: Vec<PlacedRecord> = self.shared.lock_holes().values().copied().collect();
        let (here, gone): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|placed| self.shared.segment_of(placed).is_some());
        gone.iter().for_each(|placed| self.shared.fill_hole(placed));
        here.into_iter().map(|placed| Hole { name: placed.name(), placed }).collect()
    }

    /// Where the records begin that are [`Reader::holes`] of one segment.
    #[must_use]
    pub fn holes_in(&self, segment: u64) -> BTreeSet<u64> {
        let holes = self.shared.lock_holes();
        holes.range((segment, 0)..=(segment, u64::MAX)).map(|((_, offset), _)| *offset).collect()
    }

    /// Reads a record of the log whole. One that does not verify is among the [`Reader::holes`] from now on.
    ///
    /// # Errors
    /// [`ReadError::Io`]: the disk refuses, which says nothing about what it holds. Whoever takes it for lost says so by
    /// [`Reader::give_up`].
    pub fn doubt(&self, index: Index) -> Result<Doubt, ReadError> {
        let Some(placed) = self.shared.read().log.get(index).copied() else { return Ok(Doubt::Gone) };
        match self.entries(index, index.next(), 0) {
            Ok(_) => Ok(Doubt::Verifies),
            Err(ReadError::Rot(_)) => {
                self.shared.note_hole(placed);
                Ok(Doubt::Rots)
            }
            Err(error @ ReadError::Io { .. }) => Err(error),
            Err(_) => Ok(Doubt::Gone),
        }
    }

    /// A record that the disk does not give back is one of the [`Reader::holes`] from now on: written anew it may be read.
    pub fn give_up(&self, index: Index) {
        let placed = self.shared.read().log.get(index).copied();
        placed.into_iter().for_each(|placed| self.shared.note_hole(placed));
    }

    /// Makes a record whole without anybody's help: it may verify by now, or only its head is damaged, which follows from
    /// its name and its content.
    ///
    /// # Errors
    /// [`MendError`]
    pub fn mend_alone(&self, hole: &Hole) -> Result<Mended, MendError> {
        let Some(segment) = self.shared.segment_of(&hole.placed) else { return Ok(self.forget(hole)) };
        let PlacedRecord { offset, identity, .. } = hole.placed;
        let size = usize::try_from(identity.record_bytes()).expect("a record is limited");
        // A disk that does not give it back lacks it.
        let read = segment.file().and_then(|file| read_exactly(&*file, offset, size));
        let Ok(Some(bytes)) = read else { return Ok(Mended::Lacking) };
        let bytes = Bytes::from(bytes);
        let from = usize::try_from(RECORD_BYTES).expect("48");
        let meta = bytes.slice(from..from + identity.meta_bytes as usize);
        let bodies = bytes.slice(from + meta.len()..from + meta.len() + identity.bodies_bytes as usize);
        let RecordIdentity { kind, index, term, .. } = identity;
        let header = RecordHeader::of(kind, index, term, &meta, &bodies);
        let Some(header) = header.find(&meta, &bodies, |header| header.identity() == identity) else {
            return Ok(Mended::Lacking);
        };
        let is_written = RecordHeader::decode(&bytes, segment.salt, offset).ok() != Some(header);
        if is_written {
            write(&segment, offset, &[&header.encode(segment.salt, offset)])?;
        }
        Ok(self.filled(hole, &meta, is_written))
    }

    /// Puts back the content of a record: `entry`, as another node has it.
    ///
    /// # Errors
    /// [`MendError`]
    pub fn mend(&self, hole: &Hole, entry: &Entry) -> Result<Mended, MendError> {
        let Some(segment) = self.shared.segment_of(&hole.placed) else { return Ok(self.forget(hole)) };
        let PlacedRecord { offset, identity, .. } = hole.placed;
        let record = record_of(entry);
        let is_it = |header: &RecordHeader| header.identity() == identity;
        let Some(header) = record.header.find(&record.meta, &record.bodies, is_it) else {
            return Err(MendError::AnotherRecord(hole.name));
        };
        let head = header.encode(segment.salt, offset);
        write(&segment, offset, &[&head, &record.meta, &record.bodies])?;
        Ok(self.filled(hole, &record.meta, true))
    }

    fn forget(&self, hole: &Hole) -> Mended {
        self.shared.fill_hole(&hole.placed);
        Mended::Gone
    }

    fn filled(&self, hole: &Hole, meta: &Bytes, is_written: bool) -> Mended {
        self.shared.fill_hole(&hole.placed);
        let is_configuration = hole.placed.identity.kind == RecordKind::Configuration;
        let decoded = is_configuration.then(|| configuration::decode(meta).ok()).flatten();
        Mended::Whole { configuration: decoded.map(Arc::new), is_written }
    }
}

impl Hole {
    /// Nobody else is needed for it: it marks that the log was cut, and has no content.
    #[must_use]
    pub fn is_truncation(&self) -> bool {
        self.placed.identity.kind == RecordKind::Truncation
    }

    /// Bytes that mending it writes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.placed.identity.record_bytes()
    }
}

/// Writes parts one after another, syncs them, and reads them back.
fn write(segment: &Segment, offset: u64, parts: &[&[u8]]) -> Result<(), MendError> {
    let error = |source| MendError::Io { file: segment.name.clone(), source };
    let file = segment.file().map_err(error)?;
    let mut slices: Vec<IoSlice<'_>> =
        parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
    file.write_at(offset, &mut slices).map_err(error)?;
    file.sync_data().map_err(error)?;
    let wanted = parts.concat();
    let kept = read_exactly(&*file, offset, wanted.len()).map_err(error)?;
    if kept.as_ref() == Some(&wanted) {
        Ok(())
    } else {
        Err(MendError::NotKept { file: segment.name.clone(), offset })
    }
}
