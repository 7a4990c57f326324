//! Every call and every answer survives the way to the leader and back.

use super::*;
use crate::api::{
    Change, ChangeMembers, Dead, DeadAction, LeaseId, Look, MemberStanding, MemberState, MembersInfo,
    MessageId, MessageState, NewMessage, Outcome, Publish, SessionId, SessionStep, Settle, Settlement, Take,
    TakeKind, TopicChange, TopicOptions, WaitingInfo, Write,
};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn headers() -> impl Strategy<Value = Vec<(String, Bytes)>> {
    vec((text(), bytes()), 0..3)
}

prop_compose! {
    fn message_id()(generation: u32, topic: u64, offset: u64) -> MessageId {
        MessageId { generation, topic, offset }
    }
}

prop_compose! {
    fn leases()(leases in vec((message_id(), any::<u64>()), 0..4)) -> Vec<LeaseId> {
        leases.into_iter().map(|(message, token)| LeaseId { message, token }).collect()
    }
}

prop_compose! {
    fn session()(generation: u32, number: u64, epoch: u64) -> SessionId {
        SessionId { generation, number, epoch }
    }
}

prop_compose! {
    fn options()(attempts_max: Option<u32>, messages_max: Option<u64>, bytes_max: Option<u64>, ttl_ms: Option<u64>)
        -> TopicOptions {
        TopicOptions { attempts_max, messages_max, bytes_max, ttl_ms }
    }
}

prop_compose! {
    fn new_message()(body in bytes(), key in bytes(), headers in headers(), delay_ms: u64, ttl_ms: Option<u64>)
        -> NewMessage {
        NewMessage { body_crc: crc32c::crc32c(&body), body, key, headers, delay_ms, ttl_ms }
    }
}

fn state() -> impl Strategy<Value = MessageState> {
    prop::sample::select(vec![
        MessageState::Ready,
        MessageState::Leased,
        MessageState::Delayed,
        MessageState::Dead,
    ])
}

/// Counts and sizes as they are after the defaults were filled in: never 0.
fn count() -> impl Strategy<Value = usize> {
    1..=1_000_000usize
}

fn take_kind() -> impl Strategy<Value = TakeKind> {
    prop_oneof![
        any::<Option<u64>>().prop_map(|lease_ms| TakeKind::Receive { lease_ms }),
        any::<Option<u128>>().prop_map(|request_id| TakeKind::Pop { request_id }),
    ]
}

fn settlement() -> impl Strategy<Value = Settlement> {
    prop_oneof![
        Just(Settlement::Ack),
        (any::<u64>(), text()).prop_map(|(delay_ms, reason)| Settlement::Nack { delay_ms, reason }),
        any::<Option<u64>>().prop_map(|lease_ms| Settlement::Extend { lease_ms }),
        Just(Settlement::Release),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let target = || (text(), text());
    let step = (session(), any::<u64>()).prop_map(|(session, sequence)| SessionStep { session, sequence });
    prop_oneof![
        (text(), options(), any::<Option<u128>>()).prop_map(|(topic, options, request_id)| Request::Write(
            Write::CreateTopic { topic, options, request_id }
        )),
        text().prop_map(|topic| Request::Write(Write::DeleteTopic { topic })),
        (text(), topic_change())
            .prop_map(|(topic, change)| Request::Write(Write::UpdateTopic { topic, change })),
        (option::of(1..u64::MAX), count())
            .prop_map(|(after, topics_max)| Request::Look(Look::ListTopics { after, topics_max })),
        text().prop_map(|topic| Request::Look(Look::DescribeTopic { topic })),
        (text(), option::of(step), vec(new_message(), 0..4))
            .prop_map(|(topic, session, messages)| Request::Publish(Publish { topic, session, messages })),
        (target(), count(), count(), any::<u64>(), take_kind()).prop_map(
            |((topic, subscription), messages_max, bytes_max, wait_ms, kind)| {
                Request::Take(Take { topic, subscription, messages_max, bytes_max, wait_ms, kind })
            }
        ),
        (target(), leases(), settlement()).prop_map(|((topic, subscription), leases, settlement)| {
            Request::Settle(Settle { topic, subscription, leases, settlement })
        }),
        (target(), state(), any::<u64>(), count(), count()).prop_map(
            |((topic, subscription), state, from_offset, messages_max, bytes_max)| Request::Look(
                Look::Peek { topic, subscription, state, from_offset, messages_max, bytes_max }
            )
        ),
        (target(), vec(any::<u64>(), 0..4)).prop_map(|((topic, subscription), offsets)| {
            Request::Dead(Dead { topic, subscription, offsets, action: DeadAction::Redrive })
        }),
        (target(), vec(any::<u64>(), 0..4)).prop_map(|((topic, subscription), offsets)| Request::Dead(
            Dead { topic, subscription, offsets, action: DeadAction::Purge }
        )),
        target().prop_map(|(topic, subscription)| Request::Write(Write::Purge { topic, subscription })),
        option::of(text()).prop_map(|name| Request::Write(Write::OpenSession { name })),
        session().prop_map(|session| Request::Write(Write::CloseSession { session })),
        Just(Request::Look(Look::ClusterStatus)),
        option::of(text()).prop_map(|to| Request::TransferLeadership { to }),
        Just(Request::Look(Look::Members)),
        change_members().prop_map(Request::Members),
    ]
}

fn topic_change() -> impl Strategy<Value = TopicChange> {
    let limit = || any::<Option<Option<u64>>>();
    (any::<Option<Option<u32>>>(), limit(), limit(), limit()).prop_map(
        |(attempts_max, messages_max, bytes_max, ttl_ms)| TopicChange {
            attempts_max,
            messages_max,
            bytes_max,
            ttl_ms,
        },
    )
}

fn change_members() -> impl Strategy<Value = ChangeMembers> {
    let change = prop_oneof![
        vec(text(), 0..4).prop_map(|nodes| (Change::AddLearners(nodes), false)),
        vec(text(), 0..4).prop_map(|nodes| (Change::Promote(nodes), false)),
        (vec(text(), 0..4), any::<bool>()).prop_map(|(nodes, force)| (Change::Remove(nodes), force)),
        (text(), text(), any::<bool>()).prop_map(|(old, new, force)| (Change::Replace { old, new }, force)),
        any::<Option<u32>>().prop_map(|version| (Change::RaiseVersion(version), false)),
    ];
    (change, option::of(any::<u64>()), any::<bool>())
        .prop_map(|((change, force), expected, dry)| ChangeMembers { change, expected, force, dry })
}

fn members() -> impl Strategy<Value = MembersInfo> {
    let standing = proptest::sample::select(&MemberStanding::ALL[..]);
    let flags = any::<[bool; 5]>();
    let why = || option::of("[a-z]{1,9}");
    let member = (any::<[u64; 3]>(), (text(), text(), standing), flags, why(), why()).prop_map(
        |([id, matched, lag], (name, address, standing), flags, unwell, stop_refusal)| MemberState {
            id,
            name,
            address,
            standing,
            leads: flags[0],
            active: flags[1],
            matched,
            lag,
            complete: flags[2],
            replaying: flags[3],
            disk_stalled: flags[4],
            unwell,
            stop_refusal,
            free_bytes: flags[4].then_some(lag),
            versions: flags[0].then_some((1, 1 + (id % 9) as u32)),
        },
    );
    let waiting = (any::<u64>(), text(), text(), text())
        .prop_map(|(id, name, address, client_address)| WaitingInfo { id, name, address, client_address });
    (any::<[u64; 4]>(), any::<bool>(), any::<bool>(), vec(member, 0..4), vec(waiting, 0..3)).prop_map(
        |([configuration_index, leader, term, last], joint, settled, members, waiting)| MembersInfo {
            configuration_index,
            joint,
            settled,
            leader,
            term,
            last,
            version: (last % 9) as u32,
            members,
            waiting,
        },
    )
}

fn topic_info() -> impl Strategy<Value = TopicInfo> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let counts = (text(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let subscription = counts.prop_map(|(name, ready, leased, delayed, dead)| SubscriptionInfo {
        name,
        ready,
        leased,
        delayed,
        dead,
    });
    (numbers, text(), options(), vec(subscription, 0..3)).prop_map(
        |((id, created_ms, next_offset, bytes), name, options, subscriptions)| TopicInfo {
            id,
            name,
            created_ms,
            options,
            next_offset,
            bytes,
            subscriptions,
        },
    )
}

fn delivery() -> impl Strategy<Value = Delivery> {
    let message = (message_id(), any::<u64>(), any::<u32>(), any::<u64>(), text()).prop_map(
        |(id, token, attempts, deadline_ms, reason)| MessageRef { id, token, attempts, deadline_ms, reason },
    );
    (message, any::<u64>(), bytes(), bytes(), headers()).prop_map(
        |(message, published_ms, body, key, headers)| Delivery {
            message,
            published_ms,
            body_crc: crc32c::crc32c(&body),
            body,
            key,
            headers,
        },
    )
}

fn member() -> impl Strategy<Value = MemberInfo> {
    let role = proptest::sample::select(&MemberRole::ALL[..]);
    (any::<u64>(), (text(), text(), text(), role), any::<bool>(), any::<bool>(), any::<u64>(), any::<u64>())
        .prop_map(|(id, (name, peer_address, client_address, role), voter, active, matched, lag)| {
            MemberInfo { id, name, peer_address, client_address, role, voter, active, matched, lag }
        })
}

fn cluster() -> impl Strategy<Value = ClusterInfo> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    (text(), any::<u32>(), any::<u32>(), numbers, vec(member(), 0..4)).prop_map(
        |(cluster_id, generation, version, (leader, term, commit, applied), members)| ClusterInfo {
            cluster_id,
            generation,
            version,
            leader,
            term,
            commit,
            applied,
            members,
        },
    )
}

/// An answer with the request that it answers.
fn exchange() -> impl Strategy<Value = (Request, Answer)> {
    let target = || (String::from("t"), String::new());
    let response = |request: Request, response: Response| (request, Answer::Response(response));
    let results = {
        use LeaseResult::{Done, Gone, Invalid, Stale};
        vec(prop::sample::select(vec![Done, Gone, Stale, Invalid]), 0..5)
    };
    let create = || {
        Request::Write(Write::CreateTopic {
            topic: "t".into(),
            options: TopicOptions::default(),
            request_id: None,
        })
    };
    let publish = || Request::Publish(Publish { topic: "t".into(), session: None, messages: vec![] });
    prop_oneof![
        any::<u64>().prop_map(move |topic| response(create(), Response::TopicCreated { topic })),
        options().prop_map(move |options| {
            let (topic, change) = ("t".into(), TopicChange::default());
            response(Request::Write(Write::UpdateTopic { topic, change }), Response::TopicUpdated(options))
        }),
        Just(response(Request::Write(Write::DeleteTopic { topic: "t".into() }), Response::TopicDeleted)),
        (vec(topic_info(), 0..3), any::<bool>()).prop_map(move |(topics, more)| {
            response(
                Request::Look(Look::ListTopics { after: None, topics_max: 1 }),
                Response::Topics { topics, more },
            )
        }),
        topic_info().prop_map(move |topic| response(
            Request::Look(Look::DescribeTopic { topic: "t".into() }),
            Response::Topic(topic)
        )),
        (message_id(), any::<u64>(), any::<bool>()).prop_map(move |(id, count, deduplicated)| {
            let (topic, generation, first_offset) = (id.topic, id.generation, id.offset);
            response(publish(), Response::Published { topic, generation, first_offset, count, deduplicated })
        }),
        Just(response(publish(), Response::AlreadyDone)),
        vec(delivery(), 0..4).prop_map(move |deliveries| {
            let (topic, subscription) = target();
            let state = MessageState::Ready;
            let peek = Request::Look(Look::Peek {
                topic,
                subscription,
                state,
                from_offset: 0,
                messages_max: 1,
                bytes_max: 1,
            });
            (peek, Answer::Deliveries(deliveries.into()))
        }),
        results.prop_map(move |results| {
            let (topic, subscription) = target();
            let message = MessageId { generation: 0, topic: 0, offset: 0 };
            let leases = vec![LeaseId { message, token: 0 }; results.len()];
            response(
                Request::Settle(Settle { topic, subscription, leases, settlement: Settlement::Ack }),
                Response::Leases(results),
            )
        }),
        any::<u64>().prop_map(move |count| {
            let (topic, subscription) = target();
            response(Request::Write(Write::Purge { topic, subscription }), Response::Count(count))
        }),
        session().prop_map(move |session| {
            response(Request::Write(Write::OpenSession { name: None }), Response::SessionOpened { session })
        }),
        session().prop_map(move |session| response(
            Request::Write(Write::CloseSession { session }),
            Response::SessionClosed
        )),
        cluster().prop_map(move |cluster| response(
            Request::Look(Look::ClusterStatus),
            Response::Cluster(cluster)
        )),
        any::<u64>().prop_map(move |leader| {
            response(Request::TransferLeadership { to: None }, Response::Transferred { leader })
        }),
        members().prop_map(move |members| response(Request::Look(Look::Members), Response::Members(members))),
        (change_members(), any::<u64>(), option::of("[a-z]{1,9}")).prop_map(
            move |(change, configuration_index, refusal)| {
                let changed = Response::MembersChanged { configuration_index, refusal };
                response(Request::Members(change), changed)
            }
        ),
    ]
}

proptest! {
    #[test]
    fn every_call_arrives_as_it_was_made(request in request()) {
        prop_assert_eq!(read_call(Some(write_call(request.clone()))), Ok(request));
    }

    #[test]
    fn every_answer_comes_back_as_it_was_given((request, answer) in exchange()) {
        let reply = write_reply(Ok(answer.clone()));
        prop_assert_eq!(Expected::of(&request).read_reply(Some(reply)), Ok(answer));
    }

    #[test]
    fn the_answer_to_another_call_leaves_the_outcome_unknown((request, _) in exchange(), (other, answer) in exchange()) {
        prop_assume!(Expected::of(&request) != Expected::of(&other));
        let failure = Expected::of(&request).read_reply(Some(write_reply(Ok(answer)))).expect_err("not its answer");
        prop_assert_eq!((failure.reason, failure.outcome), (Reason::ForwardingBroken, Outcome::Unknown));
    }
}

#[test]
fn a_failure_comes_back_as_it_was_given() {
    for sent in [
        Failure::not_done(Reason::TopicNotFound, "orders: no such topic"),
        Failure::unknown(Reason::DeadlineExceeded, "too late"),
        Failure::not_done(Reason::DiskFull, "full").retry_after_ms(70),
    ] {
        let reply = write_reply(Err(sent.clone()));
        assert_eq!(Expected::of(&Request::Look(Look::ClusterStatus)).read_reply(Some(reply)), Err(sent));
    }
}

#[test]
fn a_reply_of_a_newer_version_leaves_the_outcome_unknown() {
    let failure = Expected::of(&Request::Look(Look::ClusterStatus))
        .read_reply(None)
        .expect_err("nothing that is known");
    assert_eq!(failure.outcome, Outcome::Unknown);
    assert!(read_call(None).is_err_and(|failure| failure.outcome == Outcome::NotDone));
}

#[test]
fn rule_2_9_a_body_that_was_damaged_on_the_way_is_never_delivered() {
    let body = Bytes::from_static(b"body");
    let id = MessageId { generation: 0, topic: 1, offset: 0 };
    let message = MessageRef { id, token: 0, attempts: 0, deadline_ms: 0, reason: String::new() };
    let body_crc = crc32c::crc32c(&body) ^ 1;
    let damaged = Delivery { message, published_ms: 0, body, body_crc, key: Bytes::new(), headers: vec![] };
    let whole = Delivery { body_crc: body_crc ^ 1, ..damaged.clone() };
    let reply = |deliveries: &[&Delivery]| {
        let deliveries = deliveries.iter().copied().cloned().map(super::super::convert::write_delivery);
        Some(Reply::Deliveries(v1::ReceiveResponse { deliveries: deliveries.collect() }))
    };
    let pop = |request_id| {
        let (topic, subscription) = ("t".into(), String::new());
        Request::Take(Take {
            topic,
            subscription,
            messages_max: 1,
            bytes_max: 1,
            wait_ms: 0,
            kind: TakeKind::Pop { request_id },
        })
    };
    let read = |pop, deliveries: &[&Delivery]| Expected::of(&pop).read_reply(reply(deliveries));
    assert!(read(pop(None), &[&damaged]).is_err());
    // And it takes no other with it.
    let both = Ok(Answer::Deliveries(vec![whole.clone(), whole.clone()].into()));
    assert_eq!(read(pop(None), &[&whole, &damaged, &whole]), both);
    // Where a repeat brings it after all, the caller must know that something is missing.
    let failure = read(pop(Some(7)), &[&whole, &damaged, &whole]).expect_err("one is missing");
    assert_eq!(failure.outcome, Outcome::Unknown);
    assert_eq!(read(pop(Some(7)), &[&whole, &whole]), both);
}
