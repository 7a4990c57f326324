//! What goes wrong, and when.

use super::Violation;
use super::plan::{Fault, MS, Micros, SECOND};
use super::random::{Random, chain};
use super::world::{Event, World};
use raftqueue_node::replica;

/// Keeps the faults' numbers apart from all others of a seed.
const FAULT_STREAM: u64 = 0x6661_756c_7473;

impl World {
    /// The next fault comes. It draws from a stream of its own, so that no other fault changes if it is left out.
    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if !self.is_working() {
            return Ok(());
        }
        let number = self.faults;
        self.faults += 1;
        let own = Random::new(chain(chain(FAULT_STREAM, self.plan.seed), number));
        let main = std::mem::replace(&mut self.random, own);
        let outcome = self.next_fault(number);
        self.random = main;
        outcome
    }

    fn next_fault(&mut self, number: u64) -> Result<(), Violation> {
        // What every life must see and this one has not seen yet is tried again and again.
        let is_late = self.plan.is_demanding && self.summary.events > self.plan.events / 2;
        let (wants_leader, wants_loss) = (self.summary.leader_crashes == 0, self.summary.lossy_cuts == 0);
        let is_forced = is_late && (wants_leader || wants_loss);
        let pause = if is_forced { 10 * MS } else { MS + self.random.waiting(self.plan.fault_every) };
        self.schedule.add(self.now + pause, Event::Fault);
        if is_forced {
            let writing = self.nodes.iter().find(|node| node.has_write_out()).map(|node| node.number);
            let victim = if wants_leader { self.leader() } else { writing };
            return victim.map_or(Ok(()), |victim| self.crash(victim, true));
        }
        let fault = self.random.weighted(&self.plan.faults);
        let left_out = &self.plan.left_out;
        let is_left_out = left_out.is_all_at(self.now)
            || left_out.kinds.contains(&fault)
            || left_out.faults.contains(&number);
        if is_left_out {
            return Ok(());
        }
        self.trace.note(self.now, &[30, fault as u64, number], || format!("fault {number}: {fault:?}"));
        let took_effect = self.strike_with(fault)?;
        if took_effect {
            self.coverage.fault(fault);
        }
        self.back_up();
        Ok(())
    }

    /// True if the fault found something to spoil. A fault that waits for its moment counts when that comes.
    fn strike_with(&mut self, fault: Fault) -> Result<bool, Violation> {
        let node = self.victim();
        let was_up = self.nodes[node].is_up();
        match fault {
            Fault::Crash => self.crash(node, false)?,
            Fault::PowerCut => self.crash(node, true)?,
            Fault::CrashInside => {
                let call = self.random.between(1, 12);
                self.nodes[node].disk.crash_at_call(call);
                return Ok(false);
            }
            Fault::CrashSeveral => {
                for node in 0..self.nodes.len() {
                    if self.random.percent(50) {
                        let power = self.random.percent(50);
                        self.crash(node, power)?;
                    }
                }
            }
            Fault::CrashAll => {
                let power = self.random.percent(70);
                (0..self.nodes.len()).try_for_each(|node| self.crash(node, power))?;
            }
            Fault::Pause
            | Fault::SlowDisk
            | Fault::Stall
            | Fault::ClockJump
            | Fault::FalseHint
            | Fault::HandOver
            | Fault::Drift
            | Fault::Hang => return Ok(self.disturb(node, fault)),
            Fault::Split
            | Fault::OneWay
            | Fault::CutLink
            | Fault::Reset
            | Fault::Storm
            | Fault::Swizzle
            | Fault::LateReset => {
                self.disconnect(node, fault);
                return Ok(true);
            }
            _ => return self.spoil_disk(node, fault),
        }
        Ok(was_up)
    }

    /// A node has won an election; perhaps it does not get far. Called before its first messages leave.
    pub(super) fn leader_won(&mut self, node: usize) {
        let is_struck = self.is_working() && self.random.percent(self.plan.struck_percent);
        if !is_struck || self.plan.left_out.is_all_at(self.now) {
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

    /// The former leader comes back just when the next one goes. Each has a tail of its own (Raft, figure 8).
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

    fn some_time(&mut self) -> Micros {
        self.now + 50 * MS + self.random.waiting(900 * MS)
    }

    /// Faults of a machine after which its process goes on.
    fn disturb(&mut self, node: usize, fault: Fault) -> bool {
        let until = self.some_time();
        if !self.nodes[node].is_up() {
            return false;
        }
        match fault {
            Fault::Pause if self.nodes[node].is_paused() => return false,
            Fault::Pause => {
                self.summary.pauses += 1;
                self.nodes[node].paused_until = Some(until);
                self.schedule.add(until, Event::Resume { node });
            }
            Fault::SlowDisk => drop(self.slow_disk_until.insert(node, until)),
            Fault::Stall => {
                self.nodes[node].stalls_next = true;
                return false;
            }
            Fault::Hang => {
                self.nodes[node].hangs_next = true;
                return false;
            }
            Fault::ClockJump => {
                self.summary.clock_jumps += 1;
                let size = self.random.pick(&[20, 700, 10_000, 3_700_000]);
                let size = if self.random.percent(50) { size } else { -size };
                self.nodes[node].clockwork.skew_ms += size;
                self.trace.note(self.now, &[33, node as u64], || {
                    format!("the wall clock of node {node} jumps by {size} ms")
                });
            }
            Fault::Drift => {
                let rate_ppm = self.random.pick(&[-50_000, -5_000, 300, 5_000, 50_000]);
                self.nodes[node].clockwork.set_rate(self.now, rate_ppm);
            }
            Fault::FalseHint => {
                let gone = self.victim();
                let gone = self.nodes[gone].id;
                let boot = self.nodes[node].boot;
                self.schedule.add(self.now, Event::Hint { node, boot, gone });
            }
            _ => {
                self.summary.hand_overs += 1;
                self.hand(node, replica::Event::HandOver);
            }
        }
        true
    }

    /// Faults of the network.
    fn disconnect(&mut self, node: usize, fault: Fault) {
        let count = self.nodes.len();
        let until = self.some_time();
        match fault {
            Fault::Split => {
                self.summary.partitions += 1;
                let is_alone = self.random.percent(50);
                let sides: Vec<bool> = (0..count)
                    .map(|at| if is_alone { at == node } else { self.random.percent(50) })
                    .collect();
                for from in 0..count {
                    for to in (0..count).filter(|to| sides[from] != sides[*to]) {
                        self.network.cut(from, to, until);
                    }
                }
                self.trace.note(self.now, &[34, until], || {
                    format!("split until {} ms: {sides:?} do not hear each other", until / MS)
                });
            }
            Fault::OneWay => {
                self.summary.partitions += 1;
                let is_deaf = self.random.percent(50);
                for other in (0..count).filter(|other| *other != node) {
                    let (from, to) = if is_deaf { (other, node) } else { (node, other) };
                    self.network.cut(from, to, until);
                }
                self.trace.note(self.now, &[35, node as u64, until], || {
                    let how = if is_deaf { "hears nobody" } else { "is not heard" };
                    format!("node {node} {how} until {} ms", until / MS)
                });
            }
            Fault::CutLink => {
                self.summary.partitions += 1;
                let other = self.random.index(count);
                self.network.cut(node, other, until);
                self.network.cut(other, node, until);
                self.trace.note(self.now, &[36, node as u64, other as u64, until], || {
                    format!("nodes {node} and {other} do not hear each other until {} ms", until / MS)
                });
            }
            Fault::Reset | Fault::LateReset => {
                self.summary.resets += 1;
                let other = self.random.index(count);
                self.network.reset(node, other, fault == Fault::LateReset);
            }
            Fault::Storm => {
                self.summary.storms += 1;
                self.network.storm(until);
            }
            _ => {
                // One after the other they lose touch, and come back in an order of their own.
                for node in 0..count {
                    if self.random.percent(60) {
                        let at = self.now + self.random.waiting(300 * MS);
                        self.schedule
                            .add(at, Event::Clog { node, until: until + self.random.waiting(500 * MS) });
                    }
                }
            }
        }
    }

    /// A node does not hear the others, nor they it.
    pub(super) fn clog(&mut self, node: usize, until: Micros) {
        if !self.is_working() {
            return;
        }
        self.summary.partitions += 1;
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.network.cut(node, other, until);
            self.network.cut(other, node, until);
        }
        self.trace.note(self.now, &[32, node as u64, until], || {
            format!("node {node} is clogged until {} ms", until / MS)
        });
    }

    /// No faults any more: what was cut is joined, who was down comes back.
    pub(super) fn stop_faults(&mut self) -> Result<(), Violation> {
        self.network.heal();
        self.slow_disk_until.clear();
        for node in 0..self.nodes.len() {
            self.heal_disk(node)?;
            if self.nodes[node].is_paused() {
                self.nodes[node].paused_until = Some(self.now);
                self.resume(node);
            }
            self.nodes[node].clockwork.set_rate(self.now, 0);
            if !self.nodes[node].is_up() {
                self.start(node)?;
            }
        }
        Ok(())
    }

    /// How long the cluster may take to be well again. Every node must notice, and votes may be split.
    pub(super) const HEALING_MAX: u64 = 10 * SECOND;
    /// How long a node that is behind may take for each entry: in some lives one entry travels at a time, each to be
    /// read from a slow disk, sent, written to another slow disk and confirmed.
    pub(super) const CATCHING_UP_MAX: u64 = 100 * MS;
}
