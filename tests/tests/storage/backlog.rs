//! What messages that wait cost: memory, disk, what is written, a restart. All of them are there afterwards, in order.
//!
//! By default few wait, and nothing is measured. `RAFTQUEUE_BACKLOG=10000000` lets so many wait in each test, and prints what
//! they cost; that wants a quiet machine, `--release`, `--nocapture` and `--test-threads 1`.

use bytes::Bytes;
use raftqueue_client::{Client, ConsumerSettings, PublisherSettings, v1};
use raftqueue_tests::process::{Cluster, PATIENCE, env_number, series_value};
use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const SIZE: usize = 100;
const MIB: f64 = (1 << 20) as f64;
const BATCH: u64 = 64;
const FEW: u64 = 6_400;
const DAY_MS: u64 = 86_400_000;
/// How often one node is killed where it is measured.
const KILLS: usize = 10;

/// How messages came to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    Batches,
    Singles,
    /// Single ones of two topics, by turns.
    TwoTopics,
    /// In batches, each with a time to live.
    WithTtl,
    /// A tenth of them is dead, and a tenth was consumed behind these.
    ManyDead,
}

#[test]
fn a_backlog_of_batches() {
    measure(Pattern::Batches);
}

#[test]
fn a_backlog_of_single_messages() {
    measure(Pattern::Singles);
}

#[test]
fn a_backlog_of_two_topics_by_turns() {
    measure(Pattern::TwoTopics);
}

#[test]
fn a_backlog_of_messages_with_a_time_to_live() {
    measure(Pattern::WithTtl);
}

#[test]
fn a_backlog_behind_many_dead_messages() {
    measure(Pattern::ManyDead);
}

#[test]
fn a_backlog_that_a_node_gets_from_another() {
    let (mut backlog, count) = Backlog::started();
    Runtime::new().expect("a runtime").block_on(backlog.install(10 * count));
}

struct Backlog {
    cluster: Cluster,
    client: Client,
    /// Nothing is measured when it is short.
    is_measured: bool,
    /// What each node takes when nothing waits, in MiB.
    idle: Vec<f64>,
}

fn measure(pattern: Pattern) {
    let (mut backlog, count) = Backlog::started();
    Runtime::new().expect("a runtime").block_on(backlog.live(pattern, count));
}

impl Backlog {
    /// With the number of messages that are to wait.
    fn started() -> (Self, u64) {
        let count = env_number("RAFTQUEUE_BACKLOG");
        let arguments: &[&str] = if count.is_some() { &[] } else { &super::ARGUMENTS };
        let mut cluster = Cluster::new(3).with_operations().with_arguments(arguments);
        cluster.start_all();
        cluster.leader();
        let endpoints = (0..3).map(|node| format!("127.0.0.1:{}", cluster.ports(node).0));
        let client = Client::connect(endpoints).expect("addresses").with_timeout(10 * PATIENCE);
        let backlog = Self { cluster, client, is_measured: count.is_some(), idle: Vec::new() };
        (backlog, count.unwrap_or(FEW).next_multiple_of(10 * BATCH))
    }

    async fn live(&mut self, pattern: Pattern, count: u64) {
        if self.is_measured {
            println!("{pattern:?}: {count} messages of {SIZE} bytes");
            let batch = if matches!(pattern, Pattern::Singles | Pattern::TwoTopics) { 1 } else { BATCH };
            self.idle_after(count / 10, batch).await;
        }
        let begun = Instant::now();
        let written = self.written();
        let (topics, waiting): (&[&str], _) = match pattern {
            Pattern::TwoTopics => (&["t", "u"], count / 2),
            Pattern::ManyDead => (&["t"], count / 10 * 8),
            _ => (&["t"], count),
        };
        match pattern {
            Pattern::Batches => self.publish(topics, count, BATCH, None).await,
            Pattern::WithTtl => self.publish(topics, count, BATCH, Some(DAY_MS)).await,
            Pattern::Singles | Pattern::TwoTopics => self.publish(topics, count, 1, None).await,
            Pattern::ManyDead => {
                self.publish(topics, count / 10, BATCH, Some(1)).await;
                self.until_dead(count / 10).await;
                self.publish(topics, count / 10, BATCH, None).await;
                self.consume("t", count / 10).await;
                self.publish(topics, waiting, BATCH, None).await;
            }
        }
        if self.is_measured {
            let took = begun.elapsed();
            println!("published in {took:.1?}, {:.0}/s", count as f64 / took.as_secs_f64());
            let records = count as f64 * (SIZE + 4) as f64;
            let shares = self
                .written()
                .iter()
                .zip(&written)
                .map(|(now, then)| (now - then) / records)
                .collect::<Vec<_>>();
            println!("bytes handed to write calls, and written, per byte of records: {shares:.2?}");
            self.memory("after publishing");
            tokio::time::sleep(Duration::from_secs(15)).await;
            self.memory("15 s later");
            self.disk(records);
            for kill in 0..KILLS {
                self.restart(&[kill % 3], kill % 2 == 1).await;
            }
            self.restart(&[0, 1, 2], true).await;
        }
        self.restart(&[0, 1, 2], false).await;
        let (half, rest) = (waiting / 2, waiting - waiting / 2);
        for topic in topics {
            self.consume(topic, half).await;
        }
        if self.is_measured {
            self.memory("after consuming half");
        }
        if pattern == Pattern::ManyDead {
            self.one_more_dies(count / 10).await;
        }
        if pattern == Pattern::Batches || pattern == Pattern::Singles {
            self.purge(rest).await;
        } else {
            for topic in topics {
                self.consume(topic, rest).await;
            }
        }
        for topic in topics {
            let left = self.subscription(topic).await;
            assert_eq!((left.ready, left.leased), (0, 0), "{topic}");
            assert_eq!(left.dead, if pattern == Pattern::ManyDead { count / 10 + 1 } else { 0 });
        }
        if self.is_measured {
            tokio::time::sleep(Duration::from_secs(25)).await;
            self.memory("25 s after the last");
            self.disk(0.0);
        }
    }

    /// A message with a time to live dies in its time, whatever died before.
    async fn one_more_dies(&self, dead: u64) {
        const TTL: Duration = Duration::from_secs(2);
        let cpu =
            |backlog: &Self| (0..3).map(|node| cpu_seconds(backlog.cluster.pid(node))).collect::<Vec<_>>();
        if self.is_measured {
            const IDLE: Duration = Duration::from_secs(10);
            let before = cpu(self);
            tokio::time::sleep(IDLE).await;
            let shares: Vec<_> =
                cpu(self).iter().zip(before).map(|(now, then)| (now - then) / IDLE.as_secs_f64()).collect();
            println!("with {dead} dead ones an idle node uses {shares:.3?} of a core");
        }
        self.publish(&["t"], 1, 1, Some(TTL.as_millis() as u64)).await;
        let published = Instant::now();
        self.until_dead(dead + 1).await;
        if self.is_measured {
            println!("a new one died {:.2?} after its time", published.elapsed().saturating_sub(TTL));
        }
    }

    /// A node is away until nobody's log reaches back so far.
    async fn install(&mut self, count: u64) {
        self.publish(&["t"], BATCH, BATCH, None).await;
        let away = (self.cluster.leader() + 1) % 3;
        self.cluster.kill(away);
        self.publish(&["t"], count - BATCH, BATCH, None).await;
        self.cluster.start(away);
        let begun = Instant::now();
        self.cluster.reaches(away, super::installs::INSTALLED, |bytes| bytes > 0.0);
        self.cluster.reaches(away, super::installs::INCOMPLETE, |incomplete| incomplete < 0.5);
        let (took, bytes) = (begun.elapsed(), self.cluster.metric(away, super::installs::INSTALLED));
        if self.is_measured {
            println!("{:.0} MiB of {count} messages came in {took:.1?} from its start on", bytes / MIB);
        }
        self.consume("t", count).await;
    }

    /// Notes what a node takes that has nothing, and that so many messages have gone through.
    async fn idle_after(&mut self, messages: u64, batch: u64) {
        let resident =
            |backlog: &Self| (0..3).map(|node| resident(backlog.cluster.pid(node))).collect::<Vec<_>>();
        println!("a new node takes {:.0?} MiB", resident(self));
        self.publish(&["warm"], messages, batch, None).await;
        self.consume("warm", messages).await;
        tokio::time::sleep(Duration::from_secs(15)).await;
        self.idle = resident(self);
        println!("after {messages} messages it takes {:.0?} MiB", self.idle);
        for node in 0..3 {
            self.cluster.forget_peak(node);
        }
    }

    async fn publish(&self, topics: &[&str], count: u64, batch: u64, ttl_ms: Option<u64>) {
        let mut publishers = Vec::new();
        for topic in topics {
            let request = v1::CreateTopicRequest { topic: (*topic).into(), ..Default::default() };
            // It may be there already.
            let _ = self.client.create_topic(request).await;
            let settings = PublisherSettings {
                window: 512,
                batch_messages: batch as usize,
                timeout: 10 * PATIENCE,
                ..PublisherSettings::default()
            };
            publishers.push(self.client.publisher_with(*topic, settings).await.expect("a session"));
        }
        let message = v1::NewMessage { body: Bytes::from(vec![b'x'; SIZE]), ttl_ms, ..Default::default() };
        let mut waiting = VecDeque::new();
        for turn in 0..count / batch {
            let publisher = &publishers[turn as usize % publishers.len()];
            let sent = publisher.send_batch(vec![message.clone(); batch as usize]).await;
            waiting.push_back(sent.expect("its task runs"));
            if waiting.len() > 4_096 {
                waiting.pop_front().expect("just seen").await.expect("published");
            }
        }
        for done in waiting {
            done.await.expect("published");
        }
    }

    /// Takes and acknowledges the next messages of a topic, which come in order.
    async fn consume(&self, topic: &str, count: u64) {
        let begun = Instant::now();
        let settings = ConsumerSettings { credit_messages: 10_000, ..ConsumerSettings::default() };
        let mut consumer = self.client.consumer_with(topic, settings).expect("within bounds");
        let mut acks = VecDeque::new();
        let (mut consumed, mut next) = (0, 0);
        while consumed < count {
            let most = (count - consumed).min(512) as usize;
            let deliveries = consumer.receive_many(most).await.expect("messages");
            consumed += deliveries.len() as u64;
            for delivery in &deliveries {
                assert!(delivery.offset >= next, "{} came after {next}", delivery.offset);
                assert!(next == 0 || delivery.offset == next, "{next} is missing, {} came", delivery.offset);
                next = delivery.offset + 1;
                assert!(delivery.body.len() == SIZE && delivery.body.iter().all(|byte| *byte == b'x'));
            }
            acks.push_back(consumer.ack_all(deliveries));
            if acks.len() > 16 {
                acks.pop_front().expect("just seen").await.expect("acknowledged");
            }
        }
        for ack in acks {
            ack.await.expect("acknowledged");
        }
        consumer.close().await.expect("closed");
        // What it had been given beside that goes back: whoever comes next begins with it.
        let begun_at = Instant::now();
        while self.subscription(topic).await.leased > 0 {
            assert!(begun_at.elapsed() < PATIENCE, "messages of {topic} were not given back");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if self.is_measured {
            let took = begun.elapsed();
            println!(
                "{consumed} consumed in order in {took:.1?}, {:.0}/s",
                consumed as f64 / took.as_secs_f64()
            );
        }
    }

    /// Purges what is left of the first topic.
    async fn purge(&self, count: u64) {
        let lags = self.lags();
        let begun = Instant::now();
        let request = v1::PurgeRequest { topic: "t".into(), ..Default::default() };
        assert_eq!(self.client.purge(request).await.expect("purged").count, count);
        if self.is_measured {
            println!("{count} purged in {:.1?}", begun.elapsed());
            tokio::time::sleep(Duration::from_secs(2)).await;
            println!("ticks that were late meanwhile, by how much at most: {:?}", self.lags_since(&lags));
        }
    }

    async fn subscription(&self, topic: &str) -> v1::SubscriptionInfo {
        let request = v1::DescribeTopicRequest { topic: topic.into() };
        let topic = self.client.describe_topic(request).await.expect("described").topic.expect("it is there");
        topic.subscriptions[0].clone()
    }

    async fn until_dead(&self, count: u64) {
        let begun = Instant::now();
        while self.subscription("t").await.dead < count {
            assert!(begun.elapsed() < PATIENCE, "they do not die");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if self.is_measured {
            println!("{count} are dead {:.1?} after they were published", begun.elapsed());
        }
    }

    /// Kills nodes and starts them again, with what the system keeps of their files or without it, until they are ready and a
    /// message is received.
    async fn restart(&mut self, nodes: &[usize], is_cold: bool) {
        let load = self.is_measured.then(|| tokio::spawn(load(self.client.clone())));
        nodes.iter().for_each(|node| self.cluster.kill(*node));
        let cache = if is_cold { drop_page_cache() } else { "warm" };
        let begun = Instant::now();
        nodes.iter().for_each(|node| self.cluster.start(*node));
        let mut waited_for = nodes.to_vec();
        while !waited_for.is_empty() {
            waited_for.retain(|node| {
                let is_ready = self.cluster.is_ready(*node);
                if is_ready && self.is_measured {
                    let took = begun.elapsed();
                    let text = self.cluster.metrics(*node);
                    let value = |series| series_value(&text, series).unwrap_or_default();
                    let behind = value("raftqueue_raft_applied_index") - value("raftqueue_snapshot_index");
                    let over = resident(self.cluster.pid(*node)) - self.idle[*node];
                    println!("node {node} of {nodes:?} is ready after {took:.2?} (page cache {cache}), {behind} entries behind its snapshot, {over:.0} MiB over idle");
                }
                !is_ready
            });
            assert!(begun.elapsed() < 5 * PATIENCE, "{}", self.cluster.logs());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let request = v1::ReceiveRequest { topic: "t".into(), wait_ms: 1_000, ..Default::default() };
        let delivery = loop {
            let received = self.client.receive(request.clone()).await;
            if let Some(delivery) = received.ok().and_then(|received| received.deliveries.into_iter().next())
            {
                break delivery;
            }
            assert!(begun.elapsed() < 5 * PATIENCE, "{}", self.cluster.logs());
        };
        if let Some(load) = load {
            load.abort();
            println!("{nodes:?}: a message is received after {:.2?}", begun.elapsed());
        }
        let request =
            v1::ReleaseRequest { topic: "t".into(), leases: vec![delivery.lease], ..Default::default() };
        self.client.release(request).await.expect("it is ready again");
    }

    fn memory(&self, when: &str) {
        let over = |mib: f64, node: usize| mib - self.idle[node];
        let now: Vec<f64> = (0..3).map(|node| over(resident(self.cluster.pid(node)), node)).collect();
        let peak: Vec<f64> =
            (0..3).map(|node| over(self.cluster.peak_bytes(node) as f64 / MIB, node)).collect();
        println!("memory over idle {when}: {now:.0?} MiB, at most so far {peak:.0?} MiB");
    }

    /// Bytes of write calls and bytes that went to the disk, of each node.
    fn written(&self) -> Vec<f64> {
        let of = |node| {
            let text =
                std::fs::read_to_string(format!("/proc/{}/io", self.cluster.pid(node))).expect("it runs");
            let value = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
                line.trim().parse::<f64>().expect("a number")
            };
            [value("wchar:"), value("write_bytes:")]
        };
        (0..3).flat_map(of).collect()
    }

    fn disk(&self, records: f64) {
        for node in 0..3 {
            let mut kinds: BTreeMap<String, (u64, f64)> = BTreeMap::new();
            for file in std::fs::read_dir(self.cluster.data_dir(node)).expect("it is there").flatten() {
                let name = file.file_name().to_string_lossy().into_owned();
                let kind = name.split('-').next().unwrap_or_default().to_owned();
                let Ok(metadata) = file.metadata() else { continue };
                let sum = kinds.entry(kind).or_default();
                *sum = (sum.0 + 1, sum.1 + (metadata.blocks() * 512) as f64 / MIB);
            }
            kinds.retain(|_, (_, mib)| *mib >= 0.1);
            let all: f64 = kinds.values().map(|(_, mib)| mib).sum();
            println!("disk of node {node}: {all:.0} MiB, of {:.0} of records: {kinds:.1?}", records / MIB);
        }
    }

    /// The loop's lag by buckets, of each node.
    fn lags(&self) -> Vec<BTreeMap<String, f64>> {
        let of = |node| {
            let text = self.cluster.metrics(node);
            let prefix = "raftqueue_loop_lag_seconds_bucket{le=\"";
            let lines = text.lines().filter_map(|line| line.strip_prefix(prefix)?.split_once("\"} "));
            lines.map(|(le, value)| (le.to_owned(), value.parse().expect("a number"))).collect()
        };
        (0..3).map(of).collect()
    }

    fn lags_since(&self, then: &[BTreeMap<String, f64>]) -> Vec<String> {
        let worst = |(now, then): (BTreeMap<String, f64>, &BTreeMap<String, f64>)| {
            let mut bounds: Vec<(f64, f64)> = now
                .iter()
                .map(|(le, value)| {
                    (le.parse().unwrap_or(f64::INFINITY), value - then.get(le).unwrap_or(&0.0))
                })
                .collect();
            bounds.sort_by(|one, other| one.0.total_cmp(&other.0));
            let all = bounds.last().map_or(0.0, |bound| bound.1);
            let worst = bounds.iter().find(|bound| bound.1 >= all).map_or(0.0, |bound| bound.0);
            format!("{worst} s of {all} ticks")
        };
        self.lags().into_iter().zip(then).map(worst).collect()
    }
}

/// Has the system forget what it knows of files, where this process may ask for that. What came of it, in a word.
fn drop_page_cache() -> &'static str {
    // What is yet to be written stays.
    let synced = std::process::Command::new("sync").status().is_ok_and(|status| status.success());
    let dropped = synced && std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok();
    if dropped { "dropped" } else { "warm, since only root may drop it" }
}

/// Publishes 2,000 messages a second, as far as they are taken.
async fn load(client: Client) {
    const EVERY: Duration = Duration::from_millis(10);
    let request = v1::CreateTopicRequest { topic: "load".into(), ..Default::default() };
    let _ = client.create_topic(request).await;
    let message = v1::NewMessage { body: Bytes::from(vec![b'x'; SIZE]), ..Default::default() };
    let request = v1::PublishRequest { topic: "load".into(), session: None, messages: vec![message; 20] };
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        let _ = client.publish(request.clone()).await;
    }
}

/// Time of processors that a process has used.
fn cpu_seconds(pid: u32) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(')').expect("its name is in brackets");
    let ticks =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

/// MiB of memory of a process.
fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has not ended");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}
