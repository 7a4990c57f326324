//! Calls that wait for messages, in lines: the first to come is the first to be served, and each waits until its time
//! is up.

use super::aside::Target;
use super::calls::CallId;
use raftqueue_queue::{SubscriptionId, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// A number in a line: lower ones come first.
pub(super) type Ticket = u64;

/// Every line. The cost of joining, leaving and ending does not grow with the number of calls that wait.
#[derive(Debug, Default)]
pub(super) struct Lines {
    by_target: BTreeMap<Target, BTreeMap<Ticket, CallId>>,
    calls: BTreeMap<CallId, Waits>,
    /// (when to look at it on its own, call).
    ends: BTreeSet<(u64, CallId)>,
    last_ticket: Ticket,
}

#[derive(Clone, Copy, Debug)]
struct Waits {
    target: Target,
    ticket: Ticket,
    end_ms: u64,
}

impl Lines {
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// A call waits from now on, behind all others of its target.
    pub(super) fn join(&mut self, call: CallId, target: Target, end_ms: u64) {
        self.last_ticket += 1;
        self.join_at(call, Waits { target, ticket: self.last_ticket, end_ms });
    }

    /// The first of a line leaves it, if anybody waits there.
    pub(super) fn pop(&mut self, target: Target) -> Option<(Ticket, CallId)> {
        let (&ticket, &call) = self.by_target.get(&target)?.first_key_value()?;
        self.leave(call);
        Some((ticket, call))
    }

    /// If the call, which had just left, waits again, it gets its old number back. Returns whether it does.
    pub(super) fn is_back(&mut self, call: CallId, ticket: Ticket) -> bool {
        let Some(waits) = self.leave(call) else { return false };
        self.join_at(call, Waits { ticket, ..waits });
        true
    }

    /// A call waits no longer.
    pub(super) fn remove(&mut self, call: CallId) {
        self.leave(call);
    }

    /// The call whose time was up first, and its target.
    pub(super) fn first_over(&self, now_ms: u64) -> Option<(CallId, Target)> {
        let (_, call) = self.ends.first().filter(|(end_ms, _)| *end_ms <= now_ms)?;
        Some((*call, self.calls[call].target))
    }

    /// The call is looked at again at that time.
    pub(super) fn put_off(&mut self, call: CallId, end_ms: u64) {
        if let Some(waits) = self.leave(call) {
            self.join_at(call, Waits { end_ms, ..waits });
        }
    }

    /// Subscriptions of a topic where somebody waits.
    pub(super) fn targets_of(&self, topic: TopicId) -> impl Iterator<Item = Target> {
        let all = (topic, SubscriptionId(0))..=(topic, SubscriptionId(u32::MAX));
        self.by_target.range(all).map(|(target, _)| *target)
    }

    fn join_at(&mut self, call: CallId, waits: Waits) {
        self.by_target.entry(waits.target).or_default().insert(waits.ticket, call);
        self.ends.insert((waits.end_ms, call));
        self.calls.insert(call, waits);
    }

    fn leave(&mut self, call: CallId) -> Option<Waits> {
        let waits = self.calls.remove(&call)?;
        self.ends.remove(&(waits.end_ms, call));
        if let Some(line) = self.by_target.get_mut(&waits.target) {
            line.remove(&waits.ticket);
            if line.is_empty() {
                self.by_target.remove(&waits.target);
            }
        }
        Some(waits)
    }
}
