//! The message queue as a pure, deterministic state machine.
//!
//! [`State::apply`] takes one [`Command`] and returns its [`Reply`] and its [`Effects`]. Time is the stamp of the log
//! entry ([`ApplyMeta::now_ms`]); there is no clock here, no randomness, no IO and no hash-ordered container. So every
//! node that applies the same log holds the same state, also one that started from a snapshot.
//!
//! **What is kept.** An index, never bodies. In each subscription a message is in exactly one state: *ready*, *leased*,
//! *delayed* or *dead*. Once it is acknowledged, it is in none. Ready messages are runs of offsets, so a backlog costs
//! nothing; a leased, a delayed and a retried one cost an entry each; dead ones are runs by reason and attempts.
//!
//! **What the leader looks up.** A run cannot hold the size or the deadline of a message. The leader reads both from
//! disk before it proposes a receive, a pop, a redrive or an expiry, and writes them into the command. Apply only
//! checks that each message is still in the state in which the leader saw it.
//!
//! **What this crate leaves to others.** Bytes (the codec of the node), bodies (the log), waiting (the replica acts on
//! [`Effects`]), and choosing which messages to offer (the leader, with the queries of [`State`]).
//!
//! **Ids.** A topic or session is named by the log index of the command that made it. If one entry makes several, the
//! later ones get the next free number: `max(index, greatest id so far + 1)`. So ids are unique and rise without an
//! ordinal in [`ApplyMeta`]. The greatest id is part of the state.

mod builder;
mod check;
mod clearing;
mod command;
mod dead;
mod deadline;
mod dropped;
mod effects;
mod ending;
mod ids;
mod limits;
mod live;
mod map;
mod offsets;
mod pops;
mod reply;
mod runs;
mod sections;
mod sessions;
mod state;
mod subscription;
mod tally;
mod topic;
mod view;

pub use builder::StateBuilder;
pub use check::Broken;
pub use command::{
    ApplyMeta, Candidate, Command, DeadSelection, LeaseId, MessageMeta, MessageSize, Overdue, Sequenced,
    TopicChange, TopicSettings,
};
pub use dead::DeadRun;
pub use dropped::Dropped;
pub use effects::Effects;
pub use ids::{Generation, SessionId, SubscriptionId, Token, TopicId};
pub use limits::*;
pub use reply::{DeadReason, Delivery, Extension, LeaseResult, Limit, Refused, Reply};
pub use sections::{
    Head, PairSection, PopSection, SECTION_BYTES_MAX, SECTION_ITEMS_MAX, Section, Sections, SessionHead,
    SubscriptionHead, TopicHead,
};
pub use sessions::{KeptReply, Session};
pub use state::State;
pub use subscription::Subscription;
pub use topic::Topic;
pub use view::{DelayedMessage, LeasedMessage, RetriedMessage, Stats};
