//! What calls that only look must see in a state.

use super::matching::dead_text;
use raftqueue_node::api::{
    Dead, Look, MessageRef, MessageState, Publish, Request, Response, Settle, Take, TopicInfo, Write,
};
use raftqueue_queue::{State, Subscription, SubscriptionId, Topic, TopicId};

fn topic_name(request: &Request) -> &str {
    match request {
        Request::Publish(Publish { topic, .. })
        | Request::Take(Take { topic, .. })
        | Request::Settle(Settle { topic, .. })
        | Request::Dead(Dead { topic, .. })
        | Request::Write(
            Write::CreateTopic { topic, .. }
            | Write::UpdateTopic { topic, .. }
            | Write::DeleteTopic { topic }
            | Write::Purge { topic, .. },
        )
        | Request::Look(Look::DescribeTopic { topic } | Look::Peek { topic, .. }) => topic,
        _ => "",
    }
}

fn subscription<'s>(state: &'s State, request: &Request) -> Option<&'s Subscription> {
    state.subscription(state.topic_id(topic_name(request))?, SubscriptionId::DEFAULT)
}

/// (ready, leased, delayed, dead) messages of a topic.
pub(super) fn counts(state: &State, topic: &str) -> (u64, u64, u64, u64) {
    let request = Request::Look(Look::DescribeTopic { topic: topic.to_owned() });
    let stats = subscription(state, &request).map(Subscription::stats);
    stats.map_or((0, 0, 0, 0), |stats| (stats.ready, stats.leased, stats.delayed, stats.dead))
}

/// A receive or pop finds nothing in this state.
pub(super) fn has_nothing_ready(state: &State, request: &Request) -> bool {
    subscription(state, request).is_some_and(|subscription| !subscription.has_ready())
}

/// The topic that the call names does not exist in this state.
pub(super) fn has_no_topic(state: &State, request: &Request) -> bool {
    state.topic_id(topic_name(request)).is_none()
}

/// `response` is what this state answers.
pub(super) fn shows(state: &State, request: &Request, response: &Response) -> bool {
    match (request, response) {
        (Request::Look(Look::ListTopics { after, topics_max }), Response::Topics { topics, more }) => {
            let all: Vec<&Topic> = state.topics_from(TopicId(after.map_or(0, |after| after + 1))).collect();
            *more == (all.len() > *topics_max)
                && topics.len() == all.len().min(*topics_max)
                && topics.iter().zip(all).all(|(info, topic)| is_info_of(info, topic))
        }
        (Request::Look(Look::DescribeTopic { topic }), Response::Topic(info)) => {
            state.topic_id(topic).and_then(|id| state.topic(id)).is_some_and(|topic| is_info_of(info, topic))
        }
        (
            Request::Look(Look::Peek { topic, state: kind, from_offset, messages_max, .. }),
            Response::Messages(messages),
        ) => {
            let Some(topic) = state.topic_id(topic).and_then(|id| state.topic(id)) else { return false };
            let subscription = topic.subscription(SubscriptionId::DEFAULT).expect("always there");
            let seen = peek(subscription, *kind, *from_offset);
            messages.len() == seen.len().min(*messages_max)
                && messages.iter().zip(seen).all(|(message, seen)| {
                    let MessageRef { id, token, attempts, deadline_ms, reason } = message;
                    id.topic == topic.id().0
                        && (id.offset, *token, *attempts, *deadline_ms, reason.clone()) == seen
                })
        }
        _ => false,
    }
}

fn is_info_of(info: &TopicInfo, topic: &Topic) -> bool {
    let stats = topic.subscription(SubscriptionId::DEFAULT).expect("always there").stats();
    let [subscription] = info.subscriptions.as_slice() else { return false };
    let bytes = stats.ready_bytes + stats.leased_bytes + stats.delayed_bytes + stats.dead_bytes;
    (info.id, info.name.as_str(), info.next_offset, info.bytes)
        == (topic.id().0, topic.name(), topic.next_offset(), bytes)
        && (subscription.ready, subscription.leased, subscription.delayed, subscription.dead)
            == (stats.ready, stats.leased, stats.delayed, stats.dead)
}

/// (offset, token, attempts, deadline, reason) of everything that a peek without limit shows.
fn peek(subscription: &Subscription, kind: MessageState, from: u64) -> Vec<(u64, u64, u32, u64, String)> {
    match kind {
        MessageState::Ready => subscription
            .ready_from(from)
            .map(|offset| (offset, 0, subscription.attempts(offset), 0, String::new()))
            .collect(),
        MessageState::Leased => subscription
            .leased_from(from)
            .map(|m| (m.offset, m.token.0, m.attempts, m.expires_ms, String::new()))
            .collect(),
        MessageState::Delayed => subscription
            .delayed_from(from)
            .map(|m| (m.offset, 0, m.attempts, m.due_ms, String::new()))
            .collect(),
        MessageState::Dead => subscription
            .dead_from(from)
            .flat_map(|run| {
                let text = dead_text(&run.reason);
                run.offsets.map(move |offset| (offset, 0, run.attempts, 0, text.clone()))
            })
            .collect(),
    }
}
