//! Messages that stay for ever among those that come and go.

use crate::commands::bench::Workers;
use crate::commands::bench::measure::Measure;
use crate::failure::Failure;
use bytes::Bytes;
use raftqueue_client::{Client, ConsumerSettings, Delivery, Settlement, v1};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The key of a message that its consumer refuses, so that it is dead.
const DEAD: &[u8] = b"raftq-soak-dead";
/// What a dead message says of itself.
const REASON: &str = "left by raftq bench soak";
/// A delay for ever: ten years.
const FOR_EVER_MS: u64 = 316_224_000_000;
/// Messages that a consumer acknowledges together, and batches of which the acknowledgement may be under way.
const BATCH: usize = 256;
const BATCHES_HELD: usize = 8;
/// How often a consumer looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Leaves messages in a topic, and consumes all others.
#[derive(Debug)]
pub(super) struct Leaving {
    client: Client,
    topic: String,
    body: Bytes,
    delayed: AtomicU64,
    dead: AtomicU64,
}

impl Leaving {
    pub(super) fn new(client: &Client, topic: &str, body: Bytes) -> Self {
        let (delayed, dead) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { client: client.independent(), topic: topic.to_owned(), body, delayed, dead }
    }

    /// How many are left so far: delayed ones, and those that are dead or will be when a consumer has had them.
    pub(super) fn left(&self) -> (u64, u64) {
        (self.delayed.load(Ordering::Relaxed), self.dead.load(Ordering::Relaxed))
    }

    /// Leaves a message each time that `pause` is over, by turns one of each kind, until the measure ends.
    pub(super) async fn leave(&self, pause: Duration, measure: &Measure) -> Result<(), Failure> {
        let begun = Instant::now();
        for number in 0_u32.. {
            let due = pause.saturating_mul(number);
            while measure.goes_on() && begun.elapsed() < due {
                tokio::time::sleep(LOOK_EVERY.min(due.saturating_sub(begun.elapsed()))).await;
            }
            if !measure.goes_on() {
                break;
            }
            let body = self.body.clone();
            let message = if number.is_multiple_of(2) {
                v1::NewMessage { body, delay_ms: FOR_EVER_MS, ..Default::default() }
            } else {
                v1::NewMessage { body, key: Bytes::from_static(DEAD), ..Default::default() }
            };
            let request =
                v1::PublishRequest { topic: self.topic.clone(), session: None, messages: vec![message] };
            match self.client.publish(request).await {
                Ok(_) if number.is_multiple_of(2) => drop(self.delayed.fetch_add(1, Ordering::Relaxed)),
                Ok(_) => drop(self.dead.fetch_add(1, Ordering::Relaxed)),
                Err(error) => measure.failed(&error),
            }
        }
        Ok(())
    }

    /// Starts consumers, which go on until the measure ends.
    pub(super) fn consume(self: &Arc<Self>, consumers: u64, measure: &Arc<Measure>) -> Workers {
        let mut tasks = JoinSet::new();
        for _ in 0..consumers {
            let (own, measure) = (Arc::clone(self), Arc::clone(measure));
            tasks.spawn(async move { own.consume_one(&measure).await });
        }
        Workers(tasks)
    }

    async fn consume_one(&self, measure: &Arc<Measure>) -> Result<(), Failure> {
        let client = self.client.independent();
        let mut consumer = client.consumer_with(&self.topic, ConsumerSettings::default())?;
        let (sent, mut settlements) = mpsc::channel::<(Settlement, Instant, u64, u64)>(BATCHES_HELD);
        let listener = {
            let measure = Arc::clone(measure);
            tokio::spawn(async move {
                while let Some((settlement, begun, messages, bytes)) = settlements.recv().await {
                    match settlement.await {
                        Ok(settled) if settled.is_done() => measure.done(begun, messages, bytes),
                        Ok(settled) => measure.failed(&format!("{} leases had ended", settled.stale)),
                        Err(error) => measure.failed(&error),
                    }
                }
            })
        };
        while measure.goes_on() {
            let Ok(received) = timeout(LOOK_EVERY, consumer.receive_many(BATCH)).await else { continue };
            let (dead, deliveries): (Vec<Delivery>, Vec<Delivery>) =
                received?.into_iter().partition(|delivery| delivery.key == DEAD);
            // It comes again until no attempt is left, so nobody need hear how each of them ended.
            dead.into_iter().for_each(|delivery| drop(delivery.nack(Duration::ZERO, REASON)));
            let (begun, messages) = (Instant::now(), deliveries.len() as u64);
            let bytes = deliveries.iter().map(|delivery| delivery.body.len() as u64).sum();
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
}
