//! The log's own forms.
//!
//! A segment file is a head in the first sector, then batches, each beginning at a sector boundary:
//!
//! ```text
//!  sector 0   sector 1 ...
//!  | head    | batch            | batch       | ... | seal (only when the file was full) |
//!
//!  a batch:  | frame (88) | identities of the batch before (40 each) | record | record | ...
//!  a record: | header (48) | meta | bodies | zeros up to a multiple of 8 |
//!  the seal: | frame (88) | identities of the batch before (40 each) | index of all records (48 each) |
//! ```
//!
//! There are two kinds of checksum, on purpose. Those of heads (frame, identities, record headers) are *salted* with
//! the random number of this life of the file, so that what an earlier life left behind never verifies. Those of
//! content (meta, bodies, and the entry checksum over both) are not salted: every node computes the same for the same
//! entry.

use super::small::{decode_vote, encode_vote};
use super::{Cursor, GROUP, Malformed, part_crc, salted_crc, unwrap, wrap};
use crate::disk::SECTOR_BYTES;
use raftqueue_raft::{HardState, Index, Term};

const HEAD_MAGIC: [u8; 4] = *b"RQsg";
const FRAME_MAGIC: [u8; 4] = *b"RQfr";

/// Length of a frame without what follows it.
pub(crate) const FRAME_BYTES: u64 = 88;
/// Length of one identity.
pub(crate) const IDENTITY_BYTES: u64 = 40;
/// Length of a record's header.
pub(crate) const RECORD_BYTES: u64 = 48;
/// Length of one item of the sealed index.
pub(crate) const INDEXED_BYTES: u64 = 48;

/// The first sector of a segment: which one it is, and what it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// Its number: rises by one, never reused.
    pub number: u64,
    /// Minted at random for this use of the file.
    pub salt: u64,
    /// The segment before it; 0 for the first of a log, which is the very first or one that begins behind an installed
    /// snapshot.
    pub predecessor: u64,
    /// Where the predecessor's proven part ends. What lies behind is ignored for ever.
    pub predecessor_end: u64,
    /// True if the predecessor's sealed index stands at `predecessor_end`.
    pub predecessor_sealed: bool,
    /// The end of the part that was synced before this file got its name: that part is proven from birth.
    pub born_to: u64,
    /// The number of its first batch.
    pub first_batch: u64,
    /// The last index of the log as the predecessors leave it.
    pub previous_index: Index,
    /// The term of the entry there; 0 if there is none.
    pub previous_term: Term,
}

impl SegmentHead {
    /// ```text
    /// envelope (16) | u64 number | u64 salt | u64 predecessor | u64 predecessor end | u64 born to
    /// u64 first batch | u32 group | u64 previous index | u64 previous term | u8 predecessor sealed | zeros up to 512
    /// ```
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        for number in
            [self.number, self.salt, self.predecessor, self.predecessor_end, self.born_to, self.first_batch]
        {
            payload.extend_from_slice(&number.to_le_bytes());
        }
        payload.extend_from_slice(&GROUP.to_le_bytes());
        for number in [self.previous_index.0, self.previous_term.0] {
            payload.extend_from_slice(&number.to_le_bytes());
        }
        payload.push(u8::from(self.predecessor_sealed));
        let mut bytes = wrap(HEAD_MAGIC, &payload);
        bytes.resize(usize::try_from(SECTOR_BYTES).expect("512"), 0);
        bytes
    }

    /// Decodes a head.
    ///
    /// # Errors
    /// [`Malformed`]: a head is synced before its file gets its name, so this is rot, or a newer build.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHead, Malformed> {
        let mut cursor = Cursor(unwrap(HEAD_MAGIC, bytes)?);
        let head = SegmentHead {
            number: cursor.u64()?,
            salt: cursor.u64()?,
            predecessor: cursor.u64()?,
            predecessor_end: cursor.u64()?,
            born_to: cursor.u64()?,
            first_batch: cursor.u64()?,
            previous_index: {
                cursor.group()?;
                Index(cursor.u64()?)
            },
            previous_term: Term(cursor.u64()?),
            predecessor_sealed: cursor.bool("predecessor sealed")?,
        };
        cursor.end("segment head length")?;
        if head.number == 0 || head.predecessor >= head.number {
            return Err(Malformed::Field("segment number"));
        }
        if !head.predecessor_end.is_multiple_of(SECTOR_BYTES) {
            return Err(Malformed::Field("predecessor end"));
        }
        Ok(head)
    }
}

/// What a frame introduces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Records; none of them if it only proves the batch before it.
    Batch,
    /// The index of all records of the segment; nothing follows.
    Seal,
}

/// The front of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Batch or seal.
    pub kind: FrameKind,
    /// Rises by one with every batch of the log, over all segments.
    pub batch: u64,
    /// Where it stands in its file. A copy elsewhere is no frame.
    pub offset: u64,
    /// Bytes from its first to the last of its last record.
    pub length: u64,
    /// The end of the last batch that was synced when this one was written: everything before is proven.
    pub durable_to: u64,
    /// The hard state when it was written.
    pub hard_state: HardState,
    /// How many records (of a batch) or index items (of a seal) it has.
    pub records: u32,
    /// How many identities of the batch before follow it.
    pub identities: u32,
    /// Salted checksum of those identities.
    pub identities_crc: u32,
    /// Salted checksum of the record headers of a batch (without their own checksums), or of the index of a seal. It binds the
    /// records to this frame: parts of two attempts at one batch never verify together.
    pub records_crc: u32,
}

impl Frame {
    /// ```text
    ///  0  magic | u8 kind (1 batch, 2 seal), 3 zeros | u64 salt
    /// 16  u64 batch | u64 offset | u64 length | u64 durable_to | u64 term | u64 vote (0: none)
    /// 64  u32 records | u32 identities | u32 identities crc | u32 records crc | u32 group (of the hard state)
    /// 84  u32 crc of bytes 0..84, salted
    /// ```
    pub(crate) fn encode(&self, salt: u64) -> [u8; FRAME_BYTES as usize] {
        let mut bytes = Vec::with_capacity(88);
        bytes.extend_from_slice(&FRAME_MAGIC);
        bytes.extend_from_slice(&[if self.kind == FrameKind::Batch { 1 } else { 2 }, 0, 0, 0]);
        for number in [
            salt,
            self.batch,
            self.offset,
            self.length,
            self.durable_to,
            self.hard_state.term.0,
            encode_vote(self.hard_state.vote),
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.records, self.identities, self.identities_crc, self.records_crc, GROUP] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&salted_crc(salt, &bytes).to_le_bytes());
        bytes.try_into().expect("the fields above are 88 bytes")
    }

    /// Decodes the frame that stands at `offset` of a segment with `salt`.
    ///
    /// # Errors
    /// [`Malformed`]: there is none, or it is damaged.
    pub fn decode(bytes: &[u8], salt: u64, offset: u64) -> Result<Frame, Malformed> {
        let mut cursor = Cursor(bytes);
        if cursor.bytes(4)? != FRAME_MAGIC {
            return Err(Malformed::Magic);
        }
        let kind = cursor.u32()?;
        let salt_found = cursor.u64()?;
        let mut frame = Frame {
            kind: FrameKind::Batch,
            batch: cursor.u64()?,
            offset: cursor.u64()?,
            length: cursor.u64()?,
            durable_to: cursor.u64()?,
            hard_state: HardState { term: Term(cursor.u64()?), vote: decode_vote(cursor.u64()?) },
            records: cursor.u32()?,
            identities: cursor.u32()?,
            identities_crc: cursor.u32()?,
            records_crc: cursor.u32()?,
        };
        let group = cursor.u32()?;
        if cursor.u32()? != salted_crc(salt, &bytes[..84]) || salt_found != salt {
            return Err(Malformed::Checksum);
        }
        frame.kind = match kind {
            1 => FrameKind::Batch,
            2 => FrameKind::Seal,
            _ => return Err(Malformed::Field("frame kind")),
        };
        if frame.offset != offset {
            return Err(Malformed::Field("frame offset"));
        }
        if group != GROUP {
            return Err(Malformed::Field("group"));
        }
        let item = if frame.kind == FrameKind::Batch { RECORD_BYTES } else { INDEXED_BYTES };
        let before_records = FRAME_BYTES + u64::from(frame.identities) * IDENTITY_BYTES;
        let least = before_records + u64::from(frame.records) * item;
        let is_inside = least <= frame.length && offset.checked_add(frame.length).is_some();
        if !is_inside || frame.durable_to > offset {
            return Err(Malformed::Field("frame length"));
        }
        Ok(frame)
    }

    /// Where its records (or index items) begin.
    pub(crate) fn records_offset(&self) -> u64 {
        self.offset.saturating_add(FRAME_BYTES + u64::from(self.identities) * IDENTITY_BYTES)
    }

    /// Where its last byte ends.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// Where the next frame begins.
    pub(crate) fn next(&self) -> u64 {
        sector_end(self.end())
    }
}

/// The next sector boundary at or after `offset`.
pub(crate) fn sector_end(offset: u64) -> u64 {
    offset.div_ceil(SECTOR_BYTES).saturating_mul(SECTOR_BYTES)
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// An entry without content.
    Noop,
    /// A configuration; its encoding is the meta.
    Configuration,
    /// Commands and bodies.
    Command,
    /// From here on the log ends before this record's index. The record's term is that of the entry before that index.
    Truncation,
}

impl RecordKind {
    fn code(self) -> u8 {
        match self {
            RecordKind::Noop => 1,
            RecordKind::Configuration => 2,
            RecordKind::Command => 3,
            RecordKind::Truncation => 4,
        }
    }

    fn from_code(code: u8) -> Result<RecordKind, Malformed> {
        match code {
            1 => Ok(RecordKind::Noop),
            2 => Ok(RecordKind::Configuration),
            3 => Ok(RecordKind::Command),
            4 => Ok(RecordKind::Truncation),
            _ => Err(Malformed::Field("record kind")),
        }
    }
}

/// The front of a record: everything about it but its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What it is.
    pub kind: RecordKind,
    /// The entry's index; of a truncation, the first index cut off.
    pub index: Index,
    /// The entry's term; of a truncation, the term of the last entry that is left.
    pub term: Term,
    /// Bytes of meta.
    pub meta_bytes: u32,
    /// Checksum of the meta (`part_crc`).
    pub meta_crc: u32,
    /// Bytes of bodies.
    pub bodies_bytes: u32,
    /// Checksum of the bodies (`part_crc`).
    pub bodies_crc: u32,
}

impl RecordHeader {
    /// The header of an entry with such content, as it is written now.
    pub(crate) fn of(kind: RecordKind, index: Index, term: Term, meta: &[u8], bodies: &[u8]) -> Self {
        let size = |part: &[u8]| u32::try_from(part.len()).expect("entries are limited far below 4 GiB");
        RecordHeader {
            kind,
            index,
            term,
            meta_bytes: size(meta),
            meta_crc: part_crc(meta),
            bodies_bytes: size(bodies),
            bodies_crc: part_crc(bodies),
        }
    }

    /// The same as builds before wrote it, with other checksums of its parts.
    pub(crate) fn as_before(self, meta: &[u8], bodies: &[u8]) -> Self {
        Self { meta_crc: crc32c::crc32c(meta), bodies_crc: crc32c::crc32c(bodies), ..self }
    }

    /// Whichever of the two is the one that is looked for.
    pub(crate) fn find(self, meta: &[u8], bodies: &[u8], is_it: impl Fn(&Self) -> bool) -> Option<Self> {
        Some(self).filter(&is_it).or_else(|| Some(self.as_before(meta, bodies)).filter(&is_it))
    }

    /// The entry checksum: with index and term it names exactly this entry on every node.
    ///
    /// CRC32C of `u8 kind | u32 meta bytes | u32 meta crc | u32 bodies bytes | u32 bodies crc`.
    #[must_use]
    pub fn entry_crc(&self) -> u32 {
        let mut bytes = [0; 17];
        bytes[0] = self.kind.code();
        for (position, number) in
            [self.meta_bytes, self.meta_crc, self.bodies_bytes, self.bodies_crc].into_iter().enumerate()
        {
            bytes[1 + 4 * position..5 + 4 * position].copy_from_slice(&number.to_le_bytes());
        }
        crc32c::crc32c(&bytes)
    }

    /// Its identity, as it stands a second time behind the next frame and in the sealed index.
    #[must_use]
    pub fn identity(&self) -> RecordIdentity {
        RecordIdentity {
            kind: self.kind,
            index: self.index,
            term: self.term,
            meta_bytes: self.meta_bytes,
            bodies_bytes: self.bodies_bytes,
            entry_crc: self.entry_crc(),
        }
    }

    /// ```text
    ///  0  u8 kind | 3 zeros | u32 group | u64 index | u64 term
    /// 24  u32 meta bytes | u32 meta crc | u32 bodies bytes | u32 bodies crc
    /// 40  u32 entry crc, not salted | u32 crc of bytes 0..44, salted with the sum of the salt and the place in the file
    /// ```
    ///
    /// So a record that the disk put where another one belongs does not pass for that one: a place of a body names no entry.
    pub(crate) fn encode(&self, salt: u64, offset: u64) -> [u8; RECORD_BYTES as usize] {
        let mut bytes = Vec::with_capacity(48);
        bytes.extend_from_slice(&[self.kind.code(), 0, 0, 0]);
        bytes.extend_from_slice(&GROUP.to_le_bytes());
        bytes.extend_from_slice(&self.index.0.to_le_bytes());
        bytes.extend_from_slice(&self.term.0.to_le_bytes());
        for number in [self.meta_bytes, self.meta_crc, self.bodies_bytes, self.bodies_crc, self.entry_crc()] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&salted_crc(salt.wrapping_add(offset), &bytes).to_le_bytes());
        bytes.try_into().expect("the fields above are 48 bytes")
    }

    /// Decodes a header that stands at `offset` of a segment with `salt`.
    ///
    /// # Errors
    /// [`Malformed`]: it is damaged, or belongs elsewhere.
    pub fn decode(bytes: &[u8], salt: u64, offset: u64) -> Result<RecordHeader, Malformed> {
        let mut cursor = Cursor(bytes);
        let kind = cursor.u32()?;
        let group = cursor.u32()?;
        let index = Index(cursor.u64()?);
        let term = Term(cursor.u64()?);
        let [meta_bytes, meta_crc, bodies_bytes, bodies_crc, entry_crc] =
            [cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u32()?];
        if cursor.u32()? != salted_crc(salt.wrapping_add(offset), &bytes[..44]) {
            return Err(Malformed::Checksum);
        }
        let kind = RecordKind::from_code(u8::try_from(kind).map_err(|_| Malformed::Field("record kind"))?)?;
        let header = RecordHeader { kind, index, term, meta_bytes, meta_crc, bodies_bytes, bodies_crc };
        if group != GROUP {
            return Err(Malformed::Field("group"));
        }
        if header.entry_crc() != entry_crc {
            return Err(Malformed::Field("entry checksum"));
        }
        Ok(header)
    }
}

/// The second copy of the name and the lengths of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordIdentity {
    /// What it is.
    pub kind: RecordKind,
    /// Its index.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Bytes of meta.
    pub meta_bytes: u32,
    /// Bytes of bodies.
    pub bodies_bytes: u32,
    /// The entry checksum.
    pub entry_crc: u32,
}

impl RecordIdentity {
    /// Bytes of the whole record in a segment.
    pub(crate) fn record_bytes(&self) -> u64 {
        (RECORD_BYTES + u64::from(self.meta_bytes) + u64::from(self.bodies_bytes)).next_multiple_of(8)
    }

    /// ```text
    /// u64 index | u64 term | u32 group | u32 meta bytes | u32 bodies bytes | u32 entry crc | u8 kind | 7 zeros
    /// ```
    pub(crate) fn put(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.index.0.to_le_bytes());
        bytes.extend_from_slice(&self.term.0.to_le_bytes());
        for number in [GROUP, self.meta_bytes, self.bodies_bytes, self.entry_crc] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&[self.kind.code(), 0, 0, 0, 0, 0, 0, 0]);
    }

    fn take(cursor: &mut Cursor<'_>) -> Result<RecordIdentity, Malformed> {
        let (index, term) = (Index(cursor.u64()?), Term(cursor.u64()?));
        cursor.group()?;
        let [meta_bytes, bodies_bytes, entry_crc] = [cursor.u32()?, cursor.u32()?, cursor.u32()?];
        let kind = u8::try_from(cursor.u64()?).map_err(|_| Malformed::Field("record kind"))?;
        let kind = RecordKind::from_code(kind)?;
        Ok(RecordIdentity { kind, index, term, meta_bytes, bodies_bytes, entry_crc })
    }
}

/// One item of the sealed index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexedRecord {
    /// The record.
    pub identity: RecordIdentity,
    /// Where its header stands.
    pub offset: u64,
}

impl IndexedRecord {
    /// ```text
    /// identity (40) | u64 offset
    /// ```
    pub(crate) fn put(&self, bytes: &mut Vec<u8>) {
        self.identity.put(bytes);
        bytes.extend_from_slice(&self.offset.to_le_bytes());
    }
}

/// The checksum that binds record headers, encoded one after another, to their frame.
///
/// NB: each header's own checksum, its last four bytes, is left out. A checksum over bytes and then over their own
/// checksum is the same for all bytes, so every set of valid headers would look alike.
pub(crate) fn records_crc(salt: u64, headers: &[u8]) -> u32 {
    let own_crc = usize::try_from(RECORD_BYTES).expect("48") - 4;
    let covered = headers.chunks(own_crc + 4).map(|header| &header[..own_crc.min(header.len())]);
    covered.fold(salted_crc(salt, &[]), crc32c::crc32c_append)
}

/// Decodes the identities behind a frame.
///
/// # Errors
/// [`Malformed`]: this second copy is damaged.
pub fn decode_identities(bytes: &[u8], salt: u64, frame: &Frame) -> Result<Vec<RecordIdentity>, Malformed> {
    if salted_crc(salt, bytes) != frame.identities_crc {
        return Err(Malformed::Checksum);
    }
    let mut cursor = Cursor(bytes);
    let identities: Result<Vec<_>, _> =
        (0..frame.identities).map(|_| RecordIdentity::take(&mut cursor)).collect();
    let identities = identities?;
    cursor.end("identities length")?;
    Ok(identities)
}

/// Decodes the index behind a seal and its identities.
///
/// # Errors
/// [`Malformed`]: the index is damaged; the records themselves still say where they are.
pub fn decode_index(bytes: &[u8], salt: u64, frame: &Frame) -> Result<Vec<IndexedRecord>, Malformed> {
    if salted_crc(salt, bytes) != frame.records_crc {
        return Err(Malformed::Checksum);
    }
    let mut cursor = Cursor(bytes);
    let index: Result<Vec<_>, _> = (0..frame.records)
        .map(|_| Ok(IndexedRecord { identity: RecordIdentity::take(&mut cursor)?, offset: cursor.u64()? }))
        .collect();
    let index = index?;
    cursor.end("index length")?;
    Ok(index)
}
