//! A client's call on its way to the leader, and the answer on its way back.
//!
//! The leader judges a forwarded call exactly as one that came to it directly, by the same reading and the same limits.
//! The node that passed it on judges the answer. If the answer does not belong to the call, or cannot be read, it came
//! from a broken peer and leaves the outcome unknown.

use super::answers::Write as _;
use super::calls::{AnswerKind, answer_kind};
use super::convert::{read_node_id, read_options};
use super::{errors, ids, members};
use crate::api::{
    Answer, ClusterInfo, Delivery, Failure, LeaseResult, MemberInfo, MemberRole, MessageRef, Reason, Request,
    Response, SubscriptionInfo, TopicInfo,
};
use raftqueue_proto::peer::v1 as peer;
use raftqueue_proto::v1;

pub use super::calls::{read_call, write_call};
pub use peer::forward_reply::Reply;
pub use peer::forward_request::Call;

// ---- replies ---------------------------------------------------------------------------------------------------------

/// What became of a forwarded call, as it is sent back.
///
/// # Panics
///
/// The answer still holds [`Response::Messages`], whose bodies nobody has read: the replica is broken.
#[must_use]
pub fn write_reply(result: Result<Answer, Failure>) -> Reply {
    const OWN: &str = "the response is chosen by the answer's own kind";
    let answer = match result {
        Ok(answer) => answer,
        Err(failure) => {
            let detail = Some(errors::detail(&failure, None));
            return Reply::Failure(peer::ForwardFailure { detail, text: failure.text });
        }
    };
    let response = match &answer {
        Answer::Deliveries(_) => return Reply::Deliveries(v1::ReceiveResponse::write(answer).expect(OWN)),
        Answer::Response(response) => response,
    };
    match response {
        Response::TopicCreated { .. } => {
            Reply::CreateTopic(v1::CreateTopicResponse::write(answer).expect(OWN))
        }
        Response::TopicUpdated(_) => Reply::UpdateTopic(v1::UpdateTopicResponse::write(answer).expect(OWN)),
        Response::TopicDeleted => Reply::DeleteTopic(v1::DeleteTopicResponse::write(answer).expect(OWN)),
        Response::Topics { .. } => Reply::ListTopics(v1::ListTopicsResponse::write(answer).expect(OWN)),
        Response::Topic(_) => Reply::DescribeTopic(v1::DescribeTopicResponse::write(answer).expect(OWN)),
        Response::Published { .. } | Response::AlreadyDone => {
            Reply::Publish(v1::PublishResponse::write(answer).expect(OWN))
        }
        Response::Messages(_) => panic!("messages leave the replica with their bodies read"),
        Response::Leases(_) => Reply::Leases(v1::AckResponse::write(answer).expect(OWN)),
        Response::Count(_) => Reply::Count(v1::PurgeResponse::write(answer).expect(OWN)),
        Response::SessionOpened { .. } => {
            Reply::OpenSession(v1::OpenSessionResponse::write(answer).expect(OWN))
        }
        Response::SessionClosed => Reply::CloseSession(v1::CloseSessionResponse::write(answer).expect(OWN)),
        Response::Cluster(_) => Reply::ClusterStatus(v1::ClusterStatusResponse::write(answer).expect(OWN)),
        Response::Transferred { .. } => {
            Reply::TransferLeadership(v1::TransferLeadershipResponse::write(answer).expect(OWN))
        }
        Response::Members(_) => Reply::Members(v1::MembersResponse::write(answer).expect(OWN)),
        Response::MembersChanged { .. } => {
            Reply::MemberChange(v1::MemberChangeResponse::write(answer).expect(OWN))
        }
    }
}

/// What the answer to a call must be. The node that passes the call on remembers it, to judge the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected(AnswerKind);

impl Expected {
    /// What the answer to `request` must be.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        Self(answer_kind(request))
    }

    /// The answer in a peer's reply.
    ///
    /// # Errors
    ///
    /// The call's own failure, to be passed to the client. Or an unknown outcome, for a reply that cannot belong to
    /// this call.
    pub fn read_reply(self, reply: Option<Reply>) -> Result<Answer, Failure> {
        let answer = match reply {
            Some(Reply::Failure(failure)) => {
                let detail = failure.detail.unwrap_or_default();
                return Err(errors::failure(&detail, failure.text));
            }
            Some(Reply::Deliveries(reply)) if self.0 == AnswerKind::DeliveriesOrRepeat => {
                let is_all_whole = reply.deliveries.iter().all(is_whole);
                is_all_whole.then_some(Reply::Deliveries(reply)).and_then(read_answer)
            }
            reply => reply.and_then(read_answer),
        };
        answer.filter(|answer| self.is_met_by(answer)).ok_or_else(|| {
            Failure::unknown(Reason::ForwardingBroken, "the leader's answer is not one to this call")
        })
    }

    fn is_met_by(self, answer: &Answer) -> bool {
        let kind = match answer {
            Answer::Deliveries(_) => AnswerKind::Deliveries,
            Answer::Response(response) => match response {
                Response::TopicCreated { .. } => AnswerKind::TopicCreated,
                Response::TopicUpdated(_) => AnswerKind::TopicUpdated,
                Response::TopicDeleted => AnswerKind::TopicDeleted,
                Response::Topics { .. } => AnswerKind::Topics,
                Response::Topic(_) => AnswerKind::Topic,
                Response::Published { .. } | Response::AlreadyDone => AnswerKind::Published,
                Response::Messages(_) => AnswerKind::Deliveries,
                Response::Leases(results) => AnswerKind::Leases(results.len()),
                Response::Count(_) => AnswerKind::Count,
                Response::SessionOpened { .. } => AnswerKind::SessionOpened,
                Response::SessionClosed => AnswerKind::SessionClosed,
                Response::Cluster(_) => AnswerKind::Cluster,
                Response::Transferred { .. } => AnswerKind::Transferred,
                Response::Members(_) => AnswerKind::Members,
                Response::MembersChanged { .. } => AnswerKind::MembersChanged,
            },
        };
        self.0 == kind || (self.0, kind) == (AnswerKind::DeliveriesOrRepeat, AnswerKind::Deliveries)
    }
}

/// The answer that a reply holds; `None` if a part of it cannot be read.
fn read_answer(reply: Reply) -> Option<Answer> {
    let response = match reply {
        Reply::Failure(_) => return None,
        Reply::CreateTopic(reply) => Response::TopicCreated { topic: reply.topic_id },
        Reply::UpdateTopic(reply) => Response::TopicUpdated(read_options(reply.options)),
        Reply::DeleteTopic(_) => Response::TopicDeleted,
        Reply::ListTopics(reply) => {
            Response::Topics { topics: reply.topics.into_iter().map(read_topic).collect(), more: reply.more }
        }
        Reply::DescribeTopic(reply) => Response::Topic(read_topic(reply.topic?)),
        Reply::Publish(reply) if reply.already_done => Response::AlreadyDone,
        Reply::Publish(reply) => {
            let id = ids::decode_message_id(&reply.first_id).ok()?;
            let (topic, generation, first_offset) = (id.topic, id.generation, id.offset);
            let (count, deduplicated) = (reply.count, reply.deduplicated);
            Response::Published { topic, generation, first_offset, count, deduplicated }
        }
        Reply::Deliveries(reply) => {
            // A message that was damaged on the way harms no other. If it was leased, the lease ends by itself. If it
            // was popped without a request id, it is lost, as the whole answer would be.
            let is_none_sent = reply.deliveries.is_empty();
            let whole = reply.deliveries.into_iter().filter(is_whole);
            let deliveries = whole.map(read_delivery).collect::<Option<Vec<_>>>()?;
            let is_any_whole = is_none_sent || !deliveries.is_empty();
            return is_any_whole.then(|| Answer::Deliveries(deliveries.into()));
        }
        Reply::Leases(reply) => {
            Response::Leases(reply.results.into_iter().map(read_lease_result).collect::<Option<_>>()?)
        }
        Reply::Count(reply) => Response::Count(reply.count),
        Reply::OpenSession(reply) => {
            Response::SessionOpened { session: ids::decode_session(&reply.session).ok()? }
        }
        Reply::CloseSession(_) => Response::SessionClosed,
        Reply::ClusterStatus(reply) => Response::Cluster(read_cluster(reply)?),
        Reply::TransferLeadership(reply) => Response::Transferred { leader: read_node_id(&reply.leader)? },
        Reply::Members(reply) => Response::Members(members::read(reply)?),
        Reply::MemberChange(reply) => Response::MembersChanged {
            configuration_index: reply.configuration_index,
            refusal: members::read_why(reply.refusal),
        },
    };
    Some(Answer::Response(response))
}

fn read_topic(topic: v1::TopicInfo) -> TopicInfo {
    TopicInfo {
        id: topic.id,
        name: topic.name,
        created_ms: topic.created_ms,
        options: read_options(topic.options),
        next_offset: topic.next_offset,
        bytes: topic.bytes,
        subscriptions: topic.subscriptions.into_iter().map(read_subscription).collect(),
    }
}

fn read_subscription(subscription: v1::SubscriptionInfo) -> SubscriptionInfo {
    let v1::SubscriptionInfo { name, ready, leased, delayed, dead } = subscription;
    SubscriptionInfo { name, ready, leased, delayed, dead }
}

fn is_whole(delivery: &v1::Delivery) -> bool {
    let is_whole = crc32c::crc32c(&delivery.body) == delivery.body_crc32c;
    if !is_whole {
        tracing::error!(offset = delivery.offset, "a message of the leader's answer was damaged on the way");
    }
    is_whole
}

fn read_delivery(delivery: v1::Delivery) -> Option<Delivery> {
    let id = ids::decode_message_id(&delivery.id).ok()?;
    let token = if delivery.lease.is_empty() { 0 } else { ids::decode_lease(&delivery.lease).ok()?.token };
    let (attempts, deadline_ms, reason) = (delivery.attempts, delivery.deadline_ms, delivery.dead_reason);
    Some(Delivery {
        message: MessageRef { id, token, attempts, deadline_ms, reason },
        published_ms: delivery.published_ms,
        body: delivery.body,
        body_crc: delivery.body_crc32c,
        key: delivery.key,
        headers: delivery.headers.into_iter().map(|header| (header.name, header.value)).collect(),
    })
}

fn read_lease_result(result: i32) -> Option<LeaseResult> {
    match v1::LeaseResult::try_from(result).ok()? {
        v1::LeaseResult::Unspecified => None,
        v1::LeaseResult::Done => Some(LeaseResult::Done),
        v1::LeaseResult::Gone => Some(LeaseResult::Gone),
        v1::LeaseResult::Stale => Some(LeaseResult::Stale),
        v1::LeaseResult::Invalid => Some(LeaseResult::Invalid),
    }
}

fn read_cluster(cluster: v1::ClusterStatusResponse) -> Option<ClusterInfo> {
    Some(ClusterInfo {
        cluster_id: cluster.cluster_id,
        generation: cluster.generation,
        version: cluster.version,
        leader: read_node_id(&cluster.leader)?,
        term: cluster.term,
        commit: cluster.commit,
        applied: cluster.applied,
        members: cluster.members.into_iter().map(read_member).collect::<Option<_>>()?,
    })
}

fn read_member(member: v1::Member) -> Option<MemberInfo> {
    Some(MemberInfo {
        id: read_node_id(&member.id)?,
        name: member.name,
        peer_address: member.peer_address,
        client_address: member.client_address,
        role: MemberRole::of_name(&member.role)?,
        voter: member.voter,
        active: member.active,
        matched: member.matched,
        lag: member.lag,
    })
}

#[cfg(test)]
mod tests;
