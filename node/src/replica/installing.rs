//! A snapshot of another node takes the place of this node's own state.
//!
//! The leader says that it no longer has what this node lacks ([`Actions::install`](super::Actions::install)). The shell gets
//! a snapshot from any node that has it, whole and aside, and hands it over ([`Event::Installed`](super::Event::Installed)).
//! The protocol decides whether it is taken. If it is, the state is the snapshot's at once; on the disk it becomes this
//! node's own with the next write, and nothing is acknowledged before (RULES 3.4).
//!
//! Bodies come after it. A node that lacks some is *incomplete*: it does not campaign, and its keeper gets them from others.

use super::{Freeze, Replica};
use crate::api::{Failure, MessageId, MessageRef, Reason};
use bytes::Bytes;
use raftqueue_queue::{Candidate, TopicId};
use raftqueue_raft::{Entry, Event as RaftEvent, Index, Install, Installed, Term};
use std::ops::Range;

/// A snapshot of another node, whole.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// What it has.
    pub freeze: Freeze,
    /// The term that its giver was in when it gave it.
    pub giver_term: Term,
}

/// What another node says of a record of the log that does not verify here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Here it is.
    Record(Entry),
    /// Its log begins behind it: what it said is in its snapshots.
    Cut,
    /// It has no such record, or cannot read it either.
    Unknown,
}

/// A message as another node gives it: as it stands in a kept file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its offset.
    pub offset: u64,
    /// When it was published, in log time.
    pub published_ms: u64,
    /// When it expires, in log time.
    pub deadline_ms: Option<u64>,
    /// CRC32C of the record.
    pub crc: u32,
    /// Its record: body, key and headers.
    pub record: Bytes,
}

impl Given {
    /// What a receive must know of it.
    #[must_use]
    pub fn candidate(&self) -> Candidate {
        let size = u32::try_from(self.record.len()).unwrap_or(u32::MAX);
        Candidate { offset: self.offset, size, deadline_ms: self.deadline_ms }
    }
}

/// What another node gives of the messages that it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gift {
    /// Messages in the order of their offsets.
    pub messages: Vec<Given>,
    /// Everything that was asked for before this offset is given here, or was removed meanwhile, or cannot be read there.
    pub through: u64,
    /// Some of it had been removed at the giver, which had applied this much by then.
    pub gone_at: Option<Index>,
    /// How many of it the giver cannot read.
    pub unreadable: u64,
}

/// Messages that another node lacks, as this one knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Living {
    /// Those that live.
    pub messages: Vec<MessageRef>,
    /// Everything that was asked for before this offset was looked at.
    pub through: u64,
    /// Some of it lives no more, as of this index.
    pub gone_at: Option<Index>,
}

impl Living {
    /// What of it could be read, as an answer to who asked.
    #[must_use]
    pub fn answer(&self, read: Gift) -> Gift {
        Gift { through: read.through.min(self.through), gone_at: self.gone_at, ..read }
    }
}

impl Replica {
    /// Another node lacks messages of a topic: ranges of offsets, rising. Which of them live here, `count_max` at most.
    #[must_use]
    pub fn living(&self, topic: TopicId, wanted: &[Range<u64>], count_max: usize) -> Living {
        let generation = |offset| self.state.topic(topic)?.generation_of(offset);
        let message = |offset| MessageRef {
            id: MessageId {
                generation: generation(offset).map_or(0, |generation| generation.0),
                topic: topic.0,
                offset,
            },
            token: 0,
            attempts: 0,
            deadline_ms: 0,
            reason: String::new(),
        };
        let mut living = Living::default();
        let mut is_some_gone = false;
        for range in wanted {
            living.through = range.start;
            while living.through < range.end && living.messages.len() < count_max {
                let run = self.state.live_runs(topic, living.through..range.end).next();
                let run = run.unwrap_or(range.end..range.end);
                is_some_gone |= run.start > living.through;
                let room = (count_max - living.messages.len()) as u64;
                let end = run.end.min(run.start.saturating_add(room));
                living.messages.extend((run.start..end).map(message));
                living.through = end;
            }
            if living.messages.len() >= count_max {
                break;
            }
        }
        living.gone_at = is_some_gone.then_some(self.applied);
        living
    }

    /// A snapshot is here. Of the last entries in this node's log it tells which are committed: they are applied before the
    /// log goes.
    pub(super) fn on_arrived(&mut self, arrived: Arrived) {
        self.raft.step(RaftEvent::Committed(arrived.freeze.committed_log(arrived.giver_term)));
        self.arrival = Some(arrived);
    }

    /// What this node has applied is put into a snapshot of its own before another's is taken: with that go places files, so
    /// that the messages in its log stay readable although the log goes (RULES 3.4). Else each node that goes over would leave
    /// it to the others to keep what it had acknowledged.
    pub(super) fn judge_arrival(&mut self) {
        if self.arrival.is_none() {
            return;
        }
        let goes_on = self.applied < self.raft.commit() && self.cut_at.is_none_or(|at| at <= self.applied);
        // Without a state nothing is applied here, and nothing could be put into a snapshot.
        if !self.is_stateless && (goes_on || !self.snapshots.is_up_to(self.applied)) {
            return;
        }
        let Some(Arrived { freeze, giver_term }) = self.arrival.take() else { return };
        let (index, term) = (freeze.index, freeze.term);
        let configurations = vec![(freeze.configuration_index, freeze.configuration.clone())];
        self.arrived = Some(freeze);
        self.raft.step(RaftEvent::Installed(Installed { index, term, configurations, giver_term }));
        self.actions.is_arrival_judged = true;
    }

    /// An entry cannot be read here, and other nodes have it in their snapshots only. One that was not applied yet is had
    /// with such a snapshot.
    pub(super) fn on_cut(&mut self, index: Index) {
        if index <= self.applied || index > self.raft.last_index() {
            return;
        }
        self.cut_at = Some(index);
        let leader = self.raft.role_state().leader.unwrap_or(self.raft.id());
        let term = self.raft.term_at(index).unwrap_or_default();
        self.actions.install = Some(Install { leader, start: (index, term) });
    }

    /// What arrived and was not taken over goes.
    pub(super) fn leave_refused(&mut self) {
        if let Some(freeze) = self.arrived.take() {
            self.actions.left = Some(freeze.state);
        }
    }

    /// The snapshot that arrived is taken: from here on this node has applied what it has.
    pub(super) fn take_over(&mut self, index: Index) {
        let freeze = self.arrived.take().expect("the protocol takes only what arrived");
        assert_eq!(freeze.index, index, "the protocol takes what arrived last");
        self.actions.left = Some(std::mem::replace(&mut self.state, freeze.state));
        self.applied = index;
        self.configuration = (freeze.configuration_index, freeze.configuration);
        self.term_runs = freeze.term_runs;
        self.loaded.clear();
        self.clock.passed(self.state.now_ms(), self.now);
        self.snapshots.installed(index, &self.state);
        self.actions.installed = Some(index);
        // Whether they were applied is in the snapshot, and cannot be told from it.
        let passed = self.proposed.extract_if(.., |(at, _), _| *at <= index);
        let calls: Vec<_> = passed.flat_map(|(_, proposed)| proposed.calls).flatten().collect();
        for id in calls {
            if self.calls.contains_key(&id) {
                let text =
                    "this node fell behind and went over to a snapshot before it saw what became of the call";
                self.answer(id, Err(Failure::unknown(Reason::NoLeader, text)));
            }
        }
        self.leave_changes();
        self.begins_incomplete();
        if std::mem::take(&mut self.is_stateless) {
            self.raft.step(RaftEvent::Stateless(false));
        }
    }

    /// No snapshot of this node can be read, and its log begins behind the first entry. So it has no state, but all that it
    /// promised: it votes by its log and takes entries. It applies none and leads nobody, until it has taken over the state
    /// of another node, as of any index from the beginning of its log on (RULES 3.5).
    pub fn begins_without_state(&mut self) {
        self.is_stateless = true;
        self.raft.step(RaftEvent::Stateless(true));
        self.begins_incomplete();
    }

    /// Whether this node waits for the state of another one, since its own is lost.
    #[must_use]
    pub fn is_stateless(&self) -> bool {
        self.is_stateless
    }

    /// Without a state one is asked for until it is here.
    pub(super) fn want_state(&mut self) {
        if self.is_stateless && self.arrival.is_none() && self.arrived.is_none() {
            let leader = self.raft.role_state().leader.unwrap_or(self.raft.id());
            self.actions.install = Some(Install { leader, start: self.raft.start() });
        }
    }

    /// This node may lack messages that its state holds: it has gone over to another's snapshot, now or before it started.
    pub fn begins_incomplete(&mut self) {
        self.set_incomplete(Some(self.applied));
    }

    /// Records of this node's log do not verify: found before it started.
    pub fn begins_damaged(&mut self) {
        self.raft.step(RaftEvent::Damaged(true));
    }

    /// Whether messages may be lacking here that another node may have.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.incomplete_since.is_some() && self.lost == 0
    }

    /// Messages that are lacking here, and that no member of the cluster has.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether this node gives its snapshot to one whose log ends before the others' begin. One that lacks messages lets
    /// others do it; where nobody else can, it does, or the two would wait for each other (RULES 3.4).
    #[must_use]
    pub fn gives_snapshot(&self) -> bool {
        !self.is_incomplete() || self.raft.is_last_to_give()
    }

    /// Nothing is lacking that lived at an index. What was found so for an earlier state than that of the last snapshot
    /// that came says nothing.
    pub(super) fn on_complete(&mut self, index: Index) {
        if self.incomplete_since.is_some_and(|since| since <= index) {
            self.set_incomplete(None);
        }
    }

    /// What is lacking is lost. The node does not wait for it any more, but it asks again now and then.
    pub(super) fn on_lost(&mut self, index: Index, count: u64) {
        if self.incomplete_since.is_some_and(|since| since <= index) {
            self.lost = count;
            self.raft.step(RaftEvent::Incomplete(false));
        }
    }

    /// It is not known where messages stand that live at an index.
    pub(super) fn on_incomplete(&mut self, index: Index) {
        self.set_incomplete(self.incomplete_since.max(Some(index)));
    }

    fn set_incomplete(&mut self, since: Option<Index>) {
        (self.incomplete_since, self.lost) = (since, 0);
        self.snapshots.set_incomplete(since.is_some());
        self.raft.step(RaftEvent::Incomplete(since.is_some()));
    }
}
