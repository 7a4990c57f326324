//! Damaged parts are refused: whatever a snapshot says, it neither panics nor makes a state that breaks its rules.

use crate::queue::{DEFAULT, Queue};
use proptest::prelude::*;
use raftqueue_queue::{
    Candidate, Command, DeadSelection, Generation, MessageMeta, MessageSize, Parts, Sequenced, SessionId,
    State, Token, TopicId,
};

/// A state with something of everything.
fn rich_parts() -> Parts {
    let mut queue = Queue::default();
    let topic = queue.create("topic");
    queue.create("other");
    let open = |name: Option<&str>| Command::OpenSession {
        name: name.map(str::to_string),
        sessions_max: 9,
        pairs_max: 9,
    };
    queue.apply(&open(None));
    queue.apply(&open(Some("producer")));
    let sequenced = |sequence| Sequenced {
        session: SessionId { generation: Generation(0), number: 3 },
        epoch: 0,
        sequence,
        batch_crc: 7,
    };
    for sequence in 1..4 {
        let delayed = MessageMeta { size: 100, delay_ms: 900_000, ttl_ms: Some(5), ..MessageMeta::default() };
        let messages = vec![MessageMeta { size: 100, ..MessageMeta::default() }, delayed];
        queue.apply(&Command::Publish {
            topic: "topic".to_string(),
            session: Some(sequenced(sequence)),
            messages,
        });
    }
    queue.publish("topic", 20);
    let token = queue.receive(topic, 6..12);
    queue.nack(topic, token, 6..9);
    let token = queue.receive(topic, 6..8);
    queue.nack(topic, token, 6..8);
    queue.apply(&Command::RedriveDead {
        topic,
        subscription: DEFAULT,
        selection: DeadSelection::Listed(vec![MessageSize { offset: 7, size: 100 }]),
    });
    queue.now_ms = 40_000;
    for (request_id, offset) in [(1, 13), (2, 14)] {
        let candidates = vec![Candidate { offset, size: 100, deadline_ms: None }];
        let request_id = Some(request_id);
        queue.apply(&Command::Pop { topic, subscription: DEFAULT, candidates, count_max: 1, request_id });
        queue.now_ms += 30_000;
    }
    queue.now_ms += 1;
    queue.apply(&Command::RaiseGeneration { generation: Generation(2) });
    queue.publish("topic", 1);
    queue.receive(topic, 20..22);
    queue.state.to_parts()
}

#[test]
fn rich_parts_hold_something_of_everything() {
    let parts = rich_parts();
    let topic = &parts.topics[0];
    let held = &topic.subscriptions[0];
    assert!(topic.generations.len() == 2 && held.ready.len() > 1 && !held.retried.is_empty());
    assert!(held.retried.iter().any(|retried| retried.late_ack.is_some()));
    assert!(
        !held.waived.is_empty()
            && !held.leased.is_empty()
            && !held.delayed.is_empty()
            && !held.dead.is_empty()
    );
    assert!(parts.sessions.len() == 2 && !parts.sessions[0].pairs.is_empty());
    assert_eq!((parts.pops.len(), parts.pops_kept), (2, 1));
    State::from_parts(parts).expect("they come from a living state");
}

/// Ways to damage parts: each takes a number that says where and how.
type Damage = fn(&mut Parts, u64);

/// Each of these breaks a rule whatever the number is.
const DAMAGE: &[(&str, Damage)] = &[
    ("a topic twice", |parts, _| parts.topics.push(parts.topics[0].clone())),
    ("a name twice", |parts, _| parts.topics[1].name = parts.topics[0].name.clone()),
    ("a bad name", |parts, _| parts.topics[1].name.push('\n')),
    ("topics out of order", |parts, _| parts.topics.reverse()),
    ("an id that was not given", |parts, n| parts.last_id = n % 2),
    ("a counter that cannot be", |parts, n| parts.last_token = Token(u64::MAX - n % 9)),
    ("no attempts", |parts, _| parts.topics[0].settings.attempts_max = 0),
    ("no subscription", |parts, _| parts.topics[0].subscriptions.clear()),
    ("a subscription twice", |parts, _| {
        let again = parts.topics[0].subscriptions[0].clone();
        parts.topics[0].subscriptions.push(again);
    }),
    ("offsets that were not given", |parts, n| parts.topics[0].next_offset = n % 27),
    ("offsets of no generation", |parts, _| parts.topics[0].generations.clear()),
    ("a generation to come", |parts, n| parts.topics[0].generations[1].0 = Generation(3 + (n % 9) as u32)),
    ("generations out of order", |parts, _| parts.topics[0].generations.reverse()),
    ("bytes too few", |parts, n| parts.topics[0].subscriptions[0].bytes = n % 1_300),
    ("bytes too many", |parts, n| parts.topics[0].subscriptions[0].bytes = u64::MAX - n % 1_000),
    ("dead bytes too many", |parts, _| parts.topics[0].subscriptions[0].dead_bytes = u64::MAX),
    ("a ready run twice", |parts, n| {
        let ready = &mut parts.topics[0].subscriptions[0].ready;
        ready.push(ready[n as usize % ready.len()]);
    }),
    ("a run of nothing", |parts, _| parts.topics[0].subscriptions[0].ready[0].1 = 0),
    ("runs that touch", |parts, _| {
        let ready = &mut parts.topics[0].subscriptions[0].ready;
        let end = ready.last().expect("something is ready").1;
        ready.push((end, end + 1));
    }),
    ("ready and leased", |parts, n| {
        let held = &mut parts.topics[0].subscriptions[0];
        let mut again = held.leased[n as usize % held.leased.len()];
        again.offset = held.ready[0].0;
        held.leased.push(again);
    }),
    ("a lease twice", |parts, n| {
        let leased = &mut parts.topics[0].subscriptions[0].leased;
        leased.push(leased[n as usize % leased.len()]);
    }),
    ("a lease under no token", |parts, n| {
        parts.topics[0].subscriptions[0].leased[0].token = Token((n % 2) * u64::MAX);
    }),
    ("a lease too long", |parts, n| parts.topics[0].subscriptions[0].leased[0].expires_ms = u64::MAX - n % 9),
    ("a lease of the future", |parts, _| parts.topics[0].subscriptions[0].leased[0].granted_ms = u64::MAX),
    ("a waived deadline", |parts, _| {
        let lease = &mut parts.topics[0].subscriptions[0].leased[0];
        (lease.is_waived, lease.deadline_ms) = (true, Some(7));
    }),
    ("too many attempts", |parts, n| {
        parts.topics[0].subscriptions[0].leased[0].attempts = 2 + (n % 1_000) as u32;
    }),
    ("a retried message that is not ready", |parts, n| {
        parts.topics[0].subscriptions[0].retried[0].offset = 1_000 + n % 9;
    }),
    ("a retried message without attempts", |parts, _| {
        parts.topics[0].subscriptions[0].retried[0].attempts = 0;
    }),
    ("a waived message that is not ready", |parts, n| {
        parts.topics[0].subscriptions[0].waived.push((1_000, 1_001 + n % 9));
    }),
    ("a delay twice", |parts, n| {
        let delayed = &mut parts.topics[0].subscriptions[0].delayed;
        delayed.push(delayed[n as usize % delayed.len()]);
    }),
    ("a dead run twice", |parts, n| {
        let dead = &mut parts.topics[0].subscriptions[0].dead;
        dead.push(dead[n as usize % dead.len()].clone());
    }),
    ("a session twice", |parts, n| parts.sessions.push(parts.sessions[n as usize % 2].clone())),
    ("a session of a topic that is gone", |parts, n| parts.sessions[0].pairs[0].topic = TopicId(900 + n % 9)),
    ("a session used in the future", |parts, n| parts.sessions[0].used_ms = u64::MAX - n % 9),
    ("a pair twice", |parts, _| {
        let again = parts.sessions[0].pairs[0].clone();
        parts.sessions[0].pairs.push(again);
    }),
    ("a reply too few", |parts, _| parts.sessions[0].pairs[0].replies.truncate(2)),
    ("a reply beyond the topic", |parts, n| {
        parts.sessions[0].pairs[0].replies[2].first_offset = 1_000 + n % 9;
    }),
    ("a reply of nothing", |parts, n| parts.sessions[0].pairs[0].replies[n as usize % 3].count = 0),
    ("a pair that never began", |parts, _| {
        let pair = &mut parts.sessions[0].pairs[0];
        (pair.last_sequence, pair.replies) = (0, Vec::new());
    }),
    ("more pops kept than there are", |parts, n| parts.pops_kept = 3 + n % 9),
    ("more pops forgotten than there can be", |parts, n| parts.pops_forgotten = u64::MAX - n % 9),
    ("a pop twice", |parts, n| parts.pops.push(parts.pops[n as usize % 2].clone())),
    ("pops out of order", |parts, _| parts.pops.reverse()),
    ("a kept pop without messages", |parts, _| parts.pops[1].deliveries.clear()),
    ("a kept pop of a message that is still there", |parts, _| parts.pops[1].deliveries[0].offset = 20),
    ("a kept pop of a message that never was", |parts, n| parts.pops[1].deliveries[0].offset = 1_000 + n % 9),
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_parts_are_refused_and_never_panic(damage in proptest::collection::vec((0..DAMAGE.len(), any::<u64>()), 1..4)) {
        let mut parts = rich_parts();
        for (position, number) in damage {
            // A second damage may find nothing left to damage: then its own indexing panics, not the state.
            let mut damaged = parts.clone();
            let is_possible = std::panic::catch_unwind(move || {
                DAMAGE[position].1(&mut damaged, number);
                damaged
            });
            if let Ok(damaged) = is_possible {
                parts = damaged;
            }
        }
        if let Ok(state) = State::from_parts(parts) {
            prop_assert_eq!(state.check(), Ok(()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn parts_of_random_numbers_never_panic(
        numbers in proptest::collection::vec(prop_oneof![8 => 0u64..30, 1 => Just(u64::MAX), 1 => Just(1 << 62)], 40),
        texts in any::<bool>(),
    ) {
        let mut numbers = numbers.into_iter();
        let mut next = move || numbers.next().unwrap_or(3);
        let mut parts = rich_parts();
        parts.now_ms = next();
        parts.last_id = next();
        parts.pops_kept = next();
        parts.pops_forgotten = next();
        parts.pops[1].popped_ms = next();
        parts.pops[1].deliveries[0].offset = next();
        let topic = &mut parts.topics[0];
        topic.next_offset = next();
        topic.generations = vec![(Generation(next() as u32), next()), (Generation(next() as u32), next())];
        let held = &mut topic.subscriptions[0];
        (held.bytes, held.dead_bytes) = (next(), next());
        held.ready = vec![(next(), next()), (next(), next())];
        held.waived = vec![(next(), next())];
        held.retried[0].offset = next();
        let lease = &mut held.leased[0];
        (lease.offset, lease.granted_ms, lease.expires_ms) = (next(), next(), next());
        lease.deadline_ms = texts.then(&mut next);
        (held.delayed[0].offset, held.delayed[0].due_ms) = (next(), next());
        held.dead[0].offsets = next()..next();
        let session = &mut parts.sessions[0];
        (session.used_ms, session.epoch) = (next(), next());
        session.pairs[0].last_sequence = next();
        session.pairs[0].replies[0].first_offset = next();
        if let Ok(state) = State::from_parts(parts.clone()) {
            prop_assert_eq!(state.to_parts(), parts);
        }
    }
}

#[test]
fn every_kind_of_damage_is_seen() {
    for (name, damage) in DAMAGE {
        for number in [0, 1, 2, 5, 1_234_567, u64::MAX] {
            let mut parts = rich_parts();
            damage(&mut parts, number);
            assert!(State::from_parts(parts).is_err(), "{name}, {number}");
        }
    }
}
