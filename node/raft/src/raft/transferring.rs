//! Handing leadership over to a voter that has everything (Ongaro's dissertation, section 3.10).

use super::{Raft, Role};
use crate::event::Refused;
use crate::mutants::{self, Mutant};
use crate::progress::Progress;
use crate::{MemberKind, Message, NodeId};

/// A hand-over that is under way.
#[derive(Debug)]
pub(super) struct Transfer {
    to: NodeId,
    ticks_left: u32,
    /// A stalled disk is the reason. If the hand-over fails, the leader steps down.
    pub(super) because_stalled: bool,
}

impl Raft {
    /// Hands leadership to `to`: waits until it has everything, then tells it to campaign. Proposals and reads are
    /// refused meanwhile; after an election timeout the attempt ends and this node goes on leading.
    ///
    /// # Errors
    /// [`Refused::NotLeader`], [`Refused::Transferring`] while another one is under way, [`Refused::InvalidChange`] if
    /// `to` is this node, not a voter, or says that it lacks bodies of messages.
    pub fn transfer_leadership(&mut self, to: NodeId) -> Result<(), Refused> {
        self.start_transfer(to, self.settings.election_ticks, false)
    }

    pub(super) fn start_transfer(
        &mut self,
        to: NodeId,
        ticks_left: u32,
        because_stalled: bool,
    ) -> Result<(), Refused> {
        let configuration = self.log.configuration().clone();
        let Role::Leader(leader) = &mut self.role else {
            return Err(Refused::NotLeader { leader: self.leader });
        };
        if leader.transfer.is_some() {
            return Err(Refused::Transferring);
        }
        if to == self.settings.id {
            return Err(Refused::InvalidChange("this node leads already"));
        }
        if configuration.members.get(&to).is_none_or(|member| member.kind != MemberKind::Voter) {
            return Err(Refused::InvalidChange("leadership can only go to a voter"));
        }
        if leader.progress.get(&to).is_some_and(Progress::lacks_messages) {
            return Err(Refused::InvalidChange("leadership goes to no node that lacks messages"));
        }
        leader.transfer = Some(Transfer { to, ticks_left, because_stalled });
        self.finish_transfer();
        Ok(())
    }

    /// The best peer to hand over to: the active voter that has most of the log. One that still replays comes last, one
    /// that lacks bodies of messages is none.
    #[must_use]
    pub fn best_successor(&self) -> Option<NodeId> {
        self.best_successor_among(|_| true)
    }

    /// As [`Raft::best_successor`], among the peers that the caller accepts.
    #[must_use]
    pub fn best_successor_among(&self, accepts: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let is_replaying = |p: &Progress| p.replaying && !mutants::is(Mutant::HandOverToReplaying);
        let Role::Leader(leader) = &self.role else { return None };
        let members = &self.log.configuration().members;
        leader
            .progress
            .iter()
            .filter(|(id, p)| {
                p.silent_ticks < self.settings.election_ticks
                    && !p.disk_stalled
                    && !p.lacks_messages()
                    && members.get(id).is_some_and(|m| m.kind == MemberKind::Voter)
                    && accepts(**id)
            })
            .max_by_key(|(_, p)| (!is_replaying(p), p.matched))
            .map(|(id, _)| *id)
    }

    /// Tells the target to campaign once it has everything.
    pub(super) fn finish_transfer(&mut self) {
        let last = self.log.last();
        let Role::Leader(leader) = &self.role else { return };
        if let Some(transfer) = &leader.transfer
            && leader.progress.get(&transfer.to).is_some_and(|p| p.matched == last)
        {
            self.send_to(transfer.to, Message::TimeoutNow);
        }
    }

    pub(super) fn tick_transfer(&mut self, repeat: bool) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        transfer.ticks_left = transfer.ticks_left.saturating_sub(1);
        let may_lead = leader.progress.get(&transfer.to).is_some_and(|p| !p.lacks_messages());
        let over = transfer.ticks_left == 0 || !may_lead;
        if !over {
            if repeat {
                self.finish_transfer();
            }
            return;
        }
        let step_down = transfer.because_stalled && self.disk_stalled;
        leader.transfer = None;
        if step_down && self.can_others_carry_on() {
            // Nobody took over, and this node can make nothing durable. It falls silent, so that the others elect.
            self.become_follower(self.term(), None);
        }
    }
}
