//! Blocks of messages whose deadlines have come.

use raftqueue_queue::TopicId;

/// Messages of one publish or more, of one topic with consecutive offsets, of which at least one had its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DueBlock {
    /// The topic.
    pub topic: TopicId,
    /// The first message.
    pub first_offset: u64,
    /// How many messages it has.
    pub count: u32,
}

impl DueBlock {
    pub(super) fn end(&self) -> u64 {
        self.first_offset.saturating_add(u64::from(self.count))
    }
}
