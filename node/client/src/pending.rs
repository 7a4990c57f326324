//! The batches of a publisher that are not acknowledged, and the numbers under which they are sent.
//!
//! Invariant: the batches have consecutive sequences, oldest first; `next_sequence` is that of the next new one. A batch
//! that was sent keeps its sequence until it is answered, refused or given up with its session.

use crate::publisher::behind;
use crate::{Error, Outcome};
use bytes::Bytes;
use raftqueue_proto::v1;
use std::collections::VecDeque;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

type Reply = oneshot::Sender<Result<v1::PublishResponse, Error>>;

/// One batch: who waits for it, and until when.
#[derive(Debug)]
pub(crate) struct Batch {
    deadline: Instant,
    /// In the order of the messages, each with how many of them are its own.
    callers: VecDeque<(Reply, usize)>,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Batch {
    pub(crate) fn new(deadline: Instant) -> Self {
        Self { deadline, callers: VecDeque::new(), permits: Vec::new() }
    }

    /// Adds one behind those that were added before.
    pub(crate) fn add(&mut self, permit: OwnedSemaphorePermit, reply: Reply, messages: usize) {
        self.callers.push_back((reply, messages));
        self.permits.push(permit);
    }

    /// Adds one in front of them.
    pub(crate) fn add_first(&mut self, permit: OwnedSemaphorePermit, reply: Reply, messages: usize) {
        self.callers.push_front((reply, messages));
        self.permits.push(permit);
    }

    fn succeed(self, answer: &v1::PublishResponse) {
        if answer.already_done {
            for (reply, _) in self.callers {
                let _ = reply.send(Ok(answer.clone()));
            }
            return;
        }
        let mut first_offset = answer.first_offset;
        for (position, (reply, messages)) in self.callers.into_iter().enumerate() {
            let count = messages as u64;
            // The node tells only the id of the first message.
            let first_id = if position == 0 { answer.first_id.clone() } else { Bytes::new() };
            let deduplicated = answer.deduplicated;
            let own =
                v1::PublishResponse { first_offset, count, first_id, already_done: false, deduplicated };
            let _ = reply.send(Ok(own));
            first_offset += count;
        }
    }

    fn fail(self, error: &Error) {
        for (reply, _) in self.callers {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

#[derive(Debug)]
struct Sent {
    batch: Batch,
    request: v1::PublishRequest,
    /// How often it was put on a stream.
    times: u32,
}

/// See the module's header.
#[derive(Debug)]
pub(crate) struct Pending {
    topic: String,
    session: Bytes,
    next_sequence: u64,
    batches: VecDeque<Sent>,
    /// How many of them are on the stream that is open.
    on_stream: usize,
    answered: u64,
}

impl Pending {
    pub(crate) fn new(topic: String, session: Bytes) -> Self {
        Self { topic, session, next_sequence: 1, batches: VecDeque::new(), on_stream: 0, answered: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The call that ends the session.
    pub(crate) fn closing(&self) -> v1::CloseSessionRequest {
        v1::CloseSessionRequest { session: self.session.clone() }
    }

    /// Batches acknowledged so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered
    }

    /// Takes a new batch in and returns the request for it. Every batch before it must be on the stream.
    pub(crate) fn push(&mut self, batch: Batch, messages: Vec<v1::NewMessage>) -> v1::PublishRequest {
        let step = v1::SessionStep { session: self.session.clone(), sequence: self.next_sequence };
        let request = v1::PublishRequest { topic: self.topic.clone(), session: Some(step), messages };
        self.next_sequence += 1;
        self.on_stream += 1;
        self.batches.push_back(Sent { batch, request: request.clone(), times: 1 });
        request
    }

    /// A new stream is open. Returns the oldest batches, up to `window`, to be sent again on it.
    pub(crate) fn resend(&mut self, window: usize) -> Vec<v1::PublishRequest> {
        self.on_stream = self.batches.len().min(window);
        let again = self.batches.iter_mut().take(self.on_stream);
        again.map(Sent::send).collect()
    }

    /// The oldest batch that is not on the stream, to be sent now.
    pub(crate) fn unsent(&mut self) -> Option<v1::PublishRequest> {
        let request = self.batches.get_mut(self.on_stream)?.send();
        self.on_stream += 1;
        Some(request)
    }

    /// The oldest batch was acknowledged.
    ///
    /// # Panics
    /// If there is none, because a node answers what nobody asked. That ends the publisher's task, not the process.
    pub(crate) fn acknowledge(&mut self, answer: &v1::PublishResponse) {
        let sent = self.batches.pop_front().expect("one answer for each batch");
        self.on_stream -= 1;
        self.answered += 1;
        sent.batch.succeed(answer);
    }

    /// Until when the oldest batch may wait.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.batches.front().map(|sent| sent.batch.deadline)
    }

    /// The oldest batch has waited for too long.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.batches.front().is_some_and(|sent| sent.batch.deadline <= now)
    }

    /// Fails everything: what was sent may be stored.
    pub(crate) fn give_up(&mut self, error: &Error) {
        for sent in self.batches.drain(..) {
            let outcome = if sent.times > 0 { Outcome::Unknown } else { Outcome::NotDone };
            sent.batch.fail(&Error { outcome, ..error.clone() });
        }
        self.on_stream = 0;
    }

    /// The oldest batch was refused for good. It fails, and so does everything behind it, which cannot be stored
    /// without it. True if the session can go on: the batch was sent only once, so its number is certainly free.
    pub(crate) fn refuse(&mut self, error: &Error) -> bool {
        let Some(first) = self.batches.pop_front() else { return !expires_session(error) };
        let step = first.request.session.as_ref().expect("every batch is a step");
        self.next_sequence = step.sequence;
        let is_certain = first.times <= 1 && error.outcome == Outcome::NotDone;
        let outcome = if is_certain { Outcome::NotDone } else { Outcome::Unknown };
        first.batch.fail(&Error { outcome, ..error.clone() });
        for sent in self.batches.drain(..) {
            let outcome = if is_certain { Outcome::NotDone } else { Outcome::Unknown };
            sent.batch.fail(&Error { outcome, ..behind(error) });
        }
        self.on_stream = 0;
        is_certain && !expires_session(error)
    }

    /// Goes on with a new session. Everything pending has failed before.
    pub(crate) fn start_over(&mut self, session: Bytes) {
        self.session = session;
        self.next_sequence = 1;
    }
}

impl Sent {
    fn send(&mut self) -> v1::PublishRequest {
        self.times += 1;
        self.request.clone()
    }
}

fn expires_session(error: &Error) -> bool {
    matches!(
        error.reason,
        v1::Reason::SessionExpired | v1::Reason::OutOfSequence | v1::Reason::SequenceReused
    )
}
