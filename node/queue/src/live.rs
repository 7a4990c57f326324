//! Which messages are still needed: what decides about files of bodies, and about deadlines.
//!
//! # When a ready message has outlived its deadline
//!
//! A ready message is part of a run, and a run does not know deadlines: the log does, block by block (a block is what one
//! entry published). So a message stays ready although its deadline has passed until the leader says so, with
//! [`Command::Time`](crate::Command::Time). Everywhere else the state knows the deadline of a message itself, in its lease or
//! delay, and nothing comes back to ready with a deadline that has passed at [`State::now_ms`]: whatever is returned by a nack,
//! a release, the end of a lease or of a delay is dead at that moment instead (a nack with a delay decides when the delay
//! ends). What a redrive brings back does not count by its deadline any more.
//!
//! Hence a leader that looks at a block **once `State::now_ms` has reached the deadlines in it** has to look at it once:
//!
//! - those of its messages that are ready and not waived are overdue, and it proposes them;
//! - those that are leased or delayed die by themselves when they come back;
//! - those that are dead, acknowledged or redriven do not matter, and no return makes them matter again.
//!
//! Three things are still the leader's. Its clock runs ahead of `State::now_ms`: an entry on its way may carry an earlier stamp,
//! and return a message of the block at a time when its deadline had not passed. So a look by the clock is not the last one; a
//! look by `State::now_ms` is. What it proposes may do nothing: an apply ends at most
//! [`EXPIRED_PER_APPLY_MAX`](crate::EXPIRED_PER_APPLY_MAX) things, and candidates whose sizes cannot be are left alone. So a
//! block is done with when none of the proposed ones is ready after the command was applied, not when it was proposed. And a
//! new leader knows nothing of all this: it looks at every block that is due and still has an undead message
//! ([`State::undead_run_from`]), and finds of most that nothing is there.
//!
//! A receive or pop that takes such a message before that is right too: it brings the deadline from the log, and the message
//! dies instead of being delivered.

use crate::TopicId;
use crate::state::State;
use crate::subscription::Subscription;
use crate::topic::Topic;
use std::iter::Peekable;
use std::ops::Range;

/// Runs of offsets in rising order.
type Runs<'a> = Box<dyn Iterator<Item = Range<u64>> + 'a>;

impl State {
    /// Whether the body of a message is still needed. False for a topic that is gone.
    #[must_use]
    pub fn is_live(&self, topic: TopicId, offset: u64) -> bool {
        self.topic(topic).is_some_and(|topic| topic.is_live(offset))
    }

    /// How many messages of a topic in this range are still needed, by a subscription or by the repeat of a pop; none of a
    /// topic that is gone. The cost is by the runs and entries in the range.
    #[must_use]
    pub fn live_count(&self, topic: TopicId, offsets: Range<u64>) -> u64 {
        self.live_runs(topic, offsets).map(|run| run.end - run.start).sum()
    }

    /// Those messages, as runs that rise and stand apart. The cost is by the runs and entries passed.
    pub fn live_runs(&self, topic: TopicId, offsets: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let topic = self.topic(topic);
        topic.into_iter().flat_map(move |topic| topic.live_runs(offsets.clone()))
    }

    /// The first run of messages at or after an offset that are ready, leased or delayed in some subscription: those whose
    /// deadline may still matter. What is dead, acknowledged or only kept for the repeat of a pop does not count. Costs no
    /// time by messages; the run behind it may touch it.
    #[must_use]
    pub fn undead_run_from(&self, topic: TopicId, offset: u64) -> Option<Range<u64>> {
        let subscriptions = self.topic(topic)?.subscriptions.values();
        let runs = subscriptions.filter_map(|subscription| subscription.undead_run_from(offset));
        runs.min_by_key(|run| run.start)
    }
}

impl Topic {
    /// Whether the body of a message is still needed: by a subscription, or by the repeat of a pop.
    #[must_use]
    pub fn is_live(&self, offset: u64) -> bool {
        self.kept.contains(offset)
            || self.subscriptions.values().any(|subscription| subscription.is_live(offset))
    }

    /// The first run of live offsets at or after `from`. Runs of one listing may touch.
    #[must_use]
    pub fn live_run_from(&self, from: u64) -> Option<Range<u64>> {
        let kept = self.kept.iter_from(from).next();
        let runs = self.subscriptions.values().filter_map(|subscription| subscription.live_run_from(from));
        runs.chain(kept).reduce(|left, right| {
            let (first, second) = if left.start <= right.start { (left, right) } else { (right, left) };
            if second.start <= first.end { first.start..first.end.max(second.end) } else { first }
        })
    }

    /// All live offsets in a range, as runs that rise and stand apart. The cost is by the runs and entries passed, so a
    /// caller on the driver should stop in time and go on later from there.
    pub fn live_runs(&self, offsets: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let from = offsets.start;
        let mut sources = vec![Box::new(self.kept.iter_from(from)) as Runs<'_>];
        for subscription in self.subscriptions.values() {
            sources.extend(subscription.runs_from(from));
        }
        Union { sources: sources.into_iter().map(Iterator::peekable).collect(), end: offsets.end }
    }
}

impl Subscription {
    /// Whether the message is anywhere here: ready, leased, delayed or dead.
    #[must_use]
    pub fn is_live(&self, offset: u64) -> bool {
        self.ready.contains(offset)
            || self.leased.contains_key(&offset)
            || self.delayed.contains_key(&offset)
            || self.dead.contains(offset)
            || self.redriven.contains(offset)
    }

    /// The first run of live offsets at or after `from`; the run behind it may touch it.
    fn live_run_from(&self, from: u64) -> Option<Range<u64>> {
        let dead = self.dead.iter_from(from).next().map(|run| run.offsets);
        [self.undead_run_from(from), dead].into_iter().flatten().min_by_key(|run| run.start)
    }

    /// The same of what is not dead.
    fn undead_run_from(&self, from: u64) -> Option<Range<u64>> {
        let leased = self.leased.ceiling(&from).map(|(&offset, _)| offset..offset + 1);
        let delayed = self.delayed.ceiling(&from).map(|(&offset, _)| offset..offset + 1);
        let ready = self.ready.iter_from(from).next();
        let redriven = self.redriven.iter_from(from).next().map(|run| run.offsets);
        [ready, leased, delayed, redriven].into_iter().flatten().min_by_key(|run| run.start)
    }

    /// All live offsets from one on, state by state.
    fn runs_from(&self, from: u64) -> [Runs<'_>; 5] {
        [
            Box::new(self.ready.iter_from(from)),
            Box::new(self.leased.iter_from(&from).map(|(&offset, _)| offset..offset + 1)),
            Box::new(self.delayed.iter_from(&from).map(|(&offset, _)| offset..offset + 1)),
            Box::new(self.dead.offsets_from(from)),
            Box::new(self.redriven.offsets_from(from)),
        ]
    }
}

/// The union of runs from several sources, which may overlap.
struct Union<'a> {
    sources: Vec<Peekable<Runs<'a>>>,
    /// Nothing from here on is asked for.
    end: u64,
}

impl Iterator for Union<'_> {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        let starts = self.sources.iter_mut().filter_map(|source| source.peek().map(|run| run.start));
        let start = starts.min().filter(|start| *start < self.end)?;
        let mut end = start;
        loop {
            let before = end;
            for source in &mut self.sources {
                while let Some(run) = source.next_if(|run| run.start <= end) {
                    end = end.max(run.end);
                }
            }
            if end == before || end >= self.end {
                return Some(start..end.min(self.end));
            }
        }
    }
}
