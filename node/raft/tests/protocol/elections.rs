//! Elections as tables: who wins, who may have a vote, and how the timeouts spread.

use crate::cluster::configuration;
use raftqueue_raft::{
    Envelope, Event, GroupId, HardState, Index, Message, NodeId, Raft, Recovered, RoleKind, Settings, Term,
    Write,
};
use std::sync::Arc;

/// Node 1 of `voters`, with entry 1 and a log that ends with `last` in `term`.
fn node(voters: u64, last: u64, term: u64, seed: u64) -> Raft {
    let ids: Vec<_> = (1..=voters).collect();
    let runs = if last > 1 && term > 1 {
        vec![(Index(1), Term(1)), (Index(2), Term(term))]
    } else {
        vec![(Index(1), Term(1))]
    };
    let recovered = Recovered {
        hard_state: HardState { term: Term(term), vote: None },
        last_index: Index(last),
        term_runs: runs,
        configurations: vec![(Index(1), Arc::new(configuration(&ids, &[])))],
        ..Recovered::default()
    };
    Raft::new(Settings::new(NodeId(1), seed), recovered)
}

fn tell(raft: &mut Raft, from: u64, term: Term, message: Message) {
    let to = raft.id();
    raft.step(Event::Arrived(Envelope { from: NodeId(from), to, group: GroupId(0), term, message }));
}

/// Takes the outputs and completes the writes until there are none; returns what was sent.
fn persist_all(raft: &mut Raft) -> Vec<Envelope> {
    let mut sent = Vec::new();
    loop {
        let output = raft.take_output();
        sent.extend(output.send);
        let Some(write) = output.write else { return sent };
        let receipt = Write::persist(write, |_| Ok::<_, ()>(())).expect("this store does not fail");
        raft.step(Event::Persisted(receipt));
    }
}

/// Ticks until the node asks for votes or pre-votes.
fn ticks_until_campaign(raft: &mut Raft) -> u32 {
    for ticks in 1..1_000 {
        raft.step(Event::Tick);
        if raft.role_state().role != RoleKind::Follower {
            return ticks;
        }
    }
    panic!("it never campaigns");
}

#[test]
fn a_candidate_wins_exactly_with_a_majority_whatever_the_order_of_votes() {
    for voters in [1, 2, 3, 4, 5] {
        let peers: Vec<_> = (2..=voters).collect();
        for code in 0..3_u32.pow(u32::try_from(peers.len()).unwrap()) {
            let mut raft = node(voters, 1, 1, u64::from(code));
            ticks_until_campaign(&mut raft);
            for peer in &peers {
                tell(&mut raft, *peer, Term(2), Message::PreVoteReply { granted: true });
            }
            persist_all(&mut raft);
            let (mut granted, mut refused) = (1, 0);
            for (position, peer) in (0..).zip(&peers) {
                match code / 3_u32.pow(position) % 3 {
                    0 => {}
                    answer => {
                        // A second answer of the same peer changes nothing.
                        for _ in 0..2 {
                            tell(&mut raft, *peer, Term(2), Message::VoteReply { granted: answer == 1 });
                        }
                        granted += u64::from(answer == 1);
                        refused += u64::from(answer == 2);
                    }
                }
            }
            let quorum = voters / 2 + 1;
            let expected = if granted >= quorum {
                RoleKind::Leader
            } else if voters - refused < quorum {
                RoleKind::Follower
            } else {
                RoleKind::Candidate
            };
            assert_eq!(
                raft.role_state().role,
                expected,
                "{voters} voters, {granted} granted, {refused} refused"
            );
        }
    }
}

#[test]
fn a_vote_goes_only_to_a_log_that_holds_at_least_as_much() {
    // The voter's log ends at 2 with term 2.
    for (last_term, last_index, expected) in [
        (1, 1, false),
        (1, 2, false),
        (1, 3, false),
        (2, 1, false),
        (2, 2, true),
        (2, 3, true),
        (3, 1, true),
        (3, 2, true),
    ] {
        for pre_vote in [false, true] {
            let mut raft = node(3, 2, 2, 7);
            let (last_index, last_term) = (Index(last_index), Term(last_term));
            let question = if pre_vote {
                Message::PreVote { last_index, last_term, replaying: false }
            } else {
                Message::Vote { last_index, last_term, transfer: false }
            };
            tell(&mut raft, 2, Term(4), question);
            let answers: Vec<_> =
                persist_all(&mut raft).into_iter().map(|envelope| envelope.message).collect();
            let expected = if pre_vote {
                Message::PreVoteReply { granted: expected }
            } else {
                Message::VoteReply { granted: expected }
            };
            assert_eq!(answers, [expected], "log ends at {last_index} with term {last_term}");
        }
    }
}

#[test]
fn first_timeouts_seldom_meet_and_later_ones_are_drawn_anew() {
    let timeout = Settings::new(NodeId(1), 0).election_ticks;
    let mut meetings = 0;
    for trial in 0..1_000 {
        let mut ticks: Vec<_> =
            (0..5).map(|n| ticks_until_campaign(&mut node(5, 1, 1, trial * 5 + n))).collect();
        assert!(ticks.iter().all(|ticks| (timeout..2 * timeout).contains(ticks)));
        ticks.sort_unstable();
        meetings += u32::from(ticks[0] == ticks[1]);
    }
    assert!(meetings < 300, "{meetings} of 1,000 first campaigns meet");

    // Refused again and again, one node waits differently every time, and never a whole timeout.
    let mut raft = node(3, 1, 1, 11);
    ticks_until_campaign(&mut raft);
    let mut pauses = std::collections::BTreeSet::new();
    for _ in 0..50 {
        for peer in [2, 3] {
            tell(&mut raft, peer, Term(1), Message::PreVoteReply { granted: false });
        }
        assert_eq!(raft.role_state().role, RoleKind::Follower);
        pauses.insert(ticks_until_campaign(&mut raft));
    }
    assert!(
        pauses.len() > 10 && pauses.iter().all(|ticks| (timeout / 4..timeout).contains(ticks)),
        "{pauses:?}"
    );
}
