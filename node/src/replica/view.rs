//! What a replica says of itself: to metrics, to probes, and to checkers.

use crate::api::MemberStanding;
use raftqueue_raft::{self as raft, Configuration, Index, MemberKind, NodeId};
use std::sync::Arc;

/// Numbers that only rise, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after what they count")]
pub struct Counters {
    pub entries_proposed: u64,
    pub entries_overtaken: u64,
    pub commands_applied: u64,
    pub messages_published: u64,
    pub bytes_published: u64,
    pub messages_delivered: u64,
    pub messages_redelivered: u64,
    pub messages_acknowledged: u64,
    pub messages_nacked: u64,
    pub messages_released: u64,
    pub messages_died: u64,
    pub leases_expired: u64,
    pub calls_refused: u64,
    pub calls_expired: u64,
}

/// A node's own view of itself.
#[derive(Clone, Debug)]
pub struct View {
    /// The protocol's part.
    pub raft: raft::Status,
    /// Last applied index.
    pub applied: Index,
    /// Forced recoveries of the cluster, as far as this node knows.
    pub generation: u32,
    /// The configuration in force.
    pub configuration: Arc<Configuration>,
    /// Where it stands in the log.
    pub configuration_index: Index,
    /// This node.
    pub own: NodeId,
    /// Blank nodes that announced themselves here lately.
    pub waiting: usize,
    /// Calls that wait for something.
    pub calls: usize,
    /// Bytes of calls that wait to be proposed.
    pub queued_bytes: usize,
    /// On a leader, by how much log time is ahead of the voters' clocks. While it is ahead, it runs at nine tenths of
    /// their rate.
    pub log_time_ahead_ms: u64,
    /// Numbers that only rise.
    pub counters: Counters,
}

impl View {
    /// What a node is in the configuration in force; `None` if it is no part of it.
    #[must_use]
    pub fn standing(&self, id: NodeId) -> Option<MemberStanding> {
        standing(&self.configuration, id)
    }
}

/// What a node is in a configuration; `None` if it is no part of it.
pub(super) fn standing(configuration: &Configuration, id: NodeId) -> Option<MemberStanding> {
    match configuration.members.get(&id).map(|member| member.kind) {
        Some(MemberKind::Voter) => Some(MemberStanding::Voter),
        Some(MemberKind::Learner) if !configuration.outgoing.contains(&id) => Some(MemberStanding::Learner),
        _ => configuration.outgoing.contains(&id).then_some(MemberStanding::Leaving),
    }
}

/// What a replica holds for what is under way; all zero when nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after what they count")]
pub struct Outstanding {
    pub calls: usize,
    pub queued_bytes: usize,
    /// Made by this node and not applied.
    pub entries: usize,
    /// The same, as the limit on them counts.
    pub in_flight: usize,
    pub reads: usize,
    pub lookups: usize,
    /// Messages that are offered to a call whose command is not applied.
    pub set_aside: usize,
    /// Calls in the lines of those that wait for messages.
    pub in_line: usize,
    /// Read back, to be applied.
    pub loaded: usize,
    /// Bytes that this node, as a leader, has not committed yet.
    pub uncommitted_bytes: usize,
}
