//! The commands of the queue: each is one change of its state.
//!
//! Everything that decides what a command does stands in the command or in the state, never in the configuration of the
//! node that applies it.

use crate::{ATTEMPTS_MAX_DEFAULT, Generation, SessionId, SubscriptionId, Token, TopicId};

/// Where and when a command is applied. The same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplyMeta {
    /// The index of the log entry that holds the command. Entries come in rising order; the commands of one entry share
    /// its index.
    pub index: u64,
    /// The stamp of the entry: milliseconds of log time. A stamp behind an earlier one counts as that earlier one.
    pub now_ms: u64,
    /// The active version of the cluster. All versions so far behave alike: version 2 only knows one command more, which no
    /// entry of version 1 has. A change of behaviour must depend on this.
    pub version: u32,
}

/// One change of the queue, applied wholly or refused wholly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Makes a topic with its `default` subscription.
    CreateTopic {
        /// 1 to [`NAME_BYTES_MAX`](crate::NAME_BYTES_MAX) bytes without control characters.
        name: String,
        /// What the topic allows.
        settings: TopicSettings,
        /// Most topics of the cluster, this one included.
        topics_max: u64,
        /// A creation with the same name and request id succeeds again, as long as that topic exists.
        request_id: Option<u128>,
    },
    /// Changes what a topic allows, from here on: what is held stays, also beyond a lower limit. Of version 2.
    UpdateTopic {
        /// The topic.
        name: String,
        /// What changes.
        change: TopicChange,
    },
    /// Deletes a topic with all its messages and the sequences that sessions counted in it.
    DeleteTopic {
        /// The topic.
        name: String,
    },
    /// Appends a batch of messages to a topic: all or none.
    Publish {
        /// The name of the topic.
        topic: String,
        /// Where this batch stands in a session; without it a repeat is a duplicate.
        session: Option<Sequenced>,
        /// The messages in order; they get consecutive offsets. At least one, at most
        /// [`PUBLISH_MESSAGES_MAX`](crate::PUBLISH_MESSAGES_MAX).
        messages: Vec<MessageMeta>,
    },
    /// Leases those candidates that are still ready.
    Receive {
        /// The topic.
        topic: TopicId,
        /// The subscription that reads.
        subscription: SubscriptionId,
        /// Messages that the leader saw ready, at most [`RECEIVE_MESSAGES_MAX`](crate::RECEIVE_MESSAGES_MAX). Rising
        /// offsets are the fastest, any order is right.
        candidates: Vec<Candidate>,
        /// Length of the lease in milliseconds of log time, [`LEASE_MS_MIN`](crate::LEASE_MS_MIN) to
        /// [`LEASE_MS_MAX`](crate::LEASE_MS_MAX).
        lease_ms: u64,
    },
    /// Receives and acknowledges in one step: at most once.
    Pop {
        /// The topic.
        topic: TopicId,
        /// The subscription that reads.
        subscription: SubscriptionId,
        /// Messages that the leader saw ready: more than `count_max`, since some may be gone. At most
        /// [`RECEIVE_MESSAGES_MAX`](crate::RECEIVE_MESSAGES_MAX).
        candidates: Vec<Candidate>,
        /// Most messages to take; 1 for the simple API.
        count_max: u32,
        /// Makes a repeat return the same messages for [`POP_KEPT_MS`](crate::POP_KEPT_MS).
        request_id: Option<u128>,
    },
    /// Ends leases with success: the messages are done with.
    Ack {
        /// The topic.
        topic: TopicId,
        /// The subscription that received them.
        subscription: SubscriptionId,
        /// What to acknowledge, each judged alone; at most [`SETTLE_LEASES_MAX`](crate::SETTLE_LEASES_MAX).
        leases: Vec<LeaseId>,
    },
    /// Ends leases with failure: counts an attempt and makes the messages ready again, delayed, or dead.
    Nack {
        /// The topic.
        topic: TopicId,
        /// The subscription that received them.
        subscription: SubscriptionId,
        /// What failed, each judged alone; at most [`SETTLE_LEASES_MAX`](crate::SETTLE_LEASES_MAX).
        leases: Vec<LeaseId>,
        /// Milliseconds of log time before the messages are ready again; 0 for at once.
        delay_ms: u64,
        /// Why, kept with a message that dies of this nack; at most
        /// [`NACK_REASON_BYTES_MAX`](crate::NACK_REASON_BYTES_MAX) bytes.
        reason: Option<String>,
    },
    /// Moves the end of leases to `lease_ms` from now. Never brings an end nearer.
    Extend {
        /// The topic.
        topic: TopicId,
        /// The subscription that received them.
        subscription: SubscriptionId,
        /// What to extend, each judged alone; at most [`SETTLE_LEASES_MAX`](crate::SETTLE_LEASES_MAX).
        leases: Vec<LeaseId>,
        /// Milliseconds of log time from now, [`LEASE_MS_MIN`](crate::LEASE_MS_MIN) to
        /// [`LEASE_MS_MAX`](crate::LEASE_MS_MAX); the end is no later than `LEASE_MS_MAX` after the grant.
        lease_ms: u64,
    },
    /// Gives leases back unstarted: no attempt is counted.
    Release {
        /// The topic.
        topic: TopicId,
        /// The subscription that received them.
        subscription: SubscriptionId,
        /// What to give back, each judged alone; at most [`SETTLE_LEASES_MAX`](crate::SETTLE_LEASES_MAX).
        leases: Vec<LeaseId>,
    },
    /// Makes dead messages ready again at their own offsets, with no attempts counted. Their deadlines are waived:
    /// whoever redrives a message wants it delivered.
    RedriveDead {
        /// The topic.
        topic: TopicId,
        /// The subscription in which they are dead.
        subscription: SubscriptionId,
        /// Which.
        selection: DeadSelection,
    },
    /// Drops dead messages for good.
    PurgeDead {
        /// The topic.
        topic: TopicId,
        /// The subscription in which they are dead.
        subscription: SubscriptionId,
        /// Which.
        selection: DeadSelection,
    },
    /// Drops every ready and every delayed message of a subscription: nothing that waits now is delivered later. Leased
    /// messages stay, since a worker may be done with them; one that is returned is ready again. Dead messages stay,
    /// too: they have a purge of their own.
    Purge {
        /// The name of the topic.
        topic: String,
        /// The subscription.
        subscription: SubscriptionId,
    },
    /// Opens a session for idempotent publishing.
    OpenSession {
        /// A producer that keeps its identity over restarts: opening the name again resumes its session under the next
        /// epoch and fences every earlier one.
        name: Option<String>,
        /// Most open sessions of the cluster, this one included.
        sessions_max: u64,
        /// Most (session, topic) pairs of the cluster; held against the publishes of this session.
        pairs_max: u64,
    },
    /// Ends a session and forgets its sequences.
    CloseSession {
        /// The session.
        session: SessionId,
        /// The epoch under which the caller holds it.
        epoch: u64,
    },
    /// Nothing but the stamp of the entry, and messages whose deadline the leader found to have passed.
    Time {
        /// By topic and subscription. Together at most [`EXPIRED_PER_APPLY_MAX`](crate::EXPIRED_PER_APPLY_MAX) end now;
        /// the others are left for the next such command.
        overdue: Vec<Overdue>,
    },
    /// The first command after a forced recovery.
    RaiseGeneration {
        /// The new generation, above the old one.
        generation: Generation,
    },
}

/// What a topic allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Leases of one message that may end by nack or expiry; with the last of them it is dead. At least 1.
    pub attempts_max: u32,
    /// Most messages held, whatever their state; `None` for no limit.
    pub messages_max: Option<u64>,
    /// Most bytes held, whatever the state of the messages; `None` for no limit.
    pub bytes_max: Option<u64>,
    /// Time to live in milliseconds for messages that bring none. The leader writes it into [`MessageMeta::ttl_ms`]
    /// before it proposes, because the log must know a message's deadline without asking the queue. Apply does not read
    /// it.
    pub ttl_ms_default: Option<u64>,
}

impl Default for TopicSettings {
    fn default() -> TopicSettings {
        TopicSettings {
            attempts_max: ATTEMPTS_MAX_DEFAULT,
            messages_max: None,
            bytes_max: None,
            ttl_ms_default: None,
        }
    }
}

/// What of a topic's settings changes; `None` leaves a setting as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicChange {
    /// See [`TopicSettings::attempts_max`]. A message that has failed as often already dies of its next failure.
    pub attempts_max: Option<u32>,
    /// See [`TopicSettings::messages_max`]; `Some(None)` lifts the limit.
    pub messages_max: Option<Option<u64>>,
    /// See [`TopicSettings::bytes_max`]; `Some(None)` lifts the limit.
    pub bytes_max: Option<Option<u64>>,
    /// See [`TopicSettings::ttl_ms_default`]; of messages that are published from then on.
    pub ttl_ms_default: Option<Option<u64>>,
}

impl TopicChange {
    /// The settings with the change.
    #[must_use]
    pub fn of(&self, settings: &TopicSettings) -> TopicSettings {
        TopicSettings {
            attempts_max: self.attempts_max.unwrap_or(settings.attempts_max),
            messages_max: self.messages_max.unwrap_or(settings.messages_max),
            bytes_max: self.bytes_max.unwrap_or(settings.bytes_max),
            ttl_ms_default: self.ttl_ms_default.unwrap_or(settings.ttl_ms_default),
        }
    }
}

/// Where a batch stands in a session. Sequences count per (session, topic) from 1 without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequenced {
    /// The session.
    pub session: SessionId,
    /// The epoch under which the producer holds it; 0 unless the session is named and was resumed.
    pub epoch: u64,
    /// The last accepted sequence plus 1.
    pub sequence: u64,
    /// CRC32C of the whole batch. It tells a repeat from other content under the same number.
    pub batch_crc: u32,
}

/// What the queue needs to know of a message when it is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageMeta {
    /// Bytes that count against the limits of the topic: key, headers and body as stored.
    pub size: u32,
    /// CRC32C of the body. Carried for those who read the entry; apply does not look at it.
    pub crc: u32,
    /// Milliseconds of log time before the message is ready; 0 for at once.
    pub delay_ms: u64,
    /// Milliseconds of log time that the message may wait, counted from when it is first ready; `None` for ever.
    pub ttl_ms: Option<u64>,
}

impl MessageMeta {
    /// The log time at which this message expires, if it was published at `published_ms`. Only this function knows how
    /// delay and time to live add up.
    #[must_use]
    pub fn deadline_ms(&self, published_ms: u64) -> Option<u64> {
        self.ttl_ms.map(|ttl| published_ms.saturating_add(self.delay_ms).saturating_add(ttl))
    }
}

/// A message that the leader saw ready, with what only the log knows about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its offset in the topic.
    pub offset: u64,
    /// Its [`MessageMeta::size`].
    pub size: u32,
    /// Its [`MessageMeta::deadline_ms`]. One that has passed makes the message dead instead of delivered.
    pub deadline_ms: Option<u64>,
}

/// A message with its size, looked up by the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageSize {
    /// Its offset in the topic.
    pub offset: u64,
    /// Its [`MessageMeta::size`].
    pub size: u32,
}

/// Messages of one subscription whose deadline has passed while they were ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// The topic.
    pub topic: TopicId,
    /// The subscription.
    pub subscription: SubscriptionId,
    /// The messages; one that is not ready any more, or not due, is skipped.
    pub candidates: Vec<Candidate>,
}

/// One lease of one message, as a client names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseId {
    /// The generation of the message id.
    pub generation: Generation,
    /// The offset of the message.
    pub offset: u64,
    /// The token under which it was leased.
    pub token: Token,
}

/// Which dead messages a command means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadSelection {
    /// Every one. A purge moves them away whole. A redrive counts them as ready at once and lists them a thousand runs at a
    /// time, with each command that is applied; until all are listed, another one is refused.
    All,
    /// These; what is not dead is skipped. At most [`DEAD_LISTED_MAX`](crate::DEAD_LISTED_MAX).
    Listed(Vec<MessageSize>),
}
