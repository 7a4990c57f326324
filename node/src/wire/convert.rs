//! The parts of calls and answers, from the wire into the node's words and back. Only this file knows both. The calls
//! themselves are [`super::calls`].
//!
//! What cannot be read at all (an id that was never given out, a body that is not what its CRC says) is refused here.
//! [`crate::api::limits`] checks whether the numbers make sense.

use super::ids;
use crate::api::limits::{RECEIVE_BYTES_DEFAULT, invalid};
use crate::api::{
    ClusterInfo, Delivery, Failure, LeaseId, LeaseResult, LocalStatus, MemberInfo, MessageRef, MessageState,
    NewMessage, Role, SessionStep, SubscriptionInfo, TopicChange, TopicInfo, TopicOptions,
};
use bytes::Bytes;
use raftqueue_proto::v1;

// ---- what requests are of ---------------------------------------------------------------------------------------------

pub(super) fn read_state(state: i32) -> Result<MessageState, Failure> {
    match v1::MessageState::try_from(state) {
        Ok(v1::MessageState::Unspecified | v1::MessageState::Ready) => Ok(MessageState::Ready),
        Ok(v1::MessageState::Leased) => Ok(MessageState::Leased),
        Ok(v1::MessageState::Delayed) => Ok(MessageState::Delayed),
        Ok(v1::MessageState::Dead) => Ok(MessageState::Dead),
        Err(_) => Err(invalid(format!("state: {state} is none that this node knows"))),
    }
}

pub(super) fn read_count(count: u32, default: usize) -> usize {
    if count == 0 { default } else { usize::try_from(count).unwrap_or(usize::MAX) }
}

pub(super) fn read_bytes_max(bytes_max: u64) -> usize {
    if bytes_max == 0 { RECEIVE_BYTES_DEFAULT } else { usize::try_from(bytes_max).unwrap_or(usize::MAX) }
}

pub(super) fn read_request_id(bytes: &[u8]) -> Result<Option<u128>, Failure> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let array = <[u8; 16]>::try_from(bytes)
        .map_err(|_| invalid(format!("request_id: must be empty or 16 bytes, these are {}", bytes.len())))?;
    Ok(Some(u128::from_be_bytes(array)))
}

pub(super) fn read_step(step: &v1::SessionStep) -> Result<SessionStep, Failure> {
    Ok(SessionStep { session: ids::decode_session(&step.session)?, sequence: step.sequence })
}

pub(super) fn read_leases(leases: &[Bytes]) -> Result<Vec<LeaseId>, Failure> {
    leases.iter().map(|lease| ids::decode_lease(lease)).collect()
}

pub(super) fn read_message(position: usize, message: v1::NewMessage) -> Result<NewMessage, Failure> {
    let body_crc = crc32c::crc32c(&message.body);
    if let Some(given) = message.body_crc32c
        && given != body_crc
    {
        return Err(invalid(format!(
            "message {position}: the body has CRC32C {body_crc:08x} instead of {given:08x}: damaged on its way"
        )));
    }
    Ok(NewMessage {
        body: message.body,
        body_crc,
        key: message.key,
        headers: read_headers(message.headers),
        delay_ms: message.delay_ms,
        ttl_ms: message.ttl_ms,
    })
}

fn read_headers(headers: Vec<v1::Header>) -> Vec<(String, Bytes)> {
    headers.into_iter().map(|header| (header.name, header.value)).collect()
}

pub(crate) fn read_options(options: Option<v1::TopicOptions>) -> TopicOptions {
    let v1::TopicOptions { attempts_max, messages_max, bytes_max, ttl_ms } = options.unwrap_or_default();
    TopicOptions { attempts_max, messages_max, bytes_max, ttl_ms }
}

/// What of a topic's settings changes: some to a value, some back to their defaults.
///
/// # Errors
/// An unknown name, or one whose setting gets a value as well.
pub(super) fn read_topic_change(options: v1::TopicOptions, unset: &[String]) -> Result<TopicChange, Failure> {
    let v1::TopicOptions { attempts_max, messages_max, bytes_max, ttl_ms } = options;
    let mut change = TopicChange {
        attempts_max: attempts_max.map(Some),
        messages_max: messages_max.map(Some),
        bytes_max: bytes_max.map(Some),
        ttl_ms: ttl_ms.map(Some),
    };
    for name in unset {
        let is_set = match name.as_str() {
            "attempts_max" => change.attempts_max.replace(None).flatten().is_some(),
            "messages_max" => change.messages_max.replace(None).flatten().is_some(),
            "bytes_max" => change.bytes_max.replace(None).flatten().is_some(),
            "ttl_ms" => change.ttl_ms.replace(None).flatten().is_some(),
            _ => {
                let known = "attempts_max, messages_max, bytes_max and ttl_ms";
                return Err(invalid(format!("unset: there is no setting `{name}`, but {known}")));
            }
        };
        if is_set {
            return Err(invalid(format!("unset: `{name}` gets a value in options as well")));
        }
    }
    Ok(change)
}

pub(super) fn write_topic_change(change: &TopicChange) -> (v1::TopicOptions, Vec<String>) {
    let TopicChange { attempts_max, messages_max, bytes_max, ttl_ms } = *change;
    let names = [
        ("attempts_max", attempts_max == Some(None)),
        ("messages_max", messages_max == Some(None)),
        ("bytes_max", bytes_max == Some(None)),
        ("ttl_ms", ttl_ms == Some(None)),
    ];
    let options = write_options(&change.values());
    (options, names.iter().filter(|(_, is_unset)| *is_unset).map(|(name, _)| (*name).to_owned()).collect())
}

// ---- the same, as they are passed on -----------------------------------------------------------------------------------

pub(super) fn write_count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(super) fn write_request_id(request_id: Option<u128>) -> Bytes {
    request_id.map(|id| Bytes::copy_from_slice(&id.to_be_bytes())).unwrap_or_default()
}

pub(super) fn write_step(step: SessionStep) -> v1::SessionStep {
    v1::SessionStep { session: ids::encode_session(step.session), sequence: step.sequence }
}

pub(super) fn write_leases(leases: Vec<LeaseId>) -> Vec<Bytes> {
    leases.into_iter().map(ids::encode_lease).collect()
}

pub(super) fn write_state(state: MessageState) -> v1::MessageState {
    match state {
        MessageState::Ready => v1::MessageState::Ready,
        MessageState::Leased => v1::MessageState::Leased,
        MessageState::Delayed => v1::MessageState::Delayed,
        MessageState::Dead => v1::MessageState::Dead,
    }
}

pub(super) fn write_message(message: NewMessage) -> v1::NewMessage {
    v1::NewMessage {
        body: message.body,
        body_crc32c: Some(message.body_crc),
        key: message.key,
        headers: write_headers(message.headers),
        delay_ms: message.delay_ms,
        ttl_ms: message.ttl_ms,
    }
}

// ---- answers ---------------------------------------------------------------------------------------------------------

pub(crate) fn write_options(options: &TopicOptions) -> v1::TopicOptions {
    let TopicOptions { attempts_max, messages_max, bytes_max, ttl_ms } = *options;
    v1::TopicOptions { attempts_max, messages_max, bytes_max, ttl_ms }
}

pub(crate) fn write_topic(topic: TopicInfo) -> v1::TopicInfo {
    v1::TopicInfo {
        id: topic.id,
        name: topic.name,
        created_ms: topic.created_ms,
        options: Some(write_options(&topic.options)),
        next_offset: topic.next_offset,
        bytes: topic.bytes,
        subscriptions: topic.subscriptions.into_iter().map(write_subscription).collect(),
    }
}

fn write_subscription(subscription: SubscriptionInfo) -> v1::SubscriptionInfo {
    let SubscriptionInfo { name, ready, leased, delayed, dead } = subscription;
    v1::SubscriptionInfo { name, ready, leased, delayed, dead }
}

pub(crate) fn write_headers(headers: Vec<(String, Bytes)>) -> Vec<v1::Header> {
    headers.into_iter().map(|(name, value)| v1::Header { name, value }).collect()
}

pub(crate) fn write_delivery(delivery: Delivery) -> v1::Delivery {
    let MessageRef { id, token, attempts, deadline_ms, reason } = delivery.message;
    let lease = if token == 0 { Bytes::new() } else { ids::encode_lease(LeaseId { message: id, token }) };
    v1::Delivery {
        id: ids::encode_message_id(id),
        offset: id.offset,
        lease,
        attempts,
        deadline_ms,
        published_ms: delivery.published_ms,
        body: delivery.body,
        body_crc32c: delivery.body_crc,
        key: delivery.key,
        headers: write_headers(delivery.headers),
        dead_reason: reason,
    }
}

pub(super) fn write_results(results: &[LeaseResult]) -> Vec<i32> {
    results.iter().map(|result| write_lease_result(*result)).collect()
}

fn write_lease_result(result: LeaseResult) -> i32 {
    let result = match result {
        LeaseResult::Done => v1::LeaseResult::Done,
        LeaseResult::Gone => v1::LeaseResult::Gone,
        LeaseResult::Stale => v1::LeaseResult::Stale,
        LeaseResult::Invalid => v1::LeaseResult::Invalid,
    };
    result.into()
}

pub(super) fn read_node_id(id: &str) -> Option<u64> {
    u64::from_str_radix(id, 16).ok()
}

pub(crate) fn write_node_id(id: u64) -> String {
    format!("{id:016x}")
}

fn write_member(member: MemberInfo) -> v1::Member {
    v1::Member {
        id: write_node_id(member.id),
        name: member.name,
        client_address: member.client_address,
        role: member.role.name().to_owned(),
        voter: member.voter,
        active: member.active,
        matched: member.matched,
        lag: member.lag,
        peer_address: member.peer_address,
    }
}

pub(crate) fn write_cluster(cluster: ClusterInfo) -> v1::ClusterStatusResponse {
    v1::ClusterStatusResponse {
        cluster_id: cluster.cluster_id,
        generation: cluster.generation,
        version: cluster.version,
        leader: write_node_id(cluster.leader),
        term: cluster.term,
        commit: cluster.commit,
        applied: cluster.applied,
        members: cluster.members.into_iter().map(write_member).collect(),
    }
}

pub(crate) fn write_status(status: &LocalStatus) -> v1::StatusResponse {
    let role = match status.role {
        Role::Leader => v1::Role::Leader,
        Role::Follower => v1::Role::Follower,
        Role::Candidate => v1::Role::Candidate,
    };
    v1::StatusResponse {
        node_id: status.node_id.map(write_node_id).unwrap_or_default(),
        name: status.name.clone(),
        cluster_id: status.cluster_id.clone(),
        generation: status.generation,
        version: status.version,
        role: role.into(),
        term: status.term,
        leader: status.leader.map(write_node_id).unwrap_or_default(),
        leader_address: status.leader_address.clone().unwrap_or_default(),
        commit: status.commit,
        applied: status.applied,
        last: status.last,
        members: status.members.iter().cloned().map(write_member).collect(),
        ready: status.not_ready.is_none(),
        not_ready_reason: status.not_ready.clone().unwrap_or_default(),
        note: status.note.clone().unwrap_or_default(),
    }
}
