//! Reads durable entries back, on any thread, while the writer appends.
//!
//! A read looks its places up under a short lock, then reads and verifies without any. A segment that is released
//! meanwhile is not overwritten before the read is done: each read holds a count of it.

use crate::error::{OpenError, ReadError, RecordName, Rotten, RottenPart, malformed};
use crate::format::configuration;
use crate::format::segment::{RECORD_BYTES, RecordHeader, RecordKind};
use crate::log::{Location, Log, Shared};
use crate::segment::Segment;
use bytes::Bytes;
use raftqueue_raft::{Configuration, Entry, Index, Payload, Term};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Unwanted bytes between two wanted stretches that are read along rather than skipped with another call.
const GAP_BYTES_MAX: u64 = 16 * 1024;
/// Bytes of one read call at most, unless a single record is longer.
const READ_BYTES_MAX: u64 = 4 << 20;
/// What an entry counts besides its bytes, so that empty ones count too.
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

/// A handle for reading. Cloning shares the log.
#[derive(Clone)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

/// A record to read: where it is, and a count of its segment.
struct Place {
    location: Location,
    segment: Arc<Segment>,
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
        if index == start {
            Some(term)
        } else {
            visible.log.get(index).map(|location| location.identity.term)
        }
    }

    /// The entries of `from..to`, as many as fit into `bytes_max` (counted as [`Entry::size`] does), and at least one.
    /// Every checksum is verified. `to` may lie beyond the end.
    ///
    /// # Errors
    /// [`ReadError::Released`]: the follower needs a snapshot. [`ReadError::Beyond`]: `from` is not durable (any more).
    /// [`ReadError::Rot`]: never served, ask a peer. Io: the disk fails, the process should end.
    pub fn entries(&self, from: Index, to: Index, bytes_max: u64) -> Result<Vec<Entry>, ReadError> {
        let places = self.places(from, to, bytes_max, |location| {
            u64::from(location.identity.meta_bytes) + u64::from(location.identity.bodies_bytes)
        })?;
        read_all(
            &places,
            |place| place.location.identity.record_bytes(),
            |place, bytes| {
                let header = check_header(place, bytes)?;
                let meta = check_part(place, bytes, RottenPart::Meta, meta_range(&header), header.meta_crc)?;
                let bodies =
                    check_part(place, bytes, RottenPart::Bodies, bodies_range(&header), header.bodies_crc)?;
                let payload = match meta_payload(&header, meta)? {
                    MetaPayload::Noop => Payload::Noop,
                    MetaPayload::Config(content) => Payload::Config(content),
                    MetaPayload::Command { meta, .. } => Payload::Command { meta, bodies },
                };
                Ok(Entry { index: header.index, term: header.term, payload })
            },
        )
    }

    /// The entries of `from..to` without their bodies, as many as fit into `bytes_max` of meta, and at least one.
    /// Bodies are not read, so damage in them does not show.
    ///
    /// # Errors
    /// As [`Reader::entries`].
    pub fn metas(&self, from: Index, to: Index, bytes_max: u64) -> Result<Vec<EntryMeta>, ReadError> {
        let places = self.places(from, to, bytes_max, |location| u64::from(location.identity.meta_bytes))?;
        read_all(&places, |place| RECORD_BYTES + u64::from(place.location.identity.meta_bytes), read_meta)
    }

    /// Bytes `offset..offset + length` of an entry's bodies. They are not verified: the caller knows the checksum and
    /// identity of the message that it reads.
    ///
    /// # Errors
    /// As [`Reader::entries`], and [`ReadError::OutOfBodies`] if the entry has no such bytes: the caller's index and
    /// this log disagree. The caller reports a checksum that differs as rot.
    pub fn bodies(&self, index: Index, offset: u64, length: usize) -> Result<Bytes, ReadError> {
        let places = self.places(index, index.next(), 0, |_| 0)?;
        let Place { location, segment } = &places[0];
        let size = u64::from(location.identity.bodies_bytes);
        let end = offset.saturating_add(length as u64);
        if end > size {
            return Err(ReadError::OutOfBodies { index, offset, end, size });
        }
        let bodies = location.offset + RECORD_BYTES + u64::from(location.identity.meta_bytes);
        let bytes = read(segment, bodies + offset, length)?;
        if bytes.len() < length {
            return Err(rot(&places[0], RottenPart::Bodies, bodies));
        }
        Ok(bytes)
    }

    /// Exactly the record of this name, for a peer that must repair its copy; `None` if another entry, or none, stands
    /// there.
    ///
    /// # Errors
    /// As [`Reader::entries`], but an index that is not there is no error.
    pub fn read_exact(&self, name: RecordName) -> Result<Option<Entry>, ReadError> {
        let found = self.shared.read().log.get(name.index).map(Location::name);
        if found != Some(name) {
            return Ok(None);
        }
        let entries = self.entries(name.index, name.index.next(), 0)?;
        Ok(entries.into_iter().find(|entry| entry.term == name.term))
    }

    /// The name of the record at an index, from memory; `None` if it is not there.
    #[must_use]
    pub fn name(&self, index: Index) -> Option<RecordName> {
        self.shared.read().log.get(index).map(Location::name)
    }

    /// Looks up a range; `size` says what each entry counts.
    fn places(
        &self,
        from: Index,
        to: Index,
        bytes_max: u64,
        size: impl Fn(&Location) -> u64,
    ) -> Result<Vec<Place>, ReadError> {
        let visible = self.shared.read();
        let (start, last) = (visible.log.start().0, visible.log.last().0);
        if from <= start {
            return Err(ReadError::Released { asked: from, first: start.next() });
        }
        if from > last {
            return Err(ReadError::Beyond { asked: from, last });
        }
        let (mut places, mut bytes, mut index) = (Vec::new(), 0, from);
        while index < to || places.is_empty() {
            let Some(location) = visible.log.get(index) else { break };
            bytes += ENTRY_OVERHEAD_BYTES + size(location);
            if bytes > bytes_max && !places.is_empty() {
                break;
            }
            places.push(Place {
                location: *location,
                segment: Arc::clone(&visible.segments[&location.segment]),
            });
            index = index.next();
        }
        Ok(places)
    }
}

/// Reads every configuration in the log.
pub(crate) fn read_configurations(
    log: &Log,
    segments: &BTreeMap<u64, Arc<Segment>>,
) -> Result<Vec<(Index, Arc<Configuration>)>, OpenError> {
    let places: Vec<Place> = log
        .iter()
        .filter(|location| location.identity.kind == RecordKind::Configuration)
        .map(|location| Place { location: *location, segment: Arc::clone(&segments[&location.segment]) })
        .collect();
    let read = read_all(&places, |place| place.location.identity.record_bytes(), read_meta);
    let metas = read.map_err(|error| match error {
        ReadError::Rot(rotten) => OpenError::Rot { places: vec![rotten] },
        ReadError::Io { source, .. } => OpenError::Io { operation: "read a configuration", source },
        ReadError::Unknown { index, reason } => {
            malformed(&format!("configuration at index {index}"), 0, reason)
        }
        other => unreachable!("the places were just looked up: {other}"),
    })?;
    let configurations = metas.into_iter().filter_map(|entry| match entry.payload {
        MetaPayload::Config(content) => Some((entry.index, content)),
        MetaPayload::Noop | MetaPayload::Command { .. } => None,
    });
    Ok(configurations.collect())
}

/// Reads the wanted front of every record, neighbours with one call, and decodes each.
fn read_all<T>(
    places: &[Place],
    wanted: impl Fn(&Place) -> u64,
    decode: impl Fn(&Place, &Bytes) -> Result<T, ReadError>,
) -> Result<Vec<T>, ReadError> {
    let mut items = Vec::with_capacity(places.len());
    let mut rest = places;
    while let Some(first) = rest.first() {
        let from = first.location.offset;
        let mut end = from + wanted(first);
        let mut count = 1;
        for place in &rest[1..] {
            let offset = place.location.offset;
            let next_end = offset + wanted(place);
            let is_near = place.location.segment == first.location.segment && offset >= end;
            if !is_near || offset - end > GAP_BYTES_MAX || next_end - from > READ_BYTES_MAX {
                break;
            }
            end = next_end;
            count += 1;
        }
        let (group, others) = rest.split_at(count);
        let bytes = read(&first.segment, from, usize::try_from(end - from).expect("a few MiB"))?;
        for place in group {
            let at = usize::try_from(place.location.offset - from).expect("inside the group");
            let size = usize::try_from(wanted(place)).expect("inside the group");
            let end = bytes.len().min(at + size);
            items.push(decode(place, &bytes.slice(at.min(end)..end))?);
        }
        rest = others;
    }
    Ok(items)
}

fn read_meta(place: &Place, bytes: &Bytes) -> Result<EntryMeta, ReadError> {
    let header = check_header(place, bytes)?;
    let meta = check_part(place, bytes, RottenPart::Meta, meta_range(&header), header.meta_crc)?;
    Ok(EntryMeta { index: header.index, term: header.term, payload: meta_payload(&header, meta)? })
}

/// Reads as many of `size` bytes as the file has.
fn read(segment: &Segment, offset: u64, size: usize) -> Result<Bytes, ReadError> {
    let mut buffer = vec![0; size];
    let read = segment
        .file
        .read_at(offset, &mut buffer)
        .map_err(|source| ReadError::Io { file: segment.name.clone(), source })?;
    buffer.truncate(read);
    Ok(Bytes::from(buffer))
}

fn check_header(place: &Place, bytes: &Bytes) -> Result<RecordHeader, ReadError> {
    let header = RecordHeader::decode(bytes, place.segment.salt).ok();
    header
        .filter(|header| header.identity() == place.location.identity)
        .ok_or_else(|| rot(place, RottenPart::RecordHeader, place.location.offset))
}

fn meta_range(header: &RecordHeader) -> Range<usize> {
    let from = usize::try_from(RECORD_BYTES).expect("48");
    from..from + header.meta_bytes as usize
}

fn bodies_range(header: &RecordHeader) -> Range<usize> {
    let from = meta_range(header).end;
    from..from + header.bodies_bytes as usize
}

fn check_part(
    place: &Place,
    bytes: &Bytes,
    part: RottenPart,
    range: Range<usize>,
    crc: u32,
) -> Result<Bytes, ReadError> {
    let offset = place.location.offset + range.start as u64;
    if range.end > bytes.len() {
        return Err(rot(place, part, offset));
    }
    let bytes = bytes.slice(range);
    if crc32c::crc32c(&bytes) == crc { Ok(bytes) } else { Err(rot(place, part, offset)) }
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

fn rot(place: &Place, part: RottenPart, offset: u64) -> ReadError {
    ReadError::Rot(Rotten {
        file: place.segment.name.clone(),
        offset,
        part,
        record: Some(place.location.name()),
    })
}
