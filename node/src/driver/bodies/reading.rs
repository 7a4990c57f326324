//! Looking messages up, locating them, reading them.

use super::entry::{Entry, Walk};
use super::fresh::FreshBlock;
use super::located::{Located, Lost, Place, Readings, Stretch};
use super::shared::Shared;
use super::{Age, Bodies, Map};
use crate::api::codec::{self, Unreadable};
use crate::api::{Delivery, MessageRef};
use crate::replica::{Gift, Given, LookedUp, Lookup};
use bytes::Bytes;
use raftqueue_queue::{Candidate, TopicId};
use raftqueue_raft::Index;
use raftqueue_wal::{MetaPayload, Pinned, Places, PlacesKind, ReadError, Spot};
use std::sync::Arc;

/// Bytes of bodies that are checked for a lookup where it may not block.
const CHECKED_BYTES_MAX: usize = 64 << 10;
/// Bytes that are checked, and copied, without leaving the thread that asks: as many as a consumer asks for at once.
const INLINE_BYTES_MAX: usize = 2 << 20;

/// A block that messages are being taken from, in order as a rule.
pub(super) struct Cursor {
    topic: TopicId,
    first_offset: u64,
    count: u64,
    pub(super) published_ms: u64,
    /// Its messages, or why none of them can be known.
    messages: Result<Messages, Unreadable>,
}

enum Messages {
    /// Of an entry; its bodies where they are at hand.
    Entry { walk: Walk, index: Index, at: Option<(Pinned, u64)>, bodies: Option<Bytes> },
    /// The one message of a block of a kept file.
    Kept { file: Arc<Places>, block: raftqueue_wal::Block },
}

/// One message, found.
pub(super) struct Found {
    size: u32,
    pub(super) crc: u32,
    pub(super) deadline_ms: Option<u64>,
    /// Bytes before it in the bodies of its entry.
    position: u64,
}

impl Cursor {
    fn holds(&self, topic: TopicId, offset: u64) -> bool {
        self.topic == topic && offset >= self.first_offset && offset - self.first_offset < self.count
    }

    /// A message of this block. Cheapest in rising order.
    pub(super) fn find(&mut self, offset: u64) -> Result<Found, Unreadable> {
        match self.messages.as_mut().map_err(|why| why.clone())? {
            Messages::Entry { walk, .. } => {
                let (message, position) = walk.find(offset - self.first_offset)?;
                let deadline_ms = message.deadline_ms(self.published_ms);
                Ok(Found { size: message.size, crc: message.crc, deadline_ms, position })
            }
            Messages::Kept { block, .. } => {
                let crc = match block.spot {
                    Spot::Kept { crc, .. } => crc,
                    Spot::Entry { .. } => return Err(Unreadable("a kept file tells of an entry".into())),
                };
                let size = u32::try_from(block.bytes).unwrap_or(u32::MAX);
                Ok(Found { size, crc, deadline_ms: block.deadline_ms, position: 0 })
            }
        }
    }

    /// The bodies of its entry, where they are in memory.
    fn bodies(&self) -> Option<(Index, &Bytes)> {
        match &self.messages {
            Ok(Messages::Entry { index, bodies: Some(bodies), .. }) => Some((*index, bodies)),
            _ => None,
        }
    }

    /// A message's record, checked.
    fn record(&self, found: &Found) -> Result<codec::Stored, Unreadable> {
        codec::read_message(&self.stored(found)?, found.crc)
    }

    /// The bytes of a message's record, as they stand there.
    pub(super) fn stored(&self, found: &Found) -> Result<Bytes, Unreadable> {
        Ok(match self.messages.as_ref().map_err(Clone::clone)? {
            Messages::Entry { bodies: Some(bodies), index, .. } => {
                let start = usize::try_from(found.position).expect("bodies are limited");
                let end = start + found.size as usize;
                if end > bodies.len() {
                    return Err(Unreadable(format!("entry {index} has {} bytes, not {end}", bodies.len())));
                }
                bodies.slice(start..end)
            }
            Messages::Entry { at: Some((segment, offset)), .. } => segment
                .bodies_at(*offset, found.position, found.size as usize)
                .map_err(|error| unreadable(&error))?,
            Messages::Entry { index, .. } => {
                return Err(Unreadable(format!("entry {index} is neither in memory nor on the disk")));
            }
            Messages::Kept { file, block } => file.body(block).map_err(|error| unreadable(&error))?,
        })
    }
}

impl Map {
    /// Where the message stands, and its neighbours with it. `None` for nowhere.
    fn stretch(&self, bodies: &Bodies, topic: TopicId, offset: u64) -> Option<Stretch> {
        if let Some((first_offset, block)) = self.fresh.find(topic, offset) {
            let place = match self.recent.get(&block.index) {
                Some((entry, bodies)) if block.index > self.durable => {
                    Place::Memory { block, entry: Arc::clone(entry), bodies: bodies.clone() }
                }
                _ => {
                    let (number, offset) = bodies.reader.0.location(block.index)?;
                    Place::Log { block, segment: bodies.reader.0.pin(number)?, offset }
                }
            };
            let end_offset = first_offset + u64::from(block.count);
            return Some(Stretch { topic, first_offset, end_offset, place });
        }
        let pin = |file: &Arc<Places>| {
            let segment = match file.kind() {
                PlacesKind::Segment(number) => bodies.reader.0.pin(number),
                PlacesKind::Kept => None,
            };
            (Arc::clone(file), segment)
        };
        let files: Vec<_> = self.files.candidates(topic.0, offset).map(pin).collect();
        let (first_offset, end_offset, place) = (offset, offset + 1, Place::Files(files));
        let is_somewhere = !matches!(&place, Place::Files(files) if files.is_empty());
        is_somewhere.then_some(Stretch { topic, first_offset, end_offset, place })
    }

    /// Makes a stretch longer by the message, if that is the next one and stands in the same files.
    fn lengthen(&self, stretch: &mut Stretch, topic: TopicId, offset: u64) -> bool {
        let Place::Files(files) = &stretch.place else { return false };
        let is_next = stretch.topic == topic && stretch.end_offset <= offset;
        let is_same = is_next
            && self.fresh.find(topic, offset).is_none()
            && self
                .files
                .candidates(topic.0, offset)
                .map(Arc::as_ptr)
                .eq(files.iter().map(|(file, _)| Arc::as_ptr(file)));
        if is_same {
            stretch.end_offset = offset + 1;
        }
        is_same
    }
}

impl Bodies {
    /// Size and deadline of messages, and which could not be found; of those a line is logged, with the first. `None` if that
    /// would take a read of the disk, or long, and `may_block` is false.
    #[must_use]
    pub fn look_up(&self, lookup: &Lookup, may_block: bool) -> Option<LookedUp> {
        let mut looked_up = LookedUp { found: Vec::with_capacity(lookup.offsets.len()), missing: Vec::new() };
        let mut stretch: Option<Stretch> = None;
        let mut cursor: Option<Cursor> = None;
        let mut first_lost = None;
        let mut bytes = 0;
        let bytes_max = lookup.bytes_max.unwrap_or(usize::MAX);
        for &offset in &lookup.offsets {
            let topic = lookup.topic;
            if !cursor.as_ref().is_some_and(|cursor| cursor.holds(topic, offset)) {
                let map = self.look();
                let same = |stretch: &mut Stretch| {
                    stretch.holds(topic, offset) || map.lengthen(stretch, topic, offset)
                };
                if !stretch.as_mut().is_some_and(same) {
                    stretch = map.stretch(self, topic, offset);
                }
                drop(map);
                let Some(stretch) = &stretch else {
                    first_lost.get_or_insert_with(|| nowhere(topic, offset).to_string());
                    looked_up.missing.push(offset);
                    continue;
                };
                cursor = Some(self.open(stretch, offset, may_block)?);
            }
            let cursor = cursor.as_mut().expect("just opened");
            let found = match cursor.find(offset) {
                Ok(found) => found,
                Err(unreadable) => {
                    // Where that may not block, somebody asks again who may.
                    match may_block.then(|| self.elsewhere(topic, offset)).flatten() {
                        Some(given) => looked_up.found.push(given.candidate()),
                        None => {
                            first_lost.get_or_insert_with(|| unreadable.to_string());
                            looked_up.missing.push(offset);
                        }
                    }
                    continue;
                }
            };
            // No more than the answer holds: the others stay, whatever is wrong with them.
            let size = codec::content_bytes(found.size);
            if bytes + size > bytes_max && !looked_up.found.is_empty() {
                break;
            }
            if lookup.is_taken {
                let is_long = cursor.bodies().is_none() || bytes + size > CHECKED_BYTES_MAX;
                if is_long && !may_block {
                    return None;
                }
                if let Err(unreadable) = cursor.record(&found)
                    && may_block.then(|| self.elsewhere(topic, offset)).flatten().is_none()
                {
                    first_lost.get_or_insert_with(|| unreadable.to_string());
                    looked_up.missing.push(offset);
                    continue;
                }
            }
            bytes += size;
            looked_up.found.push(Candidate { offset, size: found.size, deadline_ms: found.deadline_ms });
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
        let map = self.look();
        let mut located = Located { messages, stretches: Vec::new(), nowhere: Vec::new() };
        let Located { messages, stretches, nowhere: lost } = &mut located;
        messages.retain(|message| {
            let (topic, offset) = (TopicId(message.id.topic), message.id.offset);
            let last = stretches.last_mut();
            if last.is_some_and(|last| last.holds(topic, offset) || map.lengthen(last, topic, offset)) {
                return true;
            }
            let Some(stretch) = map.stretch(self, topic, offset) else {
                lost.push(Lost { message: message.clone(), why: nowhere(topic, offset) });
                return false;
            };
            stretches.push(stretch);
            true
        });
        located
    }

    /// The located messages, in the order asked for, up to `bytes_max` but at least one, and those before them that could
    /// not be read. `None` if that would take a read of the disk, or long, and `may_block` is false.
    ///
    /// They keep an entry in memory only where they are half of it or more: the others are copies, so that whoever is slow to send
    /// a few messages holds just these.
    #[must_use]
    pub fn read(&self, located: &Located, bytes_max: usize, may_block: bool) -> Option<Readings> {
        let deliveries = Vec::with_capacity(located.messages.len());
        let mut readings = Readings { deliveries, lost: located.nowhere.clone() };
        for nowhere in &located.nowhere {
            self.note_lost(TopicId(nowhere.message.id.topic), nowhere.message.id.offset);
        }
        let mut stretches = located.stretches.iter();
        let mut stretch: Option<&Stretch> = None;
        let mut cursor: Option<Cursor> = None;
        let mut shared = Shared::default();
        let mut bytes = 0;
        for message in &located.messages {
            let (topic, offset) = (TopicId(message.id.topic), message.id.offset);
            let cursor = match cursor.take().filter(|cursor| cursor.holds(topic, offset)) {
                Some(same) => cursor.insert(same),
                None => {
                    let stretch = match stretch.filter(|stretch| stretch.holds(topic, offset)) {
                        Some(same) => same,
                        None => stretch.insert(stretches.next().expect("every message was located")),
                    };
                    let opened = self.open(stretch, offset, may_block)?;
                    if shared.index != opened.bodies().map(|(index, _)| index) {
                        shared.end(&mut readings.deliveries);
                    }
                    cursor.insert(opened)
                }
            };
            let record = match cursor.find(offset) {
                Ok(found) => {
                    let size = codec::content_bytes(found.size);
                    if bytes + size > bytes_max && !readings.deliveries.is_empty() {
                        break;
                    }
                    if !may_block && (cursor.bodies().is_none() || bytes + size > INLINE_BYTES_MAX) {
                        return None;
                    }
                    bytes += size;
                    if let Some((index, bodies)) = cursor.bodies() {
                        shared.take(index, bodies.len(), found.size as usize, readings.deliveries.len());
                    }
                    cursor.record(&found).inspect_err(|_| bytes -= size)
                }
                Err(why) => Err(why),
            };
            let mut published_ms = cursor.published_ms;
            let record = record.or_else(|why| {
                let given = may_block.then(|| self.elsewhere(topic, offset)).flatten().ok_or(why)?;
                bytes += codec::content_bytes(u32::try_from(given.record.len()).unwrap_or(u32::MAX));
                published_ms = given.published_ms;
                codec::read_message(&given.record, given.crc)
            });
            match record {
                Ok(codec::Stored { body, body_crc, key, headers }) => readings.deliveries.push(Delivery {
                    message: message.clone(),
                    published_ms,
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

    /// The records of located messages, all of one topic, up to `bytes_max` but at least one: for a node that lacks them.
    /// All that were located before [`Gift::through`] are answered; that is the greatest offset if it is all of them. Reads
    /// the disk.
    #[must_use]
    pub fn give(&self, located: &Located, bytes_max: usize) -> Gift {
        let mut gift = Gift { through: u64::MAX, ..Gift::default() };
        let mut stretches = located.stretches.iter();
        let mut stretch: Option<&Stretch> = None;
        let mut cursor: Option<Cursor> = None;
        let mut bytes = 0;
        for message in &located.messages {
            let (topic, offset) = (TopicId(message.id.topic), message.id.offset);
            if !cursor.as_ref().is_some_and(|cursor| cursor.holds(topic, offset)) {
                if !stretch.is_some_and(|stretch| stretch.holds(topic, offset)) {
                    stretch = stretches.next();
                }
                cursor = self.open(stretch.expect("every message was located"), offset, true);
            }
            let cursor = cursor.as_mut().expect("it may block");
            let found = cursor.find(offset);
            let record = found.and_then(|found| Ok((cursor.stored(&found)?, found)));
            let given = match record {
                Ok((record, found)) if crc32c::crc32c(&record) == found.crc => {
                    let (published_ms, deadline_ms) = (cursor.published_ms, found.deadline_ms);
                    Some(Given { offset, published_ms, deadline_ms, crc: found.crc, record })
                }
                Ok(_) | Err(_) => self.elsewhere(topic, offset),
            };
            let Some(given) = given else {
                gift.unreadable += 1;
                continue;
            };
            if bytes + given.record.len() > bytes_max && !gift.messages.is_empty() {
                gift.through = offset;
                break;
            }
            bytes += given.record.len();
            gift.messages.push(given);
        }
        let nowhere = located.nowhere.iter().filter(|lost| lost.message.id.offset < gift.through);
        gift.unreadable += nowhere.count() as u64;
        gift
    }

    /// Asks files when messages were published that [`Bodies::published_ms`] could not tell of. Reads the disk.
    pub fn find_ages(&self) {
        let unknown: Vec<(TopicId, u64)> = {
            let map = self.look();
            let unknown = map.ages.iter().filter(|(_, age)| age.published_ms.is_none() || age.is_stale);
            unknown.map(|(&topic, age)| (topic, age.offset)).collect()
        };
        for (topic, offset) in unknown {
            let stretch = self.look().stretch(self, topic, offset);
            let opened = stretch.and_then(|stretch| self.open(&stretch, offset, true));
            let published_ms = opened.filter(|cursor| cursor.messages.is_ok()).map(|c| c.published_ms);
            let mut map = self.change();
            if let Some(age) = map.ages.get_mut(&topic).filter(|age| age.offset == offset) {
                *age = Age { offset, published_ms, is_stale: false };
            }
        }
    }

    /// Opens the block of a message: what is known of its messages and, if they are in memory, its bodies. `None` if that
    /// would take a read of the disk and `may_block` is false.
    fn open(&self, stretch: &Stretch, offset: u64, may_block: bool) -> Option<Cursor> {
        let topic = stretch.topic;
        match &stretch.place {
            Place::Memory { block, entry, bodies } => {
                let walk = Walk::new(Arc::clone(entry), block.command, u64::from(block.count));
                let bodies = Some(bodies.clone());
                let messages =
                    walk.map(|walk| Messages::Entry { walk, index: block.index, at: None, bodies });
                Some(Cursor::of_fresh(topic, stretch.first_offset, block, messages))
            }
            Place::Log { block, segment, offset } => {
                let recent = self.look().recent.get(&block.index).cloned();
                let (entry, bodies) = match recent {
                    Some((entry, bodies)) => (Ok(entry), Some(bodies)),
                    None => (self.entry_at(segment, *offset, may_block)?, None),
                };
                let walk = entry.and_then(|entry| Walk::new(entry, block.command, u64::from(block.count)));
                let at = Some((segment.clone(), *offset));
                let messages = walk.map(|walk| Messages::Entry { walk, index: block.index, at, bodies });
                Some(Cursor::of_fresh(topic, stretch.first_offset, block, messages))
            }
            Place::Files(_) if !may_block => None,
            Place::Files(files) => Some(self.open_in_files(topic, offset, files)),
        }
    }

    pub(super) fn open_in_files(
        &self,
        topic: TopicId,
        offset: u64,
        files: &[(Arc<Places>, Option<Pinned>)],
    ) -> Cursor {
        let mut why = nowhere(topic, offset);
        for (file, segment) in files {
            let block = match file.find(topic.0, offset) {
                Ok(Some(block)) => block,
                Ok(None) => continue,
                Err(error) => {
                    why = unreadable(&error);
                    continue;
                }
            };
            let messages = match (block.spot, segment) {
                (Spot::Kept { .. }, _) => Ok(Messages::Kept { file: Arc::clone(file), block }),
                (Spot::Entry { offset, command }, Some(segment)) => self
                    .entry_at(segment, offset, true)
                    .expect("it may block")
                    .and_then(|entry| Walk::new(entry, command, u64::from(block.count)))
                    .map(|walk| Messages::Entry {
                        walk,
                        index: Index(0),
                        at: Some((segment.clone(), offset)),
                        bodies: None,
                    }),
                (Spot::Entry { .. }, None) => Err(Unreadable("its segment is gone".into())),
            };
            return Cursor {
                topic,
                first_offset: block.first_offset,
                count: u64::from(block.count),
                published_ms: block.published_ms,
                messages,
            };
        }
        Cursor { topic, first_offset: offset, count: 1, published_ms: 0, messages: Err(why) }
    }

    /// What the record at an offset of a segment published. `None` if that would take a read of the disk and `may_block` is
    /// false.
    fn entry_at(
        &self,
        segment: &Pinned,
        offset: u64,
        may_block: bool,
    ) -> Option<Result<Arc<Entry>, Unreadable>> {
        let spot = (segment.segment(), offset);
        if let Some(entry) = self.loaded.get(spot) {
            return Some(Ok(entry));
        }
        may_block.then(|| {
            let meta = segment.meta_at(offset).map_err(|error| unreadable(&error))?;
            let MetaPayload::Command { meta: commands, .. } = meta.payload else {
                return Err(Unreadable(format!("entry {} holds no messages", meta.index)));
            };
            let entry = Arc::new(Entry::of_meta(&commands)?);
            self.loaded.put(spot, &entry);
            Ok(entry)
        })
    }
}

impl Cursor {
    fn of_fresh(
        topic: TopicId,
        first_offset: u64,
        block: &FreshBlock,
        messages: Result<Messages, Unreadable>,
    ) -> Self {
        let count = u64::from(block.count);
        Self { topic, first_offset, count, published_ms: block.published_ms, messages }
    }
}

fn nowhere(topic: TopicId, offset: u64) -> Unreadable {
    Unreadable(format!("message {offset} of topic {topic} stands nowhere on this node"))
}

fn unreadable(error: &ReadError) -> Unreadable {
    Unreadable(format!("it cannot be read back: {error}"))
}
