//! Sections of a snapshot: any of them comes back, any bytes are taken or refused, and the form of each is fixed.

use super::*;
use crate::api::codec::parts::put_number;
use raftqueue_queue::{
    DeadReason, DeadRun, DelayedMessage, Delivery, Head, KeptReply, LeasedMessage, PairSection, PopSection,
    RetriedMessage, Section, SessionHead, SubscriptionHead, TopicHead,
};

fn settings() -> impl Strategy<Value = TopicSettings> {
    (any::<u32>(), any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<u64>>()).prop_map(
        |(attempts_max, messages_max, bytes_max, ttl_ms_default)| TopicSettings {
            attempts_max,
            messages_max,
            bytes_max,
            ttl_ms_default,
        },
    )
}

fn runs() -> impl Strategy<Value = Vec<(u64, u64)>> {
    list((any::<u64>(), any::<u64>()))
}

fn retried() -> impl Strategy<Value = RetriedMessage> {
    (any::<u64>(), any::<u32>(), any::<u32>(), any::<Option<u64>>()).prop_map(
        |(offset, size, attempts, late_ack)| RetriedMessage {
            offset,
            size,
            attempts,
            late_ack: late_ack.map(Token),
        },
    )
}

fn leased() -> impl Strategy<Value = LeasedMessage> {
    (any::<[u64; 4]>(), any::<u32>(), any::<u32>(), any::<Option<u64>>(), any::<bool>()).prop_map(
        |([offset, token, granted_ms, expires_ms], size, attempts, deadline_ms, is_waived)| LeasedMessage {
            offset,
            size,
            attempts,
            token: Token(token),
            granted_ms,
            expires_ms,
            deadline_ms,
            is_waived,
        },
    )
}

fn delayed() -> impl Strategy<Value = DelayedMessage> {
    (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), any::<Option<u64>>(), any::<bool>()).prop_map(
        |(offset, due_ms, size, attempts, deadline_ms, is_waived)| DelayedMessage {
            offset,
            size,
            attempts,
            due_ms,
            deadline_ms,
            is_waived,
        },
    )
}

fn dead() -> impl Strategy<Value = DeadRun> {
    let reason = prop_oneof![
        Just(DeadReason::Expired),
        Just(DeadReason::LeaseExpired),
        Just(DeadReason::Nacked),
        any::<String>().prop_map(|text| DeadReason::NackedBecause(text.into())),
    ];
    (any::<u64>(), any::<u64>(), any::<u32>(), reason).prop_map(|(start, end, attempts, reason)| DeadRun {
        offsets: start..end,
        attempts,
        reason,
    })
}

fn pop() -> impl Strategy<Value = PopSection> {
    let delivery = (any::<u32>(), any::<u64>(), any::<u32>(), any::<u32>()).prop_map(
        |(generation, offset, size, attempts)| Delivery {
            generation: Generation(generation),
            offset,
            size,
            attempts,
        },
    );
    (any::<u128>(), any::<u64>(), target(), list(delivery)).prop_map(
        |(request_id, popped_ms, (topic, subscription), deliveries)| PopSection {
            request_id,
            popped_ms,
            topic,
            subscription,
            deliveries,
        },
    )
}

fn section() -> impl Strategy<Value = Section> {
    let head = (any::<[u64; 8]>(), any::<u32>()).prop_map(|(numbers, generation)| {
        let [now_ms, last_id, last_token, topics, sessions, pops, pops_kept, pops_forgotten] = numbers;
        Section::Head(Head {
            now_ms,
            generation: Generation(generation),
            last_id,
            last_token: Token(last_token),
            topics,
            sessions,
            pops,
            pops_kept,
            pops_forgotten,
        })
    });
    let topic = (any::<[u64; 5]>(), any::<String>(), settings(), any::<Option<u128>>()).prop_map(
        |([id, created_ms, next_offset, generations, subscriptions], name, settings, request_id)| {
            Section::Topic(TopicHead {
                id: TopicId(id),
                name,
                settings,
                request_id,
                created_ms,
                next_offset,
                generations,
                subscriptions,
            })
        },
    );
    let subscription = (any::<[u64; 9]>(), any::<u32>()).prop_map(|(numbers, id)| {
        let [bytes, dead_bytes, ready, retried, waived, leased, delayed, dead, redriven] = numbers;
        let id = SubscriptionId(id);
        Section::Subscription(SubscriptionHead {
            id,
            bytes,
            dead_bytes,
            ready,
            retried,
            waived,
            leased,
            delayed,
            dead,
            redriven,
        })
    });
    let session = (any::<[u64; 5]>(), any::<u32>(), any::<Option<String>>()).prop_map(
        |([number, epoch, used_ms, pairs_max, pairs], generation, name)| {
            let id = SessionId { generation: Generation(generation), number };
            Section::Session(SessionHead { id, name, epoch, used_ms, pairs_max, pairs })
        },
    );
    let reply = (any::<u64>(), any::<u32>(), any::<u32>())
        .prop_map(|(first_offset, count, batch_crc)| KeptReply { first_offset, count, batch_crc });
    let pair = (any::<u64>(), any::<u64>(), list(reply)).prop_map(|(topic, last_sequence, replies)| {
        Section::Pair(PairSection { topic: TopicId(topic), last_sequence, replies })
    });
    let generations = list((any::<u32>(), any::<u64>())).prop_map(|some| {
        Section::Generations(some.into_iter().map(|(g, first)| (Generation(g), first)).collect())
    });
    prop_oneof![
        head,
        topic,
        generations,
        subscription,
        runs().prop_map(Section::Ready),
        list(retried()).prop_map(Section::Retried),
        runs().prop_map(Section::Waived),
        list(leased()).prop_map(Section::Leased),
        list(delayed()).prop_map(Section::Delayed),
        list(dead()).prop_map(Section::Dead),
        list(dead()).prop_map(Section::Redriven),
        session,
        pair,
        list(pop()).prop_map(Section::Pops),
    ]
}

fn written(section: &Section) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_section(&mut out, 1, section);
    out.to_vec()
}

proptest! {
    #[test]
    fn sections_come_back_as_they_were(section in section()) {
        prop_assert_eq!(read_section(1, &written(&section)), Ok(section));
    }

    /// What is left of a section is refused, and so is one with something behind it.
    #[test]
    fn sections_cut_short_or_too_long_are_refused(section in section(), at: prop::sample::Index, more: u8) {
        let mut bytes = written(&section);
        prop_assert!(read_section(1, &bytes[..at.index(bytes.len())]).is_err());
        bytes.push(more);
        prop_assert!(read_section(1, &bytes).is_err());
    }

    /// Also bytes that begin as a section of some kind do.
    #[test]
    fn arbitrary_bytes_of_sections_never_panic(section in section(), kind in 0..16u8, tail: Vec<u8>, at: prop::sample::Index) {
        let _ = read_section(1, &[&[kind][..], &tail].concat());
        let mut bytes = written(&section);
        let at = at.index(bytes.len());
        bytes.truncate(at + 1);
        bytes.extend(tail);
        let _ = read_section(1, &bytes);
    }
}

/// One of each kind, with numbers that show where each field stands.
#[test]
fn rule_9_1_the_form_of_each_section_does_not_drift() {
    let goldens = [
        (
            Section::Head(Head {
                now_ms: 300,
                generation: Generation(2),
                last_id: 3,
                last_token: Token(4),
                topics: 5,
                sessions: 6,
                pops: 7,
                pops_kept: 8,
                pops_forgotten: 9,
            }),
            "01ac020203040506070809",
        ),
        (
            Section::Topic(TopicHead {
                id: TopicId(300),
                name: "orders".into(),
                settings: TopicSettings {
                    attempts_max: 16,
                    messages_max: Some(5),
                    bytes_max: None,
                    ttl_ms_default: Some(6),
                },
                request_id: Some(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
                created_ms: 7,
                next_offset: 8,
                generations: 1,
                subscriptions: 2,
            }),
            "02ac02066f726465727310010500010601100f0e0d0c0b0a09080706050403020107080102",
        ),
        (Section::Generations(vec![(Generation(0), 0), (Generation(3), 300)]), "0302000003ac02"),
        (
            Section::Subscription(SubscriptionHead {
                id: SubscriptionId(1),
                bytes: 300,
                dead_bytes: 2,
                ready: 3,
                retried: 4,
                waived: 5,
                leased: 6,
                delayed: 7,
                dead: 8,
                redriven: 9,
            }),
            "0401ac020203040506070809",
        ),
        (Section::Ready(vec![(2, 5), (9, 300)]), "0502020304a302"),
        (
            Section::Retried(vec![
                RetriedMessage { offset: 2, size: 300, attempts: 1, late_ack: None },
                RetriedMessage { offset: 4, size: 7, attempts: 2, late_ack: Some(Token(9)) },
            ]),
            "060202ac0201000207020109",
        ),
        (Section::Waived(vec![(2, 4)]), "07010202"),
        (
            Section::Leased(vec![
                LeasedMessage {
                    offset: 5,
                    size: 300,
                    attempts: 1,
                    token: Token(9),
                    granted_ms: 1_000,
                    expires_ms: 1_030,
                    deadline_ms: Some(2_000),
                    is_waived: false,
                },
                LeasedMessage {
                    offset: 6,
                    size: 1,
                    attempts: 0,
                    token: Token(9),
                    granted_ms: 1_000,
                    expires_ms: 1_030,
                    deadline_ms: None,
                    is_waived: true,
                },
            ]),
            "080205ac020109e8071e01d00f01010009e8071e02",
        ),
        (
            Section::Delayed(vec![DelayedMessage {
                offset: 7,
                size: 300,
                attempts: 2,
                due_ms: 1_000,
                deadline_ms: None,
                is_waived: false,
            }]),
            "090107ac0202e80700",
        ),
        (
            Section::Dead(vec![
                DeadRun { offsets: 10..15, attempts: 16, reason: DeadReason::Expired },
                DeadRun { offsets: 15..16, attempts: 16, reason: DeadReason::LeaseExpired },
                DeadRun { offsets: 20..21, attempts: 16, reason: DeadReason::Nacked },
                DeadRun { offsets: 22..23, attempts: 16, reason: DeadReason::NackedBecause("no".into()) },
            ]),
            "0a040a051000000110010401100201011003026e6f",
        ),
        (
            Section::Redriven(vec![DeadRun { offsets: 10..15, attempts: 16, reason: DeadReason::Expired }]),
            "0e010a051000",
        ),
        (
            Section::Session(SessionHead {
                id: SessionId { generation: Generation(1), number: 300 },
                name: Some("p".into()),
                epoch: 2,
                used_ms: 3,
                pairs_max: 4,
                pairs: 5,
            }),
            "0b01ac0201017002030405",
        ),
        (
            Section::Pair(PairSection {
                topic: TopicId(300),
                last_sequence: 2,
                replies: vec![
                    KeptReply { first_offset: 4, count: 3, batch_crc: 0x0102_0304 },
                    KeptReply { first_offset: 7, count: 1, batch_crc: 0x0506_0708 },
                ],
            }),
            "0cac020202040304030201000108070605",
        ),
        (
            Section::Pops(vec![PopSection {
                request_id: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
                popped_ms: 300,
                topic: TopicId(2),
                subscription: SubscriptionId(0),
                deliveries: vec![Delivery { generation: Generation(1), offset: 3, size: 4, attempts: 5 }],
            }]),
            "0d01100f0e0d0c0b0a090807060504030201ac0202000103010405",
        ),
    ];
    // Written down by hand, from the diagram.
    let kinds: std::collections::BTreeSet<&str> = goldens.iter().map(|(section, _)| section.name()).collect();
    assert_eq!(kinds.len(), 14);
    for (section, golden) in goldens {
        let hex: String = written(&section).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden, "{}", section.name());
    }
}

#[test]
fn rule_9_1_an_unknown_section_or_version_is_refused_by_name() {
    let bytes = written(&Section::Ready(vec![(0, 1)]));
    assert!(read_section(3, &bytes).unwrap_err().0.contains("version 3"));
    assert!(read_section(1, &[99]).unwrap_err().0.contains("section 99"));
    assert!(read_section(1, &[]).is_err());
}

/// A count that lies costs nothing: no list is longer than its bytes.
#[test]
fn a_section_allocates_no_more_than_its_bytes_can_hold() {
    for kind in [3, 5, 6, 7, 8, 9, 10, 13, 14] {
        let mut bytes = BytesMut::new();
        bytes.put_u8(kind);
        put_number(&mut bytes, u64::MAX >> 1);
        let refused = read_section(1, &bytes).unwrap_err().0;
        assert!(refused.contains("a list of"), "{refused}");
    }
}
