//! `raftq bench publish`.

use super::measure::Measure;
use super::{Load, Workers, report, show_progress};
use crate::failure::Failure;
use crate::output::Output;
use bytes::Bytes;
use clap::Args;
use raftqueue_client::{Acknowledgement, Client, PublisherSettings, v1};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  raftq bench publish
  raftq bench publish --producers 8 --batch 64 --window 8 --size 1024 --seconds 30
  raftq bench publish --producers 32 --batch 1 --window 1 --unary
  raftq --output json bench publish | jq .messages_per_second

Latency is that of a batch: from handing it over until its acknowledgement, which means that a majority has it on disk.")]
pub(crate) struct Publish {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    producing: Producing,
}

/// How a load publishes.
#[derive(Args, Clone)]
pub(super) struct Producing {
    /// Producers, each with a connection and a session of its own
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(super) producers: u64,
    /// Messages in a batch
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(super) batch: u64,
    /// Batches that each producer has under way
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1_024))]
    pub(super) window: u64,
    /// Bytes of a body
    #[arg(long, value_name = "BYTES", default_value_t = 1_024, value_parser = clap::value_parser!(u64).range(0..=16_777_216))]
    pub(super) size: u64,
    /// One call for each batch instead of a stream, without sessions
    #[arg(long)]
    pub(super) unary: bool,
}

impl Publish {
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        self.load.prepare(client).await?;
        let measure = Arc::new(Measure::start("published", Duration::from_secs(self.load.seconds)));
        let producers = self.producing.start(client, &self.load.topic, &measure);
        show_progress(&[&measure], measure.end()).await;
        producers.finish().await?;
        report(output, &measure.report(self.load.conditions(client, self.producing.conditions())))
    }
}

impl Producing {
    /// Starts all producers.
    pub(super) fn start(&self, client: &Client, topic: &str, measure: &Arc<Measure>) -> Workers {
        let mut tasks = JoinSet::new();
        for _ in 0..self.producers {
            let own = client.independent();
            let begin = || (own.clone(), self.clone(), topic.to_owned(), Arc::clone(measure));
            if self.unary {
                for _ in 0..self.window {
                    let (own, command, topic, measure) = begin();
                    tasks.spawn(async move { command.publish_calls(&own, &topic, &measure).await });
                }
            } else {
                let (own, command, topic, measure) = begin();
                tasks.spawn(async move { command.publish_stream(&own, &topic, &measure).await });
            }
        }
        Workers(tasks)
    }

    pub(super) fn conditions(&self) -> Value {
        json!({
            "producers": self.producers, "batch": self.batch, "window": self.window, "size": self.size,
            "unary": self.unary,
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

    fn body(&self) -> Bytes {
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

    async fn publish_calls(&self, client: &Client, topic: &str, measure: &Measure) -> Result<(), Failure> {
        let body = self.body();
        while measure.goes_on() {
            let begun = Instant::now();
            let request =
                v1::PublishRequest { topic: topic.to_owned(), session: None, messages: self.messages(&body) };
            match client.publish(request).await {
                Ok(_) => measure.done(begun, self.batch, self.batch * self.size),
                Err(error) => measure.failed(&error),
            }
        }
        Ok(())
    }

    async fn publish_stream(
        &self,
        client: &Client,
        topic: &str,
        measure: &Arc<Measure>,
    ) -> Result<(), Failure> {
        let window = usize::try_from(self.window).expect("at most 1,024");
        let settings = PublisherSettings { window, buffer_bytes: 1 << 29, ..PublisherSettings::default() };
        let publisher = client.publisher_with(topic, settings).await?;
        let body = self.body();
        let room = Arc::new(Semaphore::new(window));
        let (sent, mut answers) = mpsc::channel::<(Acknowledgement, Instant, OwnedSemaphorePermit)>(window);
        let listener = {
            let (measure, batch, bytes) = (Arc::clone(measure), self.batch, self.batch * self.size);
            tokio::spawn(async move {
                while let Some((answer, begun, _room)) = answers.recv().await {
                    match answer.await {
                        Ok(_) => measure.done(begun, batch, bytes),
                        Err(error) => measure.failed(&error),
                    }
                }
            })
        };
        while measure.goes_on() {
            // Room first, so that the clock starts when the batch is really handed over.
            let room = Arc::clone(&room).acquire_owned().await.expect("nobody closes it");
            let begun = Instant::now();
            let answer = publisher.send_batch(self.messages(&body)).await?;
            if sent.send((answer, begun, room)).await.is_err() {
                break;
            }
        }
        drop(sent);
        // The listener ends when everything that was handed over is answered.
        let _ = listener.await;
        publisher.close().await;
        Ok(())
    }
}
