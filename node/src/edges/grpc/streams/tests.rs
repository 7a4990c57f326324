//! Both streams over a real socket, with the clients that the contract generates.

use super::publish::Publishing;
use crate::api::limits::Limits;
use crate::api::{
    Failure, LocalStatus, Method, NewMessage, Publish, Reason, Request, Role, Settle, Settlement, Take,
    TakeKind,
};
use crate::edges::edge::Edge;
use crate::edges::gate::{Call, Called};
use crate::edges::service::Service;
use crate::fake::{FakeNode, Served, leading};
use bytes::Bytes;
use futures_util::{StreamExt, poll};
use http_body_util::{BodyExt, Full};
use prost::Message;
use raftqueue_proto::v1::consume_request::Step;
use raftqueue_proto::v1::consume_response::Event;
use raftqueue_proto::v1::queue_client::QueueClient;
use raftqueue_proto::v1::settlement::Kind;
use raftqueue_proto::{status, v1};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::codec::Codec;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

const TOPIC: &str = "orders";

async fn with_topic() -> (Served, QueueClient<Channel>) {
    with_topic_within(Limits::default()).await
}

async fn with_topic_within(limits: Limits) -> (Served, QueueClient<Channel>) {
    let served = Served::start_within(FakeNode::default(), limits).await;
    let mut queue = QueueClient::connect(format!("http://{}", served.address)).await.expect("it listens");
    let create = v1::CreateTopicRequest { topic: TOPIC.into(), ..Default::default() };
    queue.create_topic(create).await.expect("created");
    (served, queue)
}

async fn session(queue: &mut QueueClient<Channel>) -> Bytes {
    queue.open_session(v1::OpenSessionRequest { name: None }).await.expect("opened").into_inner().session
}

fn step(session: &Bytes, sequence: u64) -> v1::PublishRequest {
    v1::PublishRequest {
        topic: TOPIC.into(),
        session: Some(v1::SessionStep { session: session.clone(), sequence }),
        messages: vec![v1::NewMessage { body: sequence.to_string().into(), ..Default::default() }],
    }
}

async fn ready(queue: &mut QueueClient<Channel>) -> u64 {
    let describe = v1::DescribeTopicRequest { topic: TOPIC.into() };
    let topic = queue.describe_topic(describe).await.expect("described").into_inner().topic.expect("a topic");
    topic.subscriptions[0].ready
}

#[tokio::test]
async fn batches_on_a_stream_are_answered_in_order() {
    let (_served, mut queue) = with_topic().await;
    let session = session(&mut queue).await;
    let requests: Vec<_> = (1..=2_000).map(|sequence| step(&session, sequence)).collect();
    let mut answers =
        queue.publish_stream(tokio_stream::iter(requests)).await.expect("a stream").into_inner();
    for offset in 0..2_000 {
        let answer = answers.message().await.expect("no failure").expect("an answer for each");
        assert_eq!((answer.first_offset, answer.count), (offset, 1));
    }
    assert!(answers.message().await.expect("a clean end").is_none());
}

#[tokio::test]
async fn rule_7_4_the_first_failure_fails_everything_behind_it() {
    let (served, mut queue) = with_topic().await;
    let session = session(&mut queue).await;
    let (requests, outgoing) = mpsc::channel(8);
    requests.send(step(&session, 1)).await.unwrap();
    let outgoing = ReceiverStream::new(outgoing);
    let mut answers = queue.publish_stream(outgoing).await.expect("a stream").into_inner();
    answers.message().await.expect("published").expect("answered");
    served.node.fail_next(Failure::not_done(Reason::LimitReached, "full"));
    for sequence in 2..6 {
        requests.send(step(&session, sequence)).await.unwrap();
    }
    let refused = answers.message().await.expect_err("the second batch is refused");
    assert_eq!(status::detail(&refused).expect("ours").reason(), v1::Reason::LimitReached);
    assert!(answers.message().await.expect("the stream is over").is_none());
    assert_eq!(ready(&mut queue).await, 1, "nothing behind it was stored");
}

#[tokio::test]
async fn what_cannot_be_on_a_stream_ends_it_after_what_was_before() {
    let (_served, mut queue) = with_topic().await;
    let session = session(&mut queue).await;
    let no_session = v1::PublishRequest { session: None, ..step(&session, 2) };
    let requests = tokio_stream::iter(vec![step(&session, 1), no_session, step(&session, 2)]);
    let mut answers = queue.publish_stream(requests).await.expect("a stream").into_inner();
    assert_eq!(answers.message().await.expect("published").expect("answered").first_offset, 0);
    let refused = answers.message().await.expect_err("no step of a session");
    assert!(refused.message().contains("OpenSession"), "{refused:?}");
    assert_eq!(ready(&mut queue).await, 1);
}

#[tokio::test]
async fn a_node_that_does_not_lead_passes_on_one_batch_at_a_time() {
    let (served, mut queue) = with_topic().await;
    let session = session(&mut queue).await;
    let following =
        LocalStatus { role: Role::Follower, leader_address: Some("leader:1".into()), ..leading() };
    served.node.set_status(following);
    let requests: Vec<_> = (1..=50).map(|sequence| step(&session, sequence)).collect();
    let answers = queue.publish_stream(tokio_stream::iter(requests)).await.expect("a stream");
    assert_eq!(answers.metadata().get("raftqueue-leader").expect("a hint"), "leader:1");
    let mut answers = answers.into_inner();
    for offset in 0..50 {
        assert_eq!(answers.message().await.expect("published").expect("answered").first_offset, offset);
    }
}

/// Publishes on a stream, by hand.
struct Stream {
    requests: mpsc::Sender<v1::PublishRequest>,
    answers: Streaming<v1::PublishResponse>,
}

impl Stream {
    async fn start(queue: &mut QueueClient<Channel>) -> Self {
        let (requests, outgoing) = mpsc::channel(8);
        let answers = queue.publish_stream(ReceiverStream::new(outgoing)).await.expect("a stream");
        Self { requests, answers: answers.into_inner() }
    }

    async fn refused(&mut self) -> v1::Reason {
        let refused = self.answers.message().await.expect_err("it is refused");
        status::detail(&refused).expect("ours").reason()
    }
}

fn publishes(served: &Served) -> usize {
    served.node.calls().iter().filter(|call| call.method() == Method::Publish).count()
}

/// What a client has sent, as it is read from the wire.
fn sent(batches: &[v1::PublishRequest]) -> Streaming<v1::PublishRequest> {
    let mut frames = Vec::new();
    for batch in batches {
        let message = batch.encode_to_vec();
        frames.push(0); // It is not compressed.
        frames.extend((message.len() as u32).to_be_bytes());
        frames.extend(message);
    }
    let decoder = ProstCodec::<(), v1::PublishRequest>::default().decoder();
    Streaming::new_request(decoder, Full::new(Bytes::from(frames)), None, None)
}

#[tokio::test]
async fn nothing_overtakes_a_batch_that_is_passed_on_when_this_node_comes_to_lead() {
    let (served, mut queue) = with_topic().await;
    let session = session(&mut queue).await;
    served.node.set_status(LocalStatus { role: Role::Follower, ..leading() });
    served.node.hold(true);
    let batches: Vec<_> = (1..=3).map(|sequence| step(&session, sequence)).collect();
    let edge = Edge::new(served.node.clone(), Limits::default());
    let mut answers = Publishing::new(edge, Called::by_anybody(), sent(&batches), None);
    assert!(poll!(answers.next()).is_pending());
    assert_eq!(publishes(&served), 1, "it is passed on");
    served.node.set_status(leading());
    assert!(poll!(answers.next()).is_pending());
    assert_eq!(publishes(&served), 1, "the first may still be on its way to this very node");
    served.node.hold(false);
    for offset in 0..3 {
        assert_eq!(answers.next().await.expect("answered").expect("published").first_offset, offset);
    }
}

#[tokio::test]
async fn a_stream_to_a_node_that_no_longer_leads_ends_and_takes_nothing_more() {
    let (served, mut queue) = with_topic().await;
    let session = session(&mut queue).await;
    let mut stream = Stream::start(&mut queue).await;
    stream.requests.send(step(&session, 1)).await.unwrap();
    stream.answers.message().await.expect("published").expect("answered");
    served.node.set_status(LocalStatus { role: Role::Follower, ..leading() });
    stream.requests.send(step(&session, 2)).await.unwrap();
    assert_eq!(stream.refused().await, v1::Reason::NotLeader);
    assert_eq!(publishes(&served), 1);
}

#[tokio::test]
async fn a_stream_is_of_one_session_and_one_topic() {
    let (_served, mut queue) = with_topic().await;
    let (one, two) = (session(&mut queue).await, session(&mut queue).await);
    for second in [step(&two, 1), v1::PublishRequest { topic: "invoices".into(), ..step(&one, 2) }] {
        let mut stream = Stream::start(&mut queue).await;
        stream.requests.send(step(&one, 1)).await.unwrap();
        stream.answers.message().await.expect("published").expect("answered");
        stream.requests.send(second).await.unwrap();
        assert_eq!(stream.refused().await, v1::Reason::InvalidArgument);
    }
    assert_eq!(ready(&mut queue).await, 1);
}

/// A consumer, by hand.
struct Consumer {
    requests: Option<mpsc::Sender<v1::ConsumeRequest>>,
    answers: Streaming<v1::ConsumeResponse>,
}

impl Consumer {
    async fn start(queue: &mut QueueClient<Channel>) -> Self {
        Self::start_for(queue, None).await
    }

    async fn start_for(queue: &mut QueueClient<Channel>, lease_ms: Option<u64>) -> Self {
        let (requests, outgoing) = mpsc::channel(8);
        let start = v1::ConsumeStart { topic: TOPIC.into(), lease_ms, ..Default::default() };
        requests.send(v1::ConsumeRequest { step: Some(Step::Start(start)) }).await.unwrap();
        let answers = queue.consume(ReceiverStream::new(outgoing)).await.expect("a stream").into_inner();
        Self { requests: Some(requests), answers }
    }

    async fn say(&self, step: Step) {
        let requests = self.requests.as_ref().expect("not closed");
        requests.send(v1::ConsumeRequest { step: Some(step) }).await.unwrap();
    }

    async fn grant(&self, messages: u64) {
        self.say(Step::Credit(v1::Credit { messages, bytes: 1_000_000 })).await;
    }

    /// Closes its side and waits for the end of the other.
    async fn close(mut self) {
        self.requests = None;
        assert!(self.answers.message().await.expect("a clean end").is_none());
    }

    async fn settle(&self, kind: Kind, deliveries: &[v1::Delivery]) {
        let leases = deliveries.iter().map(|delivery| delivery.lease.clone()).collect();
        self.say(Step::Settlement(v1::Settlement { kind: kind.into(), leases, ..Default::default() })).await;
    }

    async fn event(&mut self) -> Event {
        self.answers
            .message()
            .await
            .expect("no failure")
            .expect("not the end")
            .event
            .expect("of a known kind")
    }

    async fn received(&mut self) -> Vec<v1::Delivery> {
        match self.event().await {
            Event::Received(received) => received.deliveries,
            Event::Settled(settled) => panic!("{settled:?} came instead of messages"),
        }
    }

    async fn settled(&mut self) -> Vec<i32> {
        match self.event().await {
            Event::Settled(settled) => settled.results,
            Event::Received(received) => panic!("{received:?} came instead of a result"),
        }
    }
}

async fn publish(queue: &mut QueueClient<Channel>, count: u64) {
    let body = |number: u64| v1::NewMessage { body: number.to_string().into(), ..Default::default() };
    let messages = (0..count).map(body).collect();
    let request = v1::PublishRequest { topic: TOPIC.into(), session: None, messages };
    queue.publish(request).await.expect("published");
}

#[tokio::test]
async fn a_consumer_gets_what_it_has_credit_for_and_settles_it() {
    let (_served, mut queue) = with_topic().await;
    publish(&mut queue, 5).await;
    let mut consumer = Consumer::start(&mut queue).await;
    consumer.grant(3).await;
    let first = consumer.received().await;
    assert_eq!(first.iter().map(|delivery| delivery.offset).collect::<Vec<_>>(), [0, 1, 2]);
    let done = i32::from(v1::LeaseResult::Done);
    consumer.settle(Kind::Extend, &first[..1]).await;
    consumer.settle(Kind::Ack, &first[..2]).await;
    consumer.settle(Kind::Nack, &first[2..]).await;
    assert_eq!(consumer.settled().await, [done]);
    assert_eq!(consumer.settled().await, [done, done]);
    assert_eq!(consumer.settled().await, [done]);
    consumer.grant(1_000).await;
    let rest = consumer.received().await;
    let seen: Vec<_> = rest.iter().map(|delivery| (delivery.offset, delivery.attempts)).collect();
    assert_eq!(seen, [(2, 1), (3, 0), (4, 0)]);
    // It waits for what comes.
    publish(&mut queue, 1).await;
    assert_eq!(consumer.received().await[0].offset, 5);
}

#[tokio::test]
async fn rule_6_2_a_clean_close_gives_back_and_a_broken_stream_changes_nothing() {
    let (served, mut queue) = with_topic().await;
    publish(&mut queue, 4).await;
    // A way to the node that can be cut.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (way, node) = (listener.local_addr().unwrap(), served.address);
    let wire = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(node).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let mut far_queue = QueueClient::connect(format!("http://{way}")).await.expect("it listens");
    let mut broken = Consumer::start(&mut far_queue).await;
    broken.grant(2).await;
    assert_eq!(broken.received().await.len(), 2);
    wire.abort();
    broken.answers.message().await.expect_err("the stream broke");

    let mut closed = Consumer::start(&mut queue).await;
    closed.grant(2).await;
    let held = closed.received().await;
    closed.settle(Kind::Ack, &held[..1]).await;
    closed.requests = None;
    closed.settled().await;
    assert!(closed.answers.message().await.expect("a clean end").is_none());
    assert_eq!(ready(&mut queue).await, 1, "one was given back, two are still leased");
}

#[tokio::test]
async fn no_more_than_can_be_given_back_is_out_at_once() {
    let (served, mut queue) = with_topic().await;
    let mut consumer = Consumer::start(&mut queue).await;
    for _ in 0..11 {
        publish(&mut queue, 1_000).await;
    }
    consumer.say(Step::Credit(v1::Credit { messages: u64::MAX, bytes: u64::MAX })).await;
    let mut held = Vec::new();
    while held.len() < 10_000 {
        held.append(&mut consumer.received().await);
    }
    assert_eq!(held.len(), 10_000);
    consumer.settle(Kind::Ack, &held[..500]).await;
    // What was settled and what is received in its place come in either order.
    let events = [consumer.event().await, consumer.event().await];
    let received = events.iter().find_map(|event| match event {
        Event::Received(received) => Some(received.deliveries.len()),
        Event::Settled(_) => None,
    });
    assert_eq!(received, Some(500));
    let receives = served.node.calls().into_iter().filter(|call| call.method() == Method::Receive);
    assert_eq!(receives.count(), 11);
}

#[tokio::test]
async fn a_consumer_that_names_no_lease_has_the_default_of_its_node() {
    let (served, mut queue) =
        with_topic_within(Limits { lease_ms_default: 7_000, ..Limits::default() }).await;
    publish(&mut queue, 1).await;
    let mut consumer = Consumer::start(&mut queue).await;
    consumer.grant(1).await;
    let held = consumer.received().await;
    consumer.settle(Kind::Extend, &held).await;
    consumer.settled().await;
    let leases: Vec<_> = served.node.calls().iter().filter_map(lease_ms).collect();
    assert_eq!(leases, [Some(7_000); 2]);
}

/// The length of the lease that a call asks for, if it is one that asks for a lease.
fn lease_ms(call: &Request) -> Option<Option<u64>> {
    match call {
        Request::Take(Take { kind: TakeKind::Receive { lease_ms }, .. })
        | Request::Settle(Settle { settlement: Settlement::Extend { lease_ms }, .. }) => Some(*lease_ms),
        _ => None,
    }
}

#[tokio::test]
async fn a_lease_that_is_forgotten_is_not_given_back() {
    let (_served, mut queue) = with_topic().await;
    publish(&mut queue, 3).await;
    let mut consumer = Consumer::start(&mut queue).await;
    consumer.grant(3).await;
    let held = consumer.received().await;
    consumer.settle(Kind::Forget, &held[..2]).await;
    assert_eq!(consumer.settled().await, [i32::from(v1::LeaseResult::Done); 2]);
    consumer.close().await;
    assert_eq!(ready(&mut queue).await, 1, "two are held on, without the stream");
}

#[tokio::test]
async fn leases_that_ended_elsewhere_do_not_hold_a_consumer_back_for_ever() {
    let (served, mut queue) = with_topic().await;
    for _ in 0..10 {
        publish(&mut queue, 1_000).await;
    }
    let lease_ms = 1_000;
    let mut consumer = Consumer::start_for(&mut queue, Some(lease_ms)).await;
    consumer.say(Step::Credit(v1::Credit { messages: u64::MAX, bytes: u64::MAX })).await;
    let mut held = Vec::new();
    while held.len() < 10_000 {
        held.append(&mut consumer.received().await);
    }
    // It never says a word of them.
    served.node.end_leases(TOPIC);
    let again = tokio::time::timeout(Duration::from_secs(30), consumer.received()).await.expect("it goes on");
    assert_eq!((again[0].offset, again[0].attempts), (0, 1));
}

#[tokio::test]
async fn a_consumer_that_is_wrong_is_told_how_it_would_be_right() {
    let (_served, mut queue) = with_topic().await;
    let start = || Step::Start(v1::ConsumeStart { topic: TOPIC.into(), ..Default::default() });
    for (steps, part) in [
        (vec![Some(Step::Credit(v1::Credit::default()))], "must be `start`"),
        (vec![None], "must be `start`"),
        (vec![Some(start()); 2], "starts only once"),
        (vec![Some(start()), None], "must be `credit` or `settlement`"),
        (vec![Some(start()), Some(Step::Settlement(v1::Settlement::default()))], "must say its `kind`"),
        (
            vec![Some(start()), Some(Step::Credit(v1::Credit::default()))],
            "must grant `messages`, `bytes` or both",
        ),
    ] {
        let requests: Vec<_> = steps.into_iter().map(|step| v1::ConsumeRequest { step }).collect();
        let (sender, outgoing) = mpsc::channel(8);
        for request in requests {
            sender.send(request).await.unwrap();
        }
        let mut answers = queue.consume(ReceiverStream::new(outgoing)).await.expect("a stream").into_inner();
        let refused = tokio::time::timeout(Duration::from_secs(5), answers.message()).await.expect("in time");
        let refused = refused.expect_err("it is wrong");
        assert!(refused.message().contains(part), "{refused:?}");
        assert_eq!(status::detail(&refused).expect("ours").reason(), v1::Reason::InvalidArgument);
    }
}

/// Messages so large that few of them fit what a client takes unread, and so small that several share an answer.
async fn publish_large(queue: &mut QueueClient<Channel>, count: usize, bytes: usize) {
    let messages = vec![v1::NewMessage { body: vec![b'x'; bytes].into(), ..Default::default() }; count];
    for messages in messages.chunks((4 << 20) / bytes.max(1_000)) {
        let request = v1::PublishRequest { topic: TOPIC.into(), session: None, messages: messages.to_vec() };
        queue.publish(request).await.expect("published");
    }
}

/// How many messages are ready and leased.
async fn counts(queue: &mut QueueClient<Channel>) -> (u64, u64) {
    let describe = v1::DescribeTopicRequest { topic: TOPIC.into() };
    let topic = queue.describe_topic(describe).await.expect("described").into_inner().topic.expect("a topic");
    (topic.subscriptions[0].ready, topic.subscriptions[0].leased)
}

/// How many attempts those that are ready have had, in all.
async fn attempts(queue: &mut QueueClient<Channel>) -> u32 {
    let peek = v1::PeekRequest { topic: TOPIC.into(), messages_max: 1_000, ..Default::default() };
    let ready = queue.peek(peek).await.expect("peeked").into_inner().deliveries;
    ready.iter().map(|delivery| delivery.attempts).sum()
}

/// Waits until so many messages are ready and leased, none of those that are ready with an attempt. The counts alone are
/// asked for again and again: what lasts only until the node's patience ends must be seen by then, and the bodies take a
/// slow machine long.
async fn until_counts(queue: &mut QueueClient<Channel>, ready: u64, leased: u64) {
    let begun = tokio::time::Instant::now();
    loop {
        let counts = counts(queue).await;
        if counts == (ready, leased) {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{counts:?} and not {ready} ready, {leased} leased"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(attempts(queue).await, 0, "of {ready} that are ready");
}

/// Waits until something is given back.
async fn until_released(served: &Served) {
    let begun = tokio::time::Instant::now();
    while !served.node.calls().iter().any(|call| call.method() == Method::Release) {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing goes back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A client whose streams take few bytes that it does not read.
async fn narrow(address: impl std::fmt::Display) -> QueueClient<Channel> {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    let endpoint = endpoint.initial_stream_window_size(1 << 16).initial_connection_window_size(1 << 20);
    QueueClient::new(endpoint.connect().await.expect("it listens"))
}

/// A way to the node that can be cut, and its other end.
async fn cuttable(served: &Served) -> (tokio::task::JoinHandle<()>, QueueClient<Channel>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (way, node) = (listener.local_addr().unwrap(), served.address);
    let wire = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(node).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    (wire, narrow(way).await)
}

/// More than one answer takes, and less than two.
const LARGE: usize = 80_000;

#[tokio::test]
async fn rule_7_4_what_a_stopped_consumer_was_not_sent_goes_back_without_an_attempt() {
    let (served, mut queue) = with_topic().await;
    publish_large(&mut queue, 30, LARGE).await;
    let mut queue = narrow(served.address).await;
    let mut stopped = Consumer::start_for(&mut queue, Some(1_000)).await;
    stopped.say(Step::Credit(v1::Credit { messages: 1_000, bytes: 0 })).await;
    // It never reads. Its connection is well: others use it.
    until_released(&served).await;
    until_counts(&mut queue, 30, 0).await;
    let lost = stopped.answers.message().await.expect_err("what it was not sent is not its own any more");
    assert_eq!(lost.code(), tonic::Code::Cancelled, "{lost:?}");
}

#[tokio::test]
async fn a_stopped_consumer_has_little_leased_ahead() {
    let (served, mut queue) = with_topic().await;
    publish_large(&mut queue, 100, LARGE).await;
    let stopped = Consumer::start(&mut narrow(served.address).await).await;
    stopped.say(Step::Credit(v1::Credit { messages: 1_000, bytes: 0 })).await;
    // 2 MiB at once, and nothing more before most of it is on the wire.
    until_counts(&mut queue, 74, 26).await;
    publish_large(&mut queue, 1, 1).await;
    until_counts(&mut queue, 75, 26).await;
    drop(stopped);
    until_counts(&mut queue, 101, 0).await;
}

/// A message as it stands on the wire.
fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let mut frame = vec![0]; // It is not compressed.
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    frame.into()
}

/// What a consumer says, and then it resets the stream.
fn resetting(
    requests: mpsc::Receiver<v1::ConsumeRequest>,
) -> impl futures_util::Stream<Item = Result<hyper::body::Frame<Bytes>, h2::Error>> {
    let frame = |request: v1::ConsumeRequest| Ok(hyper::body::Frame::data(framed(&request)));
    let reset = futures_util::stream::once(async { Err(h2::Error::from(h2::Reason::CANCEL)) });
    ReceiverStream::new(requests).map(frame).chain(reset)
}

#[tokio::test]
async fn rule_6_2_a_reset_leaves_what_was_delivered_and_gives_back_what_was_not_sent() {
    use tower::Service as _;
    let (served, mut queue) = with_topic().await;
    publish(&mut queue, 2).await;
    let (requests, outgoing) = mpsc::channel(8);
    let start = v1::ConsumeStart { topic: TOPIC.into(), ..Default::default() };
    for step in [Step::Start(start), Step::Credit(v1::Credit { messages: 1_000, bytes: 0 })] {
        requests.send(v1::ConsumeRequest { step: Some(step) }).await.unwrap();
    }
    let endpoint = Channel::from_shared(format!("http://{}", served.address)).unwrap();
    let mut channel = endpoint.initial_stream_window_size(1 << 16).connect().await.unwrap();
    let request =
        http::Request::post(format!("http://{}{}", served.address, crate::edges::grpc::CONSUME_PATH))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(tonic::body::Body::new(http_body_util::StreamBody::new(resetting(outgoing))))
            .unwrap();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let response = channel.call(request).await.expect("an answer");
    let decoder = ProstCodec::<(), v1::ConsumeResponse>::default().decoder();
    let answers = Streaming::new_response(decoder, response.into_body(), http::StatusCode::OK, None, None);
    let mut consumer = Consumer { requests: Some(requests), answers };
    assert_eq!(consumer.received().await.len(), 2);
    publish_large(&mut queue, 12, LARGE).await;
    until_counts(&mut queue, 0, 14).await;
    // Its connection goes on.
    consumer.requests = None;
    until_counts(&mut queue, 12, 2).await;
    drop(channel);
}

#[tokio::test]
async fn rule_6_2_a_cut_connection_leaves_what_was_delivered_and_gives_back_what_was_not_sent() {
    let (served, mut queue) = with_topic().await;
    let (wire, mut far) = cuttable(&served).await;
    publish(&mut queue, 2).await;
    let mut consumer = Consumer::start(&mut far).await;
    consumer.grant(1_000).await;
    assert_eq!(consumer.received().await.len(), 2);
    publish_large(&mut queue, 12, LARGE).await;
    until_counts(&mut queue, 0, 14).await;
    wire.abort();
    until_counts(&mut queue, 12, 2).await;
}

#[tokio::test]
async fn rule_6_2_a_consumer_that_closes_its_side_and_does_not_wait_gives_back_all_the_same() {
    let (served, mut queue) = with_topic().await;
    publish(&mut queue, 5).await;
    let mut consumer = Consumer::start(&mut queue).await;
    consumer.grant(1_000).await;
    assert_eq!(consumer.received().await.len(), 5);
    served.node.hold(true);
    consumer.requests = None;
    // It is being given back, and then the consumer is gone.
    until_released(&served).await;
    drop(consumer);
    // Its stream has ended when another on the same connection is answered.
    let request = v1::ReceiveRequest { topic: "nothing".into(), messages_max: 1_001, ..Default::default() };
    queue.receive(request).await.expect_err("over a limit, so no node is asked");
    served.node.hold(false);
    until_counts(&mut queue, 5, 0).await;
}

#[tokio::test]
async fn rule_10_3_a_message_too_large_for_its_client_costs_only_itself() {
    // All of it fits what the client takes unread; and little of it does.
    for window in [8 << 20, 1 << 16] {
        let (served, mut queue) = with_topic().await;
        publish(&mut queue, 1).await;
        // A node may take larger ones than this edge does.
        let message = NewMessage { body: vec![b'x'; 3 << 20].into(), ..Default::default() };
        let large = Request::Publish(Publish { topic: TOPIC.into(), session: None, messages: vec![message] });
        served.node.call(Call::own(large, Duration::from_secs(1))).await.expect("published");
        publish(&mut queue, 1).await;
        let endpoint = Channel::from_shared(format!("http://{}", served.address)).unwrap();
        let endpoint = endpoint.initial_stream_window_size(window).initial_connection_window_size(8 << 20);
        let channel = endpoint.connect().await.expect("it listens");
        let mut strict = QueueClient::new(channel).max_decoding_message_size(100_000);
        let mut consumer = Consumer::start(&mut strict).await;
        consumer.say(Step::Credit(v1::Credit { messages: 1_000, bytes: 0 })).await;
        assert_eq!(consumer.received().await[0].offset, 0);
        let refused = consumer.answers.message().await.expect_err("it is too large");
        assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused:?}");
        // What came before it was delivered, it counts as delivered, and what is behind was not touched.
        until_counts(&mut queue, 1, 2).await;
    }
}

#[tokio::test]
async fn a_large_message_that_is_settled_holds_nothing_up() {
    let (served, _queue) = with_topic().await;
    let message = NewMessage { body: vec![b'x'; 3 << 20].into(), ..Default::default() };
    for _ in 0..3 {
        let large =
            Request::Publish(Publish { topic: TOPIC.into(), session: None, messages: vec![message.clone()] });
        served.node.call(Call::own(large, Duration::from_secs(1))).await.expect("published");
    }
    let channel =
        Channel::from_shared(format!("http://{}", served.address)).unwrap().connect().await.unwrap();
    let mut consumer =
        Consumer::start(&mut QueueClient::new(channel).max_decoding_message_size(usize::MAX)).await;
    let begun = std::time::Instant::now();
    consumer.say(Step::Credit(v1::Credit { messages: 1_000, bytes: 0 })).await;
    let first = consumer.received().await;
    let receives = served.node.calls().iter().filter(|call| call.method() == Method::Receive).count();
    // The pause before the next large one: a machine that was held up for so long shows nothing here.
    assert!(receives == 1 || begun.elapsed() > Duration::from_secs(1), "{receives} receives");
    consumer.settle(Kind::Ack, &first).await;
    // The answer and the next message come in either order, and the message behind it after a pause.
    let mut received = 0;
    while received < 2 {
        received += usize::from(matches!(consumer.event().await, Event::Received(_)));
    }
}

/// Calls `Receive` and reads nothing of the answer. Its connection goes on.
async fn receive_unread(served: &Served, lease_ms: u64) -> (Channel, tonic::body::Body) {
    use tower::Service as _;
    let receive = v1::ReceiveRequest {
        topic: TOPIC.into(),
        messages_max: 1_000,
        lease_ms: Some(lease_ms),
        ..Default::default()
    };
    let endpoint = Channel::from_shared(format!("http://{}", served.address)).unwrap();
    let mut channel = endpoint.initial_stream_window_size(1 << 16).connect().await.unwrap();
    let request = http::Request::post(format!("http://{}/raftqueue.v1.Queue/Receive", served.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(Full::new(framed(&receive))))
        .unwrap();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let answer = channel.call(request).await.expect("an answer").into_body();
    (channel, answer)
}

#[tokio::test]
async fn rule_7_4_an_answer_that_does_not_get_through_gives_back_what_it_holds() {
    let (served, mut queue) = with_topic().await;
    publish_large(&mut queue, 10, LARGE).await;
    // The client stops reading.
    let (_channel, stopped) = receive_unread(&served, 1_000).await;
    until_counts(&mut queue, 10, 0).await;
    stopped.collect().await.expect_err("it was given up");
    // The client goes.
    let (_channel, gone) = receive_unread(&served, 600_000).await;
    until_counts(&mut queue, 0, 10).await;
    drop(gone);
    until_counts(&mut queue, 10, 0).await;
    // It reads: nothing goes back.
    let (_channel, read) = receive_unread(&served, 600_000).await;
    assert!(read.collect().await.expect("all of it").to_bytes().len() > 10 * LARGE);
    let (_channel, empty) = receive_unread(&served, 600_000).await;
    empty.collect().await.expect("all of it");
    until_counts(&mut queue, 0, 10).await;
}

#[tokio::test]
async fn rule_7_4_the_same_over_http_1() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (served, mut queue) = with_topic().await;
    publish_large(&mut queue, 16, 1_000_000).await;
    let body = br#"{"messages_max": 1000, "bytes_max": 16777216, "lease_ms": 1000}"#;
    let head = format!(
        "POST /v1/topics/{TOPIC}/receive HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    for stays in [true, false] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut first = [0; 15];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        if stays {
            // It reads no more: the connection is closed, though it would take more.
            until_counts(&mut queue, 16, 0).await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            assert!(rest.len() < 16_000_000, "{}", rest.len());
        } else {
            drop(stream);
            until_counts(&mut queue, 16, 0).await;
        }
    }
}

#[tokio::test]
async fn a_consumer_of_what_is_not_there_is_told_before_it_grants_anything() {
    let (_served, mut queue) = with_topic().await;
    for (start, reason) in [
        (v1::ConsumeStart { topic: "nothing".into(), ..Default::default() }, v1::Reason::TopicNotFound),
        (
            v1::ConsumeStart { topic: TOPIC.into(), subscription: "other".into(), ..Default::default() },
            v1::Reason::SubscriptionNotFound,
        ),
        (
            v1::ConsumeStart { topic: TOPIC.into(), lease_ms: Some(1), ..Default::default() },
            v1::Reason::InvalidArgument,
        ),
        (v1::ConsumeStart::default(), v1::Reason::InvalidArgument),
    ] {
        let (requests, outgoing) = mpsc::channel(8);
        requests.send(v1::ConsumeRequest { step: Some(Step::Start(start)) }).await.unwrap();
        let mut answers = queue.consume(ReceiverStream::new(outgoing)).await.expect("a stream").into_inner();
        let refused = answers.message().await.expect_err("it is refused");
        assert_eq!(status::detail(&refused).expect("ours").reason(), reason);
    }
}

#[tokio::test]
async fn what_a_credit_never_names_does_not_limit() {
    for credit in [v1::Credit { messages: 4, bytes: 0 }, v1::Credit { messages: 0, bytes: 4 }] {
        let (_served, mut queue) = with_topic().await;
        publish(&mut queue, 9).await;
        let mut consumer = Consumer::start(&mut queue).await;
        consumer.say(Step::Credit(credit)).await;
        assert_eq!(consumer.received().await.len(), 4);
    }
    // Once it is named it does.
    let (_served, mut queue) = with_topic().await;
    publish(&mut queue, 9).await;
    let mut consumer = Consumer::start(&mut queue).await;
    consumer.say(Step::Credit(v1::Credit { messages: 3, bytes: 2 })).await;
    assert_eq!(consumer.received().await.len(), 2);
    consumer.say(Step::Credit(v1::Credit { messages: 6, bytes: 0 })).await;
    consumer.say(Step::Credit(v1::Credit { messages: 0, bytes: 1 })).await;
    assert_eq!(consumer.received().await.len(), 1);
}
