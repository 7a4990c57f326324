//! Situations of disks that grow, that are on machines which are gone, and of pods that nobody makes.

use super::*;
use crate::crd::Reason;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

fn id() -> ClusterId {
    cluster(7)
}

fn sized(size: &str) -> Asked {
    let mut asked = latched(3, id());
    asked.spec.storage.size = Some(Quantity(size.into()));
    asked
}

fn storage(plan: &Plan) -> (Truth, Reason, &str) {
    let found = found(plan, ConditionType::StorageReady);
    (found.holds, found.reason, &found.message)
}

fn all_serve(seen: &mut Observation) {
    seen.pods.values_mut().for_each(|pod| pod.ready = true);
}

#[test]
fn disks_grow_one_claim_after_the_other_then_the_set_is_made_anew() {
    let asked = sized("20Gi");
    let mut seen = well(3, id());
    all_serve(&mut seen);
    for ordinal in 0..3 {
        let plan = planned(&asked, &seen);
        let grow = Step::GrowClaim {
            claim: format!("data-demo-{ordinal}"),
            uid: format!("claim-{ordinal}"),
            version: "1".into(),
            size: "20Gi".into(),
        };
        assert_eq!(plan.step, Some(grow));
        assert_eq!(plan.shape.as_ref().unwrap().disk_size, "10Gi", "a claim template cannot change");
        let (holds, reason, message) = storage(&plan);
        assert_eq!((holds, reason), (Truth::False, Reason::DisksGrow));
        assert!(message.contains(&format!("data-demo-{ordinal} asks for 10Gi")), "{message}");
        seen.claims.get_mut(&names::node("demo", ordinal)).unwrap().size = Some("20Gi".into());
    }
    let mut leaving = seen.clone();
    let claim = leaving.claims.get_mut("demo-1").unwrap();
    (claim.size, claim.deleting) = (Some("10Gi".into()), true);
    assert!(!matches!(planned(&asked, &leaving).step, Some(Step::GrowClaim { .. })), "it goes anyway");
    let plan = planned(&asked, &seen);
    let remake = Step::RemakeSet { set: "demo".into(), uid: "set-1".into(), size: "20Gi".into() };
    assert_eq!(plan.step, Some(remake));
    assert!(storage(&plan).2.contains("its volume has 10Gi yet"), "{}", storage(&plan).2);
    // The set is away for a moment: it comes back for the same pods, with the same template, for the new size.
    let mut gone = seen.clone();
    gone.set = None;
    gone.cluster = None;
    gone.pods.clear();
    gone.children.remove(&Child::StatefulSet);
    gone.children.get_mut(&Child::ConfigMap).unwrap().template = Some("as it was".into());
    let shape = planned(&asked, &gone).shape.unwrap();
    assert_eq!(
        (shape.pods, shape.disk_size.as_str(), shape.template.as_deref()),
        (3, "20Gi", Some("as it was"))
    );
    // It is back.
    seen.set.as_mut().unwrap().size = Some("20Gi".into());
    let plan = planned(&asked, &seen);
    assert_eq!((plan.step.clone(), storage(&plan).1), (None, Reason::DisksGrow));
    seen.claims.values_mut().for_each(|claim| claim.capacity = Some("20Gi".into()));
    let plan = planned(&asked, &seen);
    assert_eq!((plan.step.clone(), storage(&plan).0), (None, Truth::True), "{}", storage(&plan).2);
}

#[test]
fn a_set_is_not_made_anew_while_a_pod_is_missing_or_members_come() {
    let mut asked = sized("20Gi");
    let mut seen = well(3, id());
    all_serve(&mut seen);
    seen.claims.values_mut().for_each(|claim| claim.size = Some("20Gi".into()));
    let mut missing = seen.clone();
    missing.pods.remove("demo-1");
    assert_eq!(planned(&asked, &missing).step, None);
    let mut unready = seen.clone();
    unready.pods.get_mut("demo-1").unwrap().ready = false;
    assert_eq!(planned(&asked, &unready).step, None);
    asked.spec.replicas = 5;
    assert_eq!(planned(&asked, &seen).step, None);
}

#[test]
fn disks_never_shrink_and_equal_sizes_are_no_change() {
    let mut seen = well(3, id());
    all_serve(&mut seen);
    let plan = planned(&sized("5Gi"), &seen);
    assert_eq!(plan.step, None);
    let (holds, reason, message) = storage(&plan);
    assert_eq!((holds, reason), (Truth::False, Reason::DisksCannotShrink));
    assert!(message.contains("Set it to 10Gi or leave it out"), "{message}");
    for same in ["10Gi", "10240Mi"] {
        let plan = planned(&sized(same), &seen);
        assert_eq!((plan.step.clone(), storage(&plan).1), (None, Reason::AsAsked));
    }
}

/// A cluster of three whose third pod waits for a volume on a machine that is gone, for this many seconds.
fn stranded(seconds: i64) -> Observation {
    let mut seen = well(3, id());
    all_serve(&mut seen);
    let pod = seen.pods.get_mut("demo-2").unwrap();
    (pod.ready, pod.node) = (false, NodeSeen::NotAsked);
    pod.trouble = trouble(TroubleKind::Volume, "volume node affinity conflict");
    seen.claims.get_mut("demo-2").unwrap().stranded = Some("machine-9".into());
    seen.cluster.as_mut().unwrap().membership.as_mut().unwrap().members[2].unwell =
        Some("not connected".into());
    seen.unready_seconds = Some(seconds);
    seen
}

#[test]
fn a_volume_on_a_machine_that_is_gone_is_given_up_when_all_others_have_everything() {
    let asked = latched(3, id());
    assert_eq!(planned(&asked, &stranded(29)).step, None, "the machine may only begin anew");
    let plan = planned(&asked, &stranded(30));
    let discard = Step::DiscardDisk {
        claim: "data-demo-2".into(),
        uid: "claim-2".into(),
        version: "1".into(),
        machine: Some("machine-9".into()),
    };
    assert_eq!(plan.step, Some(discard));
    assert_eq!(found(&plan, ConditionType::Ready).reason, Reason::DiskStranded);
    assert!(plan.message.contains("machine machine-9, which is gone"), "{}", plan.message);
    assert_eq!(
        plan.ahead[1..],
        [
            "give demo-2 the log, as learners",
            "let demo-2 vote with its new disk, in the place of what it had"
        ]
    );
    // The claim is on its way out: then the pod.
    let mut seen = stranded(30);
    seen.claims.get_mut("demo-2").unwrap().deleting = true;
    let uid = seen.pods["demo-2"].uid.clone();
    assert_eq!(planned(&asked, &seen).step, Some(Step::DiscardPod { pod: "demo-2".into(), uid }));
    // Another member is not well: what is on that machine may be needed.
    let mut seen = stranded(300);
    seen.cluster.as_mut().unwrap().membership.as_mut().unwrap().members[1].unwell =
        Some("it is behind".into());
    let plan = planned(&asked, &seen);
    assert_eq!(plan.step, None);
    assert!(plan.ahead[0].contains("wait until a majority of the others is well"), "{:?}", plan.ahead);
    // No leader: nobody can say what is on that machine alone.
    let mut seen = stranded(300);
    seen.cluster = None;
    assert_eq!(planned(&asked, &seen).step, None);
}

#[test]
fn a_set_that_misses_a_pod_for_long_is_touched() {
    let asked = latched(3, id());
    let mut seen = well(3, id());
    all_serve(&mut seen);
    seen.pods.remove("demo-2");
    seen.unready_seconds = Some(29);
    assert_eq!(planned(&asked, &seen).step, None);
    seen.unready_seconds = Some(30);
    let wake = Step::Wake { set: "demo".into(), uid: "set-1".into(), missing: vec!["demo-2".into()] };
    assert_eq!(planned(&asked, &seen).step, Some(wake.clone()));
    // Not without end.
    let woken = |seconds| {
        let mut seen = seen.clone();
        seen.set.as_mut().unwrap().woken_seconds = Some(seconds);
        planned(&asked, &seen).step
    };
    assert_eq!((woken(29), woken(30)), (None, Some(wake.clone())));
    // What was said of a claim that is gone by now is no reason.
    let mut told = seen.clone();
    told.set.as_mut().unwrap().complaint = Some("pvc data-demo-2 is being deleted".into());
    assert_eq!(planned(&asked, &told).step, Some(wake));
    // Kubernetes says why it makes none, or the claim is still on its way out: then a touch helps nothing.
    let mut refused = seen.clone();
    refused.set.as_mut().unwrap().complaint = Some("exceeded quota".into());
    assert_eq!(planned(&asked, &refused).step, None);
    seen.claims.get_mut("demo-2").unwrap().deleting = true;
    assert_eq!(planned(&asked, &seen).step, None);
}
