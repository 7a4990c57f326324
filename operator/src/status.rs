//! The status of an object: made whole from a plan and what was seen, and written whole, on every path.

use crate::crd::{
    ConditionType, Finding, MemberStatus, Phase, RaftQueue, RaftQueueStatus, Reason, Role, Truth, conclude,
};
use crate::names::{self, MANAGER};
use crate::observation::{MemberSeen, Observation, PodSeen};
use crate::plan::Plan;
use crate::validate::Asked;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// The status after a pass that saw the cluster. `failure` is what kept the children from being brought in line.
#[must_use]
pub fn answer(
    asked: &Asked,
    before: &RaftQueueStatus,
    generation: Option<i64>,
    plan: &Plan,
    seen: &Observation,
    failure: Option<&str>,
    now: &Time,
) -> RaftQueueStatus {
    let leader = leader(seen);
    let ready = seen.pods.values().filter(|pod| pod.serves()).count();
    let mut findings = plan.findings.clone();
    let (mut phase, mut message) = (plan.phase, plan.message.clone());
    match failure {
        None => findings.push(reconciled(
            true,
            Reason::AsAsked,
            "the last look at the cluster ended without an error",
        )),
        Some(failure) => {
            let message_of_failure = format!("{failure}. It is tried again by itself");
            findings.push(reconciled(false, Reason::CallFailed, &message_of_failure));
            // A cluster that cannot be kept as asked is not as asked, whatever its nodes say.
            for finding in &mut findings {
                if finding.about == ConditionType::Ready && finding.holds == Truth::True {
                    *finding = Finding {
                        about: ConditionType::Ready,
                        ..reconciled(false, Reason::CallFailed, failure)
                    };
                    phase = Phase::Degraded;
                }
            }
            message = message_of_failure;
        }
    }
    RaftQueueStatus {
        observed_generation: generation,
        phase: Some(phase),
        message: Some(message),
        conditions: conclude(&before.conditions, findings, generation, now),
        replicas: Some(seen.set.as_ref().map_or(0, |set| set.pods)),
        ready_replicas: Some(i32::try_from(ready).unwrap_or(i32::MAX)),
        selector: Some(names::as_text(&names::selector(&asked.name))),
        leader: leader.map(|(leader, _)| leader.to_owned()),
        term: leader.map(|(_, term)| i64::try_from(term).unwrap_or(i64::MAX)),
        // Once written it stays, until a person takes it out.
        cluster_id: asked.latched.or(plan.cluster_id).map(|id| id.to_string()),
        image: Some(plan.image.clone()),
        disk_size: seen.disk_size(),
        members: members(plan, seen),
    }
}

/// The status after a pass that failed before the cluster could be seen, or of an object that cannot be read: what was known
/// stays, and the conditions say that it may be old.
#[must_use]
pub fn answer_unseen(
    before: &RaftQueueStatus,
    generation: Option<i64>,
    reason: Reason,
    why: &str,
    now: &Time,
) -> RaftQueueStatus {
    let known = ConditionType::ALL.iter().filter_map(|about| earlier(&before.conditions, *about));
    let mut findings: Vec<Condition> = known.collect();
    let fresh = vec![
        Finding { about: ConditionType::Ready, ..reconciled(false, reason, why) },
        reconciled(false, reason, why),
    ];
    for condition in conclude(&before.conditions, fresh, generation, now) {
        findings.retain(|known| known.type_ != condition.type_);
        findings.push(condition);
    }
    findings.sort_by_key(|condition| {
        ConditionType::ALL.iter().position(|about| about.to_string() == condition.type_)
    });
    RaftQueueStatus {
        observed_generation: generation,
        phase: Some(if reason == Reason::NotReadable {
            Phase::Refused
        } else {
            before.phase.unwrap_or(Phase::Pending)
        }),
        message: Some(why.to_owned()),
        conditions: findings,
        ..before.clone()
    }
}

fn earlier(conditions: &[Condition], about: ConditionType) -> Option<Condition> {
    crate::crd::condition(conditions, about).cloned()
}

fn reconciled(holds: bool, reason: Reason, message: &str) -> Finding {
    Finding { about: ConditionType::Reconciled, holds: holds.into(), reason, message: message.to_owned() }
}

/// Writes the whole status; an unchanged one changes nothing.
///
/// # Errors
/// What the API server refused. The object that the status was made for is named by uid, so an object that was made anew
/// meanwhile does not get it.
pub async fn write(
    client: &Client,
    metadata: &ObjectMeta,
    status: &RaftQueueStatus,
) -> Result<(), kube::Error> {
    let name = metadata.name.as_deref().unwrap_or_default();
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    // An object that cannot be read gets its status too, so the reply is not read as one.
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<RaftQueue>(&()));
    let body = json!({
        "apiVersion": RaftQueue::api_version(&()),
        "kind": RaftQueue::kind(&()),
        "metadata": {"name": name, "namespace": namespace, "uid": metadata.uid},
        "status": status,
    });
    api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&body)).await?;
    Ok(())
}

/// The leader and its term, as the cluster itself says.
fn leader(seen: &Observation) -> Option<(&str, u64)> {
    let cluster = seen.cluster.as_ref()?;
    let leader = cluster.members.iter().find(|member| member.id == cluster.leader)?;
    Some((&leader.name, cluster.term))
}

/// Everyone who belongs to the cluster or has a pod for it, by name.
fn members(plan: &Plan, seen: &Observation) -> Vec<MemberStatus> {
    let leader = leader(seen).map(|(name, _)| name);
    let known: BTreeMap<&str, &MemberSeen> = match &seen.cluster {
        Some(cluster) => cluster.members.iter().map(|member| (member.name.as_str(), member)).collect(),
        None => BTreeMap::new(),
    };
    let names: BTreeSet<&str> = plan.nodes.iter().map(String::as_str).chain(known.keys().copied()).collect();
    let one = |name: &str| {
        let pod = seen.pods.get(name);
        let answer = pod.and_then(PodSeen::answer);
        let member = known.get(name).filter(|member| answer.is_none_or(|answer| answer.id == member.id));
        let role = match member {
            Some(_) if leader == Some(name) => Role::Leader,
            Some(member) if member.voter => Role::Follower,
            Some(_) => Role::Learner,
            None if answer.is_some_and(|answer| answer.cluster_id.is_none()) => Role::Waiting,
            None => Role::Unknown,
        };
        let id = answer.map(|answer| answer.id.clone()).or_else(|| member.map(|member| member.id.clone()));
        MemberStatus {
            name: name.to_owned(),
            id: id.filter(|id| !id.is_empty()),
            role,
            ready: pod.is_some_and(PodSeen::serves),
        }
    };
    names.into_iter().map(one).collect()
}
