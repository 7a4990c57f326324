//! What a node says of itself.

use super::{Raft, Role};
use crate::event::{PeerStatus, Status};

/// Election timeouts after which nobody is about to be elected who could be.
const LEADERLESS_ELECTIONS: u32 = 10;

impl Raft {
    /// True if this node leads, or heard a leader within ten election timeouts, or started so lately: a cluster that can elect
    /// a leader has one by then.
    #[must_use]
    pub fn has_heard_leader_lately(&self) -> bool {
        self.is_leader() || self.leader_silent_ticks < LEADERLESS_ELECTIONS * self.settings.election_ticks
    }

    /// This node's own view of itself.
    #[must_use]
    pub fn status(&self) -> Status {
        let (peers, uncommitted_bytes, transferring) = match &self.role {
            Role::Leader(leader) => (
                leader
                    .progress
                    .iter()
                    .map(|(id, p)| PeerStatus {
                        id: *id,
                        matched: p.matched,
                        active: p.silent_ticks < self.settings.election_ticks,
                        disk_stalled: p.disk_stalled,
                        replaying: p.replaying,
                        incomplete: p.incomplete,
                        state: p.state,
                    })
                    .collect(),
                leader.uncommitted_bytes(),
                leader.transfer.is_some(),
            ),
            _ => (Vec::new(), 0, false),
        };
        Status {
            role: self.role_state(),
            commit: self.commit,
            start: self.log.start().0,
            last: self.log.last(),
            durable: self.log.durable(),
            window_bytes: self.log.window_bytes(),
            uncommitted_bytes,
            transferring,
            leader_commit: self.leader_commit.max(self.commit),
            replaying: self.is_replaying(),
            replay_until: self.replay.until(),
            incomplete: self.incomplete,
            peers,
        }
    }
}
