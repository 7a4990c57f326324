//! Reading every message that is not in the log any more, to see whether it can be read; and those in records of the log that
//! cannot.

use super::Bodies;
use super::elsewhere::given_of;
use raftqueue_queue::TopicId;
use raftqueue_wal::{Places, PlacesKind, ReadError, Spot};
use std::collections::BTreeSet;
use std::io;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a pass has read, and found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Bytes that were read. Those of the log count twice: as entries, and as what leads to them.
    pub bytes: u64,
    /// Records of the log that do not.
    pub records: u64,
    /// Heads of batches and indexes of segments that do not.
    pub heads: u64,
    /// Messages that cannot be read where they stand.
    pub messages: u64,
    /// Pages of places that cannot be read.
    pub pages: u64,
    /// Snapshots that are damaged.
    pub snapshots: u64,
    /// Small files that did not say what this node knows.
    pub small_files: u64,
    /// Reads that the disk refused. What could not be read is counted above, as damaged.
    pub refused: u64,
}

impl Pass {
    /// Damaged places.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.records + self.heads + self.messages + self.pages + self.snapshots + self.small_files
    }

    /// A snapshot helps: one takes the place of a damaged one, and lets the log begin later, behind damaged heads.
    #[must_use]
    pub fn wants_snapshot(&self) -> bool {
        self.snapshots + self.heads > 0
    }
}

/// Refused reads that end a pass. One sector that cannot be read hides what it holds and nothing else; where many cannot, the disk
/// is asked later.
const REFUSED_MAX: u64 = 8;

impl Pass {
    /// The disk refuses a read.
    ///
    /// # Errors
    /// [`Ended::Refused`]: there were too many of them.
    pub(in crate::driver) fn refuse(&mut self, source: io::Error) -> Result<(), Ended> {
        self.refused += 1;
        tracing::error!("{source}: met by the scrub");
        if self.refused < REFUSED_MAX { Ok(()) } else { Err(Ended::Refused(source)) }
    }
}

/// Why a pass ended early.
#[derive(Debug)]
pub enum Ended {
    /// The pace said so.
    Stopped,
    /// The disk refuses to be read again and again, which says nothing about what it holds.
    Refused(io::Error),
}

/// Told of what was read, piece by piece; waits, or ends the pass by returning false.
pub type Pace<'a> = dyn FnMut(&Pass) -> bool + 'a;

/// Lets the pace have its say.
pub(in crate::driver) fn go_on(pass: &Pass, pace: &mut Pace<'_>) -> Result<(), Ended> {
    if pace(pass) { Ok(()) } else { Err(Ended::Stopped) }
}

impl Bodies {
    /// The files in which older messages stand.
    pub(in crate::driver) fn files(&self) -> Vec<Arc<Places>> {
        self.look().files.files().cloned().collect()
    }

    /// Reads every page of a file, and its messages. Of those that stand in the log, which is read as such, only the ones in
    /// [`holes`](raftqueue_wal::Reader::holes): where the others have a record in their snapshots only, it is not mended, but
    /// they may have its messages.
    pub(in crate::driver) fn scrub(
        &self,
        file: &Arc<Places>,
        pass: &mut Pass,
        pace: &mut Pace<'_>,
    ) -> Result<(), Ended> {
        let (pinned, is_in_log) = match file.kind() {
            PlacesKind::Segment(number) => {
                (self.reader.0.pin(number), self.reader.0.segments().contains(&number))
            }
            PlacesKind::Kept => (None, false),
        };
        let holes = match file.kind() {
            PlacesKind::Segment(number) if is_in_log => self.reader.0.holes_in(number),
            _ => BTreeSet::new(),
        };
        for block in file.all_blocks() {
            let block = match block {
                Ok(block) => block,
                Err(error) => {
                    tracing::error!("{error}: found by the scrub");
                    if let ReadError::Io { source, .. } = error {
                        pass.refuse(source)?;
                    }
                    // Which messages it told of is not known: those that stand nowhere else are looked for.
                    self.is_page_lost.store(true, Ordering::Relaxed);
                    pass.pages += 1;
                    continue;
                }
            };
            if is_in_log && !matches!(block.spot, Spot::Entry { offset, .. } if holes.contains(&offset)) {
                continue;
            }
            let topic = TopicId(block.topic);
            let mut cursor = self.open_in_files(
                topic,
                block.first_offset,
                slice::from_ref(&(Arc::clone(file), pinned.clone())),
            );
            for offset in block.first_offset..block.end() {
                match given_of(&mut cursor, offset) {
                    Some(given) => pass.bytes += given.record.len() as u64,
                    None => {
                        // One that was got from another node stands in another file. If it is dead by now nobody asks for it.
                        if self.elsewhere(topic, offset).is_none() {
                            tracing::error!(
                                topic = topic.0,
                                offset,
                                "a message cannot be read: found by the scrub"
                            );
                            pass.messages += 1;
                        }
                    }
                }
                go_on(pass, pace)?;
            }
        }
        Ok(())
    }
}
