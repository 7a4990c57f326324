//! What applying entries led to, as a value that can only be used in the one order that is right.

use super::{AppliedEntry, CallId};
use crate::api::{Failure, Response};
use raftqueue_queue::{Dropped, TopicId};

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
    done_before: Vec<(TopicId, u64)>,
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

    /// Nothing of a topic before `offset` will be asked for any more.
    fn done_before(&mut self, topic: TopicId, offset: u64);

    /// What the queue let go of is to be freed, where time does not matter.
    fn dropped(&mut self, dropped: Dropped);
}

impl Results {
    /// Hands everything to `shell`: entries, then replies, which may name messages of those entries, and only then what is
    /// done with, since a pop takes messages and their topic may go with the next command.
    pub fn carry_out(self, shell: &mut impl Shell) {
        let Self { applied, replies, confirmed, deleted, done_before, dropped } = self;
        applied.into_iter().for_each(|entry| shell.applied(entry));
        replies.into_iter().for_each(|(call, result)| shell.reply(call, result));
        confirmed.into_iter().for_each(|call| shell.confirmed(call));
        deleted.into_iter().for_each(|topic| shell.deleted(topic));
        done_before.into_iter().for_each(|(topic, offset)| shell.done_before(topic, offset));
        dropped.into_iter().for_each(|dropped| shell.dropped(dropped));
    }

    /// True if there is nothing to carry out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.applied.is_empty()
            && self.replies.is_empty()
            && self.confirmed.is_empty()
            && self.deleted.is_empty()
            && self.done_before.is_empty()
            && self.dropped.is_empty()
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

    pub(super) fn add_done_before(&mut self, topic: TopicId, offset: u64) {
        self.done_before.push((topic, offset));
    }
}
