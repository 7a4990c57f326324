//! Situations, each with what is to be done and said.

use super::*;
use crate::crd::{Disposal, Phase, Reason};

/// `ConditionType=Truth/Reason` of a plan, for comparing.
fn said(plan: &Plan, about: ConditionType) -> (Truth, Reason) {
    let finding = found(plan, about);
    (finding.holds, finding.reason)
}

fn bootstrap(plan: &Plan) -> Option<Bootstrap> {
    plan.shape.as_ref().map(|shape| shape.bootstrap)
}

#[test]
fn rule_1_7_a_new_object_makes_nodes_that_form() {
    let plan = planned(&demo(3), &Observation::default());
    let shape = plan.shape.as_ref().unwrap();
    assert_eq!((shape.pods, shape.bootstrap, shape.image.as_str()), (3, Bootstrap::Form, "node:1"));
    assert_eq!((plan.step.clone(), plan.cluster_id, plan.phase), (None, None, Phase::Forming));
    assert_eq!(said(&plan, ConditionType::Ready), (Truth::False, Reason::Forming));
    assert_eq!(said(&plan, ConditionType::Degraded), (Truth::False, Reason::AsAsked));
}

#[test]
fn rule_1_7_nodes_form_until_the_cluster_is_latched_and_join_from_then_on() {
    let id = cluster(7);
    assert_eq!(bootstrap(&planned(&demo(3), &fresh(3))), Some(Bootstrap::Form));
    // Formed: the id is kept, and until the status has it nobody forms any more.
    let formed = planned(&demo(3), &well(3, id));
    assert_eq!((formed.cluster_id, bootstrap(&formed)), (Some(id), Some(Bootstrap::Join(None))));
    assert_eq!(formed.shape.as_ref().unwrap().cluster_id, Some(id), "children keep it too");
    let kept = planned(&latched(3, id), &well(3, id));
    assert_eq!((kept.cluster_id, bootstrap(&kept)), (Some(id), Some(Bootstrap::Join(Some(id)))));
    assert_eq!((kept.phase, kept.message.as_str()), (Phase::Ready, "all 3 nodes serve"));
    assert_eq!(said(&kept, ConditionType::Ready), (Truth::True, Reason::AsAsked));
    assert_eq!(said(&kept, ConditionType::Available), (Truth::True, Reason::LeaderElected));
}

#[test]
fn rule_1_7_kept_disks_with_a_quorum_are_adopted() {
    let id = cluster(7);
    let mut seen = well(3, id);
    seen.pods.get_mut("demo-2").unwrap().node = NodeSeen::NotAsked;
    seen.pods.get_mut("demo-2").unwrap().ready = false;
    let plan = planned(&demo(3), &seen);
    assert_eq!((plan.cluster_id, bootstrap(&plan)), (Some(id), Some(Bootstrap::Join(None))));
}

#[test]
fn rule_1_7_a_single_kept_disk_of_three_is_neither_adopted_nor_formed_over() {
    let id = cluster(7);
    let mut seen = fresh(3);
    seen.pods.get_mut("demo-1").unwrap().node = NodeSeen::Answered(member_answer(3, 1, id));
    // The blank nodes have other ids than the members that they replace.
    for (name, new) in [("demo-0", "00000000000000f0"), ("demo-2", "00000000000000f2")] {
        let answer = NodeAnswer { id: new.into(), ..NodeAnswer::default() };
        seen.pods.get_mut(name).unwrap().node = NodeSeen::Answered(answer);
    }
    let plan = planned(&demo(3), &seen);
    assert_eq!((plan.cluster_id, bootstrap(&plan)), (None, Some(Bootstrap::Join(None))));
    assert_eq!(said(&plan, ConditionType::Ready).1, Reason::DiskLost);
    assert_eq!(said(&plan, ConditionType::QuorumHealthy), (Truth::False, Reason::QuorumLost));
    assert_eq!(said(&plan, ConditionType::StorageReady), (Truth::False, Reason::DiskLost));
    let message = &found(&plan, ConditionType::Degraded).message;
    assert!(message.starts_with("demo-0, demo-2: the disk is empty. 1 of 3 members"), "{message}");
}

/// What is said where disks are lost is so: how many are left, whether the cluster goes on, and how one comes back.
#[test]
fn lost_disks_are_told_by_what_is_left() {
    let id = cluster(7);
    let goes_on = "goes on with the 2 of 3 members that have their disks";
    let stopped = "1 of 3 members of cluster 00000000000000000000000000000007 have their disks, and a majority is needed";
    let waits =
        "2 of 3 members of cluster 00000000000000000000000000000007 have their disks, enough for a majority";
    for (lost, leads, words) in [
        (&["demo-2"][..], true, goes_on),
        (&["demo-1", "demo-2"], false, stopped),
        (&["demo-2"], false, waits),
        (&["demo-0", "demo-1", "demo-2"], false, "its messages are gone unless"),
    ] {
        let mut seen = well(3, id);
        for name in lost {
            let pod = seen.pods.get_mut(*name).unwrap();
            pod.ready = false;
            pod.node = NodeSeen::Answered(NodeAnswer { id: format!("new {name}"), ..NodeAnswer::default() });
        }
        if !leads {
            seen.cluster = None;
        }
        let plan = planned(&latched(3, id), &seen);
        assert_eq!(said(&plan, ConditionType::StorageReady), (Truth::False, Reason::DiskLost), "{lost:?}");
        assert_eq!(said(&plan, ConditionType::Available).0, leads.into(), "{lost:?}");
        let available = &found(&plan, ConditionType::Available).message;
        assert!(!available.contains("is on their disks"), "{available}");
        let message = &found(&plan, ConditionType::Degraded).message;
        assert!(message.contains(words), "{message}");
        assert_eq!(message.contains("goes on with"), leads, "{message}");
        let first = lost[0];
        assert_eq!(message.contains("kubectl"), !leads, "it is replaced: {message}");
        for command in [
            format!(
                r#"kubectl patch pv VOLUME -p '{{"spec":{{"claimRef":{{"namespace":"shop","name":"data-{first}","uid":null,"resourceVersion":null}}}}}}'"#
            ),
            format!("kubectl delete pvc -n shop data-{first} --wait=false"),
            format!("kubectl delete pod -n shop {first}"),
        ] {
            assert_eq!(message.contains(&command), !leads, "{command}: {message}");
        }
    }
    // One that does not answer may have the only log there is: nothing is said to be gone.
    let mut seen = fresh(3);
    seen.pods.get_mut("demo-0").unwrap().node = NodeSeen::Silent("no answer within 2 s".into());
    let message = planned(&latched(3, id), &seen).message;
    assert!(message.contains("1 of 3 members") && !message.contains("are gone"), "{message}");
    // Nodes that are only away have their disks.
    let mut away = well(3, id);
    away.cluster = None;
    for name in ["demo-1", "demo-2"] {
        away.pods.remove(name);
    }
    let plan = planned(&latched(3, id), &away);
    assert_eq!(said(&plan, ConditionType::StorageReady).0, Truth::True);
    let available = &found(&plan, ConditionType::Available).message;
    assert!(available.ends_with("What was acknowledged is on their disks"), "{available}");
}

#[test]
fn a_claim_that_somebody_deleted_is_told_while_its_pod_still_keeps_it() {
    let id = cluster(7);
    let mut seen = well(3, id);
    seen.claims.get_mut("demo-1").unwrap().deleting = true;
    let plan = planned(&latched(3, id), &seen);
    assert_eq!(said(&plan, ConditionType::StorageReady), (Truth::False, Reason::DiskLeaving));
    assert_eq!(said(&plan, ConditionType::Degraded), (Truth::True, Reason::DiskLeaving));
    assert!(plan.message.starts_with("data-demo-1: somebody has deleted the claim"), "{}", plan.message);
}

/// The seed has written the first entry, and the others are bound to it: nothing is wrong.
#[test]
fn a_cluster_that_was_just_formed_is_not_called_lost() {
    let id = cluster(7);
    let mut seen = fresh(3);
    let mut first = member_answer(3, 0, id);
    first.ready = false;
    seen.pods.get_mut("demo-0").unwrap().node = NodeSeen::Answered(first);
    seen.pods.get_mut("demo-2").unwrap().node = NodeSeen::NotAsked;
    let plan = planned(&demo(3), &seen);
    assert_eq!(said(&plan, ConditionType::Ready), (Truth::False, Reason::Forming));
    assert_eq!(said(&plan, ConditionType::Available), (Truth::False, Reason::Forming));
    assert_eq!(said(&plan, ConditionType::Degraded), (Truth::False, Reason::AsAsked));
    // All call themselves ready, and only Kubernetes has not looked yet.
    let mut seen = well(3, id);
    seen.pods.values_mut().for_each(|pod| pod.ready = false);
    let plan = planned(&latched(3, id), &seen);
    assert_eq!(said(&plan, ConditionType::Degraded), (Truth::False, Reason::AsAsked));
    assert_eq!(said(&plan, ConditionType::Progressing).0, Truth::True);
    assert_eq!(said(&plan, ConditionType::Ready).0, Truth::False);
}

#[test]
fn a_blank_disk_under_a_members_name_does_not_count_for_the_quorum() {
    let id = cluster(7);
    let mut seen = well(3, id);
    seen.cluster = None;
    for name in ["demo-1", "demo-2"] {
        let blank =
            NodeAnswer { id: "00000000000000ff".into(), cluster_id: Some(id), ..NodeAnswer::default() };
        seen.pods.get_mut(name).unwrap().node = NodeSeen::Answered(blank);
    }
    assert_eq!(planned(&demo(3), &seen).cluster_id, None);
}

#[test]
fn rule_1_7_disks_of_two_clusters_stop_everything() {
    let mut seen = well(3, cluster(7));
    seen.pods.get_mut("demo-2").unwrap().node = NodeSeen::Answered(member_answer(3, 2, cluster(8)));
    seen.pods.get_mut("demo-1").unwrap().trouble = trouble(TroubleKind::Crashing, "exit code 1");
    for asked in [demo(3), latched(3, cluster(7))] {
        let plan = planned(&asked, &seen);
        assert_eq!((plan.shape.clone(), plan.step.clone(), plan.cluster_id), (None, None, None));
        assert_eq!(said(&plan, ConditionType::ForeignDisk), (Truth::True, Reason::MixedClusters));
        assert_eq!(plan.phase, Phase::ForeignDisk);
        assert!(
            plan.message.contains(&format!("demo-2 has the disk of cluster {}", cluster(8))),
            "{}",
            plan.message
        );
    }
    // One disk is enough, where the status names another cluster.
    let plan = planned(&latched(3, cluster(9)), &well(3, cluster(7)));
    assert_eq!((plan.shape, plan.step), (None, None));
}

#[test]
fn nobody_answers_and_the_latched_cluster_is_never_formed_again() {
    let id = cluster(7);
    for seen in [Observation::default(), made(3), fresh(3)] {
        let plan = planned(&latched(3, id), &seen);
        assert_eq!(bootstrap(&plan), Some(Bootstrap::Join(Some(id))));
        assert_eq!(plan.shape.unwrap().pods, 3);
    }
    let plan = planned(&latched(3, id), &fresh(3));
    assert_eq!(said(&plan, ConditionType::Ready).1, Reason::DiskLost);
    assert!(plan.message.contains("delete the RaftQueue and apply it again"), "{}", plan.message);
}

/// The status came without it: an older definition does not keep it. Nodes that are away for a moment must not be asked to form.
#[test]
fn rule_1_7_a_cluster_that_only_the_children_name_is_never_formed_again() {
    let id = cluster(7);
    for kept_on in [Child::StatefulSet, Child::ConfigMap] {
        let mut seen = made(3);
        seen.children.get_mut(&kept_on).unwrap().cluster_id = Some(id);
        let plan = planned(&demo(3), &seen);
        assert_eq!((bootstrap(&plan), plan.cluster_id), (Some(Bootstrap::Join(Some(id))), Some(id)));
        assert_eq!(plan.shape.unwrap().cluster_id, Some(id), "it stays written down");
        // That of an earlier object is none of this one's.
        seen.children.get_mut(&kept_on).unwrap().owner = Ownership::Leaving;
        assert_eq!(planned(&demo(3), &seen).cluster_id, None);
        // The status goes before.
        seen.children.get_mut(&kept_on).unwrap().owner = Ownership::Orphan;
        assert_eq!(planned(&latched(3, cluster(8)), &seen).cluster_id, Some(cluster(8)));
    }
}

#[test]
fn a_stateful_set_scaled_by_hand_is_put_right() {
    let id = cluster(7);
    for by_hand in [0, 1, 5] {
        let mut seen = well(3, id);
        seen.set.as_mut().unwrap().replicas = by_hand;
        assert_eq!(planned(&latched(3, id), &seen).shape.unwrap().pods, 3);
        // Before forming too.
        let mut seen = fresh(3);
        seen.set.as_mut().unwrap().replicas = by_hand;
        assert_eq!(planned(&demo(3), &seen).shape.unwrap().pods, 3);
    }
}

#[test]
fn a_hand_on_the_stateful_set_is_told_of_and_a_change_of_our_own_is_not() {
    let id = cluster(7);
    let mut seen = well(3, id);
    assert_eq!(planned(&latched(3, id), &seen).corrections, []);
    seen.set.as_mut().unwrap().replicas = 1;
    seen.set.as_mut().unwrap().keeps_disks = false;
    let scaled = Correction::Scaled { by_hand: 1, to: 3 };
    assert_eq!(planned(&latched(3, id), &seen).corrections, [scaled, Correction::Retention]);
    let mut paused = latched(3, id);
    paused.spec.paused = true;
    assert_eq!(planned(&paused, &seen).corrections, [], "nothing is corrected");
    // Made for one before the kept disks could be seen: the operator's own number.
    seen.set.as_mut().unwrap().made_for = Some(1);
    assert_eq!(planned(&latched(3, id), &seen).corrections, [Correction::Retention]);
}

fn owner(kind: &str, name: &str, uid: &str) -> OwnerSeen {
    OwnerSeen { kind: kind.into(), name: name.into(), uid: uid.into() }
}

/// The changes for a cluster whose first disk has these owners.
fn changes(when_deleted: Disposal, owners: &[OwnerSeen]) -> Vec<ClaimChange> {
    let id = cluster(7);
    let mut seen = well(1, id);
    seen.claims.get_mut("demo-0").unwrap().owners = owners.to_vec();
    let mut asked = latched(1, id);
    asked.spec.storage.retention.when_deleted = when_deleted;
    planned(&asked, &seen).claims
}

#[test]
fn rule_10_7_disks_go_with_the_object_only_where_it_says_so() {
    let ours = owner("RaftQueue", "demo", "uid-1");
    let change = |own, disown: &[&str]| ClaimChange {
        claim: "data-demo-0".into(),
        uid: "claim-0".into(),
        version: "1".into(),
        own,
        disown: disown.iter().map(|uid| (*uid).to_owned()).collect(),
    };
    assert_eq!(changes(Disposal::Retain, &[]), []);
    assert_eq!(changes(Disposal::Delete, &[]), [change(true, &[])]);
    assert_eq!(changes(Disposal::Delete, std::slice::from_ref(&ours)), []);
    assert_eq!(changes(Disposal::Retain, &[ours]), [change(false, &["uid-1"])], "the policy has turned");
}

#[test]
fn rule_10_7_a_claim_never_goes_with_its_set_or_its_pod() {
    let (set, pod) = (owner("StatefulSet", "demo", "set"), owner("Pod", "demo-0", "pod"));
    let other = owner("Backup", "demo", "other");
    for policy in [Disposal::Retain, Disposal::Delete] {
        let changes = changes(policy, &[set.clone(), pod.clone(), other.clone()]);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].disown, ["set", "pod"], "{policy:?}: others are left alone");
        assert_eq!(changes[0].own, policy == Disposal::Delete);
    }
}

#[test]
fn a_disk_that_goes_with_an_earlier_object_is_not_taken_over() {
    let earlier = owner("RaftQueue", "demo", "uid-0");
    assert_eq!(changes(Disposal::Retain, std::slice::from_ref(&earlier)), []);
    assert_eq!(changes(Disposal::Delete, &[earlier]), []);
    let mut seen = well(1, cluster(7));
    seen.claims.get_mut("demo-0").unwrap().deleting = true;
    let mut asked = latched(1, cluster(7));
    asked.spec.storage.retention.when_deleted = Disposal::Delete;
    assert_eq!(planned(&asked, &seen).claims, []);
    seen.claims.get_mut("demo-0").unwrap().deleting = false;
    asked.spec.paused = true;
    assert_eq!(planned(&asked, &seen).claims, [], "paused");
}

#[test]
fn a_stateful_set_deleted_by_hand_comes_back_with_the_members_it_had() {
    let id = cluster(7);
    let asked = Asked { pods_kept: 3, ..Asked { latched: Some(id), ..demo(5) } };
    assert_eq!(planned(&asked, &Observation::default()).shape.unwrap().pods, 3);
}

/// Applied anew with 1, though the disks hold three members: they are brought back whole, and then go one step at a time.
#[test]
fn a_kept_cluster_that_is_larger_than_asked_is_brought_back_before_it_shrinks() {
    let id = cluster(7);
    let mut seen = well(3, id);
    seen.set.as_mut().unwrap().made_for = Some(1);
    seen.set.as_mut().unwrap().replicas = 1;
    seen.pods.retain(|name, _| name == "demo-0");
    seen.cluster = None;
    let plan = planned(&demo(1), &seen);
    assert_eq!((plan.shape.as_ref().unwrap().pods, bootstrap(&plan)), (3, Some(Bootstrap::Join(None))));
    assert_eq!(said(&plan, ConditionType::SpecAccepted).0, Truth::True);
    assert_eq!(said(&plan, ConditionType::Ready).0, Truth::False);
    // It leads again, and is not latched yet: nothing is removed before the status names it.
    let plan = planned(&demo(1), &well(3, id));
    assert_eq!((plan.shape.as_ref().unwrap().pods, plan.step.clone()), (3, None));
    assert_eq!(said(&plan, ConditionType::Ready), (Truth::False, Reason::Forming));
}

#[test]
fn a_stuck_pod_of_an_older_template_is_replaced_and_only_that() {
    let stuck = |change: fn(&mut PodSeen)| {
        let mut seen = fresh(3);
        let pod = seen.pods.get_mut("demo-1").unwrap();
        pod.revision = Some("demo-old".into());
        pod.trouble = trouble(TroubleKind::Image, "ImagePullBackOff: not found");
        pod.node = NodeSeen::NotAsked;
        change(pod);
        planned(&demo(3), &seen).step
    };
    let expected = Step::ReplaceStuckPod { pod: "demo-1".into(), uid: "pod-1".into() };
    assert_eq!(stuck(|_| ()), Some(expected));
    assert_eq!(
        stuck(|pod| pod.revision = Some("demo-new".into())),
        None,
        "Kubernetes tries that one again itself"
    );
    assert_eq!(stuck(|pod| pod.revision = None), None);
    assert_eq!(stuck(|pod| pod.deleting = true), None);
    assert_eq!(stuck(|pod| pod.trouble = None), None, "it is on its way");
    assert_eq!(stuck(|pod| pod.ready = true), None);
    assert_eq!(stuck(|pod| pod.node = NodeSeen::Answered(NodeAnswer::default())), None, "its node runs");
}

#[test]
fn a_revision_that_kubernetes_has_not_looked_at_replaces_nothing() {
    let mut seen = fresh(3);
    seen.set.as_mut().unwrap().revision = None;
    let pod = seen.pods.get_mut("demo-1").unwrap();
    pod.revision = Some("demo-old".into());
    pod.trouble = trouble(TroubleKind::Image, "x");
    pod.node = NodeSeen::NotAsked;
    assert_eq!(planned(&demo(3), &seen).step, None);
}

#[test]
fn pods_that_do_not_run_are_told_with_what_to_do() {
    for (kind, reason, words) in [
        (
            TroubleKind::Image,
            Reason::ImageNotPulled,
            "demo-1: the image node:1 cannot be had: said. Set spec.image (without it the last one is kept)",
        ),
        (
            TroubleKind::Volume,
            Reason::VolumeUnbound,
            "demo-1: no volume for data-demo-1: said. Make a PersistentVolume",
        ),
        (TroubleKind::Placing, Reason::Unschedulable, "demo-1: no machine has room: said. Ask for less"),
        (TroubleKind::Crashing, Reason::CrashLooping, "kubectl logs -n shop demo-1 --previous"),
        (TroubleKind::Starting, Reason::ContainerNotStarted, "kubectl describe pod -n shop demo-1"),
    ] {
        let mut seen = fresh(3);
        seen.pods.get_mut("demo-1").unwrap().trouble = trouble(kind, "said.");
        let plan = planned(&demo(3), &seen);
        assert_eq!(said(&plan, ConditionType::Degraded), (Truth::True, reason));
        assert_eq!(said(&plan, ConditionType::Ready), (Truth::False, reason));
        assert!(plan.message.contains(words), "{}", plan.message);
    }
}

#[test]
fn members_that_are_away_are_told_by_what_is_left() {
    let id = cluster(7);
    for (members, away, reason, words) in [
        (5, 1, Reason::MembersNotReady, "4 of 5 nodes are ready: demo-4 has no pod yet"),
        (5, 2, Reason::QuorumAtRisk, "3 of 5 nodes are ready; one more failure would stop the cluster"),
        (3, 1, Reason::QuorumAtRisk, "2 of 3 nodes are ready; one more"),
        (3, 2, Reason::QuorumLost, "1 of 3 nodes are ready, too few to serve"),
        (1, 1, Reason::QuorumLost, "0 of 1 nodes are ready, too few to serve"),
    ] {
        let mut seen = well(members, id);
        for ordinal in members - away..members {
            seen.pods.remove(&names::node("demo", ordinal));
        }
        if reason == Reason::QuorumLost {
            seen.cluster = None;
        }
        let plan = planned(&latched(members, id), &seen);
        assert_eq!(said(&plan, ConditionType::Degraded), (Truth::True, reason), "{members} {away}");
        assert!(plan.message.starts_with(words), "{}", plan.message);
        let available = said(&plan, ConditionType::Available);
        let expected = if reason == Reason::QuorumLost {
            (Truth::False, Reason::NoLeader)
        } else {
            (Truth::True, Reason::LeaderElected)
        };
        assert_eq!(available, expected);
        assert_eq!(plan.step, None);
    }
}

#[test]
fn nodes_that_the_operator_cannot_reach_are_not_called_down() {
    let id = cluster(7);
    let mut seen = well(3, id);
    seen.cluster = None;
    for pod in seen.pods.values_mut() {
        pod.node = NodeSeen::Silent("no answer within 2 s".into());
    }
    let plan = planned(&latched(3, id), &seen);
    assert_eq!(said(&plan, ConditionType::Available), (Truth::Unknown, Reason::NotObserved));
    assert_eq!(said(&plan, ConditionType::Ready).1, Reason::NodeSilent);
    assert!(plan.message.contains("NetworkPolicy"), "{}", plan.message);
}

#[test]
fn older_pods_of_nodes_that_do_not_tell_their_members_are_named_with_the_leader_last() {
    let id = cluster(7);
    let mut seen = well(3, id);
    for pod in seen.pods.values_mut() {
        pod.revision = Some("demo-old".into());
    }
    seen.cluster.as_mut().unwrap().membership = None;
    let plan = planned(&latched(3, id), &seen);
    assert_eq!(said(&plan, ConditionType::UpToDate), (Truth::False, Reason::OlderPods));
    assert_eq!((plan.step, plan.phase), (None, Phase::Outdated));
    let message = &plan.message;
    assert!(message.starts_with("demo-1, demo-2, demo-0 were made before"), "{message}");
    assert!(
        message.contains("the leader demo-0 last. First: kubectl delete pod -n shop demo-1"),
        "{message}"
    );
}

/// A manifest without `storage` over disks that exist: nothing is to grow to a default.
#[test]
fn a_size_that_is_left_out_leaves_the_disks_as_they_are() {
    let id = cluster(7);
    let asked = latched(3, id);
    assert_eq!(asked.spec.storage.size, None);
    let small = |seen: &mut Observation| {
        seen.claims.values_mut().for_each(|claim| claim.size = Some("1Gi".into()));
        seen.claims.get_mut("demo-1").unwrap().size = Some("1200Mi".into());
    };
    let mut seen = well(3, id);
    small(&mut seen);
    seen.set.as_mut().unwrap().size = Some("1Gi".into());
    let plan = planned(&asked, &seen);
    assert_eq!(said(&plan, ConditionType::StorageReady), (Truth::True, Reason::AsAsked));
    assert_eq!((plan.shape.unwrap().disk_size.as_str(), plan.phase), ("1Gi", Phase::Ready));
    // The set was deleted by hand, and is made anew for the disks that are there.
    seen.set = None;
    assert_eq!(planned(&asked, &seen).shape.unwrap().disk_size, "1Gi");
    assert_eq!(planned(&demo(3), &Observation::default()).shape.unwrap().disk_size, "10Gi");
}

/// `kubectl rollout restart` writes into the template of the set, and goes with the set; the pods have it still.
#[test]
fn the_last_restart_is_remembered_by_the_pods_while_there_is_no_set() {
    let id = cluster(7);
    let asked = latched(3, id);
    let mut seen = well(3, id);
    let restart = |seen: &Observation| planned(&asked, seen).shape.unwrap().restarted;
    seen.set = None;
    assert_eq!(restart(&seen), None);
    // Two pods had it when the set went. The later one in time, not in letters: each machine writes its own time zone.
    for (name, moment) in [("demo-1", "2026-11-30T10:00:00+01:00"), ("demo-2", "2026-11-30T09:30:00Z")] {
        seen.pods.get_mut(name).unwrap().restarted = Some(moment.into());
    }
    assert_eq!(restart(&seen).as_deref(), Some("2026-11-30T09:30:00Z"));
    // What goes has no say, and what is no time at all counts least.
    seen.pods.get_mut("demo-2").unwrap().deleting = true;
    seen.pods.get_mut("demo-0").unwrap().restarted = Some("yesterday".into());
    assert_eq!(restart(&seen).as_deref(), Some("2026-11-30T10:00:00+01:00"));
    // A set says it itself, and kubectl alone changes that.
    seen.set = well(3, id).set;
    assert_eq!(restart(&seen), None);
}

#[test]
fn a_child_of_something_else_is_not_touched() {
    let mut seen = Observation::default();
    seen.children.insert(Child::ClientService, child(Ownership::Foreign));
    let plan = planned(&demo(3), &seen);
    assert_eq!(plan.shape, None);
    assert_eq!(said(&plan, ConditionType::SpecAccepted), (Truth::False, Reason::NameTaken));
    assert!(
        plan.message.starts_with("Service demo exists and belongs to something else"),
        "{}",
        plan.message
    );
}

/// One node has no budget, so nobody's budget is in its way. Three would have one.
#[test]
fn a_budget_of_something_else_holds_up_only_those_who_would_have_one() {
    let mut seen = Observation::default();
    seen.children.insert(Child::Budget, child(Ownership::Foreign));
    let plan = planned(&demo(1), &seen);
    assert!(plan.shape.is_some(), "{}", plan.message);
    assert_eq!(said(&plan, ConditionType::SpecAccepted).0, Truth::True);
    let plan = planned(&demo(3), &seen);
    assert_eq!(plan.shape, None);
    assert_eq!(said(&plan, ConditionType::SpecAccepted), (Truth::False, Reason::NameTaken));
}

#[test]
fn children_of_an_earlier_object_are_waited_for() {
    let mut seen = Observation::default();
    seen.children.insert(Child::StatefulSet, child(Ownership::Leaving));
    let plan = planned(&demo(3), &seen);
    assert_eq!((plan.shape.clone(), plan.next_look), (None, super::super::NextLook::Soon));
    assert_eq!(said(&plan, ConditionType::Progressing), (Truth::True, Reason::WaitingForDeletion));
    seen.children.insert(Child::StatefulSet, child(Ownership::Orphan));
    assert!(planned(&demo(3), &seen).shape.is_some(), "an orphan is taken over");
}

#[test]
fn a_spec_that_cannot_be_followed_changes_nothing() {
    let id = cluster(7);
    let mut asked = latched(3, id);
    asked.spec.config.insert("colour".into(), "red".into());
    let plan = planned(&asked, &well(3, id));
    assert_eq!((plan.shape.clone(), plan.phase), (None, Phase::Refused));
    assert_eq!(said(&plan, ConditionType::SpecAccepted), (Truth::False, Reason::ConfigRefused));
    assert_eq!(said(&plan, ConditionType::Available).0, Truth::True);
}

#[test]
fn a_paused_cluster_is_looked_at_and_left_alone() {
    let id = cluster(7);
    let mut asked = latched(3, id);
    asked.spec.paused = true;
    let plan = planned(&asked, &well(3, id));
    assert_eq!((plan.shape.clone(), plan.step.clone(), plan.phase), (None, None, Phase::Paused));
    assert_eq!(said(&plan, ConditionType::Paused), (Truth::True, Reason::PausedBySpec));
    assert_eq!(said(&plan, ConditionType::Ready).0, Truth::True);
}

#[test]
fn a_single_member_is_warned_of() {
    let id = cluster(7);
    let plan = planned(&latched(1, id), &well(1, id));
    assert_eq!(said(&plan, ConditionType::SingleMember), (Truth::True, Reason::OneMember));
    assert_eq!(said(&plan, ConditionType::Ready).0, Truth::True);
    let plan = planned(&latched(3, id), &well(3, id));
    assert!(plan.findings.iter().all(|finding| finding.about != ConditionType::SingleMember));
}

#[test]
fn the_image_is_kept_when_the_operator_brings_another() {
    let id = cluster(7);
    let newer = Asked { image_default: "node:2".into(), ..latched(3, id) };
    assert_eq!(planned(&newer, &well(3, id)).image, "node:1");
    // Also without a status, from the StatefulSet; a spec that names one wins.
    let newer = Asked { image_kept: None, ..newer };
    assert_eq!(planned(&newer, &well(3, id)).image, "node:1");
    let mut named = newer.clone();
    named.spec.image = Some("mine:3".into());
    assert_eq!(planned(&named, &well(3, id)).image, "mine:3");
    assert_eq!(planned(&newer, &Observation::default()).image, "node:2");
}
