//! The keeper: makes snapshots, writes where messages stand, and gives back what dead ones leave behind.
//!
//! One round begins when the replica freezes its state at an index:
//!
//! 1. [`Keeper::take_snapshot`] writes places files for everything up to the index, then the snapshot. The writer of the log
//!    makes them count with one manifest, and cuts the log before the older of the two snapshots.
//! 2. [`Keeper::compact`] asks the frozen state how much of each file is alive. What has no living message is retired. Of
//!    those of which less than half is alive the living messages are copied into a kept file, and then they are retired.
//!
//! After each, [`Keeper::filed`] says what [`Bodies`](super::bodies::Bodies) must know. A file that is retired at an index is
//! looked into no more, and goes only when the older snapshot covers that index: whoever falls back to the older snapshot
//! finds everything that was alive in it (RULES 3.1, 3.2).
//!
//! All of it blocks, and runs where nobody waits. Whoever drives it paces it: `pace` is told of every piece of IO.

mod alive;
mod copying;
mod filling;
mod lost;
mod worker;
mod writing;

pub use alive::KEPT_MESSAGE_BYTES;
pub use filling::{Filled, Giver};
pub use lost::LostMessages;
pub(crate) use worker::{KeeperThread, Worker};

use super::bodies::FreshBlocks;
use crate::metrics::Stored;
use crate::replica::Freeze;
use crate::replica::mutants::{self, Mutant};
use alive::Alive;
use copying::Source;
use raftqueue_queue::{State, TopicId};
use raftqueue_raft::Index;
use raftqueue_wal::disk::is_no_space;
use raftqueue_wal::{
    Block, Change, FileId, Filed, KeptFile, Manifest, OpenError, PageCache, Places, PlacesFile, PlacesKind,
    ReadError, Reader, Retired, Switched, Written,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind::NotFound};
use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;

/// So many kept files of less than a quarter of the size that they should have are made one. So a message that lives on is
/// copied once for each time that its file gets several times as large, and files do not get many.
const SMALL_FILES_MAX: usize = 8;
/// Most lost messages that are asked for again.
const LOST_MAX: usize = 10_000;

/// How the keeper works.
#[derive(Clone, Copy, Debug)]
pub struct KeeperSettings {
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes of bodies after which a kept file is full.
    pub kept_bytes_target: u64,
    /// Bytes copied in one round at most, so that snapshots are not held up by it.
    pub copied_bytes_max: u64,
}

impl KeeperSettings {
    /// For segments of so many bytes: a kept file is about as large, and a round copies one.
    #[must_use]
    pub fn new(segment_bytes: u64) -> Self {
        Self { segment_bytes, kept_bytes_target: segment_bytes, copied_bytes_max: segment_bytes }
    }
}

/// Why a round was given up. Nothing changed, and what was written is a leftover.
#[derive(Debug, Error)]
pub enum KeepError {
    /// A write failed; if the disk is full it can be tried again.
    #[error("{operation}: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// What the disk said.
        source: io::Error,
    },
    /// A file that tells where messages stand cannot be read.
    #[error("{operation}: {source}")]
    Read {
        /// What was being done.
        operation: &'static str,
        /// What is wrong with it.
        source: ReadError,
    },
    /// No other node gives what is missing here.
    #[error("no other node gives what is missing: {0}")]
    Nobody(String),
    /// Another node's snapshot has taken the place of this state.
    #[error("it is of a state that is past")]
    Past,
    /// The process ends.
    #[error("the process ends")]
    Stopped,
}

impl KeepError {
    /// Whether it is known that the change which led to it does not count.
    #[must_use]
    pub fn is_undone(&self) -> bool {
        match self {
            Self::Past => true,
            Self::Io { source, .. } => is_no_space(source),
            Self::Read { .. } | Self::Nobody(_) | Self::Stopped => false,
        }
    }
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> KeepError {
    move |source| KeepError::Io { operation, source }
}

/// Told of bytes that were read and written: waits so that others get their turn, or ends the round.
pub type Pace<'a> = dyn FnMut(u64) -> Result<(), KeepError> + 'a;

/// What a round begins with.
#[derive(Debug)]
pub struct Job {
    /// The state, and the index that it is of.
    pub freeze: Freeze,
    /// The blocks that no file tells of, the oldest first.
    pub blocks: Vec<Arc<FreshBlocks>>,
}

/// A file that messages are looked for in.
#[derive(Clone, Debug)]
struct InUse {
    places: Arc<Places>,
    /// Of a places file: every entry of its segment up to here is in it.
    to: Index,
}

/// What the readers of messages must know after a change of files.
#[derive(Debug, Default)]
pub struct FiledChange {
    /// New files.
    pub added: Vec<Filed>,
    /// The numbers of files in which nothing is to be looked for any more.
    pub removed: Vec<u64>,
}

/// See the module's header.
pub struct Keeper {
    reader: Reader,
    settings: KeeperSettings,
    cache: Arc<PageCache>,
    /// Places files, by segment.
    places: BTreeMap<u64, InUse>,
    /// Kept files, by number.
    kept: BTreeMap<u64, InUse>,
    /// Segments in which nothing is to be looked for any more, and which are still there.
    retired: BTreeSet<u64>,
    /// Files of which something living cannot be read: they stay until it is dead.
    stuck: BTreeSet<FileId>,
    /// Segments whose places files could not be read, and in how many rounds.
    doubted: BTreeMap<u64, u8>,
    /// How far getting missing messages has come.
    filling: filling::Filling,
    /// Files of which nothing can be used.
    damaged: Vec<String>,
    /// The same, as what is retired once every message is here.
    unusable: BTreeSet<FileId>,
    /// It is not known where every message stands that stands here.
    is_lacking: bool,
    /// Segments that hold such messages: they stay until those are here again.
    unplaced: BTreeSet<u64>,
    /// Messages that stand somewhere and cannot be read: they are got from others as if they stood nowhere.
    lost: BTreeSet<(TopicId, u64)>,
    /// What stood on the disk when it looked last.
    stored: Stored,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("places", &self.places.len()).field("kept", &self.kept.len()).finish()
    }
}

impl Keeper {
    /// A keeper that knows of the files of a manifest: those that a snapshot at `index` leads to. What is damaged is named in
    /// the log; its messages are unreadable here.
    ///
    /// # Errors
    /// The disk refuses to be read. That says nothing about what it holds, so nothing may go on from there: what is not known
    /// now would be written anew without it.
    pub fn open(
        reader: Reader,
        manifest: &Manifest,
        index: Index,
        cache: Arc<PageCache>,
        settings: KeeperSettings,
    ) -> Result<Self, OpenError> {
        let disk = reader.disk();
        let is_retired =
            |file: FileId| manifest.retired.iter().any(|retired| retired.file == file && retired.at <= index);
        let mut keeper = Self {
            reader,
            settings,
            cache,
            places: BTreeMap::new(),
            kept: BTreeMap::new(),
            retired: BTreeSet::new(),
            stuck: BTreeSet::new(),
            doubted: BTreeMap::new(),
            filling: filling::Filling::default(),
            damaged: Vec::new(),
            unusable: BTreeSet::new(),
            is_lacking: false,
            unplaced: BTreeSet::new(),
            lost: BTreeSet::new(),
            stored: Stored::default(),
        };
        let mut damaged = Vec::new();
        let mut open =
            |kind: PlacesKind, written: Written| match Places::open(&*disk, kind, written, &keeper.cache) {
                Ok(places) => Ok(Some(places)),
                // One that is not there will not be there later.
                Err(error) if matches!(&error, OpenError::Io { source, .. } if source.kind() != NotFound) => {
                    Err(error)
                }
                Err(error) => {
                    tracing::error!("messages cannot be found: {error}");
                    damaged.push(kind.file_name(written.number));
                    Ok(None)
                }
            };
        for &PlacesFile { number, size, crc, segment, to, .. } in &manifest.places {
            if is_retired(FileId::Segment(segment)) {
                keeper.retired.insert(segment);
            } else if let Some(places) = open(PlacesKind::Segment(segment), Written { number, size, crc })? {
                keeper.places.insert(segment, InUse { places, to });
            } else {
                keeper.unplaced.insert(segment);
            }
        }
        for &KeptFile { number, size, crc, since } in &manifest.kept {
            // One that was made after the snapshot in use tells of messages that live in that, too. Its sources are in use again,
            // for what has died since; with the next snapshot they go, and then it alone has the others.
            if !is_retired(FileId::Kept(number))
                && let Some(places) = open(PlacesKind::Kept, Written { number, size, crc })?
            {
                keeper.kept.insert(number, InUse { places, to: since });
            }
        }
        keeper.is_lacking = !damaged.is_empty();
        keeper.damaged = damaged;
        let released = manifest.released.iter().filter(|segment| keeper.reader.pin(**segment).is_none());
        let unplaced = manifest
            .released
            .iter()
            .filter(|segment| !keeper.places.contains_key(segment) && !keeper.retired.contains(segment));
        let segments = released.chain(unplaced).map(|segment| FileId::Segment(*segment));
        let kept = manifest.kept.iter().map(|file| FileId::Kept(file.number));
        let kept = kept.filter(|file| {
            matches!(file, FileId::Kept(number) if !keeper.kept.contains_key(number)) && !is_retired(*file)
        });
        keeper.unusable = segments.chain(kept).filter(|file| !is_retired(*file)).collect();
        keeper.read_every_meta();
        Ok(keeper)
    }

    /// Only where a rule is broken.
    fn read_every_meta(&self) {
        if mutants::is(Mutant::ReadEveryMeta) {
            let (mut at, last) = (self.reader.first_index(), self.reader.last_index());
            while at <= last {
                drop(self.reader.metas(at, at.next(), 1));
                at = at.next();
            }
        }
    }

    /// The files that could not be used when it began.
    #[must_use]
    pub fn damaged(&self) -> &[String] {
        &self.damaged
    }

    /// Whether messages may be lacking because files cannot be used, or because it is not known where messages stand.
    #[must_use]
    pub fn lacks_messages(&self) -> bool {
        self.is_lacking || !self.unusable.is_empty()
    }

    /// These messages stand somewhere and cannot be read.
    pub fn lose(&mut self, messages: BTreeSet<(TopicId, u64)>) {
        self.lost.extend(messages);
        // They may stand before what was looked at last.
        self.filling.again();
    }

    /// Nobody could give what was lost: it is not asked for any more until somebody wants to read it again.
    pub fn forget_lost(&mut self) {
        self.lost.clear();
    }

    /// No member has what was lost. It is asked for again now and then, unless that is too much to be remembered: then as if
    /// nobody could give it. True if it is remembered.
    pub fn remember_lost(&mut self) -> bool {
        if self.lost.len() > LOST_MAX {
            self.lost.clear();
        }
        !self.lost.is_empty()
    }

    /// What tells of files that cannot be used goes, now that every message stands elsewhere.
    pub fn retire_unusable(&mut self, index: Index) -> Vec<Retired> {
        self.is_lacking = false;
        self.unplaced.clear();
        std::mem::take(&mut self.unusable).into_iter().map(|file| Retired { file, at: index }).collect()
    }

    /// All files in use, for the readers of messages.
    #[must_use]
    pub fn files(&self) -> Vec<Filed> {
        let files = self.places.values().chain(self.kept.values());
        files.map(|file| Filed::new(Arc::clone(&file.places))).collect()
    }

    /// How much of what stands on the disk is alive in a state: for metrics.
    #[must_use]
    pub fn measure(&self, state: &State) -> Stored {
        let mut stored = Stored::default();
        for file in self.places.values().chain(self.kept.values()) {
            add(&mut stored, &Alive::of(&file.places, state));
        }
        stored
    }

    /// The same, as of the last compaction.
    #[must_use]
    pub fn stored(&self) -> Stored {
        self.stored
    }

    /// A change does not count and is not tried again: its files go.
    pub fn give_up(&self, change: &Change) {
        change.abandon(&*self.reader.disk());
    }

    /// Retires files without living messages, and copies the living ones out of files that have few. `None` if there is
    /// nothing to do.
    ///
    /// # Errors
    /// [`KeepError`]: nothing changed.
    pub fn compact(&mut self, freeze: &Freeze, pace: &mut Pace<'_>) -> Result<Option<Change>, KeepError> {
        let mut change = Change::default();
        let mut few = Vec::new();
        let in_log = self.reader.segments();
        let mut is_pinned = false;
        self.stored = Stored::default();
        for (&segment, file) in &self.places {
            let alive = Alive::of(&file.places, &freeze.state);
            add(&mut self.stored, &alive);
            let is_in_log = in_log.binary_search(&segment).is_ok();
            let span = self.reader.segment_span(segment);
            if is_pinned && mutants::is(Mutant::PinByOldest) {
                continue;
            }
            is_pinned |= alive.messages > 0;
            let is_whole = !is_in_log || span.is_some_and(|span| span.is_sealed && file.to >= span.last);
            if !is_whole || self.unplaced.contains(&segment) {
                continue;
            }
            let id = FileId::Segment(segment);
            if alive.messages == 0 {
                change.retire.push(Retired { file: id, at: freeze.index });
            } else if !is_in_log
                && !self.stuck.contains(&id)
                && alive.kept_bytes() < self.settings.segment_bytes / 2
            {
                let (places, live_bytes) = (Arc::clone(&file.places), alive.bytes);
                few.push(Source { file: id, places, live_bytes, is_few: true });
            }
        }
        let mut small = Vec::new();
        for (&number, file) in &self.kept {
            let alive = Alive::of(&file.places, &freeze.state);
            add(&mut self.stored, &alive);
            let id = FileId::Kept(number);
            if alive.messages == 0 {
                change.retire.push(Retired { file: id, at: freeze.index });
            } else if !self.stuck.contains(&id) {
                let (places, live_bytes) = (Arc::clone(&file.places), alive.bytes);
                let is_few = alive.bytes < alive.all_bytes / 2;
                let source = Source { file: id, places, live_bytes, is_few };
                if is_few {
                    few.push(source);
                } else if alive.bytes < self.settings.kept_bytes_target / 4 {
                    small.push(source);
                }
            }
        }
        if small.len() >= SMALL_FILES_MAX {
            few.append(&mut small);
        }
        if let Err(error) = self.copy_out(freeze, few, &mut change, pace) {
            self.give_up(&change);
            return Err(error);
        }
        let is_empty = change.retire.is_empty() && change.kept.is_empty();
        Ok((!is_empty).then_some(change))
    }

    /// A manifest names the files of a change by now.
    ///
    /// # Errors
    /// A file that was just written cannot be opened: the disk does not keep what it is given.
    pub fn filed(&mut self, change: &Change, switched: &Switched) -> Result<FiledChange, KeepError> {
        let mut filed = FiledChange::default();
        let disk = self.reader.disk();
        let cache = Arc::clone(&self.cache);
        let open = |kind, written| {
            Places::open(&*disk, kind, written, &cache).map_err(|error| KeepError::Io {
                operation: "open what was just written",
                source: io::Error::other(error.to_string()),
            })
        };
        for &PlacesFile { number, size, crc, segment, to, .. } in &change.places {
            let places = open(PlacesKind::Segment(segment), Written { number, size, crc })?;
            filed.added.push(Filed::new(Arc::clone(&places)));
            let before = self.places.insert(segment, InUse { places, to });
            filed.removed.extend(before.map(|before| before.places.number()));
        }
        for &KeptFile { number, size, crc, since } in &change.kept {
            let places = open(PlacesKind::Kept, Written { number, size, crc })?;
            filed.added.push(Filed::new(Arc::clone(&places)));
            // What is in it could be read.
            self.lost.retain(|(topic, offset)| !matches!(places.find(topic.0, *offset), Ok(Some(_))));
            self.kept.insert(number, InUse { places, to: since });
            self.filling.counts(number);
        }
        for file in change.retire.iter().map(|retired| retired.file) {
            if let FileId::Segment(segment) = file {
                self.retired.insert(segment);
            }
            filed.removed.extend(self.leave(file));
        }
        for &file in &switched.gone {
            if let FileId::Segment(segment) = file {
                self.retired.remove(&segment);
                self.unplaced.remove(&segment);
            }
            self.stuck.remove(&file);
            // It went before all that it may have held was got from others.
            self.is_lacking |= self.unusable.remove(&file);
            filed.removed.extend(self.leave(file));
        }
        Ok(filed)
    }

    /// The log went over to another node's snapshot at `index`: what that has and stands in no file is missing, from the first
    /// topic on.
    ///
    /// # Errors
    /// As [`Keeper::filed`].
    pub fn went_over(&mut self, index: Index, switched: &Switched) -> Result<FiledChange, KeepError> {
        self.filling = filling::Filling::since(index);
        self.filed(&Change::default(), switched)
    }

    /// Nothing is to be looked for in a file any more: the number of what tells of it.
    fn leave(&mut self, file: FileId) -> Option<u64> {
        let before = match file {
            FileId::Segment(segment) => self.places.remove(&segment),
            FileId::Kept(number) => self.kept.remove(&number),
        };
        before.map(|before| before.places.number())
    }
}

fn add(stored: &mut Stored, alive: &Alive) {
    stored.message_bytes += alive.all_bytes;
    stored.live_bytes += alive.bytes;
}

fn run_of(block: &Block) -> Range<u64> {
    block.first_offset..block.first_offset + u64::from(block.count)
}
