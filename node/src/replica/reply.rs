//! From the queue's answers to the client's.

use crate::api::{
    Failure, LeaseResult, MessageId, MessageRef, Reason, Response, SessionId, SubscriptionInfo, TopicInfo,
    TopicOptions,
};
use raftqueue_queue::{
    self as queue, Command, DeadReason, Delivery, Generation, Limit, Refused, Reply, SubscriptionId, Token,
    Topic, TopicId,
};

pub(super) fn respond(command: &Command, reply: Reply) -> Result<Response, Failure> {
    match reply {
        Reply::Created { topic, .. } => Ok(Response::TopicCreated { topic: topic.0 }),
        Reply::Deleted { .. } => Ok(Response::TopicDeleted),
        Reply::Published { topic, generation, first_offset, count, .. } => Ok(Response::Published {
            topic: topic.0,
            generation: generation.0,
            first_offset,
            count: u64::from(count),
        }),
        Reply::Received { topic, token, expires_ms, deliveries } => {
            Ok(Response::Messages(messages(topic, &deliveries, token, expires_ms)))
        }
        Reply::Popped { topic, deliveries, .. } => {
            Ok(Response::Messages(messages(topic, &deliveries, Token(0), 0)))
        }
        Reply::Settled { results } => Ok(Response::Leases(results.into_iter().map(lease_result).collect())),
        Reply::Extended { extensions } => Ok(Response::Leases(
            extensions.into_iter().map(|extension| lease_result(extension.result)).collect(),
        )),
        Reply::Redriven { count } | Reply::Purged { count, .. } => Ok(Response::Count(count)),
        Reply::SessionOpened { session, epoch, .. } => Ok(Response::SessionOpened {
            session: SessionId { generation: session.generation.0, number: session.number, epoch },
        }),
        Reply::SessionClosed | Reply::Done => Ok(Response::SessionClosed),
        Reply::AlreadyDone if matches!(command, Command::Pop { .. }) => Err(Failure::not_done(
            Reason::AlreadyDone,
            "this pop was answered before, too long ago for its messages to be kept; this repeat took nothing",
        )),
        Reply::AlreadyDone => Ok(Response::AlreadyDone),
        Reply::Refused(refused) => Err(refusal(command, &refused)),
    }
}

fn messages(topic: TopicId, deliveries: &[Delivery], token: Token, expires_ms: u64) -> Vec<MessageRef> {
    deliveries
        .iter()
        .map(|delivery| MessageRef {
            id: message_id(topic, delivery.generation, delivery.offset),
            token: token.0,
            attempts: delivery.attempts,
            deadline_ms: expires_ms,
            reason: String::new(),
        })
        .collect()
}

pub(super) fn message_id(topic: TopicId, generation: Generation, offset: u64) -> MessageId {
    MessageId { generation: generation.0, topic: topic.0, offset }
}

fn lease_result(result: queue::LeaseResult) -> LeaseResult {
    match result {
        queue::LeaseResult::Done => LeaseResult::Done,
        queue::LeaseResult::Gone => LeaseResult::Gone,
        queue::LeaseResult::Stale => LeaseResult::Stale,
        queue::LeaseResult::Invalid => LeaseResult::Invalid,
    }
}

pub(super) fn dead_reason(reason: &DeadReason) -> String {
    match reason {
        DeadReason::Expired => "expired".into(),
        DeadReason::LeaseExpired => "lease expired".into(),
        DeadReason::Nacked => "nacked".into(),
        DeadReason::NackedBecause(text) => format!("nacked: {text}"),
    }
}

pub(super) fn topic_info(topic: &Topic) -> TopicInfo {
    let settings = topic.settings();
    let subscriptions: Vec<_> =
        topic.subscriptions().map(|(id, subscription)| (id, subscription.stats())).collect();
    let bytes = subscriptions
        .iter()
        .map(|(_, s)| s.ready_bytes + s.leased_bytes + s.delayed_bytes + s.dead_bytes)
        .max()
        .unwrap_or(0);
    TopicInfo {
        id: topic.id().0,
        name: topic.name().to_owned(),
        created_ms: topic.created_ms(),
        options: TopicOptions {
            attempts_max: Some(settings.attempts_max),
            messages_max: settings.messages_max,
            bytes_max: settings.bytes_max,
            ttl_ms: settings.ttl_ms_default,
        },
        next_offset: topic.next_offset(),
        bytes,
        subscriptions: subscriptions
            .into_iter()
            .map(|(id, stats)| SubscriptionInfo {
                name: if id == SubscriptionId::DEFAULT {
                    SubscriptionId::DEFAULT_NAME.into()
                } else {
                    id.to_string()
                },
                ready: stats.ready,
                leased: stats.leased,
                delayed: stats.delayed,
                dead: stats.dead,
            })
            .collect(),
    }
}

/// Why the queue refused, in the client's words. Nothing was done in any of these cases.
fn refusal(command: &Command, refused: &Refused) -> Failure {
    let name = match command {
        Command::CreateTopic { name, .. } | Command::DeleteTopic { name } => name,
        Command::Publish { topic, .. } | Command::Purge { topic, .. } => topic,
        _ => "",
    };
    let (reason, text) = match refused {
        Refused::NoSuchTopic if name.is_empty() => {
            (Reason::TopicNotFound, "the topic was deleted meanwhile".into())
        }
        Refused::NoSuchTopic => {
            (Reason::TopicNotFound, format!("there is no topic `{name}`: create it first"))
        }
        Refused::NoSuchSubscription => (Reason::SubscriptionNotFound, refused.to_string()),
        Refused::TopicExists { .. } => (Reason::TopicExists, format!("there is a topic `{name}` already")),
        Refused::OverLimit { limit, .. } => (
            match limit {
                Limit::Topics
                | Limit::TopicMessages
                | Limit::TopicBytes
                | Limit::Sessions
                | Limit::SessionTopics
                | Limit::SessionPairs => Reason::LimitReached,
                Limit::PublishMessages | Limit::ReceiveMessages | Limit::SettleLeases | Limit::DeadListed => {
                    Reason::TooLarge
                }
                Limit::Attempts | Limit::LeaseMs | Limit::NackReasonBytes => Reason::InvalidArgument,
            },
            refused.to_string(),
        ),
        Refused::InvalidName | Refused::Empty | Refused::UnderLimit { .. } | Refused::RequestIdReused => {
            (Reason::InvalidArgument, refused.to_string())
        }
        Refused::SessionExpired { .. } => (Reason::SessionExpired, refused.to_string()),
        Refused::Fenced { .. } => (Reason::Fenced, refused.to_string()),
        Refused::OutOfSequence { .. } => (Reason::OutOfSequence, refused.to_string()),
        Refused::SequenceReused { .. } => (Reason::SequenceReused, refused.to_string()),
        Refused::GenerationNotAbove { .. } | Refused::SizesImpossible | Refused::NumbersSpent => {
            (Reason::FailedPrecondition, refused.to_string())
        }
    };
    let failure = Failure::not_done(reason, text);
    if reason == Reason::LimitReached { failure.retry_after_ms(1_000) } else { failure }
}
