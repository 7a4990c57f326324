//! Answers about topics.

use raftqueue_proto::v1;
use serde::Serialize;

answer! {
    /// The topic is there.
    TopicCreated {
        /// Its id: unique for ever, and rising with every creation.
        topic_id: u64,
    }
}

answer! {
    /// Settings as in force.
    TopicOptions {
        /// Failed attempts after which a message is dead.
        #[serde(skip_serializing_if = "Option::is_none")]
        attempts_max: Option<u32>,
        /// Most messages held; absent: no limit.
        #[serde(skip_serializing_if = "Option::is_none")]
        messages_max: Option<u64>,
        /// Most bytes held; absent: no limit.
        #[serde(skip_serializing_if = "Option::is_none")]
        bytes_max: Option<u64>,
        /// Time to live of messages that bring none, in milliseconds; absent: for ever.
        #[serde(skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
    }
}

answer! {
    /// The counts of one subscription.
    Subscription {
        /// `default` for the plain queue.
        name: String,
        /// Messages waiting to be received.
        ready: u64,
        /// Messages out with consumers.
        leased: u64,
        /// Messages waiting for their time.
        delayed: u64,
        /// Messages given up, and kept.
        dead: u64,
    }
}

answer! {
    /// A topic with its counts, as of one moment of the log.
    Topic {
        /// Its id.
        id: u64,
        /// Its name.
        name: String,
        /// When it was created, in milliseconds of log time (Unix epoch).
        created_ms: u64,
        /// Its settings.
        options: TopicOptions,
        /// The offset that the next message gets.
        next_offset: u64,
        /// Bytes held in all states, as they are stored.
        bytes: u64,
        /// Every subscription with its counts.
        subscriptions: Vec<Subscription>,
    }
}

answer! {
    /// What a topic allows now.
    TopicUpdated {
        /// All its settings.
        options: TopicOptions,
    }
}

answer! {
    /// One page of topics.
    Topics {
        /// In order of creation.
        topics: Vec<Topic>,
        /// Others follow: ask again after the id of the last one here.
        more: bool,
    }
}

from! {
    CreateTopicResponse => TopicCreated: |answer| Self { topic_id: answer.topic_id };
    UpdateTopicResponse => TopicUpdated: |answer| Self { options: answer.options.unwrap_or_default().into() };
    DescribeTopicResponse => Topic: |answer| answer.topic.unwrap_or_default().into();
    ListTopicsResponse => Topics: |answer| Self {
        topics: answer.topics.into_iter().map(Into::into).collect(),
        more: answer.more,
    };
    TopicInfo => Topic: |topic| Self {
        id: topic.id,
        name: topic.name,
        created_ms: topic.created_ms,
        options: topic.options.unwrap_or_default().into(),
        next_offset: topic.next_offset,
        bytes: topic.bytes,
        subscriptions: topic.subscriptions.into_iter().map(Into::into).collect(),
    };
    TopicOptions => TopicOptions: |options| Self {
        attempts_max: options.attempts_max,
        messages_max: options.messages_max,
        bytes_max: options.bytes_max,
        ttl_ms: options.ttl_ms,
    };
    SubscriptionInfo => Subscription: |counts| Self {
        name: counts.name,
        ready: counts.ready,
        leased: counts.leased,
        delayed: counts.delayed,
        dead: counts.dead,
    };
}
