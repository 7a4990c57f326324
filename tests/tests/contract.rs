//! The contract as real nodes keep it: what is inside every limit passes on every way through a cluster, and limits of a
//! reply count what the contract says.

use bytes::Bytes;
use raftqueue_client::{Client, ConsumerSettings};
use raftqueue_proto::v1;
use raftqueue_proto::v1::queue_client::QueueClient;
use raftqueue_tests::process::{Cluster, Http};
use serde_json::{Value, json};
use std::time::Duration;
use tonic::transport::Channel;

const MESSAGES: usize = 10_000;
const HEADERS: usize = 64;
/// Far longer than anything takes, so that a slow machine changes nothing.
const AT_MOST: Duration = Duration::from_secs(120);

fn patient<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(AT_MOST);
    request
}

/// A node's address, as clients take it; its HTTP and its gRPC port are one.
fn endpoint(cluster: &Cluster, node: usize) -> String {
    format!("127.0.0.1:{}", cluster.ports(node).0)
}

async fn queue(cluster: &Cluster, node: usize) -> QueueClient<Channel> {
    QueueClient::connect(format!("http://{}", endpoint(cluster, node))).await.expect("it listens")
}

async fn create(queue: &mut QueueClient<Channel>, topic: &str) {
    let create = v1::CreateTopicRequest { topic: topic.into(), ..Default::default() };
    queue.create_topic(patient(create)).await.expect("created");
}

/// Six bytes of header, 64 times: 10,000 messages of these have 3.8 of the 4 MiB.
fn header() -> v1::Header {
    v1::Header { name: "abc".into(), value: Bytes::from_static(b"def") }
}

fn full_batch(topic: &str) -> v1::PublishRequest {
    let message = v1::NewMessage { headers: vec![header(); HEADERS], ..Default::default() };
    v1::PublishRequest { topic: topic.into(), session: None, messages: vec![message; MESSAGES] }
}

fn has_all_headers(delivery: &v1::Delivery) -> bool {
    delivery.headers == vec![header(); HEADERS]
}

fn post(http: Http, path: &str, body: &Value) -> Value {
    let answer = http.request("POST", path, body.to_string().as_bytes()).expect("it answers");
    assert_eq!(answer.code, 200, "{path}: {}", answer.text);
    answer.body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fullest_batch_goes_in_at_a_follower_and_comes_out_at_it_by_every_way() {
    // The test is whether it passes, not how fast. So no election may come between on a slow machine.
    let mut cluster = Cluster::new(3).with_arguments(&["--election-timeout-ms", "5000"]);
    cluster.start_all();
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    let mut queue = queue(&cluster, follower).await;
    let http = cluster.http(follower).with_deadline(AT_MOST);
    let client = Client::connect([endpoint(&cluster, follower)]).expect("an address").with_timeout(AT_MOST);

    create(&mut queue, "unary").await;
    let published = queue.publish(patient(full_batch("unary"))).await.expect("inside every limit");
    assert_eq!(published.into_inner().count, MESSAGES as u64);

    create(&mut queue, "streamed").await;
    let session = queue.open_session(patient(v1::OpenSessionRequest::default())).await.expect("opened");
    let step = v1::SessionStep { session: session.into_inner().session, sequence: 1 };
    let batch = v1::PublishRequest { session: Some(step), ..full_batch("streamed") };
    // A stream gives a batch five seconds. If a slow machine takes longer, the batch is repeated to get its answer.
    let begun = std::time::Instant::now();
    let published = loop {
        let answers = queue.publish_stream(tokio_stream::iter([batch.clone()])).await.expect("a stream");
        match answers.into_inner().message().await {
            Ok(published) => break published.expect("answered"),
            Err(status) if status.code() == tonic::Code::Unknown && begun.elapsed() < AT_MOST => {}
            Err(status) => panic!("inside every limit, and not {status:?}\n{}", cluster.logs()),
        }
    };
    assert_eq!(published.count, MESSAGES as u64);

    create(&mut queue, "json").await;
    let headers = vec![json!({"name": "abc", "value": "def"}); HEADERS];
    // A tenth of it: decoding the whole in an unoptimised build takes a slow machine longer than nodes wait for one
    // another. The whole is tried on one node, beside the edges.
    let batch = json!({"messages": vec![json!({"body": "", "headers": headers}); MESSAGES / 10]});
    assert_eq!(post(http, "/v1/topics/json/publish", &batch)["count"], MESSAGES / 10);

    create(&mut queue, "library").await;
    let publisher = client.publisher("library").await.expect("a session");
    let answer = publisher.send_batch(full_batch("library").messages).await.expect("handed over");
    assert_eq!(answer.await.expect("inside every limit").count, MESSAGES as u64);
    publisher.close().await;

    let messages_max = 1_000;
    let receive = v1::ReceiveRequest { topic: "unary".into(), messages_max, ..Default::default() };
    let received = queue.receive(patient(receive)).await.expect("received").into_inner().deliveries;
    assert_eq!(received.iter().filter(|delivery| has_all_headers(delivery)).count(), 1_000);
    let pop = v1::PopRequest { topic: "unary".into(), messages_max, ..Default::default() };
    let popped = queue.pop(patient(pop)).await.expect("popped").into_inner().deliveries;
    assert_eq!(popped.iter().filter(|delivery| has_all_headers(delivery)).count(), 1_000);
    let peek = v1::PeekRequest { topic: "streamed".into(), messages_max, ..Default::default() };
    let seen = queue.peek(patient(peek)).await.expect("seen").into_inner().deliveries;
    assert_eq!(seen.iter().filter(|delivery| has_all_headers(delivery)).count(), 1_000);
    let answer = post(http, "/v1/topics/json/receive", &json!({"messages_max": 1_000}));
    let deliveries = answer["deliveries"].as_array().expect("a list");
    assert_eq!(deliveries.iter().filter(|delivery| delivery["headers"] == json!(headers)).count(), 1_000);
    let settings = ConsumerSettings { lease: AT_MOST, ..ConsumerSettings::default() };
    let mut consumer = client.consumer_with("library", settings).expect("good settings");
    for _ in 0..2_000 {
        assert!(has_all_headers(&consumer.receive().await.expect("received").into_inner()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bytes_of_a_reply_are_those_of_the_messages() {
    let mut cluster = Cluster::started(1);
    let leader = cluster.leader();
    let mut queue = queue(&cluster, leader).await;
    create(&mut queue, "orders").await;
    let message = v1::NewMessage { body: vec![b'x'; 1_000].into(), ..Default::default() };
    let messages = vec![message; 20];
    let publish = v1::PublishRequest { topic: "orders".into(), session: None, messages };
    queue.publish(patient(publish)).await.expect("published");
    let topic = || "orders".to_owned();
    for (bytes_max, fit) in [(3_999, 3), (4_000, 4), (1, 1)] {
        let messages_max = 10;
        let peek = v1::PeekRequest { topic: topic(), messages_max, bytes_max, ..Default::default() };
        let seen = queue.peek(patient(peek)).await.expect("seen").into_inner().deliveries;
        let receive = v1::ReceiveRequest { topic: topic(), messages_max, bytes_max, ..Default::default() };
        let received = queue.receive(patient(receive)).await.expect("received").into_inner().deliveries;
        let pop = v1::PopRequest { topic: topic(), messages_max, bytes_max, ..Default::default() };
        let popped = queue.pop(patient(pop)).await.expect("popped").into_inner().deliveries;
        assert_eq!((seen.len(), received.len(), popped.len()), (fit, fit, fit), "{bytes_max} bytes");
    }
}
