//! The gRPC services over a real socket, with the clients that the contract generates.

use super::*;
use crate::api::{Failure, LocalStatus, Method, Outcome, Reason, Role};
use crate::fake::{FakeNode, Served, leading};
use bytes::Bytes;
use raftqueue_proto::v1::admin_client::AdminClient;
use raftqueue_proto::v1::queue_client::QueueClient;
use raftqueue_proto::{status, v1};
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const TOPIC: &str = "orders";

async fn channel(served: &Served) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", served.address)).expect("an address is a URI");
    endpoint.connect().await.expect("the node listens")
}

async fn started() -> (Served, QueueClient<Channel>) {
    let served = Served::start(FakeNode::default()).await;
    let queue = QueueClient::new(channel(&served).await);
    (served, queue)
}

async fn with_topic() -> (Served, QueueClient<Channel>) {
    let (served, mut queue) = started().await;
    queue
        .create_topic(v1::CreateTopicRequest { topic: TOPIC.into(), ..Default::default() })
        .await
        .expect("created");
    (served, queue)
}

fn messages(bodies: &[&'static str]) -> Vec<v1::NewMessage> {
    bodies
        .iter()
        .map(|body| v1::NewMessage { body: Bytes::from_static(body.as_bytes()), ..Default::default() })
        .collect()
}

fn publish(bodies: &[&'static str]) -> v1::PublishRequest {
    v1::PublishRequest { topic: TOPIC.into(), session: None, messages: messages(bodies) }
}

fn receive(messages_max: u32) -> v1::ReceiveRequest {
    v1::ReceiveRequest { topic: TOPIC.into(), messages_max, ..Default::default() }
}

/// What a refusal says: code, reason, and that nothing was done.
fn refused(status: &Status) -> (Code, v1::Reason) {
    let detail = status::detail(status).unwrap_or_else(|| panic!("{status:?} has no detail"));
    assert_eq!(detail.outcome(), v1::Outcome::NotDone, "{status:?}");
    (status.code(), detail.reason())
}

#[tokio::test]
async fn a_message_on_its_way_through_every_call() {
    let (_served, mut queue) = with_topic().await;
    let topic = || TOPIC.to_owned();
    let options = v1::TopicOptions { attempts_max: Some(1), ..Default::default() };
    let create =
        v1::CreateTopicRequest { topic: "once".into(), options: Some(options), request_id: Bytes::new() };
    queue.create_topic(create).await.expect("created");

    let published = queue.publish(publish(&["a", "b", "c", "d"])).await.expect("published").into_inner();
    assert_eq!((published.first_offset, published.count, published.already_done), (0, 4, false));

    let received = queue.receive(receive(3)).await.expect("received").into_inner().deliveries;
    let bodies: Vec<_> = received.iter().map(|delivery| delivery.body.as_ref()).collect();
    assert_eq!(bodies, [b"a", b"b", b"c"]);
    assert_eq!(received[0].id, published.first_id);
    assert_eq!(received[0].body_crc32c, crc32c::crc32c(b"a"));
    let lease = |position: usize| vec![received[position].lease.clone()];
    let done = vec![i32::from(v1::LeaseResult::Done)];

    let extend = v1::ExtendRequest { topic: topic(), leases: lease(0), ..Default::default() };
    assert_eq!(queue.extend(extend).await.expect("extended").into_inner().results, done);
    let ack = v1::AckRequest { topic: topic(), leases: lease(0), ..Default::default() };
    assert_eq!(queue.ack(ack.clone()).await.expect("acknowledged").into_inner().results, done);
    let gone = vec![i32::from(v1::LeaseResult::Gone)];
    assert_eq!(queue.ack(ack).await.expect("acknowledged before").into_inner().results, gone);
    let nack = v1::NackRequest { topic: topic(), leases: lease(1), ..Default::default() };
    assert_eq!(queue.nack(nack).await.expect("returned").into_inner().results, done);
    let stale = v1::AckRequest { topic: topic(), leases: lease(1), ..Default::default() };
    let stale = queue.ack(stale).await.expect("answered").into_inner().results;
    assert_eq!(stale, vec![i32::from(v1::LeaseResult::Stale)]);
    let release = v1::ReleaseRequest { topic: topic(), leases: lease(2), ..Default::default() };
    assert_eq!(queue.release(release).await.expect("given back").into_inner().results, done);

    let peek = v1::PeekRequest { topic: topic(), messages_max: 9, ..Default::default() };
    let seen = queue.peek(peek).await.expect("seen").into_inner().deliveries;
    let attempts: Vec<_> = seen.iter().map(|delivery| (delivery.offset, delivery.attempts)).collect();
    assert_eq!(attempts, [(1, 1), (2, 0), (3, 0)]);
    assert!(seen.iter().all(|delivery| delivery.lease.is_empty()), "a look leases nothing");

    let pop = v1::PopRequest { topic: topic(), ..Default::default() };
    let popped = queue.pop(pop).await.expect("popped").into_inner().deliveries;
    assert_eq!((popped.len(), popped[0].offset), (1, 1), "one message unless told otherwise");
    let purged =
        queue.purge(v1::PurgeRequest { topic: topic(), ..Default::default() }).await.expect("purged");
    assert_eq!(purged.into_inner().count, 2);

    let listed =
        queue.list_topics(v1::ListTopicsRequest { after: None, topics_max: 1 }).await.expect("listed");
    let listed = listed.into_inner();
    assert!(listed.more && listed.topics[0].name == TOPIC);
    let after = Some(listed.topics[0].id);
    let rest =
        queue.list_topics(v1::ListTopicsRequest { after, topics_max: 0 }).await.expect("listed").into_inner();
    assert!(!rest.more && rest.topics[0].name == "once");
    let described =
        queue.describe_topic(v1::DescribeTopicRequest { topic: topic() }).await.expect("described");
    assert_eq!(described.into_inner().topic.map(|topic| topic.next_offset), Some(4));
    queue.delete_topic(v1::DeleteTopicRequest { topic: topic() }).await.expect("deleted");
    let missing = queue.receive(receive(1)).await.expect_err("it is deleted");
    assert_eq!(refused(&missing), (Code::NotFound, v1::Reason::TopicNotFound));
}

#[tokio::test]
async fn dead_messages_are_seen_redriven_and_purged() {
    let (_served, mut queue) = started().await;
    let options = Some(v1::TopicOptions { attempts_max: Some(1), ..Default::default() });
    let create = v1::CreateTopicRequest { topic: TOPIC.into(), options, request_id: Bytes::new() };
    queue.create_topic(create).await.expect("created");
    queue.publish(publish(&["a", "b"])).await.expect("published");
    let received = queue.receive(receive(2)).await.expect("received").into_inner().deliveries;
    let leases = received.into_iter().map(|delivery| delivery.lease).collect();
    let (delay_ms, subscription) = (0, String::new());
    let nack = v1::NackRequest { topic: TOPIC.into(), subscription, leases, delay_ms, reason: "bad".into() };
    queue.nack(nack).await.expect("returned");
    let state = v1::MessageState::Dead.into();
    let peek = v1::PeekRequest { topic: TOPIC.into(), state, messages_max: 9, ..Default::default() };
    let dead = queue.peek(peek).await.expect("seen").into_inner().deliveries;
    assert_eq!(dead.iter().map(|delivery| delivery.dead_reason.as_str()).collect::<Vec<_>>(), ["bad", "bad"]);
    let redrive = v1::RedriveDeadRequest { topic: TOPIC.into(), offsets: vec![1, 99], ..Default::default() };
    assert_eq!(queue.redrive_dead(redrive).await.expect("redriven").into_inner().count, 1);
    let purge = v1::PurgeDeadRequest { topic: TOPIC.into(), ..Default::default() };
    assert_eq!(queue.purge_dead(purge).await.expect("purged").into_inner().count, 1);
}

#[tokio::test]
async fn a_session_makes_a_repeat_harmless() {
    let (_served, mut queue) = with_topic().await;
    let named = v1::OpenSessionRequest { name: Some("billing".into()) };
    let old = queue.open_session(named.clone()).await.expect("opened").into_inner().session;
    let session = queue.open_session(named).await.expect("opened").into_inner().session;
    let step = |session: &Bytes, sequence| {
        let session = Some(v1::SessionStep { session: session.clone(), sequence });
        v1::PublishRequest { session, ..publish(&["a"]) }
    };
    let first = queue.publish(step(&session, 1)).await.expect("published").into_inner();
    let again = queue.publish(step(&session, 1)).await.expect("published before").into_inner();
    assert!(!first.deduplicated, "it was stored by this call");
    assert_eq!(v1::PublishResponse { deduplicated: true, ..first }, again);
    assert_eq!(queue.publish(step(&session, 2)).await.expect("published").into_inner().first_offset, 1);
    let long_ago = queue.publish(step(&session, 1)).await.expect("long ago").into_inner();
    assert!(long_ago.already_done && long_ago.deduplicated);
    let gap = queue.publish(step(&session, 9)).await.expect_err("a gap");
    assert_eq!(refused(&gap), (Code::FailedPrecondition, v1::Reason::OutOfSequence));
    let fenced = queue.publish(step(&old, 1)).await.expect_err("there is a successor");
    assert_eq!(refused(&fenced).0, Code::FailedPrecondition);
    queue.close_session(v1::CloseSessionRequest { session: session.clone() }).await.expect("closed");
    let closed = queue.publish(step(&session, 3)).await.expect_err("closed");
    assert_eq!(refused(&closed), (Code::FailedPrecondition, v1::Reason::SessionExpired));
}

#[tokio::test]
async fn a_long_poll_is_answered_when_a_message_comes() {
    let (served, mut queue) = with_topic().await;
    let mut other = queue.clone();
    let waiting = tokio::spawn(async move {
        other
            .receive(v1::ReceiveRequest { wait_ms: 60_000, ..receive(1) })
            .await
            .expect("received")
            .into_inner()
    });
    while served.node.calls().len() < 2 {
        tokio::task::yield_now().await;
    }
    queue.publish(publish(&["a"])).await.expect("published");
    assert_eq!(waiting.await.expect("it ends").deliveries.len(), 1);
}

#[tokio::test]
async fn a_long_poll_ends_empty_within_the_deadline_of_its_caller() {
    let (_served, mut queue) = with_topic().await;
    let mut call = tonic::Request::new(v1::ReceiveRequest { wait_ms: 60_000, ..receive(1) });
    call.set_timeout(Duration::from_millis(500));
    assert_eq!(queue.receive(call).await.expect("an empty answer, in time").into_inner().deliveries, vec![]);
}

#[tokio::test]
async fn what_is_malformed_is_refused_and_never_reaches_the_node() {
    let (served, mut queue) = with_topic().await;
    let calls = served.node.calls().len();
    let invalid = (Code::InvalidArgument, v1::Reason::InvalidArgument);
    for topic in [String::new(), "o".repeat(256), "a\nb".into()] {
        let create = v1::CreateTopicRequest { topic, ..Default::default() };
        assert_eq!(refused(&queue.create_topic(create).await.expect_err("a bad name")), invalid);
    }
    let request_id = Bytes::from_static(b"short");
    let create = v1::CreateTopicRequest { topic: "t".into(), options: None, request_id };
    assert_eq!(refused(&queue.create_topic(create).await.expect_err("a short id")), invalid);
    for messages_max in [1_001, 1_000_000, u32::MAX] {
        assert_eq!(refused(&queue.receive(receive(messages_max)).await.expect_err("too many")), invalid);
    }
    let endless = v1::ReceiveRequest { lease_ms: Some(u64::MAX), ..receive(1) };
    assert_eq!(refused(&queue.receive(endless).await.expect_err("for ever")), invalid);
    let huge = v1::ReceiveRequest { bytes_max: u64::MAX, ..receive(1) };
    assert_eq!(refused(&queue.receive(huge).await.expect_err("all bytes")), invalid);
    assert_eq!(refused(&queue.publish(publish(&[])).await.expect_err("nothing")), invalid);
    for garbage in [&b""[..], b"\x02", b"garbage", &[0xff; 40]] {
        let leases = vec![Bytes::from_static(&[2, 0, 1, 0, 1]), Bytes::copy_from_slice(garbage)];
        let ack = v1::AckRequest { topic: TOPIC.into(), leases, ..Default::default() };
        assert_eq!(refused(&queue.ack(ack).await.expect_err("no lease")), invalid, "{garbage:?}");
        let close = v1::CloseSessionRequest { session: Bytes::copy_from_slice(garbage) };
        assert_eq!(
            refused(&queue.close_session(close).await.expect_err("no session")),
            invalid,
            "{garbage:?}"
        );
    }
    let peek = v1::PeekRequest { topic: TOPIC.into(), state: -1, ..Default::default() };
    assert_eq!(refused(&queue.peek(peek).await.expect_err("no state")), invalid);
    assert_eq!(served.node.calls().len(), calls, "nothing of this was a call");
}

#[tokio::test]
async fn rule_2_9_a_body_that_is_not_what_its_crc_says_is_refused() {
    let (_served, mut queue) = with_topic().await;
    let with_crc = |crc| {
        let mut publish = publish(&["a"]);
        publish.messages[0].body_crc32c = Some(crc);
        publish
    };
    let damaged = queue.publish(with_crc(crc32c::crc32c(b"b"))).await.expect_err("another body");
    assert_eq!(refused(&damaged), (Code::InvalidArgument, v1::Reason::InvalidArgument));
    queue.publish(with_crc(crc32c::crc32c(b"a"))).await.expect("the right body");
}

#[tokio::test]
async fn rule_8_1_every_failure_carries_its_detail_and_the_leader() {
    let (served, mut queue) = with_topic().await;
    let leader_address = Some("10.0.0.1:7420".to_owned());
    served.node.set_status(LocalStatus { role: Role::Follower, leader_address, ..leading() });
    for failure in [
        Failure::not_done(Reason::NoLeader, "no leader within 900 ms"),
        Failure::unknown(Reason::ForwardingBroken, "größer\n"),
        Failure::not_done(Reason::DiskFull, "full").retry_after_ms(250),
    ] {
        served.node.fail_next(failure.clone());
        let status = queue.publish(publish(&["a"])).await.expect_err("it was made to fail");
        assert_eq!(status.code(), errors::codes(&failure).grpc);
        let detail = status::detail(&status).expect("a detail");
        assert_eq!(errors::failure(&detail, status.message().to_owned()), failure);
        assert_eq!(detail.leader_hint, "10.0.0.1:7420");
        let metadata = status.metadata().get(LEADER_METADATA).expect("the leader, in the metadata too");
        assert_eq!(metadata, "10.0.0.1:7420");
        assert_eq!(status.code() == Code::Unknown, failure.outcome == Outcome::Unknown);
    }
    let answer = queue.publish(publish(&["a"])).await.expect("published");
    assert_eq!(answer.metadata().get(LEADER_METADATA).expect("with success too"), "10.0.0.1:7420");
    served.node.set_status(leading());
    let answer = queue.publish(publish(&["a"])).await.expect("published");
    assert!(answer.metadata().get(LEADER_METADATA).is_none(), "it leads itself");
}

#[tokio::test]
async fn the_admin_service_tells_both_views_and_hands_over() {
    let served = Served::start(FakeNode::default()).await;
    let mut admin = AdminClient::new(channel(&served).await);
    let cluster = admin.cluster_status(v1::ClusterStatusRequest {}).await.expect("asked").into_inner();
    assert_eq!((cluster.leader.as_str(), cluster.members.len()), ("00000000000000a1", 1));
    let to = Some("node-0".to_owned());
    let transferred =
        admin.transfer_leadership(v1::TransferLeadershipRequest { to }).await.expect("handed over");
    assert_eq!(transferred.into_inner().leader, "00000000000000a1");
    let to = Some("node-9".to_owned());
    let missing =
        admin.transfer_leadership(v1::TransferLeadershipRequest { to }).await.expect_err("no such node");
    assert_eq!(refused(&missing), (Code::NotFound, v1::Reason::NodeNotFound));

    let blank = LocalStatus { not_ready: Some("waits for node-1".into()), ..LocalStatus::default() };
    served.node.set_status(blank);
    let status = admin.status(v1::StatusRequest {}).await.expect("always answered").into_inner();
    assert_eq!((status.role(), status.term, status.ready), (v1::Role::Follower, 0, false));
    assert_eq!((status.node_id.as_str(), status.not_ready_reason.as_str()), ("", "waits for node-1"));
}

#[tokio::test]
async fn health_follows_what_the_node_says_of_itself() {
    let served = Served::start(FakeNode::default()).await;
    let mut health = HealthClient::new(channel(&served).await);
    let ask = |service: &str| HealthCheckRequest { service: service.into() };
    let not_ready = || LocalStatus { not_ready: Some("no leader".into()), ..leading() };
    for service in ["", "raftqueue.v1.Queue", "raftqueue.v1.Admin"] {
        served.node.set_status(leading());
        let answer = health.check(ask(service)).await.expect("known").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
        served.node.set_status(not_ready());
        let answer = health.check(ask(service)).await.expect("known").into_inner();
        assert_eq!(answer.status(), ServingStatus::NotServing, "{service}");
    }
    let unknown = health.check(ask("other")).await.expect_err("unknown");
    assert_eq!(refused(&unknown), (Code::NotFound, v1::Reason::InvalidArgument));

    let mut watched = health.watch(ask("")).await.expect("watched").into_inner();
    let first = watched.next().await.expect("at once").expect("no error");
    assert_eq!(first.status(), ServingStatus::NotServing);
    served.node.set_status(leading());
    let second = watched.next().await.expect("soon").expect("no error");
    assert_eq!(second.status(), ServingStatus::Serving, "only changes are said");
    served.stop().await;
    assert!(watched.next().await.is_none_or(|end| end.is_err()), "a watcher does not hold the node");
}

#[test]
fn a_timeout_is_read_as_the_protocol_writes_it() {
    let read = |text: &'static str| {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().expect("ASCII"));
        grpc_timeout(&metadata)
    };
    assert_eq!(read("900m"), Some(Duration::from_millis(900)));
    assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
    assert_eq!(read("7u"), Some(Duration::from_micros(7)));
    for text in ["", "m", "1", "-1S", "+1S", "1x", "123456789m", "1.5S"] {
        assert_eq!(read(text), None, "{text:?}");
    }
    assert_eq!(grpc_timeout(&MetadataMap::new()), None);
}

#[tokio::test]
async fn reflection_answers_old_and_new_tools() {
    use tonic_reflection::pb::{v1, v1alpha};
    let served = Served::start(FakeNode::default()).await;
    let channel = channel(&served).await;
    let wanted = ["grpc.health.v1.Health", "raftqueue.v1.Admin", "raftqueue.v1.Queue"];

    let mut new = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let ask = v1::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let answers = new.server_reflection_info(tokio_stream::iter([ask])).await.expect("it is there");
    let answer = answers.into_inner().message().await.expect("no failure").expect("an answer");
    let services = match answer.message_response {
        Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) => list.service,
        other => panic!("a list was due: {other:?}"),
    };
    let names: Vec<String> = services.into_iter().map(|service| service.name).collect();
    assert!(wanted.iter().all(|wanted| names.iter().any(|name| name == wanted)), "{names:?}");

    let mut old = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let list = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let ask = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let answers = old.server_reflection_info(tokio_stream::iter([ask])).await.expect("it is there too");
    let answer = answers.into_inner().message().await.expect("no failure").expect("an answer");
    let services = match answer.message_response {
        Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) => {
            list.service
        }
        other => panic!("a list was due: {other:?}"),
    };
    let names: Vec<String> = services.into_iter().map(|service| service.name).collect();
    assert!(wanted.iter().all(|wanted| names.iter().any(|name| name == wanted)), "{names:?}");
}

#[test]
fn the_list_of_calls_is_that_of_the_contract() {
    let contract = [
        include_str!("../../../../proto/raftqueue/v1/queue.proto"),
        include_str!("../../../../proto/raftqueue/v1/admin.proto"),
    ]
    .concat();
    let calls = contract.lines().filter_map(|line| line.trim().strip_prefix("rpc "));
    let unary = calls.filter(|call| !call.contains("(stream ")).filter_map(|call| call.split('(').next());
    // What a node says of itself is no call: nobody waits for it, and it is never passed on.
    let mut unary: Vec<&str> =
        unary.filter(|name| !matches!(*name, "Status" | "Storage" | "Recover" | "CanI")).collect();
    let mut listed: Vec<String> = Method::ALL.iter().map(|method| format!("{method:?}")).collect();
    for (name, method) in listed.iter().zip(Method::ALL) {
        assert_eq!(Method::of_name(name), Some(*method));
        let label = name.chars().fold(String::new(), |label, letter| {
            let gap = if letter.is_uppercase() && !label.is_empty() { "_" } else { "" };
            format!("{label}{gap}{}", letter.to_ascii_lowercase())
        });
        assert_eq!(method.label(), label);
    }
    unary.sort_unstable();
    listed.sort_unstable();
    assert_eq!(unary, listed);
    assert_eq!(Method::of_name("Consume"), None, "a stream is many calls");
}
