//! What the full JSON API takes: the contract's own requests, spelled in JSON.
//!
//! Fields that are not known are refused: a misspelled `lease_ms` would otherwise lease for another time than was asked
//! for, and nobody would know. Everything that is left out, or `null`, has the contract's default.

use super::Call;
use crate::api::Failure;
use crate::api::budget::Share;
use crate::api::limits::{Limits, invalid};
use bytes::Bytes;
use raftqueue_proto::text::{unbase64, unhex};
use raftqueue_proto::v1;
use raftqueue_queue::PUBLISH_MESSAGES_MAX;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;

use super::answers as json;

/// Headers of one message, of which there may be fewer.
const HEADERS_MAX: usize = raftqueue_queue::HEADERS_MAX as usize;

/// A list of which no more is kept than tells that it is too long: two bytes of JSON may stand for a hundred of memory.
#[derive(Debug)]
pub(in crate::edges::http) struct AtMost<const MAX: usize, T>(Vec<T>);

#[cfg(test)]
impl<const MAX: usize, T> AtMost<MAX, T> {
    /// How many it has.
    pub(in crate::edges::http) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<const MAX: usize, T> Default for AtMost<MAX, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, const MAX: usize, T: Deserialize<'de>> Deserialize<'de> for AtMost<MAX, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(List::<MAX, T>(PhantomData))
    }
}

struct List<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for List<MAX, T> {
    type Value = AtMost<MAX, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() <= MAX
            && let Some(item) = list.next_element()?
        {
            kept.push(item);
        }
        if kept.len() > MAX {
            while list.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(AtMost(kept))
    }
}

#[cfg(test)]
impl<const MAX: usize, T: schemars::JsonSchema> schemars::JsonSchema for AtMost<MAX, T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        Vec::<T>::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Vec::<T>::json_schema(generator)
    }
}

/// A request: fields, as in the contract, with their documentation.
macro_rules! request {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$field_doc])* #[serde(deserialize_with = "null_is_absent")] pub(super) $field: $type,)*
        }
    };
}

/// What is `null` is as if it were left out: generated clients write it so.
fn null_is_absent<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(field: D) -> Result<T, D::Error> {
    Option::deserialize(field).map(Option::unwrap_or_default)
}

request! {
    /// Settings of a topic, fixed when it is created.
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
    /// A page of topics.
    ListTopics {
        /// Continue after the topic with this id.
        after: Option<u64>,
        /// Most topics in the reply, 1 to 10,000. Default: 1,000.
        topics_max: u32,
    }
}

request! {
    /// Nothing to say.
    Nothing {}
}

request! {
    /// The place of a publish in a session: what makes its repeat harmless.
    SessionStep {
        /// The session, as it was opened.
        session: String,
        /// 1 for the first publish of this session to this topic, then one more each time.
        sequence: u64,
    }
}

request! {
    /// One header of a message.
    PublishHeader {
        /// Its name, not empty. Names may repeat.
        name: String,
        /// Its value, as text.
        value: Option<String>,
        /// Its value where it is no text, in base64.
        value_base64: Option<String>,
    }
}

request! {
    /// A message to be published.
    PublishMessage {
        /// The content, as text.
        body: Option<String>,
        /// The content where it is no text, in base64. One of the two must be given.
        body_base64: Option<String>,
        /// CRC32C of the content's bytes; checked where it is given.
        body_crc32c: Option<u32>,
        /// Ordering key, as text.
        key: Option<String>,
        /// Ordering key where it is no text, in base64.
        key_base64: Option<String>,
        /// At most 64, and 16 KiB in all.
        headers: AtMost<HEADERS_MAX, PublishHeader>,
        /// Not delivered before this much time has passed, in milliseconds; at most 316,224,000,000 (ten years).
        /// Default: at once.
        delay_ms: u64,
        /// Dead when still waiting after this much time, in milliseconds, from the publish or the end of its delay on; 1
        /// to 316,224,000,000 (ten years). Default: the topic's.
        ttl_ms: Option<u64>,
    }
}

request! {
    /// A batch: all of its messages are stored or none.
    Publish {
        /// Absent: the repeat of this call may store the messages twice.
        session: Option<SessionStep>,
        /// 1 to 10,000 messages, at most 4 MiB in all.
        messages: AtMost<PUBLISH_MESSAGES_MAX, PublishMessage>,
    }
}

request! {
    /// Messages to be leased.
    Receive {
        /// Default: the subscription `default`.
        subscription: String,
        /// Most messages in the reply, 1 to 1,000. Default: 1.
        messages_max: u32,
        /// Most bytes of bodies, keys and headers in the reply, at most 16 MiB; at least one message is given whatever its
        /// size. Default: 2 MiB.
        bytes_max: u64,
        /// How long the lease lasts, in milliseconds: 1,000 to 43,200,000. Default: the cluster's, 30 seconds.
        lease_ms: Option<u64>,
        /// How long to wait for a first message, in milliseconds. Default: answer at once.
        wait_ms: u64,
    }
}

request! {
    /// Messages to be taken: received and acknowledged in one step.
    Pop {
        /// Default: the subscription `default`.
        subscription: String,
        /// Most messages in the reply, 1 to 1,000. Default: 1.
        messages_max: u32,
        /// Most bytes in the reply. Default: 2 MiB.
        bytes_max: u64,
        /// How long to wait for a first message, in milliseconds. Default: answer at once.
        wait_ms: u64,
        /// 32 hexadecimal digits, random: a repeat within a minute returns the same messages.
        request_id: String,
    }
}

request! {
    /// Leases that are done with.
    Ack {
        /// Default: the subscription `default`.
        subscription: String,
        /// 1 to 10,000 leases, as they were received.
        leases: Vec<String>,
    }
}

request! {
    /// Leases of attempts that failed.
    Nack {
        /// Default: the subscription `default`.
        subscription: String,
        /// 1 to 10,000 leases, as they were received.
        leases: Vec<String>,
        /// Not delivered again before this much time has passed, in milliseconds; at most 316,224,000,000 (ten years).
        /// Default: at once.
        delay_ms: u64,
        /// Kept with a message whose last attempt this was; at most 256 bytes.
        reason: String,
    }
}

request! {
    /// Leases to be kept for longer.
    Extend {
        /// Default: the subscription `default`.
        subscription: String,
        /// 1 to 10,000 leases, as they were received.
        leases: Vec<String>,
        /// The lease ends this long from now, in milliseconds: 1,000 to 43,200,000; never more than 12 hours after it was
        /// granted, and never earlier than it did. Default: the cluster's, 30 seconds.
        lease_ms: Option<u64>,
    }
}

request! {
    /// Leases of work that was not started.
    Release {
        /// Default: the subscription `default`.
        subscription: String,
        /// 1 to 10,000 leases, as they were received.
        leases: Vec<String>,
    }
}

/// The state of a message.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(super) enum MessageState {
    /// Waiting to be received.
    #[default]
    Ready,
    /// Out with a consumer.
    Leased,
    /// Waiting for its time.
    Delayed,
    /// Given up, and kept.
    Dead,
}

request! {
    /// Messages to be looked at.
    Peek {
        /// Default: the subscription `default`.
        subscription: String,
        /// Which messages. Default: those that are ready.
        state: MessageState,
        /// Starts at this offset. Default: the oldest.
        from_offset: u64,
        /// Most messages in the reply, 1 to 1,000. Default: 1.
        messages_max: u32,
        /// Most bytes in the reply. Default: 2 MiB.
        bytes_max: u64,
    }
}

request! {
    /// Dead messages to be made ready again.
    RedriveDead {
        /// Default: the subscription `default`.
        subscription: String,
        /// At most 1,000 offsets; empty: all of them.
        offsets: Vec<u64>,
    }
}

request! {
    /// Dead messages to be dropped.
    PurgeDead {
        /// Default: the subscription `default`.
        subscription: String,
        /// At most 1,000 offsets; empty: all of them.
        offsets: Vec<u64>,
    }
}

request! {
    /// Waiting messages to be dropped.
    Purge {
        /// Default: the subscription `default`.
        subscription: String,
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

/// How a request becomes the contract's: `name` is what stands in the path, where anything does.
macro_rules! call {
    (
        $request:ident => $wire:ident, $answer:ident as $json:ident: |$self:ident, $name:ident| $value:expr
        $(; $bytes_max:path)? $(, $share:path)?
    ) => {
        impl Call for $request {
            type Wire = v1::$wire;
            type Answer = v1::$answer;
            type Json = json::$json;
            $(const SHARE: Share = $share;)?
            $(
                fn bytes_max(limits: &Limits) -> usize {
                    $bytes_max(limits)
                }
            )?

            fn into_wire($self, $name: String) -> Result<v1::$wire, Failure> {
                Ok($value)
            }
        }
    };
}

call!(CreateTopic => CreateTopicRequest, CreateTopicResponse as TopicCreated: |self, _name| v1::CreateTopicRequest {
    topic: self.topic,
    options: Some(v1::TopicOptions {
        attempts_max: self.options.attempts_max,
        messages_max: self.options.messages_max,
        bytes_max: self.options.bytes_max,
        ttl_ms: self.options.ttl_ms,
    }),
    request_id: read_hex("request_id", &self.request_id)?,
});
call!(ListTopics => ListTopicsRequest, ListTopicsResponse as Topics: |self, _name| v1::ListTopicsRequest {
    after: self.after,
    topics_max: self.topics_max,
});
call!(Publish => PublishRequest, PublishResponse as Published: |self, topic| v1::PublishRequest {
    topic,
    session: match self.session {
        Some(step) => Some(v1::SessionStep {
            session: read_hex("session", &step.session)?,
            sequence: step.sequence,
        }),
        None => None,
    },
    messages: self.messages.0.into_iter().map(read_message).collect::<Result<_, _>>()?,
}; Limits::json_batch_bytes_max);
call!(Receive => ReceiveRequest, ReceiveResponse as Deliveries: |self, topic| v1::ReceiveRequest {
    topic,
    subscription: self.subscription,
    messages_max: self.messages_max,
    bytes_max: self.bytes_max,
    lease_ms: self.lease_ms,
    wait_ms: self.wait_ms,
});
call!(Pop => PopRequest, PopResponse as Deliveries: |self, topic| v1::PopRequest {
    topic,
    subscription: self.subscription,
    messages_max: self.messages_max,
    wait_ms: self.wait_ms,
    request_id: read_hex("request_id", &self.request_id)?,
    bytes_max: self.bytes_max,
});
call!(Ack => AckRequest, AckResponse as Results: |self, topic| v1::AckRequest {
    topic,
    subscription: self.subscription,
    leases: read_leases(&self.leases)?,
}, Share::Settling);
call!(Nack => NackRequest, NackResponse as Results: |self, topic| v1::NackRequest {
    topic,
    subscription: self.subscription,
    leases: read_leases(&self.leases)?,
    delay_ms: self.delay_ms,
    reason: self.reason,
}, Share::Settling);
call!(Extend => ExtendRequest, ExtendResponse as Results: |self, topic| v1::ExtendRequest {
    topic,
    subscription: self.subscription,
    leases: read_leases(&self.leases)?,
    lease_ms: self.lease_ms,
}, Share::Settling);
call!(Release => ReleaseRequest, ReleaseResponse as Results: |self, topic| v1::ReleaseRequest {
    topic,
    subscription: self.subscription,
    leases: read_leases(&self.leases)?,
}, Share::Settling);
call!(Peek => PeekRequest, PeekResponse as Deliveries: |self, topic| v1::PeekRequest {
    topic,
    subscription: self.subscription,
    state: match self.state {
        MessageState::Ready => v1::MessageState::Ready,
        MessageState::Leased => v1::MessageState::Leased,
        MessageState::Delayed => v1::MessageState::Delayed,
        MessageState::Dead => v1::MessageState::Dead,
    }
    .into(),
    from_offset: self.from_offset,
    messages_max: self.messages_max,
    bytes_max: self.bytes_max,
});
call!(RedriveDead => RedriveDeadRequest, RedriveDeadResponse as Count: |self, topic| v1::RedriveDeadRequest {
    topic,
    subscription: self.subscription,
    offsets: self.offsets,
});
call!(PurgeDead => PurgeDeadRequest, PurgeDeadResponse as Count: |self, topic| v1::PurgeDeadRequest {
    topic,
    subscription: self.subscription,
    offsets: self.offsets,
});
call!(Purge => PurgeRequest, PurgeResponse as Count: |self, topic| v1::PurgeRequest {
    topic,
    subscription: self.subscription,
});
call!(OpenSession => OpenSessionRequest, OpenSessionResponse as Session: |self, _name| v1::OpenSessionRequest {
    name: self.name,
});
call!(TransferLeadership => TransferLeadershipRequest, TransferLeadershipResponse as Transferred: |self, _name|
    v1::TransferLeadershipRequest { to: self.to });

/// A call that says nothing beyond its path.
macro_rules! bare {
    ($(#[$doc:meta])* $name:ident($text:ident) => $wire:ident, $answer:ident as $json:ident: $value:expr) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $name {}

        call!($name => $wire, $answer as $json: |self, $text| $value);
    };
}

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

fn read_hex(name: &str, text: &str) -> Result<Bytes, Failure> {
    unhex(text)
        .map(Bytes::from)
        .ok_or_else(|| invalid(format!("{name}: must be hexadecimal digits, in pairs")))
}

fn read_leases(leases: &[String]) -> Result<Vec<Bytes>, Failure> {
    leases.iter().map(|lease| read_hex("leases", lease)).collect()
}

/// Bytes that are given as text or in base64; `None` where they are not given.
fn read_bytes(name: &str, text: Option<String>, base64: Option<String>) -> Result<Option<Bytes>, Failure> {
    match (text, base64) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(base64)) => match unbase64(&base64) {
            Some(bytes) => Ok(Some(bytes.into())),
            None => Err(invalid(format!("{name}_base64: is not base64 with padding"))),
        },
        (Some(_), Some(_)) => Err(invalid(format!("{name}: give it as text or in base64, not both"))),
    }
}

fn read_message(message: PublishMessage) -> Result<v1::NewMessage, Failure> {
    let body = read_bytes("body", message.body, message.body_base64)?;
    Ok(v1::NewMessage {
        body: body.ok_or_else(|| invalid("body: give it as text (body) or in base64 (body_base64)"))?,
        body_crc32c: message.body_crc32c,
        key: read_bytes("key", message.key, message.key_base64)?.unwrap_or_default(),
        headers: message.headers.0.into_iter().map(read_header).collect::<Result<_, _>>()?,
        delay_ms: message.delay_ms,
        ttl_ms: message.ttl_ms,
    })
}

fn read_header(header: PublishHeader) -> Result<v1::Header, Failure> {
    let value = read_bytes("value", header.value, header.value_base64)?.unwrap_or_default();
    Ok(v1::Header { name: header.name, value })
}
