//! A state with the few calls that these tests make.

use raftqueue_queue::{
    ApplyMeta, Candidate, Command, Effects, Generation, LeaseId, LeaseResult, MessageMeta, Reply, State,
    Stats, SubscriptionId, Token, TopicId, TopicSettings,
};

pub(crate) const DEFAULT: SubscriptionId = SubscriptionId::DEFAULT;

/// A state with a clock and an index that rises.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) state: State,
    index: u64,
    pub(crate) now_ms: u64,
}

impl Queue {
    pub(crate) fn apply(&mut self, command: &Command) -> Reply {
        self.apply_wholly(command).0
    }

    pub(crate) fn apply_wholly(&mut self, command: &Command) -> (Reply, Effects) {
        self.index += 1;
        self.state.apply(&ApplyMeta { index: self.index, now_ms: self.now_ms, version: 1 }, command)
    }

    /// Another one that holds the same.
    pub(crate) fn copy(&self) -> Queue {
        Queue { state: self.state.clone(), ..*self }
    }

    pub(crate) fn create(&mut self, name: &str) -> TopicId {
        let settings = TopicSettings { attempts_max: 2, ..TopicSettings::default() };
        let create =
            Command::CreateTopic { name: name.to_string(), settings, topics_max: 100_000, request_id: None };
        match self.apply(&create) {
            Reply::Created { topic, .. } => topic,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn publish(&mut self, name: &str, count: usize) {
        let message = MessageMeta { size: 100, ..MessageMeta::default() };
        let publish =
            Command::Publish { topic: name.to_string(), session: None, messages: vec![message; count] };
        assert!(matches!(self.apply(&publish), Reply::Published { .. }));
    }

    pub(crate) fn receive(&mut self, topic: TopicId, offsets: impl Iterator<Item = u64>) -> Token {
        let candidate = |offset| Candidate { offset, size: 100, deadline_ms: None };
        let candidates: Vec<Candidate> = offsets.map(candidate).collect();
        let count = candidates.len();
        match self.apply(&Command::Receive { topic, subscription: DEFAULT, candidates, lease_ms: 30_000 }) {
            Reply::Received { token, deliveries, .. } if deliveries.len() == count => token,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ack(&mut self, topic: TopicId, token: Token, offsets: impl Iterator<Item = u64>) {
        let leases = leases(token, offsets);
        match self.apply(&Command::Ack { topic, subscription: DEFAULT, leases }) {
            Reply::Settled { results } if results.iter().all(|result| *result == LeaseResult::Done) => {}
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn nack(&mut self, topic: TopicId, token: Token, offsets: impl Iterator<Item = u64>) {
        let leases = leases(token, offsets);
        let nack = Command::Nack { topic, subscription: DEFAULT, leases, delay_ms: 0, reason: None };
        assert!(matches!(self.apply(&nack), Reply::Settled { .. }));
    }

    pub(crate) fn nack_because(
        &mut self,
        topic: TopicId,
        token: Token,
        offsets: impl Iterator<Item = u64>,
        reason: &str,
    ) {
        let (leases, reason) = (leases(token, offsets), Some(reason.to_string()));
        let nack = Command::Nack { topic, subscription: DEFAULT, leases, delay_ms: 0, reason };
        assert!(matches!(self.apply(&nack), Reply::Settled { .. }));
    }

    pub(crate) fn stats(&self, topic: TopicId) -> Stats {
        self.state.subscription(topic, DEFAULT).expect("the topic was made").stats()
    }
}

fn leases(token: Token, offsets: impl Iterator<Item = u64>) -> Vec<LeaseId> {
    offsets.map(|offset| LeaseId { generation: Generation(0), offset, token }).collect()
}
