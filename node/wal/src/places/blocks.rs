//! Blocks of a file one after another, page by page.

use super::reader::Places;
use crate::error::ReadError;
use crate::format::places::{Block, page_block, page_count};
use bytes::Bytes;
use std::ops::Range;

/// Goes through the pages of a file; holds one of them.
#[derive(Debug)]
pub(super) struct Walk {
    /// The page to read from, and the block in it.
    page: usize,
    at: usize,
    bytes: Option<Bytes>,
    /// Topic and offset before which blocks are asked for: no page behind is read.
    until: (u64, u64),
    /// Pages that are read stay in the cache.
    keeps: bool,
}

impl Walk {
    /// Through the whole file, past the cache.
    pub(super) fn all() -> Walk {
        Walk { page: 0, at: 0, bytes: None, until: (u64::MAX, u64::MAX), keeps: false }
    }

    /// The next block of the file; the error of a page that cannot be read, once.
    pub(super) fn next(&mut self, places: &Places) -> Option<Result<Block, ReadError>> {
        loop {
            let bytes = match &self.bytes {
                Some(bytes) => bytes,
                None if places.page_key(self.page).is_none_or(|key| key >= self.until) => return None,
                None => match places.load(self.page, self.keeps) {
                    Ok(bytes) => self.bytes.insert(bytes),
                    Err(error) => {
                        self.page += 1;
                        return Some(Err(error));
                    }
                },
            };
            if self.at < page_count(bytes) {
                let block = page_block(bytes, places.kind(), self.at);
                self.at += 1;
                return (block.key() < self.until).then_some(Ok(block));
            }
            (self.page, self.at, self.bytes) = (self.page + 1, 0, None);
        }
    }
}

/// See [`Places::blocks`].
#[derive(Debug)]
pub struct Blocks<'a> {
    places: &'a Places,
    walk: Walk,
    /// The first message that is asked for.
    from: (u64, u64),
}

impl Places {
    /// The blocks of a topic that hold any of these offsets, rising, read page by page. A page that cannot be read is one
    /// error; the next is tried after it.
    #[must_use]
    pub fn blocks(&self, topic: u64, offsets: Range<u64>) -> Blocks<'_> {
        let found = self.topic(topic).map_or(0..0, |found| found.first..found.end);
        let (start, end) = (offsets.start.max(found.start), offsets.end.min(found.end));
        let page = if start < end { self.page_of(topic, start).unwrap_or(0) } else { self.pages() };
        let walk = Walk { page, until: (topic, end), keeps: true, ..Walk::all() };
        Blocks { places: self, walk, from: (topic, start) }
    }

    /// All blocks, in the order of (topic, offset), read page by page past the cache. A page that cannot be read is one
    /// error; the next is tried after it.
    #[must_use]
    pub fn all_blocks(&self) -> Blocks<'_> {
        Blocks { places: self, walk: Walk::all(), from: (0, 0) }
    }
}

impl Iterator for Blocks<'_> {
    type Item = Result<Block, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.walk.next(self.places)? {
                Ok(block) if (block.topic, block.end()) <= self.from => {}
                other => return Some(other),
            }
        }
    }
}
