//! `PublishStream`: batches go in and answers come out, in order.
//!
//! On the leader many batches are under way at once: each is handed to the driver before the next is read, and entries
//! take them in that order. If this node stops leading, none of them is passed on, since they could overtake one another
//! on the way; the stream ends and the client goes on at the leader. On another node one batch at a time is passed on.

use super::super::answers;
use super::super::convert::Read;
use super::refuse;
use crate::api::{Failure, Request};
use crate::edge::Edge;
use crate::handle::{Answer, Role, Service};
use crate::limits::invalid;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use raftqueue_proto::v1;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::{Status, Streaming};

/// Batches of one stream that may be under way: as many as a session remembers for one topic.
const CALLS_MAX: usize = 1_024;
/// Bytes of them, after which no more are read: flow control then holds the client back.
const BYTES_MAX: usize = 8 << 20;
/// How long one batch may take. A client that is in a greater hurry closes the stream.
const DEADLINE: Duration = Duration::from_secs(5);

/// The answers to a stream of batches.
pub(in super::super) struct Publishing<S> {
    edge: Edge<S>,
    /// Gone once the client has sent its last batch.
    requests: Option<Streaming<v1::PublishRequest>>,
    calls: FuturesOrdered<BoxFuture<'static, Result<Answer, Failure>>>,
    /// Bytes of each call, oldest first.
    sizes: VecDeque<usize>,
    bytes: usize,
    /// What ends the stream once everything is answered.
    last_word: Option<Status>,
    ended: bool,
}

impl<S: Service> Publishing<S> {
    pub(in super::super) fn new(edge: Edge<S>, requests: Streaming<v1::PublishRequest>) -> Self {
        let (calls, sizes) = (FuturesOrdered::new(), VecDeque::new());
        Self { edge, requests: Some(requests), calls, sizes, bytes: 0, last_word: None, ended: false }
    }

    /// Reads batches and begins their calls, as far as there is room.
    fn begin_calls(&mut self, context: &mut Context<'_>) {
        while self.has_room()
            && let Some(requests) = &mut self.requests
        {
            match Pin::new(requests).poll_next(context) {
                Poll::Ready(Some(Ok(request))) => match request.read().and_then(require_session) {
                    Ok(request) => self.begin(request),
                    Err(failure) => self.stop_reading(Some(refuse(&self.edge, &failure))),
                },
                Poll::Ready(Some(Err(status))) => self.stop_reading(Some(status)),
                Poll::Ready(None) => self.stop_reading(None),
                Poll::Pending => return,
            }
        }
    }

    fn stop_reading(&mut self, last_word: Option<Status>) {
        self.requests = None;
        self.last_word = last_word;
    }

    fn leads(&self) -> bool {
        self.edge.local_status().role == Role::Leader
    }

    fn has_room(&self) -> bool {
        let calls_max = if self.leads() { CALLS_MAX } else { 1 };
        self.calls.len() < calls_max && self.bytes < BYTES_MAX
    }

    fn begin(&mut self, request: Request) {
        let bytes = match &request {
            Request::Publish { messages, .. } => messages.iter().map(|message| message.body.len()).sum(),
            _ => 0,
        };
        let (edge, leads) = (self.edge.clone(), self.leads());
        self.sizes.push_back(bytes);
        self.bytes += bytes;
        self.calls.push_back(Box::pin(async move {
            if leads {
                edge.call_forwarded(request, DEADLINE).await
            } else {
                edge.call(request, DEADLINE).await
            }
        }));
    }
}

impl<S: Service> Stream for Publishing<S> {
    type Item = Result<v1::PublishResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        this.begin_calls(context);
        match Pin::new(&mut this.calls).poll_next(context) {
            Poll::Ready(Some(Ok(answer))) => {
                this.bytes -= this.sizes.pop_front().expect("every call has its size");
                Poll::Ready(Some(Ok(answers::write(answer))))
            }
            Poll::Ready(Some(Err(failure))) => {
                this.ended = true;
                Poll::Ready(Some(Err(refuse(&this.edge, &failure))))
            }
            // Whatever came before the last word has been answered.
            Poll::Ready(None) if this.requests.is_none() => {
                this.ended = true;
                Poll::Ready(this.last_word.take().map(Err))
            }
            // Nothing is under way, and the next batch will wake this task.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// Only steps of a session can be pipelined: what follows a failed one is then refused by the queue itself.
fn require_session(request: Request) -> Result<Request, Failure> {
    match &request {
        Request::Publish { session: None, .. } => Err(invalid(
            "a batch on a stream must be a step of a session: open one with OpenSession, or use Publish",
        )),
        _ => Ok(request),
    }
}
