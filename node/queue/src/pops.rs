//! Pops with a request id: what makes a repeated pop return the same messages.
//!
//! A pop is kept with its messages for [`POP_KEPT_MS`], so that a repeat gets the same. Then only its id is remembered,
//! for [`POP_REMEMBERED_MS`], so that a late repeat takes nothing more. Both are bounded in number, too; the oldest
//! gives way.

use crate::map::Map;
use crate::{
    Delivery, POP_KEPT_MAX, POP_KEPT_MS, POP_REMEMBERED_MAX, POP_REMEMBERED_MS, SubscriptionId, TopicId,
};
use std::ops::Range;
use std::sync::Arc;

/// Every pop that is known, oldest first. Pops of which only the id is remembered come before those that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pops {
    /// By the order in which they came; numbers are dense.
    pub(crate) by_number: Map<u64, Pop>,
    /// Follows from `by_number`.
    pub(crate) numbers: Map<u128, u64>,
    /// How many, at the end of `by_number`, are kept.
    pub(crate) kept_count: usize,
    /// Messages of those that are kept.
    pub(crate) kept_messages: u64,
    /// Their bytes.
    pub(crate) kept_bytes: u64,
    /// The number of the next one.
    pub(crate) next_number: u64,
}

/// One pop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pop {
    pub(crate) request_id: u128,
    pub(crate) popped_ms: u64,
    pub(crate) topic: TopicId,
    pub(crate) subscription: SubscriptionId,
    /// What it took; empty once it is only remembered.
    pub(crate) deliveries: Arc<[Delivery]>,
}

impl Pop {
    /// The bytes of what it took.
    pub(crate) fn bytes(&self) -> u64 {
        self.deliveries.iter().map(|delivery| u64::from(delivery.size)).sum()
    }

    /// The offsets of what it took, as runs: in the order in which they were taken, neighbours together.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<u64>> {
        let mut offsets = self.deliveries.iter().map(|delivery| delivery.offset).peekable();
        std::iter::from_fn(move || {
            let first = offsets.next()?;
            let mut end = first.saturating_add(1);
            while offsets.next_if_eq(&end).is_some() {
                end += 1;
            }
            Some(first..end)
        })
    }
}

impl Pops {
    pub(crate) fn get(&self, request_id: u128) -> Option<&Pop> {
        self.by_number.get(self.numbers.get(&request_id)?)
    }

    /// Keeps a pop that took something. Its id is not known yet.
    pub(crate) fn keep(&mut self, pop: Pop) {
        self.kept_messages += pop.deliveries.len() as u64;
        self.kept_bytes += pop.bytes();
        self.numbers.insert(pop.request_id, self.next_number);
        self.by_number.insert(self.next_number, pop);
        self.next_number += 1;
        self.kept_count += 1;
    }

    /// How many kept pops must be let go, and remembered ones forgotten. Stops counting at `max`.
    pub(crate) fn due_count(&self, now_ms: u64, max: usize) -> usize {
        let kept = self.kept().take_while(|pop| pop.popped_ms.saturating_add(POP_KEPT_MS) <= now_ms);
        let remembered = self.by_number.iter().map(|(_, pop)| pop);
        let remembered =
            remembered.take_while(|pop| pop.popped_ms.saturating_add(POP_REMEMBERED_MS) <= now_ms);
        // A kept one takes as long as what it took.
        let mut due = 0;
        for steps in kept.map(|pop| pop.deliveries.len().max(1)).chain(remembered.map(|_| 1)) {
            if due >= max {
                break;
            }
            due += steps;
        }
        due
    }

    /// When the oldest kept pop must be let go, or the oldest remembered one forgotten.
    pub(crate) fn next_end_ms(&self) -> Option<u64> {
        let kept = self.oldest_kept().map(|pop| pop.popped_ms.saturating_add(POP_KEPT_MS));
        let remembered =
            self.by_number.first().map(|(_, pop)| pop.popped_ms.saturating_add(POP_REMEMBERED_MS));
        match (kept, remembered) {
            (Some(kept), Some(remembered)) => Some(kept.min(remembered)),
            (kept, remembered) => kept.or(remembered),
        }
    }

    /// Lets the oldest kept pop go, if its time is over or there are too many. Returns it with what it took.
    pub(crate) fn release(&mut self, now_ms: u64) -> Option<Pop> {
        let oldest = self.oldest_kept()?;
        let is_over = oldest.popped_ms.saturating_add(POP_KEPT_MS) <= now_ms;
        if !is_over && self.kept_count <= POP_KEPT_MAX {
            return None;
        }
        let number = self.next_number - self.kept_count as u64;
        let pop = self.by_number.get_mut(&number).expect("numbers are dense");
        let released = pop.clone();
        pop.deliveries = Arc::default();
        self.kept_count -= 1;
        self.kept_messages -= released.deliveries.len() as u64;
        self.kept_bytes -= released.bytes();
        Some(released)
    }

    /// Forgets the oldest remembered pop, if its time is over or there are too many. Returns whether it did.
    pub(crate) fn forget(&mut self, now_ms: u64) -> bool {
        let remembered_count = self.by_number.len() - self.kept_count;
        let Some((_, oldest)) = self.by_number.first().filter(|_| remembered_count > 0) else { return false };
        let is_over = oldest.popped_ms.saturating_add(POP_REMEMBERED_MS) <= now_ms;
        if !is_over && remembered_count <= POP_REMEMBERED_MAX {
            return false;
        }
        let (_, pop) = self.by_number.pop_first().expect("it was just looked at");
        self.numbers.remove(&pop.request_id);
        true
    }

    /// Pops whose messages are kept, oldest first.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &Pop> {
        self.by_number.iter_from(&(self.next_number - self.kept_count as u64)).map(|(_, pop)| pop)
    }

    fn oldest_kept(&self) -> Option<&Pop> {
        self.by_number.get(&(self.next_number - self.kept_count as u64))
    }
}
