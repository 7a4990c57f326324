//! What an entry published: the messages of each of its publishes, and going through them.
//!
//! A block of messages names the first publish that it begins with; from there on every publish of the same topic belongs
//! to it, until its count is reached. Bodies stand one after another in the order of the commands, those of publishes that
//! were refused too.

use crate::api::codec::{self, Unreadable};
use crate::replica::Placement;
use raftqueue_queue::{Command, MessageMeta};
use std::mem::size_of;
use std::sync::Arc;

/// One publish of an entry.
#[derive(Debug)]
struct Publish {
    /// Which command of the entry it is.
    command: u32,
    /// Bytes before its messages in the bodies of the entry.
    position: u64,
    topic: Arc<str>,
    messages: Arc<[MessageMeta]>,
}

/// The publishes of one entry, in the order of the commands.
#[derive(Debug, Default)]
pub(super) struct Entry(Vec<Publish>);

impl Entry {
    /// Of an entry that was just applied: those that were accepted.
    pub(super) fn of_placements(placements: Vec<Placement>) -> Self {
        let mut entry = Self(Vec::with_capacity(placements.len()));
        for Placement { command, position, topic_name, messages, .. } in placements {
            entry.push(command, position, topic_name, messages);
        }
        entry
    }

    /// Of an entry that was read back: all of them.
    ///
    /// # Errors
    /// The meta is damaged, or of a newer form.
    pub(super) fn of_meta(meta: &[u8]) -> Result<Self, Unreadable> {
        let mut entry = Self::default();
        let mut position = 0;
        for (command, ordinal) in codec::read_entry(meta)?.commands.into_iter().zip(0..) {
            if let Command::Publish { topic, messages, .. } = command {
                let bytes: u64 = messages.iter().map(|message| u64::from(message.size)).sum();
                entry.push(ordinal, position, topic, messages.into());
                position += bytes;
            }
        }
        Ok(entry)
    }

    fn push(&mut self, command: u32, position: u64, topic: String, messages: Arc<[MessageMeta]>) {
        let topic = match self.0.last() {
            Some(last) if *last.topic == *topic => Arc::clone(&last.topic),
            _ => topic.into(),
        };
        self.0.push(Publish { command, position, topic, messages });
    }

    /// What it costs in memory, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let messages: usize = self.0.iter().map(|publish| publish.messages.len()).sum();
        self.0.len() * (size_of::<Publish>() + 64) + messages * size_of::<MessageMeta>()
    }
}

/// Goes through the messages of one block.
#[derive(Debug)]
pub(crate) struct Walk {
    entry: Arc<Entry>,
    /// The publish that the block begins with.
    first: usize,
    /// Messages of the block.
    count: u64,
    /// The next message: which of the block, of which publish, which of its messages, and the bytes before it.
    next: Step,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    number: u64,
    publish: usize,
    message: usize,
    position: u64,
}

impl Walk {
    /// A block of `count` messages that begins with the publish that is command `command`.
    ///
    /// # Errors
    /// The entry has no such publish: it is not the one that was applied.
    pub(super) fn new(entry: Arc<Entry>, command: u32, count: u64) -> Result<Self, Unreadable> {
        let first = entry
            .0
            .binary_search_by_key(&command, |publish| publish.command)
            .map_err(|_| Unreadable(format!("the entry has no publish as its command {command}")))?;
        let next = Step { number: 0, publish: first, message: 0, position: entry.0[first].position };
        Ok(Self { entry, first, count, next })
    }

    /// The same, of an entry's meta.
    ///
    /// # Errors
    /// The meta is damaged, or has no such publish.
    pub(crate) fn of_meta(meta: &[u8], command: u32, count: u64) -> Result<Self, Unreadable> {
        Self::new(Arc::new(Entry::of_meta(meta)?), command, count)
    }

    /// The `number`-th message of the block and the bytes before it in the bodies of the entry. Cheapest in rising order.
    ///
    /// # Errors
    /// The entry has fewer messages of that topic: it is not the one that was applied.
    pub(crate) fn find(&mut self, number: u64) -> Result<(MessageMeta, u64), Unreadable> {
        let publishes = &self.entry.0;
        let topic = &publishes[self.first].topic;
        let start =
            Step { number: 0, publish: self.first, message: 0, position: publishes[self.first].position };
        let mut step = if number >= self.next.number { self.next } else { start };
        if number >= self.count {
            return Err(Unreadable(format!("a block of {} messages has no number {number}", self.count)));
        }
        loop {
            let Some(publish) = publishes.get(step.publish) else {
                return Err(Unreadable(format!("an entry ends before message {number} of its block")));
            };
            let left = (publish.messages.len() - step.message) as u64;
            let is_within = Arc::ptr_eq(&publish.topic, topic) || publish.topic == *topic;
            if is_within && number - step.number < left {
                let to =
                    step.message + usize::try_from(number - step.number).expect("less than its messages");
                let bytes = |message: &MessageMeta| u64::from(message.size);
                let position =
                    step.position + publish.messages[step.message..to].iter().map(bytes).sum::<u64>();
                let message = publish.messages[to];
                self.next = Step {
                    number: number + 1,
                    publish: step.publish,
                    message: to + 1,
                    position: position + u64::from(message.size),
                };
                return Ok((message, position));
            }
            if is_within {
                step.number += left;
            }
            step.publish += 1;
            step.message = 0;
            step.position = publishes.get(step.publish).map_or(0, |publish| publish.position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(size: u32) -> MessageMeta {
        MessageMeta { size, ..MessageMeta::default() }
    }

    fn entry(publishes: &[(u32, &str, &[u32])]) -> Arc<Entry> {
        let mut entry = Entry::default();
        let mut position = 0;
        for (command, topic, sizes) in publishes {
            entry.push(*command, position, (*topic).into(), sizes.iter().map(|size| meta(*size)).collect());
            position += sizes.iter().map(|size| u64::from(*size)).sum::<u64>();
        }
        Arc::new(entry)
    }

    #[test]
    fn a_block_goes_on_over_publishes_of_other_topics() {
        let entry = entry(&[(0, "a", &[1, 2]), (2, "b", &[10]), (3, "a", &[3]), (7, "b", &[20, 30])]);
        let mut walk = Walk::new(Arc::clone(&entry), 0, 3).unwrap();
        let found = |walk: &mut Walk, number| {
            let (message, position) = walk.find(number).unwrap();
            (message.size, position)
        };
        for _ in 0..2 {
            assert_eq!(found(&mut walk, 0), (1, 0));
            assert_eq!(found(&mut walk, 1), (2, 1));
            assert_eq!(found(&mut walk, 2), (3, 13));
        }
        let mut walk = Walk::new(entry, 2, 3).unwrap();
        assert_eq!(
            [2, 0, 1, 2].map(|number| found(&mut walk, number)),
            [(30, 36), (10, 3), (20, 16), (30, 36)]
        );
    }

    #[test]
    fn an_entry_that_is_not_the_one_that_was_applied_is_named() {
        let entry = entry(&[(0, "a", &[1, 2]), (2, "b", &[10])]);
        assert!(Walk::new(Arc::clone(&entry), 1, 1).is_err());
        let mut walk = Walk::new(entry, 0, 5).unwrap();
        assert!(walk.find(1).is_ok() && walk.find(2).is_err() && walk.find(5).is_err());
    }
}
