//! Processes that die and machines that lose power, and what their disks hold afterwards.
//!
//! If a crash comes while a write is out, it happens somewhere inside that write. After every crash the worst that a
//! power cut could leave is opened and read. It must be what was acknowledged, with or without the write under way.

use super::Violation;
use super::nodes::Node;
use super::plan::MS;
use super::world::{Event, World};
use raftqueue_node::driver::storage::persist;
use raftqueue_wal::disk::fake::FakeDisk;

impl World {
    /// The process of a node dies, or its machine loses power.
    pub(super) fn crash(&mut self, node: usize, power: bool) -> Result<(), Violation> {
        self.crash_at(node, power, None)
    }

    /// As [`World::crash`]; a write that is out gets as far as the disk call of this number, or anywhere.
    pub(super) fn crash_at(&mut self, node: usize, power: bool, call: Option<u64>) -> Result<(), Violation> {
        let Some(mut running) = self.nodes[node].running.take() else { return Ok(()) };
        let was_leader = running.replica.raft().is_leader();
        let at = &mut self.nodes[node];
        at.paused_until = None;
        if let Some(write) = running.write.take() {
            at.maybe = Self::within_write(&self.disks[&at.id], &running.logged, &write);
            if !at.disk.is_crashed() {
                at.disk.crash_at_call(call.unwrap_or_else(|| self.random.between(1, 6)));
                let (wal, taken) = (&mut running.wal, &mut running.taken);
                // Whether it got through or not, nobody hears of it.
                let _ = write.persist(|write| persist(wal, write, taken, &mut |_, _| ()));
            }
        }
        drop(running);
        self.summary.crashes += 1;
        self.summary.leader_crashes += u64::from(was_leader);
        self.trace.note(self.now, &[8, node as u64, u64::from(power)], || {
            let how = if power { "loses power" } else { "dies" };
            format!("node {node} {how}{}", if was_leader { ", and led" } else { "" })
        });
        self.lose(node, power)?;
        self.break_calls(node);
        self.tell_peers(node);
        self.summary.all_down += u64::from(!self.nodes.iter().any(Node::is_up));
        self.restart_later(node);
        Ok(())
    }

    /// A call to a disk may fail without anybody looking at once, as the one for free space does: the process is dead all
    /// the same.
    pub(super) fn notice_crashes(&mut self) -> Result<(), Violation> {
        for node in 0..self.nodes.len() {
            if self.nodes[node].is_up() && self.nodes[node].disk.is_crashed() {
                self.crash_inside(node)?;
            }
        }
        Ok(())
    }

    /// The disk after a crash, and what it holds for certain from now on.
    pub(super) fn lose(&mut self, node: usize, power: bool) -> Result<(), Violation> {
        let disk = self.nodes[node].disk.clone();
        if power {
            let before = disk.deep_clone();
            let seed = self.random.bits();
            match self.order.and_then(|order| order.kept_of_four()) {
                Some(kept) => disk.power_cut_keeping(kept, seed),
                None => disk.power_cut(seed),
            }
            let lost = lost_sectors(&before, &disk);
            self.summary.power_cuts += 1;
            self.summary.lossy_cuts += u64::from(lost > 0);
            self.summary.lost_sectors += lost;
            self.trace.note(self.now, &[9, node as u64, lost], || format!("node {node} lost {lost} sectors"));
        } else {
            disk.crash_process();
        }
        self.look_at_disk(node)
    }

    /// The others may notice that a process is gone.
    fn tell_peers(&mut self, node: usize) {
        let gone = self.nodes[node].id;
        for other in 0..self.nodes.len() {
            if self.nodes[other].is_up() && self.random.percent(70) {
                let at = self.now + self.random.waiting(5 * MS);
                let boot = self.nodes[other].boot;
                self.schedule.add(at, Event::Hint { node: other, boot, gone });
            }
        }
    }
}

/// Sectors that a power cut changed.
fn lost_sectors(before: &FakeDisk, after: &FakeDisk) -> u64 {
    let mut lost = 0;
    for name in before.names() {
        let (old, new) = (before.bytes(&name).unwrap_or_default(), after.bytes(&name).unwrap_or_default());
        let mut old = old.chunks(512);
        let mut new = new.chunks(512);
        loop {
            match (old.next(), new.next()) {
                (None, None) => break,
                (old, new) => lost += u64::from(old != new),
            }
        }
    }
    lost
}
