//! What ends because time passes, although nobody asks for anything.
//!
//! Leases, delays and sessions end by the stamps of entries. On an idle cluster the leader proposes a `Time` command
//! when the earliest of them is due. The deadlines of ready messages are not in the queue's state. If a publish had
//! deadlines, its block of offsets is noted here, and looked at again when the earliest has come.

use super::Replica;
use raftqueue_queue::{
    Candidate, Command, EXPIRED_PER_APPLY_MAX, MessageMeta, Overdue, SubscriptionId, TopicId,
};
use std::collections::{BTreeMap, BTreeSet};

/// A block with messages that were leased or delayed when it was looked at is looked at again after this much log time.
const LOOK_AGAIN_MS: u64 = 10_000;
/// Blocks looked at in one tick.
const BLOCKS_PER_TICK_MAX: usize = 100;

/// When to look at a block next, its topic, its first offset.
pub(super) type Block = (u64, TopicId, u64);

/// Blocks of one topic: when to look at each next and its first offset, and how many offsets it has.
type Blocks = BTreeMap<(u64, u64), u64>;

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// Every block with deadlines.
    topics: BTreeMap<TopicId, Blocks>,
    /// When to look at the first block of each topic.
    next: BTreeSet<(u64, TopicId)>,
    /// Blocks of topics that are gone, to be dropped piece by piece.
    gone: Vec<Blocks>,
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
            self.insert((deadline_ms, topic, first), messages.len() as u64);
        }
    }

    pub(super) fn forget(&mut self, topic: TopicId) {
        let Some(blocks) = self.topics.remove(&topic) else { return };
        if let Some((&(when, _), _)) = blocks.first_key_value() {
            self.next.remove(&(when, topic));
        }
        self.gone.push(blocks);
    }

    fn insert(&mut self, (when, topic, first): Block, count: u64) {
        let blocks = self.topics.entry(topic).or_default();
        let before = blocks.first_key_value().map(|(&(when, _), _)| when);
        blocks.insert((when, first), count);
        if before.is_none_or(|before| when < before) {
            if let Some(before) = before {
                self.next.remove(&(before, topic));
            }
            self.next.insert((when, topic));
        }
    }

    fn remove(&mut self, (when, topic, first): Block) -> Option<u64> {
        let blocks = self.topics.get_mut(&topic)?;
        let count = blocks.remove(&(when, first))?;
        let after = blocks.first_key_value().map(|(&(when, _), _)| when);
        if after != Some(when) {
            // It may have been the first.
            self.next.remove(&(when, topic));
        }
        if let Some(after) = after {
            self.next.insert((after, topic));
        } else {
            self.topics.remove(&topic);
        }
        Some(count)
    }

    /// The block to be looked at first, if it is due by now; it is taken out.
    fn pop_due(&mut self, now_ms: u64) -> Option<(Block, u64)> {
        let &(when, topic) = self.next.first().filter(|(when, _)| *when <= now_ms)?;
        let (&(_, first), _) = self.topics.get(&topic)?.first_key_value()?;
        let block = (when, topic, first);
        Some((block, self.remove(block)?))
    }

    #[cfg(test)]
    pub(super) fn has_forgotten(&self) -> bool {
        self.gone.is_empty()
    }

    /// Drops a block of a topic that is gone. Returns whether there was one.
    fn drop_gone(&mut self) -> bool {
        let Some(blocks) = self.gone.last_mut() else { return false };
        if blocks.pop_first().is_none() {
            self.gone.pop();
        }
        true
    }

    pub(super) fn time_applied(&mut self) {
        self.time_proposed = false;
    }

    /// A block was looked up. `later` are its messages that are not due yet; it is looked at again when the next of
    /// them is due.
    pub(super) fn looked_up(&mut self, block: Block, later: &[Candidate]) {
        let next = later.iter().filter_map(|candidate| candidate.deadline_ms).min();
        if let Some(next_ms) = next.filter(|next_ms| *next_ms < block.0)
            && let Some(count) = self.remove(block)
        {
            self.insert((next_ms, block.1, block.2), count);
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
            self.drop_done_blocks(self.state.now_ms());
            return;
        }
        let now_ms = self.log_time_ms();
        let due = self.state.earliest_deadline_ms().is_some_and(|deadline| deadline <= now_ms);
        if due && !self.deadlines.time_proposed && self.in_flight == 0 {
            self.deadlines.time_proposed = true;
            self.propose_later(None, Command::Time { overdue: Vec::new() });
        }
        for (block, offsets) in self.drop_done_blocks(now_ms) {
            self.look_up_overdue(block, offsets);
        }
    }

    /// Drops the due blocks whose messages are all done with, and returns the ready messages of the others.
    fn drop_done_blocks(&mut self, now_ms: u64) -> Vec<(Block, Vec<u64>)> {
        let mut ready = Vec::new();
        // At most half of the steps go here. So a deleted topic with a million blocks does not hold up those of other
        // topics.
        while self.steps.has_half_room() && self.deadlines.drop_gone() {
            self.steps.take(1);
        }
        for _ in 0..BLOCKS_PER_TICK_MAX {
            if !self.steps.has_room() {
                break;
            }
            let Some(((_, topic, first), count)) = self.deadlines.pop_due(now_ms) else { break };
            self.steps.take(1);
            let Some(topic_state) = self.state.topic(topic) else { continue };
            let Some(subscription) = topic_state.subscription(SubscriptionId::DEFAULT) else { continue };
            let end = first.saturating_add(count);
            let waiting: Vec<u64> = subscription
                .ready_from(first)
                .take_while(|offset| *offset < end)
                .filter(|offset| !subscription.is_deadline_waived(*offset))
                .collect();
            self.steps.take(waiting.len());
            let live = topic_state.live_run_from(first).is_some_and(|run| run.start < end);
            if live {
                let again = (now_ms.saturating_add(LOOK_AGAIN_MS), topic, first);
                self.deadlines.insert(again, count);
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
            self.propose_later(None, Command::Time { overdue });
        }
    }
}
