//! Deliberate bugs of the replica, as `raftqueue_raft::mutants` has them for the protocol. Nothing of this is in a binary
//! built without the feature.

/// A rule, broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A publish is acknowledged when it is proposed.
    AcknowledgeBeforeApply,
    /// Where messages stand stays in memory when files tell of it: something for each publish that waits.
    KeepFreshBlocks,
    /// A block is looked at again and again although all of its messages are dead.
    LookAgainAtDead,
    /// A block is looked at again and again although all of its messages are acknowledged.
    LookAgainAtGone,
    /// The oldest segment in which something lives, whether dead, delayed, leased or ready, keeps all that came after it.
    PinByOldest,
    /// A start reads every entry's meta.
    ReadEveryMeta,
}

#[cfg(feature = "mutants")]
mod switch {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Breaks one rule, or none, for every replica on this thread.
    pub fn activate(mutant: Option<Mutant>) {
        ACTIVE.set(mutant);
    }

    pub(crate) fn is(mutant: Mutant) -> bool {
        ACTIVE.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use switch::activate;
#[cfg(feature = "mutants")]
pub(crate) use switch::is;

#[cfg(not(feature = "mutants"))]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}
