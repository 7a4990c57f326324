//! Who a node is, as its data directory says.

use raftqueue_raft::NodeId;

/// The content of `IDENTITY`: written last when a directory is formatted, replaced whole ever after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The formation that the node is bound to, which becomes the cluster id; 0 while it is bound to none.
    pub formation_id: u128,
    /// How often the cluster was forced to recover from lost quorum, as far as this node knows.
    pub generation: u32,
    /// Minted at random when the directory was formatted, so a wiped disk is a new node. Never 0.
    pub node_id: NodeId,
    /// The node's name, which is its address. A node refuses a directory of another name.
    pub name: String,
    /// The formation's details; `None` while it is bound to none.
    pub binding: Option<Binding>,
    /// The version of the form that it was read from.
    pub format_version: u32,
}

/// What a node bound itself to, durably, before it said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The node that forms the cluster.
    pub seed_id: NodeId,
    /// The initial members by name, with the ids that are known.
    pub members: Vec<(String, Option<NodeId>)>,
}

impl Binding {
    /// True if both name the same seed and the same members; ids may have become known in between.
    #[must_use]
    pub fn agrees_with(&self, other: &Binding) -> bool {
        let names =
            |binding: &Binding| binding.members.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        self.seed_id == other.seed_id && names(self) == names(other)
    }
}
