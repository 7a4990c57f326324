//! Nodes that were removed, as they find out (RULES 1.5), and disks of theirs that come back.
//!
//! A node that its own log leaves out, or that knows no leader, asks others whether it is a member. What they answer, and
//! whether that counts, is the node's code; question and answer take as long as they like. Who is told that he was removed
//! sets aside what he has, and begins anew under another id. From then on no configuration may name the old one.
//!
//! What was set aside is put back now and then, as somebody does who mounts the wrong disk: it must find out once more, and
//! harm nobody until then.

use super::Violation;
use super::calls::Answer;
use super::coverage::Rare;
use super::digest::Durable;
use super::members::Membership;
use super::nodes::Node;
use super::plan::{MS, SECOND};
use super::world::{Event, World};
use raftqueue_node::api::{Look, Request, Response};
use raftqueue_node::peers::leaving::Told;
use raftqueue_node::peers::own::LogEnd;
use raftqueue_node::replica::CallId;
use raftqueue_raft::{Configuration, Index, NodeId, Raft};
use raftqueue_wal::disk::fake::FakeDisk;
use std::collections::{BTreeMap, BTreeSet};

/// The client that nodes are which ask whether they were removed.
pub(super) const DOUBTER: usize = usize::MAX - 2;
/// Disks that are kept to be put back.
const ATTIC_MAX: usize = 4;

/// Who asks, and what was set aside.
#[derive(Default)]
pub(super) struct Leaving {
    asked: BTreeMap<CallId, Question>,
    /// Ids of nodes that were told that they were removed for good.
    gone: BTreeSet<NodeId>,
    attic: Vec<Aside>,
}

/// A node asks whether it is still a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    node: usize,
    boot: u32,
    log_end: LogEnd,
}

/// What a removed node had.
struct Aside {
    node: usize,
    id: NodeId,
    disk: FakeDisk,
    maybe: Vec<Durable>,
}

fn log_end(raft: &Raft) -> LogEnd {
    let last_term = raft.term_at(raft.last_index()).map_or(u64::MAX, |term| term.0);
    LogEnd { durable: raft.durable_index().0, last_term }
}

/// Its log leaves it out, or it knows no leader.
fn is_in_doubt(raft: &Raft) -> bool {
    let is_outside = !raft.configuration().members.contains_key(&raft.id());
    raft.last_index() > Index(0) && (is_outside || raft.role_state().leader.is_none())
}

impl Membership {
    /// A configuration is committed: none names one that was told that it is gone.
    pub(super) fn check_gone(&self, new: &Configuration) -> Result<(), Violation> {
        let back = new.peers().into_iter().find(|id| self.leaving.gone.contains(id));
        Violation::unless(back.is_none(), || {
            format!("{back:?} was told that it was removed, and is a member: {new:?}")
        })
    }
}

impl World {
    /// Every node in doubt asks somebody, as often as not.
    pub(super) fn ask_whether_removed(&mut self) {
        for node in 0..self.nodes.len() {
            let at = &self.nodes[node];
            let Some(raft) = at.raft().filter(|raft| !at.is_paused() && is_in_doubt(raft)) else { continue };
            let question = Question { node, boot: at.boot, log_end: log_end(raft) };
            let other = self.random.index(self.nodes.len());
            if other == node || self.network.is_cut(self.now, node, other) || self.random.percent(50) {
                continue;
            }
            let call = self.place_call_at(DOUBTER, other, Request::Look(Look::Members), 2 * SECOND);
            self.membership.leaving.asked.insert(call, question);
        }
    }

    /// A node hears whether it is a member.
    pub(super) fn doubter_hears(&mut self, call: CallId, answer: &Answer) {
        let Some(question) = self.membership.leaving.asked.remove(&call) else { return };
        let Answer::Response(Response::Members(members)) = answer else { return };
        let Some(told) = Told::of(members, self.nodes[question.node].id.0) else { return };
        // The answer is on its way, and then the process ends in order.
        let mean = if self.random.one_in(8) { 4 * SECOND } else { 40 * MS };
        let at = self.now + self.random.waiting(mean);
        self.schedule.add(at, Event::Told { question, told });
    }

    /// The answer counts only for the log that the node had when it asked.
    pub(super) fn told(&mut self, question: Question, told: Told) -> Result<(), Violation> {
        let Question { node, boot, log_end: asked } = question;
        if !self.nodes[node].lives(boot) || !self.is_working() || told.is_member {
            return Ok(());
        }
        let now = self.nodes[node].raft().map_or(asked, log_end);
        if !told.is_removed(asked, now) {
            return Ok(());
        }
        self.coverage.rare(Rare::SetAside);
        let id = self.nodes[node].id;
        self.trace.note(self.now, &[64, node as u64], || format!("node {node} sets aside what {id} had"));
        let is_in = self.configurations.last().is_some_and(|(_, known)| known.peers().contains(&id));
        Violation::unless(!is_in, || format!("{id} is a member, and sets aside what it has"))?;
        self.membership.leaving.gone.insert(id);
        self.crash(node, false)?;
        self.keep_aside(node);
        self.begin_as_another(node)
    }

    /// What a node that does not run has is kept, if it is good.
    pub(super) fn keep_aside(&mut self, node: usize) {
        let at = &self.nodes[node];
        let is_good = !at.is_damaged && !at.was_tight && at.shelf.is_none() && at.out.is_none();
        let attic = &mut self.membership.leaving.attic;
        if is_good && attic.len() < ATTIC_MAX {
            attic.push(Aside { node, id: at.id, disk: at.disk.clone(), maybe: at.maybe.clone() });
        }
    }

    /// Somebody mounts what a removed node had, in place of a disk on which nothing is yet.
    pub(super) fn put_back(&mut self) -> Result<(), Violation> {
        let is_free = |node: &Node| {
            let is_blank = node.raft().is_some_and(|raft| raft.last_index() == Index(0));
            is_blank && node.shelf.is_none() && node.out.is_none() && !node.is_damaged
        };
        let attic = &self.membership.leaving.attic;
        let Some(at) = attic.iter().position(|aside| is_free(&self.nodes[aside.node])) else { return Ok(()) };
        let Aside { node, id, disk, maybe } = self.membership.leaving.attic.swap_remove(at);
        self.crash(node, false)?;
        self.coverage.rare(Rare::OldDiskBack);
        self.trace.note(self.now, &[65, node as u64], || format!("node {node} gets the old disk of {id}"));
        self.mount_another(node, disk, id);
        self.nodes[node].maybe = maybe;
        self.start(node)
    }
}
