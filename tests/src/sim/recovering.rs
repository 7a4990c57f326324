//! A quorum is gone for good: one of the nodes that are left goes on alone, and blank ones join it.
//!
//! That is what becomes of lives that have lost their quorum, once all their calls have ended. What was committed and the node
//! never got is lost; from then on nothing counts but what it had. The checker and the oracle go back to that, and judge what
//! follows as before.

use super::Violation;
use super::calls::Answer;
use super::coverage::Rare;
use super::digest::Durable;
use super::nodes::Node;
use super::plan::{MS, SECOND};
use super::world::World;
use raftqueue_node::api::{
    Change, ChangeMembers, LeaseId, LeaseResult, MessageId, Recover, RecoveryInfo, Request, Response, Settle,
    Settlement, Write,
};
use raftqueue_node::replica::Decision;
use raftqueue_queue::TopicId;
use raftqueue_raft::{Entry, HardState, MemberKind, NodeId, Payload};
use raftqueue_wal::disk::fake::FakeDisk;
use raftqueue_wal::{DataDir, Recovery};
use std::sync::Arc;

/// The cluster of all lives, as their disks name it once that matters.
const CLUSTER: u128 = 7;

impl World {
    /// What a node says that could go on alone, if its connections are as good as can be.
    fn says(&self, node: &Node) -> Option<RecoveryInfo> {
        let is_there = |id: NodeId| self.nodes.iter().any(|other| other.id == id && other.is_up());
        Some(node.replica()?.recovery(0, is_there))
    }

    /// No node of a cluster that is well goes on alone.
    pub(super) fn check_recoveries(&self) -> Result<(), Violation> {
        for node in self.members() {
            if let Some(info) = self.says(node) {
                Violation::unless(info.refusal.is_some() && info.token.is_empty(), || {
                    format!("node {} would go on alone in a cluster that is well", node.number)
                })?;
            }
        }
        Ok(())
    }

    /// One of the nodes that are left goes on alone, if there is one that can.
    pub(super) fn recover_left(&mut self) -> Result<(), Violation> {
        if !self.nodes.iter().any(Node::is_up) {
            return Ok(());
        }
        // The others get so long to elect somebody.
        self.pass(4 * SECOND)?;
        let able = self.members().filter(|node| !node.is_damaged && node.shelf.is_none());
        let able = able.filter_map(|node| Some((node.number, self.says(node)?)));
        let able = able.filter(|(_, info)| info.refusal.is_none() && info.caution.is_none());
        let mut able: Vec<(usize, RecoveryInfo)> = able.collect();
        able.sort_by_key(|(_, info)| (info.last_term, info.last));
        // The one that has most is the one to choose; any other only costs more.
        let Some(best) = able.len().checked_sub(1) else { return Ok(()) };
        let chosen = if self.random.percent(40) { best } else { self.random.index(able.len()) };
        let (node, info) = able.swap_remove(chosen);
        let replica = self.nodes[node].replica().expect("it has just spoken");
        let asked = Recover { token: Some(info.token.clone()), force: false };
        let name = self.nodes[node].name();
        let decision = replica.decide_recovery(&info, &asked, (&name, &name));
        let decision =
            decision.map_err(|failure| Violation(format!("node {node} does not go on alone: {failure}")))?;
        self.trace.note(self.now, &[62, node as u64, decision.last.0.0], || {
            format!("node {node} is to go on alone: {decision:?}")
        });
        self.coverage.rare(Rare::Recovered);
        self.go_back(node, &decision)?;
        self.carry_out(node, decision)?;
        self.run_until(
            World::HEALING_MAX,
            |world| world.leader() == Some(node),
            "the node to lead that goes on alone",
        )?;
        self.check_generation(node)?;
        self.join_blank(node)?;
        self.check_generation(node)
    }

    /// From now on nothing counts but what the node has.
    fn go_back(&mut self, node: usize, decision: &Decision) -> Result<(), Violation> {
        let own = &self.disks[&self.nodes[node].id];
        let is_whole = own.trail.last() == decision.last.0
            && own.trail.at(decision.last.0).map(|step| step.term) == Some(decision.last.1);
        Violation::unless(is_whole, || {
            format!("node {node} ends with {:?}, and its disk with {}", decision.last, own.trail.last())
        })?;
        let (trail, committed) = (own.trail.clone(), self.checker.agrees_to(&own.trail));
        self.checker.begin_generation(&trail, committed);
        self.configurations.begin_generation(committed, (decision.last.0.next(), decision.term));
        self.oracle.go_back(committed);
        Ok(())
    }

    /// The node writes it down and starts again. Now and then it dies on the way.
    fn carry_out(&mut self, node: usize, decision: Decision) -> Result<(), Violation> {
        // All the others are gone, and never heard of again.
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.crash(other, false)?;
            self.take_out(other, "it is gone for good");
        }
        self.crash(node, false)?;
        let at = &mut self.nodes[node];
        let Decision { generation, last, term, configuration } = decision;
        let mut directory =
            DataDir::open(Arc::new(at.disk.clone()), Some(&at.name())).expect("nobody else holds it");
        directory.join(CLUSTER, 0).expect("it was of none");
        let recovery = Recovery { node_id: at.id, generation, last, term, configuration };
        directory.decide_recovery(&recovery).expect("the disk is well");
        drop(directory);
        let before = self.disks[&at.id].clone();
        let payload = Payload::Config(Arc::new(recovery.configuration));
        let mut trail = before.trail.clone();
        self.checker.append(&mut trail, &Entry { index: last.0.next(), term, payload })?;
        let hard_state = HardState { term, vote: Some(at.id) };
        let after = Durable { hard_state, trail };
        for call in [self.random.between(1, 30), self.random.between(1, 60)] {
            if self.random.percent(60) {
                let at = &mut self.nodes[node];
                at.maybe = vec![after.clone()];
                at.disk.crash_at_call(call);
                self.start(node)?;
                self.coverage.rare_if(!self.nodes[node].is_up(), Rare::RecoveryCut);
                if self.nodes[node].is_up() {
                    return Ok(());
                }
            }
        }
        if !self.nodes[node].is_up() {
            self.nodes[node].maybe = vec![after];
            self.start(node)?;
        }
        Ok(())
    }

    /// The generation is in force, what was given out before it is known for that, and every message that lives is there.
    fn check_generation(&mut self, node: usize) -> Result<(), Violation> {
        let request = Request::Write(Write::OpenSession { name: None });
        let answer = self.ask(&request)?;
        let Answer::Response(Response::SessionOpened { session }) = &answer else {
            return Err(Violation(format!("node {node} goes on alone and opens no session: {answer:?}")));
        };
        Violation::unless(session.generation == 1, || {
            format!("a session of generation {}", session.generation)
        })?;
        let topic = self
            .oracle
            .state()
            .topics_from(TopicId(0))
            .next()
            .map(|topic| (topic.id().0, topic.name().to_owned()));
        if let Some((topic, name)) = topic {
            let message = MessageId { generation: 0, topic, offset: 1 << 40 };
            let settle = Settle {
                topic: name,
                subscription: String::new(),
                leases: vec![LeaseId { message, token: 1 }],
                settlement: Settlement::Ack,
            };
            let answer = self.ask(&Request::Settle(settle))?;
            let is_gone =
                matches!(&answer, Answer::Response(Response::Leases(all)) if *all == [LeaseResult::Gone]);
            Violation::unless(is_gone, || {
                format!("a lease of the lost part of the log is answered by {answer:?}")
            })?;
        }
        self.agree()
    }

    /// All others begin again with blank disks, and become voters.
    fn join_blank(&mut self, node: usize) -> Result<(), Violation> {
        if self.oracle.version() > 1 {
            return Ok(()); // Not every binary that starts knows that one.
        }
        let others: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != node).take(2).collect();
        for other in &others {
            self.begin_blank(*other)?;
        }
        let ids: Vec<NodeId> = others.iter().map(|other| self.nodes[*other].id).collect();
        let texts: Vec<String> = ids.iter().map(NodeId::to_string).collect();
        if texts.is_empty() {
            return Ok(());
        }
        for (change, kind) in [
            (Change::AddLearners(texts.clone()), MemberKind::Learner),
            (Change::Promote(texts), MemberKind::Voter),
        ] {
            let change = ChangeMembers { change, expected: None, force: false, dry: false };
            let is_so = |world: &Self| {
                world.configurations.last().is_some_and(|(_, configuration)| {
                    !configuration.is_joint()
                        && ids
                            .iter()
                            .all(|id| configuration.members.get(id).is_some_and(|member| member.kind == kind))
                })
            };
            let until = self.now
                + World::HEALING_MAX
                + self.oracle.committed().0 * World::CATCHING_UP_MAX
                + 30 * SECOND;
            while !is_so(self) {
                Violation::unless(self.now < until, || {
                    format!("blank nodes do not become members: {change:?}")
                })?;
                self.announce();
                self.pass(100 * MS)?;
                let id =
                    self.place_call(super::clients::NOBODY, Request::Members(change.clone()), 2 * SECOND);
                self.await_answer(id)?;
            }
        }
        Ok(())
    }

    fn begin_blank(&mut self, node: usize) -> Result<(), Violation> {
        let (seed, id) = (self.random.bits(), NodeId(self.random.bits() | 1));
        self.begin_again(node, FakeDisk::new(seed), id)
    }
}
