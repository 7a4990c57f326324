//! The keeper of a node, acted out: snapshots, files that tell where messages stand, compaction.
//!
//! A round is cut in the pieces between which other things happen on a real node: files are written, the writer of the log
//! makes them count, the readers learn of them. Each piece happens at once; a crash may come inside any of its calls to the
//! disk, or between two pieces.

use super::Violation;
use super::coverage::Rare;
use super::installing::Givers;
use super::world::{Event, World};
use raftqueue_node::driver::keeper::{Filled, Job, KeepError};
use raftqueue_node::driver::storage::is_behind;
use raftqueue_node::replica::{self, DueBlock, Freeze};
use raftqueue_raft::Index;
use raftqueue_wal::disk::is_no_space;
use raftqueue_wal::{AppendError, Change, Switched, Wal};

/// A round under way.
#[derive(Debug)]
pub(super) struct Keeping {
    job: Job,
    next: Piece,
}

/// What a round does next.
#[derive(Debug)]
enum Piece {
    Write,
    /// Makes files count; the job's blocks are in them.
    Switch(Change),
    Fill,
    SwitchFilled(Change),
    Compact,
    SwitchCompacted(Change),
}

fn make_count(wal: &mut Wal, change: &Change) -> Result<Switched, KeepError> {
    wal.switch(change).map_err(|error| match error {
        AppendError::NoSpace { operation } => {
            KeepError::Io { operation, source: std::io::ErrorKind::StorageFull.into() }
        }
        error => KeepError::Io { operation: "switch", source: std::io::Error::other(error.to_string()) },
    })
}

impl World {
    /// The replica has frozen its state.
    pub(super) fn begin_keeping(&mut self, node: usize, freeze: Freeze) {
        let running = self.nodes[node].running();
        assert!(!matches!(&running.keeping, Some(Keeping { next: Piece::Write | Piece::Switch(_), .. })));
        let blocks = running.bodies.freeze();
        running.keeping = Some(Keeping { job: Job { freeze, blocks }, next: Piece::Write });
        self.keep_later(node);
    }

    fn keep_later(&mut self, node: usize) {
        let at = self.now + self.random.waiting(4 * self.plan.write_delay);
        let boot = self.nodes[node].boot;
        let round = self.nodes[node].running().round;
        self.schedule.add(at, Event::Keep { node, boot, round });
    }

    /// One piece of a round.
    pub(super) fn keep(&mut self, node: usize, round: u64) -> Result<(), Violation> {
        let running = self.nodes[node].running();
        if running.round != round {
            return Ok(());
        }
        running.round += 1;
        let Some(Keeping { job, next }) = running.keeping.take() else { return Ok(()) };
        let is_snapshot = matches!(next, Piece::Write | Piece::Switch(_));
        match self.keep_piece(node, &job, next) {
            Ok(Some(next)) => {
                self.nodes[node].running().keeping = Some(Keeping { job, next });
                self.keep_later(node);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => self.keeping_failed(node, is_snapshot, &error),
        }
    }

    fn keep_piece(&mut self, node: usize, job: &Job, next: Piece) -> Result<Option<Piece>, KeepError> {
        let mut pace = |_| Ok(());
        let keeper = self.nodes[node].running().keeper.as_mut().expect("it is not at work");
        match next {
            Piece::Write => Ok(Some(Piece::Switch(keeper.take_snapshot(job, &mut pace)?))),
            Piece::Switch(change) => {
                let start = self.switch(node, &change, job.freeze.index, job.blocks.len())?;
                self.summary.snapshots += 1;
                let running = self.nodes[node].running();
                let is_lacking = running.keeper.as_ref().is_some_and(|keeper| keeper.lacks_messages());
                if is_lacking && !std::mem::replace(&mut running.is_incomplete, true) {
                    self.hand(node, replica::Event::Incomplete(job.freeze.index));
                }
                self.trace.note(self.now, &[50, node as u64, job.freeze.index.0], || {
                    format!(
                        "node {node} has a snapshot at {}, its log begins behind {}",
                        job.freeze.index, start.0
                    )
                });
                self.hand(node, replica::Event::SnapshotTaken { start });
                Ok(Some(Piece::Fill))
            }
            Piece::Fill => self.get_missing(node, &job.freeze),
            Piece::SwitchFilled(change) => {
                let is_whole = change.complete;
                self.switch(node, &change, job.freeze.index, 0)?;
                let running = self.nodes[node].running();
                self.coverage.rare_if(running.has_lost && !change.kept.is_empty(), Rare::MessagesRepaired);
                if is_whole {
                    (running.is_incomplete, running.has_lost, running.lost) = (false, false, 0);
                    self.coverage.rare(Rare::Filled);
                    self.trace.note(self.now, &[54, node as u64], || format!("node {node} lacks nothing"));
                    self.hand(node, replica::Event::Complete(job.freeze.index));
                    return Ok(Some(Piece::Compact));
                }
                Ok(Some(Piece::Fill))
            }
            Piece::Compact => {
                let change = keeper.compact(&job.freeze, &mut pace)?;
                Ok(change.map(Piece::SwitchCompacted))
            }
            Piece::SwitchCompacted(change) => {
                self.summary.kept_files += change.kept.len() as u64;
                self.summary.retired += change.retire.len() as u64;
                self.switch(node, &change, job.freeze.index, 0)?;
                if !change.retire.is_empty() {
                    self.hand(node, replica::Event::FilesRetired);
                }
                Ok(Some(Piece::Compact))
            }
        }
    }

    /// Gets messages that are lacking, if any may be.
    fn get_missing(&mut self, node: usize, freeze: &Freeze) -> Result<Option<Piece>, KeepError> {
        self.look_for_lost(node);
        let running = self.nodes[node].running();
        let is_incomplete = running.is_incomplete;
        if !is_incomplete && !running.has_lost {
            return Ok(Some(Piece::Compact));
        }
        let order = self.givers(node);
        let mut keeper = self.nodes[node].running().keeper.take().expect("it is not at work");
        let is_healed = !self.is_working();
        let own = self.nodes[node].id;
        let Self { nodes, random, coverage, .. } = self;
        let mut givers = Givers { nodes, order, own, gave: None, random, coverage, is_healed };
        let filled = keeper.fill(freeze, &mut givers, &mut |_| Ok(()));
        self.trace
            .note(self.now, &[57, node as u64], || format!("node {node} gets what it lacks: {filled:?}"));
        self.nodes[node].running().keeper = Some(keeper);
        let filled = filled?;
        let running = self.nodes[node].running();
        if is_incomplete && running.lost > 0 && !matches!(filled, Filled::Whole | Filled::Lost(_)) {
            running.lost = 0;
            self.hand(node, replica::Event::Incomplete(freeze.index));
        }
        let running = self.nodes[node].running();
        let keeper = running.keeper.as_mut().expect("it was just put back");
        Ok(Some(match filled {
            Filled::Part(change) => {
                self.summary.filled += 1;
                Piece::SwitchFilled(change)
            }
            Filled::Whole if !is_incomplete => {
                (running.has_lost, running.lost) = (false, 0);
                Piece::Compact
            }
            Filled::Lost(lost) => {
                running.has_lost = keeper.remember_lost();
                running.lost = lost.count;
                self.trace.note(self.now, &[68, node as u64, lost.count], || format!("node {node}: {lost}"));
                self.hand(node, replica::Event::Lost { index: freeze.index, count: lost.count });
                self.hand(node, replica::Event::SnapshotWanted);
                Piece::Compact
            }
            Filled::Whole => {
                let retire = keeper.retire_unusable(freeze.index);
                Piece::SwitchFilled(Change { complete: true, retire, ..Change::default() })
            }
            Filled::WholeAt(_) => {
                self.hand(node, replica::Event::SnapshotWanted);
                Piece::Compact
            }
            Filled::Lacking(_) => {
                if std::mem::take(&mut running.has_lost) {
                    keeper.forget_lost();
                }
                self.hand(node, replica::Event::SnapshotWanted);
                Piece::Compact
            }
        }))
    }

    /// Messages were met that cannot be read here: with the next snapshot they are got from others.
    pub(super) fn look_for_lost(&mut self, node: usize) {
        let running = self.nodes[node].running();
        // It is looked at again when the keeper is not at work.
        let Some(keeper) = &mut running.keeper else { return };
        let is_page_lost = running.bodies.take_page_lost();
        let lost = running.bodies.take_lost();
        if is_page_lost || !lost.is_empty() {
            keeper.lose(lost);
            if !std::mem::replace(&mut running.has_lost, true) {
                self.hand(node, replica::Event::SnapshotWanted);
            }
        }
    }

    fn switch(
        &mut self,
        node: usize,
        change: &Change,
        as_of: Index,
        frozen: usize,
    ) -> Result<(Index, raftqueue_raft::Term), KeepError> {
        let running = self.nodes[node].running();
        let is_past = as_of < running.went_over_at || is_behind(&running.wal, change);
        let switched = if is_past { Err(KeepError::Past) } else { make_count(&mut running.wal, change) };
        let keeper = running.keeper.as_mut().expect("it is not at work");
        let switched = switched.inspect_err(|error| {
            if error.is_undone() {
                keeper.give_up(change);
            }
        })?;
        let filed = keeper.filed(change, &switched)?;
        running.looks.forget();
        let state = running.replica.state();
        let is_live = |topic| state.topic(topic).is_some();
        drop(running.bodies.filed(frozen, filed.added, &filed.removed, is_live));
        Ok(switched.start)
    }

    fn keeping_failed(&mut self, node: usize, is_snapshot: bool, error: &KeepError) -> Result<(), Violation> {
        let at = &self.nodes[node];
        if at.disk.is_crashed() {
            return self.crash_inside(node);
        }
        self.trace.note(self.now, &[51, node as u64], || format!("node {node} gives a round up: {error}"));
        match error {
            KeepError::Io { source, .. } if is_no_space(source) => {
                Violation::unless(at.was_tight, || format!("node {node} has no room: {error}"))?;
                self.coverage.rare(Rare::KeepingWithoutRoom);
            }
            KeepError::Read { .. } => {
                Violation::unless(at.is_damaged || at.is_failing, || format!("node {node}: {error}"))?;
            }
            KeepError::Past | KeepError::Nobody(_) => {}
            KeepError::Io { .. } | KeepError::Stopped => {
                Violation::unless(at.is_failing || at.is_damaged, || format!("node {node}: {error}"))?;
                let power = self.random.percent(30);
                return self.crash(node, power);
            }
        }
        if is_snapshot {
            self.hand(node, replica::Event::SnapshotFailed);
        }
        let running = self.nodes[node].running();
        if let Some(keeper) = running.keeper.as_mut().filter(|_| !is_snapshot && running.has_lost) {
            running.has_lost = false;
            keeper.forget_lost();
        }
        if running.is_incomplete || running.has_lost {
            self.hand(node, replica::Event::SnapshotWanted);
        }
        Ok(())
    }

    /// Looks for messages whose deadlines have come.
    pub(super) fn look_for_due(&mut self, node: usize, now_ms: u64, max: usize) {
        let running = self.nodes[node].running();
        let due = running.bodies.due(now_ms, max);
        if due.pages.is_empty() {
            self.note_looks(node, &due.blocks);
            self.nodes[node].running().at_once.push(replica::Event::Due(due.blocks));
        } else {
            self.coverage.rare(Rare::DueFromFile);
            self.read_later(node, super::nodes::Job::Due { due, now_ms });
        }
    }

    /// Pages that are due have been read.
    pub(super) fn read_due(&mut self, node: usize, due: raftqueue_node::driver::bodies::Due, now_ms: u64) {
        let bodies = &self.nodes[node].running().bodies;
        let mut blocks: Vec<DueBlock> = due.blocks;
        blocks.extend(due.pages.iter().flat_map(|page| bodies.read_due(page, now_ms)));
        self.note_looks(node, &blocks);
        self.hand(node, replica::Event::Due(blocks));
    }
}
