//! Time that passes although nobody asks for anything.
//!
//! Leases, delays and sessions end by the stamps of entries; on an idle cluster the leader proposes a `Time` command when
//! the earliest of them is due. The deadlines of ready messages are not in the queue's state: where a publish had any, its
//! block of offsets is noted here, and looked at again when its earliest deadline has come.

use super::Replica;
use raftqueue_queue::{
    Candidate, Command, EXPIRED_PER_APPLY_MAX, MessageMeta, Overdue, SubscriptionId, TopicId,
};
use std::collections::BTreeMap;

/// A block with messages that were leased or delayed when it was looked at is looked at again after this much log time.
const LOOK_AGAIN_MS: u64 = 10_000;
/// Blocks looked at in one tick.
const BLOCKS_PER_TICK_MAX: usize = 100;

/// When to look at a block next, its topic, its first offset.
pub(super) type Block = (u64, TopicId, u64);

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// Every block with deadlines, and how many offsets it has.
    blocks: BTreeMap<Block, u64>,
    /// A `Time` command is on its way.
    time_proposed: bool,
}

impl Deadlines {
    pub(super) fn published(
        &mut self,
        topic: TopicId,
        first: u64,
        published_ms: u64,
        messages: &[MessageMeta],
    ) {
        let earliest = messages.iter().filter_map(|message| message.deadline_ms(published_ms)).min();
        if let Some(deadline_ms) = earliest {
            self.blocks.insert((deadline_ms, topic, first), messages.len() as u64);
        }
    }

    pub(super) fn forget(&mut self, topic: TopicId) {
        self.blocks.retain(|(_, other, _), _| *other != topic);
    }

    pub(super) fn time_applied(&mut self) {
        self.time_proposed = false;
    }

    /// A block was looked up; `later` are those of its messages that are not due yet. It is looked at again when the
    /// next of them is.
    pub(super) fn looked_up(&mut self, block: Block, later: &[Candidate]) {
        let next = later.iter().filter_map(|candidate| candidate.deadline_ms).min();
        if let Some(next_ms) = next.filter(|next_ms| *next_ms < block.0)
            && let Some(count) = self.blocks.remove(&block)
        {
            self.blocks.insert((next_ms, block.1, block.2), count);
        }
    }
}

impl Replica {
    /// Log time as of now: the stamp that an entry made now would get.
    pub(super) fn log_time_ms(&mut self) -> u64 {
        self.clock
            .stamp(self.raft.id(), self.raft.configuration().voters(), self.now)
            .max(self.state.now_ms())
    }

    /// On a tick: proposes what is due, unless other entries carry the time already.
    pub(super) fn propose_time(&mut self) {
        let leads = self.raft.term_start().is_some_and(|start| self.applied >= start);
        if !leads {
            self.deadlines.time_proposed = false;
            self.drop_settled_blocks(self.state.now_ms());
            return;
        }
        let now_ms = self.log_time_ms();
        let due = self.state.earliest_deadline_ms().is_some_and(|deadline| deadline <= now_ms);
        if due && !self.deadlines.time_proposed && self.in_flight == 0 {
            self.deadlines.time_proposed = true;
            self.enqueue(None, Command::Time { overdue: Vec::new() });
        }
        for (block, offsets) in self.drop_settled_blocks(now_ms) {
            self.look_up_overdue(block, offsets);
        }
    }

    /// Drops the due blocks of which nothing is left, and returns what is ready of the others.
    fn drop_settled_blocks(&mut self, now_ms: u64) -> Vec<(Block, Vec<u64>)> {
        let mut ready = Vec::new();
        for _ in 0..BLOCKS_PER_TICK_MAX {
            let Some(block) = self.deadlines.blocks.first_entry() else { break };
            let (when, topic, first) = *block.key();
            if when > now_ms {
                break;
            }
            let count = block.remove();
            let Some(topic_state) = self.state.topic(topic) else { continue };
            let Some(subscription) = topic_state.subscription(SubscriptionId::DEFAULT) else { continue };
            let end = first + count;
            let waiting: Vec<u64> = subscription
                .ready_from(first)
                .take_while(|offset| *offset < end)
                .filter(|offset| !subscription.is_deadline_waived(*offset))
                .collect();
            let live = topic_state.live_run_from(first).is_some_and(|run| run.start < end);
            if live {
                let again = (now_ms.saturating_add(LOOK_AGAIN_MS), topic, first);
                self.deadlines.blocks.insert(again, count);
                if !waiting.is_empty() {
                    ready.push((again, waiting));
                }
            }
        }
        ready
    }

    pub(super) fn propose_overdue(&mut self, topic: TopicId, overdue: &[Candidate]) {
        for candidates in overdue.chunks(EXPIRED_PER_APPLY_MAX) {
            let subscription = SubscriptionId::DEFAULT;
            let overdue = vec![Overdue { topic, subscription, candidates: candidates.to_vec() }];
            self.enqueue(None, Command::Time { overdue });
        }
    }
}
