//! The rules of the protocol, checked after every turn of a node against what the disks hold for certain.

use super::Violation;
use super::digest::{Durable, Step, Trail, step_after};
use raftqueue_raft::{
    AppendOutcome, Entry, Envelope, HardState, Index, Message, NodeId, Payload, Raft, RoleKind, Term,
};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of the whole cluster.
#[derive(Debug, Default)]
pub(super) struct Checker {
    leaders: BTreeMap<Term, NodeId>,
    /// Every entry that ever stood in a log, with the hash of the log up to it.
    entries: BTreeMap<(Index, Term), (u64, Entry)>,
    committed: Trail,
    /// The last index that was first called committed by a node of this term.
    committed_in: BTreeMap<Term, Index>,
    /// By term and voter, over all lives of its process.
    votes: BTreeMap<(Term, NodeId), NodeId>,
    pub(super) elections: u64,
    /// Where configurations stand, or stood, in some log.
    configurations: BTreeSet<(Index, Term)>,
}

/// What one life of a node's process has shown so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    hard_state: HardState,
    commit: Index,
    pub(super) applied: Index,
    /// What it last said it was, and in which term.
    pub(super) role: Option<(RoleKind, Term)>,
}

impl Seen {
    /// Another node's snapshot takes the place of this node's state: what it has was committed and applied elsewhere.
    pub(super) fn goes_over(&mut self, index: Index) {
        self.commit = self.commit.max(index);
        self.applied = self.applied.max(index);
    }

    /// Of a process that goes on from a snapshot at an index.
    pub(super) fn from_snapshot(index: Index) -> Self {
        Self { commit: index, applied: index, ..Self::default() }
    }
}

impl Checker {
    /// The last index that is known to be committed.
    pub(super) fn committed(&self) -> Index {
        self.committed.last()
    }

    /// Whether a configuration that is not committed stands in some log, or stood there and may come up again.
    pub(super) fn has_open_configuration(&self) -> bool {
        self.configurations.range((self.committed().next(), Term(0))..).next().is_some()
    }

    /// Whether a configuration stood in some log where this entry is committed, or before it, and is not committed.
    pub(super) fn is_configuration_lost(&self, entry: &Entry) -> bool {
        let is_lost =
            |(index, term): &(Index, Term)| self.committed.at(*index).map(|step| step.term) != Some(*term);
        self.configurations.range(..(entry.index, Term(0))).any(is_lost)
    }

    /// Who led in a term.
    pub(super) fn leader_of(&self, term: Term) -> Option<NodeId> {
        self.leaders.get(&term).copied()
    }

    /// The log up to a committed entry of this term.
    pub(super) fn up_to(&self, index: Index, term: Term) -> Option<Trail> {
        self.committed.up_to(index, term)
    }

    /// Up to where a log is the committed one.
    pub(super) fn agrees_to(&self, log: &Trail) -> Index {
        let is_same = |index: &u64| {
            log.at(Index(*index)).is_some_and(|step| self.committed.at(Index(*index)) == Some(step))
        };
        Index((1..).take_while(is_same).last().unwrap_or(0))
    }

    /// A node goes on alone with this log, of which so much is committed: what else there was is of a generation that is past,
    /// and its terms may come again.
    pub(super) fn begin_generation(&mut self, log: &Trail, committed: Index) {
        let committed = log.up_to(committed, log.at(committed).map_or(Term(0), |step| step.term));
        self.committed = committed.expect("the log is at least so long");
        self.entries
            .retain(|(index, term), (hash, _)| log.at(*index) == Some(Step { term: *term, hash: *hash }));
        self.configurations.retain(|(index, term)| log.at(*index).is_some_and(|step| step.term == *term));
        self.leaders.clear();
        self.votes.clear();
        self.committed_in.clear();
    }

    /// An entry is put behind `log`: the same index and term always mean the same log up to there.
    pub(super) fn append(&mut self, log: &mut Trail, entry: &Entry) -> Result<(), Violation> {
        let step = log.step_of(entry);
        self.note(entry, step)?;
        log.push(step);
        Ok(())
    }

    fn note(&mut self, entry: &Entry, step: Step) -> Result<(), Violation> {
        let (index, term) = (entry.index, entry.term);
        if let Payload::Config(_) = entry.payload {
            self.configurations.insert((index, term));
        }
        let (known, _) = self.entries.entry((index, term)).or_insert_with(|| (step.hash, entry.clone()));
        Violation::unless(*known == step.hash, || {
            format!("log matching: two logs with an entry of term {term} at {index} differ up to there")
        })
    }

    /// What the node has at `index`, in memory or on disk.
    fn step_at(&mut self, raft: &Raft, index: Index) -> Result<Step, Violation> {
        let Some(term) = raft.term_at(index) else {
            return Err(Violation(format!("the log ends at {}, before {index}", raft.last_index())));
        };
        if let Some((hash, _)) = self.entries.get(&(index, term)) {
            return Ok(Step { term, hash: *hash });
        }
        // It is not written yet, so it is in memory, with everything between it and what was written.
        let entry = raft.entry(index).expect("what is not written is in memory").clone();
        let before = if index == Index(1) { 0 } else { self.step_at(raft, index.prev())?.hash };
        let step = step_after(before, &entry);
        self.note(&entry, step)?;
        Ok(step)
    }

    /// The node's own rules after a turn: terms, leaders, commits. Returns what is committed for the first time.
    pub(super) fn after_turn(
        &mut self,
        raft: &Raft,
        seen: &mut Seen,
        disks: &BTreeMap<NodeId, Durable>,
    ) -> Result<Vec<Entry>, Violation> {
        let id = raft.id();
        let term = raft.term();
        Violation::unless(term >= seen.hard_state.term, || {
            format!("the term goes back from {} to {term}", seen.hard_state.term)
        })?;
        seen.hard_state.term = term;
        self.check_durable(raft, &disks[&id])?;
        self.check_configuration(raft)?;
        if raft.is_leader() {
            let leader = *self.leaders.entry(term).or_insert_with(|| {
                self.elections += 1;
                id
            });
            Violation::unless(leader == id, || format!("two leaders in term {term}: {leader} and {id}"))?;
        }
        let commit = raft.commit();
        Violation::unless(commit >= seen.commit, || {
            format!("the commit index goes back from {} to {commit}", seen.commit)
        })?;
        let (start, start_term) = raft.start();
        if seen.commit < start {
            // It went over to another node's snapshot: what that has is committed.
            Violation::unless(self.committed.at(start).is_some_and(|step| step.term == start_term), || {
                format!("the log begins behind {start} of term {start_term}, which is not committed")
            })?;
            seen.commit = start;
        }
        let mut news = Vec::new();
        let mut index = seen.commit;
        while index < commit {
            index = index.next();
            let step = self.step_at(raft, index)?;
            match self.committed.at(index) {
                Some(known) => Violation::unless(known == step, || {
                    format!(
                        "the committed entry {index} of term {} is another one here, of term {}",
                        known.term, step.term
                    )
                })?,
                None => {
                    self.check_quorum(raft, index, step, disks)?;
                    self.committed.push(step);
                    self.committed_in.insert(term, index);
                    news.push(self.entries[&(index, step.term)].1.clone());
                }
            }
        }
        seen.commit = commit;
        Ok(news)
    }

    /// A leader has every entry that was committed in an earlier term. This is checked when a node begins to lead; that
    /// may be long after it was elected, and after another has committed more in a later term.
    pub(super) fn check_complete(&mut self, raft: &Raft) -> Result<(), Violation> {
        let earlier = self.committed_in.range(..raft.term());
        let Some(last) = earlier.map(|(_, last)| *last).max() else { return Ok(()) };
        if last < raft.start().0 {
            return Ok(()); // It is in the snapshot, which was checked when it was read.
        }
        let own = self.step_at(raft, last)?;
        Violation::unless(Some(own) == self.committed.at(last), || {
            format!("the leader of term {} has something else than the committed entry {last}", raft.term())
        })
    }

    /// The configuration in force is the one that stands in the log, and what was cut off with its entry is forgotten.
    fn check_configuration(&self, raft: &Raft) -> Result<(), Violation> {
        let at = raft.configuration_index();
        if at <= raft.start().0 {
            return Ok(()); // It is in the snapshot, which was checked when it was read.
        }
        let is_there = match (raft.entry(at), raft.term_at(at)) {
            (Some(entry), _) => {
                matches!(&entry.payload, Payload::Config(new) if new == raft.configuration())
            }
            (None, Some(term)) => self.configurations.contains(&(at, term)),
            (None, None) => false,
        };
        Violation::unless(is_there, || {
            format!("the configuration in force stands at {at}, it is said, and there is something else")
        })
    }

    /// What the node believes to be durable of its log is what a power cut would leave.
    fn check_durable(&self, raft: &Raft, disk: &Durable) -> Result<(), Violation> {
        let durable = raft.durable_index();
        if durable < raft.start().0 {
            return Ok(()); // It goes over to another node's snapshot, and calls nothing durable before that is.
        }
        let believed = raft.term_at(durable);
        let held =
            if durable == Index(0) { Some(Term(0)) } else { disk.trail.at(durable).map(|step| step.term) };
        Violation::unless(believed.is_some() && believed == held, || {
            format!(
                "believed to be durable up to {durable} of term {believed:?}; on the disk, which ends at {}, that is \
                 of term {held:?}",
                disk.trail.last()
            )
        })
    }

    fn check_quorum(
        &self,
        raft: &Raft,
        index: Index,
        step: Step,
        disks: &BTreeMap<NodeId, Durable>,
    ) -> Result<(), Violation> {
        let configuration = raft
            .configuration_at(index)
            .ok_or_else(|| Violation(format!("{index} is committed before there is a configuration")))?;
        let holds = |id: NodeId| disks.get(&id).is_some_and(|disk| disk.trail.at(index) == Some(step));
        // A joint configuration that is committed is left at once: from then on the voters behind it decide also what stands
        // before the entry that leaves it.
        let is_quorum = configuration.is_quorum(holds) || raft.configuration().is_quorum(holds);
        Violation::unless(is_quorum, || {
            let on: Vec<NodeId> = configuration.voters().filter(|id| holds(*id)).collect();
            format!(
                "entry {index} of term {} is committed and durable on {} of {} only: {on:?}",
                step.term,
                on.len(),
                configuration.voters().count()
            )
        })
    }

    /// Nobody asks for votes in a term in which it had given up before this turn: a voter has only one to give, and the
    /// one who asks would not count it. `was` is what the node last said it was.
    pub(super) fn check_campaign(
        was: Option<(RoleKind, Term)>,
        envelope: &Envelope,
    ) -> Result<(), Violation> {
        let asks = matches!(envelope.message, Message::Vote { .. });
        Violation::unless(!asks || was != Some((RoleKind::Follower, envelope.term)), || {
            format!("{} asks for votes in term {}, which it had given up", envelope.from, envelope.term)
        })
    }

    /// No promise leaves before what it promises is durable.
    pub(super) fn check_promise(
        &mut self,
        raft: &Raft,
        disk: &Durable,
        envelope: &Envelope,
    ) -> Result<(), Violation> {
        let Envelope { to, term, message, .. } = envelope;
        let held = disk.hard_state;
        let is_question =
            matches!(message, Message::PreVote { .. } | Message::PreVoteReply { granted: true });
        Violation::unless(is_question || held.term >= *term, || {
            format!("a message of term {term} leaves while the disk is at term {}: {message:?}", held.term)
        })?;
        let vote = match message {
            Message::Vote { .. } => Some(raft.id()),
            Message::VoteReply { granted: true } => Some(*to),
            _ => None,
        };
        Violation::unless(vote.is_none() || held.term > *term || held.vote == vote, || {
            format!("a vote for {vote:?} in term {term} leaves while the disk says {:?}", held.vote)
        })?;
        if let Some(vote) = vote {
            let first = *self.votes.entry((*term, raft.id())).or_insert(vote);
            Violation::unless(first == vote, || {
                format!("two votes of {} in term {term}: for {first} and for {vote}", raft.id())
            })?;
        }
        if let Message::AppendReply { outcome: AppendOutcome::Accepted { durable }, .. } = message
            && *durable > Index(0)
        {
            let found = disk.trail.at(*durable).map(|step| step.term);
            // A message of an earlier term in the same turn speaks of the log as it was then. The entry may be
            // overwritten by now, but not yet on the disk. The disk is what was promised.
            // So it is where the node has gone over to another's snapshot since.
            let is_as_it_was = *term != raft.term() || *durable < raft.start().0;
            let promised = if is_as_it_was { found } else { raft.term_at(*durable) };
            Violation::unless(
                promised.is_some_and(|promised| promised <= *term) && promised == found,
                || {
                    format!(
                        "{durable} of term {promised:?} is called durable, the disk has term {found:?} there"
                    )
                },
            )?;
        }
        Ok(())
    }
}
