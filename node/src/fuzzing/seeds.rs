//! What fuzzing begins with: what this crate itself writes, and requests as people send them.

use super::parts;
use crate::api::codec::{EntryWriter, VERSION_MAX, write_message, write_section};
use crate::api::{LeaseId, MessageId, NewMessage, SessionId};
use crate::replica::Vitals;
use crate::wire::giving::{write_end, write_head, write_section as write_chunk};
use crate::wire::ids;
use crate::wire::messages::{write_entry, write_envelope};
use bytes::{Bytes, BytesMut};
use prost::Message as _;
use raftqueue_proto::peer::v1 as pb;
use raftqueue_proto::peer::v1::forward_reply::Reply;
use raftqueue_proto::peer::v1::forward_request::Call;
use raftqueue_proto::v1;
use raftqueue_queue::{
    ApplyMeta, Candidate, Command, Generation, LeaseId as Lease, MessageMeta, Sequenced, State,
    SubscriptionId, Token, TopicChange, TopicId, TopicSettings,
};
use raftqueue_raft::{
    AppendOutcome, Configuration, Entry, Envelope, GroupId, Index, Message, NodeId, Payload, Term,
};
use raftqueue_wal::SnapshotHead;

/// Requests to the client port.
const HTTP: [(&str, &str); 17] = [
    ("topic", "PUT /topic\n\n{\"topic\": \"orders\"}"),
    ("topics", "GET /topic\n"),
    ("message", "PUT /message\nraftqueue-deadline-ms: 500\n\n{\"topic\": \"t\", \"message\": \"m\"}"),
    (
        "take",
        "GET /message/t\nraftqueue-request-id: 00112233-4455-6677-8899-aabbccddeeff\n\
         traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n",
    ),
    ("status", "GET /status\n"),
    (
        "v1-publish",
        "POST /v1/publish\n\n{\"topic\":\"t\",\"messages\":[{\"text\":\"m\",\"headers\":[{\"name\":\"n\",\"value\":\"76\"}],\"delay_ms\":5}]}",
    ),
    (
        "v1-receive",
        "POST /v1/receive\n\n{\"topic\":\"t\",\"messages_max\":10,\"wait_ms\":100,\"lease_ms\":1000}",
    ),
    ("v1-pop", "POST /v1/pop\n\n{\"topic\":\"t\",\"request_id\":\"00112233445566778899aabbccddeeff\"}"),
    ("v1-ack", "POST /v1/ack\n\n{\"topic\":\"t\",\"leases\":[\"0200010501\"]}"),
    (
        "v1-nack",
        "POST /v1/nack\n\n{\"topic\":\"t\",\"leases\":[\"0200010501\"],\"delay_ms\":0,\"reason\":\"r\"}",
    ),
    ("v1-peek", "POST /v1/peek\n\n{\"topic\":\"t\",\"state\":\"DEAD\",\"from_offset\":1}"),
    ("v1-topics", "GET /v1/topics?after=1&topics_max=2\n"),
    ("v1-create", "POST /v1/topics\n\n{\"topic\":\"u\",\"options\":{\"attempts_max\":3,\"ttl_ms\":null}}"),
    ("v1-update", "PATCH /v1/topics/t\n\n{\"options\":{\"bytes_max\":7},\"unset\":[\"ttl_ms\"]}"),
    ("v1-session", "POST /v1/sessions\n\n{\"name\":\"s\"}"),
    ("v1-recover", "POST /v1/recover\n\n{\"token\":\"00000000000000b7\"}"),
    ("encoded", "PUT /topic\ncontent-encoding: gzip\ncontent-type: application/json\n\n{}"),
];

/// Requests to the console.
const CONSOLE: [(&str, &str); 4] = [
    ("overview", "GET /?after=1\nhost: 127.0.0.1:7422\n"),
    ("page", "GET /topics/t\nhost: demo-0.demo:7422\n"),
    (
        "redrive",
        "POST /topics/t/redrive\nhost: [::1]:7422\ncontent-type: application/json; charset=utf-8\n\
         origin: http://[::1]:7422\n\n{}",
    ),
    ("stranger", "POST /topics/t/purge\nhost: 127.0.0.1\norigin: null\n\n"),
];

/// Files of an operator.
const SETTINGS: [(&str, &str); 3] = [
    (
        "settings",
        "\0{\"election-timeout-ms\": 500, \"lease-ms\": \"2000\", \"members\": [\"a=h:1\", \"b=h:2\"], \"name\": \"a\"}",
    ),
    (
        "discovery",
        "\0{\"discovery\": \"dns\", \"members\": [\"a\", \"b\"], \"name\": \"b\", \"peer-domain\": \"d\"}",
    ),
    (
        "addresses",
        "\u{3}{\"addresses\": [{\"ip\": \"::1\", \"port\": 1, \"internal_port\": 2}, {\"ip\": \"b\", \"port\": 3, \"internal_port\": 4}]}",
    ),
];

/// Seeds: the target that each is for, its name, and its bytes.
#[must_use]
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    let texts = |target, texts: &[(&'static str, &'static str)]| -> Vec<_> {
        texts.iter().map(|(name, text)| (target, *name, text.as_bytes().to_vec())).collect()
    };
    seeds.extend(texts("http", &HTTP));
    seeds.extend(texts("console", &CONSOLE));
    seeds.extend(texts("settings", &SETTINGS));
    seeds.extend(stored());
    seeds.extend(peers());
    seeds.extend(clients());
    seeds
}

fn commands() -> Vec<Command> {
    let (topic, subscription) = (TopicId(1), SubscriptionId::DEFAULT);
    let session = raftqueue_queue::SessionId { generation: Generation(0), number: 2 };
    let settings =
        TopicSettings { attempts_max: 3, messages_max: Some(9), bytes_max: None, ttl_ms_default: Some(50) };
    let meta = |ttl_ms| MessageMeta { size: 10, crc: 7, delay_ms: 0, ttl_ms };
    let lease = Lease { generation: Generation(0), offset: 0, token: Token(1) };
    let candidates = |offset| vec![Candidate { offset, size: 10, deadline_ms: None }];
    vec![
        Command::CreateTopic { name: "t".into(), settings, topics_max: 100, request_id: Some(5) },
        Command::OpenSession { name: Some("s".into()), sessions_max: 9, pairs_max: 9 },
        Command::Publish {
            topic: "t".into(),
            session: Some(Sequenced { session, epoch: 0, sequence: 1, batch_crc: 3 }),
            messages: vec![meta(None), meta(Some(40)), meta(None)],
        },
        Command::Receive { topic, subscription, candidates: candidates(0), lease_ms: 30_000 },
        Command::Nack { topic, subscription, leases: vec![lease], delay_ms: 9, reason: Some("r".into()) },
        Command::Pop { topic, subscription, candidates: candidates(2), count_max: 1, request_id: Some(6) },
        Command::UpdateTopic {
            name: "t".into(),
            change: TopicChange { attempts_max: Some(4), messages_max: Some(None), ..TopicChange::default() },
        },
        Command::RaiseGeneration { generation: Generation(1) },
    ]
}

fn stored() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut writer = EntryWriter::default();
    let mut state = State::default();
    for (index, command) in (1..).zip(commands()) {
        writer.push(&command);
        let _ = state.apply(&ApplyMeta { index, now_ms: 1_000 * index, version: VERSION_MAX }, &command);
    }
    let entry = writer.finish(VERSION_MAX, 12);
    let sections: Vec<Vec<u8>> = state
        .sections()
        .map(|section| {
            let mut bytes = BytesMut::new();
            write_section(&mut bytes, VERSION_MAX, &section);
            bytes.to_vec()
        })
        .collect();
    let stored = |key: &'static str, headers: Vec<(String, Bytes)>| {
        let mut bytes = BytesMut::new();
        let (body, key) = (Bytes::from_static(b"body"), Bytes::from_static(key.as_bytes()));
        write_message(
            &mut bytes,
            &NewMessage { body_crc: crc32c::crc32c(&body), body, key, headers, ..NewMessage::default() },
        );
        bytes.to_vec()
    };
    vec![
        ("entry", "commands", entry[..entry.len() - 4].to_vec()),
        ("sections", "state", [vec![1], parts(&sections)].concat()),
        ("sections", "empty", [vec![0], parts(&sections[..1])].concat()),
        ("message", "plain", stored("", Vec::new())),
        ("message", "rich", stored("key", vec![("name".into(), "value".into()), ("b".into(), Bytes::new())])),
    ]
}

fn peers() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let entry = |index, payload| Entry { index: Index(index), term: Term(2), payload };
    let entries = vec![
        entry(4, Payload::Noop),
        entry(5, Payload::Config(Configuration { version: 1, ..Configuration::default() }.into())),
        entry(6, Payload::Command { meta: "meta".into(), bodies: "bodies".into() }),
    ];
    let repair = pb::RepairReply { entry: Some(write_entry(entries[2].clone())), first_index: 2 };
    let rejected = AppendOutcome::Rejected { prev_index: Index(3), hint_index: Index(2), hint_term: Term(1) };
    let frame = |message| {
        let envelope = Envelope { from: NodeId(7), to: NodeId(8), group: GroupId(0), term: Term(3), message };
        let envelope = write_envelope(envelope, Vitals { wall_ms: 5, free_bytes: 6 });
        pb::PeerFrame { frame: Some(pb::peer_frame::Frame::Envelope(envelope)) }.encode_to_vec()
    };
    let head = SnapshotHead {
        index: Index(9),
        term: Term(4),
        configuration_index: Index(1),
        configuration: Configuration { version: 1, ..Configuration::default() }.into(),
        stamp_ms: 5,
        term_runs: vec![(Index(1), Term(1)), (Index(8), Term(4))],
    };
    let chunks = [write_head(&head, Term(6), 100), write_chunk("first".into()), write_end(1, 5)];
    let chunks: Vec<Vec<u8>> = chunks.iter().map(pb::SnapshotChunk::encode_to_vec).collect();
    let range = |first, end| pb::OffsetRange { first, end };
    let wanted =
        pb::MessagesRequest { topic: 1, wanted: vec![range(3, 9), range(12, 20)], ..Default::default() };
    let message = |offset| pb::GivenMessage {
        offset,
        published_ms: 1,
        deadline_ms: Some(2),
        crc: 0,
        record: "record".into(),
    };
    let given = pb::MessagesReply {
        messages: vec![message(4), message(12)],
        through: 15,
        gone_at: Some(8),
        unreadable: 1,
    };
    let messages = [vec![1], parts(&[wanted.encode_to_vec()]), given.encode_to_vec()].concat();
    vec![
        (
            "peer_messages",
            "append",
            frame(Message::Append { prev_index: Index(3), prev_term: Term(2), entries, commit: Index(3) }),
        ),
        ("peer_messages", "rejected", frame(Message::AppendReply { outcome: rejected, disk_stalled: true })),
        (
            "peer_messages",
            "vote",
            frame(Message::Vote { last_index: Index(3), last_term: Term(2), transfer: true }),
        ),
        (
            "peer_messages",
            "heartbeat",
            frame(Message::HeartbeatReply {
                round: 4,
                received: Index(3),
                disk_stalled: false,
                replaying: true,
                incomplete: false,
            }),
        ),
        ("peer_messages", "install", frame(Message::Install { start: (Index(9), Term(2)) })),
        ("peer_messages", "repair", repair.encode_to_vec()),
        ("given", "snapshot", [vec![0], parts(&chunks)].concat()),
        ("given", "messages", messages),
    ]
}

fn clients() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let id = MessageId { generation: 1, topic: 300, offset: 5 };
    let lease = ids::encode_lease(LeaseId { message: id, token: 128 });
    let session = ids::encode_session(SessionId { generation: 2, number: 7, epoch: 0 });
    let publish = v1::PublishRequest {
        topic: "t".into(),
        session: Some(v1::SessionStep { session: session.clone(), sequence: 1 }),
        messages: vec![
            v1::NewMessage {
                body: "body".into(),
                key: "key".into(),
                headers: vec![v1::Header { name: "n".into(), value: "v".into() }; 2],
                delay_ms: 1,
                ttl_ms: Some(2),
                body_crc32c: None,
            },
            v1::NewMessage::default(),
        ],
    };
    let receive =
        v1::ReceiveRequest { topic: "t".into(), messages_max: 3, wait_ms: 50, ..Default::default() };
    let ack = v1::AckRequest { topic: "t".into(), leases: vec![lease.clone()], ..Default::default() };
    let create =
        v1::CreateTopicRequest { topic: "u".into(), request_id: vec![7; 16].into(), ..Default::default() };
    let call =
        |call| pb::ForwardRequest { call_id: 1, deadline_ms: 900, call: Some(call), ..Default::default() };
    let reply = |call, reply: pb::ForwardReply| [parts(&[call]), reply.encode_to_vec()].concat();
    let body = Bytes::from_static(b"body");
    let delivery = v1::Delivery {
        id: ids::encode_message_id(id),
        offset: 5,
        lease: lease.clone(),
        attempts: 1,
        body_crc32c: crc32c::crc32c(&body),
        body,
        key: "key".into(),
        headers: vec![v1::Header { name: "n".into(), value: "v".into() }],
        ..Default::default()
    };
    let deliveries = v1::ReceiveResponse { deliveries: vec![delivery] };
    let deliveries = pb::ForwardReply { reply: Some(Reply::Deliveries(deliveries)) };
    let failure = pb::ForwardFailure { detail: Some(v1::ErrorDetail::default()), text: "no".into() };
    let failure = pb::ForwardReply { reply: Some(Reply::Failure(failure)) };
    let published = v1::PublishResponse {
        first_id: ids::encode_message_id(id),
        count: 2,
        first_offset: 5,
        ..Default::default()
    };
    let published = pb::ForwardReply { reply: Some(Reply::Publish(published)) };
    let calls = [
        call(Call::Publish(publish.clone())).encode_to_vec(),
        call(Call::Receive(receive.clone())).encode_to_vec(),
        call(Call::Ack(ack.clone())).encode_to_vec(),
        call(Call::CreateTopic(create.clone())).encode_to_vec(),
    ];
    // The number of the call, and that the header of five bytes is to be made right.
    let grpc = |call: u8, message: Vec<u8>| [vec![call, 0], vec![0; 5], message].concat();
    vec![
        ("replies", "deliveries", reply(calls[1].clone(), deliveries)),
        ("replies", "published", reply(calls[0].clone(), published)),
        ("replies", "failure", reply(calls[2].clone(), failure)),
        ("publish_shape", "publish", [vec![9], publish.encode_to_vec()].concat()),
        ("grpc", "publish", grpc(0, publish.encode_to_vec())),
        ("grpc", "publish-stream", grpc(1, publish.encode_to_vec())),
        ("grpc", "receive", grpc(2, receive.encode_to_vec())),
        ("grpc", "consume", grpc(4, Vec::new())),
        ("grpc", "ack", grpc(5, ack.encode_to_vec())),
        ("grpc", "create", grpc(9, create.encode_to_vec())),
        ("ids", "message", ids::encode_message_id(id).to_vec()),
        ("ids", "lease", lease.to_vec()),
        ("ids", "session", session.to_vec()),
        ("ids", "digits", b"02010cac0205".to_vec()),
        ("ids", "base64", b"AgEMrAIF".to_vec()),
        ("ids", "parent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_vec()),
        ("calls", "publish", calls[0].clone()),
        ("calls", "receive", calls[1].clone()),
        ("calls", "ack", calls[2].clone()),
        ("calls", "create", calls[3].clone()),
    ]
}
