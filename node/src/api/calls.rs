//! The calls of the API, in families: what is done with a call is decided by its family alone.
//!
//! Each part of the replica takes the family that it serves. Every hop (limits, forwarding, budget, metrics) asks the
//! family what it must know. So a new call of an existing family is named in few places: see `ARCHITECTURE.md`.

use super::checks::{
    DELAY_MS_MAX, LIST_TOPICS_MAX, check_lease_ms, check_leases, check_name, check_options, check_place,
    check_range, check_receive,
};
use super::{
    Change, ChangeMembers, Failure, LeaseId, MessageState, NewMessage, SessionId, SessionStep, TopicChange,
    TopicOptions,
};
use crate::api::budget::Share;
use raftqueue_queue as queue;

/// One call of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Brings messages.
    Publish(Publish),
    /// Takes messages that are ready. May wait for them, and looks them up before anything is proposed.
    Take(Take),
    /// Says what becomes of leases.
    Settle(Settle),
    /// Acts on dead messages. Those that are listed are looked up before anything is proposed.
    Dead(Dead),
    /// Any other change: one command, proposed as it is.
    Write(Write),
    /// Changes nothing. It is answered from the applied state, once this node is known to lead still.
    Look(Look),
    /// Hands leadership to a node named by id or name; `None`: to the best follower.
    #[allow(missing_docs, reason = "explained with the variant")]
    TransferLeadership { to: Option<String> },
    /// Changes who is a member.
    Members(ChangeMembers),
}

/// Publishes all messages or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where to.
    pub topic: String,
    /// What makes a repeat harmless.
    pub session: Option<SessionStep>,
    /// At least one.
    pub messages: Vec<NewMessage>,
}

/// Takes up to `messages_max` messages and `bytes_max` bytes, at least one message if there is any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// Where from.
    pub topic: String,
    /// `default` when empty.
    pub subscription: String,
    /// Most messages.
    pub messages_max: usize,
    /// Most bytes of the answer.
    pub bytes_max: usize,
    /// How long to wait for the first message, in milliseconds.
    pub wait_ms: u64,
    /// What becomes of them.
    pub kind: TakeKind,
}

/// What becomes of messages that are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeKind {
    /// They are leased.
    Receive {
        /// For how long; `None`: the default lease.
        lease_ms: Option<u64>,
    },
    /// They are acknowledged in the same step: at most once.
    Pop {
        /// Makes a repeat return the same messages.
        request_id: Option<u128>,
    },
}

/// Says what becomes of leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// The topic's name. The leases themselves name it by its id.
    pub topic: String,
    /// `default` when empty.
    pub subscription: String,
    /// All of one topic.
    pub leases: Vec<LeaseId>,
    /// What becomes of them.
    pub settlement: Settlement,
}

/// What becomes of leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Their messages are acknowledged.
    Ack,
    /// They are returned as failed attempts.
    Nack {
        /// Not delivered again before this much log time has passed, in milliseconds.
        delay_ms: u64,
        /// Kept with a message whose last attempt this was.
        reason: String,
    },
    /// They go on.
    Extend {
        /// For so long from now, in milliseconds; `None`: the default lease.
        lease_ms: Option<u64>,
    },
    /// They are given back unstarted: no attempt is counted.
    Release,
}

/// Acts on dead messages: the named offsets, or all of them where none is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// The topic.
    pub topic: String,
    /// `default` when empty.
    pub subscription: String,
    /// Which; empty: all.
    pub offsets: Vec<u64>,
    /// What becomes of them.
    pub action: DeadAction,
}

/// What becomes of dead messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadAction {
    /// They are ready again.
    Redrive,
    /// They are dropped.
    Purge,
}

/// A change that is neither of messages nor of leases.
#[allow(missing_docs, reason = "the fields of a variant are explained with the variant")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Makes a topic. A repeat with the same `request_id` succeeds.
    CreateTopic { topic: String, options: TopicOptions, request_id: Option<u128> },
    /// Changes what a topic allows.
    UpdateTopic { topic: String, change: TopicChange },
    /// Deletes a topic with all its messages.
    DeleteTopic { topic: String },
    /// Drops everything that waits (ready and delayed).
    Purge { topic: String, subscription: String },
    /// Opens a producer session; a named one fences its predecessors.
    OpenSession { name: Option<String> },
    /// Ends a session.
    CloseSession { session: SessionId },
}

/// A question.
#[allow(missing_docs, reason = "the fields of a variant are explained with the variant")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// All topics in order of creation, after `after` (exclusive), at most `topics_max`.
    ListTopics { after: Option<u64>, topics_max: usize },
    /// One topic with its counts.
    DescribeTopic { topic: String },
    /// Messages, without taking them, in offset order from `from_offset`.
    Peek {
        topic: String,
        subscription: String,
        state: MessageState,
        from_offset: u64,
        messages_max: usize,
        bytes_max: usize,
    },
    /// The cluster as the leader sees it.
    ClusterStatus,
    /// The members as the leader sees them, and the nodes that wait.
    Members,
}

/// Every call of the API, with what is known of it before a byte of it is read. The one list of them.
macro_rules! methods {
    ($($(#[$doc:meta])* $method:ident $name:literal $share:ident,)*) => {
        /// A call of the API, by its name in gRPC.
        #[allow(missing_docs, reason = "named after the calls")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Method {
            $($method,)*
        }

        impl Method {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$method,)*];

            /// The one of a name in gRPC.
            #[must_use]
            pub fn of_name(name: &str) -> Option<Self> {
                $(
                    if name == stringify!($method) {
                        return Some(Self::$method);
                    }
                )*
                None
            }

            /// Its name in metrics.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$method => $name,)*
                }
            }

            /// What it is held as while it arrives. What settles leases finds room when nothing else does.
            #[must_use]
            pub const fn share(self) -> Share {
                match self {
                    $(Self::$method => Share::$share,)*
                }
            }
        }
    };
}

methods! {
    CreateTopic "create_topic" Arriving,
    DeleteTopic "delete_topic" Arriving,
    ListTopics "list_topics" Arriving,
    DescribeTopic "describe_topic" Arriving,
    Publish "publish" Arriving,
    Receive "receive" Arriving,
    Pop "pop" Arriving,
    Ack "ack" Settling,
    Nack "nack" Settling,
    Extend "extend" Settling,
    Release "release" Settling,
    Peek "peek" Arriving,
    RedriveDead "redrive_dead" Arriving,
    PurgeDead "purge_dead" Arriving,
    Purge "purge" Arriving,
    OpenSession "open_session" Arriving,
    CloseSession "close_session" Arriving,
    ClusterStatus "cluster_status" Arriving,
    TransferLeadership "transfer_leadership" Arriving,
    Members "members" Arriving,
    AddLearner "add_learner" Arriving,
    Promote "promote" Arriving,
    Remove "remove" Arriving,
    Replace "replace" Arriving,
    RaiseVersion "raise_version" Arriving,
    UpdateTopic "update_topic" Arriving,
}

impl Request {
    /// Which call it is.
    #[must_use]
    pub fn method(&self) -> Method {
        match self {
            Self::Publish(_) => Method::Publish,
            Self::Take(Take { kind: TakeKind::Receive { .. }, .. }) => Method::Receive,
            Self::Take(Take { kind: TakeKind::Pop { .. }, .. }) => Method::Pop,
            Self::Settle(settle) => match settle.settlement {
                Settlement::Ack => Method::Ack,
                Settlement::Nack { .. } => Method::Nack,
                Settlement::Extend { .. } => Method::Extend,
                Settlement::Release => Method::Release,
            },
            Self::Dead(Dead { action: DeadAction::Redrive, .. }) => Method::RedriveDead,
            Self::Dead(Dead { action: DeadAction::Purge, .. }) => Method::PurgeDead,
            Self::Write(Write::CreateTopic { .. }) => Method::CreateTopic,
            Self::Write(Write::DeleteTopic { .. }) => Method::DeleteTopic,
            Self::Write(Write::UpdateTopic { .. }) => Method::UpdateTopic,
            Self::Write(Write::Purge { .. }) => Method::Purge,
            Self::Write(Write::OpenSession { .. }) => Method::OpenSession,
            Self::Write(Write::CloseSession { .. }) => Method::CloseSession,
            Self::Look(Look::ListTopics { .. }) => Method::ListTopics,
            Self::Look(Look::DescribeTopic { .. }) => Method::DescribeTopic,
            Self::Look(Look::Peek { .. }) => Method::Peek,
            Self::Look(Look::ClusterStatus) => Method::ClusterStatus,
            Self::TransferLeadership { .. } => Method::TransferLeadership,
            Self::Look(Look::Members) => Method::Members,
            Self::Members(members) => match members.change {
                Change::AddLearners(_) => Method::AddLearner,
                Change::Promote(_) => Method::Promote,
                Change::Remove(_) => Method::Remove,
                Change::Replace { .. } => Method::Replace,
                Change::RaiseVersion(_) => Method::RaiseVersion,
            },
        }
    }

    /// How long it may wait for messages, in milliseconds, on top of what it takes otherwise.
    #[must_use]
    pub fn wait_ms(&self) -> u64 {
        match self {
            Self::Take(take) => take.wait_ms,
            _ => 0,
        }
    }

    /// True if it changes nothing: there is no outcome to be unsure of.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Look(_) | Self::Members(ChangeMembers { dry: true, .. }))
    }

    /// True if it leases messages, which can be given back.
    #[must_use]
    pub fn leases(&self) -> bool {
        matches!(self, Self::Take(Take { kind: TakeKind::Receive { .. }, .. }))
    }
}

impl Take {
    pub(super) fn check(&self) -> Result<(), Failure> {
        check_place(&self.topic, &self.subscription)?;
        check_receive(self.messages_max, self.bytes_max)?;
        match self.kind {
            TakeKind::Receive { lease_ms } => check_lease_ms(lease_ms),
            TakeKind::Pop { request_id: _ } => Ok(()),
        }
    }
}

impl Settle {
    pub(super) fn check(&self) -> Result<(), Failure> {
        check_place(&self.topic, &self.subscription)?;
        check_leases(&self.leases)?;
        match &self.settlement {
            Settlement::Ack | Settlement::Release => Ok(()),
            Settlement::Nack { delay_ms, reason } => {
                check_range("delay_ms", *delay_ms, 0, DELAY_MS_MAX)?;
                check_range("reason_bytes", reason.len(), 0, queue::NACK_REASON_BYTES_MAX)
            }
            Settlement::Extend { lease_ms } => check_lease_ms(*lease_ms),
        }
    }
}

impl Settlement {
    /// How long the leases go on from now, in milliseconds; `None` if they end.
    #[must_use]
    pub fn lease_ms(&self, default_ms: u64) -> Option<u64> {
        match self {
            Self::Extend { lease_ms } => Some(lease_ms.unwrap_or(default_ms)),
            Self::Ack | Self::Nack { .. } | Self::Release => None,
        }
    }
}

impl Dead {
    pub(super) fn check(&self) -> Result<(), Failure> {
        check_place(&self.topic, &self.subscription)?;
        check_range("offsets", self.offsets.len(), 0, queue::DEAD_LISTED_MAX)
    }
}

impl Write {
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self {
            Self::CreateTopic { topic, options, request_id: _ } => {
                check_name("topic", topic)?;
                check_options(options)
            }
            Self::UpdateTopic { topic, change } => {
                check_name("topic", topic)?;
                check_options(&change.values())
            }
            Self::DeleteTopic { topic } => check_name("topic", topic),
            Self::Purge { topic, subscription } => check_place(topic, subscription),
            Self::OpenSession { name } => name.as_deref().map_or(Ok(()), |name| check_name("name", name)),
            Self::CloseSession { session: _ } => Ok(()),
        }
    }
}

impl Look {
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self {
            Self::ListTopics { after: _, topics_max } => {
                check_range("topics_max", *topics_max, 1, LIST_TOPICS_MAX)
            }
            Self::DescribeTopic { topic } => check_name("topic", topic),
            Self::Peek { topic, subscription, state: _, from_offset: _, messages_max, bytes_max } => {
                check_place(topic, subscription)?;
                check_receive(*messages_max, *bytes_max)
            }
            Self::ClusterStatus | Self::Members => Ok(()),
        }
    }
}
