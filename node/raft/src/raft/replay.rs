//! Whether this node has applied what was committed when its process started.
//!
//! A node begins with nothing applied, and learns what is committed from the first leader that it hears. While it
//! replays it answers nobody and shows states of the past. So it leaves leading to nodes that have replayed: a leader
//! hands over to it only if nobody else is left, and a voter that could lead takes its turn first (see
//! [`crate::Raft`]'s answer to a pre-vote). That must not cost an election, so nobody waits for such a turn more than
//! once.

use super::{Raft, Role};
use crate::mutants::{self, Mutant};
use crate::progress::{Progress, ProgressState};
use crate::{Index, Term};

/// Election timeouts from one hand-over by a leader that is not ready to the next.
const LEAVE_PAUSE_ELECTIONS: u32 = 10;

/// How far the replay has come.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// So much was committed, as the leader of this term said when this node first heard it.
    goal: Option<(Term, Index)>,
    /// The replay is over, until the process ends.
    is_over: bool,
}

impl Replay {
    /// The index where the replay ends; `None` once it is over, or while that is not known.
    pub(super) fn until(&self) -> Option<Index> {
        self.goal.filter(|_| !self.is_over).map(|(_, index)| index)
    }
}

impl Raft {
    /// True until this node has applied everything that was committed when its process started.
    #[must_use]
    pub fn is_replaying(&self) -> bool {
        !self.replay.is_over
    }

    /// True if its queue holds messages whose bodies are not here. Such a node votes and takes entries, and never leads.
    pub(super) fn lacks_messages(&self) -> bool {
        self.incomplete && !mutants::is(Mutant::LeadIncomplete)
    }

    /// True if records of its log do not verify, and there may be somebody who has them; or if it has no state that the log
    /// could be applied to. Such a node votes by what the log is known to be, and never leads (RULES 2.5, 3.5).
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        if self.stateless && !mutants::is(Mutant::LeadDamaged) {
            return true;
        }
        self.damaged && self.configuration().voters().count() != 1 && !mutants::is(Mutant::LeadDamaged)
    }

    /// True if this node leads and has heard nobody lately who lacks neither messages nor entries: whoever needs a snapshot gets
    /// it from this node, whatever it lacks itself, or from nobody.
    #[must_use]
    pub fn is_last_to_give(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let has_all = |p: &Progress| {
            let is_heard = p.silent_ticks < self.settings.election_ticks;
            is_heard && !p.incomplete && p.state != ProgressState::Snapshot
        };
        !leader.progress.values().any(has_all)
    }

    /// A leader that replays, lacks bodies of messages, or cannot read its log keeps everybody waiting: it hands over to a voter that does
    /// neither, once that has everything. If nobody takes over it leads on for a while.
    pub(super) fn leave_to_the_ready(&mut self) {
        let is_ready = !self.is_replaying() && !self.lacks_messages() && !self.is_damaged();
        let Role::Leader(leader) = &self.role else { return };
        if is_ready || leader.leave_pause_ticks > 0 || mutants::is(Mutant::UnreadyLeadsOn) {
            return;
        }
        let everything = self.commit.max(leader.first_index);
        let ready = |id| leader.progress.get(&id).is_some_and(|p| !p.replaying && p.matched >= everything);
        let Some(to) = self.best_successor_among(ready) else { return };
        let timeout = self.settings.election_ticks;
        let started = self.start_transfer(to, timeout, false).is_ok();
        if let Role::Leader(leader) = &mut self.role
            && started
        {
            leader.leave_pause_ticks = LEAVE_PAUSE_ELECTIONS * timeout;
        }
    }

    /// Something was applied, or heard from a leader.
    ///
    /// What a leader says counts only once an entry of its own term is committed: before that it may not know what its
    /// predecessors committed. So a goal of an earlier term is replaced by what the leader says later.
    pub(super) fn look_at_replay(&mut self) {
        if self.replay.is_over {
            return;
        }
        let term = self.term();
        let heard = (self.leader.is_some() && self.leader_commit > Index(0)).then_some(self.leader_commit);
        let goal = match &self.role {
            Role::Leader(leader) => Some(leader.first_index),
            _ => self.replay.goal.filter(|goal| goal.0 == term).map(|goal| goal.1).or(heard),
        };
        self.replay.goal = goal.map(|index| (term, index));
        let Some(index) = goal.filter(|index| *index <= self.applied) else { return };
        if self.log.term_at(index) == Some(term) {
            self.replay.is_over = true;
        } else {
            self.replay.goal = None;
        }
    }
}
