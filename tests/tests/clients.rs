//! The Rust client against real node processes whose leaders are killed: what one hands over, another sees, once stored
//! and in order, without either knowing of leaders.

use raftqueue_client::{Client, ConsumerSettings, v1};
use raftqueue_tests::process::{Cluster, PATIENCE};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;

const TOPIC: &str = "orders";
/// Leaders killed.
const KILLS: usize = 3;
/// Messages that must be acknowledged between two of them.
const BETWEEN: u64 = 500;
/// So far the publisher may be ahead of the consumer: on a busy machine it would be by a hundred thousand else, and all of them must be
/// seen.
const AHEAD_MAX: u64 = 5_000;

async fn reaches(counter: &AtomicU64, wanted: u64, cluster: &Cluster) {
    let waiting = async {
        while counter.load(Ordering::Relaxed) < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(PATIENCE, waiting).await.is_err() {
        panic!("{} of {wanted}:\n{}", counter.load(Ordering::Relaxed), cluster.logs());
    }
}

/// Publishes numbers from 0 on until it is told to stop. All of them must be acknowledged. Returns how many.
async fn publish(
    client: Client,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    seen: Arc<AtomicU64>,
) -> u64 {
    let publisher = client.publisher(TOPIC).await.expect("a session");
    let (sent, mut answers) = tokio::sync::mpsc::channel(256);
    let listening = tokio::spawn(async move {
        while let Some(answer) = answers.recv().await {
            let answer: raftqueue_client::Acknowledgement = answer;
            answer.await.expect("acknowledged, whoever leads");
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        if number > seen.load(Ordering::Relaxed) + AHEAD_MAX {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let message = v1::NewMessage { body: number.to_string().into(), ..Default::default() };
        let answer = publisher.send(message).await.expect("handed over");
        sent.send(answer).await.expect("the listener listens");
        number += 1;
    }
    drop(sent);
    listening.await.expect("every message was acknowledged");
    publisher.close().await;
    number
}

/// What a consumer has seen: of each number, where it is stored.
#[derive(Default)]
struct Seen {
    offsets: BTreeMap<u64, u64>,
    /// Greatest number so far.
    newest: Option<u64>,
}

impl Seen {
    /// Until streams break messages come in order. What was on its way then comes again later, also where it never reached
    /// the client, and so did not count as an attempt.
    fn take(&mut self, delivery: &v1::Delivery, is_undisturbed: bool) {
        let number: u64 = String::from_utf8_lossy(&delivery.body).parse().expect("a number");
        let offset = *self.offsets.entry(number).or_insert(delivery.offset);
        assert_eq!(offset, delivery.offset, "{number} is stored twice");
        if is_undisturbed {
            assert!(self.newest < Some(number), "{number} comes after {:?}", self.newest);
        }
        self.newest = self.newest.max(Some(number));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publisher_and_consumer_go_through_killed_leaders() {
    let mut cluster = Cluster::started(3);
    let endpoints: Vec<String> = (0..3).map(|node| format!("127.0.0.1:{}", cluster.ports(node).0)).collect();
    let client = Client::connect(endpoints).expect("addresses");
    let create = v1::CreateTopicRequest { topic: TOPIC.into(), ..Default::default() };
    client.clone().with_timeout(PATIENCE).create_topic(create).await.expect("created");

    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let seen_count = Arc::new(AtomicU64::new(0));
    let publishing = tokio::spawn(publish(
        client.independent(),
        Arc::clone(&stop),
        Arc::clone(&acknowledged),
        Arc::clone(&seen_count),
    ));
    let (seen_so_far, wanted, own) =
        (Arc::clone(&seen_count), Arc::new(AtomicU64::new(u64::MAX)), client.independent());
    let until = Arc::clone(&wanted);
    let undisturbed = Arc::new(AtomicBool::new(true));
    let is_undisturbed = Arc::clone(&undisturbed);
    let consuming = tokio::spawn(async move {
        // Short leases: one that a killed leader gave to nobody comes back soon.
        let settings = ConsumerSettings { lease: Duration::from_secs(2), ..ConsumerSettings::default() };
        let mut consumer = own.consumer_with(TOPIC, settings).expect("good settings");
        let mut seen = Seen::default();
        while (seen.offsets.len() as u64) < until.load(Ordering::Relaxed) {
            // The wish may become known while nothing comes.
            let Ok(delivery) = timeout(Duration::from_millis(50), consumer.receive()).await else { continue };
            let delivery = delivery.expect("some node goes on");
            seen.take(&delivery, is_undisturbed.load(Ordering::Relaxed));
            seen_so_far.store(seen.offsets.len() as u64, Ordering::Relaxed);
            drop(delivery.ack());
        }
        consumer.close().await.expect("everything is settled");
        seen
    });

    for _ in 0..KILLS {
        reaches(&acknowledged, acknowledged.load(Ordering::Relaxed) + BETWEEN, &cluster).await;
        reaches(&seen_count, seen_count.load(Ordering::Relaxed) + 1, &cluster).await;
        let leader = cluster.leader();
        undisturbed.store(false, Ordering::Relaxed);
        cluster.kill(leader);
        cluster.start(leader);
    }
    reaches(&acknowledged, acknowledged.load(Ordering::Relaxed) + BETWEEN, &cluster).await;
    stop.store(true, Ordering::Relaxed);
    let published =
        timeout(PATIENCE, publishing).await.expect("all is acknowledged").expect("no rule is broken");
    wanted.store(published, Ordering::Relaxed);
    reaches(&seen_count, published, &cluster).await;
    let seen = timeout(PATIENCE, consuming).await.expect("closing ends").expect("no rule is broken");
    assert!(seen.offsets.keys().copied().eq(0..published), "none is missing, none was not sent");

    let describe = v1::DescribeTopicRequest { topic: TOPIC.into() };
    let topic = client.describe_topic(describe).await.expect("described").topic.expect("a topic");
    let default = &topic.subscriptions[0];
    assert_eq!((default.ready, default.leased, default.delayed, default.dead), (0, 0, 0, 0));
    println!("{KILLS} leaders killed: {published} published and seen, each stored once");
}
