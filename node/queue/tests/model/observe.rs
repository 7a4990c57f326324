//! Everything that can be seen of a state from outside, in a form that the model can give too.

use crate::model::{Model, Status, Topic};
use raftqueue_queue::{
    DeadReason, Generation, Section, SessionId, State, Stats, SubscriptionId, Token, TopicId, TopicSettings,
};

#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    topics: Vec<SeenTopic>,
    sessions: Vec<SeenSession>,
    pair_count: u64,
    pops: Vec<(u128, bool)>,
    generation: Generation,
    earliest_ms: Option<u64>,
}

/// A session with its epoch and its last sequence in each topic.
type SeenSession = (SessionId, u64, Vec<(TopicId, u64)>);

#[derive(Debug, PartialEq)]
struct SeenTopic {
    id: TopicId,
    name: String,
    settings: TopicSettings,
    next_offset: u64,
    stats: Stats,
    states: Vec<(Generation, MessageState)>,
    live: Vec<bool>,
}

#[derive(Debug, PartialEq)]
enum MessageState {
    Ready { attempts: u32, late_ack: Option<Token>, is_waived: bool },
    Leased { attempts: u32, token: Token, granted_ms: u64, expires_ms: u64 },
    Delayed { attempts: u32, due_ms: u64 },
    Dead { attempts: u32, reason: DeadReason },
    Nowhere,
}

pub(crate) fn state(state: &State) -> Seen {
    let mut head = None;
    let (mut sessions, mut pops) = (Vec::new(), Vec::new());
    for section in state.sections() {
        match section {
            Section::Head(of) => head = Some(of),
            Section::Session(of) => sessions.push(of.id),
            Section::Pops(some) => pops.extend(some),
            _ => {}
        }
    }
    let kept = pops.len() - head.expect("a state has a head").pops_kept as usize;
    let topics: Vec<SeenTopic> = state.topics().map(of_topic).collect();
    assert!(state.topic_names().eq(topics.iter().map(|topic| topic.name.as_str())));
    for topic in &topics {
        assert_eq!(state.topic_id(&topic.name), Some(topic.id));
    }
    let session = |&id: &SessionId| {
        let held = state.session(id).expect("a listed session is there");
        (id, held.epoch(), held.sequences().collect())
    };
    Seen {
        topics,
        sessions: sessions.iter().map(session).collect(),
        pair_count: state.session_pair_count(),
        pops: (0..).zip(&pops).map(|(position, pop)| (pop.request_id, position >= kept)).collect(),
        generation: state.generation(),
        earliest_ms: state.earliest_deadline_ms(),
    }
}

fn of_topic(topic: &raftqueue_queue::Topic) -> SeenTopic {
    let held = topic.subscription(SubscriptionId::DEFAULT).expect("every topic has a default");
    let mut states: Vec<MessageState> = (0..topic.next_offset()).map(|_| MessageState::Nowhere).collect();
    let mut put = |offset: u64, state: MessageState| {
        let before = std::mem::replace(&mut states[offset as usize], state);
        assert_eq!(before, MessageState::Nowhere, "offset {offset} stands in two states");
    };
    for offset in held.ready_from(0) {
        let retried = held.retried_from(offset).next().filter(|retried| retried.offset == offset);
        let late_ack = retried.and_then(|retried| retried.late_ack);
        assert!(held.is_ready(offset));
        put(
            offset,
            MessageState::Ready {
                attempts: held.attempts(offset),
                late_ack,
                is_waived: held.is_deadline_waived(offset),
            },
        );
    }
    for lease in held.leased_from(0) {
        let (token, attempts) = (lease.token, lease.attempts);
        put(
            lease.offset,
            MessageState::Leased {
                attempts,
                token,
                granted_ms: lease.granted_ms,
                expires_ms: lease.expires_ms,
            },
        );
    }
    for delayed in held.delayed_from(0) {
        put(delayed.offset, MessageState::Delayed { attempts: delayed.attempts, due_ms: delayed.due_ms });
    }
    for run in held.dead_from(0) {
        for offset in run.offsets {
            assert_eq!(held.attempts(offset), run.attempts);
            put(offset, MessageState::Dead { attempts: run.attempts, reason: run.reason.clone() });
        }
    }
    let live: Vec<bool> = (0..topic.next_offset()).map(|offset| topic.is_live(offset)).collect();
    let mut listed = vec![false; live.len()];
    for offset in topic.live_runs(0..u64::MAX).flatten() {
        assert!(!std::mem::replace(&mut listed[offset as usize], true), "offset {offset} is listed twice");
    }
    assert_eq!(listed, live);
    let generation = |offset| topic.generation_of(offset).expect("it was given");
    let states = (0..).zip(states).map(|(offset, state)| (generation(offset), state)).collect();
    let stats = Stats { entries: 0, ..held.stats() };
    SeenTopic {
        id: topic.id(),
        name: topic.name().to_string(),
        settings: *topic.settings(),
        next_offset: topic.next_offset(),
        stats,
        states,
        live,
    }
}

pub(crate) fn model(model: &Model) -> Seen {
    let session = |session: &crate::model::Session| {
        let sequences =
            session.topics().into_iter().map(|topic| (TopicId(topic), session.last_sequence(topic)));
        (session.id, session.epoch, sequences.collect())
    };
    let mut sessions: Vec<_> = model.sessions.iter().map(session).collect();
    sessions.sort_by_key(|session: &SeenSession| session.0);
    let messages = model.topics.iter().flat_map(|topic| &topic.messages);
    let ends = messages.filter_map(|message| match message.status {
        Status::Leased { expires_ms, .. } => Some(expires_ms),
        Status::Delayed { due_ms } => Some(due_ms),
        _ => None,
    });
    let ends = ends.chain(model.sessions.iter().map(crate::model::Session::end_ms));
    let ends = ends.chain(model.pops.iter().map(|pop| pop.next_end_ms(model.now_ms)));
    Seen {
        topics: model.topics.iter().map(|topic| of_model_topic(model, topic)).collect(),
        pair_count: model.sessions.iter().map(|session| session.topics().len() as u64).sum(),
        sessions,
        pops: model.pops.iter().map(|pop| (pop.request_id, pop.is_kept(model.now_ms))).collect(),
        generation: Generation(model.generation),
        earliest_ms: ends.min(),
    }
}

fn of_model_topic(model: &Model, topic: &Topic) -> SeenTopic {
    let mut stats = Stats::default();
    let mut live = Vec::new();
    let mut states = Vec::new();
    for (offset, message) in (0u64..).zip(&topic.messages) {
        let attempts = message.attempts;
        let size = u64::from(message.size);
        let state = match message.status.clone() {
            Status::Ready => {
                stats.ready += 1;
                stats.ready_bytes += size;
                stats.oldest_ready_offset = stats.oldest_ready_offset.or(Some(offset));
                MessageState::Ready {
                    attempts,
                    late_ack: message.ran_out.map(Token),
                    is_waived: message.was_redriven,
                }
            }
            Status::Leased { token, granted_ms, expires_ms } => {
                stats.leased += 1;
                stats.leased_bytes += size;
                MessageState::Leased { attempts, token: Token(token), granted_ms, expires_ms }
            }
            Status::Delayed { due_ms } => {
                stats.delayed += 1;
                stats.delayed_bytes += size;
                MessageState::Delayed { attempts, due_ms }
            }
            Status::Dead(reason) => {
                stats.dead += 1;
                stats.dead_bytes += size;
                MessageState::Dead { attempts, reason }
            }
            Status::Done => MessageState::Nowhere,
        };
        if message.is_live() {
            stats.oldest_offset = stats.oldest_offset.or(Some(offset));
        }
        live.push(message.is_live() || is_kept(model, topic, offset));
        states.push((Generation(message.generation), state));
    }
    let next_offset = topic.messages.len() as u64;
    let id = TopicId(topic.id);
    SeenTopic { id, name: topic.name.clone(), settings: topic.settings, next_offset, stats, states, live }
}

fn is_kept(model: &Model, topic: &Topic, offset: u64) -> bool {
    let of_this = model.pops.iter().filter(|pop| pop.topic == topic.id && pop.is_kept(model.now_ms));
    of_this.flat_map(|pop| &pop.deliveries).any(|delivery| delivery.offset == offset)
}
