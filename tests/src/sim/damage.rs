//! Disks that fail, fill up, rot, or are not the ones they should be.
//!
//! Within bounds, as a rule: at most so many disks are damaged or gone for good that the others are still a majority, so
//! of every committed entry at least one good copy is left. In reckless lives there are no such bounds; if no majority is
//! left, everything must be refused from then on, and no answer before may be wrong. Rot strikes only what was proven: in the last batch it cannot be told
//! from a torn write. A damaged node goes on as far as it can, serves nothing wrong, and is kept away in the end; the
//! others must be whole without it.
//!
//! A node refuses a disk that is blank, or another node's, when it starts. One that was set back is noticed only when
//! the node says hello to a leader: that judgement is asked of the node's own code, and where it would not notice (no
//! leader, or one of a later term) the disk is left as it was, since that is outside of what the cluster promises.

use super::Violation;
use super::coverage::Rare;
use super::plan::{Fault, MS, SECOND};
use super::starting::open;
use super::world::{Event, World};
use raftqueue_node::peers::own::Acknowledged;
use raftqueue_wal::disk::SECTOR_BYTES;
use raftqueue_wal::disk::fake::{FakeDisk, Operation, Refusal};
use std::io;

/// What the names of segment files begin with.
const SEGMENT_PREFIX: &str = "segment-";
/// Where the second slot of `HARDSTATE` begins.
const HARD_STATE_SLOT_BYTES: u64 = 4096;

impl World {
    /// True if one more disk may be lost for good.
    fn may_damage(&self, node: usize) -> bool {
        // Where a change of members is open, which nodes a majority needs depends on what becomes of it.
        if self.nodes[node].out.is_some() || !self.are_members_settled() {
            return false;
        }
        let is_good = |at: &super::nodes::Node| at.number != node && !at.is_damaged && at.out.is_none();
        self.plan.is_reckless || self.is_quorum(is_good)
    }

    /// True if the nodes that are gone for good leave no majority.
    pub(super) fn is_lost(&self) -> bool {
        !self.is_quorum(|node| node.out.is_none())
    }

    /// Faults of a disk. True if there was something to spoil.
    pub(super) fn spoil_disk(&mut self, node: usize, fault: Fault) -> Result<bool, Violation> {
        if !self.nodes[node].is_up() || self.nodes[node].disk.is_crashed() {
            return Ok(false);
        }
        match fault {
            Fault::FailWrite => {
                self.refuse(node, &[Operation::Write, Operation::Allocate, Operation::Create]);
            }
            Fault::FailSync => self.refuse(node, &[Operation::Sync, Operation::SyncDir]),
            Fault::FailRead => self.refuse(node, &[Operation::Read]),
            Fault::RotOnRead => {
                self.nodes[node].is_failing = true;
                let reads = self.random.between(1, 3);
                self.nodes[node].disk.rot_reads(reads);
            }
            Fault::FullDisk => self.fill(node),
            Fault::Rot if self.may_damage(node) => match self.random.below(12) {
                0..3 => return self.rot_snapshot(node),
                3..5 => return self.rot_promises(node),
                _ => return Ok(self.rot(node, fault)),
            },
            Fault::Rot | Fault::Misdirected => return Ok(self.may_damage(node) && self.rot(node, fault)),
            Fault::Wiped => return self.wipe(node),
            Fault::Cloned | Fault::Swapped => return self.swap(node, fault == Fault::Swapped),
            Fault::SetBack => return self.set_back(node),
            other => unreachable!("{other:?} is no fault of a disk"),
        }
        Ok(true)
    }

    fn refuse(&mut self, node: usize, operations: &[Operation]) {
        self.nodes[node].is_failing = true;
        let refusal = Refusal {
            operation: self.random.pick(operations),
            file_prefix: String::new(),
            skip: self.random.below(3),
            count: self.random.pick(&[1, 1, 5]),
            error: io::ErrorKind::Other,
        };
        self.nodes[node].disk.inject(refusal);
    }

    fn fill(&mut self, node: usize) {
        let until = self.now + 200 * MS + self.random.waiting(SECOND);
        let room = self.random.pick(&[0, 0, 3_000, 20_000, 100_000]);
        let disk = &self.nodes[node].disk;
        disk.set_capacity(disk.used_bytes() + room);
        self.nodes[node].was_tight = true;
        self.trace.note(self.now, &[37, node as u64, room], || {
            format!("the disk of node {node} has room for {room} bytes, until {} ms", until / MS)
        });
        self.schedule.add(until, Event::MakeRoom { node });
    }

    pub(super) fn make_room(&mut self, node: usize) {
        let at = &self.nodes[node];
        [Some(&at.disk), at.shelf.as_ref()]
            .into_iter()
            .flatten()
            .for_each(|disk| disk.set_capacity(u64::MAX));
    }

    /// Spoils bytes that are proven. False if there are none.
    fn rot(&mut self, node: usize, fault: Fault) -> bool {
        let disk = self.nodes[node].disk.clone();
        let running = self.nodes[node].running();
        let may_lose_slot = running.is_kept_up && running.write.is_none();
        let proven = running.proven;
        let named = running.wal.manifest().file_names();
        let is_small = fault == Fault::Rot && self.random.one_in(8);
        let files: Vec<(String, u64)> = disk
            .names()
            .into_iter()
            .filter_map(|name| {
                let size = disk.bytes(&name)?.len() as u64;
                let is_file = ["kept-", "places-"].iter().any(|prefix| name.starts_with(prefix));
                let number = name.strip_prefix(SEGMENT_PREFIX).map(|text| u64::from_str_radix(text, 16));
                let end = match number {
                    Some(Ok(number)) if !is_small && number < proven.0 => size,
                    Some(Ok(number)) if !is_small && number == proven.0 => proven.1,
                    None if is_file && !is_small && named.contains(&name) => size,
                    None if is_small && name == "HARDSTATE" && may_lose_slot => size,
                    None if is_small && (name == "IDENTITY" || name == "MANIFEST") => size,
                    _ => 0,
                };
                (end > 0).then_some((name, end))
            })
            .collect();
        if files.is_empty() {
            return false;
        }
        let (name, end) = files[self.random.index(files.len())].clone();
        let offset = self.random.below(end);
        let sector = offset / SECTOR_BYTES * SECTOR_BYTES;
        let is_whole_sector = !is_small && sector + SECTOR_BYTES <= end;
        let changed = match fault {
            Fault::Misdirected if is_whole_sector => {
                let (from, end) = files[self.random.index(files.len())].clone();
                let at = self.random.below(end / SECTOR_BYTES + 1) * SECTOR_BYTES;
                let bytes = disk.bytes(&from).expect("just listed");
                let strayed = bytes.chunks(512).nth(usize::try_from(at / SECTOR_BYTES).expect("small"));
                strayed.is_some_and(|strayed| disk.smear(&name, sector, strayed))
            }
            Fault::Misdirected => false,
            _ if is_whole_sector && self.random.percent(30) => disk.smear(&name, sector, &[0; 512]),
            _ => disk.corrupt(&name, offset, 1 << self.random.below(8)),
        };
        if changed {
            self.nodes[node].is_damaged = true;
            self.trace.note(self.now, &[38, node as u64, offset], || {
                format!("{name} of node {node} rots at {offset}")
            });
        }
        changed
    }

    /// One of the snapshots rots, the newest as a rule, or all do. If the process ends it begins with another one, or with none.
    fn rot_snapshot(&mut self, node: usize) -> Result<bool, Violation> {
        let at = &mut self.nodes[node];
        let files = at.running().wal.manifest().snapshots.clone();
        let older = usize::from(self.random.one_in(4));
        let Some(one) = files.iter().rev().nth(older) else { return Ok(false) };
        let (offset, bit) = (self.random.below(one.size), 1 << self.random.below(8));
        let are_all = offset.is_multiple_of(4);
        let mut changed = false;
        for file in files.iter().filter(|file| are_all || file.number == one.number) {
            let offset = offset % file.size;
            changed |= at.disk.corrupt(&file.name(), offset, bit);
            self.trace.note(self.now, &[55, node as u64, offset], || {
                format!("{} of node {node} rots at {offset}", file.name())
            });
        }
        if !changed {
            return Ok(false);
        }
        at.is_damaged = true;
        if self.random.percent(60) || are_all {
            self.crash(node, false)?;
        }
        Ok(true)
    }

    /// Both slots of `HARDSTATE` rot, and the process ends: it does not know any more what it promised.
    fn rot_promises(&mut self, node: usize) -> Result<bool, Violation> {
        let at = &mut self.nodes[node];
        for slot in [0, HARD_STATE_SLOT_BYTES] {
            at.disk.corrupt("HARDSTATE", slot + self.random.below(8), 1 << self.random.below(8));
        }
        at.is_damaged = true;
        self.trace
            .note(self.now, &[62, node as u64], || format!("both slots of HARDSTATE of node {node} rot"));
        let power = self.random.percent(50);
        self.crash(node, power)?;
        Ok(true)
    }

    /// The disk is replaced by a blank one.
    fn wipe(&mut self, node: usize) -> Result<bool, Violation> {
        if !self.may_damage(node) {
            return Ok(false);
        }
        let power = self.random.percent(50);
        self.crash(node, power)?;
        self.nodes[node].disk = FakeDisk::new(self.random.bits());
        self.nodes[node].is_damaged = true;
        Ok(true)
    }

    /// The node is started on a copy of another one's disk, and perhaps that one on a copy of this one's.
    fn swap(&mut self, node: usize, both: bool) -> Result<bool, Violation> {
        let other = self.random.index(self.nodes.len());
        // A damaged disk may be refused for its damage, before anybody sees whose it is.
        let is_strange = |at: &super::nodes::Node| at.shelf.is_some() || at.out.is_some() || at.is_damaged;
        if other == node || is_strange(&self.nodes[node]) || is_strange(&self.nodes[other]) {
            return Ok(false);
        }
        let until = self.now + 100 * MS + self.random.waiting(600 * MS);
        self.crash(node, false)?;
        if both {
            self.crash(other, false)?;
        }
        let (own, others) = (self.nodes[node].disk.clone(), self.nodes[other].disk.clone());
        self.mount(node, others.deep_clone());
        self.schedule.add(until, Event::Remount { node });
        if both {
            self.mount(other, own.deep_clone());
            self.schedule.add(until, Event::Remount { node: other });
        }
        Ok(true)
    }

    fn mount(&mut self, node: usize, foreign: FakeDisk) {
        let own = std::mem::replace(&mut self.nodes[node].disk, foreign);
        self.nodes[node].shelf = Some(own);
    }

    /// The node's own disk is back in its place.
    pub(super) fn remount(&mut self, node: usize) -> Result<(), Violation> {
        if let Some(own) = self.nodes[node].shelf.take() {
            self.nodes[node].disk = own;
            self.start(node)?;
        }
        Ok(())
    }

    /// Somebody keeps a copy of a disk, now and then.
    pub(super) fn back_up(&mut self) {
        if self.random.one_in(6) {
            let node = self.random.index(self.nodes.len());
            let at = &mut self.nodes[node];
            if at.is_up() && !at.is_damaged {
                at.backup = Some((at.disk.durable_view(), self.disks[&at.id].clone()));
            }
        }
    }

    /// The node is started on an older state of its own disk. The leader notices when it says hello.
    fn set_back(&mut self, node: usize) -> Result<bool, Violation> {
        let leader = self.leader().filter(|leader| *leader != node && !self.nodes[*leader].is_paused());
        let Some(((backup, held), leader)) = self.nodes[node].backup.take().zip(leader) else {
            return Ok(false);
        };
        if !self.may_damage(node) {
            return Ok(false);
        }
        // It may have been taken while the disk was full.
        backup.set_capacity(u64::MAX);
        let options = self.options(node);
        let opened = open(&backup, &self.nodes[node].name(), options);
        let (last, term) = match opened {
            Ok(found) => found.shows(),
            Err(refused) => return Err(Violation(format!("a copy of the disk of node {node}: {refused}"))),
        };
        Violation::unless((last, term) == (held.trail.last(), held.hard_state.term), || {
            format!("a copy of the disk of node {node} opens at {last} in term {term}")
        })?;
        let raft = self.nodes[leader].replica().expect("it leads").view().raft;
        let acknowledged = Acknowledged {
            term: raft.role.term.0,
            leader: None,
            indexes: raft.peers.iter().map(|peer| (peer.id, peer.matched.0)).collect(),
        };
        if !acknowledged.contradicts(self.nodes[node].id, last.0, term.0) {
            return Ok(false);
        }
        let power = self.random.percent(50);
        self.crash(node, power)?;
        self.coverage.rare(Rare::RefusedSetBack);
        self.take_out(node, "its disk was set back");
        self.trace.note(self.now, &[39, node as u64, last.0], || {
            format!(
                "node {node} is started on a disk set back to {last}; leader {leader} notices, and it stops"
            )
        });
        Ok(true)
    }

    /// The disk takes and gives everything from now on; what it holds stays as it is.
    pub(super) fn heal_disk(&mut self, node: usize) -> Result<(), Violation> {
        let at = &mut self.nodes[node];
        if let Some(own) = at.shelf.take() {
            at.disk = own;
        }
        at.disk.crash_at_call(u64::MAX / 2);
        at.disk.clear_refusals();
        at.disk.rot_reads(0);
        at.disk.set_capacity(u64::MAX);
        (at.stalls_next, at.hangs_next) = (false, false);
        if let Some(running) = &mut at.running {
            let writes = running.writes;
            if running.write_ends > self.now + World::ELECTION {
                // What stalls is back as well, not only what hangs.
                running.write_ends = u64::MAX;
            }
            self.unhang(node, writes)?;
        }
        Ok(())
    }

    /// A node whose disk held damage starts again, and is one of all others: nothing that lives is lacking there.
    pub(super) fn retire_damaged(&mut self, node: usize) -> Result<(), Violation> {
        if self.nodes[node].is_damaged && self.nodes[node].out.is_none() {
            self.nodes[node].was_damaged = true;
            // No file of it tells of them any more.
            let has_lost = self.nodes[node].running.as_ref().is_some_and(|running| running.lost > 0);
            let power = self.random.percent(50);
            self.crash(node, power)?;
            self.check_mended(node)?;
            let is_whole = !has_lost && self.is_whole(node);
            if self.plan.is_reckless && !is_whole {
                self.coverage.rare(Rare::RefusedDamage);
                self.take_out(node, "its disk is damaged");
                return Ok(());
            }
            self.start(node)?;
            // What is left damaged is not needed by anything that lives.
            self.nodes[node].is_damaged = !is_whole;
            self.coverage.rare_if(self.nodes[node].is_up(), Rare::Healed);
        }
        Ok(())
    }

    /// A write that hung comes back.
    pub(super) fn unhang(&mut self, node: usize, writes: u64) -> Result<(), Violation> {
        let running = self.nodes[node].running();
        if running.writes != writes || running.write.is_none() || running.write_ends != u64::MAX {
            return Ok(());
        }
        running.write_ends = self.now;
        self.written(node, writes)
    }
}
