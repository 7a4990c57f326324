//! One budget in bytes for what a node holds for its clients.
//!
//! Requests take from it before their bytes are held, and give back when the call is answered. Answers take from it
//! before they are read, and give back piece by piece as the connection writes them. What finds no room is refused:
//! `OVERLOADED`, not done, with a hint when to come again. So nothing waits in memory for memory.
//!
//! | who | may fill the budget up to |
//! |---|---|
//! | settling: acknowledgements and their like | all of it |
//! | any other charge of at most [`SMALL_BYTES`] | 15/16 |
//! | greater ones | 7/8, and no share that holds anything already more than three quarters of that |
//!
//! So a node that is full of slow readers still takes small calls, and acknowledgements, which make room. What cannot
//! be refused any more (messages that are already taken out of the queue) is charged by force. Then the budget is
//! overdrawn, and everybody else is refused until there is room again.
//!
//! A charge costs two atomic additions. [`Held`] is one charge; [`Account`] is one that several parts of a call share, of
//! which a [`Part`] can travel with the bytes it stands for, until the connection has written them.

pub mod cgroup;

use crate::api::{Failure, Reason};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Charges up to this size, in bytes, go through when greater ones do not.
pub const SMALL_BYTES: usize = 64 << 10;
/// The budget if the memory of the process has no limit, in bytes.
pub const BYTES_DEFAULT: usize = 256 << 20;
/// The smallest budget, in bytes.
pub const BYTES_MIN: usize = 64 << 20;
/// When to come again after a refusal, in milliseconds.
const RETRY_AFTER_MS: u64 = 100;

/// What bytes are held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Requests that arrive, until they are answered.
    Arriving,
    /// Acknowledgements, and whatever else settles leases.
    Settling,
    /// Answers, until they are sent.
    Replies,
    /// What publishers and consumers have under way on streams.
    Streams,
    /// Calls that are passed on to the leader, and its answers to them.
    Forwarded,
}

impl Share {
    /// All of them, in the order of their declaration.
    pub const ALL: [Share; 5] =
        [Share::Arriving, Share::Settling, Share::Replies, Share::Streams, Share::Forwarded];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Share::Arriving => "arriving",
            Share::Settling => "settling",
            Share::Replies => "replies",
            Share::Streams => "streams",
            Share::Forwarded => "forwarded",
        }
    }
}

/// The smallest budget for a single call that asks for so many bytes at once.
#[must_use]
pub fn bytes_for(call_bytes_max: usize) -> usize {
    // The inverse of the rules of this module's header, rounded up.
    (call_bytes_max.saturating_mul(8) / 7).saturating_add(64)
}

/// The budget unless it is set: an eighth of the memory that the process may have.
#[must_use]
pub fn default_bytes(memory_limit: Option<u64>) -> usize {
    match memory_limit {
        Some(limit) => usize::try_from(limit / 8).unwrap_or(usize::MAX).max(BYTES_MIN),
        None => BYTES_DEFAULT,
    }
}

/// The budget. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bytes_max: usize,
    used: AtomicUsize,
    shares: [Counter; Share::ALL.len()],
    /// How many wait for room. Giving back is cheap while none does.
    waiting: AtomicUsize,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Counter {
    held: AtomicUsize,
    refused: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(BYTES_DEFAULT)
    }
}

impl Budget {
    /// An empty budget.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let inner = Inner {
            bytes_max,
            used: AtomicUsize::new(0),
            shares: Default::default(),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Bytes that may be held.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.inner.bytes_max
    }

    /// Bytes that are held.
    #[must_use]
    pub fn used(&self) -> usize {
        self.inner.used.load(Ordering::Relaxed)
    }

    /// Bytes that one share holds.
    #[must_use]
    pub fn held(&self, share: Share) -> usize {
        self.inner.shares[share as usize].held.load(Ordering::Relaxed)
    }

    /// How often one share was refused.
    #[must_use]
    pub fn refused(&self, share: Share) -> u64 {
        self.inner.shares[share as usize].refused.load(Ordering::Relaxed)
    }

    /// Holds `bytes`, if there is room.
    ///
    /// # Errors
    /// [`Reason::Overloaded`], not done: the caller passes it to its client.
    pub fn charge(&self, share: Share, bytes: usize) -> Result<Held, Failure> {
        self.take(share, bytes).then(|| self.holding(share, bytes)).ok_or_else(|| self.refuse(share, bytes))
    }

    /// The same for callers that are not refused: `None` if there is no room.
    #[must_use]
    pub fn try_charge(&self, share: Share, bytes: usize) -> Option<Held> {
        self.take(share, bytes).then(|| self.holding(share, bytes))
    }

    /// The same, but waits a while for room. Nothing is held if it is cancelled.
    ///
    /// # Errors
    /// As [`Budget::charge`].
    pub async fn charge_within(
        &self,
        share: Share,
        bytes: usize,
        patience: Duration,
    ) -> Result<Held, Failure> {
        if self.take(share, bytes) {
            return Ok(self.holding(share, bytes));
        }
        let waits = async {
            let _waiting = Waiting::new(&self.inner);
            loop {
                let mut freed = std::pin::pin!(self.inner.freed.notified());
                // This is set up before the next look, so that nothing is given back unnoticed in between.
                freed.as_mut().enable();
                if self.take(share, bytes) {
                    return;
                }
                freed.await;
            }
        };
        match tokio::time::timeout(patience, waits).await {
            Ok(()) => Ok(self.holding(share, bytes)),
            Err(_) => Err(self.refuse(share, bytes)),
        }
    }

    /// Holds `bytes` even if there is no room: they are there already, and cannot be refused any more.
    #[must_use]
    pub fn force(&self, share: Share, bytes: usize) -> Held {
        self.inner.add(share, bytes);
        self.holding(share, bytes)
    }

    /// Looks whether `bytes` would be held now.
    ///
    /// # Errors
    /// As [`Budget::charge`].
    pub fn look(&self, share: Share, bytes: usize) -> Result<(), Failure> {
        if self.take(share, bytes) {
            self.inner.give_back(share, bytes);
            return Ok(());
        }
        Err(self.refuse(share, bytes))
    }

    fn holding(&self, share: Share, bytes: usize) -> Held {
        Held { budget: self.clone(), share, bytes }
    }

    fn take(&self, share: Share, bytes: usize) -> bool {
        let inner = &self.inner;
        let greater_max = inner.bytes_max / 8 * 7;
        let (all_max, share_max) = if share == Share::Settling {
            (inner.bytes_max, inner.bytes_max)
        } else if bytes <= SMALL_BYTES {
            (inner.bytes_max / 16 * 15, inner.bytes_max)
        } else {
            (greater_max, greater_max / 4 * 3)
        };
        // What two take at the same moment may refuse one of them for want of a few bytes: no harm.
        let all = inner.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let counter = &inner.shares[share as usize];
        let own = counter.held.fetch_add(bytes, Ordering::Relaxed);
        let has_room = all <= all_max && (own == 0 || own.saturating_add(bytes) <= share_max);
        if !has_room {
            counter.held.fetch_sub(bytes, Ordering::Relaxed);
            inner.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        has_room
    }

    fn refuse(&self, share: Share, bytes: usize) -> Failure {
        self.inner.shares[share as usize].refused.fetch_add(1, Ordering::Relaxed);
        let text = format!(
            "this node holds {} of at most {} bytes for its clients, and has no room for {bytes} more ({}) at the moment",
            self.used(),
            self.inner.bytes_max,
            share.name(),
        );
        Failure::not_done(Reason::Overloaded, text).retry_after_ms(RETRY_AFTER_MS)
    }
}

impl Inner {
    fn add(&self, share: Share, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.shares[share as usize].held.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, share: Share, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.shares[share as usize].held.fetch_sub(bytes, Ordering::Relaxed);
        // Ordered with the count of those who wait: either they see the room, or this sees them.
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_waiters();
        }
    }
}

/// Counted among those who wait for room.
struct Waiting<'a>(&'a Inner);

impl<'a> Waiting<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.waiting.fetch_add(1, Ordering::SeqCst);
        Self(inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Bytes that are held; given back when it is dropped.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    share: Share,
    bytes: usize,
}

impl Held {
    /// How many.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// So many of them, to be held apart.
    ///
    /// # Panics
    /// It has not so many.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Held {
        self.bytes = self.bytes.checked_sub(bytes).expect("no more than it has");
        Held { budget: self.budget.clone(), share: self.share, bytes }
    }

    /// Holds so many from now on. More than before is held by force.
    pub fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.budget.inner.add(self.share, bytes - self.bytes);
        } else {
            self.budget.inner.give_back(self.share, self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Counts as another share from now on.
    pub fn move_to(&mut self, share: Share) {
        let shares = &self.budget.inner.shares;
        shares[share as usize].held.fetch_add(self.bytes, Ordering::Relaxed);
        shares[self.share as usize].held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.share = share;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.inner.give_back(self.share, self.bytes);
    }
}

/// Bytes that are held for one call or stream by several parts of the program; given back when all of them have let go.
#[derive(Debug)]
pub struct Account {
    budget: Budget,
    share: Share,
    /// All that is held.
    bytes: AtomicUsize,
    /// What of it stands in no [`Part`].
    loose: AtomicUsize,
    freed: Notify,
}

impl Account {
    /// An empty one.
    #[must_use]
    pub fn new(budget: &Budget, share: Share) -> Self {
        let (bytes, loose) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { budget: budget.clone(), share, bytes, loose, freed: Notify::new() }
    }

    /// The budget that it is part of.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// What it counts as.
    #[must_use]
    pub fn share(&self) -> Share {
        self.share
    }

    /// How many are held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Holds what was held alone.
    pub fn absorb(&self, mut held: Held) {
        held.move_to(self.share);
        let bytes = std::mem::take(&mut held.bytes);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.loose.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back what stands in no part.
    pub fn forget(&self) {
        let loose = self.loose.swap(0, Ordering::Relaxed);
        self.give_back(loose);
    }

    /// Holds what another account holds in no part, instead of it.
    pub fn take_over(&self, other: &Account) {
        let bytes = other.loose.swap(0, Ordering::Relaxed);
        other.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.absorb(Held { budget: self.budget.clone(), share: other.share, bytes });
    }

    /// `bytes` of what is held, to travel with the bytes they stand for. Of what is not held yet, by force.
    #[must_use]
    pub fn part(self: &Arc<Self>, bytes: usize) -> Part {
        let left = |loose: usize| Some(loose.saturating_sub(bytes));
        let loose = self.loose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).unwrap_or_default();
        let more = bytes.saturating_sub(loose);
        if more > 0 {
            self.bytes.fetch_add(more, Ordering::Relaxed);
            self.budget.inner.add(self.share, more);
        }
        Part { account: Arc::clone(self), bytes }
    }

    /// Resolves when at most `bytes_max` are held.
    pub async fn at_most(&self, bytes_max: usize) {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.bytes() <= bytes_max {
                return;
            }
            freed.await;
        }
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.budget.inner.give_back(self.share, bytes);
        self.freed.notify_waiters();
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // Every part holds the account, so none is left.
        self.budget.inner.give_back(self.share, *self.loose.get_mut());
    }
}

/// A part of an [`Account`]; given back when it is dropped.
#[derive(Debug)]
pub struct Part {
    account: Arc<Account>,
    bytes: usize,
}

impl Part {
    /// Holds so much more, which was held alone.
    pub fn grow(&mut self, mut held: Held) {
        held.move_to(self.account.share);
        let bytes = std::mem::take(&mut held.bytes);
        self.account.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.account.give_back(self.bytes);
    }
}

/// Bytes that hold a part of an account for as long as anybody has any of them.
#[must_use]
pub fn bytes_with(bytes: Bytes, part: Part) -> Bytes {
    struct Owner(Bytes, #[expect(dead_code, reason = "it is dropped with the bytes")] Part);

    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    Bytes::from_owner(Owner(bytes, part))
}

#[cfg(test)]
mod tests;
