//! What a client can ask of a node, in the node's own words.
//!
//! Every edge (gRPC, HTTP, the call forwarded by a peer) decodes into a [`Request`], hands it to
//! [`Service`](crate::edges::service::Service) and encodes the [`Response`] or [`Failure`] that comes back. Nothing
//! here knows a wire format. The replica, which answers, knows no edge.

pub mod budget;
pub mod codec;
pub mod limits;

mod answer;
mod calls;
mod checks;
mod members;
mod recovery;
mod status;

pub use answer::{Answer, DELIVERY_BYTES, Deliveries, deliveries_bytes};
pub use calls::{
    Dead, DeadAction, Look, Method, Publish, Request, Settle, Settlement, Take, TakeKind, Write,
};
pub use members::{
    CHANGED_MAX, Change, ChangeMembers, MemberStanding, MemberState, MembersInfo, WaitingInfo,
};
pub use recovery::{Recover, RecoveryInfo, RecoveryMember};
pub use status::{LocalStatus, Role, SnapshotInfo, StorageInfo};

use bytes::Bytes;
use std::fmt;

/// A message as a producer hands it in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewMessage {
    /// The content: any bytes, up to the configured limit (1 MiB by default).
    pub body: Bytes,
    /// CRC32C of `body`, computed where the body was first seen: by the client, or else by the edge that decoded it.
    pub body_crc: u32,
    /// Ordering key, at most 1 KiB; carried and returned, not used for ordering yet.
    pub key: Bytes,
    /// Header names and values: at most 64, and 16 KiB in all.
    pub headers: Vec<(String, Bytes)>,
    /// Not delivered before this much log time has passed, in milliseconds.
    pub delay_ms: u64,
    /// Moved to dead, with the reason `expired`, if it still waits after this much log time. `None`: the topic's
    /// default.
    pub ttl_ms: Option<u64>,
}

/// A producer session as its holder names it: opaque bytes on every wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    /// The generation in which it was opened.
    pub generation: u32,
    /// Unique within a generation.
    pub number: u64,
    /// The fencing epoch under which the holder opened it; 0 for an unnamed producer.
    pub epoch: u64,
}

/// Where a publish stands in a session. It makes a repeat harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStep {
    /// The session, as [`Response::SessionOpened`] named it.
    pub session: SessionId,
    /// 1 for the first publish of this session to this topic, then one more each time.
    pub sequence: u64,
}

/// Names one message for ever: no other message of this cluster ever has the same three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// How often the cluster had been forced to recover when the message was published.
    pub generation: u32,
    /// The topic's id (a topic made again under an old name has another one).
    pub topic: u64,
    /// Its offset in the topic, dense from 0.
    pub offset: u64,
}

/// A timed right to one message: its id and the fencing token of the grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseId {
    /// The message.
    pub message: MessageId,
    /// Rises with every grant; an older one is refused as stale.
    pub token: u64,
}

/// Settings of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicOptions {
    /// Failed attempts after which a message is dead; `None`: the node's default (16).
    pub attempts_max: Option<u32>,
    /// Most messages held, dead ones included; publishing beyond is refused. `None`: no limit.
    pub messages_max: Option<u64>,
    /// Most bytes held, dead messages included. `None`: no limit.
    pub bytes_max: Option<u64>,
    /// Time to live of messages that bring none, in milliseconds. `None`: they live for ever.
    pub ttl_ms: Option<u64>,
}

/// What of a topic's settings changes. `None` leaves one as it is, `Some(None)` gives it its default back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicChange {
    /// See [`TopicOptions::attempts_max`].
    pub attempts_max: Option<Option<u32>>,
    /// See [`TopicOptions::messages_max`].
    pub messages_max: Option<Option<u64>>,
    /// See [`TopicOptions::bytes_max`].
    pub bytes_max: Option<Option<u64>>,
    /// See [`TopicOptions::ttl_ms`].
    pub ttl_ms: Option<Option<u64>>,
}

impl TopicChange {
    /// The settings that get a value.
    #[must_use]
    pub fn values(&self) -> TopicOptions {
        TopicOptions {
            attempts_max: self.attempts_max.flatten(),
            messages_max: self.messages_max.flatten(),
            bytes_max: self.bytes_max.flatten(),
            ttl_ms: self.ttl_ms.flatten(),
        }
    }
}

/// Which messages of a subscription to look at or act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageState {
    /// Waiting to be received.
    Ready,
    /// Out with a consumer.
    Leased,
    /// Waiting for its time.
    Delayed,
    /// Given up, and kept.
    Dead,
}

/// The result for one lease that was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseResult {
    /// Done as asked.
    Done,
    /// The message is gone: it was acknowledged before, was purged, or its topic was deleted. For an ack this is
    /// success.
    Gone,
    /// The lease is not the current one: the message is dead, was returned, or is leased under another token.
    Stale,
    /// No such message was ever published.
    Invalid,
}

/// A message without its bytes, as the replica hands it out. It is turned into a [`Delivery`] off the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRef {
    /// Its name.
    pub id: MessageId,
    /// The fencing token; 0 for a message that is not leased by this call.
    pub token: u64,
    /// Attempts that failed before this one.
    pub attempts: u32,
    /// When the lease ends, in milliseconds of log time; for a delayed message when it is due; else 0.
    pub deadline_ms: u64,
    /// Why it is dead; empty for one that is not.
    pub reason: String,
}

/// A message as a consumer gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Name, token, attempts.
    pub message: MessageRef,
    /// When it was published, in milliseconds of log time (Unix epoch).
    pub published_ms: u64,
    /// The content.
    pub body: Bytes,
    /// CRC32C of `body`, as it was when the message was published.
    pub body_crc: u32,
    /// Ordering key; may be empty.
    pub key: Bytes,
    /// Headers in the order given.
    pub headers: Vec<(String, Bytes)>,
}

/// One topic with its counts, as of one moment of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicInfo {
    /// The topic's id: unique for ever, and rising with every creation.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// When it was created, in milliseconds of log time.
    pub created_ms: u64,
    /// Its settings as in force.
    pub options: TopicOptions,
    /// The offset that the next message gets.
    pub next_offset: u64,
    /// Bytes held, bodies and headers, in all states.
    pub bytes: u64,
    /// Every subscription with its counts.
    pub subscriptions: Vec<SubscriptionInfo>,
}

/// The counts of one subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionInfo {
    /// `default` for the plain queue.
    pub name: String,
    /// Messages waiting.
    pub ready: u64,
    /// Messages out with consumers.
    pub leased: u64,
    /// Messages waiting for their time.
    pub delayed: u64,
    /// Messages given up.
    pub dead: u64,
}

/// What a member is in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRole {
    /// Leads, as far as whoever tells of it knows.
    Leader,
    /// A voter that follows.
    Follower,
    /// Gets the log and does not vote.
    Learner,
    /// Asks for votes; told only by that node itself.
    Candidate,
}

impl MemberRole {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Leader, Self::Follower, Self::Learner, Self::Candidate];

    /// The role as it stands on every wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
            Self::Candidate => "candidate",
        }
    }

    /// The role of a name; `None` for one that this version does not know.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// One member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Node id, in hexadecimal on every wire.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where the answering node finds it: of itself, where the others do; empty when it was never connected.
    pub peer_address: String,
    /// Client address as the node itself said; empty when not connected.
    pub client_address: String,
    /// What it is.
    pub role: MemberRole,
    /// Counts in elections.
    pub voter: bool,
    /// Heard from within an election timeout.
    pub active: bool,
    /// Last index durable there.
    pub matched: u64,
    /// Entries it is behind the leader's last.
    pub lag: u64,
}

/// The cluster as the leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterInfo {
    /// The formation id, 32 hexadecimal digits.
    pub cluster_id: String,
    /// Forced recoveries so far.
    pub generation: u32,
    /// Active version of commands and formats.
    pub version: u32,
    /// The leader's node id.
    pub leader: u64,
    /// Its term.
    pub term: u64,
    /// Last committed index.
    pub commit: u64,
    /// Last applied index.
    pub applied: u64,
    /// All members.
    pub members: Vec<MemberInfo>,
}

/// The answer to a [`Request`].
#[allow(missing_docs, reason = "the fields of a variant are explained with the variant")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The topic was created (or had been, by the same request id).
    TopicCreated { topic: u64 },
    /// What the topic allows now.
    TopicUpdated(TopicOptions),
    /// The topic is deleted.
    TopicDeleted,
    /// One page of topics; `more` says that others follow the last one.
    Topics { topics: Vec<TopicInfo>, more: bool },
    /// The topic.
    Topic(TopicInfo),
    /// Published: consecutive offsets from `first_offset` on; by this call, or, `deduplicated`, by an earlier one.
    Published { topic: u64, generation: u32, first_offset: u64, count: u64, deduplicated: bool },
    /// An older publish of this session had been applied; its offsets are no longer remembered.
    AlreadyDone,
    /// Messages to be read and delivered: of a receive, pop or peek.
    Messages(Vec<MessageRef>),
    /// One result per lease, in the order given.
    Leases(Vec<LeaseResult>),
    /// So many messages were redriven or purged.
    Count(u64),
    /// The session is open.
    SessionOpened { session: SessionId },
    /// The session is closed.
    SessionClosed,
    /// The cluster.
    Cluster(ClusterInfo),
    /// Leadership is with this node now.
    Transferred { leader: u64 },
    /// The members.
    Members(MembersInfo),
    /// The members have changed, and the configuration that stands at this index is in force. Of a dry call: why it would
    /// be refused, if it would; the index is that of the configuration in force.
    MembersChanged { configuration_index: u64, refusal: Option<String> },
}

/// Whether a call that failed may have happened all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did not happen and never will. It is safe to repeat.
    NotDone,
    /// It may have happened, or may still.
    Unknown,
}

/// Why a call failed. One reason per different reaction of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The request is malformed, or over a limit that no retry changes: correct the caller.
    InvalidArgument,
    /// No such topic.
    TopicNotFound,
    /// A topic of that name exists.
    TopicExists,
    /// No such subscription.
    SubscriptionNotFound,
    /// A message, batch or reply is over a size limit.
    TooLarge,
    /// A limit on counts or bytes is reached: wait for consumers, or raise it.
    LimitReached,
    /// The node has no room for more work at the moment: repeat after the hint.
    Overloaded,
    /// The disks of a quorum are (nearly) full: publishing is refused, acknowledging goes on.
    DiskFull,
    /// The session is unknown or expired: open a new one. Calls of unknown outcome stay so.
    SessionExpired,
    /// A newer producer of this name has taken over.
    Fenced,
    /// The sequence is not the last one plus one.
    OutOfSequence,
    /// The sequence had been used for another batch, which was applied.
    SequenceReused,
    /// The pop of this request id had been answered, too long ago to be repeated.
    AlreadyDone,
    /// No leader could be reached in time; nothing was proposed.
    NoLeader,
    /// The node that was asked is not the leader (only between nodes).
    NotLeader,
    /// The deadline passed. If the call was not done, the leader was busy, and the text says what the call waited for.
    DeadlineExceeded,
    /// The connection to the leader broke after the call was sent there.
    ForwardingBroken,
    /// The node is shutting down.
    ShuttingDown,
    /// A message's bytes could not be read, here or at any peer.
    DataUnreadable,
    /// No such node.
    NodeNotFound,
    /// The operation is not possible in this state; the text says why.
    FailedPrecondition,
    /// The members have changed since the caller looked: look again.
    StaleConfiguration,
    /// Nobody knows who calls: what it shows does not count, or it shows nothing.
    Unauthenticated,
    /// Who calls may not do that.
    PermissionDenied,
}

/// A call that was not answered with success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened, for machines.
    pub reason: Reason,
    /// Whether it may have happened all the same.
    pub outcome: Outcome,
    /// What was wrong and what would be right, for people.
    pub text: String,
    /// When to try again, in milliseconds, if waiting helps.
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A call that did not happen.
    pub fn not_done(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, outcome: Outcome::NotDone, text: text.into(), retry_after_ms: None }
    }

    /// A call that may have happened.
    pub fn unknown(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, outcome: Outcome::Unknown, text: text.into(), retry_after_ms: None }
    }

    /// The same failure with a hint when to try again.
    #[must_use]
    pub fn retry_after_ms(mut self, retry_after_ms: u64) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}
