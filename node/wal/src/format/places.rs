//! Places files (which messages stand in a segment) and kept files (bodies that outlived their segment): one form.
//!
//! ```text
//!  0      512                                                                    size
//!  | head | bodies and pages ...                     | topics | directory | tail |
//!
//!  head (512):  envelope (16) | u8 kind (1: places, 2: kept) | u32 group | u64 segment (0: kept) | u64 file number | zeros
//!  page (4096): u32 crc | u16 count | zeros to 64 | up to 63 blocks | zeros
//!  block (64):  u64 topic | u64 first offset | u32 count | u32 command (places) or crc of the body (kept)
//!               | u64 offset of the record in its segment (places) or of the body in this file (kept)
//!               | u64 published ms | u64 least deadline ms (all ones: none) | u64 bytes | 8 zeros
//!  topic (48):  u64 topic | u64 first | u64 end | u64 messages | u64 bytes | u64 least deadline ms
//!  directory:   per page (32): u64 topic | u64 first offset | u64 least deadline ms | u64 offset of the page
//!  tail (72):   envelope (16) | u64 file number | u64 offset of topics | u64 topics | u64 offset of directory | u64 pages
//!               | u64 blocks | u32 crc of topics | u32 crc of directory
//! ```
//!
//! Blocks stand in the order of (topic, first offset) throughout the file, and none overlaps another. All pages but the
//! last are full. A places file has no bodies, and its pages begin at 4096, each on a block of its own. In a kept file a
//! page follows the bodies that it names, so that a writer of any number of bodies holds one page in memory.
//!
//! A page's checksum is seeded with the file's number and the page's offset: a page of another file, or of another place
//! in this one, never verifies. That of a body is the message's own, so it is not seeded: every node has the same.

use super::{Cursor, ENVELOPE_BYTES, GROUP, Malformed, unwrap, wrap};
use crate::names::{KEPT, PLACES, numbered};
use std::ops::Range;

const PLACES_MAGIC: [u8; 4] = *b"RQPL";
const TAIL_MAGIC: [u8; 4] = *b"RQPT";

/// Length of the head.
pub(crate) const HEAD_BYTES: u64 = 512;
/// Length of a page.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// Length of a block, and of what stands before the first of a page.
pub(crate) const BLOCK_BYTES: usize = 64;
/// Blocks of a full page.
pub(crate) const PAGE_BLOCKS: usize = 63;
/// Length of one topic of the table.
pub(crate) const TOPIC_BYTES: u64 = 48;
/// Length of one page in the directory.
pub(crate) const ENTRY_BYTES: u64 = 32;
/// Length of the tail.
pub(crate) const TAIL_BYTES: u64 = 72;
const NO_DEADLINE: u64 = u64::MAX;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacesKind {
    /// Which messages stand in this segment.
    Segment(u64),
    /// Bodies whose segments are gone, and which they are.
    Kept,
}

impl PlacesKind {
    /// The name of file `number` of this kind.
    #[must_use]
    pub fn file_name(self, number: u64) -> String {
        match self {
            PlacesKind::Segment(_) => numbered(PLACES, number),
            PlacesKind::Kept => numbered(KEPT, number),
        }
    }

    /// Where bodies and pages begin.
    pub(crate) fn content_at(self) -> u64 {
        match self {
            PlacesKind::Segment(_) => PAGE_BYTES,
            PlacesKind::Kept => HEAD_BYTES,
        }
    }
}

/// Where the messages of a block stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// In an entry of the file's segment, in consecutive publish commands of one topic.
    Entry {
        /// Where the entry's record begins in the segment.
        offset: u64,
        /// The ordinal of the first of these commands in the entry.
        command: u32,
    },
    /// In this file, alone.
    Kept {
        /// Where the body begins.
        offset: u64,
        /// CRC32C of it.
        crc: u32,
    },
}

/// Messages of one topic with consecutive offsets that stand in one place. In a kept file: one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Their topic.
    pub topic: u64,
    /// The offset of the first.
    pub first_offset: u64,
    /// How many there are, never 0.
    pub count: u32,
    /// Where they stand.
    pub spot: Spot,
    /// When they were published, in log time.
    pub published_ms: u64,
    /// The least of their deadlines, in log time.
    pub deadline_ms: Option<u64>,
    /// Their bytes as they are stored.
    pub bytes: u64,
}

impl Block {
    /// The offset behind its last message.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first_offset + u64::from(self.count)
    }

    /// True if this message is one of its.
    #[must_use]
    pub fn holds(&self, topic: u64, offset: u64) -> bool {
        self.topic == topic && (self.first_offset..self.end()).contains(&offset)
    }

    pub(crate) fn key(&self) -> (u64, u64) {
        (self.topic, self.first_offset)
    }

    /// The bytes of the body in a kept file.
    pub(crate) fn body_range(&self) -> Option<Range<u64>> {
        match self.spot {
            Spot::Kept { offset, .. } => Some(offset..offset.saturating_add(self.bytes)),
            Spot::Entry { .. } => None,
        }
    }

    fn put(&self, bytes: &mut Vec<u8>) {
        let (detail, offset) = match self.spot {
            Spot::Entry { offset, command } => (command, offset),
            Spot::Kept { offset, crc } => (crc, offset),
        };
        put_u64(bytes, &[self.topic, self.first_offset]);
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&detail.to_le_bytes());
        put_u64(bytes, &[offset, self.published_ms, least(self.deadline_ms), self.bytes, 0]);
    }

    fn take(cursor: &mut Cursor<'_>, kind: PlacesKind) -> Result<Block, Malformed> {
        let (topic, first_offset) = (cursor.u64()?, cursor.u64()?);
        let (count, detail) = (cursor.u32()?, cursor.u32()?);
        let offset = cursor.u64()?;
        let spot = match kind {
            PlacesKind::Segment(_) => Spot::Entry { offset, command: detail },
            PlacesKind::Kept => Spot::Kept { offset, crc: detail },
        };
        let (published_ms, deadline_ms) = (cursor.u64()?, deadline(cursor.u64()?));
        let bytes = cursor.u64()?;
        cursor.u64()?;
        Ok(Block { topic, first_offset, count, spot, published_ms, deadline_ms, bytes })
    }
}

/// What a file holds of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicPlaces {
    /// The topic.
    pub topic: u64,
    /// Its first offset here.
    pub first: u64,
    /// The offset behind its last one here. Not all in between need be here.
    pub end: u64,
    /// How many messages are here.
    pub messages: u64,
    /// Their bytes as they are stored.
    pub bytes: u64,
    /// As it stands in the file: an `Option` would make each topic 8 bytes larger.
    least_deadline: u64,
}

impl TopicPlaces {
    /// The least deadline of its messages here, in log time.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        deadline(self.least_deadline)
    }

    /// A topic that begins with this block.
    pub(crate) fn new(block: &Block) -> TopicPlaces {
        TopicPlaces {
            topic: block.topic,
            first: block.first_offset,
            end: block.end(),
            messages: u64::from(block.count),
            bytes: block.bytes,
            least_deadline: least(block.deadline_ms),
        }
    }

    /// Another block of it.
    pub(crate) fn add(&mut self, block: &Block) {
        self.end = block.end();
        self.messages += u64::from(block.count);
        self.bytes = self.bytes.saturating_add(block.bytes);
        self.least_deadline = self.least_deadline.min(least(block.deadline_ms));
    }

    pub(crate) fn put(&self, bytes: &mut Vec<u8>) {
        put_u64(bytes, &[self.topic, self.first, self.end, self.messages, self.bytes, self.least_deadline]);
    }
}

/// One page in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageEntry {
    pub(crate) topic: u64,
    pub(crate) first_offset: u64,
    least_deadline: u64,
    pub(crate) offset: u64,
}

impl PageEntry {
    /// The page of these blocks.
    pub(crate) fn new(blocks: &[Block], offset: u64) -> PageEntry {
        let (topic, first_offset) = blocks[0].key();
        let least_deadline = blocks.iter().map(|block| least(block.deadline_ms)).min();
        PageEntry { topic, first_offset, least_deadline: least_deadline.unwrap_or(NO_DEADLINE), offset }
    }

    pub(crate) fn key(&self) -> (u64, u64) {
        (self.topic, self.first_offset)
    }

    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        deadline(self.least_deadline)
    }

    pub(crate) fn put(&self, bytes: &mut Vec<u8>) {
        put_u64(bytes, &[self.topic, self.first_offset, self.least_deadline, self.offset]);
    }
}

/// Where the parts of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) number: u64,
    pub(crate) topics_at: u64,
    pub(crate) topics: u64,
    pub(crate) directory_at: u64,
    pub(crate) pages: u64,
    pub(crate) blocks: u64,
    pub(crate) topics_crc: u32,
    pub(crate) directory_crc: u32,
}

impl Tail {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Tail { number, topics_at, topics, directory_at, pages, blocks, .. } = *self;
        put_u64(&mut bytes, &[number, topics_at, topics, directory_at, pages, blocks]);
        bytes.extend_from_slice(&self.topics_crc.to_le_bytes());
        bytes.extend_from_slice(&self.directory_crc.to_le_bytes());
        wrap(TAIL_MAGIC, &bytes)
    }

    /// The tail of a file of `size` bytes: every part that it names lies in there.
    pub(crate) fn decode(bytes: &[u8], number: u64, kind: PlacesKind, size: u64) -> Result<Tail, Malformed> {
        let mut cursor = Cursor(unwrap(TAIL_MAGIC, bytes)?);
        let tail = Tail {
            number: cursor.u64()?,
            topics_at: cursor.u64()?,
            topics: cursor.u64()?,
            directory_at: cursor.u64()?,
            pages: cursor.u64()?,
            blocks: cursor.u64()?,
            topics_crc: cursor.u32()?,
            directory_crc: cursor.u32()?,
        };
        cursor.end("tail length")?;
        let after = |at: u64, count: u64, each: u64| at.checked_add(count.checked_mul(each)?);
        let is_inside = after(tail.topics_at, tail.topics, TOPIC_BYTES) == Some(tail.directory_at)
            && after(tail.directory_at, tail.pages, ENTRY_BYTES) == size.checked_sub(TAIL_BYTES)
            && tail.topics_at >= kind.content_at();
        if !is_inside || tail.pages != tail.blocks.div_ceil(PAGE_BLOCKS as u64) {
            return Err(Malformed::Field("the parts of the file"));
        }
        if tail.number != number {
            return Err(Malformed::Field("file number"));
        }
        Ok(tail)
    }
}

/// The checksum in an encoded tail, which is the file's name in the manifest: with those that it holds, it covers topics
/// and directory.
pub(crate) fn tail_crc(tail: &[u8]) -> u32 {
    let crc = tail.get(ENVELOPE_BYTES - 4..ENVELOPE_BYTES).and_then(|crc| crc.try_into().ok());
    crc.map_or(0, u32::from_le_bytes)
}

/// The first 512 bytes.
pub(crate) fn encode_head(kind: PlacesKind, number: u64) -> Vec<u8> {
    let (kind, segment) = match kind {
        PlacesKind::Segment(segment) => (1, segment),
        PlacesKind::Kept => (2, 0),
    };
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&GROUP.to_le_bytes());
    put_u64(&mut bytes, &[segment, number]);
    bytes.resize(HEAD_BYTES as usize - ENVELOPE_BYTES, 0);
    wrap(PLACES_MAGIC, &bytes)
}

/// Kind and number.
pub(crate) fn decode_head(bytes: &[u8]) -> Result<(PlacesKind, u64), Malformed> {
    let mut cursor = Cursor(unwrap(PLACES_MAGIC, bytes)?);
    let kind = cursor.u8()?;
    cursor.group()?;
    let (segment, number) = (cursor.u64()?, cursor.u64()?);
    match (kind, segment) {
        (1, 1..) => Ok((PlacesKind::Segment(segment), number)),
        (2, 0) => Ok((PlacesKind::Kept, number)),
        _ => Err(Malformed::Field("kind")),
    }
}

/// The page that stands at `offset`.
pub(crate) fn encode_page(blocks: &[Block], number: u64, offset: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PAGE_BYTES as usize);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(blocks.len() as u16).to_le_bytes());
    bytes.resize(BLOCK_BYTES, 0);
    blocks.iter().for_each(|block| block.put(&mut bytes));
    bytes.resize(PAGE_BYTES as usize, 0);
    let crc = page_crc(&bytes, number, offset);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checks a page: checksum, order, and that it is the one that the directory means. `content` is where bodies may lie.
pub(crate) fn check_page(
    bytes: &[u8],
    kind: PlacesKind,
    number: u64,
    entry: &PageEntry,
    content: Range<u64>,
) -> Result<(), Malformed> {
    if bytes.len() < PAGE_BYTES as usize {
        return Err(Malformed::Short);
    }
    if page_crc(bytes, number, entry.offset) != Cursor(bytes).u32()? {
        return Err(Malformed::Checksum);
    }
    let count = page_count(bytes);
    if count == 0 || count > PAGE_BLOCKS {
        return Err(Malformed::Field("count of blocks"));
    }
    let blocks: Vec<Block> = (0..count).map(|at| page_block(bytes, kind, at)).collect();
    let is_sane = |block: &Block| {
        let is_range = block.count > 0 && block.first_offset.checked_add(u64::from(block.count)).is_some();
        let is_inside = block
            .body_range()
            .is_none_or(|body| block.count == 1 && body.start >= content.start && body.end <= content.end);
        is_range && is_inside
    };
    if !blocks.iter().all(is_sane) {
        return Err(Malformed::Field("block"));
    }
    if !blocks.is_sorted_by(|block, next| (block.topic, block.end()) <= next.key()) {
        return Err(Malformed::Field("order of blocks"));
    }
    if PageEntry::new(&blocks, entry.offset) != *entry {
        return Err(Malformed::Field("first block"));
    }
    Ok(())
}

/// Blocks of a page that was checked.
pub(crate) fn page_count(page: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([page[4], page[5]]))
}

/// A block of a page that was checked.
pub(crate) fn page_block(page: &[u8], kind: PlacesKind, at: usize) -> Block {
    Block::take(&mut Cursor(&page[BLOCK_BYTES * (at + 1)..]), kind).expect("a page has room for 63 blocks")
}

/// Topic and first offset of a block of a page that was checked.
pub(crate) fn page_key(page: &[u8], at: usize) -> (u64, u64) {
    let mut cursor = Cursor(&page[BLOCK_BYTES * (at + 1)..]);
    let mut next = || cursor.u64().expect("a page has room for 63 blocks");
    (next(), next())
}

fn page_crc(page: &[u8], number: u64, offset: u64) -> u32 {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), &offset.to_le_bytes());
    crc32c::crc32c_append(seed, &page[4..])
}

/// The table of topics.
pub(crate) fn decode_topics(bytes: &[u8], crc: u32) -> Result<Box<[TopicPlaces]>, Malformed> {
    let topics = decode_all(bytes, crc, TOPIC_BYTES, |cursor| {
        Ok(TopicPlaces {
            topic: cursor.u64()?,
            first: cursor.u64()?,
            end: cursor.u64()?,
            messages: cursor.u64()?,
            bytes: cursor.u64()?,
            least_deadline: cursor.u64()?,
        })
    })?;
    let is_sane = |topic: &TopicPlaces| topic.first < topic.end && topic.messages > 0;
    if !topics.iter().all(is_sane) || !topics.is_sorted_by(|topic, next| topic.topic < next.topic) {
        return Err(Malformed::Field("topic"));
    }
    Ok(topics)
}

/// The directory of pages, which lie in `content`.
pub(crate) fn decode_directory(
    bytes: &[u8],
    crc: u32,
    content: Range<u64>,
) -> Result<Box<[PageEntry]>, Malformed> {
    let pages = decode_all(bytes, crc, ENTRY_BYTES, |cursor| {
        Ok(PageEntry {
            topic: cursor.u64()?,
            first_offset: cursor.u64()?,
            least_deadline: cursor.u64()?,
            offset: cursor.u64()?,
        })
    })?;
    let ends = |page: &PageEntry| page.offset.checked_add(PAGE_BYTES);
    let is_inside =
        |page: &PageEntry| page.offset >= content.start && ends(page).is_some_and(|end| end <= content.end);
    let follows = |page: &PageEntry, next: &PageEntry| {
        page.key() < next.key() && ends(page).is_some_and(|end| end <= next.offset)
    };
    if !pages.iter().all(is_inside) || !pages.is_sorted_by(follows) {
        return Err(Malformed::Field("page"));
    }
    Ok(pages)
}

fn decode_all<T>(
    bytes: &[u8],
    crc: u32,
    each: u64,
    decode: impl Fn(&mut Cursor<'_>) -> Result<T, Malformed>,
) -> Result<Box<[T]>, Malformed> {
    if crc32c::crc32c(bytes) != crc {
        return Err(Malformed::Checksum);
    }
    bytes.chunks(each as usize).map(|item| decode(&mut Cursor(item))).collect()
}

fn put_u64(bytes: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
}

fn least(deadline_ms: Option<u64>) -> u64 {
    deadline_ms.unwrap_or(NO_DEADLINE)
}

fn deadline(least_ms: u64) -> Option<u64> {
    (least_ms != NO_DEADLINE).then_some(least_ms)
}
