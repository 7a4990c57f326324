//! Purges and redrives of one subscription: what changes many messages at once.
//!
//! Each command does a bounded number of steps, whatever there is. What is purged is moved away whole, to be freed elsewhere.
//! What is redriven is moved whole too, and then made ready by and by: at most [`REDRIVEN_PER_APPLY_MAX`] runs with each
//! command that is applied, this one included.

use crate::subscription::{Moves, Subscription};
use crate::{DeadSelection, MessageSize, REDRIVEN_PER_APPLY_MAX, Refused};
use std::mem;

impl Subscription {
    /// Drops what is ready or delayed; returns how many messages and bytes.
    pub(crate) fn purge(&mut self, moves: &mut Moves) -> (u64, u64) {
        let count = self.ready_count() + self.delayed.len() as u64;
        let bytes = self.ready_bytes() + self.delayed_bytes;
        self.bytes -= bytes;
        self.delayed_bytes = 0;
        self.retried_bytes = 0;
        moves.dropped.push(Subscription {
            ready: mem::take(&mut self.ready),
            retried: mem::take(&mut self.retried),
            waived: mem::take(&mut self.waived),
            redriven: mem::take(&mut self.redriven),
            delayed: mem::take(&mut self.delayed),
            delay_ends: mem::take(&mut self.delay_ends),
            ..Subscription::default()
        });
        (count, bytes)
    }

    /// Makes dead messages ready, as new and with their deadlines waived; returns how many.
    pub(crate) fn redrive(&mut self, selection: &DeadSelection, moves: &mut Moves) -> Result<u64, Refused> {
        let count = match selection {
            DeadSelection::All if !self.redriven.is_empty() => return Err(Refused::RedriveUnfinished),
            DeadSelection::All => {
                let count = self.dead.count();
                self.redriven = self.dead.take_runs();
                self.list_redriven(REDRIVEN_PER_APPLY_MAX, moves);
                count
            }
            DeadSelection::Listed(messages) if !self.dead.fit(messages) => {
                return Err(Refused::SizesImpossible);
            }
            DeadSelection::Listed(messages) => {
                let mut count = 0;
                moves.steps += messages.len() as u64;
                for &MessageSize { offset, size } in messages {
                    if self.dead.remove(offset, size) {
                        moves.made_ready(offset);
                        self.ready.insert(offset..offset + 1);
                        self.waived.insert(offset..offset + 1);
                        count += 1;
                    }
                }
                count
            }
        };
        Ok(count)
    }

    /// Makes ready what was redriven, the lowest offsets first, at most `budget` runs; says how many.
    pub(crate) fn list_redriven(&mut self, budget: usize, moves: &mut Moves) -> usize {
        let mut spent = 0;
        while spent < budget
            && let Some(run) = self.redriven.pop_first()
        {
            moves.made_ready(run.start);
            self.ready.insert(run.clone());
            self.waived.insert(run);
            moves.steps += 2;
            spent += 1;
        }
        spent
    }

    /// Drops dead messages; returns how many messages and bytes.
    pub(crate) fn purge_dead(
        &mut self,
        selection: &DeadSelection,
        moves: &mut Moves,
    ) -> Result<(u64, u64), Refused> {
        let before = (self.dead.count(), self.dead.bytes());
        match selection {
            DeadSelection::All => {
                let dead = mem::take(&mut self.dead);
                moves.dropped.push(Subscription { dead, ..Subscription::default() });
            }
            DeadSelection::Listed(messages) if !self.dead.fit(messages) => {
                return Err(Refused::SizesImpossible);
            }
            DeadSelection::Listed(messages) => {
                moves.steps += messages.len() as u64;
                for message in messages {
                    self.dead.remove(message.offset, message.size);
                }
            }
        }
        let bytes = before.1 - self.dead.bytes();
        self.bytes -= bytes;
        Ok((before.0 - self.dead.count(), bytes))
    }
}
