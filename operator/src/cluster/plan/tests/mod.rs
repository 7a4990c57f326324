//! The planner, tried with observations made by hand: tables of situations, and whole lives of a simulated cluster.

mod disks;
mod encrypted;
mod lives;
mod members;
mod monitors;
mod recovery;
mod scaling;
mod situations;

use super::{Bootstrap, ClaimChange, Correction, Plan, Step, plan};
use crate::cluster::encryption::PodEncryption;
use crate::cluster::observation::{
    Child, ChildSeen, ClaimSeen, ClusterId, ClusterSeen, MemberSeen, NodeAnswer, NodeSeen, Observation,
    OwnerSeen, Ownership, PodSeen, SetSeen, Trouble, TroubleKind,
};
use crate::cluster::observation::{MemberState, Membership, Standing};
use crate::cluster::validate::{Asked, asked, validate};
use crate::crd::{ConditionType, Truth};
use crate::crd::{Finding, RaftQueue, RaftQueueSpec, condition};
use crate::names;

/// What a RaftQueue `demo` of this many nodes asks.
fn demo(replicas: i32) -> Asked {
    let mut object = RaftQueue::new("demo", RaftQueueSpec { replicas, ..RaftQueueSpec::default() });
    object.metadata.namespace = Some("shop".into());
    object.metadata.uid = Some("uid-1".into());
    asked(&object, "node:1")
}

fn latched(replicas: i32, id: ClusterId) -> Asked {
    Asked { latched: Some(id), pods_kept: replicas, image_kept: Some("node:1".into()), ..demo(replicas) }
}

fn cluster(number: u8) -> ClusterId {
    ClusterId::parse(&format!("{number:032x}")).expect("32 digits")
}

fn node_id(ordinal: i32) -> String {
    format!("{:016x}", 0xa0 + ordinal)
}

fn members(count: i32) -> Vec<MemberSeen> {
    (0..count)
        .map(|ordinal| MemberSeen { id: node_id(ordinal), name: names::node("demo", ordinal), voter: true })
        .collect()
}

/// A cluster of this many members in which everything is well.
fn well(count: i32, id: ClusterId) -> Observation {
    let mut seen = fresh(count);
    for ordinal in 0..count {
        let pod = seen.pods.get_mut(&names::node("demo", ordinal)).expect("it was made above");
        pod.ready = true;
        pod.node = NodeSeen::Answered(member_answer(count, ordinal, id));
    }
    seen.cluster = Some(ClusterSeen {
        id,
        generation: 0,
        leader: node_id(0),
        term: 3,
        members: members(count),
        membership: Some(membership(count)),
    });
    seen
}

fn membership(count: i32) -> Membership {
    let state = |member: MemberSeen| MemberState {
        id: member.id,
        name: member.name,
        standing: Standing::Voter,
        unwell: None,
    };
    let members = members(count).into_iter().map(state).collect();
    Membership { at: 7, settled: true, members, waiting: Vec::new() }
}

fn member_answer(count: i32, ordinal: i32, id: ClusterId) -> NodeAnswer {
    NodeAnswer {
        id: node_id(ordinal),
        cluster_id: Some(id),
        generation: 0,
        leads: ordinal == 0,
        term: 3,
        members: members(count),
        ready: true,
        not_ready_reason: String::new(),
    }
}

/// Pods that run blank nodes, with disks.
fn fresh(count: i32) -> Observation {
    let mut seen = made(count);
    for ordinal in 0..count {
        let name = names::node("demo", ordinal);
        seen.claims.insert(name.clone(), disk(ordinal));
        let answer =
            NodeAnswer { id: node_id(ordinal), not_ready_reason: "forming".into(), ..NodeAnswer::default() };
        let pod = PodSeen {
            uid: format!("pod-{ordinal}"),
            revision: Some("demo-new".into()),
            restarted: None,
            ready: false,
            deleting: false,
            trouble: None,
            encryption: PodEncryption::default(),
            address: Some(format!("10.0.0.{ordinal}")),
            node: NodeSeen::Answered(answer),
        };
        seen.pods.insert(name, pod);
    }
    seen
}

/// A child that is whose it is.
fn child(owner: Ownership) -> ChildSeen {
    ChildSeen { owner, holder: None, uid: "child-1".into(), cluster_id: None, template: None }
}

/// The claim of a node's disk.
fn disk(ordinal: i32) -> ClaimSeen {
    ClaimSeen {
        uid: format!("claim-{ordinal}"),
        version: "1".into(),
        deleting: false,
        owners: Vec::new(),
        bound: true,
        size: Some("10Gi".into()),
        capacity: Some("10Gi".into()),
        stranded: None,
        class: None,
        removed_from: None,
    }
}

/// Children without pods.
fn made(count: i32) -> Observation {
    let children = [
        Child::HeadlessService,
        Child::ClientService,
        Child::ConfigMap,
        Child::ServiceAccount,
        Child::StatefulSet,
        Child::Budget,
    ];
    Observation {
        children: children.into_iter().map(|each| (each, child(Ownership::Ours))).collect(),
        set: Some(SetSeen {
            uid: "set-1".into(),
            version: "5".into(),
            woken_seconds: None,
            replicas: count,
            generation: Some(1),
            made_for: Some(count),
            pods: count,
            template: None,
            image: Some("node:1".into()),
            size: Some("10Gi".into()),
            class: None,
            keeps_disks: true,
            revision: Some("demo-new".into()),
            complaint: None,
        }),
        ..Observation::default()
    }
}

fn trouble(kind: TroubleKind, detail: &str) -> Option<Trouble> {
    Some(Trouble { kind, detail: detail.into() })
}

fn planned(asked: &Asked, seen: &Observation) -> Plan {
    plan(asked, &validate(asked), seen)
}

fn found(plan: &Plan, about: ConditionType) -> &Finding {
    plan.findings.iter().find(|finding| finding.about == about).expect("it is always said")
}
