//! What can be asked of the state without changing it.
//!
//! Nothing is copied. Listings start from an offset that the caller gives, so it can go on where it stopped although
//! the state has changed in between.

use crate::dead::DeadRun;
use crate::sessions::Session;
use crate::state::State;
use crate::subscription::Subscription;
use crate::topic::Topic;
use crate::{
    Command, DeadSelection, EXPIRED_PER_APPLY_MAX, Generation, REDRIVEN_PER_APPLY_MAX, SessionId,
    SubscriptionId, Token, TopicId, TopicSettings,
};
use std::ops::Range;
use std::sync::Arc;

/// Messages of one subscription by state, with their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Messages that can be received.
    pub ready: u64,
    /// Their bytes.
    pub ready_bytes: u64,
    /// Messages with workers.
    pub leased: u64,
    /// Their bytes.
    pub leased_bytes: u64,
    /// Messages that wait for their time.
    pub delayed: u64,
    /// Their bytes.
    pub delayed_bytes: u64,
    /// Messages that are dead.
    pub dead: u64,
    /// Their bytes.
    pub dead_bytes: u64,
    /// The smallest offset that is not done with.
    pub oldest_offset: Option<u64>,
    /// The smallest offset that is ready.
    pub oldest_ready_offset: Option<u64>,
    /// Runs and entries in memory: what this subscription costs.
    pub entries: u64,
}

/// A leased message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeasedMessage {
    /// Its offset in the topic.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u32,
    /// Earlier leases of it that ended by nack or expiry.
    pub attempts: u32,
    /// The token of the lease.
    pub token: Token,
    /// The log time of the grant.
    pub granted_ms: u64,
    /// The log time at which the lease ends.
    pub expires_ms: u64,
    /// The log time at which the message expires, if it does.
    pub deadline_ms: Option<u64>,
    /// Whether its deadline does not count because it was redriven.
    pub is_waived: bool,
}

/// A delayed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayedMessage {
    /// Its offset in the topic.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u32,
    /// Leases of it that ended by nack or expiry.
    pub attempts: u32,
    /// The log time at which it is ready.
    pub due_ms: u64,
    /// The log time at which the message expires, if it does.
    pub deadline_ms: Option<u64>,
    /// Whether its deadline does not count because it was redriven.
    pub is_waived: bool,
}

/// A ready message that was leased before without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetriedMessage {
    /// Its offset in the topic.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u32,
    /// Leases of it that ended by nack or expiry.
    pub attempts: u32,
    /// The token of the lease that ran out last, under which it can still be acknowledged.
    pub late_ack: Option<Token>,
}

impl State {
    /// The greatest stamp applied.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The generation in force.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// How many topics there are.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Bytes of everything that some subscription holds or that is kept for the repeat of a pop, each message with `beside`
    /// more. Costs a step for each subscription.
    #[must_use]
    pub fn held_bytes(&self, beside: u64) -> u64 {
        let each = self.topics().flat_map(Topic::subscriptions).map(|(_, subscription)| {
            let Stats { ready, leased, delayed, dead, .. } = subscription.stats();
            subscription.bytes + (ready + leased + delayed + dead).saturating_mul(beside)
        });
        let popped = self.pops.kept_bytes + self.pops.kept_messages.saturating_mul(beside);
        each.fold(popped, u64::saturating_add)
    }

    /// As many bytes as may live of a topic at most: what its subscriptions hold, and what all pops are kept with. Costs a
    /// step for each subscription.
    #[must_use]
    pub fn live_bytes_max(&self, topic: TopicId) -> u64 {
        let held = self.topic(topic).into_iter().flat_map(Topic::subscriptions);
        held.fold(self.pops.kept_bytes, |bytes, (_, held)| bytes.saturating_add(held.bytes))
    }

    /// The names of all topics in the order of their creation.
    pub fn topic_names(&self) -> impl Iterator<Item = &str> {
        self.topics().map(Topic::name)
    }

    /// All topics in the order of their creation.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter().map(|(_, topic)| Arc::as_ref(topic))
    }

    /// The topics from this id on, in the order of their creation: for listing in pages.
    pub fn topics_from(&self, id: TopicId) -> impl Iterator<Item = &Topic> {
        self.topics.iter_from(&id).map(|(_, topic)| Arc::as_ref(topic))
    }

    /// The id of the topic that has this name now.
    #[must_use]
    pub fn topic_id(&self, name: &str) -> Option<TopicId> {
        self.names.get(name).copied()
    }

    /// The topic with this id.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id).map(Arc::as_ref)
    }

    /// The subscription of a topic, if both are there.
    #[must_use]
    pub fn subscription(&self, topic: TopicId, subscription: SubscriptionId) -> Option<&Subscription> {
        self.topic(topic)?.subscription(subscription)
    }

    /// The earliest time at which something ends: a lease, a delay, a session, a kept pop. It is not after
    /// [`State::now_ms`] if the last apply had more to end than it may, or if a redrive or deletion goes on. Deadlines of ready messages are not known here:
    /// the log knows them.
    #[must_use]
    pub fn earliest_deadline_ms(&self) -> Option<u64> {
        let end = self.ends.first().map(|(&(ms, ..), ())| ms);
        let session = self.sessions.next_end().map(|(ms, _)| ms);
        let is_unfinished = !self.redriving.is_empty() || !self.leaving.is_empty();
        let unfinished = is_unfinished.then_some(self.now_ms);
        [end, session, self.pops.next_end_ms(), unfinished].into_iter().flatten().min()
    }

    /// How much would be over at `now_ms`, in steps of an apply at that time. Stops counting at `max`.
    #[must_use]
    pub fn due_count(&self, now_ms: u64, max: usize) -> usize {
        let mut due = 0;
        for (&(ms, topic, subscription), ()) in self.ends.iter() {
            if ms > now_ms || due >= max {
                break;
            }
            let held = self.subscription(topic, subscription);
            due += held.map_or(0, |held| held.due_count(now_ms, max - due));
        }
        due += self.sessions.due_count(now_ms, max.saturating_sub(due));
        due += self.pops.due_count(now_ms, max.saturating_sub(due));
        for (_, sessions) in self.leaving.iter() {
            due += sessions.len();
            if due >= max {
                return due;
            }
        }
        for (&(topic, subscription), ()) in self.redriving.iter() {
            let held = self.subscription(topic, subscription);
            due += held.map_or(0, |held| held.redriven.run_count());
            if due >= max {
                return due;
            }
        }
        due
    }

    /// What a command costs in steps besides what it lists, where that can be much: at most a few thousand each.
    #[must_use]
    pub fn command_steps(&self, command: &Command) -> usize {
        const ENTRIES_MAX: usize = 1_000;
        match command {
            Command::RedriveDead { topic, subscription, selection: DeadSelection::All } => {
                let held = self.subscription(*topic, *subscription);
                2 * held.map_or(0, |held| held.dead.run_count()).min(REDRIVEN_PER_APPLY_MAX)
            }
            Command::DeleteTopic { name } => {
                let topic = self.topic_id(name).and_then(|id| self.topic(id));
                topic.map_or(0, |topic| {
                    topic.entries().min(ENTRIES_MAX) + 2 * topic.sessions.len().min(EXPIRED_PER_APPLY_MAX)
                })
            }
            Command::Purge { .. } | Command::PurgeDead { selection: DeadSelection::All, .. } => ENTRIES_MAX,
            Command::CloseSession { session, .. } => {
                self.session(*session).map_or(0, |session| session.pairs.len())
            }
            _ => 0,
        }
    }

    /// Whether a pop with this request id is kept or remembered: its repeat takes nothing more, so it needs no
    /// candidates.
    #[must_use]
    pub fn knows_pop(&self, request_id: u128) -> bool {
        self.pops.get(request_id).is_some()
    }

    /// How many sessions are open.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.by_id.len()
    }

    /// How many (session, topic) pairs there are.
    #[must_use]
    pub fn session_pair_count(&self) -> u64 {
        self.sessions.pair_count
    }

    /// The session with this id.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.by_id.get(&id).map(Arc::as_ref)
    }
}

impl Topic {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> TopicId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it was created, in milliseconds of log time.
    #[must_use]
    pub fn created_ms(&self) -> u64 {
        self.created_ms
    }

    /// What it allows.
    #[must_use]
    pub fn settings(&self) -> &TopicSettings {
        &self.settings
    }

    /// The offset that the next message gets.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.offsets.next
    }

    /// The generation of a message id, for an offset that was given.
    #[must_use]
    pub fn generation_of(&self, offset: u64) -> Option<Generation> {
        (offset < self.offsets.next).then(|| self.offsets.generation_of(offset))
    }

    /// Its subscriptions.
    pub fn subscriptions(&self) -> impl Iterator<Item = (SubscriptionId, &Subscription)> {
        self.subscriptions.iter().map(|(&id, subscription)| (id, subscription))
    }

    /// One of its subscriptions.
    #[must_use]
    pub fn subscription(&self, id: SubscriptionId) -> Option<&Subscription> {
        self.subscriptions.get(&id)
    }
}

impl Subscription {
    /// Counts and bytes. Costs no time by messages.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let leased = self.leased.first().map(|(&offset, _)| offset);
        let delayed = self.delayed.first().map(|(&offset, _)| offset);
        Stats {
            ready: self.ready_count(),
            ready_bytes: self.ready_bytes(),
            leased: self.leased.len() as u64,
            leased_bytes: self.leased_bytes,
            delayed: self.delayed.len() as u64,
            delayed_bytes: self.delayed_bytes,
            dead: self.dead.count(),
            dead_bytes: self.dead.bytes(),
            oldest_offset: [self.ready.first(), leased, delayed, self.dead.first(), self.redriven.first()]
                .into_iter()
                .flatten()
                .min(),
            oldest_ready_offset: self.ready.first(),
            entries: self.entries() as u64,
        }
    }

    /// Whether anything can be received.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether this message can be received.
    #[must_use]
    pub fn is_ready(&self, offset: u64) -> bool {
        self.ready.contains(offset)
    }

    /// Ready messages from an offset on, as runs in rising order: what the leader chooses candidates from.
    pub fn ready_runs_from(&self, from: u64) -> impl Iterator<Item = Range<u64>> {
        self.ready.iter_from(from)
    }

    /// Ready messages from an offset on, one by one.
    pub fn ready_from(&self, from: u64) -> impl Iterator<Item = u64> {
        self.ready.iter_from(from).flatten()
    }

    /// How many leases of a live message ended by nack or expiry. 0 for a message that is not dead, leased, delayed or
    /// retried.
    #[must_use]
    pub fn attempts(&self, offset: u64) -> u32 {
        let retried = self.retried.get(&offset).map(|retried| retried.attempts);
        let leased = || self.leased.get(&offset).map(|lease| lease.attempts);
        let delayed = || self.delayed.get(&offset).map(|delayed| delayed.attempts);
        let dead = || self.dead.iter_from(offset).next().filter(|run| run.offsets.contains(&offset));
        retried.or_else(leased).or_else(delayed).or_else(|| dead().map(|run| run.attempts)).unwrap_or(0)
    }

    /// Whether the deadline of a ready message does not count, because the message was redriven. The leader leaves such
    /// messages out when it looks for overdue ones, else it would find the same again and again.
    #[must_use]
    pub fn is_deadline_waived(&self, offset: u64) -> bool {
        self.waived.contains(offset)
    }

    /// Leased messages from an offset on.
    pub fn leased_from(&self, from: u64) -> impl Iterator<Item = LeasedMessage> {
        self.leased.iter_from(&from).map(|(&offset, lease)| LeasedMessage {
            offset,
            size: lease.size,
            attempts: lease.attempts,
            token: lease.token,
            granted_ms: lease.granted_ms,
            expires_ms: lease.expires_ms,
            deadline_ms: lease.deadline.as_ms(),
            is_waived: lease.deadline.is_waived(),
        })
    }

    /// Delayed messages from an offset on.
    pub fn delayed_from(&self, from: u64) -> impl Iterator<Item = DelayedMessage> {
        self.delayed.iter_from(&from).map(|(&offset, delayed)| DelayedMessage {
            offset,
            size: delayed.size,
            attempts: delayed.attempts,
            due_ms: delayed.due_ms,
            deadline_ms: delayed.deadline.as_ms(),
            is_waived: delayed.deadline.is_waived(),
        })
    }

    /// Ready messages that were leased before, from an offset on.
    pub fn retried_from(&self, from: u64) -> impl Iterator<Item = RetriedMessage> {
        self.retried.iter_from(&from).map(|(&offset, retried)| RetriedMessage {
            offset,
            size: retried.size,
            attempts: retried.attempts,
            late_ack: Some(retried.late_ack).filter(|token| *token != Token(0)),
        })
    }

    /// Dead messages from an offset on, as runs of those that died alike; the first is cut there.
    pub fn dead_from(&self, from: u64) -> impl Iterator<Item = DeadRun> {
        self.dead.iter_from(from)
    }

    /// Redriven messages that are not listed yet, from an offset on, as they died.
    pub(crate) fn redriven_from(&self, from: u64) -> impl Iterator<Item = DeadRun> {
        self.redriven.iter_from(from)
    }
}
