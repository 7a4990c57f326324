//! The one bridge between "decided" and "durable".

use crate::{Entry, HardState, Index, Term};

/// Everything that must become durable next, as one append and one sync. At most one is out at a time.
///
/// Order inside: the hard state first, then the reset, then the truncation, then the entries. A store may make several
/// durable with one sync. It must not make a later part durable without the earlier ones.
#[must_use = "a write that is dropped stops the node: nothing after it can become durable"]
#[derive(Debug)]
pub struct Write {
    pub(crate) sequence: u64,
    pub(crate) hard_state: HardState,
    pub(crate) hard_state_changed: bool,
    pub(crate) reset: Option<(Index, Term)>,
    pub(crate) truncate_from: Option<Index>,
    pub(crate) entries: Vec<Entry>,
}

impl Write {
    /// The term and vote as of this write, also if they did not change.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// True if the hard state differs from that of every earlier write.
    #[must_use]
    pub fn hard_state_changed(&self) -> bool {
        self.hard_state_changed
    }

    /// An install: the log begins behind this index from now on, and the snapshot there becomes this node's own, all at
    /// once. If the disk holds an entry of this term at the index, then what follows it stays. Else nothing stays.
    #[must_use]
    pub fn reset(&self) -> Option<(Index, Term)> {
        self.reset
    }

    /// The first index to cut off the log before `entries` are appended.
    #[must_use]
    pub fn truncate_from(&self) -> Option<Index> {
        self.truncate_from
    }

    /// The entries to append: consecutive, and following what is left after the truncation.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Runs `store` and, if it succeeds, turns this write into the receipt that the core waits for.
    ///
    /// # Errors
    /// What `store` said, with the write. The write can be tried again after a full disk whose partial write was
    /// undone. After a failed sync it cannot: the node must stop.
    pub fn persist<E>(self, store: impl FnOnce(&Write) -> Result<(), E>) -> Result<Persisted, (E, Write)> {
        match store(&self) {
            Ok(()) => Ok(Persisted { sequence: self.sequence }),
            Err(error) => Err((error, self)),
        }
    }
}

/// Proof that a [`Write`] is durable. Only [`Write::persist`] makes one.
#[derive(Debug)]
pub struct Persisted {
    pub(crate) sequence: u64,
}
