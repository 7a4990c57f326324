//! Calls about topics, sessions and the cluster.

use super::{AtMost, Call, Routes, json, null_is_absent, read_hex};
use crate::api::{Failure, Method};
use crate::edges::service::Service;
use raftqueue_proto::v1;
use serde::Deserialize;

/// Settings that a topic has.
const SETTINGS: usize = 4;

request! {
    /// Settings of a topic.
    CreateTopicOptions {
        /// Failed attempts after which a message is dead (kept, not dropped). Default: the node's, 16. At least 1.
        attempts_max: Option<u32>,
        /// Most messages held, dead ones included. Default: no limit.
        messages_max: Option<u64>,
        /// Most bytes held, dead messages included. Default: no limit.
        bytes_max: Option<u64>,
        /// Time to live of messages that bring none, in milliseconds; 1 to 316,224,000,000 (ten years). Default: they
        /// live for ever.
        ttl_ms: Option<u64>,
    }
}

request! {
    /// A topic to be made.
    CreateTopic {
        /// Its name: 1 to 255 bytes of UTF-8 without control characters.
        topic: String,
        /// Settings; all have defaults.
        options: CreateTopicOptions,
        /// 32 hexadecimal digits, random: a repeat of this very call succeeds.
        request_id: String,
    }
}

request! {
    /// What of a topic's settings is to change.
    UpdateTopic {
        /// The settings that change; those that are absent stay.
        options: CreateTopicOptions,
        /// Settings that get their defaults back, by name: `attempts_max`, `messages_max`, `bytes_max`, `ttl_ms`.
        unset: AtMost<SETTINGS, String>,
    }
}

request! {
    /// A page of topics.
    ListTopics {
        /// Continue after the topic with this id.
        after: Option<u64>,
        /// Most topics in the reply, 1 to 10,000. Default: 1,000.
        topics_max: u32,
    }
}

request! {
    /// A session to be opened.
    OpenSession {
        /// A name makes the session survive its process, and fences the predecessor.
        name: Option<String>,
    }
}

request! {
    /// Leadership to be handed over.
    TransferLeadership {
        /// A node by id or name. Default: the follower that is furthest.
        to: Option<String>,
    }
}

impl From<CreateTopicOptions> for v1::TopicOptions {
    fn from(options: CreateTopicOptions) -> Self {
        let CreateTopicOptions { attempts_max, messages_max, bytes_max, ttl_ms } = options;
        Self { attempts_max, messages_max, bytes_max, ttl_ms }
    }
}

call!(CreateTopic => CreateTopicRequest, CreateTopicResponse as TopicCreated: |self, _name| v1::CreateTopicRequest {
    topic: self.topic,
    options: Some(self.options.into()),
    request_id: read_hex("request_id", &self.request_id)?,
});
call!(UpdateTopic => UpdateTopicRequest, UpdateTopicResponse as TopicUpdated: |self, topic| v1::UpdateTopicRequest {
    topic,
    options: Some(self.options.into()),
    unset: self.unset.0,
});
call!(ListTopics => ListTopicsRequest, ListTopicsResponse as Topics: |self, _name| v1::ListTopicsRequest {
    after: self.after,
    topics_max: self.topics_max,
});
call!(OpenSession => OpenSessionRequest, OpenSessionResponse as Session: |self, _name| v1::OpenSessionRequest {
    name: self.name,
});
call!(TransferLeadership => TransferLeadershipRequest, TransferLeadershipResponse as Transferred: |self, _name|
    v1::TransferLeadershipRequest { to: self.to });

bare!(
    /// Nothing to say.
    DeleteTopic(topic) => DeleteTopicRequest, DeleteTopicResponse as Done: v1::DeleteTopicRequest { topic }
);
bare!(
    /// Nothing to say.
    DescribeTopic(topic) => DescribeTopicRequest, DescribeTopicResponse as Topic: v1::DescribeTopicRequest { topic }
);
bare!(
    /// Nothing to say.
    CloseSession(session) => CloseSessionRequest, CloseSessionResponse as Done:
        v1::CloseSessionRequest { session: read_hex("session", &session)? }
);
bare!(
    /// Nothing to say.
    ClusterStatus(_name) => ClusterStatusRequest, ClusterStatusResponse as Cluster: v1::ClusterStatusRequest {}
);

/// The routes of topics.
pub(super) fn add_topics<S: Service>(routes: &mut Routes<S>) {
    routes.post::<CreateTopic>("/v1/topics", "createTopic", "Make a topic");
    routes.query::<ListTopics>("/v1/topics", "listTopics", "List topics in order of creation");
    routes.get::<DescribeTopic>("/v1/topics/{topic}", "describeTopic", "One topic with its counts");
    routes.patch::<UpdateTopic>("/v1/topics/{topic}", "updateTopic", "Change what a topic allows");
    let about = "Delete a topic with all its messages";
    routes.delete::<DeleteTopic>("/v1/topics/{topic}", "deleteTopic", about);
}

/// The routes of sessions and of the cluster.
pub(super) fn add_others<S: Service>(routes: &mut Routes<S>) {
    routes.post::<OpenSession>("/v1/sessions", "openSession", "Open a producer session");
    routes.delete::<CloseSession>("/v1/sessions/{session}", "closeSession", "End a producer session");
    routes.get::<ClusterStatus>("/v1/cluster", "clusterStatus", "The cluster as its leader sees it");
    let about = "Hand leadership to another node";
    routes.post::<TransferLeadership>("/v1/cluster/transfer", "transferLeadership", about);
}
