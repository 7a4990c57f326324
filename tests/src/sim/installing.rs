//! A node that lacks what is in nobody's log any more: it fetches a snapshot, and then the messages that it lacks.
//!
//! Both transfers happen at once when they happen, like all IO here; what ends them early is drawn: a cut link, a giver that
//! is down, paused or incomplete itself, or plain bad luck half way.

use super::Violation;
use super::coverage::{Coverage, Rare};
use super::nodes::Node;
use super::plan::MS;
use super::random::Random;
use super::world::{Event, World};
use raftqueue_node::driver::keeper::Giver;
use raftqueue_node::driver::restoring;
use raftqueue_node::replica::{self, Arrived, Gift};
use raftqueue_queue::TopicId;
use raftqueue_raft::{Index, Install, NodeId};
use raftqueue_wal::disk::is_no_space;
use raftqueue_wal::{SnapshotFile, SnapshotReader, SnapshotWriter, Switched};
use std::io;
use std::ops::Range;

/// Messages looked up for another node at once.
const GIVEN_MAX: usize = 7;
/// Bytes given at once.
const GIVEN_BYTES_MAX: usize = 2_000;

impl World {
    /// The leader no longer has what a node lacks.
    pub(super) fn fetch_later(&mut self, node: usize, install: &Install) {
        let at = self.now + MS + self.random.waiting(4 * self.plan.packet_delay);
        let boot = self.nodes[node].boot;
        let running = self.nodes[node].running();
        if !running.is_fetching && running.arrived.is_none() && running.taken.is_none() {
            running.is_fetching = true;
            self.schedule.add(at, Event::Fetch { node, boot, from: install.leader });
        }
    }

    /// The snapshot of another node arrives, or does not.
    pub(super) fn fetch(&mut self, node: usize, leader: NodeId) -> Result<(), Violation> {
        self.nodes[node].running().is_fetching = false;
        let from = self.nodes.iter().position(|other| other.id == leader).filter(|_| self.random.percent(80));
        let from = from.unwrap_or_else(|| self.random.index(self.nodes.len()));
        let is_broken = self.random.one_in(4) && self.is_working();
        let gives = self.nodes[from].replica().is_some_and(replica::Replica::gives_snapshot);
        if from == node || is_broken || !gives || !self.may_give(node, from) {
            self.coverage.rare(Rare::TransferBroken);
            return Ok(());
        }
        let giver = self.nodes[from].running();
        let is_lacking = giver.replica.is_incomplete();
        let Some(file) = giver.wal.usable_snapshots().pop() else { return Ok(()) };
        let asker = &self.nodes[node].running().replica;
        if asker.is_stateless() && file.index < asker.raft().start().0 {
            self.hand(from, replica::Event::SnapshotWanted);
            return Ok(());
        }
        let giver_term = self.disks[&leader_or(&self.nodes[from])].hard_state.term;
        let source = self.nodes[from].disk.clone();
        let number = self.nodes[node].running().reader.next_file();
        let disk = self.nodes[node].disk.clone();
        let copied = copy(&source, &file, &disk, number);
        let is_giver_gone = source.is_crashed();
        if is_giver_gone {
            self.crash_inside(from)?;
        }
        if disk.is_crashed() {
            return self.crash_inside(node);
        }
        let file = match copied {
            Err(_) if is_giver_gone => return Ok(()),
            Ok(file) => file,
            Err(error) => {
                let at = &self.nodes[node];
                let is_known = at.is_failing || is_no_space(&error) && at.was_tight;
                let giver = &self.nodes[from];
                let is_givers = giver.is_failing || giver.is_damaged || giver.disk.is_crashed();
                return Violation::unless(is_known || is_givers, || {
                    format!("node {node} cannot keep the snapshot of node {from}: {error}")
                });
            }
        };
        let read = restoring::read(&disk, &file);
        if disk.is_crashed() {
            return self.crash_inside(node);
        }
        let Ok(freeze) = read else {
            let is_bad = |node: usize| self.nodes[node].is_failing || self.nodes[node].is_damaged;
            return Violation::unless(is_bad(node) || is_bad(from), || {
                format!("node {node} cannot read the snapshot that it has just written")
            });
        };
        self.trace.note(self.now, &[52, node as u64, file.index.0], || {
            format!("node {node} has got the snapshot of node {from} at {}", file.index)
        });
        if is_lacking {
            self.trace.note(self.now, &[67, node as u64, from as u64], || {
                format!("node {from} lacks messages itself, and nobody else can give a snapshot")
            });
        }
        self.nodes[node].running().arrived = Some(file);
        self.hand(node, replica::Event::Installed(Box::new(Arrived { freeze, giver_term })));
        Ok(())
    }

    /// Whether one node can ask another for something now.
    fn may_give(&mut self, node: usize, from: usize) -> bool {
        let is_cut = self.network.is_cut(self.now, node, from) || self.network.is_cut(self.now, from, node);
        let giver = &self.nodes[from];
        !is_cut && giver.is_up() && !giver.is_paused() && giver.shelf.is_none()
    }

    /// The protocol takes what arrived.
    pub(super) fn go_over(&mut self, node: usize) {
        let running = self.nodes[node].running();
        running.taken = running.arrived.take();
        let is_given = std::mem::take(&mut running.was_stateless);
        assert!(running.taken.is_some(), "what is taken has arrived");
        drop(running.bodies.reset());
        let applied = running.replica.applied();
        running.seen.goes_over(applied);
        self.coverage.rare_if(is_given, Rare::StateGiven);
        self.trace.note(self.now, &[53, node as u64, applied.0], || {
            format!("node {node} goes over to the snapshot at {applied}")
        });
    }

    /// The protocol does not take what arrived.
    pub(super) fn arrival_refused(&mut self, node: usize) {
        let running = self.nodes[node].running();
        if let Some(file) = running.arrived.take() {
            raftqueue_wal::remove_snapshot(&self.nodes[node].disk, &file);
            self.coverage.rare(Rare::ArrivalRefused);
        }
    }

    /// On the disk the log has gone over.
    pub(super) fn went_over(&mut self, node: usize, index: Index, switched: &Switched) {
        let running = self.nodes[node].running();
        (running.is_incomplete, running.lost) = (true, 0);
        running.went_over_at = index;
        let Some(keeper) = &mut running.keeper else { return };
        let filed = keeper.went_over(index, switched);
        let filed = filed.expect("no file is new");
        drop(running.bodies.filed(0, filed.added, &filed.removed, |_| true));
    }

    /// The other nodes, as an incomplete one asks them.
    pub(super) fn givers(&mut self, node: usize) -> Vec<usize> {
        let peers =
            self.nodes[node].raft().map_or_else(Default::default, |raft| raft.configuration().peers());
        // Who lost the only configuration that it had is connected to those that were listed at its start.
        let knows = |other: &Node| {
            let raft = other.raft();
            raft.is_some_and(|raft| raft.configuration().peers().contains(&self.nodes[node].id))
        };
        let is_peer = |other: &Node| peers.contains(&other.id) || peers.is_empty() && knows(other);
        let is_other = |other: &usize| *other != node && is_peer(&self.nodes[*other]);
        let others: Vec<usize> = (0..self.nodes.len()).filter(is_other).collect();
        let first = self.random.index(others.len().max(1));
        let turned = others.iter().cycle().skip(first).take(others.len()).copied();
        let turned: Vec<usize> = turned.collect();
        turned.into_iter().filter(|other| self.may_give(node, *other)).collect()
    }
}

fn leader_or(node: &Node) -> NodeId {
    node.id
}

/// Copies a snapshot section by section, as a transfer does.
fn copy(
    source: &raftqueue_wal::disk::fake::FakeDisk,
    file: &SnapshotFile,
    disk: &raftqueue_wal::disk::fake::FakeDisk,
    number: u64,
) -> io::Result<SnapshotFile> {
    let other = |error: raftqueue_wal::SnapshotError| io::Error::other(error.to_string());
    let (head, mut reader) = SnapshotReader::open(source, file).map_err(other)?;
    let mut writer = SnapshotWriter::create(disk, number, &head)?;
    loop {
        match reader.next().map_err(other) {
            Ok(Some(section)) => {
                if let Err(error) = writer.section(&section) {
                    writer.abandon(disk);
                    return Err(error);
                }
            }
            Ok(None) => return writer.finish(disk),
            Err(error) => {
                writer.abandon(disk);
                return Err(error);
            }
        }
    }
}

/// Nodes that give messages, one after the other.
pub(super) struct Givers<'a> {
    pub(super) nodes: &'a [Node],
    pub(super) order: Vec<usize>,
    /// The node that asks.
    pub(super) own: NodeId,
    /// Who answered last.
    pub(super) gave: Option<NodeId>,
    pub(super) random: &'a mut Random,
    pub(super) coverage: &'a mut Coverage,
    /// Nothing breaks off any more.
    pub(super) is_healed: bool,
}

impl Giver for Givers<'_> {
    fn give(&mut self, passed: usize, topic: TopicId, wanted: &[Range<u64>]) -> Result<Gift, String> {
        if !self.is_healed && self.random.one_in(8) {
            self.coverage.rare(Rare::TransferBroken);
            return Err("the transfer breaks off".into());
        }
        let asked = self.order.get(passed).map(|giver| &self.nodes[*giver]);
        let Some((id, giver)) = asked.and_then(|node| Some((node.id, node.running.as_ref()?))) else {
            return Err("nobody is there".into());
        };
        self.gave = Some(id);
        let living = giver.replica.living(topic, wanted, GIVEN_MAX);
        let located = giver.bodies.locate(living.messages.clone());
        let gift = living.answer(giver.bodies.give(&located, GIVEN_BYTES_MAX));
        self.coverage.rare_if(gift.gone_at.is_some(), Rare::GoneMeanwhile);
        Ok(gift)
    }

    fn own(&self) -> Option<NodeId> {
        Some(self.own)
    }

    fn gave(&self) -> Option<NodeId> {
        self.gave
    }
}
