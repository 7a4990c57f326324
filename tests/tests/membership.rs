//! Schedules of members that come and go, played through by whole clusters in the simulator; see `schedules.rs`.

use raftqueue_node::api::{Change, ChangeMembers, Reason, Request};
use raftqueue_node::replica::SnapshotSettings;
use raftqueue_tests::sim::scripted::Script;

/// So many nodes that form a cluster, and so many that wait.
fn cluster(nodes: usize, spares: u64) -> Script {
    Script::with(nodes, |plan| plan.add_spares(spares))
}

#[test]
fn of_two_administrators_at_once_the_second_is_refused() {
    let mut script = cluster(3, 2);
    let (one, other) = (script.id(3), script.id(4));
    let seen = script.members().configuration_index;
    let asked = |node: &String| ChangeMembers {
        change: Change::AddLearners(vec![node.clone()]),
        expected: Some(seen),
        force: false,
        dry: false,
    };
    let first = script.call(Request::Members(asked(&one)));
    let second = script.call(Request::Members(asked(&other)));
    let now = script.changed(first).expect("it is as of the configuration in force");
    assert!(now > seen);
    let (reason, text) = script.changed(second).unwrap_err();
    assert_eq!(reason, Reason::StaleConfiguration, "{text}");
    let members = script.members();
    assert_eq!((members.configuration_index, members.members.len()), (now, 4));
    assert_eq!(script.change(Change::AddLearners(vec![other])).map(|index| index > now), Ok(true));
    script.end();
}

#[test]
fn a_dry_call_says_what_would_be_refused_and_changes_nothing() {
    let mut script = cluster(3, 1);
    let leader = script.leader();
    let other = script.others(leader)[0];
    let before = script.members();
    let dry = |change| ChangeMembers { change, expected: None, force: false, dry: true };
    let add = dry(Change::AddLearners(vec!["node-3".into()]));
    assert_eq!(
        script.change_with(add),
        Ok(before.configuration_index),
        "a name will do where it is the only one"
    );
    let remove = dry(Change::Remove(vec![script.id(other)]));
    assert_eq!(script.change_with(remove.clone()), Ok(before.configuration_index));
    let third = script.others(leader)[1];
    script.kill(third);
    script.pass_ms(500);
    let (_, why) = script.change_with(remove).unwrap_err();
    assert!(why.contains(&format!("node-{third}: it was not heard")), "{why}");
    let (_, why) = script.change_with(dry(Change::Promote(vec!["node-9".into()]))).unwrap_err();
    assert!(why.contains("there is no learner `node-9`"), "{why}");
    assert_eq!(script.members().configuration_index, before.configuration_index);
    script.end();
}

#[test]
fn a_learner_votes_only_once_it_has_everything() {
    let mut script = cluster(3, 1);
    script.publish(&[1, 2, 3]);
    let learner = script.id(3);
    script.change(Change::AddLearners(vec![learner.clone()])).expect("it waits");
    script.cut_off(3);
    script.pass_ms(500);
    let (reason, why) = script.change(Change::Promote(vec![learner.clone()])).unwrap_err();
    assert_eq!(reason, Reason::FailedPrecondition);
    assert!(why.contains("not ready to vote: it was not heard"), "{why}");
    script.join();
    script.catch_up();
    script.pass_ms(200);
    script.change(Change::Promote(vec![learner])).expect("it has everything");
    assert_eq!(script.voters(), [0, 1, 2, 3]);
    script.end();
}

#[test]
fn nobody_goes_whom_the_others_need_unless_it_is_forced() {
    let mut script = cluster(3, 0);
    let leader = script.leader();
    let (well, dead) = (script.others(leader)[0], script.others(leader)[1]);
    script.kill(dead);
    script.pass_ms(500);
    let remove = Change::Remove(vec![script.id(well)]);
    let (reason, why) = script.change(remove.clone()).unwrap_err();
    assert_eq!(reason, Reason::FailedPrecondition);
    assert!(why.contains("too few voters would be well") && why.contains(&format!("node-{dead}")), "{why}");
    let members = script.members();
    let refusal = |node: usize| {
        let id = u64::from_str_radix(&script.id(node), 16).expect("hexadecimal");
        members.members.iter().find(|member| member.id == id).expect("a member").stop_refusal.clone()
    };
    assert!(refusal(well).is_some() && refusal(leader).is_some(), "two of three are needed");
    assert_eq!(refusal(dead), None, "the others do without it already");
    script.say("forced, it waits for the one that is dead: nothing else can commit it");
    let expected = Some(members.configuration_index);
    let forced = ChangeMembers { change: remove, expected, force: true, dry: false };
    let call = script.call(Request::Members(forced));
    script.pass_ms(300);
    assert!(!script.has_answer(call));
    script.start(dead);
    script.changed(call).expect("it is there again");
    let mut left = vec![leader, dead];
    left.sort_unstable();
    assert_eq!(script.voters(), left);
    script.end();
}

#[test]
fn a_forced_change_waits_for_nobody_that_is_gone_also_under_the_next_leader() {
    let mut script = cluster(3, 0);
    let leader = script.leader();
    let (gone, other) = (script.others(leader)[0], script.others(leader)[1]);
    script.publish(&[1]);
    script.lacks_messages(leader);
    script.lacks_messages(other);
    script.pass_ms(200);
    let change = Change::Remove(vec![script.id(gone)]);
    let asked = |force| ChangeMembers { change: change.clone(), expected: None, force, dry: false };
    let call = script.call(Request::Members(asked(true)));
    script.pass_ms(500);
    assert!(script.members().joint && !script.has_answer(call), "it may be the only one that has something");
    script.kill(gone);
    script.kill(leader);
    script.start(leader);
    script.leader();
    script.pass_ms(1_000);
    assert!(
        script.members().joint,
        "the other one still lacks something, and nobody has said so to this leader"
    );
    let (_, why) = script.change_with(asked(false)).unwrap_err();
    assert!(why.contains("under way"), "{why}");
    script.change_with(asked(true)).expect("it is gone");
    let mut left = vec![leader, other];
    left.sort_unstable();
    assert_eq!((script.voters(), script.members().joint), (left, false));
    script.end();
}

#[test]
fn nobody_goes_while_those_that_stay_get_a_snapshot() {
    let often = SnapshotSettings { bytes: 1, steps: 1, idle_ticks: 20, idle_bytes: 0 };
    let mut script = Script::with(3, |plan| plan.snapshots = often);
    let leader = script.leader();
    let away = script.others(leader)[0];
    script.cut_off(away);
    script.say("what the one that is away lacks leaves the log of the others");
    let lacks_from = script.last_index(away) + 1;
    for number in 0.. {
        script.publish(&[number]);
        script.pass_ms(50);
        if script.log_start(leader) > lacks_from {
            break;
        }
    }
    script.join();
    let refusal = (0..1_000).find_map(|_| {
        script.pass_ms(1);
        let gone = script.others(away);
        let remove = Change::Remove(gone.iter().map(|node| script.id(*node)).collect());
        let ask = ChangeMembers { change: remove, expected: None, force: false, dry: true };
        script.change_with(ask).err().map(|(_, why)| why).filter(|why| why.contains("it gets a snapshot"))
    });
    assert!(refusal.is_some_and(|why| why.contains(&format!("node-{away}: it is so far behind"))));
    script.catch_up();
    script.end();
}

#[test]
fn the_last_voter_stays() {
    let mut script = cluster(1, 0);
    let own = script.id(0);
    let (reason, why) = script.change(Change::Remove(vec![own])).unwrap_err();
    assert_eq!(reason, Reason::FailedPrecondition);
    assert!(why.contains("no voter would be left"), "{why}");
    script.end();
}

#[test]
fn a_voter_is_replaced_once_it_is_not_well() {
    let mut script = cluster(3, 1);
    let leader = script.leader();
    let old = script.others(leader)[0];
    script.publish(&[1]);
    let new = script.id(3);
    script.change(Change::AddLearners(vec![new.clone()])).expect("it waits");
    script.catch_up();
    script.pass_ms(200);
    let replace = Change::Replace { old: script.id(old), new };
    let (_, why) = script.change(replace.clone()).unwrap_err();
    assert!(why.contains("is well"), "{why}");
    script.kill(old);
    script.pass_ms(500);
    script.change(replace).expect("it is dead");
    assert!(!script.voters().contains(&old) && script.voters().contains(&3));
    script.start(old);
    script.say("the one that was replaced comes back and disturbs nobody");
    let before = script.leader();
    script.pass_ms(3_000);
    assert_eq!(script.leader(), before);
    script.publish(&[2]);
    assert_eq!(script.pop(10), [1, 2]);
    script.end();
}

#[test]
fn a_leader_that_is_removed_hands_over_and_says_that_it_is_done() {
    let mut script = cluster(3, 0);
    let leader = script.leader();
    script.publish(&[1]);
    let removed = script.change(Change::Remove(vec![script.id(leader)]));
    removed.expect("two others are well");
    let next = script.leader_after(leader);
    assert!(!script.thinks_it_leads(leader));
    script.publish(&[2]);
    assert_eq!(script.voters(), script.others(leader));
    assert_ne!(next, leader);
    assert_eq!(script.pop(10), [1, 2]);
    script.end();
}

#[test]
fn one_node_becomes_three_and_another_one_remains() {
    let mut script = cluster(1, 2);
    script.publish(&[1]);
    script.grow(&[1, 2]);
    assert_eq!(script.voters(), [0, 1, 2]);
    script.publish(&[2]);
    let leader = script.leader();
    let stays = script.others(leader)[0];
    let gone: Vec<usize> = script.others(stays);
    let ids = gone.iter().map(|node| script.id(*node)).collect();
    script.change(Change::Remove(ids)).expect("one is well");
    assert_eq!(script.leader_after(leader), stays);
    script.publish(&[3]);
    for node in gone {
        script.kill(node);
    }
    script.publish(&[4]);
    assert_eq!((script.voters(), script.pop(10)), (vec![stays], vec![1, 2, 3, 4]));
    script.end();
}

#[test]
fn a_change_outlives_its_leader_and_its_caller_is_told_that_nobody_knows() {
    let mut script = cluster(3, 1);
    script.grow(&[3]);
    let leader = script.leader();
    let others = script.others(leader);
    let gone = others[0];
    for other in &others {
        script.hang_disk(*other);
    }
    let call = script.ask_change_unseen(Change::Remove(vec![script.id(gone)]));
    script.pass_ms(50);
    script.say("the others have received the joint configuration, and the leader dies");
    script.kill(leader);
    for other in &others {
        script.unhang_disk(*other);
    }
    assert!(script.answer(call).is_unknown());
    script.leader_after(leader);
    script.start(leader);
    let is_left = |script: &mut Script| !script.members().joint;
    assert!((0..50).any(|_| is_left(&mut script)), "whoever leads leaves the joint configuration");
    script.publish(&[1]);
    assert_eq!(script.pop(10), [1]);
    script.end();
}
