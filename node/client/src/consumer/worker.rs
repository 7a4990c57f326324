//! The task behind a consumer: one stream after the other, until it is closed.

use super::held::{Credit, Held};
use super::settlements::{Kind, Order, Settlements};
use super::{Buffer, ConsumerSettings, DROPPED_DELAY_MS, Shared};
use crate::connections::Connection;
use crate::{Client, Error};
use raftqueue_proto::v1;
use raftqueue_proto::v1::consume_request::Step;
use raftqueue_proto::v1::consume_response::Event;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Streaming;

/// Said of a message whose bytes were not those that were published.
const DAMAGED_REASON: &str = "damaged on the way to its consumer";
/// Pause before the first attempt to connect again; it doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause between attempts, unless a node asks for a longer one.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// How long opening or ending a stream may take. There is no such limit for a settlement's answer: the node's disk may
/// be slow. A node that hangs does not answer the pings, and its connection ends.
const OPEN_MAX: Duration = Duration::from_secs(2);
/// A stream that lasted so long was good, though it brought nothing.
const LASTING: Duration = Duration::from_secs(10);
/// How long closing may take.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// Settlements under way at once. Those that wait meanwhile go out together, so that a fast consumer makes few
/// requests.
const SETTLEMENTS_MAX: usize = 4;
/// A lease is extended when this part of its length has passed: two extensions may be lost before it ends.
const EXTENSIONS_PER_LEASE: u32 = 3;
/// Requests on the way to a stream: far more than the settlements and grants that can be under way.
const REQUESTS_MAX: usize = 64;
/// Orders taken at once.
const ORDERS_AT_ONCE: usize = 1_024;

/// The task's state. Invariant: a message that is being settled is held until the answer comes, so that credit bounds
/// both.
pub(super) struct Worker {
    client: Client,
    topic: String,
    settings: ConsumerSettings,
    shared: Arc<Shared>,
    orders: mpsc::UnboundedReceiver<Order>,
    held: Held,
    settlements: Settlements,
    /// When leases were last looked through.
    swept: Instant,
    /// When closing must be over, once it has begun.
    closing: Option<Instant>,
    /// Since when no stream has brought anything.
    troubled: Option<Instant>,
}

/// Why a stream is left.
enum Left {
    /// The consumer is closed, and everything is settled.
    Closed,
    /// It broke, or its node cannot go on.
    Broken(Error),
}

type Opened = (Connection, mpsc::Sender<v1::ConsumeRequest>, Streaming<v1::ConsumeResponse>);

impl Worker {
    pub(super) fn new(
        client: Client,
        topic: String,
        settings: ConsumerSettings,
        shared: Arc<Shared>,
        orders: mpsc::UnboundedReceiver<Order>,
    ) -> Self {
        let limits = Credit { messages: settings.credit_messages, bytes: settings.credit_bytes };
        let (held, settlements, swept) = (Held::new(limits), Settlements::default(), Instant::now());
        let (closing, troubled) = (None, None);
        Self { client, topic, settings, shared, orders, held, settlements, swept, closing, troubled }
    }

    /// Runs until `close` resolves and everything is settled, or a node refuses for good.
    pub(super) async fn run(mut self, mut close: oneshot::Receiver<()>) -> Result<(), Error> {
        let mut pause = PAUSE_MIN;
        loop {
            let begun = Instant::now();
            let mut is_good = false;
            let error = match self.stream(&mut close, &mut is_good).await {
                Left::Closed => return Ok(()),
                Left::Broken(error) => error,
            };
            if is_good {
                pause = PAUSE_MIN;
                self.troubled = None;
            }
            // An idle stream that lasted was good, too.
            if begun.elapsed() > LASTING {
                self.troubled = None;
            }
            if !error.is_passing || self.closing.is_some_and(|end| end <= Instant::now()) {
                return self.end(error);
            }
            let troubled = *self.troubled.get_or_insert_with(Instant::now);
            if troubled.elapsed() >= self.settings.timeout {
                self.troubled = None;
                self.give_up(&error);
                self.shared.change(|buffer| buffer.trouble = Some(error.clone()));
            }
            let rest = pause.max(Duration::from_millis(error.retry_after_ms.unwrap_or(0)));
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                _ = &mut close, if self.closing.is_none() => self.begin_closing(),
            }
            pause = (pause * 2).min(PAUSE_MAX);
            if self.closing.is_some() && self.settlements.is_empty() {
                return Ok(());
            }
        }
    }

    /// Opens a stream and serves it until it breaks. `is_good` is set once it has brought something.
    async fn stream(&mut self, close: &mut oneshot::Receiver<()>, is_good: &mut bool) -> Left {
        self.held.start_over();
        self.settlements.start_over();
        let opened = timeout(OPEN_MAX, self.open()).await;
        let opened = opened.unwrap_or_else(|_| Err(Error::unreachable("no stream was opened in time")));
        let (connection, requests, mut events) = match opened {
            Ok(opened) => opened,
            Err(error) => return Left::Broken(error),
        };
        let mut heard = Instant::now();
        // Perhaps no lease was extended for a long time.
        self.swept = heard - self.sweep_every();
        let mut orders = Vec::new();
        loop {
            if let Err(error) = self.say(&requests, &mut heard) {
                let error = self.last_words(&mut events).await.unwrap_or(error);
                return self.broken(&connection, error);
            }
            if self.closing.is_some() && self.settlements.is_empty() {
                drop(requests);
                return self.finish(&mut events).await;
            }
            let mut wake_at = self.closing.unwrap_or_else(|| self.swept + self.sweep_every());
            if self.settlements.on_stream() > 0 {
                wake_at = wake_at.min(heard + self.settings.timeout);
            }
            tokio::select! {
                event = events.message() => match event {
                    Ok(Some(event)) => {
                        heard = Instant::now();
                        *is_good = true;
                        if let Err(error) = self.on_event(event.event, heard) {
                            return self.broken(&connection, error);
                        }
                    }
                    Ok(None) => return self.broken(&connection, Error::unheard("the node ended the stream")),
                    Err(status) => return self.broken(&connection, Error::from(&status)),
                },
                count = self.orders.recv_many(&mut orders, ORDERS_AT_ONCE), if self.closing.is_none() => {
                    orders.drain(..).for_each(|order| self.take(order));
                    if count == 0 {
                        // Nobody is left to receive a message, or to settle one.
                        self.begin_closing();
                    }
                }
                _ = &mut *close, if self.closing.is_none() => self.begin_closing(),
                () = sleep_until(wake_at) => {
                    if self.settlements.on_stream() > 0 && heard.elapsed() >= self.settings.timeout {
                        return self.broken(&connection, Error::unheard("the node did not answer in time"));
                    }
                    if self.closing.is_some_and(|end| end <= Instant::now()) {
                        return self.broken(&connection, Error::unheard("closing took too long"));
                    }
                }
            }
        }
    }

    /// The node takes no more requests. Returns why, if the node says so behind what it has sent before.
    async fn last_words(&mut self, events: &mut Streaming<v1::ConsumeResponse>) -> Option<Error> {
        let reading = async {
            loop {
                match events.message().await {
                    Ok(Some(event)) => self.on_event(event.event, Instant::now())?,
                    Ok(None) => return Ok(()),
                    Err(status) => return Err(Error::from(&status)),
                }
            }
        };
        timeout(OPEN_MAX, reading).await.ok().and_then(Result::err)
    }

    /// Sends what there is to say.
    fn say(&mut self, requests: &mpsc::Sender<v1::ConsumeRequest>, heard: &mut Instant) -> Result<(), Error> {
        let say = |step| {
            let said = requests.try_send(v1::ConsumeRequest { step: Some(step) });
            said.map_err(|_| Error::unheard("the stream broke"))
        };
        self.sweep();
        while self.settlements.on_stream() < SETTLEMENTS_MAX {
            if self.settlements.on_stream() == 0 {
                *heard = Instant::now();
            }
            let Some(settlement) = self.settlements.send_next() else { break };
            say(Step::Settlement(settlement))?;
        }
        if self.closing.is_none()
            && let Some(Credit { messages, bytes }) = self.held.grant()
        {
            say(Step::Credit(v1::Credit { messages: messages as u64, bytes: bytes as u64 }))?;
        }
        Ok(())
    }

    fn sweep_every(&self) -> Duration {
        self.settings.lease / EXTENSIONS_PER_LEASE / 2
    }

    /// Extends leases that are due, now and then.
    fn sweep(&mut self) {
        let now = Instant::now();
        if now - self.swept < self.sweep_every() || self.closing.is_some() {
            return;
        }
        self.swept = now;
        // Rather one sweep too early than one too late.
        let after = self.settings.lease / EXTENSIONS_PER_LEASE - self.sweep_every() / 2;
        let leases = self.held.extend(now, after, self.settings.hold);
        let lease_ms = u64::try_from(self.settings.lease.as_millis()).expect("at most 12 hours");
        self.settlements.push(Order { kind: Kind::Extend { lease_ms }, leases, reply: None });
    }

    fn take(&mut self, order: Order) {
        order.leases.iter().for_each(|lease| self.held.finish(lease));
        self.settlements.push(order);
    }

    fn on_event(&mut self, event: Option<Event>, now: Instant) -> Result<(), Error> {
        match event {
            Some(Event::Received(received)) => {
                self.held.receive(&received.deliveries, now);
                let leases = |deliveries: Vec<v1::Delivery>| {
                    deliveries.into_iter().map(|delivery| delivery.lease).collect::<Vec<_>>()
                };
                if self.closing.is_some() {
                    let leases = leases(received.deliveries);
                    self.take(Order { kind: Kind::Release, leases, reply: None });
                    return Ok(());
                }
                // A message that was damaged on the way harms no other. It is read anew, after a while.
                let is_whole =
                    |delivery: &v1::Delivery| crc32c::crc32c(&delivery.body) == delivery.body_crc32c;
                let (whole, damaged) = received.deliveries.into_iter().partition(is_whole);
                self.shared.change(|buffer: &mut Buffer| buffer.waiting.extend::<Vec<_>>(whole));
                let kind = Kind::Nack { delay_ms: DROPPED_DELAY_MS, reason: DAMAGED_REASON.into() };
                self.take(Order { kind, leases: leases(damaged), reply: None });
                Ok(())
            }
            Some(Event::Settled(answer)) => self.on_settled(&answer),
            None => Err(Error::unheard("the node sent an event that this client does not know")),
        }
    }

    fn on_settled(&mut self, answer: &v1::AckResponse) -> Result<(), Error> {
        let answered = self.settlements.answer(answer);
        let answered =
            answered.ok_or_else(|| Error::unheard("the node answered a request that was never sent"))?;
        if !matches!(answered.kind, Kind::Extend { .. }) {
            answered.results.iter().for_each(|(lease, _)| self.held.forget(lease));
            return Ok(());
        }
        let lost: Vec<_> =
            answered.results.into_iter().filter(|(_, result)| *result != v1::LeaseResult::Done).collect();
        if lost.is_empty() {
            return Ok(());
        }
        // A message that is not handed out yet need not be: it belongs to another consumer by now.
        let mut buffer = self.shared.lock();
        for (lease, _) in lost {
            self.held.finish(&lease);
            if let Some(position) = buffer.waiting.iter().position(|delivery| delivery.lease == lease) {
                buffer.waiting.remove(position);
                self.held.forget(&lease);
            }
        }
        Ok(())
    }

    /// Takes no more messages. What is held and not settled goes back.
    fn begin_closing(&mut self) {
        self.closing = Some(Instant::now() + CLOSE_MAX);
        self.orders.close();
        while let Ok(order) = self.orders.try_recv() {
            self.take(order);
        }
        self.shared.lock().waiting.clear();
        let leases = self.held.open();
        self.take(Order { kind: Kind::Release, leases, reply: None });
    }

    /// Everything is settled and the stream is closed on this side. The node gives back what it still sends.
    async fn finish(&mut self, events: &mut Streaming<v1::ConsumeResponse>) -> Left {
        let ended = timeout(OPEN_MAX, async { while let Ok(Some(_)) = events.message().await {} });
        // If this takes longer, the leases end by themselves.
        let _ = ended.await;
        Left::Closed
    }

    /// Fails what was not confirmed for too long, and what was settled while there was no stream.
    fn give_up(&mut self, error: &Error) {
        while let Ok(order) = self.orders.try_recv() {
            self.take(order);
        }
        for lease in self.settlements.give_up(error) {
            self.held.forget(&lease);
        }
    }

    /// The consumer cannot go on.
    fn end(mut self, error: Error) -> Result<(), Error> {
        self.orders.close();
        self.give_up(&error);
        self.shared.change(|buffer| buffer.end = Some(error.clone()));
        Err(error)
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
        let (requests, outgoing) = mpsc::channel(REQUESTS_MAX);
        let start = v1::ConsumeStart {
            topic: self.topic.clone(),
            subscription: self.settings.subscription.clone(),
            lease_ms: Some(u64::try_from(self.settings.lease.as_millis()).expect("at most 12 hours")),
        };
        let start = v1::ConsumeRequest { step: Some(Step::Start(start)) };
        requests.try_send(start).expect("there is room for the first");
        match self.client.open_consume_stream(&connection, outgoing).await {
            Ok(events) => Ok((connection, requests, events)),
            Err(error) => Err(self.client.note_failure(&connection, error)),
        }
    }
}
