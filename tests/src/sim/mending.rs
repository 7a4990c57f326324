//! A node whose log is damaged mends it with what the others have.
//!
//! A round happens at once when it happens, like all IO here. What keeps others from giving is drawn, and follows from the
//! network: a cut link, a node that is down or paused, plain bad luck.

use super::Violation;
use super::coverage::{Coverage, Rare};
use super::nodes::{Node, Running};
use super::plan::{MS, SECOND};
use super::random::Random;
use super::world::{Event, World};
use raftqueue_node::driver::bodies::Pass;
use raftqueue_node::driver::mending::{Holder, Mender};
use raftqueue_node::driver::scrubbing::scrub;
use raftqueue_node::replica::{self, Asked};
use raftqueue_raft::Index;
use raftqueue_wal::{MendError, RecordName};

impl World {
    /// A read met rot. True if it is mended, or was none.
    pub(super) fn doubt(&mut self, node: usize, index: Index) -> bool {
        let is_known = self.nodes[node].running().reader.doubt(index).is_ok();
        self.mend_later(node);
        is_known
    }

    /// It is looked soon whether there is something to mend.
    pub(super) fn mend_later(&mut self, node: usize) {
        let at = self.now + 20 * MS + self.random.waiting(200 * MS);
        let boot = self.nodes[node].boot;
        if !std::mem::replace(&mut self.nodes[node].running().is_mending_due, true) {
            self.schedule.add(at, Event::Mend { node, boot });
        }
    }

    /// One round of mending.
    pub(super) fn mend(&mut self, node: usize) -> Result<(), Violation> {
        let running = self.nodes[node].running();
        running.is_mending_due = false;
        if !running.is_told_damaged && !running.mender.is_due() {
            return Ok(());
        }
        if !std::mem::replace(&mut running.is_told_damaged, true) {
            self.hand(node, replica::Event::Damaged(true));
        }
        let order = self.givers(node);
        let running = self.nodes[node].running();
        let applied = running.replica.applied();
        let mut mender = std::mem::replace(&mut running.mender, Mender::new(running.reader.clone()));
        let is_healed = !self.is_working();
        let Self { nodes, random, coverage, .. } = self;
        let mended = mender.round(applied, &mut Holders { nodes, order, random, coverage, is_healed });
        self.nodes[node].running().mender = mender;
        if self.nodes[node].disk.is_crashed() {
            return self.crash_inside(node);
        }
        let round = match mended {
            Ok(round) => round,
            Err(error) => return self.mending_failed(node, &error),
        };
        self.coverage.rare_if(round.given > 0, Rare::RecordGiven);
        self.coverage.rare_if(round.alone > 0, Rare::HeadMended);
        self.coverage.rare_if(round.unneeded > 0 || round.cut.is_some(), Rare::RecordCut);
        self.coverage.rare_if(round.why.is_some(), Rare::MendingUnheard);
        self.trace.note(self.now, &[56, node as u64, round.given, round.needed as u64], || {
            format!("node {node} mends its log: {round:?}")
        });
        for (index, configuration) in round.known {
            self.hand(node, replica::Event::Known(index, configuration));
        }
        if let Some(index) = round.cut {
            self.hand(node, replica::Event::Cut(index));
        }
        if round.needed > 0 {
            self.mend_later(node);
        } else {
            self.nodes[node].running().is_told_damaged = false;
            self.hand(node, replica::Event::Damaged(false));
        }
        Ok(())
    }

    fn mending_failed(&mut self, node: usize, error: &MendError) -> Result<(), Violation> {
        Violation::unless(self.nodes[node].is_failing, || {
            format!("node {node} cannot mend its log: {error}")
        })?;
        self.coverage.rare(Rare::PoisonedLog);
        let power = self.random.percent(30);
        self.crash(node, power)
    }

    /// All that rots is looked for, and what can be had is put back, while everybody is there.
    pub(super) fn mend_all(&mut self, node: usize) -> Result<(), Violation> {
        let at = &self.nodes[node];
        if !at.is_damaged || !at.is_up() {
            return Ok(());
        }
        let boot = at.boot;
        self.scrub(node);
        self.look_for_lost(node);
        self.mend_later(node);
        let end = self.now + 60 * SECOND;
        let is_done = |world: &World| {
            let at = &world.nodes[node];
            let running = at.running.as_ref().filter(|_| at.boot == boot);
            let is_at_work =
                |running: &Running| running.lacks() || running.is_mending_due || running.is_told_damaged;
            world.now >= end || running.is_none_or(|running| !is_at_work(running))
        };
        self.run_until(70 * SECOND, is_done, "a damaged disk to be mended")
    }

    /// Reads everything that stands on a node's disk, as its scrub does again and again.
    pub(super) fn scrub(&mut self, node: usize) {
        let running = self.nodes[node].running();
        let snapshots = running.wal.usable_snapshots();
        let mut met = Vec::new();
        let mut pass = Pass::default();
        let (reader, bodies) = (&running.reader, &running.bodies);
        let scrubbed =
            scrub(reader, bodies, &snapshots, &mut |file| met.push(file), &mut pass, &mut |_| true);
        met.iter().for_each(|file| running.wal.give_up_snapshot(file.number));
        let is_due = running.mender.is_due();
        self.coverage.rare_if(pass.records > 0, Rare::ScrubMeetsRecord);
        self.coverage.rare_if(pass.messages > 0, Rare::ScrubMeetsMessage);
        self.coverage.rare_if(pass.pages > 0, Rare::ScrubMeetsPage);
        self.coverage.rare_if(pass.snapshots > 0, Rare::ScrubMeetsSnapshot);
        self.coverage.rare_if(pass.heads > 0, Rare::ScrubMeetsHead);
        if pass.wants_snapshot() {
            self.hand(node, replica::Event::SnapshotWanted);
        }
        self.trace.note(self.now, &[64, node as u64], || {
            format!("node {node} scrubs its disk: {scrubbed:?} {pass:?}")
        });
        if is_due {
            self.mend_later(node);
        }
    }

    /// No record is left damaged that another node has.
    pub(super) fn check_mended(&mut self, node: usize) -> Result<(), Violation> {
        for hole in self.holes_of(node) {
            let has = |other: &&Node| {
                let running = other.running.as_ref().filter(|_| other.number != node);
                running.is_some_and(|running| matches!(running.reader.read_exact(hole), Ok(Some(_))))
            };
            if let Some(other) = self.nodes.iter().find(has) {
                return Err(Violation(format!(
                    "node {} has the record {hole:?} that rots at node {node}, and it was not mended",
                    other.number
                )));
            }
        }
        Ok(())
    }
}

/// Nodes that are asked for records, one after the other.
struct Holders<'a> {
    nodes: &'a [Node],
    order: Vec<usize>,
    random: &'a mut Random,
    coverage: &'a mut Coverage,
    /// Nothing breaks off any more.
    is_healed: bool,
}

impl Holder for Holders<'_> {
    fn record(&mut self, passed: usize, name: RecordName) -> Result<Asked, String> {
        let Some(holder) = self.order.get(passed).and_then(|other| self.nodes[*other].running.as_ref())
        else {
            return Err("nobody is left to be asked".into());
        };
        if !self.is_healed && self.random.one_in(8) {
            self.coverage.rare(Rare::TransferBroken);
            return Ok(Asked::Unknown);
        }
        let found = holder.reader.read_exact(name);
        Ok(match found {
            Ok(Some(entry)) => Asked::Record(entry),
            _ if holder.reader.first_index() > name.index => Asked::Cut,
            _ => Asked::Unknown,
        })
    }
}
