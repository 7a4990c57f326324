//! The Raft protocol as a total, synchronous function of events.
//!
//! [`Raft::step`] takes an [`Event`] (a tick, a message, the receipt of a write), [`Raft::take_output`] says what the
//! shell must do about everything stepped since: one write, some messages, a new commit index. There is no IO here, no
//! clock, no thread, and no randomness but the seed given at construction, so one seed replays one life exactly.
//!
//! What this crate deliberately does not do: encode anything (the shell converts at its edges), apply entries (the
//! queue does), or know what a command means.
//!
//! The one rule that a shell could get wrong is kept by a type: whatever promises durability (a vote, an append reply,
//! the leader's own count) stays inside the core until the [`Write`] that makes it durable came back as [`Persisted`],
//! and only [`Write::persist`] can make one.

mod configuration;
mod message;
mod types;
mod write;

pub use configuration::{Configuration, Member, MemberKind};
pub use message::{AppendOutcome, Envelope, Message};
pub use types::{Entry, GroupId, HardState, Index, NodeId, Payload, Term};
pub use write::{Persisted, Write};
