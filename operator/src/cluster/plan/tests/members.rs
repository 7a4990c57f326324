//! Situations of members that are to come or to go, each with the step that follows and the words for it.

use super::*;
use crate::cluster::observation::WaitingSeen;
use crate::cluster::plan::{ClaimMark, Named, Resized};
use crate::cluster::status::answer;
use crate::crd::{Disposal, Phase, RaftQueueStatus, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

fn id() -> ClusterId {
    cluster(7)
}

fn asked(replicas: i32) -> Asked {
    latched(replicas, id())
}

fn named(ordinal: i32) -> Named {
    Named { name: names::node("demo", ordinal), id: node_id(ordinal) }
}

/// A cluster of voters that is well, in so many pods; those beyond wait to be added.
fn with_pods(voters: i32, pods: i32) -> Observation {
    let mut seen = well(voters, id());
    let more = fresh(pods);
    for ordinal in voters..pods {
        let name = names::node("demo", ordinal);
        seen.pods.insert(name.clone(), more.pods[&name].clone());
        seen.claims.insert(name.clone(), disk(ordinal));
        membership_of(&mut seen).waiting.push(WaitingSeen { id: node_id(ordinal), name });
    }
    let set = seen.set.as_mut().unwrap();
    (set.replicas, set.made_for, set.pods) = (pods, Some(pods), pods);
    seen
}

fn membership_of(seen: &mut Observation) -> &mut Membership {
    seen.cluster.as_mut().unwrap().membership.as_mut().unwrap()
}

/// Makes learners of those that wait.
fn as_learners(seen: &mut Observation, unwell: Option<&str>) {
    let membership = membership_of(seen);
    for node in std::mem::take(&mut membership.waiting) {
        let unwell = unwell.map(str::to_owned);
        membership.members.push(MemberState {
            id: node.id,
            name: node.name,
            standing: Standing::Learner,
            unwell,
        });
    }
}

fn pods(plan: &Plan) -> i32 {
    plan.shape.as_ref().unwrap().pods
}

fn reason(plan: &Plan) -> Reason {
    found(plan, ConditionType::Ready).reason
}

#[test]
fn more_voters_come_by_two_and_the_story_is_told_ahead() {
    let plan = planned(&asked(5), &well(3, id()));
    assert_eq!((pods(&plan), plan.resized, plan.step.clone()), (5, Some(Resized { from: 3, to: 5 }), None));
    assert_eq!(
        plan.ahead,
        [
            "start demo-3 and demo-4",
            "give demo-3 and demo-4 the log, as learners",
            "make demo-3 and demo-4 voters, in one step: 5 of them then",
        ]
    );
    assert_eq!((plan.phase, reason(&plan)), (Phase::Scaling, Reason::Scaling));
    assert_eq!(plan.message, "3 voters, 5 are asked for: start demo-3 and demo-4");
    assert_eq!(found(&plan, ConditionType::Progressing).holds, Truth::True);
    assert_eq!(found(&plan, ConditionType::Degraded).holds, Truth::False);
    assert_eq!(found(&plan, ConditionType::SpecAccepted).holds, Truth::True);

    let mut seen = with_pods(3, 5);
    membership_of(&mut seen).waiting.pop();
    let plan = planned(&asked(5), &seen);
    assert_eq!((pods(&plan), plan.step.clone()), (5, None), "both come in one step");
    assert_eq!(plan.ahead[0], "wait until demo-4 runs and waits to be added");

    let mut seen = with_pods(3, 5);
    let add = Step::AddLearners { nodes: vec![named(3), named(4)], at: 7 };
    assert_eq!(planned(&asked(5), &seen).step, Some(add));
    as_learners(&mut seen, Some("it is 5000 entries behind"));
    let plan = planned(&asked(5), &seen);
    assert_eq!(plan.step, None);
    assert_eq!(
        plan.ahead[0],
        "wait until all messages are on demo-3 (it is 5000 entries behind) and demo-4 (it is 5000 entries behind)"
    );
    for member in &mut membership_of(&mut seen).members {
        member.unwell = None;
    }
    let promote = Step::Promote { nodes: vec![named(3), named(4)], at: 7 };
    assert_eq!(planned(&asked(5), &seen).step, Some(promote));
    // A cluster of one, and an even one that somebody made.
    assert_eq!(pods(&planned(&asked(9), &well(1, id()))), 3);
    assert_eq!(pods(&planned(&asked(5), &well(4, id()))), 5);
}

#[test]
fn fewer_voters_the_highest_go_first_their_pods_then_and_their_disks_only_if_asked() {
    let mut asked = asked(1);
    let plan = planned(&asked, &well(5, id()));
    let remove = Step::Remove { nodes: vec![named(4), named(3)], at: 7 };
    assert_eq!((pods(&plan), plan.step.clone()), (5, Some(remove)));
    assert_eq!(
        plan.ahead,
        [
            "remove demo-4 and demo-3 from the cluster, in one step: 3 voters then",
            "stop demo-4 and demo-3 and keep what they had on their disks",
            "remove demo-2 and demo-1 from the cluster, in one step: 1 voters then",
            "stop demo-2 and demo-1 and keep what they had on their disks",
        ]
    );
    // Removed: their pods go before anything else is removed.
    let plan = planned(&asked, &with_pods(3, 5));
    assert_eq!((pods(&plan), plan.step.clone(), plan.marks.len()), (3, None, 0));

    // Where their disks are to go, that is noted before the pods go.
    asked.spec.storage.retention.when_scaled = Disposal::Delete;
    let mut seen = with_pods(3, 5);
    let plan = planned(&asked, &seen);
    let mark = |ordinal: i32| ClaimMark {
        claim: format!("data-demo-{ordinal}"),
        uid: format!("claim-{ordinal}"),
        version: "1".into(),
        removed: true,
    };
    assert_eq!((pods(&plan), plan.marks.clone()), (5, vec![mark(3), mark(4)]));
    assert_eq!(
        plan.ahead[..4],
        [
            "note that the disks of demo-3 and demo-4 are to go",
            "stop demo-4 and demo-3",
            "delete the disk of demo-4",
            "delete the disk of demo-3"
        ]
    );
    for name in ["demo-3", "demo-4"] {
        seen.claims.get_mut(name).unwrap().removed_from = Some(id());
    }
    assert_eq!(pods(&planned(&asked, &seen)), 3);
    seen.set.as_mut().unwrap().made_for = Some(3);
    seen.set.as_mut().unwrap().replicas = 3;
    seen.pods.get_mut("demo-3").unwrap().deleting = true;
    seen.pods.remove("demo-4");
    let plan = planned(&asked, &seen);
    assert_eq!(plan.step, None, "a pod is still there");
    assert_eq!(plan.ahead[0], "wait until what is being deleted of demo-3 is gone");
    seen.pods.remove("demo-3");
    let delete = Step::DeleteDisk { claim: "data-demo-4".into(), uid: "claim-4".into(), version: "1".into() };
    assert_eq!(planned(&asked, &seen).step, Some(delete));
    // The mark of another cluster, none, or another policy: it is kept.
    for mark in [Some(cluster(8)), None] {
        let mut seen = seen.clone();
        seen.claims.retain(|name, _| name != "demo-3");
        seen.claims.get_mut("demo-4").unwrap().removed_from = mark;
        assert_eq!(
            planned(&asked, &seen).step,
            Some(Step::Remove { nodes: vec![named(2), named(1)], at: 7 })
        );
    }
    asked.spec.storage.retention.when_scaled = Disposal::Retain;
    assert_eq!(planned(&asked, &seen).step, Some(Step::Remove { nodes: vec![named(2), named(1)], at: 7 }));
}

#[test]
fn nobody_goes_while_those_that_stay_are_not_well() {
    let mut seen = well(5, id());
    membership_of(&mut seen).members[1].unwell = Some("its disk does not answer".into());
    let plan = planned(&asked(3), &seen);
    assert_eq!((plan.step.clone(), pods(&plan)), (None, 5));
    assert_eq!(plan.ahead[0], "wait until the voters that stay are well (demo-1: its disk does not answer)");
    // One that is not well and is to go holds up nothing.
    membership_of(&mut seen).members[1].unwell = None;
    membership_of(&mut seen).members[4].unwell = Some("it was not heard".into());
    assert!(matches!(planned(&asked(3), &seen).step, Some(Step::Remove { .. })));
}

#[test]
fn ordinals_are_numbers() {
    let mut seen = well(11, id());
    seen.set.as_mut().unwrap().replicas = 11;
    let plan = planned(&asked(9), &seen);
    assert_eq!(plan.step, Some(Step::Remove { nodes: vec![named(10), named(9)], at: 7 }));
}

#[test]
fn nothing_begins_while_a_change_is_under_way_or_nobody_can_say_who_is_a_member() {
    let mut seen = well(3, id());
    membership_of(&mut seen).settled = false;
    for want in [1, 5] {
        let plan = planned(&asked(want), &seen);
        assert_eq!((pods(&plan), plan.step.clone()), (3, None));
        assert_eq!(plan.ahead[0], "wait until the change of the members that is under way has ended");
    }
    seen.cluster.as_mut().unwrap().membership = None;
    let plan = planned(&asked(5), &seen);
    assert_eq!((pods(&plan), plan.step.clone(), reason(&plan)), (3, None, Reason::MembersUnknown));
    assert!(plan.message.contains("set spec.image"), "{}", plan.message);
    let plan = planned(&asked(3), &seen);
    assert_eq!(reason(&plan), Reason::AsAsked, "nothing is asked of it");
    seen.cluster = None;
    let plan = planned(&asked(5), &seen);
    assert_eq!((pods(&plan), plan.step.clone(), reason(&plan)), (3, None, Reason::NoLeader));
}

#[test]
fn a_member_that_is_none_of_the_pods_is_left_to_who_added_it() {
    let mut seen = well(3, id());
    membership_of(&mut seen).members[2].name = "mine".into();
    let plan = planned(&asked(5), &seen);
    assert_eq!((pods(&plan), plan.step.clone(), reason(&plan)), (3, None, Reason::MembersByHand));
    assert!(plan.message.contains("raftq members remove mine"), "{}", plan.message);
    assert_eq!(found(&plan, ConditionType::SpecAccepted).holds, Truth::False);
}

#[test]
fn learners_that_are_not_asked_for_any_more_go_before_their_pods() {
    let mut seen = with_pods(3, 5);
    as_learners(&mut seen, Some("it lags"));
    let plan = planned(&asked(3), &seen);
    let remove = Step::Remove { nodes: vec![named(4), named(3)], at: 7 };
    assert_eq!((pods(&plan), plan.step.clone()), (5, Some(remove)));
    assert_eq!(plan.ahead[1], "stop demo-4 and demo-3 and keep what they had on their disks");
}

/// Scaled down and up again at once: the pods still end, and their claims may, too.
#[test]
fn the_next_growth_waits_for_what_is_still_going() {
    let mut seen = with_pods(3, 5);
    let set = seen.set.as_mut().unwrap();
    (set.replicas, set.made_for) = (3, Some(3));
    for name in ["demo-3", "demo-4"] {
        seen.pods.get_mut(name).unwrap().deleting = true;
    }
    let plan = planned(&asked(5), &seen);
    assert_eq!((pods(&plan), plan.step.clone()), (3, None));
    assert_eq!(plan.ahead[0], "wait until what is being deleted of demo-3 and demo-4 is gone");
    seen.pods.retain(|name, _| !["demo-3", "demo-4"].contains(&name.as_str()));
    seen.claims.get_mut("demo-4").unwrap().deleting = true;
    let plan = planned(&asked(5), &seen);
    assert_eq!(
        (pods(&plan), plan.ahead[0].as_str()),
        (3, "wait until what is being deleted of demo-4 is gone")
    );
    // Somebody deleted it under a pod that runs: the pod goes first, and with it the claim.
    let mut kept = with_pods(3, 5);
    kept.claims.get_mut("demo-4").unwrap().deleting = true;
    assert_eq!(pods(&planned(&asked(5), &kept)), 3);
    seen.claims.remove("demo-4");
    // A disk that was to go and is wanted again is not deleted when the policy says Delete.
    seen.claims.get_mut("demo-3").unwrap().removed_from = Some(id());
    let mut deletes = asked(5);
    deletes.spec.storage.retention.when_scaled = Disposal::Delete;
    let plan = planned(&deletes, &seen);
    assert_eq!((plan.marks.len(), plan.marks[0].removed, pods(&plan)), (1, false, 3));
    seen.claims.get_mut("demo-3").unwrap().removed_from = None;
    assert_eq!(pods(&planned(&deletes, &seen)), 5);
}

/// Its disk still has the log of the member that was removed: it is told, and not added under that id.
#[test]
fn a_disk_that_comes_back_is_waited_for_until_its_node_began_anew() {
    let mut seen = with_pods(3, 5);
    membership_of(&mut seen).waiting.retain(|node| node.name != "demo-3");
    let old = member_answer(5, 3, id());
    seen.pods.get_mut("demo-3").unwrap().node = NodeSeen::Answered(NodeAnswer { ready: false, ..old });
    let plan = planned(&asked(5), &seen);
    assert_eq!(plan.step, None);
    assert_eq!(plan.ahead[0], "wait until demo-3 has set aside what it had before it was removed");
    assert_eq!(found(&plan, ConditionType::StorageReady).holds, Truth::True, "no disk is called lost");
}

/// Somebody announced itself from the same name before: only the disk that is in the pod now is added.
#[test]
fn only_the_disk_that_is_in_the_pod_is_added() {
    let mut seen = with_pods(3, 5);
    membership_of(&mut seen)
        .waiting
        .insert(0, WaitingSeen { id: "00000000000000ff".into(), name: "demo-3".into() });
    let add = Step::AddLearners { nodes: vec![named(3), named(4)], at: 7 };
    assert_eq!(planned(&asked(5), &seen).step, Some(add));
}

fn lose(seen: &mut Observation, name: &str) -> Named {
    let new = Named { name: name.to_owned(), id: format!("00000000000001{}", &name[5..]) };
    let pod = seen.pods.get_mut(name).unwrap();
    (pod.ready, pod.uid) = (false, "another".into());
    pod.node = NodeSeen::Answered(NodeAnswer { id: new.id.clone(), ..NodeAnswer::default() });
    let membership = membership_of(seen);
    membership.waiting.push(WaitingSeen { id: new.id.clone(), name: name.to_owned() });
    for member in membership.members.iter_mut().filter(|member| member.name == name) {
        member.unwell = Some("it was not heard within an election timeout".into());
    }
    new
}

#[test]
fn a_lost_disk_is_replaced_while_a_majority_of_the_others_is_well() {
    let mut seen = well(3, id());
    let new = lose(&mut seen, "demo-1");
    let plan = planned(&asked(3), &seen);
    assert_eq!(plan.step, Some(Step::AddLearners { nodes: vec![new.clone()], at: 7 }));
    assert_eq!(found(&plan, ConditionType::Degraded).reason, Reason::DiskLost);
    assert_eq!(found(&plan, ConditionType::Progressing).reason, Reason::ReplacingMember);
    assert!(plan.message.contains("goes on with the 2 of 3"), "{}", plan.message);
    as_learners(&mut seen, None);
    let replace = Step::Replace { old: named(1), new, at: 7 };
    assert_eq!(planned(&asked(3), &seen).step, Some(replace.clone()));
    // Before anything is scaled, whatever is asked.
    assert_eq!(planned(&asked(5), &seen).step, Some(replace));
    assert_eq!(
        planned(&asked(1), &seen).step,
        Some(Step::Remove {
            nodes: vec![Named { name: "demo-1".into(), id: "000000000000011".into() }],
            at: 7
        })
    );

    // Nobody is replaced by whom the others would lack a majority.
    let mut seen = well(3, id());
    lose(&mut seen, "demo-1");
    membership_of(&mut seen).members[2].unwell = Some("it lags".into());
    let plan = planned(&asked(3), &seen);
    assert_eq!(plan.step, None);
    assert!(plan.ahead[0].starts_with("wait until a majority of the others is well"), "{:?}", plan.ahead);
}

/// Its volume was put back meanwhile: the learner that was to replace it goes.
#[test]
fn a_voter_that_comes_back_is_not_replaced() {
    let mut seen = well(3, id());
    let learner = Named { name: "demo-1".into(), id: "00000000000000ee".into() };
    membership_of(&mut seen).members.push(MemberState {
        id: learner.id.clone(),
        name: learner.name.clone(),
        standing: Standing::Learner,
        unwell: Some("it was not heard".into()),
    });
    assert_eq!(planned(&asked(3), &seen).step, Some(Step::Remove { nodes: vec![learner], at: 7 }));
}

fn outdate(seen: &mut Observation, names: &[&str]) {
    for name in names {
        seen.pods.get_mut(*name).unwrap().revision = Some("demo-old".into());
    }
}

fn restart(ordinal: i32) -> Option<Step> {
    Some(Step::RestartPod { pod: names::node("demo", ordinal), uid: format!("pod-{ordinal}") })
}

#[test]
fn older_pods_are_restarted_one_at_a_time_the_leader_last() {
    let mut seen = well(3, id());
    outdate(&mut seen, &["demo-0", "demo-1", "demo-2"]);
    let plan = planned(&asked(3), &seen);
    assert_eq!((plan.step.clone(), plan.phase), (restart(2), Phase::Updating));
    assert_eq!(
        plan.ahead,
        ["restart demo-2", "restart demo-1", "have demo-0 hand over the lead, and restart it"]
    );
    assert_eq!(found(&plan, ConditionType::UpToDate).reason, Reason::OlderPods);
    assert_eq!(found(&plan, ConditionType::Degraded).holds, Truth::False);
    assert_eq!(found(&plan, ConditionType::Progressing).holds, Truth::True);

    // The first is made anew. Kubernetes calls it ready before it has caught up.
    seen.pods.get_mut("demo-2").unwrap().revision = Some("demo-new".into());
    membership_of(&mut seen).members[2].unwell = Some("it is 5000 entries behind".into());
    let plan = planned(&asked(3), &seen);
    assert_eq!(plan.step, None);
    assert_eq!(plan.ahead[0], "wait until all other nodes are well (demo-2: it is 5000 entries behind)");
    membership_of(&mut seen).members[2].unwell = None;
    assert_eq!(planned(&asked(3), &seen).step, restart(1));
    seen.pods.get_mut("demo-2").unwrap().ready = false;
    assert_eq!(planned(&asked(3), &seen).step, None);
    seen.pods.get_mut("demo-2").unwrap().ready = true;
    seen.pods.get_mut("demo-1").unwrap().revision = Some("demo-new".into());
    let from = named(0);
    assert_eq!(planned(&asked(3), &seen).step, Some(Step::HandOver { from }));
    seen.cluster.as_mut().unwrap().leader = node_id(1);
    assert_eq!(planned(&asked(3), &seen).step, restart(0));
    // Whoever leads then, nothing is older any more.
    seen.pods.get_mut("demo-0").unwrap().revision = Some("demo-new".into());
    let plan = planned(&asked(3), &seen);
    assert_eq!((plan.step.clone(), plan.ahead.len(), reason(&plan)), (None, 0, Reason::AsAsked));
}

#[test]
fn a_node_that_alone_is_not_well_is_restarted_first_and_a_single_one_at_once() {
    let mut seen = well(3, id());
    outdate(&mut seen, &["demo-0", "demo-1", "demo-2"]);
    membership_of(&mut seen).members[1].unwell = Some("its disk does not answer".into());
    assert_eq!(planned(&asked(3), &seen).step, restart(1));
    membership_of(&mut seen).members[2].unwell = Some("it lags".into());
    assert_eq!(planned(&asked(3), &seen).step, None, "two are not well");
    let mut one = well(1, id());
    outdate(&mut one, &["demo-0"]);
    assert_eq!(planned(&asked(1), &one).step, restart(0));
}

#[test]
fn nothing_is_restarted_while_members_come_or_go_or_the_template_is_not_looked_at() {
    let mut seen = well(3, id());
    outdate(&mut seen, &["demo-0", "demo-1", "demo-2"]);
    assert!(matches!(planned(&asked(1), &seen).step, Some(Step::Remove { .. })));
    assert_eq!(planned(&asked(5), &seen).step, None);
    membership_of(&mut seen).settled = false;
    assert_eq!(planned(&asked(3), &seen).step, None);
    membership_of(&mut seen).settled = true;
    seen.set.as_mut().unwrap().revision = None;
    assert_eq!(planned(&asked(3), &seen).step, None);
    seen.set.as_mut().unwrap().revision = Some("demo-new".into());
    let mut paused = asked(3);
    paused.spec.paused = true;
    let plan = planned(&paused, &seen);
    assert_eq!((plan.step, plan.ahead.len()), (None, 3), "what would be done is told");
}

#[test]
fn a_step_that_stays_the_next_one_is_overdue_until_another_is() {
    let mut seen = with_pods(3, 5);
    as_learners(&mut seen, Some("it lacks messages"));
    let step = planned(&asked(5), &seen).ahead[0].clone();
    let kept = |step: &str| Asked { step_kept: Some((step.to_owned(), 0)), ..asked(5) };
    let mut progressing = |step: &str, seconds: i64| {
        seen.step_seconds = Some(seconds);
        let plan = planned(&kept(step), &seen);
        let found = found(&plan, ConditionType::Progressing);
        (found.holds, found.reason, found.message.contains(step))
    };
    assert_eq!(progressing(&step, 599), (Truth::True, Reason::Scaling, true));
    assert_eq!(progressing(&step, 600), (Truth::False, Reason::StepOverdue, true));
    let other = progressing("another step", 600);
    assert_eq!((other.0, other.1), (Truth::True, Reason::Scaling), "its words have changed: it goes on");
    // Whoever has paused it knows why it does not go on.
    let mut paused = kept(&step);
    paused.spec.paused = true;
    let plan = planned(&paused, &seen);
    assert_ne!(found(&plan, ConditionType::Progressing).reason, Reason::StepOverdue);
    // And its time begins when the pause is over.
    let at = |second| Time(Timestamp::from_second(second).expect("a time"));
    let told = |asked: &Asked, before: &RaftQueueStatus, second| {
        answer(asked, before, Some(1), &plan, &seen, None, &at(second))
    };
    let during = told(&paused, &RaftQueueStatus::default(), 10);
    assert_eq!((during.plan.first(), during.step_since.clone()), (Some(&step), None));
    assert_eq!(told(&kept(&step), &during, 900).step_since, Some(at(900)));
}
