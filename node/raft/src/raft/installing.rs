//! A log whose beginning moves: what was compacted is gone, and who lacks it gets a snapshot instead.
//!
//! The core does not know of the transfer. A leader says that it has not got what a peer lacks, again and again; the peer's
//! shell gets a snapshot from whoever has one.

use super::{Raft, TERM_MAX};
use crate::event::{Alarm, CommittedLog, Install, Installed};
use crate::mutants::{self, Mutant};
use crate::{Index, NodeId, Term};

/// No honest cluster gets to this index, and counting on from here cannot overflow.
const INDEX_MAX: Index = Index(u64::MAX / 2);

impl Raft {
    /// The last index that a snapshot may have now: applied and durable, and the term in which it was found committed is
    /// durable too. Else a restarted node could take the leader of an earlier term for one that has all of it. `None` if
    /// none may be taken now.
    #[must_use]
    pub fn snapshot_up_to(&self) -> Option<Index> {
        let most = self.applied.min(self.log.durable());
        (self.log.is_hard_state_durable() && most >= self.log.start().0).then_some(most)
    }

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

    /// Entries that this node holds may be committed without its knowing, and may count for it: whoever counted them told it
    /// only later, and that message was lost. Two logs that have the same term at an index are the same up to there (Raft,
    /// section 5.3), so where terms begin in a committed log tells how much of this one is.
    ///
    /// A leader needs no telling: it finds out what is committed.
    pub(super) fn on_committed(&mut self, told: &CommittedLog) {
        let CommittedLog { last, term_runs, giver_term } = told;
        let rise = term_runs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        let begin = term_runs.first().is_some_and(|(first, _)| *first > Index(0));
        let (end, term) = term_runs.last().copied().unwrap_or_default();
        if !rise || !begin || end > *last || *last > INDEX_MAX || term > *giver_term || *giver_term > TERM_MAX
        {
            let why = "the terms of its log contradict themselves";
            self.alarms.push(Alarm::SnapshotRefused { index: *last, term, why });
            return;
        }
        if *giver_term > self.term() {
            self.become_follower(*giver_term, None);
        }
        let agreed = match mutants::is(Mutant::CommitDisagreeing) {
            true => Some(self.log.last().min(*last)),
            false => self.log.agreement_with(term_runs, *last),
        };
        if self.is_leader() || agreed.is_none_or(|agreed| agreed <= self.commit) {
            return;
        }
        let agreed = agreed.expect("there is one");
        self.verified = self.verified.max(agreed);
        self.commit = agreed;
        self.look_at_replay();
    }

    /// A snapshot is here whole. It is taken if it has more than what is known to be committed here.
    pub(super) fn on_installed(&mut self, installed: &Installed) {
        if let Err(why) = self.install(installed) {
            let (index, term) = (installed.index, installed.term);
            self.alarms.push(Alarm::SnapshotRefused { index, term, why });
        }
    }

    fn install(&mut self, installed: &Installed) -> Result<(), &'static str> {
        let Installed { index, term, configurations, giver_term } = installed;
        let (index, term, giver_term) = (*index, *term, *giver_term);
        let rise = configurations.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !rise || configurations.last().is_none_or(|(at, _)| *at > index) {
            return Err("its configurations are not those of its index");
        }
        if index > INDEX_MAX || term > giver_term || giver_term > TERM_MAX {
            return Err("it contradicts itself");
        }
        let conflicts = |raft: &Self| raft.log.term_at(index).is_some_and(|own| own != term);
        // What is committed and damaged here cannot be applied. So this node needs what has it.
        let has = if self.damaged || self.stateless { self.applied } else { self.commit };
        // Without a state the one of the very index where the log begins is as good.
        let is_had = index < has || index == has && !self.stateless;
        if is_had && !mutants::is(Mutant::InstallOld) {
            return if conflicts(self) { Err("another entry is committed there") } else { Ok(()) };
        }
        if giver_term > self.term() && !mutants::is(Mutant::InstallKeepsTerm) {
            self.become_follower(giver_term, None);
        }
        if self.is_leader() {
            let has = self.log.term_at(index) == Some(term);
            return if has { Ok(()) } else { Err("this leader has no such entry") };
        }
        if index <= self.verified.max(self.commit) && conflicts(self) {
            return Err("the leader has another entry there");
        }
        self.log.reset((index, term), configurations.clone());
        self.commit = self.commit.max(index);
        self.reported_commit = self.commit;
        self.applied = self.applied.max(index);
        self.verified = self.verified.max(index);
        self.reply_due = self.leader.is_some();
        self.installed = Some((index, term));
        self.look_at_replay();
        Ok(())
    }
}
