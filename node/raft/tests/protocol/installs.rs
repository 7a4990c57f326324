//! Snapshots that are not taken: what is wrong with them is told, and nothing has changed.

use crate::cluster::{Cluster, configuration};
use raftqueue_raft::{
    Alarm, CommittedLog, Configuration, Event, Index, Installed, NodeId, Output, Raft, Term,
};
use std::sync::Arc;

/// A follower of n1 whose log ends at 4, all of term 2 and committed, and the first three entries of it compacted.
fn follower() -> Raft {
    let mut cluster = Cluster::new(1);
    cluster.add_members(&[1, 2, 3], &[]);
    while cluster.leaders().is_empty() {
        cluster.run_tick();
    }
    let leader = cluster.leaders()[0];
    for _ in 0..2 {
        cluster
            .call(leader, |raft| raft.propose(raftqueue_raft::Payload::Noop))
            .expect("it lives")
            .expect("it leads");
    }
    (0..4).for_each(|_| cluster.run_tick());
    let follower = cluster.live().into_iter().find(|id| *id != leader).expect("there are three");
    cluster.compact(follower, Index(3), Index(3), true);
    cluster.nodes.get_mut(&follower).and_then(|node| node.raft.take()).expect("it is up")
}

fn snapshot(index: u64, term: u64, giver_term: u64) -> Installed {
    let members = Arc::new(configuration(&[1, 2, 3, 4], &[]));
    let configurations = vec![(Index(1), members)];
    Installed { index: Index(index), term: Term(term), configurations, giver_term: Term(giver_term) }
}

fn install(raft: &mut Raft, installed: Installed) -> Output {
    let before = (raft.start(), raft.commit(), raft.last_index(), raft.term());
    raft.step(Event::Installed(installed));
    let output = raft.take_output();
    assert_eq!(before, (raft.start(), raft.commit(), raft.last_index(), raft.term()));
    assert_eq!(*raft.configuration().voters().collect::<Vec<_>>(), [NodeId(1), NodeId(2), NodeId(3)]);
    assert!(output.installed.is_none() && output.write.is_none() && output.committed.is_none());
    output
}

#[test]
fn a_snapshot_that_has_no_more_than_is_committed_is_left() {
    for (index, term) in [(1, 1), (2, 7), (3, 2), (4, 2)] {
        assert_eq!(install(&mut follower(), snapshot(index, term, 9)).alarms, []);
    }
}

#[test]
fn a_snapshot_that_cannot_be_is_refused_by_name() {
    let without = |configurations| Installed { configurations, ..snapshot(9, 2, 2) };
    let members = || Arc::new(Configuration::default());
    for wrong in [
        // What is committed is something else.
        snapshot(3, 1, 2),
        snapshot(4, 1, 2),
        // From beyond all terms and indexes.
        snapshot(9, 3, 2),
        snapshot(9, 2, u64::MAX),
        snapshot(u64::MAX, 2, 2),
        // Its members are unknown, of a later index, or out of order.
        without(vec![]),
        without(vec![(Index(10), members())]),
        without(vec![(Index(2), members()), (Index(2), members())]),
    ] {
        let alarms = install(&mut follower(), wrong.clone()).alarms;
        let [Alarm::SnapshotRefused { index, term, .. }] = alarms[..] else {
            panic!("{wrong:?} is taken for honest: {alarms:?}")
        };
        assert_eq!((index, term), (wrong.index, wrong.term));
    }
}

#[test]
fn what_the_leader_has_shown_to_be_something_else_is_refused() {
    let mut raft = follower();
    let (from, to, term) = (raft.role_state().leader.expect("it follows"), raft.id(), raft.term());
    let entry = |index| raftqueue_raft::Entry { index, term, payload: raftqueue_raft::Payload::Noop };
    let (prev_index, prev_term) = (raft.last_index(), raft.term());
    let entries = vec![entry(prev_index.next())];
    let message = raftqueue_raft::Message::Append { prev_index, prev_term, entries, commit: Index(0) };
    let group = raftqueue_raft::GroupId(0);
    raft.step(Event::Arrived(raftqueue_raft::Envelope { from, to, group, term, message }));
    drop(raft.take_output());
    let output = {
        raft.step(Event::Installed(snapshot(prev_index.0 + 1, 1, term.0)));
        raft.take_output()
    };
    assert!(matches!(output.alarms[..], [Alarm::SnapshotRefused { .. }]) && output.installed.is_none());
}

/// A follower whose log has these terms from index 1 on, none of them known to be committed.
fn holding(terms: &[u64]) -> Raft {
    let entry = |(at, term): (usize, &u64)| raftqueue_raft::Entry {
        index: Index(at as u64 + 1),
        term: Term(*term),
        payload: match at {
            0 => raftqueue_raft::Payload::Config(Arc::new(configuration(&[1, 2, 3], &[]))),
            _ => raftqueue_raft::Payload::Noop,
        },
    };
    let entries = terms.iter().enumerate().map(entry).collect();
    let hard_state = raftqueue_raft::HardState { term: Term(*terms.last().expect("some")), vote: None };
    let disk = crate::disk::Disk::with(hard_state, entries);
    let settings = raftqueue_raft::Settings::new(NodeId(1), 1);
    Raft::new(settings, disk.recover())
}

fn told(last: u64, runs: &[(u64, u64)], giver_term: u64) -> CommittedLog {
    let term_runs = runs.iter().map(|(first, term)| (Index(*first), Term(*term))).collect();
    CommittedLog { last: Index(last), term_runs, giver_term: Term(giver_term) }
}

#[test]
fn what_agrees_with_a_committed_log_is_committed() {
    const TERMS: [u64; 7] = [1, 1, 2, 2, 2, 4, 4];
    for (last, runs, commit) in [
        // All of it, or as far as the other reaches.
        (90, &[(1, 1), (3, 2), (6, 4), (50, 9)][..], 7),
        (6, &[(1, 1), (3, 2), (6, 4)], 6),
        (4, &[(1, 1), (3, 2)], 4),
        // Behind a point the two are different: what stands here came to nothing.
        (90, &[(1, 1), (3, 2), (6, 5)], 5),
        (90, &[(1, 1), (3, 2), (5, 3)], 4),
        (90, &[(1, 1), (3, 3)], 2),
        (90, &[(1, 1), (2, 3)], 1),
        (90, &[(1, 1), (3, 2), (9, 7)], 5),
        // What came before is not told, so nothing is known where that matters.
        (90, &[(6, 4)], 7),
        (90, &[(6, 5)], 0),
    ] {
        let mut raft = holding(&TERMS);
        raft.step(Event::Committed(told(last, runs, 9)));
        let output = raft.take_output();
        assert_eq!((raft.commit(), output.alarms.as_slice()), (Index(commit), &[][..]), "{last} {runs:?}");
        assert_eq!(raft.term(), Term(9), "it was found committed in a later term");
    }
}

#[test]
fn a_committed_log_that_cannot_be_is_refused() {
    for (last, runs, giver_term) in [
        (9, &[][..], 9),
        (9, &[(0, 1)], 9),
        (9, &[(1, 2), (3, 1)], 9),
        (9, &[(3, 1), (1, 2)], 9),
        (9, &[(10, 1)], 9),
        (9, &[(1, 3)], 2),
        (9, &[(1, 1)], u64::MAX),
        (u64::MAX, &[(1, 1)], 9),
    ] {
        let mut raft = holding(&[1, 1]);
        raft.step(Event::Committed(told(last, runs, giver_term)));
        let alarms = raft.take_output().alarms;
        assert!(matches!(alarms[..], [Alarm::SnapshotRefused { .. }]), "{last} {runs:?}: {alarms:?}");
        assert_eq!((raft.commit(), raft.term()), (Index(0), Term(1)));
    }
}
