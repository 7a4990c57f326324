//! Each call on the wire: how it is read, how it is passed on to the leader, and what it is answered with.
//!
//! Requests that clients send are read with everything that the contract leaves open (defaults, empty fields) filled in.

use super::answers;
use super::convert::{
    read_bytes_max, read_count, read_leases, read_message, read_options, read_request_id, read_state,
    read_step, read_topic_change, write_cluster, write_count, write_delivery, write_leases, write_message,
    write_node_id, write_options, write_request_id, write_results, write_state, write_step, write_topic,
    write_topic_change,
};
use super::ids;
use super::members;
use crate::api::limits::{LIST_TOPICS_DEFAULT, invalid};
use crate::api::{
    Answer, Change, ChangeMembers, Dead, DeadAction, Failure, Look, MessageId, Publish, Request, Response,
    Settle, Settlement, Take, TakeKind, Write,
};
use raftqueue_proto::peer::v1::forward_request::Call;
use raftqueue_proto::v1;
use raftqueue_proto::v1::settlement::Kind;

/// A request that is read from the wire. Fails if the caller must be corrected.
pub(crate) trait Read {
    /// The call that it makes.
    fn read(self) -> Result<Request, Failure>;
}

/// A request on the wire, how it is read, and its answer. `read_call` lists them once more.
macro_rules! call {
    ($request:ident, $answer:ident: |$call:ident| $read:expr; $pattern:pat => $write:expr) => {
        impl Read for v1::$request {
            fn read(self) -> Result<Request, Failure> {
                let $call = self;
                Ok($read)
            }
        }

        impl answers::Write for v1::$answer {
            fn write(answer: Answer) -> Option<Self> {
                match answer {
                    $pattern => Some($write),
                    _ => None,
                }
            }
        }
    };
}

// ---- messages --------------------------------------------------------------------------------------------------------

impl Read for v1::PublishRequest {
    fn read(self) -> Result<Request, Failure> {
        read_publish(self).map(Request::Publish)
    }
}

/// Messages to be published, as they stand on the wire.
///
/// # Errors
///
/// Something in it cannot be read.
pub(crate) fn read_publish(call: v1::PublishRequest) -> Result<Publish, Failure> {
    let session = call.session.as_ref().map(read_step).transpose()?;
    let mut messages = Vec::with_capacity(call.messages.len());
    for (position, message) in call.messages.into_iter().enumerate() {
        messages.push(read_message(position, message)?);
    }
    Ok(Publish { topic: call.topic, session, messages })
}

impl answers::Write for v1::PublishResponse {
    fn write(answer: Answer) -> Option<Self> {
        match answer {
            Answer::Response(Response::Published {
                topic,
                generation,
                first_offset,
                count,
                deduplicated,
            }) => {
                let first_id = ids::encode_message_id(MessageId { generation, topic, offset: first_offset });
                Some(Self { first_offset, count, first_id, already_done: false, deduplicated })
            }
            Answer::Response(Response::AlreadyDone) => {
                Some(Self { already_done: true, deduplicated: true, ..Self::default() })
            }
            _ => None,
        }
    }
}

/// A call that takes messages.
macro_rules! take {
    ($request:ident, $answer:ident: |$call:ident| $kind:expr) => {
        call!($request, $answer: |$call| Request::Take(Take {
            kind: $kind,
            topic: $call.topic,
            subscription: $call.subscription,
            messages_max: read_count($call.messages_max, 1),
            bytes_max: read_bytes_max($call.bytes_max),
            wait_ms: $call.wait_ms,
        });
        Answer::Deliveries(deliveries) =>
            Self { deliveries: deliveries.messages.into_iter().map(write_delivery).collect() });
    };
}

take!(ReceiveRequest, ReceiveResponse: |call| TakeKind::Receive { lease_ms: call.lease_ms });
take!(PopRequest, PopResponse: |call| TakeKind::Pop { request_id: read_request_id(&call.request_id)? });

fn write_take(take: Take) -> Call {
    let Take { topic, subscription, messages_max, bytes_max, wait_ms, kind } = take;
    let (messages_max, bytes_max) = (write_count(messages_max), bytes_max as u64);
    match kind {
        TakeKind::Receive { lease_ms } => Call::Receive(v1::ReceiveRequest {
            topic,
            subscription,
            messages_max,
            bytes_max,
            lease_ms,
            wait_ms,
        }),
        TakeKind::Pop { request_id } => {
            let request_id = write_request_id(request_id);
            Call::Pop(v1::PopRequest { topic, subscription, messages_max, bytes_max, wait_ms, request_id })
        }
    }
}

/// A call that settles leases.
macro_rules! settle {
    ($request:ident, $answer:ident: |$call:ident| $settlement:expr) => {
        call!($request, $answer: |$call| Request::Settle(Settle {
            leases: read_leases(&$call.leases)?,
            topic: $call.topic,
            subscription: $call.subscription,
            settlement: $settlement,
        });
        Answer::Response(Response::Leases(results)) => Self { results: write_results(&results) });
    };
}

settle!(AckRequest, AckResponse: |call| Settlement::Ack);
settle!(NackRequest, NackResponse: |call| Settlement::Nack { delay_ms: call.delay_ms, reason: call.reason });
settle!(ExtendRequest, ExtendResponse: |call| Settlement::Extend { lease_ms: call.lease_ms });
settle!(ReleaseRequest, ReleaseResponse: |call| Settlement::Release);

fn write_settle(settle: Settle) -> Call {
    let Settle { topic, subscription, leases, settlement } = settle;
    let leases = write_leases(leases);
    match settlement {
        Settlement::Ack => Call::Ack(v1::AckRequest { topic, subscription, leases }),
        Settlement::Nack { delay_ms, reason } => {
            Call::Nack(v1::NackRequest { topic, subscription, leases, delay_ms, reason })
        }
        Settlement::Extend { lease_ms } => {
            Call::Extend(v1::ExtendRequest { topic, subscription, leases, lease_ms })
        }
        Settlement::Release => Call::Release(v1::ReleaseRequest { topic, subscription, leases }),
    }
}

/// The settlement that a consumer's stream asks for; `None` if the leader need not know of it.
pub(crate) fn read_settlement(settlement: &mut v1::Settlement) -> Option<Settlement> {
    Some(match settlement.kind() {
        Kind::Ack => Settlement::Ack,
        Kind::Nack => {
            let reason = std::mem::take(&mut settlement.reason);
            Settlement::Nack { delay_ms: settlement.delay_ms, reason }
        }
        Kind::Extend => Settlement::Extend { lease_ms: settlement.lease_ms },
        Kind::Release => Settlement::Release,
        Kind::Forget | Kind::Unspecified => return None,
    })
}

/// A call that acts on dead messages.
macro_rules! dead {
    ($request:ident, $answer:ident: $action:expr) => {
        call!($request, $answer: |call| Request::Dead(Dead {
            topic: call.topic,
            subscription: call.subscription,
            offsets: call.offsets,
            action: $action,
        });
        Answer::Response(Response::Count(count)) => Self { count });
    };
}

dead!(RedriveDeadRequest, RedriveDeadResponse: DeadAction::Redrive);
dead!(PurgeDeadRequest, PurgeDeadResponse: DeadAction::Purge);

fn write_dead(dead: Dead) -> Call {
    let Dead { topic, subscription, offsets, action } = dead;
    match action {
        DeadAction::Redrive => Call::RedriveDead(v1::RedriveDeadRequest { topic, subscription, offsets }),
        DeadAction::Purge => Call::PurgeDead(v1::PurgeDeadRequest { topic, subscription, offsets }),
    }
}

// ---- other changes ---------------------------------------------------------------------------------------------------

call!(CreateTopicRequest, CreateTopicResponse: |call| {
    let request_id = read_request_id(&call.request_id)?;
    Request::Write(Write::CreateTopic { topic: call.topic, options: read_options(call.options), request_id })
};
Answer::Response(Response::TopicCreated { topic }) => Self { topic_id: topic });

call!(UpdateTopicRequest, UpdateTopicResponse: |call| {
    let change = read_topic_change(call.options.unwrap_or_default(), &call.unset)?;
    Request::Write(Write::UpdateTopic { topic: call.topic, change })
};
Answer::Response(Response::TopicUpdated(options)) => Self { options: Some(write_options(&options)) });

call!(DeleteTopicRequest, DeleteTopicResponse: |call| Request::Write(Write::DeleteTopic { topic: call.topic });
Answer::Response(Response::TopicDeleted) => Self {});

call!(PurgeRequest, PurgeResponse: |call|
    Request::Write(Write::Purge { topic: call.topic, subscription: call.subscription });
Answer::Response(Response::Count(count)) => Self { count });

call!(OpenSessionRequest, OpenSessionResponse: |call| Request::Write(Write::OpenSession { name: call.name });
Answer::Response(Response::SessionOpened { session }) => Self { session: ids::encode_session(session) });

call!(CloseSessionRequest, CloseSessionResponse: |call|
    Request::Write(Write::CloseSession { session: ids::decode_session(&call.session)? });
Answer::Response(Response::SessionClosed) => Self {});

fn write_write(write: Write) -> Call {
    match write {
        Write::CreateTopic { topic, options, request_id } => Call::CreateTopic(v1::CreateTopicRequest {
            topic,
            options: Some(write_options(&options)),
            request_id: write_request_id(request_id),
        }),
        Write::UpdateTopic { topic, change } => {
            let (options, unset) = write_topic_change(&change);
            Call::UpdateTopic(v1::UpdateTopicRequest { topic, options: Some(options), unset })
        }
        Write::DeleteTopic { topic } => Call::DeleteTopic(v1::DeleteTopicRequest { topic }),
        Write::Purge { topic, subscription } => Call::Purge(v1::PurgeRequest { topic, subscription }),
        Write::OpenSession { name } => Call::OpenSession(v1::OpenSessionRequest { name }),
        Write::CloseSession { session } => {
            Call::CloseSession(v1::CloseSessionRequest { session: ids::encode_session(session) })
        }
    }
}

// ---- questions -------------------------------------------------------------------------------------------------------

call!(ListTopicsRequest, ListTopicsResponse: |call| {
    let after = call.after.filter(|after| *after != 0);
    Request::Look(Look::ListTopics { after, topics_max: read_count(call.topics_max, LIST_TOPICS_DEFAULT) })
};
Answer::Response(Response::Topics { topics, more }) =>
    Self { topics: topics.into_iter().map(write_topic).collect(), more });

call!(DescribeTopicRequest, DescribeTopicResponse: |call|
    Request::Look(Look::DescribeTopic { topic: call.topic });
Answer::Response(Response::Topic(topic)) => Self { topic: Some(write_topic(topic)) });

call!(PeekRequest, PeekResponse: |call| Request::Look(Look::Peek {
    state: read_state(call.state)?,
    topic: call.topic,
    subscription: call.subscription,
    from_offset: call.from_offset,
    messages_max: read_count(call.messages_max, 1),
    bytes_max: read_bytes_max(call.bytes_max),
});
Answer::Deliveries(deliveries) =>
    Self { deliveries: deliveries.messages.into_iter().map(write_delivery).collect() });

call!(ClusterStatusRequest, ClusterStatusResponse: |_call| Request::Look(Look::ClusterStatus);
Answer::Response(Response::Cluster(cluster)) => write_cluster(cluster));

fn write_look(look: Look) -> Call {
    match look {
        Look::ListTopics { after, topics_max } => {
            Call::ListTopics(v1::ListTopicsRequest { after, topics_max: write_count(topics_max) })
        }
        Look::DescribeTopic { topic } => Call::DescribeTopic(v1::DescribeTopicRequest { topic }),
        Look::Peek { topic, subscription, state, from_offset, messages_max, bytes_max } => {
            let (messages_max, bytes_max) = (write_count(messages_max), bytes_max as u64);
            let state = write_state(state).into();
            Call::Peek(v1::PeekRequest { topic, subscription, state, from_offset, messages_max, bytes_max })
        }
        Look::ClusterStatus => Call::ClusterStatus(v1::ClusterStatusRequest {}),
        Look::Members => Call::Members(v1::MembersRequest {}),
    }
}

call!(TransferLeadershipRequest, TransferLeadershipResponse: |call|
    Request::TransferLeadership { to: call.to };
Answer::Response(Response::Transferred { leader }) => Self { leader: write_node_id(leader) });

// ---- members ---------------------------------------------------------------------------------------------------------

call!(MembersRequest, MembersResponse: |_call| Request::Look(Look::Members);
Answer::Response(Response::Members(members)) => members::write(members));

impl answers::Write for v1::MemberChangeResponse {
    fn write(answer: Answer) -> Option<Self> {
        match answer {
            Answer::Response(Response::MembersChanged { configuration_index, refusal }) => {
                Some(Self { configuration_index, refusal: refusal.unwrap_or_default() })
            }
            _ => None,
        }
    }
}

/// The requests that change members, and what each asks for.
macro_rules! changes {
    ($($request:ident: |$call:ident| $change:expr, $force:expr;)*) => {
        $(
            impl Read for v1::$request {
                fn read(self) -> Result<Request, Failure> {
                    let $call = self;
                    let (expected, dry, force) = ($call.configuration_index, $call.dry, $force);
                    Ok(Request::Members(ChangeMembers { change: $change, expected, force, dry }))
                }
            }
        )*
    };
}

changes! {
    AddLearnerRequest: |call| Change::AddLearners(call.nodes), false;
    PromoteRequest: |call| Change::Promote(call.nodes), false;
    RemoveRequest: |call| Change::Remove(call.nodes), call.force;
    ReplaceRequest: |call| Change::Replace { old: call.old, new: call.new }, call.force;
    RaiseVersionRequest: |call| Change::RaiseVersion(call.version), false;
}

fn write_change(change: ChangeMembers) -> Call {
    let ChangeMembers { change, expected: configuration_index, force, dry } = change;
    match change {
        Change::AddLearners(nodes) => {
            Call::AddLearner(v1::AddLearnerRequest { nodes, configuration_index, dry })
        }
        Change::Promote(nodes) => Call::Promote(v1::PromoteRequest { nodes, configuration_index, dry }),
        Change::Remove(nodes) => Call::Remove(v1::RemoveRequest { nodes, configuration_index, dry, force }),
        Change::Replace { old, new } => {
            Call::Replace(v1::ReplaceRequest { old, new, configuration_index, dry, force })
        }
        Change::RaiseVersion(version) => {
            Call::RaiseVersion(v1::RaiseVersionRequest { version, configuration_index, dry })
        }
    }
}

// ---- passed on -------------------------------------------------------------------------------------------------------

/// The call as it is passed on. Bodies are shared, not copied.
#[must_use]
pub fn write_call(request: Request) -> Call {
    match request {
        Request::Publish(Publish { topic, session, messages }) => Call::Publish(v1::PublishRequest {
            topic,
            session: session.map(write_step),
            messages: messages.into_iter().map(write_message).collect(),
        }),
        Request::Take(take) => write_take(take),
        Request::Settle(settle) => write_settle(settle),
        Request::Dead(dead) => write_dead(dead),
        Request::Write(write) => write_write(write),
        Request::Look(look) => write_look(look),
        Request::TransferLeadership { to } => Call::TransferLeadership(v1::TransferLeadershipRequest { to }),
        Request::Members(change) => write_change(change),
    }
}

/// The call that a peer passed on.
///
/// # Errors
///
/// The call cannot be read, as a call of a newer version. The failure goes back to the peer.
pub fn read_call(call: Option<Call>) -> Result<Request, Failure> {
    macro_rules! read {
        ($call:expr; $($name:ident)*) => { match $call { $(Call::$name(call) => call.read(),)* } };
    }
    let call = call.ok_or_else(|| invalid("a forwarded call that this node does not know"))?;
    read!(call;
        Publish Receive Pop Ack Nack Extend Release RedriveDead PurgeDead
        CreateTopic UpdateTopic DeleteTopic Purge OpenSession CloseSession
        ListTopics DescribeTopic Peek ClusterStatus TransferLeadership
        Members AddLearner Promote Remove Replace RaiseVersion
    )
}

/// What a call is answered with if it succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerKind {
    TopicCreated,
    TopicUpdated,
    TopicDeleted,
    Topics,
    Topic,
    Published,
    Deliveries,
    /// All messages that were sent, or none: a repeat brings those again that were damaged on the way.
    DeliveriesOrRepeat,
    /// So many results.
    Leases(usize),
    Count,
    SessionOpened,
    SessionClosed,
    Cluster,
    Transferred,
    Members,
    MembersChanged,
}

/// What the answer to `request` must be.
pub(super) fn answer_kind(request: &Request) -> AnswerKind {
    match request {
        Request::Publish(_) => AnswerKind::Published,
        Request::Take(Take { kind: TakeKind::Pop { request_id: Some(_) }, .. }) => {
            AnswerKind::DeliveriesOrRepeat
        }
        Request::Take(_) | Request::Look(Look::Peek { .. }) => AnswerKind::Deliveries,
        Request::Settle(settle) => AnswerKind::Leases(settle.leases.len()),
        Request::Dead(_) | Request::Write(Write::Purge { .. }) => AnswerKind::Count,
        Request::Write(Write::CreateTopic { .. }) => AnswerKind::TopicCreated,
        Request::Write(Write::UpdateTopic { .. }) => AnswerKind::TopicUpdated,
        Request::Write(Write::DeleteTopic { .. }) => AnswerKind::TopicDeleted,
        Request::Write(Write::OpenSession { .. }) => AnswerKind::SessionOpened,
        Request::Write(Write::CloseSession { .. }) => AnswerKind::SessionClosed,
        Request::Look(Look::ListTopics { .. }) => AnswerKind::Topics,
        Request::Look(Look::DescribeTopic { .. }) => AnswerKind::Topic,
        Request::Look(Look::ClusterStatus) => AnswerKind::Cluster,
        Request::TransferLeadership { .. } => AnswerKind::Transferred,
        Request::Look(Look::Members) => AnswerKind::Members,
        Request::Members(_) => AnswerKind::MembersChanged,
    }
}
