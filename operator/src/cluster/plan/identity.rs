//! Which cluster the disks belong to, from what the nodes say of themselves.

use crate::cluster::observation::{ClusterId, MemberSeen, Observation};
use crate::cluster::validate::Asked;
use crate::names;
use std::collections::{BTreeMap, BTreeSet};

/// Most pods that members may call for: what a disk says is not taken for any number.
const PODS_MAX: i32 = 16;

/// Which cluster the nodes' disks belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// No node has a log, and the status names no cluster: one is to be formed.
    Blank,
    /// Some nodes have the log of this cluster, but not yet a quorum of its members.
    Found {
        /// Their cluster.
        id: ClusterId,
        /// Its members as those nodes know them.
        members: Vec<MemberSeen>,
        /// Those of them that were found, by their names.
        found: BTreeSet<String>,
    },
    /// The status names this cluster, or a quorum of its members was found.
    Certain(ClusterId),
    /// Disks of different clusters: who has which. The status's cluster counts as one.
    Mixed(BTreeMap<ClusterId, BTreeSet<String>>),
}

impl Identity {
    /// Judges what was seen.
    pub(super) fn of(asked: &Asked, seen: &Observation) -> Self {
        let mut owners: BTreeMap<ClusterId, BTreeSet<String>> = BTreeMap::new();
        for (name, answer) in seen.answers() {
            if let Some(id) = answer.cluster_id {
                owners.entry(id).or_default().insert(name.to_owned());
            }
        }
        if let Some(latched) = asked.latched {
            owners.entry(latched).or_default();
        }
        if owners.len() > 1 {
            return Self::Mixed(owners);
        }
        let Some((&id, names)) = owners.first_key_value() else { return Self::Blank };
        if asked.latched.is_some() {
            return Self::Certain(id);
        }
        let members = members_of(seen, id);
        // A disk counts by the id that stands on it. An empty disk under the old name is another node.
        let is_found = |member: &MemberSeen| {
            seen.answers().any(|(name, answer)| names.contains(name) && answer.id == member.id)
        };
        let voters: Vec<&MemberSeen> = members.iter().filter(|member| member.voter).collect();
        let found: BTreeSet<String> =
            voters.iter().filter(|member| is_found(member)).map(|member| member.name.clone()).collect();
        if !voters.is_empty() && found.len() > voters.len() / 2 {
            Self::Certain(id)
        } else {
            Self::Found { id, members, found }
        }
    }

    /// The cluster, once it is certain.
    #[must_use]
    pub fn certain(&self) -> Option<ClusterId> {
        match self {
            Self::Certain(id) => Some(*id),
            Self::Blank | Self::Found { .. } | Self::Mixed(_) => None,
        }
    }

    pub(super) fn is_mixed(&self) -> bool {
        matches!(self, Self::Mixed(_))
    }

    /// How many pods the members of the cluster need, where that is known: from the nodes, else from the status.
    pub(super) fn pods_of_members(&self, asked: &Asked, seen: &Observation) -> Option<i32> {
        let (id, kept) = match self {
            Self::Certain(id) => (*id, asked.latched.map(|_| asked.pods_kept)),
            Self::Found { id, .. } => (*id, None),
            Self::Blank | Self::Mixed(_) => return None,
        };
        let members = members_of(seen, id);
        let last = members.iter().filter_map(|member| names::ordinal(&asked.name, &member.name)).max();
        last.map(|last| last + 1).or(kept).map(|pods| pods.min(PODS_MAX)).filter(|pods| *pods > 0)
    }

    /// Whether some disk holds a log.
    pub(super) fn is_formed(&self) -> bool {
        !matches!(self, Self::Blank)
    }
}

/// The members of this cluster as its leader sees them. Without a leader, as the node with the greatest term sees them;
/// of several, the one with the lowest name.
pub(super) fn members_of(seen: &Observation, id: ClusterId) -> Vec<MemberSeen> {
    if let Some(cluster) = seen.cluster.as_ref().filter(|cluster| cluster.id == id) {
        return cluster.members.clone();
    }
    let mut best: Option<(u64, &Vec<MemberSeen>)> = None;
    for (_, answer) in
        seen.answers().filter(|(_, answer)| answer.cluster_id == Some(id) && !answer.members.is_empty())
    {
        if best.is_none_or(|(term, _)| answer.term > term) {
            best = Some((answer.term, &answer.members));
        }
    }
    best.map(|(_, members)| members.clone()).unwrap_or_default()
}
