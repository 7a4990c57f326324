//! Members that come and go: blank nodes wait, an administrator adds, promotes, removes and replaces, beside all faults.
//!
//! In such lives there are spare nodes. Each begins with a blank disk and announces itself to whoever hears it. A node that
//! was removed, or whose disk was refused for good, is no member some time later; then it gets a blank disk and with it a new
//! id, and waits like the others.
//!
//! The administrator asks for nothing that leaves too few good disks, as the faults leave enough of them: both wait until the
//! other has come to an end. Now and then he asks as of a configuration that is in force no longer, and sometimes there are two
//! of him.

use super::Violation;
use super::calls::{Answer, Call};
use super::coverage::Rare;
use super::digest::Durable;
use super::leaving::Leaving;
use super::nodes::Node;
use super::plan::{MS, Micros, Plan, SECOND};
use super::random::{Random, chain};
use super::world::{Event, World};
use raftqueue_node::api::{
    Change, ChangeMembers, Failure, Look, MembersInfo, Reason, Request, Response, codec,
};
use raftqueue_node::replica::{self, CallId, WaitingNode};
use raftqueue_raft::{Configuration, Entry, Index, Member, MemberKind, NodeId, Payload, Term};
use raftqueue_wal::disk::fake::FakeDisk;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The client that the administrator is.
pub(super) const ADMIN: usize = usize::MAX - 1;
/// Keeps the administrator's numbers apart from all others of a seed.
const ADMIN_STREAM: u64 = 0x6d65_6d62;
/// Most members that the administrator makes.
const MEMBERS_MAX: usize = 6;
/// How long after the last change nothing of it can be on its way any more.
const ON_ITS_WAY_MAX: Micros = SECOND;

/// What is under way with members.
pub(super) struct Membership {
    random: Random,
    /// Changes that nobody has answered yet: where each was asked, and what it leads to.
    asked: BTreeMap<CallId, Asked>,
    /// When the last of them was under way.
    last_open: Micros,
    /// What must never come to be: members behind a configuration.
    never: Vec<(Index, BTreeMap<NodeId, Member>)>,
    /// What may.
    maybe: Vec<(Index, BTreeMap<NodeId, Member>)>,
    /// Those that were removed.
    pub(super) leaving: Leaving,
}

#[derive(Clone, Debug)]
struct Asked {
    node: usize,
    boot: u32,
    leads_to: Option<(Index, BTreeMap<NodeId, Member>)>,
}

impl Membership {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            random: Random::new(chain(ADMIN_STREAM, plan.seed)),
            asked: BTreeMap::new(),
            last_open: 0,
            never: Vec::new(),
            maybe: Vec::new(),
            leaving: Leaving::default(),
        }
    }
}

/// All configurations that were committed, by where they stand: there is one history of them.
#[derive(Debug, Default)]
pub(super) struct History {
    committed: Vec<(Index, Term, Arc<Configuration>)>,
    /// One that a node has decided that goes on alone: it follows from nothing.
    forced: Option<(Index, Term)>,
}

impl History {
    pub(super) fn last(&self) -> Option<(Index, &Arc<Configuration>)> {
        self.committed.last().map(|(index, _, configuration)| (*index, configuration))
    }

    fn at(&self, index: Index) -> Option<&Arc<Configuration>> {
        self.committed.iter().find(|(at, _, _)| *at == index).map(|(_, _, configuration)| configuration)
    }

    /// What was committed behind `index` is lost, and the entry at `forced` follows from nothing.
    pub(super) fn begin_generation(&mut self, index: Index, forced: (Index, Term)) {
        self.committed.retain(|(at, _, _)| *at <= index);
        self.forced = Some(forced);
    }

    /// The one in force at an index.
    fn in_force(&self, index: Index) -> Option<Index> {
        self.committed.iter().rev().map(|(at, _, _)| *at).find(|at| *at <= index)
    }

    /// A configuration is committed. It must follow from the one before: all changes of voters are joint, and a joint
    /// configuration is left before anything else changes.
    fn push(&mut self, entry: &Entry, new: &Arc<Configuration>) -> Result<(), Violation> {
        if let Some((_, _, old)) = self.committed.last()
            && self.forced != Some((entry.index, entry.term))
        {
            let is_next = if old.is_joint() {
                **new == Configuration { outgoing: BTreeSet::new(), ..Configuration::clone(old) }
            } else if new.is_joint() {
                new.outgoing.iter().copied().eq(old.voters()) && !new.voters().eq(old.voters())
            } else {
                new.voters().eq(old.voters())
            };
            Violation::unless(is_next && new.voters().next().is_some(), || {
                format!("the configuration {new:?} at {} follows {old:?}", entry.index)
            })?;
        }
        self.committed.push((entry.index, entry.term, Arc::clone(new)));
        Ok(())
    }
}

impl World {
    /// Node numbers of members with good disks; of all nodes that begin, while there is no configuration.
    pub(super) fn is_member(&self, node: &Node) -> bool {
        match self.configurations.last() {
            Some((_, configuration)) => configuration.peers().contains(&node.id),
            None => node.number < self.plan.ids.len(),
        }
    }

    /// True if the voters for which it holds are a quorum.
    pub(super) fn is_quorum(&self, holds: impl Fn(&Node) -> bool) -> bool {
        let of = |id: NodeId| self.nodes.iter().find(|node| node.id == id).is_some_and(&holds);
        match self.configurations.last() {
            Some((_, configuration)) => configuration.is_quorum(of),
            None => {
                let count = self.plan.ids.len();
                2 * self.nodes[..count].iter().filter(|node| holds(node)).count() > count
            }
        }
    }

    /// True if no change of the members is under way, nor may come up from somewhere.
    pub(super) fn are_members_settled(&self) -> bool {
        let is_open = |(call, asked): (&CallId, &Asked)| {
            self.calls.contains_key(call) && self.nodes[asked.node].lives(asked.boot)
        };
        self.plan.spares.is_empty()
            || !self.membership.asked.iter().any(is_open)
                && self.now >= self.membership.last_open + ON_ITS_WAY_MAX
                && !self.checker.has_open_configuration()
                && !self.configurations.last().is_some_and(|(_, configuration)| configuration.is_joint())
    }

    /// An entry is committed: if it is a configuration it belongs to the one history of them.
    pub(super) fn commit_configuration(&mut self, entry: &Entry) -> Result<(), Violation> {
        let Payload::Config(new) = &entry.payload else { return Ok(()) };
        self.membership.check_gone(new)?;
        let before = self.configurations.last().map(|(index, old)| (index, Arc::clone(old)));
        self.configurations.push(entry, new)?;
        let Some((index, old)) = before else { return Ok(()) };
        let is = |(at, members): &&(Index, BTreeMap<NodeId, Member>)| *at == index && *members == new.members;
        let membership = &self.membership;
        let is_forbidden =
            membership.never.iter().any(|n| is(&n)) && !membership.maybe.iter().any(|m| is(&m));
        Violation::unless(!is_forbidden, || {
            format!("the members change at {} although that was refused: {new:?}", entry.index)
        })?;
        let kind = |configuration: &Configuration, id: NodeId| configuration.members.get(&id).map(|m| m.kind);
        let ids: BTreeSet<NodeId> = old.peers().union(&new.peers()).copied().collect();
        let count = |is: &dyn Fn(Option<MemberKind>, Option<MemberKind>) -> bool| {
            ids.iter().filter(|id| is(kind(&old, **id), kind(new, **id))).count()
        };
        let voter = Some(MemberKind::Voter);
        let added = count(&|old, new| old.is_none() && new == Some(MemberKind::Learner));
        let promoted = count(&|old, new| old == Some(MemberKind::Learner) && new == voter);
        let removed = count(&|old, new| old.is_some() && new.is_none());
        let voters_removed = count(&|old, new| old == voter && new.is_none());
        let leader = self.checker.leader_of(entry.term);
        let leaves = old.is_joint() && !new.is_joint();
        let joint_term = self.configurations.committed.iter().rev().nth(1).map(|(_, term, _)| *term);
        let rare = &mut self.coverage;
        rare.rare_if(added > 0, Rare::LearnerAdded);
        rare.rare_if(promoted > 0, Rare::Promoted);
        rare.rare_if(removed > 0, Rare::MemberRemoved);
        rare.rare_if(promoted > 0 && voters_removed > 0, Rare::MemberReplaced);
        rare.rare_if(promoted.max(voters_removed) > 1, Rare::SeveralChanged);
        rare.rare_if(leaves && leader.is_some_and(|id| !new.is_voter(id)), Rare::LeaderRemoved);
        rare.rare_if(leaves && joint_term != Some(entry.term), Rare::JointLeftByAnother);
        rare.rare_if(self.checker.is_configuration_lost(entry), Rare::ConfigurationOvertaken);
        self.trace.note(self.now, &[60, entry.index.0], || format!("members at {}: {new:?}", entry.index));
        Ok(())
    }

    pub(super) fn administrate_later(&mut self) {
        if !self.plan.spares.is_empty() {
            let at = self.now + 20 * MS + self.membership.random.waiting(self.plan.administrate_every);
            self.schedule.add(at, Event::Administrate);
        }
    }

    /// The administrator looks at the cluster, and does something or not. He draws from a stream of his own.
    pub(super) fn administrate(&mut self) -> Result<(), Violation> {
        self.administrate_later();
        self.announce();
        if !self.is_working() {
            return Ok(());
        }
        let own = std::mem::replace(&mut self.membership.random, Random::new(0));
        let main = std::mem::replace(&mut self.random, own);
        self.ask_whether_removed();
        let done = self.look_after_members();
        self.membership.random = std::mem::replace(&mut self.random, main);
        done
    }

    /// Nodes that wait say so to whoever hears them. Who has a log belongs to its cluster, and is not added by that name again.
    pub(super) fn announce(&mut self) {
        for node in 0..self.nodes.len() {
            let at = &self.nodes[node];
            let is_waiting = at.raft().is_some_and(|raft| raft.last_index() == Index(0));
            if !is_waiting || at.is_paused() {
                continue;
            }
            let waiting = WaitingNode {
                id: at.id,
                name: at.name(),
                address: at.name(),
                client_address: String::new(),
                versions: (codec::VERSION_MIN, at.version_max),
            };
            for other in (0..self.nodes.len()).filter(|other| *other != node) {
                if !self.network.is_cut(self.now, node, other) {
                    self.hand(other, replica::Event::Waiting(Box::new(waiting.clone())));
                }
            }
        }
    }

    fn look_after_members(&mut self) -> Result<(), Violation> {
        let is_open = self.forget_answered();
        if self.are_members_settled() && self.random.percent(20) {
            self.recycle()?;
        }
        if self.random.percent(20) {
            self.put_back()?;
        }
        let Some(leader) = self.leader() else { return Ok(()) };
        if self.random.percent(10) {
            self.place_call_at(ADMIN, leader, Request::Look(Look::Members), 2 * SECOND);
        }
        if is_open && self.random.percent(85) {
            return Ok(());
        }
        let is_settled = self.are_members_settled();
        let Some((base, old)) = self.configurations.last().map(|(index, old)| (index, Arc::clone(old)))
        else {
            return Ok(());
        };
        let Some((change, new)) = self.choose_change(&old) else { return Ok(()) };
        let is_good = |id: NodeId| {
            self.nodes.iter().any(|node| node.id == id && !node.is_damaged && node.out.is_none())
        };
        if !self.plan.is_reckless && !new.is_quorum(is_good) {
            return Ok(());
        }
        let expected = match self.random.below(10) {
            0 => Some(base.0.saturating_sub(self.random.below(9) + 1)),
            1 | 2 if is_settled && !is_open => None,
            _ => Some(base.0),
        };
        let dry = self.random.percent(10);
        let twice = self.random.percent(15);
        let leads_to = (!dry).then(|| (Index(expected.unwrap_or(base.0)), new.members));
        for _ in 0..=u32::from(twice && expected.is_none_or(|index| index == base.0)) {
            let change = ChangeMembers { change: change.clone(), expected, force: false, dry };
            let node = if self.random.percent(90) { leader } else { self.random.index(self.nodes.len()) };
            let id = self.place_call_at(ADMIN, node, Request::Members(change), 3 * SECOND);
            // It may come to a later life of the node, if it arrives before that.
            let boot = self.nodes[node].boot;
            self.membership.asked.insert(id, Asked { node, boot, leads_to: leads_to.clone() });
            self.membership.last_open = self.now;
            self.membership.maybe.extend(leads_to.clone());
        }
        Ok(())
    }

    /// True if something is still open.
    fn forget_answered(&mut self) -> bool {
        let (calls, nodes) = (&self.calls, &self.nodes);
        let is_open =
            |call: &CallId, asked: &Asked| calls.contains_key(call) && nodes[asked.node].lives(asked.boot);
        self.membership.asked.retain(|call, asked| is_open(call, asked));
        let is_any = !self.membership.asked.is_empty();
        if is_any {
            self.membership.last_open = self.now;
        }
        is_any
    }

    /// A change, and the configuration that it leads to.
    fn choose_change(&mut self, old: &Configuration) -> Option<(Change, Configuration)> {
        let peers = old.peers();
        let of_kind = |kind| -> Vec<NodeId> {
            old.members.iter().filter(|(_, member)| member.kind == kind).map(|(id, _)| *id).collect()
        };
        let (voters, learners) = (of_kind(MemberKind::Voter), of_kind(MemberKind::Learner));
        let waiting: Vec<NodeId> =
            self.nodes.iter().filter(|n| n.is_up() && !peers.contains(&n.id)).map(|n| n.id).collect();
        let mut new = Configuration { outgoing: BTreeSet::new(), ..old.clone() };
        let is_bad =
            |id: &NodeId| self.nodes.iter().any(|n| n.id == *id && (n.out.is_some() || n.is_damaged));
        let bad: Vec<NodeId> = voters.iter().copied().filter(is_bad).collect();
        let change = match self.random.below(10) {
            1 | 2 if !waiting.is_empty() && old.members.len() < MEMBERS_MAX => {
                let chosen = self.some_of(&waiting, MEMBERS_MAX - old.members.len());
                for id in &chosen {
                    let name =
                        self.nodes.iter().find(|node| node.id == *id).map_or_else(String::new, Node::name);
                    let member = Member { address: name.clone(), name, kind: MemberKind::Learner };
                    new.members.insert(*id, member);
                }
                Change::AddLearners(self.named(&chosen))
            }
            3..=5 if !learners.is_empty() => {
                let chosen = self.some_of(&learners, 3);
                for id in &chosen {
                    new.members.get_mut(id)?.kind = MemberKind::Voter;
                }
                Change::Promote(self.named(&chosen))
            }
            0 | 6 => {
                let members: Vec<NodeId> = old.members.keys().copied().collect();
                let chosen = self.some_of(&members, 3);
                new.members.retain(|id, _| !chosen.contains(id));
                Change::Remove(self.named(&chosen))
            }
            6.. if !learners.is_empty() && !voters.is_empty() => {
                let from = if bad.is_empty() { &voters } else { &bad };
                let (gone, come) = (self.random.pick(from), self.random.pick(&learners));
                new.members.remove(&gone);
                new.members.get_mut(&come)?.kind = MemberKind::Voter;
                Change::Replace { old: gone.to_string(), new: come.to_string() }
            }
            _ => return None,
        };
        Some((change, new))
    }

    fn some_of(&mut self, ids: &[NodeId], max: usize) -> Vec<NodeId> {
        let count = self.random.pick(&[1, 1, 1, 2, 3]).min(max).min(ids.len());
        let first = self.random.index(ids.len());
        (0..count).map(|at| ids[(first + at) % ids.len()]).collect()
    }

    /// By id, or now and then by name where that says who is meant.
    fn named(&mut self, ids: &[NodeId]) -> Vec<String> {
        ids.iter().map(NodeId::to_string).collect()
    }

    /// A node that is no member gets a blank disk, and with it a new id.
    fn recycle(&mut self) -> Result<(), Violation> {
        let may = |node: &&Node| {
            let had_log = node.raft().is_some_and(|raft| raft.last_index() > Index(0));
            !self.is_member(node) && node.shelf.is_none() && (had_log || node.out.is_some())
        };
        let all: Vec<usize> = self.nodes.iter().filter(may).map(|node| node.number).collect();
        if all.is_empty() {
            return Ok(());
        }
        let node = self.random.pick(&all);
        self.crash(node, false)?;
        self.keep_aside(node);
        self.coverage.rare(Rare::Recycled);
        self.begin_as_another(node)
    }

    /// A node that does not run begins anew with a blank disk, and so as another one.
    pub(super) fn begin_as_another(&mut self, node: usize) -> Result<(), Violation> {
        let (seed, id) = (self.random.bits(), NodeId(self.random.bits() | 1));
        self.begin_again(node, FakeDisk::new(seed), id)
    }

    /// A node that does not run begins again, with another disk and id.
    pub(super) fn begin_again(&mut self, node: usize, disk: FakeDisk, id: NodeId) -> Result<(), Violation> {
        self.mount_another(node, disk, id);
        self.nodes[node].format();
        self.disks.insert(id, Durable::default());
        self.trace.note(self.now, &[61, node as u64], || format!("node {node} begins again as {id}"));
        self.start(node)
    }

    /// A node that does not run gets another disk.
    pub(super) fn mount_another(&mut self, node: usize, disk: FakeDisk, id: NodeId) {
        let at = &mut self.nodes[node];
        (at.disk, at.id) = (disk, id);
        (at.is_damaged, at.is_failing, at.was_tight) = (false, false, false);
        (at.out, at.backup) = (None, None);
        at.maybe.clear();
        (at.is_asking, at.renewed) = (false, None);
    }

    /// What the administrator hears of a change.
    pub(super) fn admin_hears(&mut self, id: CallId, call: &Call, answer: &Answer) {
        let asked = self.membership.asked.remove(&id);
        let Request::Members(change) = &call.request else { return };
        if let Answer::Failure(Failure { reason, text, .. }) = answer {
            let coverage = &mut self.coverage;
            coverage.rare_if(*reason == Reason::StaleConfiguration, Rare::StaleChangeRefused);
            let is_refused = |of: bool| of && *reason == Reason::FailedPrecondition;
            coverage.rare_if(is_refused(text.contains("not ready to vote")), Rare::PromotionRefused);
            coverage.rare_if(is_refused(text.contains("too few voters")), Rare::RemovalRefused);
            coverage.rare_if(is_refused(text.contains("under way")), Rare::SecondChangeRefused);
            coverage.rare_if(is_refused(text.contains("is well")), Rare::ReplacementRefused);
        }
        self.coverage.rare_if(answer.is_unknown() && !change.dry, Rare::ChangeUnknown);
        if answer.is_not_done()
            && let Some(leads_to) = asked.and_then(|asked| asked.leads_to)
        {
            // One of those that asked for the same.
            if let Some(at) = self.membership.maybe.iter().position(|maybe| *maybe == leads_to) {
                self.membership.maybe.swap_remove(at);
            }
            self.membership.never.push(leads_to);
        }
    }

    /// Whether what a node says of the members is true.
    pub(super) fn check_members(
        &self,
        call: &Call,
        result: &Result<Response, Failure>,
    ) -> Result<(), Violation> {
        let wrong = |why: &str| Err(Violation(format!("{result:?} to {:?} is wrong: {why}", call.request)));
        match (&call.request, result) {
            (Request::Look(Look::Members), Ok(Response::Members(info))) => self.check_info(call, info),
            (Request::Members(change), Ok(Response::MembersChanged { configuration_index, refusal })) => {
                let index = Index(*configuration_index);
                if change.dry {
                    let least = self.configurations.in_force(call.acknowledged_before);
                    return if Some(index) >= least { Ok(()) } else { wrong("it is in force no longer") };
                }
                let Some(configuration) = self.configurations.at(index) else {
                    return wrong("no configuration is committed there");
                };
                let ids = |nodes: &[String]| -> Vec<NodeId> {
                    let id = |text: &String| u64::from_str_radix(text, 16).map(NodeId).ok();
                    nodes.iter().filter_map(id).collect()
                };
                let is = |id: &NodeId, kind: Option<MemberKind>| {
                    configuration.members.get(id).map(|member| member.kind) == kind
                };
                let is_so = match &change.change {
                    Change::AddLearners(nodes) => {
                        ids(nodes).iter().all(|id| is(id, Some(MemberKind::Learner)))
                    }
                    Change::Promote(nodes) => ids(nodes).iter().all(|id| is(id, Some(MemberKind::Voter))),
                    Change::Remove(nodes) => ids(nodes).iter().all(|id| is(id, None)),
                    Change::Replace { old, new } => {
                        ids(std::slice::from_ref(old)).iter().all(|id| is(id, None))
                            && ids(std::slice::from_ref(new)).iter().all(|id| is(id, Some(MemberKind::Voter)))
                    }
                    Change::RaiseVersion(version) => {
                        version.is_none_or(|version| configuration.version == version)
                    }
                };
                match is_so && !configuration.is_joint() && refusal.is_none() && index > call.committed_before
                {
                    true => Ok(()),
                    false => wrong("the configuration is not what was asked for"),
                }
            }
            (Request::Members(change), Err(failure)) if failure.reason == Reason::StaleConfiguration => {
                let expected = change.expected.map(Index);
                let was = self.configurations.in_force(call.acknowledged_before);
                let is = self.configurations.last().map(|(index, _)| index);
                let own = self.nodes[call.node].raft().map(raftqueue_raft::Raft::configuration_index);
                let is_stale = expected != was || expected != is || expected != own;
                if is_stale { Ok(()) } else { wrong("that configuration is in force") }
            }
            (Request::Members(_), Err(failure)) => match failure.reason {
                Reason::FailedPrecondition
                | Reason::NodeNotFound
                | Reason::Overloaded
                | Reason::NotLeader
                | Reason::NoLeader
                | Reason::DeadlineExceeded => Ok(()),
                _ => wrong("nothing is refused so"),
            },
            _ => Ok(()),
        }
    }

    fn check_info(&self, call: &Call, info: &MembersInfo) -> Result<(), Violation> {
        let index = Index(info.configuration_index);
        let wrong = |why: &str| Err(Violation(format!("{info:?}, told of the members, is wrong: {why}")));
        if Some(index) < self.configurations.in_force(call.acknowledged_before) {
            return wrong("it is in force no longer");
        }
        let Some(known) = self.configurations.at(index) else {
            let own = self.nodes[call.node].raft().map(raftqueue_raft::Raft::configuration_index);
            return if own == Some(index) || self.checker.has_open_configuration() {
                Ok(())
            } else {
                wrong("there is no such configuration")
            };
        };
        let is_same = info.members.iter().map(|member| NodeId(member.id)).eq(known.peers());
        if is_same && info.joint == known.is_joint() { Ok(()) } else { wrong("others are members") }
    }
}
