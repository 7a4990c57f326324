//! What a full disk means. If a quorum has no room beyond the reserve, publishing is refused and acknowledging goes on.
//! If only the leader's own disk is full, it lets another node lead.

use super::Replica;
use raftqueue_raft::{Configuration, NodeId};
use std::collections::BTreeMap;

/// Default of the free bytes of the disk that publishing leaves alone.
pub const RESERVE_BYTES_DEFAULT: u64 = 192 << 20;

/// Election timeouts between two hand-overs because of a full disk. Nothing is proposed during a hand-over, and a peer
/// that never takes over must not keep the cluster from acknowledging.
const FULL_DISK_ELECTIONS: u32 = 10;

/// The free bytes of every disk, as each node said last.
#[derive(Debug, Default)]
pub(super) struct Room {
    free_bytes: BTreeMap<NodeId, u64>,
    /// No hand-over because of a full disk for so many ticks.
    pause_ticks: u32,
}

impl Room {
    pub(super) fn learn(&mut self, node: NodeId, free_bytes: u64) {
        self.free_bytes.insert(node, free_bytes);
    }

    /// What is free there. Everything, if the node has not said yet.
    pub(super) fn free_bytes(&self, node: NodeId) -> u64 {
        self.known_free_bytes(node).unwrap_or(u64::MAX)
    }

    /// Bytes free on that disk, if it was heard of. A node that does not know says the most that there is.
    pub(super) fn known_free_bytes(&self, node: NodeId) -> Option<u64> {
        self.free_bytes.get(&node).copied().filter(|bytes| *bytes < u64::MAX)
    }
}

impl Replica {
    /// True if that disk has room beyond the reserve, as far as is known.
    fn has_room(&self, node: NodeId) -> bool {
        self.room.free_bytes(node) >= self.settings.reserve_bytes
    }

    /// True if the disks of a quorum have room beyond the reserve.
    pub(super) fn has_quorum_room(&self) -> bool {
        self.is_room_for(self.raft.configuration())
    }

    /// The same of another configuration.
    pub(super) fn is_room_for(&self, configuration: &Configuration) -> bool {
        configuration.is_quorum(|id| self.has_room(id))
    }

    /// True if that disk has room so far beyond the reserve that the lack of it is over, and not just so now.
    fn has_ample_room(&self, node: NodeId) -> bool {
        let reserve = self.settings.reserve_bytes;
        self.room.free_bytes(node) >= reserve.saturating_add(reserve / 8)
    }

    /// True if this disk has ample room.
    #[must_use]
    pub fn is_own_room_ample(&self) -> bool {
        self.has_ample_room(self.raft.id())
    }

    /// True on a leader that is far from refusing to publish, and on a follower, who does not know.
    #[must_use]
    pub fn is_quorum_room_ample(&self) -> bool {
        !self.raft.is_leader() || self.raft.configuration().is_quorum(|id| self.has_ample_room(id))
    }

    /// True on a leader that refuses to publish, since the disks of a majority are nearly full.
    #[must_use]
    pub fn refuses_for_room(&self) -> bool {
        self.raft.is_leader() && !self.has_quorum_room()
    }

    /// What somebody should know of the room on disks: that of this one, and on a leader that of the others. `None` while there
    /// is enough.
    #[must_use]
    pub fn why_no_room(&self) -> Option<String> {
        let (own, reserve) = (self.raft.id(), self.settings.reserve_bytes >> 20);
        if self.refuses_for_room() {
            return Some(format!(
                "publishing is refused: the disks of a majority have less than the reserve of {reserve} MiB free; receiving, \
                 acknowledging and purging go on, and make room"
            ));
        }
        (!self.has_room(own)).then(|| {
            let free = self.room.free_bytes(own) >> 20;
            format!(
                "its disk is nearly full: {free} MiB are free, less than the reserve of {reserve} MiB; once that is so for a \
                 majority, publishing is refused"
            )
        })
    }

    /// A leader whose disk alone is full lets another node lead.
    pub(super) fn leave_full_disk(&mut self) {
        self.room.pause_ticks = self.room.pause_ticks.saturating_sub(1);
        let is_full = !self.has_room(self.raft.id());
        if is_full && self.raft.is_leader() && self.room.pause_ticks == 0 && self.has_quorum_room() {
            // Acknowledging goes on here, so it waits for a peer that still replays.
            let fits = |id: NodeId| self.has_room(id) && !self.is_peer_replaying(id);
            if let Some(to) = self.raft.best_successor_among(fits) {
                self.room.pause_ticks = FULL_DISK_ELECTIONS * self.settings.raft.election_ticks;
                // It is refused only while a hand-over is under way.
                let _ = self.raft.transfer_leadership(to);
            }
        }
    }
}
