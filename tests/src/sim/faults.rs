//! What goes wrong, and when.

use super::Violation;
use super::plan::{Fault, MS, SECOND};
use super::world::{Event, World};
use raftqueue_node::replica;

impl World {
    /// The next fault comes.
    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if !self.is_working() {
            return Ok(());
        }
        // What every life must see and this one has not seen yet is tried again and again.
        let is_late = self.summary.events > self.plan.events / 2;
        let (wants_leader, wants_loss) = (self.summary.leader_crashes == 0, self.summary.lossy_cuts == 0);
        let is_forced = is_late && (wants_leader || wants_loss);
        let pause = if is_forced { 10 * MS } else { MS + self.random.waiting(self.plan.fault_every) };
        self.schedule.add(self.now + pause, Event::Fault);
        if is_forced {
            let writing = self.nodes.iter().find(|node| node.has_write_out()).map(|node| node.number);
            let victim = if wants_leader { self.leader() } else { writing };
            return victim.map_or(Ok(()), |victim| self.crash(victim, true));
        }
        match self.pick_fault() {
            Fault::Crash => {
                let node = self.victim();
                self.crash(node, false)
            }
            Fault::PowerCut => {
                let node = self.victim();
                self.crash(node, true)
            }
            Fault::CrashInside => {
                let node = self.victim();
                let call = self.random.between(1, 12);
                self.nodes[node].disk.crash_at_call(call);
                Ok(())
            }
            Fault::CrashSeveral => {
                for node in 0..self.nodes.len() {
                    if self.random.percent(50) {
                        let power = self.random.percent(50);
                        self.crash(node, power)?;
                    }
                }
                Ok(())
            }
            Fault::CrashAll => {
                let power = self.random.percent(70);
                (0..self.nodes.len()).try_for_each(|node| self.crash(node, power))
            }
            fault => {
                self.disturb(fault);
                Ok(())
            }
        }
    }

    /// A node has won an election; perhaps it does not get far. Called before its first messages leave.
    pub(super) fn leader_won(&mut self, node: usize) {
        if !self.is_working() || !self.random.percent(self.plan.struck_percent) {
            return;
        }
        if self.random.percent(50) {
            self.silence(node);
        } else {
            let turns = self.random.between(1, 10);
            self.nodes[node].strike_in(turns);
        }
    }

    /// Strikes a new leader down: dead, or cut off, between what it has decided and what it would send.
    pub(super) fn strike(&mut self, node: usize) -> Result<(), Violation> {
        if self.random.percent(50) {
            self.join_the_others();
            let power = self.random.percent(50);
            return self.crash(node, power);
        }
        self.silence(node);
        Ok(())
    }

    /// Cuts a node off from most others until the next leader is struck, or for a few election timeouts.
    fn silence(&mut self, node: usize) {
        self.join_the_others();
        self.summary.partitions += 1;
        let until = self.now + World::ELECTION + self.random.waiting(4 * World::ELECTION);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            if self.random.percent(85) {
                self.network.cut(node, other, until);
                self.network.cut(other, node, until);
            }
        }
        self.trace.note(self.now, &[31, node as u64, until], || {
            format!("the new leader {node} is cut off until {} ms", until / MS)
        });
    }

    /// Whoever led before comes back just when the next one goes, each with a tail of its own (Raft, figure 8).
    fn join_the_others(&mut self) {
        if self.random.percent(75) {
            self.network.join();
        }
    }

    /// A node, the leader more often than others.
    fn victim(&mut self) -> usize {
        let any = self.random.index(self.nodes.len());
        if self.random.percent(50) { self.leader().unwrap_or(any) } else { any }
    }

    /// Faults after which every process goes on.
    fn disturb(&mut self, fault: Fault) {
        let count = self.nodes.len();
        let until = self.now + 50 * MS + self.random.waiting(900 * MS);
        self.trace.note(self.now, &[30, fault as u64, until], || {
            format!("{fault:?} comes, until {} ms", until / MS)
        });
        match fault {
            Fault::Pause => {
                let node = self.victim();
                if self.nodes[node].is_up() && !self.nodes[node].is_paused() {
                    self.summary.pauses += 1;
                    self.nodes[node].paused_until = Some(until);
                    self.schedule.add(until, Event::Resume { node });
                }
            }
            Fault::Split => {
                self.summary.partitions += 1;
                let alone = self.random.percent(50).then(|| self.victim());
                let sides: Vec<bool> = (0..count)
                    .map(|node| alone.map_or_else(|| self.random.percent(50), |alone| node == alone))
                    .collect();
                for from in 0..count {
                    for to in 0..count {
                        if sides[from] != sides[to] {
                            self.network.cut(from, to, until);
                        }
                    }
                }
            }
            Fault::OneWay => {
                self.summary.partitions += 1;
                let node = self.victim();
                let is_deaf = self.random.percent(50);
                for other in (0..count).filter(|other| *other != node) {
                    let (from, to) = if is_deaf { (other, node) } else { (node, other) };
                    self.network.cut(from, to, until);
                }
            }
            Fault::CutLink => {
                self.summary.partitions += 1;
                let (one, other) = (self.victim(), self.random.index(count));
                self.network.cut(one, other, until);
                self.network.cut(other, one, until);
            }
            Fault::Reset => {
                self.summary.resets += 1;
                let (one, other) = (self.victim(), self.random.index(count));
                self.network.reset(one, other);
            }
            Fault::Storm => {
                self.summary.storms += 1;
                self.network.storm(until);
            }
            Fault::SlowDisk => {
                let node = self.victim();
                self.slow_disk_until.insert(node, until);
            }
            Fault::Stall => {
                let node = self.victim();
                self.nodes[node].stalls_next = true;
            }
            Fault::ClockJump => {
                self.summary.clock_jumps += 1;
                let node = self.victim();
                let size = self.random.pick(&[20, 700, 10_000, 3_600_000]);
                self.nodes[node].skew_ms += if self.random.percent(50) { size } else { -size };
            }
            Fault::FalseHint => {
                let (node, gone) = (self.random.index(count), self.victim());
                let gone = self.nodes[gone].id;
                let boot = self.nodes[node].boot;
                self.schedule.add(self.now, Event::Hint { node, boot, gone });
            }
            Fault::HandOver => {
                self.summary.hand_overs += 1;
                let node = self.victim();
                self.hand(node, replica::Event::HandOver);
            }
            Fault::Crash | Fault::PowerCut | Fault::CrashInside | Fault::CrashSeveral | Fault::CrashAll => {
                unreachable!("done by the caller")
            }
        }
    }

    /// No faults any more: what was cut is joined, who was down comes back.
    pub(super) fn stop_faults(&mut self) -> Result<(), Violation> {
        self.network.heal();
        self.slow_disk_until.clear();
        for node in 0..self.nodes.len() {
            self.nodes[node].disk.crash_at_call(u64::MAX / 2);
            self.nodes[node].stalls_next = false;
            if self.nodes[node].is_paused() {
                self.nodes[node].paused_until = Some(self.now);
                self.resume(node);
            }
            if !self.nodes[node].is_up() {
                self.start(node)?;
            }
        }
        Ok(())
    }

    /// How long the cluster may take to be well again: every node has to notice, and elections may be split.
    pub(super) const HEALING_MAX: u64 = 10 * SECOND;
}
