//! `PublishStream`: batches go in and answers come out, in order.
//!
//! On the leader many batches are under way at once: each is handed to the driver before the next is read, and entries
//! take them in that order. If this node stops leading, none of them is passed on, since they could overtake one
//! another. The stream ends, and the client goes on at the leader. On another node one batch at a time is passed on,
//! and nothing is begun during that, even if that node is the next to lead.

use super::super::guard::Ticket;
use super::refuse;
use crate::api::budget::Part;
use crate::api::limits::invalid;
use crate::api::{Answer, Failure, Reason, Role, SessionId};
use crate::edges::edge::{Admitted, Edge, overdue, overdue_after};
use crate::edges::gate::Called;
use crate::edges::service::{Begun, Service};
use crate::traces;
use crate::wire::answers;
use crate::wire::calls::read_publish;
use futures_util::Stream;
use raftqueue_proto::v1;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tonic::{Status, Streaming};

/// Batches of one stream that may be under way: as many as a session remembers for one topic.
const CALLS_MAX: usize = 1_024;
/// Bytes of them, after which no more are read: flow control then holds the client back.
const BYTES_MAX: usize = 8 << 20;
/// What a message takes besides its body.
const MESSAGE_BYTES: usize = 128;
/// How long one batch may take. A client that cannot wait so long closes the stream.
const DEADLINE: Duration = Duration::from_secs(5);

/// One batch that is under way.
struct Call<D> {
    begun: Begun<D>,
    /// What its messages take.
    bytes: usize,
    /// What the budget holds for it, until it is answered.
    _held: Option<Part>,
    /// When the edge gives it up.
    until: Instant,
    /// This node did not lead when it was begun.
    is_passed_on: bool,
}

/// The answers to a stream of batches.
pub(in super::super) struct Publishing<S: Service> {
    edge: Edge<S>,
    /// Who began it.
    called: Called,
    /// Gone once the client has sent its last batch.
    requests: Option<Streaming<v1::PublishRequest>>,
    /// Knows what is held for what has arrived.
    ticket: Option<Arc<Ticket>>,
    /// Oldest first. Only the oldest is polled; the driver goes on with the others by itself.
    calls: VecDeque<Call<S::Driven>>,
    bytes: usize,
    /// Fires when the oldest should have been answered long ago.
    timer: Pin<Box<Sleep>>,
    /// What ends the stream once everything is answered.
    last_word: Option<Status>,
    /// Session and topic of the first batch.
    of: Option<(SessionId, String)>,
    /// This node led when it was last given batches.
    led: bool,
    /// The call that the stream is.
    call: Option<traces::Call>,
    ended: bool,
}

impl<S: Service> Publishing<S> {
    pub(in super::super) fn new(
        edge: Edge<S>,
        called: Called,
        requests: Streaming<v1::PublishRequest>,
        ticket: Option<Arc<Ticket>>,
    ) -> Self {
        Self {
            edge,
            called,
            requests: Some(requests),
            ticket,
            calls: VecDeque::new(),
            bytes: 0,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            last_word: None,
            of: None,
            led: false,
            call: traces::Call::current(),
            ended: false,
        }
    }

    /// Reads batches, as far as there is room, and begins their calls. True if it began one.
    fn begin_calls(&mut self, context: &mut Context<'_>) -> bool {
        let leads = self.edge.local_status().role == Role::Leader;
        // A batch that is passed on may come back to this node. Nothing must overtake it.
        let is_passing_on = self.calls.iter().any(|call| call.is_passed_on);
        let calls_max = if leads && !is_passing_on { CALLS_MAX } else { 1 };
        if self.led && !leads && self.calls.is_empty() && self.requests.is_some() {
            let text = "this node no longer leads: go on at the leader";
            self.stop_reading(Some(refuse(&self.edge, &Failure::not_done(Reason::NotLeader, text))));
            return false;
        }
        let (mut read, mut sizes) = (Vec::new(), Vec::new());
        while self.calls.len() + read.len() < calls_max
            && self.bytes < BYTES_MAX
            && let Some(requests) = &mut self.requests
        {
            match Pin::new(requests).poll_next(context) {
                Poll::Ready(Some(Ok(request))) => {
                    let held = self.ticket.as_ref().and_then(|ticket| ticket.take_message());
                    match self.check(request) {
                        Ok((batch, bytes)) => {
                            self.bytes += bytes;
                            read.push(batch);
                            sizes.push((bytes, held));
                        }
                        Err(failure) => self.stop_reading(Some(refuse(&self.edge, &failure))),
                    }
                }
                Poll::Ready(Some(Err(status))) => self.stop_reading(Some(status)),
                Poll::Ready(None) => self.stop_reading(None),
                Poll::Pending => break,
            }
        }
        if read.is_empty() {
            return false;
        }
        self.led = leads;
        let until = Instant::now() + overdue_after(DEADLINE);
        let begin = || if leads { self.edge.begin(read, DEADLINE) } else { self.pass_on(read) };
        let begun = match &self.call {
            Some(call) => call.run_now(begin),
            None => begin(),
        };
        let call = |(begun, (bytes, held))| Call { begun, bytes, _held: held, until, is_passed_on: !leads };
        self.calls.extend(begun.into_iter().zip(sizes).map(call));
        true
    }

    /// A batch, and the bytes it takes.
    fn check(&mut self, request: v1::PublishRequest) -> Result<(Admitted, usize), Failure> {
        let admitted = self.edge.admit_batch(&self.called, read_publish(request)?)?;
        let batch = admitted.batch();
        // Only steps of a session can be pipelined: the queue itself then refuses what follows a failed one.
        let Some(step) = batch.session else {
            return Err(invalid(
                "a batch on a stream must be a step of a session: open one with OpenSession, or use Publish",
            ));
        };
        let (session, first_topic) = self.of.get_or_insert_with(|| (step.session, batch.topic.clone()));
        if *session != step.session || *first_topic != batch.topic {
            // These do not follow from the others, so a failure of one could not fail the rest.
            return Err(invalid(
                "all batches of a stream must be of one session and one topic: open a stream for each",
            ));
        }
        let bytes = batch.messages.iter().map(|message| message.body.len() + MESSAGE_BYTES).sum();
        Ok((admitted, bytes))
    }

    fn pass_on(&self, batches: Vec<Admitted>) -> Vec<Begun<S::Driven>> {
        let alone = |batch| {
            let (edge, called) = (self.edge.clone(), self.called.clone());
            let batch = async move { edge.call_admitted(called, batch, DEADLINE).await };
            Begun::Alone(match &self.call {
                Some(call) => {
                    let call = call.clone();
                    Box::pin(async move { call.run(batch).await.0 })
                }
                None => Box::pin(batch),
            })
        };
        batches.into_iter().map(alone).collect()
    }

    fn stop_reading(&mut self, last_word: Option<Status>) {
        self.requests = None;
        self.last_word = last_word;
    }

    /// The answer to the oldest batch.
    fn poll_oldest(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Answer, Failure>>> {
        let Some(oldest) = self.calls.front_mut() else { return Poll::Ready(None) };
        let result = match Pin::new(&mut oldest.begun).poll(context) {
            Poll::Ready(result) => result,
            Poll::Pending => {
                if self.timer.deadline() != oldest.until {
                    self.timer.as_mut().reset(oldest.until);
                }
                ready!(self.timer.as_mut().poll(context));
                Err(overdue(DEADLINE))
            }
        };
        let answered = self.calls.pop_front().expect("just looked at");
        self.bytes -= answered.bytes;
        Poll::Ready(Some(result))
    }
}

impl<S: Service> Stream for Publishing<S> {
    type Item = Result<v1::PublishResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        // Answers come first, and batches when there are none. So all batches that have come are read and begun
        // together.
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            match this.poll_oldest(context) {
                Poll::Ready(Some(Ok(answer))) => return Poll::Ready(Some(Ok(answers::write(answer)))),
                Poll::Ready(Some(Err(failure))) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(refuse(&this.edge, &failure))));
                }
                Poll::Pending => {
                    this.begin_calls(context);
                    return Poll::Pending;
                }
                // Nothing is under way. A batch that is begun now must be polled once, to wake this task.
                Poll::Ready(None) if this.begin_calls(context) => {}
                // Everything before the last word has been answered.
                Poll::Ready(None) if this.requests.is_none() => {
                    this.ended = true;
                    return Poll::Ready(this.last_word.take().map(Err));
                }
                Poll::Ready(None) => return Poll::Pending,
            }
        }
    }
}
