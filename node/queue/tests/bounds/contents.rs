//! Whatever a command says, apply answers it and keeps the rules of the state. A command that panicked would do so on
//! every node, at every start.

use crate::queue::{DEFAULT, Queue};
use proptest::prelude::*;
use raftqueue_queue::{
    ApplyMeta, Candidate, Command, DeadSelection, Generation, LeaseId, MessageMeta, MessageSize, Overdue,
    Refused, Reply, Sequenced, SessionId, State, SubscriptionId, Token, TopicChange, TopicId, TopicSettings,
};

/// Mostly what names something, else the ends of what a number can be.
fn number() -> impl Strategy<Value = u64> {
    const EXTREMES: [u64; 9] =
        [0, 1, u32::MAX as u64, 1 << 32, (1 << 62) - 1, 1 << 62, 1 << 63, u64::MAX - 1, u64::MAX];
    prop_oneof![6 => 0u64..40, 1 => prop::sample::select(&EXTREMES[..])]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![6 => Just(100u32), 2 => 0u32..40, 1 => prop::sample::select(&[0, 1, 1 << 31, u32::MAX - 1, u32::MAX][..])]
}

fn list<T: std::fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(item, 0..24)
}

fn target() -> impl Strategy<Value = (TopicId, SubscriptionId)> {
    let topic = prop_oneof![8 => 1u64..3, 1 => number()];
    let subscription = prop_oneof![8 => Just(0u32), 1 => any::<u32>()];
    (topic, subscription).prop_map(|(topic, subscription)| (TopicId(topic), SubscriptionId(subscription)))
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(&["topic", "topic", "other", "third", "", "\u{1}"][..]).prop_map(str::to_string)
}

fn candidate() -> impl Strategy<Value = Candidate> {
    (number(), small(), prop::option::weighted(0.3, number()))
        .prop_map(|(offset, size, deadline_ms)| Candidate { offset, size, deadline_ms })
}

/// Neighbours, as a leader offers them, or anything.
fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let run = (0u64..40, 1u64..20, small()).prop_map(|(first, count, size)| {
        (first..first + count).map(|offset| Candidate { offset, size, deadline_ms: None }).collect()
    });
    prop_oneof![run, list(candidate())]
}

fn leases() -> impl Strategy<Value = Vec<LeaseId>> {
    let generation = prop_oneof![6 => Just(0u32), 1 => any::<u32>()];
    list((generation, number(), number()).prop_map(|(generation, offset, token)| LeaseId {
        generation: Generation(generation),
        offset,
        token: Token(token),
    }))
}

fn selection() -> impl Strategy<Value = DeadSelection> {
    let listed = list((number(), small()).prop_map(|(offset, size)| MessageSize { offset, size }));
    prop_oneof![1 => Just(DeadSelection::All), 3 => listed.prop_map(DeadSelection::Listed)]
}

fn session() -> impl Strategy<Value = SessionId> {
    (prop_oneof![6 => Just(0u32), 1 => any::<u32>()], number())
        .prop_map(|(generation, number)| SessionId { generation: Generation(generation), number })
}

fn command() -> impl Strategy<Value = Command> {
    let settings = (small(), prop::option::of(number()), prop::option::of(number())).prop_map(
        |(attempts_max, messages_max, bytes_max)| TopicSettings {
            attempts_max,
            messages_max,
            bytes_max,
            ttl_ms_default: bytes_max,
        },
    );
    let limit = || prop::option::of(prop::option::of(number()));
    let change = (prop::option::of(small()), limit(), limit(), limit()).prop_map(
        |(attempts_max, messages_max, bytes_max, ttl_ms_default)| TopicChange {
            attempts_max,
            messages_max,
            bytes_max,
            ttl_ms_default,
        },
    );
    let request_id = || prop::option::of(prop_oneof![0u128..4, Just(u128::MAX)]);
    let message = (small(), number(), prop::option::of(number()), any::<bool>()).prop_map(
        |(size, delay_ms, ttl_ms, is_delayed)| MessageMeta {
            size,
            crc: size,
            delay_ms: if is_delayed { delay_ms } else { 0 },
            ttl_ms,
        },
    );
    let sequenced = (session(), number(), number(), any::<u32>())
        .prop_map(|(session, epoch, sequence, batch_crc)| Sequenced { session, epoch, sequence, batch_crc });
    let lease_ms = || prop_oneof![4 => Just(30_000u64), 1 => number()];
    prop_oneof![
        1 => (name(), settings, number(), request_id()).prop_map(|(name, settings, topics_max, request_id)| {
            Command::CreateTopic { name, settings, topics_max, request_id }
        }),
        1 => name().prop_map(|name| Command::DeleteTopic { name }),
        1 => (name(), change).prop_map(|(name, change)| Command::UpdateTopic { name, change }),
        4 => (name(), prop::option::weighted(0.3, sequenced), list(message))
            .prop_map(|(topic, session, messages)| Command::Publish { topic, session, messages }),
        6 => (target(), candidates(), lease_ms()).prop_map(|((topic, subscription), candidates, lease_ms)| {
            Command::Receive { topic, subscription, candidates, lease_ms }
        }),
        4 => (target(), candidates(), small(), request_id()).prop_map(
            |((topic, subscription), candidates, count_max, request_id)| {
                Command::Pop { topic, subscription, candidates, count_max, request_id }
            }
        ),
        3 => (target(), leases())
            .prop_map(|((topic, subscription), leases)| Command::Ack { topic, subscription, leases }),
        6 => (target(), leases(), prop_oneof![Just(0u64), number()], prop::option::of(name())).prop_map(
            |((topic, subscription), leases, delay_ms, reason)| {
                Command::Nack { topic, subscription, leases, delay_ms, reason }
            }
        ),
        2 => (target(), leases(), lease_ms()).prop_map(|((topic, subscription), leases, lease_ms)| {
            Command::Extend { topic, subscription, leases, lease_ms }
        }),
        2 => (target(), leases())
            .prop_map(|((topic, subscription), leases)| Command::Release { topic, subscription, leases }),
        4 => (target(), selection()).prop_map(|((topic, subscription), selection)| {
            Command::RedriveDead { topic, subscription, selection }
        }),
        4 => (target(), selection()).prop_map(|((topic, subscription), selection)| {
            Command::PurgeDead { topic, subscription, selection }
        }),
        1 => name().prop_map(|topic| Command::Purge { topic, subscription: DEFAULT }),
        2 => (prop::option::of(name()), number(), number()).prop_map(|(name, sessions_max, pairs_max)| {
            Command::OpenSession { name, sessions_max, pairs_max }
        }),
        1 => (session(), number()).prop_map(|(session, epoch)| Command::CloseSession { session, epoch }),
        4 => list((target(), candidates()).prop_map(|((topic, subscription), candidates)| Overdue {
            topic,
            subscription,
            candidates
        }))
        .prop_map(|overdue| Command::Time { overdue }),
        1 => small().prop_map(|generation| Command::RaiseGeneration { generation: Generation(generation) }),
    ]
}

/// Two topics with messages in every state, and a session.
fn lively() -> Queue {
    let mut queue = Queue::default();
    let (topic, other) = (queue.create("topic"), queue.create("other"));
    queue.apply(&Command::OpenSession { name: None, sessions_max: 9, pairs_max: 9 });
    queue.publish("topic", 24);
    queue.publish("other", 12);
    for topic in [topic, other] {
        for _ in 0..2 {
            let token = queue.receive(topic, 0..4);
            queue.nack(topic, token, 0..4);
        }
    }
    let token = queue.receive(topic, 4..8);
    queue.nack(topic, token, 4..6);
    queue
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn rule_10_5_no_content_of_a_command_panics_or_breaks_the_state(
        steps in prop::collection::vec((command(), prop_oneof![8 => 0u64..3_000, 1 => number()]), 1..60),
    ) {
        let Queue { mut state, now_ms, .. } = lively();
        let mut again = State::from_sections(state.sections()).expect("a living state keeps its rules");
        let (mut now_ms, mut index) = (now_ms, 1_000);
        for (command, wait_ms) in steps {
            now_ms = now_ms.saturating_add(wait_ms);
            index += 1;
            let meta = ApplyMeta { index, now_ms, version: 1 };
            let replied = state.apply(&meta, &command);
            prop_assert_eq!(state.check(), Ok(()), "after {:?}, answered with {:?}", command, replied);
            // A node that holds the same by another way answers the same.
            prop_assert_eq!(again.apply(&meta, &command), replied);
        }
    }
}

/// Every number of every command at its end, one after another.
#[test]
fn rule_10_5_an_index_at_the_end_of_all_numbers_is_refused() {
    let mut queue = lively();
    let create = Command::CreateTopic {
        name: "late".to_string(),
        settings: TopicSettings::default(),
        topics_max: u64::MAX,
        request_id: None,
    };
    let open = Command::OpenSession { name: None, sessions_max: u64::MAX, pairs_max: u64::MAX };
    for command in [create, open] {
        let meta = ApplyMeta { index: u64::MAX, now_ms: u64::MAX, version: 1 };
        assert_eq!(queue.state.apply(&meta, &command).0, Reply::Refused(Refused::NumbersSpent));
        queue.state.check().expect("what is refused changes nothing");
    }
}

/// What a leader looked up in one topic and proposed for another: too large, too small, or of messages that
/// are all there are.
#[test]
fn rule_10_5_sizes_that_cannot_be_are_refused_wholly() {
    let of = |size: u32| (0..4).map(|offset| MessageSize { offset, size }).collect::<Vec<_>>();
    let candidates = |size: u32| {
        of(size)
            .iter()
            .map(|m| Candidate { offset: m.offset + 8, size: m.size, deadline_ms: Some(1) })
            .collect()
    };
    let mut queue = lively();
    let (topic, subscription) = (TopicId(2), DEFAULT);
    let before = queue.stats(topic);
    assert_eq!((before.ready, before.dead), (8, 4));
    // The dead messages have 400 bytes, and none may be left when all are taken. The ready ones have 800, and four of
    // them may have any size.
    for size in [0, 99, 101, u32::MAX] {
        let selection = DeadSelection::Listed(of(size));
        let purge = Command::PurgeDead { topic, subscription, selection: selection.clone() };
        let redrive = Command::RedriveDead { topic, subscription, selection };
        for command in [purge, redrive] {
            assert_eq!(queue.apply(&command), Reply::Refused(Refused::SizesImpossible), "{command:?}");
            assert_eq!(queue.stats(topic), before, "{command:?}");
        }
    }
    for size in [201, u32::MAX] {
        let receive =
            Command::Receive { topic, subscription, candidates: candidates(size), lease_ms: 30_000 };
        let pop = Command::Pop {
            topic,
            subscription,
            candidates: candidates(size),
            count_max: 9,
            request_id: Some(7),
        };
        for command in [receive, pop] {
            assert_eq!(queue.apply(&command), Reply::Refused(Refused::SizesImpossible), "{command:?}");
            assert_eq!(queue.stats(topic), before, "{command:?}");
        }
        let overdue = vec![Overdue { topic, subscription, candidates: candidates(size) }];
        assert_eq!(queue.apply(&Command::Time { overdue }), Reply::Done);
        assert_eq!(queue.stats(topic), before, "a part of the overdue ones that cannot be is left out");
    }
    let selection = DeadSelection::Listed(of(100));
    assert_eq!(
        queue.apply(&Command::RedriveDead { topic, subscription, selection }),
        Reply::Redriven { count: 4 }
    );
}
