//! What applying entries led to, as a value that can only be used in the one order that is right.

use super::{CallId, DueBlock};
use crate::api::{Failure, Response};
use bytes::Bytes;
use raftqueue_queue::{Dropped, MessageMeta, TopicId};
use raftqueue_raft::Index;
use std::sync::Arc;

/// Where the messages of one publish stand in the log. Local to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The topic.
    pub topic: TopicId,
    /// Its name, as the command has it.
    pub topic_name: String,
    /// The offset of the first message.
    pub first_offset: u64,
    /// Which command of the entry they are.
    pub command: u32,
    /// Bytes before these messages in the bodies of the entry.
    pub position: u64,
    /// When they were published, in log time.
    pub published_ms: u64,
    /// Size, CRC and deadline of each.
    pub messages: Arc<[MessageMeta]>,
    /// How many publishes of the entry were refused before this one.
    pub refused: u32,
}

/// A command entry that was applied, for those who read messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedEntry {
    /// Its index.
    pub index: Index,
    /// Its bodies, unless it was read back without them. Until the index is durable here, they are only in memory.
    pub bodies: Option<Bytes>,
    /// The messages it published.
    pub placements: Vec<Placement>,
}

/// What applying entries led to. [`Results::carry_out`] is the only way to it.
///
/// Invariant: it holds all of one turn, or was carried out.
#[must_use = "dropping results loses replies, and places of messages"]
#[derive(Debug, Default)]
pub struct Results {
    applied: Vec<AppliedEntry>,
    replies: Vec<(CallId, Result<Response, Failure>)>,
    confirmed: Vec<CallId>,
    deleted: Vec<TopicId>,
    look_again: Vec<(DueBlock, u64)>,
    dropped: Vec<Dropped>,
}

/// Whoever carries out what applying led to: the driver, and what stands in its place in tests.
pub trait Shell {
    /// An entry was applied; they come oldest first. Where its messages stand must be known from now on.
    fn applied(&mut self, entry: AppliedEntry);

    /// A call is answered. Where the messages of the answer stand must be looked up now: they may be forgotten next.
    fn reply(&mut self, call: CallId, result: Result<Response, Failure>);

    /// A call for the cluster's status is to be answered: this node led when the call came, and the rest the shell knows.
    fn confirmed(&mut self, call: CallId);

    /// A topic was deleted: nothing of it will be asked for any more.
    fn deleted(&mut self, topic: TopicId);

    /// A block whose deadline had come is to be looked at again at this log time.
    fn look_again(&mut self, block: DueBlock, when_ms: u64);

    /// What the queue let go of is to be freed, where time does not matter.
    fn dropped(&mut self, dropped: Dropped);
}

impl Results {
    /// Hands everything to `shell`: entries, then replies, which may name messages of those entries, and only then what is
    /// done with, since a pop takes messages and their topic may go with the next command.
    pub fn carry_out(self, shell: &mut impl Shell) {
        let Self { applied, replies, confirmed, deleted, look_again, dropped } = self;
        applied.into_iter().for_each(|entry| shell.applied(entry));
        replies.into_iter().for_each(|(call, result)| shell.reply(call, result));
        confirmed.into_iter().for_each(|call| shell.confirmed(call));
        deleted.into_iter().for_each(|topic| shell.deleted(topic));
        look_again.into_iter().for_each(|(block, when_ms)| shell.look_again(block, when_ms));
        dropped.into_iter().for_each(|dropped| shell.dropped(dropped));
    }

    pub(super) fn add_applied(&mut self, entry: AppliedEntry) {
        self.applied.push(entry);
    }

    pub(super) fn add_reply(&mut self, call: CallId, result: Result<Response, Failure>) {
        self.replies.push((call, result));
    }

    pub(super) fn add_confirmed(&mut self, call: CallId) {
        self.confirmed.push(call);
    }

    pub(super) fn add_deleted(&mut self, topic: TopicId) {
        self.deleted.push(topic);
    }

    pub(super) fn add_dropped(&mut self, dropped: Dropped) {
        self.dropped.push(dropped);
    }

    pub(super) fn add_look_again(&mut self, block: DueBlock, when_ms: u64) {
        self.look_again.push((block, when_ms));
    }
}
