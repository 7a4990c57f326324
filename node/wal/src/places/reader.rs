//! Reads places files and kept files.

use super::cache::PageCache;
use super::writer::Written;
use crate::disk::{Disk, DiskFile, read_exactly};
use crate::error::{OpenError, ReadError, Rotten, RottenPart, malformed};
use crate::format::Malformed;
use crate::format::places::{
    Block, HEAD_BYTES, PAGE_BYTES, PageEntry, PlacesKind, Spot, TAIL_BYTES, Tail, TopicPlaces, check_page,
    decode_directory, decode_head, decode_topics, page_block, page_count, page_key, tail_crc,
};
use crate::manifest::{KeptFile, PlacesFile};
use bytes::Bytes;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// An open places file or kept file. Many threads read it at once; it stays readable after its name is gone.
///
/// Every answer was checked: what is damaged is [`ReadError::Rot`] with file, offset and part.
pub struct Places {
    file: Arc<dyn DiskFile>,
    name: String,
    kind: PlacesKind,
    written: Written,
    /// Where bodies and pages are.
    content: Range<u64>,
    blocks: u64,
    topics: Box<[TopicPlaces]>,
    directory: Box<[PageEntry]>,
    cache: Arc<PageCache>,
    /// Its name in the cache.
    cached_as: u64,
}

impl Places {
    /// Opens the places file of a segment.
    ///
    /// # Errors
    /// As [`Places::open`].
    pub fn of_segment(
        disk: &dyn Disk,
        file: &PlacesFile,
        cache: &Arc<PageCache>,
    ) -> Result<Arc<Places>, OpenError> {
        let PlacesFile { number, size, crc, segment, .. } = *file;
        Places::open(disk, PlacesKind::Segment(segment), Written { number, size, crc }, cache)
    }

    /// Opens a kept file.
    ///
    /// # Errors
    /// As [`Places::open`].
    pub fn of_kept(
        disk: &dyn Disk,
        file: &KeptFile,
        cache: &Arc<PageCache>,
    ) -> Result<Arc<Places>, OpenError> {
        let KeptFile { number, size, crc, .. } = *file;
        Places::open(disk, PlacesKind::Kept, Written { number, size, crc }, cache)
    }

    /// Opens the file that the manifest names. Head, tail, topics and directory are read and checked; pages and bodies when
    /// they are asked for.
    ///
    /// # Errors
    /// [`OpenError::Rot`] with the damaged part, [`OpenError::Newer`], [`OpenError::Io`].
    pub fn open(
        disk: &dyn Disk,
        kind: PlacesKind,
        written: Written,
        cache: &Arc<PageCache>,
    ) -> Result<Arc<Places>, OpenError> {
        let name = kind.file_name(written.number);
        let file = disk.open(&name).map_err(|error| cannot_read(&name, &error))?;
        let size = file.size().map_err(|error| cannot_read(&name, &error))?;
        if size != written.size {
            return Err(rot(&name, size.min(written.size), RottenPart::Tail).into());
        }
        let found = Places::read(file, name, kind, written.number, cache)?;
        if found.written.crc != written.crc {
            return Err(rot(&found.name, size - TAIL_BYTES, RottenPart::Tail).into());
        }
        Ok(Arc::new(found))
    }

    /// Opens the file as it is, whatever the manifest says: for a dump.
    pub(crate) fn open_as_found(disk: &dyn Disk, name: &str, number: u64) -> Result<Places, OpenError> {
        let file = disk.open(name).map_err(|error| cannot_read(name, &error))?;
        let head = read_part(&*file, name, 0..HEAD_BYTES, RottenPart::Head)?;
        let (kind, _) = decode_head(&head).map_err(|reason| broken(name, 0, RottenPart::Head, reason))?;
        Places::read(file, name.to_owned(), kind, number, &PageCache::new(0))
    }

    fn read(
        file: Arc<dyn DiskFile>,
        name: String,
        kind: PlacesKind,
        number: u64,
        cache: &Arc<PageCache>,
    ) -> Result<Places, OpenError> {
        let size = file.size().map_err(|error| cannot_read(&name, &error))?;
        let part = |range: Range<u64>, part| read_part(&*file, &name, range, part);
        let damaged = |at, part| {
            let name = &name;
            move |reason| broken(name, at, part, reason)
        };

        let head = decode_head(&part(0..HEAD_BYTES, RottenPart::Head)?);
        if head.map_err(damaged(0, RottenPart::Head))? != (kind, number) {
            return Err(rot(&name, 0, RottenPart::Head).into());
        }
        let tail_at = size.saturating_sub(TAIL_BYTES);
        let tail_bytes = part(tail_at..size, RottenPart::Tail)?;
        let tail =
            Tail::decode(&tail_bytes, number, kind, size).map_err(damaged(tail_at, RottenPart::Tail))?;
        // The tail has been checked: what it names lies in the file, so neither table is larger than that.
        let content = kind.content_at()..tail.topics_at;
        let topics = part(tail.topics_at..tail.directory_at, RottenPart::Topics)?;
        let topics =
            decode_topics(&topics, tail.topics_crc).map_err(damaged(tail.topics_at, RottenPart::Topics))?;
        let directory = part(tail.directory_at..tail_at, RottenPart::Directory)?;
        let directory = decode_directory(&directory, tail.directory_crc, content.clone())
            .map_err(damaged(tail.directory_at, RottenPart::Directory))?;
        if u32::try_from(directory.len()).is_err() {
            return Err(rot(&name, tail_at, RottenPart::Tail).into());
        }
        let written = Written { number, size, crc: tail_crc(&tail_bytes) };
        let (blocks, cached_as) = (tail.blocks, cache.file());
        let cache = Arc::clone(cache);
        Ok(Places { file, name, kind, written, content, blocks, topics, directory, cache, cached_as })
    }

    /// What the file is for.
    #[must_use]
    pub fn kind(&self) -> PlacesKind {
        self.kind
    }

    /// Its number, which is its name.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.written.number
    }

    /// Its number, length and checksum, as the manifest has them.
    #[must_use]
    pub fn written(&self) -> Written {
        self.written
    }

    /// Messages that it names.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.topics.iter().map(|topic| topic.messages).fold(0, u64::saturating_add)
    }

    /// Blocks in it.
    #[must_use]
    pub fn blocks_count(&self) -> u64 {
        self.blocks
    }

    /// Bytes of memory that the open file holds, besides what is in the cache.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        size_of_val(&*self.topics) + size_of_val(&*self.directory)
    }

    /// Bytes of the cache that it reads through.
    #[cfg(test)]
    pub(crate) fn cache_held_bytes(&self) -> usize {
        self.cache.held_bytes()
    }

    /// What it holds, by topic, rising.
    #[must_use]
    pub fn topics(&self) -> &[TopicPlaces] {
        &self.topics
    }

    /// What it holds of a topic.
    #[must_use]
    pub fn topic(&self, topic: u64) -> Option<&TopicPlaces> {
        let at = self.topics.binary_search_by_key(&topic, |found| found.topic);
        at.ok().map(|at| &self.topics[at])
    }

    /// The block that holds a message; `None` if none does. At most one page is read.
    ///
    /// # Errors
    /// [`ReadError::Rot`], [`ReadError::Io`].
    pub fn find(&self, topic: u64, offset: u64) -> Result<Option<Block>, ReadError> {
        let is_in_range = |found: &TopicPlaces| (found.first..found.end).contains(&offset);
        if !self.topic(topic).is_some_and(is_in_range) {
            return Ok(None);
        }
        let Some(page) = self.page_of(topic, offset) else { return Ok(None) };
        let bytes = self.load(page, true)?;
        let block = last_up_to(&bytes, (topic, offset)).map(|at| page_block(&bytes, self.kind, at));
        Ok(block.filter(|block| block.holds(topic, offset)))
    }

    /// How many pages it has.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.directory.len()
    }

    /// The blocks of a page.
    ///
    /// # Errors
    /// [`ReadError::Rot`], [`ReadError::Io`].
    ///
    /// # Panics
    /// If there is no such page.
    pub fn page(&self, page: usize) -> Result<Vec<Block>, ReadError> {
        let bytes = self.load(page, true)?;
        Ok((0..page_count(&bytes)).map(|at| page_block(&bytes, self.kind, at)).collect())
    }

    /// The least deadline of the messages of a page, in log time; from memory.
    ///
    /// # Panics
    /// If there is no such page.
    #[must_use]
    pub fn page_deadline(&self, page: usize) -> Option<u64> {
        self.directory[page].deadline_ms()
    }

    /// The body of a block of this kept file.
    ///
    /// # Errors
    /// [`ReadError::Rot`], [`ReadError::Io`].
    ///
    /// # Panics
    /// If the block is one of a places file, whose bodies are in the segment.
    pub fn body(&self, block: &Block) -> Result<Bytes, ReadError> {
        let Spot::Kept { offset, crc } = block.spot else { panic!("{block:?} has its bodies in a segment") };
        let range = block.body_range().expect("a kept block has a body");
        if range.start < self.content.start || range.end > self.content.end {
            return Err(ReadError::Rot(rot(&self.name, offset, RottenPart::KeptBody)));
        }
        let body = self.read_range(range, RottenPart::KeptBody)?;
        if crc32c::crc32c(&body) != crc {
            return Err(ReadError::Rot(rot(&self.name, offset, RottenPart::KeptBody)));
        }
        Ok(body)
    }

    /// The last page that begins at or before a message: the only one that can hold it.
    pub(super) fn page_of(&self, topic: u64, offset: u64) -> Option<usize> {
        self.directory.partition_point(|page| page.key() <= (topic, offset)).checked_sub(1)
    }

    /// The bytes of a page, checked.
    pub(super) fn load(&self, page: usize, keeps: bool) -> Result<Bytes, ReadError> {
        let number = u32::try_from(page).expect("the directory was bounded at opening");
        if let Some(bytes) = self.cache.get(self.cached_as, number) {
            return Ok(bytes);
        }
        let entry = &self.directory[page];
        let bytes = self.read_range(entry.offset..entry.offset + PAGE_BYTES, RottenPart::Page)?;
        check_page(&bytes, self.kind, self.written.number, entry, self.content.clone())
            .map_err(|_| ReadError::Rot(rot(&self.name, entry.offset, RottenPart::Page)))?;
        if keeps {
            self.cache.put(self.cached_as, number, bytes.clone());
        }
        Ok(bytes)
    }

    /// Topic and offset of the first message of a page; `None` behind the last page.
    pub(super) fn page_key(&self, page: usize) -> Option<(u64, u64)> {
        self.directory.get(page).map(PageEntry::key)
    }

    /// Where a page begins in the file.
    pub(crate) fn page_offset(&self, page: usize) -> u64 {
        self.directory[page].offset
    }

    /// Bytes that lie in the file: the range was checked.
    fn read_range(&self, range: Range<u64>, part: RottenPart) -> Result<Bytes, ReadError> {
        let size = usize::try_from(range.end - range.start).expect("a part of a file that was opened");
        let bytes = read_exactly(&*self.file, range.start, size)
            .map_err(|source| ReadError::Io { file: self.name.clone(), source })?;
        bytes.map(Bytes::from).ok_or_else(|| ReadError::Rot(rot(&self.name, range.start, part)))
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Places({})", self.name)
    }
}

/// The last block of a page that begins at or before a message.
fn last_up_to(page: &[u8], key: (u64, u64)) -> Option<usize> {
    let (mut low, mut high) = (0, page_count(page));
    while low < high {
        let middle = low.midpoint(high);
        if page_key(page, middle) <= key { low = middle + 1 } else { high = middle }
    }
    low.checked_sub(1)
}

fn read_part(
    file: &dyn DiskFile,
    name: &str,
    range: Range<u64>,
    part: RottenPart,
) -> Result<Vec<u8>, OpenError> {
    let size = usize::try_from(range.end - range.start).map_err(|_| rot(name, range.start, part))?;
    let bytes = read_exactly(file, range.start, size).map_err(|error| cannot_read(name, &error))?;
    Ok(bytes.ok_or_else(|| rot(name, range.start, part))?)
}

fn rot(name: &str, offset: u64, part: RottenPart) -> Rotten {
    Rotten { file: name.to_owned(), offset, part, record: None }
}

/// What a decoder's complaint means: a newer build, or damage.
fn broken(name: &str, offset: u64, part: RottenPart, reason: Malformed) -> OpenError {
    match reason {
        Malformed::Newer { .. } => malformed(name, offset, reason),
        _ => rot(name, offset, part).into(),
    }
}

fn cannot_read(name: &str, error: &io::Error) -> OpenError {
    let source = io::Error::new(error.kind(), format!("{name}: {error}"));
    OpenError::Io { operation: "read a places file", source }
}

impl From<Rotten> for OpenError {
    fn from(rotten: Rotten) -> OpenError {
        OpenError::Rot { places: vec![rotten] }
    }
}
