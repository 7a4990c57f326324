//! Who is in the cluster, and the quorums that follow from it.

use crate::mutants::{self, Mutant};
use crate::{Index, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberKind {
    /// Counts for elections and commits.
    Voter,
    /// Gets the log, but does not count yet for elections and commits.
    Learner,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name: that of its pod, or `IP:PORT`.
    pub name: String,
    /// Where the other nodes find it, as `HOST:PORT`. A host name is looked up anew at every attempt to connect.
    pub address: String,
    /// Voter or learner.
    pub kind: MemberKind,
}

/// A cluster configuration as it stands in the log.
///
/// Invariants: at least one voter, unless the configuration is empty (a node that has none yet); while `outgoing` is
/// not empty the configuration is *joint* (Ongaro's dissertation, section 4.3): every decision needs a majority of the
/// voters and a majority of `outgoing`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// All members by id.
    pub members: BTreeMap<NodeId, Member>,
    /// Voters of the configuration that is being left; empty when none is.
    pub outgoing: BTreeSet<NodeId>,
    /// The active version of commands and formats: every member understands it. Rises only by an entry of its own.
    pub version: u32,
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// A quorum granted.
    Won,
    /// A quorum can no longer grant.
    Lost,
    /// Neither yet.
    Pending,
}

impl Configuration {
    /// The voters of the new configuration: a decision needs a majority of them.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> {
        self.members.iter().filter(|(_, member)| member.kind == MemberKind::Voter).map(|(id, _)| *id)
    }

    /// True while two configurations are in force at once.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// True if the node takes part in elections and commits, in either half of a joint configuration.
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.members.get(&id).is_some_and(|member| member.kind == MemberKind::Voter)
            || self.outgoing.contains(&id)
    }

    /// Every node that must get the log: members, and outgoing voters until they are out.
    #[must_use]
    pub fn peers(&self) -> BTreeSet<NodeId> {
        self.members.keys().copied().chain(self.outgoing.iter().copied()).collect()
    }

    /// The greatest index that a quorum has reached, given each voter's durable index (0 for a voter without one). An
    /// empty set of voters has reached everything; so the smaller index of the two halves is that of a joint
    /// configuration.
    pub fn committed(&self, reached: impl Fn(NodeId) -> Index) -> Index {
        fn half(mut indexes: Vec<Index>) -> Index {
            indexes.sort_unstable();
            match indexes.len() {
                0 => Index(u64::MAX),
                count => indexes[(count - 1) / 2],
            }
        }
        let new = half(self.voters().map(&reached).collect());
        let old = half(self.outgoing.iter().map(|id| reached(*id)).collect());
        if mutants::is(Mutant::IgnoreOutgoing) { new } else { new.min(old) }
    }

    /// How a vote stands, given each voter's answer so far. An empty set of voters has granted.
    pub fn vote_result(&self, answer: impl Fn(NodeId) -> Option<bool>) -> VoteResult {
        fn half(answers: &[Option<bool>]) -> VoteResult {
            let quorum = answers.len() / 2 + 1;
            let granted = answers.iter().filter(|a| **a == Some(true)).count();
            let refused = answers.iter().filter(|a| **a == Some(false)).count();
            if answers.is_empty() || granted >= quorum {
                VoteResult::Won
            } else if answers.len() - refused < quorum {
                VoteResult::Lost
            } else {
                VoteResult::Pending
            }
        }
        let new: Vec<_> = self.voters().map(&answer).collect();
        let old: Vec<_> = self.outgoing.iter().map(|id| answer(*id)).collect();
        if mutants::is(Mutant::IgnoreOutgoing) {
            return half(&new);
        }
        match (half(&new), half(&old)) {
            (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
            (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
            _ => VoteResult::Pending,
        }
    }

    /// True if the nodes for which `holds` is true are a quorum of every half in force.
    pub fn is_quorum(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        self.vote_result(|id| Some(holds(id))) == VoteResult::Won
    }
}
