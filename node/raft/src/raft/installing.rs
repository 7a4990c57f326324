//! A log whose beginning moves: what was compacted is gone, and who lacks it gets a snapshot instead.
//!
//! The core does not know of the transfer. A leader says that it has not got what a peer lacks, again and again; the peer's
//! shell gets a snapshot from whoever has one.

use super::Raft;
use crate::event::{Alarm, Install};
use crate::{Index, NodeId, Term};

impl Raft {
    /// The log up to `to` is gone. Who lacks something of it is seen when it is fed next.
    pub(super) fn on_compacted(&mut self, to: Index) {
        assert!(to <= self.applied, "what is gone up to {to} was applied only up to {}", self.applied);
        self.log.compact(to);
    }

    /// The leader's log begins at `start`, and it believes that this node lacks what came before.
    pub(super) fn on_install(&mut self, from: NodeId, start: (Index, Term)) {
        if start.1 > self.term() {
            self.alarms.push(Alarm::Malformed { from });
            return;
        }
        if !self.hear_leader(from) {
            return;
        }
        if start.0 > self.verified && self.log.term_at(start.0) != Some(start.1) {
            self.install = Some(Install { leader: from, start });
            return;
        }
        self.verified = self.verified.max(start.0);
        self.reply_once_durable(start.0);
    }
}
