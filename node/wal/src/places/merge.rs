//! Makes one file of several: places files with the blocks that came since, or kept files with what is still alive.

use super::blocks::Walk;
use super::reader::Places;
use super::writer::{PlacesWriter, Written};
use crate::disk::Disk;
use crate::error::{ReadError, Rotten};
use crate::format::places::{BLOCK_BYTES, Block, PlacesKind, Spot};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use thiserror::Error;

/// Bytes that a step reads and writes, about.
const STEP_BYTES: u64 = 1 << 20;
/// Bodies that may be damaged in all: with more the disk is at its end, and copying is no remedy.
const LOST_MAX: usize = 1024;

/// Whether a block goes into the new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It does.
    Yes,
    /// Nobody will ask for it any more.
    No,
}

/// A body that no source gave back whole. It is not in the new file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostBody {
    /// Its block, as the source has it.
    pub block: Block,
    /// What is damaged.
    pub rotten: Rotten,
}

/// Why a merge ended. The sources are as they were; the file that was begun is nothing.
#[derive(Debug, Error)]
pub enum MergeError {
    /// A page of a source is damaged, or a source cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Two sources disagree about which messages stand together.
    #[error("messages {first}..{end} of topic {topic} overlap others in the same merge")]
    Overlap {
        /// The topic.
        topic: u64,
        /// The first offset.
        first: u64,
        /// The offset behind the last one.
        end: u64,
    },
    /// More bodies are damaged than are reported one by one.
    #[error("more than {} bodies are damaged", LOST_MAX)]
    TooManyLost,
    /// The new file cannot be written.
    #[error("cannot write a places file: {0}")]
    Write(#[source] io::Error),
}

/// How far a merge has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Nothing is left: [`Merge::finish`] comes next.
    pub is_done: bool,
    /// Bytes that this step read and those that it wrote, together.
    pub bytes: u64,
}

/// What a merge made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The file, durable.
    pub written: Written,
    /// How many messages it names.
    pub messages: u64,
    /// Bodies that are missing in it.
    pub lost: Vec<LostBody>,
}

/// A merge under way, in steps of about 1 MiB.
///
/// The same block in several sources is taken once, from the first that gives it back whole; blocks that come new count
/// as the last source.
pub struct Merge {
    sources: Vec<Source>,
    /// Topic, first offset and source of the next block of each source.
    next: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// The first blocks were read.
    has_begun: bool,
    writer: PlacesWriter,
    /// The last block that was judged.
    last: Option<Block>,
    /// It was a kept one, and its body was damaged.
    is_last_lost: bool,
    lost: Vec<LostBody>,
}

struct Source {
    from: From,
    /// Its next block; `None` once it has no more.
    head: Option<Block>,
}

enum From {
    File(Arc<Places>, Walk),
    Fresh(std::vec::IntoIter<Block>),
}

impl Merge {
    /// A merge of files of one kind, and of blocks in the order of (topic, first offset), into a new file of that kind.
    ///
    /// # Panics
    /// If a source is of another kind than the new file, or if blocks come new to a kept file: they have no bodies.
    #[must_use]
    pub fn new(sources: &[Arc<Places>], fresh: Vec<Block>, writer: PlacesWriter) -> Merge {
        assert!(sources.iter().all(|source| source.kind() == writer.kind()), "sources of another kind");
        assert!(fresh.is_empty() || writer.kind() != PlacesKind::Kept, "blocks without bodies");
        let files = sources.iter().map(|source| From::File(Arc::clone(source), Walk::all()));
        let all = files.chain([From::Fresh(fresh.into_iter())]);
        let sources = all.map(|from| Source { from, head: None }).collect::<Vec<_>>();
        let next = BinaryHeap::with_capacity(sources.len());
        Merge { sources, next, has_begun: false, writer, last: None, is_last_lost: false, lost: Vec::new() }
    }

    /// Goes on by about 1 MiB, or by one body if that is longer.
    ///
    /// # Errors
    /// As [`MergeError`] says. The merge is then to be given up: [`Merge::abandon`].
    pub fn step(&mut self, keep: &mut dyn FnMut(&Block) -> Keep) -> Result<Step, MergeError> {
        if !self.has_begun {
            (0..self.sources.len()).try_for_each(|source| self.advance(source))?;
            self.has_begun = true;
        }
        let mut bytes = 0;
        while bytes < STEP_BYTES {
            let Some(Reverse((_, _, source))) = self.next.pop() else {
                return Ok(Step { is_done: true, bytes });
            };
            let block = self.sources[source].head.take().expect("it was put on the heap");
            bytes += 2 * BLOCK_BYTES as u64 + self.take(&block, source, keep)?;
            self.advance(source)?;
        }
        Ok(Step { is_done: false, bytes })
    }

    /// Makes the new file durable.
    ///
    /// # Errors
    /// [`MergeError::Write`].
    ///
    /// # Panics
    /// If steps are left.
    pub fn finish(self, disk: &dyn Disk) -> Result<Merged, MergeError> {
        assert!(self.has_begun && self.next.is_empty(), "the merge is not done");
        let messages = self.writer.messages();
        let written = self.writer.finish(disk).map_err(MergeError::Write)?;
        Ok(Merged { written, messages, lost: self.lost })
    }

    /// Gives up: the new file goes.
    ///
    /// # Errors
    /// What the disk said.
    pub fn abandon(self, disk: &dyn Disk) -> io::Result<()> {
        self.writer.abandon(disk)
    }

    /// Judges one block and writes it; says how many bytes of bodies were read and written.
    fn take(
        &mut self,
        block: &Block,
        source: usize,
        keep: &mut dyn FnMut(&Block) -> Keep,
    ) -> Result<u64, MergeError> {
        let before = self.last.replace(*block).filter(|last| (last.topic, last.end()) > block.key());
        if let Some(before) = before {
            if (before.key(), before.count) != (block.key(), block.count) {
                let Block { topic, first_offset: first, .. } = *block;
                return Err(MergeError::Overlap { topic, first, end: block.end() });
            }
            if !self.is_last_lost {
                return Ok(0);
            }
            // Another copy of the one that was lost.
            self.lost.pop();
        }
        self.is_last_lost = false;
        if keep(block) == Keep::No {
            return Ok(0);
        }
        match block.spot {
            Spot::Entry { .. } => self.writer.push(block).map_err(MergeError::Write)?,
            Spot::Kept { crc, .. } => {
                let From::File(places, _) = &self.sources[source].from else {
                    unreachable!("new blocks are refused for kept files")
                };
                let body = match places.body(block) {
                    Ok(body) => body,
                    Err(ReadError::Rot(rotten)) => {
                        self.is_last_lost = true;
                        self.lost.push(LostBody { block: *block, rotten });
                        return if self.lost.len() > LOST_MAX { Err(MergeError::TooManyLost) } else { Ok(0) };
                    }
                    Err(error) => return Err(error.into()),
                };
                let offset = self.writer.body(&body).map_err(MergeError::Write)?;
                let block = Block { spot: Spot::Kept { offset, crc }, ..*block };
                self.writer.push(&block).map_err(MergeError::Write)?;
                return Ok(2 * block.bytes);
            }
        }
        Ok(0)
    }

    /// Puts the next block of a source on the heap.
    fn advance(&mut self, source: usize) -> Result<(), MergeError> {
        let Source { from, head } = &mut self.sources[source];
        *head = match from {
            From::File(places, walk) => walk.next(places).transpose()?,
            From::Fresh(blocks) => blocks.next(),
        };
        if let Some(block) = head {
            self.next.push(Reverse((block.topic, block.first_offset, source)));
        }
        Ok(())
    }
}

/// A whole merge at once. The file is taken away again if it fails.
///
/// # Errors
/// As [`MergeError`] says.
///
/// # Panics
/// As [`Merge::new`].
pub fn merge(
    disk: &dyn Disk,
    sources: &[Arc<Places>],
    fresh: Vec<Block>,
    mut keep: impl FnMut(&Block) -> Keep,
    writer: PlacesWriter,
) -> Result<Merged, MergeError> {
    let mut merge = Merge::new(sources, fresh, writer);
    loop {
        match merge.step(&mut keep) {
            Ok(Step { is_done: true, .. }) => return merge.finish(disk),
            Ok(_) => {}
            Err(error) => {
                // What of the file is left if this fails too is a leftover, which the next opening takes away.
                merge.abandon(disk).ok();
                return Err(error);
            }
        }
    }
}
