//! A snapshot file: a front, a head section, sections of content, a tail section.
//!
//! ```text
//!  | front (20) | section: head | section: content | ... | section: tail |
//!
//!  the front:  magic | u32 version | u64 number of the file | u32 crc of bytes 0..16
//!  a section:  u32 length | u32 crc | u8 kind (1 head, 2 content, 3 tail) | bytes
//! ```
//!
//! The checksum of a section runs over the file's number, the section's ordinal (the head is 0), kind, length and bytes: a
//! section of another file or another place does not verify. What the content means is not known here.

use super::{Cursor, FORMAT_VERSION, GROUP, Malformed, configuration};
use raftqueue_raft::{Configuration, Index, TERM_RUNS_MAX, Term};
use std::sync::Arc;

const MAGIC: [u8; 4] = *b"RQsn";
/// Length of the front.
pub(crate) const FRONT_BYTES: usize = 20;
/// Length of what stands before a section's bytes.
pub(crate) const SECTION_HEAD_BYTES: usize = 9;
/// Bytes of a section's content at most.
pub const SECTION_BYTES_MAX: usize = 1 << 20;

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The last entry that it covers.
    pub index: Index,
    /// The term of that entry.
    pub term: Term,
    /// Where the configuration in force there was appended; 0 if there was none yet.
    pub configuration_index: Index,
    /// That configuration.
    pub configuration: Arc<Configuration>,
    /// Log time there, in milliseconds since 1970.
    pub stamp_ms: u64,
    /// Where the newest terms begin, rising, from index 1 on: the last is that of the index. At most [`TERM_RUNS_MAX`].
    /// Everything up to the index is committed, so a log that agrees with them somewhere is committed up to there.
    pub term_runs: Vec<(Index, Term)>,
}

impl SnapshotHead {
    /// Whether the term runs can be those of a log that has the head's entry.
    ///
    /// # Errors
    /// Which field is wrong.
    pub fn check_term_runs(&self) -> Result<(), Malformed> {
        let runs = &self.term_runs;
        let rise = runs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        if self.index == Index(0) && runs.is_empty() {
            return Ok(());
        }
        let begin = runs.first().is_some_and(|(first, term)| *first > Index(0) && *term > Term(0));
        let end = runs.last().is_some_and(|(first, term)| *first <= self.index && *term == self.term);
        match rise && begin && end && runs.len() <= TERM_RUNS_MAX {
            true => Ok(()),
            false => Err(Malformed::Field("term runs")),
        }
    }
}

/// What a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SectionKind {
    Head,
    Content,
    Tail,
}

impl SectionKind {
    fn code(self) -> u8 {
        match self {
            SectionKind::Head => 1,
            SectionKind::Content => 2,
            SectionKind::Tail => 3,
        }
    }
}

/// The front of snapshot `number`.
pub(crate) fn encode_front(number: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// Checks the front of snapshot `number`. It is the same in every version, so that a newer one is told from a damaged one.
pub(crate) fn decode_front(bytes: &[u8], number: u64) -> Result<(), Malformed> {
    let mut cursor = Cursor(bytes);
    if cursor.bytes(4)? != MAGIC {
        return Err(Malformed::Magic);
    }
    let version = cursor.u32()?;
    let found = cursor.u64()?;
    if cursor.u32()? != crc32c::crc32c(&bytes[..16]) {
        return Err(Malformed::Checksum);
    }
    match version {
        FORMAT_VERSION if found == number => Ok(()),
        FORMAT_VERSION => Err(Malformed::Field("snapshot number")),
        0 => Err(Malformed::Field("version")),
        found => Err(Malformed::Newer { found }),
    }
}

/// What stands before the bytes of a section.
pub(crate) fn encode_section_head(
    number: u64,
    ordinal: u64,
    kind: SectionKind,
    bytes: &[u8],
) -> [u8; SECTION_HEAD_BYTES] {
    let length = u32::try_from(bytes.len()).expect("a section is at most a MiB");
    let mut head = [0; SECTION_HEAD_BYTES];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..8].copy_from_slice(&section_crc(number, ordinal, kind, bytes).to_le_bytes());
    head[8] = kind.code();
    head
}

/// Length, checksum and kind of the section whose head this is; neither is checked yet but for the bounds.
pub(crate) fn decode_section_head(bytes: &[u8]) -> Result<(usize, u32, SectionKind), Malformed> {
    let mut cursor = Cursor(bytes);
    let length = cursor.u32()? as usize;
    let crc = cursor.u32()?;
    let kind = match cursor.u8()? {
        1 => SectionKind::Head,
        2 => SectionKind::Content,
        3 => SectionKind::Tail,
        _ => return Err(Malformed::Field("section kind")),
    };
    if length > SECTION_BYTES_MAX {
        return Err(Malformed::Field("section length"));
    }
    Ok((length, crc, kind))
}

pub(crate) fn section_crc(number: u64, ordinal: u64, kind: SectionKind, bytes: &[u8]) -> u32 {
    let mut front = [0; 25];
    front[..8].copy_from_slice(&number.to_le_bytes());
    front[8..16].copy_from_slice(&ordinal.to_le_bytes());
    front[16..24].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    front[24] = kind.code();
    crc32c::crc32c_append(crc32c::crc32c(&front), bytes)
}

/// ```text
/// u32 group | u64 index | u64 term | u64 stamp in ms | u64 index of the configuration
///           | u32 count of term runs | for each: u64 index, u64 term | configuration
/// ```
pub(crate) fn encode_head(head: &SnapshotHead) -> Vec<u8> {
    let mut bytes = GROUP.to_le_bytes().to_vec();
    for number in [head.index.0, head.term.0, head.stamp_ms, head.configuration_index.0] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let count = u32::try_from(head.term_runs.len()).expect("a head has few term runs");
    bytes.extend_from_slice(&count.to_le_bytes());
    for (index, term) in &head.term_runs {
        bytes.extend_from_slice(&index.0.to_le_bytes());
        bytes.extend_from_slice(&term.0.to_le_bytes());
    }
    bytes.extend_from_slice(&configuration::encode(&head.configuration));
    bytes
}

pub(crate) fn decode_head(bytes: &[u8]) -> Result<SnapshotHead, Malformed> {
    let mut cursor = Cursor(bytes);
    cursor.group()?;
    let (index, term) = (Index(cursor.u64()?), Term(cursor.u64()?));
    let (stamp_ms, configuration_index) = (cursor.u64()?, Index(cursor.u64()?));
    let count = cursor.u32()? as usize;
    if count > TERM_RUNS_MAX {
        return Err(Malformed::Field("term runs"));
    }
    let run = |cursor: &mut Cursor<'_>| Ok((Index(cursor.u64()?), Term(cursor.u64()?)));
    let term_runs = (0..count).map(|_| run(&mut cursor)).collect::<Result<Vec<_>, Malformed>>()?;
    let configuration = Arc::new(configuration::decode(cursor.0)?);
    if configuration_index > index {
        return Err(Malformed::Field("index of the configuration"));
    }
    let head = SnapshotHead { index, term, configuration_index, configuration, stamp_ms, term_runs };
    head.check_term_runs()?;
    Ok(head)
}

/// ```text
/// u64 sections of content | u64 bytes of their content
/// ```
pub(crate) fn encode_tail(sections: u64, content_bytes: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&sections.to_le_bytes());
    bytes[8..].copy_from_slice(&content_bytes.to_le_bytes());
    bytes
}

pub(crate) fn decode_tail(bytes: &[u8]) -> Result<(u64, u64), Malformed> {
    let mut cursor = Cursor(bytes);
    let tail = (cursor.u64()?, cursor.u64()?);
    cursor.end("tail length")?;
    Ok(tail)
}
