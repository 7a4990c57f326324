//! Who is a member: what the leader tells of it, and how it is changed.
//!
//! Every call is looked at once a read index confirms that this node leads: what it refuses is refused by the truth. A change
//! is one entry of the log, or two where voters change (a joint configuration, and the one that leaves it, which whoever leads
//! appends by itself). Its call is answered when the last of them is applied here.
//!
//! The protocol takes one change at a time. What is judged here is whether the cluster would be well after it: nobody becomes
//! a voter that lacks something, and nobody goes whom the others need.

use super::calls::{CallId, Kept, Stage};
use super::propose::Proposed;
use super::view::standing;
use super::{Now, Replica};
use crate::api::{Change, ChangeMembers, Failure, MemberState, MembersInfo, Reason, Response, WaitingInfo};
use raftqueue_raft::{
    self as raft, Configuration, Index, Member, MemberChange, MemberKind, NodeId, PeerStatus, ProgressState,
    Refused, Term,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A node that is so many entries behind does not count as caught up.
pub const CAUGHT_UP_LAG_MAX: u64 = 1_000;
/// Members of a cluster, learners included.
pub const MEMBERS_MAX: usize = 16;
/// Waiting nodes that are remembered; others have to announce themselves again when there is room.
const WAITING_MAX: usize = 64;
/// A waiting node that has not announced itself for so long is forgotten.
const WAITING_MS: u64 = 10_000;

/// A node with a blank disk, as it announces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingNode {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where the other nodes find it.
    pub address: String,
    /// Where clients find it.
    pub client_address: String,
    /// The oldest and the newest version of commands and formats that it can run.
    pub versions: (u32, u32),
}

/// What is under way with members, and who waits to be one.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// With the moment until which each is believed to wait.
    waiting: BTreeMap<NodeId, (WaitingNode, u64)>,
    /// Calls whose joint configuration is applied and not left yet.
    leaving: Vec<CallId>,
    /// The oldest and the newest version that each peer was last heard to run.
    pub(super) versions: BTreeMap<NodeId, (u32, u32)>,
}

impl Members {
    fn announce(&mut self, node: WaitingNode, now: Now) {
        self.waiting.retain(|_, (_, until_ms)| *until_ms > now.mono_ms);
        if self.waiting.len() < WAITING_MAX || self.waiting.contains_key(&node.id) {
            self.waiting.insert(node.id, (node, now.mono_ms.saturating_add(WAITING_MS)));
        }
    }

    /// Calls that are in it.
    pub(super) fn outstanding(&self) -> usize {
        self.leaving.len()
    }

    /// A call ends without an answer to it.
    pub(super) fn forget(&mut self, call: CallId) {
        self.leaving.retain(|leaving| *leaving != call);
    }
}

/// What the protocol is asked for.
enum Planned {
    Members(MemberChange),
    Version(u32),
}

/// A change is refused.
pub(super) fn refused(text: impl Into<String>) -> Failure {
    Failure::not_done(Reason::FailedPrecondition, text)
}

impl Replica {
    /// A node that waits has announced itself.
    pub(super) fn on_waiting(&mut self, node: WaitingNode) {
        if node.id != NodeId(0) && !self.raft.configuration().peers().contains(&node.id) {
            self.members.announce(node, self.now);
        }
    }

    /// Nodes that announced themselves lately and are no members.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &WaitingNode> {
        let peers = self.raft.configuration().peers();
        let now_ms = self.now.mono_ms;
        let waits =
            move |(node, until_ms): &&(WaitingNode, u64)| *until_ms > now_ms && !peers.contains(&node.id);
        self.members.waiting.values().filter(waits).map(|(node, _)| node)
    }

    /// The members, as this leader sees them.
    pub(super) fn members_info(&self) -> MembersInfo {
        let status = self.raft.status();
        let configuration = self.raft.configuration();
        let at = self.raft.configuration_index();
        let before = self.raft.configuration_at(at.prev());
        let members = configuration.peers().into_iter().map(|id| {
            let known = configuration.members.get(&id);
            let standing = standing(configuration, id).expect("it is of the configuration");
            let named = known.or_else(|| before.and_then(|before| before.members.get(&id)));
            let is_own = id == self.raft.id();
            let peer = status.peers.iter().find(|peer| peer.id == id);
            let matched = if is_own { status.durable } else { peer.map_or(Index(0), |peer| peer.matched) };
            MemberState {
                id: id.0,
                name: named.map_or_else(String::new, |member| member.name.clone()),
                address: named.map_or_else(String::new, |member| member.address.clone()),
                standing,
                leads: is_own,
                active: is_own || peer.is_some_and(|peer| peer.active),
                matched: matched.0,
                lag: status.last.0.saturating_sub(matched.0),
                complete: if is_own { !status.incomplete } else { peer.is_some_and(|peer| !peer.incomplete) },
                replaying: if is_own { status.replaying } else { peer.is_none_or(|peer| peer.replaying) },
                disk_stalled: if is_own { self.disk_stalled } else { peer.is_some_and(|p| p.disk_stalled) },
                unwell: self.why_unwell(&status, id),
                stop_refusal: self.why_not_stop(&status, configuration, id),
                free_bytes: self.room.known_free_bytes(id),
                versions: self.versions_of(id),
            }
        });
        MembersInfo {
            configuration_index: at.0,
            joint: configuration.is_joint(),
            settled: self.raft.may_change_members().is_ok(),
            leader: self.raft.id().0,
            term: status.role.term.0,
            last: status.last.0,
            version: configuration.version,
            members: members.collect(),
            waiting: self
                .waiting()
                .map(|node| WaitingInfo {
                    id: node.id.0,
                    name: node.name.clone(),
                    address: node.address.clone(),
                    client_address: node.client_address.clone(),
                })
                .collect(),
        }
    }

    /// Why a node does not count as well: others could not rely on it.
    fn why_unwell(&self, status: &raft::Status, id: NodeId) -> Option<String> {
        if id == self.raft.id() {
            return match () {
                () if self.disk_stalled => Some("its disk does not answer".into()),
                () if status.incomplete => Some("it lacks messages that live".into()),
                () => None,
            };
        }
        let Some(peer) = status.peers.iter().find(|peer| peer.id == id) else {
            return Some("it is no member".into());
        };
        let PeerStatus { matched, active, disk_stalled, replaying, incomplete, state, .. } = *peer;
        let lag = status.last.0.saturating_sub(matched.0);
        match () {
            () if !active => Some("it was not heard within an election timeout".into()),
            () if disk_stalled => Some("its disk does not answer".into()),
            () if incomplete => Some("it lacks messages that live, which it gets from others".into()),
            () if state == ProgressState::Snapshot => {
                Some("it is so far behind that it gets a snapshot, and the messages after that".into())
            }
            () if lag > CAUGHT_UP_LAG_MAX => {
                Some(format!("it is {lag} entries behind, at most {CAUGHT_UP_LAG_MAX} count as caught up"))
            }
            () if replaying => Some("it has yet to apply what was committed when it started".into()),
            () => None,
        }
    }

    /// Why the voters of a configuration could not carry on without some nodes.
    fn why_not_without(
        &self,
        status: &raft::Status,
        configuration: &Configuration,
        without: &[NodeId],
    ) -> Option<String> {
        let is_well = |id: NodeId| !without.contains(&id) && self.why_unwell(status, id).is_none();
        if configuration.is_quorum(is_well) {
            return None;
        }
        let voters = || configuration.voters().chain(configuration.outgoing.iter().copied());
        let mut others: Vec<NodeId> = voters().filter(|id| !without.contains(id)).collect();
        others.sort_unstable();
        others.dedup();
        let unwell: Vec<String> = others
            .iter()
            .filter_map(|id| Some(format!("{}: {}", self.name_of(*id), self.why_unwell(status, *id)?)))
            .collect();
        let well = others.len() - unwell.len();
        let all = voters().collect::<std::collections::BTreeSet<_>>().len();
        let mut text = format!("a majority of {all} voters is needed, and {well} others are well");
        if !unwell.is_empty() {
            text = format!("{text} ({})", unwell.join("; "));
        }
        Some(text)
    }

    fn why_not_stop(
        &self,
        status: &raft::Status,
        configuration: &Configuration,
        id: NodeId,
    ) -> Option<String> {
        configuration.is_voter(id).then(|| self.why_not_without(status, configuration, &[id])).flatten()
    }

    pub(super) fn name_of(&self, id: NodeId) -> String {
        let at = self.raft.configuration_index();
        let named =
            |configuration: &Arc<Configuration>| configuration.members.get(&id).map(|m| m.name.clone());
        let before = || self.raft.configuration_at(at.prev()).and_then(named);
        named(self.raft.configuration()).or_else(before).unwrap_or_else(|| id.to_string())
    }

    /// A call that changes members; this node is known to lead.
    pub(super) fn change_members(&mut self, id: CallId, asked: &ChangeMembers) {
        self.steps.take(1 + self.raft.configuration().members.len());
        if self.is_under_way(asked) {
            // It may wait for one that does not come back, and another leader has not heard that it is forced.
            self.call_mut(id).stage = Stage::Proposed;
            self.members.leaving.push(id);
            return self.raft.force_configuration();
        }
        let planned = match asked.change {
            Change::RaiseVersion(version) => {
                self.check_change(asked).and_then(|()| self.plan_raise(version)).map(Planned::Version)
            }
            _ => self.plan_change(asked).map(Planned::Members),
        };
        if asked.dry {
            let configuration_index = self.raft.configuration_index().0;
            let refusal = planned.err().map(|failure| failure.text);
            return self.answer(id, Ok(Response::MembersChanged { configuration_index, refusal }));
        }
        let taken = match planned {
            Ok(Planned::Members(change)) => self.raft.change_members(change),
            Ok(Planned::Version(version)) => self.raft.raise_version(version),
            Err(failure) => return self.answer(id, Err(failure)),
        };
        match taken {
            Ok((term, index)) => {
                self.call_mut(id).stage = Stage::Proposed;
                let calls = vec![Some(id)];
                self.proposed.insert((index, term), Proposed { stamp_ms: 0, commands: Vec::new(), calls });
            }
            Err(refused) => self.answer(id, Err(not_taken(refused))),
        }
    }

    /// Whether voters are on their way out by a joint configuration that are to be removed now by force.
    fn is_under_way(&self, asked: &ChangeMembers) -> bool {
        let (index, configuration) = &self.configuration;
        let is_in_force = configuration.is_joint() && *index == self.raft.configuration_index();
        let goes = |text: &String| {
            let mut going =
                configuration.outgoing.iter().filter(|id| !configuration.members.contains_key(id));
            going.any(|id| is_id(text, *id) || *text == self.name_of(*id))
        };
        match &asked.change {
            Change::Remove(nodes) => {
                let is_expected = asked.expected.is_none_or(|expected| expected == index.0);
                is_in_force && asked.force && !asked.dry && is_expected && nodes.iter().all(goes)
            }
            _ => false,
        }
    }

    /// Whether the configuration in force may be changed, as the caller has seen it.
    fn check_change(&self, asked: &ChangeMembers) -> Result<(), Failure> {
        let in_force = self.raft.configuration_index();
        if let Some(expected) = asked.expected.filter(|expected| *expected != in_force.0) {
            return Err(Failure::not_done(
                Reason::StaleConfiguration,
                format!(
                    "the members have changed: the configuration at index {in_force} is in force, not the one at {expected}; \
                     look at them again"
                ),
            ));
        }
        self.raft.may_change_members().map_err(not_taken)?;
        if !self.is_of_own_generation() {
            return Err(not_taken(Refused::ChangePending));
        }
        Ok(())
    }

    /// What the protocol is asked for, if the cluster is well with it.
    fn plan_change(&self, asked: &ChangeMembers) -> Result<MemberChange, Failure> {
        self.check_change(asked)?;
        let status = self.raft.status();
        let old = self.raft.configuration();
        let mut change = MemberChange { force: asked.force, ..MemberChange::default() };
        match &asked.change {
            Change::AddLearners(nodes) => {
                for text in nodes {
                    let (id, member) = self.waiting_node(text)?;
                    change.set.insert(id, member);
                }
                if old.members.len() + change.set.len() > MEMBERS_MAX {
                    let text = format!(
                        "a cluster has at most {MEMBERS_MAX} members, and {} are there",
                        old.members.len()
                    );
                    return Err(Failure::not_done(Reason::LimitReached, text));
                }
                return Ok(change);
            }
            Change::Promote(nodes) => {
                for text in nodes {
                    self.promote(&status, text, &mut change)?;
                }
            }
            Change::Remove(nodes) => {
                let ids = nodes.iter().map(|text| find(text, "member", old.members.iter().map(named)));
                change.remove = ids.collect::<Result<_, _>>()?;
            }
            Change::Replace { old: text, new } => {
                let voters = || old.members.iter().filter(|(_, member)| member.kind == MemberKind::Voter);
                let gone = find(text, "voter", voters().map(named))?;
                self.promote(&status, new, &mut change)?;
                if !asked.force && self.why_unwell(&status, gone).is_none() {
                    let text = format!(
                        "`{text}` is well: its place is taken only if you force it; to have both, promote the learner"
                    );
                    return Err(refused(text));
                }
                change.remove.insert(gone);
            }
            Change::RaiseVersion(_) => unreachable!("it is planned elsewhere"),
        }
        let mut new = Configuration { outgoing: Default::default(), ..Configuration::clone(old) };
        new.members.retain(|id, _| !change.remove.contains(id));
        new.members.extend(change.set.clone());
        let voters_change = !new.voters().eq(old.voters());
        if new.voters().next().is_none() {
            return Err(refused("no voter would be left: a cluster keeps at least one"));
        }
        if voters_change
            && !asked.force
            && let Some(why) = self.why_not_without(&status, &new, &[])
        {
            return Err(refused(format!("after this too few voters would be well: {why}")));
        }
        if voters_change && !asked.force && self.has_quorum_room() && !self.is_room_for(&new) {
            return Err(refused(
                "after this the disks of a majority would be nearly full, and publishing would be refused: make room first, or force it"
                    .to_owned(),
            ));
        }
        Ok(change)
    }

    fn waiting_node(&self, text: &str) -> Result<(NodeId, Member), Failure> {
        let members = &self.raft.configuration().members;
        if let Some((id, member)) = members.iter().find(|(id, _)| is_id(text, **id)) {
            return Err(refused(format!("`{}` ({id}) is a member already", member.name)));
        }
        let id = find(text, "waiting node", self.waiting().map(|node| (node.id, node.name.as_str())))?;
        let node = self.waiting().find(|node| node.id == id).expect("just found");
        let (oldest, newest) = node.versions;
        let active = self.raft.configuration().version;
        if !(oldest..=newest).contains(&active) {
            return Err(refused(format!(
                "`{}` runs the versions {oldest} to {newest}, and {active} is in force: run another image there",
                node.name
            )));
        }
        let (name, address) = (node.name.clone(), node.address.clone());
        Ok((id, Member { name, address, kind: MemberKind::Learner }))
    }

    fn promote(&self, status: &raft::Status, text: &str, change: &mut MemberChange) -> Result<(), Failure> {
        let members = &self.raft.configuration().members;
        let voters = members.iter().filter(|(_, member)| member.kind == MemberKind::Voter);
        for (id, member) in voters {
            if is_id(text, *id) {
                return Err(refused(format!("`{}` ({id}) is a voter already", member.name)));
            }
        }
        let learners = members.iter().filter(|(_, member)| member.kind == MemberKind::Learner);
        let id = find(text, "learner", learners.map(named))?;
        if let Some(why) = self.why_unwell(status, id) {
            return Err(refused(format!("`{text}` is not ready to vote: {why}")).retry_after_ms(1_000));
        }
        let member = &members[&id];
        change.set.insert(id, Member { kind: MemberKind::Voter, ..member.clone() });
        Ok(())
    }

    /// A configuration is applied: if it leaves nobody half in, the changes that led to it are done.
    pub(super) fn apply_configuration(
        &mut self,
        index: Index,
        term: Term,
        configuration: Arc<Configuration>,
    ) {
        if let Some(proposed) = self.proposed.remove(&(index, term)) {
            self.members.leaving.extend(proposed.calls.into_iter().flatten());
        }
        if !configuration.is_joint() {
            for call in std::mem::take(&mut self.members.leaving) {
                let response = Response::MembersChanged { configuration_index: index.0, refusal: None };
                self.answer(call, Ok(response));
            }
        }
        self.members.waiting.retain(|id, _| !configuration.members.contains_key(id));
        self.configuration = (index, configuration);
    }

    /// This node went over to another's snapshot: it does not see how the changes under way end.
    pub(super) fn leave_changes(&mut self) {
        for call in std::mem::take(&mut self.members.leaving) {
            let text = "this node fell behind before it saw the end of the change: look at the members";
            self.answer(call, Err(Failure::unknown(Reason::NoLeader, text)));
        }
    }

    /// Keeps a change until this node is known to lead.
    pub(super) fn ask_change(&mut self, id: CallId, asked: ChangeMembers) {
        self.call_mut(id).kept = Kept::Members(asked);
        self.read(id);
    }
}

fn named<'a>((id, member): (&NodeId, &'a Member)) -> (NodeId, &'a str) {
    (*id, &member.name)
}

fn is_id(text: &str, id: NodeId) -> bool {
    u64::from_str_radix(text, 16).is_ok_and(|number| number == id.0)
}

/// The one of these nodes that has this id or this name.
fn find<'a>(
    text: &str,
    what: &str,
    among: impl Iterator<Item = (NodeId, &'a str)>,
) -> Result<NodeId, Failure> {
    let all: Vec<(NodeId, &str)> = among.collect();
    if let Some((id, _)) = all.iter().find(|(id, _)| is_id(text, *id)) {
        return Ok(*id);
    }
    let of_name: Vec<NodeId> = all.iter().filter(|(_, name)| *name == text).map(|(id, _)| *id).collect();
    match of_name[..] {
        [id] => Ok(id),
        [] => {
            let names: Vec<String> = all.iter().map(|(id, name)| format!("{name} ({id})")).collect();
            let names = if names.is_empty() { "there is none".into() } else { names.join(", ") };
            Err(Failure::not_done(Reason::NodeNotFound, format!("there is no {what} `{text}`: {names}")))
        }
        _ => {
            let ids: Vec<String> = of_name.iter().map(NodeId::to_string).collect();
            let text = format!("`{text}` is the name of several: say the id, one of {}", ids.join(", "));
            Err(refused(text))
        }
    }
}

fn not_taken(refusal: Refused) -> Failure {
    match refusal {
        Refused::NotLeader { .. } => Failure::not_done(Reason::NotLeader, "this node no longer leads"),
        Refused::Transferring | Refused::Full { .. } => {
            Failure::not_done(Reason::Overloaded, refusal.to_string()).retry_after_ms(100)
        }
        Refused::ChangePending => refused("another change of the members is under way").retry_after_ms(100),
        Refused::InvalidChange(why) => refused(why),
    }
}
