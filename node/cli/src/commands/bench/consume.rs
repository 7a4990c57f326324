//! `raftq bench consume`.

use super::cpu::Cpu;
use super::measure::Measure;
use super::publish::Producing;
use super::{Load, Workers, make_topic, report, same_cluster, show_progress, whole};
use crate::failure::Failure;
use crate::output::Output;
use crate::text::counted;
use clap::Args;
use raftqueue_client::{Client, ConsumerSettings, Settlement, v1};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A topic from which nothing came for so long is empty.
const EMPTY_AFTER: Duration = Duration::from_secs(2);
/// How often a topic is looked at, and by each consumer whether the measurement has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The latter by each of many consumers.
const LOOK_EVERY_OF_MANY: Duration = Duration::from_secs(1);
/// More consumers are many.
const MANY: u64 = 100;
/// Batches that a consumer may hold. For most of them the acknowledgement is under way.
const BATCHES_HELD: usize = 16;
/// Messages that a consumer may hold, for small and for large batches.
const HELD_MIN: usize = 2_000;
const HELD_MAX: usize = 10_000;
/// Bytes that a consumer may hold.
const HELD_BYTES_MAX: usize = 64 << 20;

#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  raftq bench consume --backlog 1000000
  raftq bench consume --consumers 4 --batch 256 --seconds 30
  raftq --output json bench consume | jq .messages_per_second

It takes messages out of the topic: give it one of its own. When the topic is \
empty it ends, and what it says holds for the time until then. Latency is that \
of acknowledging a batch, until a majority has that on disk.")]
pub(crate) struct Consume {
    #[command(flatten)]
    load: Load,
    /// Consumers, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = whole(1..=10_000), allow_negative_numbers = true)]
    consumers: u64,
    /// Messages that are acknowledged together
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = whole(1..=10_000), allow_negative_numbers = true)]
    batch: u64,
    /// Messages to publish first, which is not measured
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole(0..=1_000_000_000), allow_negative_numbers = true)]
    backlog: u64,
    /// Bytes of their bodies
    #[arg(long, value_name = "BYTES", default_value_t = 1_024, value_parser = whole(0..=16_777_216), allow_negative_numbers = true)]
    size: u64,
}

impl Consume {
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        same_cluster(client).await?;
        make_topic(client, &self.load.topic).await?;
        let backlog = self.fill(client).await?;
        if backlog == 0 {
            let topic = &self.load.topic;
            let text = format!(
                "{topic} has no messages: publish some (raftq bench publish --topic {topic}), or give --backlog N"
            );
            return Err(Failure::Failed(text));
        }
        let cpu = Cpu::begin(client).await;
        let measure = Arc::new(Measure::start("consumed", Duration::from_secs(self.load.seconds)));
        let taking = Consumers { count: self.consumers, connections: self.consumers, batch: self.batch };
        let consumers = taking.start(client, std::slice::from_ref(&self.load.topic), &measure);
        let shown: [&Measure; 1] = [&measure];
        let asked = tokio::select! {
            asked = show_progress(&shown, measure.end()) => asked?,
            () = until_empty(&measure) => None,
        };
        consumers.finish().await?;
        if self.ready(client).await? == 0 {
            // The topic may have been empty for a while, but not long enough to be noticed before the end.
            measure.end_early();
        }
        let own = json!({"consumers": self.consumers, "batch": self.batch, "backlog": backlog});
        let report_of = measure.report(self.load.conditions(client, own));
        report(output, &report_of.with_cpu(cpu.micros(client).await), asked)
    }

    /// Publishes the backlog, and returns how many messages are ready.
    async fn fill(&self, client: &Client) -> Result<u64, Failure> {
        if self.backlog > 0 {
            eprintln!("publishing {} first", counted(self.backlog, "message"));
            let producing = Producing {
                producers: 8,
                connections: None,
                // Batches of a size that every node takes.
                batch: 256.min(self.backlog).min((1 << 20) / self.size.max(1)).max(1),
                window: 8,
                size: self.size,
                unary: false,
            };
            producing.publish_exactly(client, &self.load.topic, self.backlog).await?;
        }
        self.ready(client).await
    }

    async fn ready(&self, client: &Client) -> Result<u64, Failure> {
        let describe = v1::DescribeTopicRequest { topic: self.load.topic.clone() };
        let topic = client.describe_topic(describe).await?.topic.unwrap_or_default();
        Ok(topic.subscriptions.first().map_or(0, |subscription| subscription.ready))
    }
}

/// How a load consumes.
pub(super) struct Consumers {
    /// How many there are.
    pub(super) count: u64,
    /// Connections that they share.
    pub(super) connections: u64,
    /// Messages that each acknowledges together.
    pub(super) batch: u64,
}

impl Consumers {
    /// Starts them, each on the next of the topics. They go on until the measure ends.
    pub(super) fn start(&self, client: &Client, topics: &[String], measure: &Arc<Measure>) -> Workers {
        let mut tasks = JoinSet::new();
        let batch = count(self.batch);
        let connected: Vec<Client> = (0..self.connections).map(|_| client.independent()).collect();
        // Ten thousand that look ten times a second whether it is over would be a load of their own.
        let look_every = if self.count > MANY { LOOK_EVERY_OF_MANY } else { LOOK_EVERY };
        for (topic, client) in topics.iter().cycle().zip(connected.iter().cycle()).take(count(self.count)) {
            let (own, topic, measure) = (client.clone(), topic.clone(), Arc::clone(measure));
            tasks.spawn(async move { consume(&own, &topic, (batch, look_every), &measure).await });
        }
        Workers(tasks)
    }
}

fn count(number: u64) -> usize {
    usize::try_from(number).expect("at most 10,000")
}

async fn consume(
    client: &Client,
    topic: &str,
    (batch, look_every): (usize, Duration),
    measure: &Arc<Measure>,
) -> Result<(), Failure> {
    let settings = ConsumerSettings {
        credit_messages: (BATCHES_HELD * batch).clamp(HELD_MIN, HELD_MAX),
        credit_bytes: HELD_BYTES_MAX,
        ..ConsumerSettings::default()
    };
    let mut consumer = client.consumer_with(topic, settings)?;
    let (sent, mut settlements) = mpsc::channel::<(Settlement, Instant, u64, u64)>(BATCHES_HELD);
    let listener = {
        let measure = Arc::clone(measure);
        tokio::spawn(async move {
            while let Some((settlement, begun, messages, bytes)) = settlements.recv().await {
                match settlement.await {
                    Ok(settled) if settled.is_done() => measure.done(begun, messages, bytes),
                    Ok(settled) => {
                        let stale = settled.stale as u64;
                        measure.failed(&format!("{}: the lease had ended", counted(stale, "message")));
                    }
                    Err(error) => measure.failed(&error),
                }
            }
        })
    };
    while measure.goes_on() {
        let Ok(received) = timeout(look_every, consumer.receive_many(batch)).await else { continue };
        let deliveries = received?;
        let messages = deliveries.len() as u64;
        let bytes = deliveries.iter().map(|delivery| delivery.body.len() as u64).sum();
        let begun = Instant::now();
        let acknowledged = consumer.ack_all(deliveries);
        if sent.send((acknowledged, begun, messages, bytes)).await.is_err() {
            break;
        }
    }
    drop(sent);
    // The listener ends when every settlement is answered.
    let _ = listener.await;
    consumer.close().await?;
    Ok(())
}

/// Resolves when nothing comes any more. The measure then ends at the last message that came.
async fn until_empty(measure: &Measure) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if measure.idle() >= EMPTY_AFTER && measure.end_early() {
            return;
        }
    }
}
