//! Asking for what the queue does not know of messages: their sizes and deadlines.

use raftqueue_queue::{Candidate, TopicId};

/// Names one [`Lookup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LookupId(pub u64);

/// Messages whose size and deadline are wanted from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Names the answer.
    pub id: LookupId,
    /// The topic.
    pub topic: TopicId,
    /// The messages.
    pub offsets: Vec<u64>,
    /// So many bytes of them are enough, with at least one.
    pub bytes_max: Option<usize>,
    /// They are to be taken for good: what cannot be read counts as not found. Else only their places are looked at, not
    /// their bodies.
    pub is_taken: bool,
}

/// What a [`Lookup`] has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookedUp {
    /// Those of its messages that could be found, in the order asked for.
    pub found: Vec<Candidate>,
    /// Those that could not.
    pub missing: Vec<u64>,
}
