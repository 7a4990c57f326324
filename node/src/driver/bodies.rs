//! Where messages stand in the log, and reading them back.
//!
//! The queue knows offsets, the log knows entries. This is the map between them, local to a node and made anew from the
//! log at every start. The driver feeds [`Bodies`], and whoever delivers messages reads it on another thread. The
//! newest entries stay in memory, bounded in bytes. Entries that are not on this node's disk yet are pinned there,
//! because this node has them nowhere else.
//!
//! Every message that leaves was checked. Its CRC covers body, key and headers, and stands in the entry's meta, which
//! has a CRC of its own. A message that cannot be read harms no other: its neighbours are read, and it is named.

use crate::api::codec::{self, Unreadable};
use crate::api::{Delivery, MessageRef};
use crate::replica::{AppliedEntry, LookedUp, Lookup};
use bytes::{Bytes, BytesMut};
use raftqueue_queue::{Candidate, Command, MessageMeta, TopicId};
use raftqueue_raft::Index;
use raftqueue_wal::{MetaPayload, ReadError, Reader};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

/// Bytes of the newest entries kept in memory, unless set otherwise.
pub const CACHE_BYTES_DEFAULT: usize = 64 << 20;
/// How many entries that were read back stay known, for the next call on the same part of the log.
const LOADED_ENTRIES_MAX: usize = 256;
/// Bytes of bodies that are checked for a lookup where it may not block.
const CHECKED_BYTES_MAX: usize = 64 << 10;
/// Bytes that are checked and copied on the thread that asks: as many as a consumer asks for at once.
const INLINE_BYTES_MAX: usize = 2 << 20;
/// What an entry costs in memory besides its bodies: a bound for the cache, not an exact number.
const ENTRY_BYTES: usize = 256;

/// Where the messages of one publish stand.
#[derive(Clone, Copy, Debug)]
struct Block {
    index: Index,
    /// Which command of the entry.
    command: u32,
    count: u32,
    /// Bytes before these messages in the bodies of the entry.
    position: u64,
    published_ms: u64,
}

/// The messages of one entry, by command.
type Messages = Arc<[(u32, Arc<[MessageMeta]>)]>;

#[derive(Debug, Default)]
struct Map {
    /// By topic and first offset.
    blocks: BTreeMap<(TopicId, u64), Block>,
    /// The newest entries, with their bodies.
    recent: BTreeMap<Index, (Messages, Bytes)>,
    recent_bytes: usize,
    /// Entries read back, without their bodies.
    loaded: BTreeMap<Index, Messages>,
    /// Everything up to here can be read back from the log.
    durable: Index,
    /// Nothing of these topics before these offsets will be asked for any more; places are still to be forgotten.
    done_before: BTreeMap<TopicId, u64>,
}

impl Block {
    fn holds(&self, first_offset: u64, offset: u64) -> bool {
        offset >= first_offset && offset - first_offset < u64::from(self.count)
    }
}

impl Map {
    /// The block of a message, and its first offset.
    fn block(&self, topic: TopicId, offset: u64) -> Result<(u64, Block), Unreadable> {
        self.blocks
            .range(..=(topic, offset))
            .next_back()
            .filter(|(key, block)| key.0 == topic && block.holds(key.1, offset))
            .map(|(key, block)| (key.1, *block))
            .ok_or_else(|| {
                Unreadable(format!("message {offset} of topic {topic} stands nowhere in this log"))
            })
    }

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
    /// Publishes of which a message may still be asked for.
    pub places: usize,
    /// Bytes of the newest entries.
    pub bytes: usize,
    /// How many of these exist only in memory.
    pub pinned_bytes: usize,
}

/// See the module's header.
#[derive(Debug)]
pub struct Bodies {
    reader: DebugReader,
    cache_bytes_max: usize,
    map: RwLock<Map>,
}

struct DebugReader(Reader);

impl std::fmt::Debug for DebugReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

/// A block from which messages are taken, usually in order.
struct Cursor {
    topic: TopicId,
    first_offset: u64,
    block: Block,
    /// What is known of its messages, or why nothing is.
    messages: Result<Arc<[MessageMeta]>, Unreadable>,
    bodies: Option<Bytes>,
    /// The next message and the bytes before it.
    next: (usize, u64),
}

/// One message, found.
struct Found {
    message: MessageMeta,
    /// Bytes before it in the bodies of its entry.
    position: u64,
}

impl Cursor {
    fn holds(&self, topic: TopicId, offset: u64) -> bool {
        self.topic == topic && self.block.holds(self.first_offset, offset)
    }

    /// A message of this block. Cheapest in rising order.
    fn find(&mut self, offset: u64) -> Result<Found, Unreadable> {
        let messages = self.messages.as_ref().map_err(Clone::clone)?;
        let at = usize::try_from(offset - self.first_offset).expect("within the block");
        let (from, mut position) = if at >= self.next.0 { self.next } else { (0, self.block.position) };
        position += messages[from..at].iter().map(|message| u64::from(message.size)).sum::<u64>();
        let message = messages[at];
        self.next = (at + 1, position + u64::from(message.size));
        Ok(Found { message, position })
    }
}

/// The bytes that deliveries share with an entry in memory.
#[derive(Debug, Default)]
struct Shared {
    /// The entry; `None` before the first.
    index: Option<Index>,
    entry_bytes: usize,
    /// How much of it the deliveries are, and the first of them.
    bytes: usize,
    first: usize,
}

impl Shared {
    /// The next delivery is so many bytes of this entry.
    fn take(&mut self, index: Index, entry_bytes: usize, bytes: usize, at: usize) {
        if self.index != Some(index) {
            *self = Self { index: Some(index), entry_bytes, bytes: 0, first: at };
        }
        self.bytes += bytes;
    }

    /// The deliveries of this entry are complete. If they are less than half of it, they become copies.
    fn end(&mut self, deliveries: &mut [Delivery]) {
        let Self { index, entry_bytes, bytes, first } = std::mem::take(self);
        if index.is_none() || bytes >= entry_bytes / 2 {
            return;
        }
        let deliveries = &mut deliveries[first..];
        let mut copy = BytesMut::with_capacity(bytes);
        for delivery in &mut *deliveries {
            each_part(delivery, |part| copy.extend_from_slice(part));
        }
        let mut copy = copy.freeze();
        for delivery in deliveries {
            each_part(delivery, |part| *part = copy.split_to(part.len()));
        }
    }
}

/// Everything of a delivery that shares bytes with the entry.
fn each_part(delivery: &mut Delivery, each: impl FnMut(&mut Bytes)) {
    let values = delivery.headers.iter_mut().map(|(_, value)| value);
    let parts = [&mut delivery.body, &mut delivery.key].into_iter().chain(values);
    parts.filter(|part| !part.is_empty()).for_each(each);
}

/// Messages, and where they stand: what a reader needs after the driver has answered.
#[derive(Clone, Debug)]
pub struct Located {
    messages: Vec<MessageRef>,
    /// The blocks of the messages, in the order in which they are met.
    blocks: Vec<(TopicId, u64, Block)>,
    /// Messages that stand nowhere.
    nowhere: Vec<Lost>,
}

impl Located {
    /// The messages that stand somewhere, in the order asked for.
    #[must_use]
    pub fn messages(&self) -> &[MessageRef] {
        &self.messages
    }

    /// Messages that stand nowhere.
    #[cfg(test)]
    pub(crate) fn nowhere(messages: Vec<MessageRef>) -> Self {
        let lost = |message| Lost { message, why: Unreadable("nowhere".into()) };
        Self { messages: Vec::new(), blocks: Vec::new(), nowhere: messages.into_iter().map(lost).collect() }
    }

    /// All messages that were asked for.
    #[must_use]
    pub fn into_messages(self) -> Vec<MessageRef> {
        let nowhere = self.nowhere.into_iter().map(|lost| lost.message);
        self.messages.into_iter().chain(nowhere).collect()
    }
}

/// A message that cannot be read here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The message.
    pub message: MessageRef,
    /// Why.
    pub why: Unreadable,
}

/// What was read of the messages that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Those that could be read, in the order asked for.
    pub deliveries: Vec<Delivery>,
    /// Those that could not.
    pub lost: Vec<Lost>,
}

impl Bodies {
    /// An empty map over a log.
    #[must_use]
    pub fn new(reader: Reader, cache_bytes_max: usize) -> Self {
        Self { reader: DebugReader(reader), cache_bytes_max, map: RwLock::default() }
    }

    /// An entry was applied. To be called in the order of the log, each time with the index up to which the log is
    /// durable. That index goes back when a tail is cut off. An entry that is applied before its write has ended must
    /// not be read from the disk, where the entry that it replaces may still stand.
    pub fn applied(&self, entry: AppliedEntry, durable: Index) {
        let AppliedEntry { index, bodies, placements } = entry;
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        map.durable = durable;
        for placement in &placements {
            let block = Block {
                index,
                command: placement.command,
                count: u32::try_from(placement.messages.len()).expect("a publish is limited"),
                position: placement.position,
                published_ms: placement.published_ms,
            };
            map.blocks.insert((placement.topic, placement.first_offset), block);
        }
        if let Some(bodies) = bodies {
            let messages = placements.into_iter().map(|placement| (placement.command, placement.messages));
            map.recent_bytes += bodies.len() + ENTRY_BYTES;
            map.recent.insert(index, (messages.collect(), bodies));
        }
        map.evict(self.cache_bytes_max);
    }

    /// Everything up to `index` is on this node's disk: a write has ended.
    pub fn durable(&self, index: Index) {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        map.durable = index;
        map.evict(self.cache_bytes_max);
    }

    /// A topic was deleted.
    pub fn forget(&self, topic: TopicId) {
        self.done_before(topic, u64::MAX);
    }

    /// Nothing of a topic before `offset` will be asked for any more: its places go with [`Bodies::forget_done`].
    pub fn done_before(&self, topic: TopicId, offset: u64) {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let done_before = map.done_before.entry(topic).or_default();
        *done_before = offset.max(*done_before);
    }

    /// Forgets up to so many places of messages that are done with: a topic may have had millions. Says whether some are left.
    pub fn forget_done(&self, count_max: usize) -> bool {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..count_max {
            let Some((&topic, &offset)) = map.done_before.first_key_value() else { return false };
            let first = map.blocks.range((topic, 0)..).next();
            let first = first.filter(|(key, _)| key.0 == topic).map(|(key, block)| (*key, *block));
            match first.filter(|(key, block)| key.1.saturating_add(u64::from(block.count)) <= offset) {
                Some((key, _)) => drop(map.blocks.remove(&key)),
                None => drop(map.done_before.pop_first()),
            }
        }
        !map.done_before.is_empty()
    }

    /// What is held in memory, for checkers.
    #[must_use]
    pub fn held(&self) -> Held {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let undurable = map.recent.range((Bound::Excluded(map.durable), Bound::Unbounded));
        Held {
            places: map.blocks.len(),
            bytes: map.recent_bytes,
            pinned_bytes: undurable.map(|(_, (_, bodies))| bodies.len() + ENTRY_BYTES).sum(),
        }
    }

    /// When a message was published, in log time; `None` if it stands nowhere in this log.
    #[must_use]
    pub fn published_ms(&self, topic: TopicId, offset: u64) -> Option<u64> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        map.block(topic, offset).ok().map(|(_, block)| block.published_ms)
    }

    /// Size and deadline of messages, and which could not be found; a line of the log names the first of those. `None`
    /// if that would take long, or a read of the disk, and `may_block` is false.
    #[must_use]
    pub fn look_up(&self, lookup: &Lookup, may_block: bool) -> Option<LookedUp> {
        let mut looked_up = LookedUp { found: Vec::with_capacity(lookup.offsets.len()), missing: Vec::new() };
        let mut cursor: Option<Cursor> = None;
        let mut first_lost = None;
        let mut bytes = 0;
        for &offset in &lookup.offsets {
            if !cursor.as_ref().is_some_and(|cursor| cursor.holds(lookup.topic, offset)) {
                let found = {
                    let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
                    map.block(lookup.topic, offset)
                };
                cursor = match found {
                    Ok((first, block)) => Some(self.open(lookup.topic, first, block, may_block)?),
                    Err(unreadable) => {
                        first_lost.get_or_insert_with(|| unreadable.to_string());
                        looked_up.missing.push(offset);
                        continue;
                    }
                };
                if let Some(Err(unreadable)) = cursor.as_ref().map(|cursor| cursor.messages.as_ref()) {
                    first_lost.get_or_insert_with(|| unreadable.to_string());
                }
            }
            let cursor = cursor.as_mut().expect("just opened");
            let Ok(found) = cursor.find(offset) else {
                looked_up.missing.push(offset);
                continue;
            };
            let Found { message, .. } = found;
            if let Some(bytes_max) = lookup.takes_bytes_max {
                // Only as many as the answer holds. The others stay, whatever is wrong with them.
                let size = codec::content_bytes(message.size);
                if bytes + size > bytes_max && !looked_up.found.is_empty() {
                    break;
                }
                let is_long = cursor.bodies.is_none() || bytes + size > CHECKED_BYTES_MAX;
                if is_long && !may_block {
                    return None;
                }
                if let Err(unreadable) = self.stored(cursor, &found) {
                    first_lost.get_or_insert_with(|| unreadable.to_string());
                    looked_up.missing.push(offset);
                    continue;
                }
                bytes += size;
            }
            let deadline_ms = message.deadline_ms(cursor.block.published_ms);
            looked_up.found.push(Candidate { offset, size: message.size, deadline_ms });
        }
        if let Some(&offset) = looked_up.missing.first() {
            let why = first_lost.as_deref().unwrap_or("its block cannot be read");
            let (topic, count) = (lookup.topic.0, looked_up.missing.len());
            tracing::error!(topic, offset, count, "messages not found; of the first: {why}");
        }
        Some(looked_up)
    }

    /// Notes where messages stand, so that they can be read although they are forgotten in between: a popped message is
    /// gone from the queue before its reader has it. Called on the driver, with the reply that names them.
    #[must_use]
    pub fn locate(&self, messages: Vec<MessageRef>) -> Located {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let mut located = Located { messages, blocks: Vec::new(), nowhere: Vec::new() };
        let Located { messages, blocks, nowhere } = &mut located;
        messages.retain(|message| {
            let (topic, offset) = (TopicId(message.id.topic), message.id.offset);
            if blocks.last().is_some_and(|(t, first, block)| *t == topic && block.holds(*first, offset)) {
                return true;
            }
            match map.block(topic, offset) {
                Ok((first, block)) => blocks.push((topic, first, block)),
                Err(why) => {
                    nowhere.push(Lost { message: message.clone(), why });
                    return false;
                }
            }
            true
        });
        located
    }

    /// The located messages, in the order asked for, up to `bytes_max` but at least one, and those before them that
    /// could not be read. `None` if that would take long, or a read of the disk, and `may_block` is false.
    ///
    /// They keep an entry in memory only if they are half of it or more. The others are copies, so that a slow sender
    /// of a few messages holds only these.
    #[must_use]
    pub fn read(&self, located: &Located, bytes_max: usize, may_block: bool) -> Option<Readings> {
        let deliveries = Vec::with_capacity(located.messages.len());
        let mut readings = Readings { deliveries, lost: located.nowhere.clone() };
        let mut blocks = located.blocks.iter();
        let mut cursor: Option<Cursor> = None;
        let mut shared = Shared::default();
        let mut bytes = 0;
        for message in &located.messages {
            let (topic, offset) = (TopicId(message.id.topic), message.id.offset);
            let cursor = match cursor.take().filter(|cursor| cursor.holds(topic, offset)) {
                Some(same) => cursor.insert(same),
                None => {
                    let (topic, first, block) = *blocks.next().expect("every message was located");
                    if shared.index != Some(block.index) {
                        shared.end(&mut readings.deliveries);
                    }
                    cursor.insert(self.open(topic, first, block, may_block)?)
                }
            };
            let read = match cursor.find(offset) {
                Ok(found) => {
                    let size = codec::content_bytes(found.message.size);
                    if bytes + size > bytes_max && !readings.deliveries.is_empty() {
                        break;
                    }
                    if !may_block && (cursor.bodies.is_none() || bytes + size > INLINE_BYTES_MAX) {
                        return None;
                    }
                    bytes += size;
                    if let Some(bodies) = &cursor.bodies {
                        let (index, stored) = (cursor.block.index, found.message.size as usize);
                        shared.take(index, bodies.len(), stored, readings.deliveries.len());
                    }
                    self.stored(cursor, &found).inspect_err(|_| bytes -= size)
                }
                Err(why) => Err(why),
            };
            match read {
                Ok(codec::Stored { body, body_crc, key, headers }) => readings.deliveries.push(Delivery {
                    message: message.clone(),
                    published_ms: cursor.block.published_ms,
                    body,
                    body_crc,
                    key,
                    headers,
                }),
                Err(why) => readings.lost.push(Lost { message: message.clone(), why }),
            }
        }
        shared.end(&mut readings.deliveries);
        Some(readings)
    }

    /// Opens a block: its messages and, if they are in memory, its bodies.
    fn open(&self, topic: TopicId, first_offset: u64, block: Block, may_block: bool) -> Option<Cursor> {
        let (known, bodies) = {
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            let recent = map.recent.get(&block.index);
            let known =
                recent.map(|(messages, _)| messages).or_else(|| map.loaded.get(&block.index)).cloned();
            (known, recent.map(|(_, bodies)| bodies.clone()))
        };
        let entry = match known {
            Some(entry) => Ok(entry),
            None if !may_block => return None,
            None => self.load(block.index),
        };
        let messages = entry.and_then(|entry| {
            // They are in order, so an entry of ten thousand commands is not searched from the start for each.
            let found = entry.binary_search_by_key(&block.command, |(command, _)| *command);
            let messages = found.ok().map(|position| &entry[position].1);
            match messages {
                Some(messages) if messages.len() == block.count as usize => Ok(Arc::clone(messages)),
                _ => Err(Unreadable(format!("entry {} is not the one that was applied", block.index))),
            }
        });
        Some(Cursor { topic, first_offset, block, messages, bodies, next: (0, block.position) })
    }

    /// Reads an entry's meta back.
    fn load(&self, index: Index) -> Result<Messages, Unreadable> {
        let entries =
            self.reader.0.metas(index, index.next(), 0).map_err(|error| unreadable(index, &error))?;
        let Some(MetaPayload::Command { meta, .. }) = entries.into_iter().next().map(|entry| entry.payload)
        else {
            return Err(Unreadable(format!("entry {index} holds no messages")));
        };
        let commands = codec::read_entry(&meta)?.commands;
        let messages: Messages = commands
            .into_iter()
            .zip(0..)
            .filter_map(|(command, ordinal)| match command {
                Command::Publish { messages, .. } => Some((ordinal, messages.into())),
                _ => None,
            })
            .collect();
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        map.loaded.insert(index, Arc::clone(&messages));
        if map.loaded.len() > LOADED_ENTRIES_MAX {
            map.loaded.pop_first();
        }
        Ok(messages)
    }

    /// A stored message, checked.
    fn stored(&self, cursor: &Cursor, found: &Found) -> Result<codec::Stored, Unreadable> {
        let (position, size) = (found.position, found.message.size as usize);
        let index = cursor.block.index;
        let stored = match &cursor.bodies {
            Some(bodies) => {
                let start = usize::try_from(position).expect("bodies are limited");
                let end = start + size;
                if end > bodies.len() {
                    return Err(Unreadable(format!("entry {index} has {} bytes, not {end}", bodies.len())));
                }
                bodies.slice(start..end)
            }
            None => self.reader.0.bodies(index, position, size).map_err(|error| unreadable(index, &error))?,
        };
        codec::read_message(&stored, found.message.crc)
    }
}

fn unreadable(index: Index, error: &ReadError) -> Unreadable {
    Unreadable(format!("entry {index} cannot be read back: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::MessageId;

    fn deliveries(entry: &Bytes, count: usize, bytes: usize) -> Vec<Delivery> {
        let id = |offset| MessageId { generation: 0, topic: 1, offset };
        let message = |offset| MessageRef {
            id: id(offset),
            token: 0,
            attempts: 0,
            deadline_ms: 0,
            reason: String::new(),
        };
        let delivery = |number: usize| {
            let part = entry.slice(number * bytes..(number + 1) * bytes);
            Delivery {
                message: message(number as u64),
                published_ms: 0,
                body_crc: 0,
                body: part.slice(..bytes - 2),
                key: part.slice(bytes - 2..bytes - 1),
                headers: vec![("n".into(), part.slice(bytes - 1..))],
            }
        };
        (0..count).map(delivery).collect()
    }

    #[test]
    fn rule_10_2_a_few_messages_do_not_keep_their_entry_in_memory_and_most_of_them_are_not_copied() {
        let entry: Bytes = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect::<Vec<u8>>().into();
        for (count, is_copied) in [(1, true), (49, true), (50, false), (100, false)] {
            let before = deliveries(&entry, count, 1_000);
            let mut after = before.clone();
            let mut shared = Shared::default();
            (0..count).for_each(|at| shared.take(Index(7), entry.len(), 1_000, at));
            shared.end(&mut after);
            assert!(before == after, "{count} messages are the same");
            let within = entry.as_ptr_range();
            let mut parts = 0;
            for delivery in &mut after {
                each_part(delivery, |part| {
                    assert_eq!(!within.contains(&part.as_ptr()), is_copied, "{count} messages");
                    parts += 1;
                });
            }
            assert_eq!(parts, 3 * count);
        }
    }
}
