//! What must hold whatever happens. Every check compares what nodes say with what their disks hold at that moment. So a
//! promise that leaves before its sync is seen when it leaves, not when it is broken.

use crate::disk::Disk;
use raftqueue_raft::{
    AppendOutcome, Configuration, Entry, Envelope, HardState, Index, Message, NodeId, Output, Payload, Raft,
    ReadId, RoleKind, Term,
};
use std::collections::BTreeMap;

/// Remembers what was ever true of the cluster. Every violation is a panic that names it.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    leaders: BTreeMap<Term, NodeId>,
    /// Every entry ever seen, with the term of the one before it: two logs that hold the same one agree up to there.
    entries: BTreeMap<(Index, Term), (Term, Payload)>,
    /// What is committed, from index 1 on.
    committed: Vec<Entry>,
    /// The term of the leader that committed it.
    committed_in: Vec<Term>,
    /// Where each read that is not answered must at least be answered.
    reads: BTreeMap<(NodeId, ReadId), Index>,
}

/// A node as the checker sees it.
pub(crate) struct Observed<'a> {
    /// Its id.
    pub(crate) id: NodeId,
    /// The core.
    pub(crate) raft: &'a Raft,
    /// What it has applied.
    pub(crate) applied: Index,
}

impl Checker {
    /// The greatest index ever reported committed.
    pub(crate) fn committed(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    /// The committed entries, from index 1 on.
    pub(crate) fn committed_entries(&self) -> &[Entry] {
        &self.committed
    }

    /// An entry was seen behind one of `prev_term`.
    pub(crate) fn saw_entry(&mut self, prev_term: Term, entry: &Entry) {
        let seen = self
            .entries
            .entry((entry.index, entry.term))
            .or_insert_with(|| (prev_term, entry.payload.clone()));
        assert!(
            seen.0 == prev_term && seen.1 == entry.payload,
            "logs do not match: entry {} of term {} is {:?} after term {} and {:?} after term {}",
            entry.index,
            entry.term,
            seen.1,
            seen.0,
            entry.payload,
            prev_term,
        );
    }

    /// A log as a whole was seen, behind an entry of `prev_term`.
    pub(crate) fn saw_log(&mut self, mut prev_term: Term, entries: &[Entry]) {
        for entry in entries {
            self.saw_entry(prev_term, entry);
            prev_term = entry.term;
        }
    }

    /// A read was asked for: its answer must cover everything acknowledged by now.
    pub(crate) fn asked(&mut self, id: NodeId, read: ReadId) {
        self.reads.insert((id, read), self.committed());
    }

    /// A node crashed: its open reads are never answered.
    pub(crate) fn crashed(&mut self, id: NodeId) {
        self.reads.retain(|(node, _), _| *node != id);
    }

    /// Reads that wait for an answer.
    pub(crate) fn open_reads(&self) -> usize {
        self.reads.len()
    }

    /// Checks one output of a node against the disks as they are before its write is stored.
    pub(crate) fn output(&mut self, node: &Observed, disks: &BTreeMap<NodeId, Disk>, output: &Output) {
        assert!(output.alarms.is_empty(), "an alarm among honest nodes: {:?}", output.alarms);
        let disk = &disks[&node.id];
        if node.raft.is_leader() {
            self.leads(node);
        }
        for envelope in &output.send {
            self.promise(disk, node.raft, envelope);
        }
        if let Some((index, term)) = output.installed {
            let known = self.committed.get(index.0 as usize - 1).map(|entry| entry.term);
            assert_eq!(known, Some(term), "node {} begins behind {index}, which is not committed", node.id);
            assert!(index > node.applied, "the commit index goes back to {index}");
        }
        if let Some(commit) = output.committed {
            self.commits(node, disks, commit);
        }
        for (read, answer) in &output.reads {
            let asked = self.reads.remove(&(node.id, *read)).expect("every read is answered once");
            if let Ok(index) = answer {
                assert!(
                    *index >= asked,
                    "stale read: node {} answers at {index}, {asked} was acknowledged before",
                    node.id
                );
            }
        }
        if let Some(role) = output.role {
            assert_eq!(role.role == RoleKind::Leader, node.raft.is_leader());
        }
    }

    fn leads(&mut self, node: &Observed) {
        let term = node.raft.term();
        if self.leaders.get(&term) == Some(&node.id) {
            return;
        }
        let first = self.leaders.insert(term, node.id);
        assert!(first.is_none(), "two leaders in term {term}: {} and {}", first.expect("just seen"), node.id);
        let is_kept = |entry: &Entry| entry.index >= node.raft.start().0;
        let committed = self.committed.iter().zip(&self.committed_in);
        for (entry, _) in committed.filter(|(entry, by)| **by < term && is_kept(entry)) {
            assert_eq!(
                node.raft.term_at(entry.index),
                Some(entry.term),
                "leader {} of term {term} lacks committed entry {}",
                node.id,
                entry.index
            );
        }
    }

    /// Whatever leaves must be true of the disk already.
    fn promise(&mut self, disk: &Disk, raft: &Raft, envelope: &Envelope) {
        let Envelope { from, to, term, .. } = envelope;
        let hard_state = disk.hard_state();
        match &envelope.message {
            Message::PreVote { .. } | Message::PreVoteReply { granted: true } => return,
            Message::Vote { .. } => assert_eq!(
                hard_state,
                HardState { term: *term, vote: Some(*from) },
                "node {from} asks for votes before its own is durable"
            ),
            Message::VoteReply { granted: true } => assert_eq!(
                hard_state,
                HardState { term: *term, vote: Some(*to) },
                "node {from} grants a vote before it is durable"
            ),
            Message::AppendReply { outcome: AppendOutcome::Accepted { durable }, .. } => {
                assert!(
                    disk.last() >= *durable && disk.term_at(*durable) == raft.term_at(*durable),
                    "node {from} says that {durable} is durable; its disk ends at {}",
                    disk.last()
                );
            }
            Message::Append { prev_term, entries, .. } => {
                let mut prev_term = *prev_term;
                for entry in entries {
                    self.saw_entry(prev_term, entry);
                    prev_term = entry.term;
                }
            }
            _ => {}
        }
        assert!(
            hard_state.term >= *term,
            "node {from} speaks in term {term}, its disk knows only {}: {:?}",
            hard_state.term,
            envelope.message
        );
    }

    fn commits(&mut self, node: &Observed, disks: &BTreeMap<NodeId, Disk>, commit: Index) {
        assert!(commit > node.applied, "the commit index goes back");
        assert!(commit <= node.raft.last_index(), "commits {commit} beyond the end of the log");
        let holds = |peer: NodeId, entry: &Entry| {
            disks.get(&peer).is_some_and(|disk| {
                disk.term_at(entry.index) == Some(entry.term) || entry.index < disk.start().0
            })
        };
        let is_durable =
            |configuration: &Configuration, entry: &Entry| configuration.is_quorum(|peer| holds(peer, entry));
        for index in node.applied.0 + 1..=commit.0 {
            let index = Index(index);
            let entry = node
                .raft
                .entry(index)
                .or_else(|| disks[&node.id].entry(index))
                .expect("a committed entry is in memory or on disk");
            assert_eq!(node.raft.term_at(index), Some(entry.term), "the disk holds another entry {index}");
            if let Some(known) = self.committed.get(index.0 as usize - 1) {
                assert_eq!(known, entry, "node {} commits something else at {index}", node.id);
                continue;
            }
            assert_eq!(
                node.raft.term_at(commit),
                Some(node.raft.term()),
                "node {} commits {commit} by counting, which is not of its own term",
                node.id
            );
            assert!(
                is_durable(node.raft.configuration(), entry),
                "node {} commits {index}, which is not durable on a quorum",
                node.id
            );
            if let Payload::Config(configuration) = &entry.payload {
                assert!(
                    is_durable(configuration, entry),
                    "configuration {index} commits without its own quorum"
                );
            }
            self.committed.push(entry.clone());
            self.committed_in.push(node.raft.term());
        }
    }
}
