//! One who publishes and consumes, again and again, and knows of every message what has to become of it.

use raftqueue_client::{Client, Error, Producer, v1};
use raftqueue_tests::process::PATIENCE;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Messages published together.
const BATCH: u64 = 16;
/// What a living message takes on a disk at most, beside its body: its place in a kept file, its meta, its share of frames.
const BESIDE_BODY: u64 = 256;
const HOUR_MS: u64 = 3_600_000;
/// Bytes of an answer that a client takes unless told otherwise.
const ANSWER_BYTES: u64 = 2 << 20;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// It is received and acknowledged.
    Settled,
    /// It is received, and its lease is extended for as long as the test goes.
    Leased,
    /// Its time to live ends at once.
    Dead,
    /// It is to be delivered much later.
    Delayed,
    /// It is in a topic that nobody consumes.
    Waiting,
}

/// What one traffic is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Bytes of a body, at least; at most half more.
    pub(crate) body_bytes: usize,
    /// Of so many messages one is left leased, one dead, one delayed and one waiting. 0: none is left.
    pub(crate) one_left_of: u64,
    /// A lease that nobody heard of ends after this.
    pub(crate) lease_ms: u64,
    /// Nothing goes wrong, so messages come in order.
    pub(crate) is_calm: bool,
}

impl Plan {
    fn fate(&self, number: u64) -> Fate {
        match number.checked_rem(self.one_left_of) {
            Some(1) => Fate::Leased,
            Some(2) => Fate::Dead,
            Some(3) => Fate::Delayed,
            _ => Fate::Settled,
        }
    }

    /// A body by which its number is known, and that no other message has.
    fn body(&self, number: u64) -> Vec<u8> {
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let bytes = self.body_bytes + (mixed >> 40) as usize % (self.body_bytes / 2 + 1);
        let mut body = number.to_le_bytes().to_vec();
        let words = (0..).flat_map(|word: u64| mixed.wrapping_add(word).to_le_bytes());
        body.extend(words.take(bytes.saturating_sub(8)));
        body
    }

    /// The number of a message, from its body.
    fn number(&self, body: &[u8]) -> u64 {
        let number = body.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).expect("not one of ours");
        assert!(self.body(number) == body, "the body of message {number} is not what was published");
        number
    }
}

/// What is known of the messages of one traffic.
#[derive(Debug, Default)]
struct Account {
    /// Published, and to be settled.
    living: BTreeSet<u64>,
    /// Published, and never to be settled.
    left: BTreeSet<(Fate, u64)>,
    settled: BTreeSet<u64>,
    /// The last one that came and is to be settled.
    last: Option<u64>,
    /// Bytes of what is living and left.
    bytes: u64,
}

/// Publishes to a topic and consumes it, until told to stop.
pub(crate) struct Traffic {
    plan: Plan,
    topic: String,
    account: Arc<Mutex<Account>>,
    published_bytes: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    client: Client,
    runtime: Handle,
    task: Option<JoinHandle<Lane>>,
}

impl Traffic {
    /// Makes the topic and begins.
    pub(crate) fn start(runtime: &Handle, client: &Client, topic: &str, plan: Plan) -> Self {
        let client = client.clone().with_timeout(PATIENCE);
        for topic in [topic.to_owned(), waiting(topic)] {
            let request = v1::CreateTopicRequest { topic, ..Default::default() };
            runtime.block_on(client.create_topic(request)).expect("the topic is made");
        }
        let (account, published_bytes, stop) =
            (Arc::<Mutex<Account>>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let lane = Lane {
            plan,
            topic: topic.to_owned(),
            client: client.clone(),
            account: Arc::clone(&account),
            published_bytes: Arc::clone(&published_bytes),
            next: 0,
        };
        let (topic, runtime) = (topic.to_owned(), runtime.clone());
        let task = runtime.spawn(lane.run(Arc::clone(&stop)));
        Self { plan, topic, account, published_bytes, stop, client, runtime, task: Some(task) }
    }

    /// Bytes of all bodies that were published and acknowledged.
    pub(crate) fn published_bytes(&self) -> u64 {
        assert!(self.task.as_ref().is_none_or(|task| !task.is_finished()), "the traffic has ended by itself");
        self.published_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that are not done with, as they may stand on a disk; what is being published is among them.
    pub(crate) fn living_bytes(&self) -> u64 {
        let batch = BATCH * (self.plan.body_bytes as u64 * 3 / 2 + BESIDE_BODY);
        lock(&self.account).bytes + batch
    }

    /// Ends it. Everything is settled that is to be.
    pub(crate) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.take() {
            let mut lane = self.runtime.block_on(task).expect("nothing went wrong");
            self.runtime.block_on(lane.settle_all());
        }
    }

    /// Once it has ended: what was left is all there and nothing else, each with its own body. Says how much that is.
    pub(crate) fn check(&self) -> usize {
        let account = lock(&self.account);
        assert!(account.living.is_empty(), "everything was settled");
        for fate in [Fate::Leased, Fate::Dead, Fate::Delayed, Fate::Waiting] {
            let wanted: BTreeSet<u64> =
                account.left.iter().filter(|(left, _)| *left == fate).map(|(_, number)| *number).collect();
            let found = self.runtime.block_on(self.peek_all(fate));
            let lost: Vec<_> = wanted.difference(&found).collect();
            let foreign: Vec<_> = found.difference(&wanted).collect();
            assert!(
                lost.is_empty() && foreign.is_empty(),
                "{fate:?}: {lost:?} are lost, {foreign:?} too many"
            );
        }
        account.left.len()
    }

    async fn peek_all(&self, fate: Fate) -> BTreeSet<u64> {
        let (topic, state) = match fate {
            Fate::Waiting => (waiting(&self.topic), v1::MessageState::Ready),
            Fate::Settled => (self.topic.clone(), v1::MessageState::Ready),
            Fate::Leased => (self.topic.clone(), v1::MessageState::Leased),
            Fate::Dead => (self.topic.clone(), v1::MessageState::Dead),
            Fate::Delayed => (self.topic.clone(), v1::MessageState::Delayed),
        };
        let mut found = BTreeSet::new();
        let mut from_offset = 0;
        loop {
            let request = v1::PeekRequest {
                topic: topic.clone(),
                state: state.into(),
                from_offset,
                messages_max: 1_000,
                bytes_max: ANSWER_BYTES,
                ..Default::default()
            };
            let seen = self.client.peek(request).await.expect("what is kept can be read").deliveries;
            let Some(last) = seen.last() else { return found };
            from_offset = last.offset + 1;
            for delivery in &seen {
                assert!(found.insert(self.plan.number(&delivery.body)), "it is there twice");
            }
        }
    }
}

fn waiting(topic: &str) -> String {
    format!("{topic}, waiting")
}

fn lock(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What does the work.
struct Lane {
    plan: Plan,
    topic: String,
    client: Client,
    account: Arc<Mutex<Account>>,
    published_bytes: Arc<AtomicU64>,
    next: u64,
}

impl Lane {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Self {
        let mut orders = self.client.producer(self.topic.clone()).await.expect("a session");
        let mut left = self.client.producer(waiting(&self.topic)).await.expect("a session");
        while !stop.load(Ordering::Relaxed) {
            let numbers = self.next..self.next + BATCH;
            self.next = numbers.end;
            for number in numbers.clone() {
                if number.checked_rem(self.plan.one_left_of) == Some(4) {
                    self.publish(&mut left, &[(number, Fate::Waiting)]).await;
                }
            }
            let batch: Vec<_> = numbers.map(|number| (number, self.plan.fate(number))).collect();
            self.publish(&mut orders, &batch).await;
            self.settle().await;
        }
        self
    }

    /// Publishes until it is acknowledged.
    async fn publish(&self, producer: &mut Producer, batch: &[(u64, Fate)]) {
        let message = |&(number, fate): &(u64, Fate)| v1::NewMessage {
            body: self.plan.body(number).into(),
            delay_ms: if fate == Fate::Delayed { 24 * HOUR_MS } else { 0 },
            ttl_ms: (fate == Fate::Dead).then_some(1),
            ..Default::default()
        };
        let messages: Vec<_> = batch.iter().map(message).collect();
        let bytes: u64 = messages.iter().map(|message| message.body.len() as u64).sum();
        let begun = Instant::now();
        while let Err(error) = producer.publish(messages.clone()).await {
            must_pass(begun, "publish", &error);
        }
        self.published_bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut account = lock(&self.account);
        account.bytes += bytes + BESIDE_BODY * batch.len() as u64;
        for &(number, fate) in batch {
            match fate {
                Fate::Settled => drop(account.living.insert(number)),
                _ => drop(account.left.insert((fate, number))),
            }
        }
    }

    /// Takes and settles what there is.
    async fn settle(&mut self) {
        while self.settle_some(0).await > 0 {}
    }

    /// Takes and settles until nothing is left to be.
    async fn settle_all(&mut self) {
        let begun = Instant::now();
        while !lock(&self.account).living.is_empty() || self.settle_some(0).await > 0 {
            self.settle_some(100).await;
            assert!(begun.elapsed() < 2 * PATIENCE, "{:?} never come", lock(&self.account).living);
        }
    }

    async fn settle_some(&mut self, wait_ms: u64) -> usize {
        let request = v1::ReceiveRequest {
            topic: self.topic.clone(),
            messages_max: 100,
            bytes_max: ANSWER_BYTES,
            lease_ms: Some(self.plan.lease_ms),
            wait_ms,
            ..Default::default()
        };
        let begun = Instant::now();
        let deliveries = loop {
            match self.client.receive(request.clone()).await {
                Ok(received) => break received.deliveries,
                Err(error) => must_pass(begun, "receive", &error),
            }
        };
        let (mut done, mut leases, mut keep, mut back) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for delivery in &deliveries {
            let number = self.plan.number(&delivery.body);
            let lease = delivery.lease.clone();
            match self.plan.fate(number) {
                Fate::Settled => {
                    self.came(number);
                    done.push(number);
                    leases.push(lease);
                }
                Fate::Leased => keep.push(lease),
                // It came before its time was over. Then that is now.
                Fate::Dead => back.push(lease),
                fate => panic!("message {number} came, and was to be {fate:?}"),
            }
        }
        self.acknowledge(&done, leases).await;
        let topic = || self.topic.clone();
        if !keep.is_empty() {
            let lease_ms = Some(12 * HOUR_MS);
            let request = v1::ExtendRequest { topic: topic(), leases: keep, lease_ms, ..Default::default() };
            let begun = Instant::now();
            while let Err(error) = self.client.extend(request.clone()).await {
                must_pass(begun, "extend", &error);
            }
        }
        if !back.is_empty() {
            let request = v1::ReleaseRequest { topic: topic(), leases: back, ..Default::default() };
            // If it is not heard the leases end by themselves.
            let _ = self.client.release(request).await;
        }
        deliveries.len()
    }

    fn came(&self, number: u64) {
        let mut account = lock(&self.account);
        assert!(!account.settled.contains(&number), "message {number} comes again after it was acknowledged");
        assert!(account.living.contains(&number), "message {number} was never published");
        let before = account.last.replace(number);
        assert!(!self.plan.is_calm || before < Some(number), "message {number} comes after {before:?}");
    }

    async fn acknowledge(&self, numbers: &[u64], leases: Vec<bytes::Bytes>) {
        if leases.is_empty() {
            return;
        }
        let request = v1::AckRequest { topic: self.topic.clone(), leases, ..Default::default() };
        let begun = Instant::now();
        let results = loop {
            match self.client.ack(request.clone()).await {
                Ok(answer) => break answer.results,
                Err(error) => must_pass(begun, "ack", &error),
            }
        };
        let mut account = lock(&self.account);
        for (number, result) in numbers.iter().zip(results) {
            let is_done = [v1::LeaseResult::Done.into(), v1::LeaseResult::Gone.into()].contains(&result);
            assert!(is_done || !self.plan.is_calm, "message {number}: {result}");
            if is_done {
                account.living.remove(number);
                account.settled.insert(*number);
                account.bytes -= self.plan.body(*number).len() as u64 + BESIDE_BODY;
            }
        }
    }
}

/// An error that passes when the nodes are back.
fn must_pass(begun: Instant, what: &str, error: &Error) {
    assert!(begun.elapsed() < 2 * PATIENCE + Duration::from_secs(1), "{what}: {error}");
}
