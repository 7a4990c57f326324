//! The vocabulary: ids, terms, indexes, the hard state.

use std::fmt;

/// The id of a node: a random number minted when its data directory was formatted, never reused, never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A Raft term. 0 is "before the first election".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// A position in the log. The first entry is at 1; 0 is "before the first entry".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(pub u64);

/// The Raft group that a message or record belongs to. Always 0 for now. It stands in every envelope and record, so
/// that topics can later be spread over several groups that share one log.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId(pub u32);

impl Term {
    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl Index {
    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The index before this one; 0 stays 0.
    #[must_use]
    pub fn prev(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

macro_rules! show {
    ($type:ty, $format:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}
show!(NodeId, "{:x}");
show!(Term, "{}");
show!(Index, "{}");

/// What a node must never forget across a crash: the greatest term it has seen and whom it voted for in that term.
/// Ordered: a greater term wins, and within one term a vote beats none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct HardState {
    /// The current term.
    pub term: Term,
    /// The node that this node voted for in `term`.
    pub vote: Option<NodeId>,
}
