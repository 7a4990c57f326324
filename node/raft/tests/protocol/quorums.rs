//! Quorums as plain tables, and against a definition that is too simple to be wrong.
//!
//! In the tables voters are `1 2 3`, a joint configuration is `1 2 3 & 3 4`, and answers stand in the order of the ids
//! that occur: an index or `_` for commits; `y`, `n` or `_` for votes.

use proptest::prelude::*;
use raftqueue_raft::{Configuration, Index, Member, MemberKind, NodeId, VoteResult};
use std::collections::{BTreeMap, BTreeSet};

fn parse(text: &str) -> Configuration {
    let mut halves =
        text.split('&').map(|half| half.split_whitespace().map(|id| NodeId(id.parse().expect("an id"))));
    let voter =
        |id: NodeId| (id, Member { name: id.to_string(), address: String::new(), kind: MemberKind::Voter });
    let members = halves.next().into_iter().flatten().map(voter).collect();
    let outgoing = halves.next().into_iter().flatten().collect();
    Configuration { members, outgoing, version: 0 }
}

/// What each node answered, in the order of ids.
fn answers<'a>(configuration: &Configuration, text: &'a str) -> BTreeMap<NodeId, &'a str> {
    let nodes: BTreeSet<_> = configuration.peers();
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(nodes.len(), words.len(), "one answer a node: {text}");
    nodes.into_iter().zip(words).filter(|(_, word)| *word != "_").collect()
}

fn check_commits(table: &[(&str, &str, u64)]) {
    for (voters, reached, expected) in table {
        let configuration = parse(voters);
        let answers = answers(&configuration, reached);
        let committed = configuration
            .committed(|id| Index(answers.get(&id).map_or(0, |word| word.parse().expect("an index"))));
        assert_eq!(committed, Index(*expected), "{voters}: {reached}");
    }
}

fn check_votes(table: &[(&str, &str, VoteResult)]) {
    for (voters, given, expected) in table {
        let configuration = parse(voters);
        let answers = answers(&configuration, given);
        let result = configuration.vote_result(|id| answers.get(&id).map(|word| *word == "y"));
        assert_eq!(result, *expected, "{voters}: {given}");
    }
}

#[test]
fn commits_of_a_majority() {
    check_commits(&[
        // Nobody: everything, so that an empty half does not matter to the other one.
        ("", "", u64::MAX),
        // One.
        ("1", "_", 0),
        ("1", "12", 12),
        // Two: the lesser.
        ("1 2", "_ _", 0),
        ("1 2", "12 _", 0),
        ("1 2", "_ 12", 0),
        ("1 2", "12 5", 5),
        ("1 2", "5 12", 5),
        ("1 2", "7 7", 7),
        // Three: the middle one.
        ("1 2 3", "_ _ _", 0),
        ("1 2 3", "12 _ _", 0),
        ("1 2 3", "12 5 _", 5),
        ("1 2 3", "5 _ 12", 5),
        ("1 2 3", "12 5 6", 6),
        ("1 2 3", "12 12 6", 12),
        ("1 2 3", "9 9 9", 9),
        // Four: three must have it.
        ("1 2 3 4", "9 9 _ _", 0),
        ("1 2 3 4", "9 9 3 _", 3),
        ("1 2 3 4", "9 8 3 2", 3),
        ("1 2 3 4", "9 9 9 2", 9),
        // Five.
        ("1 2 3 4 5", "9 9 _ _ _", 0),
        ("1 2 3 4 5", "101 104 103 103 _", 103),
        ("1 2 3 4 5", "101 102 103 104 105", 103),
        ("1 2 3 4 5", "1 1 7 7 7", 7),
        // Six and seven.
        ("1 2 3 4 5 6", "4 4 4 _ _ _", 0),
        ("1 2 3 4 5 6", "4 4 4 2 _ _", 2),
        ("1 2 3 4 5 6", "1 2 3 4 5 6", 3),
        ("1 2 3 4 5 6 7", "9 9 9 _ _ _ _", 0),
        ("1 2 3 4 5 6 7", "9 9 9 3 _ _ _", 3),
        ("1 2 3 4 5 6 7", "1 2 3 4 5 6 7", 4),
        ("1 2 3 4 5 6 7", "7 6 5 4 3 2 1", 4),
    ]);
}

#[test]
fn commits_of_a_joint_configuration() {
    check_commits(&[
        // An empty half does not matter.
        ("1 2 3 &", "100 101 99", 100),
        // Two single nodes.
        ("1 & 2", "_ _", 0),
        ("1 & 2", "100 _", 0),
        ("1 & 2", "_ 100", 0),
        ("1 & 2", "13 100", 13),
        ("1 & 2", "100 13", 13),
        // The same one twice.
        ("1 & 1", "_", 0),
        ("1 & 1", "100", 100),
        // Two and another one.
        ("1 3 & 2", "_ _ _", 0),
        ("1 3 & 2", "100 _ _", 0),
        ("1 3 & 2", "100 _ 50", 0),
        ("1 3 & 2", "100 45 50", 45),
        ("1 3 & 2", "100 60 50", 50),
        // Two and one of them.
        ("1 2 & 2", "_ _", 0),
        ("1 2 & 2", "100 _", 0),
        ("1 2 & 2", "_ 100", 0),
        ("1 2 & 2", "50 100", 50),
        ("1 2 & 2", "100 50", 50),
        // Two and two others.
        ("1 2 & 3 4", "50 _ _ _", 0),
        ("1 2 & 3 4", "50 _ 49 _", 0),
        ("1 2 & 3 4", "50 48 49 _", 0),
        ("1 2 & 3 4", "50 48 49 47", 47),
        ("1 2 & 3 4", "46 48 49 47", 46),
        // Two and two, of which one is the same.
        ("1 2 & 2 3", "_ _ _", 0),
        ("1 2 & 2 3", "100 _ _", 0),
        ("1 2 & 2 3", "_ 100 _", 0),
        ("1 2 & 2 3", "_ 100 99", 0),
        ("1 2 & 2 3", "101 100 99", 99),
        // The same two.
        ("1 2 & 1 2", "_ _", 0),
        ("1 2 & 1 2", "_ 40", 0),
        ("1 2 & 1 2", "41 40", 40),
        // Three and three others.
        ("1 2 3 & 4 5 6", "_ _ _ _ _ _", 0),
        ("1 2 3 & 4 5 6", "100 _ _ _ _ _", 0),
        ("1 2 3 & 4 5 6", "100 _ _ 90 _ _", 0),
        ("1 2 3 & 4 5 6", "100 99 _ _ _ _", 0),
        ("1 2 3 & 4 5 6", "_ 99 90 97 95 _", 90),
        ("1 2 3 & 4 5 6", "92 99 90 97 95 _", 92),
        ("1 2 3 & 4 5 6", "92 99 90 97 95 77", 92),
        ("1 2 3 & 4 5 6", "92 99 90 77 95 77", 77),
        // Three and three, of which one is the same.
        ("1 2 3 & 1 4 5", "_ _ _ _ _", 0),
        ("1 2 3 & 1 4 5", "100 _ _ _ _", 0),
        ("1 2 3 & 1 4 5", "100 101 _ _ _", 0),
        ("1 2 3 & 1 4 5", "100 101 100 _ _", 0),
        ("1 2 3 & 1 4 5", "_ 100 _ 99 98", 0),
        ("1 2 3 & 1 4 5", "_ 100 99 99 98", 98),
        ("1 2 3 & 1 4 5", "1 100 99 99 98", 98),
        ("1 2 3 & 1 4 5", "100 100 99 99 98", 99),
        // Three and three, of which two are the same.
        ("1 2 3 & 2 3 4", "_ _ _ _", 0),
        ("1 2 3 & 2 3 4", "_ 100 99 _", 99),
        ("1 2 3 & 2 3 4", "98 100 99 _", 99),
        ("1 2 3 & 2 3 4", "100 100 99 _", 99),
        ("1 2 3 & 2 3 4", "100 100 99 98", 99),
        ("1 2 3 & 2 3 4", "100 _ _ 101", 0),
        ("1 2 3 & 2 3 4", "100 99 _ 101", 99),
        // The same three; three and five.
        ("1 2 3 & 1 2 3", "50 45 _", 45),
        ("1 2 3 & 1 2 3 4 5", "9 9 _ _ _", 0),
        ("1 2 3 & 1 2 3 4 5", "9 9 _ 8 _", 8),
        ("1 2 3 4 5 & 1 2 3", "_ _ 9 9 9", 0),
        ("1 2 3 4 5 & 1 2 3", "_ 4 9 9 9", 4),
    ]);
}

#[test]
fn votes_of_a_majority() {
    use VoteResult::{Lost, Pending, Won};
    check_votes(&[
        ("", "", Won),
        ("1", "_", Pending),
        ("1", "y", Won),
        ("1", "n", Lost),
        // Two: both must grant.
        ("1 2", "_ _", Pending),
        ("1 2", "y _", Pending),
        ("1 2", "n _", Lost),
        ("1 2", "y n", Lost),
        ("1 2", "n n", Lost),
        ("1 2", "y y", Won),
        // Three.
        ("1 2 3", "_ _ _", Pending),
        ("1 2 3", "y _ _", Pending),
        ("1 2 3", "n _ _", Pending),
        ("1 2 3", "y n _", Pending),
        ("1 2 3", "n n _", Lost),
        ("1 2 3", "y y _", Won),
        ("1 2 3", "y y n", Won),
        ("1 2 3", "y n n", Lost),
        // Four: three must grant, two can refuse.
        ("1 2 3 4", "y y _ _", Pending),
        ("1 2 3 4", "y y n _", Pending),
        ("1 2 3 4", "y n n _", Lost),
        ("1 2 3 4", "y y n n", Lost),
        ("1 2 3 4", "y y y n", Won),
        // Five to seven.
        ("1 2 3 4 5", "y y n n _", Pending),
        ("1 2 3 4 5", "y y y _ _", Won),
        ("1 2 3 4 5", "n n n _ _", Lost),
        ("1 2 3 4 5 6", "y y y n n _", Pending),
        ("1 2 3 4 5 6", "y y y n n n", Lost),
        ("1 2 3 4 5 6", "y y y y _ _", Won),
        ("1 2 3 4 5 6 7", "y y y n n n _", Pending),
        ("1 2 3 4 5 6 7", "y y y y n n n", Won),
        ("1 2 3 4 5 6 7", "n n n n y y y", Lost),
    ]);
}

#[test]
fn votes_of_a_joint_configuration() {
    use VoteResult::{Lost, Pending, Won};
    check_votes(&[
        // An empty half has granted.
        ("1 &", "_", Pending),
        ("1 &", "n", Lost),
        ("1 &", "y", Won),
        // Two single nodes.
        ("1 & 2", "_ _", Pending),
        ("1 & 2", "y _", Pending),
        ("1 & 2", "_ y", Pending),
        ("1 & 2", "y y", Won),
        ("1 & 2", "y n", Lost),
        ("1 & 2", "n _", Lost),
        ("1 & 2", "_ n", Lost),
        ("1 & 2", "n n", Lost),
        // Two and two others.
        ("1 2 & 3 4", "_ _ _ _", Pending),
        ("1 2 & 3 4", "y _ _ _", Pending),
        ("1 2 & 3 4", "y y _ _", Pending),
        ("1 2 & 3 4", "y y n _", Lost),
        ("1 2 & 3 4", "y y n n", Lost),
        ("1 2 & 3 4", "y y y n", Lost),
        ("1 2 & 3 4", "y y y y", Won),
        // Two and two, of which one is the same.
        ("1 2 & 2 3", "_ _ _", Pending),
        ("1 2 & 2 3", "_ n _", Lost),
        ("1 2 & 2 3", "y y _", Pending),
        ("1 2 & 2 3", "y y n", Lost),
        ("1 2 & 2 3", "y y y", Won),
        // The same two.
        ("1 2 & 1 2", "_ _", Pending),
        ("1 2 & 1 2", "y _", Pending),
        ("1 2 & 1 2", "y n", Lost),
        ("1 2 & 1 2", "n _", Lost),
        ("1 2 & 1 2", "y y", Won),
        // Three and two, of which one is the same.
        ("1 2 3 & 1 4", "y _ _ y", Pending),
        ("1 2 3 & 1 4", "y y _ y", Won),
        ("1 2 3 & 1 4", "_ y y y", Pending),
        ("1 2 3 & 1 4", "n y y y", Lost),
        // Three and three others, of which one half can win and the other cannot.
        ("1 2 3 & 4 5 6", "y y _ n _ _", Pending),
        ("1 2 3 & 4 5 6", "y y _ n n _", Lost),
        ("1 2 3 & 4 5 6", "n n _ y y y", Lost),
        ("1 2 3 & 4 5 6", "y y n n y y", Won),
        // Three and three, of which two are the same.
        ("1 2 3 & 2 3 4", "_ y y _", Won),
        ("1 2 3 & 2 3 4", "y _ _ y", Pending),
        ("1 2 3 & 2 3 4", "_ n n _", Lost),
        ("1 2 3 & 2 3 4", "y n _ y", Pending),
    ]);
}

#[test]
fn learners_count_for_nothing() {
    let mut configuration = parse("1 2 3");
    for id in [4, 5] {
        configuration.members.insert(
            NodeId(id),
            Member { name: id.to_string(), address: String::new(), kind: MemberKind::Learner },
        );
    }
    assert_eq!(configuration.committed(|id| Index(id.0)), Index(2));
    assert_eq!(configuration.vote_result(|id| (id.0 > 2).then_some(true)), VoteResult::Pending);
}

/// The greatest index that more than half have reached, found by trying them all.
fn naive_committed(voters: &BTreeSet<NodeId>, reached: impl Fn(NodeId) -> Index) -> Index {
    if voters.is_empty() {
        return Index(u64::MAX);
    }
    let have = |index: Index| voters.iter().filter(|id| reached(**id) >= index).count();
    let mut candidates = voters.iter().map(|id| reached(*id)).filter(|index| 2 * have(*index) > voters.len());
    candidates.by_ref().max().unwrap_or(Index(0))
}

/// Whether every, no, or some way of filling in the missing answers wins.
fn naive_vote(halves: [&BTreeSet<NodeId>; 2], answers: &BTreeMap<NodeId, bool>) -> VoteResult {
    let all: BTreeSet<_> = halves.into_iter().flatten().copied().collect();
    let missing: Vec<_> = all.iter().filter(|id| !answers.contains_key(id)).copied().collect();
    let wins = |filled: &BTreeMap<NodeId, bool>| {
        halves
            .iter()
            .all(|half| half.is_empty() || 2 * half.iter().filter(|id| filled[id]).count() > half.len())
    };
    let outcomes: BTreeSet<bool> = (0..1_u32 << missing.len())
        .map(|bits| {
            let filled = missing.iter().enumerate().map(|(i, id)| (*id, bits & 1 << i != 0));
            wins(&answers.iter().map(|(id, answer)| (*id, *answer)).chain(filled).collect())
        })
        .collect();
    match (outcomes.contains(&true), outcomes.contains(&false)) {
        (true, false) => VoteResult::Won,
        (false, _) => VoteResult::Lost,
        (true, true) => VoteResult::Pending,
    }
}

/// Up to seven voters in each half, of nine nodes.
fn some_configuration() -> impl Strategy<Value = Configuration> {
    let ids = || prop::collection::btree_set(1..=9_u64, 0..=7);
    (ids(), ids(), ids()).prop_map(|(voters, learners, outgoing)| {
        let member =
            |kind| move |id: u64| (NodeId(id), Member { name: id.to_string(), address: String::new(), kind });
        let mut members: BTreeMap<_, _> = learners.into_iter().map(member(MemberKind::Learner)).collect();
        members.extend(voters.into_iter().map(member(MemberKind::Voter)));
        Configuration { members, outgoing: outgoing.into_iter().map(NodeId).collect(), version: 0 }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commits_agree_with_the_naive_definition(
        configuration in some_configuration(),
        reached in prop::collection::btree_map(1..=9_u64, 0..6_u64, 0..9),
    ) {
        let reached = |id: NodeId| Index(reached.get(&id.0).copied().unwrap_or(0));
        let voters = configuration.voters().collect();
        let naive = naive_committed(&voters, reached).min(naive_committed(&configuration.outgoing, reached));
        prop_assert_eq!(configuration.committed(reached), naive);
    }

    #[test]
    fn votes_agree_with_the_naive_definition(
        configuration in some_configuration(),
        answers in prop::collection::btree_map(1..=9_u64, any::<bool>(), 0..9),
    ) {
        let voters: BTreeSet<_> = configuration.voters().collect();
        let concerned = |id: &NodeId| voters.contains(id) || configuration.outgoing.contains(id);
        let answers: BTreeMap<_, _> =
            answers.into_iter().map(|(id, answer)| (NodeId(id), answer)).filter(|(id, _)| concerned(id)).collect();
        let result = configuration.vote_result(|id| answers.get(&id).copied());
        let naive = naive_vote([&voters, &configuration.outgoing], &answers);
        prop_assert_eq!(result, naive);
    }

    /// Any two quorums of one configuration, and of a joint one and either of its halves, have a node in common.
    #[test]
    fn quorums_overlap(configuration in some_configuration(), a in any::<u16>(), b in any::<u16>()) {
        prop_assume!(configuration.voters().next().is_some());
        let holds = |bits: u16| move |id: NodeId| bits & 1 << id.0 != 0;
        let new = Configuration { outgoing: BTreeSet::new(), ..configuration.clone() };
        if configuration.is_quorum(holds(a)) && new.is_quorum(holds(b)) {
            prop_assert!(configuration.voters().any(|id| holds(a & b)(id)));
        }
    }
}

#[test]
fn every_set_of_answers_of_up_to_seven_voters() {
    for count in 0..=7_u32 {
        let voters: BTreeSet<_> = (1..=u64::from(count)).map(NodeId).collect();
        let text: Vec<_> = voters.iter().map(ToString::to_string).collect();
        let configuration = parse(&text.join(" "));
        for code in 0..3_u32.pow(count) {
            let answers: BTreeMap<_, _> = voters
                .iter()
                .filter_map(|id| match code / 3_u32.pow(u32::try_from(id.0).unwrap() - 1) % 3 {
                    0 => None,
                    answer => Some((*id, answer == 1)),
                })
                .collect();
            let result = configuration.vote_result(|id| answers.get(&id).copied());
            assert_eq!(result, naive_vote([&voters, &BTreeSet::new()], &answers), "{text:?}: {answers:?}");
        }
    }
}
