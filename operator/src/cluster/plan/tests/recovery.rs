//! Situations of a cluster that has lost its quorum for good.

use super::*;
use crate::cluster::observation::RecoverySeen;
use crate::cluster::plan::Named;
use crate::crd::{Phase, Reason, Recovery};

fn id() -> ClusterId {
    cluster(7)
}

/// Three voters of which only these answer, each with what it says of itself: nobody leads.
fn left(said: &[(i32, RecoverySeen)]) -> Observation {
    let mut seen = well(3, id());
    seen.cluster = None;
    for (name, pod) in &mut seen.pods {
        pod.ready = false;
        let ordinal = names::ordinal("demo", name).unwrap();
        match said.iter().find(|(one, _)| *one == ordinal) {
            Some((_, said)) => {
                seen.recoveries.insert(name.clone(), RecoverySeen { id: node_id(ordinal), ..said.clone() });
            }
            None => pod.node = NodeSeen::NotAsked,
        }
    }
    seen
}

fn has(last_term: u64, last: u64) -> RecoverySeen {
    RecoverySeen {
        last_term,
        last,
        commit: last,
        token: format!("token-{last_term}-{last}"),
        costs: vec!["what only the others have is lost".into()],
        ..RecoverySeen::default()
    }
}

fn wishing(member: &str, token: &str) -> Asked {
    let mut asked = latched(3, id());
    asked.spec.recovery = Some(Recovery { member: member.into(), token: token.into() });
    asked
}

fn recovers(plan: &Plan) -> Option<&Named> {
    match plan.step.as_ref()? {
        Step::Recover { node, .. } => Some(node),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lost_quorum_is_told_with_what_is_left_and_nothing_is_done_about_it() {
    let plan = planned(&latched(3, id()), &left(&[(2, has(3, 57))]));
    assert_eq!((plan.step.clone(), plan.phase), (None, Phase::Unavailable));
    let offer = plan.recovery.as_ref().unwrap();
    assert_eq!((offer.node.name.as_str(), offer.token.as_str()), ("demo-2", "token-3-57"));
    let possible = found(&plan, ConditionType::RecoveryPossible);
    assert_eq!((possible.holds, possible.reason), (Truth::True, Reason::RecoveryOffered));
    for words in [
        "demo-2 (generation 0) has the log up to index 57 of term 3",
        "no other node answers",
        "what only the others have is lost",
        r#"kubectl patch raftqueue -n shop demo --type=merge -p '{"spec":{"recovery":{"member":"demo-2","token":"token-3-57"},"storage":{"discardBeforeGeneration":1}}}'"#,
        "deletes the old disks of the other nodes",
    ] {
        assert!(possible.message.contains(words), "{words}: {}", possible.message);
    }
    assert_eq!(found(&plan, ConditionType::Ready).reason, Reason::RecoveryOffered);
    assert_eq!(plan.shape.unwrap().pods, 3);
}

#[test]
fn of_several_the_one_with_most_is_offered() {
    let best = |said: &[(i32, RecoverySeen)]| {
        planned(&latched(3, id()), &left(said)).recovery.map(|offer| offer.node.name)
    };
    assert_eq!(best(&[(0, has(3, 57)), (1, has(4, 12))]).as_deref(), Some("demo-1"), "the later term");
    assert_eq!(best(&[(0, has(3, 57)), (1, has(3, 58))]).as_deref(), Some("demo-1"), "the longer log");
    assert_eq!(best(&[(0, has(3, 57)), (1, has(3, 57))]).as_deref(), Some("demo-0"), "always the same");
    let lacks = RecoverySeen { caution: Some("it lacks bodies".into()), ..has(3, 57) };
    assert_eq!(
        best(&[(0, lacks.clone()), (1, has(3, 50))]).as_deref(),
        Some("demo-1"),
        "one that lacks nothing"
    );
    assert_eq!(best(&[(0, lacks)]).as_deref(), Some("demo-0"), "it is told that it is forced");
    let cannot = RecoverySeen { refusal: Some("a leader was heard lately".into()), ..has(3, 57) };
    assert_eq!(best(&[(0, cannot)]), None);
}

#[test]
fn it_is_done_only_if_both_member_and_token_fit() {
    let seen = left(&[(1, has(3, 50)), (2, has(3, 57))]);
    let plan = planned(&wishing("demo-2", "token-3-57"), &seen);
    assert_eq!(recovers(&plan), Some(&Named { name: "demo-2".into(), id: node_id(2) }));
    let told = plan.step.as_ref().unwrap().told();
    assert!(told.is_warning && told.note.contains("what only the others have is lost"), "{told:?}");
    for (member, token) in
        [("demo-2", "token-3-56"), ("demo-1", "token-3-57"), ("demo-1", "token-3-50"), ("demo-7", "x")]
    {
        let plan = planned(&wishing(member, token), &seen);
        assert_eq!(recovers(&plan), None, "{member} {token}");
        let possible = found(&plan, ConditionType::RecoveryPossible);
        assert_eq!(possible.reason, Reason::RecoveryStale);
        assert!(possible.message.contains("nothing was done. Now:"), "{}", possible.message);
        assert!(possible.message.contains("token-3-57"), "{}", possible.message);
    }
    let mut paused = wishing("demo-2", "token-3-57");
    paused.spec.paused = true;
    assert_eq!(recovers(&planned(&paused, &seen)), None);
}

#[test]
fn nothing_is_offered_while_others_may_serve_or_lead() {
    let wish = wishing("demo-2", "token-3-57");
    let mut seen = left(&[(2, has(3, 57))]);
    let pod = seen.pods.get_mut("demo-0").unwrap();
    (pod.ready, pod.node) = (true, NodeSeen::Silent("no answer within 2 s".into()));
    let plan = planned(&wish, &seen);
    assert_eq!((plan.step.clone(), plan.recovery.clone()), (None, None), "the others may have a leader");
    let mut seen = left(&[(2, has(3, 57))]);
    seen.cluster = well(3, id()).cluster;
    let plan = planned(&wish, &seen);
    assert_eq!(plan.recovery, None);
    assert!(!matches!(plan.step, Some(Step::Recover { .. })));
}

/// It would begin another history of the same generation.
#[test]
fn a_disk_that_was_left_behind_is_never_gone_on_with() {
    let mut asked = wishing("demo-2", "token-3-57");
    asked.generation_kept = 1;
    let plan = planned(&asked, &left(&[(2, has(3, 57))]));
    assert_eq!((plan.step.clone(), plan.recovery.clone()), (None, None));
    assert_eq!(plan.generation, 1);
}

/// demo-2 went on alone; the disks of the two others are of the generation before.
fn recovered() -> Observation {
    let mut seen = well(3, id());
    let cluster = seen.cluster.as_mut().unwrap();
    (cluster.generation, cluster.leader) = (1, node_id(2));
    cluster.members.retain(|member| member.id == node_id(2));
    cluster.membership.as_mut().unwrap().members.retain(|member| member.id == node_id(2));
    if let NodeSeen::Answered(answer) = &mut seen.pods.get_mut("demo-2").unwrap().node {
        answer.generation = 1;
    }
    seen
}

#[test]
fn an_old_disk_is_kept_until_the_spec_allows_it_to_be_deleted() {
    let seen = recovered();
    for (before, words) in [(None, "somebody says so. Set"), (Some(2), "is 2, which allows none of it")] {
        // A token that was given for something else, or used up, is no consent.
        let mut asked = wishing("demo-2", "token-3-57");
        asked.spec.storage.discard_before_generation = before;
        let plan = planned(&asked, &seen);
        assert_eq!(plan.step, None, "{before:?}");
        let stored = found(&plan, ConditionType::StorageReady);
        assert_eq!((stored.holds, stored.reason), (Truth::False, Reason::DiskLeftBehind));
        for words in [
            words,
            "demo-0, demo-1: the disk is from before the cluster was forced to recover to generation 1",
            r#"kubectl patch raftqueue -n shop demo --type=merge -p '{"spec":{"storage":{"discardBeforeGeneration":1}}}'"#,
        ] {
            assert!(stored.message.contains(words), "{words}: {}", stored.message);
        }
        assert_eq!(found(&plan, ConditionType::Ready).reason, Reason::DiskLeftBehind);
        let waits =
            "wait until spec.storage.discardBeforeGeneration is 1: the old disks of demo-0 and demo-1";
        assert!(plan.ahead[0].starts_with(waits), "{:?}", plan.ahead);
        assert!(plan.ahead[1].starts_with("delete the disk of demo-0"), "{:?}", plan.ahead);
    }
}

/// Fewer nodes are asked for, and the disks of those that go are to be deleted: but not these.
#[test]
fn a_smaller_cluster_keeps_old_disks_all_the_same() {
    let mut asked = latched(1, id());
    asked.spec.storage.retention.when_scaled = crate::crd::Disposal::Delete;
    let mut seen = recovered();
    // The one that went on is demo-0, and the last disk's node does not run yet.
    let (cluster, last) = (seen.cluster.as_mut().unwrap(), node_id(2));
    for member in &mut cluster.members {
        (member.id, member.name) = (node_id(0), "demo-0".into());
    }
    for member in &mut cluster.membership.as_mut().unwrap().members {
        (member.id, member.name) = (node_id(0), "demo-0".into());
    }
    assert_eq!(cluster.leader, last);
    cluster.leader = node_id(0);
    seen.pods.get_mut("demo-2").unwrap().node = NodeSeen::NotAsked;
    let plan = planned(&asked, &seen);
    assert_eq!((plan.marks, plan.shape.unwrap().pods), (Vec::new(), 1));
    asked.spec.storage.discard_before_generation = Some(1);
    let claims: Vec<String> = planned(&asked, &seen).marks.into_iter().map(|mark| mark.claim).collect();
    assert_eq!(claims, ["data-demo-1", "data-demo-2"]);

    // One that was marked before, and whose pod is gone, waits too, and that is told.
    asked.spec.storage.discard_before_generation = None;
    let set = seen.set.as_mut().unwrap();
    (set.replicas, set.made_for, set.pods) = (1, Some(1), 1);
    seen.pods.retain(|name, _| name == "demo-0");
    seen.claims.get_mut("demo-2").unwrap().removed_from = Some(id());
    let plan = planned(&asked, &seen);
    assert_eq!(plan.step, None);
    let stored = found(&plan, ConditionType::StorageReady);
    assert!(stored.message.starts_with("data-demo-2: the disk is from before"), "{}", stored.message);
    asked.spec.storage.discard_before_generation = Some(1);
    assert!(matches!(planned(&asked, &seen).step, Some(Step::DeleteDisk { .. })));
}

#[test]
fn after_a_recovery_old_disks_are_replaced_and_the_members_come_back() {
    let mut seen = recovered();
    let mut asked = wishing("demo-2", "token-3-57");
    asked.spec.storage.discard_before_generation = Some(1);
    let plan = planned(&asked, &seen);
    let discard = Step::DiscardDisk {
        claim: "data-demo-0".into(),
        uid: "claim-0".into(),
        version: "1".into(),
        machine: None,
    };
    assert_eq!((plan.step.clone(), plan.generation), (Some(discard), 1));
    assert!(
        plan.ahead[0].contains("was left behind when the cluster was forced to recover"),
        "{:?}",
        plan.ahead
    );
    assert!(plan.ahead.last().unwrap().contains("3 of them then"), "{:?}", plan.ahead);
    seen.claims.get_mut("demo-0").unwrap().deleting = true;
    let uid = seen.pods["demo-0"].uid.clone();
    let plan = planned(&asked, &seen);
    assert_eq!(plan.step, Some(Step::DiscardPod { pod: "demo-0".into(), uid }));
    assert_ne!(
        found(&plan, ConditionType::StorageReady).reason,
        Reason::DiskLeaving,
        "nobody else deleted it"
    );
}
