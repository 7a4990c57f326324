//! Each limit, exactly at it and one beyond.

use super::*;
use crate::api::{
    LeaseId, Look, MessageId, Publish, Reason, SessionId, SessionStep, Settle, Settlement, Take, TakeKind,
    TopicOptions, Write,
};
use crate::wire::forward::{Call, write_call};
use crate::wire::ids::encode_lease;
use crate::wire::messages::PEER_MESSAGE_BYTES_MAX;
use bytes::Bytes;
use prost::Message;
use raftqueue_proto::text::hex;
use serde_json::json;

/// What became of a check: nothing, or the reason and the text.
fn check(request: &Request) -> Option<(Reason, String)> {
    let failure = Limits::default().check(request).err()?;
    assert_eq!(failure.outcome, crate::api::Outcome::NotDone, "a check comes before anything is done");
    Some((failure.reason, failure.text))
}

fn publish(messages: Vec<NewMessage>) -> Request {
    Request::Publish(Publish { topic: "orders".into(), session: None, messages })
}

fn message(body_bytes: usize, key_bytes: usize, headers: Vec<(String, Bytes)>) -> NewMessage {
    NewMessage {
        body: vec![0; body_bytes].into(),
        key: vec![0; key_bytes].into(),
        headers,
        ..NewMessage::default()
    }
}

fn header(name_bytes: usize, value_bytes: usize) -> (String, Bytes) {
    ("n".repeat(name_bytes), vec![0; value_bytes].into())
}

fn receive(messages_max: usize, bytes_max: usize, lease_ms: Option<u64>) -> Request {
    let (topic, subscription) = ("orders".into(), String::new());
    Request::Take(Take {
        topic,
        subscription,
        messages_max,
        bytes_max,
        wait_ms: u64::MAX,
        kind: TakeKind::Receive { lease_ms },
    })
}

fn lease(topic: u64) -> LeaseId {
    LeaseId { message: MessageId { generation: 0, topic, offset: 0 }, token: 1 }
}

fn nack(leases: Vec<LeaseId>, reason: &str) -> Request {
    let (topic, subscription) = ("orders".into(), String::new());
    Request::Settle(Settle {
        topic,
        subscription,
        leases,
        settlement: Settlement::Nack { delay_ms: 0, reason: reason.into() },
    })
}

#[test]
fn rule_4_4_names_have_1_to_255_bytes_and_no_control_characters() {
    let describe = |topic: &str| check(&Request::Look(Look::DescribeTopic { topic: topic.into() }));
    assert_eq!(describe("o"), None);
    assert_eq!(describe(&"o".repeat(255)), None);
    assert_eq!(describe("größe / 1 %"), None);
    let (reason, text) = describe(&"ö".repeat(128)).expect("256 bytes are one too many");
    assert_eq!(reason, Reason::InvalidArgument);
    assert!(text.contains("255") && text.contains("256"), "names the limit and the value: {text}");
    for name in ["", "a\nb", "a\0", "\u{7f}", "\u{85}"] {
        assert_eq!(describe(name).map(|(reason, _)| reason), Some(Reason::InvalidArgument), "{name:?}");
    }
    let subscription = "s\t".to_owned();
    assert!(check(&Request::Write(Write::Purge { topic: "orders".into(), subscription })).is_some());
}

#[test]
fn rule_4_4_sizes_of_a_message_are_limited() {
    let cases = [
        (message(1 << 20, 0, vec![]), message((1 << 20) + 1, 0, vec![]), "1048577", "1048576"),
        (message(0, 1_024, vec![]), message(0, 1_025, vec![]), "1025", "1024"),
        (message(0, 0, vec![header(1, 0); 64]), message(0, 0, vec![header(1, 0); 65]), "65", "64"),
        (message(0, 0, vec![header(8, 16_376)]), message(0, 0, vec![header(9, 16_376)]), "16385", "16384"),
    ];
    for (fits, over, value, limit) in cases {
        assert_eq!(check(&publish(vec![fits])), None);
        let (reason, text) =
            check(&publish(vec![NewMessage::default(), over])).expect("one beyond the limit");
        assert_eq!(reason, Reason::TooLarge);
        assert!(text.contains("message 1") && text.contains(value) && text.contains(limit), "{text}");
    }
}

#[test]
fn rule_4_4_a_publish_is_limited_in_messages_and_bytes() {
    assert!(check(&publish(vec![])).is_some_and(|(reason, _)| reason == Reason::InvalidArgument));
    assert_eq!(check(&publish(vec![NewMessage::default(); 10_000])), None);
    let too_many = check(&publish(vec![NewMessage::default(); 10_001]));
    assert!(too_many.is_some_and(|(reason, _)| reason == Reason::TooLarge));
    let body = message(1 << 20, 0, vec![]);
    assert_eq!(check(&publish(vec![body.clone(); 4])), None);
    let key = message(0, 1, vec![]);
    let too_much = check(&publish(vec![body.clone(), body.clone(), body.clone(), body, key]));
    assert!(too_much.is_some_and(|(reason, text)| reason == Reason::TooLarge && text.contains("4194305")));
}

#[test]
fn times_are_limited_so_that_no_sum_of_them_overflows() {
    let timed = |delay_ms, ttl_ms| publish(vec![NewMessage { delay_ms, ttl_ms, ..NewMessage::default() }]);
    assert_eq!(check(&timed(DELAY_MS_MAX, Some(DELAY_MS_MAX))), None);
    for refused in [timed(DELAY_MS_MAX + 1, None), timed(0, Some(0)), timed(0, Some(u64::MAX))] {
        assert!(check(&refused).is_some_and(|(reason, _)| reason == Reason::InvalidArgument));
    }
}

#[test]
fn a_receive_of_nothing_or_of_a_million_is_refused() {
    assert_eq!(check(&receive(1, 1, None)), None);
    assert_eq!(check(&receive(1_000, RECEIVE_BYTES_MAX, Some(1_000))), None);
    assert_eq!(check(&receive(1, 1, Some(43_200_000))), None);
    let refused = [
        receive(0, 1, None),
        receive(1_001, 1, None),
        receive(1_000_000, 1, None),
        receive(1, 0, None),
        receive(1, RECEIVE_BYTES_MAX + 1, None),
        receive(1, 1, Some(999)),
        receive(1, 1, Some(43_200_001)),
    ];
    for request in refused {
        assert!(check(&request).is_some_and(|(reason, _)| reason == Reason::InvalidArgument), "{request:?}");
    }
}

#[test]
fn leases_of_one_call_are_of_one_topic_and_not_too_many() {
    assert_eq!(check(&nack(vec![lease(7); 10_000], &"r".repeat(256))), None);
    for refused in [
        nack(vec![], ""),
        nack(vec![lease(7); 10_001], ""),
        nack(vec![lease(7), lease(8)], ""),
        nack(vec![lease(7)], &"r".repeat(257)),
    ] {
        assert!(check(&refused).is_some_and(|(reason, _)| reason == Reason::InvalidArgument));
    }
}

#[test]
fn options_of_a_topic_are_at_least_one() {
    let create = |options| {
        check(&Request::Write(Write::CreateTopic { topic: "orders".into(), options, request_id: None }))
    };
    assert_eq!(create(TopicOptions::default()), None);
    let zeros = [
        TopicOptions { attempts_max: Some(0), ..TopicOptions::default() },
        TopicOptions { messages_max: Some(0), ..TopicOptions::default() },
        TopicOptions { bytes_max: Some(0), ..TopicOptions::default() },
        TopicOptions { ttl_ms: Some(0), ..TopicOptions::default() },
    ];
    for options in zeros {
        assert!(create(options.clone()).is_some(), "{options:?}");
    }
}

#[test]
fn the_first_sequence_of_a_session_is_one() {
    let step = |sequence| {
        let session = SessionId { generation: 0, number: 1, epoch: 0 };
        let session = Some(SessionStep { session, sequence });
        check(&Request::Publish(Publish {
            topic: "orders".into(),
            session,
            messages: vec![NewMessage::default()],
        }))
    };
    assert_eq!(step(1), None);
    assert!(step(0).is_some());
}

#[test]
fn a_deadline_is_cut_to_the_maximum_and_answered_a_little_early() {
    assert_eq!(deadline(None, 0), Duration::from_millis(900));
    assert_eq!(deadline(None, 20_000), Duration::from_millis(20_900));
    assert_eq!(deadline(None, u64::MAX), Duration::from_millis(DEADLINE_MS_MAX));
    assert_eq!(deadline(Some(Duration::from_millis(5)), 20_000), Duration::from_millis(5));
    assert_eq!(deadline(Some(Duration::MAX), 0), Duration::from_millis(DEADLINE_MS_MAX));
    assert_eq!(less_margin(Duration::from_millis(500)), Duration::from_millis(450));
    assert_eq!(less_margin(Duration::from_secs(60)), Duration::from_millis(59_900));
}

/// The largest publishes that every limit allows, in the shapes that take the most room around their bytes.
fn largest(limits: &Limits) -> Vec<(NewMessage, usize)> {
    let timed =
        |message: NewMessage| NewMessage { delay_ms: DELAY_MS_MAX, ttl_ms: Some(DELAY_MS_MAX), ..message };
    let shapes = [
        vec![header(1, 0); 64],
        vec![header(3, 3); 64],
        vec![header(1, 5); 64],
        vec![header(128, 128); 64],
        vec![header(1, 16_383)],
        vec![],
    ];
    let mut largest = Vec::new();
    for headers in shapes {
        for key_bytes in [0, 1, 128, 1_024] {
            for body_bytes in [0, 1, 128, limits.body_bytes_max] {
                let message = timed(message(body_bytes, key_bytes, headers.clone()));
                let count = (limits.publish_bytes_max / message_bytes(&message).max(1)).min(10_000);
                largest.extend((count > 0).then_some((message, count)));
            }
        }
    }
    assert!(largest.len() > 60, "{}", largest.len());
    largest
}

fn default_and_greatest_limits() -> [Limits; 2] {
    let (body_bytes_max, publish_bytes_max) = (16 << 20, (16 << 20) + (17 << 10));
    [Limits::default(), Limits { body_bytes_max, publish_bytes_max, ..Limits::default() }]
}

#[test]
fn a_frame_holds_every_publish_that_the_other_limits_allow() {
    for limits in default_and_greatest_limits() {
        for (message, count) in largest(&limits) {
            let session = SessionId { generation: u32::MAX, number: u64::MAX, epoch: u64::MAX };
            let step = SessionStep { session, sequence: u64::MAX };
            let batch = |count: usize| {
                let messages = vec![message.clone(); count];
                let request =
                    Request::Publish(Publish { topic: "t".repeat(255), session: Some(step), messages });
                let Call::Publish(publish) = write_call(request) else { unreachable!("a publish stays one") };
                publish.encoded_len()
            };
            // The messages are all the same, so they need not all be there.
            let (one, two) = (batch(1), batch(2));
            let (bytes, bytes_max) = (one + (count - 1) * (two - one), limits.frame_bytes_max());
            assert!(bytes <= bytes_max, "{bytes} of {bytes_max}: {count} times {message:?}");
            assert!(bytes_max < PEER_MESSAGE_BYTES_MAX, "it can be passed on to the leader");
        }
    }
}

#[test]
fn a_json_body_holds_every_publish_that_the_other_limits_allow() {
    for limits in default_and_greatest_limits() {
        for (message, count) in largest(&limits) {
            let headers = vec![json!({"name": "", "value_base64": ""}); message.headers.len()];
            let json = json!({
                "body": "", "body_crc32c": u32::MAX, "key_base64": "", "headers": headers,
                "delay_ms": message.delay_ms, "ttl_ms": message.ttl_ms,
            })
            .to_string();
            // As programs write it that put a space behind each colon and comma; each byte of text as one that JSON writes
            // with six.
            let spaces = json.matches([':', ',']).count();
            let bytes = count * (json.len() + spaces + 6 * message_bytes(&message) + 2);
            let bytes_max = limits.json_batch_bytes_max();
            assert!(bytes <= bytes_max, "{bytes} of {bytes_max}: {count} times {message:?}");
        }
    }
    let lease = hex(&encode_lease(LeaseId {
        message: MessageId { generation: u32::MAX, topic: u64::MAX, offset: u64::MAX },
        token: u64::MAX,
    }));
    let escaped = |bytes: usize| "\u{1}".repeat(bytes);
    let ack = json!({"subscription": escaped(255), "reason": escaped(256), "leases": vec![lease; 10_000]});
    assert!(2 * ack.to_string().len() <= JSON_CALL_BYTES_MAX);
}
