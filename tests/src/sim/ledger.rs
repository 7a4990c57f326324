//! What the clients know at the end: which messages must still be there, which must not, which may.

use super::Violation;
use super::message::Origin;
use raftqueue_node::api::MessageId;
use std::collections::{BTreeMap, BTreeSet};

/// A message by topic and offset.
pub(super) type MessageKey = (u64, u64);

/// The clients' own books, kept without looking into the cluster.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Acknowledged publishes.
    kept: BTreeMap<MessageKey, Origin>,
    /// Acknowledged or popped, and the client heard of it.
    taken: BTreeSet<MessageKey>,
    /// An ack whose outcome is not known.
    perhaps_taken: BTreeSet<MessageKey>,
    /// By topic, messages that pops of unknown outcome may have taken.
    allowance: BTreeMap<String, u64>,
    /// Taken out at the end.
    drained: BTreeMap<MessageKey, Origin>,
}

pub(super) fn key(id: MessageId) -> MessageKey {
    (id.topic, id.offset)
}

impl Ledger {
    pub(super) fn keep(&mut self, key: MessageKey, origin: Origin) {
        self.kept.insert(key, origin);
    }

    pub(super) fn take(&mut self, key: MessageKey) {
        self.taken.insert(key);
    }

    pub(super) fn perhaps_take(&mut self, key: MessageKey) {
        self.perhaps_taken.insert(key);
    }

    /// A pop of up to `count` messages has an unknown outcome for good.
    pub(super) fn allow(&mut self, topic: &str, count: usize) {
        *self.allowance.entry(topic.to_owned()).or_default() += count as u64;
    }

    pub(super) fn drain(&mut self, key: MessageKey, origin: Origin) -> Result<(), Violation> {
        let before = self.drained.insert(key, origin);
        Violation::unless(before.is_none() && !self.taken.contains(&key), || {
            format!("the message at {key:?}, of {origin:?}, was taken before and comes again")
        })
    }

    /// All of topic `name`, whose id is `topic`, was taken out.
    pub(super) fn close(&self, topic: u64, name: &str) -> Result<u64, Violation> {
        let here = (topic, 0)..=(topic, u64::MAX);
        let mut missing = Vec::new();
        for (key, origin) in self.kept.range(here.clone()) {
            match self.drained.get(key) {
                Some(found) => Violation::unless(found == origin, || {
                    format!("at {key:?} stands a message of {found:?}, it was given to {origin:?}")
                })?,
                None if self.taken.contains(key) || self.perhaps_taken.contains(key) => {}
                None => missing.push((key, origin)),
            }
        }
        let allowed = self.allowance.get(name).copied().unwrap_or(0);
        Violation::unless(missing.len() as u64 <= allowed, || {
            format!(
                "{} acknowledged messages of topic {name} are gone, {allowed} may have been popped unheard: {missing:?}",
                missing.len()
            )
        })?;
        let mut origins = BTreeSet::new();
        for (key, origin) in self.drained.range(here.clone()) {
            Violation::unless(origins.insert(*origin), || {
                format!("{origin:?} came out twice, the second time at {key:?}")
            })?;
        }
        Ok(self.drained.range(here).count() as u64)
    }
}
