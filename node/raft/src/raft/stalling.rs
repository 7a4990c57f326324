//! What a leader does when its disk hangs: it gives way if the others can do without it.

use super::{Raft, Role};
use crate::mutants::{self, Mutant};
use crate::progress::Progress;

impl Raft {
    pub(super) fn on_disk_stalled(&mut self, stalled: bool) {
        // It is told again and again by reads that fail.
        if stalled != std::mem::replace(&mut self.disk_stalled, stalled) {
            self.stalled_ticks = 0;
        }
        if let Role::Leader(leader) = &mut self.role
            && !stalled
            && leader.transfer.as_ref().is_some_and(|transfer| transfer.because_stalled)
        {
            leader.transfer = None;
        }
    }

    /// A leader whose disk hangs hands over, if the others can do without it. It waits two heartbeats first: where all disks
    /// hang together, by then the others have said so.
    pub(super) fn tick_stalled(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        self.stalled_ticks = self.stalled_ticks.saturating_add(1);
        if self.stalled_ticks <= 2 * self.settings.heartbeat_ticks && !mutants::is(Mutant::HandOverAtOnce) {
            return;
        }
        if leader.transfer.is_some() || self.stall_pause_ticks > 0 || !self.can_others_carry_on() {
            return;
        }
        self.stall_pause_ticks = self.settings.stall_pause_ticks;
        let timeout = 2 * self.settings.election_ticks;
        let started = self.best_successor().is_some_and(|to| self.start_transfer(to, timeout, true).is_ok());
        if !started {
            self.become_follower(self.term(), None);
        }
    }

    /// True if the peers that are well are a quorum without this node, and one of them may lead. If a majority of disks
    /// stalls, or half of an even number, there is no such quorum: another leader could neither be elected nor commit. If
    /// all others lack bodies of messages none of them campaigns, while this node commits what they take.
    pub(super) fn can_others_carry_on(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let is_well = |p: &Progress| !p.disk_stalled && p.silent_ticks < self.settings.election_ticks;
        self.log.configuration().is_quorum(|peer| leader.progress.get(&peer).is_some_and(is_well))
            && self.best_successor().is_some()
    }
}
