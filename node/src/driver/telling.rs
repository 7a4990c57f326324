//! What the driver tells of this node: to the edges, the peers and the probes, and in the log.

use super::Driver;
use super::view::Standing;
use crate::api::MembersInfo;
use crate::driver::inbox::Leadership;
use crate::peers::forming::LogStanding;
use crate::peers::own::Acknowledged;
use crate::replica::View;
use raftqueue_raft::{Index, NodeId, RoleKind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

/// Log time that is so far ahead of the clocks is spoken of: two leaders may differ by as much whose clocks are well enough.
const AHEAD_TOLD_MS: u64 = 1_000;

/// What was said of the room on disks, and is not over yet.
#[derive(Debug, Default)]
pub(super) struct RoomTold {
    /// That this disk is nearly full, or more.
    own: bool,
    /// That publishing is refused.
    quorum: bool,
}

impl Driver {
    /// Tells the edges, the peers and the probes what this node is now.
    pub(super) fn publish(&mut self, view: &View) {
        let role = view.raft.role;
        let is_own = role.role == RoleKind::Leader;
        let leadership = Leadership { leader: role.leader, is_own, term: role.term.0 };
        self.parts.leadership.send_if_modified(|before| std::mem::replace(before, leadership) != leadership);
        self.parts.applied.store(view.applied.0, Ordering::Release);
        self.parts.own.version.store(view.configuration.version, Ordering::Relaxed);
        self.parts.own.term.store(role.term.0, Ordering::Relaxed);
        self.parts.own.has_leader.store(role.leader.is_some(), Ordering::Relaxed);
        if let Some(term) = self.parts.replica.raft().term_at(view.raft.last) {
            self.parts.own.last_term.store(term.0, Ordering::Relaxed);
        }
        let acknowledged = Acknowledged {
            term: role.term.0,
            leader: role.leader.filter(|leader| *leader != self.parts.replica.raft().id()),
            indexes: view.raft.peers.iter().map(|peer| (peer.id, peer.matched.0)).collect(),
        };
        *self.parts.own.acknowledged.write().unwrap_or_else(PoisonError::into_inner) = acknowledged;
        if view.raft.last > Index(0) {
            let configuration = Some(Arc::clone(&view.configuration));
            self.parts.forming.has_log(LogStanding { configuration, last_index: view.raft.last.0 });
        }
        self.follow();
        if role.leader.is_some() {
            self.leader_seen = Instant::now();
        }
        let status = self.standing(view).status();
        self.tell_of_room(status.note.as_deref());
        self.parts.status.send_replace(Arc::new(status));
    }

    /// Connections are those of the configuration in force.
    fn follow(&self) {
        let raft = self.parts.replica.raft();
        let (index, configuration) = (raft.configuration_index(), raft.configuration());
        let own = &self.parts.own;
        if own.configuration.swap(index.0, Ordering::Relaxed) != index.0 {
            let is_member = configuration.members.contains_key(&raft.id());
            own.is_member.store(is_member, Ordering::Relaxed);
            let before = raft.configuration_at(index.prev());
            self.parts.transport.follow(configuration, before.map(|before| &**before));
        }
    }

    /// Where each member is found now: it may have moved since the configuration noted it.
    pub(super) fn with_addresses(&self, mut members: MembersInfo) -> MembersInfo {
        let own = self.parts.replica.raft().id();
        for member in &mut members.members {
            let id = NodeId(member.id);
            let found = if id == own {
                self.parts.own.peer_address.clone()
            } else {
                self.parts.transport.peer(id).map(|peer| peer.announced).unwrap_or_default()
            };
            if !found.is_empty() {
                member.address = found;
            }
        }
        members
    }

    pub(super) fn standing<'a>(&'a self, view: &'a View) -> Standing<'a> {
        Standing {
            replica: &self.parts.replica,
            view,
            own: &self.parts.own,
            transport: &self.parts.transport,
            leaderless: self.leader_seen.elapsed(),
            not_installed: self.installing.why.as_deref(),
        }
    }

    /// Says that disks are nearly full, that those of a majority are, and that they are no longer: once, and again only after
    /// there was ample room. At the reserve consumers and producers make room and take it, many times a minute.
    fn tell_of_room(&mut self, note: Option<&str>) {
        let (replica, told) = (&self.parts.replica, &mut self.room_told);
        let is_refusing = replica.refuses_for_room();
        if let Some(note) = note.filter(|_| (is_refusing || !told.own) && !told.quorum) {
            tracing::warn!("{note}");
            *told = RoomTold { own: true, quorum: is_refusing };
        }
        told.quorum &= !replica.is_quorum_room_ample();
        if told.own && !told.quorum && replica.is_own_room_ample() {
            tracing::info!("there is room on the disks again");
            told.own = false;
        }
    }

    /// Says that log time does not follow the clocks: once, each time that it happens.
    pub(super) fn tell_of_clocks(&mut self, ahead_ms: u64) {
        if ahead_ms > AHEAD_TOLD_MS && !self.is_ahead_told {
            tracing::warn!(
                ahead_ms,
                "the clocks were set back, or had been ahead: until they have caught up, log time runs at nine tenths of \
                 their rate, so leases, delays and times to live last a ninth longer"
            );
        }
        self.is_ahead_told = ahead_ms > 0 && (self.is_ahead_told || ahead_ms > AHEAD_TOLD_MS);
    }
}
