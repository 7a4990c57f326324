//! What leads to the entries of a segment: its own head, those of its batches, and its sealed index.
//!
//! A process that runs does not need them, since it knows where every entry stands. The next opening does, and does without any
//! one of them but the segment's own. So what is damaged should be known before more is.

use crate::disk::SECTOR_BYTES;
use crate::error::{Rotten, RottenPart};
use crate::reader::Reader;
use crate::scan::{Behind, Depth, Scanner, read_head};
use crate::segment::Segment;
use std::io;
use std::sync::Arc;

/// What came of looking at the heads of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// Those that do not verify.
    pub damaged: Vec<Rotten>,
    /// Bytes of the segment that were passed.
    pub bytes: u64,
}

impl Reader {
    /// The heads of one segment that do not verify. Of the segment that is written to only its own is looked at, and nothing of one
    /// that is not part of the log.
    ///
    /// # Errors
    /// The disk refuses to be read, which says nothing about what it holds.
    pub fn look_at_heads(&self, segment: u64) -> io::Result<Heads> {
        let (held, next) = {
            let visible = self.shared.read();
            let next = visible.segments.range(segment + 1..).next();
            (visible.segments.get(&segment).cloned(), next.map(|(_, next)| Arc::clone(next)))
        };
        let Some(held) = held else { return Ok(Heads::default()) };
        let file = held.file()?;
        let Ok(head) = read_head(&*file)? else {
            return Ok(Heads {
                damaged: vec![rotten(&held, 0, RottenPart::SegmentHead)],
                bytes: SECTOR_BYTES,
            });
        };
        let Some(next) = next else { return Ok(Heads { damaged: Vec::new(), bytes: SECTOR_BYTES }) };
        let next_file = next.file()?;
        // Whoever looks at that one says so.
        let Ok(next_head) = read_head(&*next_file)? else { return Ok(Heads::default()) };
        if next_head.predecessor != segment {
            return Ok(Heads::default());
        }
        let end = next_head.predecessor_end;
        let mut scanner = Scanner::new(&*file, &held.name, head, Depth::Headers)?;
        let mut damaged = Vec::new();
        if next_head.predecessor_sealed {
            let seal = scanner.frame(end)?;
            let index = seal.as_ref().map_or(Ok(None), |seal| scanner.index(seal))?;
            if scanner.identities(seal.as_ref())?.is_none() || index.is_none() {
                damaged.push(rotten(&held, end, RottenPart::SealedIndex));
            }
        }
        let scan = scanner.walk(Some(end), &Behind::default(), None)?;
        let of_batches = scan.batches.into_iter().flat_map(|batch| batch.damage);
        damaged.extend(
            of_batches.filter(|damage| matches!(damage.part, RottenPart::Frame | RottenPart::Identities)),
        );
        Ok(Heads { damaged, bytes: end })
    }
}

fn rotten(segment: &Segment, offset: u64, part: RottenPart) -> Rotten {
    Rotten { file: segment.name.clone(), offset, part, record: None }
}
