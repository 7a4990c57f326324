//! Whether this node has applied what was committed when its process started.
//!
//! A node begins with nothing applied, and learns what is committed from the first leader that it hears. Until it is
//! through it answers nobody and shows states of the past, so it leaves leading to those that are: a leader hands over to
//! it only where nobody else is left, and a voter that could lead itself takes its turn first ([`crate::Raft`]'s answer to
//! a pre-vote). Neither may cost an election: whoever waits in its favour does so once.

use super::{Raft, Role};
use crate::{Index, Term};

/// How far the replay has come.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// The leader of this term said that so much is committed, when it was heard first.
    goal: Option<(Term, Index)>,
    /// It is over. Nothing takes this back but the end of the process.
    is_over: bool,
}

impl Replay {
    /// Where it ends, while it goes on and that is known.
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

    /// Something was applied, or heard from a leader.
    ///
    /// What a leader says counts once an entry of its own term is committed: before, it may not know what its predecessors
    /// committed. So a goal that turns out to be of an earlier term is dropped for what the leader says then.
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
