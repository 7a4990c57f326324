//! What a call may ask for, checked before it reaches the replica.
//!
//! Every edge decodes a call into a [`Request`] and passes it through [`Limits::check`], so that all of them refuse the
//! same things with the same words. A refusal names the limit, its value and the value given.
//!
//! What depends on the state of the queue (how many topics there are, how full a topic is) is not checked here: the
//! queue does that when the command is applied. Limits that both know have one home, `raftqueue_queue`.

pub use crate::api::checks::{DELAY_MS_MAX, LIST_TOPICS_MAX, RECEIVE_BYTES_MAX};
use crate::api::checks::{check_name, check_range};
pub(crate) use crate::api::checks::{check_size, invalid};
use crate::api::{Failure, NewMessage, Publish, Request};
use raftqueue_queue as queue;
use std::time::Duration;

/// How long a call may take when the caller does not say, in milliseconds: an answer that a client with a timeout of
/// one second still gets.
pub const DEADLINE_MS_DEFAULT: u64 = 900;
/// The longest deadline, in milliseconds; a longer one is cut to it.
pub const DEADLINE_MS_MAX: u64 = 10 * 60 * 1_000;
/// Most milliseconds of a gRPC deadline that are kept back, so that the answer is there before the client gives up. Of
/// a short deadline a tenth is kept.
pub const DEADLINE_MARGIN_MS_MAX: u64 = 100;
/// Bytes of a receive, pop or peek if the caller does not say. With what surrounds the messages it stays below the 4
/// MiB that gRPC libraries take unless told otherwise.
pub const RECEIVE_BYTES_DEFAULT: usize = 2 << 20;
/// Topics on one page of a listing if the caller does not say.
pub const LIST_TOPICS_DEFAULT: usize = 1_000;
/// What one message of a publish takes on the wire besides its body, key and headers, in bytes: tags, lengths, CRC,
/// delay and time to live.
const MESSAGE_FRAMING_BYTES: usize = 64;
/// What one header takes on the wire besides its name and value, in bytes: three tags and three lengths. Lengths over
/// 127 take more; [`LENGTHS_PART`] has room for that.
const HEADER_FRAMING_BYTES: usize = 6;
/// Lengths that take more than one byte are of contents that are at least so many times as long as what they add.
const LENGTHS_PART: usize = 32;
/// The same for JSON, compact or with a space behind each colon and comma.
const JSON_MESSAGE_FRAMING_BYTES: usize = 256;
/// The same for a header: `{"name": "", "value_base64": ""}, ` has 34.
const JSON_HEADER_FRAMING_BYTES: usize = 40;
/// What a call may have besides its messages, in bytes: names, a session.
const CALL_FRAMING_BYTES: usize = 4 << 10;
/// Most bytes that one byte of text takes in JSON: as `\u00XX`.
const JSON_ESCAPE_BYTES: usize = 6;
/// Largest JSON body of a call without messages, in bytes. The longest such call, an acknowledgement of 10,000 leases,
/// takes less than half of it.
pub const JSON_CALL_BYTES_MAX: usize = 2 << 20;
/// The same for a gRPC message, where it takes less.
pub const PLAIN_BYTES_MAX: usize = 512 << 10;

/// The limits and defaults that can be set, in force on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Greatest body of one message, in bytes; at most 16 MiB.
    pub body_bytes_max: usize,
    /// Largest sum of bodies, keys and headers of one publish, in bytes. Never less than a single message may have.
    pub publish_bytes_max: usize,
    /// Length of a lease in milliseconds if the caller names none.
    pub lease_ms_default: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: queue::BODY_BYTES_MAX_DEFAULT as usize,
            publish_bytes_max: usize::try_from(queue::PUBLISH_BYTES_MAX_DEFAULT)
                .expect("4 MiB fit every usize"),
            lease_ms_default: queue::LEASE_MS_DEFAULT,
        }
    }
}

impl Limits {
    /// Largest gRPC message that is decoded, in bytes. A larger one is refused by its length alone. A publish inside
    /// every other limit is never larger, however many and short its headers are.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        let lengths = self.publish_bytes_max / LENGTHS_PART;
        let framing = batch_framing_bytes(MESSAGE_FRAMING_BYTES, HEADER_FRAMING_BYTES);
        self.publish_bytes_max + lengths + framing + CALL_FRAMING_BYTES
    }

    /// How long a lease is, if this is asked for.
    #[must_use]
    pub fn lease(&self, lease_ms: Option<u64>) -> Duration {
        Duration::from_millis(lease_ms.unwrap_or(self.lease_ms_default).min(queue::LEASE_MS_MAX))
    }

    /// Greatest message that can be published, in bytes: body, key and headers.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        self.body_bytes_max + (queue::KEY_BYTES_MAX + queue::HEADERS_BYTES_MAX) as usize
    }

    /// Largest request that is held at once, in bytes. The budget must have room for it.
    #[must_use]
    pub fn call_bytes_max(&self) -> usize {
        let answer = RECEIVE_BYTES_MAX.max(self.message_bytes_max())
            + queue::RECEIVE_MESSAGES_MAX * crate::api::DELIVERY_BYTES;
        self.json_batch_bytes_max().max(self.json_bytes_max()).max(answer)
    }

    /// Greatest JSON body of a publish of one message, in bytes: every byte of it may be escaped as `\u00XX`.
    #[must_use]
    pub fn json_bytes_max(&self) -> usize {
        JSON_ESCAPE_BYTES * (self.body_bytes_max + queue::NAME_BYTES_MAX) + 1_024
    }

    /// Largest JSON body of a publish, in bytes: a full batch with as many headers as possible, in which every byte is
    /// escaped.
    #[must_use]
    pub fn json_batch_bytes_max(&self) -> usize {
        let framing = batch_framing_bytes(JSON_MESSAGE_FRAMING_BYTES, JSON_HEADER_FRAMING_BYTES);
        JSON_ESCAPE_BYTES * self.publish_bytes_max + framing + CALL_FRAMING_BYTES
    }

    /// Checks everything about a call that can be judged without the state of the queue.
    ///
    /// # Errors
    ///
    /// [`Reason::InvalidArgument`](crate::api::Reason::InvalidArgument) or
    /// [`Reason::TooLarge`](crate::api::Reason::TooLarge), not done. No repeat helps: the caller must be corrected.
    pub fn check(&self, request: &Request) -> Result<(), Failure> {
        match request {
            Request::Publish(publish) => self.check_publish(publish),
            Request::Take(take) => take.check(),
            Request::Settle(settle) => settle.check(),
            Request::Dead(dead) => dead.check(),
            Request::Write(write) => write.check(),
            Request::Look(look) => look.check(),
            Request::TransferLeadership { to } => to.as_deref().map_or(Ok(()), |to| check_name("to", to)),
            Request::Members(change) => change.check(),
        }
    }

    /// The same for messages to be published.
    ///
    /// # Errors
    ///
    /// As [`Limits::check`].
    pub fn check_publish(&self, publish: &Publish) -> Result<(), Failure> {
        let Publish { topic, session, messages } = publish;
        check_name("topic", topic)?;
        if session.is_some_and(|step| step.sequence == 0) {
            return Err(invalid("sequence is 0; the first publish of a session to a topic is 1"));
        }
        if messages.is_empty() {
            return Err(invalid("a publish without messages"));
        }
        check_size("messages of a publish", messages.len(), queue::PUBLISH_MESSAGES_MAX)?;
        let mut bytes = 0;
        for (position, message) in messages.iter().enumerate() {
            self.check_message(message).map_err(|failure| Failure {
                text: format!("message {position}: {}", failure.text),
                ..failure
            })?;
            bytes += message_bytes(message);
        }
        check_size("bytes of a publish", bytes, self.publish_bytes_max)
    }

    fn check_message(&self, message: &NewMessage) -> Result<(), Failure> {
        check_size("bytes of a body", message.body.len(), self.body_bytes_max)?;
        check_size("bytes of a key", message.key.len(), queue::KEY_BYTES_MAX as usize)?;
        check_size("headers", message.headers.len(), queue::HEADERS_MAX as usize)?;
        check_size("bytes of all headers", header_bytes(message), queue::HEADERS_BYTES_MAX as usize)?;
        if message.headers.iter().any(|(name, _)| name.is_empty()) {
            return Err(invalid("a header without a name"));
        }
        check_range("delay_ms", message.delay_ms, 0, DELAY_MS_MAX)?;
        message.ttl_ms.map_or(Ok(()), |ttl_ms| check_range("ttl_ms", ttl_ms, 1, DELAY_MS_MAX))
    }
}

/// What surrounds the messages of the largest publish, given what surrounds one message and one header.
const fn batch_framing_bytes(message_framing_bytes: usize, header_framing_bytes: usize) -> usize {
    queue::PUBLISH_MESSAGES_MAX * (message_framing_bytes + queue::HEADERS_MAX as usize * header_framing_bytes)
}

/// Bytes of a message that count in limits: body, key, header names and values.
#[must_use]
pub fn message_bytes(message: &NewMessage) -> usize {
    message.body.len() + message.key.len() + header_bytes(message)
}

fn header_bytes(message: &NewMessage) -> usize {
    message.headers.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// The deadline of a call: what the caller asked for, cut to the maximum, or else the default plus the time that the
/// call itself may wait.
#[must_use]
pub fn deadline(asked: Option<Duration>, wait_ms: u64) -> Duration {
    let max = Duration::from_millis(DEADLINE_MS_MAX);
    asked
        .unwrap_or_else(|| {
            Duration::from_millis(wait_ms.saturating_add(DEADLINE_MS_DEFAULT).min(DEADLINE_MS_MAX))
        })
        .min(max)
}

/// What is left of a deadline that the client watches itself. The answer must be there before the client gives up.
#[must_use]
pub fn less_margin(deadline: Duration) -> Duration {
    deadline - (deadline / 10).min(Duration::from_millis(DEADLINE_MARGIN_MS_MAX))
}

#[cfg(test)]
mod tests;
