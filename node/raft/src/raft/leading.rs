//! What a leader is and does by itself: it appends, beats, counts what a quorum has, and stops when it hears none.

use super::reads::Reads;
use super::transferring::Transfer;
use super::{Raft, Role};
use crate::event::Refused;
use crate::mutants::{self, Mutant};
use crate::progress::{Progress, ProgressState};
use crate::{Entry, Index, Message, NodeId, Payload, ReadId};
use std::collections::{BTreeMap, VecDeque};

/// What only a leader has.
#[derive(Debug)]
pub(super) struct Leader {
    pub(super) progress: BTreeMap<NodeId, Progress>,
    pub(super) reads: Reads,
    pub(super) transfer: Option<Transfer>,
    /// Whom the newest configuration leaves out, until it is committed.
    parting: BTreeMap<NodeId, Progress>,
    /// The first entry of this term. Nothing is known to be committed before it is.
    pub(super) first_index: Index,
    /// (index, bytes) of the entries of this term that are not committed.
    uncommitted: VecDeque<(Index, usize)>,
    uncommitted_bytes: usize,
    heartbeat_in_ticks: u32,
    /// For so many ticks it does not hand over for not being ready.
    pub(super) leave_pause_ticks: u32,
    /// The joint configuration at this index is left though messages are lacking that only somebody has who goes and is not
    /// heard: somebody has decided so.
    pub(super) forced: Index,
}

impl Leader {
    pub(super) fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    pub(super) fn into_reads(self) -> impl Iterator<Item = ReadId> {
        self.reads.into_ids()
    }

    /// A peer's process died: what was in flight is lost, and it does not count as heard.
    pub(super) fn peer_gone(&mut self, id: NodeId) {
        if let Some(progress) = self.progress.get_mut(&id) {
            progress.silent_ticks = u32::MAX;
            progress.become_probe(progress.matched.next());
        }
    }

    /// Forgets the sizes of what is committed.
    fn committed(&mut self, commit: Index) {
        while let Some((_, bytes)) = self.uncommitted.pop_front_if(|(index, _)| *index <= commit) {
            self.uncommitted_bytes -= bytes;
        }
    }
}

impl Raft {
    pub(super) fn become_leader(&mut self) {
        let next = self.log.last().next();
        self.role = Role::Leader(Box::new(Leader {
            progress: BTreeMap::new(),
            reads: Reads::default(),
            transfer: None,
            parting: BTreeMap::new(),
            first_index: next,
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
            heartbeat_in_ticks: self.settings.heartbeat_ticks,
            leave_pause_ticks: 0,
            forced: Index(0),
        }));
        self.leader = Some(self.settings.id);
        self.leader_gone = false;
        self.hinted_ticks = 0;
        self.append_as_leader(Payload::Noop);
        self.track_peers();
        self.send_heartbeats();
    }

    /// Starts and stops tracking peers as the configuration in force says.
    fn track_peers(&mut self) {
        let id = self.settings.id;
        let peers = self.log.configuration().peers();
        let next = self.log.last();
        let Role::Leader(leader) = &mut self.role else { return };
        leader.parting.extend(leader.progress.extract_if(.., |peer, _| !peers.contains(peer)));
        leader.parting.retain(|peer, _| !peers.contains(peer));
        for peer in peers.into_iter().filter(|peer| *peer != id) {
            // A new peer counts as heard for one round: it has had no chance to answer yet.
            leader.progress.entry(peer).or_insert_with(|| Progress::new(next));
        }
    }

    /// Sends the configuration, once it is committed, to those that it leaves out and that had got all before it: so they know
    /// at once that they are no members. It goes out once, and whoever misses it has to ask. Before it is committed nobody may
    /// have it who does not count in it: a vote for who lacks it would be refused by who does not campaign.
    fn part(&mut self) {
        let committed = self.log.configuration_index() <= self.commit;
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.parting.is_empty() || !committed {
            return;
        }
        for (peer, progress) in std::mem::take(&mut leader.parting) {
            if progress.state != ProgressState::Replicate {
                continue;
            }
            let Role::Leader(leader) = &mut self.role else { return };
            leader.progress.insert(peer, progress);
            while self.feed(peer) {}
            let Role::Leader(leader) = &mut self.role else { return };
            leader.progress.remove(&peer);
        }
    }

    pub(super) fn check_may_propose(&self) -> Result<(), Refused> {
        let Role::Leader(leader) = &self.role else { return Err(Refused::NotLeader { leader: self.leader }) };
        if leader.transfer.is_some() {
            return Err(Refused::Transferring);
        }
        if leader.uncommitted_bytes >= self.settings.uncommitted_bytes_max {
            return Err(Refused::Full { uncommitted_bytes: leader.uncommitted_bytes });
        }
        Ok(())
    }

    pub(super) fn append_as_leader(&mut self, payload: Payload) -> Index {
        let entry = Entry { index: self.log.last().next(), term: self.term(), payload };
        let (index, bytes) = (entry.index, entry.size());
        let is_configuration = matches!(entry.payload, Payload::Config(_));
        self.log.append(entry);
        let Role::Leader(leader) = &mut self.role else {
            unreachable!("only a leader appends its own entries")
        };
        leader.uncommitted.push_back((index, bytes));
        leader.uncommitted_bytes += bytes;
        if is_configuration {
            self.track_peers();
        }
        index
    }

    pub(super) fn tick_leader(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        for progress in leader.progress.values_mut() {
            progress.silent_ticks = progress.silent_ticks.saturating_add(1);
        }
        leader.leave_pause_ticks = leader.leave_pause_ticks.saturating_sub(1);
        leader.heartbeat_in_ticks -= 1;
        let beat = leader.heartbeat_in_ticks == 0;
        if beat {
            leader.heartbeat_in_ticks = self.settings.heartbeat_ticks;
            leader.progress.values_mut().for_each(Progress::beat);
            self.send_heartbeats();
            self.leave_to_the_ready();
            self.settle_configuration();
        }
        self.tick_transfer(beat);
        if self.is_leader() && !self.hears_quorum() && !mutants::is(Mutant::NoCheckQuorum) {
            self.become_follower(self.term(), None);
        }
        if self.is_leader() && self.disk_stalled {
            self.tick_stalled();
        }
    }

    pub(super) fn send_heartbeats(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let message = Message::Heartbeat { commit: self.commit, round: leader.reads.round() };
        let peers: Vec<_> = leader.progress.keys().copied().collect();
        for to in peers {
            self.send_to(to, message.clone());
        }
    }

    /// A leader that has not heard a quorum for two election timeouts stops: another may have replaced it (Ongaro's
    /// dissertation, section 6.2).
    fn hears_quorum(&self) -> bool {
        let limit = 2 * self.settings.election_ticks;
        self.is_quorum_with_peers(|p| p.silent_ticks < limit)
    }

    /// True if the peers for which `holds` is true, with this node itself, are a quorum.
    pub(super) fn is_quorum_with_peers(&self, holds: impl Fn(&Progress) -> bool) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let id = self.settings.id;
        self.log
            .configuration()
            .is_quorum(|peer| peer == id || leader.progress.get(&peer).is_some_and(&holds))
    }

    /// Commits the last entry that a quorum has on disk, with everything before it, if it is of this term (Raft,
    /// section 5.4.2).
    pub(super) fn advance_commit(&mut self) {
        let id = self.settings.id;
        let term = self.term();
        let own = if mutants::is(Mutant::CountSelfEarly) { self.log.last() } else { self.log.durable() };
        let Role::Leader(leader) = &mut self.role else { return };
        let reached = |peer: NodeId| {
            if peer == id { own } else { leader.progress.get(&peer).map_or(Index(0), |p| p.matched) }
        };
        let commit = self.log.configuration().committed(reached).min(self.log.last());
        let countable = mutants::is(Mutant::CommitOldTerm) || self.log.term_at(commit) == Some(term);
        if commit > self.commit && countable {
            self.commit = commit;
            leader.committed(commit);
            self.part();
            self.settle_configuration();
        }
    }
}
