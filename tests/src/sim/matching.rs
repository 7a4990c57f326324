//! Which command a call became, and what its client must hear of it. Written anew, so that the node's own conversion is
//! checked too.

use raftqueue_node::api::codec;
use raftqueue_node::api::{
    Dead, DeadAction, LeaseId, LeaseResult, MessageId, MessageRef, Publish, Reason, Request, Response,
    SessionId, Settle, Settlement, Take, TakeKind, TopicOptions, Write,
};
use raftqueue_queue::{
    self as queue, Command, DeadReason, DeadSelection, Delivery, Limit, Refused, Reply, TopicId,
};
use std::collections::BTreeMap;

/// What a call and its command have in common that nothing else has, for the calls that name it themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    /// Checksums of the messages, and the place in a session.
    Publish(String, Option<(u64, u64)>, Vec<u32>),
    /// Kind, topic, leases, and what else was said.
    Settle(&'static str, u64, Vec<(u64, u64)>, String),
}

impl Content {
    pub(super) fn of_request(request: &Request) -> Option<Content> {
        let settle = |kind, leases: &[LeaseId], more: String| {
            let topic = leases.first().map_or(0, |lease| lease.message.topic);
            let leases = leases.iter().map(|lease| (lease.message.offset, lease.token)).collect();
            Some(Content::Settle(kind, topic, leases, more))
        };
        match request {
            Request::Publish(Publish { topic, session, messages }) => {
                let sum = |message| codec::write_message(&mut bytes::BytesMut::new(), message).1;
                let step = session.map(|step| (step.session.number, step.sequence));
                Some(Content::Publish(topic.clone(), step, messages.iter().map(sum).collect()))
            }
            Request::Settle(Settle { leases, settlement, .. }) => match settlement {
                Settlement::Ack => settle("ack", leases, String::new()),
                Settlement::Nack { delay_ms, reason } => {
                    settle("nack", leases, format!("{delay_ms} {reason}"))
                }
                Settlement::Extend { lease_ms } => settle("extend", leases, format!("{lease_ms:?}")),
                Settlement::Release => settle("release", leases, String::new()),
            },
            _ => None,
        }
    }

    pub(super) fn of_command(command: &Command) -> Option<Content> {
        let settle = |kind, topic: &TopicId, leases: &[queue::LeaseId], more: String| {
            let leases = leases.iter().map(|lease| (lease.offset, lease.token.0)).collect();
            Some(Content::Settle(kind, topic.0, leases, more))
        };
        match command {
            Command::Publish { topic, session, messages } => {
                let step = session.map(|step| (step.session.number, step.sequence));
                Some(Content::Publish(topic.clone(), step, messages.iter().map(|m| m.crc).collect()))
            }
            Command::Ack { topic, leases, .. } => settle("ack", topic, leases, String::new()),
            Command::Nack { topic, leases, delay_ms, reason, .. } => {
                let reason = reason.clone().unwrap_or_default();
                settle("nack", topic, leases, format!("{delay_ms} {reason}"))
            }
            Command::Extend { topic, leases, lease_ms, .. } => {
                settle("extend", topic, leases, format!("{:?}", Some(lease_ms)))
            }
            Command::Release { topic, leases, .. } => settle("release", topic, leases, String::new()),
            _ => None,
        }
    }
}

/// Whether `command` can be what became of `request`. `names` knows every topic there ever was.
pub(super) fn is_of(request: &Request, command: &Command, names: &BTreeMap<TopicId, String>) -> bool {
    let is_named = |id: &TopicId, name: &String| names.get(id) == Some(name);
    let is_selected = |selection: &DeadSelection, offsets: &[u64]| match selection {
        DeadSelection::All => offsets.is_empty(),
        DeadSelection::Listed(listed) => {
            !offsets.is_empty() && listed.iter().all(|message| offsets.contains(&message.offset))
        }
    };
    match (request, command) {
        (
            Request::Write(Write::CreateTopic { topic, request_id, .. }),
            Command::CreateTopic { name, request_id: id, .. },
        ) => topic == name && request_id == id,
        (
            Request::Write(Write::UpdateTopic { topic, change }),
            Command::UpdateTopic { name, change: given },
        ) => {
            let attempts = |max: Option<u32>| max.unwrap_or(queue::ATTEMPTS_MAX_DEFAULT);
            topic == name
                && change.attempts_max.map(attempts) == given.attempts_max
                && (change.messages_max, change.bytes_max) == (given.messages_max, given.bytes_max)
                && change.ttl_ms == given.ttl_ms_default
        }
        (Request::Write(Write::DeleteTopic { topic }), Command::DeleteTopic { name }) => topic == name,
        (
            Request::Take(Take { topic, kind: TakeKind::Receive { lease_ms }, .. }),
            Command::Receive { topic: id, lease_ms: ms, .. },
        ) => is_named(id, topic) && lease_ms.is_none_or(|asked| asked == *ms),
        (
            Request::Take(Take { topic, kind: TakeKind::Pop { request_id }, .. }),
            Command::Pop { topic: id, request_id: given, .. },
        ) => is_named(id, topic) && request_id == given,
        (
            Request::Dead(Dead { topic, offsets, action: DeadAction::Redrive, .. }),
            Command::RedriveDead { topic: id, selection, .. },
        )
        | (
            Request::Dead(Dead { topic, offsets, action: DeadAction::Purge, .. }),
            Command::PurgeDead { topic: id, selection, .. },
        ) => is_named(id, topic) && is_selected(selection, offsets),
        (Request::Write(Write::Purge { topic, .. }), Command::Purge { topic: name, .. }) => topic == name,
        (Request::Write(Write::OpenSession { name }), Command::OpenSession { name: given, .. }) => {
            name == given
        }
        (
            Request::Write(Write::CloseSession { session }),
            Command::CloseSession { session: given, epoch },
        ) => session.number == given.number && session.epoch == *epoch,
        _ => {
            let content = Content::of_request(request);
            content.is_some() && content == Content::of_command(command)
        }
    }
}

/// What the client of `command` must hear when the queue said `reply`. `None`: nothing, the call goes on.
pub(super) fn answer_to(command: &Command, reply: &Reply) -> Option<Result<Response, Reason>> {
    Some(Ok(match reply {
        Reply::Created { topic, .. } => Response::TopicCreated { topic: topic.0 },
        Reply::Updated { settings } => Response::TopicUpdated(TopicOptions {
            attempts_max: Some(settings.attempts_max),
            messages_max: settings.messages_max,
            bytes_max: settings.bytes_max,
            ttl_ms: settings.ttl_ms_default,
        }),
        Reply::Deleted { .. } => Response::TopicDeleted,
        Reply::Published { topic, generation, first_offset, count, repeated } => Response::Published {
            topic: topic.0,
            generation: generation.0,
            first_offset: *first_offset,
            count: u64::from(*count),
            deduplicated: *repeated,
        },
        Reply::Received { deliveries, .. } if deliveries.is_empty() => return None,
        Reply::Popped { deliveries, repeated: false, .. } if deliveries.is_empty() => return None,
        Reply::Received { token, expires_ms, deliveries, .. } => {
            Response::Messages(references(command, deliveries, token.0, *expires_ms))
        }
        Reply::Popped { deliveries, .. } => Response::Messages(references(command, deliveries, 0, 0)),
        Reply::Settled { results } => {
            Response::Leases(results.iter().map(|result| lease_result(*result)).collect())
        }
        Reply::Extended { extensions } => {
            Response::Leases(extensions.iter().map(|extension| lease_result(extension.result)).collect())
        }
        Reply::Redriven { count } | Reply::Purged { count, .. } => Response::Count(*count),
        Reply::SessionOpened { session, epoch, .. } => Response::SessionOpened {
            session: SessionId { generation: session.generation.0, number: session.number, epoch: *epoch },
        },
        Reply::SessionClosed => Response::SessionClosed,
        Reply::Done => return None,
        Reply::AlreadyDone => match command {
            Command::Pop { .. } => return Some(Err(Reason::AlreadyDone)),
            _ => Response::AlreadyDone,
        },
        Reply::Refused(refused) => return Some(Err(reason(refused))),
    }))
}

fn references(command: &Command, deliveries: &[Delivery], token: u64, deadline_ms: u64) -> Vec<MessageRef> {
    let (Command::Receive { topic, .. } | Command::Pop { topic, .. }) = command else {
        unreachable!("only these deliver")
    };
    let reference = |delivery: &Delivery| MessageRef {
        id: MessageId { generation: delivery.generation.0, topic: topic.0, offset: delivery.offset },
        token,
        attempts: delivery.attempts,
        deadline_ms,
        reason: String::new(),
    };
    deliveries.iter().map(reference).collect()
}

fn lease_result(result: queue::LeaseResult) -> LeaseResult {
    match result {
        queue::LeaseResult::Done => LeaseResult::Done,
        queue::LeaseResult::Gone => LeaseResult::Gone,
        queue::LeaseResult::Stale => LeaseResult::Stale,
        queue::LeaseResult::Invalid => LeaseResult::Invalid,
    }
}

fn reason(refused: &Refused) -> Reason {
    match refused {
        Refused::NoSuchTopic => Reason::TopicNotFound,
        Refused::NoSuchSubscription => Reason::SubscriptionNotFound,
        Refused::TopicExists { .. } => Reason::TopicExists,
        Refused::OverLimit { limit: Limit::Attempts | Limit::LeaseMs | Limit::NackReasonBytes, .. }
        | Refused::InvalidName
        | Refused::Empty
        | Refused::UnderLimit { .. }
        | Refused::RequestIdReused => Reason::InvalidArgument,
        Refused::OverLimit {
            limit: Limit::PublishMessages | Limit::ReceiveMessages | Limit::SettleLeases | Limit::DeadListed,
            ..
        } => Reason::TooLarge,
        Refused::OverLimit { .. } => Reason::LimitReached,
        Refused::SessionExpired { .. } => Reason::SessionExpired,
        Refused::Fenced { .. } => Reason::Fenced,
        Refused::OutOfSequence { .. } => Reason::OutOfSequence,
        Refused::SequenceReused { .. } => Reason::SequenceReused,
        Refused::RedriveUnfinished => Reason::Overloaded,
        Refused::GenerationNotAbove { .. } | Refused::SizesImpossible | Refused::NumbersSpent => {
            Reason::FailedPrecondition
        }
    }
}

/// The text under which a dead message is listed.
pub(super) fn dead_text(reason: &DeadReason) -> String {
    match reason {
        DeadReason::Expired => "expired".into(),
        DeadReason::LeaseExpired => "lease expired".into(),
        DeadReason::Nacked => "nacked".into(),
        DeadReason::NackedBecause(text) => format!("nacked: {text}"),
    }
}
