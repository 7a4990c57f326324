//! Reading messages for an answer: room first, then bytes.
//!
//! Room for what a call may take is looked for before the node is asked, so that a call without room costs nothing. A
//! call that waits for messages takes its room when it gets some. Until then it holds none, or ten thousand waiting
//! polls would hold the budget. A few calls at a time read, on threads where that holds up nobody.

use crate::api::budget::{Account, Budget, Held, SMALL_BYTES, Share};
use crate::api::limits::Limits;
use crate::api::{DELIVERY_BYTES, Deliveries, Delivery, Failure, Look, Request, TakeKind, deliveries_bytes};
use crate::driver::bodies::{Bodies, Located, Readings};
use crate::edges::workers::Workers;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Calls whose messages are read at a time.
const READERS_MAX: usize = 4;
/// How long messages that were taken wait for room. After that those of a receive go back. Those of a pop are out of
/// the queue, so it is answered all the same.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is kept of a deadline for the answer.
const ANSWER: Duration = Duration::from_millis(50);

/// What a call for messages may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    kind: Kind,
    messages_max: usize,
    bytes_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing is changed by it.
    Peek,
    /// Its messages are leased, and can be given back.
    Receive,
    /// Its messages are gone from the queue.
    Pop,
}

impl Wanted {
    /// What `request` may take; `None` if it is not for messages.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        let (kind, messages_max, bytes_max) = match request {
            Request::Look(Look::Peek { messages_max, bytes_max, .. }) => {
                (Kind::Peek, *messages_max, *bytes_max)
            }
            Request::Take(take) => {
                let kind = match take.kind {
                    TakeKind::Receive { .. } => Kind::Receive,
                    TakeKind::Pop { .. } => Kind::Pop,
                };
                (kind, take.messages_max, take.bytes_max)
            }
            _ => return None,
        };
        Some(Self { kind, messages_max, bytes_max })
    }

    /// True if its messages cannot be refused any more once they are there.
    pub(crate) fn is_pop(&self) -> bool {
        self.kind == Kind::Pop
    }

    /// Most bytes that are read of the messages found. Only a peek may find more than it wants.
    fn read_max(&self) -> usize {
        if self.is_peek() { self.bytes_max } else { usize::MAX }
    }

    /// True if nothing is changed by it.
    pub(crate) fn is_peek(&self) -> bool {
        self.kind == Kind::Peek
    }
}

/// Reads messages within a budget. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    budget: Budget,
    workers: Workers,
    /// The largest message that can be published here, with what it takes besides its bytes.
    message_bytes_max: usize,
}

impl Readers {
    pub(crate) fn new(budget: Budget, limits: &Limits) -> Self {
        let message_bytes_max = limits.message_bytes_max() + DELIVERY_BYTES;
        Self { budget, workers: Workers::new(READERS_MAX), message_bytes_max }
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Looks whether there is room for what a call may take. For a call that waits, whether there is any room.
    ///
    /// # Errors
    /// There is none: the call must not be made.
    pub(crate) fn admit(&self, share: Share, request: &Request) -> Result<Option<Wanted>, Failure> {
        let Some(wanted) = Wanted::of(request) else { return Ok(None) };
        let all = self.bytes_max(&wanted, wanted.messages_max);
        let bytes = if request.wait_ms() == 0 { all } else { all.min(SMALL_BYTES + 1) };
        self.budget.look(share, bytes)?;
        Ok(Some(wanted))
    }

    /// Most bytes that so many messages take.
    fn bytes_max(&self, wanted: &Wanted, messages: usize) -> usize {
        // One message is given, whatever its size.
        let by_bytes = wanted.bytes_max.max(self.message_bytes_max) + messages * DELIVERY_BYTES;
        by_bytes.min(messages.saturating_mul(self.message_bytes_max))
    }

    /// Reads the messages found, if there is room for them and reading takes neither long nor the disk.
    pub(crate) fn read_now(
        &self,
        bodies: &Bodies,
        wanted: &Wanted,
        located: &Located,
    ) -> Option<(Readings, Option<Held>)> {
        if located.messages().is_empty() {
            return bodies.read(located, usize::MAX, false).map(|read| (read, None));
        }
        let bytes = self.bytes_max(wanted, located.messages().len());
        let held = self.budget.try_charge(Share::Replies, bytes)?;
        bodies.read(located, wanted.read_max(), false).map(|read| (read, Some(held)))
    }

    /// Reads the messages found, once there is room for them.
    ///
    /// # Errors
    /// There is no room: nothing was read.
    pub(crate) async fn read(
        &self,
        bodies: &Arc<Bodies>,
        wanted: &Wanted,
        located: Located,
        deadline: Instant,
    ) -> Result<(Readings, Option<Held>), Failure> {
        let held = self.hold(wanted, &located, deadline).await?;
        let (bodies, bytes_max) = (Arc::clone(bodies), wanted.read_max());
        let read = move || bodies.read(&located, bytes_max, true).expect("it may block");
        Ok((self.workers.run(read).await?, Some(held)))
    }

    /// Messages that were read, with what is held for them until they are sent.
    pub(crate) fn held_by(&self, messages: Vec<Delivery>, held: Option<Held>) -> Deliveries {
        let held = held.filter(|_| !messages.is_empty()).map(|mut held| {
            held.set(deliveries_bytes(&messages));
            let account = Account::new(&self.budget, Share::Replies);
            account.absorb(held);
            Arc::new(account)
        });
        Deliveries { messages, held }
    }

    /// Room for what was found.
    async fn hold(&self, wanted: &Wanted, located: &Located, deadline: Instant) -> Result<Held, Failure> {
        let bytes = self.bytes_max(wanted, located.messages().len());
        if wanted.is_peek() {
            return self.budget.charge(Share::Replies, bytes);
        }
        let left = deadline.saturating_duration_since(Instant::now()).saturating_sub(ANSWER);
        let held = self.budget.charge_within(Share::Replies, bytes, left.min(PATIENCE)).await;
        if wanted.is_pop() {
            Ok(held.unwrap_or_else(|_| self.budget.force(Share::Replies, bytes)))
        } else {
            held
        }
    }
}
