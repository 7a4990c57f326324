//! Copying living messages out of files of which few are alive.

use super::{KeepError, Keeper, Pace, failed, run_of};
use crate::api::codec::Unreadable;
use crate::driver::bodies::Walk;
use crate::replica::Freeze;
use bytes::Bytes;
use raftqueue_queue::TopicId;
use raftqueue_wal::{
    Block, Change, FileId, KeptFile, MetaPayload, Pinned, Places, PlacesKind, PlacesWriter, Retired, Spot,
    Written,
};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;

/// Bytes after which the one who paces is told.
const PACE_BYTES: u64 = 1 << 20;

/// A file that messages are copied out of.
pub(super) struct Source {
    pub(super) file: FileId,
    pub(super) places: Arc<Places>,
    /// Bytes of its living messages, about.
    pub(super) live_bytes: u64,
    /// Few of its messages are alive, so copying it frees room. Others are copied to make one file of many.
    pub(super) is_few: bool,
}

/// One living message with its bytes.
struct Message {
    block: Block,
    crc: u32,
    body: Bytes,
}

impl Keeper {
    /// Copies the living messages of `sources` into kept files and retires what was copied, as much as one round may. A
    /// source of which something cannot be read stays as it is: whoever asks for that hears of it, and the others are not lost with it.
    pub(super) fn copy_out(
        &mut self,
        freeze: &Freeze,
        sources: Vec<Source>,
        change: &mut Change,
        pace: &mut Pace<'_>,
    ) -> Result<(), KeepError> {
        let mut left = self.settings.copied_bytes_max;
        let mut group = Vec::new();
        let mut group_bytes = 0;
        for source in sources {
            // The first is copied whatever its size: a message may be larger than all that a round copies otherwise.
            if source.live_bytes > left && left < self.settings.copied_bytes_max {
                break;
            }
            left = left.saturating_sub(source.live_bytes);
            group_bytes += source.live_bytes;
            group.push(source);
            if group_bytes >= self.settings.kept_bytes_target {
                self.copy_group(freeze, &std::mem::take(&mut group), change, pace)?;
                group_bytes = 0;
            }
        }
        // A small file alone would only be written once more.
        let is_worthwhile = group.len() > 1 || group.iter().any(|source| source.is_few);
        if is_worthwhile { self.copy_group(freeze, &group, change, pace) } else { Ok(()) }
    }

    /// Makes one kept file of the living messages of a group.
    fn copy_group(
        &mut self,
        freeze: &Freeze,
        group: &[Source],
        change: &mut Change,
        pace: &mut Pace<'_>,
    ) -> Result<(), KeepError> {
        let disk = self.reader.disk();
        let number = self.reader.next_file();
        let mut writer =
            PlacesWriter::create(&*disk, number, PlacesKind::Kept).map_err(failed("make a kept file"))?;
        let mut copies: Vec<Copy> = group.iter().map(|source| Copy::new(self, source)).collect();
        let mut next = BinaryHeap::new();
        let mut paced = 0;
        let mut last = None;
        for (place, copy) in copies.iter_mut().enumerate() {
            next.extend(copy.advance(freeze).map(|key| Reverse((key, place))));
        }
        while let Some(Reverse((key, place))) = next.pop() {
            let copy = &mut copies[place];
            let message = copy.head.take().expect("it was put on the heap");
            paced += 2 * message.body.len() as u64;
            // Two sources may have it: once it could not be found in the first, and was got from another node.
            let is_again = last.replace(key) == Some(key);
            let written = if is_again { Ok(()) } else { put(&mut writer, &message) };
            let mut written = written.map_err(failed("write a kept file"));
            if paced >= PACE_BYTES {
                written = written.and_then(|()| pace(std::mem::take(&mut paced)));
            }
            if let Err(error) = written {
                // A leftover that cannot be removed now goes at the next start.
                let _ = writer.abandon(&*disk);
                return Err(error);
            }
            next.extend(copy.advance(freeze).map(|key| Reverse((key, place))));
        }
        let stuck: Vec<_> =
            copies.iter().filter_map(|copy| Some((copy.source.file, copy.unreadable.as_ref()?))).collect();
        if writer.blocks() == 0 || !stuck.is_empty() {
            let _ = writer.abandon(&*disk);
        } else {
            let Written { number, size, crc } =
                writer.finish(&*disk).map_err(failed("finish a kept file"))?;
            change.kept.push(KeptFile { number, size, crc, since: freeze.index });
        }
        if stuck.is_empty() {
            change.retire.extend(group.iter().map(|source| Retired { file: source.file, at: freeze.index }));
        }
        for (file, why) in stuck {
            tracing::error!(?file, "it stays as it is, since something living in it cannot be read: {why}");
            self.stuck.insert(file);
        }
        Ok(())
    }
}

fn put(writer: &mut PlacesWriter, message: &Message) -> io::Result<()> {
    let offset = writer.body(&message.body)?;
    writer.push(&Block { spot: Spot::Kept { offset, crc: message.crc }, ..message.block })
}

/// Goes through the living messages of one source in order.
struct Copy<'a> {
    source: &'a Source,
    segment: Option<Pinned>,
    blocks: raftqueue_wal::Blocks<'a>,
    /// The block whose messages are being copied.
    block: Option<Open>,
    /// The next message.
    head: Option<Message>,
    unreadable: Option<Unreadable>,
}

struct Open {
    block: Block,
    /// Of an entry: its messages, and where its record begins.
    walk: Option<(Walk, u64)>,
    next_offset: u64,
}

impl<'a> Copy<'a> {
    fn new(keeper: &Keeper, source: &'a Source) -> Self {
        let segment = match source.file {
            FileId::Segment(number) => keeper.reader.pin(number),
            FileId::Kept(_) => None,
        };
        let blocks = source.places.all_blocks();
        Self { source, segment, blocks, block: None, head: None, unreadable: None }
    }

    /// Makes the next living message the head, and says its key; `None` if there is none. What cannot be read is skipped
    /// and remembered.
    fn advance(&mut self, freeze: &Freeze) -> Option<(u64, u64)> {
        loop {
            match self.next(freeze) {
                Ok(Some(message)) => {
                    let key = (message.block.topic, message.block.first_offset);
                    self.head = Some(message);
                    return Some(key);
                }
                Ok(None) => return None,
                Err(why) => {
                    let is_page = self.block.is_none();
                    self.unreadable.get_or_insert(why);
                    if is_page {
                        // What comes behind a page that cannot be read is not found.
                        return None;
                    }
                }
            }
        }
    }

    fn next(&mut self, freeze: &Freeze) -> Result<Option<Message>, Unreadable> {
        loop {
            let Some(open) = &mut self.block else {
                let Some(block) = self.blocks.next() else { return Ok(None) };
                let block = block.map_err(|error| Unreadable(error.to_string()))?;
                self.block = Some(Open { block, walk: None, next_offset: block.first_offset });
                continue;
            };
            let rest = open.next_offset..run_of(&open.block).end;
            let live = freeze.state.live_runs(TopicId(open.block.topic), rest).next();
            let Some(run) = live else {
                self.block = None;
                continue;
            };
            open.next_offset = run.start + 1;
            return read(open, run.start, &self.source.places, self.segment.as_ref()).map(Some);
        }
    }
}

/// One message of a block, as it stands in a kept file.
fn read(
    open: &mut Open,
    offset: u64,
    places: &Places,
    segment: Option<&Pinned>,
) -> Result<Message, Unreadable> {
    let unreadable = |error: raftqueue_wal::ReadError| Unreadable(error.to_string());
    let block = open.block;
    let (record, command) = match block.spot {
        Spot::Kept { crc, .. } => {
            return Ok(Message { block, crc, body: places.body(&block).map_err(unreadable)? });
        }
        Spot::Entry { offset, command } => (offset, command),
    };
    let segment = segment.ok_or_else(|| Unreadable("its segment is gone".into()))?;
    if open.walk.is_none() {
        let meta = segment.meta_at(record).map_err(unreadable)?;
        let MetaPayload::Command { meta, .. } = meta.payload else {
            return Err(Unreadable(format!("entry {} holds no messages", meta.index)));
        };
        open.walk = Some((Walk::of_meta(&meta, command, u64::from(block.count))?, record));
    }
    let (walk, record) = open.walk.as_mut().expect("just made");
    let (message, position) = walk.find(offset - block.first_offset)?;
    let body = segment.bodies_at(*record, position, message.size as usize).map_err(unreadable)?;
    if crc32c::crc32c(&body) != message.crc {
        return Err(Unreadable(format!("message {offset} of topic {} is damaged", block.topic)));
    }
    let block = Block {
        first_offset: offset,
        count: 1,
        deadline_ms: message.deadline_ms(block.published_ms),
        bytes: u64::from(message.size),
        ..block
    };
    Ok(Message { block, crc: message.crc, body })
}
