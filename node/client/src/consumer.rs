//! Consuming at full speed: messages come as credit allows, and stay leased for as long as they are worked on.
//!
//! A task of its own holds the stream to the leader ([`worker`]). Messages that are not handed out yet wait in a
//! buffer, which credit bounds in messages and in bytes. The task extends leases before they end, gathers
//! acknowledgements into few calls, and goes to another node when its own does not go on. It also remembers what is
//! under way ([`held`], [`settlements`]), so that no settlement is lost when one stream ends and the next begins.

mod held;
mod settlements;
mod worker;

use crate::{Client, Error};
use bytes::Bytes;
use raftqueue_proto::v1;
use settlements::{Kind, Order};
use std::collections::VecDeque;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use worker::Worker;

/// How long a message rests that was dropped without being settled. So one that always fails does not come back at
/// once.
const DROPPED_DELAY_MS: u64 = 1_000;
/// Said of such a message when it was its last attempt.
const DROPPED_REASON: &str = "dropped by its consumer";
/// Longest reason that a node keeps of a nack, in bytes.
const REASON_BYTES_MAX: usize = 256;
/// Longest delay that a node takes: ten years.
const DELAY_MS_MAX: u64 = 10 * 366 * 24 * 60 * 60 * 1_000;
/// Messages that a node lets one consumer hold.
const CREDIT_MESSAGES_MAX: usize = 10_000;
/// Shortest and longest lease that a node grants.
const LEASE_MIN: Duration = Duration::from_secs(1);
const LEASE_MAX: Duration = Duration::from_secs(12 * 3_600);
/// Shortest time after which callers can be told that no node goes on.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// How a [`Consumer`] consumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// The subscription; empty: the default one, which makes the topic a plain queue.
    pub subscription: String,
    /// Messages that may be held at once, 1 to 10,000. Those whose acknowledgement is under way count. No more come
    /// while so many are not settled.
    pub credit_messages: usize,
    /// Bytes of bodies, keys and headers that may be held at once, 1 to 1 GiB. One message may exceed it, so that a
    /// large one is not left out for ever.
    pub credit_bytes: usize,
    /// How long a lease lasts, 1 second to 12 hours. If this process dies, its messages are delivered again after that
    /// time. While it lives, it extends them three times in each lease.
    pub lease: Duration,
    /// How long a message is extended in all. A message held for longer counts as forgotten: its lease ends, and it is
    /// delivered again. At most 12 hours, since a node grants no more.
    pub hold: Duration,
    /// After how long without a node that goes on [`Consumer::receive`] and settlements say so; 1 millisecond or more.
    pub timeout: Duration,
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        Self {
            subscription: String::new(),
            credit_messages: 1_000,
            credit_bytes: 16 << 20,
            lease: Duration::from_secs(30),
            hold: Duration::from_secs(3_600),
            timeout: Duration::from_secs(120),
        }
    }
}

/// Consumes one topic: each message is delivered until it is acknowledged, so at least once.
///
/// Messages come in the order of the topic, except those that are delivered again. Dropping a consumer closes it in the
/// background; [`Consumer::close`] waits for that.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    orders: mpsc::UnboundedSender<Order>,
    /// Dropped to ask the task to close.
    open: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<Result<(), Error>>>,
}

/// A message that is leased to this consumer. Reads as the contract's own [`v1::Delivery`].
///
/// Settle it with [`Delivery::ack`], [`Delivery::nack`] or [`Delivery::release`]. If it is dropped instead, perhaps
/// because the code that works on it fails, that counts as a failed attempt, and it is ready again after a second.
#[derive(Debug)]
pub struct Delivery {
    content: v1::Delivery,
    /// The task that settles it; `None` once it is settled.
    orders: Option<mpsc::UnboundedSender<Order>>,
}

/// Resolves when the node has said what became of the messages. Dropping it changes nothing: they are settled all the
/// same.
#[derive(Debug)]
pub struct Settlement(oneshot::Receiver<Result<Settled, Error>>);

/// What became of messages that were settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Done as asked. A message that had been acknowledged before counts here, too.
    pub done: usize,
    /// Nothing was done: the lease had ended, and the message is dead, was returned, or is leased to another consumer.
    /// If it was to be acknowledged, another consumer sees it, too.
    pub stale: usize,
}

impl Settled {
    /// True if all was done as asked.
    #[must_use]
    pub fn is_done(self) -> bool {
        self.stale == 0
    }
}

impl std::ops::Add for Settled {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { done: self.done + other.done, stale: self.stale + other.stale }
    }
}

/// What the task and its consumer both have.
#[derive(Debug, Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    /// Something is in the buffer.
    filled: Notify,
}

#[derive(Debug, Default)]
struct Buffer {
    /// Received and not handed out, oldest first. Bounded by the credit.
    waiting: VecDeque<v1::Delivery>,
    /// An error to be told once: it may pass.
    trouble: Option<Error>,
    /// The error that ended the consumer.
    end: Option<Error>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        // Every change of it is complete before anything can panic.
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Buffer)) {
        change(&mut self.lock());
        self.filled.notify_one();
    }
}

impl Consumer {
    pub(crate) fn start(client: Client, topic: String, settings: ConsumerSettings) -> Result<Self, Error> {
        check(&settings)?;
        let shared = Arc::new(Shared::default());
        // The credit bounds this channel: each message that is held is settled once.
        let (orders, taken) = mpsc::unbounded_channel();
        let (open, closing) = oneshot::channel();
        let worker = Worker::new(client, topic, settings, Arc::clone(&shared), taken);
        let task = Some(tokio::spawn(worker.run(closing)));
        Ok(Self { shared, orders, open: Some(open), task })
    }

    /// The next message; waits for one as long as it takes.
    ///
    /// Cancelling is safe: no message is lost by it.
    ///
    /// # Errors
    ///
    /// No node went on for as long as the settings allow: call again to go on waiting. Or a refusal that does not pass,
    /// such as `TOPIC_NOT_FOUND`: then the consumer has ended, and every further call says the same.
    pub async fn receive(&mut self) -> Result<Delivery, Error> {
        loop {
            if let Some(delivery) = self.take(1)?.pop() {
                return Ok(delivery);
            }
            self.shared.filled.notified().await;
        }
    }

    /// What has arrived, at least one message and at most `messages_max`; waits for the first as long as it takes.
    ///
    /// Cancelling is safe: no message is lost by it.
    ///
    /// # Errors
    ///
    /// As [`Consumer::receive`].
    ///
    /// # Panics
    ///
    /// `messages_max` is 0.
    pub async fn receive_many(&mut self, messages_max: usize) -> Result<Vec<Delivery>, Error> {
        assert!(messages_max > 0, "no messages are asked for");
        loop {
            let deliveries = self.take(messages_max)?;
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            self.shared.filled.notified().await;
        }
    }

    /// Acknowledges many messages at once: they are done with, and removed.
    pub fn ack_all(&self, deliveries: impl IntoIterator<Item = Delivery>) -> Settlement {
        let leases = deliveries.into_iter().map(|mut delivery| delivery.take_lease()).collect();
        Settlement::order(&self.orders, Kind::Ack, leases)
    }

    /// Ends the consumer. Settlements are confirmed before this returns. Messages that were not settled, handed out or
    /// not, are given back without counting an attempt. Finish first what you work on: a later acknowledgement fails.
    ///
    /// # Errors
    ///
    /// No node could be told within ten seconds. Messages whose settlement was not confirmed may be delivered again.
    ///
    /// # Panics
    ///
    /// The consumer's task panicked.
    pub async fn close(mut self) -> Result<(), Error> {
        drop(self.open.take());
        let task = self.task.take().expect("it is taken here and nowhere else");
        task.await.unwrap_or_else(|error| panic!("the consumer's task ended: {error}"))
    }

    fn take(&mut self, messages_max: usize) -> Result<Vec<Delivery>, Error> {
        let mut buffer = self.shared.lock();
        let count = buffer.waiting.len().min(messages_max);
        if count == 0 {
            if let Some(error) = buffer.trouble.take().or_else(|| buffer.end.clone()) {
                return Err(error);
            }
            return Ok(Vec::new());
        }
        let taken = buffer.waiting.drain(..count);
        Ok(taken.map(|content| Delivery { content, orders: Some(self.orders.clone()) }).collect())
    }
}

impl Delivery {
    /// The message is done with, and removed.
    pub fn ack(mut self) -> Settlement {
        self.settle(Kind::Ack)
    }

    /// The attempt failed: the message is ready again after `delay`. If this was its last attempt, it is dead and kept
    /// with `reason`. The first 256 bytes of a reason are kept, and a delay is ten years at most; so the text of an
    /// error can be passed on as it is.
    pub fn nack(mut self, delay: Duration, reason: impl Into<String>) -> Settlement {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).min(DELAY_MS_MAX);
        let mut reason = reason.into();
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        self.settle(Kind::Nack { delay_ms, reason })
    }

    /// Gives the message back: no work was started, and no attempt is counted.
    pub fn release(mut self) -> Settlement {
        self.settle(Kind::Release)
    }

    /// Takes the message out of its consumer: nothing extends or settles it any more, and its lease is the caller's to
    /// use.
    #[must_use]
    pub fn into_inner(mut self) -> v1::Delivery {
        if let Some(orders) = self.orders.take() {
            // The consumer may have ended. Then nothing extends the lease anyway.
            let leases = vec![self.content.lease.clone()];
            let _ = orders.send(Order { kind: Kind::Forget, leases, reply: None });
        }
        std::mem::take(&mut self.content)
    }

    fn settle(&mut self, kind: Kind) -> Settlement {
        let orders = self.orders.take().expect("settling consumes the delivery");
        Settlement::order(&orders, kind, vec![self.content.lease.clone()])
    }

    fn take_lease(&mut self) -> Bytes {
        self.orders = None;
        std::mem::take(&mut self.content.lease)
    }
}

impl Deref for Delivery {
    type Target = v1::Delivery;

    fn deref(&self) -> &v1::Delivery {
        &self.content
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(orders) = self.orders.take() {
            let kind = Kind::Nack { delay_ms: DROPPED_DELAY_MS, reason: DROPPED_REASON.into() };
            let leases = vec![std::mem::take(&mut self.content.lease)];
            // The consumer may have ended. Then it has given everything back.
            let _ = orders.send(Order { kind, leases, reply: None });
        }
    }
}

impl Settlement {
    fn order(orders: &mpsc::UnboundedSender<Order>, kind: Kind, leases: Vec<Bytes>) -> Self {
        let (reply, settled) = oneshot::channel();
        if let Err(refused) = orders.send(Order { kind, leases, reply: Some(reply) }) {
            refused
                .0
                .fail(&Error::not_sent("the consumer has ended, and has given back what was not settled"));
        }
        Self(settled)
    }
}

impl Future for Settlement {
    /// What became of the messages.
    type Output = Result<Settled, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let gone = || Err(Error::unheard("the consumer ended before the answer came"));
        Poll::Ready(ready!(Pin::new(&mut self.0).poll(context)).unwrap_or_else(|_| gone()))
    }
}

fn check(settings: &ConsumerSettings) -> Result<(), Error> {
    let within = |name: &str, value: usize, max: usize| {
        if (1..=max).contains(&value) {
            return Ok(());
        }
        Err(Error::not_sent(format!("{name} must be 1 to {max}, not {value}")))
    };
    within("credit_messages", settings.credit_messages, CREDIT_MESSAGES_MAX)?;
    within("credit_bytes", settings.credit_bytes, 1 << 30)?;
    if !(LEASE_MIN..=LEASE_MAX).contains(&settings.lease) {
        let text = format!("lease must be 1 second to 12 hours, not {:?}", settings.lease);
        return Err(Error::not_sent(text));
    }
    if settings.hold > LEASE_MAX {
        return Err(Error::not_sent(format!("hold must be at most 12 hours, not {:?}", settings.hold)));
    }
    if settings.timeout < TIMEOUT_MIN {
        return Err(Error::not_sent(format!(
            "timeout must be 1 millisecond or more, not {:?}",
            settings.timeout
        )));
    }
    Ok(())
}
