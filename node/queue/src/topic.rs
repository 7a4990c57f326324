//! One topic: its offsets, its limits, and its subscriptions.

use crate::limits::COUNTER_MAX;
use crate::map::Map;
use crate::offsets::Offsets;
use crate::runs::Runs;
use crate::subscription::{Subscription, Taken};
use crate::{Delivery, Limit, MessageMeta, Refused, SessionId, SubscriptionId, TopicId, TopicSettings};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A topic. Offsets are dense: a publish that is refused takes none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub(crate) id: TopicId,
    pub(crate) name: Arc<str>,
    pub(crate) settings: TopicSettings,
    /// The request id of the creation, by which its repeat is known.
    pub(crate) request_id: Option<u128>,
    /// When it was created, in log time.
    pub(crate) created_ms: u64,
    pub(crate) offsets: Offsets,
    pub(crate) subscriptions: BTreeMap<SubscriptionId, Subscription>,
    /// Sessions that count sequences here. Follows from the sessions.
    pub(crate) sessions: Map<SessionId, ()>,
    /// Messages that were popped, whose bodies are kept for a repeat. A message is popped once. Follows from the kept
    /// pops.
    pub(crate) kept: Runs,
}

impl Topic {
    pub(crate) fn new(
        id: TopicId,
        name: &str,
        settings: TopicSettings,
        request_id: Option<u128>,
        created_ms: u64,
    ) -> Topic {
        Topic {
            id,
            name: name.into(),
            settings,
            request_id,
            created_ms,
            offsets: Offsets::default(),
            subscriptions: BTreeMap::from([(SubscriptionId::DEFAULT, Subscription::default())]),
            sessions: Map::default(),
            kept: Runs::default(),
        }
    }

    /// Whether a batch of these messages fits into the limits. Each subscription has its own messages; the fullest
    /// decides.
    pub(crate) fn admit(&self, messages: &[MessageMeta]) -> Result<(), Refused> {
        let held = |of: fn(&Subscription) -> u64| self.subscriptions.values().map(of).max().unwrap_or(0);
        let count = messages.len() as u64;
        let largest = count.saturating_mul(u64::from(u32::MAX));
        let bytes = held(|subscription| subscription.bytes).saturating_add(largest);
        if bytes.max(self.offsets.next.saturating_add(count)) > COUNTER_MAX {
            return Err(Refused::NumbersSpent);
        }
        if let Some(max) = self.settings.messages_max {
            let value = held(Subscription::count).saturating_add(count);
            if value > max {
                return Err(Refused::OverLimit { limit: Limit::TopicMessages, max, value });
            }
        }
        if let Some(max) = self.settings.bytes_max {
            let added: u64 = messages.iter().map(|message| u64::from(message.size)).sum();
            let value = held(|subscription| subscription.bytes).saturating_add(added);
            if value > max {
                return Err(Refused::OverLimit { limit: Limit::TopicBytes, max, value });
            }
        }
        Ok(())
    }

    /// Runs and entries that go with it, but for its sessions: what freeing it costs.
    pub(crate) fn entries(&self) -> usize {
        let held: usize = self.subscriptions.values().map(Subscription::entries).sum();
        held + self.kept.run_count()
    }

    /// Subscriptions with redriven messages that are not listed yet.
    pub(crate) fn redriving(&self) -> impl Iterator<Item = ((TopicId, SubscriptionId), ())> {
        let of = self.subscriptions.iter().filter(|(_, held)| !held.redriven.is_empty());
        of.map(|(&of, _)| ((self.id, of), ()))
    }

    /// The earliest end in each of its subscriptions.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (u64, TopicId, SubscriptionId)> {
        let end = |(&id, held): (&SubscriptionId, &Subscription)| Some((held.next_end_ms()?, self.id, id));
        self.subscriptions.iter().filter_map(end)
    }

    pub(crate) fn deliveries(&self, taken: &[Taken]) -> Vec<Delivery> {
        let delivery = |taken: &Taken| Delivery {
            generation: self.offsets.generation_of(taken.offset),
            offset: taken.offset,
            size: taken.size,
            attempts: taken.attempts,
        };
        taken.iter().map(delivery).collect()
    }
}
