//! Getting the messages that live and do not stand here from other nodes: what is left of an install.
//!
//! What is missing is not listed anywhere: it is what lives in the frozen state and stands in no file. So the files are the
//! cursor. Whatever ends a transfer costs at most the kept file under way, and the next one may come from another node.

use super::{KeepError, Keeper, LostMessages, Pace, failed};
use crate::replica::{Freeze, Gift, Given};
use raftqueue_queue::{State, TopicId};
use raftqueue_raft::{Index, NodeId};
use raftqueue_wal::{Block, Change, KeptFile, PlacesKind, PlacesWriter, ReadError, Spot, Written};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

/// Living messages that are looked at at once.
const WINDOW: u64 = 4_096;
/// Runs of them: messages that are few and far between are asked for together, too.
const RUNS_MAX: usize = 1_024;
/// So often in a row every member must say that it does not have what is missing before that is lost: reading may fail for
/// once, and somebody may be on the point of getting it from somebody else.
const LOST_ROUNDS: u32 = 3;

/// Somebody who gives messages: other nodes, one after the other.
pub trait Giver {
    /// Asks for messages of a topic: ranges of offsets, rising. At least the first of them is answered. `passed` of the nodes
    /// that could be asked were asked for these already.
    ///
    /// # Errors
    /// Nobody more gives anything now; it is tried again later. The text says why.
    fn give(&mut self, passed: usize, topic: TopicId, wanted: &[Range<u64>]) -> Result<Gift, String>;

    /// The node that asks. Who cannot tell never learns that messages are lost.
    fn own(&self) -> Option<NodeId> {
        None
    }

    /// The node that gave last.
    fn gave(&self) -> Option<NodeId> {
        None
    }
}

/// Where filling stands.
///
/// Of the state that was looked at nothing is missing before the topic and offset, and so nothing is of a later state: what
/// was published since stands in this node's own log.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursor {
    topic: TopicId,
    offset: u64,
    /// The greatest index at which a giver had removed something that lived here.
    gone_at: Index,
    unreadable: u64,
    /// Which those are that nobody who answered could give.
    lost: LostMessages,
    /// Somebody who may have some of that did not answer, or has not come so far.
    is_unsure: bool,
}

/// How far filling has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Filling {
    /// The snapshot that the log went over to: of a state before it nothing is missing, which says nothing about this one.
    since: Index,
    /// As the files that count tell.
    done: Cursor,
    /// So far, once the kept file of this number counts.
    next: Option<(u64, Cursor)>,
    /// What every member said last that it does not have, and how often in a row they said so.
    missed: (LostMessages, u32),
}

impl Filling {
    /// It begins, for what lives at an index.
    pub(super) fn since(index: Index) -> Self {
        Self { since: index, ..Self::default() }
    }

    /// It begins anew, for what lives where it began.
    pub(super) fn again(&mut self) {
        *self = Self { missed: std::mem::take(&mut self.missed), ..Self::since(self.since) };
    }

    /// Nobody who answered has these, or no member has. True if every member has said so often enough, now or before.
    fn miss(&mut self, lost: &LostMessages, is_unsure: bool) -> bool {
        if self.missed.0 != *lost {
            self.missed = (lost.clone(), 0);
        }
        self.missed.1 = (self.missed.1 + u32::from(!is_unsure)).min(LOST_ROUNDS);
        self.missed.1 == LOST_ROUNDS
    }

    /// A kept file counts.
    pub(super) fn counts(&mut self, number: u64) {
        if let Some((_, cursor)) = self.next.take_if(|(file, _)| *file == number) {
            self.done = cursor;
        }
    }
}

/// What came of a part of filling.
#[derive(Debug)]
pub enum Filled {
    /// Some messages have come: a kept file is to be made to count, and then there may be more.
    Part(Change),
    /// Nothing is missing in the state as of the freeze.
    Whole,
    /// Messages that live in this state were removed meanwhile at the giver: whole once this much is applied.
    WholeAt(Index),
    /// Messages are left that nobody could read who answered.
    Lacking(u64),
    /// Messages are left that no member of the cluster has (RULES 3.4).
    Lost(LostMessages),
}

impl Keeper {
    /// Gets missing messages, up to a kept file full.
    ///
    /// # Errors
    /// [`KeepError::Nobody`] if nobody gives any of them now; [`KeepError::Past`] if the log went over to a later state; the
    /// others as everywhere. Nothing changed.
    pub fn fill(
        &mut self,
        freeze: &Freeze,
        giver: &mut dyn Giver,
        pace: &mut Pace<'_>,
    ) -> Result<Filled, KeepError> {
        if freeze.index < self.filling.since {
            return Err(KeepError::Past);
        }
        // What came last and does not count has not come.
        let mut cursor = self.filling.done.clone();
        let mut kept = Kept { keeper: self, writer: None, bytes: 0 };
        let filled = fill(&mut kept, freeze, &mut cursor, giver, pace);
        let change = match (filled, kept.writer.take()) {
            (Ok(()), Some(writer)) => Some(finish(kept.keeper, writer, freeze.index)?),
            (Ok(()), None) => None,
            // What has come stays: where each transfer breaks off there would be no end else.
            (Err(KeepError::Nobody(_)), Some(writer)) => Some(finish(kept.keeper, writer, freeze.index)?),
            (Err(error), writer) => {
                if let Some(writer) = writer {
                    // A leftover that cannot be removed now goes at the next start.
                    let _ = writer.abandon(&*kept.keeper.reader.disk());
                }
                return Err(error);
            }
        };
        if let Some(change) = change {
            self.filling.next = change.kept.last().map(|file| (file.number, cursor));
            return Ok(Filled::Part(change));
        }
        self.filling.done = cursor.clone();
        Ok(match cursor.gone_at {
            _ if cursor.unreadable > 0 => {
                // They are asked for again, with all others that stand nowhere.
                self.filling.again();
                if self.filling.miss(&cursor.lost, cursor.is_unsure) {
                    Filled::Lost(cursor.lost)
                } else {
                    Filled::Lacking(cursor.unreadable)
                }
            }
            gone_at if gone_at > freeze.index => Filled::WholeAt(gone_at),
            _ => {
                // What is left of it does not live any more.
                self.lost.clear();
                Filled::Whole
            }
        })
    }

    /// It is not known any more where every message of a segment stands: others are asked for whatever stands nowhere.
    pub(super) fn lacks_what_stands_in(&mut self, segment: u64) {
        self.is_lacking = true;
        self.unplaced.insert(segment);
        self.filling.again();
    }

    /// How many messages of a state stand in no file. Costs as much as finding them for [`Keeper::fill`].
    ///
    /// # Errors
    /// A file that tells where messages stand cannot be read.
    pub fn missing(&self, state: &State) -> Result<u64, KeepError> {
        let mut missing = 0;
        for topic in state.topics_from(TopicId(0)) {
            for run in state.live_runs(topic.id(), 0..u64::MAX) {
                let mut from = run.start;
                while from < run.end {
                    let window = from..run.end.min(from.saturating_add(WINDOW));
                    let lacking = without(&window, &self.standing(topic.id(), &window)?);
                    missing += lacking.iter().map(|range| range.end - range.start).sum::<u64>();
                    from = window.end;
                }
            }
        }
        Ok(missing)
    }

    /// How many messages stand in new kept files.
    pub(super) fn messages_in(&self, files: &[KeptFile]) -> u64 {
        files.iter().filter_map(|file| self.kept.get(&file.number)).map(|file| file.places.messages()).sum()
    }

    /// What stands in files of a range of a topic's offsets: ranges, rising and apart.
    fn standing(&self, topic: TopicId, within: &Range<u64>) -> Result<Vec<Range<u64>>, KeepError> {
        let mut found: Vec<Range<u64>> = Vec::new();
        for file in self.places.values().chain(self.kept.values()) {
            if matches!(file.places.kind(), PlacesKind::Segment(number) if self.reader.pin(number).is_none())
            {
                continue; // What it tells of is gone.
            }
            for block in file.places.blocks(topic.0, within.clone()) {
                match block {
                    Ok(block) => found.push(super::run_of(&block)),
                    // Whatever it tells of cannot be found here: others are asked for it.
                    Err(ReadError::Rot(rotten)) => tracing::error!("messages cannot be found: {rotten}"),
                    Err(source) => {
                        return Err(KeepError::Read { operation: "look for what is missing", source });
                    }
                }
            }
        }
        found.sort_unstable_by_key(|run| run.start);
        let lost = self.lost.range((topic, within.start)..(topic, within.end));
        let lost: Vec<Range<u64>> = lost.map(|(_, offset)| *offset..offset + 1).collect();
        if !lost.is_empty() {
            found = found.iter().flat_map(|run| without(run, &lost)).collect();
        }
        Ok(found)
    }
}

/// The kept file that messages are put into.
struct Kept<'a> {
    keeper: &'a Keeper,
    writer: Option<PlacesWriter>,
    bytes: u64,
}

impl Kept<'_> {
    fn put(&mut self, topic: TopicId, given: &Given) -> Result<(), KeepError> {
        if crc32c::crc32c(&given.record) != given.crc {
            return Err(KeepError::Nobody(format!("message {} of topic {topic} came damaged", given.offset)));
        }
        if self.writer.is_none() {
            let disk = self.keeper.reader.disk();
            let number = self.keeper.reader.next_file();
            let writer = PlacesWriter::create(&*disk, number, PlacesKind::Kept);
            self.writer = Some(writer.map_err(failed("make a kept file"))?);
        }
        let writer = self.writer.as_mut().expect("just made");
        let offset = writer.body(&given.record).map_err(failed("write a kept file"))?;
        let block = Block {
            topic: topic.0,
            first_offset: given.offset,
            count: 1,
            spot: Spot::Kept { offset, crc: given.crc },
            published_ms: given.published_ms,
            deadline_ms: given.deadline_ms,
            bytes: given.record.len() as u64,
        };
        self.bytes += block.bytes;
        writer.push(&block).map_err(failed("write a kept file"))
    }

    fn is_full(&self) -> bool {
        self.bytes >= self.keeper.settings.kept_bytes_target
    }
}

fn finish(keeper: &Keeper, writer: PlacesWriter, since: Index) -> Result<Change, KeepError> {
    let disk = keeper.reader.disk();
    let Written { number, size, crc } = writer.finish(&*disk).map_err(failed("finish a kept file"))?;
    Ok(Change { kept: vec![KeptFile { number, size, crc, since }], ..Change::default() })
}

/// Goes on from the cursor until a kept file is full or nothing is missing.
fn fill(
    kept: &mut Kept<'_>,
    freeze: &Freeze,
    cursor: &mut Cursor,
    giver: &mut dyn Giver,
    pace: &mut Pace<'_>,
) -> Result<(), KeepError> {
    for topic in freeze.state.topics_from(cursor.topic) {
        let id = topic.id();
        if id > cursor.topic {
            (cursor.topic, cursor.offset) = (id, 0);
        }
        loop {
            let window = window(freeze.state.live_runs(id, cursor.offset..u64::MAX));
            let (Some(first), Some(last)) = (window.first(), window.last()) else { break };
            let end = last.end;
            let standing = kept.keeper.standing(id, &(first.start..end))?;
            let mut missing: Vec<_> = window.iter().flat_map(|run| without(run, &standing)).collect();
            while !missing.is_empty() {
                let Asked { gift, left, is_unsure } = ask(giver, id, &missing, freeze)?;
                for given in &gift.messages {
                    kept.put(id, given)?;
                }
                pace(gift.messages.iter().map(|given| given.record.len() as u64).sum())?;
                cursor.gone_at = cursor.gone_at.max(gift.gone_at.unwrap_or_default());
                cursor.unreadable += gift.unreadable;
                left.into_iter().for_each(|range| cursor.lost.add(id, range));
                cursor.is_unsure |= is_unsure;
                cursor.offset = gift.through;
                missing = behind(&missing, gift.through);
                if kept.is_full() {
                    return Ok(());
                }
            }
            cursor.offset = end;
        }
    }
    Ok(())
}

/// The first of the living messages, as many as are looked at at once.
fn window(runs: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut window = Vec::new();
    let mut room = WINDOW;
    for run in runs.take(RUNS_MAX) {
        let end = run.end.min(run.start.saturating_add(room));
        room -= end - run.start;
        window.push(run.start..end);
        if room == 0 {
            break;
        }
    }
    window
}

/// What the other nodes say to a question for messages.
struct Asked {
    /// What they give together.
    gift: Gift,
    /// What was asked for, as far as the first of them went, and nobody gave though it lives.
    left: Vec<Range<u64>>,
    /// Some member may have it all the same.
    is_unsure: bool,
}

/// Asks one node after the other until all that lives was given, as far as the first of them went.
fn ask(
    giver: &mut dyn Giver,
    topic: TopicId,
    wanted: &[Range<u64>],
    freeze: &Freeze,
) -> Result<Asked, KeepError> {
    let mut silent: BTreeSet<NodeId> = freeze.configuration.peers();
    silent.retain(|id| Some(*id) != giver.own());
    let mut all: Option<Gift> = None;
    let mut left = wanted.to_vec();
    for passed in 0.. {
        let mut gift = match giver.give(passed, topic, &left) {
            Ok(gift) => gift,
            // A cluster of this node alone asks nobody.
            Err(_) if all.is_none() && silent.is_empty() => nothing_of(&left),
            Err(why) if all.is_none() => return Err(KeepError::Nobody(why)),
            Err(_) => break,
        };
        if gift.through <= left[0].start {
            return Err(KeepError::Nobody("nothing of what was asked for was given".into()));
        }
        let is_behind = gift.gone_at.is_some_and(|at| at < freeze.index);
        if is_behind {
            // It has not come so far: what it calls gone it may not know yet. What it gives is good.
            let asked: u64 =
                left.iter().map(|range| range.end.min(gift.through).saturating_sub(range.start)).sum();
            gift.unreadable = asked.saturating_sub(gift.messages.len() as u64);
            gift.gone_at = None;
        } else if let Some(node) = giver.gave() {
            silent.remove(&node);
        }
        let through = all.as_ref().map_or(gift.through, |all| all.through.min(gift.through));
        let Gift { mut messages, gone_at, .. } = all.take().unwrap_or_default();
        let is_wanted = |given: &Given| left.iter().any(|range| range.contains(&given.offset));
        messages.extend(gift.messages.into_iter().filter(is_wanted));
        messages.retain(|given| given.offset < through);
        messages.sort_by_key(|given| given.offset);
        let gone_at = gone_at.max(gift.gone_at);
        let unreadable = gift.unreadable;
        let all = all.insert(Gift { messages, through, gone_at, unreadable });
        let given: Vec<_> = all.messages.iter().map(|given| given.offset..given.offset + 1).collect();
        let before = wanted.iter().map(|range| range.start.min(through)..range.end.min(through));
        left = before.flat_map(|range| without(&range, &given)).collect();
        if unreadable == 0 || left.is_empty() {
            left.clear();
            break;
        }
    }
    let mut gift = all.expect("somebody answered");
    if left.is_empty() {
        gift.unreadable = 0;
    }
    // What is gone there is among what is left: with the next state it is not.
    let is_unsure = !left.is_empty() && (!silent.is_empty() || gift.gone_at.is_some());
    Ok(Asked { gift, left, is_unsure })
}

/// None of what is wanted.
fn nothing_of(wanted: &[Range<u64>]) -> Gift {
    let unreadable = wanted.iter().map(|range| range.end - range.start).sum();
    Gift { through: wanted.last().map_or(0, |range| range.end), unreadable, ..Gift::default() }
}

/// What of ranges lies behind an offset.
fn behind(ranges: &[Range<u64>], offset: u64) -> Vec<Range<u64>> {
    let rest = ranges.iter().map(|range| range.start.max(offset)..range.end);
    rest.filter(|range| !range.is_empty()).collect()
}

/// What of `range` is in none of `others`, which rise but may overlap.
fn without(range: &Range<u64>, others: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut from = range.start;
    if range.is_empty() {
        return left;
    }
    for other in others {
        if other.end <= from {
            continue;
        }
        if other.start > from {
            left.push(from..other.start.min(range.end));
        }
        from = from.max(other.end);
        if from >= range.end {
            return left;
        }
    }
    left.push(from..range.end);
    left
}

impl fmt::Display for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part(_) => f.write_str("some messages have come"),
            Self::Whole => f.write_str("no message is missing"),
            Self::WholeAt(index) => write!(f, "no message is missing once {index} is applied"),
            Self::Lacking(count) => write!(f, "{count} messages cannot be read at any node that was asked"),
            Self::Lost(lost) => write!(f, "{lost}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::single_range_in_vec_init, reason = "a list of ranges is meant")]

    use super::*;

    #[test]
    fn messages_that_are_far_between_are_looked_at_together() {
        let apart = |count: u64| (0..count).map(|number| 10 * number..10 * number + 1);
        assert_eq!(window(apart(3)), apart(3).collect::<Vec<_>>());
        assert_eq!(window(apart(u64::MAX / 20)).len(), RUNS_MAX);
        assert_eq!(window([5..7, 10..10_000].into_iter()), [5..7, 10..10 + WINDOW - 2]);
        assert_eq!(window([5..5 + WINDOW, 10_000..10_001].into_iter()), [5..5 + WINDOW]);
        assert!(window(std::iter::empty()).is_empty());
    }

    #[test]
    fn what_is_missing_is_what_stands_nowhere() {
        for (others, left) in [
            (vec![], vec![10..20]),
            (vec![0..5, 25..30], vec![10..20]),
            (vec![10..20], vec![]),
            (vec![5..12, 18..30], vec![12..18]),
            (vec![12..14, 13..15, 17..18], vec![10..12, 15..17, 18..20]),
            (vec![9..10, 20..21], vec![10..20]),
        ] {
            assert_eq!(without(&(10..20), &others), left, "{others:?}");
        }
    }
}
