//! Messages that were found, and what was read of them.

use super::entry::Entry;
use super::fresh::FreshBlock;
use crate::api::codec::Unreadable;
use crate::api::{Delivery, MessageRef};
use bytes::Bytes;
use raftqueue_queue::TopicId;
use raftqueue_wal::{Pinned, Places};
use std::sync::Arc;

/// Where messages with consecutive offsets stand. It holds the file, so that their bytes stay there until they are read.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In an entry that is not on this node's disk yet.
    Memory { block: FreshBlock, entry: Arc<Entry>, bodies: Bytes },
    /// In an entry of the log.
    Log { block: FreshBlock, segment: Pinned, offset: u64 },
    /// In one of these files, the likeliest first; with each places file its segment.
    Files(Vec<(Arc<Places>, Option<Pinned>)>),
}

/// A stretch of offsets of one topic that stand in one place.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub(super) topic: TopicId,
    pub(super) first_offset: u64,
    pub(super) end_offset: u64,
    pub(super) place: Place,
}

impl Stretch {
    pub(super) fn holds(&self, topic: TopicId, offset: u64) -> bool {
        self.topic == topic && (self.first_offset..self.end_offset).contains(&offset)
    }
}

/// Messages, and where they stand: what a reader needs after the driver has answered.
#[derive(Clone, Debug)]
pub struct Located {
    pub(super) messages: Vec<MessageRef>,
    /// The stretches that the messages are in, in the order in which they are met.
    pub(super) stretches: Vec<Stretch>,
    /// Those that stand nowhere.
    pub(super) nowhere: Vec<Lost>,
}

impl Located {
    /// The messages that stand somewhere, in the order asked for.
    #[must_use]
    pub fn messages(&self) -> &[MessageRef] {
        &self.messages
    }

    /// Messages that stand nowhere.
    #[cfg(test)]
    pub(crate) fn nowhere(messages: Vec<MessageRef>) -> Self {
        let lost = |message| Lost { message, why: Unreadable("nowhere".into()) };
        let nowhere = messages.into_iter().map(lost).collect();
        Self { messages: Vec::new(), stretches: Vec::new(), nowhere }
    }

    /// All messages that were asked for.
    #[must_use]
    pub fn into_messages(self) -> Vec<MessageRef> {
        let nowhere = self.nowhere.into_iter().map(|lost| lost.message);
        self.messages.into_iter().chain(nowhere).collect()
    }
}

/// A message that cannot be read here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The message.
    pub message: MessageRef,
    /// Why.
    pub why: Unreadable,
}

/// What was read of the messages that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Those that could be read, in the order asked for.
    pub deliveries: Vec<Delivery>,
    /// Those that could not.
    pub lost: Vec<Lost>,
}
