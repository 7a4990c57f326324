//! What this node says of itself to its peers, and what it compares with what they say. Whoever knows it writes it; it
//! is read at every hello.

use raftqueue_raft::NodeId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use tokio::sync::watch;

/// Which node of which cluster this is. Changes when the node binds itself to a formation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnIdentity {
    /// The node's id.
    pub node_id: NodeId,
    /// The cluster; `None` while it belongs to none.
    pub cluster_id: Option<u128>,
    /// Forced recoveries of the cluster.
    pub generation: u32,
}

/// How a log ends. Logs that end alike are alike (Raft, section 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The last index on the disk.
    pub durable: u64,
    /// The term of the last entry; the greatest number while it is not known.
    pub last_term: u64,
}

/// What this node says of itself.
#[derive(Debug)]
pub struct Own {
    /// Its name.
    pub name: String,
    /// Where clients reach it.
    pub client_address: String,
    /// Where the other nodes reach it.
    pub peer_address: String,
    /// A random number of this process.
    pub boot_id: u64,
    /// Which node it is.
    pub identity: watch::Sender<Option<OwnIdentity>>,
    /// The active version; 0 while it has no configuration.
    pub version: AtomicU32,
    /// The last index on its disk.
    pub durable: AtomicU64,
    /// The term that it is in.
    pub term: AtomicU64,
    /// Where the configuration that it knows stands in its log.
    pub configuration: AtomicU64,
    /// It is a member of that.
    pub is_member: AtomicBool,
    /// It waits to be added to a cluster that exists.
    pub waits: watch::Sender<bool>,
    /// It knows a leader.
    pub has_leader: AtomicBool,
    /// The term of the last entry of its log; the greatest number while it does not know.
    pub last_term: AtomicU64,
    /// A leader has confirmed that it is no member of its cluster any more; how its log ended when that was asked.
    pub removed_at: watch::Sender<Option<LogEnd>>,
    /// It lost what it promised, and takes part in nothing.
    pub is_promise_lost: AtomicBool,
    /// While it leads: what its peers acknowledged.
    pub acknowledged: std::sync::RwLock<Acknowledged>,
}

impl Own {
    /// A node that does not know yet which one it is.
    #[must_use]
    pub fn new(name: String, client_address: String, peer_address: String, boot_id: u64) -> Self {
        Self {
            name,
            client_address,
            peer_address,
            boot_id,
            identity: watch::Sender::new(None),
            version: AtomicU32::new(0),
            durable: AtomicU64::new(0),
            term: AtomicU64::new(0),
            configuration: AtomicU64::new(0),
            is_member: AtomicBool::new(false),
            waits: watch::Sender::new(false),
            has_leader: AtomicBool::new(false),
            last_term: AtomicU64::new(u64::MAX),
            removed_at: watch::Sender::new(None),
            is_promise_lost: AtomicBool::new(false),
            acknowledged: std::sync::RwLock::default(),
        }
    }
}

impl Own {
    /// Notes that it waits to be added to a cluster that exists, until it is.
    pub fn is_to_be_added(&self) {
        self.waits.send_replace(true);
    }

    /// Resolves once that is noted.
    pub async fn waits_to_be_added(&self) {
        // The sender lives as long as this does.
        drop(self.waits.subscribe().wait_for(|waits| *waits).await);
    }

    /// It is no member of the cluster of which it knows: it waits to be added, or was removed.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        let has_log = self.configuration.load(Ordering::Relaxed) > 0;
        !self.is_member.load(Ordering::Relaxed) && (has_log || *self.waits.borrow())
    }

    /// How its log ends.
    #[must_use]
    pub fn log_end(&self) -> LogEnd {
        LogEnd {
            durable: self.durable.load(Ordering::Acquire),
            last_term: self.last_term.load(Ordering::Acquire),
        }
    }

    /// Resolves once a leader has confirmed that this node is no member of its cluster any more.
    pub async fn removed(&self) {
        // The sender lives as long as this does.
        drop(self.removed_at.subscribe().wait_for(Option::is_some).await);
    }
}

/// What other nodes have on their disks, as they said: a leader's peers what they acknowledged, and a leader its term.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// The term in which they said it.
    pub term: u64,
    /// Who leads in it, if that is known and another node: its own vote of that term was on its disk before it led.
    pub leader: Option<NodeId>,
    /// The last index that each of them acknowledged in that term.
    pub indexes: BTreeMap<NodeId, u64>,
}

impl Acknowledged {
    /// True if a node that starts with this much on its disk has lost some of what it acknowledged here, or the term in
    /// which it leads: then the disk is a copy, or was set back. A node in a later term may have lost entries rightly: its
    /// leader there cut what a majority never had.
    #[must_use]
    pub fn contradicts(&self, node: NodeId, durable_last_index: u64, term: u64) -> bool {
        let index = self.indexes.get(&node).copied().unwrap_or(0);
        let led_later = self.leader == Some(node) && term < self.term;
        durable_last_index < index && term <= self.term || led_later
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node had is cut and written anew to the same length: an old answer about it does not count.
    #[test]
    fn rule_1_5_a_log_of_the_same_length_is_another_if_it_ends_in_another_term() {
        let own = Own::new("a".into(), String::new(), String::new(), 1);
        own.durable.store(103, Ordering::Release);
        own.last_term.store(2, Ordering::Release);
        let asked = own.log_end();
        assert_eq!(own.log_end(), asked);
        own.last_term.store(3, Ordering::Release);
        assert_ne!(own.log_end(), asked);
        own.last_term.store(2, Ordering::Release);
        own.durable.store(104, Ordering::Release);
        assert_ne!(own.log_end(), asked);
    }
}
