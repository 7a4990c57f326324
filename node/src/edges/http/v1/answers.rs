//! What the full JSON API answers: the contract's own answers, spelled in JSON.
//!
//! Ids, leases and sessions are hexadecimal. Bytes are text where they are UTF-8, which most are and people can read, and
//! else base64 under a name of its own, so that the two are never mixed up.

pub(super) use super::members::Transferred;
use crate::api::budget::{Account, Budget, Share};
use crate::api::{self, deliveries_bytes};
use crate::edges::http::simple::reply::Reply;
use crate::edges::sliced::{Piece, SLICE_BYTES, Sliced};
use crate::wire::convert::write_delivery;
use bytes::Bytes;
use http::StatusCode;
use raftqueue_proto::text::{base64, hex};
use raftqueue_proto::v1;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;

/// An answer: fields, as in the contract, with their documentation. Optional ones are left out.
macro_rules! answer {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Serialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub(in crate::edges::http::v1) struct $name {
            $($(#[$field_doc])* pub(in crate::edges::http::v1) $field: $type,)*
        }
    };
}

answer! {
    /// Done, and nothing more to say.
    Done {}
}

answer! {
    /// The batch is stored.
    Published {
        /// The first message's offset; the others follow without a gap.
        first_offset: u64,
        /// How many were stored.
        count: u64,
        /// The first message's id; empty when `already_done`.
        first_id: String,
        /// This step of the session had been applied, so long ago that its offsets are no longer remembered;
        /// `deduplicated` is set as well.
        already_done: bool,
        /// This step of the session had been applied before, and this call stored nothing: the offsets, if they are
        /// remembered, are those of then.
        deduplicated: bool,
    }
}

answer! {
    /// One header of a message.
    DeliveryHeader {
        /// Its name.
        name: String,
        /// Its value, where it is text.
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<String>,
        /// Its value in base64, where it is no text.
        #[serde(skip_serializing_if = "Option::is_none")]
        value_base64: Option<String>,
    }
}

answer! {
    /// A message.
    Delivery {
        /// Names it for ever.
        id: String,
        /// Its place in the topic.
        offset: u64,
        /// The right to settle it; absent for a message that this call did not lease.
        #[serde(skip_serializing_if = "Option::is_none")]
        lease: Option<String>,
        /// Attempts that failed before this one.
        attempts: u32,
        /// When the lease ends, or when a delayed message is due, in milliseconds of log time (Unix epoch).
        #[serde(skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<u64>,
        /// When it was published, in milliseconds of log time (Unix epoch).
        published_ms: u64,
        /// The content, where it is text.
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<String>,
        /// The content in base64, where it is no text.
        #[serde(skip_serializing_if = "Option::is_none")]
        body_base64: Option<String>,
        /// CRC32C of the content's bytes.
        body_crc32c: u32,
        /// Ordering key, where it has one that is text.
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// Ordering key in base64, where it has one that is no text.
        #[serde(skip_serializing_if = "Option::is_none")]
        key_base64: Option<String>,
        /// In the order given.
        headers: Vec<DeliveryHeader>,
        /// Why it is dead; absent for one that is not.
        #[serde(skip_serializing_if = "Option::is_none")]
        dead_reason: Option<String>,
    }
}

answer! {
    /// Messages.
    Deliveries {
        /// In offset order; empty when there was none in time.
        deliveries: Vec<Delivery>,
    }
}

/// What became of one lease.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum LeaseResult {
    /// Done as asked.
    Done,
    /// The message is no more. For an acknowledgement this is success.
    Gone,
    /// The lease is not the current one: the message is dead, was returned, or is leased to another. One that ended by its
    /// time is `STALE` for all but an acknowledgement, which counts until the message is leased again or dead.
    Stale,
    /// No such message was ever published.
    Invalid,
}

answer! {
    /// What became of leases.
    Results {
        /// One for each lease, in the order given.
        results: Vec<LeaseResult>,
    }
}

answer! {
    /// How many.
    Count {
        /// Messages.
        count: u64,
    }
}

answer! {
    /// The session is open.
    Session {
        /// To be carried by every step.
        session: String,
    }
}

answer! {
    /// One member of the cluster.
    Member {
        /// Node id, 16 hexadecimal digits.
        id: String,
        /// Its name.
        name: String,
        /// Where the answering node finds it; empty when it was never connected.
        peer_address: String,
        /// Client address as the node itself said; empty when not connected.
        client_address: String,
        /// `leader`, `follower` or `learner`; `candidate` only in a node's own view.
        role: String,
        /// Counts in elections.
        voter: bool,
        /// Heard from within an election timeout.
        active: bool,
        /// Last index durable there.
        matched: u64,
        /// Entries it is behind the leader's last.
        lag: u64,
    }
}

answer! {
    /// The cluster as its leader sees it.
    Cluster {
        /// The cluster's id, 32 hexadecimal digits.
        cluster_id: String,
        /// Forced recoveries so far.
        generation: u32,
        /// Active version of commands and formats.
        version: u32,
        /// The leader's node id.
        leader: String,
        /// Its term.
        term: u64,
        /// Last committed index.
        commit: u64,
        /// Last applied index.
        applied: u64,
        /// All members.
        members: Vec<Member>,
    }
}

answer! {
    /// One node's own view, which may be out of date.
    Status {
        /// Node id; empty before the data directory is formatted.
        node_id: String,
        /// The node's name.
        name: String,
        /// The cluster it belongs to; empty for a node that belongs to none.
        cluster_id: String,
        /// Forced recoveries of that cluster.
        generation: u32,
        /// Active version of commands and formats.
        version: u32,
        /// `Leader`, `Follower` or `Candidate`.
        role: String,
        /// Its term.
        term: u64,
        /// The leader it knows; empty when it knows none.
        leader: String,
        /// That leader's client address; may be empty.
        leader_address: String,
        /// Last index that it knows to be committed.
        commit: u64,
        /// Last index applied.
        applied: u64,
        /// Last index in its log.
        last: u64,
        /// Members as in its newest configuration.
        members: Vec<Member>,
        /// Fit to serve: a member, with a leader known recently, and little lag.
        ready: bool,
        /// Why it is not ready; empty when it is.
        not_ready_reason: String,
        /// What somebody should look at although it serves, such as a disk that is nearly full; mostly empty.
        note: String,
    }
}

answer! {
    /// A call that was not answered with success. The same stands in the headers `raftqueue-reason`,
    /// `raftqueue-outcome` and `raftqueue-retry-after-ms`.
    Failure {
        /// Why, in the words of the gRPC contract, as in `TOPIC_NOT_FOUND`.
        reason: String,
        /// `NOT_DONE`: safe to repeat. `UNKNOWN`: it may have happened, or may still.
        outcome: String,
        /// What was wrong, for people.
        text: String,
        /// When to try again, in milliseconds, where waiting helps.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    }
}

macro_rules! from {
    ($($wire:ident => $json:ident: |$answer:ident| $value:expr;)*) => {
        $(
            impl From<v1::$wire> for $json {
                fn from($answer: v1::$wire) -> Self {
                    $value
                }
            }
        )*
    };
}

mod topics;

pub(super) use topics::{Topic, TopicCreated, TopicUpdated, Topics};

from! {
    DeleteTopicResponse => Done: |_answer| Self {};
    CloseSessionResponse => Done: |_answer| Self {};
    PublishResponse => Published: |answer| Self {
        first_offset: answer.first_offset,
        count: answer.count,
        first_id: hex(&answer.first_id),
        already_done: answer.already_done,
        deduplicated: answer.deduplicated,
    };
    ReceiveResponse => Deliveries: |answer| Self::new(answer.deliveries);
    AckResponse => Results: |answer| Self::new(&answer.results);
    PurgeResponse => Count: |answer| Self { count: answer.count };
    OpenSessionResponse => Session: |answer| Self { session: hex(&answer.session) };
    ClusterStatusResponse => Cluster: |cluster| Self {
        cluster_id: cluster.cluster_id,
        generation: cluster.generation,
        version: cluster.version,
        leader: cluster.leader,
        term: cluster.term,
        commit: cluster.commit,
        applied: cluster.applied,
        members: cluster.members.into_iter().map(Into::into).collect(),
    };
    Member => Member: |member| Self {
        id: member.id,
        name: member.name,
        peer_address: member.peer_address,
        client_address: member.client_address,
        role: member.role,
        voter: member.voter,
        active: member.active,
        matched: member.matched,
        lag: member.lag,
    };
    Header => DeliveryHeader: |header| {
        let (value, value_base64) = text_or_base64(&header.value);
        Self { name: header.name, value, value_base64 }
    };
    Delivery => Delivery: |delivery| {
        let (body, body_base64) = text_or_base64(&delivery.body);
        let (key, key_base64) =
            if delivery.key.is_empty() { (None, None) } else { text_or_base64(&delivery.key) };
        Self {
            id: hex(&delivery.id),
            offset: delivery.offset,
            lease: Some(hex(&delivery.lease)).filter(|lease| !lease.is_empty()),
            attempts: delivery.attempts,
            deadline_ms: Some(delivery.deadline_ms).filter(|deadline_ms| *deadline_ms > 0),
            published_ms: delivery.published_ms,
            body,
            body_base64,
            body_crc32c: delivery.body_crc32c,
            key,
            key_base64,
            headers: delivery.headers.into_iter().map(Into::into).collect(),
            dead_reason: Some(delivery.dead_reason).filter(|reason| !reason.is_empty()),
        }
    };
}

/// Messages as an answer: made at once where they are few, and else while they are sent.
pub(super) fn messages(deliveries: api::Deliveries, budget: &Budget) -> Reply {
    let api::Deliveries { messages, held } = deliveries;
    let length = deliveries_bytes(&messages);
    let messages = messages.into_iter().map(write_delivery);
    if length < SLICE_BYTES {
        let body = serde_json::to_string(&Deliveries::new(messages.collect()));
        let body = body.expect("answers have nothing that JSON cannot hold");
        return Reply::new(StatusCode::OK, body).held_by(held);
    }
    let account = held.unwrap_or_else(|| Arc::new(Account::new(budget, Share::Replies)));
    let raw = |text: &'static [u8]| VecDeque::from([Piece::Raw(Bytes::from_static(text))]);
    let messages = messages.enumerate().map(|(position, message)| pieces(position > 0, message));
    let all = std::iter::once(raw(b"{\"deliveries\":[")).chain(messages).chain(std::iter::once(raw(b"]}")));
    Reply::sliced(StatusCode::OK, Sliced::new(all, None, account))
}

/// One message, its body first: that is not held twice.
fn pieces(follows: bool, mut message: v1::Delivery) -> VecDeque<Piece> {
    let (body, is_text) = Piece::json(std::mem::take(&mut message.body));
    let name: &[u8] = match (follows, is_text) {
        (false, true) => b"{\"body\":\"",
        (false, false) => b"{\"body_base64\":\"",
        (true, true) => b",{\"body\":\"",
        (true, false) => b",{\"body_base64\":\"",
    };
    let rest = Delivery { body: None, body_base64: None, ..message.into() };
    let rest = serde_json::to_string(&rest).expect("answers have nothing that JSON cannot hold");
    let rest = format!("\",{}", &rest[1..]);
    VecDeque::from([Piece::Raw(Bytes::from_static(name)), body, Piece::Raw(rest.into())])
}

impl Deliveries {
    fn new(deliveries: Vec<v1::Delivery>) -> Self {
        Self { deliveries: deliveries.into_iter().map(Into::into).collect() }
    }
}

impl Results {
    /// # Panics
    ///
    /// A result is none that this node can give.
    fn new(results: &[i32]) -> Self {
        let result = |result: &i32| match v1::LeaseResult::try_from(*result) {
            Ok(v1::LeaseResult::Done) => LeaseResult::Done,
            Ok(v1::LeaseResult::Gone) => LeaseResult::Gone,
            Ok(v1::LeaseResult::Stale) => LeaseResult::Stale,
            Ok(v1::LeaseResult::Invalid) => LeaseResult::Invalid,
            Ok(v1::LeaseResult::Unspecified) | Err(_) => panic!("results are written by this node: {result}"),
        };
        Self { results: results.iter().map(result).collect() }
    }
}

impl Status {
    /// The node's view, with its role as the simple API spells it.
    pub(super) fn new(status: v1::StatusResponse, role: &str) -> Self {
        Self {
            node_id: status.node_id,
            name: status.name,
            cluster_id: status.cluster_id,
            generation: status.generation,
            version: status.version,
            role: role.to_owned(),
            term: status.term,
            leader: status.leader,
            leader_address: status.leader_address,
            commit: status.commit,
            applied: status.applied,
            last: status.last,
            members: status.members.into_iter().map(Into::into).collect(),
            ready: status.ready,
            not_ready_reason: status.not_ready_reason,
            note: status.note,
        }
    }
}

/// Bytes as text, or else in base64.
fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(base64(bytes))),
    }
}
