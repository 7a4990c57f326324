//! The offsets that a topic has given out, and in which generation.

use crate::{Generation, LeaseId, LeaseResult, Token};

/// The offsets given so far: dense from 0, each in the generation that was in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    /// The next one to be given.
    pub(crate) next: u64,
    /// At which offset each generation begins, for those in which one was given. Rising in both.
    pub(crate) generations: Vec<(Generation, u64)>,
}

impl Offsets {
    /// Gives `count` offsets; returns the first.
    pub(crate) fn give(&mut self, generation: Generation, count: usize) -> u64 {
        let first = self.next;
        if self.generations.last().is_none_or(|&(last, _)| last < generation) {
            self.generations.push((generation, first));
        }
        self.next += count as u64;
        first
    }

    /// The generation of an offset that was given.
    pub(crate) fn generation_of(&self, offset: u64) -> Generation {
        match self.generations.last() {
            Some(&(generation, first)) if first <= offset => generation,
            _ => self.generations[self.generations.partition_point(|&(_, first)| first <= offset) - 1].0,
        }
    }

    /// What can be said of a lease before looking at the message: `None` if message and token were given out.
    ///
    /// The generation is judged before the offset. An offset beyond the last one may have been given in a part of the
    /// log that a forced recovery lost: then its message is gone, not invalid.
    pub(crate) fn judge(
        &self,
        lease: &LeaseId,
        current: Generation,
        last_token: Token,
    ) -> Option<LeaseResult> {
        if lease.generation > current {
            return Some(LeaseResult::Invalid);
        }
        let is_given = lease.offset < self.next;
        let generation = if is_given { self.generation_of(lease.offset) } else { current };
        if lease.generation != generation {
            return Some(LeaseResult::Gone);
        }
        let is_granted = lease.token != Token(0) && lease.token <= last_token;
        (!is_given || !is_granted).then_some(LeaseResult::Invalid)
    }
}
