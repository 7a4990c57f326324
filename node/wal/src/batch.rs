//! A batch on its way to the disk: checksums, headers, and one vectored write without copying meta or bodies.

use crate::disk::DiskFile;
use crate::format::configuration;
use crate::format::salted_crc;
use crate::format::segment::{
    FRAME_BYTES, Frame, FrameKind, IDENTITY_BYTES, IndexedRecord, RECORD_BYTES, RecordHeader, RecordIdentity,
    RecordKind, records_crc,
};
use bytes::Bytes;
use raftqueue_raft::{Entry, HardState, Index, Payload, Term, Write};
use std::io::{self, IoSlice};

/// What becomes durable with one append: the hard state first, then the truncation, then the entries.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The hard state as of this batch, also if it did not change.
    pub hard_state: HardState,
    /// True if it differs from that of every earlier batch.
    pub hard_state_changed: bool,
    /// The first index to cut off before the entries are appended.
    pub truncate_from: Option<Index>,
    /// Consecutive entries that follow what is left.
    pub entries: &'a [Entry],
}

impl<'a> From<&'a Write> for Batch<'a> {
    fn from(write: &'a Write) -> Batch<'a> {
        Batch {
            hard_state: write.hard_state(),
            hard_state_changed: write.hard_state_changed(),
            truncate_from: write.truncate_from(),
            entries: write.entries(),
        }
    }
}

/// A record ready to be written.
pub(crate) struct DraftRecord {
    pub(crate) header: RecordHeader,
    pub(crate) meta: Bytes,
    pub(crate) bodies: Bytes,
}

/// The records of one batch.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) records: Vec<DraftRecord>,
}

/// What a frame says besides its records.
pub(crate) struct FrameContext<'a> {
    pub(crate) batch: u64,
    pub(crate) hard_state: HardState,
    /// The records of the batch before.
    pub(crate) identities: &'a [RecordIdentity],
}

impl Draft {
    /// Adds the record of an entry. Bytes are shared, not copied.
    pub(crate) fn push_entry(&mut self, entry: &Entry) {
        let (kind, meta, bodies) = match &entry.payload {
            Payload::Noop => (RecordKind::Noop, Bytes::new(), Bytes::new()),
            Payload::Config(content) => {
                (RecordKind::Configuration, configuration::encode(content).into(), Bytes::new())
            }
            Payload::Command { meta, bodies } => (RecordKind::Command, meta.clone(), bodies.clone()),
        };
        let header = RecordHeader::of(kind, entry.index, entry.term, &meta, &bodies);
        self.records.push(DraftRecord { header, meta, bodies });
    }

    /// Adds the record that cuts the log off before `from`; `last_term` is the term of the last entry that is left.
    pub(crate) fn push_truncation(&mut self, from: Index, last_term: Term) {
        let header = RecordHeader {
            kind: RecordKind::Truncation,
            index: from,
            term: last_term,
            meta_bytes: 0,
            meta_crc: 0,
            bodies_bytes: 0,
            bodies_crc: 0,
        };
        self.records.push(DraftRecord { header, meta: Bytes::new(), bodies: Bytes::new() });
    }

    pub(crate) fn identities(&self) -> Vec<RecordIdentity> {
        self.records.iter().map(|record| record.header.identity()).collect()
    }

    /// Bytes of the batch, with `identities` of the batch before it.
    pub(crate) fn batch_bytes(&self, identities: usize) -> u64 {
        let records: u64 = self.records.iter().map(|record| record.header.identity().record_bytes()).sum();
        FRAME_BYTES + identities as u64 * IDENTITY_BYTES + records
    }

    /// Where each record will stand in a batch at `offset`.
    pub(crate) fn places(&self, offset: u64, identities: usize) -> Vec<IndexedRecord> {
        let mut at = offset + FRAME_BYTES + identities as u64 * IDENTITY_BYTES;
        let mut places = Vec::with_capacity(self.records.len());
        for identity in self.identities() {
            places.push(IndexedRecord { identity, offset: at });
            at += identity.record_bytes();
        }
        places
    }

    /// Writes the batch at `offset`, with one call; `head` goes right before it.
    pub(crate) fn write(
        &self,
        file: &dyn DiskFile,
        salt: u64,
        offset: u64,
        context: &FrameContext<'_>,
        head: Option<&[u8]>,
    ) -> io::Result<()> {
        let mut identities = Vec::with_capacity(context.identities.len() * 40);
        context.identities.iter().for_each(|identity| identity.put(&mut identities));
        let mut headers = Vec::with_capacity(self.records.len() * RECORD_BYTES as usize);
        let mut at = offset + FRAME_BYTES + context.identities.len() as u64 * IDENTITY_BYTES;
        for DraftRecord { header, .. } in &self.records {
            headers.extend_from_slice(&header.encode(salt, at));
            at += header.identity().record_bytes();
        }
        let frame = Frame {
            kind: FrameKind::Batch,
            batch: context.batch,
            offset,
            length: self.batch_bytes(context.identities.len()),
            durable_to: offset,
            hard_state: context.hard_state,
            records: count(self.records.len()),
            identities: count(context.identities.len()),
            identities_crc: salted_crc(salt, &identities),
            records_crc: records_crc(salt, &headers),
        };
        let frame = frame.encode(salt);
        let head = head.unwrap_or_default();
        let mut slices = Vec::with_capacity(3 + 4 * self.records.len());
        slices.extend([IoSlice::new(head), IoSlice::new(&frame), IoSlice::new(&identities)]);
        for (record, header) in self.records.iter().zip(headers.chunks(RECORD_BYTES as usize)) {
            let padding = (record.meta.len() + record.bodies.len()).next_multiple_of(8)
                - (record.meta.len() + record.bodies.len());
            let parts = [header, &record.meta, &record.bodies, &[0; 8][..padding]];
            slices.extend(parts.into_iter().filter(|part| !part.is_empty()).map(IoSlice::new));
        }
        file.write_at(offset - head.len() as u64, &mut slices)
    }
}

/// The seal at `offset`: the index of all records of a segment, and the second copy of the last batch's identities.
pub(crate) fn encode_seal(
    salt: u64,
    offset: u64,
    context: &FrameContext<'_>,
    index: &[IndexedRecord],
) -> Vec<u8> {
    let mut identities = Vec::new();
    context.identities.iter().for_each(|identity| identity.put(&mut identities));
    let mut items = Vec::with_capacity(index.len() * 48);
    index.iter().for_each(|item| item.put(&mut items));
    let frame = Frame {
        kind: FrameKind::Seal,
        batch: context.batch,
        offset,
        length: FRAME_BYTES + (identities.len() + items.len()) as u64,
        durable_to: offset,
        hard_state: context.hard_state,
        records: count(index.len()),
        identities: count(context.identities.len()),
        identities_crc: salted_crc(salt, &identities),
        records_crc: salted_crc(salt, &items),
    };
    [frame.encode(salt).as_slice(), &identities, &items].concat()
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("far fewer records than 4 billion")
}

/// The record of an entry, by itself.
pub(crate) fn record_of(entry: &Entry) -> DraftRecord {
    let mut draft = Draft::default();
    draft.push_entry(entry);
    draft.records.pop().expect("just pushed")
}
