//! Changes of the configuration: one code path for all of them, through a joint configuration wherever the voters change
//! (Ongaro's dissertation, section 4.3).
//!
//! A configuration is in force from the moment it stands in the log, is rolled back when its entry is truncated, and is
//! found again in the log when a node starts.

use super::{Raft, Role};
use crate::event::Refused;
use crate::mutants::{self, Mutant};
use crate::progress::ProgressState;
use crate::{Configuration, Index, Member, Message, NodeId, Payload, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How the members in force are to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberChange {
    /// Members to add, or whose kind changes.
    pub set: BTreeMap<NodeId, Member>,
    /// Members to remove.
    pub remove: BTreeSet<NodeId>,
    /// What only a voter has that goes and is not heard is given up: see [`Raft::force_configuration`].
    pub force: bool,
}

impl Raft {
    /// Appends a configuration with the members changed as asked. If voters change, it is a joint one, which the leader
    /// leaves by itself once it is committed.
    ///
    /// # Errors
    /// [`Refused::ChangePending`] while an earlier configuration is not committed or this term has not committed
    /// anything; [`Refused::InvalidChange`] if no voter would be left or nothing would change; else as for proposals.
    pub fn change_members(&mut self, change: MemberChange) -> Result<(Term, Index), Refused> {
        self.check_may_change()?;
        let old = self.log.configuration();
        let mut new = Configuration::clone(old);
        new.members.retain(|id, _| !change.remove.contains(id));
        new.members.extend(change.set);
        if new == **old {
            return Err(Refused::InvalidChange("the members are so already"));
        }
        if new.voters().next().is_none() {
            return Err(Refused::InvalidChange("no voter would be left"));
        }
        if !new.voters().eq(old.voters()) {
            new.outgoing = old.voters().collect();
        }
        let index = self.append_as_leader(Payload::Config(Arc::new(new)));
        if change.force {
            self.force_configuration();
        }
        Ok((self.term(), index))
    }

    /// The joint configuration in force is left also while messages are lacking, once nobody is heard of those that go: what only
    /// they have is given up. Holds for as long as this node leads.
    pub fn force_configuration(&mut self) {
        let index = self.log.configuration_index();
        if let Role::Leader(leader) = &mut self.role {
            leader.forced = index;
        }
        self.settle_configuration();
    }

    /// Raises the active version of commands and formats. The caller has made sure that every member supports it.
    ///
    /// # Errors
    /// As for [`Raft::change_members`]; [`Refused::InvalidChange`] if the version does not rise.
    pub fn raise_version(&mut self, version: u32) -> Result<(Term, Index), Refused> {
        self.check_may_change()?;
        let old = self.log.configuration();
        if version <= old.version {
            return Err(Refused::InvalidChange("the active version only rises"));
        }
        let new = Configuration { version, ..Configuration::clone(old) };
        Ok((self.term(), self.append_as_leader(Payload::Config(Arc::new(new)))))
    }

    /// Whether a change of the members would be taken up now, as far as the protocol knows.
    ///
    /// # Errors
    /// [`Refused`], as [`Raft::change_members`] would say.
    pub fn may_change_members(&self) -> Result<(), Refused> {
        self.check_may_change()
    }

    /// Only one configuration may be pending, and none may come before this term has committed an entry. Else two
    /// leaders could each count a majority, and the two would not overlap (Ongaro, raft-dev, 2015).
    fn check_may_change(&self) -> Result<(), Refused> {
        self.check_may_propose()?;
        let Role::Leader(leader) = &self.role else { return Err(Refused::NotLeader { leader: self.leader }) };
        let pending = self.log.configuration_index() > self.commit || self.log.configuration().is_joint();
        if (pending || self.commit < leader.first_index) && !mutants::is(Mutant::ChangeWhilePending) {
            return Err(Refused::ChangePending);
        }
        Ok(())
    }

    /// Leaves a joint configuration that is committed, and steps down if this leader is no voter any more. Either waits until a
    /// quorum of those that stay lacks nothing: who goes may be the only one that has some messages. Nor does it happen during
    /// a hand-over, whose target would lack that last entry and not win.
    pub(super) fn settle_configuration(&mut self) {
        let configuration = self.log.configuration();
        let is_settled = !configuration.is_joint() && configuration.is_voter(self.settings.id);
        let Role::Leader(leader) = &self.role else { return };
        let is_handed_over = leader.transfer.is_some();
        if is_settled || is_handed_over || self.log.configuration_index() > self.commit {
            return;
        }
        let stay = Configuration { outgoing: BTreeSet::new(), ..Configuration::clone(configuration) };
        let is_enough = stay.is_quorum(|id| self.has_everything(id)) || self.is_given_up(&stay);
        if !is_enough && !mutants::is(Mutant::LeaveTheLacking) {
            return;
        }
        if configuration.is_joint() {
            self.append_as_leader(Payload::Config(Arc::new(stay)));
        } else {
            self.send_heartbeats();
            if let Some(to) = self.best_successor() {
                self.send_to(to, Message::TimeoutNow);
            }
            self.become_follower(self.term(), None);
        }
    }

    /// Whether it was decided to do without those that go, and none of them is heard.
    fn is_given_up(&self, stay: &Configuration) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let is_heard = |id: &NodeId| {
            let progress = leader.progress.get(id);
            progress.is_none_or(|p| p.silent_ticks < self.settings.election_ticks)
        };
        let mut going = self.log.configuration().peers();
        going.retain(|id| !stay.members.contains_key(id));
        leader.forced == self.log.configuration_index() && !going.iter().any(is_heard)
    }

    /// Whether a node has every message that lives up to where its log ends, as far as this leader knows. One that gets a
    /// snapshot will lack messages at first.
    fn has_everything(&self, id: NodeId) -> bool {
        if id == self.settings.id {
            return !self.incomplete && !self.damaged;
        }
        let Role::Leader(leader) = &self.role else { return false };
        let progress = leader.progress.get(&id);
        progress.is_some_and(|p| !p.incomplete && !p.replaying && p.state != ProgressState::Snapshot)
    }
}
