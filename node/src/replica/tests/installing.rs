//! When a snapshot is taken, and when that of another node takes its place.

use super::*;
use crate::replica::{Arrived, Freeze};
use raftqueue_queue::State;

impl Alone {
    /// Leads with a message that is applied and durable, and has taken no snapshot of it.
    fn with_a_message() -> Self {
        let mut alone = Self::leading();
        alone.create(0, "t", TopicOptions::default());
        assert!(alone.ask(1, publish("t", 1, b"x")).is_ok());
        assert!(alone.frozen.is_none());
        alone
    }

    /// Holds another message, published by call 2, and leads no more before it knows that this one counts.
    fn with_an_entry_of_unknown_end() -> Self {
        let mut alone = Self::with_a_message();
        alone.hangs = true;
        alone.call(2, publish("t", 1, b"y"), 60_000);
        alone.perform();
        alone.follows();
        alone.hangs = false;
        let hung = alone.hung.take().expect("the entry is being written");
        alone.handle(Event::Persisted(hung));
        alone.perform();
        alone
    }

    /// Another node's snapshot is here: of an empty queue, so far beyond what is applied here. Its log tells nothing of this
    /// node's.
    fn arrives(&mut self, beyond: u64) -> Index {
        let index = Index(self.replica.applied().0 + beyond);
        let term = self.replica.raft().term();
        self.arrives_with(index, vec![(index, term)])
    }

    /// It is of this index, and its terms begin there.
    fn arrives_with(&mut self, index: Index, term_runs: Vec<(Index, Term)>) -> Index {
        let giver_term = self.replica.raft().term();
        let term = self.replica.raft().term_at(index).unwrap_or(giver_term);
        let (configuration_index, configuration) = self.replica.configuration.clone();
        let state = State::default();
        let freeze = Freeze { index, term, configuration_index, configuration, term_runs, state };
        self.handle(Event::Installed(Box::new(Arrived { freeze, giver_term })));
        self.perform();
        index
    }

    /// The snapshot that was frozen counts.
    fn taken(&mut self) {
        assert!(self.frozen.take().is_some());
        self.handle(Event::SnapshotTaken { start: (Index(0), Term(0)) });
        self.perform();
    }

    /// Another node leads from now on.
    fn follows(&mut self) {
        self.hear(1, Message::Heartbeat { commit: Index(0), round: 1 });
        self.perform();
        assert!(!self.replica.raft().is_leader());
    }
}

#[test]
fn rule_3_1_no_snapshot_is_taken_while_the_term_is_not_durable() {
    let mut alone = Alone::with_a_message();
    alone.hangs = true;
    alone.follows();
    alone.replica.settings.snapshots.bytes = 1;
    (0..3).for_each(|_| alone.tick());
    assert!(alone.frozen.is_none(), "its term is not on the disk");
    alone.hangs = false;
    let hung = alone.hung.take().expect("the term is being written");
    alone.handle(Event::Persisted(hung));
    alone.perform();
    assert_eq!(alone.frozen.as_ref().map(|freeze| freeze.index), Some(alone.replica.applied()));
}

#[test]
fn rule_3_4_what_arrived_waits_for_a_snapshot_of_everything_applied_here() {
    let mut alone = Alone::with_a_message();
    alone.follows();
    let applied = alone.replica.applied();
    let index = alone.arrives(100);
    assert_eq!(alone.frozen.as_ref().map(|freeze| freeze.index), Some(applied));
    assert!(alone.judged.is_empty());
    // It is given up, so another one is taken after a while.
    alone.frozen = None;
    alone.handle(Event::SnapshotFailed);
    for _ in 0..200 {
        alone.hear(0, Message::Heartbeat { commit: Index(0), round: 1 });
        alone.tick();
    }
    assert!(alone.judged.is_empty());
    alone.taken();
    assert_eq!(alone.judged, [Some(index)]);
    assert_eq!((alone.replica.applied(), alone.replica.snapshot_index()), (index, index));
    assert_eq!(alone.replica.state().topics().count(), 0);
    assert_eq!(alone.left, 1, "the state before goes where nobody waits");
    assert_eq!(alone.resets, [index]);
}

#[test]
fn rule_3_4_a_call_that_was_passed_over_is_of_unknown_outcome() {
    let mut alone = Alone::with_an_entry_of_unknown_end();
    alone.arrives(100);
    assert!(!alone.answers.contains_key(&CallId(2)));
    alone.taken();
    let answer = alone.answers.remove(&CallId(2)).expect("it is answered at once");
    assert!(answer.is_err_and(|failure| failure.outcome == Outcome::Unknown));
    assert_eq!(alone.replica.outstanding().calls, 0);
}

#[test]
fn rule_3_4_a_snapshot_that_is_refused_leaves_nothing_behind() {
    let mut alone = Alone::with_a_message();
    alone.follows();
    let applied = alone.replica.applied();
    alone.arrives(0);
    alone.taken();
    assert_eq!(alone.judged, [None]);
    assert!(alone.replica.arrived.is_none() && alone.replica.arrival.is_none());
    assert_eq!((alone.left, alone.replica.applied()), (1, applied));
    assert!(!alone.replica.is_incomplete() && alone.resets.is_empty());
}

#[test]
fn rule_3_4_a_node_is_incomplete_until_nothing_is_missing_of_what_it_went_over_to() {
    let mut alone = Alone::with_a_message();
    alone.follows();
    let index = alone.arrives(100);
    alone.taken();
    assert!(alone.replica.is_incomplete());
    alone.handle(Event::Complete(index.prev()));
    alone.perform();
    assert!(alone.replica.is_incomplete(), "that was found for an earlier state");
    assert!(alone.frozen.is_some(), "its keeper has to do, so another round begins");
    alone.taken();
    alone.handle(Event::Complete(index));
    alone.perform();
    assert!(!alone.replica.is_incomplete());
    (0..300).for_each(|_| alone.tick());
    assert!(alone.frozen.is_none());
}

#[test]
fn a_node_that_does_not_know_where_messages_stand_is_incomplete_until_they_are_here() {
    let mut alone = Alone::with_a_message();
    let index = alone.replica.applied();
    alone.handle(Event::Incomplete(index));
    alone.perform();
    assert!(alone.replica.is_incomplete());
    alone.handle(Event::Complete(index.prev()));
    alone.perform();
    assert!(alone.replica.is_incomplete(), "that was found for an earlier state");
    alone.handle(Event::Complete(index));
    alone.perform();
    assert!(!alone.replica.is_incomplete());
}

#[test]
fn rule_3_4_a_node_does_not_wait_for_what_is_lost() {
    let mut alone = Alone::with_a_message();
    let index = alone.replica.applied();
    alone.handle(Event::Incomplete(index));
    alone.handle(Event::Lost { index: index.prev(), count: 7 });
    alone.perform();
    assert!(alone.replica.is_incomplete(), "that was found for an earlier state");
    alone.handle(Event::Lost { index, count: 7 });
    alone.perform();
    assert!(!alone.replica.is_incomplete() && !alone.replica.raft().status().incomplete);
    assert_eq!(alone.replica.lost(), 7);
    // Something else is lacking now, which others may have.
    alone.handle(Event::Incomplete(index));
    alone.perform();
    assert!(alone.replica.is_incomplete() && alone.replica.raft().status().incomplete);
    assert_eq!(alone.replica.lost(), 0);
    alone.handle(Event::Lost { index, count: 7 });
    alone.handle(Event::Complete(index));
    alone.perform();
    assert_eq!((alone.replica.is_incomplete(), alone.replica.lost()), (false, 0));
}

#[test]
fn rule_3_4_a_node_that_lacks_messages_gives_no_snapshot_unless_it_leads_and_nobody_else_can() {
    let mut alone = Alone::with_a_message();
    assert!(alone.replica.gives_snapshot());
    alone.handle(Event::Incomplete(alone.replica.applied()));
    alone.perform();
    assert!(alone.replica.gives_snapshot(), "it leads, and there is nobody else");
    alone.follows();
    assert!(!alone.replica.gives_snapshot());
}

#[test]
fn rule_3_4_what_counts_of_the_log_is_applied_before_the_node_goes_over() {
    let mut alone = Alone::with_an_entry_of_unknown_end();
    let (applied, last) = (alone.replica.applied(), alone.replica.raft().last_index());
    assert_eq!(last, applied.next());
    let mut term_runs = alone.replica.raft().term_runs().to_vec();
    term_runs.retain(|(first, _)| *first > Index(0));
    let index = alone.arrives_with(Index(last.0 + 100), term_runs);
    assert_eq!(alone.replica.applied(), last, "the snapshot's terms tell that it counts");
    alone.tick();
    assert_eq!(alone.frozen.as_ref().map(|freeze| freeze.index), Some(last), "and its bodies are kept");
    assert!(alone.judged.is_empty());
    alone.taken();
    assert_eq!(alone.judged, [Some(index)]);
}

#[test]
fn rule_3_5_a_node_without_a_state_applies_nothing_and_takes_over_the_first_that_reaches_its_log() {
    let member = |id| {
        let kind = MemberKind::Voter;
        (NodeId(id), Member { name: format!("n{id}"), address: String::new(), kind })
    };
    let members = [OWN.0, 8, 9].map(member).into();
    let configuration = Arc::new(Configuration { members, version: 1, ..Configuration::default() });
    // Its log begins behind index 3, and the snapshot that it went on from is lost.
    let mut lost = Alone::recovered(raft::Recovered {
        hard_state: HardState { term: Term(4), vote: None },
        start: (Index(3), Term(2)),
        applied: Index(3),
        last_index: Index(5),
        term_runs: vec![(Index(4), Term(2)), (Index(5), Term(3))],
        configurations: vec![(Index(1), Arc::clone(&configuration))],
    });
    let noop = |index, term| Entry { index: Index(index), term: Term(term), payload: Payload::Noop };
    lost.entries = vec![noop(4, 2), noop(5, 3)];
    lost.replica.begins_without_state();
    lost.replica.configuration = (Index(1), configuration);
    assert!(lost.replica.is_stateless() && lost.replica.is_incomplete());
    (0..1_000).for_each(|_| lost.tick());
    assert_eq!(lost.wanted, Some(Index(3)), "any state that its log follows");
    assert_eq!(lost.replica.raft().term(), Term(4), "it campaigns neither soon nor when nobody else does");
    let mut said = lost.replica.recovery(0, |_| false);
    assert!(said.refusal.take().is_some_and(|why| why.contains("snapshots are lost")), "{said:?}");

    // It takes entries and hears that they count. Nothing of it is applied to an empty queue, nor made a snapshot of.
    let entries = vec![noop(6, 4)];
    lost.hear(0, Message::Append { prev_index: Index(5), prev_term: Term(3), entries, commit: Index(6) });
    lost.perform();
    assert_eq!((lost.replica.raft().commit(), lost.replica.raft().durable_index()), (Index(6), Index(6)));
    lost.handle(Event::SnapshotWanted);
    (0..1_000).for_each(|_| lost.tick());
    assert_eq!((lost.replica.applied(), lost.frozen.is_none()), (Index(0), true));

    // A state from before its log could not be followed up.
    lost.arrives_with(Index(2), vec![(Index(1), Term(2))]);
    assert_eq!((&lost.judged[..], lost.replica.is_stateless()), (&[None][..], true));
    // One of the very index where its log begins is followed up by all of that.
    lost.arrives_with(Index(3), vec![(Index(1), Term(2))]);
    assert_eq!(lost.judged, [None, Some(Index(3))]);
    assert_eq!((lost.replica.applied(), lost.replica.is_stateless()), (Index(6), false));
    assert!(lost.replica.is_incomplete(), "until nothing is missing of what it went over to");
}
