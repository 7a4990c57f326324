//! What a leader does around a state: stamps entries, and looks up sizes and deadlines in its log.

use raftqueue_queue::{
    ApplyMeta, Candidate, Command, Effects, MessageSize, Overdue, Reply, State, SubscriptionId, TopicId,
};
use std::collections::BTreeMap;

/// A state with a log beside it.
#[derive(Default)]
pub(crate) struct Leader {
    pub(crate) state: State,
    pub(crate) now_ms: u64,
    index: u64,
    /// Size and deadline of every message by topic and offset.
    log: BTreeMap<(TopicId, u64), (u32, Option<u64>)>,
}

impl Leader {
    /// Applies a command in an entry of its own, or in the one before.
    pub(crate) fn apply(&mut self, command: &Command, is_same_entry: bool) -> (Reply, Effects) {
        self.index += u64::from(!is_same_entry);
        let meta = ApplyMeta { index: self.index, now_ms: self.now_ms, version: 1 };
        let (reply, effects) = self.state.apply(&meta, command);
        if let Reply::Published { topic, first_offset, repeated: false, .. } = reply
            && let Command::Publish { messages, .. } = command
        {
            for (offset, message) in (first_offset..).zip(messages) {
                self.log.insert((topic, offset), (message.size, message.deadline_ms(self.now_ms)));
            }
        }
        (reply, effects)
    }

    pub(crate) fn candidates(&self, topic: TopicId, offsets: &[u64]) -> Vec<Candidate> {
        let candidate = |&offset: &u64| {
            let (size, deadline_ms) = self.log.get(&(topic, offset)).copied().unwrap_or_default();
            Candidate { offset, size, deadline_ms }
        };
        offsets.iter().map(candidate).collect()
    }

    pub(crate) fn sizes(&self, topic: TopicId, offsets: &[u64]) -> Vec<MessageSize> {
        let size = |candidate: Candidate| MessageSize { offset: candidate.offset, size: candidate.size };
        self.candidates(topic, offsets).into_iter().map(size).collect()
    }

    /// The command with everything that is overdue now.
    pub(crate) fn tick(&self) -> Command {
        let mut overdue = Vec::new();
        for topic in self.state.topics() {
            let held = topic.subscription(SubscriptionId::DEFAULT).expect("every topic has a default");
            let offsets: Vec<u64> =
                held.ready_from(0).filter(|&offset| !held.is_deadline_waived(offset)).collect();
            let mut candidates = self.candidates(topic.id(), &offsets);
            candidates
                .retain(|candidate| candidate.deadline_ms.is_some_and(|deadline| deadline <= self.now_ms));
            if !candidates.is_empty() {
                overdue.push(Overdue {
                    topic: topic.id(),
                    subscription: SubscriptionId::DEFAULT,
                    candidates,
                });
            }
        }
        Command::Time { overdue }
    }
}
