//! Messages that no honest node would send never panic a node, whatever state it is in. What they do to the cluster is
//! not judged: that peers are who they say is the business of the shell's handshake.

use crate::chaos::{Chaos, Dice};
use crate::cluster::{command, configuration};
use raftqueue_raft::{
    Alarm, AppendOutcome, CommittedLog, Entry, Envelope, Event, Found, GroupId, Index, Installed, LogSlice,
    Message, NodeId, Payload, Raft, Term,
};
use std::sync::Arc;

const SEEDS: u64 = 300;
const MESSAGES: usize = 400;

/// A number near something that matters, or far from everything.
fn some_number(dice: &mut Dice, near: u64) -> u64 {
    match dice.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => dice.next(),
        _ => near.saturating_add(dice.below(5)).saturating_sub(2),
    }
}

fn some_entries(dice: &mut Dice, prev: u64, term: u64) -> Vec<Entry> {
    let orderly = dice.chance(800);
    (1..=dice.below(5))
        .map(|step| {
            let index = if orderly { prev.wrapping_add(step) } else { some_number(dice, prev) };
            let term = if orderly { term } else { some_number(dice, term) };
            let payload = match dice.below(4) {
                0 => Payload::Noop,
                1 => {
                    Payload::Config(Arc::new(configuration(&[1, 2, 3, dice.below(9)], &[dice.below(9) + 10])))
                }
                2 => Payload::Config(Arc::default()),
                _ => command("x", 10),
            };
            Entry { index: Index(index), term: Term(term), payload }
        })
        .collect()
}

fn some_message(dice: &mut Dice, raft: &Raft) -> Message {
    let index = |dice: &mut Dice| Index(some_number(dice, raft.last_index().0));
    let term = |dice: &mut Dice| Term(some_number(dice, raft.term().0));
    match dice.below(10) {
        0 => Message::PreVote { last_index: index(dice), last_term: term(dice), replaying: dice.chance(500) },
        1 => Message::PreVoteReply { granted: dice.chance(500) },
        2 => Message::Vote { last_index: index(dice), last_term: term(dice), transfer: dice.chance(500) },
        3 => Message::VoteReply { granted: dice.chance(500) },
        4 => {
            let prev_index = index(dice);
            let honest = raft.term_at(prev_index).filter(|_| dice.chance(700));
            let prev_term = honest.unwrap_or_else(|| term(dice));
            let entries = some_entries(dice, prev_index.0, raft.term().0);
            Message::Append { prev_index, prev_term, entries, commit: index(dice) }
        }
        5 => {
            let outcome = if dice.chance(500) {
                AppendOutcome::Accepted { durable: index(dice) }
            } else {
                AppendOutcome::Rejected {
                    prev_index: index(dice),
                    hint_index: index(dice),
                    hint_term: term(dice),
                }
            };
            Message::AppendReply { outcome, disk_stalled: dice.chance(200) }
        }
        6 => Message::Heartbeat { commit: index(dice), round: some_number(dice, 3) },
        7 => Message::HeartbeatReply {
            round: some_number(dice, 3),
            received: index(dice),
            disk_stalled: dice.chance(200),
            replaying: dice.chance(200),
            incomplete: dice.chance(200),
        },
        8 => Message::Install { start: (index(dice), term(dice)) },
        _ => Message::TimeoutNow,
    }
}

fn some_snapshot(dice: &mut Dice, raft: &Raft) -> Installed {
    let index = Index(some_number(dice, raft.last_index().0));
    let honest = raft.term_at(index).filter(|_| dice.chance(700));
    let term = honest.unwrap_or_else(|| Term(some_number(dice, raft.term().0)));
    let members = |dice: &mut Dice| Arc::new(configuration(&[1, 2, 3, dice.below(9)], &[]));
    let count = dice.below(3);
    let configurations = (0..count).map(|_| (Index(some_number(dice, index.0)), members(dice))).collect();
    let giver_term = if dice.chance(700) { raft.term().max(term) } else { Term(some_number(dice, term.0)) };
    Installed { index, term, configurations, giver_term }
}

fn some_committed_log(dice: &mut Dice, raft: &Raft) -> CommittedLog {
    let last = Index(some_number(dice, raft.last_index().0));
    // What it holds may be told, or be made up: but nothing may contradict what is committed.
    let mut term_runs: Vec<_> =
        raft.term_runs().iter().copied().filter(|(first, _)| *first <= last).collect();
    if dice.chance(500) {
        term_runs.push((Index(some_number(dice, last.0)), Term(some_number(dice, raft.term().0))));
    }
    let giver_term = if dice.chance(700) { raft.term() } else { Term(some_number(dice, raft.term().0)) };
    CommittedLog { last, term_runs, giver_term }
}

/// Steps one node of a cluster in the middle of its life with whatever comes; its disk works, its clock ticks.
fn abuse(seed: u64) {
    let mut chaos = Chaos::new(seed, 3);
    chaos.rage(200);
    let mut dice = Dice::new(seed ^ 0xABCD);
    let Some(id) = chaos.cluster.live().first().copied() else { return };
    let node = chaos.cluster.nodes.get_mut(&id).expect("it is live");
    let mut raft = node.raft.take().expect("it is live");
    let mut write = node.write.take();
    for _ in 0..MESSAGES {
        let event = match dice.below(14) {
            0 => Event::Tick,
            1 => Event::PeerGone(NodeId(dice.below(6))),
            2 => Event::DiskStalled(dice.chance(300)),
            12 if dice.chance(300) => Event::Committed(some_committed_log(&mut dice, &raft)),
            12 => Event::Installed(some_snapshot(&mut dice, &raft)),
            13 => match raft.snapshot_up_to().filter(|_| dice.chance(300)) {
                Some(to) => Event::Compacted { to },
                None if dice.chance(300) => Event::Damaged(dice.chance(100)),
                None => Event::Incomplete(dice.chance(100)),
            },
            3 => {
                let from = some_number(&mut dice, raft.last_index().0);
                let entries = some_entries(&mut dice, from.wrapping_sub(1), raft.term().0);
                let found = match dice.below(5) {
                    0 => Found::Unreadable,
                    1 => Found::Released,
                    _ => Found::Entries(entries),
                };
                Event::Loaded(LogSlice { to: NodeId(dice.below(6)), from: Index(from), found })
            }
            _ => {
                let message = some_message(&mut dice, &raft);
                let term =
                    if dice.chance(800) { raft.term() } else { Term(some_number(&mut dice, raft.term().0)) };
                let (from, to) =
                    (NodeId(dice.below(6)), if dice.chance(950) { id } else { NodeId(dice.below(6)) });
                Event::Arrived(Envelope {
                    from,
                    to,
                    group: GroupId(u32::from(dice.chance(20))),
                    term,
                    message,
                })
            }
        };
        raft.step(event);
        if raft.is_leader() && dice.chance(200) {
            let _ = raft.propose(command("y", 5));
            let _ = raft.read();
        }
        let output = raft.take_output();
        write = output.write.or(write);
        if let Some(commit) = output.committed {
            raft.step(Event::Applied(commit));
        }
        if dice.chance(500)
            && let Some(write) = write.take()
        {
            let receipt = write.persist(|_| Ok::<_, ()>(())).expect("this store does not fail");
            raft.step(Event::Persisted(receipt));
        }
    }
}

#[test]
fn hostile_messages_never_panic() {
    (0..SEEDS).for_each(abuse);
}

#[test]
fn what_contradicts_itself_is_reported_and_changes_nothing() {
    let mut chaos = Chaos::new(1, 3);
    let mut raft =
        chaos.cluster.nodes.get_mut(&NodeId(1)).and_then(|node| node.raft.take()).expect("it is up");
    let from = NodeId(2);
    let entry = |index, term| Entry { index: Index(index), term: Term(term), payload: Payload::Noop };
    let append =
        |entries| Message::Append { prev_index: Index(1), prev_term: Term(1), entries, commit: Index(9) };
    for (term, message) in [
        (1, append(vec![entry(3, 1)])),
        (1, append(vec![entry(2, 2)])),
        (2, append(vec![entry(2, 2), entry(3, 1)])),
        (2, append(vec![entry(u64::MAX, 2)])),
        (u64::MAX, Message::Heartbeat { commit: Index(0), round: 0 }),
        (u64::MAX / 2 + 1, Message::TimeoutNow),
    ] {
        raft.step(Event::Arrived(Envelope {
            from,
            to: NodeId(1),
            group: GroupId(0),
            term: Term(term),
            message,
        }));
        let output = raft.take_output();
        assert_eq!(output.alarms, [Alarm::Malformed { from }]);
        assert_eq!((raft.last_index(), raft.commit()), (Index(1), Index(0)));
        assert!(raft.term() <= Term(2));
    }
}
