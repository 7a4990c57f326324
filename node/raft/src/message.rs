//! What nodes of one group say to each other.

use crate::{Entry, GroupId, Index, NodeId, Term};

/// A message with its addresses. Delivery may be late, doubled, reordered or never; the core copes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The sender.
    pub from: NodeId,
    /// The receiver; a node drops what is not for it.
    pub to: NodeId,
    /// The group; always 0 for now.
    pub group: GroupId,
    /// The sender's term; for a [`Message::PreVote`] the term that it would campaign in, which it has not entered, and
    /// for a granting [`Message::PreVoteReply`] that same term back.
    pub term: Term,
    /// The content.
    pub message: Message,
}

/// The content of an [`Envelope`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// "Would you vote for me?" Changes nothing at the receiver (Ongaro's dissertation, section 9.6).
    PreVote {
        /// The candidate's last index.
        last_index: Index,
        /// The term of the entry there.
        last_term: Term,
        /// The sender has not applied yet what was committed when it started. A node that has may lead instead.
        replaying: bool,
    },
    /// The answer to a `PreVote`.
    PreVoteReply {
        /// Whether the sender would.
        granted: bool,
    },
    /// A request for a vote. Leaves only once the sender's vote for itself is durable.
    Vote {
        /// The candidate's last index.
        last_index: Index,
        /// The term of the entry there.
        last_term: Term,
        /// The candidate was asked to campaign by the leader itself, so a fresh leader is no reason to refuse.
        transfer: bool,
    },
    /// The answer to a `Vote`. Leaves only once the vote is durable.
    VoteReply {
        /// Whether the sender voted for the receiver.
        granted: bool,
    },
    /// Entries of the leader's log. Without entries it asks what the receiver has. It must travel on the same stream as
    /// those with entries, behind them: a receiver that lacks those entries when it comes has lost them.
    Append {
        /// The entry before the first one here.
        prev_index: Index,
        /// The term of the entry at `prev_index`.
        prev_term: Term,
        /// Consecutive entries from `prev_index + 1` on.
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Index,
    },
    /// The answer to an `Append`.
    AppendReply {
        /// Taken, or what to try instead.
        outcome: AppendOutcome,
        /// The sender's disk does not answer at the moment.
        disk_stalled: bool,
    },
    /// "I lead." It also carries a round of reads, which its answers confirm.
    Heartbeat {
        /// The leader's commit index; the receiver believes it only as far as its log is verified.
        commit: Index,
        /// A counter that rises with every round of reads, never reused within a term.
        round: u64,
    },
    /// The answer to a `Heartbeat`.
    HeartbeatReply {
        /// The round of the heartbeat answered.
        round: u64,
        /// The last index received and found to agree with this leader's log; it need not be durable.
        received: Index,
        /// The sender's disk does not answer at the moment.
        disk_stalled: bool,
        /// The sender has yet to apply what was committed when it started.
        replaying: bool,
        /// The sender's queue holds messages whose bodies it lacks: it does not campaign and takes no lead.
        incomplete: bool,
    },
    /// "Campaign now": the last step of a leadership transfer.
    TimeoutNow,
    /// "What you lack is no longer in my log, which begins here: go and get a snapshot." Repeated until the receiver has it.
    /// One that has the entry there answers as if this were an append behind it.
    Install {
        /// The index before the first entry of the leader's log, and its term.
        start: (Index, Term),
    },
}

/// What became of an `Append`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Everything up to `durable` agrees with the leader's log and is on this disk.
    Accepted {
        /// The last such index.
        durable: Index,
    },
    /// There is no entry of that term at `prev_index` here.
    Rejected {
        /// The `prev_index` that was refused.
        prev_index: Index,
        /// The greatest index here, at most `prev_index`, whose term is at most the one that was asked for.
        hint_index: Index,
        /// The term of the entry there.
        hint_term: Term,
    },
}
