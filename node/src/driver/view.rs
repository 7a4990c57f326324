//! What this node is, in the words of its edges, its probes and its answers. It is built here for all of them.

use crate::api::{ClusterInfo, LocalStatus, MemberInfo, MemberRole, Role};
use crate::peers::own::Own;
use crate::peers::transport::Transport;
use crate::replica::{Replica, View};
use raftqueue_raft::{self as raft, Index, Member, MemberKind, NodeId, RoleKind};
use std::time::Duration;

/// A node that is so many entries behind is not ready.
const READY_LAG_MAX: u64 = 10_000;
/// How long a leader may be unknown before a node is not ready.
const LEADERLESS_MAX: Duration = Duration::from_secs(3);

/// What the replica knows of itself, and what only its surroundings know: addresses, connections, time.
pub(crate) struct Standing<'a> {
    /// What decides.
    pub(crate) replica: &'a Replica,
    /// What it says of itself now.
    pub(crate) view: &'a View,
    /// What the process is.
    pub(crate) own: &'a Own,
    /// Who is connected, and where clients reach them.
    pub(crate) transport: &'a Transport,
    /// How long no leader is known.
    pub(crate) leaderless: Duration,
    /// Why no snapshot of another node could be got the last time.
    pub(crate) not_installed: Option<&'a str>,
}

impl Standing<'_> {
    /// The node's own view. Progress of others is known to a leader only.
    pub(crate) fn status(&self) -> LocalStatus {
        let Self { view, own, .. } = *self;
        let id = self.id();
        let role = view.raft.role;
        let identity = *own.identity.borrow();
        LocalStatus {
            node_id: Some(id.0),
            name: own.name.clone(),
            // A node that is bound to a formation belongs to no cluster until there is one.
            cluster_id: identity
                .filter(|_| !view.configuration.members.is_empty())
                .and_then(|own| own.cluster_id)
                .map(|id| format!("{id:032x}"))
                .unwrap_or_default(),
            generation: identity.map_or(0, |own| own.generation),
            version: view.configuration.version,
            role: match role.role {
                RoleKind::Leader => Role::Leader,
                RoleKind::Follower => Role::Follower,
                RoleKind::PreCandidate | RoleKind::Candidate => Role::Candidate,
            },
            term: role.term.0,
            leader: role.leader.map(|leader| leader.0),
            leader_address: role.leader.and_then(|leader| self.client_address(leader)),
            commit: view.raft.commit.0,
            applied: view.applied.0,
            last: view.raft.last.0,
            members: view.configuration.members.iter().map(|(id, member)| self.member(*id, member)).collect(),
            not_ready: self.not_ready(),
            note: self.replica.why_no_room(),
        }
    }

    /// The cluster as this node sees it. On a leader, once a read index confirms it, that is the truth.
    pub(crate) fn cluster(&self) -> ClusterInfo {
        let status = self.status();
        ClusterInfo {
            cluster_id: status.cluster_id,
            // They come from the replicated state, which IDENTITY and the configuration only mirror.
            generation: self.replica.state().generation().0,
            version: self.replica.version(),
            leader: status.leader.unwrap_or_default(),
            term: status.term,
            commit: status.commit,
            applied: status.applied,
            members: status.members,
        }
    }

    fn id(&self) -> NodeId {
        self.replica.raft().id()
    }

    fn member(&self, id: NodeId, member: &Member) -> MemberInfo {
        let raft = &self.view.raft;
        let is_own = id == self.id();
        let peer = raft.peers.iter().find(|peer| peer.id == id);
        let matched = if is_own { Some(raft.durable) } else { peer.map(|peer| peer.matched) };
        MemberInfo {
            id: id.0,
            name: member.name.clone(),
            peer_address: if is_own {
                self.own.peer_address.clone()
            } else {
                self.transport.peer(id).map(|peer| peer.peer_address).unwrap_or_default()
            },
            client_address: self.client_address(id).unwrap_or_default(),
            role: match (raft.role.role, member.kind) {
                _ if raft.role.leader == Some(id) => MemberRole::Leader,
                (RoleKind::PreCandidate | RoleKind::Candidate, _) if is_own => MemberRole::Candidate,
                (_, MemberKind::Voter) => MemberRole::Follower,
                (_, MemberKind::Learner) => MemberRole::Learner,
            },
            voter: member.kind == MemberKind::Voter,
            // A leader hears from every member. The others only know who is connected.
            active: is_own || peer.map_or_else(|| self.transport.is_connected(id), |peer| peer.active),
            matched: matched.unwrap_or(Index(0)).0,
            lag: matched.map_or(0, |matched| raft.last.0.saturating_sub(matched.0)),
        }
    }

    /// Where clients reach a member, as it said itself.
    fn client_address(&self, id: NodeId) -> Option<String> {
        if id == self.id() {
            return Some(self.own.client_address.clone());
        }
        self.transport.peer(id).map(|peer| peer.client_address)
    }

    fn not_ready(&self) -> Option<String> {
        if self.replica.is_stateless() {
            return Some(stateless(self.not_installed));
        }
        if !self.view.configuration.members.contains_key(&self.id()) {
            return Some("not a member of a cluster yet".into());
        }
        if self.leaderless > LEADERLESS_MAX {
            return Some(format!("no leader known for {} s", self.leaderless.as_secs()));
        }
        not_applied(&self.view.raft, self.view.applied)
    }
}

/// Why a node without a state is not ready, and what is to be done if nobody gives it one.
fn stateless(why: Option<&str>) -> String {
    let begun =
        "its snapshots are lost: this node votes and takes entries, and gets the state of another node";
    match why {
        None => begun.into(),
        Some(why) => format!(
            "{begun}. None was got so far: {why}. If no node has one any more, what was consumed and kept so far is lost: \
             restore the data directories from a backup"
        ),
    }
}

/// What a node has not applied: entries that were committed when it started, or too many of those since.
fn not_applied(raft: &raft::Status, applied: Index) -> Option<String> {
    if raft.replaying {
        return Some(match raft.replay_until {
            Some(until) => format!(
                "replaying: {applied} of the {until} entries that were committed when this node started are applied"
            ),
            None => "replaying: no leader has said yet what is committed".into(),
        });
    }
    let lag = raft.leader_commit.0.saturating_sub(applied.0);
    (lag > READY_LAG_MAX).then(|| format!("{lag} committed entries are still to be applied"))
}
