//! The client against nodes in memory, over real sockets.

use raftqueue_client::{Client, Outcome, v1};
use raftqueue_node::api::{Failure, LocalStatus, Outcome as NodeOutcome, Reason, Role};
use raftqueue_node::fake::{FakeNode, Served, leading};
use std::net::TcpListener;
use std::time::{Duration, Instant};

const TOPIC: &str = "orders";

async fn served() -> Served {
    Served::start(FakeNode::default()).await
}

fn client(nodes: &[&Served]) -> Client {
    Client::connect(nodes.iter().map(|node| node.endpoint())).expect("addresses")
}

/// A node, its client, and a topic.
async fn with_topic() -> (Served, Client) {
    let served = served().await;
    let client = client(&[&served]);
    create(&client).await;
    (served, client)
}

async fn create(client: &Client) {
    let create = v1::CreateTopicRequest { topic: TOPIC.into(), ..Default::default() };
    client.create_topic(create).await.expect("created");
}

fn messages(bodies: &[&'static str]) -> Vec<v1::NewMessage> {
    bodies.iter().map(|body| v1::NewMessage { body: (*body).into(), ..Default::default() }).collect()
}

fn publish(bodies: &[&'static str]) -> v1::PublishRequest {
    v1::PublishRequest { topic: TOPIC.into(), session: None, messages: messages(bodies) }
}

async fn ready(client: &Client) -> u64 {
    let describe = v1::DescribeTopicRequest { topic: TOPIC.into() };
    let topic = client.describe_topic(describe).await.expect("described").topic.expect("a topic");
    topic.subscriptions[0].ready
}

/// An address on which nobody listens.
fn dead_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

fn no_leader() -> Failure {
    Failure::not_done(Reason::NoLeader, "no leader")
}

fn lost() -> Failure {
    Failure::unknown(Reason::ForwardingBroken, "the connection broke")
}

#[tokio::test]
async fn a_message_goes_in_and_comes_out() {
    let (_served, client) = with_topic().await;
    client.publish(publish(&["a", "b"])).await.expect("published");
    let receive = v1::ReceiveRequest { topic: TOPIC.into(), messages_max: 9, ..Default::default() };
    let deliveries = client.receive(receive).await.expect("received").deliveries;
    assert_eq!(deliveries.iter().map(|delivery| &delivery.body[..]).collect::<Vec<_>>(), [b"a", b"b"]);
    let leases = deliveries.into_iter().map(|delivery| delivery.lease).collect();
    let ack = v1::AckRequest { topic: TOPIC.into(), leases, ..Default::default() };
    let done = i32::from(v1::LeaseResult::Done);
    assert_eq!(client.ack(ack).await.expect("acknowledged").results, [done, done]);
}

#[tokio::test]
async fn a_refusal_is_passed_on_at_once_with_its_reason() {
    let (served, client) = with_topic().await;
    for (reason, expected) in [
        (Reason::LimitReached, v1::Reason::LimitReached),
        (Reason::DiskFull, v1::Reason::DiskFull),
        (Reason::InvalidArgument, v1::Reason::InvalidArgument),
    ] {
        let before = served.node.calls().len();
        served.node.fail_next(Failure::not_done(reason, "why"));
        let error = client.publish(publish(&["a"])).await.expect_err("refused");
        assert_eq!((error.reason, error.outcome, error.text.as_str()), (expected, Outcome::NotDone, "why"));
        assert_eq!(served.node.calls().len(), before + 1, "{reason:?}: nobody asked twice");
    }
}

#[tokio::test]
async fn what_was_not_done_and_passes_is_repeated() {
    let (served, client) = with_topic().await;
    let before = served.node.calls().len();
    served.node.fail_next(no_leader());
    served.node.fail_next(Failure::not_done(Reason::Overloaded, "").retry_after_ms(1));
    client.publish(publish(&["a"])).await.expect("at the third attempt");
    assert_eq!(served.node.calls().len(), before + 3);
    assert_eq!(ready(&client).await, 1);
}

#[tokio::test]
async fn repeating_ends_with_the_timeout() {
    let (served, client) = with_topic().await;
    for _ in 0..1_000 {
        served.node.fail_next(no_leader());
    }
    let begun = Instant::now();
    // An attempt that is cut off is of unknown outcome, so the last one needs time for its answer on a busy machine, too.
    let patient = client.with_timeout(Duration::from_secs(1));
    let error = patient.publish(publish(&["a"])).await.expect_err("no leader all the time");
    assert_eq!((error.reason, error.outcome), (v1::Reason::NoLeader, Outcome::NotDone));
    assert!(begun.elapsed() < Duration::from_secs(20), "the calls that fail would take longer");
}

#[tokio::test]
async fn rule_8_1_a_publish_of_unknown_outcome_is_repeated_only_inside_a_session() {
    let (served, client) = with_topic().await;
    served.node.lose_next_answer(lost());
    let error = client.publish(publish(&["a"])).await.expect_err("the answer was lost");
    assert_eq!((error.reason, error.outcome), (v1::Reason::ForwardingBroken, Outcome::Unknown));
    assert_eq!(ready(&client).await, 1, "it was done, and nobody repeated it");

    let mut producer = client.producer(TOPIC).await.expect("a session");
    served.node.lose_next_answer(lost());
    let published = producer.publish(messages(&["b"])).await.expect("repeated until it was heard");
    assert_eq!((published.first_offset, published.count), (1, 1));
    assert_eq!(ready(&client).await, 2, "stored once");
}

#[tokio::test]
async fn a_refusal_after_an_attempt_of_unknown_outcome_does_not_make_it_known() {
    let (served, client) = with_topic().await;
    let mut producer = client.producer(TOPIC).await.expect("a session");
    served.node.fail_next(lost());
    served.node.fail_next(Failure::not_done(Reason::LimitReached, "full"));
    let error = producer.publish(messages(&["a"])).await.expect_err("refused in the end");
    assert_eq!((error.reason, error.outcome), (v1::Reason::LimitReached, Outcome::Unknown));

    let other = producer.publish(messages(&["b"])).await.expect_err("the first one is not settled");
    assert_eq!(other.outcome, Outcome::NotDone);
    let published = producer.publish(messages(&["a"])).await.expect("the same again settles it");
    assert_eq!(published.first_offset, 0);
    assert_eq!(producer.publish(messages(&["b"])).await.expect("then others").first_offset, 1);
    producer.close().await.expect("closed");
}

#[tokio::test]
async fn a_refused_batch_takes_no_number_of_the_session() {
    let (served, client) = with_topic().await;
    let mut producer = client.producer(TOPIC).await.expect("a session");
    served.node.fail_next(Failure::not_done(Reason::LimitReached, "full"));
    assert_eq!(producer.publish(messages(&["a"])).await.expect_err("refused").outcome, Outcome::NotDone);
    assert_eq!(producer.publish(messages(&["b"])).await.expect("another batch").first_offset, 0);
}

#[tokio::test]
async fn creating_and_popping_are_repeated_under_a_request_id_of_their_own() {
    let served = served().await;
    let client = client(&[&served]);
    served.node.lose_next_answer(lost());
    create(&client).await;
    client.publish(publish(&["a", "b"])).await.expect("published");
    served.node.lose_next_answer(lost());
    let pop = v1::PopRequest { topic: TOPIC.into(), ..Default::default() };
    let popped = client.pop(pop).await.expect("repeated").deliveries;
    assert_eq!((popped.len(), &popped[0].body[..]), (1, &b"a"[..]), "the repeat gave the same message");
    assert_eq!(ready(&client).await, 1);
}

#[tokio::test]
async fn a_node_that_is_down_is_passed_over() {
    let served = served().await;
    let endpoints = [dead_address(), served.endpoint(), dead_address()];
    let client = Client::connect(endpoints).expect("addresses");
    create(&client).await;

    let client =
        Client::connect([dead_address()]).expect("an address").with_timeout(Duration::from_millis(50));
    let error = client.publish(publish(&["a"])).await.expect_err("nobody is there");
    assert_eq!(error.outcome, Outcome::NotDone, "it never left: {error}");
}

#[tokio::test]
async fn a_node_that_goes_down_is_left_for_another() {
    let (first, second) = (served().await, served().await);
    let client = client(&[&first, &second]);
    client.list_topics(v1::ListTopicsRequest::default()).await.expect("the first answers");
    assert_eq!((first.node.calls().len(), second.node.calls().len()), (1, 0));
    first.stop().await;
    for _ in 0..3 {
        client.list_topics(v1::ListTopicsRequest::default()).await.expect("the second answers");
    }
    assert_eq!(second.node.calls().len(), 3);
}

#[tokio::test]
async fn a_node_without_a_leader_is_left_for_another() {
    let (first, second) = (served().await, served().await);
    let client = client(&[&first, &second]);
    first.node.fail_next(no_leader());
    create(&client).await;
    assert_eq!((first.node.calls().len(), second.node.calls().len()), (1, 1));
}

#[tokio::test]
async fn the_leader_is_asked_directly_once_it_is_known() {
    let (follower, leader) = (served().await, served().await);
    let client = client(&[&follower]);
    let leader_address = Some(leader.endpoint());
    follower.node.set_status(LocalStatus { role: Role::Follower, leader_address, ..leading() });
    for _ in 0..3 {
        client.list_topics(v1::ListTopicsRequest::default()).await.expect("answered");
    }
    assert_eq!((follower.node.calls().len(), leader.node.calls().len()), (1, 2));

    // When the leader goes down the endpoint is there again, and leads now.
    leader.stop().await;
    follower.node.set_status(leading());
    client.list_topics(v1::ListTopicsRequest::default()).await.expect("answered");
    assert_eq!(follower.node.calls().len(), 2);
}

#[tokio::test]
async fn a_leader_that_cannot_be_reached_is_left_alone() {
    let follower = served().await;
    let client = client(&[&follower]);
    let leader_address = Some(dead_address());
    follower.node.set_status(LocalStatus { role: Role::Follower, leader_address, ..leading() });
    let begun = Instant::now();
    for _ in 0..5 {
        client.list_topics(v1::ListTopicsRequest::default()).await.expect("the endpoint passes it on");
    }
    assert_eq!(follower.node.calls().len(), 5);
    assert!(begun.elapsed() < Duration::from_secs(1), "it is not tried again each time");
}

#[tokio::test]
async fn waiting_for_messages_comes_on_top_of_the_timeout() {
    let (_served, client) = with_topic().await;
    let client = client.with_timeout(Duration::from_millis(200));
    let (begun, wait_ms) = (Instant::now(), 300);
    let receive = v1::ReceiveRequest { topic: TOPIC.into(), wait_ms, ..Default::default() };
    assert_eq!(client.receive(receive).await.expect("an empty answer").deliveries, vec![]);
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn status_is_asked_of_exactly_one_node() {
    let (first, second) = (served().await, served().await);
    second.node.set_status(LocalStatus { term: 9, role: Role::Candidate, ..leading() });
    let dead = dead_address();
    let client = Client::connect([first.endpoint(), second.endpoint(), dead.clone()]).expect("addresses");
    assert_eq!(client.status(&first.endpoint()).await.expect("answered").term, 7);
    assert_eq!(client.status(&second.endpoint()).await.expect("answered").role(), v1::Role::Candidate);
    assert_eq!(client.status(&dead).await.expect_err("nobody is there").outcome, Outcome::NotDone);
    assert_eq!(client.cluster_status(v1::ClusterStatusRequest {}).await.expect("answered").term, 7);
}

#[tokio::test]
async fn addresses_are_judged_when_the_client_is_made() {
    assert!(Client::connect(Vec::<String>::new()).is_err());
    assert!(Client::connect(["a b"]).is_err());
    assert!(Client::connect(["node-0.example:7420", "http://127.0.0.1:7420"]).is_ok());
}

#[tokio::test]
async fn futures_of_the_client_can_move_between_threads() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let (served, client) = with_topic().await;
    served.node.fail_next(Failure { outcome: NodeOutcome::NotDone, ..no_leader() });
    is_send(client.publish(publish(&["a"]))).await.expect("published");
    let mut producer = is_send(client.producer(TOPIC)).await.expect("a session");
    is_send(producer.publish(messages(&["b"]))).await.expect("published");
}
