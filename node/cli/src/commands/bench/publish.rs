//! `raftq bench publish`.

use super::cpu::Cpu;
use super::gate::Gate;
use super::measure::Measure;
use super::pace::Pace;
use super::{Load, Workers, make_topic, numbered, report, same_cluster, show_progress, whole};
use crate::failure::Failure;
use crate::output::Output;
use bytes::Bytes;
use clap::Args;
use raftqueue_client::{Acknowledgement, Client, Publisher, PublisherSettings, v1};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

/// The largest body that a node can be set to take, and so the largest batch.
const BATCH_BYTES_MAX: u64 = 16 << 20;
/// Roughly what a message costs in memory besides its body.
const MESSAGE_BYTES: u64 = 200;
/// Connections of many producers. In services, too, many tasks call through one client.
const CONNECTIONS_DEFAULT: u64 = 8;
/// Most bytes that may wait for their acknowledgement.
const UNDER_WAY_BYTES_MAX: u64 = 4 << 30;

#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  raftq bench publish
  raftq bench publish --producers 8 --batch 64 --window 8 --size 1024 --seconds 30
  raftq bench publish --producers 32 --batch 1 --window 1 --unary
  raftq bench publish --producers 32 --batch 1 --window 1 --unary --connections 32
  raftq bench publish --topics 1000
  raftq bench publish --rate 5000 --producers 32 --batch 1 --window 1 --unary --connections 32
  raftq --output json bench publish | jq .messages_per_second

Latency is that of a batch: from handing it over until its acknowledgement, \
which means that a majority has it on disk. With --rate batches are due at \
that rate, whether or not those before are answered, and latency counts from \
when a batch was due. CPU US/MSG is the processor time of all nodes together \
for a message, in microseconds.")]
pub(crate) struct Publish {
    #[command(flatten)]
    load: Load,
    /// Topics to publish to in turn. If there is more than one, each has a number behind its name
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole(1..=10_000), allow_negative_numbers = true)]
    topics: u64,
    /// Messages that are due in a second [default: as many as are acknowledged]
    #[arg(long, value_name = "MESSAGES/S", value_parser = whole(1..=10_000_000), allow_negative_numbers = true)]
    rate: Option<u64>,
    #[command(flatten)]
    producing: Producing,
}

/// When the next batch goes.
#[derive(Clone)]
pub(super) enum When {
    /// As soon as there is room for it.
    Room,
    /// When the gate lets it pass.
    Gate(Arc<Gate>),
    /// When it is due.
    Due(Arc<Pace>),
}

impl When {
    /// Waits until a batch of so many messages may go. `None` once the measure has ended; else when it was due, if it was.
    async fn next(&self, messages: u64, measure: &Measure) -> Option<Option<Instant>> {
        match self {
            When::Room => {}
            When::Gate(gate) => gate.pass(messages, measure).await,
            When::Due(pace) => return pace.next().await.map(Some),
        }
        measure.goes_on().then_some(None)
    }
}

/// How a load publishes.
#[derive(Args, Clone)]
pub(super) struct Producing {
    /// Producers, each with a session of its own
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = whole(1..=10_000), allow_negative_numbers = true)]
    pub(super) producers: u64,
    /// Connections that the producers share [default: 8, or one for each if there are fewer producers]
    #[arg(long, value_name = "N", value_parser = whole(1..=10_000), allow_negative_numbers = true)]
    pub(super) connections: Option<u64>,
    /// Messages in a batch
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = whole(1..=10_000), allow_negative_numbers = true)]
    pub(super) batch: u64,
    /// Batches that each producer has under way
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = whole(1..=1_024), allow_negative_numbers = true)]
    pub(super) window: u64,
    /// Bytes of a body
    #[arg(long, value_name = "BYTES", default_value_t = 1_024, value_parser = whole(0..=16_777_216), allow_negative_numbers = true)]
    pub(super) size: u64,
    /// One call for each batch instead of a stream, without sessions
    #[arg(long)]
    pub(super) unary: bool,
}

/// Producers that are connected and have their topics and sessions.
pub(super) struct Producers {
    how: Producing,
    all: Vec<Producer>,
}

/// One producer, with its part of the topics.
struct Producer {
    client: Client,
    topics: Vec<String>,
    /// One for each topic; none for calls.
    publishers: Vec<Publisher>,
}

impl Publish {
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let producers = self.producing.open(client, &numbered(&self.load.topic, self.topics)).await?;
        let cpu = Cpu::begin(client).await;
        let measure = Measure::start("published", Duration::from_secs(self.load.seconds));
        let measure = Arc::new(if self.rate.is_some() { measure.timing_late() } else { measure });
        let pace = self.rate.map(|rate| Pace::start(rate, self.producing.batch, &measure).0);
        let when = pace.clone().map_or(When::Room, When::Due);
        let producers = producers.start_when(&when, &measure);
        let asked = show_progress(&[&measure], measure.end()).await?;
        producers.finish().await?;
        if let Some(pace) = pace {
            pace.missed().for_each(|due| measure.missed(due));
        }
        let mut own = self.producing.conditions();
        own["topics"] = json!(self.topics);
        own["rate"] = json!(self.rate);
        let measured = measure.report(self.load.conditions(client, own)).with_cpu(cpu.micros(client).await);
        if measured.missed() > 0 {
            eprintln!(
                "{} of the batches that were due had nobody free to send them: this load or the cluster is slower",
                measured.missed()
            );
        }
        report(output, &measured, asked)
    }
}

impl Producing {
    /// Refuses what no node would take, and what would not fit into this machine's memory.
    fn check(&self) -> Result<(), Failure> {
        if self.connections() > self.producers {
            return Err(Failure::Usage(format!(
                "--connections {} is more than --producers {}: a producer has one",
                self.connections(),
                self.producers
            )));
        }
        let batch_bytes = self.batch * self.size;
        if batch_bytes > BATCH_BYTES_MAX {
            return Err(Failure::Usage(format!(
                "--batch {} of --size {} are {batch_bytes} bytes, and no node takes more than {BATCH_BYTES_MAX} at once",
                self.batch, self.size
            )));
        }
        let bytes = self.producers * self.window * self.batch * (self.size + MESSAGE_BYTES);
        if bytes > UNDER_WAY_BYTES_MAX {
            return Err(Failure::Usage(format!(
                "--producers {} with a --window {} of --batch {} have {} GiB under way, {} GiB is the most",
                self.producers,
                self.window,
                self.batch,
                bytes >> 30,
                UNDER_WAY_BYTES_MAX >> 30
            )));
        }
        Ok(())
    }

    /// Connects all producers, and makes the topics that are missing. None of that is measured.
    ///
    /// Endpoints of several clusters are refused: the load would go to one of them, and nobody would know to which.
    pub(super) async fn open(&self, client: &Client, topics: &[String]) -> Result<Producers, Failure> {
        self.check()?;
        same_cluster(client).await?;
        let connected: Vec<Client> = (0..self.connections()).map(|_| client.independent()).collect();
        let mut opening = JoinSet::new();
        let count = usize::try_from(self.producers).expect("at most 10,000");
        for number in 0..count {
            // Every topic has a producer, and every producer a topic.
            let mut own: Vec<String> = topics.iter().skip(number).step_by(count).cloned().collect();
            if own.is_empty() {
                own.push(topics[number % topics.len()].clone());
            }
            let (how, client) = (self.clone(), connected[number % connected.len()].clone());
            opening.spawn(async move { how.open_one(client, own).await });
        }
        let mut all = Vec::with_capacity(count);
        while let Some(opened) = opening.join_next().await {
            all.push(opened.map_err(|error| Failure::Failed(format!("a producer ended: {error}")))??);
        }
        Ok(Producers { how: self.clone(), all })
    }

    async fn open_one(&self, client: Client, topics: Vec<String>) -> Result<Producer, Failure> {
        let mut publishers = Vec::new();
        for topic in &topics {
            make_topic(&client, topic).await?;
            if !self.unary {
                let settings = PublisherSettings {
                    window: self.window(),
                    buffer_bytes: 1 << 29,
                    ..PublisherSettings::default()
                };
                publishers.push(client.publisher_with(topic, settings).await?);
            }
        }
        Ok(Producer { client, topics, publishers })
    }

    fn connections(&self) -> u64 {
        self.connections.unwrap_or(self.producers.min(CONNECTIONS_DEFAULT))
    }

    fn window(&self) -> usize {
        usize::try_from(self.window).expect("at most 1,024")
    }

    pub(super) fn conditions(&self) -> Value {
        json!({
            "producers": self.producers, "batch": self.batch, "window": self.window, "size": self.size,
            "unary": self.unary, "connections": self.connections(),
        })
    }

    /// Publishes so many messages, and returns when all are acknowledged.
    pub(super) async fn publish_exactly(
        &self,
        client: &Client,
        topic: &str,
        count: u64,
    ) -> Result<(), Failure> {
        let publisher = client.publisher(topic).await?;
        let body = self.body();
        let mut left = count;
        let mut sent = Vec::new();
        while left > 0 {
            let batch = Self { batch: self.batch.min(left), ..self.clone() };
            left -= batch.batch;
            // The publisher bounds how many bytes wait for their acknowledgement.
            sent.push(publisher.send_batch(batch.messages(&body)).await?);
        }
        for acknowledgement in sent {
            acknowledgement.await?;
        }
        publisher.close().await;
        Ok(())
    }

    fn messages(&self, body: &Bytes) -> Vec<v1::NewMessage> {
        (0..self.batch).map(|_| v1::NewMessage { body: body.clone(), ..Default::default() }).collect()
    }

    pub(super) fn body(&self) -> Bytes {
        // Bytes that no disk and no network can make smaller.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        };
        std::iter::repeat_with(next).take(usize::try_from(self.size).expect("at most 16 MiB")).collect()
    }

    async fn publish_calls(
        &self,
        producer: &Producer,
        measure: &Measure,
        when: &When,
    ) -> Result<(), Failure> {
        let body = self.body();
        let mut topics = producer.topics.iter().cycle();
        while let Some(due) = when.next(self.batch, measure).await {
            let begun = due.unwrap_or_else(Instant::now);
            let topic = topics.next().expect("every producer has a topic").clone();
            let request = v1::PublishRequest { topic, session: None, messages: self.messages(&body) };
            match producer.client.publish(request).await {
                Ok(_) => measure.done(begun, self.batch, self.batch * self.size),
                Err(error) if due.is_some() => measure.failed_since(begun, &error),
                Err(error) => measure.failed(&error),
            }
        }
        Ok(())
    }

    async fn publish_streams(
        &self,
        publishers: Vec<Publisher>,
        measure: &Arc<Measure>,
        when: &When,
    ) -> Result<(), Failure> {
        let body = self.body();
        let room = Arc::new(Semaphore::new(self.window()));
        let (sent, mut answers) =
            mpsc::channel::<(Acknowledgement, Instant, OwnedSemaphorePermit)>(self.window());
        let listener = {
            let (measure, batch, bytes) = (Arc::clone(measure), self.batch, self.batch * self.size);
            let is_due = matches!(when, When::Due(_));
            tokio::spawn(async move {
                while let Some((answer, begun, _room)) = answers.recv().await {
                    match answer.await {
                        Ok(_) => measure.done(begun, batch, bytes),
                        Err(error) if is_due => measure.failed_since(begun, &error),
                        Err(error) => measure.failed(&error),
                    }
                }
            })
        };
        let mut turns = publishers.iter().cycle();
        while let Some(due) = when.next(self.batch, measure).await {
            // What is not due at a certain time waits for room first: the clock starts when it is really handed over.
            let room = Arc::clone(&room).acquire_owned().await.expect("nobody closes it");
            let begun = due.unwrap_or_else(Instant::now);
            let publisher = turns.next().expect("every producer has a topic");
            let answer = publisher.send_batch(self.messages(&body)).await?;
            if sent.send((answer, begun, room)).await.is_err() {
                break;
            }
        }
        drop(sent);
        // The listener ends when every batch is answered.
        let _ = listener.await;
        for publisher in publishers {
            publisher.close().await;
        }
        Ok(())
    }
}

impl Producers {
    /// Starts all producers. They go on until the measure ends.
    pub(super) fn start(self, measure: &Arc<Measure>) -> Workers {
        self.start_when(&When::Room, measure)
    }

    /// The same, each batch at its time.
    pub(super) fn start_when(self, when: &When, measure: &Arc<Measure>) -> Workers {
        let mut tasks = JoinSet::new();
        for producer in self.all {
            if self.how.unary {
                let producer = Arc::new(producer);
                for _ in 0..self.how.window {
                    let (how, producer, measure) =
                        (self.how.clone(), Arc::clone(&producer), Arc::clone(measure));
                    let when = when.clone();
                    tasks.spawn(async move { how.publish_calls(&producer, &measure, &when).await });
                }
            } else {
                let (how, measure) = (self.how.clone(), Arc::clone(measure));
                let when = when.clone();
                tasks.spawn(async move { how.publish_streams(producer.publishers, &measure, &when).await });
            }
        }
        Workers(tasks)
    }
}
