//! The consumer against nodes in memory, over real sockets: nothing is lost, and nothing kept, whatever breaks.

use bytes::Bytes;
use raftqueue_client::{Client, Consumer, ConsumerSettings, Delivery, Outcome, Settled, v1};
use raftqueue_node::api::{
    Failure, LocalStatus, Method, NewMessage, Outcome as NodeOutcome, Publish, Reason, Request, Role, Settle,
    Settlement,
};
use raftqueue_node::edges::gate::Call;
use raftqueue_node::edges::service::Service;
use raftqueue_node::fake::{FakeNode, Served, leading};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Duration;
use tokio::time::timeout;

const TOPIC: &str = "orders";
/// How long a test waits for what must not come.
const A_WHILE: Duration = Duration::from_millis(100);
/// How long a test waits at most for what must come: far longer than it takes, so that a mistake fails and does not hang.
const AT_MOST: Duration = Duration::from_secs(60);
const DONE: Settled = Settled { done: 1, stale: 0 };

async fn with_messages(count: usize) -> (Served, Client) {
    let served = Served::start(FakeNode::default()).await;
    let client = Client::connect([served.endpoint()]).expect("addresses");
    let create = v1::CreateTopicRequest { topic: TOPIC.into(), ..Default::default() };
    client.create_topic(create).await.expect("created");
    publish(&client, 0..count).await;
    (served, client)
}

async fn publish(client: &Client, numbers: std::ops::Range<usize>) {
    let message = |number: usize| v1::NewMessage { body: number.to_string().into(), ..Default::default() };
    for batch in numbers.collect::<Vec<_>>().chunks(1_000) {
        let messages = batch.iter().map(|number| message(*number)).collect();
        let request = v1::PublishRequest { topic: TOPIC.into(), session: None, messages };
        client.publish(request).await.expect("published");
    }
}

fn small(credit_messages: usize) -> ConsumerSettings {
    ConsumerSettings { credit_messages, ..ConsumerSettings::default() }
}

fn number(delivery: &Delivery) -> usize {
    String::from_utf8_lossy(&delivery.body).parse().expect("a number")
}

/// Ready, leased and dead messages.
async fn depth(client: &Client) -> (u64, u64, u64) {
    let describe = v1::DescribeTopicRequest { topic: TOPIC.into() };
    let topic = client.describe_topic(describe).await.expect("described").topic.expect("a topic");
    let default = &topic.subscriptions[0];
    (default.ready, default.leased, default.dead)
}

fn calls(served: &Served, is_wanted: impl Fn(&Request) -> bool) -> usize {
    served.node.calls().iter().filter(|call| is_wanted(call)).count()
}

fn no_leader() -> Failure {
    Failure::not_done(Reason::NoLeader, "no leader").retry_after_ms(1)
}

fn lost() -> Failure {
    Failure { outcome: NodeOutcome::Unknown, ..no_leader() }
}

/// Waits for something that comes.
async fn until(what: &str, has_come: impl AsyncFn() -> bool) {
    let waiting = async {
        while !has_come().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(AT_MOST, waiting).await.unwrap_or_else(|_| panic!("not within {AT_MOST:?}: {what}"));
}

/// Receives and acknowledges until every number below `count` was seen.
async fn consume_all(consumer: &mut Consumer, count: usize) -> Vec<usize> {
    let mut seen = Vec::new();
    let mut distinct = BTreeSet::new();
    while distinct.len() < count {
        let delivery = timeout(AT_MOST, consumer.receive()).await;
        let delivery =
            delivery.unwrap_or_else(|_| panic!("nothing more comes after {seen:?}")).expect("received");
        seen.push(number(&delivery));
        distinct.insert(number(&delivery));
        drop(delivery.ack());
    }
    seen
}

#[tokio::test]
async fn every_message_is_seen_once_in_order_and_acknowledged_in_few_calls() {
    let (served, client) = with_messages(5_000).await;
    let mut consumer = client.consumer(TOPIC);
    assert_eq!(consume_all(&mut consumer, 5_000).await, (0..5_000).collect::<Vec<_>>());
    consumer.close().await.expect("closed");
    assert_eq!(depth(&client).await, (0, 0, 0));
    let acks = calls(&served, |call| call.method() == Method::Ack);
    assert!(acks < 1_000, "{acks} calls for 5,000 acknowledgements");
}

#[tokio::test]
async fn a_consumer_waits_for_messages_and_has_them_at_once() {
    let (_served, client) = with_messages(0).await;
    let mut consumer = client.consumer(TOPIC);
    assert!(timeout(A_WHILE, consumer.receive()).await.is_err(), "there is nothing");
    publish(&client, 0..3).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(consumer.receive_many(2).await.expect("received"));
    }
    assert_eq!(seen.iter().map(number).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(consumer.ack_all(seen).await.expect("answered"), Settled { done: 3, stale: 0 });
    assert_eq!(depth(&client).await, (0, 0, 0));
}

#[tokio::test]
async fn settling_does_what_it_says() {
    let (_served, client) = with_messages(4).await;
    // No more than these four, so that what is returned stays to be looked at.
    let mut consumer = client.consumer_with(TOPIC, small(4)).expect("good settings");
    let mut next = async || consumer.receive().await.expect("received");
    let (acked, nacked, released, dropped) = (next().await, next().await, next().await, next().await);
    assert_eq!(acked.ack().await, Ok(DONE));
    assert_eq!(nacked.nack(Duration::ZERO, "why").await, Ok(DONE));
    assert_eq!(released.release().await, Ok(DONE));
    drop(dropped);
    let mut again = Vec::new();
    while again.len() < 3 {
        let delivery = consumer.receive().await.expect("received");
        again.push((number(&delivery), delivery.attempts));
        delivery.ack().await.expect("answered");
    }
    again.sort_unstable();
    assert_eq!(again, [(1, 1), (2, 0), (3, 1)], "dropping is failing, releasing is not");
}

#[tokio::test]
async fn an_acknowledgement_that_comes_too_late_is_told() {
    let (_served, client) = with_messages(2).await;
    let mut consumer = client.consumer(TOPIC);
    let (first, second) = (consumer.receive().await.expect("one"), consumer.receive().await.expect("two"));
    // Somebody else has it by now.
    let lease = vec![first.lease.clone()];
    let release = v1::ReleaseRequest { topic: TOPIC.into(), leases: lease, ..Default::default() };
    client.release(release).await.expect("released");
    let settled = consumer.ack_all([first, second]).await.expect("answered");
    assert_eq!((settled, settled.is_done()), (Settled { done: 1, stale: 1 }, false));
}

#[tokio::test]
async fn a_consumer_that_never_settles_gets_no_more_than_its_credit() {
    let (_served, client) = with_messages(100).await;
    let mut consumer = client.consumer_with(TOPIC, small(10)).expect("good settings");
    let mut kept = Vec::new();
    for _ in 0..10 {
        kept.push(consumer.receive().await.expect("received"));
    }
    assert!(timeout(A_WHILE, consumer.receive()).await.is_err(), "the credit is used up");
    assert_eq!(depth(&client).await, (90, 10, 0));
    kept.pop().expect("ten").ack().await.expect("answered");
    assert_eq!(number(&consumer.receive().await.expect("room for one more")), 10);
}

#[tokio::test]
async fn bytes_are_credit_too() {
    let (_served, client) = with_messages(0).await;
    let big = || v1::NewMessage { body: vec![7; 1_000].into(), ..Default::default() };
    let messages = (0..20).map(|_| big()).collect();
    let request = v1::PublishRequest { topic: TOPIC.into(), session: None, messages };
    client.publish(request).await.expect("published");
    let settings = ConsumerSettings { credit_bytes: 2_500, ..ConsumerSettings::default() };
    let mut consumer = client.consumer_with(TOPIC, settings).expect("good settings");
    let mut kept = Vec::new();
    while let Ok(delivery) = timeout(A_WHILE, consumer.receive()).await {
        kept.push(delivery.expect("received"));
    }
    assert_eq!(kept.len(), 3, "the third is the one that exceeds it");
}

#[tokio::test]
async fn leases_are_extended_for_as_long_as_a_message_is_held_and_no_longer() {
    let (served, client) = with_messages(3).await;
    let settings =
        ConsumerSettings { lease: Duration::from_secs(1), credit_messages: 3, ..ConsumerSettings::default() };
    let mut consumer = client.consumer_with(TOPIC, settings).expect("good settings");
    let held = consumer.receive().await.expect("received");
    let done = consumer.receive().await.expect("received");
    let mine = consumer.receive().await.expect("received").into_inner();
    done.ack().await.expect("answered");
    let extended = || {
        let calls = served.node.calls().into_iter();
        let leases = calls.filter_map(|call| match call {
            Request::Settle(Settle { leases, settlement: Settlement::Extend { .. }, .. }) => {
                Some(leases.into_iter().map(|lease| lease.message.offset))
            }
            _ => None,
        });
        leases.flatten().collect::<Vec<_>>()
    };
    until("three in each lease of a second", async || extended().len() >= 3).await;
    assert!(extended().iter().all(|offset| *offset == held.offset), "{:?}", extended());
    assert_ne!(mine.offset, held.offset);
}

#[tokio::test]
async fn what_another_has_by_now_is_not_handed_out() {
    let (served, client) = with_messages(2).await;
    let settings =
        ConsumerSettings { lease: Duration::from_secs(1), credit_messages: 2, ..ConsumerSettings::default() };
    let mut consumer = client.consumer_with(TOPIC, settings).expect("good settings");
    let first = consumer.receive().await.expect("received");
    // The second is in the buffer. Both leases end, and another consumer gets them.
    let receive = v1::ReceiveRequest { topic: TOPIC.into(), messages_max: 9, ..Default::default() };
    served.node.end_leases(TOPIC);
    let others = client.receive(receive).await.expect("answered").deliveries;
    assert_eq!(others.len(), 2);
    let is_extended = || calls(&served, |call| call.method() == Method::Extend) > 0;
    until("the lease is extended", async || is_extended()).await;
    // Answers come in order: the extension's is known with this one.
    assert_eq!(first.ack().await, Ok(Settled { done: 0, stale: 1 }));
    assert!(timeout(A_WHILE, consumer.receive()).await.is_err(), "it is not ours any more");
}

#[tokio::test]
async fn closing_settles_what_was_settled_and_gives_the_rest_back() {
    let (_served, client) = with_messages(1_000).await;
    let mut consumer = client.consumer_with(TOPIC, small(500)).expect("good settings");
    for _ in 0..200 {
        drop(consumer.receive().await.expect("received").ack());
    }
    let held = consumer.receive().await.expect("received");
    consumer.close().await.expect("closed");
    assert_eq!(depth(&client).await, (800, 0, 0), "all at once, no lease has to end");
    let error = held.ack().await.expect_err("too late");
    assert_eq!(error.outcome, Outcome::NotDone, "{error}");
}

#[tokio::test]
async fn closing_gives_back_what_an_earlier_stream_brought() {
    let (served, client) = with_messages(1).await;
    let mut consumer = client.consumer(TOPIC);
    let held = consumer.receive().await.expect("received");
    let address = served.address;
    let node = served.stop().await;
    let served = Served::start_at(node, address).await;
    let client = Client::connect([served.endpoint()]).expect("addresses");
    publish(&client, 1..2).await;
    let of_the_new_stream = consumer.receive().await.expect("received");
    assert_eq!((number(&held), number(&of_the_new_stream)), (0, 1));
    consumer.close().await.expect("closed");
    assert_eq!(depth(&client).await, (2, 0, 0));
}

#[tokio::test]
async fn a_message_that_is_taken_out_keeps_its_lease_when_the_consumer_closes() {
    let (_served, client) = with_messages(3).await;
    let mut consumer = client.consumer_with(TOPIC, small(3)).expect("good settings");
    let mine = consumer.receive().await.expect("received").into_inner();
    consumer.close().await.expect("closed");
    assert_eq!(depth(&client).await, (2, 1, 0));
    let ack = v1::AckRequest { topic: TOPIC.into(), leases: vec![mine.lease], ..Default::default() };
    let done = client.ack(ack).await.expect("answered").results;
    assert_eq!(done, [i32::from(v1::LeaseResult::Done)]);
}

#[tokio::test]
async fn the_text_of_any_error_can_be_the_reason_of_a_nack() {
    let (served, client) = with_messages(1).await;
    let mut consumer = client.consumer(TOPIC);
    let failed = consumer.receive().await.expect("received");
    // 255 bytes are followed by the two of an umlaut.
    let text = format!("{}{}", "x".repeat(255), "ä".repeat(100));
    assert_eq!(failed.nack(Duration::MAX, text).await, Ok(DONE));
    let reasons: Vec<_> = served
        .node
        .calls()
        .into_iter()
        .filter_map(|call| match call {
            Request::Settle(Settle { settlement: Settlement::Nack { reason, .. }, .. }) => Some(reason),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, ["x".repeat(255)]);
}

#[tokio::test]
async fn dropping_a_consumer_gives_back_too() {
    let (_served, client) = with_messages(50).await;
    let mut consumer = client.consumer(TOPIC);
    drop(consumer.receive().await.expect("received").ack());
    drop(consumer);
    until("the rest is given back", async || depth(&client).await == (49, 0, 0)).await;
}

#[tokio::test]
async fn answers_that_are_lost_and_leaders_that_go_lose_nothing() {
    let (served, client) = with_messages(2_000).await;
    let mut consumer = client.consumer_with(TOPIC, small(50)).expect("good settings");
    let mut seen = BTreeSet::new();
    let mut attempts = 0;
    while seen.len() < 2_000 {
        let delivery = match timeout(Duration::from_secs(1), consumer.receive()).await {
            Ok(delivery) => delivery.expect("received"),
            // A receive whose answer was lost has leased messages to nobody; their leases end.
            Err(_) => {
                served.node.end_leases(TOPIC);
                continue;
            }
        };
        attempts += 1;
        if attempts % 97 == 0 {
            served.node.lose_next_answer(lost());
        }
        if attempts % 61 == 0 {
            served.node.fail_next(no_leader());
        }
        seen.insert(number(&delivery));
        drop(delivery.ack());
    }
    consumer.close().await.expect("closed");
    served.node.end_leases(TOPIC);
    let left = depth(&client).await;
    assert!(left.0 <= 100 && left.1 == 0, "only what was lost on the way to the consumer: {left:?}");
}

#[tokio::test]
async fn a_leader_that_goes_in_the_middle_of_a_batch_costs_nothing() {
    let (served, client) = with_messages(300).await;
    let mut consumer = client.consumer_with(TOPIC, small(300)).expect("good settings");
    let mut seen = Vec::new();
    let mut settlements = Vec::new();
    for _ in 0..100 {
        let delivery = consumer.receive().await.expect("received");
        seen.push(number(&delivery));
        settlements.push(delivery.ack());
    }
    let address = served.address;
    let node = served.stop().await;
    // What was received is still leased: work goes on meanwhile.
    for _ in 0..100 {
        let delivery = consumer.receive().await.expect("in the buffer");
        seen.push(number(&delivery));
        settlements.push(delivery.ack());
    }
    let _served = Served::start_at(node, address).await;
    for settlement in settlements {
        let settled = timeout(Duration::from_secs(10), settlement).await.expect("sent again");
        assert_eq!(settled, Ok(DONE));
    }
    seen.extend(consume_all(&mut consumer, 100).await);
    consumer.close().await.expect("closed");
    assert_eq!(seen, (0..300).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(depth(&client).await, (0, 0, 0));
}

#[tokio::test]
async fn a_consumer_that_waits_has_its_credit_again_on_the_next_node() {
    let (served, client) = with_messages(0).await;
    let mut consumer = client.consumer(TOPIC);
    assert!(timeout(A_WHILE, consumer.receive()).await.is_err(), "all of the credit is with the node");
    let address = served.address;
    let node = served.stop().await;
    let served = Served::start_at(node, address).await;
    // A client without a connection that broke: outside a session that would be an unknown outcome.
    let client = Client::connect([served.endpoint()]).expect("addresses");
    publish(&client, 0..3).await;
    assert_eq!(consume_all(&mut consumer, 3).await, [0, 1, 2], "the new stream has credit too");
}

#[tokio::test]
async fn all_nodes_may_be_down_for_a_minute() {
    let (served, client) = with_messages(20).await;
    let mut consumer = client.consumer_with(TOPIC, small(10)).expect("good settings");
    let first = consumer.receive().await.expect("received");
    let address = served.address;
    let node = served.stop().await;
    let settlement = first.ack();
    // The minute passes in no time, with all the attempts to connect that belong into it.
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(60)).await;
    tokio::time::resume();
    let _served = Served::start_at(node, address).await;
    let settled = timeout(AT_MOST, settlement).await.expect("sent to the node that is there again");
    assert_eq!(settled, Ok(DONE));
    let seen: Vec<_> = consume_all(&mut consumer, 19).await;
    assert_eq!(seen, (1..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn when_nobody_is_there_for_too_long_it_is_told_and_goes_on_after() {
    let (served, client) = with_messages(3).await;
    let settings = ConsumerSettings {
        timeout: Duration::from_millis(300),
        credit_messages: 1,
        ..ConsumerSettings::default()
    };
    let mut consumer = client.consumer_with(TOPIC, settings).expect("good settings");
    let first = consumer.receive().await.expect("received");
    let address = served.address;
    let node = served.stop().await;
    consumer.receive().await.expect_err("nobody is there");
    let settlement = first.ack();
    let error = settlement.await.expect_err("nobody is there");
    assert_eq!(error.outcome, Outcome::NotDone, "it was never sent: {error}");
    let _served = Served::start_at(node, address).await;
    let next = async {
        loop {
            // It may be told once more before the node is there again.
            if let Ok(delivery) = consumer.receive().await {
                return delivery;
            }
        }
    };
    let next = timeout(AT_MOST, next).await.expect("it goes on");
    assert_eq!(number(&next), 1);
    assert_eq!(next.ack().await, Ok(DONE));
}

#[tokio::test]
async fn the_leader_is_asked_directly_and_a_stale_hint_does_no_harm() {
    let (follower, client) = with_messages(2).await;
    let (leader, leader_client) = with_messages(0).await;
    publish(&leader_client, 100..102).await;
    let following =
        |address: String| LocalStatus { role: Role::Follower, leader_address: Some(address), ..leading() };

    // Nobody listens where the hint says: the endpoint passes calls on.
    let dead = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    follower.node.set_status(following(dead.to_string()));
    let mut consumer = client.consumer_with(TOPIC, small(1)).expect("good settings");
    let first = consumer.receive().await.expect("received");
    assert_eq!((number(&first), first.ack().await), (0, Ok(DONE)));
    consumer.close().await.expect("closed");

    // A hint that is true is followed; when that leader goes the endpoint is there again.
    follower.node.set_status(following(leader.endpoint()));
    let mut consumer = client.consumer_with(TOPIC, small(1)).expect("good settings");
    let delivery = consumer.receive().await.expect("received");
    assert_eq!((number(&delivery), delivery.ack().await), (100, Ok(DONE)));
    follower.node.set_status(leading());
    leader.stop().await;
    let seen = async {
        loop {
            let delivery = consumer.receive().await.expect("received");
            if number(&delivery) < 100 {
                return number(&delivery);
            }
        }
    };
    assert_eq!(timeout(AT_MOST, seen).await, Ok(1));
}

#[tokio::test]
async fn a_refusal_that_does_not_pass_ends_the_consumer_and_is_told_each_time() {
    let (_served, client) = with_messages(0).await;
    let mut consumer = client.consumer("nothing-here");
    for _ in 0..2 {
        let error = consumer.receive().await.expect_err("no such topic");
        assert_eq!(error.reason, v1::Reason::TopicNotFound, "{error}");
    }
    assert!(consumer.close().await.is_err());
}

#[tokio::test]
async fn settings_out_of_range_are_named() {
    let (_served, client) = with_messages(0).await;
    for (settings, expected) in [
        (small(0), "credit_messages must be 1 to 10000, not 0"),
        (
            ConsumerSettings { credit_bytes: 0, ..ConsumerSettings::default() },
            "credit_bytes must be 1 to 1073741824, not 0",
        ),
        (
            ConsumerSettings { lease: Duration::from_millis(3), ..ConsumerSettings::default() },
            "lease must be 1 second to 12 hours, not 3ms",
        ),
        (
            ConsumerSettings { hold: Duration::from_secs(86_400), ..ConsumerSettings::default() },
            "hold must be at most 12 hours, not 86400s",
        ),
        (
            ConsumerSettings { timeout: Duration::ZERO, ..ConsumerSettings::default() },
            "timeout must be 1 millisecond or more, not 0ns",
        ),
    ] {
        let error = client.consumer_with(TOPIC, settings).expect_err("out of range");
        assert_eq!(error.text, expected);
    }
}

#[tokio::test]
async fn a_damaged_message_takes_no_other_with_it() {
    let (served, client) = with_messages(0).await;
    let message = |number: usize, damage: u32| {
        let body = Bytes::from(number.to_string());
        NewMessage { body_crc: crc32c::crc32c(&body) ^ damage, body, ..Default::default() }
    };
    let messages = vec![message(0, 0), message(1, 1), message(2, 0)];
    let publish = Request::Publish(Publish { topic: TOPIC.into(), session: None, messages });
    served.node.call(Call::own(publish, AT_MOST)).await.expect("published");
    let mut consumer = client.consumer(TOPIC);
    for expected in [0, 2] {
        let delivery = timeout(AT_MOST, consumer.receive()).await.expect("in time").expect("received");
        assert_eq!(number(&delivery), expected);
        delivery.ack().await.expect("answered");
    }
    // This node knows no delays, so it has used up its attempts soon.
    until("only what is damaged is left", async || depth(&client).await == (0, 0, 1)).await;
    let dead =
        v1::PeekRequest { topic: TOPIC.into(), state: v1::MessageState::Dead.into(), ..Default::default() };
    let dead = client.peek(dead).await.expect("peeked").deliveries;
    assert_eq!(dead[0].dead_reason, "damaged on the way to its consumer");
}
