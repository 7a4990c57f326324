//! How much of a file is alive.

use raftqueue_queue::{State, TopicId};
use raftqueue_wal::Places;

/// What a message takes in a kept file beside its bytes.
pub const KEPT_MESSAGE_BYTES: u64 = 64;

/// What lives of the messages that a file tells of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Alive {
    pub(super) messages: u64,
    /// Taken as if the living messages of a topic were as large as its dead ones, but no more than the topic holds.
    pub(super) bytes: u64,
    pub(super) all_bytes: u64,
}

impl Alive {
    /// What the living messages would take in a kept file.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.bytes + self.messages * KEPT_MESSAGE_BYTES
    }

    pub(super) fn of(places: &Places, state: &State) -> Self {
        let mut alive = Self::default();
        for topic in places.topics() {
            let messages = state.live_count(TopicId(topic.topic), topic.first..topic.end).min(topic.messages);
            alive.messages += messages;
            alive.all_bytes += topic.bytes;
            let bytes = u128::from(topic.bytes) * u128::from(messages) / u128::from(topic.messages.max(1));
            let bytes = u64::try_from(bytes).expect("a part of the topic's bytes");
            // Never less than what lives: of a file that is all alive nothing is copied.
            alive.bytes += bytes.min(state.live_bytes_max(TopicId(topic.topic)));
        }
        alive
    }
}
