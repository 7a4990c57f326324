//! Calls about messages and leases.

use super::{AtMost, Call, Routes, json, null_is_absent, read_hex};
use crate::api::limits::{Limits, invalid};
use crate::api::{Failure, Method};
use crate::edges::service::Service;
use bytes::Bytes;
use raftqueue_proto::text::unbase64;
use raftqueue_proto::v1;
use raftqueue_queue::PUBLISH_MESSAGES_MAX;
use serde::Deserialize;

/// Headers of one message, of which there may be fewer.
const HEADERS_MAX: usize = raftqueue_queue::HEADERS_MAX as usize;

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
call!(Pop => PopRequest, ReceiveResponse as Deliveries: |self, topic| v1::PopRequest {
    topic,
    subscription: self.subscription,
    messages_max: self.messages_max,
    wait_ms: self.wait_ms,
    request_id: read_hex("request_id", &self.request_id)?,
    bytes_max: self.bytes_max,
});

/// A call that settles leases: all are answered alike.
macro_rules! settle {
    ($request:ident => $wire:ident { $($field:ident),* }) => {
        call!($request => $wire, AckResponse as Results: |self, topic| v1::$wire {
            topic,
            subscription: self.subscription,
            leases: read_leases(&self.leases)?,
            $($field: self.$field,)*
        });
    };
}

settle!(Ack => AckRequest {});
settle!(Nack => NackRequest { delay_ms, reason });
settle!(Extend => ExtendRequest { lease_ms });
settle!(Release => ReleaseRequest {});

call!(Peek => PeekRequest, ReceiveResponse as Deliveries: |self, topic| v1::PeekRequest {
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
call!(RedriveDead => RedriveDeadRequest, PurgeResponse as Count: |self, topic| v1::RedriveDeadRequest {
    topic,
    subscription: self.subscription,
    offsets: self.offsets,
});
call!(PurgeDead => PurgeDeadRequest, PurgeResponse as Count: |self, topic| v1::PurgeDeadRequest {
    topic,
    subscription: self.subscription,
    offsets: self.offsets,
});
call!(Purge => PurgeRequest, PurgeResponse as Count: |self, topic| v1::PurgeRequest {
    topic,
    subscription: self.subscription,
});

/// The routes of these calls.
pub(super) fn add_all<S: Service>(routes: &mut Routes<S>) {
    let about = "Publish a batch: all of its messages or none";
    routes.post::<Publish>("/v1/topics/{topic}/publish", "publish", about);
    routes.post::<Receive>("/v1/topics/{topic}/receive", "receive", "Lease messages");
    let about = "Take messages: receive and acknowledge in one step";
    routes.post::<Pop>("/v1/topics/{topic}/pop", "pop", about);
    let about = "Acknowledge leased messages: they are removed";
    routes.post::<Ack>("/v1/topics/{topic}/ack", "ack", about);
    routes.post::<Nack>("/v1/topics/{topic}/nack", "nack", "Return leased messages as failed attempts");
    routes.post::<Extend>("/v1/topics/{topic}/extend", "extend", "Move the end of leases away");
    let about = "Give back leased messages without an attempt";
    routes.post::<Release>("/v1/topics/{topic}/release", "release", about);
    routes.post::<Peek>("/v1/topics/{topic}/peek", "peek", "Look at messages without taking them");
    let about = "Make dead messages ready again";
    routes.post::<RedriveDead>("/v1/topics/{topic}/redrive-dead", "redriveDead", about);
    routes.post::<PurgeDead>("/v1/topics/{topic}/purge-dead", "purgeDead", "Drop dead messages");
    routes.post::<Purge>("/v1/topics/{topic}/purge", "purge", "Drop every message that waits");
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
