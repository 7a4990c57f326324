//! What can happen to a replica.

use super::{Arrived, CallId, DueBlock, LookedUp, LookupId, WaitingNode};
use crate::api::{MessageRef, Request};
use raftqueue_raft::{Configuration, Envelope, Index, LogSlice, NodeId, Payload, Persisted, Term};
use std::sync::Arc;

/// Everything that can happen to a replica.
#[derive(Debug)]
pub enum Event {
    /// A tick (10 ms) has passed.
    Tick,
    /// A peer sent a message.
    Arrived(Envelope, Option<Vitals>),
    /// The write that was out is durable.
    Persisted(Persisted),
    /// Entries for a peer were read.
    Loaded(LogSlice),
    /// Entries to be applied were read: consecutive from the index asked for, without bodies; empty if they could not be
    /// read now.
    LoadedToApply(Vec<LoadedEntry>),
    /// The disk does not answer (true), or does again.
    DiskStalled(bool),
    /// An entry of this node's log that is needed, for a peer or to be applied, cannot be read: it rots, or the disk
    /// refuses. This is told each time, besides the empty answer.
    LogUnreadable,
    /// Records of this node's log do not verify, and may be mended with what others have (true), or all do (false).
    Damaged(bool),
    /// What a configuration in the log says that could not be read before.
    Known(Index, Arc<Configuration>),
    /// The entry at this index cannot be read here, and others have it in their snapshots only.
    Cut(Index),
    /// Bytes free on the data disk.
    FreeBytes(u64),
    /// A peer's process is gone, most likely.
    PeerGone(NodeId),
    /// A peer has said which versions of commands and formats it can run: the oldest and the newest.
    Runs(NodeId, (u32, u32)),
    /// A client's call; the shell mints the id and uses it once.
    Call {
        /// Names the call.
        id: CallId,
        /// What is asked.
        request: Request,
        /// On the monotonic clock; the call is answered by then, with success or without.
        deadline_ms: u64,
    },
    /// The client of a call has gone; it needs no reply, and is dropped if it was not proposed.
    Cancel(CallId),
    /// Answer to a [`Lookup`](super::Lookup).
    LookedUp(LookupId, LookedUp),
    /// A receive was answered with these, and its client has gone: they go back.
    AnswerUnheard(Vec<MessageRef>),
    /// Messages of an answer could not be read here.
    MessagesUnreadable {
        /// The messages.
        messages: Vec<MessageRef>,
        /// The call has leased them, and nobody hears of that: they go back.
        are_leased: bool,
    },
    /// Blocks of messages whose deadlines have come: the answer to [`Actions::look_for_due`](super::Actions::look_for_due).
    Due(Vec<DueBlock>),
    /// The snapshot of [`Actions::freeze`](super::Actions::freeze) counts.
    SnapshotTaken {
        /// The log begins behind this entry now.
        start: (Index, Term),
    },
    /// The snapshot of [`Actions::freeze`](super::Actions::freeze) was given up.
    SnapshotFailed,
    /// The keeper wants a snapshot, since what it lacks is got as of one. It comes soon at first, then more and more rarely.
    SnapshotWanted,
    /// Files are not needed any more as of the newest snapshot. They go once the older one is of that state, too.
    FilesRetired,
    /// A snapshot of another node is here, whole: the answer to [`Actions::install`](super::Actions::install).
    Installed(Box<Arrived>),
    /// No message that lived at this index is lacking here any more.
    Complete(Index),
    /// Messages that lived at this index may be lacking here: it is not known any more where they stand.
    Incomplete(Index),
    /// Of what lived at this index so many messages are lacking here, and no member of the cluster has them.
    Lost {
        /// The index.
        index: Index,
        /// How many.
        count: u64,
    },
    /// A node with a blank disk says that it waits to be a member.
    Waiting(Box<WaitingNode>),
    /// The process is about to stop: hand leadership over, if this node leads.
    HandOver,
}

/// What the sender of a peer message says of itself along with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Its wall clock, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Bytes free on its data disk.
    pub free_bytes: u64,
}

/// An entry read back to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedEntry {
    /// Its index.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Its content; `bodies` may be empty.
    pub payload: Payload,
    /// Its bytes in the log, bodies included.
    pub bytes: u64,
}
