//! The one heap of events: what happens next, and when.

use super::plan::Micros;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Events in order of time; of the same moment, in the order in which they were added.
#[derive(Debug)]
pub(super) struct Schedule<E> {
    heap: BinaryHeap<Item<E>>,
    added: u64,
}

#[derive(Debug)]
struct Item<E> {
    at: Micros,
    number: u64,
    event: E,
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), added: 0 }
    }
}

impl<E> Schedule<E> {
    pub(super) fn add(&mut self, at: Micros, event: E) {
        self.added += 1;
        self.heap.push(Item { at, number: self.added, event });
    }

    pub(super) fn next(&mut self) -> Option<(Micros, E)> {
        self.heap.pop().map(|item| (item.at, item.event))
    }
}

impl<E> Ord for Item<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest first, and the earliest is wanted.
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Item<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Item<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Item<E> {}
