//! Sending entries, committing them, and handing over.

use super::reads::Reads;
use super::{Raft, Role};
use crate::event::{LoadRequest, LogSlice, Refused};
use crate::mutants::{self, Mutant};
use crate::progress::{Progress, ProgressState};
use crate::{AppendOutcome, Entry, Index, MemberKind, Message, NodeId, Payload, ReadId};
use std::collections::{BTreeMap, VecDeque};

/// What only a leader has.
#[derive(Debug)]
pub(super) struct Leader {
    pub(super) progress: BTreeMap<NodeId, Progress>,
    pub(super) reads: Reads,
    pub(super) transfer: Option<Transfer>,
    /// The first entry of this term. Nothing is known to be committed before it is.
    pub(super) first_index: Index,
    /// (index, bytes) of the entries of this term that are not committed.
    uncommitted: VecDeque<(Index, usize)>,
    uncommitted_bytes: usize,
    heartbeat_in_ticks: u32,
}

/// A hand-over that is under way.
#[derive(Debug)]
pub(super) struct Transfer {
    to: NodeId,
    ticks_left: u32,
    /// Asked for by a stalled disk: when it fails the leader steps down.
    because_stalled: bool,
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
            first_index: next,
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
            heartbeat_in_ticks: self.settings.heartbeat_ticks,
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
        leader.progress.retain(|peer, _| peers.contains(peer));
        for peer in peers.into_iter().filter(|peer| *peer != id) {
            // A new peer counts as heard for one round: it has had no chance to answer yet.
            leader.progress.entry(peer).or_insert_with(|| Progress::new(next));
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
        leader.heartbeat_in_ticks -= 1;
        let beat = leader.heartbeat_in_ticks == 0;
        if beat {
            leader.heartbeat_in_ticks = self.settings.heartbeat_ticks;
            leader.progress.values_mut().for_each(Progress::beat);
            self.send_heartbeats();
        }
        self.tick_transfer(beat);
        if self.is_leader() && !self.hears_quorum() && !mutants::is(Mutant::NoCheckQuorum) {
            self.become_follower(self.term(), None);
        }
        if self.is_leader() && self.disk_stalled {
            self.hand_over_stalled();
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

    /// A leader that has not heard a quorum for two election timeouts may have been replaced: it stops
    /// (Ongaro's dissertation, section 6.2).
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

    /// Sends every peer what its window has room for.
    pub(super) fn feed_peers(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let peers: Vec<_> = leader.progress.keys().copied().collect();
        for peer in peers {
            while self.feed(peer) {}
        }
    }

    /// Sends one message to `to` if there is something to send; returns true if there may be more.
    fn feed(&mut self, to: NodeId) -> bool {
        let settings = &self.settings;
        let last = self.log.last();
        let Role::Leader(leader) = &mut self.role else { return false };
        let Some(progress) = leader.progress.get_mut(&to) else { return false };
        if std::mem::take(&mut progress.ask) && !mutants::is(Mutant::NeverAskAgain) {
            self.send_append(to, Vec::new());
            return true;
        }
        let probe = progress.state == ProgressState::Probe;
        if !progress.has_room(settings.window_messages_max, settings.window_bytes_max)
            || (progress.next > last && !probe)
        {
            return false;
        }
        let entries = if progress.next > last || probe && progress.probed {
            Vec::new()
        } else if let Some(entries) = self.log.slice(progress.next, settings.append_bytes_max) {
            entries
        } else {
            progress.loading = true;
            self.load.push(LoadRequest { to, from: progress.next, bytes_max: settings.append_bytes_max });
            return false;
        };
        self.send_append(to, entries);
        true
    }

    fn send_append(&mut self, to: NodeId, entries: Vec<Entry>) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        let prev_index = progress.next.prev();
        let prev_term = self.log.term_at(prev_index).expect("a peer is fed from within the log");
        let bytes = entries.iter().map(Entry::size).sum();
        progress.sent(Index(prev_index.0 + entries.len() as u64), bytes);
        self.send_to(to, Message::Append { prev_index, prev_term, entries, commit: self.commit });
    }

    /// Old entries were read for a peer. They are sent if that peer still waits for them and they are still the log's.
    pub(super) fn on_loaded(&mut self, slice: LogSlice) {
        let LogSlice { to, from, mut entries } = slice;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&to) else { return };
        if !progress.loading || progress.next != from {
            return;
        }
        progress.loading = false;
        let log = &self.log;
        let valid = entries
            .iter()
            .zip(from.0..)
            .take_while(|(entry, index)| {
                entry.index.0 == *index && log.term_at(entry.index) == Some(entry.term)
            })
            .count();
        entries.truncate(valid);
        if entries.is_empty() {
            // Not readable now: asked for again after the next heartbeat answer.
            progress.become_probe(from);
            progress.probe_sent = true;
        } else {
            self.send_append(to, entries);
        }
    }

    pub(super) fn on_append_reply(&mut self, from: NodeId, outcome: AppendOutcome, disk_stalled: bool) {
        let last = self.log.last();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        progress.silent_ticks = 0;
        progress.disk_stalled = disk_stalled;
        match outcome {
            AppendOutcome::Accepted { durable } if durable <= last => {
                progress.accepted(durable);
                self.finish_transfer();
            }
            AppendOutcome::Accepted { .. } => self.alarms.push(crate::Alarm::Malformed { from }),
            AppendOutcome::Rejected { prev_index, hint_index, hint_term } => {
                let (agreement, _) = self.log.find_agreement(hint_index.min(prev_index), hint_term);
                progress.rejected(prev_index, agreement);
            }
        }
    }

    pub(super) fn on_heartbeat_reply(
        &mut self,
        from: NodeId,
        round: u64,
        received: Index,
        disk_stalled: bool,
        replaying: bool,
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        progress.silent_ticks = 0;
        progress.disk_stalled = disk_stalled;
        progress.replaying = replaying;
        progress.read_round = progress.read_round.max(round);
        progress.heard(received);
    }

    /// Commits what a quorum has on disk, if it is of this term (Raft, section 5.4.2), and everything before it.
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
            self.configuration_committed();
        }
    }

    /// Hands leadership to `to`: waits until it has everything, then tells it to campaign. Proposals and reads are
    /// refused meanwhile; after an election timeout the attempt ends and this node goes on leading.
    ///
    /// # Errors
    /// [`Refused::NotLeader`], [`Refused::Transferring`] while another one is under way, [`Refused::InvalidChange`] if
    /// `to` is this node or not a voter.
    pub fn transfer_leadership(&mut self, to: NodeId) -> Result<(), Refused> {
        self.start_transfer(to, self.settings.election_ticks, false)
    }

    fn start_transfer(&mut self, to: NodeId, ticks_left: u32, because_stalled: bool) -> Result<(), Refused> {
        let configuration = self.log.configuration().clone();
        let Role::Leader(leader) = &mut self.role else {
            return Err(Refused::NotLeader { leader: self.leader });
        };
        if leader.transfer.is_some() {
            return Err(Refused::Transferring);
        }
        if to == self.settings.id {
            return Err(Refused::InvalidChange("this node leads already"));
        }
        if configuration.members.get(&to).is_none_or(|member| member.kind != MemberKind::Voter) {
            return Err(Refused::InvalidChange("leadership can only go to a voter"));
        }
        leader.transfer = Some(Transfer { to, ticks_left, because_stalled });
        self.finish_transfer();
        Ok(())
    }

    /// The peer to hand over to when the caller does not mind which: the active voter that has most of the log, and one
    /// that still replays only where there is no other.
    #[must_use]
    pub fn best_successor(&self) -> Option<NodeId> {
        self.best_successor_among(|_| true)
    }

    /// The same among those that the caller accepts.
    #[must_use]
    pub fn best_successor_among(&self, accepts: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let is_replaying = |p: &Progress| p.replaying && !mutants::is(Mutant::HandOverToReplaying);
        let Role::Leader(leader) = &self.role else { return None };
        let members = &self.log.configuration().members;
        leader
            .progress
            .iter()
            .filter(|(id, p)| {
                p.silent_ticks < self.settings.election_ticks
                    && !p.disk_stalled
                    && members.get(id).is_some_and(|m| m.kind == MemberKind::Voter)
                    && accepts(**id)
            })
            .max_by_key(|(_, p)| (!is_replaying(p), p.matched))
            .map(|(id, _)| *id)
    }

    /// Tells the target to campaign once it has everything.
    fn finish_transfer(&mut self) {
        let last = self.log.last();
        let Role::Leader(leader) = &self.role else { return };
        if let Some(transfer) = &leader.transfer
            && leader.progress.get(&transfer.to).is_some_and(|p| p.matched == last)
        {
            self.send_to(transfer.to, Message::TimeoutNow);
        }
    }

    fn tick_transfer(&mut self, repeat: bool) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        transfer.ticks_left = transfer.ticks_left.saturating_sub(1);
        let over = transfer.ticks_left == 0 || !leader.progress.contains_key(&transfer.to);
        if !over {
            if repeat {
                self.finish_transfer();
            }
            return;
        }
        let step_down = transfer.because_stalled && self.disk_stalled;
        leader.transfer = None;
        if step_down && self.can_others_carry_on() {
            // Nobody took over, and this node can promise nothing: silence lets the others elect.
            self.become_follower(self.term(), None);
        }
    }

    pub(super) fn on_disk_stalled(&mut self, stalled: bool) {
        self.disk_stalled = stalled;
        if let Role::Leader(leader) = &mut self.role
            && !stalled
            && leader.transfer.as_ref().is_some_and(|transfer| transfer.because_stalled)
        {
            leader.transfer = None;
        }
        if stalled {
            self.hand_over_stalled();
        }
    }

    /// A leader whose disk hangs gives way, unless the others could not do without it.
    fn hand_over_stalled(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        if leader.transfer.is_some() || self.stall_pause_ticks > 0 || !self.can_others_carry_on() {
            return;
        }
        self.stall_pause_ticks = self.settings.stall_pause_ticks;
        let timeout = 2 * self.settings.election_ticks;
        let started = self.best_successor().is_some_and(|to| self.start_transfer(to, timeout, true).is_ok());
        if !started {
            self.become_follower(self.term(), None);
        }
    }

    /// True if the peers that are well are a quorum without this node. A majority of stalled disks leaves no such quorum,
    /// nor does half of an even number: whoever led then could neither be elected nor commit.
    fn can_others_carry_on(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let is_well = |p: &Progress| !p.disk_stalled && p.silent_ticks < self.settings.election_ticks;
        self.log.configuration().is_quorum(|peer| leader.progress.get(&peer).is_some_and(is_well))
    }
}
