//! Publishing at full speed: many batches under way at once, in order, each stored once.
//!
//! A task of its own holds the stream to the leader. Batches are steps of a session: after a break, those without an
//! answer are sent again under the same numbers, and nothing is stored twice. Messages that were handed over wait in
//! memory, up to [`PublisherSettings::buffer_bytes`]. Beyond that, handing over waits: that is the back-pressure.

use crate::connections::Connection;
use crate::pending::{Batch, Pending};
use crate::{Client, Error, Outcome};
use raftqueue_proto::v1;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::Streaming;

/// Pause before the first attempt to connect again; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause between attempts, unless a node asks for a longer one.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// How long opening a stream may take before another node is asked. There is no such limit for a batch's answer: the
/// node's disk may be slow. A node that hangs does not answer the pings, and its connection ends.
const OPEN_MAX: Duration = Duration::from_secs(2);
/// Batches that a session remembers, and so the most that may be under way.
const WINDOW_MAX: usize = 1_024;
/// Roughly what a message costs in memory besides its bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 64;
/// Orders taken at once.
const ORDERS_AT_ONCE: usize = 256;

/// How a [`Publisher`] publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublisherSettings {
    /// Batches under way at once, 1 to 1,024.
    pub window: usize,
    /// Most messages that are put into one batch, 1 to 10,000.
    pub batch_messages: usize,
    /// Most bytes that are put into one batch; one message may exceed it.
    pub batch_bytes: usize,
    /// How long a message may wait for others to share its batch. Zero: it waits only while the window is full.
    pub linger: Duration,
    /// Bytes that may wait for their acknowledgement in all; handing over more waits for room.
    pub buffer_bytes: usize,
    /// How long a message may take from being handed over until it is acknowledged, fail-overs included.
    pub timeout: Duration,
    /// A session that outlives this publisher, by its name, 1 to 255 bytes; it ends an hour after its last use. The first
    /// batch ([`Publisher::send_batch`]) is its step 1, the second one step 2, and so on, also of a later publisher with
    /// the same name: it repeats what an earlier one published, and what is stored already is not stored again, if the
    /// batches are the same. If they differ, that fails with `SEQUENCE_REUSED`. Who opens the session last holds it: the
    /// others fail with `FENCED`. After the first failure nothing more is published, since a later batch would take the
    /// step of the one that failed.
    pub session: Option<String>,
}

impl Default for PublisherSettings {
    fn default() -> Self {
        Self {
            window: 8,
            batch_messages: 256,
            batch_bytes: 256 << 10,
            linger: Duration::ZERO,
            buffer_bytes: 32 << 20,
            timeout: Duration::from_secs(120),
            session: None,
        }
    }
}

/// Publishes to one topic. Cheap to clone: clones share the session, the window and the order.
///
/// Messages are stored in the order in which they are handed over, each once. When one is refused, everything that was
/// handed over behind it and not acknowledged yet fails with it, so that nothing overtakes it.
#[derive(Clone, Debug)]
pub struct Publisher {
    orders: mpsc::Sender<Order>,
    room: Arc<Semaphore>,
    buffer_bytes: usize,
    task: Arc<Task>,
}

/// `None` once somebody waits for its end.
#[derive(Debug)]
struct Task(Option<JoinHandle<()>>);

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// What the task is asked to publish.
#[derive(Debug)]
struct Order {
    messages: Vec<v1::NewMessage>,
    bytes: usize,
    /// A batch of its own, as the caller made it.
    is_whole: bool,
    deadline: Instant,
    permit: OwnedSemaphorePermit,
    reply: oneshot::Sender<Result<v1::PublishResponse, Error>>,
}

/// Resolves when what was handed over is on the disks of a majority, or has failed. Dropping it changes nothing.
#[derive(Debug)]
pub struct Acknowledgement(oneshot::Receiver<Result<v1::PublishResponse, Error>>);

impl Future for Acknowledgement {
    /// Where the messages stand.
    type Output = Result<v1::PublishResponse, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let gone = || Err(Error::unheard("the publisher was dropped before the answer came"));
        Poll::Ready(ready!(Pin::new(&mut self.0).poll(context)).unwrap_or_else(|_| gone()))
    }
}

impl Publisher {
    pub(crate) async fn open(
        client: Client,
        topic: String,
        settings: PublisherSettings,
    ) -> Result<Self, Error> {
        check(&settings)?;
        let name = settings.session.clone();
        let session = client.open_session(v1::OpenSessionRequest { name }).await?.session;
        let room = Arc::new(Semaphore::new(settings.buffer_bytes));
        let buffer_bytes = settings.buffer_bytes;
        let (orders, taken) = mpsc::channel(ORDERS_AT_ONCE);
        let pending = Pending::new(topic, session);
        let waiting = VecDeque::new();
        let (needs_session, end) = (false, None);
        let worker = Worker { client, settings, pending, waiting, orders: taken, needs_session, end };
        let task = Arc::new(Task(Some(tokio::spawn(worker.run()))));
        Ok(Self { orders, room, buffer_bytes, task })
    }

    /// Hands a message over. Waits for room only; the future that is returned waits for the acknowledgement. Messages
    /// that wait share batches.
    ///
    /// # Errors
    ///
    /// The publisher's task has ended. Only a panic in it can cause that.
    pub async fn send(&self, message: v1::NewMessage) -> Result<Acknowledgement, Error> {
        self.hand_over(vec![message], false).await
    }

    /// Hands a batch over: all of its messages are stored or none, next to each other.
    ///
    /// # Errors
    ///
    /// As [`Publisher::send`].
    pub async fn send_batch(&self, messages: Vec<v1::NewMessage>) -> Result<Acknowledgement, Error> {
        self.hand_over(messages, true).await
    }

    /// Publishes a message and waits until it is acknowledged.
    ///
    /// # Errors
    ///
    /// The node's refusal, or no answer until the timeout; the outcome says whether the message may be stored.
    pub async fn publish(&self, message: v1::NewMessage) -> Result<v1::PublishResponse, Error> {
        self.send(message).await?.await
    }

    /// Waits until everything that was handed over before is acknowledged or has failed.
    pub async fn flush(&self) {
        let all = u32::try_from(self.buffer_bytes).expect("checked when it was opened");
        // The semaphore is fair: all permits are free once everything before has given its own back.
        drop(self.room.acquire_many(all).await);
    }

    /// Waits as [`Publisher::flush`] does, and ends the publisher with its session if no clone of it is left. A session
    /// that is not ended ends by itself after an hour without use.
    pub async fn close(self) {
        self.flush().await;
        let Self { orders, task, .. } = self;
        drop(orders);
        if let Some(task) = Arc::into_inner(task).and_then(|mut task| task.0.take()) {
            // It ends when nobody can hand over anything more.
            let _ = task.await;
        }
    }

    async fn hand_over(
        &self,
        mut messages: Vec<v1::NewMessage>,
        is_whole: bool,
    ) -> Result<Acknowledgement, Error> {
        for message in &mut messages {
            message.body_crc32c.get_or_insert_with(|| crc32c::crc32c(&message.body));
        }
        let bytes: usize = messages.iter().map(size).sum();
        let room = bytes.clamp(1, self.buffer_bytes);
        let room = u32::try_from(room).expect("checked when it was opened");
        let ended = || Error::not_sent("the publisher has ended");
        let permit = Arc::clone(&self.room).acquire_many_owned(room).await.map_err(|_| ended())?;
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now();
        let order = Order { messages, bytes, is_whole, deadline, permit, reply };
        self.orders.send(order).await.map_err(|_| ended())?;
        Ok(Acknowledgement(answer))
    }
}

fn check(settings: &PublisherSettings) -> Result<(), Error> {
    let within = |name: &str, value: usize, max: usize| {
        if (1..=max).contains(&value) {
            return Ok(());
        }
        Err(Error::not_sent(format!("{name} must be 1 to {max}, not {value}")))
    };
    within("window", settings.window, WINDOW_MAX)?;
    within("batch_messages", settings.batch_messages, 10_000)?;
    within("batch_bytes", settings.batch_bytes, 16 << 20)?;
    within("buffer_bytes", settings.buffer_bytes, 1 << 30)
}

fn size(message: &v1::NewMessage) -> usize {
    let headers = message.headers.iter().map(|header| header.name.len() + header.value.len());
    message.body.len() + message.key.len() + headers.sum::<usize>() + MESSAGE_OVERHEAD_BYTES
}

/// The task behind a publisher.
struct Worker {
    client: Client,
    settings: PublisherSettings,
    pending: Pending,
    /// Messages that are not in a batch yet.
    waiting: VecDeque<Order>,
    orders: mpsc::Receiver<Order>,
    /// The session cannot be continued: nothing is sent before there is another.
    needs_session: bool,
    /// Why nothing more is published, if there must not be another session.
    end: Option<Error>,
}

/// Why a stream is left.
enum Left {
    /// The publisher was dropped.
    Dropped,
    /// It broke, or its node cannot go on.
    Broken(Error),
}

impl Worker {
    async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            // A stream that nobody uses is not held open.
            if self.pending.is_empty() && self.waiting.is_empty() && !self.take_orders().await {
                return self.close_session().await;
            }
            if let Some(error) = self.end.clone() {
                // Whoever hands over something is told, until nobody is left who could.
                self.waiting.drain(..).for_each(|order| drop(order.reply.send(Err(behind(&error)))));
                continue;
            }
            if self.needs_session
                && let Err(error) = self.renew_session().await
            {
                self.fail_overdue(Instant::now(), &error);
                rest_after(&error, &mut pause).await;
                continue;
            }
            let answered = self.pending.answered();
            let error = match self.stream().await {
                Left::Dropped => return self.close_session().await,
                Left::Broken(error) => error,
            };
            if self.pending.answered() > answered {
                pause = PAUSE_MIN;
            }
            if self.take_failure(&error) {
                rest_after(&error, &mut pause).await;
            }
        }
    }

    /// Waits for orders; false when there will be none.
    async fn take_orders(&mut self) -> bool {
        let mut orders = Vec::new();
        let count = self.orders.recv_many(&mut orders, ORDERS_AT_ONCE).await;
        self.take(orders);
        count > 0
    }

    fn take(&mut self, orders: Vec<Order>) {
        let timeout = self.settings.timeout;
        self.waiting
            .extend(orders.into_iter().map(|order| Order { deadline: order.deadline + timeout, ..order }));
    }

    /// Opens a stream, sends what is pending and then what comes, until it breaks.
    async fn stream(&mut self) -> Left {
        let opened = tokio::time::timeout(OPEN_MAX, self.open()).await;
        let opened = opened.unwrap_or_else(|_| Err(Error::unreachable("no stream was opened in time")));
        let (connection, requests, mut answers) = match opened {
            Ok(opened) => opened,
            Err(error) => return Left::Broken(error),
        };
        let mut in_flight = 0;
        for request in self.pending.resend(self.settings.window) {
            in_flight += 1;
            if requests.try_send(request).is_err() {
                return Left::Broken(Error::unheard("the stream broke"));
            }
        }
        let mut orders = Vec::new();
        loop {
            while in_flight < self.settings.window {
                let Some(request) = self.pending.unsent().or_else(|| self.next_batch()) else { break };
                in_flight += 1;
                if requests.try_send(request).is_err() {
                    return self.broken(&connection, Error::unheard("the stream broke"));
                }
            }
            let linger = self.linger_left(in_flight < self.settings.window);
            let overdue_in =
                self.pending.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let nap = [linger, overdue_in].into_iter().flatten().min().unwrap_or(Duration::MAX);
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        in_flight -= 1;
                        self.pending.acknowledge(&answer);
                    }
                    Ok(None) => return self.broken(&connection, Error::unheard("the node ended the stream")),
                    Err(status) => return self.broken(&connection, Error::from(&status)),
                },
                count = self.orders.recv_many(&mut orders, ORDERS_AT_ONCE),
                    if self.waiting.len() < ORDERS_AT_ONCE =>
                {
                    if count == 0 {
                        return Left::Dropped;
                    }
                    let orders = std::mem::take(&mut orders);
                    self.take(orders);
                }
                () = tokio::time::sleep(nap) => {
                    if self.pending.is_overdue(Instant::now()) {
                        return self.broken(&connection, Error::unheard("no acknowledgement in time"));
                    }
                }
            }
        }
    }

    fn broken(&self, connection: &Connection, error: Error) -> Left {
        Left::Broken(self.client.note_failure(connection, error))
    }

    async fn open(&self) -> Result<Opened, Error> {
        let opened = self.open_at(self.client.connection().await?).await?;
        // The client goes to the leader that it is told of, if it can.
        let better = self.client.connection().await?;
        if better.address == opened.0.address { Ok(opened) } else { self.open_at(better).await }
    }

    async fn open_at(&self, connection: Connection) -> Result<Opened, Error> {
        let (requests, outgoing) = mpsc::channel(self.settings.window);
        match self.client.open_publish_stream(&connection, outgoing).await {
            Ok(answers) => Ok((connection, requests, answers)),
            Err(error) => Err(self.client.note_failure(&connection, error)),
        }
    }

    /// How long the next batch may still wait for more messages. `None`: nothing waits, or there is no room for a
    /// batch.
    fn linger_left(&self, has_room: bool) -> Option<Duration> {
        let first = self.waiting.front()?;
        let handed_over = first.deadline.checked_sub(self.settings.timeout)?;
        let left = self.settings.linger.saturating_sub(handed_over.elapsed());
        // A batch may have become due in between. Then it is looked at again at once.
        Some(left).filter(|left| !left.is_zero() || has_room)
    }

    /// Makes a batch of what waits, if it need not wait longer.
    fn next_batch(&mut self) -> Option<v1::PublishRequest> {
        let mut first = self.waiting.pop_front()?;
        let mut batch = Batch::new(first.deadline);
        let (mut count, mut bytes) = (first.messages.len(), first.bytes);
        if !first.is_whole {
            let fits = |next: &Order, count: usize, bytes: usize| {
                !next.is_whole
                    && count + next.messages.len() <= self.settings.batch_messages
                    && bytes + next.bytes <= self.settings.batch_bytes
            };
            let mut taken = 0;
            while let Some(next) = self.waiting.get(taken).filter(|next| fits(next, count, bytes)) {
                count += next.messages.len();
                bytes += next.bytes;
                taken += 1;
            }
            let is_full = self.waiting.len() > taken || count >= self.settings.batch_messages;
            let handed_over = first.deadline.checked_sub(self.settings.timeout).unwrap_or_else(Instant::now);
            if !is_full && handed_over.elapsed() < self.settings.linger {
                self.waiting.push_front(first);
                return None;
            }
            let rest: Vec<Order> = self.waiting.drain(..taken).collect();
            for mut order in rest {
                first.messages.append(&mut order.messages);
                batch.add(order.permit, order.reply, 1);
            }
        }
        batch.add_first(first.permit, first.reply, if first.is_whole { count } else { 1 });
        Some(self.pending.push(batch, first.messages))
    }

    /// Carries out what a failure means for pending batches. True if it is worth trying again after a pause.
    fn take_failure(&mut self, error: &Error) -> bool {
        let now = Instant::now();
        if self.pending.is_overdue(now) {
            self.pending.give_up(error);
            self.fail_overdue(now, error);
            self.needs_session = true;
            self.end = self.settings.session.is_some().then(|| error.clone());
            return false;
        }
        self.fail_overdue(now, error);
        if error.is_passing {
            return true;
        }
        self.needs_session |= !self.pending.refuse(error);
        self.end = self.settings.session.is_some().then(|| error.clone());
        for order in self.waiting.drain(..) {
            let _ = order.reply.send(Err(behind(error)));
        }
        false
    }

    fn fail_overdue(&mut self, now: Instant, error: &Error) {
        while self.waiting.front().is_some_and(|order| order.deadline <= now) {
            let order = self.waiting.pop_front().expect("just seen");
            let not_done = Error { outcome: Outcome::NotDone, ..error.clone() };
            let _ = order.reply.send(Err(not_done));
            if self.settings.session.is_some() {
                // What follows must not take its step.
                self.pending.give_up(error);
                self.end = Some(error.clone());
            }
        }
    }

    /// Ends the session, if possible. Nothing that was published depends on it. One with a name stays for the next.
    async fn close_session(&self) {
        if self.settings.session.is_some() {
            return;
        }
        let _ = self.client.close_session(self.pending.closing()).await;
    }

    /// Opens a new session, since the old one cannot go on. Until there is one, nothing can be published.
    async fn renew_session(&mut self) -> Result<(), Error> {
        let opened = self.client.open_session(v1::OpenSessionRequest { name: None }).await?;
        self.pending.start_over(opened.session);
        self.needs_session = false;
        Ok(())
    }
}

/// Waits before the next attempt: longer each time, and at least for as long as the node asks for.
async fn rest_after(error: &Error, pause: &mut Duration) {
    let rest = (*pause).max(Duration::from_millis(error.retry_after_ms.unwrap_or(0)));
    tokio::time::sleep(rest).await;
    *pause = (*pause * 2).min(PAUSE_MAX);
}

type Opened = (Connection, mpsc::Sender<v1::PublishRequest>, Streaming<v1::PublishResponse>);

/// The error of batches behind one that was refused.
pub(crate) fn behind(error: &Error) -> Error {
    let text = format!("not published, since a batch before it was refused: {}", error.text);
    Error { text, outcome: Outcome::NotDone, ..error.clone() }
}
