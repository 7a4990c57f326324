//! Going on alone: what a node says before it, what it decides, and what it does first afterwards.

use super::*;
use crate::api::{Recover, RecoveryInfo};

/// The node of these tests, and others, as members.
fn members(others: &[u64], own: MemberKind) -> Configuration {
    let member =
        |id: u64, kind| (NodeId(id), Member { name: format!("n{id}"), address: format!("n{id}:7421"), kind });
    let all = others.iter().map(|id| member(*id, MemberKind::Voter)).chain([member(OWN.0, own)]);
    Configuration { members: all.collect(), version: 1, ..Configuration::default() }
}

/// A node with five entries that has heard nobody for ten election timeouts.
fn left(configuration: Configuration) -> Alone {
    let mut left = started(configuration);
    while left.replica.raft().has_heard_leader_lately() {
        left.tick();
    }
    left
}

/// A node with five entries that has just started.
fn started(configuration: Configuration) -> Alone {
    Alone::recovered(raft::Recovered {
        hard_state: HardState { term: Term(4), vote: Some(NodeId(9)) },
        last_index: Index(5),
        term_runs: vec![(Index(1), Term(2)), (Index(4), Term(3))],
        configurations: vec![(Index(1), Arc::new(configuration))],
        ..Default::default()
    })
}

fn survivor() -> Alone {
    left(members(&[8, 9], MemberKind::Voter))
}

impl Alone {
    fn says(&self, heard: &[u64]) -> RecoveryInfo {
        self.replica.recovery(3, |id| heard.contains(&id.0))
    }

    fn decides(&self, token: &str, force: bool) -> Result<crate::replica::Decision, Failure> {
        let asked = Recover { token: Some(token.into()), force };
        self.replica.decide_recovery(&self.says(&[]), &asked, ("n7", "moved:7421"))
    }
}

#[test]
fn rule_1_6_a_survivor_says_what_it_knows_and_decides_by_its_token() {
    let survivor = survivor();
    let said = survivor.says(&[]);
    assert_eq!((said.node_id, said.generation, said.term), (7, 3, 4));
    assert_eq!((said.last, said.last_term, said.commit, said.applied), (5, 3, 0, 0));
    assert_eq!((said.configuration_index, said.joint, said.complete, said.intact), (1, false, true, true));
    let seen: Vec<_> = said.members.iter().map(|m| (m.name.as_str(), m.is_own, m.is_heard)).collect();
    assert_eq!(seen, [("n7", true, true), ("n8", false, false), ("n9", false, false)]);
    assert_eq!((&said.refusal, &said.caution), (&None, &None));
    assert!(said.costs.iter().any(|cost| cost.contains("behind index 5")), "{:?}", said.costs);
    assert!(said.costs.iter().any(|cost| cost.contains("n8, n9")), "{:?}", said.costs);
    assert_eq!(said, survivor.says(&[]), "the token is that of the state");
    let decision = survivor.decides(&said.token, false).expect("it may");
    assert_eq!((decision.generation, decision.last, decision.term), (4, (Index(5), Term(3)), Term(5)));
    let configuration = decision.configuration;
    assert!(
        configuration.voters().eq([OWN]) && configuration.peers().len() == 1 && configuration.version == 1
    );
    assert_eq!(configuration.members[&OWN].address, "moved:7421");
}

#[test]
fn rule_1_6_a_token_fits_one_state_of_one_node() {
    let token = survivor().says(&[]).token;
    let refused = |alone: &Alone, token: &str| {
        let failure = alone.decides(token, true).expect_err("another token");
        assert_eq!(
            (failure.reason, failure.outcome),
            (Reason::StaleConfiguration, Outcome::NotDone),
            "{failure}"
        );
    };
    for wrong in ["", "0", &token[1..], &token.to_uppercase().replace(|c: char| c.is_numeric(), "f")] {
        refused(&survivor(), wrong);
    }
    // Its log, its members, or its generation is another.
    let mut longer = survivor();
    let entry = Entry { index: Index(6), term: Term(4), payload: Payload::Noop };
    let append =
        Message::Append { prev_index: Index(5), prev_term: Term(3), entries: vec![entry], commit: Index(0) };
    longer.hear(0, append);
    longer.perform();
    assert_eq!(longer.replica.raft().last_index(), Index(6));
    assert!(longer.says(&[]).refusal.is_some_and(|why| why.contains("leads in term 4")));
    while longer.replica.raft().has_heard_leader_lately() {
        longer.tick();
    }
    assert_eq!(longer.says(&[]).refusal, None);
    refused(&longer, &token);
    assert_ne!(survivor().replica.recovery(4, |_| false).token, token);
    let mut other = Alone::recovered(raft::Recovered {
        hard_state: HardState { term: Term(4), vote: None },
        last_index: Index(5),
        term_runs: vec![(Index(1), Term(2))],
        configurations: vec![(Index(1), Arc::new(members(&[8, 9], MemberKind::Voter)))],
        ..Default::default()
    });
    assert_ne!(other.says(&[]).last_term, 3);
    while other.replica.raft().has_heard_leader_lately() {
        other.tick();
    }
    refused(&other, &token);
}

#[test]
fn rule_1_6_where_a_quorum_is_there_or_the_node_is_none_of_it_nothing_is_decided() {
    let refusal = |alone: &Alone, heard: &[u64]| {
        let said = alone.says(heard);
        assert_eq!(said.token, "", "nothing to give back");
        said.refusal.expect("it is refused")
    };
    assert!(refusal(&survivor(), &[9]).contains("a majority of the voters is there (n7, n9)"));
    let mut led = survivor();
    led.hear(0, Message::Heartbeat { commit: Index(0), round: 1 });
    led.perform();
    assert!(refusal(&led, &[]).contains("leads in term 4"));
    assert!(refusal(&Alone::leading(), &[]).contains("leads in term"));
    assert!(refusal(&Alone::recovered(raft::Recovered::default()), &[]).contains("no log of a cluster"));
    let mut others = members(&[8, 9], MemberKind::Voter);
    others.members.remove(&OWN);
    assert!(refusal(&left(others), &[]).contains("no member of its cluster any more"));
    let fresh = started(members(&[8, 9], MemberKind::Voter));
    assert!(refusal(&fresh, &[]).contains("the others get so long to elect one"));
    let mut damaged = survivor();
    damaged.replica.begins_damaged();
    damaged.perform();
    assert!(refusal(&damaged, &[]).contains("do not verify"));
    let failure = damaged.decides("", true).expect_err("even if it is forced");
    assert_eq!((failure.reason, failure.outcome), (Reason::FailedPrecondition, Outcome::NotDone));
    let mut unwritten = survivor();
    unwritten.hangs = true;
    let entries = vec![Entry { index: Index(6), term: Term(4), payload: Payload::Noop }];
    let (prev_index, prev_term) = (Index(5), Term(3));
    unwritten.hear(0, Message::Append { prev_index, prev_term, entries, commit: Index(0) });
    unwritten.perform();
    while unwritten.replica.raft().has_heard_leader_lately() {
        unwritten.tick();
    }
    assert!(refusal(&unwritten, &[]).contains("not on its disk yet"));
    let last = survivor().replica.recovery(u32::MAX, |_| false);
    assert!(last.refusal.is_some_and(|why| why.contains("no generation left")));
    // Two of five are no majority, nor is one of two.
    assert_eq!(left(members(&[8, 9, 10, 11], MemberKind::Voter)).says(&[8]).refusal, None);
    assert_eq!(left(members(&[8], MemberKind::Voter)).says(&[]).refusal, None);
    // Nor is one half of a joint configuration.
    let mut joint = members(&[8, 9], MemberKind::Voter);
    joint.outgoing = [OWN, NodeId(10), NodeId(11)].into();
    assert_eq!(left(joint).says(&[8, 9]).refusal, None);
}

#[test]
fn rule_1_6_who_may_lack_something_goes_on_only_if_it_is_forced() {
    let learner = left(members(&[8, 9], MemberKind::Learner));
    let mut incomplete = survivor();
    incomplete.replica.begins_incomplete();
    incomplete.perform();
    for (alone, word) in [(learner, "learner"), (incomplete, "bodies")] {
        let said = alone.says(&[]);
        assert!(said.caution.as_ref().is_some_and(|caution| caution.contains(word)), "{said:?}");
        let failure = alone.decides(&said.token, false).expect_err("it is not forced");
        assert!(failure.reason == Reason::FailedPrecondition && failure.text.contains("forced"), "{failure}");
        let decision = alone.decides(&said.token, true).expect("it is forced");
        assert!(decision.configuration.is_voter(OWN));
    }
}

#[test]
fn rule_1_6_the_generation_rises_before_anything_else_is_proposed() {
    let mut alone = Alone::leading();
    alone.create(1, "t", TopicOptions::default());
    let Ok(Response::Published { topic, .. }) = alone.ask(2, publish("t", 1, b"a")) else {
        panic!("published")
    };
    let is_it = |found: Result<Response, Failure>, of, first| match found {
        Ok(Response::Published { generation, first_offset, .. }) => (generation, first_offset) == (of, first),
        _ => false,
    };
    let before = alone.entries.len();
    let mut again = alone.restarted_in(1);
    // What comes while it begins to lead waits.
    assert!(is_it(again.ask(3, publish("t", 1, b"b")), 1, 1));
    let first: Vec<Vec<Command>> = again.entries[before..]
        .iter()
        .filter_map(|entry| match &entry.payload {
            Payload::Command { meta, .. } => Some(codec::read_entry(meta).expect("it is ours").commands),
            _ => None,
        })
        .collect();
    assert_eq!(first[0], [Command::RaiseGeneration { generation: Generation(1) }]);
    assert!(matches!(&first[1][..], [Command::Publish { .. }]), "{first:?}");
    let state = again.replica.state();
    assert_eq!(state.generation(), Generation(1));
    let generations =
        [0, 1].map(|offset| state.topic(TopicId(topic)).and_then(|topic| topic.generation_of(offset)));
    assert_eq!(generations, [Some(Generation(0)), Some(Generation(1))]);
    // Once is enough.
    let before = again.entries.len();
    let mut third = again.restarted_in(1);
    assert!(is_it(third.ask(4, publish("t", 1, b"c")), 1, 2));
    assert_eq!(third.entries.len(), before + 2, "the first entry of a term, and the message");
    assert_eq!(third.replica.outstanding(), Default::default());
}
