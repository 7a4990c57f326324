//! What reaches the driver: notices of the disk, calls of clients, and what becomes of their callers. Also what the
//! callers wait for on the other side.

use crate::api::{Answer, Failure, MessageRef, Method, Reason, Recover, RecoveryInfo, Request, Response};
use crate::driver::bodies::Located;
use crate::metrics::Metrics;
use crate::replica::{Arrived, CallId, Event, Living};
use crate::traces::{Steps, Traced};
use raftqueue_queue::TopicId;
use raftqueue_raft::{NodeId, Persisted};
use raftqueue_wal::SnapshotFile;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

/// What the disk tells the driver.
#[derive(Debug)]
pub(crate) enum Notice {
    /// An event for the replica.
    Event(Event),
    /// A write is durable. Comes with the bytes that are free on the disk then, if it says: the driver wakes once for both.
    Written(Persisted, Option<u64>),
    /// A snapshot of another node is here, whole and aside, or could not be got.
    Arrived(Result<(SnapshotFile, Box<Arrived>), String>),
    /// The log cannot be written any more.
    DiskFailed(String),
}

/// What a call is answered with. Messages must still be read.
#[derive(Debug)]
pub(crate) enum Replied {
    /// Anything but messages.
    Response(Response),
    /// Messages, located in the log.
    Messages(Located),
}

impl Replied {
    /// The answer to a call that is not for messages. Messages that came all the same are not read: whoever writes the
    /// answer finds that it is that of another call.
    pub(crate) fn unread(self) -> Answer {
        Answer::Response(match self {
            Self::Response(response) => response,
            Self::Messages(located) => Response::Messages(located.into_messages()),
        })
    }
}

/// Where an answer goes.
pub(crate) type Reply = oneshot::Sender<Result<Replied, Failure>>;

/// A call on its way to the driver. The reply channel is dropped unanswered only when the node stops.
#[derive(Debug)]
pub(crate) struct NewCall {
    pub(crate) id: CallId,
    pub(crate) request: Request,
    pub(crate) deadline: Instant,
    pub(crate) reply: Reply,
    /// Where it is noted how far it came, if somebody wants to know.
    pub(crate) steps: Option<Arc<Steps>>,
}

/// Messages that another node lacks.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Which of them live here.
    pub(crate) living: Living,
    /// Where those stand.
    pub(crate) located: Located,
}

/// What the handle asks of the driver.
#[derive(Debug)]
pub(crate) enum Order {
    /// A call.
    Call(NewCall),
    /// Calls, to be proposed in this order.
    Calls(Vec<NewCall>),
    /// The caller has gone.
    Cancel(CallId),
    /// Another node lacks messages of a topic: where those stand that live.
    Give { topic: TopicId, wanted: Vec<Range<u64>>, reply: oneshot::Sender<Wanted> },
    /// Another node needs a newer snapshot than there is.
    MakeSnapshot,
    /// A receive was answered with these, and its caller has gone.
    Unheard(Vec<MessageRef>),
    /// Messages of an answer cannot be read here. If they were leased, nobody hears of them.
    Unreadable { messages: Vec<MessageRef>, are_leased: bool },
    /// What this node knows that may have to go on alone; with a token it does.
    Recover(Recover, oneshot::Sender<Result<RecoveryInfo, Failure>>),
    /// Give leadership away, if this node has it.
    HandOver,
    /// End.
    Stop,
}

/// Who leads, for those who wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    /// The leader, as far as this node knows.
    pub leader: Option<NodeId>,
    /// This node leads.
    pub is_own: bool,
    /// The term.
    pub term: u64,
}

/// A call that the driver has. Tells it when the caller goes away.
pub(crate) struct Asked<'a> {
    pub(crate) id: CallId,
    pub(crate) orders: &'a mpsc::Sender<Order>,
    /// Its messages are leased.
    pub(crate) leases: bool,
    pub(crate) answer: oneshot::Receiver<Result<Replied, Failure>>,
    pub(crate) is_taken: bool,
}

impl Future for Asked<'_> {
    type Output = Result<Replied, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        self.is_taken = true;
        Poll::Ready(answer.unwrap_or_else(|_| Err(stopped())))
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.is_taken {
            return;
        }
        self.answer.close();
        let order = match self.answer.try_recv() {
            Ok(Ok(Replied::Messages(located))) if self.leases => Order::Unheard(located.into_messages()),
            Ok(_) => return,
            Err(_) => Order::Cancel(self.id),
        };
        // A driver that is too busy to take this answers a call that nobody waits for, and the leases end by
        // themselves.
        let _ = self.orders.try_send(order);
    }
}

/// Messages that were leased, until their reader has them.
pub(crate) struct Leased<'a> {
    pub(crate) orders: &'a mpsc::Sender<Order>,
    pub(crate) messages: Vec<MessageRef>,
}

impl Drop for Leased<'_> {
    fn drop(&mut self) {
        let messages = std::mem::take(&mut self.messages);
        if !messages.is_empty() {
            // As for a call that is cancelled.
            let _ = self.orders.try_send(Order::Unheard(messages));
        }
    }
}

/// A call that the driver has. It is never one that is answered with messages.
pub struct Driven {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) id: CallId,
    pub(crate) method: Method,
    pub(crate) begun: Instant,
    /// `None` once it was answered.
    pub(crate) answer: Option<oneshot::Receiver<Result<Replied, Failure>>>,
    /// Its span, if it is exported.
    pub(crate) traced: Option<(Traced, Arc<Steps>)>,
}

impl Future for Driven {
    type Output = Result<Answer, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = self.answer.as_mut().expect("polled again after its answer");
        let result = ready!(Pin::new(answer).poll(context));
        self.answer = None;
        let result = match result.unwrap_or_else(|_| Err(stopped())) {
            Ok(replied) => Ok(replied.unread()),
            Err(failure) => Err(failure),
        };
        self.metrics.call_ended(self.method, self.begun.elapsed(), result.as_ref().err());
        if let Some((traced, steps)) = self.traced.take() {
            traced.tell(&steps);
            traced.end(result.as_ref().err().map(|failure| failure.text.clone()));
        }
        Poll::Ready(result)
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        // If the answer only waits to be taken, there is nothing to cancel.
        let is_open =
            |answer: &mut oneshot::Receiver<_>| matches!(answer.try_recv(), Err(TryRecvError::Empty));
        if self.answer.as_mut().is_some_and(is_open) {
            // As for a call that is cancelled.
            let _ = self.orders.try_send(Order::Cancel(self.id));
        }
    }
}

/// What the caller is told if the driver does not answer any more.
pub(crate) fn stopped() -> Failure {
    Failure::unknown(Reason::ShuttingDown, "the node stopped before the call was done")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::MessageId;

    #[test]
    fn rule_7_4_an_answer_that_its_caller_does_not_take_is_told_to_the_driver() {
        let (orders, mut taken) = mpsc::channel(1);
        let id = MessageId { generation: 0, topic: 1, offset: 2 };
        let message = MessageRef { id, token: 3, attempts: 0, deadline_ms: 4, reason: String::new() };
        let asked = |leases| {
            let (reply, answer) = oneshot::channel();
            (reply, Asked { id: CallId(5), orders: &orders, leases, answer, is_taken: false })
        };
        let answer = || Ok(Replied::Messages(Located::nowhere(vec![message.clone()])));
        let (reply, receive) = asked(true);
        assert!(reply.send(answer()).is_ok());
        drop(receive);
        assert!(matches!(taken.try_recv(), Ok(Order::Unheard(messages)) if messages == [message.clone()]));
        // What a peek shows is leased to others.
        let (reply, peek) = asked(false);
        assert!(reply.send(answer()).is_ok());
        drop(peek);
        assert!(taken.try_recv().is_err());
        // A driver that answers later learns that nobody is there.
        let (reply, receive) = asked(true);
        drop(receive);
        assert!(matches!(taken.try_recv(), Ok(Order::Cancel(CallId(5)))));
        assert!(reply.send(answer()).is_err());
    }
}
