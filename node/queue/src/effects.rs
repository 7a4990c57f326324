//! What applying a command asks of whoever applies it.

use crate::{Dropped, SubscriptionId, TopicId};

/// What the leader should do because of a command. Followers drop it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Subscriptions in which messages became ready, each with the lowest offset of these messages; sorted, each once.
    /// Wake whoever waits there, and look for messages from that offset on.
    pub ready: Vec<(TopicId, SubscriptionId, u64)>,
    /// Topics that were deleted. Answer whoever waits there, and forget where their messages stand on disk.
    pub deleted: Vec<TopicId>,
    /// Topics that no longer keep everything that a pop took of them; sorted, each once. Look which places on disk can
    /// be forgotten.
    pub released: Vec<TopicId>,
    /// What was taken out of the state and is to be freed where time does not matter.
    pub dropped: Dropped,
    /// Leases that ran out, for metrics.
    pub leases_expired: u32,
    /// Messages that died, for metrics.
    pub died: u32,
    /// Sessions that ended because they were idle, for metrics.
    pub sessions_expired: u32,
    /// How much there was to do: messages, leases and candidates looked at, runs and entries dropped. Each step takes
    /// about a hundred nanoseconds. By this count the caller can stop in time.
    pub steps: u64,
}
