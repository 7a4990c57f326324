//! What a node does with its disk: the log's thread, and reads beside it.
//!
//! A write is out for a while and then happens at once, with its sync; the receipt is the next event.

use super::Violation;
use super::coverage::Rare;
use super::digest::{Durable, Trail};
use super::nodes::Job;
use super::plan::{Fault, MS, Micros, SECOND};
use super::world::{Event, World};
use raftqueue_node::api::MessageRef;
use raftqueue_node::driver::storage::persist;
use raftqueue_node::replica::{self, CallId, Lookup};
use raftqueue_raft::{Found, LoadRequest, LogSlice, Write};
use raftqueue_wal::{AppendError, ReadError};

/// Bytes read at once to be applied.
const LOAD_TO_APPLY_BYTES: u64 = 16 << 10;
/// Pause before a write is tried again on a full disk.
const FULL_PAUSE: Micros = 100 * MS;

impl World {
    pub(super) fn begin_write(&mut self, node: usize, write: Write) -> Result<(), Violation> {
        let durable = self.disks[&self.nodes[node].id].trail.last();
        let running = self.nodes[node].running.as_mut().expect("it has just turned");
        assert!(running.write.is_none(), "one write is out at a time");
        if let Some((start, term)) = write.reset()
            && running.logged.at(start).map(|step| step.term) != Some(term)
        {
            self.coverage.rare(Rare::WentOver);
            let trail = self.checker.up_to(start, term);
            running.logged = trail.ok_or_else(|| {
                Violation(format!("node {node} goes over to {start} of term {term}, which is not committed"))
            })?;
        }
        if let Some(from) = write.truncate_from() {
            self.coverage.rare(Rare::Truncation);
            self.coverage.rare_if(from <= durable, Rare::DurableTruncation);
            self.summary.entries_cut += running.logged.last().0.saturating_sub(from.prev().0);
            running.logged.truncate(from);
        }
        for entry in write.entries() {
            self.checker.append(&mut running.logged, entry)?;
        }
        running.writes += 1;
        running.write = Some(write);
        let (writes, begin) = (running.writes, self.now.max(running.busy_until));
        let slow =
            if self.slow_disk_until.get(&node).is_some_and(|until| self.now < *until) { 20 } else { 1 };
        let mean = self.plan.write_delay * slow;
        let mut end = begin + mean / 4 + self.random.waiting(mean);
        if std::mem::take(&mut self.nodes[node].stalls_next) {
            end += World::ELECTION + self.random.waiting(3 * World::ELECTION);
            self.summary.stalls += 1;
            self.coverage.fault(Fault::Stall);
        }
        let boot = self.nodes[node].boot;
        if std::mem::take(&mut self.nodes[node].hangs_next) {
            end = Micros::MAX;
            if !self.is_scripted() {
                let back = self.now + SECOND + self.random.waiting(2 * SECOND);
                self.schedule.add(back, Event::Unhang { node, boot, writes });
            }
            self.coverage.fault(Fault::Hang);
            self.trace.note(self.now, &[13, node as u64], || format!("a write of node {node} hangs"));
        } else {
            self.schedule.add(end, Event::Written { node, boot, writes });
        }
        self.nodes[node].running().write_ends = end;
        if end > self.now + World::ELECTION {
            self.schedule.add(self.now + World::ELECTION, Event::StallLook { node, boot, writes });
        }
        Ok(())
    }

    pub(super) fn look_for_stall(&mut self, node: usize, writes: u64) {
        let running = self.nodes[node].running();
        if running.write.is_some() && running.writes == writes && !running.is_stalled {
            running.is_stalled = true;
            self.trace.note(self.now, &[6, node as u64], || format!("the disk of node {node} stalls"));
            self.hand(node, replica::Event::DiskStalled(true));
        }
    }

    /// The write happens.
    pub(super) fn written(&mut self, node: usize, writes: u64) -> Result<(), Violation> {
        let now = self.now;
        let at = &mut self.nodes[node];
        let running = at.running.as_mut().expect("asked of a node that runs");
        if running.writes != writes || running.write_ends > now {
            return Ok(());
        }
        let Some(write) = running.write.take() else { return Ok(()) };
        let after = Self::after_write(&self.disks[&at.id], &running.logged, &write);
        let before = running.wal.synced_to();
        let (wal, taken) = (&mut running.wal, &mut running.taken);
        let mut went_over = None;
        let mut tell = |index, switched| went_over = Some((index, switched));
        let persisted = write.persist(|write| persist(wal, write, taken, &mut tell));
        if let Some((index, switched)) = went_over {
            self.went_over(node, index, &switched);
        }
        let at = &mut self.nodes[node];
        let running = at.running.as_mut().expect("asked of a node that runs");
        let persisted = match persisted {
            Ok(persisted) => persisted,
            Err((error, write)) => {
                running.write = Some(write);
                return self.write_failed(node, &error);
            }
        };
        let to = running.wal.synced_to();
        if to != before {
            // The frame of a batch, or the head of a new segment, says that what came before was synced.
            running.proven = (to.segment, if to.segment == before.segment { before.offset } else { 0 });
        }
        running.is_kept_up = false;
        running.is_full = false;
        running.busy_until = now + self.random.between(20, 300);
        let was_stalled = std::mem::take(&mut running.is_stalled);
        let (upkeep, boot) = (running.busy_until, at.boot);
        let (term, last) = (after.hard_state.term.0, after.trail.last().0);
        self.disks.insert(at.id, after);
        self.trace.note(self.now, &[7, node as u64, term, last], || {
            format!("node {node} has written up to {last}, term {term}")
        });
        self.schedule.add(upkeep, Event::Upkeep { node, boot });
        self.report_free_bytes(node);
        self.hand(node, replica::Event::Persisted(persisted));
        if was_stalled {
            self.hand(node, replica::Event::DiskStalled(false));
        }
        Ok(())
    }

    /// A full disk is asked again and again; any other error ends the process.
    fn write_failed(&mut self, node: usize, error: &AppendError) -> Result<(), Violation> {
        let at = &mut self.nodes[node];
        if !matches!(error, AppendError::NoSpace { .. }) || at.disk.is_crashed() {
            return self.disk_failed(node, error);
        }
        Violation::unless(at.was_tight, || format!("the disk of node {node} has no room: {error}"))?;
        let boot = at.boot;
        let running = at.running();
        running.write_ends = self.now + FULL_PAUSE;
        running.free_bytes = 0;
        let (writes, was_full) = (running.writes, std::mem::replace(&mut running.is_full, true));
        self.schedule.add(self.now + FULL_PAUSE, Event::Written { node, boot, writes });
        if !was_full {
            self.coverage.rare(Rare::NoSpace);
            self.trace.note(self.now, &[14, node as u64], || format!("the disk of node {node} is full"));
            self.hand(node, replica::Event::FreeBytes(0));
        }
        Ok(())
    }

    /// What the disk may hold while the write is under way or once it is through: a log that is gone over to has a moment
    /// without the entries that follow.
    pub(super) fn within_write(before: &Durable, logged: &Trail, write: &Write) -> Vec<Durable> {
        let after = Self::after_write(before, logged, write);
        let between = write.reset().and_then(|(start, term)| logged.up_to(start, term));
        let between = between.map(|trail| Durable { hard_state: after.hard_state, trail });
        between.into_iter().chain([after]).collect()
    }

    /// What the disk holds once the write is through.
    pub(super) fn after_write(before: &Durable, logged: &Trail, write: &Write) -> Durable {
        Durable { hard_state: write.hard_state().max(before.hard_state), trail: logged.clone() }
    }

    pub(super) fn upkeep(&mut self, node: usize) -> Result<(), Violation> {
        let running = self.nodes[node].running();
        let writes = running.writes;
        match running.wal.upkeep() {
            Ok(()) => running.is_kept_up = running.write.is_none(),
            Err(AppendError::NoSpace { .. }) => {}
            Err(error) => return self.disk_failed(node, &error),
        }
        let boot = self.nodes[node].boot;
        self.schedule.add(self.now + 100 * MS, Event::Idle { node, boot, writes });
        Ok(())
    }

    /// Nothing was written for a while.
    pub(super) fn idle(&mut self, node: usize, writes: u64) -> Result<(), Violation> {
        let running = self.nodes[node].running();
        if running.writes != writes {
            return Ok(());
        }
        let proved = running.wal.prove().and_then(|_| running.wal.upkeep());
        match proved {
            Ok(()) | Err(AppendError::NoSpace { .. }) => Ok(()),
            Err(error) => self.disk_failed(node, &error),
        }
    }

    /// A call to the disk failed: a crash waited there, or the disk fails and the process ends.
    fn disk_failed(&mut self, node: usize, error: &AppendError) -> Result<(), Violation> {
        if self.nodes[node].disk.is_crashed() {
            return self.crash_inside(node);
        }
        Violation::unless(self.nodes[node].is_failing, || {
            format!("the disk of node {node} refuses: {error}")
        })?;
        self.coverage.rare(Rare::PoisonedLog);
        self.trace.note(self.now, &[15, node as u64], || format!("node {node} ends: {error}"));
        let power = self.random.percent(30);
        self.crash(node, power)
    }

    /// The process died inside a call to its disk.
    pub(super) fn crash_inside(&mut self, node: usize) -> Result<(), Violation> {
        self.summary.crashes_inside += 1;
        self.coverage.fault(Fault::CrashInside);
        let power = self.random.percent(60);
        let power = self.order.map_or(power, |order| order.cuts_power());
        self.crash(node, power)?;
        self.follow_order(node)
    }

    pub(super) fn read_later(&mut self, node: usize, job: Job) {
        let at = self.now + self.random.waiting(self.plan.read_delay);
        let boot = self.nodes[node].boot;
        self.schedule.add(at, Event::Read { node, boot, job: Box::new(job) });
    }

    pub(super) fn look_up(&mut self, node: usize, lookup: Lookup) {
        let running = self.nodes[node].running();
        match running.bodies.look_up(&lookup, false) {
            Some(looked_up) => running.at_once.push(replica::Event::LookedUp(lookup.id, looked_up)),
            None => {
                self.coverage.rare(Rare::LookUpFromDisk);
                self.read_later(node, Job::LookUp(lookup));
            }
        }
    }

    pub(super) fn read_bodies(
        &mut self,
        node: usize,
        call: CallId,
        messages: Vec<MessageRef>,
        bytes_max: usize,
    ) -> Result<(), Violation> {
        let bodies = &self.nodes[node].running().bodies;
        // It is located at once, as the driver does: a popped message may be forgotten before it is read.
        let located = bodies.locate(messages);
        match bodies.read(&located, bytes_max, false) {
            Some(readings) => self.bodies_read(node, call, located.messages(), readings),
            None => {
                self.coverage.rare(Rare::BodiesFromDisk);
                self.read_later(node, Job::Bodies { call, located, bytes_max });
                Ok(())
            }
        }
    }

    /// What was read of the log, nothing where it cannot be read; the replica is told why first, as by the shell.
    fn readable<T>(&mut self, node: usize, is_for_peer: bool, read: Result<T, ReadError>) -> Option<T> {
        read.map(Some).unwrap_or_else(|error| {
            let rotten = match &error {
                ReadError::Rot(rotten) => rotten.record.map(|record| record.index),
                _ => None,
            };
            let is_mended = rotten.is_some_and(|index| self.doubt(node, index));
            if error.is_of_disk() && (is_for_peer || !is_mended) {
                self.trace.note(self.now, &[16, node as u64], || {
                    format!("node {node} cannot read its log: {error}")
                });
                self.coverage.rare(Rare::LogUnreadable);
                self.hand(node, replica::Event::LogUnreadable);
            }
            None
        })
    }

    /// A read of the disk has come back.
    pub(super) fn read(&mut self, node: usize, job: Job) -> Result<(), Violation> {
        self.summary.loads += 1;
        self.run_binary(node);
        let running = self.nodes[node].running();
        match job {
            Job::Load(LoadRequest { to, from, bytes_max }) => {
                let found = running.reader.find(from, bytes_max);
                let found = self.readable(node, true, found).unwrap_or(Found::Unreadable);
                self.hand(node, replica::Event::Loaded(LogSlice { to, from, found }));
            }
            Job::LoadToApply(first, last) => {
                let metas = running.reader.metas(first, last.next(), LOAD_TO_APPLY_BYTES);
                let metas = self.readable(node, false, metas);
                let entries =
                    metas.unwrap_or_default().into_iter().map(raftqueue_node::driver::to_apply).collect();
                self.hand(node, replica::Event::LoadedToApply(entries));
            }
            Job::LookUp(lookup) => {
                let looked_up = running.bodies.look_up(&lookup, true).expect("it may block");
                self.hand(node, replica::Event::LookedUp(lookup.id, looked_up));
            }
            Job::Due { due, now_ms } => self.read_due(node, due, now_ms),
            Job::Bodies { call, located, bytes_max } => {
                let readings = running.bodies.read(&located, bytes_max, true).expect("it may block");
                if readings.lost.is_empty() || !self.nodes[node].disk.is_crashed() {
                    self.bodies_read(node, call, located.messages(), readings)?;
                }
            }
        }
        if self.nodes[node].disk.is_crashed() {
            return self.crash_inside(node);
        }
        Ok(())
    }
}
