//! What applying a command answers, and what it asks of the leader.

use crate::{Generation, SessionId, Token, TopicId, TopicSettings};
use std::fmt;
use std::sync::Arc;

/// The answer to one command. Expected outcomes are replies, a refusal included; apply has no errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `CreateTopic`.
    Created {
        /// The topic.
        topic: TopicId,
        /// The topic existed already, made by a call with the same request id.
        repeated: bool,
    },
    /// To `UpdateTopic`.
    Updated {
        /// What the topic allows now.
        settings: TopicSettings,
    },
    /// To `DeleteTopic`.
    Deleted {
        /// What was deleted.
        topic: TopicId,
    },
    /// To `Publish`.
    Published {
        /// The topic that took the batch.
        topic: TopicId,
        /// The generation of the new message ids.
        generation: Generation,
        /// The offset of the first message; the others follow without gaps.
        first_offset: u64,
        /// How many messages.
        count: u32,
        /// The batch was taken earlier, under the same sequence; nothing was added.
        repeated: bool,
    },
    /// To `Receive`. Without deliveries the leader looks up candidates again: this is not yet the answer "empty".
    Received {
        /// The topic that they are of.
        topic: TopicId,
        /// The token of all these leases. 0 if nothing was leased: then no number is spent.
        token: Token,
        /// The log time at which they end.
        expires_ms: u64,
        /// What was leased, in the order of the candidates.
        deliveries: Vec<Delivery>,
    },
    /// To `Pop`. Without deliveries the leader looks up candidates again, unless it is a repeat.
    Popped {
        /// The topic that they are of.
        topic: TopicId,
        /// What was taken, in the order of the candidates.
        deliveries: Vec<Delivery>,
        /// An earlier pop with the same request id took these; nothing more was taken.
        repeated: bool,
    },
    /// To `Ack`, `Nack` and `Release`: one result for each lease, in order.
    Settled {
        /// The results.
        results: Vec<LeaseResult>,
    },
    /// To `Extend`: one for each lease, in order.
    Extended {
        /// The results, with the ends.
        extensions: Vec<Extension>,
    },
    /// To `RedriveDead`.
    Redriven {
        /// How many messages are ready again.
        count: u64,
    },
    /// To `Purge` and `PurgeDead`.
    Purged {
        /// How many messages were dropped.
        count: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// To `OpenSession`.
    SessionOpened {
        /// The session.
        session: SessionId,
        /// The epoch to publish under.
        epoch: u64,
        /// A session of this name was open; its sequences go on ([`State::session`](crate::State::session) tells them).
        resumed: bool,
    },
    /// To `CloseSession`.
    SessionClosed,
    /// To `Time` and `RaiseGeneration`.
    Done,
    /// To a `Publish` or `Pop` that was done before, too long ago for its ids to be still known.
    AlreadyDone,
    /// Nothing was changed, and no offset, sequence or token was taken.
    Refused(Refused),
}

/// One message handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The generation of the message id.
    pub generation: Generation,
    /// Its offset in the topic.
    pub offset: u64,
    /// Its size in bytes, as published.
    pub size: u32,
    /// Leases of it that ended by nack or expiry; 0 the first time.
    pub attempts: u32,
}

/// What became of one lease that a command named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseResult {
    /// It was done.
    Done,
    /// The message is no longer there: acknowledged, purged, its topic deleted, or lost in a forced recovery. A client
    /// library counts an ack with this result as success.
    Gone,
    /// The lease is over: the message is dead, was returned, or is leased under another token. An ack alone is still
    /// accepted after a mere expiry, until the message is leased again or dead.
    Stale,
    /// Never given out: an offset or a token beyond the last one.
    Invalid,
}

/// What became of one lease that was to be extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The result.
    pub result: LeaseResult,
    /// The log time at which the lease ends now; 0 unless the result is `Done`.
    pub expires_ms: u64,
}

/// Why a message is dead.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeadReason {
    /// It outlived its time to live.
    Expired,
    /// Its last attempt ended when the lease ran out.
    LeaseExpired,
    /// Its last attempt ended by a nack without a text.
    Nacked,
    /// Its last attempt ended by a nack with this text, at most
    /// [`NACK_REASON_BYTES_MAX`](crate::NACK_REASON_BYTES_MAX) bytes.
    NackedBecause(Arc<str>),
}

/// Why a command changed nothing. One variant for each reaction of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No topic has this name or id. Create it, or look at the name.
    NoSuchTopic,
    /// The topic has no such subscription.
    NoSuchSubscription,
    /// The name is taken, and not by a call with the same request id.
    TopicExists {
        /// Who has it.
        topic: TopicId,
    },
    /// The name of a topic or producer is empty, too long or has control characters.
    InvalidName,
    /// The command names nothing to do, such as a publish without messages.
    Empty,
    /// A limit would be passed. If it is a topic's limit, wait for consumers; else ask for less.
    OverLimit {
        /// Which.
        limit: Limit,
        /// The most that is allowed.
        max: u64,
        /// What the command would have made of it.
        value: u64,
    },
    /// A value is below what is allowed. Ask for more.
    UnderLimit {
        /// Which.
        limit: Limit,
        /// The least that is allowed.
        min: u64,
        /// What the command asked for.
        value: u64,
    },
    /// The session was never opened, was closed, or was idle for too long. Open a new one. Calls that were not answered
    /// have an unknown outcome.
    SessionExpired {
        /// The session asked for.
        session: SessionId,
    },
    /// Another process has resumed this named session. Stop.
    Fenced {
        /// The session.
        session: SessionId,
        /// The epoch in force.
        held: u64,
        /// The epoch of the caller.
        given: u64,
    },
    /// An earlier batch is missing. Send again from `expected` on.
    OutOfSequence {
        /// The only sequence that would be taken.
        expected: u64,
        /// The one given.
        given: u64,
    },
    /// The sequence was taken by a batch with other content. That earlier batch was applied, this one was not.
    SequenceReused {
        /// The sequence.
        sequence: u64,
        /// The CRC of the batch that took it.
        held_crc: u32,
        /// The CRC of this batch.
        given_crc: u32,
    },
    /// The request id was used for a pop of another topic or subscription.
    RequestIdReused,
    /// The sizes in the command cannot be those of the messages that it names: they were looked up elsewhere. Ask
    /// again.
    SizesImpossible,
    /// An earlier redrive of the same subscription has not come to its end. Try again soon.
    RedriveUnfinished,
    /// An id, a token, an offset or the bytes of a topic would pass 2^62. Nothing is counted beyond that.
    NumbersSpent,
    /// The generation does not rise.
    GenerationNotAbove {
        /// The generation in force.
        held: Generation,
        /// The one given.
        given: Generation,
    },
}

/// The limits that a command can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// Topics of the cluster.
    Topics,
    /// Messages held by a topic, dead ones included.
    TopicMessages,
    /// Bytes held by a topic, dead ones included.
    TopicBytes,
    /// [`TopicSettings::attempts_max`](crate::TopicSettings::attempts_max).
    Attempts,
    /// Messages of one publish.
    PublishMessages,
    /// Candidates of one receive or pop.
    ReceiveMessages,
    /// Leases named by one command.
    SettleLeases,
    /// Dead messages listed by one command.
    DeadListed,
    /// Milliseconds of a lease or extension.
    LeaseMs,
    /// Bytes of the text of a nack.
    NackReasonBytes,
    /// Open sessions of the cluster.
    Sessions,
    /// Topics of one session.
    SessionTopics,
    /// (session, topic) pairs of the cluster.
    SessionPairs,
}

impl Limit {
    /// Its name, for error messages and metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Limit::Topics => "topics",
            Limit::TopicMessages => "topic_messages",
            Limit::TopicBytes => "topic_bytes",
            Limit::Attempts => "attempts",
            Limit::PublishMessages => "publish_messages",
            Limit::ReceiveMessages => "receive_messages",
            Limit::SettleLeases => "settle_leases",
            Limit::DeadListed => "dead_listed",
            Limit::LeaseMs => "lease_ms",
            Limit::NackReasonBytes => "nack_reason_bytes",
            Limit::Sessions => "sessions",
            Limit::SessionTopics => "session_topics",
            Limit::SessionPairs => "session_pairs",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NoSuchTopic => write!(f, "no such topic"),
            Refused::NoSuchSubscription => write!(f, "no such subscription"),
            Refused::TopicExists { topic } => write!(f, "the topic exists, with id {topic}"),
            Refused::InvalidName => {
                write!(f, "a name must have 1 to {} bytes and no control characters", crate::NAME_BYTES_MAX)
            }
            Refused::Empty => write!(f, "there is nothing to do"),
            Refused::OverLimit { limit, max, value } => {
                write!(f, "{} would be {value}, the limit is {max}", limit.name())
            }
            Refused::UnderLimit { limit, min, value } => {
                write!(f, "{} is {value}, the least is {min}", limit.name())
            }
            Refused::SessionExpired { session } => write!(f, "session {session} is not open"),
            Refused::Fenced { session, held, given } => {
                write!(f, "session {session} is at epoch {held}, the call came under {given}")
            }
            Refused::OutOfSequence { expected, given } => {
                write!(f, "the next sequence is {expected}, the call has {given}")
            }
            Refused::SequenceReused { sequence, held_crc, given_crc } => {
                write!(
                    f,
                    "sequence {sequence} was taken by a batch with CRC {held_crc:08x}, not {given_crc:08x}"
                )
            }
            Refused::RequestIdReused => {
                write!(f, "the request id was used for another topic or subscription")
            }
            Refused::SizesImpossible => {
                write!(f, "the sizes given cannot be those of the messages that are there")
            }
            Refused::RedriveUnfinished => {
                write!(
                    f,
                    "an earlier redrive goes on, with a thousand runs of messages at a time: try again soon"
                )
            }
            Refused::NumbersSpent => write!(
                f,
                "an id, a token, an offset or the bytes of a topic would pass 2^62, the greatest number there is"
            ),
            Refused::GenerationNotAbove { held, given } => {
                write!(f, "generation {given} is not above {held}")
            }
        }
    }
}

impl std::error::Error for Refused {}
