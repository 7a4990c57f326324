//! Where messages stand, and reading them back.
//!
//! The queue knows offsets; bodies stand in segments and kept files. This is the way from one to the other, local to a node.
//! Of the newest messages memory tells ([`Fresh`]), of all others the files that were written with a snapshot. It is used off
//! the driver: [`Bodies`] is shared by the driver, which feeds it, and by whoever delivers. The newest entries stay in
//! memory, bounded in bytes; those that are not on this node's disk yet are pinned there, because they exist nowhere else
//! here.
//!
//! Every message that leaves has been checked: its CRC covers body, key and headers, and stands in the entry's meta or in the
//! kept file's index, which have CRCs of their own. One that cannot be read costs nobody but itself: its neighbours are
//! read, and it is named.

mod elsewhere;
mod entry;
mod fresh;
mod loaded;
mod located;
mod reading;
mod scrub;
mod shared;

pub use fresh::{FreshBlock, FreshBlocks};
pub use located::{Located, Lost, Readings};
pub(super) use scrub::go_on;
pub use scrub::{Ended, Pace, Pass};

use crate::replica::{AppliedEntry, DueBlock, Placement};
use bytes::Bytes;
pub(crate) use entry::Walk;

use entry::Entry;
use fresh::{Fresh, Stale};
use loaded::Loaded;
use raftqueue_queue::TopicId;
use raftqueue_raft::Index;
use raftqueue_wal::{DuePage, Filed, PlacesMap, Reader};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Bytes of the newest entries kept in memory, unless set otherwise.
pub const CACHE_BYTES_DEFAULT: usize = 64 << 20;
/// Bytes of pages of places files kept in memory.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes of entries read back whose messages stay known, for the next call on the same part of the log.
const LOADED_BYTES_MAX: usize = 8 << 20;
/// What an entry costs in memory besides its bodies: a bound for the cache, not an exact number.
const ENTRY_BYTES: usize = 256;
/// Spans of topics that are noted while readers wait.
const STEPS_MAX: usize = 500;
/// Topics whose oldest message's age is remembered.
const AGES_MAX: usize = 1_000;

#[derive(Debug, Default)]
struct Map {
    fresh: Fresh,
    files: PlacesMap,
    /// The newest entries, with their bodies.
    recent: BTreeMap<Index, (Arc<Entry>, Bytes)>,
    recent_bytes: usize,
    /// Everything up to here can be read back from the log.
    durable: Index,
    /// When a message of which only a file tells was published: asked for by topic, for the oldest one.
    ages: BTreeMap<TopicId, Age>,
}

/// When a topic's oldest message was published.
#[derive(Clone, Copy, Debug)]
struct Age {
    offset: u64,
    /// `None` until a file was asked.
    published_ms: Option<u64>,
    /// The time is that of an older message.
    is_stale: bool,
}

impl Map {
    /// Drops the oldest entries from memory, but none that exists only there.
    fn evict(&mut self, bytes_max: usize) {
        while self.recent_bytes > bytes_max
            && let Some(oldest) = self.recent.first_entry()
            && *oldest.key() <= self.durable
        {
            self.recent_bytes -= oldest.remove().1.len() + ENTRY_BYTES;
        }
    }
}

/// What is held in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Blocks of messages of which no file tells.
    pub blocks: usize,
    /// Blocks and pages that are to be looked at for their deadlines.
    pub due: usize,
    /// Topics of files.
    pub spans: usize,
    /// Bytes of the newest entries.
    pub bytes: usize,
    /// How many of these exist only in memory.
    pub pinned_bytes: usize,
}

/// What is not needed any more, and may take long to drop.
#[derive(Debug)]
pub struct Dropped {
    _files: Vec<Filed>,
    _stale: Stale,
}

/// Blocks and pages with deadlines that have come.
#[derive(Debug, Default)]
pub struct Due {
    /// Of these memory tells.
    pub blocks: Vec<DueBlock>,
    /// These are to be read: see [`Bodies::read_due`].
    pub pages: Vec<DuePage>,
}

/// See the module's header.
#[derive(Debug)]
pub struct Bodies {
    reader: DebugReader,
    cache_bytes_max: usize,
    loaded: Loaded,
    map: RwLock<Map>,
    /// Messages that cannot be read anywhere here, until the keeper asks.
    lost: Mutex<BTreeSet<(TopicId, u64)>>,
    /// A page of places cannot be read: what it told of is lost, whatever that is.
    is_page_lost: AtomicBool,
}

struct DebugReader(Reader);

impl std::fmt::Debug for DebugReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Bodies {
    /// Knows of nothing but what `files` tell.
    #[must_use]
    pub fn new(reader: Reader, cache_bytes_max: usize, files: Vec<Filed>) -> Self {
        let mut map = Map::default();
        map.files.change(files, &[]);
        while map.files.step(usize::MAX, |_| true).is_more {}
        Self {
            reader: DebugReader(reader),
            cache_bytes_max,
            loaded: Loaded::new(LOADED_BYTES_MAX),
            map: RwLock::new(map),
            lost: Mutex::default(),
            is_page_lost: AtomicBool::new(false),
        }
    }

    fn look(&self) -> RwLockReadGuard<'_, Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Map> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// An entry was applied. Called in the order of the log, each time with the index up to which the log is durable: that
    /// goes back when a tail is cut off, and what is applied before its write has ended must not be looked for on the
    /// disk, where the entry that it replaces may still stand.
    pub fn applied(&self, entry: AppliedEntry, durable: Index) {
        let AppliedEntry { index, bodies, placements } = entry;
        let mut map = self.change();
        map.durable = durable;
        for placement in &placements {
            let Placement { topic, first_offset, command, published_ms, messages, refused, .. } = placement;
            let block = FreshBlock {
                index,
                command: *command,
                refused: *refused,
                count: u32::try_from(messages.len()).expect("a publish is limited"),
                published_ms: *published_ms,
                deadline_ms: messages.iter().filter_map(|message| message.deadline_ms(*published_ms)).min(),
                bytes: messages.iter().map(|message| u64::from(message.size)).sum(),
            };
            map.fresh.add(*topic, *first_offset, block);
        }
        if let Some(bodies) = bodies {
            map.recent_bytes += bodies.len() + ENTRY_BYTES;
            map.recent.insert(index, (Arc::new(Entry::of_placements(placements)), bodies));
        }
        map.evict(self.cache_bytes_max);
    }

    /// Everything up to `index` is on this node's disk: a write has ended.
    pub fn durable(&self, index: Index) {
        let mut map = self.change();
        map.durable = index;
        map.evict(self.cache_bytes_max);
    }

    /// A snapshot of everything applied so far is about to be made: the blocks that have to go into files with it, the oldest
    /// first.
    #[must_use]
    pub fn freeze(&self) -> Vec<Arc<FreshBlocks>> {
        self.change().fresh.freeze()
    }

    /// The files have changed: `added` tell of the first `frozen` of the blocks that were frozen, and nothing is to be looked
    /// for in those of the numbers `removed` any more. Of topics that are not `live` nothing is noted. It takes a while, and
    /// readers get their turn in between; nothing is unfindable in the meantime. What is returned is to be dropped where
    /// nobody waits.
    pub fn filed(
        &self,
        frozen: usize,
        added: Vec<Filed>,
        removed: &[u64],
        live: impl Fn(TopicId) -> bool,
    ) -> Dropped {
        {
            let mut map = self.change();
            map.files.change(added, removed);
            map.fresh.filed(frozen);
        }
        let mut gone = Vec::new();
        loop {
            let mut map = self.change();
            let stepped = map.files.step(STEPS_MAX, |topic| live(TopicId(topic)));
            gone.extend(stepped.gone);
            if !stepped.is_more {
                return Dropped { _files: gone, _stale: map.fresh.left() };
            }
        }
    }

    /// Another node's snapshot takes the place of this node's log: what stood in the log and in no file stands nowhere.
    #[must_use = "it is to be dropped where nobody waits"]
    pub fn reset(&self) -> Dropped {
        let mut map = self.change();
        map.recent.clear();
        map.recent_bytes = 0;
        Dropped { _files: Vec::new(), _stale: map.fresh.reset() }
    }

    /// A topic was deleted: what is returned is to be dropped where nobody waits.
    #[must_use]
    pub fn forget(&self, topic: TopicId) -> impl Send + use<> {
        let mut map = self.change();
        map.ages.remove(&topic);
        map.files.drop_topic(topic.0)
    }

    /// What it holds in memory: for checkers.
    #[must_use]
    pub fn held(&self) -> Held {
        let map = self.look();
        let undurable = map.recent.range((Bound::Excluded(map.durable), Bound::Unbounded));
        Held {
            blocks: map.fresh.len(),
            due: map.fresh.due_len() + map.files.due_pages(),
            spans: map.files.spans(),
            bytes: map.recent_bytes,
            pinned_bytes: undurable.map(|(_, (_, bodies))| bodies.len() + ENTRY_BYTES).sum(),
        }
    }

    /// Blocks with deadlines that have come by `now_ms`, at most `max` and as many pages. Each is due again only once
    /// [`Bodies::look_again`] has said so.
    #[must_use]
    pub fn due(&self, now_ms: u64, max: usize) -> Due {
        let mut map = self.change();
        let block = |(topic, first_offset, count)| DueBlock { topic, first_offset, count };
        let blocks = map.fresh.take_due(now_ms, max).into_iter().map(block).collect();
        Due { blocks, pages: map.files.due(now_ms, max) }
    }

    /// Reads a page that is due: the blocks whose deadlines have come by `now_ms`. Reads the disk.
    #[must_use]
    pub fn read_due(&self, page: &DuePage, now_ms: u64) -> Vec<DueBlock> {
        let blocks = match page.file.page(page.page as usize) {
            Ok(blocks) => blocks,
            Err(error) => {
                // Its messages cannot be read either: they are found unreadable when they are received.
                tracing::error!("deadlines cannot be read: {error}");
                self.change().files.looked_at(page, None);
                return Vec::new();
            }
        };
        let deadlines = |due: bool| {
            blocks.iter().filter(move |block| block.deadline_ms.is_some_and(|ms| (ms <= now_ms) == due))
        };
        let next = deadlines(false).filter_map(|block| block.deadline_ms).min();
        self.change().files.looked_at(page, next);
        deadlines(true)
            .map(|block| DueBlock {
                topic: TopicId(block.topic),
                first_offset: block.first_offset,
                count: block.count,
            })
            .collect()
    }

    /// A block that was due is to be looked at again at `next_ms`.
    pub fn look_again(&self, block: &DueBlock, next_ms: u64) {
        let mut map = self.change();
        map.fresh.look_again(block.topic, block.first_offset, next_ms);
        map.files.look_again(block.topic.0, block.first_offset, next_ms);
    }

    /// When a message was published, in log time. Where only a file tells, `None` until [`Bodies::find_ages`] has asked it;
    /// meanwhile what was known of an older message of the topic stands in.
    #[must_use]
    pub fn published_ms(&self, topic: TopicId, offset: u64) -> Option<u64> {
        let known = {
            let map = self.look();
            if let Some((_, block)) = map.fresh.find(topic, offset) {
                return Some(block.published_ms);
            }
            map.ages.get(&topic).copied()
        };
        if known.is_none_or(|age| age.offset != offset) {
            let mut map = self.change();
            if map.ages.len() < AGES_MAX || map.ages.contains_key(&topic) {
                let published_ms = known.filter(|age| age.offset < offset).and_then(|age| age.published_ms);
                map.ages.insert(topic, Age { offset, published_ms, is_stale: true });
            }
        }
        known.filter(|age| age.offset <= offset).and_then(|age| age.published_ms)
    }
}
