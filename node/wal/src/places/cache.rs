//! Pages that were read, bounded in bytes over all files.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a page costs in memory: its bytes, and what leads to them.
const PAGE_COST_BYTES: usize = 4096 + 256;

/// The pages that were used last, of all files that were opened with it.
#[derive(Debug)]
pub struct PageCache {
    pages_max: usize,
    pages: Mutex<Pages>,
}

/// A file of the cache, and a page in it.
type Key = (u64, u32);

#[derive(Debug, Default)]
struct Pages {
    /// Each with the moment of its last use.
    pages: BTreeMap<Key, (Bytes, u64)>,
    /// The same by moment.
    used: BTreeMap<u64, Key>,
    now: u64,
    files: u64,
}

impl PageCache {
    /// An empty cache of at most so many bytes; below a page's 4 KiB it holds nothing.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<PageCache> {
        Arc::new(PageCache { pages_max: bytes_max / PAGE_COST_BYTES, pages: Mutex::default() })
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.lock().pages.len() * PAGE_COST_BYTES
    }

    /// A name for one more file.
    pub(super) fn file(&self) -> u64 {
        let mut pages = self.lock();
        pages.files += 1;
        pages.files
    }

    pub(super) fn get(&self, file: u64, page: u32) -> Option<Bytes> {
        let mut pages = self.lock();
        let pages = &mut *pages;
        let (bytes, used) = pages.pages.get_mut(&(file, page))?;
        pages.now += 1;
        pages.used.remove(used);
        pages.used.insert(pages.now, (file, page));
        *used = pages.now;
        Some(bytes.clone())
    }

    pub(super) fn put(&self, file: u64, page: u32, bytes: Bytes) {
        if self.pages_max == 0 {
            return;
        }
        let mut pages = self.lock();
        let pages = &mut *pages;
        pages.now += 1;
        if let Some((_, used)) = pages.pages.insert((file, page), (bytes, pages.now)) {
            pages.used.remove(&used);
        }
        pages.used.insert(pages.now, (file, page));
        if pages.pages.len() > self.pages_max
            && let Some((_, oldest)) = pages.used.pop_first()
        {
            pages.pages.remove(&oldest);
        }
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
