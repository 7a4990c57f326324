//! Reads that are known to be fresh: the commit index, confirmed by a quorum that still follows (Ongaro's dissertation,
//! section 6.4).
//!
//! Every round of heartbeats that confirms reads has a number of its own, which is never used twice in a term. A peer's
//! answer names the round that it answers. So a late or doubled answer never confirms a read that was asked later.

use super::{Raft, Role};
use crate::Index;
use crate::event::{ReadId, Refused};
use crate::mutants::{self, Mutant};
use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(super) struct Reads {
    /// The greatest round started.
    round: u64,
    /// Asked for since then.
    waiting: Vec<ReadId>,
    /// (round, read index, reads), oldest first.
    started: VecDeque<(u64, Index, Vec<ReadId>)>,
}

impl Reads {
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    pub(super) fn into_ids(self) -> impl Iterator<Item = ReadId> {
        self.started.into_iter().flat_map(|(_, _, reads)| reads).chain(self.waiting)
    }
}

impl Raft {
    /// Asks for a read index: a node that has applied it sees every write that was acknowledged before this call. The
    /// answer comes in [`crate::Output::reads`], once this term has committed an entry.
    ///
    /// # Errors
    /// [`Refused::NotLeader`], and [`Refused::Transferring`] as for proposals.
    pub fn read(&mut self) -> Result<ReadId, Refused> {
        let Role::Leader(leader) = &mut self.role else {
            return Err(Refused::NotLeader { leader: self.leader });
        };
        if leader.transfer.is_some() {
            return Err(Refused::Transferring);
        }
        let read = ReadId(self.next_read);
        self.next_read += 1;
        leader.reads.waiting.push(read);
        Ok(read)
    }

    /// Starts one round for all reads that wait. Before the first commit of its term a leader does not know the commit
    /// index, and no round starts.
    pub(super) fn start_reads(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let knows_commit = self.commit >= leader.first_index || mutants::is(Mutant::ReadBeforeFirstCommit);
        if leader.reads.waiting.is_empty() || !knows_commit {
            return;
        }
        let reads = std::mem::take(&mut leader.reads.waiting);
        leader.reads.round = if mutants::is(Mutant::ReuseReadRound) { 1 } else { leader.reads.round + 1 };
        leader.reads.started.push_back((leader.reads.round, self.commit, reads));
        self.send_heartbeats();
    }

    /// Answers every round that a quorum has confirmed.
    pub(super) fn answer_reads(&mut self) {
        while let Role::Leader(leader) = &self.role
            && let Some((round, _, _)) = leader.reads.started.front()
            && (mutants::is(Mutant::ReadWithoutQuorum)
                || self.is_quorum_with_peers(|p| p.read_round >= *round))
        {
            let Role::Leader(leader) = &mut self.role else { unreachable!("just seen") };
            let (_, index, reads) = leader.reads.started.pop_front().expect("just seen");
            self.reads.extend(reads.into_iter().map(|read| (read, Ok(index))));
        }
    }
}
