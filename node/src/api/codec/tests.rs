//! The codec's properties, and the forms that must not drift.

mod sections;

use super::*;
use crate::api::NewMessage;
use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use raftqueue_queue::{
    Candidate, Command, DeadSelection, Generation, LeaseId, MessageMeta, MessageSize, Overdue, Sequenced,
    SessionId, SubscriptionId, Token, TopicChange, TopicId, TopicSettings,
};

fn candidate() -> impl Strategy<Value = Candidate> {
    (any::<u64>(), any::<u32>(), any::<Option<u64>>()).prop_map(|(offset, size, deadline_ms)| Candidate {
        offset,
        size,
        deadline_ms,
    })
}

fn lease() -> impl Strategy<Value = LeaseId> {
    (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(generation, offset, token)| LeaseId {
        generation: Generation(generation),
        offset,
        token: Token(token),
    })
}

fn message() -> impl Strategy<Value = MessageMeta> {
    (any::<u32>(), any::<u32>(), any::<u64>(), any::<Option<u64>>())
        .prop_map(|(size, crc, delay_ms, ttl_ms)| MessageMeta { size, crc, delay_ms, ttl_ms })
}

fn sequenced() -> impl Strategy<Value = Sequenced> {
    (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>()).prop_map(
        |(generation, number, epoch, sequence, batch_crc)| Sequenced {
            session: SessionId { generation: Generation(generation), number },
            epoch,
            sequence,
            batch_crc,
        },
    )
}

fn selection() -> impl Strategy<Value = DeadSelection> {
    prop_oneof![
        Just(DeadSelection::All),
        prop::collection::vec(
            (any::<u64>(), any::<u32>()).prop_map(|(offset, size)| MessageSize { offset, size }),
            0..5
        )
        .prop_map(DeadSelection::Listed),
    ]
}

fn target() -> impl Strategy<Value = (TopicId, SubscriptionId)> {
    (any::<u64>(), any::<u32>())
        .prop_map(|(topic, subscription)| (TopicId(topic), SubscriptionId(subscription)))
}

fn list<T: fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(item, 0..5)
}

fn command() -> impl Strategy<Value = Command> {
    let settings = (any::<u32>(), any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<u64>>()).prop_map(
        |(attempts_max, messages_max, bytes_max, ttl_ms_default)| TopicSettings {
            attempts_max,
            messages_max,
            bytes_max,
            ttl_ms_default,
        },
    );
    let limit = || any::<Option<Option<u64>>>();
    let change = (any::<Option<u32>>(), limit(), limit(), limit()).prop_map(
        |(attempts_max, messages_max, bytes_max, ttl_ms_default)| TopicChange {
            attempts_max,
            messages_max,
            bytes_max,
            ttl_ms_default,
        },
    );
    prop_oneof![
        (any::<String>(), settings, any::<u64>(), any::<Option<u128>>()).prop_map(
            |(name, settings, topics_max, request_id)| Command::CreateTopic {
                name,
                settings,
                topics_max,
                request_id
            }
        ),
        any::<String>().prop_map(|name| Command::DeleteTopic { name }),
        (any::<String>(), change).prop_map(|(name, change)| Command::UpdateTopic { name, change }),
        (any::<String>(), prop::option::of(sequenced()), list(message()))
            .prop_map(|(topic, session, messages)| Command::Publish { topic, session, messages }),
        (target(), list(candidate()), any::<u64>()).prop_map(
            |((topic, subscription), candidates, lease_ms)| {
                Command::Receive { topic, subscription, candidates, lease_ms }
            }
        ),
        (target(), list(candidate()), any::<u32>(), any::<Option<u128>>()).prop_map(
            |((topic, subscription), candidates, count_max, request_id)| Command::Pop {
                topic,
                subscription,
                candidates,
                count_max,
                request_id
            }
        ),
        (target(), list(lease())).prop_map(|((topic, subscription), leases)| Command::Ack {
            topic,
            subscription,
            leases
        }),
        (target(), list(lease()), any::<u64>(), any::<Option<String>>()).prop_map(
            |((topic, subscription), leases, delay_ms, reason)| Command::Nack {
                topic,
                subscription,
                leases,
                delay_ms,
                reason
            }
        ),
        (target(), list(lease()), any::<u64>()).prop_map(|((topic, subscription), leases, lease_ms)| {
            Command::Extend { topic, subscription, leases, lease_ms }
        }),
        (target(), list(lease())).prop_map(|((topic, subscription), leases)| Command::Release {
            topic,
            subscription,
            leases
        }),
        (target(), selection()).prop_map(|((topic, subscription), selection)| Command::RedriveDead {
            topic,
            subscription,
            selection
        }),
        (target(), selection()).prop_map(|((topic, subscription), selection)| Command::PurgeDead {
            topic,
            subscription,
            selection
        }),
        (any::<String>(), any::<u32>())
            .prop_map(|(topic, s)| Command::Purge { topic, subscription: SubscriptionId(s) }),
        (any::<Option<String>>(), any::<u64>(), any::<u64>()).prop_map(|(name, sessions_max, pairs_max)| {
            Command::OpenSession { name, sessions_max, pairs_max }
        }),
        (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(generation, number, epoch)| {
            Command::CloseSession { session: SessionId { generation: Generation(generation), number }, epoch }
        }),
        list((target(), list(candidate())).prop_map(|((topic, subscription), candidates)| Overdue {
            topic,
            subscription,
            candidates
        }))
        .prop_map(|overdue| Command::Time { overdue }),
        any::<u32>().prop_map(|g| Command::RaiseGeneration { generation: Generation(g) }),
    ]
}

fn new_message() -> impl Strategy<Value = NewMessage> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    (bytes(), bytes(), list((any::<String>(), bytes()))).prop_map(|(body, key, headers)| NewMessage {
        body_crc: crc32c::crc32c(&body),
        body,
        key,
        headers,
        ..NewMessage::default()
    })
}

proptest! {
    #[test]
    fn entries_come_back_as_they_were(commands in list(command()), stamp_ms: u64) {
        let mut writer = EntryWriter::default();
        commands.iter().for_each(|command| writer.push(command));
        let meta = writer.finish(VERSION_MAX, stamp_ms);
        prop_assert_eq!(read_entry(&meta), Ok(EntryMeta { stamp_ms, commands }));
    }

    #[test]
    fn damaged_entries_are_refused(commands in list(command()), at: prop::sample::Index, bit in 0..8u8) {
        let mut writer = EntryWriter::default();
        commands.iter().for_each(|command| writer.push(command));
        let mut meta = writer.finish(VERSION_MAX, 1).to_vec();
        let at = at.index(meta.len());
        meta[at] ^= 1 << bit;
        prop_assert!(read_entry(&meta).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>) {
        let _ = read_message(&Bytes::from(bytes.clone()), 0);
        let _ = read_entry(&bytes);
        // Past the CRC too.
        bytes.insert(0, 1);
        let crc = crc32c::crc32c(&bytes);
        bytes.put_u32_le(crc);
        let _ = read_entry(&bytes);
    }

    #[test]
    fn messages_come_back_as_they_were(messages in list(new_message())) {
        let mut out = BytesMut::new();
        let placed: Vec<_> = messages
            .iter()
            .map(|message| {
                let start = out.len();
                let (size, crc) = write_message(&mut out, message);
                assert!(size as usize <= stored_size_max(message));
                (start, size as usize, crc)
            })
            .collect();
        let out = out.freeze();
        for (message, (start, size, crc)) in messages.into_iter().zip(placed) {
            let NewMessage { body, body_crc, key, headers, .. } = message;
            let stored = out.slice(start..start + size);
            prop_assert!(read_message(&stored, crc ^ 1).is_err());
            prop_assert_eq!(read_message(&stored, crc), Ok(Stored { body, body_crc, key, headers }));
        }
    }
}

/// The CRC of a batch stands in sessions for as long as they live: it must not change with the form of messages, or a repeat
/// after an upgrade counts as other content. Spelled out here from what the producer gave, so that nothing of a stored message can
/// come into it unseen.
#[test]
fn rule_7_2_a_batch_is_known_by_what_the_producer_gave() {
    let message = |body: &'static [u8], key: &'static [u8], headers: Vec<(String, Bytes)>| NewMessage {
        body: Bytes::from_static(body),
        body_crc: crc32c::crc32c(body),
        key: Bytes::from_static(key),
        headers,
        ..NewMessage::default()
    };
    let plain = message(b"one", b"", Vec::new());
    let full = message(b"two", b"k", vec![("n".into(), Bytes::from_static(b"value"))]);
    let numbers = |numbers: [u64; 3]| numbers.map(u64::to_le_bytes).concat();
    let mut content = Vec::new();
    content.extend(crc32c::crc32c(b"one").to_le_bytes());
    content.extend(numbers([3, 0, 0]));
    content.extend(crc32c::crc32c(b"two").to_le_bytes());
    content.extend(numbers([3, 1, 1]));
    content.extend(b"k");
    content.extend(1u64.to_le_bytes());
    content.extend(b"n");
    content.extend(5u64.to_le_bytes());
    content.extend(b"value");
    let batch = [plain.clone(), full.clone()];
    assert_eq!(batch_crc(&batch), crc32c::crc32c(&content));
    // Nothing that is written for a message comes into it: neither what it waits for, nor a time to live.
    let mut later = batch.clone();
    (later[0].delay_ms, later[0].ttl_ms) = (5, Some(9));
    assert_eq!(batch_crc(&later), batch_crc(&batch));
    // All that the producer gave does.
    let others = [
        vec![plain.clone()],
        vec![full.clone(), plain.clone()],
        vec![plain.clone(), message(b"twO", b"k", full.headers.clone())],
        vec![plain.clone(), message(b"two", b"", full.headers.clone())],
        vec![plain.clone(), message(b"two", b"k", Vec::new())],
        vec![plain.clone(), message(b"two", b"k", vec![("nv".into(), Bytes::from_static(b"alue"))])],
    ];
    for other in others {
        assert_ne!(batch_crc(&other), batch_crc(&batch), "{other:?}");
    }
}

#[test]
fn the_form_of_version_1_does_not_drift() {
    let mut writer = EntryWriter::default();
    writer.push(&Command::Publish {
        topic: "orders".into(),
        session: Some(Sequenced {
            session: SessionId { generation: Generation(0), number: 300 },
            epoch: 2,
            sequence: 7,
            batch_crc: 0x0102_0304,
        }),
        messages: vec![MessageMeta { size: 1024, crc: 0xa1b2_c3d4, delay_ms: 5, ttl_ms: None }],
    });
    writer.push(&Command::Time { overdue: vec![] });
    let hex: String = writer.finish(1, 1_000).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "01e8070203066f72646572730100ac0202070403020101018008d4c3b2a1050f00386b1f06");
}

#[test]
fn the_form_of_version_2_does_not_drift() {
    let mut writer = EntryWriter::default();
    let change = TopicChange {
        attempts_max: Some(5),
        messages_max: Some(None),
        bytes_max: None,
        ttl_ms_default: Some(Some(300)),
    };
    writer.push(&Command::UpdateTopic { name: "orders".into(), change });
    let hex: String = writer.finish(2, 1_000).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "02e8070111066f726465727301050100000101ac0289878843");
}

#[test]
fn rule_9_1_an_unknown_command_or_version_is_refused_by_name() {
    let frame = |content: &[u8]| {
        let mut bytes = content.to_vec();
        bytes.put_u32_le(crc32c::crc32c(content));
        read_entry(&bytes).unwrap_err().0
    };
    assert!(frame(&[3, 0, 0]).contains("version 3"));
    assert!(frame(&[1, 0, 1, 99]).contains("command 99"));
    // What only version 2 has stands in no entry of version 1.
    let meta = |version| {
        let mut writer = EntryWriter::default();
        writer.push(&Command::UpdateTopic { name: "t".into(), change: TopicChange::default() });
        writer.finish(version, 0)
    };
    assert!(read_entry(&meta(1)).unwrap_err().0.contains("command 17"));
    assert_eq!(read_entry(&meta(2)).map(|meta| meta.commands.len()), Ok(1));
}
