//! More than a cluster can take: producers that are faster than its disks, and a consumer that never acknowledges.
//! Memory stays within bounds that can be added up, everybody gets an answer, nothing is lost.

use raftqueue_client::{Acknowledgement, Client, ConsumerSettings, Outcome, PublisherSettings, v1};
use raftqueue_tests::process::{CALM, Cluster, PATIENCE};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const PRODUCERS: u64 = 24;
const BODY_BYTES: usize = 64 << 10;
/// Of each producer: all together are more than any node may have in memory.
const MESSAGES_MIN: u64 = 500;
/// What a leader takes that cannot commit: calls that wait to be proposed, and entries that wait to be committed.
const TAKEN_BYTES_MAX: u64 = (64 + 64) * MIB;
/// What a publish stream may have without an answer.
const STREAM_BYTES_MAX: u64 = 8 * MIB;
// Streams stop by themselves: were they stopped before the leader is full, nobody would be refused.
const _: () = assert!(PRODUCERS * STREAM_BYTES_MAX >= TAKEN_BYTES_MAX * 3 / 2);
const _: () = assert!(PRODUCERS * MESSAGES_MIN * BODY_BYTES as u64 > NODE_BYTES_MAX);
/// An election timeout far above how long nothing can be committed: until somebody was refused, which takes a slow machine
/// longer.
const LEADS_ON: [&str; 2] = ["--election-timeout-ms", "30000"];
/// How long that may take: less than a leader leads on without hearing of anybody.
const STALL_MAX: Duration = Duration::from_secs(20);

/// What a node may have in memory, whatever its producers do:
/// calls that wait to be proposed, entries that wait to be committed or are kept for followers, the newest bodies,
/// what each stream has read, what each connection may have sent unread, and the process itself.
const NODE_BYTES_MAX: u64 =
    TAKEN_BYTES_MAX + (32 + 64) * MIB + PRODUCERS * (STREAM_BYTES_MAX + 8 * MIB) + 64 * MIB;

/// Publishes numbers from 0 on until told to stop, but [`MESSAGES_MIN`] at least. All must be acknowledged, however long that takes; returns how many.
async fn publish(client: Client, producer: u64, stop: Arc<AtomicBool>) -> u64 {
    let settings = PublisherSettings {
        window: 256,
        batch_messages: 1,
        buffer_bytes: 10 << 20,
        timeout: Duration::from_secs(300),
        ..PublisherSettings::default()
    };
    let publisher = client.publisher_with("t", settings).await.expect("a session");
    let (sent, mut answers) = tokio::sync::mpsc::channel::<Acknowledgement>(1_024);
    let listening = tokio::spawn(async move {
        while let Some(answer) = answers.recv().await {
            answer.await.expect("acknowledged in the end");
        }
    });
    let mut number = 0;
    while number < MESSAGES_MIN || !stop.load(Ordering::Relaxed) {
        let mut body = format!("{producer} {number} ").into_bytes();
        body.resize(BODY_BYTES, b'.');
        let message = v1::NewMessage { body: body.into(), ..Default::default() };
        sent.send(publisher.send(message).await.expect("handed over")).await.expect("somebody listens");
        number += 1;
    }
    drop(sent);
    listening.await.expect("everything was acknowledged");
    publisher.close().await;
    number
}

/// A message of somebody who does not wait. It has no number: whether it is stored, nobody was told.
fn unnumbered() -> v1::NewMessage {
    v1::NewMessage { body: vec![b'x'; 512 << 10].into(), ..Default::default() }
}

/// Every numbered message of the topic: how often each producer's numbers stand there.
async fn stored(client: &Client) -> BTreeMap<(u64, u64), u64> {
    let mut stored = BTreeMap::new();
    let unnumbered = unnumbered().body;
    let mut from_offset = 0;
    loop {
        let request = v1::PeekRequest {
            topic: "t".into(),
            from_offset,
            messages_max: 1_000,
            bytes_max: 2 << 20,
            ..Default::default()
        };
        let deliveries = client.peek(request).await.expect("readable").deliveries;
        let Some(last) = deliveries.last() else { return stored };
        from_offset = last.offset + 1;
        for delivery in deliveries.iter().filter(|delivery| delivery.body != unnumbered) {
            let text = String::from_utf8_lossy(&delivery.body);
            let numbers: Vec<u64> = text.split(' ').take(2).map_while(|word| word.parse().ok()).collect();
            *stored.entry((numbers[0], numbers[1])).or_default() += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_faster_than_the_disks_wait_or_are_refused_and_nothing_is_lost() {
    let mut cluster = Cluster::new(3).with_operations().with_arguments(&LEADS_ON);
    cluster.start_all();
    let leader = cluster.leader();
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    let client = Client::connect([format!("127.0.0.1:{}", cluster.ports(leader).0)]).expect("an address");
    let create = v1::CreateTopicRequest { topic: "t".into(), ..Default::default() };
    client.create_topic(create).await.expect("created");
    // What happens to those without an answer by chance only.
    let publish_unnumbered =
        v1::PublishRequest { topic: "t".into(), session: None, messages: vec![unnumbered()] };
    client.publish(publish_unnumbered.clone()).await.expect("stored");

    let stop = Arc::new(AtomicBool::new(false));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| tokio::spawn(publish(client.independent(), producer, Arc::clone(&stop))))
        .collect();
    let mut refused = Vec::new();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for follower in followers {
            cluster.signal(follower, "STOP");
        }
        // Meanwhile whoever does not wait is told when to come back.
        let stalled = Instant::now();
        let impatient = client.independent().with_timeout(Duration::from_millis(300));
        loop {
            let error = impatient.publish(publish_unnumbered.clone()).await.err();
            let is_told = error.as_ref().is_some_and(|error| error.reason == v1::Reason::Overloaded);
            refused.extend(error);
            if is_told {
                break;
            }
            assert!(stalled.elapsed() < STALL_MAX, "nobody is refused: {refused:?}\n{}", cluster.logs());
        }
        for follower in followers {
            cluster.signal(follower, "CONT");
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let mut published = BTreeMap::new();
    for (number, producer) in producers.into_iter().enumerate() {
        let count = producer.await.expect("no producer is told anything wrong");
        published.extend((0..count).map(|message| ((number as u64, message), 1)));
    }

    // A producer that did not wait was told what to do.
    let overloaded = refused.iter().filter(|error| error.reason == v1::Reason::Overloaded);
    assert!(overloaded.clone().count() > 0, "nobody was refused: {refused:?}");
    for error in overloaded {
        assert_eq!(error.outcome, Outcome::NotDone, "{error:?}");
        assert!(error.retry_after_ms.is_some_and(|ms| ms > 0), "{error:?}");
        assert!(error.text.contains("the disks are slower than the producers"), "{error:?}");
    }
    // Whoever waited has each message stored once.
    let found = stored(&client.clone().with_timeout(PATIENCE)).await;
    let missing: Vec<_> = published.iter().filter(|(message, _)| !found.contains_key(message)).collect();
    assert!(missing.is_empty(), "acknowledged and not stored: {missing:?}");
    assert_eq!(found, published, "something is stored twice, or nobody was told of it");
    // No node held more than can be added up.
    for node in 0..3 {
        let peak = cluster.peak_bytes(node);
        assert!(
            peak < NODE_BYTES_MAX,
            "node {node} had {} MiB, at most {}",
            peak / MIB,
            NODE_BYTES_MAX / MIB
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_never_acknowledges_gets_its_credit_and_no_more() {
    const LEASE: Duration = Duration::from_secs(3);
    /// How long it holds its messages before others get them.
    const HOLD: Duration = Duration::from_secs(9);
    /// How long it hears nothing more.
    const QUIET: Duration = Duration::from_secs(2);
    const CREDIT: usize = 10;
    const MESSAGES: usize = 100;
    // A stream that an election ends gives back what it was not sent, and that costs no attempt.
    let mut cluster = Cluster::new(3).with_arguments(&CALM);
    cluster.start_all();
    let leader = cluster.leader();
    let client = Client::connect([format!("127.0.0.1:{}", cluster.ports(leader).0)]).expect("an address");
    let create = v1::CreateTopicRequest { topic: "t".into(), ..Default::default() };
    client.create_topic(create).await.expect("created");
    let publisher = client.publisher("t").await.expect("a session");
    let all = (0..MESSAGES).map(|n| v1::NewMessage { body: n.to_string().into(), ..Default::default() });
    publisher.send_batch(all.collect()).await.expect("handed over").await.expect("acknowledged");

    // It takes what its credit allows. Then it gets nothing more, however long it waits.
    let settings =
        ConsumerSettings { credit_messages: CREDIT, lease: LEASE, hold: HOLD, ..ConsumerSettings::default() };
    let mut silent = client.independent().consumer_with("t", settings).expect("good settings");
    let mut held = Vec::new();
    while held.len() < CREDIT {
        let delivery = tokio::time::timeout(PATIENCE, silent.receive()).await.expect("in time");
        held.push(delivery.expect("delivered"));
    }
    let more = tokio::time::timeout(QUIET, silent.receive()).await;
    assert!(more.is_err(), "more than a credit of {CREDIT}: {more:?}");
    let describe = v1::DescribeTopicRequest { topic: "t".into() };
    let topic = client.describe_topic(describe).await.expect("described").topic.expect("a topic");
    assert_eq!(topic.subscriptions[0].leased, CREDIT as u64);

    // Everybody else goes on. When the silent one has held its messages for too long, others get those, too.
    let mut working = client.independent().consumer("t");
    let mut bodies = BTreeSet::new();
    let mut attempts = 0;
    while bodies.len() < MESSAGES {
        let delivery =
            tokio::time::timeout(PATIENCE, working.receive()).await.expect("in time").expect("delivered");
        attempts += delivery.attempts;
        bodies.insert(delivery.body.clone());
        assert!(delivery.ack().await.expect("heard").is_done());
    }
    assert_eq!(attempts as usize, CREDIT, "each message that was held too long counts one attempt");
    // The silent one speaks too late now, and still gets an answer.
    let late = silent.ack_all(held).await.expect("answered");
    assert_eq!(late.done + late.stale, CREDIT);
    working.close().await.expect("closed");
}
