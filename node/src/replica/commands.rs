//! A client's call as a command of the queue, what the command costs, and the queue's reply as the client's answer.

use super::Replica;
use crate::api::{
    DeadAction, Failure, LeaseResult, MessageId, MessageRef, Reason, Response, SessionId, Settle, Settlement,
    SubscriptionInfo, TopicInfo, TopicOptions, Write,
};
use raftqueue_queue::{
    self as queue, Command, DeadReason, DeadSelection, Delivery, Generation, Limit, Refused, Reply,
    SubscriptionId, Token, Topic, TopicId, TopicSettings,
};

/// Steps of a command and its answer, besides what it lists.
pub(super) const COMMAND_STEPS: usize = 2;
/// An estimate of the bytes that a command without messages costs.
pub(super) const COMMAND_BYTES: usize = 64;
/// The same for each message or lease that it names.
const LISTED_BYTES: usize = 24;

// ---- calls -----------------------------------------------------------------------------------------------------------

/// The command that settles leases.
pub(super) fn settle(settle: Settle, settings: &super::Settings) -> Result<Command, Failure> {
    let Settle { subscription, leases, settlement, .. } = settle;
    let subscription = Replica::subscription(&subscription)?;
    let topic = TopicId(leases.first().map_or(0, |lease| lease.message.topic));
    if let Some(other) = leases.iter().find(|lease| lease.message.topic != topic.0) {
        let other = other.message.topic;
        let text = format!("one call settles leases of one topic; these are of topics {topic} and {other}");
        return Err(Failure::not_done(Reason::InvalidArgument, text));
    }
    let leases = leases
        .iter()
        .map(|lease| queue::LeaseId {
            generation: Generation(lease.message.generation),
            offset: lease.message.offset,
            token: Token(lease.token),
        })
        .collect();
    Ok(match settlement {
        Settlement::Ack => Command::Ack { topic, subscription, leases },
        Settlement::Nack { delay_ms, reason } => {
            let reason = (!reason.is_empty()).then_some(reason);
            Command::Nack { topic, subscription, leases, delay_ms, reason }
        }
        Settlement::Extend { lease_ms } => {
            let lease_ms = lease_ms.unwrap_or(settings.lease_ms_default);
            Command::Extend { topic, subscription, leases, lease_ms }
        }
        Settlement::Release => Command::Release { topic, subscription, leases },
    })
}

/// The command that acts on dead messages.
pub(super) fn dead(
    (topic, subscription): (TopicId, SubscriptionId),
    action: DeadAction,
    selection: DeadSelection,
) -> Command {
    match action {
        DeadAction::Redrive => Command::RedriveDead { topic, subscription, selection },
        DeadAction::Purge => Command::PurgeDead { topic, subscription, selection },
    }
}

/// The command of any other change.
pub(super) fn write(write: Write, settings: &super::Settings) -> Result<Command, Failure> {
    Ok(match write {
        Write::CreateTopic { topic, options, request_id } => Command::CreateTopic {
            name: topic,
            settings: TopicSettings {
                attempts_max: options.attempts_max.unwrap_or(settings.attempts_max_default),
                messages_max: options.messages_max,
                bytes_max: options.bytes_max,
                ttl_ms_default: options.ttl_ms,
            },
            topics_max: settings.topics_max,
            request_id,
        },
        Write::UpdateTopic { topic, change } => Command::UpdateTopic {
            name: topic,
            change: queue::TopicChange {
                attempts_max: change.attempts_max.map(|max| max.unwrap_or(settings.attempts_max_default)),
                messages_max: change.messages_max,
                bytes_max: change.bytes_max,
                ttl_ms_default: change.ttl_ms,
            },
        },
        Write::DeleteTopic { topic } => Command::DeleteTopic { name: topic },
        Write::Purge { topic, subscription } => {
            Command::Purge { topic, subscription: Replica::subscription(&subscription)? }
        }
        Write::OpenSession { name } => Command::OpenSession {
            name,
            sessions_max: settings.sessions_max,
            pairs_max: settings.session_pairs_max,
        },
        Write::CloseSession { session } => Command::CloseSession {
            session: queue::SessionId { generation: Generation(session.generation), number: session.number },
            epoch: session.epoch,
        },
    })
}

// ---- what they cost --------------------------------------------------------------------------------------------------

/// What a command costs to propose or to apply, as far as it lists what it is about.
pub(super) fn steps(command: &Command) -> usize {
    COMMAND_STEPS
        + match command {
            Command::Publish { messages, .. } => messages.len(),
            Command::RedriveDead { selection: DeadSelection::Listed(listed), .. }
            | Command::PurgeDead { selection: DeadSelection::Listed(listed), .. } => listed.len(),
            command => named(command),
        }
}

/// About how many bytes a command takes in an entry; its messages are counted apart.
pub(super) fn bytes(command: &Command) -> usize {
    COMMAND_BYTES + LISTED_BYTES * named(command)
}

/// Candidates or leases that a command names.
fn named(command: &Command) -> usize {
    match command {
        Command::Receive { candidates, .. } | Command::Pop { candidates, .. } => candidates.len(),
        Command::Ack { leases, .. }
        | Command::Nack { leases, .. }
        | Command::Extend { leases, .. }
        | Command::Release { leases, .. } => leases.len(),
        Command::Time { overdue } => overdue.iter().map(|overdue| overdue.candidates.len()).sum(),
        _ => 0,
    }
}

// ---- replies ---------------------------------------------------------------------------------------------------------

/// What a command is answered with, in the client's words.
pub(super) fn respond(command: &Command, reply: Reply) -> Result<Response, Failure> {
    match reply {
        Reply::Created { topic, .. } => Ok(Response::TopicCreated { topic: topic.0 }),
        Reply::Updated { settings } => Ok(Response::TopicUpdated(options(&settings))),
        Reply::Deleted { .. } => Ok(Response::TopicDeleted),
        Reply::Published { topic, generation, first_offset, count, repeated } => Ok(Response::Published {
            topic: topic.0,
            generation: generation.0,
            first_offset,
            count: u64::from(count),
            deduplicated: repeated,
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

/// A topic's settings in the client's words.
fn options(settings: &TopicSettings) -> TopicOptions {
    TopicOptions {
        attempts_max: Some(settings.attempts_max),
        messages_max: settings.messages_max,
        bytes_max: settings.bytes_max,
        ttl_ms: settings.ttl_ms_default,
    }
}

pub(super) fn topic_info(topic: &Topic) -> TopicInfo {
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
        options: options(topic.settings()),
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
        Command::CreateTopic { name, .. }
        | Command::UpdateTopic { name, .. }
        | Command::DeleteTopic { name } => name,
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
        Refused::RedriveUnfinished => (Reason::Overloaded, refused.to_string()),
        Refused::GenerationNotAbove { .. } | Refused::SizesImpossible | Refused::NumbersSpent => {
            (Reason::FailedPrecondition, refused.to_string())
        }
    };
    let failure = Failure::not_done(reason, text);
    match reason {
        Reason::LimitReached => failure.retry_after_ms(1_000),
        Reason::Overloaded => failure.retry_after_ms(100),
        _ => failure,
    }
}
