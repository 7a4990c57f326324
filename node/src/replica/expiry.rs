//! Time that passes although nobody asks for anything.
//!
//! Leases, delays and sessions end by the stamps of entries; on an idle cluster the leader proposes a `Time` command when
//! the earliest of them is due. The deadlines of ready messages are not in the queue's state: they stand with the places of
//! the messages, which the shell knows. So the replica asks for blocks whose least deadline has come, looks what is left of
//! them, and says when to look again. What is acknowledged or dead costs nothing more than the one look.

use super::due::DueBlock;
use super::mutants::{self, Mutant};
use super::{Replica, Results};
use raftqueue_queue::{Candidate, Command, EXPIRED_PER_APPLY_MAX, Overdue, SubscriptionId};
use std::collections::VecDeque;

/// A block of which something due is left is looked at again after this much log time: by then it should have died.
const LOOK_AGAIN_MS: u64 = 1_000;
/// The same, where its messages cannot be read.
const UNREADABLE_LOOK_AGAIN_MS: u64 = 10_000;
/// Bytes of calls that wait to be proposed beyond which no more deaths are added to them.
const QUEUED_BYTES_MAX: usize = 1 << 20;
/// Blocks asked for at once.
const BLOCKS_MAX: usize = 500;

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// Blocks to be looked at.
    due: VecDeque<DueBlock>,
    /// The shell was asked for more.
    is_asked: bool,
    /// A `Time` command is on its way.
    time_proposed: bool,
}

impl Deadlines {
    pub(super) fn time_applied(&mut self) {
        self.time_proposed = false;
    }
}

impl Replica {
    /// Log time as of now: the stamp that an entry made now would get.
    pub(super) fn log_time_ms(&mut self) -> u64 {
        self.clock
            .stamp(self.raft.id(), self.raft.configuration().voters(), self.now)
            .max(self.state.now_ms())
    }

    fn leads_with_all_applied(&self) -> bool {
        self.raft.term_start().is_some_and(|start| self.applied >= start)
    }

    /// On a tick: proposes what is due, unless other entries carry the time already.
    pub(super) fn propose_time(&mut self) {
        let leads = self.leads_with_all_applied();
        let now_ms = if leads { self.log_time_ms() } else { self.state.now_ms() };
        if leads {
            let due = self.state.earliest_deadline_ms().is_some_and(|deadline| deadline <= now_ms);
            if due && !self.deadlines.time_proposed && self.pipeline.entries() == 0 {
                self.deadlines.time_proposed = true;
                self.propose_later(None, Command::Time { overdue: Vec::new() });
            }
        } else {
            self.deadlines.time_proposed = false;
        }
        self.look_at_due(now_ms);
        if self.deadlines.due.is_empty() && !self.deadlines.is_asked && !self.raft.is_replaying() {
            self.deadlines.is_asked = true;
            self.actions.look_for_due = Some((now_ms, BLOCKS_MAX));
        }
    }

    /// Blocks whose deadlines have come: the answer to [`Actions::look_for_due`](super::Actions::look_for_due).
    pub(super) fn on_due(&mut self, blocks: Vec<DueBlock>) {
        self.deadlines.is_asked = false;
        self.deadlines.due.extend(blocks);
    }

    /// Looks at blocks whose deadlines have come: the leader has those looked up of which something is left.
    fn look_at_due(&mut self, now_ms: u64) {
        let leads = self.leads_with_all_applied();
        while self.steps.has_room()
            && self.unproposed.bytes() < QUEUED_BYTES_MAX
            && let Some(block) = self.deadlines.due.pop_front()
        {
            self.steps.take(1);
            let DueBlock { topic, first_offset, .. } = block;
            let undead = self.state.undead_run_from(topic, first_offset);
            if undead.is_none_or(|run| run.start >= block.end()) {
                if self.looks_on(block) {
                    self.actions.results.add_look_again(block, now_ms.saturating_add(LOOK_AGAIN_MS));
                }
                continue;
            }
            if !leads {
                // The leader sees to it.
                self.actions.results.add_look_again(block, now_ms.saturating_add(LOOK_AGAIN_MS));
                continue;
            }
            let offsets = self.undead_offsets(block);
            self.steps.take(offsets.len());
            if !offsets.is_empty() {
                self.look_up_overdue(block, offsets);
            }
        }
    }

    /// Whether a rule is broken, and a block in which nothing can die is looked at again.
    fn looks_on(&self, block: DueBlock) -> bool {
        let looks_on = |mutant, is_dead| {
            let mut live = self.state.live_runs(block.topic, block.first_offset..block.end());
            mutants::is(mutant) && live.next().is_some() == is_dead
        };
        looks_on(Mutant::LookAgainAtDead, true) || looks_on(Mutant::LookAgainAtGone, false)
    }

    /// What of a block may still die of its deadline.
    fn undead_offsets(&self, block: DueBlock) -> Vec<u64> {
        let mut offsets = Vec::new();
        let Some(subscription) = self.state.subscription(block.topic, SubscriptionId::DEFAULT) else {
            return offsets;
        };
        let mut from = block.first_offset;
        while let Some(run) = self.state.undead_run_from(block.topic, from)
            && run.start < block.end()
        {
            let run = run.start..run.end.min(block.end());
            from = run.end;
            offsets.extend(run.filter(|&offset| !subscription.is_deadline_waived(offset)));
        }
        offsets
    }

    /// A block was looked up.
    pub(super) fn on_overdue(&mut self, block: DueBlock, found: Vec<Candidate>, missing: usize) {
        let now_ms = self.log_time_ms();
        let (overdue, later): (Vec<_>, Vec<_>) = found
            .into_iter()
            .filter(|candidate| candidate.deadline_ms.is_some())
            .partition(|candidate| candidate.deadline_ms.is_some_and(|deadline| deadline <= now_ms));
        let subscription = self.state.subscription(block.topic, SubscriptionId::DEFAULT);
        let is_ready = |candidate: &Candidate| subscription.is_some_and(|s| s.is_ready(candidate.offset));
        // What is leased or delayed dies when it comes back.
        let overdue: Vec<_> = overdue.into_iter().filter(is_ready).collect();
        let later = later.iter().filter_map(|candidate| candidate.deadline_ms).min();
        let again = (!overdue.is_empty()).then(|| now_ms.saturating_add(LOOK_AGAIN_MS));
        let unread = (missing > 0).then(|| now_ms.saturating_add(UNREADABLE_LOOK_AGAIN_MS));
        if let Some(next_ms) = [later, again, unread].into_iter().flatten().min() {
            self.actions.results.add_look_again(block, next_ms);
        }
        for candidates in overdue.chunks(EXPIRED_PER_APPLY_MAX) {
            let subscription = SubscriptionId::DEFAULT;
            let overdue = vec![Overdue { topic: block.topic, subscription, candidates: candidates.to_vec() }];
            self.propose_later(None, Command::Time { overdue });
        }
    }

    /// Lookups of these blocks were given up with the lead.
    pub(super) fn look_again_at(results: &mut Results, blocks: impl Iterator<Item = DueBlock>, now_ms: u64) {
        blocks.for_each(|block| results.add_look_again(block, now_ms));
    }
}
