//! A forced recovery, as it is decided.

use raftqueue_raft::{Configuration, Index, NodeId, Term};

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The node that goes on.
    pub node_id: NodeId,
    /// The generation that begins: one above that of the node.
    pub generation: u32,
    /// How the log of the node ends.
    pub last: (Index, Term),
    /// The term of the entry that follows it: above every term that the node knows.
    pub term: Term,
    /// What that entry says: this node is the only voter, and nobody else is a member.
    pub configuration: Configuration,
}
