//! Writes a places file or a kept file from beginning to end.

use crate::disk::{Disk, DiskFile};
use crate::format::places::{
    Block, ENTRY_BYTES, PAGE_BLOCKS, PAGE_BYTES, PageEntry, PlacesKind, Spot, TOPIC_BYTES, Tail, TopicPlaces,
    encode_head, encode_page, tail_crc,
};
use crate::manifest::{KeptFile, PlacesFile};
use raftqueue_raft::Index;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// Bytes that are collected before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// A file that was written: what the manifest keeps of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its number, which is its name.
    pub number: u64,
    /// Its length in bytes.
    pub size: u64,
    /// CRC32C of its tail, which holds those of topics and directory.
    pub crc: u32,
}

impl Written {
    /// It says where the messages of a segment stand, as far as entry `to`: so many messages.
    #[must_use]
    pub fn of_segment(self, segment: u64, to: Index, messages: u64) -> PlacesFile {
        let Written { number, size, crc } = self;
        PlacesFile { number, size, crc, segment, to, messages }
    }

    /// It keeps bodies that lived as of the snapshot at this index.
    #[must_use]
    pub fn of_kept(self, since: Index) -> KeptFile {
        let Written { number, size, crc } = self;
        KeptFile { number, size, crc, since }
    }
}

/// Writes one file, in blocks of 1 MiB, one after another. Each call makes at most one write, so that a caller who must go
/// slowly can pause between calls; only [`PlacesWriter::finish`] syncs.
///
/// In memory it holds 1 MiB, one page, and what an open file holds: topics and directory.
///
/// A crash at any point leaves a file that nobody names; so does an error, after which every call fails: see
/// [`PlacesWriter::abandon`].
pub struct PlacesWriter {
    file: Arc<dyn DiskFile>,
    kind: PlacesKind,
    number: u64,
    /// What comes behind `written` bytes of the file.
    buffer: Vec<u8>,
    written: u64,
    /// The blocks of the page to come.
    page: Vec<Block>,
    blocks: u64,
    topics: Vec<TopicPlaces>,
    directory: Vec<PageEntry>,
    has_failed: bool,
}

impl PlacesWriter {
    /// Makes the file. Its number was never used before.
    ///
    /// # Errors
    /// What the disk said: [`io::ErrorKind::AlreadyExists`] if the number is taken.
    pub fn create(disk: &dyn Disk, number: u64, kind: PlacesKind) -> io::Result<PlacesWriter> {
        let file = disk.create(&kind.file_name(number))?;
        let mut buffer = encode_head(kind, number);
        buffer.resize(kind.content_at() as usize, 0);
        Ok(PlacesWriter {
            file,
            kind,
            number,
            buffer,
            written: 0,
            page: Vec::with_capacity(PAGE_BLOCKS),
            blocks: 0,
            topics: Vec::new(),
            directory: Vec::new(),
            has_failed: false,
        })
    }

    /// What the file is for.
    #[must_use]
    pub fn kind(&self) -> PlacesKind {
        self.kind
    }

    /// Blocks so far.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Messages so far.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.topics.iter().map(|topic| topic.messages).sum()
    }

    /// How long the file will be if nothing more comes.
    #[must_use]
    pub fn size(&self) -> u64 {
        let pages = self.directory.len() as u64 + u64::from(!self.page.is_empty());
        let page = if self.page.is_empty() { 0 } else { PAGE_BYTES };
        let index = self.topics.len() as u64 * TOPIC_BYTES + pages * ENTRY_BYTES;
        self.at() + page + index + crate::format::places::TAIL_BYTES
    }

    /// Puts a body into a kept file and says where it begins. Its block follows.
    ///
    /// # Errors
    /// What the disk said.
    ///
    /// # Panics
    /// If the file is a places file.
    pub fn body(&mut self, body: &[u8]) -> io::Result<u64> {
        assert!(self.kind == PlacesKind::Kept, "a places file holds no bodies");
        let offset = self.at();
        if self.buffer.len() + body.len() >= WRITE_BYTES {
            self.write(body)?;
        } else {
            self.check()?;
            self.buffer.extend_from_slice(body);
        }
        Ok(offset)
    }

    /// Adds a block. In a kept file its body was put there before.
    ///
    /// # Errors
    /// What the disk said.
    ///
    /// # Panics
    /// If it does not come after the one before, holds nothing, or is no block of such a file.
    pub fn push(&mut self, block: &Block) -> io::Result<()> {
        self.check()?;
        assert!(block.count > 0 && block.first_offset.checked_add(u64::from(block.count)).is_some());
        match (self.kind, block.spot) {
            (PlacesKind::Segment(_), Spot::Entry { .. }) => {}
            (PlacesKind::Kept, Spot::Kept { .. }) => {
                let body = block.body_range().expect("a kept block has a body");
                assert!(block.count == 1 && body.end <= self.at(), "the body of {block:?} was not written");
            }
            _ => panic!("{block:?} in a file of {:?}", self.kind),
        }
        match self.topics.last_mut().filter(|topic| topic.topic >= block.topic) {
            Some(topic) => {
                let is_next = topic.topic == block.topic && topic.end <= block.first_offset;
                assert!(is_next, "{block:?} after {topic:?}");
                topic.add(block);
            }
            None => self.topics.push(TopicPlaces::new(block)),
        }
        self.blocks += 1;
        self.page.push(*block);
        if self.page.len() == PAGE_BLOCKS { self.end_page() } else { Ok(()) }
    }

    /// Writes what is left and makes file and name durable.
    ///
    /// # Errors
    /// What the disk said; the file was removed then, as far as that was possible.
    pub fn finish(mut self, disk: &dyn Disk) -> io::Result<Written> {
        let written = self.write_end(disk);
        if written.is_err() {
            // What is left of it goes at the next opening.
            let _ = self.abandon(disk);
        }
        written
    }

    fn write_end(&mut self, disk: &dyn Disk) -> io::Result<Written> {
        self.check()?;
        if !self.page.is_empty() {
            self.end_page()?;
        }
        let topics_at = self.at();
        let topics = std::mem::take(&mut self.topics);
        let topics_crc = self.table(&topics, TopicPlaces::put)?;
        let directory_at = self.at();
        let directory = std::mem::take(&mut self.directory);
        let directory_crc = self.table(&directory, PageEntry::put)?;
        let tail = Tail {
            number: self.number,
            topics_at,
            topics: topics.len() as u64,
            directory_at,
            pages: directory.len() as u64,
            blocks: self.blocks,
            topics_crc,
            directory_crc,
        };
        let tail = tail.encode();
        self.write(&tail)?;
        self.file.sync_data()?;
        disk.sync_dir()?;
        Ok(Written { number: self.number, size: self.at(), crc: tail_crc(&tail) })
    }

    /// Takes the file away: it is not wanted, or could not be written. What a crash leaves of it is a leftover.
    ///
    /// # Errors
    /// What the disk said.
    pub fn abandon(self, disk: &dyn Disk) -> io::Result<()> {
        disk.remove(&self.kind.file_name(self.number))
    }

    /// Where the next byte goes.
    fn at(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn end_page(&mut self) -> io::Result<()> {
        let at = self.at();
        self.directory.push(PageEntry::new(&self.page, at));
        self.buffer.extend_from_slice(&encode_page(&self.page, self.number, at));
        self.page.clear();
        if self.buffer.len() >= WRITE_BYTES { self.write(&[]) } else { Ok(()) }
    }

    /// Puts a table into the file and says its checksum.
    fn table<T>(&mut self, items: &[T], put: impl Fn(&T, &mut Vec<u8>)) -> io::Result<u32> {
        let mut crc = 0;
        for items in items.chunks(1024) {
            let from = self.buffer.len();
            items.iter().for_each(|item| put(item, &mut self.buffer));
            crc = crc32c::crc32c_append(crc, &self.buffer[from..]);
            if self.buffer.len() >= WRITE_BYTES {
                self.write(&[])?;
            }
        }
        Ok(crc)
    }

    /// Writes what was collected, and `more` behind it.
    fn write(&mut self, more: &[u8]) -> io::Result<()> {
        self.check()?;
        let mut slices = [IoSlice::new(&self.buffer), IoSlice::new(more)];
        if let Err(error) = self.file.write_at(self.written, &mut slices) {
            self.has_failed = true;
            return Err(error);
        }
        self.written = self.at() + more.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// A file with a hole is never finished.
    fn check(&self) -> io::Result<()> {
        if self.has_failed { Err(io::Error::other("an earlier write of this file failed")) } else { Ok(()) }
    }
}
