//! The budget as clients meet it, over a real socket.

use super::*;
use crate::fake::{FakeNode, Served};
use bytes::{BufMut, BytesMut};
use http_body_util::{BodyExt, StreamBody};
use raftqueue_proto::v1::queue_client::QueueClient;
use raftqueue_proto::{status, v1};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

const MIB: usize = 1 << 20;
const TOPIC: &str = "orders";

async fn started() -> (Served, QueueClient<Channel>, Budget) {
    let budget = Budget::new(64 * MIB);
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let served = Served::start_with(FakeNode::default(), address, budget.clone()).await;
    let queue = QueueClient::connect(format!("http://{}", served.address)).await.expect("it listens");
    let mut queue = queue.max_decoding_message_size(usize::MAX);
    let create = v1::CreateTopicRequest { topic: TOPIC.into(), ..Default::default() };
    queue.create_topic(create).await.expect("created");
    (served, queue, budget)
}

fn publish(bytes: usize, count: usize) -> v1::PublishRequest {
    let message = |number: usize| v1::NewMessage {
        body: Bytes::from(vec![u8::try_from(number % 256).expect("a byte"); bytes]),
        key: Bytes::from(number.to_string()),
        headers: vec![v1::Header { name: "n".into(), value: Bytes::from_static(b"\xff") }],
        ..Default::default()
    };
    v1::PublishRequest { topic: TOPIC.into(), session: None, messages: (0..count).map(message).collect() }
}

fn peek() -> v1::PeekRequest {
    v1::PeekRequest { topic: TOPIC.into(), messages_max: 1_000, bytes_max: 16 << 20, ..Default::default() }
}

fn ack() -> v1::AckRequest {
    let message = crate::api::MessageId { generation: 0, topic: 1, offset: 0 };
    let lease = crate::wire::ids::encode_lease(crate::api::LeaseId { message, token: 1 });
    v1::AckRequest { topic: TOPIC.into(), leases: vec![lease], ..Default::default() }
}

fn overloaded(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let detail = status::detail(status).expect("every refusal has a detail");
    assert_eq!((detail.reason(), detail.outcome()), (v1::Reason::Overloaded, v1::Outcome::NotDone));
    assert!(detail.retry_after_ms.is_some_and(|ms| ms > 0), "{detail:?}");
}

/// All that greater charges may take.
fn fill_greater(budget: &Budget) -> [Held; 2] {
    [(Share::Replies, 42), (Share::Forwarded, 14)]
        .map(|(share, mib)| budget.charge(share, mib * MIB).expect("there is room"))
}

/// All but what is kept for acknowledgements.
fn fill_small(budget: &Budget) -> Vec<Held> {
    std::iter::from_fn(|| budget.charge(Share::Forwarded, 1_000).ok()).collect()
}

#[tokio::test]
async fn rule_10_2_a_full_budget_refuses_large_calls_then_small_ones_and_never_acknowledgements_first() {
    let (served, mut queue, budget) = started().await;
    let calls = served.node.calls().len();
    let greater = fill_greater(&budget);
    overloaded(&queue.publish(publish(MIB, 1)).await.expect_err("there is no room"));
    assert_eq!(served.node.calls().len(), calls, "the node has not heard of it");
    queue.publish(publish(1_000, 1)).await.expect("small calls go through");
    let small = fill_small(&budget);
    overloaded(&queue.publish(publish(1_000, 1)).await.expect_err("there is no room"));
    queue.ack(ack()).await.expect("acknowledgements go through");
    drop((greater, small));
    queue.publish(publish(MIB, 1)).await.expect("there is room again");
    assert_eq!(budget.used(), 0, "everything is given back");
}

#[tokio::test]
async fn a_compressed_or_malformed_length_is_judged_by_what_it_may_become() {
    let (_served, mut queue, budget) = started().await;
    let greater = fill_greater(&budget);
    let mut frames = BytesMut::new();
    frames.put_u8(1);
    frames.put_u32(10);
    frames.put_bytes(0, 10);
    let rules = Rules::of("/raftqueue.v1.Queue/Publish", &http::HeaderMap::new(), &Limits::default());
    let ticket = Ticket::new(&budget, &rules);
    let mut body = Arriving::new(http_body_util::Full::new(frames.freeze()), Arc::clone(&ticket), rules);
    let refusal = body.frame().await.expect("a frame").expect_err("it may become 6 MiB");
    overloaded(refusal.downcast_ref::<Status>().expect("a status"));
    drop((greater, body, ticket));
    let text = queue.ack(v1::AckRequest { topic: "t".repeat(2 * MIB), ..ack() }).await.expect_err("2 MiB");
    assert_eq!(text.code(), Code::OutOfRange);
    let detail = status::detail(&text).expect("every refusal has a detail");
    assert_eq!((detail.reason(), detail.outcome()), (v1::Reason::TooLarge, v1::Outcome::NotDone));
}

/// A body of these pieces.
fn pieces(
    pieces: Vec<Bytes>,
) -> impl hyper::body::Body<Data = Bytes, Error = std::convert::Infallible> + Unpin {
    StreamBody::new(tokio_stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece)))))
}

#[tokio::test]
async fn what_messages_announce_is_held_however_they_are_cut() {
    let lengths = [0_usize, 1, 300, 70_000, 5, 0, 12];
    let mut all = BytesMut::new();
    for length in lengths {
        all.put_u8(0);
        all.put_u32(u32::try_from(length).expect("small"));
        all.put_bytes(7, length);
    }
    let all = all.freeze();
    for cut in [1, 2, 3, 5, 6, 7, 100, 65_536, usize::MAX] {
        let budget = Budget::default();
        let rules =
            Rules::of("/raftqueue.v1.Queue/PublishStream", &http::HeaderMap::new(), &Limits::default());
        let ticket = Ticket::new(&budget, &rules);
        let cuts = all.chunks(cut.min(all.len())).map(Bytes::copy_from_slice).collect();
        let mut body = Arriving::new(pieces(cuts), Arc::clone(&ticket), rules);
        let mut passed = Vec::new();
        while let Some(frame) = body.frame().await {
            passed.extend_from_slice(&frame.expect("there is room").into_data().expect("data"));
        }
        assert!(passed == all, "cut every {cut} bytes");
        assert_eq!(budget.held(Share::Streams), all.len(), "cut every {cut} bytes");
        for length in lengths {
            let before = budget.used();
            drop(ticket.take_message().expect("one for each message"));
            assert_eq!(before - budget.used(), HEADER_BYTES + length, "cut every {cut} bytes");
        }
        assert!(ticket.take_message().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_waits_for_room_and_is_ended_when_there_is_none_for_long() {
    let message = || {
        let mut message = BytesMut::new();
        message.put_u8(0);
        message.put_u32(u32::try_from(MIB).expect("small"));
        message.put_bytes(0, MIB);
        message.freeze()
    };
    let budget = Budget::new(64 * MIB);
    let greater = fill_greater(&budget);
    let rules = Rules::of("/raftqueue.v1.Queue/PublishStream", &http::HeaderMap::new(), &Limits::default());
    let ticket = Ticket::new(&budget, &rules);
    let mut body = Arriving::new(pieces(vec![message(), message()]), Arc::clone(&ticket), rules);
    let (first, ()) = tokio::join!(body.frame(), async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        drop(greater);
    });
    assert_eq!(
        first.expect("a frame").expect("there was room in time").into_data().expect("data").len(),
        MIB + 5
    );
    let _greater = [Share::Replies, Share::Forwarded].map(|share| budget.force(share, 32 * MIB));
    let refusal = body.frame().await.expect("a frame").expect_err("no room for seconds");
    overloaded(refusal.downcast_ref::<Status>().expect("a status"));
}

/// One request of HTTP/1.1, answered.
async fn http(served: &Served, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(served.address).await.expect("it listens");
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("it answers");
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn a_long_answer_is_the_same_in_slices_and_everything_is_given_back() {
    let (served, mut queue, budget) = started().await;
    let sent = publish(200_000, 10);
    queue.publish(sent.clone()).await.expect("published");
    queue.publish(publish(10, 300)).await.expect("published");
    let seen = queue.peek(peek()).await.expect("seen").into_inner().deliveries;
    assert_eq!(seen.len(), 310);
    for (number, (seen, sent)) in seen.iter().zip(&sent.messages).enumerate() {
        assert!(seen.body == sent.body && seen.key == sent.key && seen.headers == sent.headers, "{number}");
        assert_eq!((seen.offset, seen.body_crc32c), (number as u64, crc32c::crc32c(&sent.body)));
    }
    let answer =
        http(&served, "/v1/topics/orders/peek", r#"{"messages_max": 1000, "bytes_max": 16777216}"#).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{}", &answer[..100]);
    assert_eq!(answer.matches("\"offset\":").count(), 310);
    assert!(answer.contains(&format!("\"body\":\"{}", "\\u0001".repeat(10))), "the second, escaped");
    assert_eq!(budget.used(), 0);
}

/// What a publish of these bytes holds when all of them have arrived, or why it is refused.
async fn arrived(path: &str, content: &[u8], cut: usize) -> Result<(usize, Arc<Ticket>, Budget), Status> {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(content.len()).expect("small"));
    frame.put(content);
    let budget = Budget::new(64 * MIB);
    let rules = Rules::of(path, &http::HeaderMap::new(), &Limits::default());
    let ticket = Ticket::new(&budget, &rules);
    let cuts = frame.chunks(cut).map(Bytes::copy_from_slice).collect();
    let mut body = Arriving::new(pieces(cuts), Arc::clone(&ticket), rules);
    while let Some(frame) = body.frame().await {
        frame.map_err(|error| error.downcast_ref::<Status>().expect("a status").clone())?;
    }
    drop(body);
    Ok((budget.used(), ticket, budget))
}

#[tokio::test]
async fn rule_10_2_tiny_messages_are_refused_by_their_number_before_they_are_decoded() {
    for path in ["/raftqueue.v1.Queue/Publish", "/raftqueue.v1.Queue/PublishStream"] {
        for cut in [1_000, usize::MAX] {
            // Four million empty messages: 136 bytes each in memory.
            let refusal = arrived(path, &[0x1a, 0].repeat(4_000_000), cut).await.expect_err("too many");
            assert_eq!(refusal.code(), Code::OutOfRange, "{refusal:?}");
            let detail = status::detail(&refusal).expect("every refusal has a detail");
            assert_eq!((detail.reason(), detail.outcome()), (v1::Reason::TooLarge, v1::Outcome::NotDone));
            assert!(refusal.message().contains("10001 is over the limit of 10000"), "{refusal:?}");
        }
    }
}

#[tokio::test]
async fn rule_10_2_a_batch_holds_what_it_becomes_when_it_is_decoded() {
    use prost::Message;
    let header = v1::Header { name: "n".into(), value: Bytes::from_static(b"v") };
    let batch = |messages, headers| {
        let message = v1::NewMessage { headers: vec![header.clone(); headers], ..Default::default() };
        v1::PublishRequest { topic: TOPIC.into(), session: None, messages: vec![message; messages] }
            .encode_to_vec()
    };
    for (messages, headers, held) in [
        (1_000, 64, 1_000 * 160 + 64_000 * 112),
        // The fullest: no more than what any call may hold, or it would never find room.
        (10_000, 64, Limits::default().call_bytes_max()),
    ] {
        let content = batch(messages, headers);
        assert!(content.len() < held / 5, "{} bytes", content.len());
        for cut in [999, usize::MAX] {
            let (used, ticket, budget) = arrived("/raftqueue.v1.Queue/PublishStream", &content, cut)
                .await
                .expect("it is within the limits");
            assert_eq!(used, held, "cut every {cut} bytes");
            drop(ticket.take_message().expect("one message"));
            assert_eq!(budget.used(), 0, "cut every {cut} bytes");
            let (used, ticket, budget) =
                arrived("/raftqueue.v1.Queue/Publish", &content, cut).await.expect("it is within the limits");
            assert_eq!(used, held, "cut every {cut} bytes");
            drop(ticket);
            assert_eq!(budget.used(), 0, "cut every {cut} bytes");
        }
    }
}

#[test]
fn rule_10_2_each_call_is_held_by_its_own_share() {
    let (headers, limits) = (http::HeaderMap::new(), Limits::default());
    let share = |method: &str| Rules::of(&format!("/raftqueue.v1.Queue/{method}"), &headers, &limits).share;
    for method in ["Ack", "Nack", "Extend", "Release", "Consume"] {
        assert_eq!(share(method), Share::Settling, "{method} makes room");
    }
    for method in ["Publish", "Receive", "Pop", "PurgeDead", "Unheard"] {
        assert_eq!(share(method), Share::Arriving, "{method}");
    }
    assert_eq!(share("PublishStream"), Share::Streams);
}
