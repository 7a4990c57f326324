//! What other members say that they do not have: when that is lost, and when somebody may have it all the same.

use super::*;
use raftqueue_wal::FileId;

/// The other members, one after the other: each has every message but two, or all that it lacks itself, too.
struct Members {
    answering: Vec<NodeId>,
    has_all: Option<NodeId>,
    gave: Option<NodeId>,
}

impl Members {
    fn of(answering: &[u64]) -> Self {
        Self { answering: answering.iter().copied().map(NodeId).collect(), has_all: None, gave: None }
    }
}

impl Giver for Members {
    fn give(&mut self, passed: usize, topic: TopicId, wanted: &[Range<u64>]) -> Result<Gift, String> {
        let node = *self.answering.get(passed).ok_or("nobody else is there")?;
        self.gave = Some(node);
        let mut gift = HasAll.give(passed, topic, wanted)?;
        if self.has_all != Some(node) {
            let before = gift.messages.len();
            gift.messages.retain(|given| !(3..5).contains(&given.offset));
            gift.unreadable = (before - gift.messages.len()) as u64;
        }
        Ok(gift)
    }

    fn own(&self) -> Option<NodeId> {
        Some(NodeId(1))
    }

    fn gave(&self) -> Option<NodeId> {
        self.gave
    }
}

/// A node that lacks two messages of a cluster of the nodes 1, 2 and 3, and has got all others that it lacked.
fn lacking_two() -> (Node, TopicId) {
    let (mut node, topic) = with_a_rotten_page();
    let member = |id: u64| {
        let (name, address) = (format!("n{id}"), String::new());
        (NodeId(id), Member { name, address, kind: MemberKind::Voter })
    };
    let members = (1..=3).map(member).collect();
    node.configuration.1 = Arc::new(Configuration { members, version: 1, ..Configuration::default() });
    let freeze = node.freeze();
    let filled = node.keeper.fill(&freeze, &mut Members::of(&[2]), &mut |_| Ok(()));
    let Ok(Filled::Part(change)) = filled else { panic!("it gives all but two: {filled:?}") };
    node.switch(&change, 0).expect("this disk takes everything");
    (node, topic)
}

#[test]
fn rule_3_4_what_no_member_has_is_lost_and_what_one_may_have_is_not() {
    let (mut node, topic) = lacking_two();
    let freeze = node.freeze();
    let mut fill = |giver: &mut Members| node.keeper.fill(&freeze, giver, &mut |_| Ok(())).unwrap();
    for _ in 0..9 {
        let filled = fill(&mut Members::of(&[2]));
        assert!(matches!(filled, Filled::Lacking(2)), "node 3 is away and may have them: {filled:?}");
    }
    for _ in 0..2 {
        let filled = fill(&mut Members::of(&[2, 3]));
        assert!(matches!(filled, Filled::Lacking(2)), "reading may fail for once: {filled:?}");
    }
    let Filled::Lost(lost) = fill(&mut Members::of(&[3, 2])) else { panic!("all said so three times") };
    assert_eq!((lost.count, &lost.first[..]), (2, &[(topic, 3..5)][..]));
    assert!(lost.to_string().contains(&format!("3 to 4 of topic {topic}")), "{lost}");
    // Somebody comes back who has them after all.
    let mut back = Members { has_all: Some(NodeId(3)), ..Members::of(&[2, 3]) };
    let Filled::Part(change) = fill(&mut back) else { panic!("node 3 has them") };
    node.switch(&change, 0).unwrap();
    assert!(matches!(node.keeper.fill(&freeze, &mut back, &mut |_| Ok(())), Ok(Filled::Whole)));
    node.check();
}

#[test]
fn rule_3_4_in_a_cluster_of_one_what_it_lacks_is_lost() {
    let (mut node, _) = lacking_two();
    let mut configuration = Configuration::clone(&node.configuration.1);
    configuration.members.retain(|id, _| *id == NodeId(1));
    node.configuration.1 = Arc::new(configuration);
    let freeze = node.freeze();
    let mut fill = || node.keeper.fill(&freeze, &mut Members::of(&[]), &mut |_| Ok(())).unwrap();
    for _ in 0..3 {
        assert!(matches!(fill(), Filled::Lacking(2)));
    }
    assert!(matches!(fill(), Filled::Lost(lost) if lost.count == 2));
}

/// Another node that has every message but one, and has applied less than this one.
struct IsBehind;

impl Giver for IsBehind {
    fn give(&mut self, passed: usize, topic: TopicId, wanted: &[Range<u64>]) -> Result<Gift, String> {
        if passed > 0 {
            return Err("nobody else is there".into());
        }
        let mut gift = HasAll.give(passed, topic, wanted)?;
        gift.messages.retain(|given| given.offset != 3);
        Ok(Gift { gone_at: Some(Index(1)), ..gift })
    }
}

#[test]
fn rule_3_4_what_a_node_that_is_behind_gives_is_good_and_what_it_calls_gone_is_not() {
    let (mut node, _) = with_a_rotten_page();
    let freeze = node.freeze();
    let mut pace = |_| Ok(());
    let Filled::Part(change) = node.keeper.fill(&freeze, &mut IsBehind, &mut pace).unwrap() else {
        panic!("it gives all but one")
    };
    node.switch(&change, 0).unwrap();
    let filled = node.keeper.fill(&freeze, &mut IsBehind, &mut pace).unwrap();
    assert!(matches!(filled, Filled::Lacking(1)), "{filled:?}");
    let Filled::Part(change) = node.keeper.fill(&freeze, &mut HasAll, &mut pace).unwrap() else {
        panic!("that one lives")
    };
    node.switch(&change, 0).unwrap();
    assert!(matches!(node.keeper.fill(&freeze, &mut IsBehind, &mut pace), Ok(Filled::Whole)));
    node.check();
}

/// What tells of a segment rots, and the newer snapshot, as of which that segment goes. It goes with a later one, before the
/// others have given what it may hold.
#[test]
fn rule_3_2_a_damaged_file_that_goes_meanwhile_is_not_given_up_once_more() {
    let mut node = consumed_but_for_one_in_ten();
    node.keep().expect("this disk takes everything");
    let Manifest { snapshots, retired, places, .. } = node.wal.manifest();
    let newest = *snapshots.last().expect("just taken");
    let goes = |file: FileId| retired.iter().any(|one| one.file == file && one.at == newest.index);
    let tells = places.iter().find(|file| goes(FileId::Segment(file.segment))).expect("few live in one");
    assert!(node.disk.corrupt(&format!("snapshot-{:016x}", newest.number), newest.size / 2, 8));
    assert!(node.disk.corrupt(&format!("places-{:016x}", tells.number), tells.size - 10, 1));
    let segment = tells.segment;
    let mut node = node.restart(false);
    assert!(node.keeper.lacks_messages());
    while node.wal.manifest().released.contains(&segment) {
        node.publish(&[("t", 3)]);
        node.keep().expect("this disk takes everything");
        assert!(node.keeper.lacks_messages(), "nobody has given what the segment held");
    }
    let mut pace = |_| Ok(());
    while let Ok(Filled::Part(change)) = node.keeper.fill(&node.freeze(), &mut HasAll, &mut pace) {
        node.switch(&change, 0).expect("this disk takes everything");
    }
    let retire = node.keeper.retire_unusable(node.freeze().index);
    let complete = Change { complete: true, retire, ..Change::default() };
    node.switch(&complete, 0).expect("this disk takes everything");
    assert!(!node.keeper.lacks_messages());
    node.check();
}
