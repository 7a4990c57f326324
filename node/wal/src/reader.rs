//! Reads durable entries back, on any thread, while the writer appends.
//!
//! A read looks its records up under a short lock, then reads and verifies without a lock. Each read holds a count of
//! its segment, so a segment that is released meanwhile is not overwritten before the read is done.

use crate::batch::record_of;
use crate::disk::Disk;
use crate::error::{OpenError, ReadError, RecordName, Rotten, RottenPart, malformed};
use crate::format::segment::{RECORD_BYTES, RecordHeader, RecordKind};
use crate::format::{configuration, is_part};
use crate::log::{Log, PlacedRecord, Shared, name_of};
use crate::segment::Segment;
use bytes::Bytes;
use raftqueue_raft::{Configuration, Entry, Found, Index, Payload, Term};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Most unwanted bytes between two wanted stretches that are read along; a larger gap costs another call.
const GAP_BYTES_MAX: u64 = 16 * 1024;
/// Bytes of one read call at most, unless a single record is longer.
const READ_BYTES_MAX: u64 = 4 << 20;
/// Bytes that are read of a record whose length is not known.
const META_READ_BYTES: usize = 4096;
/// Bytes that every entry counts on top of its own, so that empty ones count too.
const ENTRY_OVERHEAD_BYTES: u64 = 64;

/// An entry without its bodies: what applying it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryMeta {
    /// Its index.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// What it says, bodies left out.
    pub payload: MetaPayload,
}

/// The content of an [`EntryMeta`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaPayload {
    /// Nothing.
    Noop,
    /// A configuration.
    Config(Arc<Configuration>),
    /// Commands.
    Command {
        /// The encoded commands.
        meta: Bytes,
        /// Bytes of the bodies that were left out.
        bodies_bytes: u32,
    },
}

/// Reads entries of the durable log, on any thread. Cloning shares the log.
#[derive(Clone)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

/// A record to read, and a count of its segment, which is not overwritten meanwhile.
struct HeldRecord {
    placed: PlacedRecord,
    segment: Arc<Segment>,
}

/// A segment that stays readable as long as this is held, whatever becomes of it. Cloning shares it.
#[derive(Clone)]
pub struct Pinned {
    segment: Arc<Segment>,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("segment", &self.segment.number).finish()
    }
}

/// Which entries stand in a segment of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSpan {
    /// The first one, or the one that would come next if there is none.
    pub first: Index,
    /// The last one; before `first` if there is none.
    pub last: Index,
    /// Nothing is written to the segment any more. A truncation may still take entries away.
    pub is_sealed: bool,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Reader {
        Reader { shared }
    }

    /// The last durable index.
    #[must_use]
    pub fn last_index(&self) -> Index {
        self.shared.read().log.last().0
    }

    /// The first index that is there (one beyond the last if there is none).
    #[must_use]
    pub fn first_index(&self) -> Index {
        self.shared.read().log.start().0.next()
    }

    /// The term of an entry, from memory; `None` if it is not there. The index just before the first one counts as there.
    #[must_use]
    pub fn term(&self, index: Index) -> Option<Term> {
        let visible = self.shared.read();
        let (start, term) = visible.log.start();
        if index == start { Some(term) } else { visible.log.get(index).map(|placed| placed.identity.term) }
    }

    /// The entries of `from..to`, as many as fit into `bytes_max` (counted as [`Entry::size`] does), and at least one.
    /// Every checksum is verified; what comes before an entry that rots is given. `to` may lie beyond the end.
    ///
    /// # Errors
    /// [`ReadError::Released`]: the follower needs a snapshot. [`ReadError::Beyond`]: `from` is not durable, or not any
    /// more. [`ReadError::Rot`]: such bytes are never served, ask a peer. [`ReadError::Io`]: the disk fails, the
    /// process should end.
    pub fn entries(&self, from: Index, to: Index, bytes_max: u64) -> Result<Vec<Entry>, ReadError> {
        let records = self.look_up(from, to, bytes_max, |placed| {
            u64::from(placed.identity.meta_bytes) + u64::from(placed.identity.bodies_bytes)
        })?;
        read_all(
            &records,
            |record| record.placed.identity.record_bytes(),
            |record, bytes| {
                let header = check_header(record, bytes)?;
                let meta = check_part(record, bytes, RottenPart::Meta, meta_range(&header), header.meta_crc)?;
                let bodies =
                    check_part(record, bytes, RottenPart::Bodies, bodies_range(&header), header.bodies_crc)?;
                let payload = match meta_payload(&header, meta)? {
                    MetaPayload::Noop => Payload::Noop,
                    MetaPayload::Config(content) => Payload::Config(content),
                    MetaPayload::Command { meta, .. } => Payload::Command { meta, bodies },
                };
                Ok(Entry { index: header.index, term: header.term, payload })
            },
        )
    }

    /// What there is for a peer that wants everything from `from` on: as [`Reader::entries`], but that it was released is an
    /// answer, not an error.
    ///
    /// # Errors
    /// As [`Reader::entries`], without [`ReadError::Released`].
    pub fn find(&self, from: Index, bytes_max: usize) -> Result<Found, ReadError> {
        match self.entries(from, Index(u64::MAX), bytes_max as u64) {
            Ok(entries) => Ok(Found::Entries(entries)),
            Err(ReadError::Released { .. }) => Ok(Found::Released),
            Err(error) => Err(error),
        }
    }

    /// The entries of `from..to` without their bodies, as many as fit into `bytes_max` of meta, and at least one.
    /// Bodies are not read, so damage in them does not show.
    ///
    /// # Errors
    /// As [`Reader::entries`].
    pub fn metas(&self, from: Index, to: Index, bytes_max: u64) -> Result<Vec<EntryMeta>, ReadError> {
        let records = self.look_up(from, to, bytes_max, |placed| u64::from(placed.identity.meta_bytes))?;
        read_all(&records, |record| RECORD_BYTES + u64::from(record.placed.identity.meta_bytes), read_meta)
    }

    /// Reads the bytes `offset..offset + length` of an entry's bodies, without verifying them: the caller knows the
    /// checksum and the identity of the message that it reads.
    ///
    /// # Errors
    /// As [`Reader::entries`]. [`ReadError::OutOfBodies`] if the entry has no such bytes: the caller's index and this
    /// log disagree. The caller reports a checksum that differs as rot.
    pub fn bodies(&self, index: Index, offset: u64, length: usize) -> Result<Bytes, ReadError> {
        let records = self.look_up(index, index.next(), 0, |_| 0)?;
        let HeldRecord { placed, segment } = &records[0];
        let size = u64::from(placed.identity.bodies_bytes);
        let end = offset.saturating_add(length as u64);
        if end > size {
            return Err(ReadError::OutOfBodies { index, offset, end, size });
        }
        let bodies = placed.offset + RECORD_BYTES + u64::from(placed.identity.meta_bytes);
        let bytes = read(segment, bodies + offset, length)?;
        if bytes.len() < length {
            return Err(rot(&records[0], RottenPart::Bodies, bodies));
        }
        Ok(bytes)
    }

    /// Reads exactly the record of this name, for a peer that must repair its copy. `None` if another entry stands at
    /// its index, or none.
    ///
    /// # Errors
    /// As [`Reader::entries`], but an index that is not there is no error.
    pub fn read_exact(&self, name: RecordName) -> Result<Option<Entry>, ReadError> {
        let found = self.shared.read().log.get(name.index).map(PlacedRecord::name);
        let Some(found) = found.filter(|found| found.term == name.term) else { return Ok(None) };
        let entries = self.entries(name.index, name.index.next(), 0)?;
        let entry = entries.into_iter().find(|entry| entry.term == name.term);
        // Builds before named the same content by another checksum.
        let is_named = |header: &RecordHeader| name_of(&header.identity()) == name;
        let is_it = |entry: &Entry| {
            let record = record_of(entry);
            record.header.find(&record.meta, &record.bodies, is_named).is_some()
        };
        Ok(entry.filter(|entry| found == name || is_it(entry)))
    }

    /// The name of the record at an index, from memory; `None` if it is not there.
    #[must_use]
    pub fn name(&self, index: Index) -> Option<RecordName> {
        self.shared.read().log.get(index).map(PlacedRecord::name)
    }

    /// Pins a segment, of the log or kept for its bodies; `None` if it is neither.
    #[must_use]
    pub fn pin(&self, segment: u64) -> Option<Pinned> {
        let visible = self.shared.read();
        let found = visible.segments.get(&segment).or_else(|| visible.released.get(&segment));
        found.map(|segment| Pinned { segment: Arc::clone(segment) })
    }

    /// The segment of an entry of the log, and the offset of its record there.
    #[must_use]
    pub fn location(&self, index: Index) -> Option<(u64, u64)> {
        self.shared.read().log.get(index).map(|placed| (placed.segment, placed.offset))
    }

    /// The segments of the log, rising. The last one is written to.
    #[must_use]
    pub fn segments(&self) -> Vec<u64> {
        self.shared.read().segments.keys().copied().collect()
    }

    /// Which entries stand in a segment; `None` if it is not one of the log.
    #[must_use]
    pub fn segment_span(&self, segment: u64) -> Option<SegmentSpan> {
        let visible = self.shared.read();
        let (newest, _) = visible.segments.last_key_value()?;
        if !visible.segments.contains_key(&segment) {
            return None;
        }
        let (first, last) = visible.log.span(segment);
        Some(SegmentSpan { first, last, is_sealed: segment < *newest })
    }

    /// A number for a snapshot, a places file or a kept file. No file had it before.
    #[must_use]
    pub fn next_file(&self) -> u64 {
        self.shared.next_file()
    }

    /// The directory, for those who write snapshots, places files and kept files.
    #[must_use]
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.shared.disk)
    }

    /// Looks up a range of entries; `size` says how many bytes each counts.
    fn look_up(
        &self,
        from: Index,
        to: Index,
        bytes_max: u64,
        size: impl Fn(&PlacedRecord) -> u64,
    ) -> Result<Vec<HeldRecord>, ReadError> {
        let visible = self.shared.read();
        let (start, last) = (visible.log.start().0, visible.log.last().0);
        if from <= start {
            return Err(ReadError::Released { asked: from, first: start.next() });
        }
        if from > last {
            return Err(ReadError::Beyond { asked: from, last });
        }
        let (mut records, mut bytes, mut index) = (Vec::new(), 0, from);
        while index < to || records.is_empty() {
            let Some(placed) = visible.log.get(index) else { break };
            bytes += ENTRY_OVERHEAD_BYTES + size(placed);
            if bytes > bytes_max && !records.is_empty() {
                break;
            }
            records.push(HeldRecord {
                placed: *placed,
                segment: Arc::clone(&visible.segments[&placed.segment]),
            });
            index = index.next();
        }
        Ok(records)
    }
}

impl Pinned {
    /// The segment's number.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.segment.number
    }

    /// The entry whose record stands at `offset`, without its bodies. Its checksums are verified.
    ///
    /// # Errors
    /// [`ReadError::Rot`] if no such record stands there: never served, ask a peer. [`ReadError::Io`].
    pub fn meta_at(&self, offset: u64) -> Result<EntryMeta, ReadError> {
        // Most metas are short: mostly one read will do.
        let mut bytes = read(&self.segment, offset, META_READ_BYTES)?;
        let header = self.header(&bytes, offset)?;
        let range = meta_range(&header);
        if range.end > bytes.len() && bytes.len() == META_READ_BYTES {
            bytes = read(&self.segment, offset, range.end)?;
        }
        let found = bytes.get(range.clone()).filter(|meta| is_part(meta, header.meta_crc));
        if found.is_none() {
            return Err(self.rot(RottenPart::Meta, offset + range.start as u64, Some(&header)));
        }
        let payload = meta_payload(&header, bytes.slice(range))?;
        Ok(EntryMeta { index: header.index, term: header.term, payload })
    }

    /// Bytes `position..position + length` of the bodies of the entry whose record stands at `offset`. The record's head
    /// is verified, the bytes are not: the caller knows the checksum and the identity of the message that it reads.
    ///
    /// # Errors
    /// As [`Pinned::meta_at`], and [`ReadError::OutOfBodies`] if the entry has no such bytes.
    pub fn bodies_at(&self, offset: u64, position: u64, length: usize) -> Result<Bytes, ReadError> {
        let header = self.header(&read(&self.segment, offset, meta_from())?, offset)?;
        let (size, end) = (u64::from(header.bodies_bytes), position.saturating_add(length as u64));
        if end > size {
            return Err(ReadError::OutOfBodies { index: header.index, offset: position, end, size });
        }
        let bodies = offset + RECORD_BYTES + u64::from(header.meta_bytes);
        let bytes = read(&self.segment, bodies + position, length)?;
        if bytes.len() < length {
            return Err(self.rot(RottenPart::Bodies, bodies, Some(&header)));
        }
        Ok(bytes)
    }

    /// The head of the record of an entry.
    fn header(&self, bytes: &[u8], offset: u64) -> Result<RecordHeader, ReadError> {
        let header = RecordHeader::decode(bytes, self.segment.salt, offset).ok();
        header
            .filter(|header| header.kind != RecordKind::Truncation)
            .ok_or_else(|| self.rot(RottenPart::RecordHeader, offset, None))
    }

    fn rot(&self, part: RottenPart, offset: u64, header: Option<&RecordHeader>) -> ReadError {
        let record = header.map(|header| name_of(&header.identity()));
        ReadError::Rot(Rotten { file: self.segment.name.clone(), offset, part, record })
    }
}

/// The configurations of a log, each with its index.
pub(crate) type Configurations = Vec<(Index, Arc<Configuration>)>;

/// Reads the configurations in the log that are asked for, each with one call, and says which of them rot.
pub(crate) fn read_configurations(
    log: &Log,
    segments: &BTreeMap<u64, Arc<Segment>>,
    is_asked: impl Fn(&PlacedRecord) -> bool,
) -> Result<(Configurations, Vec<(PlacedRecord, Rotten)>), OpenError> {
    let (mut configurations, mut rotten) = (Vec::new(), Vec::new());
    let is_configuration = |placed: &&PlacedRecord| placed.identity.kind == RecordKind::Configuration;
    for placed in log.iter().filter(is_configuration).filter(|placed| is_asked(placed)) {
        let record = HeldRecord { placed: *placed, segment: Arc::clone(&segments[&placed.segment]) };
        let records = std::slice::from_ref(&record);
        match read_all(records, |record| record.placed.identity.record_bytes(), read_meta) {
            Ok(metas) => configurations.extend(metas.into_iter().filter_map(|entry| match entry.payload {
                MetaPayload::Config(content) => Some((entry.index, content)),
                MetaPayload::Noop | MetaPayload::Command { .. } => None,
            })),
            Err(ReadError::Rot(rot)) => rotten.push((*placed, rot)),
            Err(ReadError::Io { source, .. }) => {
                return Err(OpenError::Io { operation: "read a configuration", source });
            }
            Err(ReadError::Unknown { index, reason }) => {
                return Err(malformed(&format!("configuration at index {index}"), 0, reason));
            }
            Err(other) => unreachable!("the record was just looked up: {other}"),
        }
    }
    Ok((configurations, rotten))
}

/// Reads the wanted front of every record, neighbours with one call, and decodes each.
fn read_all<T>(
    records: &[HeldRecord],
    wanted: impl Fn(&HeldRecord) -> u64,
    decode: impl Fn(&HeldRecord, &Bytes) -> Result<T, ReadError>,
) -> Result<Vec<T>, ReadError> {
    let mut items = Vec::with_capacity(records.len());
    let mut rest = records;
    while let Some(first) = rest.first() {
        let from = first.placed.offset;
        let mut end = from + wanted(first);
        let mut count = 1;
        for record in &rest[1..] {
            let offset = record.placed.offset;
            let next_end = offset + wanted(record);
            let is_near = record.placed.segment == first.placed.segment && offset >= end;
            if !is_near || offset - end > GAP_BYTES_MAX || next_end - from > READ_BYTES_MAX {
                break;
            }
            end = next_end;
            count += 1;
        }
        let (group, others) = rest.split_at(count);
        let bytes = read(&first.segment, from, usize::try_from(end - from).expect("a few MiB"))?;
        for record in group {
            let at = usize::try_from(record.placed.offset - from).expect("inside the group");
            let size = usize::try_from(wanted(record)).expect("inside the group");
            let end = bytes.len().min(at + size);
            match decode(record, &bytes.slice(at.min(end)..end)) {
                Ok(item) => items.push(item),
                // What came before it is whole.
                Err(ReadError::Rot(_)) if !items.is_empty() => return Ok(items),
                Err(error) => return Err(error),
            }
        }
        rest = others;
    }
    Ok(items)
}

fn read_meta(record: &HeldRecord, bytes: &Bytes) -> Result<EntryMeta, ReadError> {
    let header = check_header(record, bytes)?;
    let meta = check_part(record, bytes, RottenPart::Meta, meta_range(&header), header.meta_crc)?;
    Ok(EntryMeta { index: header.index, term: header.term, payload: meta_payload(&header, meta)? })
}

/// Reads as many of `size` bytes as the file has.
fn read(segment: &Segment, offset: u64, size: usize) -> Result<Bytes, ReadError> {
    let mut buffer = vec![0; size];
    let read = segment
        .file()
        .and_then(|file| file.read_at(offset, &mut buffer))
        .map_err(|source| ReadError::Io { file: segment.name.clone(), source })?;
    buffer.truncate(read);
    Ok(Bytes::from(buffer))
}

fn check_header(record: &HeldRecord, bytes: &Bytes) -> Result<RecordHeader, ReadError> {
    let header = RecordHeader::decode(bytes, record.segment.salt, record.placed.offset).ok();
    header
        .filter(|header| header.identity() == record.placed.identity)
        .ok_or_else(|| rot(record, RottenPart::RecordHeader, record.placed.offset))
}

fn meta_from() -> usize {
    usize::try_from(RECORD_BYTES).expect("48")
}

fn meta_range(header: &RecordHeader) -> Range<usize> {
    let from = meta_from();
    from..from + header.meta_bytes as usize
}

fn bodies_range(header: &RecordHeader) -> Range<usize> {
    let from = meta_range(header).end;
    from..from + header.bodies_bytes as usize
}

fn check_part(
    record: &HeldRecord,
    bytes: &Bytes,
    part: RottenPart,
    range: Range<usize>,
    crc: u32,
) -> Result<Bytes, ReadError> {
    let offset = record.placed.offset + range.start as u64;
    if range.end > bytes.len() {
        return Err(rot(record, part, offset));
    }
    let bytes = bytes.slice(range);
    if is_part(&bytes, crc) { Ok(bytes) } else { Err(rot(record, part, offset)) }
}

fn meta_payload(header: &RecordHeader, meta: Bytes) -> Result<MetaPayload, ReadError> {
    Ok(match header.kind {
        RecordKind::Noop => MetaPayload::Noop,
        RecordKind::Configuration => MetaPayload::Config(Arc::new(
            configuration::decode(&meta)
                .map_err(|reason| ReadError::Unknown { index: header.index, reason })?,
        )),
        RecordKind::Command => MetaPayload::Command { meta, bodies_bytes: header.bodies_bytes },
        RecordKind::Truncation => unreachable!("the map holds entries only"),
    })
}

fn rot(record: &HeldRecord, part: RottenPart, offset: u64) -> ReadError {
    ReadError::Rot(Rotten {
        file: record.segment.name.clone(),
        offset,
        part,
        record: Some(record.placed.name()),
    })
}
