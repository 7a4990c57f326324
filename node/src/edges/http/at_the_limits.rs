//! A call inside all limits passes on every edge. Tried with the batch that has the most and the shortest headers,
//! which takes the most room around its bytes.

use crate::fake::{FakeNode, Served};
use bytes::Bytes;
use raftqueue_proto::v1::consume_request::Step;
use raftqueue_proto::v1::consume_response::Event;
use raftqueue_proto::v1::queue_client::QueueClient;
use raftqueue_proto::{status, v1};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tonic::transport::Channel;

const TOPIC: &str = "orders";
const MESSAGES: usize = 10_000;
const HEADERS: usize = 64;

/// Six bytes of header, 64 times: 10,000 messages of these have 3.8 of the 4 MiB.
fn header() -> v1::Header {
    v1::Header { name: "abc".into(), value: Bytes::from_static(b"def") }
}

fn full_batch() -> v1::PublishRequest {
    let message = v1::NewMessage { headers: vec![header(); HEADERS], ..Default::default() };
    v1::PublishRequest { topic: TOPIC.into(), session: None, messages: vec![message; MESSAGES] }
}

async fn with_topic() -> (Served, QueueClient<Channel>) {
    let served = Served::start(FakeNode::default()).await;
    let mut queue = QueueClient::connect(format!("http://{}", served.address)).await.expect("it listens");
    let create = v1::CreateTopicRequest { topic: TOPIC.into(), ..Default::default() };
    queue.create_topic(create).await.expect("created");
    (served, queue)
}

/// A call with a deadline that a slow machine keeps, too.
fn patient<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(std::time::Duration::from_secs(300));
    request
}

async fn post(served: &Served, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(served.address).await.expect("it listens");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\nraftqueue-deadline-ms: 300000\r\ncontent-length: \
         {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    let body = if head.contains("transfer-encoding: chunked") { joined(body) } else { body.to_owned() };
    (code, serde_json::from_str(&body).expect("it is JSON"))
}

/// A body that comes in chunks, each behind its length.
fn joined(mut chunks: &str) -> String {
    let mut body = String::new();
    loop {
        let (length, rest) = chunks.split_once("\r\n").expect("a length");
        let length = usize::from_str_radix(length, 16).expect("a number");
        if length == 0 {
            return body;
        }
        body.push_str(&rest[..length]);
        chunks = &rest[length + 2..];
    }
}

fn check(deliveries: &[v1::Delivery]) {
    assert_eq!(deliveries.len(), 1_000, "as many as one call gives");
    assert!(deliveries.iter().all(|delivery| delivery.headers == vec![header(); HEADERS]));
}

#[tokio::test]
async fn the_fullest_batch_passes_in_one_call_and_comes_out_by_each_of_them() {
    let (_served, mut queue) = with_topic().await;
    let published = queue.publish(patient(full_batch())).await.expect("inside every limit").into_inner();
    assert_eq!(published.count, MESSAGES as u64);
    let (topic, messages_max) = (TOPIC.to_owned(), 1_000);
    let receive = v1::ReceiveRequest { topic: topic.clone(), messages_max, ..Default::default() };
    check(&queue.receive(patient(receive)).await.expect("received").into_inner().deliveries);
    let pop = v1::PopRequest { topic: topic.clone(), messages_max, ..Default::default() };
    check(&queue.pop(patient(pop)).await.expect("popped").into_inner().deliveries);
    let peek = v1::PeekRequest { topic: topic.clone(), messages_max, ..Default::default() };
    check(&queue.peek(patient(peek)).await.expect("seen").into_inner().deliveries);
    let start = v1::ConsumeStart { topic, ..Default::default() };
    let credit = v1::Credit { messages: 1_000, bytes: 1 << 30 };
    let steps =
        [Step::Start(start), Step::Credit(credit)].map(|step| v1::ConsumeRequest { step: Some(step) });
    // It does not close its side, which would give everything back.
    let steps = tokio_stream::iter(steps).chain(tokio_stream::pending());
    let mut consumed = queue.consume(steps).await.expect("a stream").into_inner();
    let mut deliveries = Vec::new();
    while deliveries.len() < 1_000 {
        match consumed.message().await.expect("no failure").expect("not the end").event {
            Some(Event::Received(received)) => deliveries.extend(received.deliveries),
            other => panic!("messages were due: {other:?}"),
        }
    }
    check(&deliveries);
}

#[tokio::test]
async fn the_fullest_batch_passes_on_a_stream() {
    let (_served, mut queue) = with_topic().await;
    let session =
        queue.open_session(v1::OpenSessionRequest::default()).await.expect("opened").into_inner().session;
    let step = v1::SessionStep { session, sequence: 1 };
    let batch = v1::PublishRequest { session: Some(step), ..full_batch() };
    let mut answers = queue.publish_stream(tokio_stream::iter([batch])).await.expect("a stream").into_inner();
    assert_eq!(answers.message().await.expect("published").expect("answered").count, MESSAGES as u64);
}

#[tokio::test]
async fn the_fullest_batch_passes_in_json_and_comes_out_in_it() {
    let (served, _queue) = with_topic().await;
    // Spelled as long as it can be: base64, escapes, and a space behind each colon and comma.
    let header = r#"{"name": "\u0061\u0062\u0063", "value_base64": "ZGVm"}, "#;
    let message =
        format!(r#"{{"body": "", "headers": [{}]}}, "#, header.repeat(HEADERS).trim_end_matches(", "));
    let batch = format!(r#"{{"messages": [{}]}}"#, message.repeat(MESSAGES).trim_end_matches(", "));
    let (code, published) = post(&served, "/v1/topics/orders/publish", &batch).await;
    assert_eq!((code, &published["count"]), (200, &MESSAGES.into()), "{published}");
    let headers = Value::from(vec![json!({"name": "abc", "value": "def"}); HEADERS]);
    for call in ["receive", "peek", "pop"] {
        let (code, answer) =
            post(&served, &format!("/v1/topics/orders/{call}"), r#"{"messages_max": 1000}"#).await;
        let deliveries = answer["deliveries"].as_array().expect("a list");
        assert_eq!((code, deliveries.len()), (200, 1_000), "{call}");
        assert!(deliveries.iter().all(|delivery| delivery["headers"] == headers), "{call}");
    }
}

#[tokio::test]
async fn one_message_or_header_more_is_refused_by_name_on_every_edge() {
    let (served, mut queue) = with_topic().await;
    let calls = served.node.calls().len();
    let mut crowd = full_batch();
    crowd.messages.iter_mut().for_each(|message| message.headers.clear());
    crowd.messages.push(v1::NewMessage::default());
    let mut headers = full_batch();
    headers.messages.truncate(1);
    headers.messages[0].headers.push(header());
    for (batch, words) in [(crowd, ["10001", "10000"]), (headers, ["65", "64"])] {
        let refused = queue.publish(patient(batch.clone())).await.expect_err("one too many");
        assert_eq!(status::detail(&refused).expect("ours").reason(), v1::Reason::TooLarge);
        let headers = json!({"name": "abc", "value": "def"});
        let message =
            |message: &v1::NewMessage| json!({"body": "", "headers": vec![&headers; message.headers.len()]});
        let messages: Vec<Value> = batch.messages.iter().map(message).collect();
        let (code, answer) =
            post(&served, "/v1/topics/orders/publish", &json!({"messages": messages}).to_string()).await;
        assert_eq!((code, &answer["reason"]), (413, &"TOO_LARGE".into()));
        for word in words {
            assert!(refused.message().contains(word), "{refused:?}");
            assert!(answer["text"].as_str().expect("a text").contains(word), "{answer}");
        }
    }
    assert_eq!(served.node.calls().len(), calls, "nobody was asked");
}
