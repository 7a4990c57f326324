//! `Consume`: messages go out as credit comes in, and are settled on the same stream.
//!
//! One task for each stream. It has one receive under way while there is credit, and the settlements in the order in
//! which they came; both are ordinary calls, so they reach the leader from any node. What is leased and not settled is
//! remembered, bounded, so that a consumer that closes its side gives it back.

use super::super::{answers, ids};
use super::refuse;
use crate::api::{Failure, LeaseId, LeaseResult, Request, Response};
use crate::edge::Edge;
use crate::handle::{Answer, Service};
use crate::limits::{RECEIVE_BYTES_MAX, invalid};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use raftqueue_proto::v1;
use raftqueue_proto::v1::consume_request::Step;
use raftqueue_proto::v1::consume_response::Event;
use raftqueue_proto::v1::settlement::Kind;
use raftqueue_queue::LEASE_MS_MAX;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Messages that one stream may have out at once.
const OUT_MAX: usize = 10_000;
/// Messages of one receive: the most that a receive may ask for.
const RECEIVE_MAX: usize = 1_000;
/// Bytes of one receive: with what surrounds the messages it stays below what gRPC libraries take unless told otherwise.
const RECEIVE_BYTES: usize = 2 << 20;
/// Settlements that may be under way; no more are read until one is done.
const SETTLEMENTS_MAX: usize = 64;
/// How long a receive waits for a first message before it is asked anew.
const WAIT: Duration = Duration::from_secs(20);
/// How long a settlement, or what a receive needs beyond its wait, may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Answers that wait for a client that reads slowly.
const ANSWERS_MAX: usize = 4;

/// The answers to a consumer.
pub(in super::super) type Consuming = ReceiverStream<Result<v1::ConsumeResponse, Status>>;

/// Serves a consumer until it closes its side, something fails, or it is gone.
pub(in super::super) fn consume<S: Service>(
    edge: Edge<S>,
    requests: Streaming<v1::ConsumeRequest>,
) -> Consuming {
    let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
    tokio::spawn(async move {
        let mut consumer = Consumer::new(&edge, &answers);
        let ended = tokio::select! {
            ended = consumer.run(requests) => ended,
            () = answers.closed() => return,
        };
        if let Err(status) = ended {
            // Fails only if the client has gone.
            let _ = answers.send(Err(status)).await;
        }
    });
    ReceiverStream::new(receiver)
}

struct Consumer<'a, S> {
    edge: &'a Edge<S>,
    answers: &'a mpsc::Sender<Result<v1::ConsumeResponse, Status>>,
    topic: String,
    subscription: String,
    lease_ms: u64,
    credit_messages: u64,
    credit_bytes: u64,
    /// Leases that are out, as they are spelled on the wire, and when they have ended if nobody extends them. Those that
    /// end otherwise than on this stream stay here until then.
    out: BTreeMap<Bytes, Instant>,
}

type Call = BoxFuture<'static, Result<Answer, Failure>>;

impl<'a, S: Service> Consumer<'a, S> {
    fn new(edge: &'a Edge<S>, answers: &'a mpsc::Sender<Result<v1::ConsumeResponse, Status>>) -> Self {
        Self {
            edge,
            answers,
            topic: String::new(),
            subscription: String::new(),
            lease_ms: edge.limits().lease_ms_default,
            credit_messages: 0,
            credit_bytes: 0,
            out: BTreeMap::new(),
        }
    }

    async fn run(&mut self, mut requests: Streaming<v1::ConsumeRequest>) -> Result<(), Status> {
        match requests.message().await?.and_then(|request| request.step) {
            Some(Step::Start(start)) => {
                (self.topic, self.subscription) = (start.topic, start.subscription);
                self.lease_ms = start.lease_ms.unwrap_or(self.lease_ms);
            }
            Some(_) => return Err(self.refuse(&invalid("the first request of a consumer must be `start`"))),
            None => return Ok(()),
        }
        let mut receive: Option<Call> = None;
        let mut settlements: FuturesOrdered<Call> = FuturesOrdered::new();
        loop {
            if receive.is_none() {
                receive = self.receive();
            }
            let has_room = settlements.len() < SETTLEMENTS_MAX;
            let full_until = self.full_until();
            tokio::select! {
                Some(settled) = settlements.next() => self.settled(settled).await?,
                request = requests.message(), if has_room => match request?.map(|request| request.step) {
                    Some(Some(Step::Credit(credit))) => self.grant(&credit),
                    Some(Some(Step::Settlement(settlement))) => settlements.push_back(self.settle(settlement)?),
                    Some(Some(Step::Start(_))) => {
                        return Err(self.refuse(&invalid("a consumer starts only once: open another stream")));
                    }
                    Some(None) => {
                        return Err(self.refuse(&invalid("a request of a consumer must be `credit` or `settlement`")));
                    }
                    None => break,
                },
                received = async { receive.as_mut().expect("checked").await }, if receive.is_some() => {
                    receive = None;
                    self.received(received).await?;
                }
                () = async { sleep_until(full_until.expect("checked")).await }, if full_until.is_some() => {
                    let now = Instant::now();
                    self.out.retain(|_, end| *end > now);
                }
            }
        }
        // The consumer has closed its side: no more messages, and what it holds goes back. What a receive that is dropped
        // leases all the same is given back by the leader.
        drop(receive);
        while let Some(settled) = settlements.next().await {
            self.settled(settled).await?;
        }
        self.give_back().await
    }

    fn grant(&mut self, credit: &v1::Credit) {
        self.credit_messages = self.credit_messages.saturating_add(credit.messages);
        self.credit_bytes = self.credit_bytes.saturating_add(credit.bytes);
    }

    /// When there will be room for more, where there is none now.
    fn full_until(&self) -> Option<Instant> {
        if self.out.len() < OUT_MAX { None } else { self.out.values().min().copied() }
    }

    /// When a lease that is granted or extended now has ended. It may live longer by log time: then it is not given back
    /// when the consumer closes its side, and ends by itself.
    fn lease_end(lease_ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(lease_ms.min(LEASE_MS_MAX))
    }

    /// The next receive, if there is credit for one.
    fn receive(&self) -> Option<Call> {
        let room = OUT_MAX - self.out.len().min(OUT_MAX);
        let messages_max =
            usize::try_from(self.credit_messages).unwrap_or(usize::MAX).min(RECEIVE_MAX).min(room);
        let bytes_max = usize::try_from(self.credit_bytes).unwrap_or(usize::MAX);
        if messages_max == 0 || bytes_max == 0 {
            return None;
        }
        let request = Request::Receive {
            topic: self.topic.clone(),
            subscription: self.subscription.clone(),
            messages_max,
            bytes_max: bytes_max.min(RECEIVE_BYTES).min(RECEIVE_BYTES_MAX),
            lease_ms: Some(self.lease_ms),
            wait_ms: u64::try_from(WAIT.as_millis()).expect("a wait is short"),
        };
        let edge = self.edge.clone();
        Some(Box::pin(async move { edge.call(request, WAIT + DEADLINE).await }))
    }

    async fn received(&mut self, received: Result<Answer, Failure>) -> Result<(), Status> {
        let received: v1::ReceiveResponse =
            answers::write(received.map_err(|failure| self.refuse(&failure))?);
        if received.deliveries.is_empty() {
            return Ok(());
        }
        let bytes: usize = received.deliveries.iter().map(size).sum();
        self.credit_messages = self.credit_messages.saturating_sub(received.deliveries.len() as u64);
        self.credit_bytes = self.credit_bytes.saturating_sub(bytes as u64);
        let end = Self::lease_end(self.lease_ms);
        self.out.extend(received.deliveries.iter().map(|delivery| (delivery.lease.clone(), end)));
        self.answer(Event::Received(received)).await
    }

    fn settle(&mut self, settlement: v1::Settlement) -> Result<Call, Status> {
        let leases = settlement
            .leases
            .iter()
            .map(|lease| ids::decode_lease(lease))
            .collect::<Result<Vec<LeaseId>, _>>();
        let leases = leases.map_err(|failure| self.refuse(&failure))?;
        let kind = settlement.kind();
        // Said in full, so that the leader and this stream mean the same: it counts on the lease's end.
        let extended_ms = settlement.lease_ms.unwrap_or(self.edge.limits().lease_ms_default);
        let (topic, subscription) = (self.topic.clone(), self.subscription.clone());
        let request = match kind {
            Kind::Ack => Request::Ack { topic, subscription, leases },
            Kind::Nack => {
                let (delay_ms, reason) = (settlement.delay_ms, settlement.reason);
                Request::Nack { topic, subscription, leases, delay_ms, reason }
            }
            Kind::Extend => Request::Extend { topic, subscription, leases, lease_ms: Some(extended_ms) },
            Kind::Release => Request::Release { topic, subscription, leases },
            Kind::Forget => {
                if !(1..=RECEIVE_MAX).contains(&leases.len()) {
                    let text =
                        format!("1 to {RECEIVE_MAX} leases can be forgotten at once, not {}", leases.len());
                    return Err(self.refuse(&invalid(text)));
                }
                for lease in &settlement.leases {
                    self.out.remove(lease);
                }
                let done = Response::Leases(vec![LeaseResult::Done; leases.len()]);
                return Ok(Box::pin(std::future::ready(Ok(Answer::Response(done)))));
            }
            Kind::Unspecified => return Err(self.refuse(&invalid("a settlement must say its `kind`"))),
        };
        for lease in &settlement.leases {
            if kind != Kind::Extend {
                self.out.remove(lease);
            } else if let Some(end) = self.out.get_mut(lease) {
                *end = Self::lease_end(extended_ms);
            }
        }
        let edge = self.edge.clone();
        Ok(Box::pin(async move { edge.call(request, DEADLINE).await }))
    }

    async fn settled(&self, settled: Result<Answer, Failure>) -> Result<(), Status> {
        let settled = settled.map_err(|failure| self.refuse(&failure))?;
        self.answer(Event::Settled(answers::write(settled))).await
    }

    async fn give_back(&mut self) -> Result<(), Status> {
        let leases: Vec<LeaseId> =
            self.out.keys().filter_map(|lease| ids::decode_lease(lease).ok()).collect();
        for leases in leases.chunks(RECEIVE_MAX) {
            let (topic, subscription) = (self.topic.clone(), self.subscription.clone());
            let request = Request::Release { topic, subscription, leases: leases.to_vec() };
            self.edge.call(request, DEADLINE).await.map_err(|failure| self.refuse(&failure))?;
        }
        Ok(())
    }

    async fn answer(&self, event: Event) -> Result<(), Status> {
        let answer = Ok(v1::ConsumeResponse { event: Some(event) });
        self.answers.send(answer).await.map_err(|_| Status::cancelled("the consumer has gone"))
    }

    fn refuse(&self, failure: &Failure) -> Status {
        refuse(self.edge, failure)
    }
}

fn size(delivery: &v1::Delivery) -> usize {
    let headers = delivery.headers.iter().map(|header| header.name.len() + header.value.len());
    delivery.body.len() + delivery.key.len() + headers.sum::<usize>()
}
