//! What a command took out of the state and did not free.

use crate::subscription::Subscription;
use crate::topic::Topic;
use std::fmt;
use std::sync::Arc;

/// Most entries that a command frees by itself. As many cost about a tenth of a millisecond.
const FREED_AT_ONCE_MAX: usize = 1_000;

/// Whole structures that a deletion or a purge took out of the state, to be freed where time does not matter.
///
/// Freeing costs time by the runs and entries in them: a tenth of a second for a million. So a command only moves them here,
/// and whoever applies it hands them on; dropping this value frees them. Nothing else can be done with it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Dropped {
    pieces: Vec<Piece>,
    entries: usize,
}

/// Something to be freed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Topic(Arc<Topic>),
    Subscription(Box<Subscription>),
}

impl Dropped {
    /// Whether there is nothing to be freed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Runs and entries to be freed.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Lets go of a piece with so many entries; returns the steps that this took.
    pub(crate) fn add(&mut self, piece: Piece, entries: usize) -> u64 {
        if entries <= FREED_AT_ONCE_MAX {
            drop(piece);
            return entries as u64;
        }
        self.pieces.push(piece);
        self.entries += entries;
        1
    }
}

impl fmt::Debug for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dropped({} entries)", self.entries)
    }
}
