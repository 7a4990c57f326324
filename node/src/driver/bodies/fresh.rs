//! Where the newest messages stand: blocks that no file tells of yet.
//!
//! They are gathered in memory from snapshot to snapshot, so their number is bounded by what is applied between two. With
//! each snapshot they are frozen, written to places files, and then dropped as a whole.

use crate::replica::mutants::{self, Mutant};
use raftqueue_queue::TopicId;
use raftqueue_raft::Index;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Messages of one topic in one entry, with consecutive offsets, in consecutive publishes of that topic that were all
/// accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreshBlock {
    /// The entry.
    pub index: Index,
    /// Which command of the entry is the first of its publishes.
    pub command: u32,
    /// How many publishes of the entry were refused before these.
    pub refused: u32,
    /// How many messages it has.
    pub count: u32,
    /// When they were published, in log time.
    pub published_ms: u64,
    /// The least deadline of its messages, in log time.
    pub deadline_ms: Option<u64>,
    /// Bytes of its messages.
    pub bytes: u64,
}

impl FreshBlock {
    pub(super) fn holds(&self, first_offset: u64, offset: u64) -> bool {
        offset >= first_offset && offset - first_offset < u64::from(self.count)
    }
}

/// Blocks by topic and first offset.
pub type FreshBlocks = BTreeMap<(TopicId, u64), FreshBlock>;

/// The blocks between two snapshots.
#[derive(Debug, Default)]
struct Generation {
    blocks: Arc<FreshBlocks>,
    /// When to look at blocks with deadlines: time, topic, first offset.
    due: BTreeSet<(u64, TopicId, u64)>,
    /// Those that are to be looked at again, and when. Each once: where a file tells of a block, too, both say so.
    again: BTreeMap<(TopicId, u64), u64>,
}

impl Generation {
    /// The block waits for this time, unless it waits for an earlier one.
    fn look_again(&mut self, topic: TopicId, first_offset: u64, when_ms: u64) {
        if !self.blocks.contains_key(&(topic, first_offset)) {
            return;
        }
        let again = self.again.entry((topic, first_offset)).or_insert(u64::MAX);
        if when_ms < *again {
            self.due.remove(&(*again, topic, first_offset));
            self.due.insert((when_ms, topic, first_offset));
            *again = when_ms;
        }
    }
}

/// All blocks that no file tells of.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    /// Since the last snapshot.
    newest: Generation,
    /// Of snapshots that are being made, or could not be made: the oldest first.
    frozen: Vec<Generation>,
    /// Files tell of these, and not every one of these files is in force yet.
    leaving: Vec<Generation>,
}

/// What no longer is fresh, to be dropped where nobody waits.
#[derive(Debug, Default)]
pub(super) struct Stale(#[allow(dead_code, reason = "it is there to be dropped")] Vec<Generation>);

impl Fresh {
    /// Adds a block, or makes the last one longer by it, if no publish of the entry that stands between them was refused: of
    /// one that was, nobody who reads the entry could tell that it has no messages.
    pub(super) fn add(&mut self, topic: TopicId, first_offset: u64, block: FreshBlock) {
        let Generation { blocks, due, .. } = &mut self.newest;
        let blocks = Arc::get_mut(blocks).expect("only frozen blocks are shared");
        let last = blocks.range_mut((topic, 0)..(topic, first_offset)).next_back();
        let Some((&(_, first), last)) = last.filter(|((_, first), last)| {
            (last.index, last.refused) == (block.index, block.refused)
                && first + u64::from(last.count) == first_offset
        }) else {
            due.extend(block.deadline_ms.map(|deadline_ms| (deadline_ms, topic, first_offset)));
            blocks.insert((topic, first_offset), block);
            return;
        };
        last.count += block.count;
        last.bytes += block.bytes;
        if let Some(deadline_ms) = block.deadline_ms
            && last.deadline_ms.is_none_or(|before| deadline_ms < before)
        {
            // A block is looked at as a whole.
            if let Some(before) = last.deadline_ms.replace(deadline_ms) {
                due.remove(&(before, topic, first));
            }
            due.insert((deadline_ms, topic, first));
        }
    }

    /// The block of a message, and its first offset.
    pub(super) fn find(&self, topic: TopicId, offset: u64) -> Option<(u64, FreshBlock)> {
        let leaving = if mutants::is(Mutant::KeepFreshBlocks) { &[][..] } else { &self.leaving };
        let older = self.frozen.iter().rev().chain(leaving);
        let mut generations = std::iter::once(&self.newest).chain(older);
        generations.find_map(|generation| {
            let (&(of, first), block) = generation.blocks.range(..=(topic, offset)).next_back()?;
            (of == topic && block.holds(first, offset)).then_some((first, *block))
        })
    }

    /// A snapshot of everything applied so far is about to be made: all blocks that no file tells of, the oldest first. They
    /// stay findable until files tell of them.
    pub(super) fn freeze(&mut self) -> Vec<Arc<FreshBlocks>> {
        if !self.newest.blocks.is_empty() {
            self.frozen.push(std::mem::take(&mut self.newest));
        }
        self.frozen.iter().map(|generation| Arc::clone(&generation.blocks)).collect()
    }

    /// Files tell of the first `count` of what was frozen, as soon as they are in force.
    pub(super) fn filed(&mut self, count: usize) {
        let count = count.min(self.frozen.len());
        self.leaving.extend(self.frozen.drain(..count));
    }

    /// All files are in force.
    pub(super) fn left(&mut self) -> Stale {
        if mutants::is(Mutant::KeepFreshBlocks) {
            return Stale::default();
        }
        Stale(std::mem::take(&mut self.leaving))
    }

    /// Blocks whose least deadline has come, at most `max`: each is due again only when [`Fresh::look_again`] says so.
    pub(super) fn take_due(&mut self, now_ms: u64, max: usize) -> Vec<(TopicId, u64, u32)> {
        let mut found = Vec::new();
        for generation in self.frozen.iter_mut().chain([&mut self.newest]) {
            while found.len() < max
                && let Some(&(when, topic, first)) = generation.due.first()
                && when <= now_ms
            {
                generation.due.pop_first();
                generation.again.remove(&(topic, first));
                if let Some(block) = generation.blocks.get(&(topic, first)) {
                    found.push((topic, first, block.count));
                }
            }
        }
        found
    }

    /// A block is to be looked at again. If a file tells of it by now, the file knows when.
    pub(super) fn look_again(&mut self, topic: TopicId, first_offset: u64, when_ms: u64) {
        for generation in self.frozen.iter_mut().chain([&mut self.newest]) {
            generation.look_again(topic, first_offset, when_ms);
        }
    }

    /// The log that these blocks are in is no more.
    pub(super) fn reset(&mut self) -> Stale {
        let Self { newest, mut frozen, leaving } = std::mem::take(self);
        frozen.push(newest);
        frozen.extend(leaving);
        Stale(frozen)
    }

    /// How many blocks there are.
    pub(super) fn len(&self) -> usize {
        let older = self.frozen.iter().chain(&self.leaving);
        older.chain([&self.newest]).map(|generation| generation.blocks.len()).sum()
    }

    /// How many of them are to be looked at for their deadlines.
    pub(super) fn due_len(&self) -> usize {
        let older = self.frozen.iter().chain(&self.leaving);
        older.chain([&self.newest]).map(|generation| generation.due.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: TopicId = TopicId(3);

    fn block(index: u64, count: u32, deadline_ms: Option<u64>) -> FreshBlock {
        FreshBlock {
            index: Index(index),
            command: 0,
            refused: 0,
            count,
            published_ms: 1,
            deadline_ms,
            bytes: 10,
        }
    }

    #[test]
    fn publishes_of_one_entry_are_one_block_unless_something_between_them_was_refused() {
        let mut fresh = Fresh::default();
        fresh.add(T, 0, block(5, 2, None));
        fresh.add(T, 2, block(5, 3, None));
        // One was refused in between, perhaps followed by one of another topic.
        fresh.add(T, 5, FreshBlock { refused: 1, ..block(5, 1, None) });
        fresh.add(T, 6, block(6, 1, None));
        assert_eq!(fresh.len(), 3);
        let (first, found) = fresh.find(T, 4).unwrap();
        assert_eq!((first, found.count, found.bytes), (0, 5, 20));
        assert_eq!(fresh.find(T, 5).unwrap().0, 5);
        assert_eq!(fresh.find(T, 6).unwrap().1.index, Index(6));
        assert!(fresh.find(T, 7).is_none() && fresh.find(TopicId(2), 1).is_none());
    }

    #[test]
    fn a_block_is_due_once_at_its_least_deadline() {
        let mut fresh = Fresh::default();
        fresh.add(T, 0, block(5, 1, Some(90)));
        fresh.add(T, 1, block(5, 1, Some(70)));
        fresh.add(T, 2, block(5, 1, Some(80)));
        fresh.add(T, 3, block(6, 1, None));
        assert!(fresh.take_due(69, 10).is_empty());
        assert_eq!(fresh.take_due(70, 10), [(T, 0, 3)]);
        assert!(fresh.take_due(1_000, 10).is_empty());
        [90, 80, 85].into_iter().for_each(|when_ms| fresh.look_again(T, 0, when_ms));
        fresh.freeze();
        assert_eq!(fresh.take_due(80, 10), [(T, 0, 3)], "also while it is being written");
        assert!(fresh.take_due(1_000, 10).is_empty(), "once, however often it was said");
        fresh.look_again(T, 0, 80);
        assert_eq!(fresh.take_due(80, 10), [(T, 0, 3)]);
    }

    #[test]
    fn what_was_frozen_is_found_until_files_tell_of_it_and_a_failed_snapshot_is_made_up_for() {
        let mut fresh = Fresh::default();
        fresh.add(T, 0, block(5, 1, None));
        assert_eq!(fresh.freeze().len(), 1);
        fresh.add(T, 1, block(6, 1, Some(9)));
        assert_eq!(fresh.freeze().len(), 2, "the first one was not filed");
        fresh.add(T, 2, block(7, 1, None));
        assert_eq!(fresh.len(), 3);
        fresh.filed(2);
        assert!(fresh.find(T, 0).is_some() && fresh.len() == 3, "the files may not be in force yet");
        drop(fresh.left());
        assert!(fresh.find(T, 0).is_none() && fresh.find(T, 1).is_none() && fresh.find(T, 2).is_some());
        fresh.look_again(T, 1, 9);
        assert!(fresh.take_due(9, 10).is_empty());
        assert_eq!(fresh.freeze().len(), 1);
    }
}
