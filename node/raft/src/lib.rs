//! The Raft protocol as a total, synchronous function of events.
//!
//! [`Raft::step`] takes an [`Event`] (a tick, a message, the receipt of a write), [`Raft::take_output`] says what the
//! shell must do about everything stepped since: one write, some messages, a new commit index. There is no IO here, no
//! clock, no thread, and no randomness but the seed given at construction, so one seed replays one life exactly.
//!
//! What this crate deliberately does not do: encode anything (the shell converts at its edges), apply entries (the
//! queue does), or know what a command means.
//!
//! A shell could get one rule wrong, so a type keeps it. Whatever promises durability (a vote, an append reply, the
//! leader's own count) stays inside the core until the [`Write`] that makes it durable comes back as [`Persisted`].
//! Only [`Write::persist`] makes a [`Persisted`]. A leader's own appends promise nothing and leave at once: its disk
//! and the followers work in parallel.
//!
//! Always on are: PreVote without side effects, CheckQuorum, leader stickiness, randomised timeouts, an empty entry at
//! the start of a term, commit by counting own-term entries only, durable-only match indexes, pipelined appends with a
//! window in messages and bytes, ReadIndex by unique rounds, leadership transfer, learners, joint consensus, the hint
//! that a leader's process is gone, and hand-over when the leader's disk hangs. A log that is cut at its beginning, and
//! snapshots for those who lack what is gone: the core says who needs one and takes what came, the shell brings it.

mod configuration;
mod entry;
mod event;
mod log;
mod message;
pub mod mutants;
mod progress;
mod raft;
mod random;
mod types;
mod write;

pub use configuration::{Configuration, Member, MemberKind, VoteResult};
pub use entry::{Entry, Payload};
pub use event::{
    Alarm, Cause, CommittedLog, Event, Found, Install, Installed, LoadRequest, LogSlice, Output, PeerStatus,
    ReadId, Recovered, Refused, RoleKind, RoleState, Settings, Status, TERM_RUNS_MAX,
};
pub use message::{AppendOutcome, Envelope, Message};
pub use progress::ProgressState;
pub use raft::{MemberChange, Raft};
pub use types::{GroupId, HardState, Index, NodeId, Term};
pub use write::{Persisted, Write};
