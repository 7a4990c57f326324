//! `Consume`: messages go out as credit comes in, and are settled on the same stream.
//!
//! Each stream has one task. While there is credit, one receive is under way, and the settlements in the order in which
//! they came. Both are ordinary calls, so they reach the leader from any node. Leases that are not settled are
//! remembered, within a bound, so that they go back when a consumer closes its side.
//!
//! The task also remembers messages that are with the connection and not on the wire yet ([`crate::edges::sent`]). Few
//! are leased ahead. However the stream ends, they go back: nobody has seen them. Messages that were delivered stay
//! leased when the stream breaks: their consumer may be at work on them.

use super::super::guard::Ticket;
use super::asked::{Ended, Requests};
use super::credit::Credit;
use super::refuse;
use crate::api::budget::{Account, Part, Share};
use crate::api::limits::{RECEIVE_BYTES_MAX, invalid};
use crate::api::{
    Answer, DELIVERY_BYTES, Failure, LeaseId, LeaseResult, Look, Reason, Request, Response, Settle,
    Settlement, Take, TakeKind,
};
use crate::edges::edge::Edge;
use crate::edges::gate::{self, Called, Origin};
use crate::edges::request_end::RequestEnd;
use crate::edges::sent::{self, Outgoing, Sent};
use crate::edges::service::Service;
use crate::wire::calls::read_settlement;
use crate::wire::{answers, ids};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use prost::Message;
use raftqueue_proto::v1;
use raftqueue_proto::v1::consume_request::Step;
use raftqueue_proto::v1::consume_response::Event;
use raftqueue_proto::v1::settlement::Kind;
use raftqueue_queue::{LEASE_MS_MAX, SubscriptionId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Messages that one stream may have out at once.
const OUT_MAX: usize = 10_000;
/// Messages of one receive: the most that a receive may ask for.
const RECEIVE_MAX: usize = 1_000;
/// Bytes of one receive.
const RECEIVE_BYTES: usize = 2 << 20;
/// Bytes of the messages in one answer, unless a single one is larger. That is less than any client takes, and so
/// little that few messages are affected by one that does not get through.
const ANSWER_BYTES: usize = 256 << 10;
/// No more messages are received while so many bytes wait to be put on the wire.
const UNSENT_BYTES_MAX: u64 = 256 << 10;
/// A message of more bytes may be too large for its client, which then breaks the stream, with everything behind it.
const LARGE_BYTES: u64 = RECEIVE_BYTES as u64;
/// So for this time nothing is leased behind such a message, unless the client settles it.
const LARGE_PAUSE: Duration = Duration::from_secs(1);
/// Pause before messages are asked for again, after there was no room for them.
const NO_ROOM: Duration = Duration::from_millis(100);
/// What stands before each answer on the wire.
const ANSWER_HEAD_BYTES: u64 = 5;
/// Settlements that may be under way. No more are read until one is done.
const SETTLEMENTS_MAX: usize = 64;
/// How long a receive waits for a first message before it is asked anew.
const WAIT: Duration = Duration::from_secs(20);
/// How long a settlement, or what a receive needs beyond its wait, may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Answers on the way to the connection.
const ANSWERS_MAX: usize = 16;

/// The answers to a consumer.
pub(in super::super) type Consuming = ReceiverStream<Result<v1::ConsumeResponse, Status>>;

/// Serves a consumer until it closes its side, something fails, or it is gone.
pub(in super::super) fn consume<S: Service>(
    edge: Edge<S>,
    start: tonic::Request<Streaming<v1::ConsumeRequest>>,
) -> tonic::Response<Consuming> {
    let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
    let (sent, outgoing) = Outgoing::stream();
    let end = start.extensions().get::<RequestEnd>().cloned().unwrap_or_default();
    let ticket = start.extensions().get::<Arc<Ticket>>().cloned();
    let called = Called::in_extensions(start.extensions());
    let requests = Requests { requests: start.into_inner(), end, ticket };
    tokio::spawn(async move {
        let taken = answers.clone();
        let gone = async {
            sent.ended().await;
            if !sent.is_counted() {
                taken.closed().await;
            }
        };
        let mut consumer = Consumer::new(&edge, called, answers, Arc::clone(&sent));
        let ended = tokio::select! {
            ended = consumer.run(requests) => ended,
            () = gone => Ok(Ended::Broken),
        };
        drop(taken);
        let ended = match ended {
            Ok(Ended::Closed) => consumer.close().await,
            Ok(Ended::Broken) => Ok(()),
            Err(status) => Err(status),
        };
        consumer.end(ended).await;
    });
    let mut response = tonic::Response::new(ReceiverStream::new(receiver));
    response.extensions_mut().insert(outgoing);
    response
}

struct Consumer<'a, S> {
    edge: &'a Edge<S>,
    called: Called,
    answers: mpsc::Sender<Result<v1::ConsumeResponse, Status>>,
    sent: Arc<Sent>,
    topic: String,
    subscription: String,
    lease_ms: u64,
    credit: Credit,
    /// Leases that are out, as they are spelled on the wire, and when they end if nobody extends them. A lease that is
    /// settled elsewhere stays here until then.
    out: BTreeMap<Bytes, Instant>,
    /// Messages that are not on the wire yet, oldest first.
    unsent: VecDeque<Unsent>,
    /// Where the last answer ends, in bytes of the body.
    end: u64,
    large: Option<Large>,
    /// When messages are asked for again, after there was no room for any.
    paused_until: Option<Instant>,
    settlements: FuturesOrdered<Call>,
}

/// An answer with messages.
struct Unsent {
    /// Where it begins and ends, in bytes of the body.
    begin: u64,
    end: u64,
    leases: Vec<Bytes>,
    /// What it holds of the budget until it is on the wire.
    held: Part,
}

/// A large message that the client may not have taken.
struct Large {
    lease: Bytes,
    /// Set once it is on the wire: until then the client has this time.
    until: Option<Instant>,
}

type Call = BoxFuture<'static, Result<Answer, Failure>>;

impl<'a, S: Service> Consumer<'a, S> {
    fn new(
        edge: &'a Edge<S>,
        called: Called,
        answers: mpsc::Sender<Result<v1::ConsumeResponse, Status>>,
        sent: Arc<Sent>,
    ) -> Self {
        Self {
            edge,
            called,
            answers,
            sent,
            topic: String::new(),
            subscription: String::new(),
            lease_ms: edge.limits().lease_ms_default,
            credit: Credit::default(),
            out: BTreeMap::new(),
            unsent: VecDeque::new(),
            end: 0,
            large: None,
            paused_until: None,
            settlements: FuturesOrdered::new(),
        }
    }

    async fn run(&mut self, mut requests: Requests) -> Result<Ended, Status> {
        let request = match requests.next().await? {
            Ok((request, _)) => request,
            Err(ended) => return Ok(ended),
        };
        let Some(Step::Start(start)) = request.step else {
            return Err(self.refuse(&invalid("the first request of a consumer must be `start`")));
        };
        (self.topic, self.subscription) = (start.topic, start.subscription);
        self.lease_ms = start.lease_ms.unwrap_or(self.lease_ms);
        let mut checking = Some(self.check()?);
        let sent = Arc::clone(&self.sent);
        sent.set_patience(sent::patience(lease(self.lease_ms)));
        let mut receive: Option<Call> = None;
        loop {
            self.forget_sent();
            let is_behind = self.end.saturating_sub(self.sent.written()) > UNSENT_BYTES_MAX;
            if receive.is_none() && !is_behind && self.large.is_none() && self.paused_until.is_none() {
                receive = self.receive();
            }
            let (is_large_unsent, large_until) = match &self.large {
                Some(large) => (large.until.is_none(), large.until),
                None => (false, None),
            };
            let awaited = if is_large_unsent { self.end } else { self.end.saturating_sub(UNSENT_BYTES_MAX) };
            let has_room = self.settlements.len() < SETTLEMENTS_MAX;
            let (full_until, paused_until) = (self.full_until(), self.paused_until);
            tokio::select! {
                checked = async { checking.as_mut().expect("checked").await }, if checking.is_some() => {
                    checking = None;
                    self.checked(checked)?;
                }
                Some(settled) = self.settlements.next() => self.settled(settled).await?,
                request = requests.next(), if has_room => match request? {
                    Ok((request, held)) => self.obey(request, held)?,
                    Err(ended) => return Ok(ended),
                },
                received = async { receive.as_mut().expect("checked").await }, if receive.is_some() => {
                    receive = None;
                    self.received(received).await?;
                }
                () = sent.reached(awaited), if is_behind || is_large_unsent => {}
                () = async { sleep_until(large_until.expect("checked")).await }, if large_until.is_some() => {
                    self.large = None;
                }
                () = async { sleep_until(paused_until.expect("checked")).await }, if paused_until.is_some() => {
                    self.paused_until = None;
                }
                () = async { sleep_until(full_until.expect("checked")).await }, if full_until.is_some() => {
                    let now = Instant::now();
                    self.out.retain(|_, end| *end > now);
                }
            }
        }
    }

    /// Looks at once whether topic and subscription exist, so that a mistake is told before credit is granted.
    fn check(&self) -> Result<Call, Status> {
        let receive = self.request(1, 1);
        let checked = self.edge.check(&self.called, &receive, Origin::Client);
        checked.map_err(|failure| self.refuse(&failure))?;
        // Who may receive from a topic need not be one who may see more of it.
        let describe = Request::Look(Look::DescribeTopic { topic: self.topic.clone() });
        let (edge, describe) = (self.edge.clone(), gate::Call::own(describe, DEADLINE));
        Ok(Box::pin(async move { edge.call(describe).await }))
    }

    fn checked(&self, checked: Result<Answer, Failure>) -> Result<(), Status> {
        let topic = match checked {
            Ok(Answer::Response(Response::Topic(topic))) => topic,
            Err(failure) if failure.reason == Reason::TopicNotFound => return Err(self.refuse(&failure)),
            // It could not be looked at now. A receive will tell.
            _ => return Ok(()),
        };
        let name = match self.subscription.as_str() {
            "" => SubscriptionId::DEFAULT_NAME,
            name => name,
        };
        if topic.subscriptions.iter().any(|subscription| subscription.name == name) {
            return Ok(());
        }
        let text =
            format!("there is no subscription `{name}`; every topic has `{}`", SubscriptionId::DEFAULT_NAME);
        Err(self.refuse(&Failure::not_done(Reason::SubscriptionNotFound, text)))
    }

    /// Does what the request asks. `held` is held for the request until that is done.
    fn obey(&mut self, request: v1::ConsumeRequest, held: Option<Part>) -> Result<(), Status> {
        match request.step {
            Some(Step::Credit(credit)) => self.credit.add(&credit).map_err(|failure| self.refuse(&failure)),
            Some(Step::Settlement(settlement)) => {
                let call = self.settle(settlement)?;
                self.settlements.push_back(Box::pin(async move {
                    let settled = call.await;
                    drop(held);
                    settled
                }));
                Ok(())
            }
            Some(Step::Start(_)) => {
                Err(self.refuse(&invalid("a consumer starts only once: open another stream")))
            }
            None => Err(self.refuse(&invalid("a request of a consumer must be `credit` or `settlement`"))),
        }
    }

    /// The consumer has closed its side: it gets no more messages, and what it holds goes back. If a receive that was
    /// dropped leases messages all the same, the leader gives them back.
    async fn close(&mut self) -> Result<(), Status> {
        let mut ended = Ok(());
        while let Some(settled) = self.settlements.next().await {
            // The consumer may be gone for good by now. That changes nothing about what it holds.
            ended = ended.and(self.settled(settled).await);
        }
        // Answers that are not on the wire count as held, too.
        self.unsent.iter_mut().for_each(|unsent| unsent.leases.clear());
        let leases = std::mem::take(&mut self.out).into_keys().collect();
        self.give_back(leases).await.and(ended)
    }

    /// Says how the stream ended, and gives back what did not get on the wire by then.
    async fn end(mut self, ended: Result<(), Status>) {
        if let Err(status) = ended {
            // Fails only if the client has gone.
            let _ = self.answers.send(Err(status)).await;
        }
        // The stream ends with its last sender.
        let (answers, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.answers, answers));
        self.sent.over().await;
        self.forget_sent();
        let written = self.sent.written();
        // An answer of a single message that has begun may be too large for its client. It counts as delivered, or it
        // would come again for ever. But if this node gave the stream up, the client did not see it.
        let has_begun = |unsent: &Unsent| unsent.leases.len() == 1 && unsent.begin < written;
        if !self.sent.is_given_up() && self.unsent.front().is_some_and(has_begun) {
            self.unsent.pop_front();
        }
        let unsent = std::mem::take(&mut self.unsent);
        let leases = unsent.into_iter().flat_map(|Unsent { leases, held, .. }| {
            drop(held);
            leases
        });
        // Leases that cannot be given back now end by themselves.
        let _ = self.give_back(leases.collect()).await;
    }

    /// Forgets what is on the wire.
    fn forget_sent(&mut self) {
        let written = self.sent.written();
        while self.unsent.front().is_some_and(|unsent| unsent.end <= written) {
            let sent = self.unsent.pop_front().expect("just seen");
            if let Some(large) = self.large.as_mut().filter(|large| sent.leases.contains(&large.lease)) {
                large.until = Some(Instant::now() + LARGE_PAUSE);
            }
        }
    }

    /// When there will be room for more, if there is none now.
    fn full_until(&self) -> Option<Instant> {
        if self.out.len() < OUT_MAX { None } else { self.out.values().min().copied() }
    }

    /// When a lease that is granted or extended now has ended. By log time it may live longer. Then it is not given
    /// back when the consumer closes its side, but ends by itself.
    fn lease_end(lease_ms: u64) -> Instant {
        Instant::now() + lease(lease_ms)
    }

    /// The next receive, if there is credit for one.
    fn receive(&self) -> Option<Call> {
        let room = OUT_MAX - self.out.len().min(OUT_MAX);
        let (messages_max, bytes_max) = self.credit.room();
        let messages_max = messages_max.min(RECEIVE_MAX).min(room);
        if messages_max == 0 || bytes_max == 0 {
            return None;
        }
        let request = self.request(messages_max, bytes_max.min(RECEIVE_BYTES).min(RECEIVE_BYTES_MAX));
        Some(self.call(request, WAIT + DEADLINE))
    }

    fn request(&self, messages_max: usize, bytes_max: usize) -> Request {
        Request::Take(Take {
            topic: self.topic.clone(),
            subscription: self.subscription.clone(),
            messages_max,
            bytes_max,
            wait_ms: u64::try_from(WAIT.as_millis()).expect("a wait is short"),
            kind: TakeKind::Receive { lease_ms: Some(self.lease_ms) },
        })
    }

    async fn received(&mut self, received: Result<Answer, Failure>) -> Result<(), Status> {
        let mut answer = match received {
            Ok(answer) => answer,
            // Others hold everything. That will pass, and this consumer does nothing wrong.
            Err(failure) if failure.reason == Reason::Overloaded => {
                self.paused_until = Some(Instant::now() + NO_ROOM);
                return Ok(());
            }
            // No other message came while it waited. What cannot be read now may be read later, or by another leader.
            Err(failure) if failure.reason == Reason::DataUnreadable => return Ok(()),
            Err(failure) => return Err(self.refuse(&failure)),
        };
        let account = Arc::new(Account::new(self.edge.budget(), Share::Streams));
        if let Answer::Deliveries(deliveries) = &mut answer
            && let Some(held) = deliveries.held.take()
        {
            account.take_over(&held);
        }
        let received: v1::ReceiveResponse = answers::write(answer);
        let end = Self::lease_end(self.lease_ms);
        let mut answers = Vec::new();
        let mut deliveries = received.deliveries.into_iter().peekable();
        while let Some(first) = deliveries.next() {
            let mut bytes = size(&first);
            let mut part = vec![first];
            while let Some(next) = deliveries.next_if(|next| bytes + size(next) <= ANSWER_BYTES) {
                bytes += size(&next);
                part.push(next);
            }
            let leases: Vec<Bytes> = part.iter().map(|delivery| delivery.lease.clone()).collect();
            self.credit.take(leases.len() as u64, bytes as u64);
            self.out.extend(leases.iter().map(|lease| (lease.clone(), end)));
            let begin = self.end;
            answers.push(self.count(Event::Received(v1::ReceiveResponse { deliveries: part })));
            if self.end - begin > LARGE_BYTES {
                self.large = Some(Large { lease: leases[0].clone(), until: None });
            }
            let held = account.part(bytes + leases.len() * DELIVERY_BYTES);
            self.unsent.push_back(Unsent { begin, end: self.end, leases, held });
        }
        for answer in answers {
            self.send(answer).await?;
        }
        Ok(())
    }

    fn settle(&mut self, mut settlement: v1::Settlement) -> Result<Call, Status> {
        let leases = settlement
            .leases
            .iter()
            .map(|lease| ids::decode_lease(lease))
            .collect::<Result<Vec<LeaseId>, _>>();
        let leases = leases.map_err(|failure| self.refuse(&failure))?;
        // The time is written out, so that the leader and this stream mean the same end of the lease.
        let extended_ms = *settlement.lease_ms.get_or_insert(self.edge.limits().lease_ms_default);
        let Some(settled) = read_settlement(&mut settlement) else {
            return self.forget(&settlement);
        };
        if self.large.as_ref().is_some_and(|large| settlement.leases.contains(&large.lease)) {
            self.large = None;
        }
        let new_end = settled.lease_ms(extended_ms).map(Self::lease_end);
        for lease in &settlement.leases {
            if let Some(new_end) = new_end {
                self.out.get_mut(lease).into_iter().for_each(|end| *end = new_end);
            } else {
                self.out.remove(lease);
            }
        }
        let request = self.settling(leases, settled);
        Ok(self.call(request, DEADLINE))
    }

    /// A call of whoever began the stream.
    fn call(&self, request: Request, deadline: Duration) -> Call {
        let edge = self.edge.clone();
        let call = gate::Call::of_client(self.called.clone(), request, deadline);
        Box::pin(async move { edge.call_on_stream(call).await })
    }

    /// Settles leases for this stream alone: the leader need not know.
    fn forget(&mut self, settlement: &v1::Settlement) -> Result<Call, Status> {
        if settlement.kind() != Kind::Forget {
            return Err(self.refuse(&invalid("a settlement must say its `kind`")));
        }
        let count = settlement.leases.len();
        if !(1..=RECEIVE_MAX).contains(&count) {
            let text = format!("1 to {RECEIVE_MAX} leases can be forgotten at once, not {count}");
            return Err(self.refuse(&invalid(text)));
        }
        for lease in &settlement.leases {
            self.out.remove(lease);
        }
        let done = Response::Leases(vec![LeaseResult::Done; count]);
        Ok(Box::pin(std::future::ready(Ok(Answer::Response(done)))))
    }

    fn settling(&self, leases: Vec<LeaseId>, settlement: Settlement) -> Request {
        let (topic, subscription) = (self.topic.clone(), self.subscription.clone());
        Request::Settle(Settle { topic, subscription, leases, settlement })
    }

    async fn settled(&mut self, settled: Result<Answer, Failure>) -> Result<(), Status> {
        let settled = settled.map_err(|failure| self.refuse(&failure))?;
        let answer = self.count(Event::Settled(answers::write(settled)));
        self.send(answer).await
    }

    /// Gives these back without an attempt.
    async fn give_back(&mut self, leases: Vec<Bytes>) -> Result<(), Status> {
        let leases: Vec<LeaseId> = leases.iter().filter_map(|lease| ids::decode_lease(lease).ok()).collect();
        for leases in leases.chunks(RECEIVE_MAX) {
            let request = self.settling(leases.to_vec(), Settlement::Release);
            // What it got goes back, whoever it is by now.
            let call = gate::Call::own(request, DEADLINE);
            self.edge.call(call).await.map_err(|failure| self.refuse(&failure))?;
        }
        Ok(())
    }

    /// The next answer, which counts as part of the body from now on.
    fn count(&mut self, event: Event) -> v1::ConsumeResponse {
        let answer = v1::ConsumeResponse { event: Some(event) };
        self.end += ANSWER_HEAD_BYTES + answer.encoded_len() as u64;
        self.sent.expect(self.end);
        answer
    }

    async fn send(&mut self, answer: v1::ConsumeResponse) -> Result<(), Status> {
        self.answers.send(Ok(answer)).await.map_err(|_| Status::cancelled("the consumer has gone"))
    }

    fn refuse(&self, failure: &Failure) -> Status {
        refuse(self.edge, failure)
    }
}

fn lease(lease_ms: u64) -> Duration {
    Duration::from_millis(lease_ms.min(LEASE_MS_MAX))
}

fn size(delivery: &v1::Delivery) -> usize {
    let headers = delivery.headers.iter().map(|header| header.name.len() + header.value.len());
    delivery.body.len() + delivery.key.len() + headers.sum::<usize>()
}
