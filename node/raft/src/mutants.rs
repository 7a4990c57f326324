//! Deliberate bugs, so that tests can show that they would be seen. Without the feature `mutants`, which no shipped
//! binary has, [`is`] is the constant `false` and nothing of this remains.

/// A rule of the protocol, broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Promises leave before the term and vote behind them are durable.
    SkipVoteSync,
    /// A leader counts its own entries before they are on its disk.
    CountSelfEarly,
    /// A leader commits entries of earlier terms by counting them.
    CommitOldTerm,
    /// A truncation leaves the durable index as it was.
    StaleDurableAfterTruncation,
    /// A follower takes the leader's commit index as it comes, whatever its own log holds.
    CommitUnverified,
    /// A read is answered without asking whether somebody else leads by now.
    ReadWithoutQuorum,
}

#[cfg(feature = "mutants")]
mod switch {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static ACTIVE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Breaks one rule, or none, for every [`crate::Raft`] on this thread.
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
