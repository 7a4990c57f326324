//! Taking entries from a leader (Raft, figure 2, "AppendEntries RPC").

use super::{Raft, Role};
use crate::event::Alarm;
use crate::mutants::{self, Mutant};
use crate::{AppendOutcome, Entry, Index, Message, NodeId, Term};

impl Raft {
    /// The sender leads this term. Returns false if that cannot be.
    pub(super) fn hear_leader(&mut self, from: NodeId) -> bool {
        if self.is_leader() || self.leader.is_some_and(|leader| leader != from) {
            self.alarms.push(Alarm::SecondLeader { from, term: self.term() });
            return false;
        }
        self.role = Role::Follower;
        self.leader = Some(from);
        self.leader_silent_ticks = 0;
        self.leader_gone = false;
        self.has_tried = false;
        self.hinted_ticks = 0;
        self.wait_for_leader();
        true
    }

    /// The answer to a heartbeat of that round.
    pub(super) fn heartbeat_reply(&self, round: u64, received: Index) -> Message {
        let (disk_stalled, replaying) = (self.disk_stalled, self.is_replaying());
        // Either is a reason not to be handed the lead.
        let incomplete = self.incomplete || self.damaged;
        Message::HeartbeatReply { round, received, disk_stalled, replaying, incomplete }
    }

    pub(super) fn on_heartbeat(&mut self, from: NodeId, commit: Index, round: u64) {
        if !self.hear_leader(from) {
            return;
        }
        self.commit_up_to(commit);
        let reply = self.heartbeat_reply(round, self.verified);
        self.send_to(from, reply);
    }

    pub(super) fn on_append(
        &mut self,
        from: NodeId,
        prev_index: Index,
        prev_term: Term,
        entries: Vec<Entry>,
        commit: Index,
    ) {
        if !is_well_formed(self.term(), prev_index, prev_term, &entries) {
            self.alarms.push(Alarm::Malformed { from });
            return;
        }
        if !self.hear_leader(from) {
            return;
        }
        // Before the beginning no terms are known; but what was there is committed, so it agrees.
        let is_gone = prev_index < self.log.start().0 && !mutants::is(Mutant::RefuseBehindGone);
        if !is_gone && self.log.term_at(prev_index) != Some(prev_term) {
            let (hint_index, hint_term) =
                self.log.find_agreement(prev_index, prev_term).unwrap_or(self.log.start());
            let outcome = AppendOutcome::Rejected { prev_index, hint_index, hint_term };
            return self.send_to(from, Message::AppendReply { outcome, disk_stalled: self.disk_stalled });
        }
        let end = Index(prev_index.0 + entries.len() as u64);
        if !self.append_new(from, entries) {
            return;
        }
        if mutants::is(Mutant::TruncateBehindAppend) && self.log.last() > end {
            self.log.truncate(end.next());
        }
        self.verified = self.verified.max(end);
        self.commit_up_to(commit);
        self.reply_once_durable(end);
    }

    /// The leader is told how much of its log is durable here: now, or when `end` is.
    pub(super) fn reply_once_durable(&mut self, end: Index) {
        self.reply_due = true;
        if self.log.durable() >= end || mutants::is(Mutant::SkipEntrySync) {
            self.reply_durable();
        }
    }

    /// Appends entries that are not there yet. Entries that agree stay, even behind the last entry of the message,
    /// which may be late. Returns false if the message contradicts what is committed.
    fn append_new(&mut self, from: NodeId, entries: Vec<Entry>) -> bool {
        for entry in entries {
            match self.log.term_at(entry.index) {
                _ if entry.index < self.log.start().0 => {}
                Some(term) if term == entry.term => {}
                Some(_) if entry.index <= self.commit => {
                    self.alarms.push(Alarm::ConflictBelowCommit {
                        from,
                        index: entry.index,
                        commit: self.commit,
                    });
                    return false;
                }
                Some(_) => {
                    self.log.truncate(entry.index);
                    self.log.append(entry);
                }
                None => self.log.append(entry),
            }
        }
        true
    }

    /// Takes a leader's commit index only as far as this log is known to agree with the leader's.
    fn commit_up_to(&mut self, commit: Index) {
        self.leader_commit = self.leader_commit.max(commit);
        let known = if mutants::is(Mutant::CommitUnverified) { self.log.last() } else { self.verified };
        self.commit = self.commit.max(commit.min(known));
        self.look_at_replay();
    }

    /// Tells the leader how far its log is on this disk.
    pub(super) fn reply_durable(&mut self) {
        let Some(leader) = self.leader else { return };
        if self.log.durable() < self.log.start().0 {
            return self.reply_due = true; // The log is not on the disk before it begins there where it begins here.
        }
        let on_disk = if mutants::is(Mutant::SkipEntrySync) { self.log.last() } else { self.log.durable() };
        let durable = self.verified.min(on_disk);
        self.reply_due = durable < self.verified;
        let outcome = AppendOutcome::Accepted { durable };
        self.send_to(leader, Message::AppendReply { outcome, disk_stalled: self.disk_stalled });
    }
}

/// Whether the entries can stand in one log behind `prev`, written by leaders up to `term`.
fn is_well_formed(term: Term, prev_index: Index, prev_term: Term, entries: &[Entry]) -> bool {
    let mut before = (prev_index, prev_term);
    for entry in entries {
        if entry.index.0.checked_sub(1) != Some(before.0.0) || entry.term < before.1 {
            return false;
        }
        before = (entry.index, entry.term);
    }
    before.1 <= term
}
