//! Random commands. A step holds plain numbers; what they mean is decided when its turn comes, by what the model holds
//! then, so that most commands meet something.

use crate::model::{Model, Status, Topic};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use raftqueue_queue::{
    Candidate, Command, DeadSelection, Generation, LeaseId, MessageMeta, MessageSize, Overdue, Sequenced,
    SessionId, SubscriptionId, Token, TopicChange, TopicId, TopicSettings,
};

/// One command to come, and the time before it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) wait_ms: u64,
    pub(crate) is_same_entry: bool,
    /// Which of a few topics.
    topic: u8,
    action: Action,
}

#[derive(Clone, Debug)]
enum Action {
    Create {
        attempts_max: u32,
        messages_max: Option<u64>,
        bytes_max: Option<u64>,
        topics_max: u64,
        request: Option<u8>,
    },
    Delete,
    Publish {
        messages: Vec<MessageMeta>,
        session: Option<Call>,
    },
    Receive {
        picks: Vec<u8>,
        lease_ms: u64,
    },
    Pop {
        picks: Vec<u8>,
        count_max: u32,
        request: Option<u8>,
    },
    Ack {
        picks: Vec<Pick>,
    },
    Nack {
        picks: Vec<Pick>,
        delay_ms: u64,
        reason: Option<u8>,
    },
    Extend {
        picks: Vec<Pick>,
        lease_ms: u64,
    },
    Release {
        picks: Vec<Pick>,
    },
    Update(TopicChange),
    Redrive {
        picks: Option<Vec<u8>>,
    },
    PurgeDead {
        picks: Option<Vec<u8>>,
    },
    Purge,
    Open {
        name: Option<u8>,
        sessions_max: u64,
        pairs_max: u64,
    },
    Close {
        session: u8,
        epoch_behind: u8,
    },
    Time {
        finds_overdue: bool,
    },
    RaiseGeneration {
        by: u32,
    },
}

/// A publish in a session, in terms of what is expected.
#[derive(Clone, Debug)]
struct Call {
    session: u8,
    epoch_behind: u8,
    ahead: i8,
    crc: u32,
}

/// A lease to name.
#[derive(Clone, Debug)]
struct Pick {
    message: u8,
    kind: PickKind,
}

#[derive(Clone, Debug)]
enum PickKind {
    /// The token under which it was leased last, if that is known.
    Right,
    /// Some other token.
    Token(u8),
    /// A message that was never given.
    Beyond,
    /// Another generation.
    Generation(u32),
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait_ms = prop_oneof![
        80 => Just(0),
        80 => 0u64..3_000,
        16 => 0u64..70_000,
        1 => Just(40 * 60_000u64),
        1 => Just(11 * 3_600_000u64),
    ];
    let step = |(wait_ms, is_same_entry, topic, action)| Step { wait_ms, is_same_entry, topic, action };
    // Most runs begin with something to work on.
    let begin =
        |topic, action: BoxedStrategy<Action>| (Just(0), any::<bool>(), Just(topic), action).prop_map(step);
    let begin = [
        begin(0, create().boxed()),
        begin(1, create().boxed()),
        begin(0, publish().boxed()),
        begin(0, open().boxed()),
        begin(0, open().boxed()),
    ];
    let rest = vec(
        (wait_ms, any::<bool>(), prop_oneof![6 => Just(0u8), 2 => Just(1), 1 => Just(2)], action())
            .prop_map(step),
        1..120,
    );
    (begin, rest).prop_map(|(begin, rest)| begin.into_iter().chain(rest).collect())
}

fn create() -> impl Strategy<Value = Action> {
    let create = (
        1u32..4,
        option::weighted(0.2, 1u64..40),
        option::weighted(0.2, 1u64..600),
        2u64..4,
        option::of(0u8..2),
    );
    create.prop_map(|(attempts_max, messages_max, bytes_max, topics_max, request)| Action::Create {
        attempts_max,
        messages_max,
        bytes_max,
        topics_max,
        request,
    })
}

fn update() -> impl Strategy<Value = Action> {
    let limit = |most: u64| option::weighted(0.4, option::of(1..most));
    let change = (option::weighted(0.5, 0u32..4), limit(40), limit(600), limit(9_000));
    change.prop_map(|(attempts_max, messages_max, bytes_max, ttl_ms_default)| {
        Action::Update(TopicChange { attempts_max, messages_max, bytes_max, ttl_ms_default })
    })
}

fn delay_ms() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0), 1 => 1u64..4_000]
}

fn publish() -> impl Strategy<Value = Action> {
    let message = (0u32..40, delay_ms(), option::weighted(0.3, 0u64..6_000));
    let message = message.prop_map(|(size, delay_ms, ttl_ms)| MessageMeta { size, crc: 0, delay_ms, ttl_ms });
    // Mostly the next sequence, else one of the last or one too far.
    let ahead = prop_oneof![4 => Just(0i8), 4 => -2i8..0, 1 => Just(1)];
    let call = (
        any::<u8>(),
        prop_oneof![9 => Just(0u8), 1 => Just(1)],
        ahead,
        prop_oneof![4 => Just(0u32), 1 => Just(1)],
    );
    let call =
        call.prop_map(|(session, epoch_behind, ahead, crc)| Call { session, epoch_behind, ahead, crc });
    (vec(message, 1..8), option::weighted(0.7, call))
        .prop_map(|(messages, session)| Action::Publish { messages, session })
}

fn open() -> impl Strategy<Value = Action> {
    let open = (option::of(0u8..2), 2u64..5, 1u64..7);
    open.prop_map(|(name, sessions_max, pairs_max)| Action::Open { name, sessions_max, pairs_max })
}

fn action() -> impl Strategy<Value = Action> {
    let picks = || vec(any::<u8>(), 1..8);
    let leases = || {
        let kind = prop_oneof![
            12 => Just(PickKind::Right),
            2 => any::<u8>().prop_map(PickKind::Token),
            1 => Just(PickKind::Beyond),
            1 => (0u32..4).prop_map(PickKind::Generation),
        ];
        vec((any::<u8>(), kind).prop_map(|(message, kind)| Pick { message, kind }), 0..6)
    };
    let lease_ms = || prop_oneof![3 => 1_000u64..5_000, 1 => Just(12 * 3_600_000)];
    prop_oneof![
        5 => create(),
        1 => Just(Action::Delete),
        3 => update(),
        14 => publish(),
        12 => (picks(), lease_ms()).prop_map(|(picks, lease_ms)| Action::Receive { picks, lease_ms }),
        7 => (picks(), 0u32..4, option::of(0u8..4))
            .prop_map(|(picks, count_max, request)| Action::Pop { picks, count_max, request }),
        8 => leases().prop_map(|picks| Action::Ack { picks }),
        7 => (leases(), delay_ms(), option::of(0u8..2))
            .prop_map(|(picks, delay_ms, reason)| Action::Nack { picks, delay_ms, reason }),
        3 => (leases(), lease_ms()).prop_map(|(picks, lease_ms)| Action::Extend { picks, lease_ms }),
        3 => leases().prop_map(|picks| Action::Release { picks }),
        3 => option::of(picks()).prop_map(|picks| Action::Redrive { picks }),
        2 => option::of(picks()).prop_map(|picks| Action::PurgeDead { picks }),
        1 => Just(Action::Purge),
        4 => open(),
        1 => (any::<u8>(), 0u8..2).prop_map(|(session, epoch_behind)| Action::Close { session, epoch_behind }),
        6 => any::<bool>().prop_map(|finds_overdue| Action::Time { finds_overdue }),
        1 => (0u32..3).prop_map(|by| Action::RaiseGeneration { by }),
    ]
}

impl Step {
    /// The command that the leader proposes, given what the model holds before it.
    pub(crate) fn command(&self, model: &Model, now_ms: u64) -> Command {
        let name = || format!("topic {}", self.topic);
        let held = model.topics.iter().find(|held| held.name == name());
        // Also ids of topics that are gone or were never made, or that have another name.
        let topic = TopicId(held.map_or(u64::from(self.topic) * 7 + 1, |held| held.id));
        let held = model.topics.iter().find(|held| held.id == topic.0);
        let subscription = SubscriptionId::DEFAULT;
        match self.action.clone() {
            Action::Create { attempts_max, messages_max, bytes_max, topics_max, request } => {
                Command::CreateTopic {
                    name: name(),
                    settings: TopicSettings { attempts_max, messages_max, bytes_max, ttl_ms_default: None },
                    topics_max,
                    request_id: request.map(u128::from),
                }
            }
            Action::Delete => Command::DeleteTopic { name: name() },
            Action::Update(change) => Command::UpdateTopic { name: name(), change },
            Action::Publish { messages, session } => {
                let session = session.map(|call| sequenced(&call, model, topic));
                Command::Publish { topic: name(), session, messages }
            }
            Action::Receive { picks, lease_ms } => {
                Command::Receive { topic, subscription, candidates: candidates(held, &picks), lease_ms }
            }
            Action::Pop { picks, count_max, request } => {
                let (candidates, request_id) = (candidates(held, &picks), request.map(u128::from));
                Command::Pop { topic, subscription, candidates, count_max, request_id }
            }
            Action::Ack { picks } => {
                Command::Ack { topic, subscription, leases: leases(model, held, &picks) }
            }
            Action::Nack { picks, delay_ms, reason } => {
                let reason = reason.map(|reason| format!("reason {reason}"));
                Command::Nack { topic, subscription, leases: leases(model, held, &picks), delay_ms, reason }
            }
            Action::Extend { picks, lease_ms } => {
                Command::Extend { topic, subscription, leases: leases(model, held, &picks), lease_ms }
            }
            Action::Release { picks } => {
                Command::Release { topic, subscription, leases: leases(model, held, &picks) }
            }
            Action::Redrive { picks } => {
                Command::RedriveDead { topic, subscription, selection: selection(held, picks.as_deref()) }
            }
            Action::PurgeDead { picks } => {
                Command::PurgeDead { topic, subscription, selection: selection(held, picks.as_deref()) }
            }
            Action::Purge => Command::Purge { topic: name(), subscription },
            Action::Open { name, sessions_max, pairs_max } => {
                let name = name.map(|name| format!("producer {name}"));
                Command::OpenSession { name, sessions_max, pairs_max }
            }
            Action::Close { session, epoch_behind } => {
                let (session, epoch) = session_of(model, session, epoch_behind);
                Command::CloseSession { session, epoch }
            }
            Action::Time { finds_overdue } => {
                let overdue = if finds_overdue { overdue(model, now_ms) } else { Vec::new() };
                Command::Time { overdue }
            }
            Action::RaiseGeneration { by } => {
                Command::RaiseGeneration { generation: Generation(model.generation + by) }
            }
        }
    }
}

fn session_of(model: &Model, pick: u8, epoch_behind: u8) -> (SessionId, u64) {
    match model.sessions.get(usize::from(pick) % (model.sessions.len() + 1)) {
        Some(session) => (session.id, session.epoch.saturating_sub(u64::from(epoch_behind))),
        None => (SessionId { generation: Generation(0), number: u64::from(pick) }, 0),
    }
}

fn sequenced(call: &Call, model: &Model, topic: TopicId) -> Sequenced {
    let (session, epoch) = session_of(model, call.session, call.epoch_behind);
    let held = model.sessions.iter().find(|held| held.id == session);
    let next = held.map_or(0, |held| held.last_sequence(topic.0)) + 1;
    Sequenced {
        session,
        epoch,
        sequence: next.saturating_add_signed(i64::from(call.ahead)),
        batch_crc: call.crc,
    }
}

/// Mostly messages that exist, with what the log knows of them.
fn candidates(topic: Option<&Topic>, picks: &[u8]) -> Vec<Candidate> {
    let Some(topic) = topic else { return vec![Candidate { offset: 0, size: 1, deadline_ms: None }] };
    let places = 0..topic.messages.len();
    let ready: Vec<usize> = places.filter(|&offset| topic.messages[offset].status == Status::Ready).collect();
    let candidate = |pick: &u8| {
        let offset = match (pick % 4, ready.len()) {
            (1.., 1..) => ready[usize::from(*pick) % ready.len()],
            _ => usize::from(*pick) % (topic.messages.len() + 1),
        };
        let message = topic.messages.get(offset);
        Candidate {
            offset: offset as u64,
            size: message.map_or(0, |message| message.size),
            deadline_ms: message.and_then(|message| message.deadline_ms),
        }
    };
    let mut candidates: Vec<Candidate> = picks.iter().map(candidate).collect();
    if picks.first().is_some_and(|pick| pick % 2 == 0) {
        // A leader offers rising offsets.
        candidates.sort_unstable_by_key(|candidate| candidate.offset);
    }
    candidates
}

fn leases(model: &Model, topic: Option<&Topic>, picks: &[Pick]) -> Vec<LeaseId> {
    let lease = |pick: &Pick| {
        let messages = topic.map_or(&[][..], |topic| &topic.messages);
        let interesting: Vec<usize> = (0..messages.len())
            .filter(|&offset| {
                matches!(messages[offset].status, Status::Leased { .. }) || messages[offset].ran_out.is_some()
            })
            .collect();
        let offset = match (pick.message % 3, interesting.len()) {
            (1.., 1..) => interesting[usize::from(pick.message) % interesting.len()],
            _ => usize::from(pick.message) % (messages.len() + 1),
        };
        let message = messages.get(offset);
        let last = message.and_then(|message| match message.status {
            Status::Leased { token, .. } => Some(token),
            _ => message.ran_out,
        });
        let mut lease = LeaseId {
            generation: Generation(message.map_or(model.generation, |message| message.generation)),
            offset: offset as u64,
            token: Token(last.unwrap_or(model.last_token)),
        };
        match pick.kind {
            PickKind::Right => {}
            PickKind::Token(token) => lease.token = Token(u64::from(token) % (model.last_token + 2)),
            PickKind::Beyond => lease.offset = messages.len() as u64 + u64::from(pick.message),
            PickKind::Generation(generation) => lease.generation = Generation(generation),
        }
        lease
    };
    picks.iter().map(lease).collect()
}

fn selection(topic: Option<&Topic>, picks: Option<&[u8]>) -> DeadSelection {
    let Some(picks) = picks else { return DeadSelection::All };
    let size = |candidate: Candidate| MessageSize { offset: candidate.offset, size: candidate.size };
    DeadSelection::Listed(candidates(topic, picks).into_iter().map(size).collect())
}

/// Everything whose deadline has passed, whether ready or not, as a leader with an old view might say.
fn overdue(model: &Model, now_ms: u64) -> Vec<Overdue> {
    let of_topic = |topic: &Topic| {
        let candidates = (0u64..).zip(&topic.messages).filter_map(|(offset, message)| {
            let deadline_ms = message.deadline_ms.filter(|&deadline_ms| deadline_ms <= now_ms + 50);
            deadline_ms.map(|_| Candidate { offset, size: message.size, deadline_ms })
        });
        let candidates = candidates.collect();
        Overdue { topic: TopicId(topic.id), subscription: SubscriptionId::DEFAULT, candidates }
    };
    let mut overdue: Vec<Overdue> = model.topics.iter().map(of_topic).collect();
    overdue.push(Overdue {
        topic: TopicId(999),
        subscription: SubscriptionId::DEFAULT,
        candidates: Vec::new(),
    });
    overdue
}
