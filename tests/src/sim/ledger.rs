//! What the clients know at the end: which messages must still be there, which must not, which may.

use super::Violation;
use super::message::Origin;
use raftqueue_node::api::MessageId;
use std::collections::{BTreeMap, BTreeSet};

/// A message by topic and offset.
pub(super) type Place = (u64, u64);

/// The clients' own books, kept without looking into the cluster.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Acknowledged publishes.
    kept: BTreeMap<Place, Origin>,
    /// Acknowledged or popped, and the client heard of it.
    taken: BTreeSet<Place>,
    /// An ack whose outcome is not known.
    perhaps_taken: BTreeSet<Place>,
    /// By topic, messages that pops of unknown outcome may have taken.
    allowance: BTreeMap<String, u64>,
    /// Taken out at the end.
    drained: BTreeMap<Place, Origin>,
}

pub(super) fn place(id: MessageId) -> Place {
    (id.topic, id.offset)
}

impl Ledger {
    pub(super) fn keep(&mut self, place: Place, origin: Origin) {
        self.kept.insert(place, origin);
    }

    pub(super) fn take(&mut self, place: Place) {
        self.taken.insert(place);
    }

    pub(super) fn perhaps_take(&mut self, place: Place) {
        self.perhaps_taken.insert(place);
    }

    /// A pop of up to `count` messages has an unknown outcome for good.
    pub(super) fn allow(&mut self, topic: &str, count: usize) {
        *self.allowance.entry(topic.to_owned()).or_default() += count as u64;
    }

    pub(super) fn drain(&mut self, place: Place, origin: Origin) -> Result<(), Violation> {
        let before = self.drained.insert(place, origin);
        Violation::unless(before.is_none() && !self.taken.contains(&place), || {
            format!("the message at {place:?}, of {origin:?}, was taken before and comes again")
        })
    }

    /// All of topic `name`, whose id is `topic`, was taken out.
    pub(super) fn close(&self, topic: u64, name: &str) -> Result<u64, Violation> {
        let here = (topic, 0)..=(topic, u64::MAX);
        let mut missing = Vec::new();
        for (place, origin) in self.kept.range(here.clone()) {
            match self.drained.get(place) {
                Some(found) => Violation::unless(found == origin, || {
                    format!("at {place:?} stands a message of {found:?}, it was given to {origin:?}")
                })?,
                None if self.taken.contains(place) || self.perhaps_taken.contains(place) => {}
                None => missing.push((place, origin)),
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
        for (place, origin) in self.drained.range(here.clone()) {
            Violation::unless(origins.insert(*origin), || {
                format!("{origin:?} came out twice, the second time at {place:?}")
            })?;
        }
        Ok(self.drained.range(here).count() as u64)
    }
}
